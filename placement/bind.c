#include "placement/bind.h"

#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "placement/limits.h"

bool stm_bind_thread(const stm_cpus *cpus, const stm_cpus *allowed)
{
    const stm_cpus now = stm_cpus_allowed();
    const stm_cpus both = stm_cpus_and(cpus, allowed != NULL ? allowed : &now);
    const size_t size = CPU_ALLOC_SIZE(STM_CPUS_MAX);
    cpu_set_t *set;
    bool ok;

    if (stm_cpus_count(&both) == 0) return false;
    if ((set = CPU_ALLOC(STM_CPUS_MAX)) == NULL) return false;
    CPU_ZERO_S(size, set);
    for (int32_t c = stm_cpus_next(&both, -1); c >= 0; c = stm_cpus_next(&both, c)) CPU_SET_S((size_t)c, size, set);
    ok = sched_setaffinity(0, size, set) == 0; /* 0: the calling thread */
    CPU_FREE(set);
    return ok;
}

bool stm_bind_memory(int32_t os_node)
{
    enum { MAX_NODES = 1024 };
    unsigned long mask[MAX_NODES / (8 * sizeof(unsigned long))] = {0};
    const int32_t bits = 8 * (int32_t)sizeof *mask;

    if (os_node < 0) return syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0UL) == 0;
    if (os_node >= MAX_NODES) return false;
    mask[os_node / bits] |= 1UL << os_node % bits;
    return syscall(SYS_set_mempolicy, MPOL_PREFERRED, mask, (unsigned long)MAX_NODES) == 0;
}

/* Memory follows only a thread that is there: elsewhere it would be farther than by chance. */
static bool bind_both(const stm_cpus *cpus, int32_t os_node, const stm_cpus *allowed)
{
    if (!stm_bind_thread(cpus, allowed)) return false;
    if (os_node >= 0) stm_bind_memory(os_node);
    return true;
}

bool stm_bind_near_gpu(const stm_topology *t, int32_t gpu, const stm_cpus *allowed)
{
    const stm_topology_gpu *g = &t->gpus[gpu];

    return bind_both(&g->cpus, g->node >= 0 && t->n_nodes > 1 ? t->nodes[g->node].os_index : -1, allowed);
}

bool stm_bind_placed(const stm_topology *t, const stm_placed *entry, const stm_cpus *allowed)
{
    const stm_cpus there = stm_cpus_and(&entry->cpus, &t->nodes[entry->node].cpus);

    return bind_both(&entry->cpus, t->n_nodes > 1 && stm_cpus_count(&there) > 0 ? t->nodes[entry->node].os_index : -1, allowed);
}
