/* A file being written: under a temporary name until it is complete, compressed by its extension (.gz, .zst). */
#ifndef STM_STEPS_IO_OUTPUT_H
#define STM_STEPS_IO_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

typedef struct stm_output stm_output;

/** Begin @p path (borrowed for the call) as `path.tmp`; missing folders are made. @p resume: bytes of it that were synced
 *  before, which are kept and written behind; 0 = afresh. The caller owns *out. Blocks: on the disk. */
mill_status stm_output_open(const char *path, uint64_t resume, stm_output **out, mill_error *err);
/** Append. Plain bytes go to the file at once, so hand over large pieces. */
mill_status stm_output_write(stm_output *o, const void *bytes, size_t n, mill_error *err);
/** Make everything so far durable; *size = bytes of the file, to resume at. A compressed stream is ended and a new one
 *  begins behind it, which its readers take as one. */
mill_status stm_output_sync(stm_output *o, uint64_t *size, mill_error *err);
/** Complete: durable and under its own name. Closes it and sets *o to NULL, also on failure (then `path.tmp` stays). */
mill_status stm_output_commit(stm_output **o, mill_error *err);
/** Close without completing; the temporary file stays, to be resumed or looked at. Accepts NULL, sets *o to NULL. */
void stm_output_close(stm_output **o);
/** Make the folders above @p path that are missing. */
mill_status stm_make_folders(const char *path, mill_error *err);

MILL_END_DECLS

#endif
