#include "kernels/token_attention.h"

#include <math.h>

static double score(const stm_token_attention_args *a, int64_t i, int64_t j, int64_t column)
{
    double s = 0.0;

    for (int32_t d = 0; d < a->dim; d++)
        s += stm_real_at(a->q, a->type, i * a->ld + column + d) * stm_real_at(a->k, a->type, j * a->ld + column + d);
    return s * a->scale;
}

static void attend(const stm_token_attention_args *a, const stm_token_tile *t, int64_t i, int64_t column)
{
    double max = -INFINITY, sum = 0.0, o[STM_ATTENTION_DIM_MAX] = {0};

    for (int64_t j = t->first; j < t->last; j++) max = fmax(max, score(a, i, j, column));
    for (int64_t j = t->first; j < t->last; j++) {
        const double p = exp(score(a, i, j, column) - max);
        sum += p;
        for (int32_t d = 0; d < a->dim; d++) o[d] += p * stm_real_at(a->v, a->type, j * a->ld + column + d);
    }
    for (int32_t d = 0; d < a->dim; d++) stm_real_put(a->out, a->type, i * a->ldo + column + d, o[d] / sum);
}

void stm_token_attention_ref(const stm_token_attention_args *a)
{
    for (int64_t n = 0; n < a->n_tiles; n++)
        for (int32_t r = 0; r < a->tiles[n].rows; r++)
            for (int32_t h = 0; h < a->heads; h++) attend(a, &a->tiles[n], a->tiles[n].row + r, (int64_t)h * a->dim);
}
