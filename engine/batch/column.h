/* The column inside the engine. */
#ifndef STM_BATCH_COLUMN_H
#define STM_BATCH_COLUMN_H

#include "memory/buffer.h"
#include "stepmill/column.h"

/*
 * Three forms, told apart by what they own:
 *   root    owns all its buffers and children; base NULL
 *   masked  owns a validity of its own, the rest is its base's (a root)
 *   slice   owns nothing; base is a root or a masked column
 * A slice of a slice has the same base, a masked slice the root below: chains never grow past two, however often a column is
 * cut. All but `nulls` is constant once the column is published; a sole holder may change it (stm_batch_impute).
 */
struct mill_column {
    int32_t refs;       /* atomic */
    int32_t n_children; /* owned, in children */
    mill_pool *pool;
    mill_column *base;
    mill_view view;     /* without null_count */
    int64_t nulls;      /* atomic, relaxed; -1 = not counted yet: every counter finds the same */
    mill_buffer *validity, *offsets, *data;
    mill_column *children[];
};

/** A root without buffers and children yet: refs 1, zeroed; NULL when out of memory. */
mill_column *stm_column_new(mill_pool *pool, const mill_type *type, int64_t rows);
/** Point the view at the buffers that a root owns. */
void stm_column_fix_view(mill_column *c);
/** The view without counting nulls. */
static inline const mill_view *stm_view(const mill_column *c) { return &c->view; }
int64_t stm_column_null_count(const mill_column *c);
/** A column like @p c with null rows [first, first + rows), too. Takes over the reference *@p c and replaces it on success;
 *  writes in place when nobody else holds it. */
mill_status stm_column_mask(mill_pool *pool, mill_column **c, int64_t first, int64_t rows);

#endif
