#include "steps/io/regular.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

mill_status stm_regular_open(const char *path, int *fd, uint64_t *bytes, mill_error *err)
{
    struct stat info = {0};
    const int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* of a pipe: does not wait for its writer */
    mill_status st;

    if (opened < 0)
        return mill_fail(err, errno == ENOENT ? MILL_ERR_NOT_FOUND : MILL_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (fstat(opened, &info) == 0 && S_ISREG(info.st_mode)) {
        *fd = opened;
        if (bytes != NULL) *bytes = (uint64_t)info.st_size;
        return MILL_OK;
    }
    st = mill_fail(err, MILL_ERR_INVALID, S_ISDIR(info.st_mode) ? "%s is a folder, not a file" : "%s is not a regular file", path);
    close(opened);
    return st;
}
