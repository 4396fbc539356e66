/* The shell of a batch is one pool block: the struct, its columns, its coverage. */
#include "batch/batch.h"

#include <assert.h>
#include <string.h>

#include "batch/column.h"
#include "batch/spill.h"

enum { MAX_COLUMNS = 1 << 20 };

static size_t shell_bytes(int32_t n_columns, int32_t n_roots)
{
    return sizeof(mill_batch) + (size_t)n_columns * sizeof(mill_column *) + (size_t)n_roots * sizeof(int64_t);
}

mill_status stm_batch_create(mill_pool *pool, int64_t rows, int32_t n_columns, int32_t n_roots, mill_batch **out)
{
    mill_batch *b;
    size_t bytes;

    if (rows < 0 || n_columns < 0 || n_columns > MAX_COLUMNS || n_roots < 0 || n_roots > MAX_COLUMNS) return MILL_ERR_INVALID;
    bytes = shell_bytes(n_columns, n_roots);
    b = stm_pool_take(pool, bytes);
    if (b == NULL) return MILL_ERR_NOMEM;
    *b = (mill_batch){
        /* every member by name: what is left out would be cleared first, all of it */
        .pool = pool,
        .rows = rows,
        .seq = 0,
        .frontier = {0, 0},
        .covered = (int64_t *)((mill_column **)(b + 1) + n_columns),
        .borders = 0,
        .skipped = 0,
        .end = false,
        .failed = false,
        .n_roots = n_roots,
        .n_columns = n_columns,
        .keys = {.first = 0, .offset = 0, .tuples = NULL, .width = 1},
        .away_in = NULL,
        .away = 0,
        .marks = NULL,
        .imputed = NULL,
        .columns = (mill_column **)(b + 1),
    };
    for (int32_t i = 0; i < n_columns; i++) b->columns[i] = NULL; /* few: a call of memset costs more */
    for (int32_t i = 0; i < n_roots; i++) b->covered[i] = 0;
    *out = b;
    return MILL_OK;
}

mill_status mill_batch_create(mill_pool *pool, int64_t rows, int32_t n_columns, mill_batch **out)
{
    return stm_batch_create(pool, rows, n_columns, STM_BATCH_ROOTS, out);
}

void mill_batch_destroy(mill_batch **batch)
{
    mill_batch *b = *batch;

    if (b == NULL) return;
    *batch = NULL;
    if (__builtin_expect(b->away_in != NULL, 0)) stm_spill_drop(b->away_in, b->away);
    for (int32_t i = 0; i < b->n_columns; i++)
        if (b->columns[i] != NULL) mill_column_unref(&b->columns[i]);
    if (b->imputed != NULL) {
        for (int32_t i = 0; i < b->n_columns; i++) mill_column_unref(&b->imputed[i]);
        stm_pool_give(b->pool, b->imputed, (size_t)b->n_columns * sizeof *b->imputed);
    }
    if (b->marks != NULL) mill_column_unref(&b->marks);
    if (b->keys.tuples != NULL) mill_buffer_unref(&b->keys.tuples);
    stm_pool_give(b->pool, b, shell_bytes(b->n_columns, b->n_roots));
}

int64_t mill_batch_rows(const mill_batch *batch) { return batch->rows; }
int32_t mill_batch_columns(const mill_batch *batch) { return batch->n_columns; }

mill_column *mill_batch_column(const mill_batch *batch, int32_t i)
{
    return i >= 0 && i < batch->n_columns ? batch->columns[i] : NULL;
}

mill_status mill_batch_set_column(mill_batch *batch, int32_t i, mill_column **col)
{
    if (i < 0 || i >= batch->n_columns || (*col != NULL && (*col)->view.rows != batch->rows)) return MILL_ERR_INVALID;
    mill_column_unref(&batch->columns[i]);
    batch->columns[i] = *col;
    *col = NULL;
    return MILL_OK;
}

mill_status stm_batch_clone_empty(const mill_batch *src, mill_batch **out)
{
    mill_batch *b;
    const mill_status st = stm_batch_create(src->pool, 0, src->n_columns, src->n_roots, &b);

    if (st != MILL_OK) return st;
    stm_batch_copy_envelope(b, src);
    b->failed = src->failed;
    *out = b;
    return MILL_OK;
}

static mill_status slice_into(mill_column *col, int64_t first, int64_t rows, mill_column **out)
{
    return col != NULL ? stm_column_slice(col, first, rows, out) : MILL_OK;
}

mill_status stm_batch_slice(const mill_batch *src, int64_t first, int64_t rows, mill_batch **out)
{
    mill_batch *b;
    mill_status st;

    assert(!stm_batch_parked(src));
    if (first < 0 || rows < 0 || first > src->rows - rows) return MILL_ERR_INVALID;
    if ((st = stm_batch_clone_empty(src, &b)) != MILL_OK) return st;
    b->rows = rows;
    b->keys = src->keys;
    b->keys.tuples = NULL;
    if (src->keys.tuples != NULL) {
        b->keys.tuples = mill_buffer_ref(src->keys.tuples);
        b->keys.offset += first;
    } else {
        b->keys.first += first;
    }
    for (int32_t i = 0; i < src->n_columns; i++)
        if ((st = slice_into(src->columns[i], first, rows, &b->columns[i])) != MILL_OK) goto fail;
    if ((st = slice_into(src->marks, first, rows, &b->marks)) != MILL_OK) goto fail;
    if (src->imputed != NULL) {
        b->imputed = stm_pool_take(b->pool, (size_t)b->n_columns * sizeof *b->imputed);
        if (b->imputed == NULL) {
            st = MILL_ERR_NOMEM;
            goto fail;
        }
        memset(b->imputed, 0, (size_t)b->n_columns * sizeof *b->imputed);
        for (int32_t i = 0; i < src->n_columns; i++)
            if ((st = slice_into(src->imputed[i], first, rows, &b->imputed[i])) != MILL_OK) goto fail;
    }
    *out = b;
    return MILL_OK;
fail:
    mill_batch_destroy(&b);
    return st;
}

mill_status stm_batch_clone(const mill_batch *src, mill_batch **out) { return stm_batch_slice(src, 0, src->rows, out); }

int64_t stm_batch_bytes(const mill_batch *b)
{
    int64_t n = (int64_t)shell_bytes(b->n_columns, b->n_roots);

    for (int32_t i = 0; i < b->n_columns; i++) {
        if (b->columns[i] != NULL) n += stm_column_bytes(b->columns[i]);
        if (b->imputed != NULL && b->imputed[i] != NULL) n += stm_column_bytes(b->imputed[i]);
    }
    if (b->marks != NULL) n += stm_column_bytes(b->marks);
    if (b->keys.tuples != NULL) n += (int64_t)stm_buffer_capacity(b->keys.tuples);
    return n;
}
