/*
 * Memory of a device, and pinned memory: buffers cut from slabs that are allocated at load.
 *
 * A block of a slab remembers who still works with it: one write mark (the work that fills it) and read marks (work that reads it,
 * one a timeline). After the last reference the block goes back to its pool at once if all marks are done, else it waits until they
 * are: so a buffer may be let go as soon as the work that uses it is queued.
 *
 *      taken --(last unref)--> marks done? --yes--> free, joined with free neighbours
 *                                   |no
 *                                   v
 *                                waiting --(a take, a trim, a close finds them done)--> free
 *
 * Host memory of a pool has none of this: mill_buffer.where is 0 there, and nothing else is looked at.
 *
 * Pinned memory may have a twin: the buffer on a device that it is a copy of, kept for readers on devices so that the bytes need
 * not go up again. A twin only spares a copy. So there are only as many as stm_device_keep allows, those of a pool are let go when
 * its device runs out of room, and whoever looks for one and finds none takes the bytes from the host.
 */
#ifndef STM_MEMORY_PLACE_H
#define STM_MEMORY_PLACE_H

#include "device/stream.h"
#include "memory/buffer.h"

MILL_BEGIN_DECLS

#define STM_READ_MARKS 6 /* timelines that read one buffer at once and are remembered apart */

typedef struct stm_device_pool stm_device_pool;

/** What several pools may hold together. */
typedef struct stm_pool_share {
    int64_t limit; /* bytes; 0 = none. Constant */
    int64_t used;  /* atomic, relaxed; in buffers, or let go with marks that are not done */
} stm_pool_share;

typedef struct stm_device_pool_opts {
    stm_device *device;
    stm_mem_kind kind;
    mill_pool *heads;   /* host pool for what a buffer is on the host; borrowed, outlives every buffer */
    size_t slab_bytes;  /* first slab, and the least that more come by; rounded up to 256 */
    size_t limit_bytes; /* all slabs together; 0 = no limit but the device's */
    stm_pool_share *share; /* outlives the pool; NULL = none. Kept to by who asks stm_device_pool_may_keep alone */
} stm_device_pool_opts;

typedef struct stm_device_pool_stats {
    int64_t live_bytes;    /* in buffers */
    int64_t waiting_bytes; /* let go, marks not done */
    int64_t held_bytes;    /* in slabs */
    int64_t peak_bytes;    /* most live and waiting */
    int64_t slabs;
} stm_device_pool_stats;

/** Allocates the first slab. Threads: any. */
mill_status stm_device_pool_create(const stm_device_pool_opts *opts, stm_device_pool **out, mill_error *err);
/** Close: slabs are freed with the last buffer that comes back (then the device is waited for, by nobody but frees). Sets *pool to
 *  NULL, accepts NULL. All streams that worked with its buffers are closed or idle by then. */
void stm_device_pool_release(stm_device_pool **pool);
/**
 * A buffer of @p bytes (0 too), aligned to 256 bytes; contents undefined.
 * @retval MILL_ERR_AGAIN       there is no room now; memory comes back when queued work is done.
 * @retval MILL_ERR_DEVICE_MEM  there is no room, and none is coming: a smaller batch may fit. (Pinned: MILL_ERR_NOMEM.)
 * Threads: any. Blocks: no; calls the driver only when another slab is needed.
 */
mill_status stm_device_pool_take(stm_device_pool *pool, size_t bytes, mill_buffer **out, mill_error *err);
/** Whether @p bytes that may rest in the pool's memory for long fit into its share. What a batch under way needs
 *  for a moment is taken without asking. Threads: any. Blocks: no. */
bool stm_device_pool_may_keep(stm_device_pool *pool, size_t bytes);
/** Put back what waits and is done. Threads: any. */
void stm_device_pool_reap(stm_device_pool *pool);
stm_device_pool_stats stm_device_pool_counts(stm_device_pool *pool);

/* ---- marks of a buffer. On host memory of a pool these do nothing: it is written by whoever made it, before it is handed on.
 * ---- */

/** Whether it is memory of a device. */
static inline bool stm_buffer_on_device(const mill_buffer *b) { return b->where == STM_MEM_DEVICE; }
/** The device it belongs to; NULL for host memory of a pool. */
stm_device *stm_buffer_device(const mill_buffer *b);
/** Everything up to @p mark fills it. Threads: whoever made it, before anybody else has it. */
void stm_buffer_written(mill_buffer *b, stm_mark mark);
/** The mark to wait for before reading. */
stm_mark stm_buffer_write_mark(const mill_buffer *b);
/** Everything up to @p mark reads it. False when too many timelines read it at once: keep a reference until the mark is done
 *  instead. Threads: any holder of a reference. */
bool stm_buffer_read_until(mill_buffer *b, stm_mark mark);
/** Make @p st run after what fills @p b. */
static inline mill_status stm_buffer_await(const mill_buffer *b, stm_stream *st, mill_error *err)
{
    return b->where == 0 ? MILL_OK : stm_stream_after(st, stm_buffer_write_mark(b), err);
}

/** @p host, pinned, is a copy of the bytes of @p there from @p from on. Does nothing where the device's memory is not to be spared
 *  for it. Threads: whoever made @p host, before anybody else has it. */
void stm_buffer_pair(mill_buffer *host, mill_buffer *there, size_t from);
/** A reference to the twin of @p host, NULL where it has none (any more). Threads: any holder of a reference. */
mill_buffer *stm_buffer_twin(const mill_buffer *host, size_t *from);
/** Let twins of buffers of @p pool go that have @p bytes together, or all; from then on none are made. Whether there was one.
 *  Threads: any. */
bool stm_device_pool_unpair(stm_device_pool *pool, size_t bytes);

/** For tools: called with every block that is taken (@p taken) and put back. NULL = nobody looks. Set while no pool is in use. */
extern void (*stm_place_watch)(const void *at, size_t bytes, bool taken);

MILL_END_DECLS

#endif
