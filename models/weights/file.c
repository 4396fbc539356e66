#include "models/weights/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/filetype.h"

mill_status stm_file_map(const char *path, stm_file *out, bool optional, mill_error *err)
{
    struct stat meta;
    void *data = MAP_FAILED;
    const char *other = NULL;
    int error = 0;
    const int fd = stm_fault_fires(STM_FAULT_OPEN) ? (errno = EIO, -1) : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return optional ? MILL_ERR_NOT_FOUND : mill_fail(err, MILL_ERR_NOT_FOUND, "%s does not exist", path);
    if (fd < 0) return mill_fail(err, MILL_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (fstat(fd, &meta) != 0)
        error = errno;
    else if (!S_ISREG(meta.st_mode))
        other = stm_filetype_word(meta.st_mode);
    else if ((data = mmap(NULL, meta.st_size > 0 ? (size_t)meta.st_size : 1, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        error = errno;
    close(fd); /* the mapping stays */
    if (other != NULL) return mill_fail(err, MILL_ERR_INVALID, "%s is %s, not a file", path, other);
    if (error != 0) return mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", path, strerror(error));
    out->data = data;
    out->bytes = (size_t)meta.st_size;
    out->id = (stm_file_id){(uint64_t)meta.st_dev, (uint64_t)meta.st_ino, meta.st_size,
                            meta.st_mtim.tv_sec * 1000000000LL + meta.st_mtim.tv_nsec};
    return MILL_OK;
}

void stm_file_unmap(stm_file *file)
{
    if (file->data != NULL) munmap((void *)file->data, file->bytes > 0 ? file->bytes : 1);
    *file = (stm_file){0};
}

bool stm_file_exists(const char *path) { return access(path, F_OK) == 0; }
