/*
 * impute: the validity of a column in which some rows became null.
 *
 *     out[r] = valid[offset + r] and not failed[r]          r = 0 .. rows-1
 *
 * Bits stand as in Arrow: bit i is bit i % 8 of byte i / 8. The last byte of out is padded with zeros. Exact: no tolerance.
 */
#ifndef STM_KERNELS_IMPUTE_H
#define STM_KERNELS_IMPUTE_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

MILL_BEGIN_DECLS

typedef struct stm_impute_args {
    const uint8_t *valid;  /* bits offset .. offset + rows - 1; NULL = all set */
    int64_t offset;        /* >= 0 */
    const uint8_t *failed; /* bits 0 .. rows-1; NULL = all set */
    uint8_t *out;          /* [(rows + 7) / 8] bytes; overlaps neither input */
    int64_t rows;          /* 0 .. 2^46 */
} stm_impute_args;

/** Whether the contract allows them. */
static inline int stm_impute_fits(const stm_impute_args *a)
{
    return a->rows >= 0 && a->rows <= (int64_t)1 << 46 && a->offset >= 0 && (a->rows == 0 || a->out != NULL);
}

void stm_impute_ref(const stm_impute_args *a);
mill_status stm_impute_cpu(const stm_impute_args *a);
mill_status stm_impute_cuda(const stm_impute_args *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
