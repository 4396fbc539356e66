/* What a file is, apart from its contents. */
#ifndef STM_CORE_FILETYPE_H
#define STM_CORE_FILETYPE_H

#include <sys/types.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

/** What stat() calls st_mode, for people: "a file", "a folder", "a pipe", "a socket", "a device". */
const char *stm_filetype_word(mode_t mode);
/** Whether the file or folder @p path can be read as often as one likes. MILL_ERR_INVALID: it is there and gives its bytes once
 *  only (a pipe, a terminal): a run reads its inputs when they are checked, when they are worked on, and again when it is resumed.
 *  MILL_ERR_NOT_FOUND and MILL_ERR_IO: stat() failed; errno says why, @p err is left alone. Opens nothing, so never waits for the
 *  other end of a pipe. Threads: any. */
mill_status stm_filetype_check(const char *path, mill_error *err);

MILL_END_DECLS

#endif
