#include "exec/run.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"
#include "exec/durable.h"
#include "exec/station.h"
#include "placement/bind.h"
#include "placement/limits.h"
#include "store/footprint.h"
#include "supervise/quarantine.h"
#include "wrapper/lane.h"

/* What the plan gives a replica; NULL = no GPU. */
static const stm_placed *placed(const stm_run *run, const stm_wrapper *w)
{
    const stm_station *s = stm_wrapper_owner(w);
    const stm_placement *p = run->plan->placement;

    for (int32_t i = 0; p != NULL && i < p->n; i++)
        if (p->entries[i].step == s->plan_step && p->entries[i].replica == stm_wrapper_index(w) && p->entries[i].n_gpus > 0)
            return &p->entries[i];
    return NULL;
}

/* All processors of the GPU's node: its threads get in nobody's way there, and the mask that the process has is kept to. */
void stm_run_go_near(const stm_run *run, const stm_wrapper *w)
{
    const stm_placed *e = placed(run, w);
    const stm_topology *t = run->plan->topology;

    if (e != NULL && t != NULL && e->gpus[0] < t->n_gpus) stm_bind_near_gpu(t, e->gpus[0], NULL);
}

static mill_status on_device(stm_wrapper *w, struct stm_lane **lane, void *user, mill_error *err)
{
    stm_run *run = user;
    const stm_station *s = stm_wrapper_owner(w);
    const stm_placed *e = placed(run, w);
    mill_status st;

    st = stm_run_devices_lane(&run->devices, run->pool, w, e != NULL ? e->gpus[0] : -1, run->opts.tracer != NULL, lane, err);
    if (st == MILL_OK && *lane != NULL) stm_lane_keep(*lane, s->resident, s->paired);
    return st;
}

static mill_status on_team(stm_wrapper *w, struct stm_team **team, void *user, mill_error *err)
{
    static const int32_t none = -1;
    stm_run *run = user;
    const stm_station *s = stm_wrapper_owner(w);
    const stm_placement *p = run->plan->placement;
    const int32_t n = stm_wrapper_step(w)->policy.gpus;
    const int32_t *planned = &none;

    for (int32_t i = 0; p != NULL && i < p->n; i++)
        if (p->entries[i].step == s->plan_step && p->entries[i].replica == stm_wrapper_index(w) && p->entries[i].n_gpus >= n)
            planned = p->entries[i].gpus;
    return stm_run_devices_team(&run->devices, w, planned, n, team, err);
}

static void on_wake(stm_wrapper *w, void *user)
{
    stm_run *run = user;
    stm_station *s = stm_wrapper_owner(w);

    atomic_store(&s->slots[stm_wrapper_index(w)].poll, 1);
    if (s->own_threads)
        stm_station_ring(s);
    else
        stm_run_ring(run, false);
}

static void on_print(stm_wrapper *w, const mill_batch *batch, void *user)
{
    stm_run *run = user;

    if (run->opts.on_sink_batch == NULL) return;
    pthread_mutex_lock(&run->print_lock);
    run->opts.on_sink_batch(stm_wrapper_replica(w), batch, run->opts.user);
    pthread_mutex_unlock(&run->print_lock);
}

/* Drivers beyond what can run at once only take turns: the mask counts, and so does a quota of the control group. */
static int32_t processors(void)
{
    const int32_t n = stm_cpu_count();

    return n < STM_MAX_DRIVERS ? n : STM_MAX_DRIVERS;
}

mill_status stm_run_make(stm_plan **plan, const stm_run_opts *opts, stm_run **out, mill_error *err)
{
    stm_run *run = stm_aligned(sizeof *run, 64);
    pthread_condattr_t attr;
    mill_status st;

    if (run == NULL) {
        stm_plan_destroy(plan);
        return mill_fail(err, MILL_ERR_NOMEM, "run");
    }
    memset(run, 0, sizeof *run);
    run->plan = *plan;
    *plan = NULL;
    run->opts = *opts;
    run->opts.durable = opts->durable && opts->run_dir != NULL && !opts->dry_run;
    if (opts->shards > 0 && opts->merge == NULL) run->choice = (stm_row_choice){.shard = opts->shard - 1, .shards = opts->shards};
    pthread_mutex_init(&run->mutex, NULL);
    pthread_mutex_init(&run->print_lock, NULL);
    stm_run_devices_init(&run->devices);
    run->devices.pinned.limit = run->plan->pinned_limit;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&run->cond, &attr);
    pthread_condattr_destroy(&attr);
    run->n_drivers = opts->threads > 0 ? (opts->threads < STM_MAX_DRIVERS ? opts->threads : STM_MAX_DRIVERS) : processors();
    run->memory_limit = run->plan->memory_limit;
    if (run->memory_limit <= 0) {
        const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
        run->memory_limit = pages > 0 && size > 0 ? (int64_t)pages * size / 2 : 0;
    }
    if (opts->run_dir != NULL && (run->run_dir = stm_strdup(opts->run_dir)) == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "run");
        goto fail;
    }
    if (opts->recorder != NULL) run->memory_limit >>= opts->recorder->halvings < 16 ? opts->recorder->halvings : 16;
    atomic_store(&run->ceiling, run->memory_limit > 0 ? run->memory_limit : INT64_MAX);
    if ((st = stm_spill_create(opts->look ? NULL : run->run_dir, &run->spill, err)) != MILL_OK) goto fail;
    if ((st = stm_pool_create(0, &run->pool)) != MILL_OK ||
        (st = stm_errors_create(opts->on_error, opts->user, &run->errors)) != MILL_OK) {
        st = mill_fail(err, st, "run");
        goto fail;
    }
    run->env = (stm_wrapper_env){.pool = run->pool,
                                 .errors = run->errors,
                                 .run_dir = run->run_dir,
                                 .dry_run = opts->dry_run,
                                 .recorder = opts->recorder,
                                 .wake = on_wake,
                                 .device = on_device,
                                 .team = on_team,
                                 .print = on_print,
                                 .user = run};
    if ((st = stm_run_build(run, err)) != MILL_OK) goto fail;
    for (int32_t i = 0; i < run->n_stations && opts->tracer != NULL; i++)
        if (stm_tracer_place(opts->tracer, run->stations[i].node, run->stations[i].name,
                             run->stations[i].plan_step >= 0 && run->stations[i].kind != STM_AT_READER) != MILL_OK) {
            st = mill_fail(err, MILL_ERR_NOMEM, "trace");
            goto fail;
        }
    if (run->opts.durable && !opts->look && (st = stm_durable_open(run, err)) != MILL_OK) goto fail;
    if ((st = stm_quarantine_create(opts->recorder, &run->env.quarantine, err)) != MILL_OK) goto fail;
    *out = run;
    return MILL_OK;
fail:
    stm_run_destroy(&run);
    return st;
}

mill_status stm_run_start(stm_plan **plan, const stm_run_opts *opts, stm_run **out, mill_error *err)
{
    stm_run *run = NULL;
    mill_status st = stm_run_make(plan, opts, &run, err);
    int e;

    if (st != MILL_OK) return st;
    if ((st = stm_drivers_start(run, err)) != MILL_OK) goto fail;
    e = stm_fault_fires(STM_FAULT_THREAD) ? EAGAIN : pthread_create(&run->coordinator, NULL, stm_coordinator_main, run);
    if (e != 0) {
        st = mill_fail(err, MILL_ERR_NOMEM, "cannot start the coordinator thread: %s", strerror(e));
        goto fail;
    }
    run->coordinator_started = true;
    *out = run;
    return MILL_OK;
fail:
    stm_run_destroy(&run);
    return st;
}

stm_run_end stm_run_wait(stm_run *run, double timeout_s, mill_error *err)
{
    struct timespec t;
    stm_run_end end;

    clock_gettime(CLOCK_MONOTONIC, &t);
    if (timeout_s >= 0.0) {
        const double ns = (timeout_s - (double)(int64_t)timeout_s) * 1e9 + (double)t.tv_nsec;
        t.tv_sec += (time_t)timeout_s + (time_t)(ns / 1e9);
        t.tv_nsec = (long)ns % STM_NS_PER_S;
    }
    pthread_mutex_lock(&run->mutex);
    while (atomic_load(&run->ended) == STM_END_RUNNING) {
        if (timeout_s < 0.0)
            pthread_cond_wait(&run->cond, &run->mutex);
        else if (pthread_cond_timedwait(&run->cond, &run->mutex, &t) == ETIMEDOUT)
            break;
    }
    end = (stm_run_end)atomic_load(&run->ended);
    if (err != NULL && run->failed) *err = run->first_error;
    pthread_mutex_unlock(&run->mutex);
    return end;
}

bool stm_run_raise_stop(stm_run *run, int32_t to)
{
    int32_t was = atomic_load(&run->stop);

    if (was >= to) return false;
    atomic_store(&run->stop_ns, stm_now_ns()); /* before anybody can see that it was raised */
    while (was < to && !atomic_compare_exchange_weak(&run->stop, &was, to)) {
    }
    return was < to;
}

void stm_run_stop(stm_run *run, bool drain)
{
    stm_run_raise_stop(run, drain ? 1 : 2);
    stm_run_ring(run, true);
    stm_run_note(run);
}

int32_t stm_run_steps(const stm_run *run) { return run->plan->n_steps; }
const mill_step *stm_run_step(const stm_run *run, int32_t step) { return run->plan->steps[step].step; }
bool stm_run_is_for_merge(const stm_run *run, int32_t step) { return run->plan->steps[step].for_merge; }

void stm_run_stats(const stm_run *run, int32_t step, stm_step_stats *out)
{
    const stm_station *s = &run->stations[run->step_station[step]];
    const bool done = atomic_load(&s->done);

    memset(out, 0, sizeof *out);
    out->done = -1;
    for (int32_t k = 0; k < s->n_slots; k++) {
        const stm_wrapper_stats w = stm_wrapper_counts(s->slots[k].wrapper);
        const stm_wrapper_state state = stm_wrapper_state_of(s->slots[k].wrapper);
        out->replicas_loaded += state == STM_LOADED || state == STM_RUNNING;
        out->batches_in += w.batches_in;
        out->rows_in += w.rows_in;
        out->batches_out += w.batches_out;
        out->rows_out += w.rows_out;
        out->rows_dropped += w.rows_dropped;
        out->parents_expanded += w.parents_expanded;
        out->children += w.children;
        out->rows_failed += w.rows_failed;
        out->rows_skipped += w.rows_skipped;
        out->retries += w.retries;
        out->busy_ns += w.busy_ns;
        if (state == STM_LOADING) out->phase = STM_STEP_LOADING;
        if (state == STM_LOAD_FAILED || state == STM_FAILED) out->phase = STM_STEP_FAILED;
    }
    if (out->phase == STM_STEP_WAITING)
        out->phase = done ? STM_STEP_DONE : atomic_load(&s->active) ? STM_STEP_RUNNING : STM_STEP_WAITING;
    if (atomic_load(&s->dead) && !(s->lasting != NULL && s->lasting->finished)) out->phase = STM_STEP_FAILED;
    out->ready_batches = atomic_load(&s->ready);
    if (s->inlet != NULL) {
        stm_lock_take((stm_lock *)&s->lock);
        out->queued_rows = stm_inlet_rows(s->inlet);
        stm_lock_give((stm_lock *)&s->lock);
    }
    out->stalls = atomic_load(&s->stalls);
    if (s->kind != STM_AT_GENERATOR) return;
    out->rows_before = stm_wrapper_rows_before(s->slots[0].wrapper);
    out->done = stm_wrapper_done(s->slots[0].wrapper);
    if (run->opts.limit > 0) {
        const double share = (double)(out->rows_before + out->rows_out) / (double)run->opts.limit;
        if (share > out->done) out->done = share < 1.0 ? share : 1.0;
    }
}

bool stm_run_kept(const stm_run *run, int32_t step)
{
    const struct stm_lasting *l = run->stations[run->step_station[step]].lasting;

    return l != NULL && l->kept;
}

void stm_run_memory(const stm_run *run, stm_memory_stats *out)
{
    const stm_pool_stats pool = stm_pool_counts(run->pool);
    const stm_spill_stats disk = stm_spill_counts(run->spill);

    *out = (stm_memory_stats){.limit = run->memory_limit,
                              .live = pool.live_bytes,
                              .peak = pool.peak_bytes,
                              .spilled_batches = disk.records_written,
                              .spilled_bytes = disk.bytes_written,
                              .on_disk_bytes = disk.bytes,
                              .stalls = atomic_load(&run->memory_stalls)};
}

int64_t stm_run_errors(const stm_run *run) { return stm_errors_live(run->errors); }
const stm_error_record *stm_run_error(const stm_run *run, int64_t i) { return stm_errors_nth(run->errors, i - 1); }
int64_t stm_run_imputed_rows(const stm_run *run) { return stm_errors_rows(run->errors); }

/* How long the replica has been inside a call beyond what it may, in s; <= 0: it is not late. *phase, *limit: of which call;
 * *inside: for how long it has been there at most (calls of steps without a deadline are not timed), 0 = not at all. */
static double overdue(stm_run *run, stm_station *s, int32_t k, int64_t now, mill_phase *phase, double *limit, double *inside)
{
    const stm_policy *p = &stm_wrapper_step(s->slots[k].wrapper)->policy;
    int64_t since = atomic_load(&s->slots[k].unload_since_ns);

    *phase = MILL_PHASE_UNLOAD;
    *limit = p->unload_timeout_s;
    if (since == 0) {
        *phase = MILL_PHASE_LOAD;
        *limit = p->load_timeout_s;
        pthread_mutex_lock(&run->mutex);
        if (s->slots[k].loading) since = s->slots[k].load_since_ns;
        pthread_mutex_unlock(&run->mutex);
    }
    if (since == 0) {
        *phase = MILL_PHASE_PROCESS;
        *limit = p->batch_timeout_s;
        since = stm_wrapper_call_since(s->slots[k].wrapper);
    }
    *inside = since != 0 ? (double)(now - since) / 1e9 : atomic_load(&s->slots[k].claimed) != 0 ? 1e9 : 0.0;
    return *limit >= 0.0 && since != 0 ? *inside - *limit : 0.0;
}

static const char *const calls[] = {
    [MILL_PHASE_LOAD] = "load", [MILL_PHASE_PROCESS] = "process", [MILL_PHASE_UNLOAD] = "unload"};

/* The call that a replica is in, as far as its record says which. */
static const char *call_of(const stm_station *s, int32_t k, mill_phase phase)
{
    const int32_t doing = atomic_load_explicit(&stm_wrapper_record(s->slots[k].wrapper)->doing, memory_order_relaxed);

    return phase == MILL_PHASE_PROCESS && doing != STM_DOING_NOTHING ? stm_doing_name(doing) : calls[phase];
}

static void name_replica(const stm_station *s, int32_t k, mill_phase phase, mill_error *err)
{
    if (err == NULL) return;
    snprintf(err->step, sizeof err->step, "%s", s->said);
    err->replica = k;
    err->phase = phase;
    if (phase == MILL_PHASE_LOAD) stm_step_blame(stm_wrapper_step(s->slots[k].wrapper), err);
}

static double stopped_for(const stm_run *run, int64_t now)
{
    return atomic_load(&run->stop) == 2 ? (double)(now - atomic_load(&run->stop_ns)) / 1e9 : 0.0;
}

bool stm_run_hung(const stm_run *run, mill_error *err)
{
    const int64_t now = stm_now_ns();
    const double stopped = stopped_for(run, now);

    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        for (int32_t k = 0; k < s->n_slots; k++) {
            mill_phase phase;
            double limit, late, inside;
            if (s->slots[k].wrapper == NULL) continue;
            late = overdue((stm_run *)run, s, k, now, &phase, &limit, &inside);
            if (late > 1.0)
                mill_fail(err, MILL_ERR_TIMEOUT, "%s has not returned %.1f s after its timeout of %g s, nor after being told to",
                          call_of(s, k, phase), late, limit);
            else if (inside > STM_STOP_GRACE_S && stopped > STM_STOP_GRACE_S)
                mill_fail(err, MILL_ERR_TIMEOUT, "%s has not returned %.1f s after being told that the run is stopped",
                          call_of(s, k, phase), stopped);
            else
                continue;
            name_replica(s, k, phase, err);
            return true;
        }
    }
    return false;
}

bool stm_run_at_work(const stm_run *run, mill_error *err)
{
    const int64_t now = stm_now_ns();
    const stm_station *who = NULL;
    mill_phase phase = MILL_PHASE_NONE;
    double longest = 0.0;
    int32_t replica = 0;

    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        for (int32_t k = 0; k < s->n_slots; k++) {
            mill_phase p;
            double limit, inside;
            if (s->slots[k].wrapper == NULL) continue;
            (void)overdue((stm_run *)run, s, k, now, &p, &limit, &inside);
            if (inside > longest) who = s, replica = k, phase = p, longest = inside;
        }
    }
    if (who == NULL) return false;
    mill_fail(err, MILL_ERR_TIMEOUT, "%s has not returned %.1f s after being told that the run is stopped",
              call_of(who, replica, phase), stopped_for(run, now));
    name_replica(who, replica, phase, err);
    return true;
}

bool stm_run_never_began(stm_run *run)
{
    bool never;

    pthread_mutex_lock(&run->mutex);
    never = run->load_failed && !run->began;
    pthread_mutex_unlock(&run->mutex);
    return never;
}

void stm_run_destroy(stm_run **runp)
{
    stm_run *run = *runp;

    if (run == NULL) return;
    if (run->coordinator_started) {
        if (atomic_load(&run->ended) == STM_END_RUNNING) stm_run_stop(run, false);
        pthread_join(run->coordinator, NULL);
    }
    stm_drivers_join(run);
    /* Before the claim on the directory is given up: what is new there later may be somebody else's. */
    if (run->opts.footprint != NULL && (!run->coordinator_started || stm_run_never_began(run))) {
        stm_footprint_undo(run->opts.footprint);
        stm_durable_undone(run);
    }
    stm_durable_close(run);
    stm_run_unbuild(run);
    stm_quarantine_destroy(&run->env.quarantine);
    stm_spill_destroy(&run->spill);
    stm_errors_destroy(&run->errors);
    stm_run_devices_fini(&run->devices);
    stm_pool_release(&run->pool);
    stm_plan_destroy(&run->plan);
    stm_free(run->run_dir);
    pthread_cond_destroy(&run->cond);
    pthread_mutex_destroy(&run->mutex);
    pthread_mutex_destroy(&run->print_lock);
    stm_free(run);
    *runp = NULL;
}
