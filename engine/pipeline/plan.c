#include "exec/plan.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "exec/cost.h"
#include "pipeline/placing.h"
#include "pipeline/rundir.h"
#include "pipeline/signature.h"
#include "pipeline/yaml.h"
#include "stepmill/device.h"

/* `plugins:` must be open before step types can be found. The registry takes the same file only once. */
static mill_status open_plugins(mill_pipeline *p, mill_error *err)
{
    stm_file_keys keys;
    mill_status st = stm_graph_read_file_keys(&p->root, &keys, err);
    const stm_value *list = st == MILL_OK ? keys.plugins : NULL;
    const size_t n = list == NULL ? 0 : list->kind == STM_VALUE_LIST ? list->n_items : 1;

    for (size_t i = 0; i < n && st == MILL_OK; i++) {
        const stm_value *v = list->kind == STM_VALUE_LIST ? &list->items[i] : list;
        char *path = stm_path_absolute(p->base_dir, v->text);

        if (path == NULL) return mill_fail(err, MILL_ERR_NOMEM, "opening plugin %s", v->text);
        if ((st = stm_registry_open(p->registry, path, err)) != MILL_OK)
            mill_error_place(err, v->place.file, v->place.line, v->place.column);
        stm_free(path);
    }
    return st;
}

/* ---- one step ---------------------------------------------------------------------------------------------------- */

static stm_policy policy_of(const stm_graph *g, const stm_graph_step *s)
{
    const stm_step_keys *k = &s->keys;
    stm_policy p = stm_policy_default(s->type);

    if (k->on_error >= 0) p.on_error = (stm_on_error)k->on_error; /* choices stand in the order of the enum */
    p.retry_times = (int32_t)k->retry_times;
    p.retry_backoff_s = k->retry_backoff;
    p.retry_classes = k->retry_classes;
    p.load_timeout_s = k->load_timeout;
    p.unload_timeout_s = k->unload_timeout;
    p.batch_timeout_s = k->batch_timeout;
    p.stop_failed = k->stop_failed;
    p.stop_of = k->stop_of;
    p.nulls_pass = k->nulls == STM_NULLS_PASS;
    p.sink_errors = k->errors;
    p.replicas = (int32_t)k->replicas;
    p.cpus = (int32_t)k->cpus;
    p.gpus = k->gpus > 0 ? (int32_t)k->gpus : k->devices != NULL ? 1 : 0;
    p.memory_bytes = k->memory;
    p.numerics = g->keys.numerics >= 0 ? (mill_numerics)g->keys.numerics
                 : p.gpus > 0          ? MILL_NUMERICS_FAST
                                       : MILL_NUMERICS_INVARIANT;
    return p;
}

/* `inputs:` or `outputs:` as mappings. */
static mill_status mappings(stm_arena *a, const stm_value *v, const stm_mapping **out, size_t *n, mill_error *err)
{
    stm_mapping *m;

    *n = v != NULL ? v->n_items : 0;
    *out = NULL;
    if (*n == 0) return MILL_OK;
    if ((m = stm_arena_take(a, *n * sizeof *m)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "reading mappings");
    for (size_t i = 0; i < *n; i++) m[i] = (stm_mapping){v->items[i].key, v->items[i].text, v->items[i].key_place};
    *out = m;
    return MILL_OK;
}

/* What of the step's map are parameters of its type: everything that is no key of every step. */
static mill_status parameters(stm_arena *a, const stm_graph_step *s, stm_step_spec *spec, mill_error *err)
{
    stm_value *items = stm_arena_take(a, s->value->n_items * sizeof *items);

    if (items == NULL) return mill_fail(err, MILL_ERR_NOMEM, "reading parameters");
    spec->params = items;
    for (size_t i = 0; i < s->value->n_items && !s->gathers; i++)
        if (stm_key_find(stm_step_table, stm_step_table_count, s->value->items[i].key) == NULL)
            items[spec->n_params++] = s->value->items[i];
    return MILL_OK;
}

static mill_status make_step(const mill_pipeline *p, stm_arena *a, const stm_graph *g, const stm_graph_step *s,
                             const int32_t *index, const stm_plan *plan, const char *run_dir, mill_step **out, mill_error *err)
{
    stm_step_spec spec = {.name = s->name,
                          .said = s->said,
                          .type = s->type,
                          .place = s->value->key_place,
                          .type_place = s->type_place,
                          .base_dir = p->base_dir,
                          .run_dir = run_dir,
                          .branches = s->branches,
                          .n_branches = s->n_branches,
                          .run_seed = (uint64_t)g->keys.seed,
                          .converge = s->mode == STM_INPUT_CONVERGE,
                          .unite = s->mode == STM_INPUT_UNION};
    const size_t n = (size_t)s->n_inputs;
    stm_schema *arriving = NULL;
    const char **names = NULL;
    stm_place *places = NULL;
    mill_status st;

    if (n > 0 &&
        ((arriving = stm_arena_take(a, n * sizeof *arriving)) == NULL || (names = stm_arena_take(a, n * sizeof *names)) == NULL ||
         (places = stm_arena_take(a, n * sizeof *places)) == NULL))
        return mill_fail(err, MILL_ERR_NOMEM, "planning step %s", s->said);
    for (size_t i = 0; i < n; i++) {
        const stm_graph_input *in = &s->inputs[i];

        arriving[i] = plan->steps[index[in->step]].step->out; /* borrowed */
        names[i] = g->steps[in->step].name;
        places[i] = in->place;
    }
    spec.arriving = arriving;
    spec.arriving_names = names;
    spec.arriving_places = places;
    spec.n_arriving = s->n_inputs;
    spec.batch_rows = s->type->kind == MILL_GENERATOR ? s->keys.batch_size : s->keys.input_batch_size;
    spec.budget_tokens = s->keys.budget_tokens;
    spec.budget_bytes = s->keys.budget_bytes;
    spec.policy = policy_of(g, s);
    if ((st = parameters(a, s, &spec, err)) != MILL_OK) return st;
    if ((st = mappings(a, s->keys.inputs, &spec.map_in, &spec.n_map_in, err)) != MILL_OK) return st;
    if ((st = mappings(a, s->keys.outputs, &spec.map_out, &spec.n_map_out, err)) != MILL_OK) return st;
    return stm_step_create(&spec, out, err);
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static int64_t half_of_memory(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

    return pages > 0 && size > 0 ? (int64_t)pages / 2 * size : 0;
}

/* What the step asks for need not be here where another process runs it. */
static void drop_resources(stm_step_keys *k)
{
    k->gpus = k->memory = 0;
    k->cpus = 1;
    k->devices = NULL;
}

static mill_status fill_step(const mill_pipeline *p, stm_arena *a, stm_graph *g, int32_t at, const int32_t *index,
                             const char *run_dir, stm_plan *plan, mill_error *err)
{
    stm_graph_step *s = &g->steps[g->order[at]];
    stm_plan_step *out = &plan->steps[at];
    mill_status st;

    if (s->n_inputs > 0) {
        if ((out->inputs = stm_calloc((size_t)s->n_inputs * sizeof *out->inputs)) == NULL)
            return mill_fail(err, MILL_ERR_NOMEM, "planning step %s", s->said);
        out->n_inputs = s->n_inputs;
        for (int32_t i = 0; i < s->n_inputs; i++) out->inputs[i] = (stm_flow_edge){index[s->inputs[i].step], s->inputs[i].branch};
    }
    out->for_merge = s->type->kind == MILL_GLOBAL;
    for (int32_t i = 0; i < out->n_inputs; i++) out->for_merge = out->for_merge || plan->steps[out->inputs[i].from].for_merge;
    if (p->runs != STM_RUNS_ALL && (p->runs == STM_RUNS_NONE || out->for_merge != (p->runs == STM_RUNS_MERGE)))
        drop_resources(&s->keys);
    out->mode = s->mode;
    out->on_missing = s->on_missing;
    out->on_uneven = s->on_uneven;
    out->stage = s->stage;
    out->credit_asked = s->keys.credit;
    out->any_order =
        s->type->kind == MILL_SINK && (s->keys.order == STM_ORDER_ANY || (s->keys.order < 0 && g->keys.order == STM_ORDER_ANY));
    st = make_step(p, a, g, s, index, plan, run_dir, &out->step, err);
    if (st == MILL_OK && stm_cost_unknown(out->step)) {
        const stm_value *v = stm_value_get(s->value, "budget");
        st = mill_fail(err, MILL_ERR_INVALID, "budget: step type %s does not count tokens", s->type->name);
        mill_error_remedy(err, "Use a budget in bytes, or input_batch_size");
        if (v != NULL) mill_error_place(err, v->key_place.file, v->key_place.line, v->key_place.column);
    }
    if (st != MILL_OK) {
        if (err != NULL && err->step[0] == '\0') snprintf(err->step, sizeof err->step, "%s", s->said);
        mill_error_place(err, s->value->key_place.file, s->value->key_place.line, s->value->key_place.column);
    }
    return st;
}

/* The drivers know steps by name only: find the place of the first one that the message names. */
static void place_by_name(const stm_graph *g, mill_error *err)
{
    const stm_graph_step *found = NULL;
    const char *first = NULL;
    char quoted[80];

    for (int32_t i = 0; err != NULL && i < g->n_steps; i++) {
        const char *at;

        snprintf(quoted, sizeof quoted, "'%.64s'", g->steps[i].name);
        at = strstr(err->msg, quoted);
        if (at != NULL && (first == NULL || at < first)) first = at, found = &g->steps[i];
    }
    if (found == NULL) return;
    if (err->step[0] == '\0') snprintf(err->step, sizeof err->step, "%s", found->name);
    mill_error_place(err, found->value->key_place.file, found->value->key_place.line, found->value->key_place.column);
}

/* @p sign: there will be a run, which may go on with what is there. */
static mill_status make_plan(mill_pipeline *p, const char *run_dir, bool sign, stm_arena *a, stm_graph *g, stm_plan **out,
                             mill_error *err)
{
    stm_plan *plan = NULL;
    int32_t *index;
    mill_status st;

    if ((st = open_plugins(p, err)) != MILL_OK) return st;
    if ((st = stm_graph_read(a, &p->root, p->registry, g, err)) != MILL_OK) return st;
    index = stm_arena_take(a, (size_t)g->n_steps * sizeof *index);
    plan = stm_calloc(sizeof *plan);
    if (index == NULL || plan == NULL || (plan->name = stm_strdup(mill_pipeline_name(p))) == NULL ||
        (plan->steps = stm_calloc((size_t)g->n_steps * sizeof *plan->steps)) == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "planning");
        goto fail;
    }
    plan->n_steps = g->n_steps;
    plan->n_stages = g->n_stages;
    plan->seed = (uint64_t)g->keys.seed;
    plan->memory_limit = g->keys.memory_host > 0 ? g->keys.memory_host : half_of_memory();
    plan->pinned_limit = g->keys.memory_pinned;
    plan->max_errors = g->keys.max_errors;
    plan->input_order = g->keys.order == STM_ORDER_INPUT;
    for (int32_t i = 0; i < g->n_steps; i++) index[g->order[i]] = i;
    plan->commit_interval_s = g->keys.commit_interval;
    plan->keep_sink_rows = g->keys.keep_sink_rows;
    for (int32_t i = 0; i < g->n_steps; i++)
        if ((st = fill_step(p, a, g, i, index, run_dir, plan, err)) != MILL_OK) goto fail;
    if ((st = stm_check_outputs(p, g, plan, run_dir, err)) != MILL_OK) goto fail;
    for (int32_t i = 0; i < g->n_steps && sign; i++)
        if ((st = stm_step_sign(&g->steps[g->order[i]], p->registry, &plan->steps[i], err)) != MILL_OK) goto fail;
    if ((st = stm_plan_try(plan, err)) != MILL_OK) {
        place_by_name(g, err);
        goto fail;
    }
    if ((st = stm_pipeline_place(p, g, plan, NULL, err)) != MILL_OK) goto fail;
    *out = plan;
    return MILL_OK;
fail:
    stm_plan_destroy(&plan);
    return st;
}

mill_status stm_pipeline_plan(mill_pipeline *p, const char *run_dir, stm_arena *arena, stm_graph *graph, stm_plan **out,
                              mill_error *err)
{
    stm_graph own = {0};
    char *any = run_dir != NULL ? NULL : p->run_dir != NULL ? stm_strdup(p->run_dir) : stm_pipeline_dir(p);
    mill_status st;

    if (run_dir == NULL && any == NULL) return mill_fail(err, MILL_ERR_NOMEM, "planning");
    st = any != NULL ? stm_rundir_check(any, NULL, err) : MILL_OK; /* a run looks itself */
    if (st == MILL_OK)
        st = make_plan(p, run_dir != NULL ? run_dir : any, run_dir != NULL, arena, graph != NULL ? graph : &own, out, err);
    stm_free(any);
    if (st != MILL_OK && err != NULL && st != MILL_ERR_NOMEM) err->phase = MILL_PHASE_CHECK;
    return st;
}

mill_status mill_pipeline_check(mill_pipeline *p, mill_error *err)
{
    stm_arena arena = {0};
    stm_plan *plan = NULL;
    const mill_status st = stm_pipeline_plan(p, NULL, &arena, NULL, &plan, err);

    stm_plan_destroy(&plan);
    stm_arena_fini(&arena);
    return st;
}

/* Choices that check out and still cost something. */
mill_status mill_pipeline_notes(mill_pipeline *p, char **out, mill_error *err)
{
    stm_arena arena = {0};
    stm_graph g = {0};
    stm_plan *plan = NULL;
    stm_text t = {0};
    mill_status st = stm_pipeline_plan(p, NULL, &arena, &g, &plan, err);
    bool sink = false;

    for (int32_t i = 0; st == MILL_OK && i < g.n_steps; i++) {
        const stm_graph_step *s = &g.steps[i];

        sink |= s->type->kind == MILL_SINK;
        if (s->type->kind == MILL_SINK && (s->keys.order == STM_ORDER_ANY || (s->keys.order < 0 && g.keys.order == STM_ORDER_ANY)))
            stm_text_addf(&t, "note: %s: order: any: its rows come in another order in every run\n", s->name);
        if ((s->type->flags & MILL_NONDETERMINISTIC) != 0)
            stm_text_addf(&t, "note: %s: step type %s may give something else in every run\n", s->name, s->type->name);
        if (plan->topology != NULL && plan->topology->n_gpus == 0 && (s->keys.gpus > 0 || s->keys.devices != NULL))
            stm_text_addf(&t, "note: %s: resources: there is no GPU that this process could use; the step runs on the cpu\n",
                          s->name);
        else if ((s->keys.gpus > 0 || s->keys.devices != NULL) && (s->type->flags & MILL_ON_DEVICE) == 0)
            stm_text_addf(&t, "note: %s: resources: step type %s computes on the host\n", s->name, s->type->name);
    }
    if (st == MILL_OK && !sink) stm_text_addf(&t, "note: no step is a sink: nothing is written\n");
    if (st == MILL_OK) st = stm_text_hand_out(&t, out, err);
    stm_text_free(&t);
    stm_plan_destroy(&plan);
    stm_arena_fini(&arena);
    return st;
}

mill_status mill_pipeline_plan(mill_pipeline *p, mill_format format, char **out, mill_error *err)
{
    stm_arena arena = {0};
    stm_graph g = {0};
    stm_plan *plan = NULL;
    stm_text t = {0};
    mill_status st = stm_pipeline_plan(p, NULL, &arena, &g, &plan, err);

    if (st == MILL_OK) st = stm_plan_show(p, &g, plan, format, &t);
    if (st == MILL_OK) st = stm_text_hand_out(&t, out, err);
    stm_text_free(&t);
    stm_plan_destroy(&plan);
    stm_arena_fini(&arena);
    return st;
}
