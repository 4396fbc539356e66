/*
 * Attention in f32 for one instruction set; see lanes.h for what must be defined.
 *
 * Per document and head: keys are transposed to [dim][keys] and values copied to [keys][dim], both padded with zeros to
 * whole registers, so that scores of 4 queries x 32 keys and sums of 4 queries x 32 columns build up in registers.
 */
#include "kernels/lanes.h"

/* scores[4][ld] = q[4] . keys; n keys, padded to 32. */
LANE void FORM(scores)(const float *const q[4], const float *keys, int64_t padded, int32_t dim, float *scores)
{
    for (int64_t j = 0; j < padded; j += 32) {
        v16 acc[4][2];
        for (int i = 0; i < 4; i++) acc[i][0] = acc[i][1] = V16(0.0f);
        for (int32_t d = 0; d < dim; d++) {
            const v16 lo = FORM(load)(keys + d * padded + j), hi = FORM(load)(keys + d * padded + j + 16);
            for (int i = 0; i < 4; i++) {
                acc[i][0] += V16(q[i][d]) * lo;
                acc[i][1] += V16(q[i][d]) * hi;
            }
        }
        for (int i = 0; i < 4; i++) {
            FORM(store)(scores + i * padded + j, acc[i][0]);
            FORM(store)(scores + i * padded + j + 16, acc[i][1]);
        }
    }
}

/* row[0 .. n-1] becomes 2^((row - max) * scale), row[n .. padded-1] zero; returns 1 / sum. */
LANE float FORM(softmax)(float *row, int64_t n, int64_t padded, float scale)
{
    const int64_t whole = n / 16 * 16;
    v16 most = V16(-INFINITY), sum = V16(0.0f);
    float max;

    for (int64_t j = 0; j < whole; j += 16) most = FORM(max)(most, FORM(load)(row + j));
    if (whole < n) most = FORM(max)(most, FORM(load_n)(row + whole, n - whole, -INFINITY));
    max = FORM(largest)(most);
    for (int64_t j = 0; j < whole; j += 16) {
        const v16 e = FORM(exp2)(FORM(max)((FORM(load)(row + j) - V16(max)) * V16(scale), V16(-126.0f)));
        FORM(store)(row + j, e);
        sum += e;
    }
    if (whole < n) {
        v16 e = FORM(exp2)(FORM(max)((FORM(load_n)(row + whole, n - whole, max) - V16(max)) * V16(scale), V16(-126.0f)));
        float t[16] = {0.0f};
        FORM(store_n)(t, e, n - whole);
        e = FORM(load)(t);
        FORM(store)(row + whole, e);
        sum += e;
    }
    for (int64_t j = (n + 15) / 16 * 16; j < padded; j += 16) FORM(store)(row + j, V16(0.0f));
    return 1.0f / FORM(sum)(sum);
}

/* out[i] = sum over keys of p[i] * values, times share[i]; columns in pieces of 32. */
LANE void FORM(weigh)(const float *p, const float *values, int64_t n, int64_t padded, int32_t dim_padded, const float share[4],
                      float *out)
{
    for (int32_t d = 0; d < dim_padded; d += 32) {
        v16 acc[4][2];
        for (int i = 0; i < 4; i++) acc[i][0] = acc[i][1] = V16(0.0f);
        for (int64_t j = 0; j < n; j++) {
            const v16 lo = FORM(load)(values + j * dim_padded + d), hi = FORM(load)(values + j * dim_padded + d + 16);
            for (int i = 0; i < 4; i++) {
                acc[i][0] += V16(p[i * padded + j]) * lo;
                acc[i][1] += V16(p[i * padded + j]) * hi;
            }
        }
        for (int i = 0; i < 4; i++) {
            FORM(store)(out + i * dim_padded + d, acc[i][0] * V16(share[i]));
            FORM(store)(out + i * dim_padded + d + 16, acc[i][1] * V16(share[i]));
        }
    }
}

TARGET static void FORM(head)(const stm_attention_args *a, int64_t first, int64_t n, int32_t h)
{
    const int32_t dim = a->dim, dim_padded = (dim + 31) / 32 * 32;
    const int64_t padded = (n + 31) / 32 * 32, column = (int64_t)h * dim;
    float *keys = a->scratch, *values = keys + padded * dim, *scores = values + padded * dim_padded;
    float *sums = scores + 4 * padded, share[4];
    const float scale = a->scale * 1.44269504f; /* powers of 2 instead of e */

    for (int64_t j = 0; j < n; j++) {
        const float *k = a->k + (first + j) * a->ld + column, *v = a->v + (first + j) * a->ld + column;
        for (int32_t d = 0; d < dim; d++) keys[d * padded + j] = k[d];
        memcpy(values + j * dim_padded, v, (size_t)dim * sizeof *v);
        for (int32_t d = dim; d < dim_padded; d++) values[j * dim_padded + d] = 0.0f;
    }
    for (int32_t d = 0; d < dim; d++)
        for (int64_t j = n; j < padded; j++) keys[d * padded + j] = 0.0f;

    for (int64_t i = 0; i < n; i += 4) {
        const float *q[4];
        for (int r = 0; r < 4; r++) q[r] = a->q + (first + (i + r < n ? i + r : n - 1)) * a->ld + column; /* the last again */
        FORM(scores)(q, keys, padded, dim, scores);
        for (int r = 0; r < 4; r++) share[r] = FORM(softmax)(scores + r * padded, n, padded, scale);
        FORM(weigh)(scores, values, n, padded, dim_padded, share, sums);
        for (int r = 0; r < 4 && i + r < n; r++) {
            const int64_t at = (first + i + r) * a->ldo + column;
            if (a->out_type == STM_GEMM_F32) {
                memcpy((float *)a->out + at, sums + r * dim_padded, (size_t)dim * sizeof(float));
            } else {
                for (int32_t d = 0; d < dim; d += 16)
                    FORM(store_h)((uint16_t *)a->out + at + d, FORM(load)(sums + r * dim_padded + d), dim - d);
            }
        }
    }
}

TARGET void FORM(attention)(const stm_attention_args *a)
{
    for (int64_t d = 0; d < a->docs; d++)
        for (int32_t h = 0; h < a->heads; h++) FORM(head)(a, a->starts[d], a->starts[d + 1] - a->starts[d], h);
}
