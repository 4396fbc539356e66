/*
 * Preloaded into the command: processes of it die by SIGKILL at chosen moments, and say in which phase that was.
 *
 *   STM_KILL=WHO-WHEN;WHO-WHEN;...   one for each worker that follows another; those after the last are left alone
 *       WHO   child (the worker), parent (who supervises it), both
 *       WHEN  time:MICROSECONDS   commit:N (at the N-th fdatasync)   rename:N   finish:N (renames of errors.jsonl)
 *   STM_KILL_SKIP=N                  the first N workers that a process starts are left alone
 *   STM_KILL_LOG=FILE   gets a line for each: load, run, commit, rename or finalise, and WHO
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

static int workers; /* started by this process, or by its parent until this one was */
static _Atomic int syncs, renames, finishes;
static long commit_at, rename_at, finish_at, delay_us = -1;
static char who[8];

static void die(const char *phase)
{
    const char *path = getenv("STM_KILL_LOG");
    const int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
    const pid_t parent = getppid();
    char line[64];
    const int n = snprintf(line, sizeof line, "%s %s\n", phase, who);

    if (fd < 0 || write(fd, line, (size_t)n) != n) _exit(99);
    if (strcmp(who, "child") != 0) kill(parent, SIGKILL);
    if (strcmp(who, "parent") != 0) kill(getpid(), SIGKILL);
    for (;;) pause(); /* it goes with its parent */
}

static void *later(void *unused)
{
    (void)unused;
    usleep((useconds_t)delay_us);
    die(atomic_load(&syncs) <= 1 ? "load" : "run"); /* the first sync is that of the first record; then steps load */
    return NULL;
}

/* Lines in the log: so many workers have died. */
static int deaths(void)
{
    FILE *f = fopen(getenv("STM_KILL_LOG"), "re");
    int n = 0, c;

    while (f != NULL && (c = fgetc(f)) != EOF) n += c == '\n';
    if (f != NULL) fclose(f);
    return n;
}

/* In a worker, at its begin. */
static void begin(void)
{
    const char *spec = getenv("STM_KILL"), *skip = getenv("STM_KILL_SKIP"), *when;
    pthread_t t;

    if (skip != NULL && workers <= atoi(skip)) return;
    for (int n = deaths(); n > 0 && spec != NULL; n--)
        if ((spec = strchr(spec, ';')) != NULL) spec++;
    if (spec == NULL || (when = strchr(spec, '-')) == NULL) return;
    snprintf(who, sizeof who, "%.*s", (int)(when++ - spec), spec);
    if (strncmp(when, "commit:", 7) == 0) commit_at = atol(when + 7);
    if (strncmp(when, "rename:", 7) == 0) rename_at = atol(when + 7);
    if (strncmp(when, "finish:", 7) == 0) finish_at = atol(when + 7);
    if (strncmp(when, "time:", 5) != 0) return;
    delay_us = atol(when + 5);
    if (pthread_create(&t, NULL, later, NULL) == 0) pthread_detach(t);
}

static void count(void) { workers++; }

__attribute__((constructor)) static void wait_for_workers(void)
{
    if (getenv("STM_KILL") != NULL && getenv("STM_KILL_LOG") != NULL) pthread_atfork(count, NULL, begin);
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
