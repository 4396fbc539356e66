/* Small files of a run directory that others read while it is written: whole or not there. */
#ifndef STM_TRACE_FILES_H
#define STM_TRACE_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "core/text.h"
#include "stepmill/error.h"

/** All of @p n bytes to @p fd, however the system cuts them; else errno tells. */
bool stm_file_write(int fd, const char *data, size_t n);
#define STM_BESIDE_PATH 4096

/** A file that is written beside its name, DIR/NAME, and gets it when it is whole. */
typedef struct stm_beside {
    int fd; /* for stm_file_write */
    char path[STM_BESIDE_PATH], tmp[STM_BESIDE_PATH];
} stm_beside;
/** On success stm_beside_end must follow. MILL_ERR_INVALID: the path is too long; MILL_ERR_IO. */
mill_status stm_beside_open(const char *dir, const char *name, stm_beside *out, mill_error *err);
/** Rename it, or where it is not @p whole, as errno tells, leave what was there: MILL_ERR_IO, MILL_ERR_NOMEM. Not synced: it may be
 *  lost with the power. */
mill_status stm_beside_end(stm_beside *b, bool whole, mill_error *err);
/** Put @p n bytes at DIR/NAME, or leave what was there: written beside it and renamed. Not synced: it may be lost with the
 *  power. */
mill_status stm_file_replace(const char *dir, const char *name, const char *data, size_t n, mill_error *err);
/** All of DIR/NAME, at most 256 MiB, appended to @p out. MILL_ERR_NOT_FOUND, MILL_ERR_IO, MILL_ERR_NOMEM. */
mill_status stm_file_read(const char *dir, const char *name, stm_text *out, mill_error *err);
/** Why @p dir, where there is no file @p name, is no run directory; run directories in it are named. MILL_ERR_NOT_FOUND. Blocks:
 *  looks. */
mill_status stm_no_run(const char *dir, const char *name, mill_error *err);

#endif
