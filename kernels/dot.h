/* Sums of products in double, in one fixed order: the same bits on every processor. */
#ifndef STM_KERNELS_DOT_H
#define STM_KERNELS_DOT_H

#include <stdint.h>

/**
 * sum a[i] * b[i], i < n. Products of two float32 are exact in double; they are added into 16 lanes (lane i mod 16), the
 * lanes then in pairs (i, i + 8), (i, i + 4), ... A fused multiply-add therefore changes nothing, and every form below
 * has the bits of this definition. n >= 0; no alignment is needed. Threads: any.
 */
double stm_dot(const float *a, const float *b, int64_t n);
double stm_dot_ref(const float *a, const float *b, int64_t n);

#endif
