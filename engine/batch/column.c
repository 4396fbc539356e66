#include "batch/column.h"

#include <string.h>

#include "batch/batch.h"
#include "batch/bits.h"
#include "batch/type.h"

#define MAX_ROWS ((int64_t)1 << 46) /* a row has at least a bit somewhere; keeps sums of rows far from overflow */

static size_t head_bytes(int32_t n_children) { return sizeof(mill_column) + (size_t)n_children * sizeof(mill_column *); }

/* Every member by name: what is left out would be cleared first, all of it. */
static inline mill_column *new_head(mill_pool *pool, const mill_type *type, int64_t rows, int32_t n_children)
{
    mill_column *c = stm_pool_take(pool, head_bytes(n_children));

    if (c == NULL) return NULL;
    *c = (mill_column){
        .refs = 1,
        .n_children = n_children,
        .pool = pool,
        .base = NULL,
        .view =
            {
                .type = type,
                .rows = rows,
                .offset = 0,
                .null_count = 0,
                .validity = NULL,
                .offsets = NULL,
                .data = NULL,
                .children = NULL,
            },
        .nulls = -1,
        .validity = NULL,
        .offsets = NULL,
        .data = NULL,
    };
    for (int32_t i = 0; i < n_children; i++) c->children[i] = NULL;
    return c;
}

mill_column *stm_column_new(mill_pool *pool, const mill_type *type, int64_t rows)
{
    mill_column *c = new_head(pool, type, rows, type->n_fields);

    if (c != NULL) c->view.children = type->n_fields > 0 ? (const mill_column *const *)c->children : NULL;
    return c;
}

void stm_column_fix_view(mill_column *c)
{
    c->view.validity = c->validity != NULL ? c->validity->data : NULL;
    c->view.offsets = c->offsets != NULL ? c->offsets->data : NULL;
    c->view.data = c->data != NULL ? c->data->data : NULL;
}

mill_column *mill_column_ref(mill_column *col)
{
    stm_refs_add(&col->refs);
    return col;
}

void mill_column_unref(mill_column **col)
{
    mill_column *c = *col;

    if (c == NULL) return;
    *col = NULL;
    if (!stm_refs_drop(&c->refs)) return;
    if (c->base != NULL) mill_column_unref(&c->base);
    if (c->validity != NULL) mill_buffer_unref(&c->validity);
    if (c->offsets != NULL) mill_buffer_unref(&c->offsets);
    if (c->data != NULL) mill_buffer_unref(&c->data);
    for (int32_t i = 0; i < c->n_children; i++) mill_column_unref(&c->children[i]);
    stm_pool_give(c->pool, c, head_bytes(c->n_children));
}

/* Whether the host cannot read the validity: it is in the memory of a device. */
static bool validity_elsewhere(const mill_column *c)
{
    while (c->validity == NULL && c->base != NULL) c = c->base;
    return c->validity != NULL && c->validity->where == 2; /* STM_MEM_DEVICE */
}

int64_t stm_column_null_count(const mill_column *col)
{
    mill_column *c = (mill_column *)col;
    int64_t n = __atomic_load_n(&c->nulls, __ATOMIC_RELAXED);

    if (n >= 0) return n;
    if (c->view.validity != NULL && validity_elsewhere(c)) return -1; /* on a device: not known */
    n = c->view.validity != NULL ? c->view.rows - stm_bits_count(c->view.validity, c->view.offset, c->view.rows) : 0;
    __atomic_store_n(&c->nulls, n, __ATOMIC_RELAXED);
    return n;
}

mill_view mill_column_view(const mill_column *col)
{
    mill_view v = col->view;

    v.null_count = stm_column_null_count(col);
    return v;
}

const mill_type *mill_column_type(const mill_column *col) { return col->view.type; }
int64_t mill_column_rows(const mill_column *col) { return col->view.rows; }

bool mill_column_is_null(const mill_column *col, int64_t r)
{
    return col->view.validity != NULL && !stm_bit(col->view.validity, col->view.offset + r);
}

const char *mill_column_text(const mill_column *col, int64_t r, int64_t *bytes)
{
    const int64_t *o;

    if (mill_column_is_null(col, r)) {
        *bytes = 0;
        return NULL;
    }
    o = col->view.offsets + col->view.offset + r;
    *bytes = o[1] - o[0];
    return (const char *)col->view.data + o[0];
}

/* Whether a buffer holds n items of bits bits; NULL does not. */
static bool holds(mill_buffer *const *b, int64_t n, int64_t bits)
{
    int64_t need;

    if (b == NULL || *b == NULL) return false;
    if (bits == 1) return (int64_t)(*b)->bytes >= stm_bits_bytes(n);
    /* a product and not a quotient: a division here was a third of making a column */
    return !__builtin_mul_overflow(n, (int64_t)bits / 8, &need) && need <= (int64_t)(*b)->bytes;
}

static mill_status check_parts(const mill_type *type, int64_t rows, mill_buffer **validity, mill_buffer **offsets,
                               mill_buffer **data, mill_column **children, mill_error *err)
{
    if (type == NULL || rows < 0 || rows > MAX_ROWS)
        return mill_fail(err, MILL_ERR_INVALID, "a column of %lld rows", (long long)rows);
    if (validity != NULL && *validity != NULL && !holds(validity, rows, 1))
        return mill_fail(err, MILL_ERR_INVALID, "validity buffer is too small for %lld rows", (long long)rows);
    if (stm_type_has_offsets(type) && !holds(offsets, rows + 1, 64))
        return mill_fail(err, MILL_ERR_INVALID, "offsets buffer is missing or too small for %lld rows", (long long)rows);
    if (stm_type_is_plain(type) && !holds(data, rows, type->id == MILL_BOOL ? 1 : type->width * 8))
        return mill_fail(err, MILL_ERR_INVALID, "data buffer is missing or too small for %lld rows", (long long)rows);
    if (stm_type_is_text(type) && (data == NULL || *data == NULL))
        return mill_fail(err, MILL_ERR_INVALID, "data buffer is missing");
    for (int32_t i = 0; i < type->n_fields; i++) {
        const mill_column *child = children != NULL ? children[i] : NULL;
        int64_t need = type->id == MILL_STRUCT ? rows : 0;

        if (child == NULL || child->view.type != type->fields[i].type)
            return mill_fail(err, MILL_ERR_INVALID, "child column \"%s\" is missing or of another type", type->fields[i].name);
        if (type->id == MILL_FIXED_LIST && __builtin_mul_overflow(rows, (int64_t)type->length, &need)) need = INT64_MAX;
        if (child->view.rows < need)
            return mill_fail(err, MILL_ERR_INVALID, "child column \"%s\" has %lld rows, %lld are needed", type->fields[i].name,
                             (long long)child->view.rows, (long long)need);
    }
    return MILL_OK;
}

static mill_buffer *move(mill_buffer **b)
{
    mill_buffer *taken = b != NULL ? *b : NULL;

    if (b != NULL) *b = NULL;
    return taken;
}

mill_status mill_column_create(mill_pool *pool, const mill_type *type, int64_t rows, mill_buffer **validity, mill_buffer **offsets,
                               mill_buffer **data, mill_column **children, mill_column **out, mill_error *err)
{
    mill_column *c;
    mill_status st = check_parts(type, rows, validity, offsets, data, children, err);

    if (st != MILL_OK) return st;
    c = stm_column_new(pool, type, rows);
    if (c == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a column");
    c->validity = move(validity);
    if (stm_type_has_offsets(type)) c->offsets = move(offsets);
    if (type->n_fields == 0) c->data = move(data);
    for (int32_t i = 0; i < type->n_fields; i++) {
        c->children[i] = children[i];
        children[i] = NULL;
    }
    stm_column_fix_view(c);
    *out = c;
    return MILL_OK;
}

static bool zeros(mill_pool *pool, int64_t bytes, mill_buffer **out)
{
    if (mill_buffer_create(pool, (size_t)bytes, out) != MILL_OK) return false;
    memset((*out)->data, 0, (size_t)bytes);
    return true;
}

mill_status mill_column_nulls(mill_pool *pool, const mill_type *type, int64_t rows, mill_column **out)
{
    mill_column *c;

    if (type == NULL || rows < 0 || rows > MAX_ROWS) return MILL_ERR_INVALID;
    c = stm_column_new(pool, type, rows);
    if (c == NULL) return MILL_ERR_NOMEM;
    __atomic_store_n(&c->nulls, rows, __ATOMIC_RELAXED);
    /* children first: a product too large for them is found before anything large is taken */
    for (int32_t i = 0; i < type->n_fields; i++) {
        int64_t n = type->id == MILL_STRUCT ? rows : 0;

        if (type->id == MILL_FIXED_LIST && __builtin_mul_overflow(rows, (int64_t)type->length, &n)) goto fail;
        if (mill_column_nulls(pool, type->fields[i].type, n, &c->children[i]) != MILL_OK) goto fail;
    }
    if (!zeros(pool, stm_bits_bytes(rows), &c->validity)) goto fail;
    if (stm_type_has_offsets(type) && !zeros(pool, (rows + 1) * 8, &c->offsets)) goto fail;
    if (stm_type_is_text(type) && !zeros(pool, 0, &c->data)) goto fail;
    if (stm_type_is_plain(type) && !zeros(pool, type->id == MILL_BOOL ? stm_bits_bytes(rows) : rows * type->width, &c->data))
        goto fail;
    stm_column_fix_view(c);
    *out = c;
    return MILL_OK;
fail:
    mill_column_unref(&c);
    return MILL_ERR_NOMEM;
}

mill_status stm_column_slice(mill_column *col, int64_t first, int64_t rows, mill_column **out)
{
    mill_column *c;
    int64_t nulls;

    if (first < 0 || rows < 0 || first > col->view.rows - rows) return MILL_ERR_INVALID;
    if (rows == col->view.rows) {
        *out = mill_column_ref(col);
        return MILL_OK;
    }
    c = new_head(col->pool, col->view.type, rows, 0);
    if (c == NULL) return MILL_ERR_NOMEM;
    c->view = col->view;
    c->view.rows = rows;
    c->view.offset += first;
    nulls = __atomic_load_n(&col->nulls, __ATOMIC_RELAXED);
    if (nulls == 0 || nulls == col->view.rows) __atomic_store_n(&c->nulls, nulls == 0 ? 0 : rows, __ATOMIC_RELAXED);
    c->base = mill_column_ref(col->base != NULL && col->validity == NULL ? col->base : col);
    *out = c;
    return MILL_OK;
}

/* A fresh masked column over what c shows, with a copy of its validity. */
static mill_column *masked(mill_pool *pool, mill_column *c)
{
    const int64_t end = c->view.offset + c->view.rows;
    mill_column *m = new_head(pool, c->view.type, c->view.rows, 0), *root = c;

    if (m == NULL) return NULL;
    if (mill_buffer_create(pool, (size_t)stm_bits_bytes(end), &m->validity) != MILL_OK) {
        mill_column_unref(&m);
        return NULL;
    }
    if (c->view.validity != NULL)
        memcpy(m->validity->data, c->view.validity, (size_t)stm_bits_bytes(end));
    else
        memset(m->validity->data, 0xFF, (size_t)stm_bits_bytes(end));
    while (root->base != NULL) root = root->base;
    m->base = mill_column_ref(root);
    m->view = c->view;
    m->view.validity = m->validity->data;
    return m;
}

mill_status stm_column_mask(mill_pool *pool, mill_column **col, int64_t first, int64_t rows)
{
    mill_column *c = *col;

    if (first < 0 || rows < 0 || first > c->view.rows - rows) return MILL_ERR_INVALID;
    if (rows == 0) return MILL_OK;
    if (__atomic_load_n(&c->refs, __ATOMIC_ACQUIRE) != 1 || c->validity == NULL || !stm_buffer_unique(c->validity)) {
        mill_column *m = masked(pool, c);

        if (m == NULL) return MILL_ERR_NOMEM;
        mill_column_unref(col);
        *col = c = m;
    }
    stm_bits_fill(c->validity->data, c->view.offset + first, rows, false);
    __atomic_store_n(&c->nulls, -1, __ATOMIC_RELAXED);
    return MILL_OK;
}

static int64_t buffer_bytes(const mill_buffer *b) { return b != NULL ? (int64_t)stm_buffer_capacity(b) : 0; }

int64_t stm_column_bytes(const mill_column *c)
{
    int64_t n = buffer_bytes(c->validity) + buffer_bytes(c->offsets) + buffer_bytes(c->data);

    for (int32_t i = 0; i < c->n_children; i++) n += stm_column_bytes(c->children[i]);
    return c->base != NULL ? n + stm_column_bytes(c->base) : n;
}

int64_t stm_column_span(const mill_column *c, int64_t first, int64_t rows)
{
    const mill_view *v = stm_view(c);
    const int64_t at = v->offset + first;
    int64_t sum = 0;

    switch (v->type->id) {
    case MILL_BOOL: return (rows + 7) / 8;
    case MILL_UTF8:
    case MILL_BINARY:
    case MILL_JSON: return v->offsets[at + rows] - v->offsets[at];
    case MILL_LIST: return stm_column_span(v->children[0], v->offsets[at], v->offsets[at + rows] - v->offsets[at]);
    case MILL_FIXED_LIST: return stm_column_span(v->children[0], at * v->type->length, rows * v->type->length);
    case MILL_STRUCT:
        for (int32_t i = 0; i < v->type->n_fields; i++) sum += stm_column_span(v->children[i], at, rows);
        return sum;
    default: return rows * v->type->width;
    }
}
