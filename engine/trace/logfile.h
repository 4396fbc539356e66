/* log.jsonl of a run directory: one JSON object per line, appended as it happens, for `stepmill logs` and whoever comes later. */
#ifndef STM_TRACE_LOGFILE_H
#define STM_TRACE_LOGFILE_H

#include "core/log.h"
#include "stepmill/error.h"

#define STM_LOG_PER_SECOND 1000 /* lines; more are counted, and the count is written */

typedef struct stm_logfile stm_logfile;
/** Append to DIR/log.jsonl. */
mill_status stm_logfile_open(const char *dir, stm_logfile **out, mill_error *err);
void stm_logfile_close(stm_logfile **f);
/**
 * One line: time, level, step and replica (of @p who, "step[2]" or "step"; "" = the run), event, text. What cannot be written is
 * dropped: a log never fails a run. Threads: any. Blocks: on the disk.
 */
void stm_logfile_add(stm_logfile *f, stm_level level, const char *who, const char *event, const char *text);
/** As above, as a tap of the log (core/log.h); @p user is the file. */
void stm_logfile_tap(stm_level level, const char *who, const char *line, void *user);

#endif
