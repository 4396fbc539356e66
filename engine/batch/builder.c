#include "batch/builder.h"

#include <string.h>

#include "batch/bits.h"
#include "batch/column.h"
#include "batch/half.h"
#include "batch/type.h"

enum { FIRST_ROWS = 64, FIRST_BYTES = 960 };
#define MAX_ROWS ((int64_t)1 << 46)

static size_t builder_bytes(const mill_type *t) { return sizeof(mill_builder) + (size_t)t->n_fields * sizeof(mill_builder *); }

mill_status mill_builder_create(mill_pool *pool, const mill_type *type, mill_builder **out)
{
    mill_builder *b;

    if (type == NULL) return MILL_ERR_INVALID;
    b = stm_pool_take(pool, builder_bytes(type));
    if (b == NULL) return MILL_ERR_NOMEM;
    memset(b, 0, builder_bytes(type));
    b->pool = pool;
    b->type = type;
    for (int32_t i = 0; i < type->n_fields; i++)
        if (mill_builder_create(pool, type->fields[i].type, &b->children[i]) != MILL_OK) {
            mill_builder_destroy(&b);
            return MILL_ERR_NOMEM;
        }
    *out = b;
    return MILL_OK;
}

void mill_builder_destroy(mill_builder **builder)
{
    mill_builder *b = *builder;

    if (b == NULL) return;
    *builder = NULL;
    mill_buffer_unref(&b->validity);
    mill_buffer_unref(&b->offsets);
    mill_buffer_unref(&b->data);
    mill_column_unref(&b->head);
    for (int32_t i = 0; i < b->type->n_fields; i++) mill_builder_destroy(&b->children[i]);
    stm_pool_give(b->pool, b, builder_bytes(b->type));
}

/* Replace *buf by one of at least bytes bytes that begins with the first used bytes of it. */
static mill_status regrow(mill_pool *pool, mill_buffer **buf, int64_t used, int64_t bytes)
{
    mill_buffer *more;

    if (*buf != NULL && (int64_t)(*buf)->bytes >= bytes) return MILL_OK;
    if (bytes < 0 || mill_buffer_create(pool, stm_buffer_round((size_t)bytes), &more) != MILL_OK) return MILL_ERR_NOMEM;
    if (used > 0) memcpy(more->data, (*buf)->data, (size_t)used);
    mill_buffer_unref(buf);
    *buf = more;
    return MILL_OK;
}

static int64_t grown(int64_t cap, int64_t need, int64_t least)
{
    cap = cap > MAX_ROWS ? need : cap * 2;
    if (cap < need) cap = need;
    return cap < least ? least : cap;
}

static mill_status room_rows(mill_builder *b, int64_t need)
{
    const mill_type *t = b->type;
    int64_t cap = grown(b->cap_rows, need, b->rows == 0 && b->last_rows > FIRST_ROWS ? b->last_rows : FIRST_ROWS);

    if (need > MAX_ROWS) return MILL_ERR_NOMEM;
    if (cap > MAX_ROWS) cap = MAX_ROWS;
    if (b->validity != NULL) {
        if (regrow(b->pool, &b->validity, stm_bits_bytes(b->rows), stm_bits_bytes(cap)) != MILL_OK) return MILL_ERR_NOMEM;
        b->bits = b->validity->data;
    }
    if (stm_type_has_offsets(t)) {
        const bool first = b->offsets == NULL;

        if (regrow(b->pool, &b->offsets, first ? 0 : (b->rows + 1) * 8, (cap + 1) * 8) != MILL_OK) return MILL_ERR_NOMEM;
        b->off = b->offsets->data;
        if (first) b->off[0] = 0;
    }
    if (stm_type_is_plain(t)) {
        const bool bits = t->id == MILL_BOOL;

        if (regrow(b->pool, &b->data, bits ? stm_bits_bytes(b->rows) : b->rows * t->width,
                   bits ? stm_bits_bytes(cap) : cap * t->width) != MILL_OK)
            return MILL_ERR_NOMEM;
        b->val = b->data->data;
    }
    b->cap_rows = cap;
    return MILL_OK;
}

mill_status stm_builder_room(mill_builder *b, int64_t rows, int64_t bytes)
{
    if (rows < 0 || bytes < 0 || rows > MAX_ROWS || bytes > (int64_t)MILL_BUFFER_MAX_BYTES) return MILL_ERR_NOMEM;
    if (b->rows + rows > b->cap_rows && room_rows(b, b->rows + rows) != MILL_OK) return MILL_ERR_NOMEM;
    if (stm_type_is_text(b->type) && (b->data == NULL || b->bytes + bytes > b->cap_bytes)) {
        const int64_t cap =
            grown(b->cap_bytes, b->bytes + bytes, b->bytes == 0 && b->last_bytes > FIRST_BYTES ? b->last_bytes : FIRST_BYTES);

        if (regrow(b->pool, &b->data, b->bytes, cap) != MILL_OK) return MILL_ERR_NOMEM;
        b->val = b->data->data;
        b->cap_bytes = (int64_t)b->data->bytes;
    }
    return MILL_OK;
}

mill_status stm_builder_need_validity(mill_builder *b)
{
    const int64_t cap = b->cap_rows > 0 ? b->cap_rows : FIRST_ROWS;

    if (b->validity != NULL) return MILL_OK;
    if (regrow(b->pool, &b->validity, 0, stm_bits_bytes(cap)) != MILL_OK) return MILL_ERR_NOMEM;
    b->bits = b->validity->data;
    stm_bits_fill(b->bits, 0, b->rows, true);
    return MILL_OK;
}

mill_status mill_builder_reserve(mill_builder *b, int64_t rows, int64_t bytes)
{
    int64_t n = 0;

    if (rows < 0 || bytes < 0) return MILL_ERR_INVALID;
    if (stm_builder_room(b, rows, bytes) != MILL_OK) return MILL_ERR_NOMEM;
    if (b->type->id == MILL_FIXED_LIST && __builtin_mul_overflow(rows, (int64_t)b->type->length, &n)) return MILL_ERR_NOMEM;
    for (int32_t i = 0; i < b->type->n_fields && b->type->id != MILL_LIST; i++)
        if (mill_builder_reserve(b->children[i], b->type->id == MILL_STRUCT ? rows : n, 0) != MILL_OK) return MILL_ERR_NOMEM;
    return MILL_OK;
}

/* A row is there: its values are written, nothing can fail any more. */
static mill_status push(mill_builder *b, bool valid)
{
    if (b->bits != NULL) stm_bit_put(b->bits, b->rows, valid);
    b->rows++;
    return MILL_OK;
}

static void cut_children(mill_builder *b)
{
    for (int32_t i = 0; i < b->type->n_fields; i++)
        mill_builder_truncate(b->children[i], b->type->id == MILL_LIST     ? (b->off != NULL ? b->off[b->rows] : 0)
                                              : b->type->id == MILL_STRUCT ? b->rows
                                                                           : b->rows * b->type->length);
}

mill_status mill_builder_null(mill_builder *b)
{
    cut_children(b);
    return stm_builder_nulls(b, 1);
}

mill_status mill_builder_bool(mill_builder *b, bool v)
{
    if (b->type->id != MILL_BOOL) return MILL_ERR_TYPE;
    if (b->rows == b->cap_rows && stm_builder_room(b, 1, 0) != MILL_OK) return MILL_ERR_NOMEM;
    stm_bit_put(b->val, b->rows, v);
    return push(b, true);
}

mill_status mill_builder_int(mill_builder *b, int64_t v)
{
    if (b->type->id == MILL_INT32 ? v < INT32_MIN || v > INT32_MAX : b->type->id != MILL_INT64) return MILL_ERR_TYPE;
    if (b->rows == b->cap_rows && stm_builder_room(b, 1, 0) != MILL_OK) return MILL_ERR_NOMEM;
    if (b->type->id == MILL_INT64)
        ((int64_t *)(void *)b->val)[b->rows] = v;
    else
        ((int32_t *)(void *)b->val)[b->rows] = (int32_t)v;
    return push(b, true);
}

mill_status mill_builder_float(mill_builder *b, double v)
{
    if (b->type->id < MILL_FLOAT16 || b->type->id > MILL_FLOAT64) return MILL_ERR_TYPE;
    if (b->rows == b->cap_rows && stm_builder_room(b, 1, 0) != MILL_OK) return MILL_ERR_NOMEM;
    if (b->type->id == MILL_FLOAT64)
        ((double *)(void *)b->val)[b->rows] = v;
    else if (b->type->id == MILL_FLOAT32)
        ((float *)(void *)b->val)[b->rows] = (float)v;
    else
        ((uint16_t *)(void *)b->val)[b->rows] = stm_half_from_double(v);
    return push(b, true);
}

mill_status mill_builder_text(mill_builder *b, const char *bytes, int64_t n)
{
    if (!stm_type_is_text(b->type)) return MILL_ERR_TYPE;
    if (n < 0) return MILL_ERR_INVALID;
    if ((b->rows == b->cap_rows || n > b->cap_bytes - b->bytes) && stm_builder_room(b, 1, n) != MILL_OK) return MILL_ERR_NOMEM;
    if (n > 0) memcpy(b->val + b->bytes, bytes, (size_t)n);
    b->bytes += n;
    b->off[b->rows + 1] = b->bytes;
    return push(b, true);
}

mill_builder *mill_builder_child(mill_builder *b, int32_t i)
{
    return i >= 0 && i < b->type->n_fields ? b->children[i] : NULL;
}

mill_status mill_builder_close_row(mill_builder *b)
{
    const mill_type *t = b->type;

    if (t->n_fields == 0 && t->id != MILL_STRUCT) return MILL_ERR_TYPE;
    if (t->id == MILL_FIXED_LIST && b->children[0]->rows != (b->rows + 1) * t->length) return MILL_ERR_INVALID;
    for (int32_t i = 0; i < t->n_fields && t->id == MILL_STRUCT; i++)
        if (b->children[i]->rows != b->rows + 1) return MILL_ERR_INVALID;
    if (b->rows == b->cap_rows && stm_builder_room(b, 1, 0) != MILL_OK) return MILL_ERR_NOMEM;
    if (t->id == MILL_LIST) b->off[b->rows + 1] = b->children[0]->rows;
    return push(b, true);
}

int64_t mill_builder_rows(const mill_builder *b) { return b->rows; }

void mill_builder_truncate(mill_builder *b, int64_t rows)
{
    if (rows < 0) rows = 0;
    if (rows < b->rows) {
        if (b->bits != NULL) b->nulls -= b->rows - rows - stm_bits_count(b->bits, rows, b->rows - rows);
        b->rows = rows;
        if (stm_type_is_text(b->type)) b->bytes = b->off[rows];
    }
    cut_children(b);
}

/* What finish needs and may not get: a head per node, and buffers also where there are no rows. */
static mill_status prepare(mill_builder *b)
{
    const bool has_offsets = stm_type_has_offsets(b->type), has_data = b->type->n_fields == 0 && b->type->id != MILL_STRUCT;

    if (((has_offsets && b->offsets == NULL) || (has_data && b->data == NULL)) && stm_builder_room(b, 0, 0) != MILL_OK)
        return MILL_ERR_NOMEM;
    if (((has_offsets && b->offsets == NULL) || (stm_type_is_plain(b->type) && b->data == NULL)) && room_rows(b, 0) != MILL_OK)
        return MILL_ERR_NOMEM;
    if (b->head == NULL && (b->head = stm_column_new(b->pool, b->type, 0)) == NULL) return MILL_ERR_NOMEM;
    for (int32_t i = 0; i < b->type->n_fields; i++)
        if (prepare(b->children[i]) != MILL_OK) return MILL_ERR_NOMEM;
    return MILL_OK;
}

/* Bits behind the last row: what is written of them must not depend on what the memory held before. */
static void clear_rest(uint8_t *bits, int64_t rows)
{
    if ((rows & 7) != 0) bits[rows >> 3] &= (uint8_t)((1u << (rows & 7)) - 1);
}

static mill_column *hand_over(mill_builder *b)
{
    mill_column *c = b->head;
    const mill_type *t = b->type;

    b->head = NULL;
    c->view.rows = b->rows;
    __atomic_store_n(&c->nulls, b->nulls, __ATOMIC_RELAXED);
    if (b->nulls > 0) {
        clear_rest(b->bits, b->rows);
        c->validity = b->validity;
        b->validity = NULL;
        stm_buffer_cut(c->validity, (size_t)stm_bits_bytes(b->rows));
    }
    if ((c->offsets = b->offsets) != NULL) stm_buffer_cut(c->offsets, (size_t)(b->rows + 1) * 8);
    if (t->id == MILL_BOOL) clear_rest(b->val, b->rows);
    if ((c->data = b->data) != NULL)
        stm_buffer_cut(c->data, stm_type_is_text(t)     ? (size_t)b->bytes
                                : t->id == MILL_BOOL ? (size_t)stm_bits_bytes(b->rows)
                                                     : (size_t)(b->rows * t->width));
    for (int32_t i = 0; i < t->n_fields; i++) c->children[i] = hand_over(b->children[i]);
    stm_column_fix_view(c);
    b->last_rows = b->rows;
    b->last_bytes = b->bytes;
    mill_buffer_unref(&b->validity); /* all rows present after a truncation */
    b->offsets = b->data = NULL;
    b->bits = b->val = NULL;
    b->off = NULL;
    b->rows = b->cap_rows = b->bytes = b->cap_bytes = b->nulls = 0;
    return c;
}

mill_status mill_builder_finish(mill_builder *b, mill_column **out)
{
    cut_children(b);
    if (prepare(b) != MILL_OK) return MILL_ERR_NOMEM;
    *out = hand_over(b);
    return MILL_OK;
}
