#include "store/merged.h"

#include "core/alloc.h"

#define STM_MERGED_WIDTH 64 /* of keys, at most: STM_FLOW_MAX_KEY */

typedef struct head {
    stm_merged_input in;
    mill_batch *batch; /* NULL: nothing is left */
    int64_t row;
    size_t taken; /* of those held */
} head;

struct stm_merged {
    mill_pool *pool;
    head *heads;
    size_t n;
    int32_t n_columns, n_roots;
    uint64_t seq;
    int64_t frontier;
    bool begun, ended;
};

/* Row by row: rows of errors are few, and batches without any have no marks. */
static mill_status shift_marks(mill_batch *b, const stm_merged_input *in)
{
    mill_status st = MILL_OK;

    if (b->marks == NULL || in->errors == 0) return MILL_OK;
    for (int64_t r = 0; r < b->rows && st == MILL_OK; r++) {
        const mill_view v = mill_column_view(b->marks); /* another column after a change */
        const int64_t mark = ((const int64_t *)v.data)[v.offset + r], moved = mark + in->errors;
        if (mark != 0) st = stm_batch_impute(b, -1, r, 1, moved < in->most_errors ? moved : in->most_errors);
    }
    return st;
}

/* Without the rows that another input gives. */
static mill_status leave_out(stm_merged *m, head *h, mill_error *err)
{
    mill_batch *left = NULL;
    int64_t *index, n = 0;
    mill_status st = MILL_ERR_NOMEM;

    if (h->in.without == NULL || h->batch->rows == 0) return MILL_OK;
    if ((index = stm_malloc((size_t)h->batch->rows * sizeof *index)) != NULL) {
        for (int64_t r = 0; r < h->batch->rows; r++)
            if (!h->in.without(h->batch, r, h->in.user)) index[n++] = r;
        st = n < h->batch->rows ? stm_batch_gather(m->pool, h->batch, index, n, NULL, &left) : MILL_OK;
    }
    stm_free(index);
    if (st != MILL_OK) return mill_fail(err, st, "no memory to put streams together");
    if (left == NULL) return MILL_OK;
    mill_batch_destroy(&h->batch);
    h->batch = left;
    return MILL_OK;
}

static mill_status read_one(head *h, mill_error *err)
{
    uint64_t label;

    if (h->in.source != NULL) return stm_batch_source_next(h->in.source, &h->batch, &label, err);
    if (h->taken == h->in.n_held) return MILL_OK;
    h->batch = h->in.held[h->taken];
    h->in.held[h->taken++] = NULL;
    return MILL_OK;
}

/* To the next row of an input. */
static mill_status fill(stm_merged *m, head *h, mill_error *err)
{
    mill_status st = MILL_OK;

    while (st == MILL_OK && (h->batch == NULL || h->row == h->batch->rows)) {
        mill_batch_destroy(&h->batch);
        h->row = 0;
        if ((st = read_one(h, err)) != MILL_OK || h->batch == NULL) break;
        if ((st = leave_out(m, h, err)) != MILL_OK) break;
        if ((st = shift_marks(h->batch, &h->in)) != MILL_OK) st = mill_fail(err, st, "no memory to put streams together");
    }
    return st;
}

static int compare(const head *a, int64_t row, const head *b) { return stm_batch_key_compare(a->batch, row, b->batch, b->row); }

/* Two inputs, the one with the least key, and the one with the next; NULL: there is none. */
static void least_two(const stm_merged *m, head **first, head **second)
{
    *first = *second = NULL;
    for (size_t i = 0; i < m->n; i++) {
        head *h = &m->heads[i];
        if (h->batch == NULL) continue;
        if (*first == NULL || compare(h, h->row, *first) < 0)
            *second = *first, *first = h;
        else if (*second == NULL || compare(h, h->row, *second) < 0)
            *second = h;
    }
}

/* Rows below the next one are all given; behind the last one, those that were. */
static int64_t frontier_of(const stm_merged *m, const mill_batch *b)
{
    int64_t key[STM_MERGED_WIDTH], most = m->frontier;
    head *first, *second;

    least_two(m, &first, &second);
    if (first != NULL && first->batch->keys.width <= STM_MERGED_WIDTH) {
        stm_batch_key(first->batch, first->row, key);
        return key[0] > most ? key[0] : most;
    }
    if (b->rows > 0 && b->keys.width <= STM_MERGED_WIDTH) {
        stm_batch_key(b, b->rows - 1, key);
        if (key[0] + 1 > most) most = key[0] + 1;
    }
    return b->frontier[0] > most ? b->frontier[0] : most;
}

mill_status stm_merged_next(stm_merged *m, mill_batch **out, mill_error *err)
{
    head *first, *second;
    int64_t to;
    mill_status st = MILL_OK;

    *out = NULL;
    if (m->ended) return MILL_OK;
    for (size_t i = 0; i < m->n && !m->begun && st == MILL_OK; i++) st = fill(m, &m->heads[i], err);
    if (st != MILL_OK) return st;
    m->begun = true;
    least_two(m, &first, &second);
    if (first == NULL) {
        st = stm_batch_create(m->pool, 0, m->n_columns, m->n_roots, out);
    } else {
        if (second != NULL && compare(first, first->row, second) == 0)
            return mill_fail(err, MILL_ERR_DATA, "a row was made by two of the runs that are put together");
        for (to = first->row + 1; to < first->batch->rows && (second == NULL || compare(first, to, second) < 0);) to++;
        st = stm_batch_slice(first->batch, first->row, to - first->row, out);
        first->row = to;
    }
    if (st != MILL_OK) return mill_fail(err, st, "no memory to put streams together");
    if (first != NULL && (st = fill(m, first, err)) != MILL_OK) {
        mill_batch_destroy(out);
        return st;
    }
    m->ended = true;
    for (size_t i = 0; i < m->n; i++) m->ended = m->ended && m->heads[i].batch == NULL;
    (*out)->seq = m->seq++;
    (*out)->end = m->ended;
    (*out)->borders = (*out)->skipped = 0;
    (*out)->frontier[0] = m->frontier = frontier_of(m, *out);
    (*out)->frontier[1] = 0;
    return MILL_OK;
}

mill_status stm_merged_skip(stm_merged *m, uint64_t n, const char *who, mill_error *err)
{
    mill_status st = MILL_OK;

    for (; n > 0 && st == MILL_OK; n--) {
        mill_batch *b = NULL;
        st = stm_merged_next(m, &b, err);
        if (st == MILL_OK && b == NULL)
            st = mill_fail(err, MILL_ERR_DATA, "the rows that are kept of %s are fewer than were read before", who);
        mill_batch_destroy(&b);
    }
    return st;
}

mill_status stm_merged_create(mill_pool *pool, const stm_merged_input *inputs, size_t n, int32_t n_columns, int32_t n_roots,
                              stm_merged **out, mill_error *err)
{
    stm_merged *m = stm_calloc(sizeof *m);

    if (m != NULL) m->heads = stm_calloc((n + 1) * sizeof *m->heads);
    if (m == NULL || m->heads == NULL) {
        for (size_t i = 0; i < n; i++) {
            stm_batch_source *s = inputs[i].source;
            stm_batch_source_destroy(&s);
        }
        stm_free(m);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory to put streams together");
    }
    m->pool = pool;
    m->n = n;
    m->n_columns = n_columns;
    m->n_roots = n_roots;
    for (size_t i = 0; i < n; i++) m->heads[i].in = inputs[i];
    *out = m;
    return MILL_OK;
}

void stm_merged_destroy(stm_merged **merged)
{
    stm_merged *m = *merged;

    if (m == NULL) return;
    *merged = NULL;
    for (size_t i = 0; i < m->n; i++) {
        mill_batch_destroy(&m->heads[i].batch);
        stm_batch_source_destroy(&m->heads[i].in.source);
    }
    stm_free(m->heads);
    stm_free(m);
}
