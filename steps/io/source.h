/* A file read as a stream of bytes: plain, gzip or zstd, told apart by its first bytes and not by its name. */
#ifndef STM_STEPS_IO_SOURCE_H
#define STM_STEPS_IO_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

typedef struct stm_source stm_source;

/** Open @p path (borrowed for the call) at its first byte. The caller owns *out. MILL_ERR_INVALID: it is no regular file. Blocks:
 *  on the disk. */
mill_status stm_source_open(const char *path, stm_source **out, mill_error *err);
/** Release it; sets *s to NULL, accepts NULL. */
void stm_source_close(stm_source **s);
/** Up to @p n (>= 1) bytes of the contents, decompressed; *got = 0 only at the end. A compressed file that stops in the
 *  middle of its stream is MILL_ERR_PARSE. No allocation. Threads: owner. Blocks: on the disk. */
mill_status stm_source_read(stm_source *s, void *buf, size_t n, size_t *got, mill_error *err);
/** What share of the file is read, 0 .. 1, when the contents are used up to byte @p at; < 0 = unknown (a file
 *  of the kernel, which has no size). */
double stm_source_share(const stm_source *s, uint64_t at);
/** Go on at byte @p at of the contents, from a source at byte 0: a seek where the file is plain, else decompressing up to
 *  there. MILL_ERR_INVALID: the contents end before it. */
mill_status stm_source_seek(stm_source *s, uint64_t at, mill_error *err);

MILL_END_DECLS

#endif
