#include "calls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <climits>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
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
/* What was changed on the disk. A call and its note are one under the lock, so that the notes are in order. */
std::mutex noting;
std::string noted_dir; /* "" = nothing is noted */
std::vector<Disk::Op> noted;
std::map<ino_t, int> inodes; /* of files that were made since: a number of its own each, since the system's come again */
int next_inode;
} // namespace

void note_changes(const std::string &dir)
{
    const std::lock_guard<std::mutex> lock(noting);
    noted_dir = dir;
    noted.clear();
    inodes.clear();
    next_inode = 0;
}
std::vector<Disk::Op> changes_noted()
{
    const std::lock_guard<std::mutex> lock(noting);
    return noted;
}
void note_no_changes() { note_changes(""); }

/* From the folder that is noted; "" is itself, "/" what does not lie there. */
static std::string name_in(int dir, const char *path)
{
    std::string whole = path;
    if (path[0] != '/') {
        char buf[PATH_MAX], link[64];
        snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
        const ssize_t n = readlink(link, buf, sizeof buf);
        if (n < 0) return "/";
        whole = std::string(buf, static_cast<size_t>(n)) + (strcmp(path, ".") == 0 ? "" : std::string("/") + path);
    }
    if (noted_dir.empty() || whole.compare(0, noted_dir.size(), noted_dir) != 0) return "/";
    if (whole.size() == noted_dir.size()) return "";
    return whole[noted_dir.size()] == '/' ? whole.substr(noted_dir.size() + 1) : "/";
}

static int inode_of(int fd)
{
    struct stat s = {};
    const auto at = fstat(fd, &s) == 0 ? inodes.find(s.st_ino) : inodes.end();
    return at != inodes.end() ? at->second : -1;
}

/* A file or folder that was not there before; @p to "/": a folder. */
static void note_made(const std::string &name, ino_t inode, const char *to)
{
    inodes[inode] = next_inode;
    noted.push_back({Disk::Op::Create, next_inode++, 0, name, to});
}

/* Makes the call @p real under the lock and, if it went well, what @p note says of it. */
template <typename R, typename N> static auto noting_it(R real, N note)
{
    if (noted_dir.empty()) return real();
    const std::lock_guard<std::mutex> lock(noting);
    const auto result = real();
    const int code = errno;
    if (result >= 0) note(result);
    errno = code;
    return result;
}

template <typename R> static int noting_open(int dir, const char *path, int flags, R real)
{
    const std::string name = noted_dir.empty() ? "/" : name_in(dir, path);
    struct stat s = {};
    const bool there = noted_dir.empty() || fstatat(dir, path, &s, 0) == 0;

    return noting_it(real, [&](int fd) {
        if (name == "/" || name.empty() || (flags & O_ACCMODE) == O_RDONLY) return;
        if (!there && fstat(fd, &s) == 0) note_made(name, s.st_ino, "");
        if (there && (flags & O_TRUNC) != 0 && inode_of(fd) >= 0) noted.push_back({Disk::Op::Shorten, inode_of(fd), 0, "", ""});
    });
}

static void note_sync(int fd)
{
    struct stat s = {};
    if (fstat(fd, &s) != 0) return;
    if (S_ISDIR(s.st_mode)) {
        const std::string name = name_in(fd, ".");
        if (name != "/") noted.push_back({Disk::Op::SyncNames, -1, 0, name, ""});
    } else if (inode_of(fd) >= 0) {
        noted.push_back({Disk::Op::Sync, inode_of(fd), 0, "", ""});
    }
}

static void note_renamed(const std::string &from, const std::string &to)
{
    if (from != "/" && to != "/") noted.push_back({Disk::Op::Rename, -1, 0, from, to});
}

static void note_removed(const std::string &name)
{
    if (name != "/" && !name.empty()) noted.push_back({Disk::Op::Remove, -1, 0, name, ""});
}

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
    return fires(kOpen) ? (errno = EMFILE, -1) : noting_open(AT_FDCWD, path, flags, [=] { return real(path, flags, mode); });
}

OURS int openat(int dir, const char *path, int flags, ...)
{
    static const auto real = next<int (*)(int, const char *, int, ...)>("openat");
    va_list ap;
    va_start(ap, flags);
    const int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
    va_end(ap);
    return fires(kOpen) ? (errno = EMFILE, -1) : noting_open(dir, path, flags, [=] { return real(dir, path, flags, mode); });
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
    if (room_for < 0) return errno = ENOSPC, -1;
    const off_t at = noted_dir.empty() ? 0 : lseek(fd, 0, SEEK_CUR);
    return noting_it([=] { return real(fd, from, static_cast<size_t>(room_for)); },
                     [&](ssize_t put) {
                         struct stat s = {};
                         if (inode_of(fd) < 0) return;
                         const bool at_end = (fcntl(fd, F_GETFL) & O_APPEND) != 0 && fstat(fd, &s) == 0;
                         noted.push_back({Disk::Op::Write, inode_of(fd), at_end ? s.st_size - put : at,
                                          std::string(static_cast<const char *>(from), static_cast<size_t>(put)), ""});
                     });
}

OURS ssize_t pwrite(int fd, const void *from, size_t n, off_t at)
{
    static const auto real = next<ssize_t (*)(int, const void *, size_t, off_t)>("pwrite");
    if (fires(kWrite)) return errno = EIO, -1;
    const ssize_t room_for = fits(n);
    if (room_for < 0) return errno = ENOSPC, -1;
    return noting_it([=] { return real(fd, from, static_cast<size_t>(room_for), at); },
                     [=](ssize_t put) {
                         if (inode_of(fd) >= 0)
                             noted.push_back({Disk::Op::Write, inode_of(fd), at,
                                              std::string(static_cast<const char *>(from), static_cast<size_t>(put)), ""});
                     });
}

/* Thousands of runs: what is asked for counts, the device need not move. */
OURS int fsync(int fd)
{
    return fires(kSync) ? (errno = EIO, -1) : noting_it([] { return 0; }, [=](int) { note_sync(fd); });
}
OURS int fdatasync(int fd) { return fsync(fd); }

OURS int rename(const char *from, const char *to)
{
    static const auto real = next<int (*)(const char *, const char *)>("rename");
    if (fires(kRename)) return errno = EIO, -1;
    return noting_it([=] { return real(from, to); }, [=](int) { note_renamed(name_in(AT_FDCWD, from), name_in(AT_FDCWD, to)); });
}

OURS int renameat(int a, const char *from, int b, const char *to)
{
    static const auto real = next<int (*)(int, const char *, int, const char *)>("renameat");
    if (fires(kRename)) return errno = EIO, -1;
    return noting_it([=] { return real(a, from, b, to); }, [=](int) { note_renamed(name_in(a, from), name_in(b, to)); });
}

OURS int unlink(const char *path)
{
    static const auto real = next<int (*)(const char *)>("unlink");
    return noting_it([=] { return real(path); }, [=](int) { note_removed(name_in(AT_FDCWD, path)); });
}

OURS int unlinkat(int dir, const char *path, int flags)
{
    static const auto real = next<int (*)(int, const char *, int)>("unlinkat");
    return noting_it([=] { return real(dir, path, flags); }, [=](int) { note_removed(name_in(dir, path)); });
}

OURS int mkdir(const char *path, mode_t mode)
{
    static const auto real = next<int (*)(const char *, mode_t)>("mkdir");
    return noting_it([=] { return real(path, mode); },
                     [=](int) {
                         struct stat s = {};
                         const std::string name = name_in(AT_FDCWD, path);
                         if (name != "/" && stat(path, &s) == 0) note_made(name, s.st_ino, "/");
                     });
}

OURS int ftruncate(int fd, off_t bytes)
{
    static const auto real = next<int (*)(int, off_t)>("ftruncate");
    return noting_it([=] { return real(fd, bytes); }, [=](int) {
        if (inode_of(fd) >= 0) noted.push_back({Disk::Op::Shorten, inode_of(fd), bytes, "", ""});
    });
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
