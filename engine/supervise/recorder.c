#include "supervise/recorder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/fault.h"
#include "memory/buffer.h"

mill_status stm_recorder_create(stm_recorder **out, mill_error *err)
{
    const int fd = stm_fault_fires(STM_FAULT_OPEN) ? (errno = EMFILE, -1) : memfd_create("stepmill-recorder", MFD_CLOEXEC);
    void *p = MAP_FAILED;

    if (fd < 0) return mill_fail(err, MILL_ERR_IO, "cannot make the flight recorder: %s", strerror(errno));
    if (ftruncate(fd, sizeof(stm_recorder)) == 0) p = mmap(NULL, sizeof(stm_recorder), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) mill_fail(err, MILL_ERR_NOMEM, "cannot map the flight recorder: %s", strerror(errno));
    close(fd); /* the mapping, which children inherit, keeps it */
    if (p == MAP_FAILED) return MILL_ERR_NOMEM;
    *out = p;
    return MILL_OK;
}

void stm_recorder_destroy(stm_recorder **r)
{
    if (*r != NULL) munmap(*r, sizeof **r);
    *r = NULL;
}

void stm_recorder_reset(stm_recorder *r)
{
    const int32_t n = atomic_load(&r->n_records);

    for (int32_t i = 0; i < n && i < STM_RECORDS; i++) memset(&r->records[i], 0, sizeof r->records[i]);
    atomic_store(&r->n_records, 0);
    for (int32_t i = 0; i < STM_HELD && atomic_load(&r->next_held) != 0; i++) atomic_store(&r->held[i].record, 0);
    atomic_store(&r->next_held, 0);
    atomic_store(&r->ended, 0);
    atomic_store(&r->lost, 0);
    atomic_store(&r->n_undo, 0);
    atomic_store(&r->now_ns, 0);
    memset(&r->last, 0, sizeof r->last);
}

stm_record *stm_recorder_add(stm_recorder *r, const char *step, const char *root, int32_t replica)
{
    const int32_t n = r != NULL ? atomic_load_explicit(&r->n_records, memory_order_relaxed) : STM_RECORDS;
    stm_record *rec;

    if (n >= STM_RECORDS) return NULL;
    rec = &r->records[n];
    snprintf(rec->step, sizeof rec->step, "%s", step);
    snprintf(rec->root, sizeof rec->root, "%s", root != NULL ? root : "");
    rec->replica = replica;
    rec->clock = &r->now_ns;
    atomic_store_explicit(&r->n_records, n + 1, memory_order_release);
    return rec;
}

void stm_recorder_lose(stm_recorder *r, const mill_error *err)
{
    int32_t none = 0;

    if (!atomic_compare_exchange_strong(&r->lost, &none, 1)) return;
    r->last = *err;
    atomic_store_explicit(&r->lost, 2, memory_order_release);
}

const char *stm_doing_name(int32_t doing)
{
    static const char *const names[STM_DOINGS] = {"nothing", "load",   "generate", "process", "submit",   "poll",  "route",
                                                  "accept",  "finish", "write",    "sync",    "finalize", "unload"};

    return doing >= 0 && doing < STM_DOINGS ? names[doing] : "?";
}

void stm_key_of(const mill_batch *b, int64_t row, int64_t key[STM_RECORD_KEY])
{
    const int64_t *t =
        b->keys.tuples != NULL ? (const int64_t *)b->keys.tuples->data + (b->keys.offset + row) * b->keys.width : NULL;

    for (int32_t i = 0; i < STM_RECORD_KEY; i++) key[i] = t != NULL && i < b->keys.width ? t[i] : -1;
    if (t == NULL) key[0] = b->keys.first + row;
}

void stm_keys_of(const mill_batch *b, stm_key_range *out)
{
    stm_key_of(b, 0, out->low);
    stm_key_of(b, b->rows - 1, out->high);
}

int32_t stm_recorder_hold(stm_recorder *r, const stm_record *rec, const mill_batch *b)
{
    if (r == NULL || rec < r->records || rec >= r->records + STM_RECORDS || b->rows == 0) return -1;
    for (int32_t i = 0; i < STM_HELD; i++) {
        const uint32_t at = atomic_fetch_add_explicit(&r->next_held, 1, memory_order_relaxed) % STM_HELD;
        int32_t nobody = 0;

        if (!atomic_compare_exchange_strong_explicit(&r->held[at].record, &nobody, -1, memory_order_acquire, memory_order_relaxed))
            continue;
        stm_keys_of(b, &r->held[at].keys);
        atomic_store_explicit(&r->held[at].record, 1 + (int32_t)(rec - r->records), memory_order_release);
        return (int32_t)at;
    }
    return -1;
}

void stm_recorder_release(stm_recorder *r, int32_t held)
{
    if (held >= 0) atomic_store_explicit(&r->held[held].record, 0, memory_order_release);
}

int stm_key_compare(const int64_t *a, const int64_t *b)
{
    for (int32_t i = 0; i < STM_RECORD_KEY; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

void stm_record_tuples(stm_record *r, const mill_batch *b)
{
    stm_key_range keys;

    stm_keys_of(b, &keys);
    for (int32_t i = 0; i < STM_RECORD_KEY; i++) {
        atomic_store_explicit(&r->low[i], keys.low[i], memory_order_relaxed);
        atomic_store_explicit(&r->high[i], keys.high[i], memory_order_relaxed);
    }
    atomic_store_explicit(&r->in_tuples, 1, memory_order_relaxed);
}

bool stm_record_keys(const stm_record *r, stm_key_range *out)
{
    const int64_t rows = atomic_load_explicit(&r->rows, memory_order_relaxed),
                  first = atomic_load_explicit(&r->first, memory_order_relaxed);
    const bool wide = atomic_load_explicit(&r->in_tuples, memory_order_relaxed) != 0;

    for (int32_t i = 0; i < STM_RECORD_KEY; i++) {
        out->low[i] = wide ? atomic_load_explicit(&r->low[i], memory_order_relaxed) : -1;
        out->high[i] = wide ? atomic_load_explicit(&r->high[i], memory_order_relaxed) : -1;
    }
    if (!wide) out->low[0] = first, out->high[0] = first + rows - 1;
    return rows > 0;
}

static int show_key(char *buf, size_t size, const char *root, const int64_t *key)
{
    int n = snprintf(buf, size, "%s:%" PRId64, root, key[0]);

    for (int32_t i = 1; i < STM_RECORD_KEY && key[i] != -1 && n >= 0 && (size_t)n < size; i++)
        n += snprintf(buf + n, size - (size_t)n, ".%" PRId64, key[i]);
    return n;
}

char *stm_record_show(const stm_record *r, char *buf, size_t size)
{
    const int32_t doing = atomic_load_explicit(&r->doing, memory_order_acquire);
    stm_key_range k;
    int n = snprintf(buf, size, "%s[%d], %s", r->step, r->replica, stm_doing_name(doing));

    if (!stm_record_keys(r, &k) || n < 0 || (size_t)n + 8 >= size) return buf;
    n += snprintf(buf + n, size - (size_t)n, " of row%s ", stm_key_compare(k.low, k.high) == 0 ? "" : "s");
    if ((size_t)n < size) n += show_key(buf + n, size - (size_t)n, r->root, k.low);
    if (stm_key_compare(k.low, k.high) == 0 || (size_t)n + 8 >= size) return buf;
    n += snprintf(buf + n, size - (size_t)n, " to ");
    if ((size_t)n < size) show_key(buf + n, size - (size_t)n, r->root, k.high);
    return buf;
}
