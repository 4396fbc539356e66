/*
 * bf16 products: with tiles (AMX), with AVX-512's pair dot products, and with AVX2 in f32 on the rounded values.
 *
 * Tiles: C is made in blocks of 32 rows x 32 columns (4 accumulators, 2 tiles of A, 2 of B: all 8 registers), so that
 * 4 loads feed 4 products. The accumulators start as the bias, loaded with stride 0.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/gemm_forms.h"
#include "kernels/tiles_x86.h"

#define INLINE static inline __attribute__((always_inline))
#define BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define AVX2 __attribute__((target("avx2,fma")))
#define TILE_VALUES (STM_GEMM_PANEL * STM_GEMM_PAIRS) /* bf16 values of a packed tile */

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

/* A tile of which only some columns are wanted. */
static void store_part(const float *tile, float *c, int64_t ldc, int cols)
{
    for (int i = 0; i < 16; i++) memcpy(c + i * ldc, tile + i * 16, (size_t)cols * sizeof(float));
}
#define TILE_STORE_COLS(t, ptr, ldc, cols)                      \
    do {                                                        \
        if ((cols) == STM_GEMM_PANEL) {                         \
            TILE_STORE(t, ptr, (ldc) * (int64_t)sizeof(float)); \
        } else {                                                \
            float part_[256] __attribute__((aligned(64)));      \
            TILE_STORE(t, part_, 64);                           \
            store_part(part_, ptr, ldc, cols);                  \
        }                                                       \
    } while (0)

void stm_gemm_bf16_amx(const stm_gemm_weight *w, const void *a_rows, int64_t lda, int64_t m, int64_t first, int64_t last, float *c,
                       int64_t ldc)
{
    const uint16_t *a = a_rows;
    const int64_t blocks = w->k_padded / STM_GEMM_PAIRS, panel = blocks * TILE_VALUES;
    const int64_t strip = 16 * lda, row_bytes = lda * (int64_t)sizeof(uint16_t), c_strip = 16 * ldc;

    /* Weights come from L3 where all of them are larger than L2. Processors do not see far enough ahead by themselves: each
     * step fetches so many lines of the next two panels that they are there when their turn comes (a third faster). */
    const int64_t ahead = m < 32 ? 0 : (32 + m / 32 - 1) / (m / 32);

    TILE_CONFIG(stm_tiles_full);
    for (int64_t p = first; p < last; p += 2) {
        const uint16_t *b0 = (const uint16_t *)w->packed + p * panel, *b1 = p + 1 < last ? b0 + panel : b0;
        const float *bias0 = w->bias + p * STM_GEMM_PANEL, *bias1 = p + 1 < last ? bias0 + STM_GEMM_PANEL : bias0;
        float *cp = c + (p - first) * STM_GEMM_PANEL;
        const uint16_t *next = b0 + 2 * panel; /* may pass the end: fetching is never a fault */

        for (int64_t i = 0; i < m; i += 32) {
            const uint16_t *a0 = a + i * lda;
            float *ci = cp + i * ldc;
            const bool second = i + 16 < m;

            TILE_LOAD(0, bias0, 0);
            TILE_LOAD(1, bias1, 0);
            if (second) {
                TILE_LOAD(2, bias0, 0);
                TILE_LOAD(3, bias1, 0);
                for (int64_t q = 0; q < blocks; q++) {
                    for (int64_t r = 0; r < ahead; r++, next += 32) __builtin_prefetch(next);
                    TILE_LOAD(6, b0 + q * TILE_VALUES, 64);
                    TILE_LOAD(4, a0 + q * STM_GEMM_PAIRS, row_bytes);
                    TILE_DOT(0, 4, 6);
                    TILE_LOAD(7, b1 + q * TILE_VALUES, 64);
                    TILE_DOT(1, 4, 7);
                    TILE_LOAD(5, a0 + strip + q * STM_GEMM_PAIRS, row_bytes);
                    TILE_DOT(2, 5, 6);
                    TILE_DOT(3, 5, 7);
                }
            } else {
                for (int64_t q = 0; q < blocks; q++) {
                    TILE_LOAD(6, b0 + q * TILE_VALUES, 64);
                    TILE_LOAD(4, a0 + q * STM_GEMM_PAIRS, row_bytes);
                    TILE_DOT(0, 4, 6);
                    TILE_LOAD(7, b1 + q * TILE_VALUES, 64);
                    TILE_DOT(1, 4, 7);
                }
            }
            TILE_STORE_COLS(0, ci, ldc, stm_gemm_cols(w, p));
            if (second) TILE_STORE_COLS(2, ci + c_strip, ldc, stm_gemm_cols(w, p));
            if (p + 1 < last) {
                TILE_STORE_COLS(1, ci + STM_GEMM_PANEL, ldc, stm_gemm_cols(w, p + 1));
                if (second) TILE_STORE_COLS(3, ci + c_strip + STM_GEMM_PANEL, ldc, stm_gemm_cols(w, p + 1));
            }
        }
    }
    TILE_RELEASE();
}

/* ---- AVX-512 ------------------------------------------------------------------------------------------------------ */

BF16 INLINE void block512(const stm_gemm_weight *w, const uint16_t *a, int64_t lda, int rows, int panels, int64_t p, float *c,
                          int64_t ldc)
{
    const int64_t step = w->k_padded * STM_GEMM_PANEL;
    const uint16_t *b = (const uint16_t *)w->packed + p * step;
    __m512 acc[8][3];

    for (int j = 0; j < panels; j++) {
        const __m512 bias = _mm512_loadu_ps(w->bias + (p + j) * STM_GEMM_PANEL);
        for (int i = 0; i < rows; i++) acc[i][j] = bias;
    }
    for (int64_t q = 0; q < w->k_padded; q += 2) {
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

BF16 INLINE void rows512(const stm_gemm_weight *w, const uint16_t *a, int64_t lda, int64_t m, int panels, int64_t p, float *c,
                         int64_t ldc)
{
    for (; m >= 8; m -= 8, a += 8 * lda, c += 8 * ldc) block512(w, a, lda, 8, panels, p, c, ldc);
    for (; m >= 2; m -= 2, a += 2 * lda, c += 2 * ldc) block512(w, a, lda, 2, panels, p, c, ldc);
    if (m >= 1) block512(w, a, lda, 1, panels, p, c, ldc);
}

BF16 void stm_gemm_bf16_avx512(const stm_gemm_weight *w, const void *a, int64_t lda, int64_t m, int64_t first, int64_t last,
                               float *c, int64_t ldc)
{
    for (; last - first >= 3; first += 3, c += 3 * STM_GEMM_PANEL) rows512(w, a, lda, m, 3, first, c, ldc);
    for (; last - first >= 1; first += 1, c += STM_GEMM_PANEL) rows512(w, a, lda, m, 1, first, c, ldc);
}

/* ---- AVX2: pairs are widened to two f32 (a shift, a mask) as they are read ------------------------------------------ */

AVX2 INLINE void block256(const stm_gemm_weight *w, const uint16_t *a, int64_t lda, int rows, int64_t p, float *c, int64_t ldc)
{
    const uint16_t *b = (const uint16_t *)w->packed + p * w->k_padded * STM_GEMM_PANEL;
    const float *bias = w->bias + p * STM_GEMM_PANEL;
    const int cols = stm_gemm_cols(w, p);
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    __m256 acc[4][2];

    for (int i = 0; i < rows; i++) acc[i][0] = _mm256_loadu_ps(bias), acc[i][1] = _mm256_loadu_ps(bias + 8);
    for (int64_t q = 0; q < w->k_padded; q += 2) {
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

AVX2 void stm_gemm_bf16_avx2(const stm_gemm_weight *w, const void *a, int64_t lda, int64_t m, int64_t first, int64_t last, float *c,
                             int64_t ldc)
{
    for (; first < last; first++, c += STM_GEMM_PANEL) {
        const uint16_t *row = a;
        int64_t i = 0;
        for (; i + 4 <= m; i += 4) block256(w, row + i * lda, lda, 4, first, c + i * ldc, ldc);
        for (; i < m; i++) block256(w, row + i * lda, lda, 1, first, c + i * ldc, ldc);
    }
}
#endif
