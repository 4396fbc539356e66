/* Packing: 16 rows of a weight become a panel, by transposing blocks of 16 x 16 words where AVX-512 can. */
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/cpu.h"
#include "kernels/gemm_forms.h"

#if defined(__x86_64__)
#include "kernels/transpose_x86.h"
#include <immintrin.h>
#define AVX512 STM_TRANSPOSE_TARGET

AVX512 static void pack_f32_avx512(const float *b, int64_t k, int rows, float *dst)
{
    for (int64_t q = 0; q < k; q += 16) {
        const int n = k - q < 16 ? (int)(k - q) : 16;
        const __mmask16 mask = (__mmask16)((1u << n) - 1u);
        __m512i r[16];
        for (int i = 0; i < 16; i++) r[i] = i < rows ? _mm512_maskz_loadu_epi32(mask, b + i * k + q) : _mm512_setzero_si512();
        stm_transpose16(r);
        for (int i = 0; i < n; i++) _mm512_store_si512(dst + (q + i) * STM_GEMM_PANEL, r[i]);
    }
}

/* 16 floats to bf16 in the lower halves of 16 words; as stm_bf16_of. */
AVX512 static inline __m512i round16(__m512i u)
{
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    const __mmask16 nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(u), _mm512_castsi512_ps(u), _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(up, nan, quiet);
}

AVX512 static inline __m256i narrow16(__mmask16 mask, const float *p)
{
    return _mm512_cvtepi32_epi16(round16(_mm512_maskz_loadu_epi32(mask, p)));
}

AVX512 static void pack_bf16_avx512(const float *b, int64_t k, int rows, uint16_t *dst)
{
    for (int64_t q = 0; q < k; q += STM_GEMM_PAIRS) {
        const int n = k - q < STM_GEMM_PAIRS ? (int)(k - q) : STM_GEMM_PAIRS;
        const uint32_t mask = n == 32 ? 0xffffffffu : (1u << n) - 1u;
        __m512i r[16];
        for (int i = 0; i < 16; i++) {
            const float *p = b + i * k + q;
            r[i] = i >= rows ? _mm512_setzero_si512()
                             : _mm512_inserti64x4(_mm512_castsi256_si512(narrow16((__mmask16)mask, p)),
                                                  narrow16((__mmask16)(mask >> 16), p + 16), 1);
        }
        stm_transpose16(r);
        for (int i = 0; i < 16; i++) _mm512_store_si512(dst + q * STM_GEMM_PANEL + i * 32, r[i]);
    }
}
#endif

void stm_gemm_pack_f32(const float *b, int64_t k, int rows, float *dst)
{
#if defined(__x86_64__)
    if (stm_cpu() >= STM_CPU_AVX512) {
        pack_f32_avx512(b, k, rows, dst);
        return;
    }
#endif
    for (int64_t q = 0; q < k; q++)
        for (int j = 0; j < STM_GEMM_PANEL; j++) dst[q * STM_GEMM_PANEL + j] = j < rows ? b[j * k + q] : 0.0f;
}

void stm_gemm_pack_bf16(const float *b, int64_t k, int rows, uint16_t *dst)
{
#if defined(__x86_64__)
    if (stm_cpu() >= STM_CPU_AVX512) {
        pack_bf16_avx512(b, k, rows, dst);
        return;
    }
#endif
    for (int64_t q = 0; q < (k + 1) / 2 * 2; q++)
        for (int j = 0; j < STM_GEMM_PANEL; j++)
            dst[q / 2 * 2 * STM_GEMM_PANEL + 2 * j + q % 2] = j < rows && q < k ? stm_bf16_of(b[j * k + q]) : 0;
    const int64_t done = (k + 1) / 2 * 2, all = (k + STM_GEMM_PAIRS - 1) / STM_GEMM_PAIRS * STM_GEMM_PAIRS;
    memset(dst + done * STM_GEMM_PANEL, 0, (size_t)((all - done) * STM_GEMM_PANEL) * sizeof *dst);
}
