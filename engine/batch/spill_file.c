#include "batch/spill_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"

#define RECALLS 8 /* batches that may be on their way back at once */

/* A record in use, or, with bytes 0, a place in the table for the next one. */
typedef struct record {
    int64_t at, bytes;
    uint64_t sum; /* free: 1 + index of the next free one, 0 = none */
} record;

typedef struct hole {
    int64_t at, bytes;
} hole;

struct stm_spill {
    char *dir;
    pthread_mutex_t lock; /* all below; never held while data is read or written */
    int fd;               /* -1 until the first record; then constant */
    record *records;      /* token - 1 */
    size_t n_records, cap_records;
    uint64_t free_record; /* 1 + index, 0 = none */
    hole *holes;          /* by place; never two that touch, none at the end of the file */
    size_t n_holes, cap_holes;
    int64_t end;
    stm_spill_stats stats;
    pthread_mutex_t recall[RECALLS];
};

/* ---- life ------------------------------------------------------------------------------------------------------- */

mill_status stm_spill_create(const char *dir, stm_spill **out, mill_error *err)
{
    stm_spill *s = stm_calloc(sizeof *s);

    if (dir == NULL || dir[0] == '\0') dir = getenv("TMPDIR");
    if (dir == NULL || dir[0] == '\0') dir = "/tmp";
    if (s == NULL || (s->dir = stm_strdup(dir)) == NULL) {
        stm_free(s);
        return mill_fail(err, MILL_ERR_NOMEM, "spill file in %s", dir);
    }
    s->fd = -1;
    pthread_mutex_init(&s->lock, NULL);
    for (int i = 0; i < RECALLS; i++) pthread_mutex_init(&s->recall[i], NULL);
    *out = s;
    return MILL_OK;
}

void stm_spill_destroy(stm_spill **sp)
{
    stm_spill *s = *sp;

    if (s == NULL) return;
    *sp = NULL;
    if (s->fd >= 0) close(s->fd);
    for (int i = 0; i < RECALLS; i++) pthread_mutex_destroy(&s->recall[i]);
    pthread_mutex_destroy(&s->lock);
    stm_free(s->records);
    stm_free(s->holes);
    stm_free(s->dir);
    stm_free(s);
}

/* A file without a name; where the file system knows no such thing (NFS), one whose name goes at once. lock held. */
static mill_status open_file(stm_spill *s, mill_error *err)
{
    char path[4096];
    int fd = -1;

    if (stm_fault_fires(STM_FAULT_OPEN))
        errno = EACCES;
    else
        fd = open(s->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        if (snprintf(path, sizeof path, "%s/.spill.XXXXXX", s->dir) >= (int)sizeof path)
            errno = ENAMETOOLONG;
        else if ((fd = mkostemp(path, O_CLOEXEC)) >= 0)
            unlink(path);
    }
    if (fd < 0) {
        mill_fail(err, MILL_ERR_IO, "memory_limit is reached and no file for waiting rows can be made in %s: %s", s->dir,
                  strerror(errno));
        mill_error_remedy(err, "make the directory writable, or raise memory_limit");
        return MILL_ERR_IO;
    }
    s->fd = fd;
    return MILL_OK;
}

void stm_spill_lock(stm_spill *s, const void *b) { pthread_mutex_lock(&s->recall[(uintptr_t)b / 64 % RECALLS]); }
void stm_spill_unlock(stm_spill *s, const void *b) { pthread_mutex_unlock(&s->recall[(uintptr_t)b / 64 % RECALLS]); }

/* ---- space ------------------------------------------------------------------------------------------------------ */

/* The first hole that is large enough, else the end. */
static int64_t take_space(stm_spill *s, int64_t bytes)
{
    int64_t at;

    for (size_t i = 0; i < s->n_holes; i++) {
        hole *h = &s->holes[i];
        if (h->bytes < bytes) continue;
        at = h->at;
        h->at += bytes;
        h->bytes -= bytes;
        if (h->bytes == 0) memmove(h, h + 1, (--s->n_holes - i) * sizeof *h);
        return at;
    }
    at = s->end;
    s->end += bytes;
    return at;
}

/* Best effort where memory is out: space that cannot be noted comes back when the file is cut. */
static void give_space(stm_spill *s, int64_t at, int64_t bytes)
{
    size_t i = 0, n = s->n_holes;

    while (i < n) { /* the first hole behind it */
        const size_t mid = i + (n - i) / 2;
        if (s->holes[mid].at < at)
            i = mid + 1;
        else
            n = mid;
    }
    hole *before = i > 0 && s->holes[i - 1].at + s->holes[i - 1].bytes == at ? &s->holes[i - 1] : NULL;
    hole *behind = i < s->n_holes && at + bytes == s->holes[i].at ? &s->holes[i] : NULL;
    if (before != NULL) {
        before->bytes += bytes;
        if (behind != NULL) {
            before->bytes += behind->bytes;
            memmove(behind, behind + 1, (--s->n_holes - i) * sizeof *behind);
        }
    } else if (behind != NULL) {
        behind->at = at;
        behind->bytes += bytes;
    } else if (stm_grow(&s->holes, &s->cap_holes, s->n_holes + 1, sizeof *s->holes) == 0) {
        memmove(&s->holes[i + 1], &s->holes[i], (s->n_holes++ - i) * sizeof *s->holes);
        s->holes[i] = (hole){at, bytes};
    }
    if (s->n_holes > 0 && s->holes[s->n_holes - 1].at + s->holes[s->n_holes - 1].bytes == s->end)
        s->end = s->holes[--s->n_holes].at;
    if (s->stats.records > 0) return;
    s->n_holes = 0;
    s->end = 0;
    if (ftruncate(s->fd, 0) != 0) { /* the space is used again all the same */
    }
}

static mill_status reserve(stm_spill *s, int64_t bytes, uint64_t *token, int64_t *at, mill_error *err)
{
    mill_status st = MILL_OK;
    record *r;

    pthread_mutex_lock(&s->lock);
    if (s->fd < 0) st = open_file(s, err);
    if (st == MILL_OK && s->free_record == 0) {
        if (stm_grow(&s->records, &s->cap_records, s->n_records + 1, sizeof *s->records) != 0)
            st = mill_fail(err, MILL_ERR_NOMEM, "note of a record of %lld bytes", (long long)bytes);
        else {
            s->records[s->n_records].sum = 0;
            s->free_record = ++s->n_records;
        }
    }
    if (st == MILL_OK) {
        *token = s->free_record;
        r = &s->records[*token - 1];
        s->free_record = r->sum;
        *at = take_space(s, bytes);
        *r = (record){.at = *at, .bytes = bytes};
        s->stats.records++;
        s->stats.bytes += bytes;
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}

void stm_spill_drop(stm_spill *s, uint64_t token)
{
    record *r;

    pthread_mutex_lock(&s->lock);
    r = &s->records[token - 1];
    s->stats.records--;
    s->stats.bytes -= r->bytes;
    give_space(s, r->at, r->bytes);
    *r = (record){.sum = s->free_record};
    s->free_record = token;
    pthread_mutex_unlock(&s->lock);
}

stm_spill_stats stm_spill_counts(stm_spill *s)
{
    stm_spill_stats n;

    pthread_mutex_lock(&s->lock);
    n = s->stats;
    n.file_bytes = s->end;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

/* Not cryptographic: tells what a disk or a mistake of ours may do to a record. */
static uint64_t sum_words(uint64_t sum, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < n; i += 8) {
        uint64_t w;
        memcpy(&w, p + i, 8);
        sum = (sum ^ w) * 0x9E3779B97F4A7C15u;
        sum ^= sum >> 29;
    }
    return sum;
}

void stm_stream_fail(stm_stream *s, mill_status st, const char *what)
{
    if (s->st == MILL_OK) s->st = mill_fail(s->err, st, "%s", what);
}

static void transfer(stm_stream *s, void *bytes, size_t n, bool write)
{
    char *p = bytes;

    if (s->st != MILL_OK) return;
    if (!write && (int64_t)n > s->end - s->at) {
        stm_stream_fail(s, MILL_ERR_INTERNAL, "a spilled record is shorter than it says");
        return;
    }
    if (write) s->sum = sum_words(s->sum, bytes, n);
    for (size_t done = 0; done < n;) {
        ssize_t got = -1;
        if (stm_fault_fires(write ? STM_FAULT_WRITE : STM_FAULT_READ))
            errno = write ? ENOSPC : EIO;
        else
            got = write ? pwrite(s->file->fd, p + done, n - done, (off_t)(s->at + (int64_t)done))
                        : pread(s->file->fd, p + done, n - done, (off_t)(s->at + (int64_t)done));
        if (got > 0) {
            done += (size_t)got;
            continue;
        }
        if (got < 0 && errno == EINTR) continue;
        s->st =
            mill_fail(s->err, MILL_ERR_IO, "memory_limit is reached and waiting rows cannot be %s disk in %s: %s",
                      write ? "written to" : "read back from", s->file->dir, got == 0 ? "the file ends early" : strerror(errno));
        if (write) mill_error_remedy(s->err, "free space there, or raise memory_limit");
        return;
    }
    if (!write) s->sum = sum_words(s->sum, bytes, n);
    s->at += (int64_t)n;
}

void stm_stream_measure(stm_stream *s)
{
    s->file = NULL;
    s->at = 0;
    s->st = MILL_OK;
}

mill_status stm_stream_write(stm_stream *s, stm_spill *file, int64_t bytes, mill_error *err)
{
    mill_status st = reserve(file, bytes, &s->token, &s->at, err);

    if (st != MILL_OK) return st;
    s->file = file;
    s->end = s->at + bytes;
    s->sum = s->token;
    s->pos = s->fill = 0;
    s->st = MILL_OK;
    s->err = err;
    return MILL_OK;
}

static void flush(stm_stream *s)
{
    transfer(s, s->stage, s->fill, true);
    s->fill = 0;
}

void stm_stream_put(stm_stream *s, const void *bytes, size_t n)
{
    const char *p = bytes;
    char *stage = (char *)s->stage;

    if (s->file == NULL) {
        s->at += (int64_t)((n + 7) / 8 * 8);
        return;
    }
    if (n >= STM_STAGE_BYTES) {
        flush(s);
        transfer(s, (void *)(uintptr_t)p, n / 8 * 8, true);
        p += n / 8 * 8;
        n %= 8;
    }
    while (n > 0) {
        const size_t room = STM_STAGE_BYTES - s->fill, part = n < room ? n : room;
        memcpy(stage + s->fill, p, part);
        s->fill += part;
        p += part;
        n -= part;
        while (s->fill % 8 != 0) stage[s->fill++] = 0; /* only behind the last part: room is a multiple of eight */
        if (s->fill == STM_STAGE_BYTES) flush(s);
    }
}

mill_status stm_stream_written(stm_stream *s, uint64_t *token)
{
    flush(s);
    if (s->st == MILL_OK && s->at != s->end)
        stm_stream_fail(s, MILL_ERR_INTERNAL, "a spilled record is not as long as was worked out");
    if (s->st != MILL_OK) {
        stm_spill_drop(s->file, s->token);
        return s->st;
    }
    pthread_mutex_lock(&s->file->lock);
    s->file->records[s->token - 1].sum = s->sum;
    s->file->stats.records_written++;
    s->file->stats.bytes_written += s->file->records[s->token - 1].bytes;
    pthread_mutex_unlock(&s->file->lock);
    *token = s->token;
    return MILL_OK;
}

void stm_stream_read(stm_stream *s, stm_spill *file, uint64_t token, mill_error *err)
{
    pthread_mutex_lock(&file->lock);
    s->at = file->records[token - 1].at;
    s->end = s->at + file->records[token - 1].bytes;
    pthread_mutex_unlock(&file->lock);
    s->file = file;
    s->token = token;
    s->sum = token;
    s->pos = s->fill = 0;
    s->st = MILL_OK;
    s->err = err;
}

static void came_back_changed(stm_stream *s)
{
    s->st = mill_fail(s->err, MILL_ERR_IO, "rows that waited on disk in %s came back changed", s->file->dir);
    mill_error_remedy(s->err, "look at the kernel's log for errors of that disk");
}

void stm_stream_get(stm_stream *s, void *bytes, size_t n)
{
    char *p = bytes;
    size_t pad = (8 - n % 8) % 8;

    while (n > 0 && s->st == MILL_OK) {
        size_t part = s->fill - s->pos;
        if (part == 0 && n >= STM_STAGE_BYTES) {
            part = n / 8 * 8;
            transfer(s, p, part, false);
        } else {
            if (part == 0) {
                s->pos = 0;
                s->fill = s->end - s->at < STM_STAGE_BYTES ? (size_t)(s->end - s->at) : STM_STAGE_BYTES;
                if (s->fill == 0) came_back_changed(s); /* what says how much there is to read is damaged */
                else transfer(s, s->stage, s->fill, false);
                if (s->st != MILL_OK) return;
                part = s->fill;
            }
            if (part > n) part = n;
            memcpy(p, (char *)s->stage + s->pos, part);
            s->pos += part;
        }
        p += part;
        n -= part;
    }
    if (s->st == MILL_OK) s->pos += pad; /* inside the stage: parts end there when a piece does not fill its last word */
}

mill_status stm_stream_check(stm_stream *s)
{
    uint64_t want;

    if (s->st != MILL_OK) return s->st;
    pthread_mutex_lock(&s->file->lock);
    want = s->file->records[s->token - 1].sum;
    pthread_mutex_unlock(&s->file->lock);
    if (s->at != s->end || s->pos != s->fill || s->sum != want) came_back_changed(s);
    return s->st;
}
