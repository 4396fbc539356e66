#include "trace/timeline.h"

#include <stdbool.h>
#include <string.h>

#include "core/alloc.h"

const char *const stm_spent_names[STM_SPENTS + 1] = {"busy", "starved", "blocked", "crowded", "off"};

mill_status stm_course_init(stm_course *t, int32_t n_tracks)
{
    *t = (stm_course){.span_ns = STM_SPAN_NS, .n_tracks = n_tracks};
    t->ns = stm_calloc((size_t)(n_tracks > 0 ? n_tracks : 1) * STM_SPANS * STM_SPENTS * sizeof *t->ns);
    return t->ns != NULL ? MILL_OK : MILL_ERR_NOMEM;
}

void stm_course_fini(stm_course *t)
{
    stm_free(t->ns);
    t->ns = NULL;
}

/* Two spans become one. */
static void halve(stm_course *t)
{
    for (int32_t k = 0; k < t->n_tracks; k++) {
        for (int32_t i = 0; i < STM_SPANS / 2; i++) {
            float *to = stm_course_span(t, k, i);
            const float *a = stm_course_span(t, k, 2 * i), *b = stm_course_span(t, k, 2 * i + 1);
            for (int d = 0; d < STM_SPENTS; d++) to[d] = a[d] + b[d];
        }
        memset(stm_course_span(t, k, STM_SPANS / 2), 0, sizeof(float) * (STM_SPANS / 2) * STM_SPENTS);
    }
    t->span_ns *= 2;
    t->n = (t->n + 1) / 2;
}

void stm_course_add(stm_course *t, int32_t track, int64_t at, int64_t dt, const int64_t ns[STM_SPENTS])
{
    int64_t from = at - dt > 0 ? at - dt : 0;

    if (dt <= 0 || at <= 0) return;
    while (at > t->span_ns * STM_SPANS) halve(t);
    while (from < at) {
        const int64_t span = from / t->span_ns, stop = (span + 1) * t->span_ns < at ? (span + 1) * t->span_ns : at;
        float *to = stm_course_span(t, track, (int32_t)span);

        for (int d = 0; d < STM_SPENTS; d++) to[d] += (float)((double)ns[d] * (double)(stop - from) / (double)dt);
        if (span >= t->n) t->n = (int32_t)span + 1;
        from = stop;
    }
}

void stm_account_look(stm_account *a, stm_spent doing, int64_t busy_ns, int64_t dt, int64_t ns[STM_SPENTS])
{
    double sum = 0;
    int64_t busy = 0, rest;

    for (int d = 0; d < STM_SPENTS; d++) ns[d] = 0;
    if (busy_ns >= 0) {
        int64_t spent = busy_ns - a->busy_ns;

        a->busy_ns = busy_ns;
        if (spent > 0) { /* calls came to their end: what was counted ahead for them is theirs */
            const bool lent = a->lent_ns > 0;

            busy = spent > a->lent_ns ? spent - a->lent_ns : 0;
            a->lent_ns = spent > a->lent_ns ? 0 : a->lent_ns - spent; /* too much was counted: less is from now on */
            if (busy > dt) busy = dt;                                 /* it began before anybody looked */
            if (lent &&
                doing == STM_SPENT_BUSY) { /* calls are longer than the time between looks, and it is in the next one already */
                a->lent_ns += dt - busy;
                busy = dt;
            }
        } else if (doing == STM_SPENT_BUSY) {
            busy = dt;
            a->lent_ns += dt;
        }
    } else if (doing == STM_SPENT_BUSY) {
        busy = dt;
    }
    if (dt <= 0 || (doing == STM_SPENT_OFF && busy == 0)) return;
    ns[STM_SPENT_BUSY] = busy;
    rest = dt - busy;
    if (doing == STM_SPENT_OFF) return; /* it ended meanwhile: idle time before that is nobody's */
    for (int d = STM_SPENT_STARVED; d < STM_SPENTS; d++) a->mix[d] *= 0.95;
    if (doing != STM_SPENT_BUSY) a->mix[doing] += 1;
    if (rest <= 0) return;
    for (int d = STM_SPENT_STARVED; d < STM_SPENTS; d++) sum += a->mix[d];
    if (doing != STM_SPENT_BUSY && (busy == 0 || sum <= 0)) {
        ns[doing] += rest;
        return;
    }
    if (sum <= 0) { /* between calls whenever it was looked at: it does not wait for long */
        ns[STM_SPENT_CROWDED] += rest;
        return;
    }
    for (int d = STM_SPENT_STARVED; d < STM_SPENTS; d++) ns[d] = (int64_t)((double)rest * a->mix[d] / sum);
    ns[STM_SPENT_CROWDED] += rest - ns[STM_SPENT_STARVED] - ns[STM_SPENT_BLOCKED] - ns[STM_SPENT_CROWDED];
}
