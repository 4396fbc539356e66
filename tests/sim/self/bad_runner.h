// Seeded mistakes: how a table of them is run. The including file has kMistakes, and instantiates SimBad with it; SIM_BAD is the
// program that makes one mistake a run.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
#include <regex>
#include <string>
#include <sys/wait.h>
#include <vector>

// By whom. Always: in every mode; Some: in one at least; Lazy: in lazy mode; Tsan: only in a build with ThreadSanitizer.
enum By { Always, Some, Lazy, Tsan };
struct Mistake {
    const char *name;
    By by;
    const char *says;           // in the output, for the modes above
    const char *asan = nullptr; // what the build with AddressSanitizer says instead
};

struct Outcome {
    int code;
    std::string text;
};
inline Outcome run(const Mistake &m, const char *order, bool lazy)
{
    const std::string command = std::string("STM_SIM_SPIN_MS=100 STM_SIM_NCCL_HANG_MS=400 STM_SIM_ORDER=") + order +
                                " STM_SIM_LAZY=" + (lazy ? "1 '" : "0 '") + SIM_BAD + "' " + m.name + " 2>&1";
    Outcome o{-1, ""};
    FILE *f = popen(command.c_str(), "r");
    if (!f) return o;
    char line[4096];
    while (fgets(line, sizeof line, f)) o.text += line;
    const int status = pclose(f);
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    return o;
}
/* A pair of operations that nothing orders is told with the place of either, in the program's own source. */
inline bool names_both_sites(const std::string &text)
{
    static const std::string site = "\\[[^\\]]* called by [^\\]]* at bad_[a-z]+\\.cc:[0-9]+[^\\]]*\\]";
    static const std::regex pair(site + " (without waiting for|and) " + site);

    return std::regex_search(text, pair);
}
inline bool is_of_a_pair(const std::string &says)
{
    for (const char *kind :
         {"missing wait: ", "missing dependency in a graph", "host access in flight", "freed too early", "given back too early"})
        if (says.compare(0, std::string(kind).size(), kind) == 0) return true;
    return false;
}
inline bool found(const Mistake &m, const Outcome &o)
{
    const bool reports = o.text.find("data race") != std::string::npos || o.text.find("heap-use-after-free") != std::string::npos;
    const bool sanitizer = reports && SIM_SANITIZER == std::string("thread");
    const char *says = SIM_SANITIZER == std::string("address") && m.asan ? m.asan : m.says;
    return o.code != 0 &&
           (sanitizer || (o.text.find(says) != std::string::npos && (!is_of_a_pair(says) || names_both_sites(o.text))));
}

class SimBad : public testing::TestWithParam<Mistake> {};

TEST_P(SimBad, IsFound)
{
    const Mistake &m = GetParam();
    const std::string sanitizer = SIM_SANITIZER;
    if (m.by == Tsan && sanitizer != "thread") GTEST_SKIP() << "found by ThreadSanitizer only";
    if (sanitizer == "thread" && m.asan) GTEST_SKIP() << "what ends the process or overruns is the plain and the ASan build's";
    struct Mode {
        const char *order;
        bool lazy;
    };
    std::vector<Mode> modes = {{"fwd", false}, {"fwd", true}};
    if (sanitizer.empty() || m.by == Some || m.by == Tsan)
        modes.insert(modes.end(), {{"rev", false}, {"rand:1", false}, {"rand:2", false}});
    int tried = 0, seen = 0;
    std::string last;
    for (const Mode &mode : modes) {
        if (m.by == Lazy && !mode.lazy) continue;
        const Outcome o = run(m, mode.order, mode.lazy);
        tried++;
        if (found(m, o)) seen++;
        else last = std::string(mode.order) + (mode.lazy ? " lazy" : "") + ": ended with " + std::to_string(o.code) + "\n" + o.text;
    }
    if (m.by == Some || m.by == Tsan) EXPECT_GE(seen, 1) << last;
    else EXPECT_EQ(seen, tried) << last;
}
