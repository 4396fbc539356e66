/*
 * What to do when nothing can move: every thread idle, nothing ready, nothing in flight. In this order: finish what a stop left;
 * close what a failure made pointless; make room where memory is short; grant credit to whoever starves; and if nothing of this
 * helps, say so and end: a run never hangs.
 */
#include "core/log.h"
#include "exec/station.h"

/* The side that reads what @p s stores will never see the end of it. */
static void cut_readers_of(stm_run *run, const stm_station *s, bool *closed)
{
    for (int32_t i = 0; s->store != NULL && i < run->n_stations; i++) {
        stm_station *r = &run->stations[i];
        if (r->kind != STM_AT_READER || r->store != s->store || r->cut) continue;
        r->cut = true;
        stm_flow_cut(run->flow, r->node, closed);
    }
}

/* All stations at once, in order: nobody else holds two. No driver is at work, but whoever watches the run looks into inlets. */
static void lock_all(stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++) stm_lock_take(&run->stations[i].lock);
}

static void unlock_all(stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++) stm_lock_give(&run->stations[i].lock);
}

/* What was complete at a sink before a failure in front of it stays, and is readable. The sink counts as claimed meanwhile, so that
 * a call that does not return is found as any other. */
static void complete(stm_run *run, stm_station *s)
{
    stm_replica_slot *slot = &s->slots[0];
    mill_error err = {0};

    if (s->kind != STM_AT_SINK || s->finalized || !atomic_load(&s->active) || atomic_load(&s->done) || slot->wrapper == NULL ||
        stm_wrapper_state_of(slot->wrapper) != STM_RUNNING)
        return;
    s->finalized = true;
    atomic_store(&slot->claimed, 1);
    if (stm_wrapper_finalize(slot->wrapper, &err) != MILL_OK) stm_errors_add(run->errors, &err, 0, "", "");
    atomic_store(&slot->claimed, 0);
}

/* Which stations a failure reaches for the first time, and their inlets are closed. */
static bool cut_failed(stm_run *run, bool *closed)
{
    bool any = false;

    lock_all(run);
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (!s->failed || s->cut) continue;
        s->cut = true;
        stm_flow_cut(run->flow, s->node, closed);
        any = true;
    }
    for (int32_t i = 0; i < run->n_stations && any; i++) { /* in topological order: what this closes comes later */
        const stm_station *s = &run->stations[i];
        if (closed[i] && s->kind != STM_AT_READER) cut_readers_of(run, s, closed);
    }
    unlock_all(run);
    return any;
}

/* A failed station closes its descendants, through globals and stores, too; a station all of whose readers are dead has nothing to
 * work for. */
static bool spread_failures(stm_run *run)
{
    bool closed[STM_MAX_STATIONS] = {0}, changed = true;

    if (!cut_failed(run, closed)) return false;
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (!closed[i] || atomic_load(&s->dead)) continue;
        complete(run, s);
        atomic_store(&s->dead, true);
    }
    while (changed) {
        changed = false;
        for (int32_t i = run->n_stations - 1; i >= 0; i--) {
            stm_station *s = &run->stations[i];
            bool wanted = s->n_outs == 0;
            if (atomic_load(&s->dead) || s->n_outs == 0) continue;
            for (int32_t o = 0; o < s->n_outs; o++) wanted = wanted || !atomic_load(&s->outs[o].to->dead);
            if (!wanted) {
                stm_station_die(s);
                changed = true;
            }
        }
    }
    for (int32_t i = 0; i < run->n_stations; i++)
        if (atomic_load(&run->stations[i].dead)) stm_station_check_done(&run->stations[i]);
    return true;
}

static void end_stage(stm_run *run)
{
    atomic_store(&run->rested, true);
    stm_run_note(run);
}

static bool only_waits(const stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        for (int32_t k = 0; s->kind == STM_AT_SUBMIT && atomic_load(&s->active) && k < s->n_slots; k++)
            if (stm_wrapper_in_flight(s->slots[k].wrapper) > 0 && stm_wrapper_waits(s->slots[k].wrapper)) return true;
    }
    return false;
}

bool stm_run_unstall(stm_run *run)
{
    int32_t starved = -1, root;

    if (spread_failures(run)) {
        stm_run_ring(run, true);
        return true;
    }
    if (atomic_load(&run->stop) != 0) {
        end_stage(run);
        return false;
    }
    if (stm_memory_relieve(run)) return true;
    for (int tries = 0; tries < 64 && atomic_load(&run->stop) == 0; tries++) {
        /* a stored batch may be larger than the first grants: they double */
        root = stm_flow_grant(run->flow, &starved);
        if (root < 0) break;
        if (starved >= 0) atomic_fetch_add_explicit(&run->stations[starved].stalls, 1, memory_order_relaxed);
        for (int32_t i = 0; i < run->n_stations; i++)
            if (stm_station_runnable(&run->stations[i])) {
                stm_run_ring(run, true);
                return true;
            }
    }
    if (atomic_load(&run->stop) != 0) { /* told so in the meantime: that is why nobody may move */
        end_stage(run);
        return false;
    }
    if (only_waits(run)) { /* the next run asks again */
        stm_log(STM_INFO, "run", "nothing is left but to wait for what is outside: run again to ask for it");
        stm_run_raise_stop(run, 2);
        end_stage(run);
        return false;
    }
    /* Nothing starves that a root could feed, and yet the stage is not done: a defect of ours. End, and name the place. */
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (!atomic_load(&s->active) || atomic_load(&s->done)) continue;
        mill_error err = {0};
        mill_fail(&err, MILL_ERR_INTERNAL, "the pipeline stands still at step %s: %lld rows wait there and nothing can move",
                  s->name, s->inlet != NULL ? (long long)stm_inlet_rows(s->inlet) : 0LL);
        mill_error_remedy(&err, "This is a defect of stepmill; please report it with the pipeline file");
        stm_station_fail(s, &err);
        break;
    }
    end_stage(run);
    return false;
}
