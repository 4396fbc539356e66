#include "steps/command/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int describe(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, const stm_spawn_opts *o)
{
    sigset_t none, all;
    int e = 0;

    sigemptyset(&none);
    sigfillset(&all);
    if (o->cwd != NULL) e = posix_spawn_file_actions_addchdir_np(files, o->cwd);
    for (int i = 0; i < 3 && e == 0; i++)
        e = o->fds[i] >= 0 ? posix_spawn_file_actions_adddup2(files, o->fds[i], i)
                           : posix_spawn_file_actions_addopen(files, i, "/dev/null", O_RDWR, 0);
    if (e == 0) e = posix_spawn_file_actions_addclosefrom_np(files, 3);
    if (e == 0) e = posix_spawnattr_setpgroup(attr, o->group);
    if (e == 0) e = posix_spawnattr_setsigmask(attr, o->deaf ? &all : &none);
    if (e == 0) e = posix_spawnattr_setsigdefault(attr, &all);
    if (e == 0) e = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return e;
}

static int executable(const char *path)
{
    struct stat s;

    if (access(path, X_OK) != 0) return errno;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode) ? EACCES : 0;
}

int stm_spawn_find(const stm_spawn_opts *o)
{
    const char *program = o->argv[0], *dirs = getenv("PATH");
    char path[PATH_MAX];
    int e = ENOENT;

    if (program[0] == '/') return executable(program);
    if (strchr(program, '/') != NULL)
        return snprintf(path, sizeof path, "%s/%s", o->cwd != NULL ? o->cwd : ".", program) < (int)sizeof path ? executable(path)
                                                                                                               : ENAMETOOLONG;
    if (dirs == NULL) return 0; /* the library has a path of its own */
    while (e != 0) {
        const int n = (int)strcspn(dirs, ":");
        const bool relative = n == 0 || dirs[0] != '/';

        if (snprintf(path, sizeof path, "%s%s%.*s/%s", relative && o->cwd != NULL ? o->cwd : "",
                     relative && o->cwd != NULL ? "/" : "", n > 0 ? n : 1, n > 0 ? dirs : ".", program) < (int)sizeof path &&
            (e = executable(path)) != 0 && e != EACCES)
            e = ENOENT;
        if (dirs[n] == '\0') break;
        dirs += n + 1;
    }
    return e;
}

int stm_spawn(const stm_spawn_opts *o, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    pid_t started = 0;
    int e = posix_spawn_file_actions_init(&files);

    if (e != 0) return e;
    if ((e = posix_spawnattr_init(&attr)) == 0) {
        e = describe(&files, &attr, o);
        if (e == 0) e = posix_spawnp(&started, o->argv[0], &files, &attr, o->argv, o->envp != NULL ? o->envp : environ);
        if (e == 0) *pid = started;
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&files);
    return e;
}
