/* Bulk appends to builders. */
#include "batch/builder.h"

#include <string.h>

#include "batch/bits.h"
#include "batch/column.h"
#include "batch/type.h"

static mill_status add_nulls(mill_builder *b, int64_t n);

/* Validity of n rows behind the last, from bits of a column (NULL = all present). */
static mill_status add_validity(mill_builder *b, const uint8_t *bits, int64_t from, int64_t n)
{
    if (bits == NULL) {
        if (b->bits != NULL) stm_bits_fill(b->bits, b->rows, n, true);
        return MILL_OK;
    }
    if (stm_builder_need_validity(b) != MILL_OK) return MILL_ERR_NOMEM;
    stm_bits_copy(b->bits, b->rows, bits, from, n);
    b->nulls += n - stm_bits_count(b->bits, b->rows, n);
    return MILL_OK;
}

/* Offsets of n rows behind the last: those of src, moved so that src[0] becomes at. */
static void add_offsets(mill_builder *b, const int64_t *src, int64_t n, int64_t at)
{
    int64_t *dst = b->off + b->rows;
    const int64_t shift = at - src[0];

    for (int64_t i = 1; i <= n; i++) dst[i] = src[i] + shift;
}

/* Append without undoing: on failure the caller truncates. Rows are counted last, so that what an inner failure left
 * behind is seen as a half-made record. */
static mill_status add_range(mill_builder *b, const mill_column *col, int64_t first, int64_t n)
{
    const mill_view *v = stm_view(col);
    const mill_type *t = b->type;
    const int64_t s = v->offset + first;
    mill_status st = MILL_OK;

    if (n == 0) return MILL_OK;
    if (stm_type_is_text(t)) {
        const int64_t from = v->offsets[s], bytes = v->offsets[s + n] - from;

        if (stm_builder_room(b, n, bytes) != MILL_OK) return MILL_ERR_NOMEM;
        if (bytes > 0) memcpy(b->val + b->bytes, (const char *)v->data + from, (size_t)bytes);
        add_offsets(b, v->offsets + s, n, b->bytes);
    } else if (stm_builder_room(b, n, 0) != MILL_OK) {
        return MILL_ERR_NOMEM;
    } else if (t->id == MILL_BOOL) {
        stm_bits_copy(b->val, b->rows, v->data, s, n);
    } else if (stm_type_is_plain(t)) {
        memcpy(b->val + b->rows * t->width, (const char *)v->data + s * t->width, (size_t)(n * t->width));
    } else if (t->id == MILL_LIST) {
        const int64_t from = v->offsets[s], items = v->offsets[s + n] - from, at = b->children[0]->rows;

        st = add_range(b->children[0], v->children[0], from, items);
        if (st == MILL_OK) add_offsets(b, v->offsets + s, n, at);
    } else if (t->id == MILL_FIXED_LIST) {
        st = add_range(b->children[0], v->children[0], s * t->length, n * t->length);
    } else {
        for (int32_t i = 0; i < t->n_fields && st == MILL_OK; i++) st = add_range(b->children[i], v->children[i], s, n);
    }
    if (st != MILL_OK || (st = add_validity(b, v->validity, s, n)) != MILL_OK) return st;
    if (stm_type_is_text(t)) b->bytes = b->off[b->rows + n];
    b->rows += n;
    return MILL_OK;
}

static mill_status add_nulls(mill_builder *b, int64_t n)
{
    const mill_type *t = b->type;
    int64_t items = 0;
    mill_status st = MILL_OK;

    if (n == 0) return MILL_OK;
    if (stm_builder_room(b, n, 0) != MILL_OK || stm_builder_need_validity(b) != MILL_OK) return MILL_ERR_NOMEM;
    if (stm_type_has_offsets(t)) {
        for (int64_t i = 1; i <= n; i++) b->off[b->rows + i] = b->off[b->rows];
    } else if (t->id == MILL_BOOL) {
        stm_bits_fill(b->val, b->rows, n, false);
    } else if (stm_type_is_plain(t)) {
        memset(b->val + b->rows * t->width, 0, (size_t)(n * t->width));
    } else if (t->id == MILL_FIXED_LIST) {
        if (__builtin_mul_overflow(n, (int64_t)t->length, &items)) return MILL_ERR_NOMEM;
        st = add_nulls(b->children[0], items);
    } else {
        for (int32_t i = 0; i < t->n_fields && st == MILL_OK; i++) st = add_nulls(b->children[i], n);
    }
    if (st != MILL_OK) return st;
    stm_bits_fill(b->bits, b->rows, n, false);
    b->nulls += n;
    b->rows += n;
    return MILL_OK;
}

/* Values of one width; null rows are zero. */
#define GATHER(T)                                                                                  \
    for (int64_t i = 0; i < n; i++) {                                                              \
        ((T *)(void *)b->val)[b->rows + i] = index[i] >= 0 ? ((const T *)v->data)[s + index[i]] : 0; \
    }                                                                                              \
    break

static void gather_plain(mill_builder *b, const mill_view *v, int64_t s, const int64_t *index, int64_t n)
{
    switch (b->type->width) {
    case 2: GATHER(uint16_t);
    case 4: GATHER(uint32_t);
    case 8: GATHER(uint64_t);
    default:
        for (int64_t i = 0; i < n; i++) stm_bit_put(b->val, b->rows + i, index[i] >= 0 && stm_bit(v->data, s + index[i]));
    }
}

static mill_status gather_text(mill_builder *b, const mill_view *v, int64_t s, const int64_t *index, int64_t n)
{
    const int64_t *o = v->offsets + s;
    int64_t bytes = 0, at = b->bytes;

    for (int64_t i = 0; i < n; i++) {
        int64_t len = index[i] >= 0 ? o[index[i] + 1] - o[index[i]] : 0;

        if (__builtin_add_overflow(bytes, len, &bytes)) return MILL_ERR_NOMEM; /* repeated rows may sum to anything */
    }
    if (stm_builder_room(b, n, bytes) != MILL_OK) return MILL_ERR_NOMEM;
    for (int64_t i = 0; i < n; i++) {
        if (index[i] >= 0) {
            const int64_t len = o[index[i] + 1] - o[index[i]];

            if (len > 0) memcpy(b->val + at, (const char *)v->data + o[index[i]], (size_t)len);
            at += len;
        }
        b->off[b->rows + 1 + i] = at;
    }
    return MILL_OK;
}

/* Rows of a fixed list of numbers without nulls: embeddings. False when it is not that, or memory is out: then the
 * general way, which can say so. */
static bool gather_vectors(mill_builder *b, const mill_view *v, int64_t s, const int64_t *index, int64_t n)
{
    const mill_view *items = stm_view(v->children[0]);
    mill_builder *child = b->children[0];
    const int64_t length = b->type->length, bytes = length * items->type->width;
    const char *src;
    char *dst;

    if (bytes == 0 || items->validity != NULL || child->bits != NULL) return false;
    for (int64_t i = 0; i < n; i++)
        if (index[i] < 0) return false;
    if (n > INT64_MAX / length || stm_builder_room(child, n * length, 0) != MILL_OK) return false;
    src = (const char *)items->data + items->offset * items->type->width;
    dst = (char *)child->val + child->rows * items->type->width;
    for (int64_t i = 0; i < n; i++) memcpy(dst + i * bytes, src + (s + index[i]) * bytes, (size_t)bytes);
    child->rows += n * length;
    return true;
}

/* Runs of consecutive rows go to the child as one range. */
static mill_status gather_lists(mill_builder *b, const mill_view *v, int64_t s, const int64_t *index, int64_t n)
{
    const mill_type *t = b->type;
    mill_builder *child = b->children[0];
    mill_status st;

    if (t->id == MILL_FIXED_LIST && gather_vectors(b, v, s, index, n)) return MILL_OK;
    for (int64_t i = 0, k; i < n; i = k) {
        k = i + 1;
        if (index[i] < 0) {
            while (k < n && index[k] < 0) k++;
            if (t->id == MILL_FIXED_LIST) {
                int64_t items;

                if (__builtin_mul_overflow(k - i, (int64_t)t->length, &items)) return MILL_ERR_NOMEM;
                if ((st = add_nulls(child, items)) != MILL_OK) return st;
            } else {
                for (int64_t r = i; r < k; r++) b->off[b->rows + 1 + r] = child->rows;
            }
            continue;
        }
        while (k < n && index[k] == index[k - 1] + 1) k++;
        if (t->id == MILL_FIXED_LIST) {
            if ((st = add_range(child, v->children[0], (s + index[i]) * t->length, (k - i) * t->length)) != MILL_OK) return st;
        } else {
            const int64_t *o = v->offsets + s + index[i];
            const int64_t at = child->rows;

            if ((st = add_range(child, v->children[0], o[0], o[k - i] - o[0])) != MILL_OK) return st;
            for (int64_t r = 1; r <= k - i; r++) b->off[b->rows + i + r] = o[r] - o[0] + at;
        }
    }
    return MILL_OK;
}

/* Rows index[i] + shift; shift carries the offsets of the structs above, which do not cut their children. */
static mill_status add_gather(mill_builder *b, const mill_column *col, const int64_t *index, int64_t n, int64_t shift)
{
    const mill_view *v = stm_view(col);
    const mill_type *t = b->type;
    const int64_t s = v->offset + shift;
    bool any_null = v->validity != NULL;
    mill_status st = MILL_OK;

    for (int64_t i = 0; i < n && !any_null; i++) any_null = index[i] < 0;
    if (stm_type_is_text(t))
        st = gather_text(b, v, s, index, n);
    else if (stm_builder_room(b, n, 0) != MILL_OK)
        st = MILL_ERR_NOMEM;
    else if (stm_type_is_plain(t))
        gather_plain(b, v, s, index, n);
    else if (t->id == MILL_STRUCT)
        for (int32_t i = 0; i < t->n_fields && st == MILL_OK; i++) st = add_gather(b->children[i], v->children[i], index, n, s);
    else
        st = gather_lists(b, v, s, index, n);
    if (st != MILL_OK || (any_null && (st = stm_builder_need_validity(b)) != MILL_OK)) return st;
    if (any_null) {
        int64_t nulls = 0;

        for (int64_t i = 0; i < n; i++) {
            const bool valid = index[i] >= 0 && (v->validity == NULL || stm_bit(v->validity, s + index[i]));

            stm_bit_put(b->bits, b->rows + i, valid);
            nulls += !valid;
        }
        b->nulls += nulls;
    } else if (b->bits != NULL) {
        stm_bits_fill(b->bits, b->rows, n, true);
    }
    if (stm_type_is_text(t)) b->bytes = b->off[b->rows + n];
    b->rows += n;
    return MILL_OK;
}

/* Undo what a failed bulk append left in the children. */
static mill_status settle(mill_builder *b, int64_t rows, mill_status st)
{
    if (st != MILL_OK) mill_builder_truncate(b, rows);
    return st;
}

mill_status stm_builder_append(mill_builder *b, const mill_column *col, int64_t first, int64_t n)
{
    return settle(b, b->rows, add_range(b, col, first, n));
}

mill_status stm_builder_gather(mill_builder *b, const mill_column *col, const int64_t *index, int64_t n)
{
    return n == 0 ? MILL_OK : settle(b, b->rows, add_gather(b, col, index, n, 0));
}

mill_status stm_builder_nulls(mill_builder *b, int64_t n)
{
    return settle(b, b->rows, add_nulls(b, n));
}

/* Plans saturate: what is too large fails in plan_done. */
static void plan_add(int64_t *planned, int64_t n)
{
    if (__builtin_add_overflow(*planned, n, planned)) *planned = INT64_MAX;
}

void stm_builder_plan(mill_builder *b, const mill_column *col, int64_t first, int64_t n)
{
    const mill_view *v = col != NULL ? stm_view(col) : NULL;
    const mill_type *t = b->type;
    const int64_t s = v != NULL ? v->offset + first : 0;

    plan_add(&b->planned_rows, n);
    if (n == 0) return;
    if (stm_type_is_text(t) && v != NULL) plan_add(&b->planned_bytes, v->offsets[s + n] - v->offsets[s]);
    for (int32_t i = 0; i < t->n_fields; i++) {
        const mill_column *child = v != NULL ? v->children[i] : NULL;
        int64_t items;

        if (t->id == MILL_STRUCT)
            stm_builder_plan(b->children[i], child, s, n);
        else if (t->id == MILL_FIXED_LIST && __builtin_mul_overflow(n, (int64_t)t->length, &items))
            b->children[i]->planned_rows = INT64_MAX;
        else if (t->id == MILL_FIXED_LIST)
            stm_builder_plan(b->children[i], child, s * t->length, items);
        else if (v != NULL)
            stm_builder_plan(b->children[i], child, v->offsets[s], v->offsets[s + n] - v->offsets[s]);
    }
}

mill_status stm_builder_plan_done(mill_builder *b)
{
    mill_status st = stm_builder_room(b, b->planned_rows, b->planned_bytes);

    b->planned_rows = b->planned_bytes = 0;
    for (int32_t i = 0; i < b->type->n_fields; i++) {
        const mill_status child = stm_builder_plan_done(b->children[i]);

        if (st == MILL_OK) st = child;
    }
    return st;
}
