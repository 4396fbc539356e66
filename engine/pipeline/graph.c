#include "pipeline/graph.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "pipeline/yaml.h"
#include "plugin/modules.h"

enum { MAX_STEPS = 4096 };

static mill_status place(mill_error *err, stm_place at, mill_status st)
{
    mill_error_place(err, at.file, at.line, at.column);
    return st;
}

/* Every error about a step carries its name. */
static mill_status in_step(mill_error *err, const stm_graph_step *s, mill_status st)
{
    if (st != MILL_OK && err != NULL && err->step[0] == '\0') snprintf(err->step, sizeof err->step, "%s", s->said);
    if (st != MILL_OK) mill_error_place(err, s->value->key_place.file, s->value->key_place.line, s->value->key_place.column);
    return st;
}

int32_t stm_graph_find(const stm_graph *g, const char *name)
{
    for (int32_t i = 0; i < g->n_steps; i++)
        if (!g->steps[i].gathers && strcmp(g->steps[i].name, name) == 0) return i;
    return -1;
}

mill_status stm_graph_unknown_step(const stm_graph *g, const char *what, const char *name, stm_place at, mill_error *err)
{
    const char **names = stm_malloc((size_t)g->n_steps * sizeof *names);
    size_t n = 0;
    mill_status st;

    for (int32_t i = 0; names != NULL && i < g->n_steps; i++)
        if (!g->steps[i].gathers) names[n++] = g->steps[i].name;
    st = stm_unknown_name(what, name, at, names, n, err);
    stm_free(names);
    return st;
}

/* ---- file keys --------------------------------------------------------------------------------------------------- */

mill_status stm_graph_read_file_keys(const stm_value *root, stm_file_keys *out, mill_error *err)
{
    const char *names[32];
    stm_file_keys keys = {0};
    mill_status st;

    if (root->kind == STM_VALUE_SCALAR && root->text == NULL)
        return place(err, root->place,
                     mill_fail(err, MILL_ERR_INVALID, "the file is empty: expected a map with the keys stepmill and steps"));
    if (root->kind != STM_VALUE_MAP) return stm_key_expected(root, "pipeline", "a map with the keys stepmill and steps", err);
    stm_keys_default(stm_file_table, stm_file_table_count, &keys);
    keys.numerics = -1;
    for (size_t i = 0; i < root->n_items; i++) {
        const stm_value *v = &root->items[i];
        const stm_key *k = stm_key_find(stm_file_table, stm_file_table_count, v->key);

        if (k == NULL) {
            for (size_t j = 0; j < stm_file_table_count; j++) names[j] = stm_file_table[j].name;
            return stm_unknown_name("unknown key", v->key, v->key_place, names, stm_file_table_count, err);
        }
        if ((st = stm_key_read(k, v, k->name, &keys, err)) != MILL_OK) return st;
    }
    for (size_t i = 0; i < stm_file_table_count; i++)
        if (stm_file_table[i].required && stm_value_get(root, stm_file_table[i].name) == NULL)
            return place(
                err, root->place,
                mill_fail(err, MILL_ERR_INVALID, "the key \"%s\" is missing (%s)", stm_file_table[i].name, stm_file_table[i].text));
    *out = keys;
    return MILL_OK;
}

/* ---- step keys --------------------------------------------------------------------------------------------------- */

static const char *kind_text(int32_t kind)
{
    static const char *const names[] = {"", "a generator", "a step", "a global", "a sink", "a router"};

    return kind >= MILL_GENERATOR && kind <= MILL_ROUTER ? names[kind] : "a step";
}

static mill_status unknown_key(const stm_graph_step *s, const stm_value *v, mill_error *err)
{
    const size_t n = stm_step_table_count + s->type->n_params;
    const char **names = stm_malloc(n * sizeof *names);
    char what[128];
    size_t count = 0;
    mill_status st;

    if (names != NULL) {
        for (size_t i = 0; i < s->type->n_params; i++) names[count++] = s->type->params[i].name;
        for (size_t i = 0; i < stm_step_table_count; i++)
            if (stm_step_table[i].kinds == 0 || (stm_step_table[i].kinds & 1u << s->type->kind) != 0)
                names[count++] = stm_step_table[i].name;
    }
    snprintf(what, sizeof what, "step type %s has no parameter", s->type->name);
    st = stm_unknown_name(what, v->key, v->key_place, names, count, err);
    stm_free(names);
    if (err != NULL && err->remedy[0] == '\0') mill_error_remedy(err, "See `stepmill steps describe %s`", s->type->name);
    return st;
}

static mill_status read_step_type(stm_graph_step *s, stm_registry *reg, mill_error *err)
{
    const stm_value *type = stm_value_get(s->value, "type");
    const char *near;

    if (type == NULL) return place(err, s->value->key_place, mill_fail(err, MILL_ERR_INVALID, "the key \"type\" is missing"));
    if (type->kind != STM_VALUE_SCALAR || type->text == NULL) return stm_key_expected(type, "type", "the name of a step type", err);
    s->type_place = type->place;
    if (stm_registry_want(reg, type->text, err) != MILL_OK)
        return place(err, type->place, err != NULL ? err->status : MILL_ERR_UNSUPPORTED);
    s->type = stm_registry_find(reg, type->text);
    if (s->type != NULL) return MILL_OK;
    near = stm_registry_nearest(reg, type->text);
    mill_fail(err, MILL_ERR_NOT_FOUND, "unknown step type \"%.80s\"", type->text);
    if (near != NULL) mill_error_remedy(err, "Did you mean \"%s\"?", near);
    mill_error_remedy(err, "`stepmill steps list` says what there is; types of a plugin need it under `plugins:`");
    return place(err, type->place, MILL_ERR_NOT_FOUND);
}

/* Which there are is known where they are placed; what can be none is wrong on every machine. */
static mill_status check_devices(const stm_value *list, mill_error *err)
{
    const size_t n = list == NULL ? 0 : list->kind == STM_VALUE_LIST ? list->n_items : 1;

    for (size_t i = 0; i < n; i++) {
        const stm_value *v = list->kind == STM_VALUE_LIST ? &list->items[i] : list;
        int64_t number;

        if (stm_parse_int(v->text, &number) ? number < 0 || v->quoted : strlen(v->text) < STM_UUID_LEAST)
            return stm_key_expected(v, "resources.devices", "the position of a GPU or its UUID", err);
    }
    return MILL_OK;
}

/* What a key may say depends on the type's flags, too. */
static mill_status check_step_keys(const stm_graph_step *s, mill_error *err)
{
    const stm_value *v;

    if (s->keys.replicas > 1) {
        v = stm_value_get(s->value, "replicas");
        if (s->type->kind != MILL_STEP && s->type->kind != MILL_ROUTER)
            return place(err, v->place, mill_fail(err, MILL_ERR_INVALID, "replicas: %s has one replica", kind_text(s->type->kind)));
        if ((s->type->flags & MILL_STATEFUL) != 0)
            return place(err, v->place,
                         mill_fail(err, MILL_ERR_INVALID,
                                   "replicas: step type %s keeps state from batch to batch: it has one replica", s->type->name));
    }
    if ((v = stm_value_get(s->value, "budget")) != NULL && (s->keys.budget_tokens > 0) == (s->keys.budget_bytes > 0)) {
        mill_fail(err, MILL_ERR_INVALID, "budget: %s",
                  s->keys.budget_tokens > 0 ? "tokens and bytes are given: a batch has one budget" : "neither tokens nor bytes");
        mill_error_remedy(err,
                          "Say what a batch may cost, {tokens: 16384} or {bytes: 1MiB}; input_batch_size limits its rows besides");
        return place(err, v->key_place, MILL_ERR_INVALID);
    }
    if ((v = stm_value_get(s->value, "stop_if")) != NULL && stm_value_get(v, "of") == NULL) {
        mill_fail(err, MILL_ERR_INVALID, "stop_if: the key \"of\" is missing (of how many rows)");
        mill_error_remedy(err, "Say for instance {failed: 0.5, of: 1000}; of: 0 switches it off");
        return place(err, v->key_place, MILL_ERR_INVALID);
    }
    return check_devices(s->keys.devices, err);
}

static mill_status read_step_keys(stm_graph_step *s, mill_error *err)
{
    mill_status st;

    stm_keys_default(stm_step_table, stm_step_table_count, &s->keys);
    s->keys.on_error = -1;
    s->keys.order = -1;
    for (size_t i = 0; i < s->value->n_items; i++) {
        const stm_value *v = &s->value->items[i];
        const stm_key *k = stm_key_find(stm_step_table, stm_step_table_count, v->key);
        bool param = false;

        for (size_t j = 0; j < s->type->n_params && k == NULL; j++) param |= strcmp(s->type->params[j].name, v->key) == 0;
        if (param) continue;
        if (k == NULL) return unknown_key(s, v, err);
        if (k->kinds != 0 && (k->kinds & 1u << s->type->kind) == 0) {
            mill_fail(err, MILL_ERR_INVALID, "%s: %s does not have this key (step type %s)", k->name, kind_text(s->type->kind),
                      s->type->name);
            if (strcmp(k->name, "batch_size") == 0) mill_error_remedy(err, "Use input_batch_size: rows per batch of this step");
            if (strcmp(k->name, "input_batch_size") == 0 && s->type->kind == MILL_GENERATOR)
                mill_error_remedy(err, "Use batch_size: rows per batch of a generator");
            return place(err, v->key_place, MILL_ERR_INVALID);
        }
        if ((st = stm_key_read(k, v, k->name, &s->keys, err)) != MILL_OK) return st;
    }
    /* as if not given */
    if (s->keys.devices != NULL && s->keys.devices->kind == STM_VALUE_LIST && s->keys.devices->n_items == 0) s->keys.devices = NULL;
    return check_step_keys(s, err);
}

/* ---- edges ------------------------------------------------------------------------------------------------------- */

static mill_status add_input(const stm_graph *g, stm_graph_step *s, const stm_value *v, mill_error *err)
{
    stm_graph_input *in = &s->inputs[s->n_inputs];
    const int32_t self = (int32_t)(s - g->steps);
    int32_t from;

    if (v->kind != STM_VALUE_SCALAR || v->text == NULL) return stm_key_expected(v, "from", "the name of a step", err);
    if ((from = stm_graph_find(g, v->text)) < 0) return stm_graph_unknown_step(g, "from: unknown step", v->text, v->place, err);
    if (from == self) return place(err, v->place, mill_fail(err, MILL_ERR_INVALID, "from: the step names itself"));
    if (g->steps[from].type->kind == MILL_SINK)
        return place(err, v->place,
                     mill_fail(err, MILL_ERR_INVALID, "from: %s is a sink (%s): nothing comes out of it", v->text,
                               g->steps[from].type->name));
    for (int32_t i = 0; i < s->n_inputs; i++)
        if (s->inputs[i].step == from)
            return place(err, v->place, mill_fail(err, MILL_ERR_INVALID, "from: %s is named twice", v->text));
    *in = (stm_graph_input){from, 0, v->place};
    s->n_inputs++;
    return MILL_OK;
}

static mill_status add_inputs(stm_arena *a, const stm_graph *g, stm_graph_step *s, const stm_value *v, mill_error *err)
{
    mill_status st;
    const size_t n = v->kind == STM_VALUE_LIST ? v->n_items : 1;

    if (n == 0) return stm_key_expected(v, "from", "the name of a step", err);
    if ((s->inputs = stm_arena_take(a, n * sizeof *s->inputs)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "reading from");
    for (size_t i = 0; i < n; i++)
        if ((st = add_input(g, s, v->kind == STM_VALUE_LIST ? &v->items[i] : v, err)) != MILL_OK) return st;
    return MILL_OK;
}

static const struct from_form {
    const char *name;
    stm_input_mode mode;
    const char *missing, *uneven; /* choices; NULL = not for this form */
} from_forms[] = {
    {"join", STM_INPUT_JOIN, "error|drop|null", "error|null"},
    {"union", STM_INPUT_UNION, NULL, NULL},
    {"converge", STM_INPUT_CONVERGE, "error|drop|null", NULL},
};

/* from: {join: [...], on_missing: ...} */
static mill_status read_from_map(stm_arena *a, const stm_graph *g, stm_graph_step *s, const stm_value *v, mill_error *err)
{
    static const char *const words[] = {"join", "union", "converge", "on_missing", "on_uneven"};
    static const stm_key missing = {"on_missing", STM_SHAPE_ENUM, NULL, .choices = "error|drop|null", .text = ""};
    static const stm_key uneven = {"on_uneven", STM_SHAPE_ENUM, NULL, .choices = "error|null", .text = ""};
    const struct from_form *form = NULL;
    int32_t choice;
    mill_status st;

    for (size_t i = 0; i < v->n_items; i++) {
        const stm_value *item = &v->items[i];
        bool known = false;

        for (size_t j = 0; j < 5; j++) known |= strcmp(item->key, words[j]) == 0;
        if (!known) return stm_unknown_name("from: unknown key", item->key, item->key_place, words, 5, err);
        for (size_t j = 0; j < 3; j++) {
            if (strcmp(item->key, from_forms[j].name) != 0) continue;
            if (form != NULL)
                return place(err, item->key_place,
                             mill_fail(err, MILL_ERR_INVALID, "from: %s and %s cannot stand together", form->name, item->key));
            form = &from_forms[j];
            if (item->kind != STM_VALUE_LIST) return stm_key_expected(item, "from", "a list of steps", err);
            if ((st = add_inputs(a, g, s, item, err)) != MILL_OK) return st;
        }
    }
    if (form == NULL) return stm_key_expected(v, "from", "a step, a list of steps, or a map with join, union or converge", err);
    s->mode = form->mode;
    s->on_missing = form->mode == STM_INPUT_CONVERGE ? STM_MISSING_NULL : STM_MISSING_ERROR;
    for (size_t i = 0; i < v->n_items; i++) {
        const stm_value *item = &v->items[i];
        const bool m = strcmp(item->key, "on_missing") == 0, u = strcmp(item->key, "on_uneven") == 0;

        if ((m && form->missing == NULL) || (u && form->uneven == NULL))
            return place(err, item->key_place, mill_fail(err, MILL_ERR_INVALID, "from: %s has no %s", form->name, item->key));
        if (m || u) {
            if ((st = stm_key_read(m ? &missing : &uneven, item, m ? "from.on_missing" : "from.on_uneven", &choice, err)) !=
                MILL_OK)
                return st;
            if (m)
                s->on_missing = choice == 0 ? STM_MISSING_ERROR : choice == 1 ? STM_MISSING_DROP : STM_MISSING_NULL;
            else
                s->on_uneven = choice == 0 ? STM_UNEVEN_ERROR : STM_UNEVEN_NULL;
        }
    }
    return MILL_OK;
}

static mill_status read_from(stm_arena *a, const stm_graph *g, stm_graph_step *s, mill_error *err)
{
    const stm_value *v = s->keys.from;
    mill_status st;

    if (s->type->kind == MILL_GENERATOR) return MILL_OK; /* `from` was refused with its key */
    if (v == NULL)
        return place(err, s->value->key_place,
                     mill_fail(err, MILL_ERR_INVALID,
                               "the key \"from\" is missing: %s (step type %s) needs rows; only generators go without",
                               kind_text(s->type->kind), s->type->name));
    s->from_place = v->place;
    s->on_missing = STM_MISSING_ERROR;
    s->on_uneven = STM_UNEVEN_ERROR;
    st = v->kind == STM_VALUE_MAP ? read_from_map(a, g, s, v, err) : add_inputs(a, g, s, v, err);
    if (st != MILL_OK) return st;
    if (v->kind != STM_VALUE_MAP) s->mode = s->n_inputs > 1 ? STM_INPUT_JOIN : STM_INPUT_SINGLE;
    if (s->n_inputs == 1) s->mode = STM_INPUT_SINGLE;
    if (s->type->kind == MILL_GLOBAL && (v->kind != STM_VALUE_MAP || s->n_inputs == 1)) s->mode = STM_INPUT_EACH;
    return MILL_OK;
}

/* Routers: choices and the steps behind them. */
static mill_status read_to(stm_arena *a, const stm_graph *g, stm_graph_step *s, mill_error *err)
{
    const stm_value *v = s->keys.to;

    if (s->type->kind != MILL_ROUTER) return MILL_OK;
    if (v == NULL || v->n_items == 0)
        return place(err, v != NULL ? v->place : s->value->key_place,
                     mill_fail(err, MILL_ERR_INVALID, "the key \"to\" is missing: a router maps its choices to steps"));
    s->branches = stm_arena_take(a, v->n_items * sizeof *s->branches);
    s->branch_to = stm_arena_take(a, v->n_items * sizeof *s->branch_to);
    if (s->branches == NULL || s->branch_to == NULL) return mill_fail(err, MILL_ERR_NOMEM, "reading to");
    for (size_t i = 0; i < v->n_items; i++) {
        const stm_value *item = &v->items[i];
        const int32_t to = stm_graph_find(g, item->text);

        if (to < 0) return stm_graph_unknown_step(g, "to: unknown step", item->text, item->place, err);
        for (int32_t j = 0; j < s->n_branches; j++)
            if (s->branch_to[j] == to)
                return place(err, item->place,
                             mill_fail(err, MILL_ERR_INVALID, "to: %s stands under two choices, \"%s\" and \"%s\"", item->text,
                                       s->branches[j], item->key));
        s->branches[s->n_branches] = item->key;
        s->branch_to[s->n_branches++] = to;
    }
    return MILL_OK;
}

/* `to` of a router and `from` of its branches must agree. */
static mill_status connect_branches(stm_graph *g, mill_error *err)
{
    for (int32_t i = 0; i < g->n_steps; i++) {
        stm_graph_step *s = &g->steps[i];

        for (int32_t k = 0; k < s->n_inputs; k++) {
            const stm_graph_step *r = &g->steps[s->inputs[k].step];
            int32_t b = 0;

            if (r->type->kind != MILL_ROUTER) continue;
            while (b < r->n_branches && r->branch_to[b] != i) b++;
            if (b == r->n_branches)
                return in_step(
                    err, s,
                    place(err, s->inputs[k].place,
                          mill_fail(err, MILL_ERR_INVALID, "from: the router %s does not name this step under `to`", r->name)));
            s->inputs[k].branch = b;
        }
    }
    for (int32_t i = 0; i < g->n_steps; i++) {
        const stm_graph_step *r = &g->steps[i];

        for (int32_t b = 0; b < r->n_branches; b++) {
            const stm_graph_step *s = &g->steps[r->branch_to[b]];
            bool named = false;

            for (int32_t k = 0; k < s->n_inputs; k++) named |= s->inputs[k].step == i;
            if (!named)
                return in_step(err, r,
                               place(err, r->keys.to->items[b].place,
                                     mill_fail(err, MILL_ERR_INVALID, "to: %s does not name %s in its `from`", s->name, r->name)));
        }
    }
    return MILL_OK;
}

/* ---- order and branches ------------------------------------------------------------------------------------------- */

/* Steps are left that all wait for one another: walk producers until one comes again, and name the circle. */
static mill_status fail_cycle(const stm_graph *g, const bool *done, mill_error *err)
{
    char text[320] = "";
    bool *seen = stm_calloc((size_t)g->n_steps * sizeof *seen);
    int32_t at = 0, start;
    size_t used = 0;

    if (seen == NULL) return mill_fail(err, MILL_ERR_NOMEM, "checking the graph");
    while (done[at]) at++;
    while (!seen[at]) {
        int32_t next = -1;

        seen[at] = true;
        for (int32_t k = 0; k < g->steps[at].n_inputs && next < 0; k++)
            if (!done[g->steps[at].inputs[k].step]) next = g->steps[at].inputs[k].step;
        at = next; /* a step that is left always has an input that is left */
    }
    start = at;
    for (int32_t i = 0; i < g->n_steps; i++) /* begin with the circle's first step in the file: the same text every time */
        seen[i] = false;
    do {
        seen[at] = true;
        if (at < start) start = at;
        for (int32_t k = 0; k < g->steps[at].n_inputs; k++)
            if (!done[g->steps[at].inputs[k].step]) {
                at = g->steps[at].inputs[k].step;
                break;
            }
    } while (!seen[at]);
    stm_free(seen);
    at = start;
    do { /* against the flow: "a <- b" reads "a takes rows from b" */
        const int n = g->steps[at].gathers ? 0 : snprintf(text + used, sizeof text - used, "%s <- ", g->steps[at].name);

        used += n > 0 ? (size_t)n : 0;
        for (int32_t k = 0; k < g->steps[at].n_inputs; k++)
            if (!done[g->steps[at].inputs[k].step]) {
                at = g->steps[at].inputs[k].step;
                break;
            }
    } while (at != start && used < sizeof text - 80);
    mill_fail(err, MILL_ERR_INVALID, "from: the steps form a circle: %s%s", text, at == start ? g->steps[at].name : "...");
    return in_step(err, &g->steps[start], place(err, g->steps[start].from_place, MILL_ERR_INVALID));
}

static mill_status sort_steps(stm_arena *a, stm_graph *g, mill_error *err)
{
    bool *done = stm_arena_take(a, (size_t)g->n_steps * sizeof *done);
    int32_t n = 0;

    g->order = stm_arena_take(a, (size_t)g->n_steps * sizeof *g->order);
    if (done == NULL || g->order == NULL) return mill_fail(err, MILL_ERR_NOMEM, "sorting the steps");
    while (n < g->n_steps) {
        const int32_t before = n;

        for (int32_t i = 0; i < g->n_steps; i++) {
            bool ready = !done[i];

            for (int32_t k = 0; k < g->steps[i].n_inputs && ready; k++) ready = done[g->steps[i].inputs[k].step];
            if (!ready) continue;
            done[i] = true;
            g->order[n++] = i;
        }
        if (n == before) return fail_cycle(g, done, err);
    }
    return MILL_OK;
}

static int32_t common_around(const stm_graph_step *s, const int32_t (*around)[2], int32_t n)
{
    int32_t i = 0;

    while (i < n && i < s->n_around && s->around[i][0] == around[i][0] && s->around[i][1] == around[i][1]) i++;
    return i;
}

/* Branches the rows of input k lie in. */
static mill_status around_of(const stm_graph *g, const stm_graph_step *s, int32_t k, int32_t (*around)[2], int32_t *n,
                             mill_error *err)
{
    const stm_graph_step *p = &g->steps[s->inputs[k].step];

    memcpy(around, p->around, sizeof p->around);
    *n = p->n_around;
    if (p->type->kind != MILL_ROUTER) return MILL_OK;
    if (*n == STM_FLOW_MAX_DEPTH)
        return place(
            err, s->inputs[k].place,
            mill_fail(err, MILL_ERR_INVALID, "from: more than %d routers inside each other's branches", STM_FLOW_MAX_DEPTH));
    around[*n][0] = s->inputs[k].step;
    around[(*n)++][1] = s->inputs[k].branch;
    return MILL_OK;
}

/* Rows of different branches of a router meet only in a convergence, and a convergence takes branches of one router. */
static mill_status check_branches(const stm_graph *g, stm_graph_step *s, mill_error *err)
{
    int32_t around[STM_FLOW_MAX_DEPTH][2], n;
    mill_status st;

    if (s->type->kind == MILL_GENERATOR) return MILL_OK;
    if ((st = around_of(g, s, 0, s->around, &s->n_around, err)) != MILL_OK) return st;
    for (int32_t k = 1; k < s->n_inputs; k++) {
        const stm_graph_input *in = &s->inputs[k];
        const char *one = g->steps[s->inputs[0].step].name, *other = g->steps[in->step].name;
        int32_t same;

        if ((st = around_of(g, s, k, around, &n, err)) != MILL_OK) return st;
        same = common_around(s, around, n);
        if (s->mode == STM_INPUT_CONVERGE) {
            if (n != s->n_around || same != n - 1 || around[same][0] != s->around[same][0])
                return place(err, in->place,
                             mill_fail(err, MILL_ERR_INVALID,
                                       "from: %s and %s are not two branches of one router: nothing to converge", one, other));
            continue;
        }
        if (s->mode == STM_INPUT_EACH || (same == n && same == s->n_around)) continue;
        if (same < n && same < s->n_around && around[same][0] == s->around[same][0])
            return place(err, in->place,
                         mill_fail(err, MILL_ERR_INVALID,
                                   "from: %s and %s come from different branches of the router %s: use {converge: [...]}", one,
                                   other, g->steps[around[same][0]].name));
        return place(err, in->place,
                     mill_fail(err, MILL_ERR_INVALID, "from: %s and %s are not in the same branches of routers", one, other));
    }
    if (s->mode == STM_INPUT_CONVERGE ||
        (s->n_inputs == 1 && !g->steps[s->inputs[0].step].gathers && stm_value_get(s->keys.from, "converge") != NULL)) {
        if (s->n_around == 0)
            return place(err, s->inputs[0].place,
                         mill_fail(err, MILL_ERR_INVALID, "from: %s is not in a branch of a router: nothing to converge",
                                   g->steps[s->inputs[0].step].name));
        if (s->mode == STM_INPUT_CONVERGE) s->n_around--;
    }
    if (s->type->kind == MILL_GLOBAL) s->n_around = 0; /* its output is a root of its own */
    return MILL_OK;
}

/* ---- globals, routers and sinks behind a join, union or convergence
 * --------------------------------------------------------------------- */

static mill_status gather_process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    (void)r, (void)in, (void)n_in;
    return mill_emit_pass(out, err);
}

/* Rows put together by the edges in front of it go through as they are. */
static const mill_step_type gather_type = {
    .struct_size = sizeof gather_type,
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW,
    .name = "gather",
    .summary = "puts the inputs of a global together",
    .process = gather_process,
};

/* A global takes its inputs one after the other, routers and sinks take batches as they are: what their `from` says to join, unite
 * or converge is done by a step in front of them. */
static mill_status add_gathers(stm_arena *a, stm_graph *g, mill_error *err)
{
    const int32_t n = g->n_steps;

    for (int32_t i = 0; i < n; i++) {
        stm_graph_step *s = &g->steps[i], *before = &g->steps[g->n_steps];

        if (s->type->kind == MILL_STEP || s->mode == STM_INPUT_EACH || s->n_inputs < 2) continue;
        *before = (stm_graph_step){.value = s->value,
                                   .type = &gather_type,
                                   .type_place = s->type_place,
                                   .from_place = s->from_place,
                                   .mode = s->mode,
                                   .on_missing = s->on_missing,
                                   .on_uneven = s->on_uneven,
                                   .inputs = s->inputs,
                                   .n_inputs = s->n_inputs,
                                   .gathers = true};
        before->said = s->name;
        before->name = stm_arena_printf(a, "%s.from", s->name);
        s->inputs = stm_arena_take(a, sizeof *s->inputs);
        if (before->name == NULL || s->inputs == NULL) return mill_fail(err, MILL_ERR_NOMEM, "connecting step %s", s->name);
        stm_keys_default(stm_step_table, stm_step_table_count, &before->keys);
        before->keys.on_error = before->keys.order = -1;
        before->keys.from = s->keys.from;
        s->inputs[0] = (stm_graph_input){g->n_steps++, 0, s->from_place};
        s->n_inputs = 1;
        s->mode = s->type->kind == MILL_GLOBAL ? STM_INPUT_EACH : STM_INPUT_SINGLE;
        for (int32_t k = 0; k < n; k++) /* a router that named the step now leads to the step in front of it */
            for (int32_t b = 0; b < g->steps[k].n_branches; b++)
                if (g->steps[k].branch_to[b] == i) g->steps[k].branch_to[b] = g->n_steps - 1;
    }
    return MILL_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static mill_status read_steps(stm_arena *a, const stm_value *steps, stm_registry *reg, stm_graph *g, mill_error *err)
{
    mill_status st;

    if (steps->n_items == 0)
        return place(err, steps->place, mill_fail(err, MILL_ERR_INVALID, "steps: a pipeline needs at least one step"));
    if (steps->n_items > MAX_STEPS)
        return place(err, steps->place, mill_fail(err, MILL_ERR_INVALID, "steps: more than %d steps", MAX_STEPS));
    if ((g->steps = stm_arena_take(a, 2 * steps->n_items * sizeof *g->steps)) == NULL) /* room for a gather in front of each */
        return mill_fail(err, MILL_ERR_NOMEM, "reading the steps");
    for (size_t i = 0; i < steps->n_items; i++) {
        stm_graph_step *s = &g->steps[g->n_steps++];

        s->value = &steps->items[i];
        s->name = s->said = s->value->key;
    }
    for (int32_t i = 0; i < g->n_steps; i++) {
        stm_graph_step *s = &g->steps[i];

        if (!stm_name_ok(s->name))
            return place(err, s->value->key_place,
                         mill_fail(err, MILL_ERR_INVALID,
                                   "steps: \"%.80s\" cannot name a step: letters, digits, _ and -, at most 63", s->name));
        if (s->value->kind != STM_VALUE_MAP)
            return in_step(err, s, stm_key_expected(s->value, "step", "a map with the key type", err));
        if ((st = read_step_type(s, reg, err)) != MILL_OK || (st = read_step_keys(s, err)) != MILL_OK) return in_step(err, s, st);
    }
    for (int32_t i = 0; i < g->n_steps; i++)
        if ((st = read_from(a, g, &g->steps[i], err)) != MILL_OK || (st = read_to(a, g, &g->steps[i], err)) != MILL_OK)
            return in_step(err, &g->steps[i], st);
    return MILL_OK;
}

mill_status stm_graph_read(stm_arena *a, const stm_value *root, stm_registry *reg, stm_graph *out, mill_error *err)
{
    stm_graph g = {0};
    mill_status st;

    if ((st = stm_graph_read_file_keys(root, &g.keys, err)) != MILL_OK) return st;
    if ((st = read_steps(a, g.keys.steps, reg, &g, err)) != MILL_OK) return st;
    if ((st = connect_branches(&g, err)) != MILL_OK) return st;
    if ((st = add_gathers(a, &g, err)) != MILL_OK) return st;
    if ((st = sort_steps(a, &g, err)) != MILL_OK) return st;
    for (int32_t i = 0; i < g.n_steps; i++)
        if ((st = check_branches(&g, &g.steps[g.order[i]], err)) != MILL_OK) return in_step(err, &g.steps[g.order[i]], st);
    if ((st = stm_graph_stages(a, &g, err)) != MILL_OK) return st;
    *out = g;
    return MILL_OK;
}
