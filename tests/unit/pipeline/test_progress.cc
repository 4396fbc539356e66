/* Progress: rates, what is left, widths. */
#include <gtest/gtest.h>

#include <string>

#include "stepmill/step.h"
extern "C" {
#include "core/alloc.h"
#include "trace/progress.h"
}

namespace {

struct Progress {
    stm_progress *p = nullptr;
    int lines = 0;
    Progress()
    {
        EXPECT_EQ(stm_progress_create(2, &p), MILL_OK);
        set(0, 0, 0);
    }
    ~Progress() { stm_progress_destroy(&p); }
    Progress(const Progress &) = delete;
    Progress &operator=(const Progress &) = delete;
    void set(int64_t made, int64_t taken, int64_t busy_ns, int64_t total = 10000)
    {
        stm_progress_step *s = stm_progress_steps(p);
        s[0] = {"source", MILL_GENERATOR, 1, 1, STM_PROGRESS_RUNNING, 0, made, 0, 0, 0, total};
        s[1] = {"out", MILL_SINK, 2, 2, STM_PROGRESS_RUNNING, taken, 0, 3, 1234567, busy_ns, -1};
    }
    std::string show(stm_progress_style style, double seconds, int width = 100)
    {
        return stm_progress_show(p, style, width, (int64_t)(seconds * 1e9), &lines);
    }
};

TEST(Progress, LineSaysRowsRateAndWhatIsLeft)
{
    Progress p;
    p.set(2000, 1500, 0);
    EXPECT_EQ(p.show(STM_PROGRESS_LINE, 2.0), "2 s: 2,000 of 10,000 rows in, 1,500 out, 1,000 rows/s, 3 rows failed, 8 s left\n");
    EXPECT_EQ(p.lines, 1);
}

TEST(Progress, UnknownTotalHasNoEnd)
{
    Progress p;
    p.set(2000, 1500, 0, -1);
    EXPECT_EQ(p.show(STM_PROGRESS_LINE, 2.0), "2 s: 2,000 rows in, 1,500 out, 1,000 rows/s, 3 rows failed\n");
}

TEST(Progress, RatesFollowSlowly)
{
    Progress p;
    p.set(1000, 0, 0);
    p.show(STM_PROGRESS_LINE, 1.0); /* 1,000 rows/s so far */
    p.set(1000, 0, 0);
    const std::string text = p.show(STM_PROGRESS_LINE, 6.0); /* nothing for 5 s: e^-1 of it is left */
    EXPECT_NE(text.find(" 368 rows/s"), std::string::npos) << text;
}

TEST(Progress, TableHasALinePerStepAndKeepsTheWidth)
{
    Progress p;
    p.set(2000, 1500, 2000000000); /* two replicas, each busy half of two seconds */
    const std::string text = p.show(STM_PROGRESS_TABLE, 2.0);
    EXPECT_EQ(p.lines, 4);
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
    EXPECT_NE(text.find("out     running          1,500         750   1,234,567   50%         3"), std::string::npos) << text;
    const std::string narrow = p.show(STM_PROGRESS_TABLE, 3.0, 30);
    for (size_t at = 0; at < narrow.size();) {
        const size_t end = narrow.find('\n', at);
        ASSERT_NE(end, std::string::npos);
        EXPECT_LE(end - at, 30u);
        at = end + 1;
    }
}

TEST(Progress, JsonIsOneLine)
{
    Progress p;
    p.set(2000, 1500, 0);
    const std::string text = p.show(STM_PROGRESS_JSON, 2.0);
    EXPECT_EQ(text.find("{\"seconds\":2.000,\"rows_in\":2000,\"rows_out\":1500,\"rows_failed\":3,"), 0u) << text;
    EXPECT_EQ(text.find('\n'), text.size() - 1);
}

TEST(Progress, LoadingIsNamed)
{
    Progress p;
    stm_progress_steps(p.p)[1].phase = STM_PROGRESS_LOADING;
    EXPECT_EQ(p.show(STM_PROGRESS_LINE, 0.5).find("500 ms: loading out, 0 of 10,000 rows in"), 0u)
        << p.show(STM_PROGRESS_LINE, 0.5);
}

} // namespace
