/*
 * A small run that lasts: read, a program, write in parts. Every call into the system that it makes fails once, and the disk gets
 * full at every byte of it. The run ends in bounded time with the right output or with an error that says what, and the next run of
 * the directory makes the output whole.
 */
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "small_run.h"
#include "support/sanitized.h"
#include "support/temp_dir.h"

using namespace mt;

namespace {

/* Without a program it takes no time, so that thousands of runs can be made. */
constexpr char kPlain[] = R"(stepmill: 1
name: faults
commit_interval: 0.01s
steps:
  src: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8}, extra: "", batch_size: 4}
  label: {type: template, from: src, template: "{text}{id}", output: label, cache: true, on_error: stop}
  out: {type: write_jsonl, from: label, path: sub/out.jsonl, part_rows: 5}
  packed: {type: write_jsonl, from: label, path: out.jsonl.gz}
)";
constexpr char kProgram[] = R"(stepmill: 1
name: faults
commit_interval: 0.01s
steps:
  src: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8}, extra: "", batch_size: 4}
  program: {type: command, from: src, argv: [cat], send: [id], columns: {id: int64}, outputs: {id: same}, on_error: stop}
  out: {type: write_jsonl, from: program, path: sub/out.jsonl, part_rows: 5}
  packed: {type: write_jsonl, from: program, path: out.jsonl.gz}
)";

class DurableFaults : public testing::Test {
protected:
    void SetUp() override
    {
        std::ofstream in(folder_ / "in.jsonl");
        for (int i = 0; i < 12; i++) in << "{\"id\": " << i << ", \"text\": \"row" << i * i << "\"}\n";
        in.close();
    }
    void use(const char *pipeline)
    {
        pipeline_ = pipeline;
        fs::remove_all(folder_ / "reference");
        const End end = go("reference");
        ASSERT_EQ(end.state, MILL_RUN_DONE) << end.message;
        want_ = outputs(folder_ / "reference");
        ASSERT_EQ(want_.size(), 4u); /* three parts and a file */
    }

    End go(const std::string &run, const std::function<void()> &arm = nullptr) { return run_once(pipeline_, folder_, run, arm); }

    /* The run that met the fault, then the one that mends it. */
    void judge(const End &end)
    {
        if (end.start == MILL_OK && end.state == MILL_RUN_DONE) {
            EXPECT_EQ(end.code, 0);
            EXPECT_EQ(outputs(folder_ / "run"), want_);
            right_++;
        } else {
            EXPECT_TRUE(end.fired) << end.message;
            EXPECT_NE(end.message, "") << "start " << end.start << ", state " << end.state;
            for (const auto &file : outputs(folder_ / "run")) {
                ASSERT_TRUE(want_.count(file.first)) << file.first;
                if (file.first.find(".gz") != std::string::npos) continue; /* not to be compared as long as it is compressed */
                EXPECT_EQ(want_[file.first].compare(0, file.second.size(), file.second), 0)
                    << file.first << " has what it should not have";
            }
        }
        const End again = go("run");
        EXPECT_EQ(again.start, MILL_OK) << again.message << "; before: " << end.message;
        EXPECT_EQ(again.state, MILL_RUN_DONE) << again.message << "; before: " << end.message;
        EXPECT_EQ(again.code, 0);
        EXPECT_EQ(outputs(folder_ / "run"), want_) << "before: " << end.message;
    }

    int64_t every(Call which)
    {
        const int64_t stride = which == kMalloc && getenv("STEPMILL_ALL_FAULTS") == nullptr ? 4 : 1; /* all of them take a minute */
        int64_t points = 0;
        for (int64_t k = 0;; k += stride) {
            SCOPED_TRACE(std::string(kCallNames[which]) + " " + std::to_string(k));
            fs::remove_all(folder_ / "run");
            const End end = go("run", [=] { fail_call(which, k); });
            judge(end);
            if (!end.fired) return points;
            points++;
            if (HasFailure()) return points;
        }
    }

    const char *pipeline_ = nullptr;
    TempDir dir_;
    fs::path folder_{dir_.path()};
    Files want_;
    int64_t right_ = 0;
};

} // namespace

TEST_F(DurableFaults, EveryCallFails)
{
    const std::pair<const char *, std::vector<Call>> kLoops[] = {{kPlain, {kOpen, kRead, kWrite, kSync, kRename, kMalloc}},
                                                                 {kProgram, {kRead, kPipe, kFork}}};
    for (const auto &loop : kLoops) {
        use(loop.first);
        for (Call which : loop.second) {
            if (which == kMalloc && kSanitized) continue; /* see calls.cc */
            right_ = -1; /* the last one meets no fault */
            const int64_t points = every(which);
            EXPECT_GT(points, 0) << kCallNames[which];
            printf("%s: %lld points, %lld of them with the right output at once\n", kCallNames[which],
                   static_cast<long long>(points), static_cast<long long>(right_));
            if (HasFailure()) return;
        }
    }
}

/* And it stays full until the run has ended. */
TEST_F(DurableFaults, TheDiskIsFullAtEveryByte)
{
    use(kPlain);
    int64_t total = 0, points = 0;
    go("whole", [] { fill_disk(INT64_MAX / 2); });
    total = bytes_written();
    ASSERT_GT(total, 1000);
    for (int64_t at = 0; at < total; at += total / 151 + 1, points++) {
        SCOPED_TRACE("full after " + std::to_string(at) + " of " + std::to_string(total) + " bytes");
        fs::remove_all(folder_ / "run");
        judge(go("run", [=] { fill_disk(at); }));
        if (HasFailure()) return;
    }
    printf("disk full at %lld places of %lld bytes\n", static_cast<long long>(points), static_cast<long long>(total));
}
