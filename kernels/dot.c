#include "kernels/dot.h"

#include "kernels/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LANES = 16 };

static double fold(double *s)
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}

static double finish(double *s, const float *a, const float *b, int64_t from, int64_t n)
{
    for (int64_t i = from; i < n; i++) s[i - from] += (double)a[i] * (double)b[i];
    return fold(s);
}

double stm_dot_ref(const float *a, const float *b, int64_t n)
{
    double s[LANES] = {0};

    for (int64_t i = 0; i < n; i++) s[i % LANES] += (double)a[i] * (double)b[i];
    return fold(s);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static double dot_avx512(const float *a, const float *b, int64_t n)
{
    __m512d lo = _mm512_setzero_pd(), hi = lo;
    double s[LANES];
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        lo = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i)), _mm512_cvtps_pd(_mm256_loadu_ps(b + i)), lo);
        hi = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i + 8)), _mm512_cvtps_pd(_mm256_loadu_ps(b + i + 8)), hi);
    }
    _mm512_storeu_pd(s, lo);
    _mm512_storeu_pd(s + 8, hi);
    return finish(s, a, b, i, n);
}

__attribute__((target("avx2,fma"))) static double dot_avx2(const float *a, const float *b, int64_t n)
{
    __m256d acc[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    double s[LANES];
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int q = 0; q < 4; q++)
            acc[q] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(a + i + 4 * q)),
                                     _mm256_cvtps_pd(_mm_loadu_ps(b + i + 4 * q)), acc[q]);
    for (int q = 0; q < 4; q++) _mm256_storeu_pd(s + 4 * q, acc[q]);
    return finish(s, a, b, i, n);
}
#endif

double stm_dot(const float *a, const float *b, int64_t n)
{
#if defined(__x86_64__)
    const stm_cpu_level level = stm_cpu();

    if (level >= STM_CPU_AVX512) return dot_avx512(a, b, n);
    if (level >= STM_CPU_AVX2) return dot_avx2(a, b, n);
#endif
    double s[LANES] = {0};
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) s[l] += (double)a[i + l] * (double)b[i + l];
    return finish(s, a, b, i, n);
}
