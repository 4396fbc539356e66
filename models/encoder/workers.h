/* Threads of one encoder, asleep between calls; the caller is one more. */
#ifndef STM_ENCODER_WORKERS_H
#define STM_ENCODER_WORKERS_H

#include "stepmill/error.h"

typedef struct stm_workers stm_workers;
/** Worker 0 is the caller, 1 .. n-1 the threads. */
typedef void stm_workers_fn(void *user, int32_t worker);

/** @p n >= 1 workers: n - 1 threads are started. */
mill_status stm_workers_create(int32_t n, stm_workers **out, mill_error *err);
/** Joins them; sets *w to NULL, accepts NULL. */
void stm_workers_destroy(stm_workers **w);
/** Run @p fn once on each of the first @p n workers, at once, and wait for all. Owner only; allocates nothing. */
void stm_workers_run(stm_workers *w, int32_t n, stm_workers_fn *fn, void *user);

#endif
