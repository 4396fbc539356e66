#include "kernels/attention.h"

#include <math.h>

static double score(const stm_attention_args *a, int64_t i, int64_t j, int64_t column)
{
    double s = 0.0;

    for (int32_t d = 0; d < a->dim; d++) s += (double)a->q[i * a->ld + column + d] * a->k[j * a->ld + column + d];
    return s * a->scale;
}

void stm_attention_ref(const stm_attention_args *a, double *out)
{
    for (int64_t doc = 0; doc < a->docs; doc++)
        for (int64_t i = a->starts[doc]; i < a->starts[doc + 1]; i++)
            for (int32_t h = 0; h < a->heads; h++) {
                const int64_t column = (int64_t)h * a->dim;
                double max = -INFINITY, sum = 0.0, *o = out + i * a->ldo + column;
                for (int64_t j = a->starts[doc]; j < a->starts[doc + 1]; j++) max = fmax(max, score(a, i, j, column));
                for (int32_t d = 0; d < a->dim; d++) o[d] = 0.0;
                for (int64_t j = a->starts[doc]; j < a->starts[doc + 1]; j++) {
                    const double p = exp(score(a, i, j, column) - max);
                    sum += p;
                    for (int32_t d = 0; d < a->dim; d++) o[d] += p * a->v[j * a->ld + column + d];
                }
                for (int32_t d = 0; d < a->dim; d++) o[d] /= sum;
            }
}
