/* progress.json: a picture comes back as it was written. */
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "pictures.h"

using mt::Picture;
using mt::Text;

static void fill(stm_picture *p, unsigned seed)
{
    std::mt19937 random(seed);
    auto n = [&] { return (int64_t)(random() % 1000000007) * (int64_t)(random() % 1000); };
    auto share = [&] { return (double)(random() % 10001) / 10000; };
    p->state = (stm_picture_state)(random() % STM_PICTURE_STATES);
    p->attempt = 3;
    p->started_s = 1795870594;
    p->wall_ms = 1795870603183;
    p->seconds = 8.812;
    p->earlier_s = 100.25;
    p->rows_imputed = n(), p->max_errors = n(), p->errors = n();
    for (int64_t &c : p->classes) c = n();
    p->memory_live = n(), p->memory_peak = n(), p->memory_limit = n(), p->on_disk = n();
    p->cpu_s = 12.5;
    snprintf(p->error, sizeof p->error, "cannot \"read\" \n\x01 \xc3\xa4");
    for (int32_t i = 0; i < p->n_steps; i++) {
        stm_picture_step *s = &p->steps[i];
        s->phase = (stm_phase)(random() % STM_PHASES);
        s->devices = random() % 2;
        s->batches_in = n(), s->rows_in = n(), s->batches_out = n(), s->rows_out = n(), s->rows_dropped = n(),
        s->parents_expanded = n();
        s->children = n(), s->rows_failed = n(), s->rows_skipped = n(), s->retries = n(), s->queued_rows = n(),
        s->ready_batches = n(), s->stalls = n();
        s->rows_before = n();
        s->done = random() % 2 ? share() : -1;
        s->eta_s = random() % 2 ? 12.25 : -1;
        s->rate = 100.5;
        s->busy = share(), s->starved = share(), s->blocked = share(), s->crowded = share();
        s->first_ns = 1000 * (n() % 1000000), s->last_ns = 1000 * (n() % 1000000);
    }
    for (int32_t k = 0; k < p->n_replicas; k++) {
        p->all[k].doing = (stm_spent)(random() % (STM_SPENTS + 1));
        p->all[k].rows = n(), p->all[k].batches = n();
        for (int64_t &t : p->all[k].ns) t = 1000 * (n() % 1000000000);
    }
    for (int64_t at = 100000000; at < 90000000000; at += 100000000)
        for (int32_t k = 0; k < p->n_replicas; k++) {
            int64_t ns[STM_SPENTS] = {};
            ns[random() % STM_SPENTS] = 100000000;
            stm_course_add(&p->timeline, k, at, 100000000, ns);
        }
}

TEST(Picture, ComesBackAsItWasWritten)
{
    for (unsigned seed = 0; seed < 20; seed++) {
        Picture x;
        fill(x.p, seed);
        Text a, b;
        stm_picture_write(x.p, a);
        stm_picture *back = nullptr;
        ASSERT_EQ(stm_picture_read(a.t.data, a.t.bytes, &back), MILL_OK);
        stm_picture_write(back, b);
        EXPECT_EQ(a.str(), b.str());
        EXPECT_STREQ(back->error, x.p->error);
        EXPECT_EQ(memcmp(back->classes, x.p->classes, sizeof back->classes), 0);
        for (int32_t i = 0; i < 3; i++) {
            EXPECT_EQ(back->steps[i].rows_out, x.step(i).rows_out);
            EXPECT_EQ(back->steps[i].phase, x.step(i).phase);
            EXPECT_EQ(back->steps[i].from != nullptr && back->steps[i].n_from > 0 ? back->steps[i].from[0] : -1, i - 1);
        }
        for (int32_t k = 0; k < back->n_replicas; k++) EXPECT_EQ(memcmp(&back->all[k], &x.p->all[k], sizeof back->all[k]), 0) << k;
        EXPECT_EQ(back->timeline.n, x.p->timeline.n);
        for (int32_t k = 0; k < back->n_replicas; k++)
            for (int32_t i = 0; i < back->timeline.n; i++)
                for (int d = 0; d < STM_SPENTS; d++)
                    EXPECT_NEAR(stm_course_span(&back->timeline, k, i)[d], stm_course_span(&x.p->timeline, k, i)[d],
                                (double)x.p->timeline.span_ns / 120);
        stm_picture_destroy(&back);
    }
}

/* Anybody may have written into the file: whatever it is, reading it ends well. */
TEST(Picture, DamageIsToldOrHarmless)
{
    Picture x;
    fill(x.p, 1);
    Text a;
    stm_picture_write(x.p, a);
    std::mt19937 random(2);
    int refused = 0;
    for (int i = 0; i < 1500; i++) {
        std::string text = a.str();
        if (i % 2)
            text.resize(random() % text.size());
        else
            for (int k = 0; k < 3; k++) text[random() % text.size()] = (char)(random() % 128);
        stm_picture *back = nullptr;
        const mill_status st = stm_picture_read(text.data(), text.size(), &back);
        if (st != MILL_OK) {
            EXPECT_EQ(st, MILL_ERR_DATA);
            EXPECT_EQ(back, nullptr);
            refused++;
        }
        stm_picture_destroy(&back);
    }
    EXPECT_GT(refused, 750) << "every file that was cut, and many others";
}

TEST(Picture, SumsAddUp)
{
    Picture x;
    x.step(0).rows_out = 500;
    x.step(0).rows_before = 500;
    x.step(0).done = 0.25;
    x.step(1).rows_failed = 7;
    x.step(2).rows_in = 400;
    const stm_picture_sums s = stm_picture_add_up(x.p);
    EXPECT_EQ(s.rows_in, 500);
    EXPECT_EQ(s.rows_out, 400);
    EXPECT_EQ(s.rows_failed, 7);
    EXPECT_EQ(s.rows_total, 4000);
    EXPECT_LT(s.eta_s, 0);
}
