#include "core/log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* innermost: nothing but the locks of taps and sinks is taken under it */
static stm_log_sink sink;                                /* lock */
static void *sink_user;                                  /* lock */
static stm_log_tap *taps;                                /* lock */
static stm_level threshold = STM_INFO;                   /* written only while no engine thread runs */

void stm_log_set(stm_log_sink to, void *user, stm_level from)
{
    pthread_mutex_lock(&lock);
    sink = to;
    sink_user = user;
    threshold = from;
    pthread_mutex_unlock(&lock);
}

void stm_log_tap_add(stm_log_tap *tap)
{
    pthread_mutex_lock(&lock);
    tap->next = taps;
    taps = tap;
    pthread_mutex_unlock(&lock);
}

void stm_log_tap_remove(stm_log_tap *tap)
{
    pthread_mutex_lock(&lock);
    for (stm_log_tap **p = &taps; *p != NULL; p = &(*p)->next)
        if (*p == tap) {
            *p = tap->next;
            break;
        }
    pthread_mutex_unlock(&lock);
}

void stm_logv(stm_level level, const char *who, const char *fmt, va_list ap)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    char line[2048];

    if (level < threshold && level < STM_INFO) return;
    vsnprintf(line, sizeof line, fmt, ap);
    pthread_mutex_lock(&lock);
    for (const stm_log_tap *t = level >= STM_INFO ? taps : NULL; t != NULL; t = t->next)
        t->sink(level, who != NULL ? who : "", line, t->user);
    if (level < threshold)
        ; /* for taps only */
    else if (sink != NULL)
        sink(level, who != NULL ? who : "", line, sink_user);
    else
        fprintf(stderr, "stepmill: %s: %s%s%s\n", names[level], who != NULL ? who : "", who != NULL && *who ? ": " : "", line);
    pthread_mutex_unlock(&lock);
}

void stm_log(stm_level level, const char *who, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    stm_logv(level, who, fmt, ap);
    va_end(ap);
}
