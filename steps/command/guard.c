#include "steps/command/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHELL "/bin/sh"
/* A scheduler's signal to all of a job is not for it. */
#define SCRIPT "trap '' HUP INT TERM USR1 USR2; while read -r g; do last=$g; done; [ \"${last:-0}\" = 0 ] || kill -s KILL -- \"-$last\""

static int spawn(pid_t *pid, int far)
{
    static const char *const argv[] = {"sh", "-c", SCRIPT, NULL};
    static const char *const envp[] = {NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, normal;
    int e = posix_spawn_file_actions_init(&files);

    if (e != 0) return e;
    if ((e = posix_spawnattr_init(&attr)) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return e;
    }
    sigemptyset(&none);
    sigfillset(&normal);
    e = posix_spawn_file_actions_adddup2(&files, far, 0);
    if (e == 0) e = posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    if (e == 0) e = posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    if (e == 0) e = posix_spawn_file_actions_addclosefrom_np(&files, 3);
    if (e == 0) e = posix_spawnattr_setpgroup(&attr, 0); /* of its own: what ends this process's group does not end it */
    if (e == 0) e = posix_spawnattr_setsigmask(&attr, &none);
    if (e == 0) e = posix_spawnattr_setsigdefault(&attr, &normal);
    if (e == 0) e = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (e == 0) e = posix_spawn(pid, SHELL, &files, &attr, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)envp);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return e;
}

void stm_guard_start(stm_guard *g)
{
    int ends[2];
    pid_t pid = 0;

    if (g->pid != 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return; /* a socket: no SIGPIPE */
    const int e = ends[1] > 2 ? spawn(&pid, ends[1]) : EBADF;
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
