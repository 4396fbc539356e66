#include "core/filetype.h"

#include <errno.h>
#include <sys/stat.h>

const char *stm_filetype_word(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG: return "a file";
    case S_IFDIR: return "a folder";
    case S_IFIFO: return "a pipe";
    case S_IFSOCK: return "a socket";
    default: return "a device";
    }
}

mill_status stm_filetype_check(const char *path, mill_error *err)
{
    struct stat info;

    if (stat(path, &info) != 0) return errno == ENOENT || errno == ENOTDIR ? MILL_ERR_NOT_FOUND : MILL_ERR_IO;
    if (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) return MILL_OK;
    mill_fail(err, MILL_ERR_INVALID, "%s is %s, which cannot be read again", path, stm_filetype_word(info.st_mode));
    mill_error_remedy(err, "Write what it gives to a file first, and name that");
    return MILL_ERR_INVALID;
}
