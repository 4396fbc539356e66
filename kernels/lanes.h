/*
 * Sixteen f32 lanes for a form of one instruction set. Included by a file that defines
 *   FORM(name)  the form's name for a function,   TARGET  its target attribute,
 *   LEVEL  0, 1, 2 or 3 (generic, AVX2, AVX-512, AVX-512 with bf16).
 * The compiler's vector types turn into one, two or four registers; lanes are always added in the same order.
 */
#ifndef STM_KERNELS_LANES_H
#define STM_KERNELS_LANES_H

#include <string.h>

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t i16x __attribute__((vector_size(64)));
typedef uint32_t u16x __attribute__((vector_size(64)));
typedef uint16_t h16 __attribute__((vector_size(32)));
#define LANE static inline __attribute__((always_inline)) TARGET
#define V16(x) ((v16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x})

LANE v16 FORM(load)(const float *p)
{
    v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}
LANE void FORM(store)(float *p, v16 v) { memcpy(p, &v, sizeof v); }
/* The first n < 16 lanes, the others @p fill. */
LANE v16 FORM(load_n)(const float *p, int64_t n, float fill)
{
    float t[16];
    for (int i = 0; i < 16; i++) t[i] = fill;
    memcpy(t, p, (size_t)n * sizeof *p);
    return FORM(load)(t);
}
LANE void FORM(store_n)(float *p, v16 v, int64_t n)
{
    float t[16];
    FORM(store)(t, v);
    memcpy(p, t, (size_t)n * sizeof *p);
}
LANE float FORM(sum)(v16 v)
{
    /* halves are added to halves: 8, 4, 2, 1 */
    typedef float v8 __attribute__((vector_size(32)));
    typedef float v4 __attribute__((vector_size(16)));
    v8 h[2];
    v4 q[2];

    memcpy(h, &v, sizeof h);
    h[0] += h[1];
    memcpy(q, &h[0], sizeof q);
    q[0] += q[1];
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}
LANE float FORM(largest)(v16 v)
{
    float t[16];
    FORM(store)(t, v);
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; i++) t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
    return t[0];
}
LANE v16 FORM(max)(v16 a, v16 b)
{
#if LEVEL >= 2
    return (v16)_mm512_max_ps((__m512)a, (__m512)b);
#else
    const i16x m = a > b;
    return (v16)(((i16x)a & m) | ((i16x)b & ~m));
#endif
}
LANE v16 FORM(min)(v16 a, v16 b)
{
#if LEVEL >= 2
    return (v16)_mm512_min_ps((__m512)a, (__m512)b);
#else
    const i16x m = a < b;
    return (v16)(((i16x)a & m) | ((i16x)b & ~m));
#endif
}

/* 2^t, t in [-126, 126]: a polynomial of degree 6 on [-0.5, 0.5] (error 2e-9) and the exponent put in place. Larger |t|
 * must be clamped before. */
LANE v16 FORM(exp2)(v16 t)
{
    const v16 magic = V16(12582912.0f); /* 1.5 * 2^23: adding it rounds to whole numbers */
    const v16 shifted = t + magic;
    const v16 f = t - (shifted - magic);
    v16 p = V16(1.5345806605e-4f);

    p = p * f + V16(1.3399935560e-3f);
    p = p * f + V16(9.6184890717e-3f);
    p = p * f + V16(5.5503286421e-2f);
    p = p * f + V16(2.4022646248e-1f);
    p = p * f + V16(6.9314718246e-1f);
    p = p * f + V16(1.0f);
    return (v16)((i16x)p + ((i16x)shifted << 23)); /* the low bits of `shifted` are the whole number */
}

/* Rounded to bf16. */
LANE h16 FORM(narrow)(v16 v)
{
#if LEVEL == 3
    return (h16)_mm512_cvtneps_pbh((__m512)v);
#else
    const u16x u = (u16x)v;
#if LEVEL == 2
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32((__m512i)u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32((__m512i)u, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
    const __m512i r = _mm512_mask_or_epi32(up, nan, (__m512i)u, _mm512_set1_epi32(0x400000));
    return (h16)_mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
#else
    const u16x up = (u + 0x7fffu + (u >> 16 & 1u)) >> 16, quiet = u >> 16 | 0x40u;
    const i16x nan = (u & 0x7fffffffu) > 0x7f800000u;
    return __builtin_convertvector((up & ~(u16x)nan) | (quiet & (u16x)nan), h16);
#endif
#endif
}
LANE void FORM(store_h)(uint16_t *p, v16 v, int64_t n)
{
    const h16 h = FORM(narrow)(v);
    memcpy(p, &h, (size_t)(n < 16 ? n : 16) * sizeof *p);
}

#endif
