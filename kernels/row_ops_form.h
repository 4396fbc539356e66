/* The fast forms of row_ops.h for one instruction set; see lanes.h for what must be defined. */
#include "kernels/gelu_form.h"

/* (v - mean) / deviation * gain + bias of a row into out and half, given the sum of the row. Four sums side by side: one
 * alone would wait for its own last addition. */
LANE void FORM(norm_row)(const float *v, v16 sum, const float *gain, const float *bias, float eps, int64_t dim, float *out,
                         uint16_t *half)
{
    const int64_t fours = dim / 64 * 64, whole = dim / 16 * 16, tail = dim - whole;
    const float mean = FORM(sum)(sum) / (float)dim;
    v16 squares[4] = {V16(0.0f), V16(0.0f), V16(0.0f), V16(0.0f)};
    float scale;

    for (int64_t i = 0; i < fours; i += 64)
        for (int k = 0; k < 4; k++) {
            const v16 d = FORM(load)(v + i + 16 * k) - V16(mean);
            squares[k] += d * d;
        }
    for (int64_t i = fours; i < whole; i += 16) {
        const v16 d = FORM(load)(v + i) - V16(mean);
        squares[0] += d * d;
    }
    if (tail > 0) {
        const v16 d = FORM(load_n)(v + whole, tail, mean) - V16(mean);
        squares[1] += d * d;
    }
    scale = 1.0f / sqrtf(FORM(sum)((squares[0] + squares[1]) + (squares[2] + squares[3])) / (float)dim + eps);
    for (int64_t i = 0; i < whole; i += 16) {
        const v16 r = (FORM(load)(v + i) - V16(mean)) * V16(scale) * FORM(load)(gain + i) + FORM(load)(bias + i);
        FORM(store)(out + i, r);
        if (half != NULL) FORM(store_h)(half + i, r, 16);
    }
    if (tail > 0) {
        const v16 r = (FORM(load_n)(v + whole, tail, 0.0f) - V16(mean)) * V16(scale) * FORM(load_n)(gain + whole, tail, 0.0f) +
                      FORM(load_n)(bias + whole, tail, 0.0f);
        FORM(store_n)(out + whole, r, tail);
        if (half != NULL) FORM(store_h)(half + whole, r, tail);
    }
}

/* x = x + y, or x = a + b + c where c is not NULL; the sum of the row comes back. */
LANE v16 FORM(add_row)(float *x, const float *a, const float *b, const float *c, int64_t dim)
{
    const int64_t fours = dim / 64 * 64, whole = dim / 16 * 16, tail = dim - whole;
    v16 sum[4] = {V16(0.0f), V16(0.0f), V16(0.0f), V16(0.0f)};

    for (int64_t i = 0; i < fours; i += 64)
        for (int k = 0; k < 4; k++) {
            v16 v = FORM(load)(a + i + 16 * k) + FORM(load)(b + i + 16 * k);
            if (c != NULL) v += FORM(load)(c + i + 16 * k);
            FORM(store)(x + i + 16 * k, v);
            sum[k] += v;
        }
    for (int64_t i = fours; i < whole; i += 16) {
        v16 v = FORM(load)(a + i) + FORM(load)(b + i);
        if (c != NULL) v += FORM(load)(c + i);
        FORM(store)(x + i, v);
        sum[0] += v;
    }
    if (tail > 0) {
        v16 v = FORM(load_n)(a + whole, tail, 0.0f) + FORM(load_n)(b + whole, tail, 0.0f);
        if (c != NULL) v += FORM(load_n)(c + whole, tail, 0.0f);
        FORM(store_n)(x + whole, v, tail);
        sum[1] += v;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

TARGET static void FORM(embed)(const stm_embed_args *a)
{
    for (int64_t t = 0; t < a->rows; t++) {
        float *x = a->x + t * a->ld;
        const v16 sum = FORM(add_row)(x, a->words + a->ids[t] * a->dim, a->positions + a->places[t] * a->dim, a->type, a->dim);
        FORM(norm_row)(x, sum, a->gain, a->bias, a->eps, a->dim, x, a->x_bf16 != NULL ? a->x_bf16 + t * a->ld : NULL);
    }
}

TARGET static void FORM(add_norm)(const stm_add_norm_args *a)
{
    for (int64_t t = 0; t < a->rows; t++) {
        float *x = a->x + t * a->ld;
        const v16 sum = FORM(add_row)(x, x, a->y + t * a->ldy, NULL, a->dim);
        FORM(norm_row)(x, sum, a->gain, a->bias, a->eps, a->dim, x, a->x_bf16 != NULL ? a->x_bf16 + t * a->ld : NULL);
    }
}

LANE void FORM(gelu_rows)(const stm_gelu_args *a, stm_gelu_kind kind, stm_gemm_type type)
{
    const int64_t whole = a->cols / 16 * 16, tail = a->cols - whole;

    for (int64_t t = 0; t < a->rows; t++) {
        const float *x = a->x + t * a->ldx;
        float *out = (float *)a->out + t * a->ldo;
        uint16_t *half = (uint16_t *)a->out + t * a->ldo;
        for (int64_t i = 0; i < whole; i += 16) {
            const v16 r = FORM(gelu_any)(FORM(load)(x + i), kind, type);
            if (type == STM_GEMM_BF16)
                FORM(store_h)(half + i, r, 16);
            else
                FORM(store)(out + i, r);
        }
        if (tail > 0) {
            const v16 r = FORM(gelu_any)(FORM(load_n)(x + whole, tail, 0.0f), kind, type);
            if (type == STM_GEMM_BF16)
                FORM(store_h)(half + whole, r, tail);
            else
                FORM(store_n)(out + whole, r, tail);
        }
    }
}

TARGET static void FORM(gelu)(const stm_gelu_args *a)
{
    if (a->kind == STM_GELU_TANH && a->out_type == STM_GEMM_BF16)
        FORM(gelu_rows)(a, STM_GELU_TANH, STM_GEMM_BF16);
    else if (a->kind == STM_GELU_TANH)
        FORM(gelu_rows)(a, STM_GELU_TANH, STM_GEMM_F32);
    else if (a->out_type == STM_GEMM_BF16)
        FORM(gelu_rows)(a, STM_GELU_ERF, STM_GEMM_BF16);
    else
        FORM(gelu_rows)(a, STM_GELU_ERF, STM_GEMM_F32);
}

TARGET static void FORM(pool_rows)(const stm_pool_args *a)
{
    const int64_t whole = a->dim / 16 * 16, tail = a->dim - whole;

    for (int64_t d = 0; d < a->docs; d++) {
        const int64_t first = a->starts[d], last = a->first_row ? first + 1 : a->starts[d + 1];
        const float share = 1.0f / (float)(last - first);
        float *out = a->out[d];
        v16 squares = V16(0.0f);

        for (int64_t i = 0; i < whole; i += 16) {
            v16 sum = V16(0.0f);
            for (int64_t t = first; t < last; t++) sum += FORM(load)(a->x + t * a->ld + i);
            sum *= V16(share);
            squares += sum * sum;
            FORM(store)(out + i, sum);
        }
        if (tail > 0) {
            v16 sum = V16(0.0f);
            for (int64_t t = first; t < last; t++) sum += FORM(load_n)(a->x + t * a->ld + whole, tail, 0.0f);
            sum *= V16(share);
            squares += sum * sum;
            FORM(store_n)(out + whole, sum, tail);
        }
        if (a->normalize) {
            const float length = sqrtf(FORM(sum)(squares));
            const float scale = 1.0f / (length > 1e-12f ? length : 1e-12f);
            for (int64_t i = 0; i < a->dim; i++) out[i] *= scale;
        }
    }
}
