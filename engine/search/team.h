/*
 * The devices of one replica that searches: a stream each, pinned memory on the way to it, and, where there are several, the
 * communicator between them. One thread drives them all.
 *
 * Nothing here waits for a device but stm_team_settle, stm_team_drain, and an upload whose pinned slots are all on their way. What
 * waits for other ranks has the communicator's deadline.
 */
#ifndef STM_SEARCH_TEAM_H
#define STM_SEARCH_TEAM_H

#include "comm/comm.h"
#include "kernels/kernels.h"

#define STM_TEAM_STAGE ((size_t)1 << 20) /* bytes of a pinned slot: more rows than it holds go in pieces */

typedef struct stm_team stm_team;

/** @p devices are n different ones of one backend; the team keeps references. With n > 1 the backend's communication library is
 *  found and the connection begun. @p timeout_ns as stm_comm_open. Threads: any; afterwards one owner at a time. Blocks: on memory,
 *  and on a check of each device's kernels. */
mill_status stm_team_open(stm_device *const *devices, int32_t n, int64_t timeout_ns, stm_team **out, mill_error *err);
/** Waits for what is queued. Sets *t to NULL, accepts NULL. */
void stm_team_close(stm_team **t);
int32_t stm_team_size(const stm_team *t);
stm_device *stm_team_device(const stm_team *t, int32_t rank);
stm_stream *stm_team_stream(const stm_team *t, int32_t rank);
const stm_kernels *stm_team_kernels(const stm_team *t);
/** The form of products that the rank's device takes, chosen when the team was opened (search/form.h). */
stm_tiles stm_team_tiles(const stm_team *t, int32_t rank);

/** Make the calling thread work for that rank's device: before kernels are launched. */
mill_status stm_team_enter(stm_team *t, int32_t rank, mill_error *err);
/** The status of a launch, told and kept. */
mill_status stm_team_launched(stm_team *t, int32_t rank, mill_status st, const char *what, mill_error *err);

/** Writes rows first .. first + n - 1 of what is to go up. */
typedef void (*stm_team_fill)(const void *user, int64_t first, int64_t n, void *out);
/** Queue @p n rows of @p width bytes to @p dst on a rank's device, piece by piece. width at most STM_TEAM_STAGE. */
mill_status stm_team_upload(stm_team *t, int32_t rank, void *dst, int64_t n, size_t width, stm_team_fill fill, const void *user,
                            mill_error *err);
/** Memory for a search. Freed only when nothing queued can use it: where a device does not answer any more, at the end of the
 *  team. */
mill_status stm_team_alloc(stm_team *t, int32_t rank, stm_mem_kind kind, size_t bytes, void **out, mill_error *err);
/** After stm_team_settle or stm_team_drain. Sets *ptr to NULL, accepts NULL. */
void stm_team_free(stm_team *t, int32_t rank, stm_mem_kind kind, void **ptr);
/** Queue a group on all ranks; returns when it is queued, not when it is done. One rank: nothing. */
mill_status stm_team_group(stm_team *t, const stm_comm_call *calls, int32_t n, mill_error *err);
/** Wait for all that is queued on all ranks, groups included. */
mill_status stm_team_settle(stm_team *t, mill_error *err);
/** The same whatever became of it: nothing queued uses memory of ours any more. */
void stm_team_drain(stm_team *t);
/** After a failure whose stm_comm_verdict is STM_RETRY: connect anew. */
mill_status stm_team_rebuild(stm_team *t, mill_error *err);

#endif
