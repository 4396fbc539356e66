/* Plain C forms: the fallback of every level, and what the others are compared with. */
#include <math.h>
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/gemm_forms.h"

void stm_gemm_f32_generic(const stm_gemm_part *g)
{
    const stm_gemm_weight *const w = g->w;

    for (int64_t p = g->first; p < g->last; p++) {
        const float *b = (const float *)w->packed + (p * w->k + g->from) * STM_GEMM_PANEL;
        for (int64_t i = 0; i < g->m; i++) {
            const float *row = (const float *)g->a + i * g->lda;
            float acc[STM_GEMM_PANEL];
            float *c = g->c + i * g->ldc + (p - g->first) * STM_GEMM_PANEL;
            memcpy(acc, w->bias + p * STM_GEMM_PANEL, sizeof acc);
            if (g->from > 0) memcpy(acc, c, (size_t)stm_gemm_cols(w, p) * sizeof(float));
            for (int64_t q = 0; q < g->to - g->from; q++)
                for (int j = 0; j < STM_GEMM_PANEL; j++) acc[j] += row[q] * b[q * STM_GEMM_PANEL + j];
            memcpy(c, acc, (size_t)stm_gemm_cols(w, p) * sizeof(float));
        }
    }
}

void stm_gemm_bf16_generic(const stm_gemm_part *g)
{
    const stm_gemm_weight *const w = g->w;

    for (int64_t p = g->first; p < g->last; p++) {
        const uint16_t *b = (const uint16_t *)w->packed + (p * w->k_padded + g->from) * STM_GEMM_PANEL;
        for (int64_t i = 0; i < g->m; i++) {
            const uint16_t *row = (const uint16_t *)g->a + i * g->lda;
            float acc[STM_GEMM_PANEL];
            float *c = g->c + i * g->ldc + (p - g->first) * STM_GEMM_PANEL;
            memcpy(acc, w->bias + p * STM_GEMM_PANEL, sizeof acc);
            if (g->from > 0) memcpy(acc, c, (size_t)stm_gemm_cols(w, p) * sizeof(float));
            for (int64_t q = 0; q < g->to - g->from; q += 2) {
                const float x0 = stm_bf16_to(row[q]), x1 = stm_bf16_to(row[q + 1]);
                const uint16_t *pair = b + q * STM_GEMM_PANEL; /* tiles of 16 pair rows lie end to end */
                for (int j = 0; j < STM_GEMM_PANEL; j++)
                    acc[j] += x0 * stm_bf16_to(pair[2 * j]) + x1 * stm_bf16_to(pair[2 * j + 1]);
            }
            memcpy(c, acc, (size_t)stm_gemm_cols(w, p) * sizeof(float));
        }
    }
}
