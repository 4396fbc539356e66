/* Records of errors: what goes to the disk of them. */
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>

extern "C" {
#include "core/alloc.h"
#include "wrapper/errors.h"
}

namespace {

/* Texts end at their NUL, and behind it there is nothing: neither of what the caller's error held before nor of what the heap did. */
TEST(Errors, RecordsHoldNothingBehindTheirTexts)
{
    const std::string secret = "sk-of-somebody-else";
    stm_errors *log = nullptr;
    mill_error e;
    ASSERT_EQ(stm_errors_create(nullptr, nullptr, &log), MILL_OK);
    void *const used = malloc(sizeof(stm_error_record));
    ASSERT_NE(used, nullptr);
    for (size_t at = 0; at + secret.size() < sizeof(stm_error_record); at += secret.size()) memcpy(static_cast<char *>(used) + at, secret.data(), secret.size());
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

} // namespace
