#include "supervise/quarantine.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "supervise/suspects.h"

#define SYNC_WAIT_NS 250000000

struct stm_quarantine {
    stm_recorder *recorder;
    pthread_rwlock_t lock; /* held during calls into steps; taken with nothing else held */
    _Atomic bool active;   /* somebody is under suspicion; falls once */
};

static bool is_open(const stm_suspect *s)
{
    const int32_t v = atomic_load_explicit(&s->verdict, memory_order_relaxed);

    return v == STM_SUSPECTED || v == STM_GUILTY;
}

static bool is_of_rows(const stm_suspect *s) { return s->doing == STM_DOING_PROCESS || s->doing == STM_DOING_SUBMIT; }

static void look(stm_quarantine *q)
{
    bool any = false;

    for (int32_t i = 0; i < q->recorder->n_suspects; i++) any = any || is_open(&q->recorder->suspects[i]);
    atomic_store_explicit(&q->active, any, memory_order_release);
}

mill_status stm_quarantine_create(stm_recorder *r, stm_quarantine **out, mill_error *err)
{
    stm_quarantine *q;
    pthread_rwlockattr_t attr;

    *out = NULL;
    if (r == NULL || r->n_suspects == 0) return MILL_OK;
    if ((q = stm_calloc(sizeof *q)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "quarantine");
    q->recorder = r;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP); /* the suspect is what all wait for */
    pthread_rwlock_init(&q->lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    look(q);
    *out = q;
    return MILL_OK;
}

void stm_quarantine_destroy(stm_quarantine **q)
{
    if (*q == NULL) return;
    pthread_rwlock_destroy(&(*q)->lock);
    stm_free(*q);
    *q = NULL;
}

/* A call for no rows is met by entries of calls for no rows, which have all keys. */
static bool is_about(const stm_suspect *s, const char *step, stm_doing doing, const stm_key_range *keys)
{
    if (s->doing != (int32_t)doing) return false;
    return keys == NULL ? strcmp(s->step, step) == 0 : stm_suspect_meets(s, step, keys);
}

static bool meets(const stm_suspect *s, const char *step, stm_doing doing, const stm_key_range *keys)
{
    return is_open(s) && is_about(s, step, doing, keys);
}

static bool is_suspected(const stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys)
{
    for (int32_t i = 0; i < q->recorder->n_suspects; i++)
        if (meets(&q->recorder->suspects[i], step, doing, keys)) return true;
    return false;
}

stm_hold stm_quarantine_enter(stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys)
{
    if (!atomic_load_explicit(&q->active, memory_order_acquire)) return STM_HOLD_NONE;
    if (is_suspected(q, step, doing, keys)) {
        pthread_rwlock_wrlock(&q->lock);
        return STM_HOLD_ALONE;
    }
    pthread_rwlock_rdlock(&q->lock);
    return STM_HOLD_SHARED;
}

bool stm_quarantine_try_sync(stm_quarantine *q, const char *step, stm_hold *hold)
{
    struct timespec until;

    *hold = STM_HOLD_NONE;
    if (!atomic_load_explicit(&q->active, memory_order_acquire) || !is_suspected(q, step, STM_DOING_SYNC, NULL)) return true;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += SYNC_WAIT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (pthread_rwlock_timedwrlock(&q->lock, &until) != 0) return false;
    *hold = STM_HOLD_ALONE;
    return true;
}

void stm_quarantine_leave(stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys, stm_hold hold)
{
    if (hold == STM_HOLD_NONE) return;
    /* an unload says nothing about those of the other replicas */
    for (int32_t i = 0; i < q->recorder->n_suspects && hold == STM_HOLD_ALONE && doing != STM_DOING_UNLOAD; i++) {
        stm_suspect *s = &q->recorder->suspects[i];
        /* a range that the batches of this worker cut is through with its last rows */
        if (meets(s, step, doing, keys) && atomic_load(&s->verdict) == STM_SUSPECTED &&
            (keys == NULL || stm_key_compare(keys->high, s->keys.high) >= 0 || s->keys.high[0] == INT64_MAX))
            atomic_store(&s->verdict, STM_CLEARED);
    }
    if (hold == STM_HOLD_ALONE) look(q);
    pthread_rwlock_unlock(&q->lock);
}

int32_t stm_quarantine_row(const stm_quarantine *q, const char *step, const int64_t *key)
{
    int32_t found = -1;

    for (int32_t i = 0; i < q->recorder->n_suspects; i++) {
        const stm_suspect *s = &q->recorder->suspects[i];
        const int32_t v = atomic_load_explicit(&s->verdict, memory_order_relaxed);

        if ((v != STM_BLAMED && v != STM_GUILTY) || !is_of_rows(s) || strcmp(s->step, step) != 0) continue;
        if (stm_key_compare(s->keys.low, key) > 0 || stm_key_compare(key, s->keys.high) > 0) continue;
        if (v == STM_BLAMED) return i;
        found = i;
    }
    return found;
}

bool stm_quarantine_meets(const stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys)
{
    for (int32_t i = 0; i < q->recorder->n_suspects; i++) {
        const stm_suspect *s = &q->recorder->suspects[i];
        const int32_t v = atomic_load_explicit(&s->verdict, memory_order_relaxed);

        if (!is_of_rows(s) || !stm_suspect_meets(s, step, keys)) continue;
        if (v == STM_BLAMED || v == STM_GUILTY || (v == STM_SUSPECTED && doing == STM_DOING_SUBMIT)) return true;
    }
    return false;
}

const stm_suspect *stm_quarantine_barred(const stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys)
{
    for (int32_t i = 0; i < q->recorder->n_suspects; i++) {
        const stm_suspect *s = &q->recorder->suspects[i];
        const int32_t v = atomic_load_explicit(&s->verdict, memory_order_relaxed);

        if ((v == STM_BARRED || v == STM_BLAMED) && is_about(s, step, doing, keys)) return s;
    }
    return NULL;
}

const stm_suspect *stm_quarantine_entry(const stm_quarantine *q, int32_t i) { return &q->recorder->suspects[i]; }

void stm_quarantine_clear(stm_quarantine *q, int32_t i)
{
    atomic_store(&q->recorder->suspects[i].verdict, STM_CLEARED);
    look(q);
}
