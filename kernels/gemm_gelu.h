/* gemm_gelu: out = gelu(a . b + bias) in the product's type, as stm_gemm_run_columns and stm_gelu after it would give, but
 * without the way of the wide layer's f32 form through memory. Bits: as those of the product, of a row on its own. */
#ifndef STM_KERNELS_GEMM_GELU_H
#define STM_KERNELS_GEMM_GELU_H

#include "kernels/gemm.h"
#include "kernels/row_ops.h"

typedef struct stm_gemm_gelu_args {
    const stm_gemm_weight *w;
    stm_gemm_scratch *scratch;
    const void *a; /* [m][lda], as for stm_gemm_run */
    int64_t lda, m;
    int64_t first, count; /* columns, as for stm_gemm_run_columns */
    stm_gelu_kind kind;
    void *out; /* [m][ldo] in the weight's type: columns 0 .. count-1; rows up to the next multiple of 16 are overwritten */
    int64_t ldo;
    float *piece; /* stm_gemm_gelu_scratch bytes, aligned to 64 */
} stm_gemm_gelu_args;

/** Bytes of piece for products of at most @p rows rows. */
size_t stm_gemm_gelu_scratch(int64_t rows);
/** MILL_ERR_INVALID for arguments out of range. Threads: any, each with its scratch. Allocates as stm_gemm_run. */
mill_status stm_gemm_run_gelu(const stm_gemm_gelu_args *a, mill_error *err);

#endif
