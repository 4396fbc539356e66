#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "kernels/attention_forms.h"

#define FORM(name) stm_avx2_##name
#define TARGET __attribute__((target("avx2,fma")))
#define LEVEL 1
#include "kernels/attention_form.h"
#endif
