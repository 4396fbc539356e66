/* How a station ends: its work is done, it fails, or nobody is left to work for. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "exec/station.h"
#include "stepmill/run.h"
#include "supervise/recorder.h"

void stm_station_die(stm_station *s)
{
    atomic_store_explicit(&s->dead, true, memory_order_release);
    if (s->inlet == NULL) return;
    stm_lock_take(&s->lock);
    stm_inlet_close(s->inlet);
    atomic_store_explicit(&s->ready, stm_inlet_ready(s->inlet), memory_order_release);
    stm_lock_give(&s->lock);
}

void stm_station_fail(stm_station *s, const mill_error *err)
{
    stm_run *run = s->run;
    mill_error e = *err;

    if (e.step[0] == '\0') snprintf(e.step, sizeof e.step, "%s", s->said);
    if (e.field[0] == '\0' && strcmp(s->said, s->name) != 0) snprintf(e.field, sizeof e.field, "from");
    if (e.phase == MILL_PHASE_NONE) e.phase = MILL_PHASE_PROCESS;
    if (e.status == MILL_ERR_DEVICE && run->opts.recorder != NULL) { /* the process can use it no more; the next one may */
        stm_recorder_lose(run->opts.recorder, &e);
        _exit(MILL_EXIT_PROCESS);
    }
    pthread_mutex_lock(&run->mutex);
    if (e.status == MILL_ERR_STOPPED && atomic_load(&run->stop) == 2) {
        /* it did as it was told: no failure */
    } else if (!s->failed) {
        s->failed = true;
        stm_errors_add(run->errors, &e, 0, "", "");
        if (!run->failed) {
            run->failed = true;
            run->first_error = e;
        }
    }
    pthread_mutex_unlock(&run->mutex);
    stm_station_die(s);
    if (s->plan_step >= 0 &&
        (e.status == MILL_ERR_STOP_IF || run->plan->steps[s->plan_step].step->policy.on_error == STM_ON_ERROR_STOP))
        stm_run_stop(run, true); /* the user asked for the run to end, not only for this branch */
    stm_run_ring(run, true);
}

static bool is_settled(const stm_station *s)
{
    for (int32_t i = 0; i < s->n_slots; i++) {
        if (atomic_load_explicit(&s->slots[i].claimed, memory_order_acquire) != 0) return false;
        if (s->kind == STM_AT_SUBMIT && !atomic_load(&s->dead) && stm_wrapper_in_flight(s->slots[i].wrapper) > 0) return false;
    }
    return true;
}

void stm_station_check_done(stm_station *s)
{
    bool now;

    if (!atomic_load_explicit(&s->active, memory_order_acquire)) return; /* counted when its load group starts */
    if (!atomic_load_explicit(&s->inlet_done, memory_order_acquire) && !atomic_load_explicit(&s->dead, memory_order_acquire))
        return;
    stm_lock_take(
        /* nobody may be at work with a wrapper when it is called done, nor begin; whoever is looks again when it is through */
        &s->lock);
    now = !s->closing && is_settled(s);
    s->closing = s->closing || now;
    stm_lock_give(&s->lock);
    if (!now) return;
    atomic_store_explicit(&s->done, true, memory_order_release);
    atomic_fetch_sub_explicit(&s->run->stage_left, 1, memory_order_acq_rel);
    stm_run_note(s->run);
}

void stm_station_close(stm_station *s)
{
    stm_lock_take(&s->lock);
    s->closing = true;
    stm_lock_give(&s->lock);
    for (int32_t i = 0; i < s->n_slots; i++)
        while (atomic_load_explicit(&s->slots[i].claimed, memory_order_acquire) != 0)
            nanosleep(&(struct timespec){0, 100000}, NULL);
}
