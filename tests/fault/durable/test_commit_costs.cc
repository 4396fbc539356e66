/*
 * What a commit writes, counted: a run of two hundred commits is made by hand, burst by burst, so that nothing hangs on how fast it
 * is. The journal grows by as many bytes with each, and the calls into the system are as many at the end as at the start.
 */
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "calls.h"
#include "support/by_hand.h"
#include "support/pipe.h"
#include "support/temp_dir.h"

using namespace mt;

namespace {

namespace fs = std::filesystem;

constexpr int kCommits = 200, kBatch = 4;

int64_t journal_bytes(const fs::path &dir)
{
    struct stat s = {};
    return stat((dir / "journal.1").c_str(), &s) == 0 ? s.st_size : -1;
}

/* A burst of every station that has something to do. */
bool step(Pipe &pipe)
{
    bool any = false;
    for (int32_t i = 0; i < mt_hand_stations(pipe.handle()); i++)
        if (mt_hand_runnable(pipe.handle(), i)) {
            mt_hand_burst(pipe.handle(), i);
            any = true;
        }
    return any || mt_hand_unstall(pipe.handle());
}

struct CommitCosts : testing::TestWithParam<bool> {};

TEST_P(CommitCosts, StayTheSameOverTwoHundred)
{
    const bool keep = GetParam();
    const TempDir dir;
    {
        Pipe pipe;
        Behaviour work, sink;
        auto written = std::make_shared<int64_t>(0);
        work.flags = MILL_PER_ROW;
        work.uses = {{"x", "int64"}};
        work.adds = {{"y", "int64"}};
        work.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *err) -> mill_status {
            std::vector<int64_t> v;
            for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) {
                v.push_back(2 * value(in[0], 0, i));
                if (value(in[0], 0, i) % 100 == 7) return mill_fail(err, MILL_ERR_STEP, "a bad row"); /* error records, too */
            }
            return emit_int64(r, out, v, err);
        };
        sink.open = [](mill_replica *, const mill_cursor *, mill_error *) { return MILL_OK; };
        sink.write = [written](mill_replica *, const mill_batch *in, mill_error *) {
            *written += mill_batch_rows(in);
            return MILL_OK;
        };
        sink.sync = [written](mill_replica *, mill_cursor *c, mill_error *) {
            memcpy(c->bytes, written.get(), sizeof *written);
            c->size = sizeof *written;
            return MILL_OK;
        };
        pipe.run_dir = dir.path();
        pipe.durable = pipe.by_hand = true;
        pipe.adjust = [keep](stm_plan *p) { p->keep_sink_rows = keep; };
        pipe.source("src", static_cast<int64_t>(kCommits + 60) * kBatch, kBatch);
        pipe.add("work", MILL_STEP, {{"src"}}, work);
        pipe.add("out", MILL_SINK, {{"work"}}, sink);
        ASSERT_EQ(pipe.start(), MILL_OK) << pipe.error.msg;
        std::set<int64_t> sizes;
        int64_t syncs = 0, writes = 0, early = 0, late = 0, before = journal_bytes(dir.path());
        for (int i = 0; i < kCommits; i++) {
            const int64_t rows = *written;
            while (*written == rows) ASSERT_TRUE(step(pipe)) << "the run is over after " << i << " commits";
            fail_call(kSync, INT64_MAX); /* counts from here on; none fails */
            mt_hand_commit(pipe.handle());
            const int64_t s = calls_made(kSync), w = calls_made(kWrite), now = journal_bytes(dir.path());
            calls_work_again();
            sizes.insert(now - before);
            before = now;
            syncs = std::max(syncs, s);
            writes = std::max(writes, w);
            (i < kCommits / 2 ? early : late) += s + w;
        }
        mill_error err = {};
        EXPECT_FALSE(mt_hand_failed(pipe.handle(), &err)) << err.msg;
        EXPECT_GT(pipe.stats("work").rows_failed, 0);
        printf("%d commits of %lld bytes of journal; at most %lld syncs and %lld writes each\n", kCommits,
               static_cast<long long>(*sizes.begin()), static_cast<long long>(syncs), static_cast<long long>(writes));
        EXPECT_EQ(sizes.size(), 1u) << *sizes.begin() << " to " << *sizes.rbegin() << " bytes";
        EXPECT_GT(*sizes.begin(), 0);
        /* One for each stream that grew (rows at the sink, errors), the record, and the folder's when a segment is new. */
        EXPECT_LE(syncs, 2 + 1 + 1);
        EXPECT_LE(writes, 2 + 1);
        EXPECT_LE(late, early) << "a commit does not get dearer";
    }
}
INSTANTIATE_TEST_SUITE_P(Rows, CommitCosts, testing::Bool(),
                         [](const auto &i) { return std::string(i.param ? "AreKept" : "AreNotKept"); });

} // namespace
