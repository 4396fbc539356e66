/* Looking at a run from outside: a run directory, whether the run goes on or has ended, whoever runs it. */
#ifndef STEPMILL_WATCH_H
#define STEPMILL_WATCH_H

#include "stepmill/run.h"

MILL_BEGIN_DECLS

/** What was read of a run. Threads: owner, one at a time. Blocks: on reading, mill_watch_open and _look;
 *  other calls do not, and cannot fail. */
typedef struct mill_watch mill_watch;

/** Read how the run in @p dir is (DIR/progress.json). The caller destroys *out, which is untouched on failure.
 *  @retval MILL_ERR_NOT_FOUND           no run was ever started there.
 *  @retval MILL_ERR_IO, MILL_ERR_PARSE  it cannot be read, or is no such file.
 *  @retval MILL_ERR_NOMEM               out of memory. */
MILL_API mill_status mill_watch_open(const char *dir, mill_watch **out, mill_error *err);
/** Read again. What was read before stays when this fails, as mill_watch_open. */
MILL_API mill_status mill_watch_look(mill_watch *w, mill_error *err);
/** Accepts NULL, sets *w to NULL. */
MILL_API void mill_watch_destroy(mill_watch **w);

/** As mill_run_show. Valid until the next call. */
MILL_API const char *mill_watch_show(mill_watch *w, int style, int width, int height, int *lines);
/** How it ended, by its own words: MILL_RUN_RUNNING also for a run that was killed. */
MILL_API mill_run_state mill_watch_state(const mill_watch *w);
/** Whether somebody works on it: the process that wrote the numbers lives on this machine, or they are fresh. */
MILL_API bool mill_watch_live(const mill_watch *w);
/** How old the numbers are, s. */
MILL_API double mill_watch_age(const mill_watch *w);
/** Name of the run; machine and process that worked on it. Valid until mill_watch_look, as all texts here. */
MILL_API const char *mill_watch_name(const mill_watch *w);
MILL_API const char *mill_watch_host(const mill_watch *w);
MILL_API int32_t mill_watch_pid(const mill_watch *w);

/** Exit code that the command ended with, or would: MILL_EXIT_STOPPED of a run that goes on or was killed. */
MILL_API int mill_watch_exit_code(const mill_watch *w);
/** Working directory that it was started in; "" = not known. */
MILL_API const char *mill_watch_folder(const mill_watch *w);

/**
 * What became of the row @p key ("packages:12", "packages:12.0"; as errors.jsonl and the column _error's records name them)
 * of the run in @p dir: per step whether it came and left, what it was read and written there as far as the run keeps that,
 * failures, and which rows it came of and came of it. The run may go on meanwhile. Values are cut for people, whole as JSON. *out:
 * mill_text_free.
 * @retval MILL_ERR_NOT_FOUND  there never was such a row, or @p dir is no run directory.
 * @retval MILL_ERR_INVALID    @p key is no key, or the pipeline is not the one of the run any more.
 * @retval MILL_ERR_IO, MILL_ERR_DATA  what is kept cannot be read, or makes no sense.
 * Threads: any. Blocks: reads what is kept up to the row.
 */
MILL_API mill_status mill_row_trace(const char *dir, const char *key, mill_format format, char **out, mill_error *err);

/**
 * Error records of the run in @p dir, one JSON object a line: of a run that has ended what errors.jsonl says, of one that goes on
 * or was killed those that are committed. *out: mill_text_free.
 * @retval MILL_ERR_NOT_FOUND  @p dir is no run directory.
 * @retval MILL_ERR_IO, MILL_ERR_DATA, MILL_ERR_NOMEM  what is kept cannot be read.
 * Threads: any. Blocks: reads.
 */
MILL_API mill_status mill_errors_read(const char *dir, char **out, mill_error *err);
/** Add a failure that ended a run to DIR/errors.jsonl, for a process that ends by it.
 *  A run that goes on after all writes the file anew.
 *  @retval MILL_ERR_IO, MILL_ERR_NOMEM  it cannot be read or written; it is as it was.
 *  Threads: any, one per directory. Blocks: reads and writes. */
MILL_API mill_status mill_errors_add(const char *dir, const mill_error *cause, mill_error *err);
/** Write the report of the run in @p dir, one HTML file, to @p path (NULL = DIR/report.html); whole or not at all.
 *  Fails as mill_watch_open, and with MILL_ERR_IO where it cannot be written. Threads: any. Blocks: reads and writes. */
MILL_API mill_status mill_report_write(const char *dir, const char *path, mill_error *err);

MILL_END_DECLS

#endif
