/* Opening what can be read as often as one likes: files, and neither folders nor pipes. */
#ifndef STM_STEPS_IO_REGULAR_H
#define STM_STEPS_IO_REGULAR_H

#include <stdint.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

/** Open the regular file @p path to read it: *fd is the caller's, *bytes its size (NULL: not asked). An input is read when the
 *  pipeline is checked, when it runs, and again when it is resumed, so what gives its bytes once only is MILL_ERR_INVALID; this
 *  never waits for the other end of a pipe. MILL_ERR_NOT_FOUND, MILL_ERR_IO: it cannot be opened. Threads: any. */
mill_status stm_regular_open(const char *path, int *fd, uint64_t *bytes, mill_error *err);

MILL_END_DECLS

#endif
