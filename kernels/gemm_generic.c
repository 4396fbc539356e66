/* Plain C forms: the fallback of every level, and what the others are compared with. */
#include <math.h>
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/gemm_forms.h"

void stm_gemm_f32_generic(const stm_gemm_weight *w, const void *a, int64_t lda, int64_t m, int64_t first, int64_t last, float *c,
                          int64_t ldc)
{
    for (int64_t p = first; p < last; p++) {
        const float *b = (const float *)w->packed + p * STM_GEMM_PANEL * w->k;
        for (int64_t i = 0; i < m; i++) {
            const float *row = (const float *)a + i * lda;
            float acc[STM_GEMM_PANEL];
            memcpy(acc, w->bias + p * STM_GEMM_PANEL, sizeof acc);
            for (int64_t q = 0; q < w->k; q++)
                for (int j = 0; j < STM_GEMM_PANEL; j++) acc[j] += row[q] * b[q * STM_GEMM_PANEL + j];
            memcpy(c + i * ldc + (p - first) * STM_GEMM_PANEL, acc, (size_t)stm_gemm_cols(w, p) * sizeof(float));
        }
    }
}

void stm_gemm_bf16_generic(const stm_gemm_weight *w, const void *a, int64_t lda, int64_t m, int64_t first, int64_t last, float *c,
                           int64_t ldc)
{
    for (int64_t p = first; p < last; p++) {
        const uint16_t *b = (const uint16_t *)w->packed + p * STM_GEMM_PANEL * w->k_padded;
        for (int64_t i = 0; i < m; i++) {
            const uint16_t *row = (const uint16_t *)a + i * lda;
            float acc[STM_GEMM_PANEL];
            memcpy(acc, w->bias + p * STM_GEMM_PANEL, sizeof acc);
            for (int64_t q = 0; q < w->k_padded; q += 2) {
                const float x0 = stm_bf16_to(row[q]), x1 = stm_bf16_to(row[q + 1]);
                const uint16_t *pair = b + q * STM_GEMM_PANEL; /* tiles of 16 pair rows lie end to end */
                for (int j = 0; j < STM_GEMM_PANEL; j++)
                    acc[j] += x0 * stm_bf16_to(pair[2 * j]) + x1 * stm_bf16_to(pair[2 * j + 1]);
            }
            memcpy(c + i * ldc + (p - first) * STM_GEMM_PANEL, acc, (size_t)stm_gemm_cols(w, p) * sizeof(float));
        }
    }
}
