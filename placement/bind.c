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
