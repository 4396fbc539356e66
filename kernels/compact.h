/*
 * compact: which rows are kept, in order.
 *
 *     index[0 .. *kept-1] = the r with keep[r] != 0, ascending          r = 0 .. rows-1
 *
 * Entries of index from *kept on are not written. gather with this index makes the columns. Exact: no tolerance.
 */
#ifndef STM_KERNELS_COMPACT_H
#define STM_KERNELS_COMPACT_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

MILL_BEGIN_DECLS

typedef struct stm_compact_args {
    const uint8_t *keep; /* [rows] bytes, 0 = drop */
    int64_t *index;      /* [rows] */
    int64_t *kept;       /* one */
    int64_t rows;        /* 0 .. 2^38 */
    void *scratch;       /* stm_compact_scratch_bytes(rows); aligned to 8; NULL on cpu */
} stm_compact_args;

#define STM_COMPACT_TILE 1024 /* rows that one block looks at */

/** One count per tile. */
static inline size_t stm_compact_scratch_bytes(int64_t rows)
{
    return (size_t)((rows + STM_COMPACT_TILE - 1) / STM_COMPACT_TILE) * sizeof(int64_t);
}
static inline int stm_compact_fits(const stm_compact_args *a)
{
    return a->rows >= 0 && a->rows <= (int64_t)1 << 38 && a->kept != NULL &&
           (a->rows == 0 || (a->keep != NULL && a->index != NULL));
}

void stm_compact_ref(const stm_compact_args *a);
mill_status stm_compact_cpu(const stm_compact_args *a);
mill_status stm_compact_cuda(const stm_compact_args *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
