#include "steps/command/guard.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "steps/command/spawn.h"

#define SHELL "/bin/sh"
/* A scheduler's signal to all of a job is not for it. */
#define SCRIPT "trap '' HUP INT TERM USR1 USR2; while read -r g; do last=$g; done; [ \"${last:-0}\" = 0 ] || kill -s KILL -- \"-$last\""

void stm_guard_start(stm_guard *g)
{
    static const char *const argv[] = {SHELL, "-c", SCRIPT, NULL};
    static const char *const envp[] = {NULL};
    int ends[2];
    pid_t pid = 0;

    if (g->pid != 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return; /* a socket: no SIGPIPE */
    const int fds[3] = {ends[1], -1, -1};
    const int e = ends[1] > 2 ? stm_spawn((char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)envp, NULL, fds, &pid) : EBADF;
    close(ends[1]);
    if (e != 0) {
        close(ends[0]);
        return;
    }
    *g = (stm_guard){pid, ends[0]};
}

void stm_guard_tell(const stm_guard *g, pid_t group)
{
    char line[32];

    if (g->pid == 0) return;
    const int n = snprintf(line, sizeof line, "%ld\n", (long)group);
    (void)!send(g->fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void stm_guard_stop(stm_guard *g)
{
    if (g->pid == 0) return;
    kill(g->pid, SIGKILL);
    while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR) continue;
    close(g->fd);
    *g = (stm_guard)STM_GUARD_INIT;
}
