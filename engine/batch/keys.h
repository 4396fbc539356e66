/* Keys of rows: joining and gathering of tuples. */
#ifndef STM_BATCH_KEYS_H
#define STM_BATCH_KEYS_H

#include "batch/batch.h"

/** Keys of the rows of @p runs, one after the other. @p out holds a reference of its own to its tuples. */
mill_status stm_keys_concat(mill_pool *pool, const stm_run_of_rows *runs, size_t n, int64_t rows, stm_keys *out);
mill_status stm_keys_gather(mill_pool *pool, const mill_batch *src, const int64_t *index, int64_t n, stm_keys *out);

#endif
