#include "trace/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"

enum { MOST_BYTES = 256 << 20 };

bool stm_file_write(int fd, const char *data, size_t n)
{
    while (n > 0) {
        const ssize_t k = write(fd, data, n);

        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        data += k;
        n -= (size_t)k;
    }
    return true;
}

mill_status stm_beside_open(const char *dir, const char *name, stm_beside *out, mill_error *err)
{
    if (snprintf(out->path, sizeof out->path, "%s/%s", dir, name) >= STM_BESIDE_PATH ||
        snprintf(out->tmp, sizeof out->tmp, "%s/.%s.tmp", dir, name) >= STM_BESIDE_PATH)
        return mill_fail(err, MILL_ERR_INVALID, "the path %s/%s is too long", dir, name);
    if ((out->fd = open(out->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        return mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", out->path, strerror(errno));
    return MILL_OK;
}

mill_status stm_beside_end(stm_beside *b, bool whole, mill_error *err)
{
    if (close(b->fd) == 0 && whole && rename(b->tmp, b->path) == 0) return MILL_OK;
    const mill_status st =
        mill_fail(err, errno == ENOMEM ? MILL_ERR_NOMEM : MILL_ERR_IO, "cannot write %s: %s", b->path, strerror(errno));

    unlink(b->tmp);
    return st;
}

mill_status stm_file_replace(const char *dir, const char *name, const char *data, size_t n, mill_error *err)
{
    stm_beside b;
    const mill_status st = stm_beside_open(dir, name, &b, err);

    return st == MILL_OK ? stm_beside_end(&b, stm_file_write(b.fd, data, n), err) : st;
}

mill_status stm_file_read(const char *dir, const char *name, stm_text *out, mill_error *err)
{
    char path[STM_BESIDE_PATH], *block;
    ssize_t k = 0;
    int fd;

    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= STM_BESIDE_PATH)
        return mill_fail(err, MILL_ERR_INVALID, "the path %s/%s is too long", dir, name);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return mill_fail(err, errno == ENOENT || errno == ENOTDIR ? MILL_ERR_NOT_FOUND : MILL_ERR_IO, "cannot open %s: %s", path,
                         strerror(errno));
    if ((block = stm_malloc(1 << 16)) != NULL)
        while (out->bytes < MOST_BYTES && ((k = read(fd, block, 1 << 16)) > 0 || (k < 0 && errno == EINTR)))
            if (k > 0) stm_text_add(out, block, (size_t)k);
    close(fd);
    if (block == NULL || out->failed) {
        stm_free(block);
        return mill_fail(err, MILL_ERR_NOMEM, "reading %s", path);
    }
    stm_free(block);
    return k < 0 ? mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", path, strerror(errno)) : MILL_OK;
}

mill_status stm_no_run(const char *dir, const char *name, mill_error *err)
{
    char within[300] = "", path[STM_BESIDE_PATH];
    struct stat s;
    const struct dirent *e;
    size_t at = 0, more = 0;
    DIR *d;

    if (stat(dir, &s) != 0) return mill_fail(err, MILL_ERR_NOT_FOUND, "%s is not a run directory: %s", dir, strerror(errno));
    if (!S_ISDIR(s.st_mode)) return mill_fail(err, MILL_ERR_NOT_FOUND, "%s is not a run directory: it is a file", dir);
    (void)mill_fail(err, MILL_ERR_NOT_FOUND, "%s is not a run directory: it has no %s", dir, name);
    if ((d = opendir(dir)) == NULL) return MILL_ERR_NOT_FOUND;
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.' || snprintf(path, sizeof path, "%s/%s/%s", dir, e->d_name, name) >= STM_BESIDE_PATH ||
            access(path, F_OK) != 0)
            continue;
        const int n = snprintf(within + at, sizeof within - at, "%s%s", at > 0 ? ", " : "", e->d_name);
        if ((size_t)n < sizeof within - at) at += (size_t)n;
        else within[at] = '\0', more++;
    }
    closedir(d);
    if (at > 0) mill_error_remedy(err, "There are run directories in it: %s%s", within, more > 0 ? ", ..." : "");
    return MILL_ERR_NOT_FOUND;
}
