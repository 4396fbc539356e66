/*
 * Preloaded into the command: it dies by SIGKILL at a chosen moment, and says in which phase that was.
 *
 *   STM_KILL=time:MICROSECONDS   commit:N (at the N-th fdatasync)   rename:N   finish:N (renames of errors.jsonl)
 *   STM_KILL_LOG=FILE            gets one line: load, run, commit, rename or finalise
 *
 * Odd N die before the call, even ones after it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic int syncs, renames, finishes;
static long commit_at, rename_at, finish_at, delay_us = -1;

static void die(const char *phase)
{
    const char *path = getenv("STM_KILL_LOG");
    const int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;

    if (fd >= 0 && write(fd, phase, strlen(phase)) < 0) _exit(99);
    kill(getpid(), SIGKILL);
}

static void *later(void *unused)
{
    (void)unused;
    usleep((useconds_t)delay_us);
    die(atomic_load(&syncs) <= 1 ? "load" : "run"); /* the first sync is that of the first record; then steps load */
    return NULL;
}

__attribute__((constructor)) static void begin(void)
{
    const char *what = getenv("STM_KILL");
    pthread_t t;

    if (what == NULL) return;
    if (strncmp(what, "commit:", 7) == 0) commit_at = atol(what + 7);
    if (strncmp(what, "rename:", 7) == 0) rename_at = atol(what + 7);
    if (strncmp(what, "finish:", 7) == 0) finish_at = atol(what + 7);
    if (strncmp(what, "time:", 5) != 0) return;
    delay_us = atol(what + 5);
    if (pthread_create(&t, NULL, later, NULL) == 0) pthread_detach(t);
}

static int at(int n, long when) { return when > 0 && n == (when + 1) / 2 ? (when % 2 != 0 ? -1 : 1) : 0; }

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const int now = at(atomic_fetch_add(&syncs, 1) + 1, commit_at);

    if (now < 0) die("commit");
    const int result = real(fd);
    if (now > 0) die("commit");
    return result;
}

__attribute__((visibility("default"))) int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    const int last = strstr(to, "errors.jsonl") != NULL;
    const int now = last ? at(atomic_fetch_add(&finishes, 1) + 1, finish_at) : at(atomic_fetch_add(&renames, 1) + 1, rename_at);

    if (now < 0) die(last ? "finalise" : "rename");
    const int result = real(from, to);
    if (now > 0) die(last ? "finalise" : "rename");
    return result;
}
