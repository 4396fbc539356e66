/* Where columns are put together that are in the memory of a device. */
#ifndef STM_BATCH_SITE_H
#define STM_BATCH_SITE_H

#include "batch/batch.h"

/** Made by whoever has streams and memory there (wrapper/assemble.c); only columns with a buffer on a device are given to it. What
 *  it makes is on its device, or on the host where that was the way that was left. Threads: the one that drives it. */
typedef struct stm_site {
    void *user;
    /** Rows of column @p column of @p runs, one after the other, as of stm_batch_concat: a run without a batch, or without that
     *  column, is nulls. */
    mill_status (*concat)(void *user, const mill_type *type, const stm_run_of_rows *runs, size_t n, int32_t column,
                          mill_column **out);
    /** Rows index[i] of @p col, -1 = null; checked already. */
    mill_status (*gather)(void *user, const mill_column *col, const int64_t *index, int64_t n, mill_column **out);
} stm_site;

/** stm_batch_concat and stm_batch_gather where columns may be on a device; @p site NULL = none is. */
mill_status stm_batch_concat_at(const stm_site *site, mill_pool *pool, const stm_run_of_rows *runs, size_t n,
                                const mill_type *const *types, int32_t n_columns, int32_t n_roots, mill_batch **out);
mill_status stm_batch_gather_at(const stm_site *site, mill_pool *pool, const mill_batch *src, const int64_t *index, int64_t n,
                                const mill_type *const *types, mill_batch **out);

#endif
