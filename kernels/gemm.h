/*
 * gemm: c[i][j] = sum over p of a[i][p] * b[j][p] (+ bias[j]), row-major, b given as [n][k] (a linear layer's weight).
 * The bits of a row of c depend on that row of a and on b only: not on the other rows, on their number, or on which columns
 * are asked for in one call. (They do depend on the processor's instruction set.)
 *
 * Our own kernels rather than a library's: at these shapes they are as fast (f32) or faster (bf16 with tiles) than
 * oneDNN 2.6, whose execute call allocates seven times, whose bits change with the number of rows, and which would bring
 * OpenMP's threads and ten milliseconds of start-up along. bench/embed compares them.
 */
#ifndef STM_KERNELS_GEMM_H
#define STM_KERNELS_GEMM_H

#include <stdbool.h>

#include "stepmill/error.h"

#define STM_GEMM_ROWS 64    /* a good number of rows per call, and the multiple to which buffers are best rounded up */
#define STM_GEMM_ROW_PAD 16 /* rows of a are read, rows of c written, up to the next multiple of this */

typedef enum stm_gemm_type { STM_GEMM_F32 = 0, STM_GEMM_BF16 = 1 } stm_gemm_type;

/** A weight matrix packed once for many calls; shared by threads, read only. */
typedef struct stm_gemm_weight stm_gemm_weight;
/** Scratch of one thread. */
typedef struct stm_gemm_scratch stm_gemm_scratch;

/** Pack @p b [n][k] of f32 for computing in @p type. @p bias [n] f32, may be NULL; both copied.
 *  Works on every processor: without bf16 instructions a bf16 weight is rounded to bf16 and multiplied in f32.
 *  Threads: any. */
mill_status stm_gemm_pack(stm_gemm_type type, const float *b, const float *bias, int64_t n, int64_t k, stm_gemm_weight **out,
                          mill_error *err);
/** The same with the packed values at @p to, stm_gemm_packed_bytes large, aligned to a page: the caller's, who keeps it until
 *  the weight is unpacked. One block for a whole model lies in few pages, where a block for each of its matrices does not. */
mill_status stm_gemm_pack_into(stm_gemm_type type, const float *b, const float *bias, int64_t n, int64_t k, void *to,
                               stm_gemm_weight **out, mill_error *err);
/** What a matrix takes, rounded up to whole pages; 0 of a size that cannot be packed. */
size_t stm_gemm_packed_bytes(stm_gemm_type type, int64_t n, int64_t k);
/** Memory for packed weights in large pages where the system has them; NULL where there is none. Release with stm_free. */
void *stm_gemm_packed_memory(size_t bytes);
void stm_gemm_unpack(stm_gemm_weight **w);
/** Whether this processor has instructions that make @p type fast. */
bool stm_gemm_supports(stm_gemm_type type);
mill_status stm_gemm_scratch_create(stm_gemm_scratch **out, mill_error *err);
void stm_gemm_scratch_destroy(stm_gemm_scratch **s);
/** Make it large enough for weights of up to @p k, so that not even the first stm_gemm_run allocates. */
mill_status stm_gemm_scratch_reserve(stm_gemm_scratch *s, int64_t k, mill_error *err);
/**
 * Multiply rows 0 .. m-1. a is [m][lda] f32 or bf16 (by the weight's type), lda >= k; c is [m][ldc] f32, ldc >= n. Both have
 * room up to the next multiple of STM_GEMM_ROW_PAD rows: those past m are read (any values) and overwritten. Columns of c
 * past n are left alone. Runs in the calling thread alone. Allocates nothing after the first call for a weight and scratch.
 */
mill_status stm_gemm_run(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m, float *c,
                         int64_t ldc, mill_error *err);
/** The same for columns first .. first+count-1 only, which land in columns 0 .. count-1 of c: so that what follows can work
 *  on a piece that is still in cache. first is a multiple of 16, and count, too, unless it reaches the last column.
 *  Bits as in stm_gemm_run. */
mill_status stm_gemm_run_columns(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m,
                                 int64_t first, int64_t count, float *c, int64_t ldc, mill_error *err);
/** The product in slices of k: columns from .. to-1 of a row times rows from .. to-1 of b, all columns. Column 0 of @p a is
 *  k @p from, lda >= to - from. The first slice (from 0) begins with the bias, the others add to what c holds; taken in turn
 *  they give the bits of stm_gemm_run. Slices end at multiples of stm_gemm_slice(w, some k) or at k. */
mill_status stm_gemm_run_slice(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m, int64_t from,
                               int64_t to, float *c, int64_t ldc, mill_error *err);
/** The longest slice of at most @p k that @p w allows; all of its k where it allows none. */
int64_t stm_gemm_slice(const stm_gemm_weight *w, int64_t k);
/** Oracle: sums in double. */
void stm_gemm_ref(const float *a, int64_t lda, const float *b, const float *bias, int64_t m, int64_t n, int64_t k, double *c,
                  int64_t ldc);

#endif
