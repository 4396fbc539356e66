/* Rates, and how long a run will take: against runs whose course is known. */
#include <gtest/gtest.h>

#include <cmath>

#include "pictures.h"
extern "C" {
#include "trace/gauge.h"
}

using mt::Picture;

namespace {

/* A run whose source reads `total` rows at `in` rows/s ahead of a worker that takes `out` rows/s. */
struct Course {
    Picture x;
    stm_gauge *g = nullptr;
    double total, in, out;
    Course(double t, double i, double o) : total(t), in(i), out(o) { EXPECT_EQ(stm_gauge_create(3, &g), MILL_OK); }
    ~Course() { stm_gauge_destroy(&g); }
    Course(const Course &) = delete;
    Course &operator=(const Course &) = delete;
    double end() const { return total / std::min(in, out); }
    void at(double seconds)
    {
        const double made = std::min(total, in * seconds), taken = std::min(made, out * seconds);
        x.p->seconds = seconds;
        x.step(0).rows_out = (int64_t)made;
        x.step(0).done = made / total;
        if (made >= total) x.step(0).phase = STM_PHASE_DONE;
        x.step(1).rows_in = x.step(1).rows_out = x.step(2).rows_in = (int64_t)taken;
        x.step(1).queued_rows = (int64_t)made - (int64_t)taken;
        x.step(0).first_ns = x.step(1).first_ns = x.step(2).first_ns = 1;
        for (int i = 0; i < 3; i++) x.step(i).last_ns = (int64_t)(seconds * 1e9);
        for (int32_t k = 0; k < x.p->n_replicas; k++)
            x.p->all[k].ns[STM_SPENT_BUSY] = x.p->all[k].ns[STM_SPENT_STARVED] = (int64_t)(seconds * 5e8);
        stm_gauge_read(g, x.p);
    }
};

} // namespace

TEST(Gauge, TheEndIsSeenComing)
{
    for (double out : {500.0, 1000.0, 90.0}) {
        Course c(100000, 1000, out);
        for (double t = 0.5; t < c.end() - 1; t += 0.5) {
            c.at(t);
            const stm_picture_sums s = stm_picture_add_up(c.x.p);
            if (t < 2) continue;
            ASSERT_GE(s.eta_s, 0) << t;
            EXPECT_FALSE(s.more);
            EXPECT_NEAR(s.eta_s, c.end() - t, 0.1 * c.end()) << "at " << t << " of " << c.end();
        }
    }
}

TEST(Gauge, RatesFollowAChangeInAFewSeconds)
{
    Course c(1e9, 1000, 1000);
    for (double t = 0.25; t < 30; t += 0.25) c.at(t);
    EXPECT_NEAR(c.x.step(0).rate, 1000, 10);
    EXPECT_NEAR(c.x.step(1).busy, 0.5, 0.01);
    EXPECT_NEAR(c.x.step(1).starved, 0.5, 0.01);
    c.in = c.out = 0; /* nothing moves: at() gives the same rows from now on */
    const int64_t made = c.x.step(0).rows_out;
    for (double t = 30; t <= 35; t += 0.25) {
        c.x.p->seconds = t;
        c.x.step(0).rows_out = made;
        stm_gauge_read(c.g, c.x.p);
    }
    EXPECT_NEAR(c.x.step(0).rate, 1000 * std::exp(-1), 60);
}

TEST(Gauge, NobodyKnowsWhatAGlobalWillSend)
{
    Course c(100000, 1000, 1000);
    c.x.step(1).kind = MILL_GLOBAL;
    for (double t = 0.5; t < 20; t += 0.5) c.at(t);
    EXPECT_LT(c.x.step(2).eta_s, 0);
    const stm_picture_sums s = stm_picture_add_up(c.x.p);
    EXPECT_TRUE(s.more);
    EXPECT_NEAR(s.eta_s, 80, 10);
}

TEST(Gauge, AtTheEndRatesAreThoseOfTheWholeTime)
{
    Course c(1000, 100, 100);
    c.at(9.99);
    c.x.p->state = STM_PICTURE_DONE;
    c.at(10);
    EXPECT_NEAR(c.x.step(1).rate, 100, 1);
    EXPECT_NEAR(c.x.step(1).busy, 0.5, 1e-6);
    EXPECT_LT(c.x.step(1).eta_s, 0);
}
