/*
 * Where the columns that leave a station are to be.
 *
 *   resident   in the memory of a device alone. Each of its readers computes on a device and uses it, or passes it on to such
 *              readers only, or drops it; all else needs it on the host: steps that compute or read there, sinks, globals, stores,
 *              a router that looks at it, what its rows cost, a convergence.
 *   paired     on both sides: it comes down for readers on the host, and stays for those on devices (memory/place.h, twins).
 *              Somebody below uses it on a device: a step, or a global that searches there, right behind it or after others that
 *              pass it on.
 *
 * Text, binary and lists stay on the host: putting rows of them together needs their lengths there.
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

/* What becomes of a column at the end of a stream. */
typedef struct fate {
    bool used;      /* the step looks at it */
    int32_t passed; /* column of the output that it is passed on as; -1: none */
} fate;

/* Place of column @p c of stream @p o in what arrives; -1: it is not of the union. */
static int32_t place_of(const stm_out *o, int32_t c)
{
    if (o->remap == NULL) return c;
    for (int32_t place = 0; place < o->n_remap; place++)
        if (o->remap[place] == c) return place;
    return -1;
}

static fate fate_of(const stm_out *o, const mill_step *step, int32_t place)
{
    const int32_t input = o->remap != NULL ? 0 : o->input;
    fate f = {false, -1};

    for (int32_t i = 0; i < step->n_inputs; i++)
        for (int32_t k = 0; k < step->inputs[i].n_used; k++)
            f.used = f.used || (step->inputs[i].used[k].input == input && step->inputs[i].used[k].column == place);
    for (int32_t k = 0; k < step->n_pass; k++)
        if (step->pass[k].input == input && step->pass[k].from == place) f.passed = step->pass[k].to;
    return f;
}

/* Whether all that reads column @p c of stream @p o leaves it where it is. */
static bool accepts(const stm_out *o, int32_t c)
{
    const stm_station *to = o->to;
    const int32_t place = place_of(o, c);
    fate f;

    if (to->kind == STM_AT_DISCARD) return true;
    if (to->resident == NULL) return false;
    if (place < 0) return true;
    f = fate_of(o, step_of(to), place);
    if (to->kind == STM_AT_ROUTER || (step_of(to)->type->flags & MILL_INPUTS_ON_HOST) != 0)
        return !f.used && (f.passed < 0 || to->resident[f.passed]);
    return f.used || f.passed < 0 || to->resident[f.passed];
}

/* Whether the step looks at its columns on a device. */
static bool looks_there(const mill_step *step)
{
    if ((step->type->flags & MILL_INPUTS_ON_HOST) != 0) return false;
    return stm_step_wants_device(step) || stm_step_wants_team(step);
}

/* Whether column @p c of stream @p o is used on a device somewhere below. */
static bool is_wanted(const stm_out *o, int32_t c)
{
    const stm_station *to = o->to;
    const int32_t place = place_of(o, c);
    fate f;

    if (place < 0) return false;
    /* its reader gives the same columns; between load groups none waits in memory that the next one's models may need */
    if (to->kind == STM_AT_STORE) {
        const stm_station *reader = to + 1;
        bool wanted = false;
        for (int32_t k = 0; reader->stage == to->stage && k < reader->n_outs && !wanted; k++)
            wanted = is_wanted(&reader->outs[k], place);
        return wanted;
    }
    if (step_of(to) == NULL) return false;
    f = fate_of(o, step_of(to), place);
    return (f.used && looks_there(step_of(to))) || (f.passed >= 0 && to->paired != NULL && to->paired[f.passed]);
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

        if (step == NULL || s->kind == STM_AT_SINK || s->kind == STM_AT_GLOBAL) continue;
        s->paired = stm_calloc((size_t)step->out.n + 1);
        if (is_a_place(s)) s->resident = stm_calloc((size_t)step->out.n + 1);
        if (s->paired == NULL || (is_a_place(s) && s->resident == NULL))
            return mill_fail(err, MILL_ERR_NOMEM, "columns of step %s", s->name);
        for (int32_t c = 0; c < step->out.n; c++) {
            if (!may_reside(step->out.fields[c].type)) continue;
            for (int32_t o = 0; o < s->n_outs; o++) s->paired[c] = s->paired[c] || is_wanted(&s->outs[o], c);
            if (s->resident == NULL) continue;
            s->resident[c] = true;
            for (int32_t o = 0; o < s->n_outs; o++) s->resident[c] = s->resident[c] && accepts(&s->outs[o], c);
        }
    }
    return MILL_OK;
}
