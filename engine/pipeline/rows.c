#include "pipeline/rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The shortest of %.{6..9}g or %.{15..17}g that reads back the same. */
static void add_float(stm_text *t, double v, bool narrow)
{
    char buf[40];
    const int last = narrow ? 9 : 17;

    if (!isfinite(v)) {
        stm_text_addf(t, "null"); /* JSON has no infinity */
        return;
    }
    for (int digits = narrow ? 6 : 15; digits <= last; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, v);
        if (narrow ? strtof(buf, NULL) == (float)v : strtod(buf, NULL) == v) break;
    }
    stm_text_addf(t, "%s", buf);
}

static double half(uint16_t h)
{
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double v = exponent == 0    ? ldexp(fraction, -24)
                     : exponent == 31 ? (fraction ? NAN : INFINITY)
                                      : ldexp(1024 + fraction, exponent - 25);

    return h >> 15 ? -v : v;
}

static void add_items(const mill_view *v, int64_t from, int64_t to, stm_text *t)
{
    stm_text_addf(t, "[");
    for (int64_t i = from; i < to; i++) {
        if (i > from) stm_text_addf(t, ",");
        stm_value_of_column(v->children[0], i, t);
    }
    stm_text_addf(t, "]");
}

void stm_value_of_column(const mill_column *col, int64_t row, stm_text *t)
{
    mill_view v;
    const char *text;
    int64_t at, bytes;

    if (col == NULL || mill_column_is_null(col, row)) {
        stm_text_addf(t, "null");
        return;
    }
    v = mill_column_view(col);
    at = v.offset + row;
    switch (v.type->id) {
    case MILL_BOOL: stm_text_addf(t, ((const uint8_t *)v.data)[at / 8] >> at % 8 & 1 ? "true" : "false"); break;
    case MILL_INT32: stm_text_addf(t, "%d", ((const int32_t *)v.data)[at]); break;
    case MILL_INT64: stm_text_addf(t, "%lld", (long long)((const int64_t *)v.data)[at]); break;
    case MILL_FLOAT16: add_float(t, half(((const uint16_t *)v.data)[at]), true); break;
    case MILL_FLOAT32: add_float(t, ((const float *)v.data)[at], true); break;
    case MILL_FLOAT64: add_float(t, ((const double *)v.data)[at], false); break;
    case MILL_UTF8:
    case MILL_BINARY:
        text = mill_column_text(col, row, &bytes);
        stm_text_addf(t, "\"");
        stm_text_add_json(t, text, (size_t)bytes);
        stm_text_addf(t, "\"");
        break;
    case MILL_JSON:
        text = mill_column_text(col, row, &bytes);
        stm_text_add(t, text, (size_t)bytes);
        break;
    case MILL_LIST: add_items(&v, v.offsets[at], v.offsets[at + 1], t); break;
    case MILL_FIXED_LIST: add_items(&v, at * v.type->length, (at + 1) * v.type->length, t); break;
    case MILL_STRUCT:
        stm_text_addf(t, "{");
        for (int32_t i = 0; i < v.type->n_fields; i++) {
            stm_text_addf(t, "%s\"", i > 0 ? "," : "");
            stm_text_add_json(t, v.type->fields[i].name, strlen(v.type->fields[i].name));
            stm_text_addf(t, "\":");
            stm_value_of_column(v.children[i], at, t);
        }
        stm_text_addf(t, "}");
        break;
    default: stm_text_addf(t, "null"); break;
    }
}

void stm_row_json(const mill_step *step, const mill_batch *batch, int64_t row, stm_text *out)
{
    const stm_step_input *in = step->n_inputs > 0 ? &step->inputs[0] : NULL;
    const int32_t columns = mill_batch_columns(batch);

    stm_text_addf(out, "{");
    for (int32_t i = 0; in != NULL && i < columns && i < in->n_used; i++) {
        stm_text_addf(out, "%s\"", i > 0 ? "," : "");
        stm_text_add_json(out, in->used[i].name, strlen(in->used[i].name));
        stm_text_addf(out, "\":");
        stm_value_of_column(mill_batch_column(batch, i), row, out);
    }
    stm_text_addf(out, "}");
}
