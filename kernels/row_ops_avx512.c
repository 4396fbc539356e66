#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "kernels/row_ops_forms.h"

#define FORM(name) avx512_##name
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define LEVEL 2
#include "kernels/row_ops_form.h"
const stm_row_ops stm_row_ops_avx512 = {avx512_embed, avx512_add_norm, avx512_gelu, avx512_pool_rows};
#endif
