/*
 * The coordinator: one thread that loads a load group, lets it run, unloads it, goes on to the next. It touches no data. Loads run
 * in threads of their own, since they may take minutes or never return; so do unloads.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/fault.h"
#include "core/log.h"
#include "exec/durable.h"
#include "exec/station.h"
#include "store/footprint.h"
#include "supervise/recorder.h"

#define TICK_NS (100 * 1000000LL) /* how often it looks while something moves; nothing that is due is looked at later than this */
#define REST_NS STM_NS_PER_S      /* the longest nap while nothing moves: as often as stm_durable_tick wants to be called */

void stm_run_note(stm_run *run)
{
    pthread_mutex_lock(&run->mutex);
    pthread_cond_broadcast(&run->cond);
    pthread_mutex_unlock(&run->mutex);
}

/* Wait on the condition for at most @p ns. mutex held. */
static void wait_ns(stm_run *run, int64_t ns)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (t.tv_nsec + ns) / STM_NS_PER_S;
    t.tv_nsec = (t.tv_nsec + ns) % STM_NS_PER_S;
    pthread_cond_timedwait(&run->cond, &run->mutex, &t);
}

/* A drain that takes too long becomes a stop: a step that never answers must not hold up the end. */
static void look_at_drain(stm_run *run)
{
    const double limit = run->opts.drain_s > 0.0 ? run->opts.drain_s : STM_DRAIN_S;

    if (atomic_load(&run->stop) == 1 && (double)(stm_now_ns() - atomic_load(&run->stop_ns)) > limit * 1e9 &&
        stm_run_raise_stop(run, 2))
        stm_log(STM_WARN, "run", "the drain took more than %g s: what is left is dropped", limit);
}

/* ---- load -------------------------------------------------------------------------------------------------------- */

static void load_one(stm_station *s, stm_replica_slot *slot)
{
    stm_run *run = s->run;
    mill_error err = {0};
    const mill_status st = stm_wrapper_load(slot->wrapper, &err);

    if (st != MILL_OK) stm_step_blame(stm_wrapper_step(slot->wrapper), &err);
    pthread_mutex_lock(&run->mutex);
    slot->load_status = st;
    if (st != MILL_OK && !run->load_failed && !(st == MILL_ERR_STOPPED && atomic_load(&run->stop) != 0)) {
        run->failed = run->load_failed = true;
        run->first_error = err;
        stm_errors_add(run->errors, &err, 0, "", "");
    }
    slot->loading = false;
    pthread_cond_broadcast(&run->cond);
    pthread_mutex_unlock(&run->mutex);
}

static void *loader_main(void *arg)
{
    stm_replica_slot *slot = arg;

    stm_station *s = stm_wrapper_owner(slot->wrapper);

    stm_run_go_near(s->run, slot->wrapper); /* pinned memory, and threads that the step starts */
    load_one(s, slot);
    return NULL;
}

static bool in_stage(const stm_station *s, int32_t stage)
{
    /* a group's readers and stores belong to the side that runs them; wrappers load with their own stage */
    return s->stage == stage;
}

/* Load every replica of the stage. Returns false when one failed or a stop came; every load has returned then, or its step is
 * hung. */
static bool load_stage(stm_run *run, int32_t stage)
{
    bool ok = true, waiting = true;

    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        for (int32_t k = 0; k < s->n_slots && in_stage(s, stage); k++) {
            stm_replica_slot *slot = &s->slots[k];
            int e;
            if (slot->wrapper == NULL || atomic_load(&s->dead)) continue; /* nothing it makes is wanted any more */
            pthread_mutex_lock(&run->mutex);
            ok = !run->load_failed && atomic_load(&run->stop) == 0;
            slot->load_status = MILL_OK;
            slot->loading = ok;
            slot->load_since_ns = stm_now_ns();
            pthread_mutex_unlock(&run->mutex);
            if (!ok) break;
            const mill_step *step = stm_wrapper_step(slot->wrapper);
            if (step->type->load == NULL && step->type->open == NULL && !stm_step_wants_device(step)) { /* nothing to wait for */
                load_one(s, slot);
                continue;
            }
            e = stm_fault_fires(STM_FAULT_THREAD) ? EAGAIN : pthread_create(&slot->loader, NULL, loader_main, slot);
            if (e != 0) {
                load_one(s, slot); /* no thread to be had: load here */
                continue;
            }
            pthread_detach(slot->loader); /* told apart by `loading`; one that never returns must not hold the end up */
        }
    }
    pthread_mutex_lock(&run->mutex);
    while (waiting) {
        const int64_t now = stm_now_ns();
        waiting = false;
        for (int32_t i = 0; i < run->n_stations; i++) {
            stm_station *s = &run->stations[i];
            for (int32_t k = 0; k < s->n_slots && in_stage(s, stage); k++) {
                stm_replica_slot *slot = &s->slots[k];
                if (slot->wrapper == NULL || !slot->loading) continue;
                waiting = true;
                const double limit = stm_wrapper_step(slot->wrapper)->policy.load_timeout_s;
                const bool late = limit >= 0.0 && (double)(now - slot->load_since_ns) > limit * 1e9;
                if (late && !run->load_failed) {
                    run->failed = run->load_failed = true;
                    mill_fail(&run->first_error, MILL_ERR_TIMEOUT, "load did not return within %g s", limit);
                    run->first_error.phase = MILL_PHASE_LOAD;
                    strncpy(run->first_error.step, s->said, sizeof run->first_error.step - 1);
                    run->first_error.replica = k;
                    stm_step_blame(stm_wrapper_step(slot->wrapper), &run->first_error);
                    stm_errors_add(run->errors, &run->first_error, 0, "", "");
                }
                if (late || run->load_failed || atomic_load(&run->stop) != 0) stm_wrapper_cancel(slot->wrapper);
            }
        }
        if (waiting) wait_ns(run, TICK_NS);
        look_at_drain(run);
    }
    ok = !run->load_failed && atomic_load(&run->stop) == 0;
    pthread_mutex_unlock(&run->mutex);
    return ok;
}

/* ---- unload ------------------------------------------------------------------------------------------------------ */

static void *unloader_main(void *arg)
{
    stm_station *s = arg;

    for (int32_t k = 0; k < s->n_slots; k++) {
        if (s->slots[k].wrapper == NULL) continue;
        atomic_store(&s->slots[k].unload_since_ns, stm_now_ns()); /* so that one that never returns is named */
        pthread_mutex_lock(&s->run->mutex); /* a commit that cannot be written fails stations whose work is over, too */
        const bool failed = s->failed;
        pthread_mutex_unlock(&s->run->mutex);
        if (failed)
            stm_wrapper_fail(s->slots[k].wrapper);
        else
            stm_wrapper_unload(s->slots[k].wrapper);
        atomic_store(&s->slots[k].unload_since_ns, 0);
    }
    atomic_store_explicit(&s->unloaded, true, memory_order_release);
    return NULL;
}

/* A station whose work is over gives back what it holds, at once. */
static void unload_station(stm_station *s)
{
    bool threads = false;

    if (s->unloading) return;
    s->unloading = true;
    stm_own_threads_join(s);
    stm_station_close(s); /* a stage that was stopped: a late wake must not start a call now */
    for (int32_t k = 0; k < s->n_slots; k++) {
        const mill_step_type *t = s->slots[k].wrapper != NULL ? stm_wrapper_step(s->slots[k].wrapper)->type : NULL;
        threads = threads || (t != NULL && (t->unload != NULL || t->cancel != NULL));
    }
    if (!threads || pthread_create(&s->unloader, NULL, unloader_main, s) != 0) {
        unloader_main(s);
        s->unloader = pthread_self();
    }
}

static void join_unloads(stm_run *run, int32_t stage)
{
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (!in_stage(s, stage)) continue;
        unload_station(s);
        if (!pthread_equal(s->unloader, pthread_self())) {
            pthread_join(s->unloader, NULL);
            s->unloader = pthread_self();
        }
    }
}

/* What batches under way kept on devices of steps that are done, now that they have arrived. */
static void trim(stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        for (int32_t k = 0; k < s->n_slots && atomic_load_explicit(&s->unloaded, memory_order_acquire); k++)
            if (s->slots[k].wrapper != NULL) stm_wrapper_trim(s->slots[k].wrapper);
    }
}

/* ---- run --------------------------------------------------------------------------------------------------------- */

/* The shorter of two naps, when @p ns are left until something is due; what is due at once waits for a tick. */
static int64_t sooner(int64_t nap_ns, int64_t ns)
{
    if (ns < TICK_NS) ns = TICK_NS;
    return ns < nap_ns ? ns : nap_ns;
}

/* Tell calls that are past their deadline to return; submitted work is polled now and then. Returns how long it may be until the
 * next look. */
static int64_t look_at_deadlines(stm_run *run)
{
    const int64_t now = stm_now_ns();
    int64_t nap_ns = REST_NS;

    look_at_drain(run);
    stm_memory_settle(run);
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        bool ring = false;
        if (!atomic_load(&s->active) || s->plan_step < 0) continue;
        for (int32_t k = 0; k < s->n_slots; k++) {
            stm_wrapper *w = s->slots[k].wrapper;
            if (w == NULL) continue;
            const double limit = stm_wrapper_step(w)->policy.batch_timeout_s;
            const int64_t since = stm_wrapper_call_since(w);
            if (atomic_load(&run->stop) == 2) stm_wrapper_cancel(w);
            if (limit >= 0.0 && since != 0 && (double)(now - since) > limit * 1e9) stm_wrapper_expire(w, since);
            if (limit >= 0.0 && limit < 1e9) /* a call that begins meanwhile is due later */
                nap_ns = sooner(nap_ns, (int64_t)(limit * 1e9) - (since != 0 ? now - since : 0));
            if (s->kind == STM_AT_SUBMIT) nap_ns = TICK_NS;
            if (s->kind == STM_AT_SUBMIT && atomic_load(&s->slots[k].claimed) == 0 && !atomic_load(&s->done)) {
                atomic_store(&s->slots[k].flush_due, 1); /* a tick without news: what waits for company goes now */
                atomic_store(&s->slots[k].poll, 1);
                ring = true;
            }
        }
        if (ring) {
            if (s->own_threads) stm_station_ring(s);
            stm_run_ring(run, false);
        }
    }
    return atomic_load(&run->stop) != 0 ? TICK_NS : nap_ns;
}

static void activate(stm_run *run, int32_t stage)
{
    int32_t n = 0;

    pthread_mutex_lock(&run->mutex);
    run->began = true;
    pthread_mutex_unlock(&run->mutex);
    if (run->opts.footprint != NULL) stm_footprint_forget(run->opts.footprint);
    if (run->opts.recorder != NULL) atomic_store(&run->opts.recorder->n_undo, 0);
    atomic_fetch_add(&run->threads, 1); /* counted as at work until everything is in place: a half-made stage is not at rest */
    for (int32_t i = 0; i < run->n_stations; i++) n += in_stage(&run->stations[i], stage) && !atomic_load(&run->stations[i].done);
    atomic_store(&run->stage_left, n);
    atomic_store(&run->stage, stage);
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (!in_stage(s, stage)) continue;
        for (int32_t k = 0; k < s->n_slots; k++)
            if (s->slots[k].wrapper != NULL) stm_wrapper_run(s->slots[k].wrapper);
        if (s->root >= 0) stm_credit_pause(run->flow, s->root, false);
        atomic_store_explicit(&s->active, true, memory_order_release);
    }
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        mill_error err = {0};
        if (!in_stage(s, stage)) continue;
        if (stm_own_threads_start(run, s, &err) != MILL_OK) stm_station_fail(s, &err);
        if (atomic_load(&s->dead)) stm_station_check_done(s); /* failed or pointless since an earlier group */
    }
    atomic_fetch_sub(&run->threads, 1);
    stm_run_ring(run, true);
}

/* Wait on the condition for at most @p ns, for longer than a tick only until somebody is woken: then true. mutex held. */
static bool nap(stm_run *run, int64_t ns)
{
    atomic_store(&run->resting, ns > TICK_NS);
    wait_ns(run, ns);
    return ns > TICK_NS && atomic_exchange(&run->resting, 0) == 0;
}

static void run_stage(stm_run *run, int32_t stage)
{
    int64_t nap_ns = TICK_NS, limit_ns;
    bool woken;

    activate(run, stage);
    pthread_mutex_lock(&run->mutex);
    while (atomic_load(&run->stage_left) > 0 && !atomic_load(&run->rested)) {
        woken = nap(run, nap_ns);
        pthread_mutex_unlock(&run->mutex);
        limit_ns = look_at_deadlines(run);
        stm_durable_tick(run);
        stm_run_watch(run);
        limit_ns = sooner(limit_ns, stm_durable_next_ns(run) - stm_now_ns());
        nap_ns = stm_drivers_relieve(run) || woken ? TICK_NS : 2 * nap_ns; /* at rest: longer and longer */
        if (nap_ns > limit_ns) nap_ns = limit_ns;
        for (int32_t i = 0; i < run->n_stations; i++) /* a step is unloaded at its own end */
            if (in_stage(&run->stations[i], stage) && atomic_load(&run->stations[i].done)) unload_station(&run->stations[i]);
        trim(run);
        if (atomic_load(&run->stop) != 0) stm_run_ring(run, true);
        pthread_mutex_lock(&run->mutex);
    }
    pthread_mutex_unlock(&run->mutex);
    stm_durable_commit(run); /* sinks are open still */
    for (int32_t i = 0; i < run->n_stations; i++)
        if (in_stage(&run->stations[i], stage)) atomic_store(&run->stations[i].active, false);
    stm_run_ring(run, true);
    join_unloads(run, stage);
    trim(run); /* the next load group may need it */
}

void *stm_coordinator_main(void *arg)
{
    stm_run *run = arg;
    int32_t stage = 0;
    stm_run_end end;

    for (; stage < run->plan->n_stages; stage++) {
        if (atomic_load(&run->stop) != 0) break;
        if (!load_stage(run, stage)) {
            join_unloads(run, stage);
            break;
        }
        run_stage(run, stage);
        if (atomic_load(&run->rested)) break;
    }
    stm_drivers_join(run);
    for (int32_t s = 0; s < run->plan->n_stages; s++) join_unloads(run, s);
    pthread_mutex_lock(&run->mutex);
    if (run->load_failed)
        end = STM_END_LOAD_FAILED;
    else if (run->failed)
        end = STM_END_FAILED;
    else if (atomic_load(&run->stop) != 0)
        end = STM_END_STOPPED;
    else
        end = STM_END_DONE;
    atomic_store(&run->ended, (int32_t)end);
    pthread_cond_broadcast(&run->cond);
    pthread_mutex_unlock(&run->mutex);
    return NULL;
}
