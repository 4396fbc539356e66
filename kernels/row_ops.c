#include "kernels/row_ops.h"

#include "kernels/cpu.h"
#include "kernels/row_ops_forms.h"

static const stm_row_ops *ops(void)
{
#if defined(__x86_64__)
    const stm_cpu_level level = stm_cpu();
    if (level >= STM_CPU_AVX512_BF16) return &stm_row_ops_avx512_bf16;
    if (level >= STM_CPU_AVX512) return &stm_row_ops_avx512;
    if (level >= STM_CPU_AVX2) return &stm_row_ops_avx2;
#endif
    return &stm_row_ops_generic;
}

void stm_embed(const stm_embed_args *a) { ops()->embed(a); }
void stm_add_norm(const stm_add_norm_args *a) { ops()->add_norm(a); }
void stm_gelu(const stm_gelu_args *a) { ops()->gelu(a); }
void stm_pool_rows(const stm_pool_args *a) { ops()->pool_rows(a); }
