/*
 * Streams and timelines.
 *
 * A stream's timeline is a counter that is raised once per batch: stm_stream_raise gives a mark (timeline, tick) that is done when
 * all that was queued before it is. Marks are what buffers carry (memory/place.h); they stay valid until the device is closed, also
 * after their stream is gone.
 *
 *      owner of A                         device                       owner of B
 *      queue work ...
 *      raise  -> (A, 7)   ----- event of slot 7 recorded
 *      mark the outputs (A, 7), hand them on --------------------->    stream_after(B, (A, 7)): B waits on that event, once
 *      poll: event done?  <---- ... -----                              queue work that reads them
 *      done = 7
 *
 * A timeline has STM_TICKS events and uses them in turn. Waiting for a tick whose event has been recorded again waits for the later
 * record: longer than needed, never for something that was queued after the wait, so there is no circle.
 */
#ifndef STM_DEVICE_STREAM_H
#define STM_DEVICE_STREAM_H

#include "device/device.h"

MILL_BEGIN_DECLS

#define STM_TICKS 32 /* raised and not done at once, at most */

/** What everybody may read. The rest of a timeline is its device's. */
struct stm_timeline {
    uint64_t done __attribute__((aligned(64))); /* atomic; release by the stream's owner, acquire by anybody */
    uint64_t raised;                            /* atomic; as done */
    stm_device *device;                         /* constant */
    uint64_t number;                            /* constant: its own in this process, from 1 */
    int32_t index;                              /* constant: 0 .. STM_MAX_STREAMS-1 within the device */
    bool taken;                                 /* the device's lock */
    stm_hw_event *events[STM_TICKS];            /* constant once the first stream had it */
};

/** A point on a timeline. {NULL, 0}: nothing to wait for. */
typedef struct stm_mark {
    stm_timeline *line;
    uint64_t tick;
} stm_mark;

/** Whether it is known to be done. Never asks the driver: the owner's poll moves `done`. Threads: any. */
static inline bool stm_mark_done(stm_mark m)
{
    return m.line == NULL || __atomic_load_n(&m.line->done, __ATOMIC_ACQUIRE) >= m.tick;
}

typedef struct stm_stream stm_stream;

/** Threads: any; afterwards one owner at a time. */
mill_status stm_stream_open(stm_device *dev, stm_stream **out, mill_error *err);
/** Waits for what is queued; then every mark of it is done. Sets *st to NULL, accepts NULL. */
void stm_stream_close(stm_stream **st);
stm_device *stm_stream_device(const stm_stream *st);
stm_hw_stream *stm_stream_hw(const stm_stream *st);
void *stm_stream_native(const stm_stream *st);

/** A mark behind all that is queued. MILL_ERR_AGAIN: STM_TICKS marks are under way (see stm_stream_in_flight). Threads: owner. */
mill_status stm_stream_raise(stm_stream *st, stm_mark *out, mill_error *err);
/** The mark that the next successful raise will give: what is queued until then is before it. Buffers can so be marked, and let go,
 *  while work is being queued. When the stream is closed instead, it is done. Threads: owner. */
stm_mark stm_stream_next(const stm_stream *st);
/** Ticks raised and not known to be done. Threads: owner. */
int32_t stm_stream_in_flight(const stm_stream *st);
/** Ask the driver how far the stream is; asks about the oldest mark first and stops at one that is not done.
 *  A failure is one of the work itself: the device is lost. Threads: owner. Blocks: no. */
mill_status stm_stream_poll(stm_stream *st, mill_error *err);
/** What is queued from now on runs after @p mark; nothing is queued if that is so already. Threads: owner. Blocks: no. */
mill_status stm_stream_after(stm_stream *st, stm_mark mark, mill_error *err);
/** The same, for a @p mark that @p of has just raised: what @p of has waited for need not be waited for again. Threads: owner of
 *  both. */
mill_status stm_stream_follow(stm_stream *st, const stm_stream *of, stm_mark mark, mill_error *err);
/** Wait for all that is queued. Not per batch. Threads: owner. Blocks. */
mill_status stm_stream_sync(stm_stream *st, mill_error *err);
/** Before memory is freed that queued work uses: wait for it, whatever came of it, also on a device that counts as lost. Threads:
 *  owner. Blocks. */
void stm_stream_settle(stm_stream *st);

/** The bytes of one operation on a link: what a copy on another stream may have to wait for. */
#define STM_COPY_MOST ((size_t)4 << 20)
/** Queue a copy, in pieces of at most STM_COPY_MOST bytes, between which a link can serve other streams. All of them are queued at
 *  once: copier.h is for those who poll and want small copies in front. bytes 0: nothing. On a failure some pieces may be under
 *  way. Threads: owner. */
mill_status stm_stream_copy(stm_stream *st, void *dst, const void *src, size_t bytes, mill_error *err);
mill_status stm_stream_fill(stm_stream *st, void *dst, int byte, size_t bytes, mill_error *err);
/** The same between devices. The first copy between two of them opens the direct way, where there is one: milliseconds. */
mill_status stm_stream_copy_peer(stm_stream *st, stm_device *to, void *dst, stm_device *from, const void *src, size_t bytes,
                                 mill_error *err);

/** A range that profilers show, until the matching pop on the same thread. */
void stm_range_push(const stm_device *dev, const char *name);
void stm_range_pop(const stm_device *dev);

MILL_END_DECLS

#endif
