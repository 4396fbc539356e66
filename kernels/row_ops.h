/*
 * Operations on rows of activations between matrix products: embedding lookup, residual and layer norm, GELU, pooling.
 * Each has an oracle (sums in double), and a fast form per instruction set. All forms work in the same order on 16 lanes,
 * and every row on its own, so the bits of a row depend on nothing but the row and on whether the processor fuses
 * multiply and add.
 *
 * Common to all: matrices are row-major with a stride in values ("ld"); "out" may be NULL where it says so; values past
 * a row's columns are neither read nor written. Threads: any. Blocks: no. They allocate nothing and cannot fail.
 */
#ifndef STM_KERNELS_ROW_OPS_H
#define STM_KERNELS_ROW_OPS_H

#include <stdint.h>

#include "kernels/gemm.h"

/**
 * x[t] = norm(words[ids[t]] + positions[place[t]] + type), norm(v) = (v - mean v) / sqrt(var v + eps) * gain + bias.
 * The oracle and the fast form differ by at most 4e-6 * max(1, |gain|) + |mean| / deviation * 1e-6 per value: two sums of
 * dim terms and one division in f32.
 */
typedef struct stm_embed_args {
    const int32_t *ids;             /* [rows], each a row of words */
    const int32_t *places;          /* [rows], each a row of positions */
    const float *words, *positions; /* [..][dim] without gaps, aligned to 4 bytes only */
    const float *type;              /* [dim] */
    const float *gain, *bias;       /* [dim] */
    float eps;
    int64_t rows, dim; /* dim >= 1 */
    float *x;          /* [rows][ld] */
    uint16_t *x_bf16;  /* [rows][ld] the same rounded, or NULL */
    int64_t ld;
} stm_embed_args;
void stm_embed(const stm_embed_args *a);
void stm_embed_ref(const stm_embed_args *a); /* x only */

/** x[t] = norm(x[t] + y[t]) in place, and rounded into x_bf16. Error as above. */
typedef struct stm_add_norm_args {
    float *x;                 /* [rows][ld] */
    const float *y;           /* [rows][ldy] */
    uint16_t *x_bf16;         /* [rows][ld], or NULL */
    const float *gain, *bias; /* [dim] */
    float eps;
    int64_t rows, dim, ld, ldy;
} stm_add_norm_args;
void stm_add_norm(const stm_add_norm_args *a);
void stm_add_norm_ref(const stm_add_norm_args *a); /* x only */

typedef enum stm_gelu_kind {
    STM_GELU_ERF = 0, /* x * Phi(x) */
    STM_GELU_TANH = 1 /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
} stm_gelu_kind;
/**
 * out = gelu(x). f32: Phi by a rational function of x^2 whose error is below 1.2e-8, so |error| <= 3e-7 * |x| with rounding
 * (tanh: 6e-7). bf16: a shorter one, |error| <= 1.5e-4 * |x| before rounding to 8 bits. Infinite and NaN as in arithmetic.
 */
typedef struct stm_gelu_args {
    const float *x; /* [rows][ldx] */
    void *out;      /* [rows][ldo], f32 or bf16; not x */
    stm_gemm_type out_type;
    stm_gelu_kind kind;
    int64_t rows, cols, ldx, ldo;
} stm_gelu_args;
void stm_gelu(const stm_gelu_args *a);
double stm_gelu_ref(double x, stm_gelu_kind kind);

/**
 * out[d] = mean of rows starts[d] .. starts[d+1]-1 of x (or their first row), divided by its length if asked (by at least
 * 1e-12, as zeros stay zeros). A document has at least one row. Error: rows * 6e-8 * the mean of |x|.
 */
typedef struct stm_pool_args {
    const float *x;        /* [..][ld] */
    const int64_t *starts; /* [docs + 1] */
    int64_t docs, dim, ld;
    bool first_row, normalize;
    float *const *out; /* [docs] each [dim] */
} stm_pool_args;
void stm_pool_rows(const stm_pool_args *a);
void stm_pool_rows_ref(const stm_pool_args *a);

#endif
