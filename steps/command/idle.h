/* Whether a group of processes waits for input: what a program that answers rows does once it has answered them all. */
#ifndef STM_STEPS_COMMAND_IDLE_H
#define STM_STEPS_COMMAND_IDLE_H

#include <stdbool.h>
#include <sys/types.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

typedef enum stm_group_state {
    STM_GROUP_RUNS,  /* one of it computes, or is about to */
    STM_GROUP_WAITS, /* all sleep, but not all for input; or the kernel does not tell */
    STM_GROUP_IDLE   /* it writes nothing before it gets something to read */
} stm_group_state;

/**
 * Idle: the leader of group @p pgid is blocked in a read of its standard input, or in a wait for events; or it waits for other
 * processes of the group, which all were blocked like that at one moment. (A process that is woken counts as running at once.)
 */
stm_group_state stm_group_look(pid_t pgid);

MILL_END_DECLS

#endif
