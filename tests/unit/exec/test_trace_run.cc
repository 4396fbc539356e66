/* A traced run: every batch is in the file, where and when it was handled, and the file can be read. */
#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "support/pipe.h"
extern "C" {
#include "core/tree.h"
#include "trace/tracer.h"
}

using namespace mt;

namespace {

struct File {
    std::string path = "/tmp/stepmill-trace-" + std::to_string(getpid()) + ".json";
    ~File() { unlink(path.c_str()); }
    std::string read() const
    {
        std::ifstream in(path);
        std::stringstream all;
        all << in.rdbuf();
        return all.str();
    }
};

struct Spans {
    std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> tracks; /* by pid, tid: begin, end */
    std::map<std::string, int64_t> batches, rows;                                 /* by step, on the tracks of replicas */
    int waits = 0;
    int64_t dropped = -1;
};

Spans parse(const std::string &text)
{
    Spans s;
    stm_tree_doc *doc = nullptr;
    const stm_tree *root = nullptr;
    EXPECT_EQ(stm_tree_parse(text.data(), text.size(), &doc, &root), MILL_OK) << "valid JSON";
    for (const stm_tree *e = root != nullptr ? root->first : nullptr; e != nullptr; e = e->next) {
        const std::string name = stm_tree_text(e, "name");
        const stm_tree *args = stm_tree_get(e, "args");
        const int pid = (int)stm_tree_whole(e, "pid", -1), tid = (int)stm_tree_whole(e, "tid", -1);
        EXPECT_GE(pid, 0);
        EXPECT_GE(tid, 0);
        if (name == "dropped_events") s.dropped = stm_tree_whole(args, "events", -1);
        if (std::string(stm_tree_text(e, "ph")) != "X") continue;
        const double ts = stm_tree_number(e, "ts", -1), dur = stm_tree_number(e, "dur", -1);
        EXPECT_GE(ts, 0);
        EXPECT_GE(dur, 0);
        s.tracks[{pid, tid}].push_back({ts, ts + dur});
        s.waits += name == "waits";
        if (pid >= 10 && args != nullptr) {
            s.batches[name] += stm_tree_whole(args, "batches", 0);
            s.rows[name] += stm_tree_whole(args, "rows", 0);
        }
    }
    stm_tree_destroy(&doc);
    return s;
}

} // namespace

TEST(TraceRun, EveryBatchIsThereOnce)
{
    File file;
    stm_tracer *tracer = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_tracer_create(file.path.c_str(), &tracer, &err), MILL_OK) << err.msg;
    {
        Pipe p;
        p.tracer = tracer;
        Behaviour slow;
        slow.flags = MILL_BLOCKS;
        slow.process = [](mill_replica *, mill_batch *const *, size_t, mill_emit *out, mill_error *e) {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
            return mill_emit_pass(out, e);
        };
        Pipe::Opts two;
        two.replicas = 2;
        p.source("src", 8000, 10);
        p.add("pass", MILL_STEP, {{"src"}}, Behaviour());
        p.add("slow", MILL_STEP, {{"pass"}}, slow, two);
        p.sink("out", "slow");
        ASSERT_EQ(p.run(60), STM_END_DONE);
        p.destroy();
    }
    ASSERT_EQ(stm_tracer_finish(tracer, &err), MILL_OK) << err.msg;
    EXPECT_EQ(stm_tracer_dropped(tracer), 0);
    stm_tracer_destroy(&tracer);
    const Spans s = parse(file.read());
    EXPECT_EQ(s.dropped, 0);
    for (const char *step : {"src", "pass", "slow", "out"}) {
        EXPECT_EQ(s.batches.at(step), 800) << step;
        EXPECT_EQ(s.rows.at(step), 8000) << step;
    }
    EXPECT_GT(s.waits, 0) << "threads of `slow` wait at least once";
    for (const auto &track : s.tracks) {
        auto spans = track.second;
        std::sort(spans.begin(), spans.end());
        for (size_t i = 1; i < spans.size(); i++)
            ASSERT_GE(spans[i].first, spans[i - 1].second - 0.002) << "a thread, and a replica, does one thing at a time";
    }
}

TEST(TraceRun, AFullRingDropsAndCounts)
{
    File file;
    stm_tracer *t = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_tracer_create(file.path.c_str(), &t, &err), MILL_OK);
    ASSERT_EQ(stm_tracer_place(t, 0, "a \"step\"", true), MILL_OK);
    stm_ring *r = stm_tracer_join(t, "thread");
    ASSERT_NE(r, nullptr);
    const stm_event e = {1, 2, 0, 0, 1, 1};
    for (unsigned i = 0; i < STM_RING_EVENTS + 7; i++) stm_ring_put(r, &e);
    EXPECT_EQ(stm_tracer_dropped(t), 7);
    stm_tracer_drain(t);
    stm_ring_put(r, &e);
    ASSERT_EQ(stm_tracer_finish(t, &err), MILL_OK);
    stm_tracer_destroy(&t);
    const Spans s = parse(file.read());
    EXPECT_EQ(s.batches.at("a \"step\""), (int64_t)STM_RING_EVENTS + 1);
    EXPECT_EQ(s.dropped, 7);
}

/* One writes, one reads, all the time: nothing is torn, lost or doubled but what is counted. */
TEST(TraceRun, WriterAndReaderDoNotMeet)
{
    File file;
    stm_tracer *t = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_tracer_create(file.path.c_str(), &t, &err), MILL_OK);
    ASSERT_EQ(stm_tracer_place(t, 0, "s", true), MILL_OK);
    constexpr int64_t kEvents = 30000;
    std::thread writer([&] {
        stm_ring *r = stm_tracer_join(t, "writer");
        for (int64_t i = 1; i <= kEvents; i++) {
            const stm_event e = {(uint64_t)i, (uint64_t)i, 0, 0, 1, 2};
            stm_ring_put(r, &e);
        }
    });
    for (int i = 0; i < 50; i++) stm_tracer_drain(t);
    writer.join();
    ASSERT_EQ(stm_tracer_finish(t, &err), MILL_OK);
    const int64_t dropped = stm_tracer_dropped(t);
    stm_tracer_destroy(&t);
    const Spans s = parse(file.read());
    EXPECT_EQ(s.batches.at("s") + dropped, kEvents);
    EXPECT_EQ(s.rows.at("s"), 2 * s.batches.at("s"));
}
