/*
 * Operations on the rows of tokens that go through an encoder on a device: one row a token, documents end to end, all of one type
 * of value (stm_real), arithmetic and sums in f32. What row_ops.h is for the host's fast encoder, this is for devices.
 *
 * Common to all: matrices are row-major with a stride in values ("ld"); values past a row's columns are neither read nor written.
 * Every row is computed on its own and its sums in a fixed order, so its bits depend on nothing but its own values: not on the
 * other rows or their number. Rows 0 .. 2^40, columns 1 .. 2^20.
 *
 * Tolerance of each: that of the arithmetic in f32, given beside it, and half a unit of the type in which it is stored (2^-24, 2^-9
 * for bf16, 2^-12 for f16, times the value).
 */
#ifndef STM_KERNELS_TOKEN_OPS_H
#define STM_KERNELS_TOKEN_OPS_H

#include <stdbool.h>

#include "kernels/row_ops.h"
#include "kernels/values.h"

MILL_BEGIN_DECLS

/**
 * Layer norm of a sum: out[t] = norm(x[i] + y[j] + bias), norm(v) = (v - mean v) / sqrt(var v + eps) * gain + shift.
 * i = x_index[t], j = y_index[t], or t where there is no index. So it is both the embedding (words by id, positions by place) and
 * the end of each half layer (the stream, what a product made of it, the product's bias). out may be x where x has no index. Error:
 * 4e-6 * max(1, |gain|) + |mean| / deviation * 1e-6: two sums of dim terms, one division.
 */
typedef struct stm_token_norm_args {
    const void *x, *y;                /* [..][ldx], [..][ldy] */
    const int32_t *x_index, *y_index; /* [rows], not checked; NULL = the row itself */
    const float *bias;                /* [dim]; NULL = none */
    const float *gain, *shift;        /* [dim] */
    void *out;                        /* [rows][ldo] */
    stm_real type;                    /* of x, y, out */
    float eps;
    int64_t rows, dim, ldx, ldy, ldo;
} stm_token_norm_args;

/** x = gelu(x + bias) in place. Error: 6e-7 * |x + bias|, as row_ops.h has it. */
typedef struct stm_token_gelu_args {
    void *x;           /* [rows][ld] */
    const float *bias; /* [cols]; NULL = none */
    stm_real type;
    stm_gelu_kind kind;
    int64_t rows, cols, ld;
} stm_token_gelu_args;

/**
 * out[d] = mean of rows starts[d] .. starts[d + 1] - 1 of x (or their first row), divided by its length if asked (by at least
 * 1e-12, so zeros stay zeros). A document without rows gives zeros. Error: rows * 6e-8 * the mean of |x|.
 */
typedef struct stm_token_pool_args {
    const void *x;         /* [..][ld] */
    const int32_t *starts; /* [docs + 1], rising; not checked */
    float *out;            /* [docs][dim] */
    stm_real type;         /* of x */
    int64_t docs, dim, ld;
    bool first_row, normalize;
} stm_token_pool_args;

#define STM_TOKEN_COLUMNS_MAX ((int64_t)1 << 20)

static inline int stm_token_extent(int64_t rows, int64_t cols)
{
    return rows >= 0 && rows <= (int64_t)1 << 40 && cols >= 1 && cols <= STM_TOKEN_COLUMNS_MAX;
}
static inline int stm_token_norm_fits(const stm_token_norm_args *a)
{
    return stm_real_known(a->type) && stm_token_extent(a->rows, a->dim) && a->ldx >= a->dim && a->ldy >= a->dim &&
           a->ldo >= a->dim &&
           (a->rows == 0 || (a->x != NULL && a->y != NULL && a->gain != NULL && a->shift != NULL && a->out != NULL)) &&
           !(a->out == a->x && a->x_index != NULL);
}
static inline int stm_token_gelu_fits(const stm_token_gelu_args *a)
{
    return stm_real_known(a->type) && (a->kind == STM_GELU_ERF || a->kind == STM_GELU_TANH) && stm_token_extent(a->rows, a->cols) &&
           a->ld >= a->cols && (a->rows == 0 || a->x != NULL);
}
static inline int stm_token_pool_fits(const stm_token_pool_args *a)
{
    return stm_real_known(a->type) && stm_token_extent(a->docs, a->dim) && a->ld >= a->dim &&
           (a->docs == 0 || (a->x != NULL && a->starts != NULL && a->out != NULL));
}

void stm_token_norm_ref(const stm_token_norm_args *a);
void stm_token_gelu_ref(const stm_token_gelu_args *a);
void stm_token_pool_ref(const stm_token_pool_args *a);
mill_status stm_token_norm_cuda(const stm_token_norm_args *a, void *stream); /* in the module, as the next */
mill_status stm_token_gelu_cuda(const stm_token_gelu_args *a, void *stream);
mill_status stm_token_pool_cuda(const stm_token_pool_args *a, void *stream);

MILL_END_DECLS

#endif
