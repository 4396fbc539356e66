#include "kernels/row_ops.h"

#include <math.h>

static void norm_ref(float *x, const float *gain, const float *bias, double eps, int64_t dim)
{
    double mean = 0.0, var = 0.0;

    for (int64_t i = 0; i < dim; i++) mean += x[i];
    mean /= (double)dim;
    for (int64_t i = 0; i < dim; i++) var += (x[i] - mean) * (x[i] - mean);
    var /= (double)dim;
    for (int64_t i = 0; i < dim; i++) x[i] = (float)((x[i] - mean) / sqrt(var + eps) * gain[i] + bias[i]);
}

void stm_embed_ref(const stm_embed_args *a)
{
    for (int64_t t = 0; t < a->rows; t++) {
        float *x = a->x + t * a->ld;
        for (int64_t i = 0; i < a->dim; i++)
            x[i] = a->words[a->ids[t] * a->dim + i] + a->positions[a->places[t] * a->dim + i] + a->type[i];
        norm_ref(x, a->gain, a->bias, a->eps, a->dim);
    }
}

void stm_add_norm_ref(const stm_add_norm_args *a)
{
    for (int64_t t = 0; t < a->rows; t++) {
        for (int64_t i = 0; i < a->dim; i++) a->x[t * a->ld + i] += a->y[t * a->ldy + i];
        norm_ref(a->x + t * a->ld, a->gain, a->bias, a->eps, a->dim);
    }
}

double stm_gelu_ref(double x, stm_gelu_kind kind)
{
    if (kind == STM_GELU_TANH) return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    return 0.5 * x * (1.0 + erf(x * 0.7071067811865476));
}

void stm_pool_rows_ref(const stm_pool_args *a)
{
    for (int64_t d = 0; d < a->docs; d++) {
        const int64_t first = a->starts[d], last = a->first_row ? first + 1 : a->starts[d + 1];
        double squares = 0.0;
        for (int64_t i = 0; i < a->dim; i++) {
            double sum = 0.0;
            for (int64_t t = first; t < last; t++) sum += a->x[t * a->ld + i];
            sum /= (double)(last - first);
            squares += sum * sum;
            a->out[d][i] = (float)sum;
        }
        const double length = sqrt(squares) > 1e-12 ? sqrt(squares) : 1e-12;
        for (int64_t i = 0; a->normalize && i < a->dim; i++) a->out[d][i] = (float)(a->out[d][i] / length);
    }
}
