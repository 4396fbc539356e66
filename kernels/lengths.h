/*
 * lengths: how long vectors are, and a hash of their bits, by which copies are found.
 *
 *     length[r] = stm_length(rows[r])       sqrt of the sum in double, in the order of dot.h; -1 where a component is not finite
 *     hash[r]   = sum of stm_value_hash(bits of rows[r][i], i) over i < dim, modulo 2^64: in any order
 *
 * Exact: no tolerance. So vectors that are on a device need not be looked at on the host before a search.
 */
#ifndef STM_KERNELS_LENGTHS_H
#define STM_KERNELS_LENGTHS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/both.h"
#include "stepmill/status.h"

MILL_BEGIN_DECLS

typedef struct stm_lengths_args {
    const float *rows; /* [n][dim]; aligned to 4 */
    double *length;    /* [n] */
    uint64_t *hash;    /* [n]; overlaps nothing, nor does length */
    int64_t n;         /* 0 .. 2^31-1 */
    int32_t dim;       /* 1 .. 65536 */
} stm_lengths_args;

/** Splitmix64 of a value's bits and its place. */
STM_BOTH uint64_t stm_value_hash(uint32_t bits, int32_t place)
{
    uint64_t x = ((uint64_t)bits << 32 | (uint32_t)place) + 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
static inline int stm_lengths_fits(const stm_lengths_args *a)
{
    return a->n >= 0 && a->n < (int64_t)1 << 31 && a->dim >= 1 && a->dim <= 65536 &&
           (a->n == 0 || (a->rows != NULL && a->length != NULL && a->hash != NULL));
}

void stm_lengths_ref(const stm_lengths_args *a);
mill_status stm_lengths_cpu(const stm_lengths_args *a);
mill_status stm_lengths_cuda(const stm_lengths_args *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
