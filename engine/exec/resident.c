/*
 * Which columns may leave a station in the memory of a device. A column stays there when each of its readers computes on a device and uses
 * it, or passes it on to such readers only, or drops it; all else needs it on the host: steps that compute or read there, sinks, globals, stores, a
 * router that looks at it, what its rows cost, a convergence. Text, binary and lists stay on the host: putting rows of them together
 * needs their lengths there.
 */
#include "batch/type.h"
#include "core/alloc.h"
#include "exec/station.h"
#include "stepmill/device.h"

static bool may_reside(const mill_type *t)
{
    if (stm_type_is_plain(t)) return true;
    if (t->id != MILL_FIXED_LIST && t->id != MILL_STRUCT) return false;
    for (int32_t i = 0; i < t->n_fields; i++)
        if (!may_reside(t->fields[i].type)) return false;
    return true;
}

static const mill_step *step_of(const stm_station *s) { return s->plan_step >= 0 ? s->run->plan->steps[s->plan_step].step : NULL; }

/* Whether all that reads column @p c of stream @p o leaves it where it is. */
static bool accepts(const stm_out *o, int32_t c)
{
    const stm_station *to = o->to;
    const mill_step *step = step_of(to);
    int32_t place = c, input = o->remap != NULL ? 0 : o->input;
    bool used = false, passes = false, stays = true;

    if (to->kind == STM_AT_DISCARD) return true;
    if (to->resident == NULL) return false;
    if (o->remap != NULL) {
        for (place = 0; place < o->n_remap && o->remap[place] != c; place++) {
        }
        if (place == o->n_remap) return true; /* not of the union */
    }
    for (int32_t i = 0; i < step->n_inputs; i++)
        for (int32_t k = 0; k < step->inputs[i].n_used; k++)
            used = used || (step->inputs[i].used[k].input == input && step->inputs[i].used[k].column == place);
    for (int32_t k = 0; k < step->n_pass; k++)
        if (step->pass[k].input == input && step->pass[k].from == place) {
            passes = true;
            stays = to->resident[step->pass[k].to];
        }
    if (to->kind == STM_AT_ROUTER || (step->type->flags & MILL_INPUTS_ON_HOST) != 0) return !used && (!passes || stays);
    return used || !passes || stays;
}

/* Whether it takes batches with columns on a device. */
static bool is_a_place(const stm_station *s)
{
    const mill_step *step = step_of(s);

    if (step == NULL || step->converge || s->cost != NULL) return false;
    if (s->kind == STM_AT_ROUTER) return s->n_inputs == 1 && step->batch_rows == 0; /* then it is handed every batch as it is */
    return s->kind == STM_AT_STEP && stm_step_wants_device(step);
}

mill_status stm_run_residents(stm_run *run, mill_error *err)
{
    for (int32_t i = run->n_stations - 1; i >= 0; i--) { /* readers first */
        stm_station *s = &run->stations[i];
        const mill_step *step = step_of(s);

        if (!is_a_place(s)) continue;
        s->resident = stm_calloc((size_t)step->out.n + 1);
        if (s->resident == NULL) return mill_fail(err, MILL_ERR_NOMEM, "columns of step %s", s->name);
        for (int32_t c = 0; c < step->out.n; c++) {
            s->resident[c] = may_reside(step->out.fields[c].type);
            for (int32_t o = 0; o < s->n_outs && s->resident[c]; o++) s->resident[c] = accepts(&s->outs[o], c);
        }
    }
    return MILL_OK;
}
