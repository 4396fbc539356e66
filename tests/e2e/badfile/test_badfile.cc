/* Every mistake of the table through the command: exit code 65, the error with its place and nothing else, nothing written; valid
 * when mended. */
#include <gtest/gtest.h>

#include "command.h"
#include "mistakes.h"
#include "support/sanitized.h"

namespace {

class BadFile : public testing::TestWithParam<mt::Mistake> {};

TEST_P(BadFile, EndsWith65WritesNothingAndIsValidWhenMended)
{
    const mt::Mistake &c = GetParam();
    const std::string good = c.base;
    const size_t at = good.find(c.good);
    ASSERT_NE(at, std::string::npos);
    const std::string bad = good.substr(0, at) + c.bad + good.substr(at + std::string(c.good).size());
    /* the plugin is named on the command line, so that lines and columns are those of the file */
    std::vector<std::string> flags = {"--set", "plugins=[" BADFILE_PLUGIN "]"};
    const mt::Folder f;

    f.write("p.yaml", bad);
    for (const char *verb : {"run", "check"}) {
        std::vector<std::string> args = {verb, "p.yaml"};
        if (bad.find("stepmill") != std::string::npos || bad.find("steps") != std::string::npos)
            args.insert(args.end(), flags.begin(), flags.end());
        const mt::Result r = mt::run(f, args);
        EXPECT_EQ(r.code, 65) << verb;
        EXPECT_EQ(r.out, "");
        EXPECT_EQ(r.err, "error: p.yaml:" + std::to_string(c.line) + ":" + std::to_string(c.column) + ": " + c.message + "\n");
        EXPECT_EQ(f.list(), std::vector<std::string>{"p.yaml"}) << "nothing may be written";
    }
    f.write("p.yaml", bad.substr(0, at) + c.good + bad.substr(at + std::string(c.bad).size()));
    std::vector<std::string> args = {"check", "p.yaml"};
    args.insert(args.end(), flags.begin(), flags.end());
    const mt::Result r = mt::run(f, args);
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.out, "valid\n");
}

/* Under a sanitizer each fifth: three processes a mistake, and test_pipeline has all of them in one. */
INSTANTIATE_TEST_SUITE_P(Table, BadFile, testing::ValuesIn(mt::rows_of(mt::kMistakes, 5)),
                         [](const auto &i) { return std::string(i.param.name); });

} // namespace
