/*
 * In front of the C library of the command (LD_PRELOAD): one call of one kind that the supervisor makes fails, once.
 *
 * STEPMILL_FAIL="KIND NTH": the NTH call (from 0) of that kind; "worker:KIND NTH": of those that the workers make for it, counted
 * over all of them. STEPMILL_FAIL_SAYS: a file for what came of it: "fired" when it failed; and "left WHAT" for each socket, memory
 * or signal descriptor that is open when the supervisor ends.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t supervisor;
static char kind[32];
static bool of_worker;
static _Atomic long *left; /* shared with the workers */

static void say(const char *text)
{
    const char *path = getenv("STEPMILL_FAIL_SAYS");
    const int fd = path != NULL ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;

    if (fd < 0) return;
    if (syscall(SYS_write, fd, text, strlen(text)) < 0) abort();
    syscall(SYS_close, fd);
}

__attribute__((constructor)) static void begin(void)
{
    const char *what = getenv("STEPMILL_FAIL");
    void *page = (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (what == NULL || page == MAP_FAILED) return;
    of_worker = strncmp(what, "worker:", 7) == 0;
    snprintf(kind, sizeof kind, "%.*s", (int)strcspn(what + 7 * of_worker, " "), what + 7 * of_worker);
    supervisor = getpid();
    left = page;
    *left = atol(strchr(what, ' ') + 1);
    unsetenv("LD_PRELOAD"); /* programs that it starts are left alone */
}

__attribute__((destructor)) static void end(void)
{
    DIR *d = left != NULL && getpid() == supervisor ? opendir("/proc/self/fd") : NULL;
    char path[300], to[300], line[400];

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        ssize_t n;

        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        n = readlink(path, to, sizeof to - 1);
        if (n <= 0 || atoi(e->d_name) <= 2) continue;
        to[n] = '\0';
        if (strstr(to, "socket:") == NULL && strstr(to, "memfd:") == NULL && strstr(to, "signalfd") == NULL) continue;
        snprintf(line, sizeof line, "left %s\n", to);
        say(line);
    }
    if (d != NULL) closedir(d);
}

static bool fires(const char *name)
{
    if (left == NULL || strcmp(name, kind) != 0 || of_worker != (getpid() != supervisor)) return false;
    if (atomic_fetch_sub(left, 1) != 0) return false;
    say("fired\n");
    return true;
}

/* NAME in front of the library's, with type, parameters, and what it gives when it fails. */
#define IN_FRONT(type, name, declared, passed, number, failed)                             \
    __attribute__((visibility("default"))) type name declared                               \
    {                                                                                       \
        static type(*real) declared;                                                        \
                                                                                            \
        if (real == NULL) real = (type(*) declared)(uintptr_t)dlsym(RTLD_NEXT, #name);      \
        if (fires(#name)) return errno = number, failed;                                    \
        return real passed;                                                                 \
    }

IN_FRONT(int, memfd_create, (const char *name, unsigned flags), (name, flags), EMFILE, -1)
IN_FRONT(int, ftruncate, (int fd, off_t n), (fd, n), ENOSPC, -1)
IN_FRONT(void *, mmap, (void *at, size_t n, int prot, int flags, int fd, off_t from), (at, n, prot, flags, fd, from), ENOMEM,
         MAP_FAILED)
IN_FRONT(int, socketpair, (int domain, int type, int protocol, int ends[2]), (domain, type, protocol, ends), EMFILE, -1)
IN_FRONT(pid_t, fork, (void), (), EAGAIN, -1)
IN_FRONT(int, setpgid, (pid_t pid, pid_t group), (pid, group), EPERM, -1)
IN_FRONT(int, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags), EMFILE, -1)
IN_FRONT(int, sigprocmask, (int how, const sigset_t *set, sigset_t *was), (how, set, was), EINVAL, -1)
IN_FRONT(int, sigaction, (int sig, const struct sigaction *act, struct sigaction *was), (sig, act, was), EINVAL, -1)
IN_FRONT(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), EINTR, -1)
IN_FRONT(int, poll, (struct pollfd *f, nfds_t n, int ms), (f, n, ms), EINTR, -1)
IN_FRONT(ssize_t, read, (int fd, void *to, size_t n), (fd, to, n), EIO, -1)
IN_FRONT(int, kill, (pid_t pid, int sig), (pid, sig), EPERM, -1)
IN_FRONT(FILE *, fopen, (const char *path, const char *mode), (path, mode), EMFILE, NULL)
IN_FRONT(ssize_t, write, (int fd, const void *from, size_t n), (fd, from, n), EIO, -1)
IN_FRONT(int, fsync, (int fd), (fd), EIO, -1)
IN_FRONT(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), EIO, -1)

/* Those with an argument that is not always there. */
__attribute__((visibility("default"))) int open(const char *path, int flags, ...)
{
    int mode = 0;
    va_list ap;

    va_start(ap, flags);
    if ((flags & O_CREAT) != 0) mode = va_arg(ap, int);
    va_end(ap);
    if (fires("open")) return errno = EMFILE, -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

__attribute__((visibility("default"))) int openat(int at, const char *path, int flags, ...)
{
    int mode = 0;
    va_list ap;

    va_start(ap, flags);
    if ((flags & O_CREAT) != 0) mode = va_arg(ap, int);
    va_end(ap);
    if (fires("openat")) return errno = EMFILE, -1;
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

__attribute__((visibility("default"))) int prctl(int what, ...)
{
    unsigned long a[4];
    va_list ap;

    va_start(ap, what);
    for (int i = 0; i < 4; i++) a[i] = va_arg(ap, unsigned long);
    va_end(ap);
    if (fires("prctl")) return errno = EINVAL, -1;
    return (int)syscall(SYS_prctl, what, a[0], a[1], a[2], a[3]);
}
