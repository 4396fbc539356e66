/* Columns of an expression, looked up in the input of a step. */
#ifndef STM_STEPS_EXPR_LOOKUP_H
#define STM_STEPS_EXPR_LOOKUP_H

#include "stepmill/step.h"

MILL_BEGIN_DECLS

/** An stm_expr_lookup; @p user is the mill_io of configure. */
mill_status stm_expr_lookup_io(void *user, const char *name, const mill_type **type, int32_t *index, mill_error *err);

MILL_END_DECLS

#endif
