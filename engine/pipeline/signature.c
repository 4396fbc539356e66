/* What the results of a step depend on, as fields with names that people know. */
#include "pipeline/signature.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pipeline/yaml.h"
#include "plugin/config.h"
#include "plugin/value.h"
#include "store/signature.h"

static void add(stm_signature *s, const char *step, const char *what, const char *value)
{
    char name[160];

    snprintf(name, sizeof name, "step %.63s: %.63s", step, what);
    stm_signature_add(s, name, value);
}

static void add_file(stm_signature *s, const char *step, const char *what, const char *path)
{
    char name[400];

    snprintf(name, sizeof name, "step %.63s: %.63s %.250s", step, what, path);
    stm_signature_add_file(s, name, path);
}

/* As few digits as give the same number: what changed is said with it. */
static void add_number(stm_text *t, double number)
{
    char text[32];
    int digits = 15;

    do snprintf(text, sizeof text, "%.*g", digits, number);
    while (strtod(text, NULL) != number && digits++ < 17);
    stm_text_addf(t, "%s", text);
}

/* @p written: the value as it stands in the file, NULL = it is the default. */
static void add_param(stm_signature *s, const char *step, const mill_param *p, const stm_param_value *v, const stm_value *written)
{
    stm_text t = {0};
    char type[256];

    if (!v->present || (p->flags & MILL_PARAM_NO_RESULT) != 0) return;
    switch (p->type) {
    case MILL_PARAM_BOOL: stm_text_addf(&t, v->truth ? "true" : "false"); break;
    case MILL_PARAM_INT:
    case MILL_PARAM_BYTES: stm_text_addf(&t, "%lld", (long long)v->whole); break;
    case MILL_PARAM_FLOAT:
    case MILL_PARAM_DURATION: add_number(&t, v->number); break;
    case MILL_PARAM_OUT_PATH: /* from the run directory, which may have been moved */
        stm_text_addf(&t, "%s",
                      written != NULL && written->kind == STM_VALUE_SCALAR && written->text != NULL ? written->text
                      : p->default_value != NULL                                                    ? p->default_value
                                                                                                    : "");
        break;
    default:
        if (v->text != NULL) stm_text_addf(&t, "%s", v->text);
        for (size_t i = 0; i < v->n_entries; i++) {
            const stm_param_entry *e = &v->entries[i];
            if (e->type != NULL) mill_type_format(e->type, type, sizeof type);
            stm_text_addf(&t, "%s%s%s%s", i > 0 ? ", " : "", e->key, e->key[0] != 0 ? ": " : "",
                          e->type != NULL   ? type
                          : e->text != NULL ? e->text
                                            : "");
        }
    }
    add(s, step, p->name, t.data != NULL ? t.data : "");
    s->fields.failed = s->fields.failed || t.failed;
    stm_text_free(&t);
    if (p->type == MILL_PARAM_PATH && v->text != NULL) add_file(s, step, p->name, v->text);
    for (size_t i = 0; p->type == MILL_PARAM_PATHS && i < v->n_entries; i++) add_file(s, step, p->name, v->entries[i].text);
}

static bool is_script(const char *path)
{
    static const char *const ends[] = {".py", ".sh", ".pl", ".rb", ".js", ".R", ".lua", ".jl", ".awk", ".jar"};
    const char *dot = strrchr(path, '.');

    for (size_t i = 0; dot != NULL && i < sizeof ends / sizeof *ends; i++)
        if (strcmp(dot, ends[i]) == 0) return true;
    return false;
}

/* What a command line runs: the program if it is named by path, and arguments that are scripts or may be run. Others may be what it
 * writes. */
static void add_program(stm_signature *s, const char *step, const mill_step_type *type, const mill_config *config,
                        const mill_param *p, const stm_param_value *v)
{
    const char *folder = NULL;

    for (size_t i = 0; i < type->n_params; i++)
        if (strcmp(type->params[i].name, "cwd") == 0) folder = config->values[i].text;
    for (size_t i = 0; i < v->n_entries; i++) {
        const char *text = v->entries[i].text;
        stm_text path = {0};
        struct stat info;

        if (text == NULL || text[0] == '\0' || (i == 0 && strchr(text, '/') == NULL)) continue; /* looked up in PATH */
        if (text[0] != '/' && folder != NULL) stm_text_addf(&path, "%s/", folder);
        stm_text_addf(&path, "%s", text);
        s->fields.failed = s->fields.failed || path.failed;
        if (!path.failed && stat(path.data, &info) == 0 && S_ISREG(info.st_mode) &&
            (is_script(text) || access(path.data, X_OK) == 0))
            add_file(s, step, p->name, path.data);
        stm_text_free(&path);
    }
}

/* A key of the step as it stands in the file. */
static void add_key(stm_signature *s, const stm_graph_step *g, const char *key)
{
    const stm_value *v = stm_value_get(g->value, key), *at = NULL;
    stm_text t = {0};

    if (v == NULL) return;
    if (stm_value_json(v, &t, &at) == MILL_OK && !t.failed) add(s, g->name, key, t.data != NULL ? t.data : "");
    s->fields.failed |= t.failed; /* a signature that lacks a key would be another one */
    stm_text_free(&t);
}

mill_status stm_step_sign(const stm_graph_step *g, const stm_registry *reg, stm_plan_step *out, mill_error *err)
{
    static const char *const keys[] = {"from", "to", "inputs", "outputs", "on_error", "nulls", "errors", "order"};
    const mill_step_type *type = out->step->type;
    stm_signature s = {0};
    char text[96];

    snprintf(text, sizeof text, "%.63s %.24s", type->name, type->version != NULL ? type->version : "1");
    add(&s, g->name, "type", text);
    for (size_t i = 0; i < stm_registry_count(reg); i++)
        if (stm_registry_at(reg, i) == type && stm_registry_origin(reg, i)[0] == '/')
            add_file(&s, g->name, "plugin", stm_registry_origin(reg, i));
    for (size_t i = 0; i < type->n_params; i++) {
        const mill_param *p = &type->params[i];
        add_param(&s, g->name, p, &out->step->config->values[i], stm_value_get(g->value, p->name));
        if ((p->flags & MILL_PARAM_PROGRAM) != 0)
            add_program(&s, g->name, type, out->step->config, p, &out->step->config->values[i]);
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && !g->gathers; i++) add_key(&s, g, keys[i]);
    if (type->kind == MILL_ROUTER || (type->flags & MILL_BATCH_SENSITIVE) != 0) {
        snprintf(text, sizeof text, "%lld", (long long)out->step->batch_rows);
        add(&s, g->name, "input_batch_size", text);
    }
    if (g->keys.cache == STM_CACHE_FALSE) { /* never the same twice */
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(text, sizeof text, STM_EACH_TIME "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
        add(&s, g->name, "cache", text);
    }
    out->cache = g->keys.cache == STM_CACHE_TRUE ||
                 (g->keys.cache == STM_CACHE_AUTO && (type->flags & MILL_NONDETERMINISTIC) != 0 && type->kind == MILL_STEP);
    if (s.fields.failed) {
        stm_signature_fini(&s);
        return mill_fail(err, MILL_ERR_NOMEM, "planning step %s", g->name);
    }
    out->signature = s.fields;
    return MILL_OK;
}
