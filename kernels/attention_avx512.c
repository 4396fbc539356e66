#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "kernels/attention_forms.h"

#define FORM(name) stm_avx512_##name
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define LEVEL 2
#include "kernels/attention_form.h"
#endif
