/* Whether the kernel killed for memory: counters that it keeps. */
#ifndef STM_SUPERVISE_OOM_H
#define STM_SUPERVISE_OOM_H

#include <stdint.h>

/** How often it has done so, in the control group of this process (version 2 or 1), or on the machine where that cannot be read.
 *  The environment variable STEPMILL_MEMORY_EVENTS names another memory.events. -1 = unknown. */
int64_t stm_oom_kills(void);

#endif
