#include "kernels/values.h"

#include "batch/half.h"
#include "kernels/bf16.h"

double stm_real_at(const void *p, stm_real type, int64_t at)
{
    switch (type) {
    case STM_BF16: return stm_bf16_to(((const uint16_t *)p)[at]);
    case STM_F16: return stm_half_to_float(((const uint16_t *)p)[at]);
    default: return ((const float *)p)[at];
    }
}

void stm_real_put(void *p, stm_real type, int64_t at, double v)
{
    switch (type) {
    case STM_BF16: ((uint16_t *)p)[at] = stm_bf16_of((float)v); break; /* rounded twice: half an ulp and 2^-16 of one */
    case STM_F16: ((uint16_t *)p)[at] = stm_half_from_double(v); break;
    default: ((float *)p)[at] = (float)v;
    }
}

void stm_convert_ref(const stm_convert_args *a)
{
    for (int64_t i = 0; i < a->count; i++) stm_real_put(a->out, a->to, i, stm_real_at(a->src, a->from, i));
}
