// Calls counted, faults injected, findings kept.
#include "../stm_sim.h"
#include "state.h"
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <unistd.h>

namespace sim {

struct Fault {
    std::string api;
    long k;
    int code;
    bool async;
};
struct Counted {
    long calls = 0;
    Call kind = Call::Plain;
};
struct Book {
    std::vector<Fault> faults;
    std::map<std::string, Counted> calls;
    std::deque<std::string> findings;
    bool fired = false;
};
static Book &book() // never destroyed: stream threads outlive static objects
{
    static auto *b = new Book;
    return *b;
}

static bool matches(const std::string &pattern, const char *api, Call kind)
{
    if (pattern.empty() || pattern.back() != '*') return pattern == api;
    return kind == Call::Plain && strncmp(pattern.c_str(), api, pattern.size() - 1) == 0;
}

static int strike(const char *api, int usual, Call kind, bool async)
{
    for (Fault &f : book().faults) {
        if (f.async != async || f.k == 0 || !matches(f.api, api, kind)) continue;
        if (f.k > 0 && --f.k > 0) continue;
        book().fired = true;
        return f.code ? f.code : usual;
    }
    return 0;
}

int fault(const char *api, int usual_code, Call kind)
{
    Lock l;
    Counted &c = book().calls[api];
    c.calls++;
    c.kind = kind;
    return strike(api, usual_code, kind, false);
}

int async_fault(const char *what)
{
    Lock l;
    return strike(what, cudaErrorLaunchFailure, Call::Plain, true);
}

static void add_finding(const std::string &text)
{
    book().findings.push_back(text);
    if (settings().verbose) fprintf(stderr, "sim: %s\n", text.c_str());
}

void finding(const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add_finding(text);
}

// Runs when the library is unloaded, after the program's own exit handlers.
struct AtExit {
    ~AtExit()
    {
        if (!settings().at_exit) return;
        const int live = stm_sim_live("*");
        {
            Lock l;
            for (const std::string &f : book().findings) fprintf(stderr, "sim: %s\n", f.c_str());
            if (book().findings.empty() && live == 0) return;
            fprintf(stderr, "sim: %zu finding(s), %d object(s) not released\n", book().findings.size(), live);
        }
        fflush(nullptr);
        _exit(86);
    }
};
static AtExit at_exit;

} // namespace sim

using namespace sim;

extern "C" {

void stm_sim_fault(const char *api, long k, int code, int async)
{
    Lock l;
    book().faults.push_back({api, k, code, async != 0});
}

void stm_sim_fault_clear(void)
{
    Lock l;
    book().faults.clear();
    book().fired = false;
}

int stm_sim_fault_fired(void)
{
    Lock l;
    return book().fired;
}

long stm_sim_calls(const char *api)
{
    Lock l;
    long n = 0;
    for (const auto &c : book().calls)
        if (matches(api, c.first.c_str(), c.second.kind)) n += c.second.calls;
    return n;
}

const char *stm_sim_called(int i)
{
    Lock l;
    for (const auto &c : book().calls)
        if (c.second.kind == Call::Plain && i-- == 0) return c.first.c_str(); // entries of a map stay where they are
    return nullptr;
}

const char *stm_sim_take_finding(void)
{
    static thread_local std::string text;
    Lock l;
    text.clear();
    if (!book().findings.empty()) {
        text = book().findings.front();
        book().findings.pop_front();
    }
    return text.c_str();
}

int stm_sim_findings(void)
{
    Lock l;
    return static_cast<int>(book().findings.size());
}

} // extern "C"
