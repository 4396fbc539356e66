#include "exec/plan.h"

#include <string.h>

#include "core/alloc.h"
#include "exec/station.h"

/* @p durable: with the stores of a run that keeps rows; else as a dry run is built, whose credits are those that users read of. */
static mill_status try_build(stm_plan *plan, bool durable, mill_error *err)
{
    stm_run *run = stm_aligned(sizeof *run, 64);
    mill_status st;

    if (run == NULL) return mill_fail(err, MILL_ERR_NOMEM, "checking the plan");
    memset(run, 0, sizeof *run);
    run->plan = plan; /* borrowed: stm_run_unbuild leaves it alone */
    run->opts.dry_run = true;
    run->opts.durable = durable;
    if ((st = stm_pool_create(0, &run->pool)) != MILL_OK || (st = stm_errors_create(NULL, NULL, &run->errors)) != MILL_OK) {
        mill_fail(err, st, "checking the plan");
        goto done;
    }
    run->env = (stm_wrapper_env){.pool = run->pool, .errors = run->errors, .dry_run = true};
    if ((st = stm_run_build(run, err)) != MILL_OK) goto done;
    for (int32_t i = 0; i < run->n_stations && !durable; i++) {
        const stm_station *s = &run->stations[i];

        if (s->root >= 0 && s->plan_step >= 0) plan->steps[s->plan_step].credit_rows = stm_credit_room(run->flow, s->root);
    }
done:
    stm_run_unbuild(run);
    stm_errors_destroy(&run->errors);
    stm_pool_release(&run->pool);
    stm_free(run);
    return st;
}

mill_status stm_plan_try(stm_plan *plan, mill_error *err)
{
    const mill_status st = try_build(plan, true, err);

    return st == MILL_OK ? try_build(plan, false, err) : st;
}
