/*
 * What a replica that computes on a device has there: a stream, memory, pinned buffers on the way. The wrapper calls the step through
 * it; everything else of the wrapper stays host work.
 *
 *      columns of the batch      on the host: copied up (through pinned memory)    on this device: the stream waits for their mark, nothing else
 *      process                   queues its work and returns
 *      raise                     one mark behind all of it: outputs are written until then, inputs read
 *      outputs                   kept on the device, or copied down and waited for
 *
 * At most STM_LANE_DEPTH batches are under way: while one runs, the next is queued.
 */
#ifndef STM_WRAPPER_LANE_H
#define STM_WRAPPER_LANE_H

#include "device/stream.h"
#include "stepmill/device.h"

#define STM_LANE_DEPTH 2

typedef struct stm_lane stm_lane;
struct stm_wrapper;

typedef struct stm_lane_opts {
    stm_device *device;
    mill_pool *host;
    size_t slab_bytes;   /* first slab on the device; 0 = 32 MiB */
    size_t limit_bytes;  /* of all slabs; 0 = none */
    size_t pinned_bytes; /* first slab of pinned memory; 0 = 8 MiB */
    bool keep;           /* outputs stay on the device; else they are on the host when the call returns */
} stm_lane_opts;

typedef struct stm_lane_stats {
    int64_t batches, uploads, landings; /* calls; columns copied to the device, from it */
    int64_t retries;                    /* calls made again once queued work had given memory back */
} stm_lane_stats;

mill_status stm_lane_open(const stm_lane_opts *opts, stm_lane **out, mill_error *err);
/** Waits for what is queued. Sets *l to NULL, accepts NULL. Buffers may outlive it. */
void stm_lane_close(stm_lane **l);
/** Wait for what is queued, whatever came of it. */
void stm_lane_settle(stm_lane *l);
stm_lane_stats stm_lane_counts(const stm_lane *l);
stm_stream *stm_lane_stream(const stm_lane *l);

/** One call of process with the columns on the device; the status and what it emitted are the wrapper's. @p in as for process. Blocks:
 *  while STM_LANE_DEPTH batches are under way, and until the outputs are on the host unless they are kept. Threads: the wrapper's. */
mill_status stm_lane_process(struct stm_wrapper *w, mill_batch *const *in, mill_error *err);
/** Columns of the wrapper's inputs that are on a device come to the host, before rows are picked from them there. */
mill_status stm_lane_land_inputs(struct stm_wrapper *w, mill_error *err);

#endif
