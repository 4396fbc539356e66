/*
 * A batch: rows in columns.
 *
 * Threads: owner, one at a time; who borrows a const batch only looks. Blocks: no. What gives no status cannot fail.
 */
#ifndef STEPMILL_BATCH_H
#define STEPMILL_BATCH_H

#include "stepmill/column.h"

MILL_BEGIN_DECLS

/** Rows in columns, with keys and error marks. One owner at a time; its columns are shared and immutable.
 *  A step sees its declared inputs as columns 0, 1, ... in the order of declaration. */
typedef struct mill_batch mill_batch;

/** A batch of @p rows rows and @p n_columns columns, all still NULL. The caller owns it (mill_batch_destroy).
 *  @retval MILL_ERR_INVALID  a number is out of range.
 *  @retval MILL_ERR_NOMEM    memory or the pool's limit is exhausted; *out is untouched. */
MILL_API mill_status mill_batch_create(mill_pool *pool, int64_t rows, int32_t n_columns, mill_batch **out);
/** Release it and its references; sets *batch to NULL, accepts NULL. */
MILL_API void mill_batch_destroy(mill_batch **batch);
MILL_API int64_t mill_batch_rows(const mill_batch *batch);
MILL_API int32_t mill_batch_columns(const mill_batch *batch);
/** Column @p i, borrowed; NULL = every row is null (a column that this batch does not have). */
MILL_API mill_column *mill_batch_column(const mill_batch *batch, int32_t i);
/** Put a column in place i: its reference is taken over and *col set to NULL. The old one is released.
 *  @retval MILL_ERR_INVALID  no such place, or another row count (then nothing changes). */
MILL_API mill_status mill_batch_set_column(mill_batch *batch, int32_t i, mill_column **col);

MILL_END_DECLS

#endif
