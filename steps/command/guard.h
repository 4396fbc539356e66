/*
 * A process that outlives this one for a moment: it leads a process group, and when this process is gone, however it went, it kills
 * that group. A program that is started in the group (stm_spawn_opts.group) is in it from before its first instruction on, so it
 * goes with stepmill at every moment, and what it has started goes, too, also when stepmill is killed with SIGKILL:
 *
 *   this process         guard (leads group G)            program
 *   stm_guard_start  --> waits for the end of its input
 *   stm_spawn        -->                                  joins G; closes what it has of this one, the guard's input, too; begins
 *   killed           --> the last end of its input is closed: it kills G
 *
 * A copy of the guard's input goes along into the process that becomes the program and is closed there after that has joined the
 * group, so if this process is killed in the middle of a start the guard waits until then.
 */
#ifndef STM_STEPS_COMMAND_GUARD_H
#define STM_STEPS_COMMAND_GUARD_H

#include <sys/types.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

typedef struct stm_guard {
    pid_t pid; /* also its group, whose number is taken until stm_guard_stop; 0 = there is none */
    int fd;    /* the far end of its standard input, which ends with this process */
} stm_guard;

#define STM_GUARD_INIT \
    {                  \
        0, -1          \
    }

/** Start one. Without a shell there is none, and everything else works. Threads: owner. */
void stm_guard_start(stm_guard *g);
/** Kill its group and wait for it; programs of the group are waited for by whoever started them. Without a guard: no effect. */
void stm_guard_stop(stm_guard *g);

MILL_END_DECLS

#endif
