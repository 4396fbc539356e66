/* Kernels of the GPU benches: work of a known length, a read, a copy. The CUDA error code of the launch is returned. */
#ifndef STM_BENCH_SPIN_H
#define STM_BENCH_SPIN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** out[i] = in[i] + 1 for i < n, by one block that then waits until @p cycles of its multiprocessor have passed. */
int stm_bench_spin(const float *in, float *out, int64_t n, int64_t cycles, void *stream);
/** Reads n floats (a multiple of 4) at full width; *sum gets something that depends on all of them. */
int stm_bench_read(const float *in, float *sum, int64_t n, void *stream);
/** Fill with finite values that do not repeat. */
int stm_bench_random(float *out, int64_t n, uint32_t seed, void *stream);
/** The same as bf16. */
int stm_bench_random_bf16(uint16_t *out, int64_t n, uint32_t seed, void *stream);
/** One mistake that a tool of compute-sanitizer must report: "memcheck", "racecheck", "synccheck", "initcheck". -1: no such
 *  tool. */
int stm_bench_mistake(const char *tool, float *data, float *out, void *stream);

#ifdef __cplusplus
}
#endif
#endif
