#include "plugin/value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

bool stm_value_is_null(const stm_value *v)
{
    if (v->kind != STM_VALUE_SCALAR) return false;
    if (v->text == NULL) return true;
    if (v->quoted) return false;
    return v->text[0] == '\0' || strcmp(v->text, "~") == 0 || strcmp(v->text, "null") == 0 || strcmp(v->text, "Null") == 0 ||
           strcmp(v->text, "NULL") == 0;
}

bool stm_value_as_bool(const stm_value *v, bool *out)
{
    static const char *const yes[] = {"true", "True", "TRUE"}, *const no[] = {"false", "False", "FALSE"};

    if (v->kind != STM_VALUE_SCALAR || v->quoted || v->text == NULL) return false;
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(v->text, yes[i]) == 0) return *out = true, true;
        if (strcmp(v->text, no[i]) == 0) return *out = false, true;
    }
    return false;
}

/* ---- reading one line of YAML ---------------------------------------------------------------------------------- */

typedef struct reader {
    const char *start, *p;
    char *out; /* next free byte for unquoted text; the whole holds no more than the source plus a NUL per scalar */
    mill_error *err;
} reader;

static mill_status bad(reader *r, const char *what)
{
    return mill_fail(r->err, MILL_ERR_PARSE, "%s at byte %td of \"%.80s\"", what, r->p - r->start, r->start);
}

static void skip_blanks(reader *r)
{
    while (*r->p == ' ') r->p++;
}

static mill_status read_quoted(reader *r, const char **text)
{
    const char quote = *r->p++;

    *text = r->out;
    for (;; r->p++) {
        char c = *r->p;

        if (c == '\0') return bad(r, "a quote that is not closed");
        if (c == quote) {
            if (quote == '"' || r->p[1] != quote) break;
            r->p++; /* two single quotes are one */
        } else if (c == '\\' && quote == '"') {
            switch (*++r->p) {
            case 'n': c = '\n'; break;
            case 't': c = '\t'; break;
            case '"':
            case '\\': c = *r->p; break;
            default: return bad(r, "an unknown escape");
            }
        }
        *r->out++ = c;
    }
    r->p++;
    *r->out++ = '\0';
    return MILL_OK;
}

/* A plain scalar: up to a separator of the collection it stands in, without trailing blanks. */
static void read_plain(reader *r, const char **text, bool inside, bool key)
{
    *text = r->out;
    for (; *r->p != '\0'; r->p++) {
        if (inside && strchr(",[]{}", *r->p) != NULL) break;
        if (key && *r->p == ':' && (r->p[1] == ' ' || r->p[1] == '\0')) break;
        *r->out++ = *r->p;
    }
    while (r->out > *text && r->out[-1] == ' ') r->out--;
    *r->out++ = '\0';
}

static mill_status read_value(reader *r, stm_value *v, int depth);

static mill_status read_items(reader *r, stm_value *v, char close, int depth)
{
    size_t cap = 0;
    mill_status st;

    if (depth >= STM_VALUE_MAX_DEPTH) return bad(r, "nested too deeply");
    v->kind = close == ']' ? STM_VALUE_LIST : STM_VALUE_MAP;
    r->p++;
    for (skip_blanks(r); *r->p != close; skip_blanks(r)) {
        stm_value *item;

        if (v->n_items > 0) {
            if (*r->p != ',') return bad(r, close == ']' ? "expected , or ]" : "expected , or }");
            r->p++;
            skip_blanks(r);
        }
        if (stm_grow(&v->items, &cap, v->n_items + 1, sizeof *v->items) != 0)
            return mill_fail(r->err, MILL_ERR_NOMEM, "out of memory reading a value");
        item = &v->items[v->n_items++];
        memset(item, 0, sizeof *item);
        if (v->kind == STM_VALUE_MAP) {
            if (*r->p == '"' || *r->p == '\'') {
                if ((st = read_quoted(r, &item->key)) != MILL_OK) return st;
            } else {
                read_plain(r, &item->key, true, true);
            }
            skip_blanks(r);
            if (*r->p != ':') return bad(r, "expected a key and a colon");
            r->p++;
        }
        if ((st = read_value(r, item, depth + 1)) != MILL_OK) return st;
    }
    r->p++;
    return MILL_OK;
}

static mill_status read_value(reader *r, stm_value *v, int depth)
{
    skip_blanks(r);
    if (*r->p == '[') return read_items(r, v, ']', depth);
    if (*r->p == '{') return read_items(r, v, '}', depth);
    if (*r->p == '"' || *r->p == '\'') {
        v->quoted = true;
        return read_quoted(r, &v->text);
    }
    read_plain(r, &v->text, depth > 0, false);
    return MILL_OK;
}

static void free_items(stm_value *v)
{
    for (size_t i = 0; i < v->n_items; i++) free_items(&v->items[i]);
    stm_free(v->items);
}

/* The root and the bytes of all texts are one block. */
mill_status stm_value_parse(const char *text, stm_value **out, mill_error *err)
{
    const size_t length = strlen(text);
    stm_value *v = stm_calloc(sizeof *v + 2 * length + 2); /* a NUL per scalar, and scalars are parted by a byte at least */
    reader r = {.start = text, .p = text, .err = err};
    mill_status st;

    if (v == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory reading a value");
    r.out = (char *)(v + 1);
    st = read_value(&r, v, 0);
    skip_blanks(&r);
    if (st == MILL_OK && *r.p != '\0') st = bad(&r, "text after the end of the value");
    if (st != MILL_OK) {
        stm_value_free(&v);
        return st;
    }
    *out = v;
    return MILL_OK;
}

void stm_value_free(stm_value **v)
{
    if (*v == NULL) return;
    free_items(*v);
    stm_free(*v);
    *v = NULL;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* Whether text is a number as JSON writes it, so that it can be kept digit by digit. */
static bool is_json_number(const char *p)
{
    if (*p == '-') p++;
    if (*p == '0')
        p++;
    else if (*p >= '1' && *p <= '9')
        p += strspn(p, "0123456789");
    else
        return false;
    if (*p == '.') {
        size_t n = strspn(++p, "0123456789");

        if (n == 0) return false;
        p += n;
    }
    if (*p == 'e' || *p == 'E') {
        size_t n;

        p++;
        if (*p == '+' || *p == '-') p++;
        n = strspn(p, "0123456789");
        if (n == 0) return false;
        p += n;
    }
    return *p == '\0';
}

static mill_status write_scalar(const stm_value *v, stm_text *out, const stm_value **at)
{
    bool b;
    int64_t i;
    double f;

    if (stm_value_is_null(v)) {
        stm_text_add(out, "null", 4);
    } else if (stm_value_as_bool(v, &b)) {
        stm_text_addf(out, "%s", b ? "true" : "false");
    } else if (!v->quoted && is_json_number(v->text)) {
        stm_text_add(out, v->text, strlen(v->text));
    } else if (!v->quoted && stm_parse_int(v->text, &i)) { /* +5, 007 */
        stm_text_addf(out, "%lld", (long long)i);
    } else if (!v->quoted && stm_parse_float(v->text, &f)) { /* .5, 1., .inf */
        if (isinf(f)) {
            *at = v;
            return MILL_ERR_TYPE;
        }
        stm_text_addf(out, "%.17g", f);
    } else {
        stm_text_add(out, "\"", 1);
        stm_text_add_json(out, v->text, strlen(v->text));
        stm_text_add(out, "\"", 1);
    }
    return MILL_OK;
}

static mill_status write_value(const stm_value *v, stm_text *out, const stm_value **at, int depth)
{
    const bool map = v->kind == STM_VALUE_MAP;
    mill_status st;

    if (v->kind == STM_VALUE_SCALAR) return write_scalar(v, out, at);
    if (depth >= STM_VALUE_MAX_DEPTH) {
        *at = v;
        return MILL_ERR_TYPE;
    }
    stm_text_add(out, map ? "{" : "[", 1);
    for (size_t i = 0; i < v->n_items; i++) {
        const char *key = v->items[i].key != NULL ? v->items[i].key : "";

        if (i > 0) stm_text_add(out, ", ", 2);
        if (map) {
            stm_text_add(out, "\"", 1);
            stm_text_add_json(out, key, strlen(key));
            stm_text_add(out, "\": ", 3);
        }
        if ((st = write_value(&v->items[i], out, at, depth + 1)) != MILL_OK) return st;
    }
    stm_text_add(out, map ? "}" : "]", 1);
    return MILL_OK;
}

mill_status stm_value_json(const stm_value *v, stm_text *out, const stm_value **at)
{
    const stm_value *ignored;
    mill_status st = write_value(v, out, at != NULL ? at : &ignored, 0);

    if (st == MILL_OK && out->failed) return MILL_ERR_NOMEM;
    return st;
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

void stm_value_show(const stm_value *v, char *buf, size_t size)
{
    enum { SHOWN = 60 };
    char clean[SHOWN + 1];
    double number;
    bool truth;
    size_t n;

    if (v->kind == STM_VALUE_LIST) {
        snprintf(buf, size, "a list");
    } else if (v->kind == STM_VALUE_MAP) {
        snprintf(buf, size, "a map");
    } else if (stm_value_is_null(v)) {
        snprintf(buf, size, "null");
    } else {
        for (n = 0; n < SHOWN && v->text[n] != '\0'; n++)
            clean[n] = (unsigned char)v->text[n] < 0x20 || v->text[n] == 0x7f ? ' ' : v->text[n];
        if (v->text[n] != '\0') /* not in the middle of a character */
            while (n > 0 && ((unsigned char)v->text[n] & 0xc0) == 0x80) n--;
        clean[n] = '\0';
        if (v->quoted)
            snprintf(buf, size, "the text \"%s\"%s", clean, v->text[n] != '\0' ? "..." : "");
        else if (stm_parse_float(v->text, &number) || stm_value_as_bool(v, &truth))
            snprintf(buf, size, "%s%s", clean, v->text[n] != '\0' ? "..." : "");
        else
            snprintf(buf, size, "\"%s\"%s", clean, v->text[n] != '\0' ? "..." : "");
    }
}
