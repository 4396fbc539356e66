/* The watchdog: when nothing has moved for a while, it says who is at work, with which rows, and where batches wait. */
#include <stdio.h>

#include "core/clock.h"
#include "core/log.h"
#include "exec/station.h"
#include "supervise/recorder.h"

/* Everything that moves: batches in and out, tries. */
static int64_t moved(const stm_run *run)
{
    int64_t sum = 0;

    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        for (int32_t k = 0; k < s->n_slots; k++) {
            stm_wrapper_stats c;
            if (s->slots[k].wrapper == NULL) continue;
            c = stm_wrapper_counts(s->slots[k].wrapper);
            sum += c.batches_in + c.batches_out + c.retries;
        }
    }
    return sum;
}

/* A replica inside a call into its step, of the one that is first in the graph; NULL = none is. */
static const stm_record *at_work(const stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        for (int32_t k = 0; k < run->stations[i].n_slots; k++) {
            const stm_wrapper *w = run->stations[i].slots[k].wrapper;
            if (w != NULL && atomic_load(&stm_wrapper_record(w)->doing) != STM_DOING_NOTHING) return stm_wrapper_record(w);
        }
    return NULL;
}

/* The edge with most waiting: its station; NULL = nothing waits. */
static const stm_station *fullest(const stm_run *run, int64_t *ready)
{
    const stm_station *most = NULL;

    *ready = 0;
    for (int32_t i = 0; i < run->n_stations; i++) {
        const int64_t n = atomic_load(&run->stations[i].ready);
        if (n > *ready) *ready = n, most = &run->stations[i];
    }
    return most;
}

static const char *in_front_of(const stm_run *run, const stm_station *s)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        for (int32_t o = 0; o < run->stations[i].n_outs; o++)
            if (run->stations[i].outs[o].to == s) return run->stations[i].name;
    return "?";
}

static void say(const stm_run *run, double seconds)
{
    const stm_record *r = at_work(run);
    int64_t ready;
    const stm_station *edge = fullest(run, &ready);
    char call[320] = "no step is at work", wait[320] = "";

    if (r != NULL) stm_record_show(r, call, sizeof call);
    if (edge != NULL)
        snprintf(wait, sizeof wait, "; %lld batch%s wait%s between %s and %s", (long long)ready, ready == 1 ? "" : "es",
                 ready == 1 ? "s" : "", in_front_of(run, edge), edge->name);
    stm_log(STM_WARN, "", "nothing has moved for %.0f s: %s%s", seconds, call, wait);
}

void stm_run_watch(stm_run *run)
{
    const int64_t now = stm_now_ns(), every = (int64_t)((run->opts.quiet_s > 0.0 ? run->opts.quiet_s : STM_QUIET_S) * 1e9);
    int64_t sum;

    if (now - run->watched_ns < every / 8) return;
    run->watched_ns = now;
    sum = moved(run);
    if (sum != run->moved || run->moved_ns == 0) {
        run->moved = sum;
        run->moved_ns = now;
        run->quiet_told = 1;
    } else if (now - run->moved_ns >= every * run->quiet_told) {
        say(run, (double)(now - run->moved_ns) / 1e9);
        run->quiet_told *= 2; /* less and less often */
    }
}
