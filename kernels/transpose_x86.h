/* Transposing 16 x 16 words of 32 bits in registers. */
#ifndef STM_KERNELS_TRANSPOSE_X86_H
#define STM_KERNELS_TRANSPOSE_X86_H

#include <immintrin.h>

#define STM_TRANSPOSE_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))

/* r[i] word j <-> r[j] word i: within 128-bit lanes by unpacking, then lanes by two rounds of shuffles. */
STM_TRANSPOSE_TARGET static inline __attribute__((always_inline)) void stm_transpose16(__m512i r[16])
{
    __m512i t[16];

    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* r[i + c]: column c (mod 4) of rows i .. i+3, in each lane */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int c = 0; c < 4; c++) { /* lanes: r[c], r[4 + c], r[8 + c], r[12 + c] hold rows 0-3, 4-7, 8-11, 12-15 */
        t[c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        t[8 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    }
    for (int c = 0; c < 4; c++) {
        r[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);
        r[8 + c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xdd);
        r[4 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);
        r[12 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xdd);
    }
}

#endif
