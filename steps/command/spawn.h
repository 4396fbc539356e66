/* Starting a program as a process group of its own, with three descriptors and nothing else of this process. */
#ifndef STM_STEPS_COMMAND_SPAWN_H
#define STM_STEPS_COMMAND_SPAWN_H

#include <sys/types.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

/**
 * Start @p argv: argv[0] is looked up in PATH unless it has a slash. It leads a new process group (what ends this process's group does not
 * end it), blocks no signal and treats each as a fresh program does.
 * @param envp  NULL = this process's.
 * @param cwd   NULL = this process's.
 * @param fds   Become 0, 1 and 2 there; each is above 2, or -1 for /dev/null. All others are closed there; here they stay open.
 * @return 0 with *pid set, or an errno with *pid untouched. Threads: any.
 */
int stm_spawn(char *const *argv, char *const *envp, const char *cwd, const int fds[3], pid_t *pid);

MILL_END_DECLS

#endif
