// Seeded mistakes: each must be found, by whom the table says. The program sim_bad makes one mistake a run; it is run in every
// order and lazily, and has to end badly and with the expected words in at least the modes named.
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
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

static const Mistake kMistakes[] = {
    // inside a block
    {"missing_barrier", Some, "wrong values"},
    {"missing_syncwarp", Some, "wrong values"},
    {"missing_barrier_at_loop_end", Tsan, "data race"},
    {"barrier_in_branch", Always, "barrier"},
    {"divergent_barrier", Always, "divergent barrier"},
    {"barrier_after_exit", Always, "reached by 100 of 128 threads"},
    {"mask_without_the_caller", Always, "leaves it out"},
    {"shuffles_at_two_places", Always, "divergent warp collective"},
    {"shuffle_against_barrier", Always, "deadlock"},
    {"shuffle_from_outside", Always, "wrong values"},
    {"shared_overrun", Always, "write past the end of copy", "out of bounds"},
    {"shared_not_initialised", Always, "wrong values"},
    {"far_overrun", Always, "illegal address", "AddressSanitizer"},
    {"near_underrun", Always, "byte -1 of an allocation of 512", "heap-buffer-overflow"},
    {"null_pointer", Always, "illegal address", "null pointer"},
    {"plain_sum_in_shared", Tsan, "data race"},
    {"blocks_race", Tsan, "data race"},
    {"grid_barrier_in_ordinary_launch", Always, "not cooperative"},
    {"waits_for_ever", Always, "endless spinning"},
    {"traps", Always, "assertion"},
    {"too_much_shared_memory", Always, "cudaErrorInvalidValue"},
    {"too_many_threads", Always, "cudaErrorInvalidConfiguration"},
    // asynchronous copies and products
    {"missing_wait_for_cp_async", Some, "wrong values"},
    {"missing_wait_for_tma", Some, "more arrivals at an mbarrier"},
    {"product_read_too_early", Always, "wrong values"},
    {"mbarrier_not_initialised", Always, "was not initialised"},
    // streams, events, memory
    {"missing_wait_between_streams", Always, "missing wait: "},
    {"event_recorded_too_early", Always, "missing wait: "},
    {"buffer_reused_too_early", Always, "missing wait: "},
    {"two_writers", Always, "missing wait: "},
    {"host_reads_result_in_flight", Always, "host access in flight"},
    {"result_read_too_early", Lazy, "wrong values"},
    {"host_writes_buffer_in_flight", Always, "host access in flight"},
    {"freed_in_flight", Always, "freed too early"},
    {"pinned_freed_in_flight", Always, "freed too early"},
    {"async_free_without_wait", Always, "missing wait: "},
    {"use_after_async_free", Always, "use after free"},
    {"use_after_free", Always, "use after free"},
    {"double_free", Always, "not allocated"},
    {"free_of_the_middle", Always, "into an allocation"},
    {"pinned_freed_as_device", Always, "of the other kind"},
    {"leak_of_memory", Always, "not freed: 64 bytes"},
    {"leak_of_stream", Always, "stream not destroyed"},
    {"leak_of_event", Always, "event not destroyed"},
    {"copy_out_of_bounds", Always, "cudaErrorInvalidValue"},
    {"copy_in_the_wrong_direction", Always, "cudaErrorInvalidValue"},
    {"event_used_after_destroy", Always, "does not exist"},
    {"stream_used_after_destroy", Always, "does not exist"},
    {"stream_of_another_device", Always, "cudaErrorInvalidResourceHandle"},
    {"event_of_another_device", Always, "cudaErrorInvalidResourceHandle"},
    {"peer_memory_without_access", Always, "without peer access"},
    {"api_call_in_host_function", Always, "cudaErrorNotPermitted"},
    // capture and graphs
    {"allocation_during_capture", Always, "cudaErrorStreamCaptureUnsupported"},
    {"synchronise_during_capture", Always, "cudaErrorStreamCaptureUnsupported"},
    {"capture_with_unjoined_stream", Always, "cudaErrorStreamCaptureUnjoined"},
    {"capture_waits_for_the_outside", Always, "cudaErrorStreamCaptureIsolation"},
    {"capture_ended_by_another_thread", Always, "cudaErrorStreamCaptureWrongThread"},
    {"branches_of_a_graph_race", Always, "missing dependency in a graph"},
    {"graph_launched_without_wait", Always, "missing wait: "},
    {"graph_uses_freed_memory", Always, "freed since its capture"},
    {"leak_of_graph", Always, "graph instance not destroyed"},
};

struct Outcome {
    int code;
    std::string text;
};
static Outcome run(const Mistake &m, const char *order, bool lazy)
{
    const std::string command = std::string("STM_SIM_SPIN_MS=100 STM_SIM_ORDER=") + order + " STM_SIM_LAZY=" + (lazy ? "1 '" : "0 '") + SIM_BAD + "' " + m.name + " 2>&1";
    Outcome o{-1, ""};
    FILE *f = popen(command.c_str(), "r");
    if (!f) return o;
    char line[4096];
    while (fgets(line, sizeof line, f)) o.text += line;
    const int status = pclose(f);
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    return o;
}
static bool found(const Mistake &m, const Outcome &o)
{
    const bool sanitizer = o.text.find("data race") != std::string::npos && SIM_SANITIZER == std::string("thread");
    const char *says = SIM_SANITIZER == std::string("address") && m.asan ? m.asan : m.says;
    return o.code != 0 && (sanitizer || o.text.find(says) != std::string::npos);
}

class SimBad : public testing::TestWithParam<Mistake> {};

TEST_P(SimBad, IsFound)
{
    const Mistake &m = GetParam();
    const std::string sanitizer = SIM_SANITIZER;
    if (m.by == Tsan && sanitizer != "thread") GTEST_SKIP() << "found by ThreadSanitizer only";
    struct Mode {
        const char *order;
        bool lazy;
    };
    std::vector<Mode> modes = {{"fwd", false}, {"fwd", true}};
    if (sanitizer.empty() || m.by == Some || m.by == Tsan) modes.insert(modes.end(), {{"rev", false}, {"rand:1", false}, {"rand:2", false}});
    int tried = 0, seen = 0;
    std::string last;
    for (const Mode &mode : modes) {
        if (m.by == Lazy && !mode.lazy) continue;
        const Outcome o = run(m, mode.order, mode.lazy);
        tried++;
        if (found(m, o)) seen++;
        else last = std::string(mode.order) + (mode.lazy ? " lazy" : "") + ": ended with " + std::to_string(o.code) + "\n" + o.text;
    }
    if (m.by == Some) EXPECT_GE(seen, 1) << last;
    else EXPECT_EQ(seen, tried) << last;
}

INSTANTIATE_TEST_SUITE_P(All, SimBad, testing::ValuesIn(kMistakes), [](const auto &one) { return std::string(one.param.name); });
