/* A plan as people and programs read it. */
#include <string.h>

#include "core/alloc.h"
#include "pipeline/estimate.h"
#include "pipeline/placing.h"

/* Text of unknown length, per row, when memory is estimated. */
enum { GUESS_BYTES = 256 };

static const char *kind_name(int32_t kind)
{
    static const char *const names[] = {"?", "generator", "step", "global", "sink", "router"};

    return kind >= MILL_GENERATOR && kind <= MILL_ROUTER ? names[kind] : names[0];
}

static const char *mode_name(stm_input_mode mode)
{
    static const char *const names[] = {"single", "join", "union", "converge", "each"};

    return names[mode];
}

static int64_t type_bytes(const mill_type *t)
{
    int64_t sum = 0;

    switch (t->id) {
    case MILL_BOOL: return 1;
    case MILL_FIXED_LIST: return t->length * type_bytes(t->fields[0].type);
    case MILL_STRUCT:
        for (int32_t i = 0; i < t->n_fields; i++) sum += type_bytes(t->fields[i].type);
        return sum;
    default: return t->width > 0 ? t->width : GUESS_BYTES;
    }
}

int64_t stm_row_bytes(const stm_schema *columns)
{
    int64_t sum = 0;

    for (int32_t c = 0; c < columns->n; c++) sum += type_bytes(columns->fields[c].type);
    return sum;
}

void stm_estimate_steps(const stm_plan *plan, stm_estimate *e)
{
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const mill_step *s = plan->steps[i].step;
        const stm_plan_step *ps = &plan->steps[i];
        int64_t width = 0;

        e[i].rows = s->batch_rows;
        for (int32_t k = 0; k < ps->n_inputs; k++) {
            const mill_step *from = plan->steps[ps->inputs[k].from].step;

            if (s->batch_rows == 0 && e[ps->inputs[k].from].rows > e[i].rows) e[i].rows = e[ps->inputs[k].from].rows;
            width += stm_row_bytes(&from->out);
        }
        if (s->budget_bytes > 0 && width > 0) { /* as many rows as fit in */
            const int64_t rows = s->budget_bytes / width > 0 ? s->budget_bytes / width : 1;
            e[i].rows = s->batch_rows > 0 && s->batch_rows < rows ? s->batch_rows : rows;
        }
        e[i].input_bytes = width * e[i].rows;
        e[i].bound.struct_size = sizeof e[i].bound;
        if (s->type->bound != NULL) e[i].bounded = s->type->bound(s, e[i].rows, e[i].input_bytes, &e[i].bound) == MILL_OK;
    }
}

static void add_type(stm_text *t, const mill_type *type)
{
    char small[256];
    char *big;
    const int n = mill_type_format(type, small, sizeof small);

    if (n < (int)sizeof small) {
        stm_text_add(t, small, n > 0 ? (size_t)n : 0);
    } else if ((big = stm_malloc((size_t)n + 1)) == NULL) {
        t->failed = true;
    } else {
        mill_type_format(type, big, (size_t)n + 1);
        stm_text_add(t, big, (size_t)n);
        stm_free(big);
    }
}

static void add_schema(stm_text *t, const stm_schema *s)
{
    for (int32_t i = 0; i < s->n; i++) {
        stm_text_addf(t, "%s%s: ", i > 0 ? ", " : "", s->fields[i].name);
        add_type(t, s->fields[i].type);
    }
    if (s->n == 0) stm_text_addf(t, "(no columns)");
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static void show_step(const stm_plan *plan, int32_t i, const stm_estimate *e, int width, stm_text *t)
{
    static const char *const on_error[] = {"impute", "isolate", "stop"};
    const stm_plan_step *ps = &plan->steps[i];
    const mill_step *s = ps->step;
    char buf[40];

    stm_text_addf(t, "  %-*s  %s, %s", width, s->name, kind_name(s->type->kind), s->type->name);
    if (s->policy.replicas > 1) stm_text_addf(t, ", %d replicas", s->policy.replicas);
    if (s->policy.cpus > 1) stm_text_addf(t, ", %d cpus each", s->policy.cpus);
    if (s->budget_tokens > 0 || s->budget_bytes > 0) {
        if (s->budget_tokens > 0)
            stm_text_addf(t, ", batches of up to %lld tokens", (long long)s->budget_tokens);
        else
            stm_text_addf(t, ", batches of up to %s", stm_show_bytes((double)s->budget_bytes, buf, sizeof buf));
        if (s->batch_rows > 0) stm_text_addf(t, " and %lld rows", (long long)s->batch_rows);
    } else if (s->batch_rows > 0)
        stm_text_addf(t, ", batches of %lld rows", (long long)s->batch_rows);
    else
        stm_text_addf(t, ", batches as they come");
    if (s->type->kind == MILL_STEP || s->type->kind == MILL_ROUTER) stm_text_addf(t, ", on error %s", on_error[s->policy.on_error]);
    stm_text_addf(t, "\n");
    for (int32_t k = 0; k < ps->n_inputs; k++) {
        const stm_plan_step *from = &plan->steps[ps->inputs[k].from];

        stm_text_addf(t, "  %*s    <- %s", width, "", from->step->name);
        if (from->step->n_branches > 0) stm_text_addf(t, " (%s)", from->step->branches[ps->inputs[k].branch]);
        if (ps->n_inputs > 1) stm_text_addf(t, " [%s]", mode_name(ps->mode));
        stm_text_addf(t, "  ");
        add_schema(t, &from->step->out);
        stm_text_addf(t, "\n");
    }
    if (ps->credit_rows > 0)
        stm_text_addf(t, "  %*s    credit: %lld rows in the pipeline at once\n", width, "", (long long)ps->credit_rows);
    if (e->bounded && e->bound.host_bytes > 0)
        stm_text_addf(t, "  %*s    memory: up to %s per replica and batch\n", width, "",
                      stm_show_bytes((double)e->bound.host_bytes, buf, sizeof buf));
    if (plan->placement != NULL && s->policy.gpus > 0 && stm_device_bytes(s, e) > 0)
        stm_text_addf(t, "  %*s    GPU memory: up to %s per replica\n", width, "",
                      stm_show_bytes((double)stm_device_bytes(s, e), buf, sizeof buf));
    stm_placing_show(plan, i, width, t);
}

static void show_text(const stm_plan *plan, const stm_estimate *e, stm_text *t)
{
    char buf[40];
    int width = 4;

    for (int32_t i = 0; i < plan->n_steps; i++) {
        const int n = (int)strlen(plan->steps[i].step->name);

        if (n > width) width = n;
    }
    stm_text_addf(t, "pipeline %s: %d step%s, %d stage%s, seed %llu, memory limit %s, order %s\n", plan->name, plan->n_steps,
                  plan->n_steps == 1 ? "" : "s", plan->n_stages, plan->n_stages == 1 ? "" : "s", (unsigned long long)plan->seed,
                  stm_show_bytes((double)plan->memory_limit, buf, sizeof buf), plan->input_order ? "as in the input" : "any");
    for (int32_t stage = 0; stage < plan->n_stages; stage++) {
        if (plan->n_stages > 1) stm_text_addf(t, "\nstage %d\n", stage + 1);
        for (int32_t i = 0; i < plan->n_steps; i++)
            if (plan->steps[i].stage == stage) show_step(plan, i, &e[i], width, t);
    }
}

/* ---- for programs ------------------------------------------------------------------------------------------------ */

static void json_text(stm_text *t, const char *key, const char *value)
{
    stm_text_addf(t, "\"%s\":\"", key);
    stm_text_add_json(t, value, strlen(value));
    stm_text_addf(t, "\"");
}

static void json_schema(stm_text *t, const stm_schema *s)
{
    stm_text_addf(t, "[");
    for (int32_t i = 0; i < s->n; i++) {
        stm_text_addf(t, "%s{", i > 0 ? "," : "");
        json_text(t, "name", s->fields[i].name);
        stm_text_addf(t, ",\"type\":\"");
        add_type(t, s->fields[i].type); /* names in struct types are plain identifiers or quoted by the type's own text form */
        stm_text_addf(t, "\"}");
    }
    stm_text_addf(t, "]");
}

static void json_step(const stm_plan *plan, int32_t i, const stm_estimate *e, stm_text *t)
{
    const stm_plan_step *ps = &plan->steps[i];
    const mill_step *s = ps->step;

    stm_text_addf(t, "{");
    json_text(t, "name", s->name);
    stm_text_addf(t, ",");
    json_text(t, "type", s->type->name);
    stm_text_addf(t, ",\"kind\":\"%s\",\"stage\":%d,\"replicas\":%d,\"cpus\":%d,\"gpus\":%d,\"batch_rows\":%lld",
                  kind_name(s->type->kind), ps->stage + 1, s->policy.replicas, s->policy.cpus, s->policy.gpus,
                  (long long)s->batch_rows);
    if (s->budget_tokens > 0 || s->budget_bytes > 0)
        stm_text_addf(t, ",\"budget\":{\"tokens\":%lld,\"bytes\":%lld}", (long long)s->budget_tokens, (long long)s->budget_bytes);
    if (ps->n_inputs > 0) {
        stm_text_addf(t, ",\"mode\":\"%s\",\"from\":[", mode_name(ps->mode));
        for (int32_t k = 0; k < ps->n_inputs; k++) {
            const mill_step *from = plan->steps[ps->inputs[k].from].step;

            stm_text_addf(t, "%s{", k > 0 ? "," : "");
            json_text(t, "step", from->name);
            if (from->n_branches > 0) stm_text_addf(t, ","), json_text(t, "branch", from->branches[ps->inputs[k].branch]);
            stm_text_addf(t, "}");
        }
        stm_text_addf(t, "]");
    }
    if (ps->credit_rows > 0) stm_text_addf(t, ",\"credit_rows\":%lld", (long long)ps->credit_rows);
    stm_text_addf(t, ",\"columns\":");
    json_schema(t, &s->out);
    if (e->bounded)
        stm_text_addf(t, ",\"memory\":{\"host_bytes\":%zu,\"device_bytes\":%zu,\"resident_bytes\":%zu,\"batch_rows\":%lld}",
                      e->bound.host_bytes, e->bound.device_bytes, e->bound.resident_bytes, (long long)e->rows);
    if (s->policy.gpus > 0) stm_text_addf(t, ",\"gpu_memory_bytes\":%lld", (long long)stm_device_bytes(s, e));
    stm_placing_json(plan, i, t);
    stm_text_addf(t, "}");
}

static void show_json(const stm_plan *plan, const stm_estimate *e, stm_text *t)
{
    stm_text_addf(t, "{");
    json_text(t, "name", plan->name);
    stm_text_addf(t, ",\"seed\":%llu,\"memory_limit\":%lld,\"max_errors\":%lld,\"order\":\"%s\",\"stages\":%d,\"steps\":[",
                  (unsigned long long)plan->seed, (long long)plan->memory_limit, (long long)plan->max_errors,
                  plan->input_order ? "input" : "any", plan->n_stages);
    for (int32_t i = 0; i < plan->n_steps; i++) {
        if (i > 0) stm_text_addf(t, ",");
        json_step(plan, i, &e[i], t);
    }
    stm_text_addf(t, "]");
    if (plan->placement != NULL) {
        stm_text_addf(t, ",\"placement_cost_s\":%.9g,\"topology\":", plan->placement->cost);
        stm_devices_show(plan->topology, "", MILL_FORMAT_JSON, t);
    }
    stm_text_addf(t, "}\n");
}

mill_status stm_plan_show(const mill_pipeline *p, const stm_graph *g, const stm_plan *plan, mill_format format, stm_text *out)
{
    stm_estimate *e = stm_calloc((size_t)plan->n_steps * sizeof *e);

    (void)p;
    (void)g;
    if (e == NULL) {
        out->failed = true;
        return MILL_OK; /* the caller hands the text out, and so tells */
    }
    stm_estimate_steps(plan, e);
    if (format == MILL_FORMAT_JSON)
        show_json(plan, e, out);
    else
        show_text(plan, e, out);
    stm_free(e);
    return MILL_OK;
}
