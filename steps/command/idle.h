/* Whether a group of processes waits for input: what a program that answers rows does once it has answered them all. */
#ifndef STM_STEPS_COMMAND_IDLE_H
#define STM_STEPS_COMMAND_IDLE_H

#include <stdbool.h>
#include <sys/types.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

/**
 * True: the leader of group @p pgid is blocked in a read of its standard input, or in a wait for events; or it waits for other
 * processes of the group, which all are blocked like that. As a process that is woken counts as running at once, it will write nothing
 * before it gets something to read. False: it does something else, or the kernel does not tell.
 */
bool stm_group_idle(pid_t pgid);

MILL_END_DECLS

#endif
