/* Runs of bits, least significant first: validity and bool values. No byte outside the run's own bytes is touched. */
#ifndef STM_BATCH_BITS_H
#define STM_BATCH_BITS_H

#include <stdbool.h>
#include <stdint.h>

static inline bool stm_bit(const void *bits, int64_t i) { return ((const uint8_t *)bits)[i >> 3] >> (i & 7) & 1; }
static inline void stm_bit_put(void *bits, int64_t i, bool v)
{
    uint8_t *b = (uint8_t *)bits + (i >> 3);

    *b = (uint8_t)((*b & ~(1u << (i & 7))) | (unsigned)v << (i & 7));
}
static inline int64_t stm_bits_bytes(int64_t n) { return (n >> 3) + ((n & 7) != 0); }
/** Set bits [from, from + n) to @p v. */
void stm_bits_fill(void *bits, int64_t from, int64_t n, bool v);
/** Copy @p n bits; the runs do not overlap. */
void stm_bits_copy(void *dst, int64_t dst_from, const void *src, int64_t src_from, int64_t n);
/** How many of bits [from, from + n) are set. */
int64_t stm_bits_count(const void *bits, int64_t from, int64_t n);

#endif
