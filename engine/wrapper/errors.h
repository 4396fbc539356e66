/*
 * Error records of a run: what failed, for which rows. Kept in memory; beyond a limit only counted, so that a run over
 * ten million bad rows does not die of its own error records.
 */
#ifndef STM_WRAPPER_ERRORS_H
#define STM_WRAPPER_ERRORS_H

#include <stdbool.h>

#include "stepmill/error.h"

#define STM_ERRORS_KEPT 20000 /* records kept whole */

/** One failure of rows or of a step. */
typedef struct stm_error_record {
    int64_t id;        /* 1, 2, ...: what marks in batches refer to */
    mill_error error;  /* step, replica, attempt, class, message */
    int64_t rows;      /* rows imputed for it */
    char first_key[96], last_key[96]; /* "packages:12.0"; empty when no rows are concerned */
} stm_error_record;

typedef struct stm_errors stm_errors;
/** @p notify (may be NULL) gets every record as it is made, one at a time, under the log's lock: it must not call back. */
mill_status stm_errors_create(void (*notify)(const stm_error_record *rec, void *user), void *user, stm_errors **out);
void stm_errors_destroy(stm_errors **log);
/** Add a record; returns its id, at least 1. When STM_ERRORS_KEPT are held, gives the id of the last kept one, whose message says
 *  that more followed; also when memory is out, but for the first such failure, for whose record there is room. Counts @p rows
 *  either way. Threads: any. Blocks: a short lock. */
int64_t stm_errors_add(stm_errors *log, const mill_error *error, int64_t rows, const char *first_key, const char *last_key);
/** Before anything runs: a record of an earlier run takes the next id. When the same failure (step, rows) is added again it gets
 *  that id and is not counted twice. MILL_ERR_NOMEM. */
mill_status stm_errors_restore(stm_errors *log, const stm_error_record *rec);
/** Before anything runs: restored record @p id is of work that is done over. Its number stays taken, for marks of stored rows name
 *  numbers; all else of it is gone: it is neither counted, nor shown, nor the same as any new failure. No effect on one that is
 *  void. */
void stm_errors_void(stm_errors *log, int64_t id);
bool stm_errors_is_void(const stm_errors *log, int64_t id);
/** Number of records kept, void ones too; rows imputed in all; failures in all. Threads: any. */
int64_t stm_errors_count(const stm_errors *log);
int64_t stm_errors_rows(const stm_errors *log);
int64_t stm_errors_total(const stm_errors *log);
/** Record @p id (1 .. count); valid until destroy. Threads: any. */
const stm_error_record *stm_errors_get(const stm_errors *log, int64_t id);
/** Number of records that are not void. Threads: any. */
int64_t stm_errors_live(const stm_errors *log);
/** Record @p i (from 0) of those that are not void; NULL past the last. Threads: any. */
const stm_error_record *stm_errors_nth(const stm_errors *log, int64_t i);

#endif
