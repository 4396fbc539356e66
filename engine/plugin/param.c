#include "plugin/param.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

static const char *const type_names[] = {
    [MILL_PARAM_BOOL] = "bool",         [MILL_PARAM_INT] = "int",           [MILL_PARAM_FLOAT] = "float",
    [MILL_PARAM_STRING] = "string",     [MILL_PARAM_ENUM] = "enum",         [MILL_PARAM_PATH] = "path",
    [MILL_PARAM_PATHS] = "paths",       [MILL_PARAM_OUT_PATH] = "out_path", [MILL_PARAM_BYTES] = "bytes",
    [MILL_PARAM_DURATION] = "duration", [MILL_PARAM_STRINGS] = "strings",   [MILL_PARAM_MAP] = "map",
    [MILL_PARAM_COLUMNS] = "columns",   [MILL_PARAM_JSON] = "json",
};

const char *stm_param_type_name(int32_t type)
{
    return type >= MILL_PARAM_BOOL && type <= MILL_PARAM_JSON ? type_names[type] : NULL;
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static void show_bound(const mill_param *p, double v, char *buf, size_t size)
{
    if (p->type == MILL_PARAM_BYTES)
        stm_show_bytes(v, buf, size);
    else if (p->type == MILL_PARAM_DURATION)
        snprintf(buf, size, "%.10g s", v);
    else
        snprintf(buf, size, "%.10g", v);
}

static bool bounded(const mill_param *p) { return p->min != 0 || p->max != 0; }

void stm_param_expected(const mill_param *p, char *buf, size_t size)
{
    enum { MUCH = 53 }; /* bounds past 2^53 only say "none" */
    static const char *const words[] = {
        [MILL_PARAM_BOOL] = "true or false",
        [MILL_PARAM_INT] = "an integer",
        [MILL_PARAM_FLOAT] = "a number",
        [MILL_PARAM_STRING] = "text",
        [MILL_PARAM_ENUM] = "",
        [MILL_PARAM_PATH] = "the path of a file or folder",
        [MILL_PARAM_PATHS] = "a path, a pattern such as data/*.jsonl, or a list of them",
        [MILL_PARAM_OUT_PATH] = "a path",
        [MILL_PARAM_BYTES] = "a size such as 1000 or 64MiB",
        [MILL_PARAM_DURATION] = "a duration such as 200ms, 10s or 1.5h",
        [MILL_PARAM_STRINGS] = "text or a list of texts",
        [MILL_PARAM_MAP] = "a map of name: text",
        [MILL_PARAM_COLUMNS] = "a map of column: type",
        [MILL_PARAM_JSON] = "a value that JSON can hold",
    };
    const bool number =
        p->type == MILL_PARAM_INT || p->type == MILL_PARAM_FLOAT || p->type == MILL_PARAM_BYTES || p->type == MILL_PARAM_DURATION;
    const bool low = p->min > -ldexp(1, MUCH), high = p->max < ldexp(1, MUCH);
    char from[48], to[48];

    if (p->type == MILL_PARAM_ENUM) {
        size_t used = (size_t)snprintf(buf, size, "one of ");

        for (const char *c = p->choices; *c != '\0' && used + 3 < size; c++) {
            if (*c == '|') buf[used++] = ',';
            buf[used++] = *c == '|' ? ' ' : *c;
        }
        buf[used < size ? used : size - 1] = '\0';
        return;
    }
    show_bound(p, p->min, from, sizeof from);
    show_bound(p, p->max, to, sizeof to);
    if (!number || !bounded(p) || (!low && !high))
        snprintf(buf, size, "%s", words[p->type]);
    else if (low && high)
        snprintf(buf, size, "%s from %s to %s", words[p->type], from, to);
    else
        snprintf(buf, size, "%s of at %s %s", words[p->type], low ? "least" : "most", low ? from : to);
}

static mill_status refuse(const mill_param *p, const stm_value *v, mill_error *err)
{
    char shown[128], expected[256];

    stm_value_show(v, shown, sizeof shown);
    stm_param_expected(p, expected, sizeof expected);
    return mill_fail(err, MILL_ERR_TYPE, "parameter \"%s\" is %s, expected %s", p->name, shown, expected);
}

static mill_status refuse_entry(const mill_param *p, const stm_value *item, mill_error *err)
{
    char shown[128], expected[256];

    stm_value_show(item, shown, sizeof shown);
    stm_param_expected(p, expected, sizeof expected);
    mill_fail(err, MILL_ERR_TYPE, "an entry of parameter \"%s\" is %s, expected %s", p->name, shown, expected);
    mill_error_place(err, item->place.file, item->place.line, item->place.column);
    return MILL_ERR_TYPE;
}

static mill_status no_memory(const mill_param *p, mill_error *err)
{
    return mill_fail(err, MILL_ERR_NOMEM, "out of memory for parameter \"%s\"", p->name);
}

/* ---- scalars --------------------------------------------------------------------------------------------------------- */

static bool in_bounds(const mill_param *p, double v) { return !bounded(p) || (v >= p->min && v <= p->max); }

static mill_status read_number(const mill_param *p, const stm_value *v, stm_param_value *out, mill_error *err)
{
    bool ok = false;

    if (v->kind == STM_VALUE_SCALAR && v->text != NULL) {
        switch (p->type) {
        case MILL_PARAM_INT:
            ok = !v->quoted && stm_parse_int(v->text, &out->whole);
            out->number = (double)out->whole;
            break;
        case MILL_PARAM_FLOAT: ok = !v->quoted && stm_parse_float(v->text, &out->number); break;
        case MILL_PARAM_BYTES: /* "64MiB" is text in YAML, quoted or not */
            ok = stm_parse_bytes(v->text, &out->whole);
            out->number = (double)out->whole;
            break;
        default: ok = stm_parse_duration(v->text, &out->number);
        }
    }
    if (ok && in_bounds(p, out->number)) return MILL_OK;
    refuse(p, v, err);
    if (!ok && v->kind == STM_VALUE_SCALAR && v->quoted && stm_parse_float(v->text, &out->number))
        mill_error_remedy(err, "Leave the quotes out");
    return MILL_ERR_TYPE;
}

/* Whether the `|`-parted list has this word; else the nearest one as a remedy. */
static mill_status read_enum(const mill_param *p, const stm_value *v, stm_param_value *out, mill_error *err)
{
    enum { MAX_CHOICES = 64 };
    const char *choices[MAX_CHOICES], *nearest;
    char *words, *rest, *word;
    size_t n = 0;
    bool found = false;

    if (v->kind != STM_VALUE_SCALAR || stm_value_is_null(v)) return refuse(p, v, err);
    words = stm_strdup(p->choices);
    if (words == NULL) return no_memory(p, err);
    for (rest = words; (word = strsep(&rest, "|")) != NULL && n < MAX_CHOICES; n++) {
        choices[n] = word;
        found = found || strcmp(word, v->text) == 0;
    }
    if (!found) {
        refuse(p, v, err);
        nearest = stm_nearest(v->text, choices, n);
        if (nearest != NULL) mill_error_remedy(err, "Did you mean \"%s\"?", nearest);
    }
    stm_free(words);
    if (!found) return MILL_ERR_TYPE;
    out->text = stm_strdup(v->text);
    return out->text != NULL ? MILL_OK : no_memory(p, err);
}

static mill_status read_path(const mill_param *p, const stm_value *v, const stm_param_dirs *dirs, stm_param_value *out,
                             mill_error *err)
{
    mill_status st;

    if (v->kind != STM_VALUE_SCALAR || stm_value_is_null(v) || v->text[0] == '\0') return refuse(p, v, err);
    if (!dirs->looks) {
        out->text = stm_strdup(v->text);
        return out->text != NULL ? MILL_OK : no_memory(p, err);
    }
    if (p->type == MILL_PARAM_PATH) {
        st = stm_path_input(dirs->base, v->text, &out->text, err);
        mill_error_context(err, "parameter \"%s\"", p->name);
        return st;
    }
    if (dirs->run == NULL) return MILL_OK; /* under `check` there is no run directory yet */
    return stm_path_join(dirs->run, v->text, &out->text, err);
}

static mill_status read_json(const mill_param *p, const stm_value *v, stm_param_value *out, mill_error *err)
{
    stm_text t = {0};
    const stm_value *at = v;
    mill_status st = stm_value_json(v, &t, &at);

    if (st == MILL_OK) {
        out->text = t.data;
        return MILL_OK;
    }
    stm_text_free(&t);
    if (st == MILL_ERR_NOMEM) return no_memory(p, err);
    if (at->kind == STM_VALUE_SCALAR) return refuse_entry(p, at, err);
    mill_fail(err, MILL_ERR_TYPE, "parameter \"%s\" is nested deeper than %d lists and maps", p->name, STM_VALUE_MAX_DEPTH);
    mill_error_place(err, at->place.file, at->place.line, at->place.column);
    return MILL_ERR_TYPE;
}

/* ---- lists and maps -------------------------------------------------------------------------------------------------- */

mill_status stm_param_add(stm_param_value *out, const char *key, const char *text, const mill_type *type, stm_place place,
                          mill_error *err)
{
    stm_param_entry *e;

    if (stm_grow(&out->entries, &out->cap_entries, out->n_entries + 1, sizeof *out->entries) != 0)
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a list");
    e = &out->entries[out->n_entries];
    e->key = stm_strdup(key);
    e->text = stm_strdup(text);
    e->type = type;
    e->place = place;
    out->n_entries++; /* counted also when a copy failed: fini releases the other */
    if (e->key == NULL || e->text == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a list");
    return MILL_OK;
}

static mill_status read_list(const mill_param *p, const stm_value *v, const stm_param_dirs *dirs, stm_param_value *out,
                             mill_error *err)
{
    const bool list = v->kind == STM_VALUE_LIST;
    const stm_value *items = list ? v->items : v;
    const size_t n = list ? v->n_items : 1;
    mill_status st = MILL_OK;

    if (v->kind == STM_VALUE_MAP || stm_value_is_null(v)) return refuse(p, v, err);
    if (n == 0 && p->type == MILL_PARAM_PATHS) {
        mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" names no file", p->name);
        mill_error_place(err, v->place.file, v->place.line, v->place.column);
        return MILL_ERR_INVALID;
    }
    for (size_t i = 0; st == MILL_OK && i < n; i++) {
        const stm_value *item = &items[i];
        const bool path = p->type == MILL_PARAM_PATHS;

        if (item->kind != STM_VALUE_SCALAR || stm_value_is_null(item) || (path && item->text[0] == '\0'))
            return list ? refuse_entry(p, item, err) : refuse(p, v, err);
        if (path && dirs->looks) {
            st = stm_path_expand(dirs->base, item->text, item->place, out, err);
            if (st != MILL_OK) {
                mill_error_context(err, "parameter \"%s\"", p->name);
                mill_error_place(err, item->place.file, item->place.line, item->place.column);
            }
        } else {
            st = stm_param_add(out, "", item->text, NULL, item->place, err);
        }
    }
    return st;
}

static mill_status read_map(const mill_param *p, const stm_value *v, stm_param_value *out, mill_error *err)
{
    mill_status st = MILL_OK;

    if (v->kind != STM_VALUE_MAP) return refuse(p, v, err);
    for (size_t i = 0; st == MILL_OK && i < v->n_items; i++) {
        const stm_value *item = &v->items[i];
        const mill_type *type = NULL;
        const char *key = item->key != NULL ? item->key : "";

        if (item->kind != STM_VALUE_SCALAR || stm_value_is_null(item)) return refuse_entry(p, item, err);
        for (size_t k = 0; k < out->n_entries; k++) {
            if (strcmp(out->entries[k].key, key) != 0) continue;
            st = mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" has \"%s\" twice", p->name, key);
            mill_error_place(err, item->key_place.file, item->key_place.line, item->key_place.column);
            return st;
        }
        if (p->type == MILL_PARAM_COLUMNS && (st = mill_type_parse(item->text, &type, err)) != MILL_OK) {
            mill_error_context(err, "column \"%s\" of parameter \"%s\"", key, p->name);
            mill_error_place(err, item->place.file, item->place.line, item->place.column);
            return st;
        }
        st = stm_param_add(out, key, item->text, type, item->place, err);
    }
    return st;
}

/* ---- any ---------------------------------------------------------------------------------------------------------------- */

static mill_status read_any(const mill_param *p, const stm_value *v, const stm_param_dirs *dirs, stm_param_value *out,
                            mill_error *err)
{
    switch (p->type) {
    case MILL_PARAM_BOOL: return stm_value_as_bool(v, &out->truth) ? MILL_OK : refuse(p, v, err);
    case MILL_PARAM_INT:
    case MILL_PARAM_FLOAT:
    case MILL_PARAM_BYTES:
    case MILL_PARAM_DURATION: return read_number(p, v, out, err);
    case MILL_PARAM_STRING:
        if (v->kind != STM_VALUE_SCALAR || stm_value_is_null(v)) return refuse(p, v, err);
        out->text = stm_strdup(v->text);
        return out->text != NULL ? MILL_OK : no_memory(p, err);
    case MILL_PARAM_ENUM: return read_enum(p, v, out, err);
    case MILL_PARAM_PATH:
    case MILL_PARAM_OUT_PATH: return read_path(p, v, dirs, out, err);
    case MILL_PARAM_PATHS:
    case MILL_PARAM_STRINGS: return read_list(p, v, dirs, out, err);
    case MILL_PARAM_MAP:
    case MILL_PARAM_COLUMNS: return read_map(p, v, out, err);
    case MILL_PARAM_JSON: return read_json(p, v, out, err);
    default: return mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" has the unknown type %d", p->name, (int)p->type);
    }
}

mill_status stm_param_read(const mill_param *p, const stm_value *v, const stm_param_dirs *dirs, stm_param_value *out,
                           mill_error *err)
{
    mill_error inner = {0}; /* the caller's record may hold an earlier failure: what is added here must go to ours */
    mill_status st;

    memset(out, 0, sizeof *out);
    st = read_any(p, v, dirs, out, &inner);
    if (st == MILL_OK) {
        out->present = true;
        out->place = v->place;
        return MILL_OK;
    }
    stm_param_value_fini(out);
    mill_error_place(&inner, v->place.file, v->place.line, v->place.column);
    snprintf(inner.field, sizeof inner.field, "%s", p->name);
    if (err != NULL && err->status == MILL_OK) *err = inner;
    return st;
}

void stm_param_value_fini(stm_param_value *v)
{
    for (size_t i = 0; i < v->n_entries; i++) {
        stm_free(v->entries[i].key);
        stm_free(v->entries[i].text);
    }
    stm_free(v->entries);
    stm_free(v->text);
    memset(v, 0, sizeof *v);
}
