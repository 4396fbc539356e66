/* Small files of a run directory that others read while it is written: whole or not there. */
#ifndef STM_TRACE_FILES_H
#define STM_TRACE_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "core/text.h"
#include "stepmill/error.h"

/** All of @p n bytes to @p fd, however the system cuts them; else errno tells. */
bool stm_file_write(int fd, const char *data, size_t n);
/** Put @p n bytes at DIR/NAME, or leave what was there: written beside it and renamed. Not synced: it may be lost with the power. */
mill_status stm_file_replace(const char *dir, const char *name, const char *data, size_t n, mill_error *err);
/** All of DIR/NAME, at most 256 MiB, appended to @p out. MILL_ERR_NOT_FOUND, MILL_ERR_IO, MILL_ERR_NOMEM. */
mill_status stm_file_read(const char *dir, const char *name, stm_text *out, mill_error *err);

#endif
