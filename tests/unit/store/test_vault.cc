/* The store of a run directory: what it keeps, who may write, what failing operations and full disks do, what it costs. */
#include <chrono>
#include <cstdlib>
#include <unistd.h>

#include "support/fail_nth.h"
#include "script.h"
#include "support/temp_dir.h"

using namespace mt;

TEST(Vault, GoesOnOverManyEpochs)
{
    Disk disk;
    mill_error err = {};
    for (int c = 0; c < 40; c++) {
        Vault v;
        ASSERT_EQ(open_vault(disk.files(), &v, &err, 100 + static_cast<uint64_t>(c)), MILL_OK) << err.msg;
        ASSERT_EQ(commit_of(v), c);
        ASSERT_EQ(stm_vault_epoch(v), static_cast<uint64_t>(c));
        ASSERT_EQ(read_back(v, c, &err), MILL_OK) << err.msg;
        ASSERT_EQ(begin(v, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_vault_epoch(v), static_cast<uint64_t>(c + 1));
        EXPECT_STREQ(stm_vault_who(v), "a test");
        ASSERT_EQ(append(v, c + 1, &err), MILL_OK);
        EXPECT_EQ(read_back(v, c, &err), MILL_OK) << "what is not committed does not count: " << err.msg;
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_vault_pending(v), 0);
        ASSERT_EQ(read_back(v, c + 1, &err), MILL_OK) << err.msg;
        int journals = 0;
        for (const auto &n : disk.names) journals += n.first.rfind("journal.", 0) == 0;
        EXPECT_EQ(journals, 1) << "older ones go with the first commit";
    }
}

TEST(Vault, WhatIsNotMarkedOrNotCommittedIsNotThere)
{
    Disk disk;
    mill_error err = {};
    {
        Vault v;
        ASSERT_EQ(begin_with_one(disk.files(), &v, &err), MILL_OK) << err.msg;
        const stm_bytes late = {"late", 4};
        ASSERT_EQ(stm_vault_append(v, 0, 1, 99, 1, &late, 1, &err), MILL_OK); /* behind the mark */
        EXPECT_GT(stm_vault_pending(v), 0);
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
        ASSERT_EQ(append(v, 2, &err), MILL_OK); /* no commit */
        ASSERT_EQ(stm_vault_mark(v, 1, true, &err), MILL_OK);
        for (int part = 0; part < kParts; part++)
            ASSERT_EQ(stm_vault_set_state(v, (size_t)part, state_of(part, 1).data(), state_of(part, 1).size(), &err), MILL_OK);
        for (size_t s = 0; s < kStreams; s++) stm_vault_unmark(v, s); /* a commit that takes nothing of it */
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
        EXPECT_FALSE(stm_vault_stream_at(v, 1).complete);
    }
    Vault v;
    ASSERT_EQ(open_vault(disk.files(), &v, &err), MILL_OK);
    EXPECT_EQ(commit_of(v), 1);
    EXPECT_EQ(read_back(v, 1, &err), MILL_OK) << err.msg;
}

TEST(Vault, StreamsAreKeptOrBeginAnewByName)
{
    Disk disk;
    mill_error err = {};
    {
        Vault v;
        ASSERT_EQ(open_vault(disk.files(), &v, &err), MILL_OK);
        ASSERT_EQ(begin(v, &err), MILL_OK);
        for (int c = 1; c <= 4; c++) {
            ASSERT_EQ(append(v, c, &err), MILL_OK);
            ASSERT_EQ(stm_vault_mark(v, 2, c == 4, &err), MILL_OK);
            ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
        }
    }
    Vault v;
    ASSERT_EQ(open_vault(disk.files(), &v, &err), MILL_OK);
    const stm_vault_stream was = stm_vault_stream_at(v, 2);
    EXPECT_TRUE(was.complete);
    stm_vault_part part = {};
    part.name = "only";
    stm_vault_stream s[3] = {};
    s[0].name = "gamma-2", s[0].keep = true;
    s[1].name = "alpha", s[1].keep = false;
    s[2].name = "unknown", s[2].keep = true;
    ASSERT_EQ(stm_vault_begin(v, &part, 1, s, 3, "x", &err), MILL_OK) << err.msg;
    EXPECT_TRUE(stm_vault_stream_at(v, 0).complete);
    EXPECT_EQ(stm_vault_stream_at(v, 0).frames, was.frames);
    EXPECT_EQ(stm_vault_stream_at(v, 1).frames, 0);
    EXPECT_EQ(stm_vault_stream_at(v, 2).frames, 0);
    ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK) << err.msg;
    int segments = 0;
    for (const auto &n : disk.names) segments += n.first.find(".seg") != std::string::npos;
    EXPECT_EQ(segments, 1) << "what nobody counts on is gone";
}

TEST(Vault, FreshTakesNothingOver)
{
    Disk disk;
    mill_error err = {};
    for (int round = 0; round < 2; round++) {
        Vault v;
        ASSERT_EQ(open_vault(disk.files(), &v, &err, 5 + static_cast<uint64_t>(round), round == 1), MILL_OK);
        EXPECT_EQ(stm_vault_parts(v), 0u);
        ASSERT_EQ(begin(v, &err), MILL_OK);
        ASSERT_EQ(append(v, 1, &err), MILL_OK);
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
    }
    Vault v;
    ASSERT_EQ(open_vault(disk.files(), &v, &err), MILL_OK);
    EXPECT_EQ(stm_vault_epoch(v), 2u) << "epochs are never used twice";
    EXPECT_EQ(read_back(v, 1, &err), MILL_OK) << err.msg;
}

TEST(Vault, JournalBytesPerCommitAreConstant)
{
    Disk disk;
    mill_error err = {};
    Vault v;
    ASSERT_EQ(open_vault(disk.files(), &v, &err), MILL_OK);
    ASSERT_EQ(begin(v, &err), MILL_OK);
    int64_t before = stm_vault_journal_bytes(v), each = 0;
    for (int c = 1; c <= 200; c++) {
        ASSERT_EQ(append(v, c, &err), MILL_OK);
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
        const int64_t now = stm_vault_journal_bytes(v);
        if (c > 1) {
            ASSERT_EQ(now - before, each);
        }
        each = now - before;
        before = now;
    }
    printf("%lld bytes a commit with %d parts and %d streams\n", static_cast<long long>(each), kParts, kStreams);
}

TEST(Vault, ACommitOfNothingNewWritesNothing)
{
    Disk disk;
    mill_error err = {};
    {
        Vault v;
        ASSERT_EQ(begin_with_one(disk.files(), &v, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
        const int64_t once = stm_vault_journal_bytes(v);
        for (int i = 0; i < 3; i++) ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
        EXPECT_EQ(stm_vault_journal_bytes(v), once);
        EXPECT_EQ(stm_vault_commits(v), 1);
        ASSERT_EQ(append(v, 2, &err), MILL_OK);
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
        EXPECT_GT(stm_vault_journal_bytes(v), once);
    }
    Vault v;
    ASSERT_EQ(open_vault(disk.files(), &v, &err), MILL_OK);
    EXPECT_EQ(read_back(v, 2, &err), MILL_OK) << err.msg;
}

/* ---- who may write -------------------------------------------------------------------------------------------------- */

TEST(Writers, OfTwoThatBeginTogetherOneIsRefused)
{
    Disk disk;
    mill_error err = {};
    Vault a, b;
    ASSERT_EQ(open_vault(disk.files(), &a, &err, 1), MILL_OK);
    ASSERT_EQ(open_vault(disk.files(), &b, &err, 2), MILL_OK);
    ASSERT_EQ(begin(a, &err), MILL_OK);
    EXPECT_EQ(begin(b, &err), MILL_ERR_BUSY);
    EXPECT_STRNE(err.msg, "");
    ASSERT_EQ(append(a, 1, &err), MILL_OK);
    EXPECT_EQ(stm_vault_commit(a, &err), MILL_OK);
}

TEST(Writers, AZombieDoesNoHarm)
{
    for (const bool notices : {true, false}) { /* with a file system that shows names late, it does not even notice */
        SCOPED_TRACE(notices);
        Disk disk;
        mill_error err = {};
        Vault zombie, heir;
        stm_files blind = disk.files();
        if (!notices) blind.exists = [](void *, const char *name) { return strcmp(name, "journal.1") == 0 ? 1 : 0; };
        ASSERT_EQ(open_vault(blind, &zombie, &err, 1), MILL_OK);
        ASSERT_EQ(begin(zombie, &err), MILL_OK);
        for (int c = 1; c <= 5; c++) {
            ASSERT_EQ(append(zombie, c, &err), MILL_OK);
            ASSERT_EQ(stm_vault_commit(zombie, &err), MILL_OK);
        }
        ASSERT_EQ(append(zombie, 6, &err), MILL_OK); /* and here it is stopped */
        ASSERT_EQ(open_vault(disk.files(), &heir, &err, 2), MILL_OK);
        ASSERT_EQ(commit_of(heir), 5);
        ASSERT_EQ(begin(heir, &err), MILL_OK);
        for (int c = 6; c <= 9; c++) {
            ASSERT_EQ(append(heir, c, &err), MILL_OK);
            if (c == 7 || c == 8) { /* it wakes up */
                mill_error why = {};
                if (c == 8) {
                    ASSERT_EQ(append(zombie, 7, &why), MILL_OK);
                }
                EXPECT_EQ(stm_vault_commit(zombie, &why), notices ? MILL_ERR_BUSY : MILL_OK) << why.msg;
            }
            ASSERT_EQ(stm_vault_commit(heir, &err), MILL_OK);
            Vault look;
            ASSERT_EQ(open_vault(disk.files(), &look, &err, 3), MILL_OK);
            ASSERT_EQ(commit_of(look), c);
            ASSERT_EQ(read_back(look, c, &err), MILL_OK) << err.msg;
        }
    }
}

TEST(Writers, OneStoppedBeforeItsFirstRecordIsPassedOver)
{
    Disk disk;
    mill_error err = {};
    {
        Vault v;
        ASSERT_EQ(open_vault(disk.files(), &v, &err, 1), MILL_OK);
        ASSERT_EQ(begin(v, &err), MILL_OK);
        ASSERT_EQ(append(v, 1, &err), MILL_OK);
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
    }
    const stm_files f = disk.files();
    ASSERT_GE(f.open(f.user, "journal.2", STM_OPEN_NEW), 0); /* and nothing more */
    Vault v;
    ASSERT_EQ(open_vault(f, &v, &err, 3), MILL_OK) << err.msg;
    EXPECT_EQ(commit_of(v), 1);
    ASSERT_EQ(begin(v, &err), MILL_OK);
    EXPECT_EQ(stm_vault_epoch(v), 3u);
    ASSERT_EQ(append(v, 2, &err), MILL_OK);
    ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
    Vault again;
    ASSERT_EQ(open_vault(f, &again, &err, 4), MILL_OK) << err.msg;
    EXPECT_EQ(commit_of(again), 2);
}

/* ---- faults --------------------------------------------------------------------------------------------------------- */

namespace {

/* A few commits over two epochs on @p disk; how far it came. */
struct Came {
    int tried = 0, acked = 0;
    mill_status st = MILL_OK;
    mill_error err = {};
};
Came few(Disk *disk)
{
    Came r;
    for (int epoch = 0; epoch < 2 && r.st == MILL_OK; epoch++) {
        Vault v;
        r.st = open_vault(disk->files(), &v, &r.err, 50 + static_cast<uint64_t>(epoch));
        if (r.st == MILL_OK) {
            EXPECT_EQ(commit_of(v), r.acked);
            r.st = read_back(v, r.acked, &r.err);
        }
        if (r.st == MILL_OK) r.st = begin(v, &r.err);
        for (int c = r.acked + 1, end = c + 2; c < end && r.st == MILL_OK; c++) {
            r.st = append(v, c, &r.err);
            if (r.st == MILL_OK) r.tried = c, r.st = stm_vault_commit(v, &r.err);
            if (r.st == MILL_OK) r.acked = c;
        }
    }
    return r;
}

void check_what_is_left(Disk *disk, const Came &r)
{
    disk->fail_at = -1;
    disk->room = INT64_MAX;
    Vault v;
    mill_error err = {};
    ASSERT_EQ(open_vault(disk->files(), &v, &err, 60), MILL_OK) << err.msg;
    const int c = commit_of(v);
    ASSERT_GE(c, r.acked);
    ASSERT_LE(c, r.tried);
    ASSERT_EQ(read_back(v, c, &err), MILL_OK) << err.msg;
    ASSERT_EQ(begin(v, &err), MILL_OK) << err.msg;
    ASSERT_EQ(append(v, c + 1, &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK) << err.msg;
    ASSERT_EQ(read_back(v, c + 1, &err), MILL_OK) << err.msg;
}

} // namespace

TEST(Faults, EveryFileOperationFails)
{
    int64_t points = 0, silent = 0;
    for (const bool on : {false, true})
        for (int64_t k = 0;; k++) {
            SCOPED_TRACE("operation " + std::to_string(k) + (on ? " and all after it" : ""));
            Disk disk;
            disk.fail_at = k;
            disk.fail_on = on;
            const Came r = few(&disk);
            if (disk.ops <= k) {
                EXPECT_EQ(r.st, MILL_OK) << r.err.msg;
                break;
            }
            if (r.st != MILL_OK)
                EXPECT_STRNE(r.err.msg, "");
            else
                silent++; /* sweeping up what older epochs left: it may fail */
            check_what_is_left(&disk, r);
            points++;
            if (testing::Test::HasFailure()) return;
        }
    EXPECT_LT(silent, points / 10);
    printf("%lld points\n", static_cast<long long>(points));
}

TEST(Faults, EveryAllocationFails)
{
    for (int64_t k = 0;; k++) {
        SCOPED_TRACE(k);
        Disk disk;
        FailNth fail(k);
        const Came r = few(&disk);
        const bool fired = fail.fired();
        if (!fired) {
            EXPECT_EQ(r.st, MILL_OK);
            printf("%lld points\n", static_cast<long long>(k));
            break;
        }
        if (r.st != MILL_OK) {
            EXPECT_EQ(r.st, MILL_ERR_NOMEM) << r.err.msg;
        }
        check_what_is_left(&disk, r);
        if (testing::Test::HasFailure()) return;
    }
    EXPECT_EQ(live(), 0);
}

TEST(Faults, TheDiskIsFullAtEveryByteOfACommit)
{
    Disk full;
    mill_error err = {};
    int64_t points = 0;
    auto prepare = [&](Disk *d, Vault *v) {
        ASSERT_EQ(open_vault(d->files(), v, &err, 8), MILL_OK);
        ASSERT_EQ(begin(*v, &err), MILL_OK);
        ASSERT_EQ(append(*v, 1, &err), MILL_OK);
        ASSERT_EQ(stm_vault_commit(*v, &err), MILL_OK);
    };
    Vault whole;
    prepare(&full, &whole);
    const int64_t before = full.used();
    ASSERT_EQ(append(whole, 2, &err), MILL_OK);
    ASSERT_EQ(stm_vault_commit(whole, &err), MILL_OK);
    const int64_t bytes = full.used() - before;
    for (int64_t room = 0; room < bytes; room++) {
        SCOPED_TRACE("room for " + std::to_string(room) + " bytes of " + std::to_string(bytes));
        Disk disk;
        Vault v;
        prepare(&disk, &v);
        disk.room = room;
        mill_error why = {};
        mill_status st = append(v, 2, &why);
        if (st == MILL_OK) st = stm_vault_commit(v, &why);
        ASSERT_EQ(st, MILL_ERR_IO);
        ASSERT_NE(std::string(why.msg).find("No space left"), std::string::npos) << why.msg;
        { /* as if killed now */
            Disk copy = disk;
            Vault look;
            ASSERT_EQ(open_vault(copy.files(), &look, &err, 9), MILL_OK) << err.msg;
            ASSERT_EQ(commit_of(look), 1);
            ASSERT_EQ(read_back(look, 1, &err), MILL_OK) << err.msg;
        }
        disk.room = INT64_MAX; /* somebody made room: the same commit goes through */
        if (room % 3 == 0) {
            for (int s = 0; s < kStreams; s++) ASSERT_EQ(stm_vault_mark(v, static_cast<size_t>(s), false, &err), MILL_OK);
            const bool all = stm_vault_commit(v, &err) == MILL_OK;
            ASSERT_TRUE(all) << err.msg;
        }
        points++;
    }
    printf("%lld points\n", static_cast<long long>(points));
}

TEST(Faults, AfterAFailedSyncNothingIsCommittedAnyMore)
{
    Disk disk;
    mill_error err = {};
    Vault v;
    ASSERT_EQ(begin_with_one(disk.files(), &v, &err), MILL_OK) << err.msg;
    stm_files f = disk.files();
    disk.fail_at = disk.ops; /* the first operation of a commit that can fail is the sync of a stream */
    EXPECT_EQ(stm_vault_commit(v, &err), MILL_ERR_IO);
    disk.fail_at = -1;
    mill_error again = {};
    EXPECT_EQ(stm_vault_commit(v, &again), MILL_ERR_IO) << "the kernel may have dropped what it could not write";
    EXPECT_NE(std::string(again.msg).find("earlier sync"), std::string::npos) << again.msg;
    (void)f;
}

/* ---- real files and costs --------------------------------------------------------------------------------------------- */

namespace {
double seconds(std::chrono::steady_clock::time_point from)
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}
} // namespace

TEST(RealFiles, TheSameAsOnTheModel)
{
    TempDir dir;
    stm_files f = {};
    mill_error err = {};
    ASSERT_EQ(stm_files_open(dir.path().c_str(), &f, &err), MILL_OK) << err.msg;
    for (int c = 1; c <= 6; c++) {
        Vault v;
        ASSERT_EQ(open_vault(f, &v, &err, 0), MILL_OK) << err.msg;
        ASSERT_EQ(commit_of(v), c - 1);
        ASSERT_EQ(read_back(v, c - 1, &err), MILL_OK) << err.msg;
        ASSERT_EQ(begin(v, &err), MILL_OK) << err.msg;
        ASSERT_EQ(append(v, c, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK) << err.msg;
        if (c == 3) {
            ASSERT_EQ(stm_files_replace(&f, "manifest.json", "{}", 2, &err), MILL_OK) << err.msg;
        }
    }
    EXPECT_EQ(f.exists(f.user, "manifest.json"), 1);
    EXPECT_EQ(f.exists(f.user, ".manifest.json.tmp"), 0);
    stm_files_close(&f);
    EXPECT_EQ(stm_files_open((dir.path() + "/nowhere").c_str(), &f, &err), MILL_ERR_IO);
}

TEST(Costs, RecoveryOfTenMillionRows)
{
    TempDir dir;
    stm_files f = {};
    mill_error err = {};
    ASSERT_EQ(stm_files_open(dir.path().c_str(), &f, &err), MILL_OK);
    stm_files quick = f; /* writing is not what is measured */
    quick.sync = [](void *, int) { return 0; };
    quick.sync_names = [](void *) { return 0; };
    constexpr int kBatch = 64, kBatches = 10000000 / kBatch, kEvery = 8;
    const std::string payload(1024, 'r');
    {
        Vault v;
        ASSERT_EQ(open_vault(quick, &v, &err), MILL_OK);
        ASSERT_EQ(begin(v, &err), MILL_OK);
        for (int i = 1; i <= kBatches; i++) {
            const stm_bytes b = {payload.data(), payload.size()};
            ASSERT_EQ(stm_vault_append(v, 0, 1, static_cast<uint64_t>(i), kBatch, &b, 1, &err), MILL_OK);
            if (i % kEvery != 0 && i != kBatches) continue;
            ASSERT_EQ(stm_vault_mark(v, 0, false, &err), MILL_OK);
            for (int p = 0; p < kParts; p++) {
                const std::string state = state_of(p, i);
                ASSERT_EQ(stm_vault_set_state(v, static_cast<size_t>(p), state.data(), state.size(), &err), MILL_OK);
            }
            ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
        }
    }
    const auto start = std::chrono::steady_clock::now();
    Vault v;
    ASSERT_EQ(open_vault(f, &v, &err), MILL_OK) << err.msg;
    EXPECT_EQ(stm_vault_stream_at(v, 0).rows, 10000000);
    ASSERT_EQ(begin(v, &err), MILL_OK);
    const double opened = seconds(start);
    stm_segment_reader *r = nullptr;
    int64_t rows = 0;
    ASSERT_EQ(stm_vault_read(v, 0, &r, &err), MILL_OK);
    for (bool end = false; !end;) { /* to its end, as when a reader goes on there */
        stm_frame fr = {};
        ASSERT_EQ(stm_segment_reader_next(r, false, &fr, &end, &err), MILL_OK) << err.msg;
        if (!end) rows += fr.rows;
    }
    stm_segment_reader_destroy(&r);
    EXPECT_EQ(rows, 10000000);
    const double all = seconds(start);
    printf("%d commits, %lld bytes of journal: opened in %.4f s, with every head of %d frames read in %.3f s\n",
           kBatches / kEvery + 1, static_cast<long long>(stm_vault_journal_bytes(v)), opened, kBatches, all);
    EXPECT_LT(all, 20.0) << "the goal is 2 s; sanitizers and a busy machine may take longer";
    stm_files_close(&f);
}
