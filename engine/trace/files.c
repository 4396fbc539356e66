#include "trace/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"

enum { PATH_ROOM = 4096, MOST_BYTES = 256 << 20 };

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

mill_status stm_file_replace(const char *dir, const char *name, const char *data, size_t n, mill_error *err)
{
    char path[PATH_ROOM], tmp[PATH_ROOM];
    bool ok;
    int fd;

    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= PATH_ROOM ||
        snprintf(tmp, sizeof tmp, "%s/.%s.tmp", dir, name) >= PATH_ROOM)
        return mill_fail(err, MILL_ERR_INVALID, "the path %s/%s is too long", dir, name);
    if ((fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        return mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    ok = stm_file_write(fd, data, n);
    ok = close(fd) == 0 && ok;
    if (ok && rename(tmp, path) == 0) return MILL_OK;
    (void)mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    unlink(tmp);
    return MILL_ERR_IO;
}

mill_status stm_file_read(const char *dir, const char *name, stm_text *out, mill_error *err)
{
    char path[PATH_ROOM], *block;
    ssize_t k = 0;
    int fd;

    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= PATH_ROOM)
        return mill_fail(err, MILL_ERR_INVALID, "the path %s/%s is too long", dir, name);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return mill_fail(err, errno == ENOENT ? MILL_ERR_NOT_FOUND : MILL_ERR_IO, "cannot open %s: %s", path, strerror(errno));
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
