/* Types inside the engine: nesting depth, so that whatever walks a type may recurse. */
#ifndef STM_BATCH_TYPE_H
#define STM_BATCH_TYPE_H

#include "stepmill/type.h"

#define STM_TYPE_MAX_DEPTH 64 /* deeper types cannot be made */
#define STM_TYPE_MAX_FIELDS 65536

static inline bool stm_type_is_text(const mill_type *t) { return t->id == MILL_UTF8 || t->id == MILL_BINARY || t->id == MILL_JSON; }
/** Types with a values buffer: numbers (width bytes) and bool (bits). */
static inline bool stm_type_is_plain(const mill_type *t) { return t->id >= MILL_BOOL && t->id <= MILL_FLOAT64; }
static inline bool stm_type_has_offsets(const mill_type *t) { return stm_type_is_text(t) || t->id == MILL_LIST; }

/** Whether a name stands twice among @p fields; false when out of memory. */
bool stm_type_names_repeat(const mill_field *fields, int32_t n, bool *out);

#endif
