/* Where time goes: nothing of it is lost or made up. */
#include <gtest/gtest.h>

#include <random>
extern "C" {
#include "trace/timeline.h"
}

namespace {

constexpr int64_t kMs = 1000000;

double total(const stm_course &t, int32_t track, int doing)
{
    double sum = 0;
    for (int32_t i = 0; i < t.n; i++) sum += stm_course_span(&t, track, i)[doing];
    return sum;
}

} // namespace

TEST(Timeline, KeepsAllTimeInABoundedNumberOfSpans)
{
    stm_course t;
    ASSERT_EQ(stm_course_init(&t, 2), MILL_OK);
    std::mt19937 random(1);
    int64_t at = 0, sums[STM_SPENTS] = {};
    for (int i = 0; i < 20000; i++) {
        const int64_t dt = (int64_t)(random() % (90 * kMs)) + 1;
        int64_t ns[STM_SPENTS] = {};
        at += dt;
        ns[random() % STM_SPENTS] += dt / 3;
        ns[random() % STM_SPENTS] += dt - dt / 3;
        for (int d = 0; d < STM_SPENTS; d++) sums[d] += ns[d];
        stm_course_add(&t, 1, at, dt, ns);
        ASSERT_LE(t.n, STM_SPANS);
        ASSERT_GE(t.span_ns * t.n, at) << "the last span holds this moment";
    }
    EXPECT_LT(t.span_ns * (STM_SPANS / 2 - 1), at) << "no coarser than it must be";
    for (int d = 0; d < STM_SPENTS; d++) {
        EXPECT_NEAR(total(t, 1, d) / (double)sums[d], 1.0, 1e-3);
        EXPECT_EQ(total(t, 0, d), 0);
    }
    stm_course_fini(&t);
}

/* A replica that works for `work` and then waits for `rest`, looked at every `tick`: the shares are those of its life. */
static void expect_share(int64_t work, int64_t rest, int64_t tick, double tolerance)
{
    stm_account a = {};
    double sum[STM_SPENTS] = {};
    int64_t seen = 0;
    const int64_t end = 4000 * kMs, period = work + rest;
    for (int64_t at = tick; at <= end; at += tick) {
        const int64_t cycles = at / period, in = at % period;
        const bool busy = in < work;
        int64_t ns[STM_SPENTS];
        stm_account_look(&a, busy ? STM_SPENT_BUSY : STM_SPENT_STARVED, (cycles + !busy) * work, at - seen, ns);
        int64_t all = 0;
        for (int d = 0; d < STM_SPENTS; d++) {
            ASSERT_GE(ns[d], 0);
            all += ns[d];
            sum[d] += (double)ns[d];
        }
        ASSERT_EQ(all, at - seen) << "each look is divided to the last nanosecond";
        seen = at;
    }
    EXPECT_NEAR(sum[STM_SPENT_BUSY] / (double)end, (double)work / (double)period, tolerance) << work << " " << rest << " " << tick;
    EXPECT_NEAR(sum[STM_SPENT_STARVED] / (double)end, (double)rest / (double)period, tolerance)
        << work << " " << rest << " " << tick;
}

TEST(Account, SharesAreThoseOfTheReplicasLife)
{
    expect_share(3001, 7001, 10 * kMs, 0.01); /* far shorter than a look */
    expect_share(900 * 1000, 100 * 1000, 7130 * 1000, 0.01);
    expect_share(250 * kMs, 750 * kMs, 10 * kMs, 0.01); /* far longer */
    expect_share(333 * kMs, 11 * kMs, 10 * kMs, 0.02);
    expect_share(13 * kMs, 9 * kMs, 10 * kMs, 0.05); /* about as long */
}

TEST(Account, OffCountsForNothingButWhatWasDoneBefore)
{
    stm_account a = {};
    int64_t ns[STM_SPENTS];
    stm_account_look(&a, STM_SPENT_OFF, 0, 10 * kMs, ns);
    for (int64_t v : ns) EXPECT_EQ(v, 0);
    stm_account_look(&a, STM_SPENT_OFF, 4 * kMs, 10 * kMs, ns);
    EXPECT_EQ(ns[STM_SPENT_BUSY], 4 * kMs);
    EXPECT_EQ(ns[STM_SPENT_STARVED] + ns[STM_SPENT_BLOCKED] + ns[STM_SPENT_CROWDED], 0);
}

TEST(Account, RowsWithAServiceAreWork)
{
    stm_account a = {};
    int64_t ns[STM_SPENTS];
    stm_account_look(&a, STM_SPENT_BUSY, -1, 10 * kMs, ns);
    EXPECT_EQ(ns[STM_SPENT_BUSY], 10 * kMs);
    stm_account_look(&a, STM_SPENT_STARVED, -1, 10 * kMs, ns);
    EXPECT_EQ(ns[STM_SPENT_STARVED], 10 * kMs);
}
