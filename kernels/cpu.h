/* What this processor can do, as one ladder: a kernel asks for the level and takes its best form at or below it. */
#ifndef STM_KERNELS_CPU_H
#define STM_KERNELS_CPU_H

#include <stdbool.h>

/** Each level includes those before it. */
typedef enum stm_cpu_level {
    STM_CPU_GENERIC = 0,
    STM_CPU_AVX2 = 1,   /* and FMA, F16C */
    STM_CPU_AVX512 = 2, /* F, BW, DQ, VL */
    STM_CPU_AVX512_BF16 = 3,
    STM_CPU_AMX = 4 /* bf16 tiles, and the kernel lets this process use them */
} stm_cpu_level;

/** The level in use: what the processor has, unless the environment variable STEPMILL_CPU (generic, avx2, avx512,
 *  avx512_bf16, amx) or stm_cpu_limit asks for less. Threads: any. Blocks: no. */
stm_cpu_level stm_cpu(void);
/** Use at most @p level from now on (tests compare the forms with it). Weights packed before stay usable. Threads: none running. */
void stm_cpu_limit(stm_cpu_level level);
const char *stm_cpu_name(stm_cpu_level level);

#endif
