/* The buffer inside the engine: a head and, for host memory, the payload right behind it in the same pool block. */
#ifndef STM_MEMORY_BUFFER_H
#define STM_MEMORY_BUFFER_H

#include <stdbool.h>

#include "memory/pool.h"
#include "stepmill/buffer.h"

/* One cache line, so the payload behind it is aligned to MILL_BUFFER_ALIGN. */
struct mill_buffer {
    int32_t refs __attribute__((aligned(MILL_BUFFER_ALIGN))); /* atomic */
    int32_t where;                /* 0: host memory; else an stm_mem_kind, and owner is its block (memory/place.h) */
    size_t bytes;                 /* payload as asked for */
    size_t block_bytes;           /* asked of the pool for head and payload */
    mill_pool *pool;
    void *data;
    void (*release)(void *owner); /* payload of somebody else (imported): called at the last unref; NULL = ours */
    void *owner;
};

/** Payload bytes that a new buffer of at least @p bytes can have without using a larger block. */
size_t stm_buffer_round(size_t bytes);
/** A buffer around memory of somebody else: @p release(@p owner) is called once, at the last unref, from any thread;
 *  not called when this fails. @p data may have any alignment. */
mill_status stm_buffer_wrap(mill_pool *pool, const void *data, size_t bytes, void (*release)(void *owner), void *owner,
                            mill_buffer **out);
/** Cut the payload to @p bytes (<= now); only while there is one reference. */
void stm_buffer_cut(mill_buffer *buf, size_t bytes);
/** Bytes this buffer keeps from others: its block in the pool, or the wrapped payload. */
size_t stm_buffer_capacity(const mill_buffer *buf);
/** Whether the caller holds the only reference, so may write. */
static inline bool stm_buffer_unique(const mill_buffer *buf)
{
    return buf->release == NULL && __atomic_load_n(&buf->refs, __ATOMIC_ACQUIRE) == 1;
}

/** Drop one count of @p refs; true for the last. A sole holder sees 1 and nobody can add to it, so it needs no locked
 *  instruction. The acquire side makes every other holder's reads happen before the memory is used again.
 *  (Built-in atomics, because this header is read by C++, too.) */
static inline bool stm_refs_drop(int32_t *refs)
{
    return __atomic_load_n(refs, __ATOMIC_ACQUIRE) == 1 || __atomic_fetch_sub(refs, 1, __ATOMIC_ACQ_REL) == 1;
}
static inline void stm_refs_add(int32_t *refs) { __atomic_fetch_add(refs, 1, __ATOMIC_RELAXED); }

#endif
