#include "trace/gauge.h"

#include <math.h>

#include "core/alloc.h"
#include "stepmill/step.h"

#define MEMORY_S 5.0 /* a change shows by 1 - 1/e after so long */

struct history {
    bool begun;
    double since; /* seconds at the reading before the first that showed anything */
    int64_t rows;
    double done, rate, done_rate; /* share per second */
    double ns[STM_SPENTS];        /* at the last reading, over all replicas */
    double share[STM_SPENTS];
};

struct stm_gauge {
    double seconds; /* of the reading before */
    int32_t n;
    struct history step[];
};

mill_status stm_gauge_create(int32_t n_steps, stm_gauge **out)
{
    stm_gauge *g = stm_calloc(sizeof *g + (size_t)n_steps * sizeof g->step[0]);

    if (g == NULL) return MILL_ERR_NOMEM;
    g->n = n_steps;
    *out = g;
    return MILL_OK;
}

void stm_gauge_destroy(stm_gauge **g)
{
    stm_free(*g);
    *g = NULL;
}

static int64_t rows_of(const stm_picture_step *s) { return s->kind == MILL_GENERATOR ? s->rows_out : s->rows_in; }

static void measure(const stm_picture *p, const stm_picture_step *s, double dt, double weight, struct history *h)
{
    double ns[STM_SPENTS] = {0}, sum = 0;

    for (int32_t k = 0; k < s->replicas; k++)
        for (int d = 0; d < STM_SPENTS; d++) ns[d] += (double)p->all[s->first_replica + k].ns[d];
    for (int d = 0; d < STM_SPENTS; d++) sum += ns[d] - h->ns[d];
    if (!h->begun && rows_of(s) == 0 && sum <= 0) return; /* not loaded yet, say */
    if (!h->begun) h->since = p->seconds - dt;
    h->begun = true;
    /* In its first seconds the mean of all there is: what would be remembered of the time before is not true. */
    if (dt / (p->seconds - h->since) > weight) weight = dt / (p->seconds - h->since);
    h->rate += weight * ((double)(rows_of(s) - h->rows) / dt - h->rate);
    h->rows = rows_of(s);
    if (s->done >= 0) {
        h->done_rate += weight * ((s->done - h->done) / dt - h->done_rate);
        h->done = s->done;
    }
    for (int d = 0; d < STM_SPENTS; d++) {
        h->share[d] += weight * ((sum > 0 ? (ns[d] - h->ns[d]) / sum : 0.0) - h->share[d]);
        h->ns[d] = ns[d];
    }
}

/* Over the whole time of the step. */
static void conclude(const stm_picture *p, stm_picture_step *s)
{
    double ns[STM_SPENTS] = {0}, sum = 0;
    const double active = (double)(s->last_ns - s->first_ns) / 1e9;

    for (int32_t k = 0; k < s->replicas; k++)
        for (int d = 0; d < STM_SPENTS; d++) ns[d] += (double)p->all[s->first_replica + k].ns[d];
    for (int d = 0; d < STM_SPENTS; d++) sum += ns[d];
    if (sum <= 0) sum = 1;
    s->busy = ns[STM_SPENT_BUSY] / sum;
    s->starved = ns[STM_SPENT_STARVED] / sum;
    s->blocked = ns[STM_SPENT_BLOCKED] / sum;
    s->crowded = ns[STM_SPENT_CROWDED] / sum;
    s->rate = active > 1e-3 ? (double)rows_of(s) / active : p->seconds > 0 ? (double)rows_of(s) / p->seconds : 0;
    s->eta_s = -1;
}

/*
 * What is left of a step: of a generator by the share of its input; of others what waits in front of them and what the steps in
 * front of them will still send, in the proportion in which rows came so far, at the rate of now; but not before those are through.
 * Unknown behind a global, which may send anything.
 */
static void look_ahead(const stm_gauge *g, stm_picture *p)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        stm_picture_step *s = &p->steps[i];
        const struct history *h = &g->step[i];
        double left = (double)s->queued_rows;
        bool known = s->rows_in > 0 && s->rate > 0;

        s->eta_s = -1;
        if (s->phase == STM_PHASE_DONE) {
            s->eta_s = 0;
            continue;
        }
        if (s->phase != STM_PHASE_RUNNING || p->seconds < 1) continue;
        if (s->kind == MILL_GENERATOR) {
            if (s->done > 0 && h->done_rate > 1e-9) s->eta_s = (1 - s->done) / h->done_rate;
            continue;
        }
        for (int32_t k = 0; k < s->n_from; k++) {
            const stm_picture_step *f = &p->steps[s->from[k]];
            const int64_t sent = rows_of(f);

            known = known && f->eta_s >= 0 && f->kind != MILL_GLOBAL;
            if (known && sent > 0)
                left += f->eta_s * f->rate * (double)(s->rows_in + s->queued_rows) / (double)sent / (double)s->n_from;
        }
        if (!known) continue;
        s->eta_s = s->n_from > 1 ? 0 : left / s->rate; /* what waits in front of several inputs waits for the others */
        for (int32_t k = 0; k < s->n_from; k++)
            if (p->steps[s->from[k]].eta_s > s->eta_s) s->eta_s = p->steps[s->from[k]].eta_s;
    }
}

void stm_gauge_read(stm_gauge *g, stm_picture *p)
{
    const double dt = p->seconds - g->seconds, weight = 1.0 - exp(-dt / MEMORY_S);

    for (int32_t i = 0; i < p->n_steps && i < g->n; i++) {
        stm_picture_step *s = &p->steps[i];
        struct history *h = &g->step[i];

        if (s->kept) continue;
        if (p->state != STM_PICTURE_RUNNING || s->phase == STM_PHASE_DONE || s->phase == STM_PHASE_FAILED) {
            conclude(p, s);
            continue;
        }
        if (dt > 0) measure(p, s, dt, weight, h);
        s->rate = h->rate;
        s->busy = h->share[STM_SPENT_BUSY];
        s->starved = h->share[STM_SPENT_STARVED];
        s->blocked = h->share[STM_SPENT_BLOCKED];
        s->crowded = h->share[STM_SPENT_CROWDED];
    }
    if (p->state != STM_PICTURE_RUNNING) return;
    if (dt > 0) g->seconds = p->seconds;
    look_ahead(g, p);
}
