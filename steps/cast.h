/* Columns of another type. */
#ifndef STM_STEPS_CAST_H
#define STM_STEPS_CAST_H

#include "stepmill/batch.h"

MILL_BEGIN_DECLS

/** Between bool, whole numbers, reals and text; json to text and back is the same bytes. */
bool stm_can_cast(const mill_type *from, const mill_type *to);
/**
 * @p col as a column of type @p to. Text gives a number or bool when the whole of it is one; reals give whole numbers only
 * when they have no fraction; text to json is checked by nobody. MILL_ERR_DATA: a value does not fit, @p err says which.
 * The caller owns *out.
 */
mill_status stm_cast(mill_pool *pool, mill_column *col, const mill_type *to, mill_column **out, mill_error *err);

MILL_END_DECLS

#endif
