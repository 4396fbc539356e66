/* Log lines: level, step, text. Off the fast path; nothing above debug per batch. */
#ifndef STM_CORE_LOG_H
#define STM_CORE_LOG_H

#include <stdarg.h>

#include "stepmill/export.h"

typedef enum stm_level { STM_DEBUG = 0, STM_INFO = 1, STM_WARN = 2, STM_ERROR = 3 } stm_level;
/** Receives whole lines without newline; called under a lock, one at a time. @p who: step[replica] or "". */
typedef void (*stm_log_sink)(stm_level level, const char *who, const char *line, void *user);

/** One more place where lines go, of any level from info on, besides where they go anyway: the log of a run directory. */
typedef struct stm_log_tap {
    stm_log_sink sink;
    void *user;
    struct stm_log_tap *next; /* the log's */
} stm_log_tap;
/** Threads: any. @p tap stays the caller's and lives until it is removed; removing waits for a call that is under way. */
void stm_log_tap_add(stm_log_tap *tap);
void stm_log_tap_remove(stm_log_tap *tap);

/** Where lines go (NULL = standard error) and from which level on. Threads: none running. */
void stm_log_set(stm_log_sink sink, void *user, stm_level from);
void stm_log(stm_level level, const char *who, const char *fmt, ...) MILL_PRINTF(3, 4);
void stm_logv(stm_level level, const char *who, const char *fmt, va_list ap);

#endif
