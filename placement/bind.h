/* Threads and memory near a device. Nothing here gives a thread more than it had: a scheduler's or a user's mask is law. */
#ifndef STM_PLACEMENT_BIND_H
#define STM_PLACEMENT_BIND_H

#include "placement/plan.h"

/**
 * Let the calling thread run on @p cpus only.
 * @param allowed  what it may use at most, as stm_cpus_allowed gave it at the start; NULL = its mask as it is now.
 * @return whether it is bound; false = @p cpus and @p allowed have nothing in common, or the system refused: nothing has changed.
 * Threads: any, for itself. Blocks: no.
 */
bool stm_bind_thread(const stm_cpus *cpus, const stm_cpus *allowed);
/** Take memory that the calling thread touches first from NUMA node @p os_node while it has some, later from others; -1 = as the
 *  process began. False when the system refused (containers may forbid it): nothing has changed. */
bool stm_bind_memory(int32_t os_node);
/** Thread and memory of the calling thread near a GPU: any of the processors of its node. For a driver of several replicas, and for
 *  whoever takes pinned memory for the GPU. As stm_bind_thread; memory is a wish. */
bool stm_bind_near_gpu(const stm_topology *t, int32_t gpu, const stm_cpus *allowed);
/** The same for one replica: the processors that the plan gave it. */
bool stm_bind_placed(const stm_topology *t, const stm_placed *entry, const stm_cpus *allowed);

#endif
