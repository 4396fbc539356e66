#include "trace/advice.h"

#include <math.h>

#include "stepmill/step.h"

#define LEAST_SECONDS 0.2 /* of a run that says anything */
#define BUSY 0.6          /* a step that is less busy holds nobody up */
#define WORTH 1.1         /* times faster, to be worth a word */
enum { MOST_TIMES = 4 };

static double active_s(const stm_picture_step *s)
{
    return s->last_ns > s->first_ns ? (double)(s->last_ns - s->first_ns) / 1e9 : 0;
}

/* Busy share of its replicas while rows moved. */
static double busy_of(const stm_picture *p, const stm_picture_step *s)
{
    const double span = active_s(s) * s->replicas;
    double busy = 0;

    for (int32_t k = 0; k < s->replicas; k++) busy += (double)p->all[s->first_replica + k].ns[STM_SPENT_BUSY] / 1e9;
    if (span <= 0) return 0;
    return busy < span ? busy / span : 1;
}

stm_advice stm_advise(const stm_picture *p)
{
    stm_advice a = {.kind = STM_ADVICE_NONE, .step = -1, .next = -1};
    double times, crowded = 0, all = 0;
    const stm_picture_step *s;

    if (p->seconds < LEAST_SECONDS) return a;
    a.processors = p->processors > 0 ? p->cpu_s / p->seconds / p->processors : 1;
    if (a.processors > 1) a.processors = 1;
    for (int32_t i = 0; i < p->n_steps; i++) {
        const double busy = busy_of(p, &p->steps[i]);

        if (p->steps[i].kept) continue;
        for (int32_t k = 0; k < p->steps[i].replicas; k++) {
            const stm_picture_replica *r = &p->all[p->steps[i].first_replica + k];
            crowded += (double)r->ns[STM_SPENT_CROWDED];
            for (int d = 0; d < STM_SPENTS; d++) all += (double)r->ns[d];
        }
        if (active_s(&p->steps[i]) < 0.05 * p->seconds) continue; /* it took no part worth the name */
        if (a.step < 0 || busy > a.busy) {
            a.next = a.step, a.next_busy = a.busy;
            a.step = i, a.busy = busy;
        } else if (a.next < 0 || busy > a.next_busy) {
            a.next = i, a.next_busy = busy;
        }
    }
    if (a.step < 0) return a;
    if (a.busy < BUSY) {
        a.kind = a.processors > 0.8 || (all > 0 && crowded / all > 0.2) ? STM_ADVICE_CROWDED : STM_ADVICE_WAITING;
        return a;
    }
    s = &p->steps[a.step];
    if (!s->may_replicate) {
        a.kind = STM_ADVICE_SINGLE;
        return a;
    }
    times = a.next_busy > 0.01 ? a.busy / a.next_busy : 100;
    if (times < WORTH) {
        a.kind = STM_ADVICE_EVEN;
        return a;
    }
    if (!s->devices && a.processors > 0.01 && 1 / a.processors < times) times = 1 / a.processors;
    if (times > MOST_TIMES) times = MOST_TIMES;
    a.replicas = (int32_t)ceil(times * s->replicas - 1e-9);
    if ((double)a.replicas / s->replicas < times) times = (double)a.replicas / s->replicas;
    if (times < WORTH || a.replicas <= s->replicas) {
        a.kind = STM_ADVICE_FULL;
        return a;
    }
    a.kind = STM_ADVICE_REPLICAS;
    a.seconds = p->seconds - active_s(s) * (1 - 1 / times);
    return a;
}

void stm_advice_say(const stm_picture *p, const stm_advice *a, stm_text *t)
{
    const char *step = a->step >= 0 ? p->steps[a->step].name : "", *next = a->next >= 0 ? p->steps[a->next].name : "";
    char now[48], then[48];

    if (a->step >= 0 && a->busy >= BUSY)
        stm_text_addf(t, "%s sets the pace: its replica%s busy %.0f %% of the time in which rows moved through it", step,
                      p->steps[a->step].replicas == 1 ? " was" : "s were", a->busy * 100);
    if (a->step >= 0 && a->busy >= BUSY && a->next >= 0) stm_text_addf(t, "; the next, %s, %.0f %%", next, a->next_busy * 100);
    if (a->step >= 0 && a->busy >= BUSY) stm_text_addf(t, ". ");
    switch (a->kind) {
    case STM_ADVICE_NONE: stm_text_addf(t, "The run was too short to say where its time goes."); break;
    case STM_ADVICE_REPLICAS:
        stm_text_addf(t, "With replicas: %d instead of %d the run would take about %s instead of %s%s.", a->replicas,
                      p->steps[a->step].replicas, stm_show_seconds(a->seconds, then, sizeof then),
                      stm_show_seconds(p->seconds, now, sizeof now),
                      p->steps[a->step].devices ? ", if there are devices for them" : "");
        break;
    case STM_ADVICE_FULL:
        stm_text_addf(t, "More replicas would not help: %.0f %% of the processors' time is used already.", a->processors * 100);
        break;
    case STM_ADVICE_SINGLE:
        stm_text_addf(t, "There can be one replica of it only: a faster run needs less work in this step.");
        break;
    case STM_ADVICE_EVEN: stm_text_addf(t, "More replicas of it alone would not help: %s would set the pace then.", next); break;
    case STM_ADVICE_CROWDED:
        stm_text_addf(t, "No step sets the pace alone: work waits for processors, of whose time %.0f %% is used.",
                      a->processors * 100);
        break;
    case STM_ADVICE_WAITING:
        stm_text_addf(t,
                      "No step sets the pace: the busiest, %s, worked %.0f %% of the time. Larger batches or more credit may help.",
                      step, a->busy * 100);
        break;
    }
}
