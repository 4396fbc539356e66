/*
 * What a replica that computes on a device has there: streams, memory, pinned buffers on the way. The wrapper calls the step
 * through it; everything else of the wrapper stays host work.
 *
 *      columns of the batch      on the host: copied on `up`     on another device: copied on `across`     on this one: as they are
 *      process                   queues its work on `stream`, behind all of these, and returns
 *      outputs                   what the plan lets stay, stays; the rest is copied on `down`, and what is wanted on a device, too,
 *                                stays there besides, as its twin
 *
 * So copies for the next batch run beside the work of this one, and so do those of the last one. Each stream that got work raises
 * one mark per batch, and each stream that reads what another made waits for it once. At most STM_LANE_DEPTH batches are under way:
 * while one runs, the next is queued.
 *
 * Nothing waits on the host but what has to look at rows there: a batch that failed, was emitted in parts, or has marked rows.
 * Whoever drives the wrapper polls; a batch whose columns are still on their way down is handed on when stm_lane_due is done.
 */
#ifndef STM_WRAPPER_LANE_H
#define STM_WRAPPER_LANE_H

#include "device/stream.h"
#include "stepmill/device.h"

#define STM_LANE_DEPTH 2
#define STM_LANE_ROOM_NS 10000000000ll

typedef struct stm_lane stm_lane;
struct stm_wrapper;
struct stm_site;

typedef struct stm_lane_opts {
    stm_device *device;
    mill_pool *host;
    size_t slab_bytes;   /* first slab on the device; 0 = 32 MiB */
    size_t limit_bytes;  /* of all slabs; 0 = none */
    size_t pinned_bytes; /* first slab of pinned memory; 0 = 8 MiB */
    bool traced;         /* what its streams did is kept for stm_lane_spans */
    struct stm_pool_share *share; /* of pinned memory; NULL = none */
} stm_lane_opts;

typedef enum stm_lane_way { STM_WAY_STEP, STM_WAY_UP, STM_WAY_DOWN, STM_WAY_ACROSS, STM_WAYS } stm_lane_way;
/** What one batch had queued on a stream, as the host saw it: from when the batch was begun, or what was before it on the stream
 *  was seen to be done, until it was seen to be done itself. stm_ticks. */
typedef struct stm_lane_span {
    uint64_t begin, end;
    stm_lane_way way;
} stm_lane_span;

typedef struct stm_lane_stats {
    int64_t batches, uploads, landings; /* calls; columns copied to the device (from the host or another device), from it */
    int64_t joined;                     /* columns put together on the device */
    int64_t retries;                    /* calls made again once queued work, or twins, had given memory back */
} stm_lane_stats;

mill_status stm_lane_open(const stm_lane_opts *opts, stm_lane **out, mill_error *err);
/** Waits for what is queued. Sets *l to NULL, accepts NULL. Buffers may outlive it. */
void stm_lane_close(stm_lane **l);
/** The step is done and calls nothing of this any more: its memory goes, slabs with the last buffer in them that others have. */
void stm_lane_retire(stm_lane *l);
/** Of a lane that is retired: what has come back since goes, too. Threads: one at a time. */
void stm_lane_trim(stm_lane *l);
/** Wait for what is queued, whatever came of it. */
void stm_lane_settle(stm_lane *l);
stm_lane_stats stm_lane_counts(const stm_lane *l);
stm_stream *stm_lane_stream(const stm_lane *l);

/** Which outgoing columns may be on the device when a batch leaves (@p keep), and which of the others are to be on both sides
 *  (@p pair): [columns of the step's output], borrowed for the lane's life; NULL (the beginning) = none. */
void stm_lane_keep(stm_lane *l, const bool *keep, const bool *pair);
/** How to put columns together on the device. Errors of its functions go to @p err until the next call. */
const struct stm_site *stm_lane_site(stm_lane *l, mill_error *err);

/** One call of process with the columns on the device; the status and what it emitted are the wrapper's. @p in as for process.
 *  Blocks while STM_LANE_DEPTH batches are under way; and, unless these are the wrapper's views and all went well, until the
 *  outputs are on the host.
 *  Threads: the wrapper's. */
mill_status stm_lane_process(struct stm_wrapper *w, mill_batch *const *in, mill_error *err);
/** Columns of the wrapper's inputs that are on a device come to the host, before rows are picked from them there. Blocks. */
mill_status stm_lane_land_inputs(struct stm_wrapper *w, mill_error *err);

/** A single row found no room on the device, which says little of the row: batches that later steps have yet to read may fill it.
 *  Waits until some of its memory has come back, for STM_LANE_ROOM_NS at most and not beyond a stop, and not again until a call has
 *  fitted. Whether some has. Threads: the wrapper's. Blocks. */
bool stm_lane_await_room(const struct stm_wrapper *w);

/** What must be done before anybody but a stream looks at the batch that was made last; {NULL, 0}: it can go on at once. */
stm_mark stm_lane_due(const stm_lane *l);
/** Ask the driver how far the streams are. A failure of the work itself: MILL_ERR_DEVICE. */
mill_status stm_lane_poll(stm_lane *l, mill_error *err);
/** Of a traced lane: one after the other, what polls have found to be done; false: no more for now. Threads: the wrapper's. */
bool stm_lane_next_span(stm_lane *l, stm_lane_span *out);
/** Batches under way, by what the last poll found. */
int32_t stm_lane_under_way(const stm_lane *l);

#endif
