/* What a test asks of the simulated devices. Everything is process-wide. Linked like the CUDA runtime itself: the functions are in
 * the simulated libcudart.so.13; a test that also runs on a real device looks them up with dlsym and finds nothing.
 *
 * Environment, read once at the first call:
 *   STM_SIM_DEVICES=4        devices in the machine; CUDA_VISIBLE_DEVICES (positions, GPU-<uuid>) selects from them as usual
 *   STM_SIM_DRIVER=none      no driver: every call fails as it does on such a machine
 *   STM_SIM_MB=1024          memory of each device
 *   STM_SIM_FILL_KB=65536    how much of each allocation is filled with NaN at first: for programs that make hundreds of large ones
 *   STM_SIM_CC=90            compute capability
 *   STM_SIM_PEERS=all|none   which devices can reach each other
 *   STM_SIM_ORDER=fwd|rev|rand:<seed>   turns of blocks and threads
 *   STM_SIM_LAZY=1           nothing runs until somebody waits for it, and then only what that needs
 *   STM_SIM_STRICT=0         allows barriers after some threads of the block have exited
 *   STM_SIM_CHECK=off        no happens-before checker;  =declared: kernels must declare what they touch
 *   STM_SIM_AT_EXIT=off      findings and leaks that no test has taken do not fail the process at its end
 *   STM_SIM_VERBOSE=1        findings and device errors go to stderr as they happen (findings always do at exit)
 */
#ifndef STM_SIM_H
#define STM_SIM_H
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif

/* The k-th call from now (k >= 1) of `api` fails once with `code`; k = -1: every call. `api` is the function's name, or a prefix
 * and '*' ("cuda*"): then teardown calls (free, destroy) and queries of errors are not counted. Teardown that fails has done its
 * work all the same: what it tells, as a real one does, is what failed before. code 0 = the failure usual
 * for that function. async: the call succeeds, the k-th *execution* of such work ("kernel", "copy", "memset", "host", a
 * library's name for its work) kills its device with the code. */
void stm_sim_fault(const char *api, long k, int code, int async);
void stm_sim_fault_clear(void);
/* Whether a fault set since the last clear has struck. */
int stm_sim_fault_fired(void);
/* Calls of an API so far, failed ones included; `api` may end in '*'. */
long stm_sim_calls(const char *api);
/* The @p i-th function that has been called so far and that faults of "prefix*" count, in alphabetical order; NULL behind the
 * last. */
const char *stm_sim_called(int i);
/* Bytes and operations that copies moved so far, by direction "h2d", "d2h", "d2d", "p2p", "h2h". */
void stm_sim_copied(const char *direction, long *copies, long long *bytes);
/* Waits of streams for a record of an event that a stream, the same or another, had been told to wait for before. */
long stm_sim_waits_again(void);
/* Kernels run on a device (position in the machine). */
long stm_sim_kernels(int device);
/* Why a device died; "" while it lives. Valid until the next call of the thread. */
const char *stm_sim_last_message(int device);
/* Revives all devices (no real one can do that): for several death tests in one process. All streams must be idle. */
void stm_sim_revive(void);

/* Findings of the checkers: races, early frees, leaks of handles, bad handles. A test that expects one takes it; the text
 * is one finding, "" when there is none; valid until the next call of the thread. */
const char *stm_sim_take_finding(void);
int stm_sim_findings(void);
/* Live objects: "alloc", "pinned", "stream", "event", "graph", "graphexec"; "*" = all. A description of them goes to stderr. */
int stm_sim_live(const char *what);
/* The host is about to read or write device-visible memory (pinned); checked against queued work. */
void stm_sim_host_read(const void *p, size_t bytes);
void stm_sim_host_write(const void *p, size_t bytes);
/* For a program that cuts allocations in pieces itself: @p p .. has been handed out; it is given back, which is wrong while queued
 * work may touch it, as touching it is from then on. */
void stm_sim_piece(const void *p, size_t bytes);
void stm_sim_piece_release(const void *p, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
