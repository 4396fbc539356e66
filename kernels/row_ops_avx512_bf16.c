#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "kernels/row_ops_forms.h"

#define FORM(name) bf16_##name
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define LEVEL 3
#include "kernels/row_ops_form.h"
const stm_row_ops stm_row_ops_avx512_bf16 = {bf16_embed, bf16_add_norm, bf16_gelu, bf16_pool_rows};
#endif
