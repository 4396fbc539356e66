#include "trace/tracer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/text.h"

enum {
    THREADS_PID = 1,
    PLACES_PID = 10 /* first of a process per step */,
    STREAMS_TID = 10000 /* first of its replicas' streams */
};

struct place {
    char *name;
    bool step;
    int32_t named;                /* replicas whose tracks have names */
    int32_t streams[STM_STREAMS]; /* replicas whose streams have names */
};

struct stm_tracer {
    FILE *file;
    char *path;
    int64_t bytes, dropped;
    bool failed, finished;
    int error;
    uint64_t start;
    struct place *places;
    size_t n_places, cap_places;
    pthread_mutex_t lock;
    stm_ring *_Atomic rings; /* newest first; grows under lock */
    int32_t n_rings;         /* lock */
    stm_text line;
};

static void put(stm_tracer *t)
{
    if (t->line.failed || t->line.data == NULL || t->bytes + (int64_t)t->line.bytes > STM_TRACE_BYTES) {
        t->dropped++;
    } else {
        t->bytes += (int64_t)t->line.bytes;
        if (!t->failed && fwrite(t->line.data, 1, t->line.bytes, t->file) != t->line.bytes) t->failed = true, t->error = errno;
    }
    t->line.bytes = 0;
    t->line.failed = false;
}

/* A name of a process or a thread of the trace; tid < 0: of the process. */
static void name_track(stm_tracer *t, int pid, int tid, const char *name)
{
    stm_text_addf(&t->line, ",\n{\"ph\":\"M\",\"name\":\"%s\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"",
                  tid < 0 ? "process_name" : "thread_name", pid, tid < 0 ? 0 : tid);
    stm_text_add_json(&t->line, name, strlen(name));
    stm_text_addf(&t->line, "\"}}");
    put(t);
}

static const char opening[] = "[{\"ph\":\"M\",\"name\":\"process_name\",";

mill_status stm_tracer_may_write(const char *path, mill_error *err)
{
    char head[sizeof opening];
    struct stat info;

    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0) return MILL_OK;
    FILE *f = fopen(path, "re");
    const size_t n = f != NULL ? fread(head, 1, sizeof opening - 1, f) : 0;
    const bool ours = n > 0 && memcmp(head, opening, n) == 0;
    if (f != NULL) fclose(f);
    if (ours) return MILL_OK;
    mill_fail(err, MILL_ERR_INVALID, "the trace would replace %s, which is something else", path);
    mill_error_remedy(err, "Name a file that is not there, or an earlier trace");
    return MILL_ERR_INVALID;
}

mill_status stm_tracer_create(const char *path, stm_tracer **out, mill_error *err)
{
    stm_tracer *t = stm_calloc(sizeof *t);

    if (t == NULL || (t->path = stm_strdup(path)) == NULL) {
        stm_free(t);
        return mill_fail(err, MILL_ERR_NOMEM, "opening %s", path);
    }
    pthread_mutex_init(&t->lock, NULL);
    if ((t->file = fopen(path, "we")) == NULL) {
        const int e = errno;
        stm_tracer_destroy(&t);
        return mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", path, strerror(e));
    }
    t->start = stm_ticks();
    /* An array: what reads it takes one without its end, too, as a process leaves it that was killed. */
    stm_text_addf(&t->line, "%s\"pid\":%d,\"tid\":0,\"args\":{\"name\":\"threads\"}}",
                  opening, THREADS_PID);
    put(t);
    *out = t;
    return MILL_OK;
}

mill_status stm_tracer_place(stm_tracer *t, int32_t place, const char *name, bool step)
{
    if (stm_grow(&t->places, &t->cap_places, (size_t)place + 1, sizeof *t->places) != 0) return MILL_ERR_NOMEM;
    while (t->n_places <= (size_t)place) t->places[t->n_places++] = (struct place){0};
    t->places[place].step = step;
    if ((t->places[place].name = stm_strdup(name)) == NULL) return MILL_ERR_NOMEM;
    if (step) name_track(t, PLACES_PID + place, -1, name);
    return MILL_OK;
}

stm_ring *stm_tracer_join(stm_tracer *t, const char *name)
{
    stm_ring *r = stm_aligned(sizeof *r, 64);

    if (r == NULL) return NULL;
    memset(r, 0, sizeof *r); /* its pages are there before the first batch */
    snprintf(r->name, sizeof r->name, "%.47s", name);
    pthread_mutex_lock(&t->lock);
    r->next = atomic_load_explicit(&t->rings, memory_order_relaxed);
    t->n_rings++;
    atomic_store_explicit(&t->rings, r, memory_order_release);
    pthread_mutex_unlock(&t->lock);
    return r;
}

static void span(stm_tracer *t, int pid, int tid, const char *name, const stm_event *e, double us, const char *thread)
{
    const uint64_t begin = e->begin > t->start ? e->begin - t->start : 0, end = e->end > t->start ? e->end - t->start : 0;

    stm_text_addf(&t->line, ",\n{\"ph\":\"X\",\"name\":\"");
    stm_text_add_json(&t->line, name, strlen(name));
    stm_text_addf(&t->line, "\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f", pid, tid, (double)begin * us,
                  (double)(end - begin) * us);
    if (e->items > 0) stm_text_addf(&t->line, ",\"args\":{\"batches\":%d,\"rows\":%d", e->items, e->rows);
    if (e->items > 0 && thread != NULL) stm_text_addf(&t->line, ",\"thread\":\"%s\"", thread);
    stm_text_addf(&t->line, e->items > 0 ? "}}" : "}");
    put(t);
}

/* What a device did: on tracks behind those of the replicas. */
static void write_stream(stm_tracer *t, struct place *p, const stm_event *e, double us)
{
    static const char *const names[STM_STREAMS] = {"kernels", "copies to the device", "copies to the host",
                                                   "copies between devices"};
    const int32_t stream = STM_EVENT_STREAM - e->items;
    const stm_event bare = {e->begin, e->end, e->place, e->replica, 0, 0};

    if (stream >= STM_STREAMS || e->replica < 0) return;
    for (; p->streams[stream] <= e->replica; p->streams[stream]++) {
        char name[64];
        snprintf(name, sizeof name, "replica %d, %s", (int)p->streams[stream], names[stream]);
        name_track(t, PLACES_PID + e->place, STREAMS_TID + STM_STREAMS * p->streams[stream] + stream, name);
    }
    span(t, PLACES_PID + e->place, STREAMS_TID + STM_STREAMS * e->replica + stream, names[stream], &bare, us, NULL);
}

static void write_event(stm_tracer *t, const stm_ring *r, int tid, const stm_event *e, double us)
{
    struct place *p = e->place >= 0 && (size_t)e->place < t->n_places ? &t->places[e->place] : NULL;

    if (p == NULL) {
        span(t, THREADS_PID, tid, "waits", e, us, NULL);
        return;
    }
    if (e->items < 0) {
        write_stream(t, p, e, us);
        return;
    }
    for (; p->step && p->named <= e->replica; p->named++) {
        char name[32];
        snprintf(name, sizeof name, "replica %d", p->named);
        name_track(t, PLACES_PID + e->place, p->named, name);
    }
    span(t, THREADS_PID, tid, p->name, e, us, NULL);
    if (p->step && e->replica >= 0) span(t, PLACES_PID + e->place, e->replica, p->name, e, us, r->name);
}

void stm_tracer_drain(stm_tracer *t)
{
    const double us = stm_ns_per_tick() / 1e3;
    stm_ring *first = atomic_load_explicit(&t->rings, memory_order_acquire);
    int32_t tid = 0;

    for (const stm_ring *r = first; r != NULL; r = r->next) tid++;
    for (stm_ring *r = first; r != NULL; r = r->next, tid--) { /* the oldest is 1 for ever */
        const uint64_t to = __atomic_load_n(&r->written, __ATOMIC_ACQUIRE);
        uint64_t at = r->taken;

        if (at == 0 && to > 0) name_track(t, THREADS_PID, tid, r->name);
        for (; at < to; at++) {
            const stm_event e = r->events[at & (STM_RING_EVENTS - 1)];
            __atomic_store_n(&r->taken, at + 1, __ATOMIC_RELEASE);
            write_event(t, r, tid, &e, us);
        }
    }
}

int64_t stm_tracer_dropped(const stm_tracer *t)
{
    int64_t n = t->dropped;

    for (const stm_ring *r = atomic_load_explicit(&t->rings, memory_order_acquire); r != NULL; r = r->next)
        n += (int64_t)__atomic_load_n(&r->dropped, __ATOMIC_RELAXED);
    return n;
}

mill_status stm_tracer_finish(stm_tracer *t, mill_error *err)
{
    bool ok;

    if (t->finished) return MILL_OK;
    stm_tracer_drain(t);
    t->finished = true;
    ok = fprintf(t->file, ",\n{\"ph\":\"M\",\"name\":\"dropped_events\",\"pid\":%d,\"tid\":0,\"args\":{\"events\":%lld}}]\n",
                 THREADS_PID, (long long)stm_tracer_dropped(t)) > 0;
    ok = fclose(t->file) == 0 && ok && !t->failed;
    t->file = NULL;
    return ok ? MILL_OK
              : mill_fail(err, MILL_ERR_IO, "cannot write all of %s: %s", t->path, strerror(t->error != 0 ? t->error : errno));
}

void stm_tracer_destroy(stm_tracer **tp)
{
    stm_tracer *t = *tp;
    mill_error none = {0};

    if (t == NULL) return;
    if (t->file != NULL) (void)stm_tracer_finish(t, &none);
    for (stm_ring *r = atomic_load(&t->rings), *next; r != NULL; r = next) {
        next = r->next;
        stm_free(r);
    }
    for (size_t i = 0; i < t->n_places; i++) stm_free(t->places[i].name);
    stm_free(t->places);
    stm_text_free(&t->line);
    stm_free(t->path);
    pthread_mutex_destroy(&t->lock);
    stm_free(t);
    *tp = NULL;
}
