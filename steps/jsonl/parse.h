/* JSON lines into columns: each line one row. simdjson behind a C interface. */
#ifndef STM_STEPS_JSONL_PARSE_H
#define STM_STEPS_JSONL_PARSE_H

#include <stdbool.h>

#include "stepmill/batch.h"

MILL_BEGIN_DECLS

/** What is wrong with a line. */
typedef struct stm_jsonl_fault {
    int64_t byte;     /* 1-based in the line; 0 = the line as a whole */
    char cause[200];  /* no full stop */
    char column[96];  /* the column that the value does not fit; "" = not JSON at all */
} stm_jsonl_fault;

typedef struct stm_jsonl stm_jsonl;

/** Whether a column of this type can be read from JSON (everything but binary). */
bool stm_jsonl_can_read(const mill_type *type);

/**
 * A parser for rows with these columns; @p fields is copied. With @p extra, batches have one more json column: an
 * object of the keys that no column has, as read, null when there are none.
 * Threads: one parser, one thread at a time. The caller owns *out.
 */
mill_status stm_jsonl_create(mill_pool *pool, const mill_field *fields, int32_t n, bool extra, stm_jsonl **out);
/** Accepts NULL, sets *p to NULL. Drops a batch that was begun. */
void stm_jsonl_destroy(stm_jsonl **p);

/** Begin a batch of at most @p max_rows (>= 1) rows; one that was begun before is dropped. MILL_ERR_NOMEM. */
mill_status stm_jsonl_begin(stm_jsonl *p, int64_t max_rows);
/**
 * Append a line as a row. @p line needs 64 readable bytes behind it (STM_LINE_PADDING).
 * MILL_ERR_DATA: it is not an object of JSON, or a value does not fit: a row of nulls was appended and *fault says why.
 * MILL_ERR_NOMEM: nothing was appended. No allocation in the steady state.
 */
mill_status stm_jsonl_row(stm_jsonl *p, const char *line, size_t bytes, stm_jsonl_fault *fault);
/** Lines of the common form are read in one pass of our own, all others by simdjson: from now on all by simdjson. Tests compare. */
void stm_jsonl_no_quick(stm_jsonl *p);
/** Append a row of nulls. */
void stm_jsonl_null_row(stm_jsonl *p);
int64_t stm_jsonl_rows(const stm_jsonl *p);
/** Bytes of text gathered in this batch. */
int64_t stm_jsonl_bytes(const stm_jsonl *p);
/** The rows since begin as a batch that the caller owns. On failure the batch is dropped. */
mill_status stm_jsonl_finish(stm_jsonl *p, mill_batch **out, mill_error *err);

/** Learns columns from lines: types bool, int64, float64, utf8, or json where values are nested or of several types. */
typedef struct stm_jsonl_guess stm_jsonl_guess;
#define STM_JSONL_GUESS_MAX 1024 /* columns; keys beyond go to `extra` */
mill_status stm_jsonl_guess_create(stm_jsonl_guess **out);
void stm_jsonl_guess_destroy(stm_jsonl_guess **g);
/** Look at a line (padding as above). A line that is not an object of JSON teaches nothing. MILL_ERR_NOMEM. */
mill_status stm_jsonl_guess_line(stm_jsonl_guess *g, const char *line, size_t bytes);
int32_t stm_jsonl_guess_count(const stm_jsonl_guess *g);
/** Name (owned by @p g) and type of column @p i, in the order of first appearance. */
mill_field stm_jsonl_guess_field(const stm_jsonl_guess *g, int32_t i);

MILL_END_DECLS

#endif
