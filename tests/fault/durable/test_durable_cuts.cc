/*
 * The power goes after every single change that a run made on the disk: to its journal, its segments, its outputs, their folders.
 * What was not synced by then is dropped, or torn; of names, too, any may be lost. The same command then makes the output that an
 * undisturbed run writes, byte for byte, and what had been committed is not done again.
 */
#include <gtest/gtest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "small_run.h"
#include "support/by_hand.h"
#include "support/temp_dir.h"

using namespace mt;

namespace {

constexpr int kRows = 300, kBatch = 3;
constexpr char kPipeline[] = R"(stepmill: 1
name: cuts
max_errors: 5
commit_interval: 0.01s
steps:
  src: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8}, extra: "", batch_size: 3}
  label: {type: template, from: src, template: "{text}{id}", output: label, nulls: pass}
  out: {type: write_jsonl, from: label, path: sub/deep/out.jsonl, part_rows: 40, errors: true}
)";
constexpr char kMore[] = R"(  some: {type: filter, from: label, where: "id % 7 != 3", nulls: pass}
  packed: {type: write_jsonl, from: some, path: out.jsonl.gz, part_rows: 50}
)";

/* What a power cut leaves of the folder: a file is there if all folders above it are. */
void lay_down(Disk *disk, const fs::path &folder)
{
    fs::remove_all(folder / "run");
    for (const auto &n : disk->names) { /* a folder before what is in it */
        const std::string above = Disk::folder_of(n.first);
        if (!above.empty() && !fs::is_directory(folder / above)) continue;
        if (disk->is_folder(n.second))
            fs::create_directory(folder / n.first);
        else
            std::ofstream(folder / n.first, std::ios::binary) << disk->contents(n.first);
    }
}

class Cuts : public testing::Test {
protected:
    void TearDown() override { note_no_changes(); }
    void use(int rows, const std::string &pipeline)
    {
        pipeline_ = pipeline;
        std::ofstream in(folder_ / "in.jsonl");
        for (int i = 0; i < rows; i++)
            if (i % 100 == 55)
                in << "{broken\n";
            else
                in << "{\"id\": " << i << ", \"text\": \"row" << i * i << "\"}\n";
        in.close();
        const End end = go("reference");
        ASSERT_EQ(end.state, MILL_RUN_DONE) << end.message;
        ASSERT_EQ(end.code, 0);
        want_ = outputs(folder_ / "reference");
        want_errors_ = contents(folder_ / "reference/errors.jsonl");
        ASSERT_NE(want_errors_, "");
    }
    End go(const std::string &run) const { return run_once(pipeline_.c_str(), folder_, run); }
    /* Names of files that are not as they should be. */
    std::string differ(const Files &got) const
    {
        std::string names;
        for (const auto &f : want_)
            if (got.count(f.first) == 0)
                names += f.first + " is missing; ";
            else if (got.at(f.first) != f.second)
                names += f.first + " has " + std::to_string(got.at(f.first).size()) + " bytes, not " +
                         std::to_string(f.second.size()) + ", or others; ";
        for (const auto &f : got)
            if (want_.count(f.first) == 0) names += f.first + " is too much; ";
        return names;
    }
    /* Of the rows in.jsonl has, @p acked had been committed with all that comes of them. */
    void judge(const std::vector<Disk::Op> &log, size_t n, Cut how, int64_t acked, int64_t rows)
    {
        lay_down(Disk::cut(log, n, how, static_cast<uint32_t>(n)).get(), folder_);
        const End end = go("run");
        EXPECT_EQ(end.start, MILL_OK) << end.message;
        EXPECT_EQ(end.state, MILL_RUN_DONE) << end.message;
        EXPECT_EQ(end.code, 0);
        EXPECT_EQ(differ(outputs(folder_ / "run")), "");
        EXPECT_EQ(contents(folder_ / "run/errors.jsonl"), want_errors_);
        EXPECT_LE(end.rows_in, rows - acked + 3 * kBatch) << acked << " rows had been committed";
        partial_ += end.rows_in > 0 && end.rows_in < rows;
    }

    std::string pipeline_;
    TempDir dir_;
    fs::path folder_{dir_.path()};
    Files want_;
    std::string want_errors_;
    int64_t partial_ = 0;
};

} // namespace

/* Made by hand, burst by burst, so that a commit comes after every batch. */
TEST_F(Cuts, AfterEveryChangeOfAHundredBatches)
{
    use(kRows, kPipeline);
    mill_error err = {};
    mill_pipeline *p = nullptr;
    stm_run *run = nullptr;
    std::vector<int64_t> acked; /* by number of changes: rows that a commit which had returned has */
    int commits = 0;
    const std::string dir = (folder_ / "run").string();

    note_changes(folder_.string());
    ASSERT_EQ(mkdir(dir.c_str(), 0777), 0);
    const int above = open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_EQ(fsync(above), 0);
    close(above);
    ASSERT_EQ(mill_pipeline_parse(kPipeline, strlen(kPipeline), "small.yaml", folder_.c_str(), &p, &err), MILL_OK) << err.msg;
    ASSERT_EQ(mt_hand_open(p, dir.c_str(), &run, &err), MILL_OK) << err.msg;
    int64_t done = 0;
    for (bool any = true; any && !mt_hand_done(run); commits++) {
        any = false;
        for (int32_t i = 0; i < mt_hand_stations(run); i++)
            if (mt_hand_runnable(run, i)) {
                mt_hand_burst(run, i);
                any = true;
            }
        any = any || mt_hand_unstall(run);
        acked.resize(changes_noted().size() + 1, done);
        mt_hand_commit(run);
        ASSERT_FALSE(mt_hand_failed(run, &err)) << err.msg;
        acked.resize(changes_noted().size(), done); /* a cut behind the last change is after the return */
        done = mt_hand_rows(run, "out");
    }
    ASSERT_TRUE(mt_hand_done(run));
    ASSERT_EQ(done, kRows);
    const std::vector<Disk::Op> log = changes_noted();
    acked.resize(log.size() + 1, done);
    note_no_changes();
    stm_run_destroy(&run);
    mill_pipeline_destroy(&p);
    ASSERT_GE(commits, kRows / kBatch) << "a commit after every batch";
    ASSERT_GE(log.size(), 300u);
    /* at each, which is twice the time; test_power_cut does, for the store */
    const bool both = getenv("STEPMILL_ALL_FAULTS") != nullptr;
    for (size_t i = 0; i <= (both ? 2 * log.size() + 1 : log.size()) && !HasFailure(); i++) {
        const size_t n = both ? i / 2 : i;
        const Cut how = i % 2 == 0 ? Cut::Dropped : Cut::Torn;
        SCOPED_TRACE("cut after change " + std::to_string(n) + " of " + std::to_string(log.size()) +
                     (how == Cut::Torn ? ", the rest torn" : ", the rest dropped"));
        judge(log, n, how, acked[n], kRows);
    }
    printf("%d commits, %zu points, %d ways at each, %lld of them gone on with in the middle\n", commits, log.size() + 1,
           both ? 2 : 1, static_cast<long long>(partial_));
    EXPECT_GT(partial_, static_cast<int64_t>(log.size() / 2));
}

/* A whole run as the command makes it, with its folders, its manifest and its errors. */
TEST_F(Cuts, AfterEveryChangeOfAWholeRun)
{
    const int rows = 60;
    use(rows, std::string(kPipeline) + kMore);
    note_changes(folder_.string());
    const End end = go("run");
    const std::vector<Disk::Op> log = changes_noted();
    note_no_changes();
    ASSERT_EQ(end.state, MILL_RUN_DONE) << end.message;
    for (size_t n = 0; n <= log.size() && !HasFailure(); n++)
        for (const Cut how : {n % 2 == 0 ? Cut::Dropped : Cut::Kept, Cut::Torn}) {
            SCOPED_TRACE("cut after change " + std::to_string(n) + " of " + std::to_string(log.size()) + ", way " +
                         std::to_string(static_cast<int>(how)));
            judge(log, n, how, 0, rows);
        }
    printf("%zu points, %zu cuts\n", log.size() + 1, 2 * (log.size() + 1));
    /* When the command has returned, the power may go: a user has everything. */
    lay_down(Disk::cut(log, log.size(), Cut::Dropped, 1).get(), folder_);
    EXPECT_EQ(differ(outputs(folder_ / "run")), "");
    EXPECT_EQ(contents(folder_ / "run/errors.jsonl"), want_errors_);
    EXPECT_NE(contents(folder_ / "run/manifest.json").find("\"complete\":true,\"outputs\""), std::string::npos);
    EXPECT_EQ(go("run").rows_in, 0);
}
