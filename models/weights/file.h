/* Whole files, mapped read-only, and what makes two paths the same file. */
#ifndef STM_MODELS_FILE_H
#define STM_MODELS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

/** What a file was when it was opened: same file, same contents as far as the file system tells. */
typedef struct stm_file_id {
    uint64_t device, inode;
    int64_t bytes, mtime_ns;
} stm_file_id;

typedef struct stm_file {
    const void *data; /* not NULL, also for an empty file; readable to the end of its last page */
    size_t bytes;
    stm_file_id id;
} stm_file;

/** Map @p path. MILL_ERR_NOT_FOUND when there is none (@p optional: without filling @p err), MILL_ERR_IO otherwise.
 *  A file that is cut short while it is mapped ends the process when read there (SIGBUS), as any mapped file does. */
mill_status stm_file_map(const char *path, stm_file *out, bool optional, mill_error *err);
void stm_file_unmap(stm_file *file); /* accepts a zeroed one; zeroes it */
/** Whether @p path is there. */
bool stm_file_exists(const char *path);

#endif
