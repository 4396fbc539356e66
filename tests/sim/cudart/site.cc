// Where a call came from: the function's name and up to four return addresses, put into words only when a finding needs them.
#include "state.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <dlfcn.h>
#include <pthread.h>

namespace sim {

struct StackBounds {
    uintptr_t low = 0, high = 0;
    StackBounds()
    {
        pthread_attr_t attr;
        void *base = nullptr;
        size_t bytes = 0;
        if (pthread_getattr_np(pthread_self(), &attr) != 0) return;
        pthread_attr_getstack(&attr, &base, &bytes);
        pthread_attr_destroy(&attr);
        low = reinterpret_cast<uintptr_t>(base);
        high = low + bytes;
    }
};

// Follows saved frame pointers; a caller built without them ends the walk (the address is then no frame above the last).
Site site_at(const char *what, void *const *frame)
{
    static thread_local const StackBounds stack;
    Site site;
    site.what = what;
    for (void *&pc : site.pc) {
        const uintptr_t at = reinterpret_cast<uintptr_t>(frame);
        if (at < stack.low || at + 16 > stack.high || at % 8 != 0) break;
        pc = frame[1];
        void *const *up = static_cast<void *const *>(frame[0]);
        if (up <= frame) break;
        frame = up;
    }
    return site;
}

const char *intern(const std::string &text)
{
    static auto *texts = new std::set<std::string>;
    Lock l;
    return texts->insert(text).first->c_str();
}

// "function at file:line" for each address in one object, by one run of addr2line; "" where it knows nothing.
static std::vector<std::string> source_lines(const Dl_info &where, const std::vector<void *> &pcs)
{
    std::string command = std::string("addr2line -sfCpe '") + where.dli_fname + "'";
    char text[1024];
    for (void *pc : pcs) {
        snprintf(text, sizeof text, " %#zx",
                 static_cast<size_t>(static_cast<char *>(pc) - static_cast<char *>(where.dli_fbase)) - 1);
        command += text;
    }
    std::vector<std::string> lines;
    FILE *f = popen((command + " 2>/dev/null").c_str(), "r");
    while (f && fgets(text, sizeof text, f)) {
        text[strcspn(text, "\n")] = 0;
        const std::string line = text;
        lines.push_back(line.find("??") != std::string::npos ? "" : line.substr(0, line.find(" (discriminator")));
    }
    if (f) pclose(f);
    lines.resize(pcs.size());
    return lines;
}

static std::string symbol(const Dl_info &where)
{
    if (!where.dli_sname) return "";
    int status = 0;
    char *plain = abi::__cxa_demangle(where.dli_sname, nullptr, nullptr, &status);
    const std::string text = plain ? plain : where.dli_sname;
    free(plain);
    return text;
}

// Remembered: the same places come up again and again.
static std::string line_of(void *pc, const Site &site)
{
    static auto *known = new std::map<void *, std::string>;
    auto it = known->find(pc);
    if (it != known->end()) return it->second;
    Dl_info where = {};
    if (!dladdr(pc, &where) || !where.dli_fname) return "";
    std::vector<void *> same;
    for (void *other : site.pc) {
        Dl_info there = {};
        if (other && dladdr(other, &there) && there.dli_fbase == where.dli_fbase) same.push_back(other);
    }
    const std::vector<std::string> lines = source_lines(where, same);
    for (size_t i = 0; i < same.size(); i++) {
        Dl_info there = {};
        dladdr(same[i], &there);
        (*known)[same[i]] = lines[i].empty() ? symbol(there) : lines[i];
    }
    return (*known)[pc];
}

std::string describe(const Site &site)
{
    std::string text = site.what;
    for (void *pc : site.pc) {
        if (!pc) break;
        const std::string line = line_of(pc, site);
        if (line.empty() || line.rfind("stm_sim::", 0) == 0) continue; // the shim's launch
        if (line.rfind("testing::", 0) == 0 || line.find(" testing::") != std::string::npos || line.rfind("__libc_", 0) == 0) break;
        text += text == site.what ? " called by " : " < ";
        text += line;
    }
    return text;
}

} // namespace sim
