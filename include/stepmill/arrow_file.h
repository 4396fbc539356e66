/*
 * Arrow IPC files, as pyarrow, polars and others read and write them: "file" format (with a footer) and "stream" format
 * (https://arrow.apache.org/docs/format/Columnar.html, Serialization and Interprocess Communication).
 *
 * Types map as in arrow.h. What has no counterpart, dictionaries, and compression by lz4 are MILL_ERR_UNSUPPORTED; buffers that
 * zstd compressed are read. Nothing of a file is trusted: sizes, offsets and texts are checked before they are used.
 */
#ifndef STEPMILL_ARROW_FILE_H
#define STEPMILL_ARROW_FILE_H

#include "stepmill/batch.h"

MILL_BEGIN_DECLS

/* ---- reading ----------------------------------------------------------------------------------------------- */

typedef struct mill_arrow_reader mill_arrow_reader;

/** Before row @p row of the batch whose message begins at byte @p offset. All zero: the beginning. */
typedef struct mill_arrow_place {
    int64_t offset, row;
} mill_arrow_place;

/* Threads: owner, all calls. Blocks: on the disk. */

/** Open a file of either format, told apart by its first bytes, and read what its columns are. Batches come in the order in which
 *  they stand. @p pool may be NULL where only the schema is asked for. *out is the caller's, untouched on failure.
 *  @retval MILL_ERR_NOT_FOUND, MILL_ERR_IO  it cannot be opened or read
 *  @retval MILL_ERR_INVALID      it is no plain file
 *  @retval MILL_ERR_NOMEM        out of memory
 *  @retval MILL_ERR_PARSE        it is no Arrow file, or cut off: a file of the file format must have its end
 *  @retval MILL_ERR_UNSUPPORTED  a column, which is named, has a type without counterpart */
MILL_API mill_status mill_arrow_reader_open(mill_pool *pool, const char *path, mill_arrow_reader **out, mill_error *err);
/** Sets *r to NULL, accepts NULL. */
MILL_API void mill_arrow_reader_close(mill_arrow_reader **r);
/** A struct type: one field per column. Cannot fail. */
MILL_API const mill_type *mill_arrow_reader_schema(const mill_arrow_reader *r);
/** Up to @p max_rows (>= 1) rows, all of one batch of the file, as a batch that the caller owns and that shares its memory with the
 *  rest of it; NULL behind the last one. Batches of no rows are left out.
 *  @retval MILL_ERR_PARSE, MILL_ERR_DATA, MILL_ERR_UNSUPPORTED  the file is malformed there, or has what is not read
 *  @retval MILL_ERR_INVALID  it has fewer rows than its place says: it was changed
 *  @retval MILL_ERR_IO       it cannot be read
 *  @retval MILL_ERR_NOMEM    memory or the pool's limit is exhausted */
MILL_API mill_status mill_arrow_reader_next(mill_arrow_reader *r, int64_t max_rows, mill_batch **out, mill_error *err);
/** Where the next rows are; and go on there. A place that this file did not give is found malformed when it is read. */
MILL_API mill_arrow_place mill_arrow_reader_place(const mill_arrow_reader *r);
MILL_API void mill_arrow_reader_goto(mill_arrow_reader *r, mill_arrow_place at);
/** What share of the file's bytes is read, 0 .. 1. */
MILL_API double mill_arrow_reader_share(const mill_arrow_reader *r);

/* ---- writing ----------------------------------------------------------------------------------------------- */

typedef struct mill_arrow_writer mill_arrow_writer;
/** Takes the next @p n bytes of the file. */
typedef mill_status (*mill_arrow_put)(void *user, const void *bytes, size_t n, mill_error *err);

/* Threads: owner, all calls. Blocks: as @p put does. After a failure only destroy is left. A failure of @p put is returned as it
 * is; else
 *  @retval MILL_ERR_INVALID  the schema is no struct
 *  @retval MILL_ERR_NOMEM    memory or the pool's limit is exhausted */

/** Begin a file of the file format with the columns of @p schema, a struct type. @p user is borrowed for the writer's life; *out is
 *  the caller's. */
MILL_API mill_status mill_arrow_writer_create(mill_pool *pool, const mill_type *schema, mill_arrow_put put, void *user,
                                              mill_arrow_writer **out, mill_error *err);
/** Go on behind the first @p bytes of the file @p path, which a writer of the same columns wrote up to the end of a batch. Blocks:
 *  reads it.
 *  @retval MILL_ERR_DATA  it has other columns, or no batch ends there; besides, what mill_arrow_reader_open and _next give */
MILL_API mill_status mill_arrow_writer_resume(mill_pool *pool, const mill_type *schema, const char *path, int64_t bytes,
                                              mill_arrow_put put, void *user, mill_arrow_writer **out, mill_error *err);
/** Copy rows [first, first + n) of @p batch (borrowed) to those that wait to become a batch of the file. */
MILL_API mill_status mill_arrow_writer_rows(mill_arrow_writer *w, const mill_batch *batch, int64_t first, int64_t n,
                                            mill_error *err);
/** Rows that wait become a batch of the file; nothing when none do. The file can be gone on with from here. */
MILL_API mill_status mill_arrow_writer_flush(mill_arrow_writer *w, mill_error *err);
/** Flush, and write the footer: the file is whole. */
MILL_API mill_status mill_arrow_writer_end(mill_arrow_writer *w, mill_error *err);
/** Sets *w to NULL, accepts NULL. */
MILL_API void mill_arrow_writer_destroy(mill_arrow_writer **w);

MILL_END_DECLS

#endif
