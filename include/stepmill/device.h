/*
 * Devices, for steps that compute on one. UNSTABLE until release 1.0: this header may change in any version.
 *
 * A step type with the flag MILL_ON_DEVICE whose replicas have a device (`resources: {gpus: 1}`) finds the columns of its input in
 * the memory of that device, queues its work on the replica's stream and returns without waiting: the engine does what must wait.
 * What it emits may be on the device or on the host. Without a device it gets columns on the host, as any step: one type can serve
 * both.
 */
#ifndef STEPMILL_DEVICE_H
#define STEPMILL_DEVICE_H

#include <stdbool.h>

#include "stepmill/ops.h"
#include "stepmill/step.h"

MILL_BEGIN_DECLS

/** Flag of mill_step_type: computes on the replica's device where it has one. */
#define MILL_ON_DEVICE (1 << 10)
/** With MILL_ON_DEVICE: the columns of the input stay on the host, also where the replica has a device (texts that must be read
 *  there). */
#define MILL_INPUTS_ON_HOST (1 << 11)

/** A replica's device. Initialise with MILL_REPLICA_DEVICE_INIT. */
typedef struct mill_replica_device {
    size_t struct_size;
    const char *backend;  /* "cuda", "cpu"; static */
    int32_t ordinal;      /* position among the devices that the process sees */
    int32_t major, minor; /* compute capability; 0 on cpu */
    void *stream;         /* cudaStream_t: queue work here; NULL on cpu, where work is done when the call returns */
    void *queue;          /* the same stream as the engine knows it, for mill_encoder_options */
} mill_replica_device;
#define MILL_REPLICA_DEVICE_INIT                                \
    {                                                           \
        sizeof(mill_replica_device), NULL, -1, 0, 0, NULL, NULL \
    }

/** Fill @p out; false (and nothing filled) when the replica has no device. Threads: inside a call for the replica, its load and
 *  unload too. Blocks: no. */
MILL_API bool mill_replica_device_of(const mill_replica *r, mill_replica_device *out);
/**
 * Memory on the replica's device, aligned to 256 bytes, for outputs and scratch: a reference the caller owns, untouched on failure.
 * It may be let go as soon as the work that uses it is queued.
 * @retval MILL_ERR_AGAIN        no room until queued work is done: return it, the engine calls again then.
 * @retval MILL_ERR_DEVICE_MEM   no room at all: return it.
 * @retval MILL_ERR_UNSUPPORTED  the replica has no device.
 * Threads: inside a call for the replica. Blocks: no.
 */
MILL_API mill_status mill_replica_device_buffer(mill_replica *r, size_t bytes, mill_buffer **out, mill_error *err);
/** Queues work on the replica's stream; @p user is what mill_replica_graph was given. */
typedef mill_status (*mill_graph_queue)(mill_replica *r, void *user, mill_error *err);
/**
 * Queue the same work as earlier calls with this key, by one call of the driver where the backend has graphs.
 *
 * With a new key @p queue is called once and what it queues is captured; later calls with the key launch that and do not call it.
 * So everything that the work depends on and is not in the key stays as it is: sizes, parameters, addresses. The usual way: buffers
 * of the replica's own for the largest shape, inputs copied there before, one key per bucket of shapes. Inside @p queue nothing may
 * be waited for or allocated. A replica keeps the last MILL_GRAPHS keys that were used. Where there are no graphs @p queue is
 * called every time.
 *
 * @param key, bytes  compared byte by byte; at most MILL_GRAPH_KEY bytes.
 * @retval MILL_ERR_UNSUPPORTED  the replica has no device.
 * @retval MILL_ERR_INVALID      the key is too long.
 * @retval MILL_ERR_NOMEM        out of memory. Besides, what @p queue gives.
 * Threads: inside process. Blocks: no, but to make room for a new key while all kept ones are queued.
 */
MILL_API mill_status mill_replica_graph(mill_replica *r, const void *key, size_t bytes, mill_graph_queue queue, void *user,
                                        mill_error *err);
#define MILL_GRAPHS 32
#define MILL_GRAPH_KEY 64
/** Drop all kept graphs: buffers that they use are about to go. They are dropped before unload is called, too. Threads: inside a
 *  call for the replica. Blocks: until those that are queued are done. */
MILL_API void mill_replica_graphs_drop(mill_replica *r);
/**
 * Steps with the flag MILL_REPORTS_STATUS: the word of the batch in hand, an int32 in device memory that is 0 before its work and
 * that this work may set. Another value than 0 means that the batch failed: it is read before the batch goes on. NULL without a
 * device. Threads: inside process. Blocks: no.
 */
MILL_API int32_t *mill_replica_device_status(mill_replica *r);
/** Whether the buffer is memory of a device: its address then means nothing on the host, but with the backend `cpu`. Threads: any.
 *  Blocks: no. */
MILL_API bool mill_buffer_is_on_device(const mill_buffer *buf);
/** Whether any buffer of the column is. mill_view.null_count of such a column is -1 unless it has no nulls. Threads: any. Blocks:
 *  no. */
MILL_API bool mill_column_is_on_device(const mill_column *col);

/**
 * mill_topk and mill_pairs on the devices of the replica, all of them (`resources: {gpus: N}`), where it has any; else on the host.
 * The same bits. For globals with the flag MILL_ON_DEVICE. Arguments and statuses as in stepmill/ops.h, and those of devices;
 * NULL-safe as there.
 *
 * @param columns, n_columns  columns that the vectors may lie in, borrowed; entries may be NULL. What a step made on a device and
 *                            what came down is often still there: then it is taken from there and does not go up again. NULL, 0:
 *                            all comes from the host.
 * Threads: inside a call for the replica. Blocks until done.
 */
MILL_API mill_status mill_replica_topk(mill_replica *r, const mill_topk_args *args, mill_column *const *columns, size_t n_columns,
                                       mill_error *err);
MILL_API mill_status mill_replica_pairs(mill_replica *r, const mill_pairs_args *args, mill_column *const *columns, size_t n_columns,
                                        mill_error *err);
/**
 * mill_minhash for texts on the host, on the device of the replica where it has one (queued, not waited for), else on the host. The
 * same bits. args->out is not looked at: *out is a buffer of int32 [rows][MILL_MINHASHES] in the memory of the device or of the
 * host, and the caller's. Statuses as mill_replica_device_buffer and mill_minhash. Threads: inside process. Blocks: no; on the host
 * until done.
 */
MILL_API mill_status mill_replica_minhash(mill_replica *r, const mill_minhash_args *args, mill_buffer **out, mill_error *err);

MILL_END_DECLS

#endif
