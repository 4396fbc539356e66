/* float16 by hand: rounds to nearest, ties to even; NaN stays NaN. */
#ifndef STM_BATCH_HALF_H
#define STM_BATCH_HALF_H

#include <stdint.h>
#include <string.h>

/** Straight from double, so a value is rounded once. */
static inline uint16_t stm_half_from_double(double v)
{
    uint64_t bits, sig, half;
    uint16_t sign;
    int exp, shift;

    memcpy(&bits, &v, sizeof bits);
    sign = (uint16_t)(bits >> 48 & 0x8000);
    exp = (int)(bits >> 52 & 0x7FF);
    sig = bits & 0xFFFFFFFFFFFFFu;
    if (exp == 0x7FF) return (uint16_t)(sign | 0x7C00 | (sig != 0 ? 0x200 | (sig >> 42 & 0x3FF) : 0));
    if (exp < 1023 - 25) return sign;                       /* below half of the least subnormal */
    if (exp > 1023 + 15) return (uint16_t)(sign | 0x7C00);
    sig |= (uint64_t)1 << 52;
    shift = exp >= 1023 - 14 ? 42 : 42 + (1023 - 14 - exp); /* bits that fall away; more for subnormals */
    half = sig >> shift;
    sig &= ((uint64_t)1 << shift) - 1;
    if (sig > (uint64_t)1 << (shift - 1) || (sig == (uint64_t)1 << (shift - 1) && (half & 1) != 0)) half++;
    if (exp >= 1023 - 14) half += (uint64_t)(exp - (1023 - 14)) << 10; /* the hidden bit adds 1 to the exponent; a carry, too */
    return (uint16_t)(sign | half);
}

static inline float stm_half_to_float(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 0x1F, sig = h & 0x3FF;
    uint32_t bits;
    float f;

    if (exp == 0) {
        f = (float)sig * 0x1p-24f;
        return sign != 0 ? -f : f;
    }
    bits = exp == 0x1F ? sign | 0x7F800000u | sig << 13 : sign | (exp + 112) << 23 | sig << 13;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif
