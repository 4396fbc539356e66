#include "support/by_hand.h"

#include <string.h>

#include "exec/durable.h"
#include "exec/station.h"
#include "pipeline/pipeline.h"

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

mill_status mt_hand_open(mill_pipeline *p, const char *dir, stm_run **out, mill_error *err)
{
    stm_arena arena = {0};
    stm_graph graph = {0};
    stm_plan *plan = NULL;
    const stm_run_opts opts = {
        .struct_size = sizeof opts, .threads = 1, .run_dir = dir, .durable = true, .commit_interval_s = 3600.0};
    mill_status st = stm_pipeline_plan(p, dir, &arena, &graph, &plan, err);

    if (st == MILL_OK) st = mt_hand_start(&plan, &opts, out, err);
    stm_plan_destroy(&plan);
    stm_arena_fini(&arena);
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

int64_t mt_hand_rows(const stm_run *run, const char *step)
{
    stm_step_stats s = {0};

    for (int32_t i = 0; i < stm_run_steps(run); i++)
        if (strcmp(stm_run_step(run, i)->name, step) == 0) stm_run_stats(run, i, &s);
    return s.rows_in;
}
