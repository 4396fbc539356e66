/* Inside of a device: shared by the files of this folder only. */
#ifndef STM_DEVICE_INTERNAL_H
#define STM_DEVICE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "device/stream.h"

#define STM_MAX_STREAMS 256 /* of one device at once */

struct stm_device {
    const stm_device_ops *ops;
    stm_hw_device *hw;
    int32_t ordinal;
    _Atomic int32_t refs;
    _Atomic bool lost; /* relaxed: set once, seen soon */
    stm_device_info info;
    _Atomic uint64_t asked;      /* relaxed; bit n: the way to device n has been asked for */
    _Atomic int64_t keeps, kept; /* relaxed; bytes that may be kept, those that are. keeps < 0: not asked yet */
    pthread_mutex_t lock;                 /* opening and closing streams */
    stm_timeline *lines[STM_MAX_STREAMS]; /* lock; made when first needed, kept until the device is closed */
    int32_t n_lines;                      /* lock */
    /* relaxed counters, for tests */
    _Atomic int64_t allocs, frees, events, streams, syncs, copies, copied_bytes, peer_copies, waits, raises, graphs, launches;
};

static inline void stm_device_count(_Atomic int64_t *counter, int64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/** Before a copy between two devices: the first one asks for a direct way. Where there is none, or it cannot be had, the driver
 *  goes over the host; so only a lost device is a failure. */
mill_status stm_device_reach(stm_device *a, stm_device *b, mill_error *err);

/** A timeline of @p dev with its events, for one stream at a time; its counter goes on where the last stream left it. */
mill_status stm_timeline_take(stm_device *dev, stm_timeline **out, mill_error *err);
void stm_timeline_give(stm_timeline **line);
/** When the device is closed. */
void stm_timelines_close(stm_device *dev);

#endif
