#include "kernels/token_ops.h"

#include <math.h>

void stm_token_norm_ref(const stm_token_norm_args *a)
{
    for (int64_t t = 0; t < a->rows; t++) {
        const int64_t x = (a->x_index != NULL ? a->x_index[t] : t) * a->ldx, y = (a->y_index != NULL ? a->y_index[t] : t) * a->ldy;
        double mean = 0.0, var = 0.0;
#define SUM(i) (stm_real_at(a->x, a->type, x + (i)) + stm_real_at(a->y, a->type, y + (i)) + (a->bias != NULL ? a->bias[i] : 0.0f))
        for (int64_t i = 0; i < a->dim; i++) mean += SUM(i);
        mean /= (double)a->dim;
        for (int64_t i = 0; i < a->dim; i++) var += (SUM(i) - mean) * (SUM(i) - mean);
        var /= (double)a->dim;
        for (int64_t i = 0; i < a->dim; i++)
            stm_real_put(a->out, a->type, t * a->ldo + i, (SUM(i) - mean) / sqrt(var + a->eps) * a->gain[i] + a->shift[i]);
#undef SUM
    }
}

void stm_token_gelu_ref(const stm_token_gelu_args *a)
{
    for (int64_t t = 0; t < a->rows; t++)
        for (int64_t i = 0; i < a->cols; i++) {
            const double v = stm_real_at(a->x, a->type, t * a->ld + i) + (a->bias != NULL ? a->bias[i] : 0.0f);
            stm_real_put(a->x, a->type, t * a->ld + i, stm_gelu_ref(v, a->kind));
        }
}

void stm_token_pool_ref(const stm_token_pool_args *a)
{
    for (int64_t d = 0; d < a->docs; d++) {
        const int64_t first = a->starts[d], all = a->starts[d + 1] - first, rows = a->first_row && all > 1 ? 1 : all;
        double squares = 0.0, length = 1.0;
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t i = 0; i < a->dim; i++) {
                double sum = 0.0;
                for (int64_t t = first; t < first + rows; t++) sum += stm_real_at(a->x, a->type, t * a->ld + i);
                if (rows > 0) sum /= (double)rows;
                if (pass == 0) squares += sum * sum;
                if (pass == 1) a->out[d * a->dim + i] = (float)(sum / length);
            }
            if (a->normalize) length = sqrt(squares) > 1e-12 ? sqrt(squares) : 1e-12;
        }
    }
}
