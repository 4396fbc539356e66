/*
 * The communicator of a multi-GPU replica: groups of calls on its streams, under a deadline.
 *
 *             open                 poll                  submit                poll
 *   (nothing) ----> STM_COMM_FORMING ----> STM_COMM_READY <----> STM_COMM_QUEUEING
 *                        |                      | a fault, or a deadline passed    |
 *                        +-----------+----------+-------------------------------+
 *                                    v
 *                             STM_COMM_BROKEN   aborted; every call gives the first failure
 *                                    | rebuild (streams are drained first)
 *                                    v
 *                             STM_COMM_FORMING
 *
 * The watch: whoever owns the communicator polls it; each poll looks at the library's faults, at the devices and at the clock. A
 * step whose poll says STM_RETRY rebuilds and does the batch again; nothing waits without a deadline.
 */
#ifndef STM_COMM_COMM_H
#define STM_COMM_COMM_H

#include "comm/comm_ops.h"
#include "device/stream.h"

MILL_BEGIN_DECLS

#define STM_COMM_DEPTH 4 /* groups under way at once */
#define STM_COMM_TIMEOUT_NS ((int64_t)120 * 1000000000)

typedef struct stm_comm stm_comm;
typedef enum stm_comm_state { STM_COMM_FORMING, STM_COMM_READY, STM_COMM_QUEUEING, STM_COMM_BROKEN } stm_comm_state;

/**
 * The library of that name; the first call for "nccl" finds and opens libstepmill-nccl.so, which stays open.
 * @retval MILL_ERR_NOT_FOUND    no library of that name, or its module is not there.
 * @retval MILL_ERR_UNSUPPORTED  the module, or a library that it needs, cannot be opened; @p err says which and why.
 * Threads: any. Blocks: on reading files.
 */
mill_status stm_comm_find(const char *name, const stm_comm_ops **out, mill_error *err);

/**
 * Begin to connect. Rank i is the device of streams[i]; the streams stay the caller's and outlive the communicator.
 * @param n           1 .. STM_COMM_RANKS.
 * @param timeout_ns  For a connection, and for a group from its submit until it is done, what was queued before it included;
 *                    0 = STM_COMM_TIMEOUT_NS.
 * @retval MILL_ERR_INVALID  streams of other devices than the library's, or two on one device.
 * Threads: any; afterwards one owner, who also owns the streams. Blocks: no; see stm_comm_wait.
 */
mill_status stm_comm_open(const stm_comm_ops *ops, stm_stream *const *streams, int32_t n, int64_t timeout_ns, stm_comm **out,
                          mill_error *err);
/** Parts in good order where it can, within the deadline; aborts where it cannot. Sets *comm to NULL, accepts NULL. Blocks. */
void stm_comm_close(stm_comm **comm);

/**
 * Begin to queue a group: for every collective a call of each rank, in the same order, which agree; for every send its receive.
 * @retval MILL_ERR_AGAIN    not ready yet, or STM_COMM_DEPTH groups are under way: poll.
 * @retval MILL_ERR_INVALID  calls that do not fit each other; nothing is queued.
 * Owner. Blocks: no. Queue what depends on it only when stm_comm_poll has said MILL_OK.
 */
mill_status stm_comm_submit(stm_comm *comm, const stm_comm_call *calls, int32_t n, mill_error *err);
/** Move on and look for faults. MILL_OK: connected, and what was submitted is queued. MILL_ERR_AGAIN: not yet. Else broken; the
 *  failure stays until rebuild. Owner. Blocks: no. */
mill_status stm_comm_poll(stm_comm *comm, mill_error *err);
/** Poll until all that was submitted is done, or the deadline has passed. Not per batch. Owner. Blocks. */
mill_status stm_comm_wait(stm_comm *comm, mill_error *err);
/** Connect again after a failure: waits for the streams, up to the deadline (MILL_ERR_DEVICE: they do not come back), then begins
 *  as open does. Owner. Blocks. */
mill_status stm_comm_rebuild(stm_comm *comm, mill_error *err);

stm_comm_state stm_comm_state_of(const stm_comm *comm);
/** Groups submitted and not known to be done. */
int32_t stm_comm_in_flight(const stm_comm *comm);
/** What to do about a status that a function above gave: STM_RETRY = rebuild, then the batch again. */
stm_verdict stm_comm_verdict(mill_status status);
size_t stm_comm_type_bytes(stm_comm_type type); /* 0: no such type */

MILL_END_DECLS

#endif
