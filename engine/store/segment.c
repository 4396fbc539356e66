#include "store/segment.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/runfiles.h"
#include "store/crc32c.h"
#include "store/wire.h"

#define HOLD_BYTES ((size_t)256 << 10)
#define KEEP_BYTES ((size_t)1 << 20) /* a reader's buffer beyond this is given back */
#define FRAME 0x31464D53u            /* "SMF1" */

typedef struct seg_head {
    char magic[8];
    uint64_t epoch, nonce;
    unsigned char zero[36];
    uint32_t crc;
} seg_head;
_Static_assert(sizeof(seg_head) == STM_SEGMENT_ALIGN, "the head of a segment has no gaps");

typedef struct frame_head {
    uint32_t magic, kind;
    uint64_t label;
    int64_t rows;
    uint64_t bytes;
    uint32_t payload_crc, chain;
    unsigned char zero[20];
    uint32_t crc;
} frame_head;
_Static_assert(sizeof(frame_head) == STM_SEGMENT_ALIGN, "the head of a frame has no gaps");

static const char kMagic[8] = "SMSEG1";

bool stm_stream_name_ok(const char *name)
{
    size_t n = 0;

    for (; name[n] != 0; n++) {
        const char c = name[n];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '_' && c != '~' && ((c != '-' && c != '.') || n == 0)) return false;
        if (n + 1 >= STM_STREAM_NAME) return false;
    }
    return n > 0;
}

bool stm_segment_name(const char *stream, uint64_t epoch, char *buf, size_t size)
{
    if (!stm_stream_name_ok(stream)) return false;
    return (size_t)snprintf(buf, size, "%s.%llu" STM_RUN_SEGMENT, stream, (unsigned long long)epoch) < size;
}

static uint64_t padded(uint64_t n) { return (n + STM_SEGMENT_ALIGN - 1) & ~(uint64_t)(STM_SEGMENT_ALIGN - 1); }

static uint32_t chain_of(uint32_t before, const frame_head *h) { return stm_crc32c(before, h, offsetof(frame_head, chain)); }

/* ---- writing ---------------------------------------------------------------------------------------------------- */

void stm_segment_init(stm_segment *s, const stm_files *files, const char *stream, uint64_t epoch, uint64_t nonce)
{
    memset(s, 0, sizeof *s);
    s->files = files;
    s->fd = -1;
    s->end.epoch = epoch;
    s->end.nonce = nonce;
    if (!stm_segment_name(stream, epoch, s->name, sizeof s->name)) s->name[0] = 0;
}

static mill_status begin(stm_segment *s, mill_error *err)
{
    seg_head h = {.epoch = s->end.epoch, .nonce = s->end.nonce};

    if (s->name[0] == 0) return mill_fail(err, MILL_ERR_INVALID, "not the name of a stream");
    if (s->fd < 0) {
        const int fd = s->files->open(s->files->user, s->name, STM_OPEN_NEW);
        if (fd < 0) return mill_fail(err, MILL_ERR_IO, "cannot make %s: %s", s->name, strerror(-fd));
        s->fd = fd;
    }
    memcpy(h.magic, kMagic, sizeof h.magic);
    h.crc = stm_crc32c(0, &h, offsetof(seg_head, crc));
    stm_wire_put(&s->held, &h, sizeof h);
    if (s->held.failed) {
        s->held.failed = false;
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a segment");
    }
    s->end.bytes = (int64_t)sizeof h;
    return MILL_OK;
}

mill_status stm_segment_flush(stm_segment *s, mill_error *err)
{
    mill_status st;

    if (s->held.bytes == 0) return MILL_OK;
    st = stm_files_write_all(s->files, s->fd, s->held.data, s->held.bytes, s->end.bytes - (int64_t)s->held.bytes, s->name, err);
    if (st == MILL_OK) s->held.bytes = 0;
    return st;
}

mill_status stm_segment_append(stm_segment *s, uint32_t kind, uint64_t label, int64_t rows, const stm_bytes *pieces, size_t n,
                               mill_error *err)
{
    frame_head h = {.magic = FRAME, .kind = kind, .label = label, .rows = rows};
    size_t before;
    mill_status st = MILL_OK;

    if (s->end.bytes == 0 && (st = begin(s, err)) != MILL_OK) return st;
    if (s->held.bytes >= HOLD_BYTES && (st = stm_segment_flush(s, err)) != MILL_OK) return st;
    before = s->held.bytes;
    for (size_t i = 0; i < n; i++) {
        h.payload_crc = stm_crc32c(h.payload_crc, pieces[i].data, pieces[i].n);
        h.bytes += pieces[i].n;
    }
    h.chain = chain_of(s->end.chain, &h);
    h.crc = stm_crc32c(0, &h, offsetof(frame_head, crc));
    stm_wire_put(&s->held, &h, sizeof h);
    for (size_t i = 0; i < n; i++) stm_wire_put(&s->held, pieces[i].data, pieces[i].n);
    stm_wire_pad(&s->held, STM_SEGMENT_ALIGN); /* everything held begins at a multiple of it */
    if (s->held.failed) {
        s->held.failed = false;
        s->held.bytes = before;
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a frame of %llu bytes", (unsigned long long)h.bytes);
    }
    s->end.bytes += (int64_t)(sizeof h + padded(h.bytes));
    s->end.frames++;
    s->end.rows += rows;
    s->end.chain = h.chain;
    return MILL_OK;
}

void stm_segment_fini(stm_segment *s)
{
    if (s->files != NULL && s->fd >= 0) s->files->close(s->files->user, s->fd);
    stm_text_free(&s->held);
    s->fd = -1;
    s->files = NULL;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

struct stm_segment_reader {
    const stm_files *files;
    char stream[STM_STREAM_NAME], name[STM_STREAM_NAME + 32];
    stm_extent *extents;
    size_t n, i; /* extent in hand */
    int fd;      /* -1 = extent i is not open yet */
    int64_t at;
    stm_extent seen;
    unsigned char *buf;
    size_t cap;
};

mill_status stm_segment_reader_create(const stm_files *files, const char *stream, const stm_extent *extents, size_t n,
                                      stm_segment_reader **out, mill_error *err)
{
    stm_segment_reader *r = stm_calloc(sizeof *r);

    if (r != NULL) r->extents = stm_malloc((n + 1) * sizeof *extents);
    if (r == NULL || r->extents == NULL) {
        stm_free(r);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory to read %s", stream);
    }
    if (!stm_stream_name_ok(stream)) {
        stm_segment_reader_destroy(&r);
        return mill_fail(err, MILL_ERR_INVALID, "not the name of a stream");
    }
    if (n > 0) memcpy(r->extents, extents, n * sizeof *extents);
    strcpy(r->stream, stream);
    r->files = files;
    r->n = n;
    r->fd = -1;
    *out = r;
    return MILL_OK;
}

static mill_status damaged(const stm_segment_reader *r, const char *what, mill_error *err)
{
    mill_fail(err, MILL_ERR_DATA, "%s is damaged at byte %lld: %s", r->name, (long long)r->at, what);
    mill_error_remedy(err, "Start again with --fresh, or bring the run directory back from a copy");
    return MILL_ERR_DATA;
}

static mill_status open_next(stm_segment_reader *r, mill_error *err)
{
    const stm_extent *e = &r->extents[r->i];
    seg_head h;
    int64_t size;
    mill_status st;
    int fd;

    (void)stm_segment_name(r->stream, e->epoch, r->name, sizeof r->name);
    r->at = 0;
    r->seen = (stm_extent){.epoch = e->epoch, .nonce = e->nonce};
    fd = r->files->open(r->files->user, r->name, STM_OPEN_READ);
    if (fd < 0) {
        mill_fail(err, MILL_ERR_DATA, "cannot open %s, which the journal counts on: %s", r->name, strerror(-fd));
        mill_error_remedy(err, "Start again with --fresh, or bring the run directory back from a copy");
        return MILL_ERR_DATA;
    }
    r->fd = fd;
    size = r->files->size(r->files->user, fd);
    if (size < 0) return mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", r->name, strerror((int)-size));
    if (e->bytes < (int64_t)sizeof h || size < e->bytes) return damaged(r, "it is shorter than the journal says", err);
    if ((st = stm_files_read_all(r->files, fd, &h, sizeof h, 0, r->name, err)) != MILL_OK) return st;
    if (memcmp(h.magic, kMagic, sizeof h.magic) != 0 || h.crc != stm_crc32c(0, &h, offsetof(seg_head, crc)))
        return damaged(r, "its head is not one", err);
    if (h.epoch != e->epoch || h.nonce != e->nonce) return damaged(r, "it is of another run", err);
    r->at = (int64_t)sizeof h;
    return MILL_OK;
}

static mill_status room(stm_segment_reader *r, size_t n, mill_error *err)
{
    if (n <= r->cap && (r->cap <= KEEP_BYTES || n > KEEP_BYTES)) return MILL_OK;
    stm_free(r->buf);
    r->cap = n < 4096 ? 4096 : n;
    r->buf = stm_malloc(r->cap);
    if (r->buf != NULL) return MILL_OK;
    r->cap = 0;
    return mill_fail(err, MILL_ERR_NOMEM, "no memory for %zu bytes of %s", n, r->name);
}

static mill_status end_of_segment(stm_segment_reader *r, mill_error *err)
{
    const stm_extent *e = &r->extents[r->i];

    if (r->seen.frames != e->frames || r->seen.rows != e->rows || r->seen.chain != e->chain)
        return damaged(r, "it is not what the journal says", err);
    r->files->close(r->files->user, r->fd);
    r->fd = -1;
    r->i++;
    return MILL_OK;
}

mill_status stm_segment_reader_next(stm_segment_reader *r, bool contents, stm_frame *out, bool *end, mill_error *err)
{
    const stm_extent *e;
    frame_head h;
    mill_status st;

    *end = false;
    for (;;) { /* to the segment that has a frame left */
        if (r->i == r->n) {
            *end = true;
            return MILL_OK;
        }
        e = &r->extents[r->i];
        if (e->frames == 0) {
            r->i++;
            continue;
        }
        if (r->fd < 0 && (st = open_next(r, err)) != MILL_OK) return st;
        if (r->at < e->bytes) break;
        if ((st = end_of_segment(r, err)) != MILL_OK) return st;
    }
    if (e->bytes - r->at < (int64_t)sizeof h) return damaged(r, "a frame goes past the end", err);
    if ((st = stm_files_read_all(r->files, r->fd, &h, sizeof h, r->at, r->name, err)) != MILL_OK) return st;
    if (h.magic != FRAME || h.crc != stm_crc32c(0, &h, offsetof(frame_head, crc)))
        return damaged(r, "the head of a frame is not one", err);
    if (h.bytes > (uint64_t)(e->bytes - r->at - (int64_t)sizeof h) || h.rows < 0)
        return damaged(r, "a frame goes past the end", err);
    if (h.chain != chain_of(r->seen.chain, &h)) return damaged(r, "a frame is missing", err);
    if (contents) {
        if ((st = room(r, h.bytes, err)) != MILL_OK) return st;
        if ((st = stm_files_read_all(r->files, r->fd, r->buf, h.bytes, r->at + (int64_t)sizeof h, r->name, err)) != MILL_OK)
            return st;
        if (stm_crc32c(0, r->buf, h.bytes) != h.payload_crc) return damaged(r, "the contents of a frame have changed", err);
    }
    r->at += (int64_t)(sizeof h + padded(h.bytes));
    r->seen.frames++;
    r->seen.rows += h.rows;
    r->seen.chain = h.chain;
    *out = (stm_frame){.kind = h.kind, .label = h.label, .rows = h.rows, .data = contents ? r->buf : NULL, .bytes = h.bytes};
    return MILL_OK;
}

void stm_segment_reader_destroy(stm_segment_reader **reader)
{
    stm_segment_reader *r = *reader;

    if (r == NULL) return;
    *reader = NULL;
    if (r->fd >= 0) r->files->close(r->files->user, r->fd);
    stm_free(r->extents);
    stm_free(r->buf);
    stm_free(r);
}
