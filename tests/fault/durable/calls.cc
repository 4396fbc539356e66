#include "calls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <string>

#include "support/sanitized.h"

extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
}

namespace mt {

const char *const kCallNames[kCalls] = {"malloc", "open", "read", "write", "fsync", "rename", "pipe", "fork"};

namespace {
std::atomic<int> armed{-1}; /* the kind that fails; -1 = none is watched */
std::atomic<int64_t> left{0}, room{-1}, written{0};
std::atomic<int64_t> made[kCalls];
std::atomic<bool> failed{false};
} // namespace

static void begin()
{
    for (auto &m : made) m = 0;
    written = 0;
    failed = false;
}

void fail_call(Call which, int64_t nth)
{
    begin();
    left = nth;
    room = -1;
    armed = which;
}

void fill_disk(int64_t bytes)
{
    begin();
    room = bytes;
    armed = kCalls;
}

bool calls_work_again()
{
    armed = -1;
    return failed;
}

int64_t calls_made(Call which) { return made[which]; }
int64_t bytes_written() { return written; }

static bool fires(Call which)
{
    const int now = armed.load(std::memory_order_relaxed);
    if (now < 0) return false;
    made[which].fetch_add(1, std::memory_order_relaxed);
    if (now != which || left.fetch_sub(1) != 0) return false;
    failed = true;
    return true;
}

/* How many of @p n bytes the disk has room for; -1 = none. */
static ssize_t fits(size_t n)
{
    if (armed.load(std::memory_order_relaxed) < 0) return static_cast<ssize_t>(n);
    if (armed == kCalls) {
        const int64_t before = room.fetch_sub(static_cast<int64_t>(n));
        if (before < static_cast<int64_t>(n)) {
            failed = true;
            room = 0;
            n = before > 0 ? static_cast<size_t>(before) : 0;
            if (n == 0) return -1;
        }
    }
    written += static_cast<int64_t>(n);
    return static_cast<ssize_t>(n);
}

/* The call behind ours: the sanitizer's, which it has under this name, or the C library's. */
template <typename F> static F next(const char *name)
{
    void *f = kSanitized ? dlsym(RTLD_DEFAULT, (std::string("__interceptor_") + name).c_str()) : nullptr;
    return reinterpret_cast<F>(f != nullptr ? f : dlsym(RTLD_NEXT, name));
}

} // namespace mt

using namespace mt;

#define OURS __attribute__((visibility("default")))

extern "C" {

#if !MT_SANITIZED /* sanitizers' allocators stay in front */
OURS void *malloc(size_t n) { return fires(kMalloc) ? (errno = ENOMEM, nullptr) : __libc_malloc(n); }
OURS void *calloc(size_t n, size_t size) { return fires(kMalloc) ? (errno = ENOMEM, nullptr) : __libc_calloc(n, size); }
OURS void *realloc(void *p, size_t n) { return fires(kMalloc) ? (errno = ENOMEM, nullptr) : __libc_realloc(p, n); }
OURS void *aligned_alloc(size_t align, size_t n) { return fires(kMalloc) ? (errno = ENOMEM, nullptr) : __libc_memalign(align, n); }
OURS int posix_memalign(void **out, size_t align, size_t n)
{
    void *p = fires(kMalloc) ? nullptr : __libc_memalign(align, n);
    if (p == nullptr) return ENOMEM;
    *out = p;
    return 0;
}
#endif

OURS int open(const char *path, int flags, ...)
{
    static const auto real = next<int (*)(const char *, int, ...)>("open");
    va_list ap;
    va_start(ap, flags);
    const int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
    va_end(ap);
    return fires(kOpen) ? (errno = EMFILE, -1) : real(path, flags, mode);
}

OURS int openat(int dir, const char *path, int flags, ...)
{
    static const auto real = next<int (*)(int, const char *, int, ...)>("openat");
    va_list ap;
    va_start(ap, flags);
    const int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
    va_end(ap);
    return fires(kOpen) ? (errno = EMFILE, -1) : real(dir, path, flags, mode);
}

OURS FILE *fopen(const char *path, const char *mode)
{
    static const auto real = next<FILE *(*)(const char *, const char *)>("fopen");
    return fires(kOpen) ? (errno = EMFILE, nullptr) : real(path, mode);
}

OURS ssize_t read(int fd, void *to, size_t n)
{
    static const auto real = next<ssize_t (*)(int, void *, size_t)>("read");
    return fires(kRead) ? (errno = EIO, -1) : real(fd, to, n);
}

OURS ssize_t pread(int fd, void *to, size_t n, off_t at)
{
    static const auto real = next<ssize_t (*)(int, void *, size_t, off_t)>("pread");
    return fires(kRead) ? (errno = EIO, -1) : real(fd, to, n, at);
}

OURS ssize_t write(int fd, const void *from, size_t n)
{
    static const auto real = next<ssize_t (*)(int, const void *, size_t)>("write");
    if (fires(kWrite)) return errno = EIO, -1;
    const ssize_t room_for = fits(n);
    return room_for < 0 ? (errno = ENOSPC, -1) : real(fd, from, static_cast<size_t>(room_for));
}

OURS ssize_t pwrite(int fd, const void *from, size_t n, off_t at)
{
    static const auto real = next<ssize_t (*)(int, const void *, size_t, off_t)>("pwrite");
    if (fires(kWrite)) return errno = EIO, -1;
    const ssize_t room_for = fits(n);
    return room_for < 0 ? (errno = ENOSPC, -1) : real(fd, from, static_cast<size_t>(room_for), at);
}

/* Thousands of runs: what is asked for counts, the device need not move. */
OURS int fsync(int) { return fires(kSync) ? (errno = EIO, -1) : 0; }
OURS int fdatasync(int) { return fires(kSync) ? (errno = EIO, -1) : 0; }

OURS int rename(const char *from, const char *to)
{
    static const auto real = next<int (*)(const char *, const char *)>("rename");
    return fires(kRename) ? (errno = EIO, -1) : real(from, to);
}

OURS int renameat(int a, const char *from, int b, const char *to)
{
    static const auto real = next<int (*)(int, const char *, int, const char *)>("renameat");
    return fires(kRename) ? (errno = EIO, -1) : real(a, from, b, to);
}

OURS int pipe2(int fds[2], int flags)
{
    static const auto real = next<int (*)(int *, int)>("pipe2");
    return fires(kPipe) ? (errno = EMFILE, -1) : real(fds, flags);
}

OURS int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr,
                      char *const argv[], char *const env[])
{
    static const auto real = next<int (*)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                                          char *const *, char *const *)>("posix_spawnp");
    return fires(kFork) ? EAGAIN : real(pid, file, actions, attr, argv, env);
}

OURS pid_t fork(void)
{
    static const auto real = next<pid_t (*)(void)>("fork");
    return fires(kFork) ? (errno = EAGAIN, -1) : real();
}
}
