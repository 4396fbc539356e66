/* Rows as JSON lines, one object of RFC 8259 a row: what write_jsonl, `command` and a dry run print. */
#ifndef STEPMILL_JSON_H
#define STEPMILL_JSON_H

#include "stepmill/batch.h"

MILL_BEGIN_DECLS

/**
 * Writes rows of batches as lines of JSON into one growing text. In the steady state it allocates nothing.
 *
 * Values: bool, whole numbers; float as the shortest decimals that read back to the same bits, NaN and infinities as
 * null; utf8 escaped, bytes that are not UTF-8 as U+FFFD; json as it is (newlines, which can only be white space in it,
 * as spaces; an empty text as null); binary as base64 (RFC 4648, section 4); lists as arrays, structs as objects; nulls as null.
 * Threads: owner. Blocks: no. Calls with a status fail with MILL_ERR_NOMEM alone: then the line is taken back
 * (mill_json_writer_truncate). Others cannot fail.
 */
typedef struct mill_json_writer mill_json_writer;

enum {
    MILL_JSON_OMIT_NULLS = 1 /* leave out keys of null values at the top level */
};

/** @p names [@p n] are the keys of columns 0 .. n-1, copied. The caller owns *out. */
MILL_API mill_status mill_json_writer_create(const char *const *names, int32_t n, uint32_t flags, mill_json_writer **out);
/** Accepts NULL; sets *w to NULL. */
MILL_API void mill_json_writer_destroy(mill_json_writer **w);
/** The batch of the rows to come; borrowed until the next call or the writer's end. Its first n columns are written;
 *  columns it lacks are null. */
MILL_API void mill_json_writer_batch(mill_json_writer *w, const mill_batch *batch);
/** Begin a line: `{` and the columns of row @p row. On failure the text is as it was. */
MILL_API mill_status mill_json_writer_row(mill_json_writer *w, int64_t row);
/** One more key of this line, with a string as its value; @p text NULL = null. */
MILL_API mill_status mill_json_writer_text(mill_json_writer *w, const char *key, const char *text);
/** One more key with a whole number. */
MILL_API mill_status mill_json_writer_int(mill_json_writer *w, const char *key, int64_t value);
/** Append the value of row @p row of @p col alone: no key, no line. Text comes as it is, neither quoted nor escaped. */
MILL_API mill_status mill_json_writer_value(mill_json_writer *w, const mill_column *col, int64_t row);
/** Append bytes as they are. */
MILL_API mill_status mill_json_writer_raw(mill_json_writer *w, const char *bytes, size_t n);
/** End the line: `}` and a newline. */
MILL_API mill_status mill_json_writer_end(mill_json_writer *w);
/** What was written since the last clear; valid until the next call. Not NUL-terminated. */
MILL_API const char *mill_json_writer_data(const mill_json_writer *w, size_t *bytes);
/** Forget the text, keep the memory. */
MILL_API void mill_json_writer_clear(mill_json_writer *w);
/** Cut the text back to @p bytes bytes (to take back a line). */
MILL_API void mill_json_writer_truncate(mill_json_writer *w, size_t bytes);

MILL_END_DECLS

#endif
