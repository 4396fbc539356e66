#include "batch/keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory/buffer.h"

static const int64_t *tuple(const mill_batch *b, int64_t r)
{
    return (const int64_t *)b->keys.tuples->data + (b->keys.offset + r) * b->keys.width;
}

void stm_batch_key(const mill_batch *b, int64_t r, int64_t *out)
{
    if (b->keys.tuples == NULL)
        out[0] = b->keys.first + r;
    else
        memcpy(out, tuple(b, r), (size_t)b->keys.width * sizeof *out);
}

int stm_batch_key_text(const mill_batch *b, int64_t r, char *buf, size_t size)
{
    const int64_t one = b->keys.first + r, *t = b->keys.tuples != NULL ? tuple(b, r) : &one;
    int32_t width = b->keys.tuples != NULL ? b->keys.width : 1;
    int n = 0;

    while (width > 1 && t[width - 1] < 0) width--; /* padding */
    for (int32_t i = 0; i < width && (size_t)n < size; i++) {
        if (t[i] < 0)
            n += snprintf(buf + n, size - (size_t)n, i == 0 ? "-" : ".-");
        else
            n += snprintf(buf + n, size - (size_t)n, i == 0 ? "%" PRId64 : ".%" PRId64, t[i]);
    }
    return (size_t)n < size ? n : (int)size - 1;
}

int32_t stm_key_parse(const char *text, int64_t *out, int32_t most, const char **rest)
{
    int32_t n = 0;

    for (*rest = text; n < most; n++) {
        const char *at = n > 0 ? *rest + 1 : text;
        char *end;

        if (n > 0 && **rest != '.') break;
        if (*at == '-') {
            out[n] = -1;
            *rest = at + 1;
        } else if (*at >= '0' && *at <= '9') {
            out[n] = strtoll(at, &end, 10);
            *rest = end;
        } else {
            break;
        }
    }
    return n;
}

int stm_batch_key_compare(const mill_batch *a, int64_t ra, const mill_batch *b, int64_t rb)
{
    const int64_t ka = a->keys.first + ra, kb = b->keys.first + rb;
    const int64_t *ta = a->keys.tuples != NULL ? tuple(a, ra) : &ka, *tb = b->keys.tuples != NULL ? tuple(b, rb) : &kb;
    const int32_t wa = a->keys.tuples != NULL ? a->keys.width : 1, wb = b->keys.tuples != NULL ? b->keys.width : 1;

    for (int32_t i = 0; i < wa || i < wb; i++) {
        const int64_t va = i < wa ? ta[i] : -1, vb = i < wb ? tb[i] : -1;

        if (va != vb) return va < vb ? -1 : 1;
    }
    return 0;
}

/* Key of row r of b, padded to width. b NULL: no key. */
static void put(int64_t *dst, int32_t width, const mill_batch *b, int64_t r)
{
    int32_t i = 0;

    if (b != NULL) {
        stm_batch_key(b, r, dst);
        i = b->keys.tuples != NULL ? b->keys.width : 1;
    }
    for (; i < width; i++) dst[i] = -1;
}

static mill_status new_tuples(mill_pool *pool, int64_t rows, int32_t width, stm_keys *out)
{
    size_t bytes;

    if (__builtin_mul_overflow((size_t)rows, (size_t)width * sizeof(int64_t), &bytes)) return MILL_ERR_NOMEM;
    if (mill_buffer_create(pool, bytes, &out->tuples) != MILL_OK) return MILL_ERR_NOMEM;
    out->width = width;
    out->first = out->offset = 0;
    return MILL_OK;
}

/* Runs whose keys are consecutive numbers, one run after the other, stay so. */
static bool stays_consecutive(const stm_run_of_rows *runs, size_t n, stm_keys *out)
{
    int64_t next = 0;
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        const mill_batch *b = runs[i].batch;

        if (runs[i].rows == 0) continue;
        if (b == NULL || b->keys.tuples != NULL) return false;
        if (any && b->keys.first + runs[i].first != next) return false;
        if (!any) out->first = b->keys.first + runs[i].first;
        next = b->keys.first + runs[i].first + runs[i].rows;
        any = true;
    }
    return true;
}

mill_status stm_keys_concat(mill_pool *pool, const stm_run_of_rows *runs, size_t n, int64_t rows, stm_keys *out)
{
    int32_t width = 1;
    int64_t *dst;
    mill_status st;

    *out = (stm_keys){.width = 1};
    if (stays_consecutive(runs, n, out)) return MILL_OK;
    for (size_t i = 0; i < n; i++)
        if (runs[i].batch != NULL && runs[i].batch->keys.tuples != NULL && runs[i].batch->keys.width > width)
            width = runs[i].batch->keys.width;
    if ((st = new_tuples(pool, rows, width, out)) != MILL_OK) return st;
    dst = out->tuples->data;
    for (size_t i = 0; i < n; i++) {
        const mill_batch *b = runs[i].batch;

        if (b != NULL && b->keys.tuples != NULL && b->keys.width == width && runs[i].rows > 0) {
            memcpy(dst, tuple(b, runs[i].first), (size_t)(runs[i].rows * width) * sizeof *dst);
            dst += runs[i].rows * width;
            continue;
        }
        for (int64_t r = 0; r < runs[i].rows; r++, dst += width) put(dst, width, b, runs[i].first + r);
    }
    return MILL_OK;
}

mill_status stm_keys_gather(mill_pool *pool, const mill_batch *src, const int64_t *index, int64_t n, stm_keys *out)
{
    const int32_t width = src->keys.tuples != NULL ? src->keys.width : 1;
    int64_t *dst;
    mill_status st;

    *out = (stm_keys){.width = width};
    if (n == 0) return MILL_OK;
    if ((st = new_tuples(pool, n, width, out)) != MILL_OK) return st;
    dst = out->tuples->data;
    for (int64_t i = 0; i < n; i++, dst += width) put(dst, width, index[i] >= 0 ? src : NULL, index[i]);
    return MILL_OK;
}
