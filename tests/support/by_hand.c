#include "support/by_hand.h"

#include "exec/durable.h"
#include "exec/station.h"

mill_status mt_hand_start(stm_plan **plan, const stm_run_opts *opts, stm_run **out, mill_error *err)
{
    stm_run *run = NULL;
    mill_status st = stm_run_make(plan, opts, &run, err);

    for (int32_t i = 0; st == MILL_OK && i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (atomic_load(&s->done)) continue;
        atomic_fetch_add(&run->stage_left, 1);
        for (int32_t k = 0; k < s->n_slots && st == MILL_OK; k++) {
            if (s->slots[k].wrapper == NULL) continue;
            if ((st = stm_wrapper_load(s->slots[k].wrapper, err)) == MILL_OK) stm_wrapper_run(s->slots[k].wrapper);
        }
        if (s->root >= 0) stm_credit_pause(run->flow, s->root, false);
        atomic_store(&s->active, true);
    }
    if (st != MILL_OK) stm_run_destroy(&run);
    *out = run;
    return st;
}

int32_t mt_hand_stations(const stm_run *run) { return run->n_stations; }
const char *mt_hand_name(const stm_run *run, int32_t station) { return run->stations[station].name; }
bool mt_hand_runnable(const stm_run *run, int32_t station) { return stm_station_runnable(&run->stations[station]); }

void mt_hand_burst(stm_run *run, int32_t station)
{
    stm_station *s = &run->stations[station];
    stm_carry none = {.may = false};

    atomic_store(&s->cost_ns, INT64_C(1) << 30); /* so long that a burst is of one item */
    (void)stm_station_run(s, &none);
}

bool mt_hand_unstall(stm_run *run) { return stm_run_unstall(run); }
bool mt_hand_done(const stm_run *run) { return atomic_load(&run->stage_left) == 0; }

bool mt_hand_failed(const stm_run *run, mill_error *err)
{
    if (run->failed) *err = run->first_error;
    return run->failed;
}

void mt_hand_commit(stm_run *run) { stm_durable_commit(run); }
