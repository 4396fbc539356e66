/* Recipes: which rows of which batches make a ready batch. Made under the inlet's lock, carried out without. */
#include "batch/spill.h"
#include "flow/internal.h"

#include <string.h>

stm_run_of_rows *stm_recipe_runs(stm_recipe *r, int32_t column) { return (stm_run_of_rows *)(r + 1) + (size_t)column * r->n_runs; }

stm_held **stm_recipe_held(stm_recipe *r, int32_t column)
{
    return (stm_held **)stm_recipe_runs(r, r->columns) + (size_t)column * r->n_runs;
}

int32_t *stm_recipe_branch(stm_recipe *r) { return (int32_t *)stm_recipe_held(r, r->columns); }

mill_status stm_recipe_create(stm_inlet *in, size_t n_runs, int64_t rows, stm_recipe **out)
{
    size_t entries = (size_t)in->n_columns * n_runs;
    size_t bytes = sizeof(stm_recipe) + entries * (sizeof(stm_run_of_rows) + sizeof(stm_held *)) + n_runs * sizeof(int32_t);
    stm_recipe *r = stm_pool_take(in->pool, bytes);
    if (!r) return MILL_ERR_NOMEM;
    memset(r, 0, bytes);
    r->pool = in->pool;
    r->bytes = bytes;
    r->n_runs = n_runs;
    r->columns = in->n_columns;
    r->union_keys = in->mode == STM_INPUT_UNION;
    r->by_key = in->by_key;
    if (stm_batch_create(in->pool, rows, 0, in->n_roots, &r->envelope) != MILL_OK) {
        stm_pool_give(in->pool, r, bytes);
        return MILL_ERR_NOMEM;
    }
    *out = r;
    return MILL_OK;
}

void stm_recipe_destroy(stm_recipe *r)
{
    stm_held **held = stm_recipe_held(r, 0);
    for (size_t i = 0; i < (size_t)r->columns * r->n_runs; i++)
        if (held[i]) stm_held_drop(held[i]);
    mill_batch_destroy(&r->envelope);
    stm_pool_give(r->pool, r, r->bytes);
}

static void put_envelope(mill_batch *b, const mill_batch *e)
{
    b->seq = e->seq;
    b->frontier[0] = e->frontier[0];
    b->frontier[1] = e->frontier[1];
    if (e->n_roots > 0) memcpy(b->covered, e->covered, (size_t)e->n_roots * sizeof *b->covered);
    b->borders = e->borders;
    b->skipped = e->skipped;
    b->end = e->end;
}

/* Source of the key of a run: the first column that has these rows. */
static const stm_run_of_rows *key_source(stm_recipe *r, size_t run)
{
    for (int32_t c = 0; c < (r->by_key ? r->columns : 1); c++) {
        const stm_run_of_rows *s = &stm_recipe_runs(r, c)[run];
        if (s->batch) return s;
    }
    return NULL;
}

/* Keys that concat could not know: below a union, or of rows the first input does not have. */
static mill_status put_keys(stm_recipe *r, mill_pool *pool, mill_batch *b)
{
    bool needed = r->union_keys;
    int32_t width = 1, shift = r->union_keys ? 1 : 0;
    for (size_t i = 0; i < r->n_runs; i++) {
        const stm_run_of_rows *s = key_source(r, i);
        if (!stm_recipe_runs(r, 0)[i].batch) needed = true;
        if (s && s->batch->keys.width > width) width = s->batch->keys.width;
    }
    if (!needed || b->rows == 0) return MILL_OK;
    width += shift;
    mill_buffer *buf = NULL;
    mill_status st = mill_buffer_create(pool, (size_t)b->rows * (size_t)width * sizeof(int64_t), &buf);
    if (st != MILL_OK) return st;
    int64_t *t = mill_buffer_data(buf);
    int64_t fresh = r->fresh;
    for (size_t i = 0; i < r->n_runs; i++) {
        const stm_run_of_rows *s = key_source(r, i);
        int64_t rows = stm_recipe_runs(r, 0)[i].rows;
        for (int64_t k = 0; k < rows; k++, t += width) {
            for (int32_t e = 0; e < width; e++) t[e] = -1;
            if (shift) t[0] = stm_recipe_branch(r)[i];
            if (s)
                stm_batch_key(s->batch, s->first + k, t + shift);
            else
                t[0] = fresh++;
        }
    }
    mill_buffer_unref(&b->keys.tuples);
    b->keys = (stm_keys){.tuples = buf, .width = width};
    return MILL_OK;
}

mill_status stm_ready_build(stm_ready *ready, mill_pool *pool, const mill_type *const *const *types, const int32_t *n_columns,
                            mill_batch **out, mill_error *err)
{
    return stm_ready_build_at(ready, NULL, pool, types, n_columns, out, err);
}

mill_status stm_ready_build_at(stm_ready *ready, const stm_site *site, mill_pool *pool, const mill_type *const *const *types,
                               const int32_t *n_columns, mill_batch **out, mill_error *err)
{
    stm_recipe *r = ready->recipe;
    if (!r) {
        out[0] = ready->batch;
        *ready = (stm_ready){0};
        return MILL_OK;
    }
    mill_status st = MILL_OK;
    int32_t made = 0;
    for (size_t i = 0; i < (size_t)r->columns * r->n_runs; i++) { /* rows that waited on disk */
        const stm_held *h = stm_recipe_held(r, 0)[i];
        if (h && stm_batch_parked(h->batch) && (st = stm_batch_recall(h->batch, err)) != MILL_OK) return st;
    }
    for (; made < r->columns && st == MILL_OK; made++) {
        out[made] = NULL;
        if (r->n_runs == 0)
            st = stm_batch_create(pool, 0, n_columns[made], r->envelope->n_roots, &out[made]);
        else
            st = stm_batch_concat_at(site, pool, stm_recipe_runs(r, made), r->n_runs, types[made], n_columns[made],
                                     r->envelope->n_roots, &out[made]);
        if (st == MILL_OK) put_envelope(out[made], r->envelope);
    }
    if (st == MILL_OK) st = put_keys(r, pool, out[0]);
    if (st != MILL_OK) {
        while (made > 0) mill_batch_destroy(&out[--made]);
        return mill_fail(err, st, "putting a batch of %lld rows together: %s", (long long)r->envelope->rows, mill_status_text(st));
    }
    stm_recipe_destroy(r);
    *ready = (stm_ready){0};
    return MILL_OK;
}

void stm_ready_discard(stm_ready *r)
{
    if (r->recipe)
        stm_recipe_destroy(r->recipe);
    else
        mill_batch_destroy(&r->batch);
    *r = (stm_ready){0};
}

void stm_ready_present(const stm_ready *ready, int32_t input, uint8_t *present)
{
    stm_recipe *r = ready->recipe;
    int64_t at = 0;

    if (!r) {
        memset(present, input == 0, (size_t)ready->batch->rows);
        return;
    }
    for (size_t i = 0; i < r->n_runs; i++) {
        const stm_run_of_rows *run = &stm_recipe_runs(r, input)[i];
        memset(present + at, run->batch != NULL, (size_t)run->rows);
        at += run->rows;
    }
}

int64_t stm_ready_rows(const stm_ready *ready) { return ready->recipe ? ready->recipe->envelope->rows : ready->batch->rows; }
