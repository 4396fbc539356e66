#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "kernels/row_ops_forms.h"

#define FORM(name) avx2_##name
#define TARGET __attribute__((target("avx2,fma")))
#define LEVEL 1
#include "kernels/row_ops_form.h"
const stm_row_ops stm_row_ops_avx2 = {avx2_embed, avx2_add_norm, avx2_gelu, avx2_pool_rows};
#endif
