#include <gtest/gtest.h>

#include <cstring>
#include <string>

extern "C" {
#include "core/error.h"
}

TEST(Error, FirstToKnowWins)
{
    mill_error e = {};
    EXPECT_EQ(mill_fail(&e, MILL_ERR_IO, "cannot open %s", "a"), MILL_ERR_IO);
    EXPECT_EQ(mill_fail(&e, MILL_ERR_NOMEM, "later"), MILL_ERR_NOMEM);
    EXPECT_EQ(e.status, MILL_ERR_IO);
    EXPECT_STREQ(e.msg, "cannot open a");
    EXPECT_STREQ(e.origin, "test_error.cc");
    mill_error_context(&e, "loading x");
    mill_error_context(&e, "step y");
    mill_error_remedy(&e, "Check the path");
    mill_error_place(&e, "p.yaml", 3, 7);
    char buf[256];
    mill_error_format(&e, buf, sizeof buf);
    EXPECT_STREQ(buf, "p.yaml:3:7: cannot open a (loading x; step y). Check the path");
}

TEST(Error, IsOneLineWhateverIsInIt)
{
    mill_error e = {};
    char buf[64];
    mill_fail(&e, MILL_ERR_INVALID, "column \"a\nb\t\033[2J\x7f\" \u00e9");
    const int n = mill_error_format(&e, buf, sizeof buf);
    EXPECT_EQ(n, (int)strlen(buf));
    EXPECT_STREQ(buf, "column \"a b ?[2J?\" \u00e9");
    EXPECT_GT(mill_error_format(&e, buf, 12), 12);
    EXPECT_STREQ(buf, "column \"a b");
    EXPECT_GT(mill_error_format(&e, nullptr, 0), 12);
}

TEST(Error, LongTextIsCutVisibly)
{
    mill_error e = {};
    mill_fail(&e, MILL_ERR_INVALID, "%s", std::string(2000, 'x').c_str());
    EXPECT_EQ(strlen(e.msg), sizeof e.msg - 1);
    EXPECT_STREQ(e.msg + sizeof e.msg - 4, "...");
}

TEST(Error, NullRecordIsAccepted) { EXPECT_EQ(mill_fail(nullptr, MILL_ERR_STEP, "x"), MILL_ERR_STEP); }

TEST(Error, RefusalsAreOfTheCheckAndNeedNoRecord)
{
    mill_error e = {};
    EXPECT_EQ(stm_refused(mill_fail(&e, MILL_ERR_INVALID, "no"), &e, "step", "Do otherwise"), MILL_ERR_INVALID);
    EXPECT_EQ(e.phase, MILL_PHASE_CHECK);
    EXPECT_STREQ(e.step, "step");
    EXPECT_STREQ(e.remedy, "Do otherwise");
    EXPECT_EQ(stm_refused(MILL_ERR_INVALID, &e, nullptr, nullptr), MILL_ERR_INVALID);
    EXPECT_STREQ(e.step, "step");
    EXPECT_EQ(stm_refused(mill_fail(nullptr, MILL_ERR_DATA, "no"), nullptr, "step", "Do otherwise"), MILL_ERR_DATA);
}

TEST(Error, AnAttemptsFailureBecomesTheCallers)
{
    mill_error e = {}, why = {};
    EXPECT_EQ(stm_error_hand_on(&why, MILL_OK, &e), MILL_OK);
    EXPECT_EQ(e.status, MILL_OK);
    mill_fail(&why, MILL_ERR_IO, "first");
    EXPECT_EQ(stm_error_hand_on(&why, MILL_ERR_IO, nullptr), MILL_ERR_IO);
    EXPECT_EQ(stm_error_hand_on(&why, MILL_ERR_IO, &e), MILL_ERR_IO);
    mill_error second = {};
    mill_fail(&second, MILL_ERR_DATA, "second");
    EXPECT_EQ(stm_error_hand_on(&second, MILL_ERR_DATA, &e), MILL_ERR_DATA);
    EXPECT_STREQ(e.msg, "first");
}
