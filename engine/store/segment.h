/*
 * Segments: `<stream>.<epoch>.seg`, what one opening of the run directory appended to a stream. Frames, each at a multiple
 * of 64 bytes; how far a segment counts is said by the journal, never by its length.
 *
 *   segment:  magic "SMSEG1\0\0" | epoch u64 | nonce u64 | zeroes ... | CRC of the 60 bytes before u32          64 bytes
 *   frame:    magic u32 | kind u32 | label u64 | rows i64 | bytes u64 | CRC of payload u32 | chain u32 | zeroes | CRC of the 60
 *             before u32 payload, then zeroes up to a multiple of 64
 *
 * chain = CRC of (chain of the frame before, the first 36 bytes of this head): so it stands for everything up to this frame.
 */
#ifndef STM_STORE_SEGMENT_H
#define STM_STORE_SEGMENT_H

#include <stdbool.h>

#include "core/text.h"
#include "store/files.h"

#define STM_SEGMENT_ALIGN 64
#define STM_STREAM_NAME 80 /* with its NUL; letters, digits, '_', '-', '.', '~' */

/** How far a segment counts. */
typedef struct stm_extent {
    uint64_t epoch, nonce;
    int64_t bytes, frames, rows;
    uint32_t chain;
} stm_extent;

/** Name of the segment of @p stream of @p epoch; false when it does not fit or the stream's name is not one. */
bool stm_segment_name(const char *stream, uint64_t epoch, char *buf, size_t size);
bool stm_stream_name_ok(const char *name);

/** A piece of a payload: several make one, without being put together first. */
typedef struct stm_bytes {
    const void *data;
    size_t n;
} stm_bytes;

/** The end of a segment that is being written. One thread at a time. */
typedef struct stm_segment {
    const stm_files *files;
    char name[STM_STREAM_NAME + 32];
    int fd;         /* -1: not made yet */
    stm_extent end; /* frames appended; bytes counts those still in `held` */
    stm_text held;  /* appended and not yet written: [end.bytes - held.bytes, end.bytes) */
} stm_segment;

void stm_segment_init(stm_segment *s, const stm_files *files, const char *stream, uint64_t epoch, uint64_t nonce);
/** Append a frame. Bytes gather up to a quarter MiB before they are written. On failure nothing was appended; what was before may
 *  be tried again. Blocks: on the disk. */
mill_status stm_segment_append(stm_segment *s, uint32_t kind, uint64_t label, int64_t rows, const stm_bytes *pieces, size_t n,
                               mill_error *err);
/** Write what is held. After a failure it is held still. */
mill_status stm_segment_flush(stm_segment *s, mill_error *err);
void stm_segment_fini(stm_segment *s);

typedef struct stm_frame {
    uint32_t kind;
    uint64_t label;
    int64_t rows;
    const void *data; /* until the next call */
    size_t bytes;
} stm_frame;

/** Reads the segments of a stream one after the other, as far as their extents say. */
typedef struct stm_segment_reader stm_segment_reader;
/** @p extents are copied. Files are opened as they are reached. */
mill_status stm_segment_reader_create(const stm_files *files, const char *stream, const stm_extent *extents, size_t n,
                                      stm_segment_reader **out, mill_error *err);
/** The next frame; *end = true behind the last. What is read is held against its checksums, and the end of each segment against its
 *  extent: MILL_ERR_DATA names the file and the byte. @p contents false: only the head is read (data NULL). */
mill_status stm_segment_reader_next(stm_segment_reader *r, bool contents, stm_frame *out, bool *end, mill_error *err);
void stm_segment_reader_destroy(stm_segment_reader **r);

#endif
