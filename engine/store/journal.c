#include "store/journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/runfiles.h"
#include "store/crc32c.h"
#include "store/wire.h"

#define MAGIC 0x314A4D53u /* "SMJ1" */
#define ALIGN 16
#define WINDOW ((int64_t)1 << 20) /* of the end that is looked at first */

typedef struct head {
    uint32_t magic, kind;
    uint64_t epoch, nonce, number, bytes;
    uint32_t payload_crc, head_crc;
} head;
_Static_assert(sizeof(head) == 48, "the head of a record has no gaps");

void stm_journal_name(uint64_t epoch, char *buf, size_t size)
{
    snprintf(buf, size, STM_RUN_JOURNAL "%llu", (unsigned long long)epoch);
}

uint64_t stm_journal_epoch_of(const char *name)
{
    static const char prefix[] = STM_RUN_JOURNAL;
    uint64_t epoch = 0;

    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return 0;
    name += sizeof prefix - 1;
    if (*name < '1' || *name > '9' || strlen(name) > 18) return 0;
    for (; *name != 0; name++) {
        if (*name < '0' || *name > '9') return 0;
        epoch = epoch * 10 + (uint64_t)(*name - '0');
    }
    return epoch;
}

bool stm_journal_begins(const void *bytes, size_t n) { return n >= 3 && memcmp(bytes, "SMJ", 3) == 0; }

/* ---- writing ---------------------------------------------------------------------------------------------------- */

mill_status stm_journal_create(stm_journal *j, const stm_files *files, uint64_t epoch, uint64_t nonce, mill_error *err)
{
    char name[40];
    int fd;

    *j = (stm_journal){.files = files, .epoch = epoch, .nonce = nonce, .fd = -1};
    stm_journal_name(epoch, name, sizeof name);
    fd = files->open(files->user, name, STM_OPEN_NEW);
    if (fd == -EEXIST) return mill_fail(err, MILL_ERR_BUSY, "another run has just begun in the same run directory");
    if (fd < 0) return mill_fail(err, MILL_ERR_IO, "cannot make %s: %s", name, strerror(-fd));
    j->fd = fd;
    return MILL_OK;
}

mill_status stm_journal_append(stm_journal *j, stm_record_kind kind, const void *payload, size_t n, mill_error *err)
{
    head h = {MAGIC, (uint32_t)kind, j->epoch, j->nonce, j->number, n, stm_crc32c(0, payload, n), 0};
    char name[40];
    mill_status st;
    int code;

    stm_journal_name(j->epoch, name, sizeof name);
    if (j->lost) return mill_fail(err, MILL_ERR_IO, "%s cannot be trusted any more: an earlier sync failed", name);
    h.head_crc = stm_crc32c(0, &h, offsetof(head, head_crc));
    j->record.bytes = 0;
    j->record.failed = false;
    stm_wire_put(&j->record, &h, sizeof h);
    stm_wire_put(&j->record, payload, n);
    stm_wire_pad(&j->record, ALIGN);
    if (j->record.failed) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a record of %zu bytes", n);
    st = stm_files_write_all(j->files, j->fd, j->record.data, j->record.bytes, j->at, name, err);
    if (st != MILL_OK) return st;
    if ((code = j->files->sync(j->files->user, j->fd)) < 0) {
        j->lost = true;
        return mill_fail(err, MILL_ERR_IO, "cannot sync %s: %s", name, strerror(-code));
    }
    j->at += (int64_t)j->record.bytes;
    j->number++;
    return MILL_OK;
}

void stm_journal_close(stm_journal *j)
{
    if (j->files != NULL && j->fd >= 0) j->files->close(j->files->user, j->fd);
    stm_text_free(&j->record);
    j->files = NULL;
    j->fd = -1;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static bool head_ok(const head *h, uint64_t epoch)
{
    return h->magic == MAGIC && h->epoch == epoch && h->bytes <= STM_JOURNAL_MAX_PAYLOAD &&
           h->head_crc == stm_crc32c(0, h, offsetof(head, head_crc));
}

static int64_t end_of(const head *h, int64_t at)
{
    return at + (((int64_t)sizeof *h + (int64_t)h->bytes + ALIGN - 1) & ~(int64_t)(ALIGN - 1));
}

/* Payload of the record at @p at, whose head is good. *out NULL: it is not whole. */
static mill_status payload_at(const stm_files *f, int fd, const char *name, const head *h, int64_t at, int64_t size, void **out,
                              mill_error *err)
{
    void *p;
    mill_status st;

    *out = NULL;
    if (end_of(h, at) > size) return MILL_OK;
    p = stm_malloc(h->bytes + 1);
    if (p == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for %llu bytes of %s", (unsigned long long)h->bytes, name);
    st = stm_files_read_all(f, fd, p, h->bytes, at + (int64_t)sizeof *h, name, err);
    if (st == MILL_OK && stm_crc32c(0, p, h->bytes) == h->payload_crc) {
        *out = p;
        return MILL_OK;
    }
    stm_free(p);
    return st;
}

/* The last whole record behind @p from, from the end backwards in windows that grow: usually one read. */
static mill_status seek_last(const stm_files *f, int fd, const char *name, uint64_t epoch, int64_t from, int64_t size,
                             stm_journal_found *out, mill_error *err)
{
    int64_t end = size, window = WINDOW; /* all starts of records at or past `end` have been tried */
    unsigned char *buf = NULL;
    mill_status st = MILL_OK;

    while (st == MILL_OK && out->last == NULL && end > from) {
        const int64_t start = end - from > window ? (end - window) & ~(int64_t)(ALIGN - 1) : from;
        const int64_t have =
            size - start < end - start + (int64_t)sizeof(head) ? size - start : end - start + (int64_t)sizeof(head);
        unsigned char *more = stm_realloc(buf, (size_t)have);
        if (more == NULL) {
            st = mill_fail(err, MILL_ERR_NOMEM, "no memory to look through %s", name);
            break;
        }
        buf = more;
        if ((st = stm_files_read_all(f, fd, buf, (size_t)have, start, name, err)) != MILL_OK) break;
        for (int64_t i = (have - 1) & ~(int64_t)(ALIGN - 1); i >= 0 && st == MILL_OK && out->last == NULL; i -= ALIGN) {
            head h;
            if (start + i >= end || have - i < (int64_t)sizeof h) continue;
            memcpy(&h, buf + i, sizeof h);
            if (!head_ok(&h, epoch) || (h.nonce != out->nonce && out->base != NULL) || h.kind != STM_RECORD_COMMIT) continue;
            st = payload_at(f, fd, name, &h, start + i, size, &out->last, err);
            if (out->last == NULL) continue;
            out->last_bytes = h.bytes;
            out->number = h.number;
            out->bytes = end_of(&h, start + i);
        }
        end = start;
        window *= 4;
    }
    stm_free(buf);
    return st;
}

mill_status stm_journal_read(const stm_files *f, uint64_t epoch, stm_journal_found *out, mill_error *err)
{
    stm_journal_found r = {0};
    char name[40];
    head h;
    int64_t size = 0;
    mill_status st = MILL_OK;
    int fd;

    stm_journal_name(epoch, name, sizeof name);
    fd = f->open(f->user, name, STM_OPEN_READ);
    if (fd < 0) return mill_fail(err, MILL_ERR_IO, "cannot open %s: %s", name, strerror(-fd));
    size = f->size(f->user, fd);
    if (size < 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", name, strerror((int)-size));
    else if (size < (int64_t)sizeof h)
        st = mill_fail(err, MILL_ERR_NOT_FOUND, "%s was never begun", name);
    if (st == MILL_OK) st = stm_files_read_all(f, fd, &h, sizeof h, 0, name, err);
    if (st == MILL_OK && head_ok(&h, epoch) && h.kind == STM_RECORD_BASE && h.number == 0)
        st = payload_at(f, fd, name, &h, 0, size, &r.base, err);
    if (st == MILL_OK && r.base != NULL) {
        r.nonce = h.nonce;
        r.base_bytes = h.bytes;
        r.bytes = end_of(&h, 0);
        st = seek_last(f, fd, name, epoch, r.bytes, size, &r, err);
    } else if (st == MILL_OK) { /* torn while it was made, or damaged later? */
        st = seek_last(f, fd, name, epoch, 0, size, &r, err);
        if (st == MILL_OK)
            st = r.last != NULL ? mill_fail(err, MILL_ERR_DATA, "the first record of %s is damaged", name)
                                : mill_fail(err, MILL_ERR_NOT_FOUND, "%s was never begun", name);
    }
    f->close(f->user, fd);
    if (st != MILL_OK) {
        stm_journal_found_fini(&r);
        return st;
    }
    *out = r;
    return MILL_OK;
}

void stm_journal_found_fini(stm_journal_found *f)
{
    stm_free(f->base);
    stm_free(f->last);
    memset(f, 0, sizeof *f);
}
