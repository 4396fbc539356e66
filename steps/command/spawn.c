#include "steps/command/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

static int describe(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, const char *cwd, const int fds[3])
{
    sigset_t none, all;
    int e = 0;

    sigemptyset(&none);
    sigfillset(&all);
    if (cwd != NULL) e = posix_spawn_file_actions_addchdir_np(files, cwd);
    for (int i = 0; i < 3 && e == 0; i++)
        e = fds[i] >= 0 ? posix_spawn_file_actions_adddup2(files, fds[i], i)
                        : posix_spawn_file_actions_addopen(files, i, "/dev/null", O_RDWR, 0);
    if (e == 0) e = posix_spawn_file_actions_addclosefrom_np(files, 3);
    if (e == 0) e = posix_spawnattr_setpgroup(attr, 0);
    if (e == 0) e = posix_spawnattr_setsigmask(attr, &none);
    if (e == 0) e = posix_spawnattr_setsigdefault(attr, &all);
    if (e == 0) e = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return e;
}

int stm_spawn(char *const *argv, char *const *envp, const char *cwd, const int fds[3], pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    pid_t started = 0;
    int e = posix_spawn_file_actions_init(&files);

    if (e != 0) return e;
    if ((e = posix_spawnattr_init(&attr)) == 0) {
        e = describe(&files, &attr, cwd, fds);
        if (e == 0) e = posix_spawnp(&started, argv[0], &files, &attr, argv, envp != NULL ? envp : environ);
        if (e == 0) *pid = started;
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&files);
    return e;
}
