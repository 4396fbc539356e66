/*
 * A trace of a run: what each thread and each replica did when, as JSON that Perfetto and chrome://tracing read.
 *
 * A thread writes fixed-size events into a ring of its own: no lock, no call, no line shared with another writer. One reader takes
 * them out now and then and writes the file. A full ring and a full file drop events, which are counted: memory and disk stay
 * bounded.
 */
#ifndef STM_TRACE_TRACER_H
#define STM_TRACE_TRACER_H

#include <stdbool.h>

#include "stepmill/error.h"

#define STM_RING_EVENTS 65536u        /* a power of two; 2 MiB a thread */
#define STM_TRACE_BYTES (256LL << 20) /* of the file, at most */

enum {
    STM_EVENT_WAIT = -1,  /* `place` of an event: the thread had nothing to do */
    /* `items` of an event, less the number of a stream (below STM_STREAMS): what the replica's device had to do there */
    STM_EVENT_STREAM = -1
};
#define STM_STREAMS 4 /* kernels, copies to the device, to the host, between devices */

typedef struct stm_event {
    uint64_t begin, end; /* stm_ticks */
    int32_t place;       /* of stm_tracer_place, or STM_EVENT_WAIT */
    int32_t replica;     /* -1 = none */
    int32_t items;       /* batches handled in one go; < 0: see STM_EVENT_STREAM */
    int32_t rows;        /* of them; INT32_MAX = as many or more */
} stm_event;

typedef struct stm_ring {
    /* Atomic by __atomic, so that C++ can read this header. */
    uint64_t written __attribute__((aligned(64))); /* events put in so far; release by the writer, acquire by the reader */
    uint64_t seen;                                 /* writer: `taken` when it last looked */
    uint64_t dropped;                              /* writer; relaxed */
    uint64_t taken __attribute__((aligned(64)));   /* release by the reader, acquire by the writer */
    struct stm_ring *next;                         /* constant */
    char name[48];
    stm_event events[STM_RING_EVENTS] __attribute__((aligned(64)));
} stm_ring;

/** Threads: the one whose ring it is. */
static inline void stm_ring_put(stm_ring *r, const stm_event *e)
{
    const uint64_t at = __atomic_load_n(&r->written, __ATOMIC_RELAXED);

    if (at - r->seen >= STM_RING_EVENTS && at - (r->seen = __atomic_load_n(&r->taken, __ATOMIC_ACQUIRE)) >= STM_RING_EVENTS) {
        __atomic_store_n(&r->dropped, r->dropped + 1, __ATOMIC_RELAXED);
        return;
    }
    r->events[at & (STM_RING_EVENTS - 1)] = *e;
    __atomic_store_n(&r->written, at + 1, __ATOMIC_RELEASE);
}

typedef struct stm_tracer stm_tracer;
/** Whether a trace may be written to @p path: nothing is there, an earlier trace, or what is no file (/dev/null). Inputs, outputs
 *  and pipeline files are not to be lost by a slip in a command line. @retval MILL_ERR_INVALID: something else is there. */
mill_status stm_tracer_may_write(const char *path, mill_error *err);
/** Opens @p path anew. */
mill_status stm_tracer_create(const char *path, stm_tracer **out, mill_error *err);
/** Before threads start: where events happen. @p step: it has replicas, which get tracks of their own. */
mill_status stm_tracer_place(stm_tracer *t, int32_t place, const char *name, bool step);
/** A thread begins: its ring, NULL when there is no memory for one. Threads: any. */
stm_ring *stm_tracer_join(stm_tracer *t, const char *name);
/** Take out what is there. Threads: one at a time. Blocks: on the disk. */
void stm_tracer_drain(stm_tracer *t);
/** No thread writes any more: end the file. Once; MILL_ERR_IO: not all of it could be written. */
mill_status stm_tracer_finish(stm_tracer *t, mill_error *err);
/** Events that are in no file, for a ring or the file was full. */
int64_t stm_tracer_dropped(const stm_tracer *t);
/** Finishes, if nobody has. Sets *t to NULL, accepts NULL. */
void stm_tracer_destroy(stm_tracer **t);

#endif
