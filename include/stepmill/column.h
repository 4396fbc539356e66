/*
 * A column: values of one type for some rows, Arrow layout, immutable once made, reference counted.
 *
 * Columns: Threads: any that holds a reference, or borrows one. Blocks: no. What gives no status cannot fail.
 */
#ifndef STEPMILL_COLUMN_H
#define STEPMILL_COLUMN_H

#include <stdbool.h>

#include "stepmill/buffer.h"
#include "stepmill/type.h"

MILL_BEGIN_DECLS

typedef struct mill_column mill_column;

/**
 * Plain pointers into a column's buffers, for reading. Row r of the column (0 .. rows-1) is element offset + r of
 * every pointer here: bit offset+r of validity, offsets[offset+r] .. offsets[offset+r+1], value offset+r of data.
 * Valid while the column is referenced.
 */
typedef struct mill_view {
    const mill_type *type;
    int64_t rows;
    int64_t offset;          /* elements before row 0 */
    int64_t null_count;      /* exact; -1: the validity is in the memory of a device (device.h) */
    const uint8_t *validity; /* bit set = value present; NULL = no nulls */
    const int64_t *offsets;  /* utf8, binary, json, list; else NULL */
    const void *data;        /* values (bool: bits), or bytes of utf8, binary, json; NULL for nested types */
    const mill_column *const *children; /* [type->n_fields]; a fixed list's row r holds child rows (offset + r) * length .. */
} mill_view;

/** Look inside. */
MILL_API mill_view mill_column_view(const mill_column *col);
MILL_API const mill_type *mill_column_type(const mill_column *col);
MILL_API int64_t mill_column_rows(const mill_column *col);
/** One more reference; returns @p col. */
MILL_API mill_column *mill_column_ref(mill_column *col);
/** Drop a reference and set *col to NULL; accepts NULL. The last drop returns its memory to the pool. */
MILL_API void mill_column_unref(mill_column **col);
/** Whether row @p r (0 .. rows-1) is null. As all that looks at values: of a column on the host. */
MILL_API bool mill_column_is_null(const mill_column *col, int64_t r);
/** Bytes of row @p r of a utf8, binary or json column: pointer into the column and length; NULL and 0 for a null row. */
MILL_API const char *mill_column_text(const mill_column *col, int64_t r, int64_t *bytes);

/**
 * Make a column of buffers. Every buffer is taken over on success (the caller's pointers are set to NULL);
 * on failure nothing changes. validity may be NULL (no nulls). Which of the others are needed: see mill_view.
 * @p children  array of type->n_fields columns, taken over on success; NULL for types without children.
 * @param out  On success a reference the caller owns (mill_column_unref); untouched on failure.
 * @retval MILL_ERR_INVALID  a buffer is missing or too small, or a child has too few rows; offsets themselves are not read.
 * @retval MILL_ERR_NOMEM    memory or the pool's limit is exhausted.
 */
MILL_API mill_status mill_column_create(mill_pool *pool, const mill_type *type, int64_t rows, mill_buffer **validity,
                                        mill_buffer **offsets, mill_buffer **data, mill_column **children,
                                        mill_column **out, mill_error *err);
/** @p rows nulls, a reference the caller owns.
 *  @retval MILL_ERR_INVALID  @p rows is out of range.
 *  @retval MILL_ERR_NOMEM    memory or the pool's limit is exhausted. */
MILL_API mill_status mill_column_nulls(mill_pool *pool, const mill_type *type, int64_t rows, mill_column **out);

/**
 * Builder: appends rows one by one to a column of any type. Memory comes from the pool and doubles as needed, so in
 * the steady state it makes no allocations. Threads: owner. Blocks: no. Every append leaves the builder as it was when it fails:
 * @retval MILL_ERR_TYPE   values of the builder's type cannot be appended by this call.
 * @retval MILL_ERR_NOMEM  the pool is exhausted.
 */
typedef struct mill_builder mill_builder;
/** An empty one, the caller's. MILL_ERR_INVALID: no type; MILL_ERR_NOMEM. */
MILL_API mill_status mill_builder_create(mill_pool *pool, const mill_type *type, mill_builder **out);
/** Release it and what was appended; sets *b to NULL, accepts NULL. Not of a child, which is its parent's. */
MILL_API void mill_builder_destroy(mill_builder **b);
MILL_API mill_status mill_builder_null(mill_builder *b);
MILL_API mill_status mill_builder_bool(mill_builder *b, bool v);
MILL_API mill_status mill_builder_int(mill_builder *b, int64_t v);   /* int32, int64; MILL_ERR_TYPE when out of range */
MILL_API mill_status mill_builder_float(mill_builder *b, double v);  /* float16/32/64 */
MILL_API mill_status mill_builder_text(mill_builder *b, const char *bytes, int64_t n); /* utf8, binary, json; not checked */
/** Lists: append the values to mill_builder_child(b, 0), then close the row. Fixed lists: exactly `length` values.
 *  Structs: one value to every child, then close the row. A child is borrowed. MILL_ERR_INVALID: children have another number of
 *  values. */
MILL_API mill_builder *mill_builder_child(mill_builder *b, int32_t i);
MILL_API mill_status mill_builder_close_row(mill_builder *b);
/** Room for @p rows more rows and @p bytes more bytes, zeroed out validity: for bulk writers. MILL_ERR_INVALID: less than none. */
MILL_API mill_status mill_builder_reserve(mill_builder *b, int64_t rows, int64_t bytes);
MILL_API int64_t mill_builder_rows(const mill_builder *b);
/** Cut back to @p rows rows (to undo a half-appended record). */
MILL_API void mill_builder_truncate(mill_builder *b, int64_t rows);
/** Hand over what was appended as a column, a reference the caller owns; the builder is empty afterwards and can go on.
 *  MILL_ERR_NOMEM: all is as it was. */
MILL_API mill_status mill_builder_finish(mill_builder *b, mill_column **out);

MILL_END_DECLS

#endif
