/*
 * Copies in pieces. One copier per direction (to the device, from it, to one peer) has a stream of its own and queues pieces
 * of at most STM_COPY_PIECE bytes, the requests taking turns, so that a small copy behind a large one waits for what is under
 * way, at most STM_COPY_WINDOW bytes, and not for all of the large one.
 *
 * Somebody has to poll: the driver of the device. A request is queued once its last piece is; from then on its mark says when it is
 * done, and other streams can be told to wait for it.
 *
 * Between devices that cannot reach each other, pieces go through two pinned buffers of the copier: down on its own stream, up on a
 * second one on the other device.
 */
#ifndef STM_DEVICE_COPIER_H
#define STM_DEVICE_COPIER_H

#include "device/stream.h"

MILL_BEGIN_DECLS

#define STM_COPY_PIECE ((size_t)2 << 20)  /* bytes */
#define STM_COPY_WINDOW ((size_t)4 << 20) /* bytes queued and not known to be done: two pieces keep the link busy */

/** A request. Caller's storage; lives until `queued`, its memory until `mark` is done. */
typedef struct stm_copy {
    void *dst;
    const void *src;
    size_t bytes;
    stm_mark after; /* it begins when that is done */
    /* filled by the copier */
    stm_mark mark;      /* valid once queued: done when the copy is */
    size_t issued;      /* bytes queued so far */
    bool queued;        /* all of it is queued, or it failed */
    mill_status status; /* of the request, once queued */
    struct stm_copy *next;
} stm_copy;

typedef struct stm_copier stm_copier;

/** From and to @p dev and the host; @p peer: from @p dev to that device, else NULL. @p staged: through pinned memory although the
 *  backend could do without. Threads: any; afterwards one owner. */
mill_status stm_copier_open(stm_device *dev, stm_device *peer, bool staged, stm_copier **out, mill_error *err);
/** Waits for what is queued; requests not yet queued fail with MILL_ERR_STOPPED. Sets *c to NULL, accepts NULL. */
void stm_copier_close(stm_copier **c);
/** Take a request (borrowed until it is queued) and queue what there is room for. Small requests first. Cannot fail: a failure of
 *  the device is the request's status. Threads: owner. Blocks: no. */
void stm_copier_add(stm_copier *c, stm_copy *req);
/** See what is done and queue more. The status is that of the device (MILL_ERR_DEVICE: all requests have failed). Threads: owner.
 *  Blocks: no. */
mill_status stm_copier_poll(stm_copier *c, mill_error *err);
/** Requests not queued, or pieces not done. Threads: owner. */
bool stm_copier_busy(const stm_copier *c);

MILL_END_DECLS

#endif
