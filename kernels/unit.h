/*
 * unit: vectors scaled to length 1, as bf16, for the screens of nearest.h.
 *
 *     out[r][i] = bf16(float(double(rows[r][i]) * (1 / length[r])))     i < dim; zeros up to the width, and where the length is 0
 *
 * Exact: no tolerance, but denormals of bf16 may become 0.
 */
#ifndef STM_KERNELS_UNIT_H
#define STM_KERNELS_UNIT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/both.h"
#include "stepmill/status.h"

MILL_BEGIN_DECLS

typedef struct stm_unit_args {
    const float *rows;    /* [n][dim], finite */
    const double *length; /* [n] stm_length of each: 0 or more */
    uint16_t *out;        /* [n][stm_unit_width(dim)]; aligned to 16; overlaps nothing */
    int64_t n;            /* 0 .. 2^31-1 */
    int32_t dim;          /* 1 .. 65536 */
} stm_unit_args;

/** Values of a row: whole steps of a matrix product. */
STM_BOTH int32_t stm_unit_width(int32_t dim) { return (dim + 31) / 32 * 32; }
static inline int stm_unit_fits(const stm_unit_args *a)
{
    return a->n >= 0 && a->n < (int64_t)1 << 31 && a->dim >= 1 && a->dim <= 65536 &&
           (a->n == 0 || (a->rows != NULL && a->length != NULL && a->out != NULL && (uintptr_t)a->out % 16 == 0));
}

void stm_unit_ref(const stm_unit_args *a);
mill_status stm_unit_cpu(const stm_unit_args *a);
mill_status stm_unit_cuda(const stm_unit_args *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
