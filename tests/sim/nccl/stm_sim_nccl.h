/* What a test asks of the simulated NCCL, beside what stm_sim.h has: faults "ncclAllReduce", "nccl*" (calls), "nccl" with async = 1
 * (the k-th operation as it runs: its rank has that asynchronous error, the others ncclRemoteError, and all wait for their abort).
 *
 * Environment:
 *   STM_SIM_NCCL_HANG_MS=30000   an operation that waits that long for another rank is a finding, with the places of both calls */
#ifndef STM_SIM_NCCL_H
#define STM_SIM_NCCL_H
#ifdef __cplusplus
extern "C" {
#endif
/* Operations that ended well so far, and bytes that ranks took from other ranks. */
void stm_sim_nccl_moved(long *operations, long long *bytes);
#ifdef __cplusplus
}
#endif
#endif
