/* How the values of an Arrow array lie, where that differs from ours. */
#ifndef STM_BATCH_ARROW_TYPE_H
#define STM_BATCH_ARROW_TYPE_H

#include "stepmill/arrow.h"

typedef enum stm_arrow_form {
    STM_ARROW_SAME,  /* as ours: shared */
    STM_ARROW_SMALL, /* 32-bit offsets */
    STM_ARROW_INT8,
    STM_ARROW_UINT8,
    STM_ARROW_INT16,
    STM_ARROW_UINT16,
    STM_ARROW_UINT32
} stm_arrow_form;

/** @p s describes a type that mill_arrow_import_type accepts. */
stm_arrow_form stm_arrow_form_of(const struct ArrowSchema *s);

#endif
