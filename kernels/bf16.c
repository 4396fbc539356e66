#include "kernels/bf16.h"

#include "kernels/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

BF16 static void to_bf16_avx512(const float *in, uint16_t *out, int64_t n)
{
    int64_t i = 0;

    for (; i + 16 <= n; i += 16) _mm256_storeu_si256((__m256i *)(out + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(in + i)));
    if (i < n) {
        const __mmask16 mask = (__mmask16)((1u << (n - i)) - 1u);
        _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, in + i)));
    }
}
#endif

void stm_to_bf16(const float *in, uint16_t *out, int64_t n)
{
#if defined(__x86_64__)
    if (stm_cpu() >= STM_CPU_AVX512_BF16) {
        to_bf16_avx512(in, out, n);
        return;
    }
#endif
    for (int64_t i = 0; i < n; i++) out[i] = stm_bf16_of(in[i]);
}

void stm_from_bf16(const uint16_t *in, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) out[i] = stm_bf16_to(in[i]);
}
