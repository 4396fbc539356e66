/*
 * minhash: for each text 128 numbers, of which two texts share about as many as their sets of shingles overlap (Jaccard).
 *
 *     out[r][j] = min over the shingles s of text r of (mix(s) * a_j + b_j) mod 2^32        j = 0 .. 127
 *
 * Shingles are the windows of `width` bytes; a shorter text is one shingle, an empty one has none (all bits set). mix is FNV-1a
 * with the finish of MurmurHash3 over 32 bits; a_j (odd) and b_j come from the seed by splitmix64. Bytes, not characters: no
 * normalisation, equal bytes give equal numbers everywhere. Exact: no tolerance.
 */
#ifndef STM_KERNELS_MINHASH_H
#define STM_KERNELS_MINHASH_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/both.h"
#include "stepmill/ops.h"

MILL_BEGIN_DECLS

#define STM_MINHASHES MILL_MINHASHES
#define STM_SHINGLE_MAX MILL_SHINGLE_MAX

typedef struct stm_minhash_args {
    const uint8_t *bytes;   /* texts end to end */
    const int64_t *offsets; /* [rows + 1] ascending, from any number on */
    int64_t rows;           /* 0 .. 2^31-1 */
    int32_t width;          /* bytes of a shingle: 1 .. STM_SHINGLE_MAX */
    uint64_t seed;
    uint32_t *out; /* [rows][STM_MINHASHES]; overlaps nothing */
} stm_minhash_args;

static inline int stm_minhash_fits(const stm_minhash_args *a)
{
    return a->rows >= 0 && a->rows < (int64_t)1 << 31 && a->width >= 1 && a->width <= STM_SHINGLE_MAX &&
           (a->rows == 0 || (a->offsets != NULL && a->out != NULL));
}

STM_BOTH uint32_t stm_shingle(const uint8_t *s, int32_t n)
{
    uint32_t h = 0x811c9dc5u;

    for (int32_t i = 0; i < n; i++) h = (h ^ s[i]) * 0x01000193u;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}
/* The factors of number j. */
STM_BOTH uint64_t stm_minhash_factors(uint64_t seed, int32_t j)
{
    uint64_t z = seed + 0x9e3779b97f4a7c15u * ((uint64_t)j + 1);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31; /* a_j = upper half | 1, b_j = lower half */
}

/** What mill_minhash checks first. */
mill_status stm_minhash_check(const mill_minhash_args *a, mill_error *err);
void stm_minhash_ref(const stm_minhash_args *a);
mill_status stm_minhash_cpu(const stm_minhash_args *a);
mill_status stm_minhash_cuda(const stm_minhash_args *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
