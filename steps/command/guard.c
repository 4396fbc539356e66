#include "steps/command/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "steps/command/spawn.h"

#define SHELL "/bin/sh"
#define SCRIPT "read -r end; kill -s KILL 0" /* nobody writes to it; 0: its own group */

void stm_guard_start(stm_guard *g)
{
    static const char *const argv[] = {SHELL, "-c", SCRIPT, NULL};
    static const char *const envp[] = {NULL};
    int ends[2];
    pid_t pid = 0;

    if (g->pid != 0 || pipe2(ends, O_CLOEXEC) != 0) return;
    const stm_spawn_opts opts = {.argv = (char *const *)(uintptr_t)argv,
                                 .envp = (char *const *)(uintptr_t)envp,
                                 .fds = {ends[0], -1, -1},
                                 .deaf = true}; /* a scheduler's signal to all of a job is not for it */
    const int e = ends[0] > 2 ? stm_spawn(&opts, &pid) : EBADF;
    close(ends[0]);
    if (e != 0) {
        close(ends[1]);
        return;
    }
    *g = (stm_guard){pid, ends[1]};
}

void stm_guard_stop(stm_guard *g)
{
    if (g->pid == 0) return;
    kill(-g->pid, SIGKILL);
    while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR) continue;
    close(g->fd);
    *g = (stm_guard)STM_GUARD_INIT;
}
