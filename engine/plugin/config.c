#include "plugin/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

/* ---- making ----------------------------------------------------------------------------------------------------------- */

/* Places outlive the call that gave them: their file names are copied, each once. */
static mill_status keep_place(mill_config *c, stm_place *place, mill_error *err)
{
    char *copy;

    if (place->file == NULL) return MILL_OK;
    for (size_t i = 0; i < c->n_files; i++) {
        if (strcmp(c->files[i], place->file) == 0) return place->file = c->files[i], MILL_OK;
    }
    if (stm_grow(&c->files, &c->cap_files, c->n_files + 1, sizeof *c->files) != 0 || (copy = stm_strdup(place->file)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory for parameters");
    place->file = c->files[c->n_files++] = copy;
    return MILL_OK;
}

static mill_status keep_places(mill_config *c, stm_param_value *v, mill_error *err)
{
    mill_status st = keep_place(c, &v->place, err);

    for (size_t i = 0; st == MILL_OK && i < v->n_entries; i++) st = keep_place(c, &v->entries[i].place, err);
    return st;
}

static mill_status unknown(const stm_step_spec *spec, const stm_value *v, mill_error *err)
{
    const mill_step_type *type = spec->type;
    const size_t n = type->n_params + spec->n_other_keys;
    const char **names = stm_malloc(n * sizeof *names), *nearest;
    const char *key = v->key != NULL ? v->key : "";

    if (names == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for parameters");
    for (size_t i = 0; i < type->n_params; i++) names[i] = type->params[i].name;
    for (size_t i = 0; i < spec->n_other_keys; i++) names[type->n_params + i] = spec->other_keys[i];
    mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" has no parameter \"%.64s\"", type->name, key);
    nearest = stm_nearest(key, names, n);
    if (nearest != NULL)
        mill_error_remedy(err, "Did you mean \"%s\"?", nearest);
    else
        mill_error_remedy(err, "See `stepmill steps describe %s`", type->name);
    mill_error_place(err, v->key_place.file, v->key_place.line, v->key_place.column);
    if (err != NULL) snprintf(err->field, sizeof err->field, "%s", key);
    stm_free(names);
    return MILL_ERR_INVALID;
}

static mill_status read_given(mill_config *c, const stm_step_spec *spec, const stm_param_dirs *dirs, mill_error *err)
{
    const mill_step_type *type = spec->type;

    for (size_t i = 0; i < spec->n_params; i++) {
        const stm_value *v = &spec->params[i];
        stm_param_value *slot = NULL;
        const mill_param *p = NULL;
        mill_status st;

        for (size_t k = 0; k < type->n_params && p == NULL; k++) {
            if (v->key != NULL && strcmp(type->params[k].name, v->key) == 0) p = &type->params[k], slot = &c->values[k];
        }
        if (p == NULL) return unknown(spec, v, err);
        if (slot->present) {
            st = mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" is given twice", p->name);
            mill_error_place(err, v->key_place.file, v->key_place.line, v->key_place.column);
            return st;
        }
        if (p->type != MILL_PARAM_JSON && stm_value_is_null(v)) continue; /* `name: null` says: not given */
        if ((st = stm_param_read(p, v, dirs, slot, err)) != MILL_OK) return st;
        if ((st = keep_places(c, slot, err)) != MILL_OK) return st;
    }
    return MILL_OK;
}

static mill_status read_default(const mill_param *p, const stm_param_dirs *dirs, stm_param_value *slot, mill_error *err)
{
    stm_value *v;
    mill_status st = stm_value_parse(p->default_value, &v, err);

    if (st == MILL_OK) {
        st = stm_param_read(p, v, dirs, slot, err);
        stm_value_free(&v);
    }
    slot->place = (stm_place){0};
    mill_error_context(err, "the default of parameter \"%s\"", p->name);
    return st;
}

static mill_status fill_in(mill_config *c, const stm_step_spec *spec, const stm_param_dirs *dirs, mill_error *err)
{
    const mill_step_type *type = spec->type;
    char expected[256];
    mill_status st;

    for (size_t i = 0; i < type->n_params; i++) {
        const mill_param *p = &type->params[i];

        if (c->values[i].present) continue;
        if (p->default_value != NULL) {
            if ((st = read_default(p, dirs, &c->values[i], err)) != MILL_OK) return st;
        } else if (!(p->flags & MILL_PARAM_OPTIONAL)) {
            stm_param_expected(p, expected, sizeof expected);
            st = mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" needs the parameter \"%s\" (%s)", type->name, p->name,
                           p->text != NULL ? p->text : expected);
            if (err != NULL) snprintf(err->field, sizeof err->field, "%s", p->name);
            mill_error_remedy(err, "Give %s", expected);
            for (size_t k = 0; k < spec->n_params; k++) { /* null where it stands */
                const stm_value *v = &spec->params[k];
                if (v->key != NULL && strcmp(v->key, p->name) == 0)
                    mill_error_place(err, v->place.file, v->place.line, v->place.column);
            }
            return st;
        }
    }
    return MILL_OK;
}

mill_status stm_config_create(const stm_step_spec *spec, mill_config **out, mill_error *err)
{
    const stm_param_dirs dirs = {.base = spec->base_dir, .run = spec->run_dir, .looks = true};
    mill_config *c = stm_calloc(sizeof *c);
    mill_status st;

    if (c == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for parameters");
    c->type = spec->type;
    c->batch_rows = spec->batch_rows;
    c->row_errors = spec->policy.sink_errors;
    c->place = spec->place;
    c->values = stm_calloc(spec->type->n_params * sizeof *c->values);
    if (c->values == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "out of memory for parameters");
        goto fail;
    }
    if ((st = keep_place(c, &c->place, err)) != MILL_OK) goto fail;
    if ((st = read_given(c, spec, &dirs, err)) != MILL_OK) goto fail;
    if ((st = fill_in(c, spec, &dirs, err)) != MILL_OK) goto fail;
    *out = c;
    return MILL_OK;
fail:
    stm_config_destroy(&c);
    return st;
}

void stm_config_destroy(mill_config **c)
{
    if (*c == NULL) return;
    for (size_t i = 0; (*c)->values != NULL && i < (*c)->type->n_params; i++) stm_param_value_fini(&(*c)->values[i]);
    for (size_t i = 0; i < (*c)->n_files; i++) stm_free((*c)->files[i]);
    stm_free((*c)->files);
    stm_free((*c)->values);
    stm_free(*c);
    *c = NULL;
}

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

static const stm_param_value *find(const mill_config *c, const char *name, size_t length)
{
    for (size_t i = 0; i < c->type->n_params; i++) {
        if (strncmp(c->type->params[i].name, name, length) == 0 && c->type->params[i].name[length] == '\0')
            return c->values[i].present ? &c->values[i] : NULL;
    }
    return NULL;
}

static const stm_param_value *value_of(const mill_config *c, const char *name) { return find(c, name, strlen(name)); }

static const stm_param_entry *entry_of(const mill_config *c, const char *name, size_t i)
{
    const stm_param_value *v = value_of(c, name);

    return v != NULL && i < v->n_entries ? &v->entries[i] : NULL;
}

bool mill_config_has(const mill_config *c, const char *name) { return value_of(c, name) != NULL; }

bool mill_config_bool(const mill_config *c, const char *name)
{
    const stm_param_value *v = value_of(c, name);

    return v != NULL && v->truth;
}

int64_t mill_config_int(const mill_config *c, const char *name)
{
    const stm_param_value *v = value_of(c, name);

    return v != NULL ? v->whole : 0;
}

double mill_config_float(const mill_config *c, const char *name)
{
    const stm_param_value *v = value_of(c, name);

    return v != NULL ? v->number : 0.0;
}

const char *mill_config_text(const mill_config *c, const char *name)
{
    const stm_param_value *v = value_of(c, name);

    return v != NULL ? v->text : NULL;
}

size_t mill_config_count(const mill_config *c, const char *name)
{
    const stm_param_value *v = value_of(c, name);

    return v != NULL ? v->n_entries : 0;
}

const char *mill_config_key(const mill_config *c, const char *name, size_t i)
{
    const stm_param_entry *e = entry_of(c, name, i);

    return e != NULL ? e->key : NULL;
}

const char *mill_config_item(const mill_config *c, const char *name, size_t i)
{
    const stm_param_entry *e = entry_of(c, name, i);

    return e != NULL ? e->text : NULL;
}

const mill_type *mill_config_type(const mill_config *c, const char *name, size_t i)
{
    const stm_param_entry *e = entry_of(c, name, i);

    return e != NULL ? e->type : NULL;
}

int64_t mill_config_batch_rows(const mill_config *c) { return c->batch_rows; }
bool mill_config_row_errors(const mill_config *c) { return c->row_errors; }

/* ---- faults -------------------------------------------------------------------------------------------------------------- */

/* Place of "name" or "name[i]"; the step's own place for what the file does not say. */
static stm_place place_of(const mill_config *c, const char *name)
{
    const char *bracket = strchr(name, '[');
    const stm_param_value *v = find(c, name, bracket != NULL ? (size_t)(bracket - name) : strlen(name));

    if (v == NULL || !stm_place_known(v->place)) return c->place;
    if (bracket != NULL) {
        const unsigned long i = strtoul(bracket + 1, NULL, 10);

        if (i < v->n_entries && stm_place_known(v->entries[i].place)) return v->entries[i].place;
    }
    return v->place;
}

mill_status mill_config_fail(const mill_config *c, const char *name, mill_error *err, mill_status status, const char *fmt, ...)
{
    char text[sizeof err->msg];
    stm_place place = place_of(c, name);
    va_list ap;

    if (err == NULL || err->status != MILL_OK) return status;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mill_fail(err, status, "parameter \"%s\": %s", name, text);
    mill_error_place(err, place.file, place.line, place.column);
    snprintf(err->field, sizeof err->field, "%s", name);
    return status;
}

bool stm_config_locate(const mill_config *c, const char *name, stm_place *place, const char **param)
{
    for (int part = 0; part < (name[0] != '\0' ? 2 : 1); part++) { /* first whole values, then parts of them */
        for (size_t i = 0; i < c->type->n_params; i++) {
            const stm_param_value *v = &c->values[i];
            const stm_place *at = NULL;

            if (!stm_place_known(v->place)) continue;
            if (v->text != NULL && (part ? strstr(v->text, name) != NULL : strcmp(v->text, name) == 0)) at = &v->place;
            for (size_t k = 0; k < v->n_entries && at == NULL; k++) {
                const stm_param_entry *e = &v->entries[k];

                if (part ? strstr(e->text, name) != NULL : strcmp(e->text, name) == 0 || strcmp(e->key, name) == 0) at = &e->place;
            }
            if (at == NULL) continue;
            *place = *at;
            *param = c->type->params[i].name;
            return true;
        }
    }
    return false;
}
