/* bf16: the upper half of a float32. Rounding to nearest, ties to even; NaN stays NaN. */
#ifndef STM_KERNELS_BF16_H
#define STM_KERNELS_BF16_H

#include <stdint.h>
#include <string.h>

static inline uint16_t stm_bf16_of(float v)
{
    uint32_t u;

    memcpy(&u, &v, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40); /* quiet; rounding could make it infinite */
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static inline float stm_bf16_to(uint16_t h)
{
    const uint32_t u = (uint32_t)h << 16;
    float v;

    memcpy(&v, &u, sizeof v);
    return v;
}

/** out[i] = bf16 of in[i], i < n. Same bits as stm_bf16_of at every level but for denormals, which may become 0 (the
 *  processor's instruction does so; 1e-38 is no matter here). Threads: any. */
void stm_to_bf16(const float *in, uint16_t *out, int64_t n);
/** out[i] = float of in[i]; exact. */
void stm_from_bf16(const uint16_t *in, float *out, int64_t n);

#endif
