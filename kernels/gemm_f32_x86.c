/*
 * f32 products with AVX2 and AVX-512. A block of C stays in registers over the whole of k: 8 rows x 3 panels of 16
 * columns (24 of 32 registers) or 6 rows x 1 panel (12 of 16). B's panels come from L2 once per block of rows, 16 bytes
 * a cycle; A's rows from L1 as broadcasts that ride on the multiply-adds.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/gemm_forms.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define AVX2 __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline))

/* Rows from @p i on, panels from @p p on. */
AVX512 INLINE void block512(const stm_gemm_part *g, int64_t i0, int rows, int panels, int64_t p)
{
    const stm_gemm_weight *const w = g->w;
    const int64_t k = g->to - g->from, step = w->k * STM_GEMM_PANEL, lda = g->lda, ldc = g->ldc;
    const float *a = (const float *)g->a + i0 * lda, *b = (const float *)w->packed + p * step + g->from * STM_GEMM_PANEL;
    float *c = g->c + i0 * ldc + (p - g->first) * STM_GEMM_PANEL;
    __m512 acc[8][3];

    for (int j = 0; j < panels; j++) {
        const __m512 bias = _mm512_loadu_ps(w->bias + (p + j) * STM_GEMM_PANEL);
        const __mmask16 mask = (__mmask16)((1u << stm_gemm_cols(w, p + j)) - 1u);
        for (int i = 0; i < rows; i++)
            acc[i][j] = g->from == 0 ? bias : _mm512_maskz_loadu_ps(mask, c + i * ldc + j * STM_GEMM_PANEL);
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

AVX512 INLINE void rows512(const stm_gemm_part *g, int panels, int64_t p)
{
    int64_t i = 0;

    for (; i + 8 <= g->m; i += 8) block512(g, i, 8, panels, p);
    if (i + 4 <= g->m) block512(g, i, 4, panels, p), i += 4;
    if (i + 2 <= g->m) block512(g, i, 2, panels, p), i += 2;
    if (i < g->m) block512(g, i, 1, panels, p);
}

AVX512 void stm_gemm_f32_avx512(const stm_gemm_part *g)
{
    int64_t p = g->first;

    for (; p + 3 <= g->last; p += 3) rows512(g, 3, p);
    for (; p < g->last; p++) rows512(g, 1, p);
}

AVX2 INLINE void block256(const stm_gemm_part *g, int64_t i0, int rows, int64_t p)
{
    const stm_gemm_weight *const w = g->w;
    const int64_t k = g->to - g->from, lda = g->lda, ldc = g->ldc;
    const float *a = (const float *)g->a + i0 * lda, *b = (const float *)w->packed + (p * w->k + g->from) * STM_GEMM_PANEL;
    const int cols = stm_gemm_cols(w, p);
    float *c = g->c + i0 * ldc + (p - g->first) * STM_GEMM_PANEL;
    __m256 acc[6][2];

    for (int i = 0; i < rows; i++) {
        float all[STM_GEMM_PANEL];
        memcpy(all, w->bias + p * STM_GEMM_PANEL, sizeof all);
        if (g->from > 0) memcpy(all, c + i * ldc, (size_t)cols * sizeof *all);
        acc[i][0] = _mm256_loadu_ps(all), acc[i][1] = _mm256_loadu_ps(all + 8);
    }
    for (int64_t q = 0; q < k; q++) {
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

AVX2 void stm_gemm_f32_avx2(const stm_gemm_part *g)
{
    for (int64_t p = g->first; p < g->last; p++) {
        int64_t i = 0;
        for (; i + 6 <= g->m; i += 6) block256(g, i, 6, p);
        for (; i + 2 <= g->m; i += 2) block256(g, i, 2, p);
        if (i < g->m) block256(g, i, 1, p);
    }
}
#endif
