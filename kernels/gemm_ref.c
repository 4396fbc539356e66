#include "kernels/gemm.h"

void stm_gemm_ref(const float *a, int64_t lda, const float *b, const float *bias, int64_t m, int64_t n, int64_t k, double *c,
                  int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = bias != NULL ? bias[j] : 0.0;
            for (int64_t p = 0; p < k; p++) sum += (double)a[i * lda + p] * b[j * k + p];
            c[i * ldc + j] = sum;
        }
}
