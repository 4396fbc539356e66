#include "trace/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/runfiles.h"
#include "core/text.h"

struct stm_logfile {
    int fd;
    pthread_mutex_t lock;
    stm_text line;      /* lock */
    time_t second;      /* lock: in which `lines` were written */
    int lines, dropped; /* lock */
};

mill_status stm_logfile_open(const char *dir, stm_logfile **out, mill_error *err)
{
    stm_logfile *f = stm_calloc(sizeof *f);
    stm_text path = {0};

    if (f == NULL) return mill_fail(err, MILL_ERR_NOMEM, "opening log.jsonl");
    f->fd = -1;
    pthread_mutex_init(&f->lock, NULL);
    stm_text_addf(&path, "%s/" STM_RUN_LOG, dir);
    if (!path.failed) f->fd = open(path.data, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        const mill_status st = path.failed ? mill_fail(err, MILL_ERR_NOMEM, "opening log.jsonl")
                                           : mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", path.data, strerror(errno));
        stm_text_free(&path);
        stm_logfile_close(&f);
        return st;
    }
    stm_text_free(&path);
    *out = f;
    return MILL_OK;
}

void stm_logfile_close(stm_logfile **fp)
{
    stm_logfile *f = *fp;

    if (f == NULL) return;
    if (f->fd >= 0) close(f->fd);
    pthread_mutex_destroy(&f->lock);
    stm_text_free(&f->line);
    stm_free(f);
    *fp = NULL;
}

static void time_of_day(stm_text *t, const struct timespec *now)
{
    struct tm tm;

    gmtime_r(&now->tv_sec, &tm);
    stm_text_addf(t, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                  tm.tm_min, tm.tm_sec, (int)(now->tv_nsec / 1000000));
}

static void text_field(stm_text *t, const char *key, const char *value, size_t n)
{
    stm_text_addf(t, ",\"%s\":\"", key);
    stm_text_add_json(t, value, n);
    stm_text_addf(t, "\"");
}

/* One write: lines of several writers do not mix. */
static void put(stm_logfile *f)
{
    if (f->line.failed || f->line.data == NULL) return;
    while (write(f->fd, f->line.data, f->line.bytes) < 0 && errno == EINTR) {
    }
}

static void start_line(stm_logfile *f, const struct timespec *now)
{
    f->line.bytes = 0;
    f->line.failed = false;
    time_of_day(&f->line, now);
}

void stm_logfile_add(stm_logfile *f, stm_level level, const char *who, const char *event, const char *text)
{
    static const char *const levels[] = {"debug", "info", "warning", "error"};
    const size_t name = strcspn(who, "[");
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&f->lock);
    if (now.tv_sec != f->second) {
        if (f->dropped > 0) {
            start_line(f, &now);
            stm_text_addf(
                &f->line,
                ",\"level\":\"warning\",\"event\":\"log\",\"text\":\"%d lines were dropped: more than %d in a second\"}\n",
                f->dropped, STM_LOG_PER_SECOND);
            put(f);
        }
        f->second = now.tv_sec;
        f->lines = f->dropped = 0;
    }
    if (++f->lines > STM_LOG_PER_SECOND) {
        f->dropped++;
    } else {
        start_line(f, &now);
        stm_text_addf(&f->line, ",\"level\":\"%s\"", levels[level]);
        if (name > 0) text_field(&f->line, "step", who, name);
        if (who[name] == '[') stm_text_addf(&f->line, ",\"replica\":%d", atoi(who + name + 1));
        text_field(&f->line, "event", event, strlen(event));
        text_field(&f->line, "text", text, strlen(text));
        stm_text_addf(&f->line, "}\n");
        put(f);
    }
    pthread_mutex_unlock(&f->lock);
}

void stm_logfile_tap(stm_level level, const char *who, const char *line, void *user)
{
    stm_logfile_add(user, level, strcmp(who, "run") == 0 ? "" : who, "log", line);
}
