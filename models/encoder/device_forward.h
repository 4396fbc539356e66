/*
 * Documents through the layers on a device. Everything is queued on one stream and nothing waits; memory is allocated at open.
 *
 *      host                                  stream
 *      groups of documents, as token ids,
 *      into one pinned block a call          for each group: copy ids, places, tiles up
 *                                                            lookup + norm; layers x 8 kernels; pooling     as a graph from the
 *                                                            second time on copy the vectors to where they are wanted
 *
 * A group is filled up to the next of some sizes (stm_device_bucket) with tokens that belong to no document, at most a sixteenth,
 * so that a graph serves all groups of a size. Graphs are kept for the STM_DEVICE_GRAPHS sizes used last.
 */
#ifndef STM_ENCODER_DEVICE_FORWARD_H
#define STM_ENCODER_DEVICE_FORWARD_H

#include "device/stream.h"
#include "kernels/values.h"
#include "models/encoder/config.h"

#define STM_DEVICE_GRAPHS 16

typedef struct stm_device_forward stm_device_forward;

typedef struct stm_device_forward_opts {
    stm_stream *stream; /* outlives it */
    const char *path;   /* of the weights */
    stm_encoder_config config;
    stm_real type;
    bool invariant; /* a document's bits do not depend on the others */
    int64_t tokens; /* of a group, at most; rounded up to what one text may have */
} stm_device_forward_opts;

typedef struct stm_device_forward_stats {
    int64_t groups, tokens, padding; /* queued; padding: tokens of no document among them */
    int64_t graphs, launches;        /* made; groups that were one */
} stm_device_forward_stats;

/** Threads: the stream's owner, as for all of these. Blocks: on the upload of weights. */
mill_status stm_device_forward_open(const stm_device_forward_opts *opts, stm_device_forward **out, mill_error *err);
/** Waits for the stream. Sets *f to NULL, accepts NULL. */
void stm_device_forward_close(stm_device_forward **f);
int64_t stm_device_forward_parameters(const stm_device_forward *f);
stm_device_forward_stats stm_device_forward_counts(const stm_device_forward *f);
/** Tokens (or documents) of the group that @p n are filled up to: at most @p most. */
int64_t stm_device_bucket(int64_t n, int64_t most);
/** Bytes on the device of one forward, without the weights. */
size_t stm_device_forward_bytes(const stm_encoder_config *c, stm_real type, int64_t tokens);

/**
 * Queue @p docs documents: document d has lengths[d] ids (0: its vector is zeros) at ids + d * stride. Their vectors go to @p out
 * [docs][hidden], on the device or on the host (then it is valid once the stream has been waited for). ids and lengths are read
 * before it returns.
 * @retval MILL_ERR_AGAIN  the calls before it are not done: after the next mark that is.
 * Blocks: no (but with @p out in pageable host memory).
 */
mill_status stm_device_forward_queue(stm_device_forward *f, const int32_t *ids, int64_t stride, const int32_t *lengths,
                                     int64_t docs, float *out, mill_error *err);

#endif
