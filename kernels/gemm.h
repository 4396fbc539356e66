/*
 * gemm: c[i][j] = sum over p of a[i][p] * b[j][p] (+ bias[j]), row-major, b given as [n][k] (a linear layer's weight).
 * With blocks of at most STM_GEMM_ROWS rows the bits of a row do not depend on the other rows or on their number.
 */
#ifndef STM_KERNELS_GEMM_H
#define STM_KERNELS_GEMM_H

#include <stdbool.h>

#include "stepmill/error.h"

#define STM_GEMM_ROWS 64 /* rows of one call: stays in cache, bits independent of the batch */

typedef enum stm_gemm_type { STM_GEMM_F32 = 0, STM_GEMM_BF16 = 1 } stm_gemm_type;

/** A weight matrix packed once for many calls; shared by threads, read only. */
typedef struct stm_gemm_weight stm_gemm_weight;
/** Scratch of one thread. */
typedef struct stm_gemm_scratch stm_gemm_scratch;

/** Pack @p b [n][k] of f32 for computing in @p type. @p bias [n] f32, may be NULL; both copied.
 *  MILL_ERR_UNSUPPORTED when this processor cannot compute in @p type (see stm_gemm_supports). Threads: any. */
mill_status stm_gemm_pack(stm_gemm_type type, const float *b, const float *bias, int64_t n, int64_t k, stm_gemm_weight **out, mill_error *err);
void stm_gemm_unpack(stm_gemm_weight **w);
/** Whether @p type runs on this processor at better than reference speed. */
bool stm_gemm_supports(stm_gemm_type type);
mill_status stm_gemm_scratch_create(stm_gemm_scratch **out, mill_error *err);
void stm_gemm_scratch_destroy(stm_gemm_scratch **s);
/**
 * Multiply rows 0 .. m-1, m <= STM_GEMM_ROWS. a is [m][lda] f32 or bf16 (by the weight's type) and may be read up to row STM_GEMM_ROWS-1
 * (any finite values); c is [STM_GEMM_ROWS][ldc] f32, rows past m may be overwritten. Runs in the calling thread alone. Allocates nothing after the
 * first call for a weight and scratch.
 */
mill_status stm_gemm_run(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m, float *c, int64_t ldc, mill_error *err);
/** Oracle: sums in double. */
void stm_gemm_ref(const float *a, int64_t lda, const float *b, const float *bias, int64_t m, int64_t n, int64_t k, double *c, int64_t ldc);

#endif
