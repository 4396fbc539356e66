/* Records of errors: what goes to the disk of them. */
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "support/fail_nth.h"

extern "C" {
#include "core/alloc.h"
#include "wrapper/errors.h"
}

namespace {

/* Texts end at their NUL, and behind it there is nothing: neither of what the caller's error held before nor of what the heap
 * did. */
TEST(Errors, RecordsHoldNothingBehindTheirTexts)
{
    const std::string secret = "sk-of-somebody-else";
    stm_errors *log = nullptr;
    mill_error e;
    ASSERT_EQ(stm_errors_create(nullptr, nullptr, &log), MILL_OK);
    void *const used = malloc(sizeof(stm_error_record));
    ASSERT_NE(used, nullptr);
    for (size_t at = 0; at + secret.size() < sizeof(stm_error_record); at += secret.size())
        memcpy(static_cast<char *>(used) + at, secret.data(), secret.size());
    free(used);
    memset(&e, 0, sizeof e);
    for (char *text : {e.msg, e.context, e.remedy, e.file, e.field, e.step, e.origin}) strcpy(text + 2, secret.c_str());
    e.status = MILL_ERR_STEP;
    strcpy(e.msg, "m");
    ASSERT_EQ(stm_errors_add(log, &e, 1, "a:1", "a:2"), 1);
    const stm_error_record *rec = stm_errors_get(log, 1);
    EXPECT_STREQ(rec->error.msg, "m");
    EXPECT_STREQ(rec->last_key, "a:2");
    stm_error_record want;
    memset(&want, 0, sizeof want);
    want.id = want.rows = 1;
    want.error.status = MILL_ERR_STEP;
    strcpy(want.error.msg, "m");
    strcpy(want.first_key, "a:1");
    strcpy(want.last_key, "a:2");
    EXPECT_EQ(memcmp(rec, &want, sizeof want), 0) << "something of \"" << secret << "\" is left";
    stm_errors_destroy(&log);
}

/* Rows often fail because memory is out: the record of that needs memory, too, and a row without one would look like any other. */
TEST(Errors, WithoutMemoryTheFirstFailureHasItsRecordAndNoneHasNone)
{
    stm_errors *log = nullptr;
    mill_error e = {};
    const long before = mt::live();
    ASSERT_EQ(stm_errors_create(nullptr, nullptr, &log), MILL_OK);
    const auto add = [&](bool memory, const char *why, const char *key) {
        e = {};
        mill_fail(&e, MILL_ERR_NOMEM, "%s", why);
        mt::FailNth fail(memory ? INT64_MAX : 0);
        return stm_errors_add(log, &e, 1, key, key);
    };
    EXPECT_EQ(add(false, "first", "a:1"), 1);
    EXPECT_EQ(add(false, "second", "a:2"), 1) << "the last one that is kept";
    ASSERT_EQ(stm_errors_count(log), 1);
    EXPECT_STREQ(stm_errors_get(log, 1)->error.msg, "first");
    EXPECT_STREQ(stm_errors_get(log, 1)->first_key, "a:1");
    EXPECT_EQ(add(true, "third", "a:3"), 2);
    EXPECT_EQ(add(false, "fourth", "a:4"), 3) << "there is room again";
    EXPECT_STREQ(stm_errors_get(log, 3)->error.msg, "fourth");
    EXPECT_EQ(stm_errors_rows(log), 4);
    EXPECT_EQ(stm_errors_total(log), 4);
    stm_errors_destroy(&log);
    EXPECT_EQ(mt::live(), before);
    { /* nor does it begin without that room */
        mt::FailNth fail(1);
        EXPECT_EQ(stm_errors_create(nullptr, nullptr, &log), MILL_ERR_NOMEM);
    }
    EXPECT_EQ(log, nullptr);
    EXPECT_EQ(mt::live(), before);
}

/* A failure that comes again after a resume keeps the number of its record, the newest one if there are several; what is void is
 * not it. */
TEST(Errors, TheSameFailureOfTheSameRowsKeepsItsNumber)
{
    constexpr int64_t n = STM_ERRORS_KEPT - 10;
    stm_errors *log = nullptr;
    ASSERT_EQ(stm_errors_create(nullptr, nullptr, &log), MILL_OK);
    const auto about = [](int64_t row) {
        stm_error_record rec = {};
        rec.rows = 1;
        rec.error.status = MILL_ERR_STEP;
        strcpy(rec.error.step, row % 2 != 0 ? "odd" : "even");
        snprintf(rec.first_key, sizeof rec.first_key, "src:%lld", static_cast<long long>(row));
        strcpy(rec.last_key, rec.first_key);
        return rec;
    };
    const auto add = [&](int64_t row) {
        const stm_error_record rec = about(row);
        return stm_errors_add(log, &rec.error, 1, rec.first_key, rec.last_key);
    };
    for (int64_t row = 0; row < n - 2; row++) {
        const stm_error_record rec = about(row);
        ASSERT_EQ(stm_errors_restore(log, &rec), MILL_OK);
    }
    for (int again = 0; again < 2; again++) { /* ids n - 1 and n: row 5, twice more */
        const stm_error_record rec = about(5);
        ASSERT_EQ(stm_errors_restore(log, &rec), MILL_OK);
    }
    for (int64_t row = 0; row < n - 2; row++) ASSERT_EQ(add(row), row == 5 ? n : row + 1);
    EXPECT_EQ(stm_errors_count(log), n);
    stm_errors_void(log, n);
    EXPECT_EQ(add(5), n - 1);
    stm_errors_void(log, n - 1);
    EXPECT_EQ(add(5), 6);
    stm_errors_void(log, 6);
    EXPECT_EQ(add(5), n + 1) << "none of them stands: it is a new one";
    stm_error_record other = about(7);
    EXPECT_EQ(stm_errors_add(log, &other.error, 2, other.first_key, other.last_key), n + 2) << "more rows";
    stm_errors_destroy(&log);
}

} // namespace
