/*
 * A process that outlives this one for a moment: when this one is gone, however it went, it kills the process group that it was told
 * last. A program that hangs, and what it has started, so goes with stepmill even when that is killed with SIGKILL.
 */
#ifndef STM_STEPS_COMMAND_GUARD_H
#define STM_STEPS_COMMAND_GUARD_H

#include <sys/types.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

typedef struct stm_guard {
    pid_t pid; /* 0 = there is none */
    int fd;    /* its standard input; ends with this process */
} stm_guard;

#define STM_GUARD_INIT \
    {                  \
        0, -1          \
    }

/** Start it. Without a shell there is none, and everything else works. Threads: owner. */
void stm_guard_start(stm_guard *g);
/** The group to kill from now on; 0 = none. To be told before a group's number may be used again, that is before its leader is waited for. */
void stm_guard_tell(const stm_guard *g, pid_t group);
/** End it. It kills nothing. */
void stm_guard_stop(stm_guard *g);

MILL_END_DECLS

#endif
