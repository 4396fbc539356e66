/* The file under spilled batches: records in a file without a name, its free space, and bytes in and out of one record. */
#ifndef STM_BATCH_SPILL_FILE_H
#define STM_BATCH_SPILL_FILE_H

#include "batch/spill.h"

#define STM_STAGE_BYTES 65536 /* of a stream's own; larger pieces go straight between the file and their place */

/**
 * Bytes of one record in order, written or read by one thread. Every piece takes a multiple of eight bytes. A failure
 * sticks: what follows does nothing, and the stream says it at the end.
 */
typedef struct stm_stream {
    stm_spill *file; /* NULL: only counts (`at`) */
    uint64_t token;
    int64_t at, end; /* next byte in the file, end of the record */
    uint64_t sum;    /* over everything that has passed to or from the file */
    size_t pos, fill; /* in stage, bytes */
    mill_status st;
    mill_error *err;
    uint64_t stage[STM_STAGE_BYTES / 8];
} stm_stream;

/** A stream that counts: after the puts, `at` is how long the record must be. */
void stm_stream_measure(stm_stream *s);
/** A new record of exactly @p bytes. When this fails there is nothing to end. */
mill_status stm_stream_write(stm_stream *s, stm_spill *file, int64_t bytes, mill_error *err);
void stm_stream_put(stm_stream *s, const void *bytes, size_t n);
/** The record is complete: its token; or it failed and there is none. */
mill_status stm_stream_written(stm_stream *s, uint64_t *token);
void stm_stream_read(stm_stream *s, stm_spill *file, uint64_t token, mill_error *err);
void stm_stream_get(stm_stream *s, void *bytes, size_t n);
/** Everything has been read: whether it is what was written. The record stays. */
mill_status stm_stream_check(stm_stream *s);
/** A failure of the reader or writer itself. */
void stm_stream_fail(stm_stream *s, mill_status st, const char *what);

/** The lock under which batch @p b is brought back. */
void stm_spill_lock(stm_spill *file, const void *b);
void stm_spill_unlock(stm_spill *file, const void *b);

#endif
