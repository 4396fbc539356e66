/*
 * f32 products with AVX2 and AVX-512. A block of C stays in registers over the whole of k: 8 rows x 3 panels of 16
 * columns (24 of 32 registers) or 6 rows x 1 panel (12 of 16). B's panels come from L2 once per block of rows, 16 bytes
 * a cycle; A's rows from L1 as broadcasts that ride on the multiply-adds.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/gemm_forms.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define AVX2 __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline))

AVX512 INLINE void block512(const stm_gemm_weight *w, const float *a, int64_t lda, int rows, int panels, int64_t p, float *c,
                            int64_t ldc)
{
    const int64_t k = w->k, step = k * STM_GEMM_PANEL;
    const float *b = (const float *)w->packed + p * step;
    __m512 acc[8][3];

    for (int j = 0; j < panels; j++) {
        const __m512 bias = _mm512_loadu_ps(w->bias + (p + j) * STM_GEMM_PANEL);
        for (int i = 0; i < rows; i++) acc[i][j] = bias;
    }
    for (int64_t q = 0; q < k; q++) {
        __m512 col[3];
        for (int j = 0; j < panels; j++) col[j] = _mm512_load_ps(b + j * step + q * STM_GEMM_PANEL);
        for (int i = 0; i < rows; i++) {
            const __m512 x = _mm512_set1_ps(a[i * lda + q]);
            for (int j = 0; j < panels; j++) acc[i][j] = _mm512_fmadd_ps(x, col[j], acc[i][j]);
        }
    }
    for (int j = 0; j < panels; j++) {
        const __mmask16 mask = (__mmask16)((1u << stm_gemm_cols(w, p + j)) - 1u);
        for (int i = 0; i < rows; i++) _mm512_mask_storeu_ps(c + i * ldc + j * STM_GEMM_PANEL, mask, acc[i][j]);
    }
}

AVX512 INLINE void rows512(const stm_gemm_weight *w, const float *a, int64_t lda, int64_t m, int panels, int64_t p, float *c,
                           int64_t ldc)
{
    for (; m >= 8; m -= 8, a += 8 * lda, c += 8 * ldc) block512(w, a, lda, 8, panels, p, c, ldc);
    if (m >= 4) block512(w, a, lda, 4, panels, p, c, ldc), m -= 4, a += 4 * lda, c += 4 * ldc;
    if (m >= 2) block512(w, a, lda, 2, panels, p, c, ldc), m -= 2, a += 2 * lda, c += 2 * ldc;
    if (m >= 1) block512(w, a, lda, 1, panels, p, c, ldc);
}

AVX512 void stm_gemm_f32_avx512(const stm_gemm_weight *w, const void *a, int64_t lda, int64_t m, int64_t first, int64_t last,
                                float *c, int64_t ldc)
{
    for (; last - first >= 3; first += 3, c += 3 * STM_GEMM_PANEL) rows512(w, a, lda, m, 3, first, c, ldc);
    for (; last - first >= 1; first += 1, c += STM_GEMM_PANEL) rows512(w, a, lda, m, 1, first, c, ldc);
}

AVX2 INLINE void block256(const stm_gemm_weight *w, const float *a, int64_t lda, int rows, int64_t p, float *c, int64_t ldc)
{
    const float *b = (const float *)w->packed + p * w->k * STM_GEMM_PANEL, *bias = w->bias + p * STM_GEMM_PANEL;
    const int cols = stm_gemm_cols(w, p);
    __m256 acc[6][2];

    for (int i = 0; i < rows; i++) acc[i][0] = _mm256_loadu_ps(bias), acc[i][1] = _mm256_loadu_ps(bias + 8);
    for (int64_t q = 0; q < w->k; q++) {
        const __m256 lo = _mm256_load_ps(b + q * STM_GEMM_PANEL), hi = _mm256_load_ps(b + q * STM_GEMM_PANEL + 8);
        for (int i = 0; i < rows; i++) {
            const __m256 x = _mm256_set1_ps(a[i * lda + q]);
            acc[i][0] = _mm256_fmadd_ps(x, lo, acc[i][0]);
            acc[i][1] = _mm256_fmadd_ps(x, hi, acc[i][1]);
        }
    }
    for (int i = 0; i < rows; i++) {
        if (cols == STM_GEMM_PANEL) {
            _mm256_storeu_ps(c + i * ldc, acc[i][0]);
            _mm256_storeu_ps(c + i * ldc + 8, acc[i][1]);
        } else {
            float all[STM_GEMM_PANEL];
            _mm256_storeu_ps(all, acc[i][0]), _mm256_storeu_ps(all + 8, acc[i][1]);
            for (int j = 0; j < cols; j++) c[i * ldc + j] = all[j];
        }
    }
}

AVX2 void stm_gemm_f32_avx2(const stm_gemm_weight *w, const void *a, int64_t lda, int64_t m, int64_t first, int64_t last, float *c,
                            int64_t ldc)
{
    for (; first < last; first++, c += STM_GEMM_PANEL) {
        const float *row = a;
        int64_t i = 0;
        for (; i + 6 <= m; i += 6) block256(w, row + i * lda, lda, 6, first, c + i * ldc, ldc);
        for (; i + 2 <= m; i += 2) block256(w, row + i * lda, lda, 2, first, c + i * ldc, ldc);
        if (i < m) block256(w, row + i * lda, lda, 1, first, c + i * ldc, ldc);
    }
}
#endif
