#include "peek.h"

#include "supervise/quarantine.h"
#include "supervise/suspects.h"

static const stm_doing doings[] = {STM_DOING_GENERATE, STM_DOING_PROCESS, STM_DOING_ROUTE, STM_DOING_ACCEPT,
                                   STM_DOING_FINISH,   STM_DOING_WRITE,   STM_DOING_SYNC,  STM_DOING_UNLOAD,
                                   STM_DOING_SUBMIT,   STM_DOING_POLL,    STM_DOING_NOTHING, STM_DOING_LOAD};

stm_recorder *peek_recorder(void)
{
    stm_recorder *r = NULL;

    return stm_recorder_create(&r, NULL) == MILL_OK ? r : NULL;
}
void peek_recorder_free(stm_recorder **r) { stm_recorder_destroy(r); }

stm_record *peek_at_work(stm_recorder *r, const char *step, int doing, int64_t first, int64_t rows, bool alone)
{
    stm_record *rec = stm_recorder_add(r, step, "root", 0);

    stm_record_begin(rec, doings[doing], NULL, first, rows);
    atomic_store(&rec->alone, alone);
    return rec;
}

void peek_hold(stm_recorder *r, const stm_record *rec, int64_t first, int64_t rows)
{
    const mill_batch b = {.rows = rows, .keys = {.first = first, .width = 1}};

    stm_recorder_hold(r, rec, &b);
}

int peek_die(stm_recorder *r, const stm_record *culprit)
{
    const stm_record *who;
    const stm_lesson lesson = stm_suspects_learn(r, culprit, MILL_ERR_STEP, "signal 11 (SIGSEGV)", &who);

    stm_recorder_reset(r);
    return (int)lesson;
}

int peek_table(const stm_recorder *r) { return r->n_suspects; }
int peek_table_room(void) { return STM_SUSPECTS; }
void peek_table_empty(stm_recorder *r) { r->n_suspects = 0; }
int peek_verdict(const stm_recorder *r, int i) { return atomic_load(&r->suspects[i].verdict); }
const char *peek_step(const stm_recorder *r, int i) { return r->suspects[i].step; }
int64_t peek_high(const stm_recorder *r, int i) { return r->suspects[i].keys.high[0]; }
const char *peek_bytes(const stm_recorder *r, size_t *n)
{
    *n = (size_t)r->n_suspects * sizeof *r->suspects;
    return (const char *)r->suspects;
}
mill_status peek_save(const stm_recorder *r, const char *dir, mill_error *err) { return stm_suspects_save(r, dir, err); }
mill_status peek_load(stm_recorder *r, const char *dir, mill_error *err) { return stm_suspects_load(r, dir, err); }

stm_quarantine *peek_quarantine(stm_recorder *r)
{
    stm_quarantine *q = NULL;

    return stm_quarantine_create(r, &q, NULL) == MILL_OK ? q : NULL;
}
void peek_quarantine_free(stm_quarantine **q) { stm_quarantine_destroy(q); }

int peek_call(stm_quarantine *q, int64_t first, int64_t last)
{
    stm_key_range k;
    stm_hold h;

    for (int i = 0; i < STM_RECORD_KEY; i++) k.low[i] = k.high[i] = -1;
    k.low[0] = first;
    k.high[0] = last;
    h = stm_quarantine_enter(q, "a", STM_DOING_PROCESS, &k);
    stm_quarantine_leave(q, "a", STM_DOING_PROCESS, &k, h);
    return (int)h;
}

bool peek_barred(const stm_quarantine *q, const char *step, int doing, int64_t first, int64_t last)
{
    const mill_batch b = {.rows = last - first + 1, .keys = {.first = first, .width = 1}};
    stm_key_range keys;

    if (first <= last) stm_keys_of(&b, &keys);
    return stm_quarantine_barred(q, step, doings[doing], first <= last ? &keys : NULL) != NULL;
}
