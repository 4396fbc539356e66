#include "steps/cast.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stepmill/json.h"

static bool is_scalar(const mill_type *t) { return t->id >= MILL_BOOL && t->id <= MILL_FLOAT64; }
static bool is_text(const mill_type *t) { return t->id == MILL_UTF8 || t->id == MILL_JSON; }

bool stm_can_cast(const mill_type *from, const mill_type *to)
{
    if (from == to) return true;
    if (to->id == MILL_JSON) return from->id == MILL_UTF8;
    if (to->id == MILL_UTF8) return from->id != MILL_BINARY; /* lists and structs as JSON text */
    return is_scalar(to) && (is_scalar(from) || is_text(from));
}

/* A value on its way. */
typedef struct value {
    enum { WHOLE, REAL, TRUTH } kind;
    int64_t whole; /* and truth */
    double real;
} value;

static bool from_text(const char *text, int64_t n, value *v)
{
    char buf[64], *end;

    if (n == 0 || n >= (int64_t)sizeof buf || memchr(text, 0, (size_t)n) != NULL) return false;
    memcpy(buf, text, (size_t)n);
    buf[n] = 0;
    if (strcmp(buf, "true") == 0 || strcmp(buf, "false") == 0) {
        *v = (value){.kind = TRUTH, .whole = buf[0] == 't'};
        return true;
    }
    if (strchr("+-.0123456789", buf[0]) == NULL || strpbrk(buf, "xXpP") != NULL) return false; /* no hexadecimal, inf, nan */
    errno = 0;
    v->kind = WHOLE;
    v->whole = strtoll(buf, &end, 10);
    if (*end == 0 && errno == 0) return true;
    v->kind = REAL;
    v->real = strtod(buf, &end);
    return *end == 0 && isfinite(v->real);
}

static value from_scalar(const mill_view *v, int64_t row)
{
    const int64_t i = v->offset + row;

    switch (v->type->id) {
    case MILL_BOOL: return (value){.kind = TRUTH, .whole = ((const uint8_t *)v->data)[i >> 3] >> (i & 7) & 1};
    case MILL_INT32: return (value){.kind = WHOLE, .whole = ((const int32_t *)v->data)[i]};
    case MILL_INT64: return (value){.kind = WHOLE, .whole = ((const int64_t *)v->data)[i]};
    case MILL_FLOAT32: return (value){.kind = REAL, .real = (double)((const float *)v->data)[i]};
    default: return (value){.kind = REAL, .real = ((const double *)v->data)[i]};
    }
}

/* MILL_ERR_DATA where the value does not fit. */
static mill_status append(mill_builder *b, const mill_type *to, value v)
{
    switch (to->id) {
    case MILL_BOOL:
        if (v.kind == REAL || (v.kind == WHOLE && v.whole != 0 && v.whole != 1)) return MILL_ERR_DATA;
        return mill_builder_bool(b, v.whole != 0);
    case MILL_INT32:
    case MILL_INT64:
        if (v.kind == REAL) {
            if (!(v.real >= -0x1p63 && v.real < 0x1p63) || v.real != trunc(v.real)) return MILL_ERR_DATA;
            v.whole = (int64_t)v.real;
        }
        if (to->id == MILL_INT32 && (v.whole < INT32_MIN || v.whole > INT32_MAX)) return MILL_ERR_DATA;
        return mill_builder_int(b, v.whole);
    default: return mill_builder_float(b, v.kind == REAL ? v.real : (double)v.whole);
    }
}

static mill_status to_text(mill_builder *b, mill_json_writer *w, const mill_column *col, int64_t row)
{
    size_t n;

    mill_json_writer_clear(w);
    mill_status st = mill_json_writer_value(w, col, row);
    if (st != MILL_OK) return st;
    const char *text = mill_json_writer_data(w, &n);
    return mill_builder_text(b, n > 0 ? text : "", (int64_t)n);
}

mill_status stm_cast(mill_pool *pool, mill_column *col, const mill_type *to, mill_column **out, mill_error *err)
{
    const mill_view v = mill_column_view(col);
    mill_builder *b = NULL;
    mill_json_writer *w = NULL;
    mill_status st = mill_builder_create(pool, to, &b);

    if (st == MILL_OK && is_text(to)) st = mill_json_writer_create(NULL, 0, 0, &w);
    for (int64_t row = 0; row < v.rows && st == MILL_OK; row++) {
        value x = {.kind = WHOLE};
        int64_t n = 0;
        if (mill_column_is_null(col, row)) {
            st = mill_builder_null(b);
        } else if (is_text(to)) {
            st = to_text(b, w, col, row);
        } else if (is_text(v.type)) {
            const char *text = mill_column_text(col, row, &n);
            st = from_text(text, n, &x) ? append(b, to, x) : MILL_ERR_DATA;
        } else {
            st = append(b, to, from_scalar(&v, row));
        }
        if (st == MILL_ERR_DATA) {
            char type[64];
            mill_type_format(to, type, sizeof type);
            if (is_text(v.type)) {
                const char *text = mill_column_text(col, row, &n);
                st = mill_fail(err, st, "\"%.*s\" is no %s", (int)(n < 40 ? n : 40), text, type);
            } else {
                x = from_scalar(&v, row);
                if (x.kind == REAL) st = mill_fail(err, st, "%.17g does not fit %s", x.real, type);
                else st = mill_fail(err, st, "%lld does not fit %s", (long long)x.whole, type);
            }
            if (err != NULL) err->error_class = MILL_CLASS_DATA;
        }
    }
    if (st == MILL_OK) st = mill_builder_finish(b, out);
    mill_builder_destroy(&b);
    mill_json_writer_destroy(&w);
    return st == MILL_OK || st == MILL_ERR_DATA ? st : mill_fail(err, st, "no memory to cast a column");
}
