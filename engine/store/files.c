#include "store/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"

static int dir_of(void *user) { return *(int *)user; }

static int real_open(void *user, const char *name, stm_open_how how)
{
    const int flags = how == STM_OPEN_READ ? O_RDONLY : how == STM_OPEN_NEW ? O_RDWR | O_CREAT | O_EXCL : O_RDWR | O_CREAT;
    int fd;

    if (stm_fault_fires(STM_FAULT_OPEN)) return -EIO;
    do fd = openat(dir_of(user), name, flags | O_CLOEXEC, 0666);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

static void real_close(void *user, int fd)
{
    (void)user;
    close(fd);
}

static int64_t real_pread(void *user, int fd, void *to, size_t n, int64_t at)
{
    ssize_t got;

    (void)user;
    if (stm_fault_fires(STM_FAULT_READ)) return -EIO;
    do got = pread(fd, to, n, at);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static int64_t real_pwrite(void *user, int fd, const void *from, size_t n, int64_t at)
{
    ssize_t put;

    (void)user;
    if (stm_fault_fires(STM_FAULT_WRITE)) return -ENOSPC;
    do put = pwrite(fd, from, n, at);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

static int real_sync(void *user, int fd)
{
    (void)user;
    if (stm_fault_fires(STM_FAULT_WRITE)) return -EIO;
    return fdatasync(fd) == 0 ? 0 : -errno;
}

static int64_t real_size(void *user, int fd)
{
    struct stat s;

    (void)user;
    return fstat(fd, &s) == 0 ? s.st_size : -errno;
}

static int real_rename(void *user, const char *from, const char *to)
{
    if (stm_fault_fires(STM_FAULT_WRITE)) return -EIO;
    return renameat(dir_of(user), from, dir_of(user), to) == 0 ? 0 : -errno;
}

static int real_remove(void *user, const char *name) { return unlinkat(dir_of(user), name, 0) == 0 ? 0 : -errno; }

static int real_exists(void *user, const char *name)
{
    struct stat s;

    if (fstatat(dir_of(user), name, &s, AT_SYMLINK_NOFOLLOW) == 0) return 1;
    return errno == ENOENT ? 0 : -errno;
}

static int real_list(void *user, void (*each)(const char *name, void *ctx), void *ctx)
{
    const int fd = openat(dir_of(user), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* a place of its own to read from */
    const struct dirent *e;
    DIR *d;

    if (fd < 0) return -errno;
    d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return -ENOMEM;
    }
    while (errno = 0, (e = readdir(d)) != NULL) each(e->d_name, ctx);
    const int code = -errno;
    closedir(d);
    return code;
}

static int real_sync_names(void *user)
{
    if (stm_fault_fires(STM_FAULT_WRITE)) return -EIO;
    if (fsync(dir_of(user)) == 0) return 0;
    return errno == EINVAL || errno == ENOTSUP ? 0 : -errno; /* file systems that keep names in order without being asked */
}

mill_status stm_files_open(const char *dir, stm_files *out, mill_error *err)
{
    int *user = stm_malloc(sizeof *user);

    if (user == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to open %s", dir);
    *user = stm_fault_fires(STM_FAULT_OPEN) ? (errno = EIO, -1) : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*user < 0) {
        stm_free(user);
        return mill_fail(err, MILL_ERR_IO, "cannot open the run directory %s: %s", dir, strerror(errno));
    }
    *out = (stm_files){.user = user,
                       .open = real_open,
                       .close = real_close,
                       .pread = real_pread,
                       .pwrite = real_pwrite,
                       .sync = real_sync,
                       .size = real_size,
                       .rename = real_rename,
                       .remove = real_remove,
                       .exists = real_exists,
                       .list = real_list,
                       .sync_names = real_sync_names};
    return MILL_OK;
}

void stm_files_close(stm_files *f)
{
    if (f->user == NULL) return;
    close(*(int *)f->user);
    stm_free(f->user);
    memset(f, 0, sizeof *f);
}

mill_status stm_files_write_all(const stm_files *f, int fd, const void *from, size_t n, int64_t at, const char *name,
                                mill_error *err)
{
    const char *p = from;

    while (n > 0) {
        const int64_t put = f->pwrite(f->user, fd, p, n, at);
        if (put <= 0)
            return mill_fail(err, MILL_ERR_IO, "cannot write %s at byte %lld: %s", name, (long long)at,
                             strerror(put < 0 ? (int)-put : EIO));
        p += put;
        at += put;
        n -= (size_t)put;
    }
    return MILL_OK;
}

mill_status stm_files_read_all(const stm_files *f, int fd, void *to, size_t n, int64_t at, const char *name, mill_error *err)
{
    char *p = to;

    while (n > 0) {
        const int64_t got = f->pread(f->user, fd, p, n, at);
        if (got < 0)
            return mill_fail(err, MILL_ERR_IO, "cannot read %s at byte %lld: %s", name, (long long)at, strerror((int)-got));
        if (got == 0) return mill_fail(err, MILL_ERR_DATA, "%s ends at byte %lld, %zu bytes early", name, (long long)at, n);
        p += got;
        at += got;
        n -= (size_t)got;
    }
    return MILL_OK;
}

mill_status stm_files_replace(const stm_files *f, const char *name, const void *from, size_t n, mill_error *err)
{
    char beside[160];
    mill_status st;
    int fd, code;

    snprintf(beside, sizeof beside, ".%.120s.tmp", name);
    (void)f->remove(f->user, beside); /* of somebody who came to grief: its length must not stay */
    fd = f->open(f->user, beside, STM_OPEN_WRITE);
    if (fd < 0) return mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", name, strerror(-fd));
    st = stm_files_write_all(f, fd, from, n, 0, name, err);
    if (st == MILL_OK && (code = f->sync(f->user, fd)) < 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", name, strerror(-code));
    f->close(f->user, fd);
    if (st == MILL_OK && (code = f->rename(f->user, beside, name)) < 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", name, strerror(-code));
    if (st == MILL_OK && (code = f->sync_names(f->user)) < 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", name, strerror(-code));
    if (st != MILL_OK) (void)f->remove(f->user, beside);
    return st;
}
