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

static std::string source_line(const Dl_info &where, void *pc)
{
    char command[1024], line[512] = "";
    snprintf(command, sizeof command, "addr2line -sfCpe '%s' %#zx 2>/dev/null", where.dli_fname,
             static_cast<size_t>(static_cast<char *>(pc) - static_cast<char *>(where.dli_fbase)) - 1);
    FILE *f = popen(command, "r");
    if (!f) return "";
    if (!fgets(line, sizeof line, f)) line[0] = 0;
    pclose(f);
    line[strcspn(line, "\n")] = 0;
    return strstr(line, "??") ? "" : line;
}

std::string describe(const Site &site)
{
    std::string text = site.what;
    for (void *pc : site.pc) {
        if (!pc) break;
        Dl_info where = {};
        if (!dladdr(pc, &where) || !where.dli_fname) continue;
        std::string line = source_line(where, pc);
        if (line.empty() && where.dli_sname) {
            int status = 0;
            char *plain = abi::__cxa_demangle(where.dli_sname, nullptr, nullptr, &status);
            line = plain ? plain : where.dli_sname;
            free(plain);
        }
        if (line.empty()) continue;
        text += text == site.what ? " called by " : " < ";
        text += line;
    }
    return text;
}

} // namespace sim
