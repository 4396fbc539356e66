/* A few threads for one long operation: started for it, joined at its end. */
#ifndef STM_KERNELS_PARALLEL_H
#define STM_KERNELS_PARALLEL_H

#include "stepmill/error.h"

#define STM_PARALLEL_MAX 256

/** Work of one of @p n workers; its own record is filled on failure. */
typedef mill_status stm_parallel_fn(void *user, int32_t worker, mill_error *err);

/**
 * Run @p fn for workers 0 .. n-1 at once and wait for all: worker 0 in the calling thread. When a thread cannot be
 * started, its worker is left out; so fn must share work out as it goes, and worker 0 alone must be able to do it all.
 * Returns the failure of the lowest worker that failed (into @p err), or MILL_OK.
 */
mill_status stm_parallel(int32_t n, stm_parallel_fn *fn, void *user, mill_error *err);

#endif
