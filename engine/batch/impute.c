#include <string.h>

#include "batch/batch.h"
#include "batch/bits.h"
#include "batch/column.h"
#include "batch/type.h"

/* A column of zeros in every row, all present. */
static mill_status zeros(mill_pool *pool, mill_type_id id, int64_t rows, mill_column **out)
{
    mill_status st = mill_column_nulls(pool, mill_type_plain(id), rows, out);

    if (st != MILL_OK) return st;
    mill_buffer_unref(&(*out)->validity);
    stm_column_fix_view(*out);
    __atomic_store_n(&(*out)->nulls, 0, __ATOMIC_RELAXED);
    return MILL_OK;
}

/* Make *col (NULL: zeros) writable: nobody else holds it or its data, and it starts at row 0. */
static mill_status own(mill_batch *b, mill_type_id id, mill_column **col)
{
    mill_column *c = *col, *copy;
    const mill_type *t = mill_type_plain(id);
    mill_status st;

    if (c != NULL && c->base == NULL && __atomic_load_n(&c->refs, __ATOMIC_ACQUIRE) == 1 && stm_buffer_unique(c->data))
        return MILL_OK;
    if ((st = zeros(b->pool, id, b->rows, &copy)) != MILL_OK) return st;
    if (c != NULL && id == MILL_BOOL)
        stm_bits_copy(copy->data->data, 0, c->view.data, c->view.offset, b->rows);
    else if (c != NULL && b->rows > 0)
        memcpy(copy->data->data, (const char *)c->view.data + c->view.offset * t->width, (size_t)(b->rows * t->width));
    mill_column_unref(col);
    *col = copy;
    return MILL_OK;
}

mill_status stm_batch_impute(mill_batch *b, int32_t column, int64_t first, int64_t rows, int64_t error)
{
    int64_t *mark;
    mill_status st;

    if (first < 0 || rows < 0 || first > b->rows - rows || column < -1 || column >= b->n_columns) return MILL_ERR_INVALID;
    if (rows == 0) return MILL_OK;
    /* make everything writable first, so that a failure shows nothing */
    if (error != 0 && (st = own(b, MILL_INT64, &b->marks)) != MILL_OK) return st;
    if (column >= 0) {
        if (b->imputed == NULL) {
            b->imputed = stm_pool_take(b->pool, (size_t)b->n_columns * sizeof *b->imputed);
            if (b->imputed == NULL) return MILL_ERR_NOMEM;
            memset(b->imputed, 0, (size_t)b->n_columns * sizeof *b->imputed);
        }
        if ((st = own(b, MILL_BOOL, &b->imputed[column])) != MILL_OK) return st;
        if (b->columns[column] != NULL && (st = stm_column_mask(b->pool, &b->columns[column], first, rows)) != MILL_OK) return st;
        stm_bits_fill(b->imputed[column]->data->data, first, rows, true);
    }
    if (error == 0) return MILL_OK;
    mark = b->marks->data->data;
    for (int64_t r = first; r < first + rows; r++) mark[r] = error;
    b->failed = true;
    return MILL_OK;
}

bool stm_batch_is_imputed(const mill_batch *b, int32_t column, int64_t r)
{
    const mill_column *c = b->imputed != NULL && column >= 0 && column < b->n_columns ? b->imputed[column] : NULL;

    return c != NULL && stm_bit(c->view.data, c->view.offset + r);
}
