#include "kernels/attention.h"

#include "kernels/attention_forms.h"
#include "kernels/cpu.h"

size_t stm_attention_scratch(int64_t rows, int32_t dim)
{
    const int64_t padded = (rows + 31) / 32 * 32, dim_padded = (dim + 31) / 32 * 32;

    /* keys, values, scores and sums in f32 of 4 queries; the tile form has the same in bf16, and scores of 16 queries */
    return (size_t)(padded * dim_padded * 2 + 32 * padded + 32 * dim_padded) * sizeof(float);
}

void stm_attention(const stm_attention_args *a)
{
#if defined(__x86_64__)
    const stm_cpu_level level = stm_cpu();
    if (level >= STM_CPU_AMX && a->out_type == STM_GEMM_BF16)
        stm_amx_attention(a);
    else if (level >= STM_CPU_AVX512)
        stm_avx512_attention(a);
    else if (level >= STM_CPU_AVX2)
        stm_avx2_attention(a);
    else
#endif
        stm_generic_attention(a);
}
