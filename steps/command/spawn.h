/* Starting a program in a process group of its own, with three descriptors and nothing else of this process. */
#ifndef STM_STEPS_COMMAND_SPAWN_H
#define STM_STEPS_COMMAND_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

typedef struct stm_spawn_opts {
    char *const *argv; /* argv[0] is looked up in PATH unless it has a slash */
    char *const *envp; /* NULL = this process's */
    const char *cwd;   /* NULL = this process's */
    /* become 0, 1 and 2 there; each is above 2, or -1 for /dev/null. All others are closed there; here they stay open */
    int fds[3];
    pid_t group;       /* the process group that it is in from before its first instruction on; 0 = it leads a new one */
    bool deaf;         /* all signals that can be blocked are; else none, and each is treated as a fresh program does */
} stm_spawn_opts;

/**
 * Start a program. What ends this process's group does not end it.
 * @return 0 with *pid set, or an errno with *pid untouched. Threads: any.
 */
int stm_spawn(const stm_spawn_opts *o, pid_t *pid);

/** Whether there is something to start: 0, or the errno with which stm_spawn would fail for argv[0]. Starts nothing. Threads: any.
 *  Blocks: looks. */
int stm_spawn_find(const stm_spawn_opts *o);

MILL_END_DECLS

#endif
