/*
 * Attention over documents laid end to end, no padding computed:
 * out[i][h] = sum over j of softmax_j(scale * q[i][h] . k[j][h]) v[j][h], j over the rows of i's document.
 *
 * f32 out: error of at most 2e-6 * (1 + the largest |scale * q . k|) * the largest |v|: one chain of dim products, an
 * exponential of relative error 2e-7, a chain of as many sums as the document has rows.
 * bf16 out: with tiles, q, k, v and the weights of the sum are rounded to bf16: 0.02 times the largest |v| while
 * |scale * q . k| stays below 2; else as f32, then rounded.
 */
#ifndef STM_KERNELS_ATTENTION_H
#define STM_KERNELS_ATTENTION_H

#include <stdint.h>

#include "kernels/gemm.h"

#define STM_ATTENTION_DIM_MAX 256

typedef struct stm_attention_args {
    const float *q, *k, *v; /* [rows][ld]; head h in columns h * dim .. */
    int64_t ld;
    const int64_t *starts; /* [docs + 1] first row of each document; each has at least one */
    int64_t docs;
    int32_t heads, dim; /* dim 1 .. STM_ATTENTION_DIM_MAX */
    float scale;        /* > 0 */
    void *out;          /* [rows][ldo] f32 or bf16, head h in columns h * dim .. */
    stm_gemm_type out_type;
    int64_t ldo;
    void *scratch; /* stm_attention_scratch bytes, aligned to 64 */
} stm_attention_args;

/** Bytes of scratch for documents of at most @p rows rows, for any level and type. */
size_t stm_attention_scratch(int64_t rows, int32_t dim);
/** Runs in the calling thread. The bits of a document's rows depend on that document only. Allocates nothing, cannot fail. */
void stm_attention(const stm_attention_args *a);
/** Oracle: sums in double; out is double [rows][ldo]. */
void stm_attention_ref(const stm_attention_args *a, double *out);

#endif
