/* Builders inside the engine: bulk appends, on which concat and gather stand. */
#ifndef STM_BATCH_BUILDER_H
#define STM_BATCH_BUILDER_H

#include "memory/buffer.h"
#include "stepmill/column.h"

/*
 * Rows [0, rows) are complete; children may be ahead by a record in the making. Buffers have room for cap_rows rows and
 * cap_bytes bytes. validity is made at the first null.
 */
struct mill_builder {
    mill_pool *pool;
    const mill_type *type;
    int64_t rows, cap_rows;
    int64_t bytes, cap_bytes;           /* text only */
    int64_t nulls;
    int64_t last_rows, last_bytes;      /* size of the last column: what the next one starts with */
    int64_t planned_rows, planned_bytes; /* stm_builder_plan */
    uint8_t *bits;                      /* of validity, or NULL */
    int64_t *off;                       /* of offsets */
    uint8_t *val;                       /* of data */
    mill_buffer *validity, *offsets, *data;
    mill_column *head;                  /* during finish */
    mill_builder *children[];           /* [type->n_fields] */
};

/** Append rows [first, first + n) of @p col, a column of the builder's type. All or nothing. */
mill_status stm_builder_append(mill_builder *b, const mill_column *col, int64_t first, int64_t n);
/** Append rows col[index[i]], nulls for index -1. All or nothing. Indices in range. */
mill_status stm_builder_gather(mill_builder *b, const mill_column *col, const int64_t *index, int64_t n);
/** Append @p n nulls. All or nothing. */
mill_status stm_builder_nulls(mill_builder *b, int64_t n);
/** Announce an append of these rows (@p col NULL: nulls), at every level; stm_builder_plan_done then makes room once. */
void stm_builder_plan(mill_builder *b, const mill_column *col, int64_t first, int64_t n);
mill_status stm_builder_plan_done(mill_builder *b);

/* for append.c */
mill_status stm_builder_room(mill_builder *b, int64_t rows, int64_t bytes);
/** A validity for cap_rows rows, those so far set. */
mill_status stm_builder_need_validity(mill_builder *b);

#endif
