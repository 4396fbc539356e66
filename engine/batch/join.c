/* Concat and gather: columns through builders, then keys, marks and imputation. */
#include "batch/batch.h"

#include <string.h>

#include "batch/builder.h"
#include "batch/column.h"
#include "batch/keys.h"
#include "batch/move.h"
#include "batch/site.h"
#include "batch/type.h"

mill_status stm_column_concat(mill_pool *pool, mill_column *const *cols, size_t n, const mill_type *type, mill_column **out)
{
    mill_builder *b;
    mill_status st;

    if (n == 1 && cols[0]->view.type == type) {
        *out = mill_column_ref(cols[0]);
        return MILL_OK;
    }
    for (size_t i = 0; i < n; i++)
        if (cols[i]->view.type != type) return MILL_ERR_TYPE;
    if ((st = mill_builder_create(pool, type, &b)) != MILL_OK) return st;
    for (size_t i = 0; i < n; i++) stm_builder_plan(b, cols[i], 0, cols[i]->view.rows);
    st = stm_builder_plan_done(b);
    for (size_t i = 0; i < n && st == MILL_OK; i++) st = stm_builder_append(b, cols[i], 0, cols[i]->view.rows);
    if (st == MILL_OK) st = mill_builder_finish(b, out);
    mill_builder_destroy(&b);
    return st;
}

mill_status stm_column_gather(mill_pool *pool, const mill_column *col, const int64_t *index, int64_t n, mill_column **out)
{
    mill_builder *b;
    mill_status st;

    if (n < 0) return MILL_ERR_INVALID;
    for (int64_t i = 0; i < n; i++)
        if (index[i] < -1 || index[i] >= col->view.rows) return MILL_ERR_INVALID;
    if ((st = mill_builder_create(pool, col->view.type, &b)) != MILL_OK) return st;
    st = stm_builder_room(b, n, 0);
    if (st == MILL_OK) st = stm_builder_gather(b, col, index, n);
    if (st == MILL_OK) st = mill_builder_finish(b, out);
    mill_builder_destroy(&b);
    return st;
}

/* Which of a batch's columns a walk is about. */
typedef enum part { COLUMNS, MARKS, IMPUTED } part;

static mill_column *part_of(const mill_batch *b, part p, int32_t i)
{
    if (b == NULL) return NULL;
    if (p == MARKS) return b->marks;
    if (i >= b->n_columns) return NULL;
    if (p == IMPUTED) return b->imputed != NULL ? b->imputed[i] : NULL;
    return b->columns[i];
}

/* Marks and imputed bits of a batch that has none are 0, not null. */
static mill_status append_zeros(mill_builder *b, int64_t n)
{
    mill_status st = mill_builder_reserve(b, n, 0);

    for (int64_t i = 0; i < n && st == MILL_OK; i++)
        st = b->type->id == MILL_BOOL ? mill_builder_bool(b, false) : mill_builder_int(b, 0);
    return st;
}

static mill_status concat_part(mill_pool *pool, const stm_run_of_rows *runs, size_t n, part p, int32_t i, const mill_type *type,
                               mill_column **out)
{
    mill_builder *b;
    bool any = false;
    mill_status st;

    for (size_t k = 0; k < n; k++) {
        const mill_column *c = part_of(runs[k].batch, p, i);

        if (c == NULL) continue;
        if (c->view.type != type) return MILL_ERR_TYPE;
        any = true;
    }
    if (!any) return MILL_OK; /* stays NULL: null in every row, nothing marked */
    if ((st = mill_builder_create(pool, type, &b)) != MILL_OK) return st;
    for (size_t k = 0; k < n; k++) stm_builder_plan(b, part_of(runs[k].batch, p, i), runs[k].first, runs[k].rows);
    st = stm_builder_plan_done(b);
    for (size_t k = 0; k < n && st == MILL_OK; k++) {
        const mill_column *c = part_of(runs[k].batch, p, i);

        if (c != NULL)
            st = stm_builder_append(b, c, runs[k].first, runs[k].rows);
        else
            st = p == COLUMNS ? stm_builder_nulls(b, runs[k].rows) : append_zeros(b, runs[k].rows);
    }
    if (st == MILL_OK) st = mill_builder_finish(b, out);
    mill_builder_destroy(&b);
    return st;
}

static mill_status new_imputed(mill_batch *b)
{
    const size_t bytes = (size_t)b->n_columns * sizeof *b->imputed;

    b->imputed = stm_pool_take(b->pool, bytes);
    if (b->imputed == NULL) return MILL_ERR_NOMEM;
    memset(b->imputed, 0, bytes);
    return MILL_OK;
}

/* One run of one batch with the asked shape: cut, do not copy. */
static mill_status from_slice(const stm_run_of_rows *run, const mill_type *const *types, int32_t n_columns, int32_t n_roots,
                              mill_batch **out)
{
    const mill_batch *src = run->batch;
    mill_batch *cut, *b;
    mill_status st;

    for (int32_t i = 0; i < n_columns && i < src->n_columns; i++)
        if (src->columns[i] != NULL && src->columns[i]->view.type != types[i]) return MILL_ERR_TYPE;
    if ((st = stm_batch_slice(src, run->first, run->rows, &cut)) != MILL_OK) return st;
    if ((st = stm_batch_create(src->pool, run->rows, n_columns, n_roots, &b)) != MILL_OK) goto fail;
    if (cut->imputed != NULL && (st = new_imputed(b)) != MILL_OK) goto fail_both;
    for (int32_t i = 0; i < n_columns && i < src->n_columns; i++) {
        b->columns[i] = cut->columns[i];
        cut->columns[i] = NULL;
        if (cut->imputed == NULL) continue;
        b->imputed[i] = cut->imputed[i];
        cut->imputed[i] = NULL;
    }
    b->marks = cut->marks;
    b->keys = cut->keys;
    cut->marks = NULL;
    cut->keys.tuples = NULL;
    mill_batch_destroy(&cut);
    *out = b;
    return MILL_OK;
fail_both:
    mill_batch_destroy(&b);
fail:
    mill_batch_destroy(&cut);
    return st;
}

/* Column i of the runs: where it is. */
static mill_status concat_column(const stm_site *site, mill_pool *pool, const stm_run_of_rows *runs, size_t n, int32_t i,
                                 const mill_type *type, mill_column **out)
{
    bool away = false;

    for (size_t k = 0; k < n && site != NULL; k++) {
        const mill_column *c = part_of(runs[k].batch, COLUMNS, i);

        if (c == NULL) continue;
        if (c->view.type != type) return MILL_ERR_TYPE;
        away = away || stm_column_is_on_device(c, NULL);
    }
    return away ? site->concat(site->user, type, runs, n, i, out) : concat_part(pool, runs, n, COLUMNS, i, type, out);
}

mill_status stm_batch_concat(mill_pool *pool, const stm_run_of_rows *runs, size_t n, const mill_type *const *types,
                             int32_t n_columns, int32_t n_roots, mill_batch **out)
{
    return stm_batch_concat_at(NULL, pool, runs, n, types, n_columns, n_roots, out);
}

mill_status stm_batch_concat_at(const stm_site *site, mill_pool *pool, const stm_run_of_rows *runs, size_t n,
                                const mill_type *const *types, int32_t n_columns, int32_t n_roots, mill_batch **out)
{
    mill_batch *b;
    mill_status st;
    int64_t rows = 0;
    bool imputed = false;

    for (size_t k = 0; k < n; k++) {
        const stm_run_of_rows *r = &runs[k];

        if (r->first < 0 || r->rows < 0 || (r->batch != NULL && r->first > r->batch->rows - r->rows)) return MILL_ERR_INVALID;
        if (__builtin_add_overflow(rows, r->rows, &rows)) return MILL_ERR_INVALID;
        imputed |= r->batch != NULL && r->batch->imputed != NULL;
    }
    if (n == 1 && runs[0].batch != NULL) return from_slice(&runs[0], types, n_columns, n_roots, out);
    if ((st = stm_batch_create(pool, rows, n_columns, n_roots, &b)) != MILL_OK) return st;
    if ((st = stm_keys_concat(pool, runs, n, rows, &b->keys)) != MILL_OK) goto fail;
    for (int32_t i = 0; i < n_columns; i++)
        if ((st = concat_column(site, pool, runs, n, i, types[i], &b->columns[i])) != MILL_OK) goto fail;
    if ((st = concat_part(pool, runs, n, MARKS, 0, mill_type_plain(MILL_INT64), &b->marks)) != MILL_OK) goto fail;
    if (imputed && (st = new_imputed(b)) != MILL_OK) goto fail;
    for (int32_t i = 0; i < n_columns && imputed; i++)
        if ((st = concat_part(pool, runs, n, IMPUTED, i, mill_type_plain(MILL_BOOL), &b->imputed[i])) != MILL_OK) goto fail;
    *out = b;
    return MILL_OK;
fail:
    mill_batch_destroy(&b);
    return st;
}

/* As stm_column_gather, but rows of index -1 are 0 for marks and imputed bits. */
static mill_status gather_flags(mill_pool *pool, const mill_column *col, const int64_t *index, int64_t n, mill_column **out)
{
    mill_column *c;
    mill_status st;

    if (col == NULL) return MILL_OK;
    if ((st = stm_column_gather(pool, col, index, n, &c)) != MILL_OK) return st;
    mill_buffer_unref(&c->validity); /* values of null rows are zero */
    stm_column_fix_view(c);
    __atomic_store_n(&c->nulls, 0, __ATOMIC_RELAXED);
    *out = c;
    return MILL_OK;
}

mill_status stm_batch_gather(mill_pool *pool, const mill_batch *src, const int64_t *index, int64_t n, const mill_type *const *types,
                             mill_batch **out)
{
    return stm_batch_gather_at(NULL, pool, src, index, n, types, out);
}

mill_status stm_batch_gather_at(const stm_site *site, mill_pool *pool, const mill_batch *src, const int64_t *index, int64_t n,
                                const mill_type *const *types, mill_batch **out)
{
    mill_batch *b;
    mill_status st;
    bool run = n > 0;

    if (n < 0) return MILL_ERR_INVALID;
    for (int64_t i = 0; i < n; i++) {
        if (index[i] < -1 || index[i] >= src->rows) return MILL_ERR_INVALID;
        run &= index[i] >= 0 && index[i] == index[0] + i;
    }
    for (int32_t i = 0; i < src->n_columns; i++)
        if (src->columns[i] != NULL && types != NULL && src->columns[i]->view.type != types[i]) return MILL_ERR_TYPE;
    if (run) return stm_batch_slice(src, index[0], n, out); /* a filter that drops nothing, or only ends */
    if ((st = stm_batch_clone_empty(src, &b)) != MILL_OK) return st;
    b->rows = n;
    if ((st = stm_keys_gather(pool, src, index, n, &b->keys)) != MILL_OK) goto fail;
    for (int32_t i = 0; i < src->n_columns; i++) {
        const mill_column *c = src->columns[i];

        if (c == NULL) continue;
        st = site != NULL && stm_column_is_on_device(c, NULL) ? site->gather(site->user, c, index, n, &b->columns[i])
                                                              : stm_column_gather(pool, c, index, n, &b->columns[i]);
        if (st != MILL_OK) goto fail;
    }
    if ((st = gather_flags(pool, src->marks, index, n, &b->marks)) != MILL_OK) goto fail;
    if (src->imputed != NULL && (st = new_imputed(b)) != MILL_OK) goto fail;
    for (int32_t i = 0; i < src->n_columns && src->imputed != NULL; i++)
        if ((st = gather_flags(pool, src->imputed[i], index, n, &b->imputed[i])) != MILL_OK) goto fail;
    *out = b;
    return MILL_OK;
fail:
    mill_batch_destroy(&b);
    return st;
}
