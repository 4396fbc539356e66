/* What every check of the conformance kit needs: a configured step, replicas of it, and a place to say things. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "pipeline/conform.h"
#include "plugin/value.h"

/* ---- saying ------------------------------------------------------------------------------------------------------- */

void stm_conform_now(stm_conform *k, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(k->note->now, sizeof k->note->now, fmt, ap);
    va_end(ap);
}

bool stm_conform_same(const char *a, const char *z)
{
    for (;; a++, z++) {
        while (*a >= '0' && *a <= '9') a++;
        while (*z >= '0' && *z <= '9') z++;
        if (*a == '\0') return true;
        if (*a != *z) return false;
    }
}

void stm_conform_find(stm_conform *k, const char *fmt, ...)
{
    stm_conform_note *n = k->note;
    va_list ap;

    if (n->n_findings == STM_CONFORM_FINDINGS) return;
    va_start(ap, fmt);
    vsnprintf(n->findings[n->n_findings], sizeof n->findings[0], fmt, ap);
    va_end(ap);
    for (int32_t i = 0; i < n->n_findings; i++)
        if (stm_conform_same(n->findings[i], n->findings[n->n_findings])) return; /* said already, of other rows */
    n->n_findings++;
}

void stm_conform_skip(stm_conform *k, const char *fmt, ...)
{
    va_list ap;

    if (k->note->skipped[0] != '\0') return;
    va_start(ap, fmt);
    vsnprintf(k->note->skipped, sizeof k->note->skipped, fmt, ap);
    va_end(ap);
}

void stm_conform_did(stm_conform *k, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(k->note->did, sizeof k->note->did, fmt, ap);
    va_end(ap);
}

/* ---- parameters ----------------------------------------------------------------------------------------------------- */

/* The value of "TYPE.NAME=VALUE" for this type and name; NULL = not given. The last one counts. */
static const char *given(const mill_step_type *t, const mill_plugin_check_options *o, const char *name)
{
    const size_t n_type = strlen(t->name), n_name = strlen(name);
    const char *found = NULL;

    for (size_t i = 0; i < o->n_set; i++) {
        const char *s = o->set[i];

        if (strncmp(s, t->name, n_type) == 0 && s[n_type] == '.' && strncmp(s + n_type + 1, name, n_name) == 0 &&
            s[n_type + 1 + n_name] == '=')
            found = s + n_type + 1 + n_name + 1;
    }
    return found;
}

bool stm_conform_missing(const mill_step_type *t, const mill_plugin_check_options *o, char *buf, size_t size)
{
    size_t used = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < t->n_params; i++) {
        const mill_param *p = &t->params[i];

        if (p->default_value != NULL || (p->flags & MILL_PARAM_OPTIONAL) != 0 || p->type == MILL_PARAM_OUT_PATH) continue;
        if (given(t, o, p->name) != NULL || used >= size) continue;
        used += (size_t)snprintf(buf + used, size - used, "%s%s.%s", used > 0 ? ", " : "", t->name, p->name);
    }
    return used > 0;
}

/* Where a list or a map can stand, "[..]" and "{..}" are YAML; all else stands for itself ("{name}" is a template's text). */
static mill_status read_value(const mill_param *p, const char *text, stm_value **out, mill_error *err)
{
    const bool nested = p->type == MILL_PARAM_PATHS || p->type >= MILL_PARAM_STRINGS;
    stm_value *v;

    if (nested && (text[0] == '[' || text[0] == '{')) return stm_value_parse(text, out, err);
    if ((v = stm_calloc(sizeof *v)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "a parameter");
    v->kind = STM_VALUE_SCALAR;
    v->text = text; /* of the options */
    *out = v;
    return MILL_OK;
}

mill_status stm_conform_step(stm_conform *k, const stm_schema *arriving, int32_t n_arriving, mill_step **out, mill_error *err)
{
    static const char *const two[] = {"a", "b"};
    const mill_step_type *t = k->type;
    const char *branches[32];
    const char *to = t->kind == MILL_ROUTER ? given(t, k->opts, "to") : NULL;
    stm_value *params = stm_calloc((t->n_params + k->opts->n_set + 1) * sizeof *params), **owned = NULL, *names = NULL;
    size_t n = 0;
    stm_step_spec spec = {.name = t->name, .type = t, .base_dir = NULL, .run_dir = k->dir, .run_seed = 7};
    mill_status st = MILL_OK;

    owned = stm_calloc((t->n_params + k->opts->n_set + 1) * sizeof *owned);
    if (params == NULL || owned == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "parameters");
    for (size_t i = 0; i < t->n_params && st == MILL_OK; i++) {
        const mill_param *p = &t->params[i];
        const char *text = given(t, k->opts, p->name);

        if (text == NULL && p->type == MILL_PARAM_OUT_PATH && p->default_value == NULL && (p->flags & MILL_PARAM_OPTIONAL) == 0)
            text = "conform.out";
        if (text == NULL) continue;
        if ((st = read_value(p, text, &owned[n], err)) != MILL_OK) break;
        params[n] = *owned[n];
        params[n++].key = p->name;
    }
    for (size_t i = 0; i < k->opts->n_set && st == MILL_OK; i++) { /* names that the type does not have: as in a pipeline */
        const size_t length = strlen(t->name);
        const char *s = k->opts->set[i];
        char name[64];
        bool known = false;

        if (strncmp(s, t->name, length) != 0 || s[length] != '.') continue;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(s + length + 1, "="), s + length + 1);
        for (size_t p = 0; p < t->n_params; p++) known = known || strcmp(t->params[p].name, name) == 0;
        if (!known && !(t->kind == MILL_ROUTER && strcmp(name, "to") == 0))
            st = mill_fail(err, MILL_ERR_NOT_FOUND, "step type \"%s\" has no parameter \"%s\"", t->name, name);
    }
    if (st == MILL_OK && to != NULL) st = stm_value_parse(to, &names, err);
    if (st == MILL_OK && t->kind == MILL_ROUTER) {
        spec.branches = two;
        spec.n_branches = 2;
    }
    if (st == MILL_OK && names != NULL) {
        spec.branches = branches;
        spec.n_branches = 0;
        for (size_t i = 0; i < names->n_items && i < 32; i++)
            if (names->items[i].text != NULL) branches[spec.n_branches++] = names->items[i].text;
    }
    spec.params = params;
    spec.n_params = n;
    spec.arriving = arriving;
    spec.n_arriving = t->kind != MILL_GENERATOR ? n_arriving : 0;
    spec.policy = stm_policy_default(t);
    spec.policy.on_error = STM_ON_ERROR_STOP;
    if (st == MILL_OK) {
        stm_conform_now(k, "configure");
        st = stm_step_create(&spec, out, err);
    }
    for (size_t i = 0; owned != NULL && i < t->n_params + k->opts->n_set; i++) stm_value_free(&owned[i]);
    stm_value_free(&names);
    stm_free(owned);
    stm_free(params);
    return st;
}

/* ---- columns ------------------------------------------------------------------------------------------------------ */

/* Type of column @p name as the options say; NULL text = not said. */
static const char *said(const mill_plugin_check_options *o, const char *name)
{
    const size_t n = strlen(name);

    for (size_t i = 0; i < o->n_columns; i++)
        if (strncmp(o->columns[i], name, n) == 0 && o->columns[i][n] == '=') return o->columns[i] + n + 1;
    return NULL;
}

static mill_status add_column(stm_schema *out, const char *name, const char *text, mill_error *err)
{
    const mill_type *type;
    mill_status st;

    if (stm_schema_find(out, name) >= 0) return MILL_OK;
    if ((st = mill_type_parse(text, &type, err)) != MILL_OK) {
        mill_error_context(err, "column \"%s\"", name);
        return st;
    }
    return stm_schema_add(out, name, type) == MILL_OK ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "columns");
}

mill_status stm_conform_columns(stm_conform *k, int32_t any_type, stm_schema *out, mill_error *err)
{
    static const char *const any[STM_CONFORM_ANY_TYPES] = {"utf8",       "int64", "float64", "fixed_list<float32>[4]",
                                                           "list<utf8>", "json",  "bool"};
    static const struct {
        const char *name, *type;
    } always[] = {{"id", "int64"},         {"text", "utf8"},
                  {"number", "float64"},   {"flag", "bool"},
                  {"items", "list<utf8>"}, {"vector", "fixed_list<float32>[4]"},
                  {"data", "json"}};
    const mill_step_type *t = k->type;
    mill_status st = MILL_OK;

    *out = (stm_schema){0};
    if (t->kind == MILL_GENERATOR) return MILL_OK;
    for (size_t i = 0; i < t->n_inputs && st == MILL_OK; i++) {
        const char *type = said(k->opts, t->inputs[i].name);

        if (type == NULL) type = t->inputs[i].type;
        if (strcmp(type, "any") == 0) type = any[any_type];
        if (strcmp(type, "text") == 0) type = "utf8";
        st = add_column(out, t->inputs[i].name, type, err);
    }
    for (size_t i = 0; i < k->opts->n_columns && st == MILL_OK; i++) {
        const char *c = k->opts->columns[i];
        char name[128];

        snprintf(name, sizeof name, "%.*s", (int)strcspn(c, "="), c);
        if (name[0] == '\0' || strchr(c, '=') == NULL)
            st = mill_fail(err, MILL_ERR_INVALID, "column \"%s\": expected NAME=TYPE", c);
        else
            st = add_column(out, name, strchr(c, '=') + 1, err);
    }
    for (size_t i = 0; i < sizeof always / sizeof *always && st == MILL_OK; i++)
        st = add_column(out, always[i].name, always[i].type, err);
    if (st != MILL_OK) stm_schema_fini(out);
    return st;
}

/* ---- benches ------------------------------------------------------------------------------------------------------ */

static bool make_wrapper(stm_conform *k, stm_conform_bench *b, int32_t index, int32_t count)
{
    mill_error e = {0};
    const stm_wrapper_opts o = {.step = b->step, .index = index, .count = count, .env = &b->env, .root_name = "rows",
                                .root = k->type->kind == MILL_GENERATOR ? 0 : -1,
                                .key_width = (k->type->flags & MILL_EXPANDS) != 0 ? 2 : 1};

    b->env = (stm_wrapper_env){.pool = b->pool, .errors = b->errors, .run_dir = k->dir, .n_roots = 1};
    if (stm_wrapper_create(&o, &b->w, &e) == MILL_OK) return true;
    stm_conform_skip(k, "a replica could not be made: %s", e.msg);
    return false;
}

bool stm_conform_open(stm_conform *k, stm_conform_bench *b)
{
    mill_error e = {0};

    *b = (stm_conform_bench){0};
    if (stm_conform_step(k, &k->arriving, 1, &b->step, &e) != MILL_OK) {
        stm_conform_skip(k, "configure failed, this time: %s", e.msg);
        return false;
    }
    if (stm_pool_create(0, &b->pool) == MILL_OK && stm_errors_create(NULL, NULL, &b->errors) == MILL_OK && make_wrapper(k, b, 0, 1))
        return true;
    stm_conform_skip(k, "out of memory");
    stm_errors_destroy(&b->errors);
    stm_pool_release(&b->pool);
    stm_step_destroy(&b->step);
    return false;
}

bool stm_conform_second(stm_conform *k, const stm_conform_bench *of, stm_conform_bench *b)
{
    *b = *of;
    b->w = NULL;
    return make_wrapper(k, b, 1, 2);
}

bool stm_conform_load(stm_conform *k, stm_conform_bench *b)
{
    mill_error e = {0};

    stm_conform_now(k, "load");
    if (stm_wrapper_load(b->w, &e) != MILL_OK) {
        stm_conform_skip(k, "load failed: %s", e.msg);
        k->note->wants_help = true;
        return false;
    }
    stm_wrapper_run(b->w);
    return true;
}

void stm_conform_close_second(stm_conform *k, stm_conform_bench *b)
{
    stm_conform_now(k, "unload");
    stm_wrapper_destroy(&b->w);
}

void stm_conform_close(stm_conform *k, stm_conform_bench *b, const char *after)
{
    int64_t left;

    stm_conform_now(k, "unload after %s", after);
    stm_wrapper_destroy(&b->w);
    stm_conform_now(k, "release of the step's state");
    stm_step_destroy(&b->step);
    left = stm_pool_counts(b->pool).live_bytes;
    if (left != 0)
        stm_conform_find(k, "%lld bytes of batches, columns, builders or buffers were not released by unload, after %s%s",
                         (long long)left, after, stm_conform_held() > 0 ? "; columns of the input among them" : "");
    stm_errors_destroy(&b->errors);
    stm_pool_release(&b->pool);
    stm_conform_now(k, "nothing");
}
