/* bf16 products with AVX-512's pair dot products, and with AVX2 in f32 on the rounded values. With tiles: gemm_amx.c. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/gemm_forms.h"

#define INLINE static inline __attribute__((always_inline))
#define BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define AVX2 __attribute__((target("avx2,fma")))

/* ---- AVX-512 ------------------------------------------------------------------------------------------------------ */

BF16 INLINE void block512(const stm_gemm_part *g, int64_t i0, int rows, int panels, int64_t p)
{
    const stm_gemm_weight *const w = g->w;
    const int64_t k = g->to - g->from, step = w->k_padded * STM_GEMM_PANEL, lda = g->lda, ldc = g->ldc;
    const uint16_t *a = (const uint16_t *)g->a + i0 * lda, *b = (const uint16_t *)w->packed + p * step + g->from * STM_GEMM_PANEL;
    float *c = g->c + i0 * ldc + (p - g->first) * STM_GEMM_PANEL;
    __m512 acc[8][3];

    for (int j = 0; j < panels; j++) {
        const __m512 bias = _mm512_loadu_ps(w->bias + (p + j) * STM_GEMM_PANEL);
        const __mmask16 mask = (__mmask16)((1u << stm_gemm_cols(w, p + j)) - 1u);
        for (int i = 0; i < rows; i++)
            acc[i][j] = g->from == 0 ? bias : _mm512_maskz_loadu_ps(mask, c + i * ldc + j * STM_GEMM_PANEL);
    }
    for (int64_t q = 0; q < k; q += 2) {
        __m512bh col[3];
        for (int j = 0; j < panels; j++) col[j] = (__m512bh)_mm512_load_si512(b + j * step + q * STM_GEMM_PANEL);
        for (int i = 0; i < rows; i++) {
            uint32_t pair;
            memcpy(&pair, a + i * lda + q, sizeof pair);
            const __m512bh x = (__m512bh)_mm512_set1_epi32((int)pair);
            for (int j = 0; j < panels; j++) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], x, col[j]);
        }
    }
    for (int j = 0; j < panels; j++) {
        const __mmask16 mask = (__mmask16)((1u << stm_gemm_cols(w, p + j)) - 1u);
        for (int i = 0; i < rows; i++) _mm512_mask_storeu_ps(c + i * ldc + j * STM_GEMM_PANEL, mask, acc[i][j]);
    }
}

BF16 INLINE void rows512(const stm_gemm_part *g, int panels, int64_t p)
{
    int64_t i = 0;

    for (; i + 8 <= g->m; i += 8) block512(g, i, 8, panels, p);
    for (; i + 2 <= g->m; i += 2) block512(g, i, 2, panels, p);
    if (i < g->m) block512(g, i, 1, panels, p);
}

BF16 void stm_gemm_bf16_avx512(const stm_gemm_part *g)
{
    int64_t p = g->first;

    for (; p + 3 <= g->last; p += 3) rows512(g, 3, p);
    for (; p < g->last; p++) rows512(g, 1, p);
}

/* ---- AVX2: pairs are widened to two f32 (a shift, a mask) as they are read ------------------------------------------ */

AVX2 INLINE void block256(const stm_gemm_part *g, int64_t i0, int rows, int64_t p)
{
    const stm_gemm_weight *const w = g->w;
    const int64_t k = g->to - g->from, lda = g->lda, ldc = g->ldc;
    const uint16_t *a = (const uint16_t *)g->a + i0 * lda;
    const uint16_t *b = (const uint16_t *)w->packed + (p * w->k_padded + g->from) * STM_GEMM_PANEL;
    const int cols = stm_gemm_cols(w, p);
    float *c = g->c + i0 * ldc + (p - g->first) * STM_GEMM_PANEL;
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    __m256 acc[4][2];

    for (int i = 0; i < rows; i++) {
        float all[STM_GEMM_PANEL];
        memcpy(all, w->bias + p * STM_GEMM_PANEL, sizeof all);
        if (g->from > 0) memcpy(all, c + i * ldc, (size_t)cols * sizeof *all);
        acc[i][0] = _mm256_loadu_ps(all), acc[i][1] = _mm256_loadu_ps(all + 8);
    }
    for (int64_t q = 0; q < k; q += 2) {
        __m256 even[2], odd[2];
        for (int j = 0; j < 2; j++) {
            const __m256i pairs = _mm256_load_si256((const __m256i *)(b + q * STM_GEMM_PANEL) + j);
            even[j] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
            odd[j] = _mm256_castsi256_ps(_mm256_and_si256(pairs, upper));
        }
        for (int i = 0; i < rows; i++) {
            uint32_t pair;
            memcpy(&pair, a + i * lda + q, sizeof pair);
            const __m256i both = _mm256_set1_epi32((int)pair);
            const __m256 x0 = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            const __m256 x1 = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
            for (int j = 0; j < 2; j++) acc[i][j] = _mm256_fmadd_ps(x1, odd[j], _mm256_fmadd_ps(x0, even[j], acc[i][j]));
        }
    }
    for (int i = 0; i < rows; i++) {
        float all[STM_GEMM_PANEL];
        _mm256_storeu_ps(all, acc[i][0]), _mm256_storeu_ps(all + 8, acc[i][1]);
        memcpy(c + i * ldc, all, (size_t)cols * sizeof(float));
    }
}

AVX2 void stm_gemm_bf16_avx2(const stm_gemm_part *g)
{
    for (int64_t p = g->first; p < g->last; p++) {
        int64_t i = 0;
        for (; i + 4 <= g->m; i += 4) block256(g, i, 4, p);
        for (; i < g->m; i++) block256(g, i, 1, p);
    }
}
#endif
