/*
 * Pools: recycled memory for everything that comes and goes per batch. Small objects (batch shells, columns, buffer
 * heads, builders) and payloads come from size classes with free lists; in the steady state a pool calls no allocator.
 */
#ifndef STM_MEMORY_POOL_H
#define STM_MEMORY_POOL_H

#include "stepmill/buffer.h"

struct stm_device;

typedef struct stm_pool_stats {
    int64_t live_bytes;  /* handed out, in class sizes */
    int64_t held_bytes;  /* in free lists */
    int64_t peak_bytes;  /* highest live */
    int64_t misses;      /* times the allocator was called */
} stm_pool_stats;

/** @p limit_bytes of live payload after which takes give MILL_ERR_NOMEM; 0 = none. The pool stays until the last thing taken
 *  from it has come back, even after stm_pool_release. Threads: any, all calls. */
mill_status stm_pool_create(int64_t limit_bytes, mill_pool **out);
/** Close: no more takes; freed with the last object that comes back. Sets *pool to NULL, accepts NULL. */
void stm_pool_release(mill_pool **pool);
/** @p bytes of memory aligned to 16 (64 from 64 bytes on); NULL when out of memory. Uninitialised. */
void *stm_pool_take(mill_pool *pool, size_t bytes);
/** Give back what stm_pool_take gave, with the same @p bytes. */
void stm_pool_give(mill_pool *pool, void *ptr, size_t bytes);
/** Give the calling thread a stock of small blocks (below 4 KiB) of its own, so that most takes and gives touch nothing shared. One
 *  pool per thread at a time; a thread that cannot have one goes on without. The stock counts as live. Undo with stm_pool_detach
 *  before the thread ends. */
void stm_pool_attach(mill_pool *pool);
/** Return the calling thread's stock; no effect when it has none. */
void stm_pool_detach(void);
/** Bytes of the block that a take of @p bytes really gets (its size class). */
size_t stm_pool_block_bytes(size_t bytes);
stm_pool_stats stm_pool_counts(const mill_pool *pool);
/** live_bytes alone: one relaxed load. */
int64_t stm_pool_live(const mill_pool *pool);
/** Return free lists to the allocator. */
void stm_pool_trim(mill_pool *pool);

#endif
