#include "pipeline/keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pipeline/yaml.h"
#include "plugin/value.h"

const stm_key *stm_key_find(const stm_key *table, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

bool stm_name_ok(const char *name)
{
    const size_t n = strlen(name);

    if (n == 0 || n > 63 || name[0] == '-') return false;
    for (size_t i = 0; i < n; i++) {
        const char c = name[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-')) return false;
    }
    return true;
}

mill_status stm_key_expected(const stm_value *v, const char *path, const char *expected, mill_error *err)
{
    char got[80];

    mill_fail(err, MILL_ERR_TYPE, "%s: expected %s, got %s", path, expected, stm_yaml_show(v, got, sizeof got));
    mill_error_place(err, v->place.file, v->place.line, v->place.column);
    if (err != NULL && err->field[0] == '\0') snprintf(err->field, sizeof err->field, "%s", path);
    return MILL_ERR_TYPE;
}

mill_status stm_named_twice(const stm_value *v, const char *path, mill_error *err)
{
    mill_fail(err, MILL_ERR_INVALID, "%s: \"%.80s\" is named twice", path, v->text);
    mill_error_place(err, v->place.file, v->place.line, v->place.column);
    if (err != NULL && err->field[0] == '\0') snprintf(err->field, sizeof err->field, "%s", path);
    return MILL_ERR_INVALID;
}

mill_status stm_unknown_name(const char *what, const char *name, stm_place at, const char *const *names, size_t n, mill_error *err)
{
    const char *near = stm_nearest(name, names, n);

    mill_fail(err, MILL_ERR_NOT_FOUND, "%s \"%.80s\"", what, name);
    if (near != NULL) mill_error_remedy(err, "Did you mean \"%s\"?", near);
    mill_error_place(err, at.file, at.line, at.column);
    return MILL_ERR_NOT_FOUND;
}

/* Index of word @p text among "a|b|c", or -1. YAML reads an unquoted null as no text: it is the word null here. */
static int32_t choice_of(const char *choices, const char *text)
{
    const size_t n = strlen(text);
    int32_t i = 0;

    for (const char *p = choices; *p != '\0'; i++) {
        const size_t len = strcspn(p, "|");

        if (len == n && memcmp(p, text, n) == 0) return i;
        p += len + (p[len] == '|');
    }
    return -1;
}

static const char *number_text(double v, char *buf, size_t size)
{
    if (fabs(v) >= 1e10)
        snprintf(buf, size, "%.3g", v);
    else
        snprintf(buf, size, "%.10g", v);
    return buf;
}

/* "a whole number from 1 to 1024" */
static const char *range_text(const char *what, const stm_key *k, char *buf, size_t size)
{
    char lo[32], hi[32];

    if (k->above)
        snprintf(buf, size, "%s above %s and at most %s", what, number_text(k->min, lo, sizeof lo),
                 number_text(k->max, hi, sizeof hi));
    else if (k->max >= 1e12)
        snprintf(buf, size, "%s of at least %s", what, number_text(k->min, lo, sizeof lo));
    else if (k->min == k->max)
        snprintf(buf, size, "%s", number_text(k->min, lo, sizeof lo));
    else
        snprintf(buf, size, "%s from %s to %s", what, number_text(k->min, lo, sizeof lo), number_text(k->max, hi, sizeof hi));
    return buf;
}

/* "a duration such as 10s or 5m, or none" */
static const char *duration_text(const stm_key *k, char *buf, size_t size)
{
    char lo[32], hi[32];

    if (k->min < 0)
        snprintf(buf, size, "a duration such as 10s or 5m%s, or none", k->above ? ", more than 0" : "");
    else if (k->min > 0)
        snprintf(buf, size, "a duration such as 200ms, 10s or 5m, from %s s to %s s", number_text(k->min, lo, sizeof lo),
                 number_text(k->max, hi, sizeof hi));
    else
        snprintf(buf, size, "a duration such as 200ms, 10s or 5m, at most %s s", number_text(k->max, hi, sizeof hi));
    return buf;
}

static bool duration_ok(const stm_key *k, double d)
{
    if (d < 0) return k->min < 0; /* none */
    return d >= k->min && d <= k->max && !(k->above && d == 0);
}

static mill_status read_enum(const stm_key *k, const stm_value *v, const char *path, int32_t *out, mill_error *err)
{
    const char *names[16];
    char words[200], expected[240];
    size_t n = 0;
    const char *text, *near;
    int32_t i;

    if (v->kind != STM_VALUE_SCALAR) {
        snprintf(expected, sizeof expected, "one of %s", k->choices);
        return stm_key_expected(v, path, expected, err);
    }
    text = v->text != NULL ? v->text : "null";
    if ((i = choice_of(k->choices, text)) >= 0) {
        *out = i;
        return MILL_OK;
    }
    snprintf(words, sizeof words, "%s", k->choices);
    for (char *p = words, *end = NULL; p != NULL && n < 16; p = end) {
        if ((end = strchr(p, '|')) != NULL) *end++ = '\0';
        names[n++] = p;
    }
    near = stm_nearest(text, names, n);
    mill_fail(err, MILL_ERR_INVALID, "%s: expected one of %s, got \"%.60s\"", path, k->choices, text);
    if (near != NULL) mill_error_remedy(err, "Did you mean \"%s\"?", near);
    mill_error_place(err, v->place.file, v->place.line, v->place.column);
    return MILL_ERR_INVALID;
}

static mill_status read_object(const stm_key *k, const stm_value *v, const char *path, void *dest, mill_error *err)
{
    const char *names[16];
    char what[160], sub_path[128];
    mill_status st;

    for (size_t i = 0; i < v->n_items; i++) {
        const stm_value *item = &v->items[i];
        const stm_key *sub = stm_key_find(k->sub, k->n_sub, item->key);

        if (sub == NULL) {
            const size_t n = k->n_sub < 16 ? k->n_sub : 16;
            for (size_t j = 0; j < n; j++) names[j] = k->sub[j].name;
            snprintf(what, sizeof what, "%s: unknown key", path);
            return stm_unknown_name(what, item->key, item->key_place, names, n, err);
        }
        snprintf(sub_path, sizeof sub_path, "%s.%s", path, sub->name);
        if ((st = stm_key_read(sub, item, sub_path, dest, err)) != MILL_OK) return st;
    }
    return MILL_OK;
}

static mill_status read_texts(const stm_value *v, const char *path, mill_error *err)
{
    if (v->kind == STM_VALUE_SCALAR && v->text != NULL && v->text[0] != '\0') return MILL_OK;
    if (v->kind != STM_VALUE_LIST) return stm_key_expected(v, path, "a text or a list of texts", err);
    for (size_t i = 0; i < v->n_items; i++) {
        if (v->items[i].kind != STM_VALUE_SCALAR || v->items[i].text == NULL || v->items[i].text[0] == '\0')
            return stm_key_expected(&v->items[i], path, "a text", err);
        for (size_t j = 0; j < i; j++)
            if (strcmp(v->items[j].text, v->items[i].text) == 0) return stm_named_twice(&v->items[i], path, err);
    }
    return MILL_OK;
}

static mill_status read_flags(const stm_key *k, const stm_value *v, const char *path, uint32_t *out, mill_error *err)
{
    const stm_value *items = v->kind == STM_VALUE_LIST ? v->items : v;
    const size_t n = v->kind == STM_VALUE_LIST ? v->n_items : 1;
    char expected[240];
    uint32_t bits = 0;
    int32_t i;
    mill_status st;

    if (n == 0) {
        snprintf(expected, sizeof expected, "at least one of %s", k->choices);
        return stm_key_expected(v, path, expected, err);
    }
    for (size_t j = 0; j < n; j++) {
        if ((st = read_enum(k, &items[j], path, &i, err)) != MILL_OK) return st;
        if ((bits & 1u << i) != 0) return stm_named_twice(&items[j], path, err);
        bits |= 1u << i;
    }
    *out = bits;
    return MILL_OK;
}

static bool in_range(const stm_key *k, double v) { return v >= k->min && v <= k->max && !(k->above && v == k->min); }

static mill_status not_number(const stm_value *v, const char *path, const char *expected, mill_error *err)
{
    double d;

    stm_key_expected(v, path, expected, err);
    if (v->kind == STM_VALUE_SCALAR && v->quoted && stm_parse_float(v->text, &d)) mill_error_remedy(err, "Leave the quotes out");
    return MILL_ERR_TYPE;
}

/* Numbers: plain ones, sizes, durations. */
static mill_status read_number(const stm_key *k, const stm_value *v, const char *path, void *field, mill_error *err)
{
    const char *text = v->kind == STM_VALUE_SCALAR ? v->text : NULL;
    char expected[160];
    int64_t i;
    double d;

    switch (k->shape) {
    case STM_SHAPE_INT:
        if (text == NULL || v->quoted || !stm_parse_int(text, &i) || !in_range(k, (double)i))
            return not_number(v, path, range_text("a whole number", k, expected, sizeof expected), err);
        *(int64_t *)field = i;
        return MILL_OK;
    case STM_SHAPE_FLOAT:
        if (text == NULL || v->quoted || !stm_parse_float(text, &d) || !in_range(k, d))
            return not_number(v, path, range_text("a number", k, expected, sizeof expected), err);
        *(double *)field = d;
        return MILL_OK;
    case STM_SHAPE_BYTES:
        if (text == NULL || !stm_parse_bytes(text, &i) || !in_range(k, (double)i))
            return stm_key_expected(v, path, "a size such as 4GiB or 512MB", err);
        *(int64_t *)field = i;
        return MILL_OK;
    default: /* STM_SHAPE_DURATION */
        if (text == NULL || !stm_parse_duration(text, &d) || !duration_ok(k, d))
            return stm_key_expected(v, path, duration_text(k, expected, sizeof expected), err);
        *(double *)field = d;
        return MILL_OK;
    }
}

/* Words: texts, names, true and false. */
static mill_status read_word(const stm_key *k, const stm_value *v, const char *path, void *field, mill_error *err)
{
    const char *text = v->kind == STM_VALUE_SCALAR ? v->text : NULL;

    switch (k->shape) {
    case STM_SHAPE_BOOL:
        return stm_value_as_bool(v, (bool *)field) ? MILL_OK : stm_key_expected(v, path, "true or false", err);
    case STM_SHAPE_NAME:
        if (text == NULL || !stm_name_ok(text))
            return stm_key_expected(v, path, "a name (letters, digits, _ and -; at most 63)", err);
        break;
    default: /* STM_SHAPE_TEXT */
        if (text == NULL || text[0] == '\0') return stm_key_expected(v, path, "a text", err);
    }
    *(const char **)field = text;
    return MILL_OK;
}

static mill_status check_map(const stm_value *v, const char *path, mill_error *err)
{
    if (v->kind != STM_VALUE_MAP) return stm_key_expected(v, path, "a map of names to names", err);
    for (size_t i = 0; i < v->n_items; i++)
        if (v->items[i].kind != STM_VALUE_SCALAR || v->items[i].text == NULL || v->items[i].text[0] == '\0')
            return stm_key_expected(&v->items[i], path, "a name", err);
    return MILL_OK;
}

mill_status stm_key_read(const stm_key *k, const stm_value *v, const char *path, void *dest, mill_error *err)
{
    char *field = (char *)dest + k->offset, expected[160];
    mill_status st;

    switch (k->shape) {
    case STM_SHAPE_INT:
    case STM_SHAPE_FLOAT:
    case STM_SHAPE_BYTES:
    case STM_SHAPE_DURATION: return read_number(k, v, path, field, err);
    case STM_SHAPE_BOOL:
    case STM_SHAPE_TEXT:
    case STM_SHAPE_NAME: return read_word(k, v, path, field, err);
    case STM_SHAPE_ENUM: return read_enum(k, v, path, (int32_t *)field, err);
    case STM_SHAPE_FLAGS: return read_flags(k, v, path, (uint32_t *)field, err);
    case STM_SHAPE_TEXTS: *(const stm_value **)field = v; return read_texts(v, path, err);
    case STM_SHAPE_MAP:
        if ((st = check_map(v, path, err)) == MILL_OK) *(const stm_value **)field = v;
        return st;
    case STM_SHAPE_BYTES_OR_OBJECT:
        if (v->kind == STM_VALUE_SCALAR) return stm_key_read(&k->sub[0], v, path, dest, err);
        if (v->kind != STM_VALUE_MAP) return stm_key_expected(v, path, "a size such as 4GiB, or a map", err);
        return read_object(k, v, path, dest, err);
    case STM_SHAPE_OBJECT:
        if (v->kind == STM_VALUE_MAP) return read_object(k, v, path, dest, err);
        snprintf(expected, sizeof expected, "a map with keys such as %s", k->sub[0].name);
        return stm_key_expected(v, path, expected, err);
    case STM_SHAPE_STEPS:
        if (v->kind != STM_VALUE_MAP) return stm_key_expected(v, path, "a map of steps by name", err);
        *(const stm_value **)field = v;
        return MILL_OK;
    case STM_SHAPE_FROM:
    case STM_SHAPE_GROUPS: *(const stm_value **)field = v; return MILL_OK;
    }
    return MILL_ERR_INTERNAL;
}

void stm_keys_default(const stm_key *table, size_t n, void *dest)
{
    for (size_t i = 0; i < n; i++) {
        const stm_value v = {.kind = STM_VALUE_SCALAR, .text = table[i].default_value};

        if (table[i].sub != NULL) stm_keys_default(table[i].sub, table[i].n_sub, dest);
        if (table[i].default_value != NULL && table[i].shape != STM_SHAPE_OBJECT)
            stm_key_read(&table[i], &v, table[i].name, dest, NULL);
    }
}
