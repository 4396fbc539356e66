#include "wrapper/errors.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"

enum { PLACES = 1 << 16 }; /* a third is used at most */

struct stm_errors {
    pthread_mutex_t lock; /* innermost: only notify runs under it */
    stm_error_record *kept[STM_ERRORS_KEPT]; /* lock to write; entries below count are constant */
    /* lock; for a failure when there is no memory for its record, which may be why it failed. NULL = it is used */
    stm_error_record *spare;
    _Atomic int64_t count; /* release by add, acquire by readers */
    _Atomic int64_t rows, total; /* relaxed */
    /* [PLACES] ids of restored records by the hash of what they are about, newer before older; 0 = none. Constant while anything
     * runs */
    int32_t *places;
    int64_t restored, dead; /* constant while anything runs: the first so many are of an earlier run; so many of them are void */
    void (*notify)(const stm_error_record *, void *);
    void *user;
};

mill_status stm_errors_create(void (*notify)(const stm_error_record *, void *), void *user, stm_errors **out)
{
    stm_errors *log = stm_calloc(sizeof *log);

    if (log == NULL || (log->spare = stm_calloc(sizeof *log->spare)) == NULL) {
        stm_free(log);
        return MILL_ERR_NOMEM;
    }
    pthread_mutex_init(&log->lock, NULL); /* default attributes: cannot fail on Linux */
    log->notify = notify;
    log->user = user;
    *out = log;
    return MILL_OK;
}

void stm_errors_destroy(stm_errors **log)
{
    int64_t n;

    if (*log == NULL) return;
    n = atomic_load(&(*log)->count);
    for (int64_t i = 0; i < n; i++) stm_free((*log)->kept[i]);
    stm_free((*log)->spare);
    stm_free((*log)->places);
    pthread_mutex_destroy(&(*log)->lock);
    stm_free(*log);
    *log = NULL;
}

static bool is_about(const stm_error_record *r, const char *step, int64_t rows, const char *first_key, const char *last_key)
{
    return r->rows == rows && strcmp(r->first_key, first_key) == 0 && strcmp(r->last_key, last_key) == 0 &&
           strcmp(r->error.step, step) == 0;
}

static size_t place_of(const char *step, const char *first_key, const char *last_key)
{
    uint64_t h = stm_hash64(step, strlen(step), 0);

    h = stm_hash64(first_key, strlen(first_key), h);
    return (size_t)stm_hash64(last_key, strlen(last_key), h) % PLACES;
}

static void put_in_place(stm_errors *log, int32_t id)
{
    const stm_error_record *rec = log->kept[id - 1];
    size_t at = place_of(rec->error.step, rec->first_key, rec->last_key);

    for (; log->places[at] != 0; at = (at + 1) % PLACES) { /* an older one for the same rows moves on */
        const int32_t there = log->places[at];
        if (!is_about(log->kept[there - 1], rec->error.step, rec->rows, rec->first_key, rec->last_key)) continue;
        log->places[at] = id;
        id = there;
    }
    log->places[at] = id;
}

mill_status stm_errors_restore(stm_errors *log, const stm_error_record *rec)
{
    const int64_t n = atomic_load_explicit(&log->count, memory_order_relaxed);
    stm_error_record *mine = n < STM_ERRORS_KEPT ? stm_malloc(sizeof *mine) : NULL;

    if (mine == NULL && n == STM_ERRORS_KEPT) { /* of several runs put together: counted only */
        atomic_fetch_add_explicit(&log->rows, rec->rows, memory_order_relaxed);
        atomic_fetch_add_explicit(&log->total, 1, memory_order_relaxed);
        return MILL_OK;
    }
    if (mine != NULL && log->places == NULL) log->places = stm_calloc(PLACES * sizeof *log->places);
    if (mine == NULL || log->places == NULL) {
        stm_free(mine);
        return MILL_ERR_NOMEM;
    }
    *mine = *rec;
    mine->id = n + 1;
    log->kept[n] = mine;
    log->restored = n + 1;
    put_in_place(log, (int32_t)(n + 1));
    atomic_store_explicit(&log->count, n + 1, memory_order_release);
    atomic_fetch_add_explicit(&log->rows, rec->rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&log->total, 1, memory_order_relaxed);
    return MILL_OK;
}

bool stm_errors_is_void(const stm_errors *log, int64_t id)
{
    return id >= 1 && id <= log->restored && log->kept[id - 1]->error.status == MILL_OK;
}

void stm_errors_void(stm_errors *log, int64_t id)
{
    if (id < 1 || id > log->restored || stm_errors_is_void(log, id)) return;
    stm_error_record *rec = log->kept[id - 1];
    atomic_fetch_add_explicit(&log->rows, -rec->rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&log->total, -1, memory_order_relaxed);
    memset(rec, 0, sizeof *rec); /* status OK: no failure */
    rec->id = id;
    log->dead++;
}

/* The record of an earlier run for the same failure of the same rows, which are made again on the way; NULL = there is none. */
static const stm_error_record *known(const stm_errors *log, const mill_error *error, int64_t rows, const char *first_key,
                                     const char *last_key)
{
    if (rows == 0 || first_key == NULL || last_key == NULL) return NULL;
    for (size_t at = place_of(error->step, first_key, last_key); log->places[at] != 0; at = (at + 1) % PLACES) {
        const stm_error_record *r = log->kept[log->places[at] - 1];
        if (r->error.status != MILL_OK && is_about(r, error->step, rows, first_key, last_key)) return r;
    }
    return NULL;
}

static void clear_rest(char *text, size_t size)
{
    const size_t n = strnlen(text, size);

    memset(text + n, 0, size - n);
}

/* Records go to the disk whole, so nothing that the memory held before may stand behind the end of a text: it may be a key. */
static void clear_rests(mill_error *e)
{
    clear_rest(e->msg, sizeof e->msg);
    clear_rest(e->context, sizeof e->context);
    clear_rest(e->remedy, sizeof e->remedy);
    clear_rest(e->file, sizeof e->file);
    clear_rest(e->field, sizeof e->field);
    clear_rest(e->step, sizeof e->step);
    clear_rest(e->origin, sizeof e->origin);
}

/* Under the lock; NULL = none is left. */
static stm_error_record *new_record(stm_errors *log)
{
    stm_error_record *rec = stm_calloc(sizeof *rec);

    if (rec == NULL) {
        rec = log->spare;
        log->spare = NULL;
    } else if (log->spare == NULL) {
        log->spare = stm_calloc(sizeof *log->spare);
    }
    return rec;
}

int64_t stm_errors_add(stm_errors *log, const mill_error *error, int64_t rows, const char *first_key, const char *last_key)
{
    stm_error_record local, *rec = NULL;
    const stm_error_record *before = log->restored > 0 ? known(log, error, rows, first_key, last_key) : NULL;
    int64_t n, id;

    if (before != NULL) return before->id;
    atomic_fetch_add_explicit(&log->rows, rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&log->total, 1, memory_order_relaxed);
    pthread_mutex_lock(&log->lock);
    n = atomic_load_explicit(&log->count, memory_order_relaxed);
    if (n < STM_ERRORS_KEPT) rec = new_record(log);
    if (rec == NULL) rec = &local;
    id = rec == &local ? n : n + 1;
    rec->id = id;
    rec->error = *error;
    clear_rests(&rec->error);
    rec->rows = rows;
    snprintf(rec->first_key, sizeof rec->first_key, "%s", first_key != NULL ? first_key : "");
    snprintf(rec->last_key, sizeof rec->last_key, "%s", last_key != NULL ? last_key : "");
    if (rec != &local) {
        if (n + 1 == STM_ERRORS_KEPT) mill_error_context(&rec->error, "and further errors, of which only the number is kept");
        log->kept[n] = rec;
        atomic_store_explicit(&log->count, n + 1, memory_order_release);
    }
    if (log->notify != NULL) log->notify(rec, log->user);
    pthread_mutex_unlock(&log->lock);
    return id;
}

int64_t stm_errors_count(const stm_errors *log) { return atomic_load_explicit(&log->count, memory_order_acquire); }
int64_t stm_errors_rows(const stm_errors *log) { return atomic_load_explicit(&log->rows, memory_order_relaxed); }
int64_t stm_errors_total(const stm_errors *log) { return atomic_load_explicit(&log->total, memory_order_relaxed); }

const stm_error_record *stm_errors_get(const stm_errors *log, int64_t id)
{
    return id >= 1 && id <= stm_errors_count(log) ? log->kept[id - 1] : NULL;
}

int64_t stm_errors_live(const stm_errors *log) { return stm_errors_count(log) - log->dead; }

const stm_error_record *stm_errors_nth(const stm_errors *log, int64_t i)
{
    const int64_t old = log->restored - log->dead;

    if (i < 0) return NULL;
    if (log->dead == 0 || i >= old) return stm_errors_get(log, i + log->dead + 1);
    for (int64_t k = 0; k < log->restored; k++)
        if (log->kept[k]->error.status != MILL_OK && i-- == 0) return log->kept[k];
    return NULL;
}
