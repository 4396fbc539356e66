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
 * Idle: program @p pid is blocked in a read of its standard input, or in a wait for events; or it waits for other processes of its
 * group, which all were blocked like that at one moment. (A process that is woken counts as running at once.)
 * @param leader  who leads the group, if that is somebody who has no part in what the program does; 0 = it leads its group itself.
 */
stm_group_state stm_group_look(pid_t pid, pid_t leader);

MILL_END_DECLS

#endif
