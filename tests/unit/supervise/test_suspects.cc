/* The table of suspects: what deaths teach, and its file. */
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "peek.h"
#include "support/temp_dir.h"

namespace {

struct Suspects : testing::Test {
    stm_recorder *r = nullptr;
    mill_error err = {};
    mt::TempDir folder;
    std::string dir{folder.path()};
    void SetUp() override { ASSERT_NE(r = peek_recorder(), nullptr); }
    void TearDown() override { peek_recorder_free(&r); }
    stm_record *at_work(const char *step, int doing, int64_t first, int64_t rows, bool alone = false)
    {
        return peek_at_work(r, step, doing, first, rows, alone);
    }
    int die(const stm_record *culprit = nullptr) { return peek_die(r, culprit); }
    int verdict(int i) const { return peek_verdict(r, i); }
    std::string file() const
    {
        std::string s;
        char buf[4096];
        FILE *f = fopen((dir + "/suspects").c_str(), "re");
        for (size_t n; f != nullptr && (n = fread(buf, 1, sizeof buf, f)) > 0;) s.append(buf, n);
        if (f != nullptr) fclose(f);
        return s;
    }
};

TEST_F(Suspects, FromCompanyToOneRow)
{
    EXPECT_EQ(die(), LESSON_NONE);
    at_work("a", PROCESS, 0, 8);
    at_work("b", PROCESS, 16, 8);
    at_work("b", LOAD, 0, 0);
    EXPECT_EQ(die(), LESSON_AGAIN);
    ASSERT_EQ(peek_table(r), 2);
    at_work("b", PROCESS, 16, 8, true);
    EXPECT_EQ(die(), LESSON_NARROW);
    ASSERT_EQ(peek_table(r), 2);
    EXPECT_EQ(verdict(0), SUSPECTED);
    EXPECT_EQ(verdict(1), GUILTY);
    for (int64_t n = 4; n >= 1; n /= 2) {
        at_work("b", PROCESS, 16, n, true);
        EXPECT_EQ(die(), LESSON_NARROW);
        ASSERT_EQ(peek_table(r), 2);
        EXPECT_EQ(verdict(1), n == 1 ? BLAMED : GUILTY);
        EXPECT_EQ(peek_high(r, 1), 16 + n - 1);
    }
}

TEST_F(Suspects, AloneMeansThatNobodyElseWasAtWork)
{
    at_work("a", PROCESS, 0, 1, true);
    at_work("out", SYNC, 0, 0);
    EXPECT_EQ(die(), LESSON_AGAIN);
    ASSERT_EQ(peek_table(r), 2);
    EXPECT_EQ(verdict(0), SUSPECTED);
    EXPECT_EQ(verdict(1), SUSPECTED);
}

/* No row can be left out of these: the call counts as failed; so it does in the process that follows, and after the supervisor's
 * death. */
TEST_F(Suspects, ACallThatIsNotForRowsToBeLeftOutIsBarred)
{
    for (int d : {GENERATE, ROUTE, ACCEPT, WRITE, FINISH, UNLOAD}) {
        const bool of_rows = d != FINISH && d != UNLOAD;
        SCOPED_TRACE(d);
        at_work("x", d, 8, of_rows ? 4 : 0);
        at_work("y", PROCESS, 0, 4);
        EXPECT_EQ(die(), LESSON_AGAIN);
        at_work("x", d, 8, of_rows ? 4 : 0, true);
        EXPECT_EQ(die(), d == ROUTE ? LESSON_NARROW : LESSON_BARRED);
        ASSERT_EQ(peek_table(r), 2) << "and nothing is left of the suspicion";
        EXPECT_EQ(verdict(1), d == ROUTE ? BLAMED : BARRED);
        err = {};
        ASSERT_EQ(peek_save(r, dir.c_str(), &err), MILL_OK) << err.msg;
        ASSERT_EQ(peek_load(r, dir.c_str(), &err), MILL_OK) << err.msg;
        stm_quarantine *q = peek_quarantine(r);
        ASSERT_NE(q, nullptr);
        EXPECT_TRUE(peek_barred(q, "x", d, of_rows ? 11 : 1, of_rows ? 14 : 0));
        EXPECT_FALSE(peek_barred(q, "y", d, of_rows ? 11 : 1, of_rows ? 14 : 0));
        EXPECT_FALSE(peek_barred(q, "x", SYNC, 1, 0));
        if (of_rows) {
            EXPECT_FALSE(peek_barred(q, "x", d, 0, 7));
        }
        peek_quarantine_free(&q);
        peek_table_empty(r);
    }
}

TEST_F(Suspects, ALoadEndsTheRun)
{
    EXPECT_EQ(die(at_work("x", LOAD, 0, 0)), LESSON_END);
    EXPECT_EQ(peek_table(r), 0);
}

TEST_F(Suspects, ACulpritThatIsKnownNeedsNotBeAlone)
{
    at_work("a", PROCESS, 0, 4);
    EXPECT_EQ(die(at_work("b", PROCESS, 4, 4)), LESSON_NARROW);
    ASSERT_EQ(peek_table(r), 1);
    EXPECT_STREQ(peek_step(r, 0), "b");
    EXPECT_EQ(verdict(0), GUILTY);
}

/* A step with submit is at work with all that it holds, whatever the call. */
TEST_F(Suspects, WhatIsHeldIsSuspectedBatchByBatch)
{
    for (int doing : {SUBMIT, POLL}) {
        stm_record *a = at_work("a", doing, 0, doing == SUBMIT ? 4 : 0), *idle = at_work("b", NOTHING, 0, 0);
        peek_hold(r, a, 0, 4);
        peek_hold(r, a, 8, 4);
        peek_hold(r, idle, 100, 4);
        EXPECT_EQ(die(), LESSON_AGAIN);
        ASSERT_EQ(peek_table(r), 2) << "not what another replica holds, which was in no call";
        EXPECT_EQ(peek_high(r, 0), 3);
        EXPECT_EQ(peek_high(r, 1), 11);
        /* alone from its submit to its last answer: the calls are for its rows */
        peek_hold(r, at_work("a", POLL, 8, 4, true), 8, 4);
        EXPECT_EQ(die(), LESSON_NARROW);
        ASSERT_EQ(peek_table(r), 2);
        EXPECT_EQ(verdict(1), GUILTY);
        at_work("a", SUBMIT, 9, 1, true);
        EXPECT_EQ(die(), LESSON_NARROW);
        EXPECT_EQ(verdict(1), BLAMED);
        peek_table_empty(r);
    }
    peek_hold(r, at_work("a", NOTHING, 0, 0), 0, 4); /* a thread of its own: nobody was in a call */
    EXPECT_EQ(die(), LESSON_AGAIN);
    EXPECT_EQ(peek_table(r), 1);
    peek_table_empty(r);
    stm_record *late = at_work("a", POLL, 0, 0); /* a deadline says whose call it was, not which of its rows */
    peek_hold(r, late, 0, 4);
    EXPECT_EQ(die(late), LESSON_AGAIN);
    EXPECT_EQ(verdict(0), SUSPECTED);
    peek_table_empty(r);
    at_work("a", POLL, 0, 0, true); /* and when it holds nothing that is told apart, the run ends */
    EXPECT_EQ(die(), LESSON_END);
}

TEST_F(Suspects, AFullTableEndsTheRun)
{
    for (int i = 0; i < peek_table_room(); i++) {
        at_work("a", PROCESS, 2 * i, 1, true);
        ASSERT_EQ(die(), LESSON_NARROW);
    }
    at_work("a", PROCESS, -2, 1, true);
    EXPECT_EQ(die(), LESSON_END);
}

TEST_F(Suspects, TheFileGivesTheTableBackOrIsRefused)
{
    at_work("a", PROCESS, 0, 4);
    at_work("finish", FINISH, 0, 0);
    die();
    at_work("b", PROCESS, INT64_MAX - 4, 1, true);
    die();
    ASSERT_EQ(peek_save(r, dir.c_str(), &err), MILL_OK) << err.msg;
    const std::string text = file();
    size_t bytes;
    const char *table = peek_bytes(r, &bytes);
    const std::vector<char> before(table, table + bytes);
    const int n = peek_table(r);
    peek_table_empty(r);
    ASSERT_EQ(peek_load(r, dir.c_str(), &err), MILL_OK) << err.msg;
    ASSERT_EQ(peek_table(r), n);
    EXPECT_EQ(memcmp(before.data(), table, before.size()), 0);
    int refused = 0;
    for (size_t cut = 0; cut < text.size(); cut++) { /* torn anywhere */
        FILE *f = fopen((dir + "/suspects").c_str(), "we");
        ASSERT_NE(f, nullptr);
        fwrite(text.data(), 1, cut, f);
        fclose(f);
        mill_error e = {};
        EXPECT_EQ(peek_load(r, dir.c_str(), &e), MILL_ERR_DATA) << cut;
        EXPECT_EQ(peek_table(r), 0);
        refused += e.status == MILL_ERR_DATA;
    }
    EXPECT_EQ(refused, (int)text.size());
    peek_table_empty(r); /* an empty table has no file */
    EXPECT_EQ(peek_save(r, dir.c_str(), &err), MILL_OK);
    EXPECT_EQ(access((dir + "/suspects").c_str(), F_OK), -1);
    EXPECT_EQ(peek_load(r, dir.c_str(), &err), MILL_OK);
}

TEST_F(Suspects, QuarantineClearsWhatCameThroughAlone)
{
    EXPECT_EQ(peek_quarantine(r), nullptr) << "nobody is suspected";
    at_work("a", PROCESS, 0, 4);
    die();
    stm_quarantine *q = peek_quarantine(r);
    ASSERT_NE(q, nullptr);
    EXPECT_EQ(peek_call(q, 9, 9), HOLD_SHARED);
    EXPECT_EQ(verdict(0), SUSPECTED);
    EXPECT_EQ(peek_call(q, 2, 5), HOLD_ALONE);
    EXPECT_EQ(verdict(0), CLEARED);
    EXPECT_EQ(peek_call(q, 2, 5), HOLD_NONE) << "all as always";
    peek_quarantine_free(&q);
}

} // namespace
