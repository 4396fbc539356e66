/* What of the machine's processors this process may use: its affinity mask, and the quota of its control group. */
#ifndef STM_PLACEMENT_LIMITS_H
#define STM_PLACEMENT_LIMITS_H

#include "placement/cpus.h"

/** Processors of the calling thread's affinity mask (cpusets of control groups are in it). */
stm_cpus stm_cpus_allowed(void);
/** Processors' worth of time that the control groups of the process allow; 0 = no limit. @p root: "" or, in tests, a folder that
 *  stands for the root of the file system. Reads cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us), the strictest of the group and all
 *  above it. */
double stm_cpu_quota(const char *root);
/** How many threads can run at once: the mask, cut to the quota rounded up; at least 1. */
int32_t stm_cpu_count(void);

#endif
