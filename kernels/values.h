/* Types of floating-point values in memory of a device, and their change into each other. */
#ifndef STM_KERNELS_VALUES_H
#define STM_KERNELS_VALUES_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

MILL_BEGIN_DECLS

typedef enum stm_real { STM_F32 = 0, STM_BF16 = 1, STM_F16 = 2 } stm_real;

static inline int stm_real_known(stm_real v) { return v == STM_F32 || v == STM_BF16 || v == STM_F16; }
static inline size_t stm_real_bytes(stm_real v) { return v == STM_F32 ? 4 : 2; }

/** out[i] = src[i] in another type, rounded to nearest, ties to even. Exact but for the rounding; NaN stays NaN. */
typedef struct stm_convert_args {
    const void *src; /* [count], aligned to its values */
    void *out;       /* [count], aligned to its values; overlaps nothing */
    stm_real from, to;
    int64_t count; /* 0 .. 2^40 */
} stm_convert_args;

static inline int stm_convert_fits(const stm_convert_args *a)
{
    return stm_real_known(a->from) && stm_real_known(a->to) && a->count >= 0 && a->count <= (int64_t)1 << 40 &&
           (a->count == 0 || (a->src != NULL && a->out != NULL));
}

/** One value, for oracles and hosts. */
double stm_real_at(const void *p, stm_real type, int64_t at);
void stm_real_put(void *p, stm_real type, int64_t at, double v);

void stm_convert_ref(const stm_convert_args *a);
mill_status stm_convert_cuda(const stm_convert_args *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
