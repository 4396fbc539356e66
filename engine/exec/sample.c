/*
 * What a replica is doing at this moment, for whoever watches the run. All of it is read from what drivers keep for themselves:
 * being watched costs them nothing.
 */
#include "exec/station.h"

static stm_spent of_root(const stm_station *s)
{
    const stm_run *run = s->run;

    if (atomic_load_explicit(&s->inlet_done, memory_order_relaxed) || atomic_load_explicit(&run->stop, memory_order_relaxed) != 0)
        return STM_SPENT_OFF;
    return stm_station_runnable(s) ? STM_SPENT_CROWDED : STM_SPENT_BLOCKED; /* credit or memory */
}

static stm_spent doing(const stm_station *s, const stm_replica_slot *slot)
{
    const stm_wrapper_state state = stm_wrapper_state_of(slot->wrapper);

    if (state != STM_RUNNING || atomic_load_explicit(&s->done, memory_order_relaxed) ||
        !atomic_load_explicit(&s->active, memory_order_relaxed))
        return STM_SPENT_OFF;
    if (atomic_load_explicit(&slot->claimed, memory_order_relaxed) != 0) return STM_SPENT_BUSY;
    if (s->kind == STM_AT_SUBMIT && stm_wrapper_in_flight(slot->wrapper) > 0) return STM_SPENT_BUSY;
    if (s->kind == STM_AT_GENERATOR) return of_root(s);
    if (atomic_load_explicit(&s->ready, memory_order_relaxed) <= 0) return STM_SPENT_STARVED;
    return stm_memory_holds_back(s) ? STM_SPENT_BLOCKED : STM_SPENT_CROWDED;
}

void stm_run_replica(const stm_run *run, int32_t step, int32_t replica, stm_replica_stats *out)
{
    const stm_station *s = &run->stations[run->step_station[step]];
    const stm_replica_slot *slot = &s->slots[replica];
    const stm_wrapper_stats counts = stm_wrapper_counts(slot->wrapper);

    out->doing = doing(s, slot);
    out->rows = s->kind == STM_AT_GENERATOR ? counts.rows_out : counts.rows_in;
    out->batches = s->kind == STM_AT_GENERATOR ? counts.batches_out : counts.batches_in;
    out->busy_ns = s->kind == STM_AT_SUBMIT ? -1 : counts.busy_ns;
}

int32_t stm_run_inputs(const stm_run *run, int32_t step) { return run->plan->steps[step].n_inputs; }
int32_t stm_run_input(const stm_run *run, int32_t step, int32_t input) { return run->plan->steps[step].inputs[input].from; }
