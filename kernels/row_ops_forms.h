/* Inside of row_ops: the table of forms. */
#ifndef STM_KERNELS_ROW_OPS_FORMS_H
#define STM_KERNELS_ROW_OPS_FORMS_H

#include "kernels/row_ops.h"

typedef struct stm_row_ops {
    void (*embed)(const stm_embed_args *a);
    void (*add_norm)(const stm_add_norm_args *a);
    void (*gelu)(const stm_gelu_args *a);
    void (*pool_rows)(const stm_pool_args *a);
} stm_row_ops;
extern const stm_row_ops stm_row_ops_generic, stm_row_ops_avx2, stm_row_ops_avx512, stm_row_ops_avx512_bf16;

#endif
