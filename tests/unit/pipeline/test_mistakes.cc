/* Mistakes in pipeline files, in-process (tests/e2e/badfile does the same through the command). */
#include <gtest/gtest.h>

#include <string>

#include "mistakes.h"
#include "types.h"

namespace {

mill_status check(const std::string &text, mill_error *err)
{
    mill_pipeline *p = nullptr;
    mill_status st = mill_pipeline_parse(text.data(), text.size(), "p.yaml", "/tmp", &p, err);
    if (st == MILL_OK) st = mill_pipeline_add_types(p, &mt::kTypes, err);
    if (st == MILL_OK) st = mill_pipeline_check(p, err);
    mill_pipeline_destroy(&p);
    return st;
}

class Mistakes : public testing::TestWithParam<mt::Mistake> {};

TEST_P(Mistakes, OneClearErrorAtItsPlaceAndValidWhenMended)
{
    const mt::Mistake &c = GetParam();
    const std::string good = c.base;
    const size_t at = good.find(c.good);
    ASSERT_NE(at, std::string::npos) << "the case does not fit its base file";
    const std::string bad = good.substr(0, at) + c.bad + good.substr(at + std::string(c.good).size());

    mill_error err = {};
    EXPECT_NE(check(bad, &err), MILL_OK);
    char text[1600];
    mill_error_format(&err, text, sizeof text);
    SCOPED_TRACE(text);
    const std::string said = text, place = "p.yaml:" + std::to_string(c.line) + ":" + std::to_string(c.column) + ": ";
    EXPECT_EQ(said, place + c.message);
    EXPECT_EQ(err.phase, MILL_PHASE_CHECK);
    EXPECT_EQ(check(bad, nullptr), err.status) << "for who does not ask why";
    EXPECT_EQ(mt::live_states, 0);

    err = {};
    const std::string mended = bad.substr(0, at) + c.good + bad.substr(at + std::string(c.bad).size());
    EXPECT_EQ(check(mended, &err), MILL_OK) << (mill_error_format(&err, text, sizeof text), text);
}

INSTANTIATE_TEST_SUITE_P(Table, Mistakes, testing::ValuesIn(mt::kMistakes),
                         [](const auto &i) { return std::string(i.param.name); });

} // namespace
