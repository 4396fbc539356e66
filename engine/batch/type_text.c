/*
 * The text form of types:
 *   type  = "bool" | "int32" | ... | "json" | "list<" type ">" | "fixed_list<" type ">[" length "]"
 *         | "struct<" [ name ":" type { "," name ":" type } ] ">"
 *   name  = letters, digits, '_', '-', '.', '$', '@', '/' and bytes above 127, or a string in double quotes with \" and \\
 * White space between tokens is ignored.
 */
#include "batch/type.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

static const struct { const char *name; mill_type_id id; } words[] = {
    {"bool", MILL_BOOL},       {"int32", MILL_INT32},     {"int64", MILL_INT64}, {"float16", MILL_FLOAT16},
    {"float32", MILL_FLOAT32}, {"float64", MILL_FLOAT64}, {"utf8", MILL_UTF8},   {"binary", MILL_BINARY},
    {"json", MILL_JSON},
};
enum { N_WORDS = sizeof words / sizeof words[0] };
#define EXPECTED_TYPE \
    "bool, int32, int64, float16, float32, float64, utf8, binary, json, list<...>, fixed_list<...>[n] or struct<...>"

typedef struct reader {
    const char *text, *at;
    mill_error *err;
    int depth;
} reader;

static bool bare(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c > 127 ||
           (c != 0 && strchr("_-.$@/", c) != NULL);
}

static void skip(reader *r)
{
    while (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r') r->at++;
}

static mill_status expected(reader *r, const char *what)
{
    return mill_fail(r->err, MILL_ERR_PARSE, "type \"%.160s\": expected %s at character %d", r->text, what,
                     (int)(r->at - r->text) + 1);
}

static bool take(reader *r, char c)
{
    skip(r);
    if (*r->at != c) return false;
    r->at++;
    return true;
}

/* A name, copied to stm_malloc memory. */
static mill_status read_name(reader *r, char **out)
{
    size_t n = 0, w = 0;
    char *name;

    skip(r);
    if (*r->at != '"') {
        while (bare((unsigned char)r->at[n])) n++;
        if (n == 0) return expected(r, "a field name");
        if ((name = stm_strndup(r->at, n)) == NULL) return mill_fail(r->err, MILL_ERR_NOMEM, "reading a type");
        r->at += n;
        *out = name;
        return MILL_OK;
    }
    for (n = 1; r->at[n] != '"'; n++) {
        if (r->at[n] == '\\') n++;
        if (r->at[n] == '\0') return expected(r, "a closing quote for the name");
    }
    if ((name = stm_malloc(n)) == NULL) return mill_fail(r->err, MILL_ERR_NOMEM, "reading a type");
    for (size_t i = 1; i < n; i++) {
        if (r->at[i] == '\\') i++;
        name[w++] = r->at[i];
    }
    name[w] = '\0';
    r->at += n + 1;
    *out = name;
    return MILL_OK;
}

static mill_status read_type(reader *r, const mill_type **out);

static mill_status made(reader *r, const mill_type *t, const mill_type **out)
{
    if (t == NULL) return mill_fail(r->err, MILL_ERR_NOMEM, "out of memory for type \"%.160s\"", r->text);
    *out = t;
    return MILL_OK;
}

static mill_status read_list(reader *r, bool fixed, const mill_type **out)
{
    const mill_type *item;
    mill_status st;
    int64_t length = 0;

    if (!take(r, '<')) return expected(r, "'<'");
    if ((st = read_type(r, &item)) != MILL_OK) return st;
    if (!take(r, '>')) return expected(r, "'>'");
    if (!fixed) return made(r, mill_type_list(item), out);
    if (!take(r, '[')) return expected(r, "'[' and the length");
    skip(r);
    while (*r->at >= '0' && *r->at <= '9' && length <= INT32_MAX) length = length * 10 + (*r->at++ - '0');
    if (length < 1 || length > INT32_MAX) return expected(r, "a length from 1 to 2147483647");
    if (!take(r, ']')) return expected(r, "']'");
    return made(r, mill_type_fixed_list(item, (int32_t)length), out);
}

static mill_status read_fields(reader *r, mill_field **fields, size_t *cap, int32_t *n)
{
    bool twice;

    if (!take(r, '<')) return expected(r, "'<'");
    if (take(r, '>')) return MILL_OK;
    do {
        char *name = NULL;
        mill_status st;

        if (*n >= STM_TYPE_MAX_FIELDS) return expected(r, "fewer fields");
        if (stm_grow(fields, cap, (size_t)*n + 1, sizeof **fields) != 0) return mill_fail(r->err, MILL_ERR_NOMEM, "reading a type");
        if ((st = read_name(r, &name)) != MILL_OK) return st;
        (*fields)[*n].name = name;
        (*fields)[*n].type = NULL;
        ++*n;
        if (!take(r, ':')) return expected(r, "':' after the field name");
        if ((st = read_type(r, &(*fields)[*n - 1].type)) != MILL_OK) return st;
    } while (take(r, ','));
    if (!take(r, '>')) return expected(r, "',' or '>'");
    if (!stm_type_names_repeat(*fields, *n, &twice)) return mill_fail(r->err, MILL_ERR_NOMEM, "reading a type");
    return twice ? expected(r, "field names that differ: one stands twice") : MILL_OK;
}

static mill_status read_struct(reader *r, const mill_type **out)
{
    mill_field *fields = NULL;
    size_t cap = 0;
    int32_t n = 0;
    mill_status st = read_fields(r, &fields, &cap, &n);

    if (st == MILL_OK) st = made(r, mill_type_struct(fields, n), out);
    for (int32_t i = 0; i < n; i++) stm_free((char *)(uintptr_t)fields[i].name);
    stm_free(fields);
    return st;
}

static mill_status read_type(reader *r, const mill_type **out)
{
    size_t n = 0;
    mill_status st;

    skip(r);
    while (bare((unsigned char)r->at[n])) n++;
    for (int i = 0; i < N_WORDS; i++)
        if (strlen(words[i].name) == n && memcmp(words[i].name, r->at, n) == 0) {
            r->at += n;
            *out = mill_type_plain(words[i].id);
            return MILL_OK;
        }
    if (r->depth == STM_TYPE_MAX_DEPTH) return expected(r, "less nesting (at most 64 levels)");
    r->depth++;
    if (n == 4 && memcmp(r->at, "list", 4) == 0) {
        r->at += n;
        st = read_list(r, false, out);
    } else if (n == 10 && memcmp(r->at, "fixed_list", 10) == 0) {
        r->at += n;
        st = read_list(r, true, out);
    } else if (n == 6 && memcmp(r->at, "struct", 6) == 0) {
        r->at += n;
        st = read_struct(r, out);
    } else {
        st = expected(r, EXPECTED_TYPE);
    }
    r->depth--;
    return st;
}

mill_status mill_type_parse(const char *text, const mill_type **out, mill_error *err)
{
    reader r = {text, text, err, 0};
    const mill_type *t = NULL;
    mill_status st = read_type(&r, &t);

    if (st != MILL_OK) return st;
    skip(&r);
    if (*r.at != '\0') return expected(&r, "the end of the type");
    *out = t;
    return MILL_OK;
}

/* snprintf in pieces: at counts what would have been written. */
typedef struct writer {
    char *buf;
    size_t size, at;
} writer;

static void put(writer *w, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++, w->at++)
        if (w->at + 1 < w->size) w->buf[w->at] = text[i];
}
static void put_text(writer *w, const char *text) { put(w, text, strlen(text)); }

static void put_name(writer *w, const char *name)
{
    bool quote = *name == '\0';

    for (const char *c = name; *c != '\0'; c++) quote |= !bare((unsigned char)*c);
    if (!quote) {
        put_text(w, name);
        return;
    }
    put_text(w, "\"");
    for (const char *c = name; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') put_text(w, "\\");
        put(w, c, 1);
    }
    put_text(w, "\"");
}

static void put_type(writer *w, const mill_type *t)
{
    char tail[32];

    for (int i = 0; i < N_WORDS; i++)
        if (words[i].id == (mill_type_id)t->id) {
            put_text(w, words[i].name);
            return;
        }
    if (t->id == MILL_STRUCT) {
        put_text(w, "struct<");
        for (int32_t i = 0; i < t->n_fields; i++) {
            if (i > 0) put_text(w, ", ");
            put_name(w, t->fields[i].name);
            put_text(w, ": ");
            put_type(w, t->fields[i].type);
        }
        put_text(w, ">");
        return;
    }
    put_text(w, t->id == MILL_LIST ? "list<" : "fixed_list<");
    put_type(w, t->fields[0].type);
    put_text(w, ">");
    if (t->id == MILL_FIXED_LIST) {
        snprintf(tail, sizeof tail, "[%d]", (int)t->length);
        put_text(w, tail);
    }
}

int mill_type_format(const mill_type *type, char *buf, size_t size)
{
    writer w = {buf, size, 0};

    put_type(&w, type);
    if (size > 0) buf[w.at < size ? w.at : size - 1] = '\0';
    return (int)w.at;
}
