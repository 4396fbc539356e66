/*
 * Files are read in the order in which their messages stand, so of the footer only its place matters: a file without its end is cut
 * off. A writer notes where its batches lie for the footer; one that goes on with a file finds them by walking over their heads.
 */
#include "stepmill/arrow_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "batch/batch.h"
#include "batch/bits.h"
#include "batch/builder.h"
#include "batch/ipc.h"
#include "batch/type.h"
#include "core/alloc.h"

#define MAGIC_BYTES 6 /* at the end of a file, behind the footer and its length in 4 bytes; two zeroes more at its beginning */
#define TAIL_BYTES (4 + MAGIC_BYTES)
#define BEGIN_BYTES 8
static const char magic[BEGIN_BYTES] = {'A', 'R', 'R', 'O', 'W', '1', 0, 0};

struct mill_arrow_reader {
    int fd;
    int64_t end, at; /* byte where the stream in the file ends; the next one that it gets */
    stm_ipc_reader *stream;
    mill_pool *pool;
    mill_batch *batch; /* in hand; NULL = none */
    mill_arrow_place place;
    char *path;
};

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static mill_status read_at(void *user, void *to, size_t n, size_t *got, mill_error *err)
{
    mill_arrow_reader *r = user;
    ssize_t some;

    if ((int64_t)n > r->end - r->at) n = r->at < r->end ? (size_t)(r->end - r->at) : 0;
    do some = pread(r->fd, to, n, (off_t)r->at);
    while (some < 0 && errno == EINTR);
    if (some < 0) return mill_fail(err, MILL_ERR_IO, "cannot read: %s", strerror(errno));
    *got = (size_t)some;
    r->at += some;
    return MILL_OK;
}

/* r->at and r->end become those of the stream. */
static mill_status find_format(mill_arrow_reader *r, mill_error *err)
{
    const int64_t bytes = r->end;
    unsigned char head[BEGIN_BYTES] = {0}, tail[TAIL_BYTES] = {0};
    int64_t footer;
    size_t got;
    mill_status st = read_at(r, head, sizeof head, &got, err);

    r->at = 0;
    if (st != MILL_OK || memcmp(head, "\xff\xff\xff\xff", 4) == 0) return st;
    if (bytes == 0) return mill_fail(err, MILL_ERR_PARSE, "it is empty");
    if (memcmp(head, magic, MAGIC_BYTES) != 0)
        return mill_fail(err, MILL_ERR_PARSE, "this is no Arrow file, neither of the file nor of the stream format");
    r->at = bytes - TAIL_BYTES;
    if (r->at < BEGIN_BYTES || (st = read_at(r, tail, sizeof tail, &got, err)) != MILL_OK ||
        memcmp(tail + 4, magic, MAGIC_BYTES) != 0)
        return st != MILL_OK ? st : mill_fail(err, MILL_ERR_PARSE, "the file is cut off: its end is missing");
    footer = tail[0] | tail[1] << 8 | tail[2] << 16 | (int64_t)tail[3] << 24;
    r->at = BEGIN_BYTES;
    r->end = bytes - TAIL_BYTES - footer;
    return r->end > r->at
               ? MILL_OK
               : mill_fail(err, MILL_ERR_PARSE, "the footer says that it has %lld bytes, more than the file", (long long)footer);
}

static mill_status open_file(mill_arrow_reader *r, mill_error *err)
{
    struct stat info;

    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0) return mill_fail(err, errno == ENOENT ? MILL_ERR_NOT_FOUND : MILL_ERR_IO, "cannot open: %s", strerror(errno));
    if (fstat(r->fd, &info) != 0) return mill_fail(err, MILL_ERR_IO, "cannot open: %s", strerror(errno));
    if (!S_ISREG(info.st_mode)) return mill_fail(err, MILL_ERR_INVALID, "it is no plain file");
    r->end = info.st_size;
    return MILL_OK;
}

/* @p end: of a file in the making; -1 = it is whole. */
static mill_status begin(mill_pool *pool, const char *path, int64_t end, mill_arrow_reader **out, mill_error *err)
{
    mill_arrow_reader *r = stm_calloc(sizeof *r);
    mill_status st;

    if (r == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to read %s", path);
    r->fd = -1;
    r->pool = pool;
    r->path = stm_strdup(path);
    st = r->path != NULL ? open_file(r, err) : mill_fail(err, MILL_ERR_NOMEM, "no memory to read it");
    if (st == MILL_OK && end < 0) st = find_format(r, err);
    if (end >= 0) r->at = BEGIN_BYTES, r->end = end;
    if (st == MILL_OK) st = stm_ipc_reader_create(pool, read_at, r, &r->stream, err);
    r->place.offset = r->at;
    if (st != MILL_OK) {
        mill_error_context(err, "%s", path);
        mill_arrow_reader_close(&r);
        return st;
    }
    *out = r;
    return MILL_OK;
}

mill_status mill_arrow_reader_open(mill_pool *pool, const char *path, mill_arrow_reader **out, mill_error *err)
{
    return begin(pool, path, -1, out, err);
}

void mill_arrow_reader_close(mill_arrow_reader **reader)
{
    mill_arrow_reader *r = *reader;

    if (r == NULL) return;
    *reader = NULL;
    mill_batch_destroy(&r->batch);
    stm_ipc_reader_destroy(&r->stream);
    if (r->fd >= 0) close(r->fd);
    stm_free(r->path);
    stm_free(r);
}

const mill_type *mill_arrow_reader_schema(const mill_arrow_reader *r) { return stm_ipc_reader_schema(r->stream); }

/* Makes r->batch one that has rows left from r->place.row on, or NULL at the end. */
static mill_status fill(mill_arrow_reader *r, mill_error *err)
{
    mill_status st = MILL_OK;

    while (r->batch == NULL || r->place.row >= mill_batch_rows(r->batch)) {
        if (r->batch != NULL) r->place = (mill_arrow_place){r->at, 0};
        mill_batch_destroy(&r->batch);
        if ((st = stm_ipc_reader_next(r->stream, &r->batch, err)) != MILL_OK) {
            mill_error_context(err, "%s, from byte %lld on", r->path, (long long)r->place.offset);
            return st;
        }
        if (r->batch == NULL) return MILL_OK;
        if (r->place.row > mill_batch_rows(r->batch))
            return mill_fail(err, MILL_ERR_INVALID, "%s has fewer rows than before: it was changed", r->path);
    }
    return MILL_OK;
}

mill_status mill_arrow_reader_next(mill_arrow_reader *r, int64_t max_rows, mill_batch **out, mill_error *err)
{
    mill_status st = fill(r, err);
    int64_t n;

    *out = NULL;
    if (st != MILL_OK || r->batch == NULL) return st;
    n = mill_batch_rows(r->batch) - r->place.row;
    if (n > max_rows) n = max_rows;
    if ((st = stm_batch_slice(r->batch, r->place.row, n, out)) != MILL_OK)
        return mill_fail(err, st, "no memory for rows of %s", r->path);
    r->place.row += n;
    return MILL_OK;
}

mill_arrow_place mill_arrow_reader_place(const mill_arrow_reader *r) { return r->place; }

void mill_arrow_reader_goto(mill_arrow_reader *r, mill_arrow_place at)
{
    if (at.offset == r->place.offset && r->batch != NULL && at.row <= mill_batch_rows(r->batch)) {
        r->place.row = at.row;
        return;
    }
    mill_batch_destroy(&r->batch);
    r->place = at;
    r->at = at.offset;
    stm_ipc_reader_moved(r->stream);
}

double mill_arrow_reader_share(const mill_arrow_reader *r) { return r->at < r->end ? (double)r->at / (double)r->end : 1.0; }

/* ---- writing ------------------------------------------------------------------------------------------------------ */

struct mill_arrow_writer {
    mill_pool *pool;
    const mill_type *schema;
    mill_arrow_put put;
    void *user;
    int64_t at; /* bytes so far */
    stm_ipc_writer *stream;
    mill_builder **columns; /* [schema->n_fields] rows that wait */
    int64_t waiting;
    stm_ipc_block *blocks;
    size_t n_blocks, cap_blocks;
};

static mill_status put(void *user, const void *bytes, size_t n, mill_error *err)
{
    mill_arrow_writer *w = user;
    const mill_status st = w->put(w->user, bytes, n, err);

    w->at += (int64_t)n;
    return st;
}

static mill_status add_block(mill_arrow_writer *w, stm_ipc_block block, int64_t offset, mill_error *err)
{
    if (stm_grow(&w->blocks, &w->cap_blocks, w->n_blocks + 1, sizeof *w->blocks) != 0)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for an Arrow file");
    block.offset = offset;
    w->blocks[w->n_blocks++] = block;
    return MILL_OK;
}

static mill_status new_writer(mill_pool *pool, const mill_type *schema, mill_arrow_put to, void *user, mill_arrow_writer **out,
                              mill_error *err)
{
    mill_arrow_writer *w = stm_calloc(sizeof *w);
    mill_status st = MILL_OK;

    if (w == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for an Arrow file");
    *w = (mill_arrow_writer){.pool = pool, .schema = schema, .put = to, .user = user};
    w->columns = stm_calloc((size_t)(schema->n_fields + 1) * sizeof(mill_builder *));
    if (w->columns == NULL) st = MILL_ERR_NOMEM;
    for (int32_t i = 0; i < schema->n_fields && st == MILL_OK; i++)
        st = mill_builder_create(pool, schema->fields[i].type, &w->columns[i]);
    if (st != MILL_OK) {
        mill_arrow_writer_destroy(&w);
        return mill_fail(err, st, "no memory for an Arrow file");
    }
    *out = w;
    return MILL_OK;
}

mill_status mill_arrow_writer_create(mill_pool *pool, const mill_type *schema, mill_arrow_put to, void *user,
                                     mill_arrow_writer **out, mill_error *err)
{
    mill_arrow_writer *w = NULL;
    mill_status st = new_writer(pool, schema, to, user, &w, err);

    if (st == MILL_OK) st = put(w, magic, sizeof magic, err);
    if (st == MILL_OK) st = stm_ipc_writer_create(schema, put, w, &w->stream, err);
    if (st != MILL_OK) mill_arrow_writer_destroy(&w);
    *out = w;
    return st;
}

/* Notes the batches in the first @p bytes of the file. */
static mill_status find_blocks(mill_arrow_writer *w, mill_arrow_reader *r, int64_t bytes, mill_error *err)
{
    mill_status st = MILL_OK;
    bool end = false;

    if (mill_arrow_reader_schema(r) != w->schema) return mill_fail(err, MILL_ERR_DATA, "the file to go on with has other columns");
    while (r->at < bytes && !end && st == MILL_OK) {
        const int64_t at = r->at;
        stm_ipc_block block;

        st = stm_ipc_reader_skip(r->stream, &block, &end, err);
        if (st == MILL_OK && !end) st = add_block(w, block, at, err);
        r->at += block.body_bytes;
    }
    if (st == MILL_OK && (r->at != bytes || end))
        st = mill_fail(err, MILL_ERR_DATA, "the file to go on with has no batch that ends at byte %lld", (long long)bytes);
    return st;
}

mill_status mill_arrow_writer_resume(mill_pool *pool, const mill_type *schema, const char *path, int64_t bytes, mill_arrow_put to,
                                     void *user, mill_arrow_writer **out, mill_error *err)
{
    mill_arrow_reader *r = NULL;
    mill_arrow_writer *w = NULL;
    mill_status st = begin(pool, path, bytes, &r, err);

    if (st == MILL_OK) st = new_writer(pool, schema, to, user, &w, err);
    if (st == MILL_OK) st = find_blocks(w, r, bytes, err);
    if (st == MILL_OK) st = stm_ipc_writer_resume(schema, put, w, &w->stream, err);
    mill_arrow_reader_close(&r);
    if (st == MILL_OK) w->at = bytes;
    else mill_arrow_writer_destroy(&w);
    *out = w;
    return st;
}

mill_status mill_arrow_writer_rows(mill_arrow_writer *w, const mill_batch *batch, int64_t first, int64_t n, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < w->schema->n_fields && st == MILL_OK; i++) {
        const mill_column *c = mill_batch_column(batch, i);

        stm_builder_plan(w->columns[i], c, first, n);
        st = stm_builder_plan_done(w->columns[i]);
        if (st == MILL_OK) st = c != NULL ? stm_builder_append(w->columns[i], c, first, n) : stm_builder_nulls(w->columns[i], n);
    }
    w->waiting += n;
    return st == MILL_OK ? st : mill_fail(err, st, "no memory for %lld rows of an Arrow file", (long long)w->waiting);
}

/* Values of rows that are null: whatever they are, the bytes of a file are the same. */
static void clear_nulls(mill_builder *b)
{
    const mill_type *t = b->type;

    for (int64_t i = 0; b->nulls > 0 && stm_type_is_plain(t) && i < b->rows; i++) {
        if (stm_bit(b->bits, i)) continue;
        if (t->id == MILL_BOOL) stm_bit_put(b->val, i, false);
        else memset(b->val + i * t->width, 0, (size_t)t->width);
    }
    for (int32_t i = 0; i < t->n_fields; i++) clear_nulls(b->children[i]);
}

mill_status mill_arrow_writer_flush(mill_arrow_writer *w, mill_error *err)
{
    const int64_t at = w->at;
    mill_batch *b = NULL;
    mill_status st;

    if (w->waiting == 0) return MILL_OK;
    st = mill_batch_create(w->pool, w->waiting, w->schema->n_fields, &b);
    for (int32_t i = 0; i < w->schema->n_fields && st == MILL_OK; i++) {
        mill_column *c = NULL;

        clear_nulls(w->columns[i]);
        st = mill_builder_finish(w->columns[i], &c);
        if (st == MILL_OK) st = mill_batch_set_column(b, i, &c);
        mill_column_unref(&c);
    }
    if (st != MILL_OK) mill_fail(err, st, "no memory for %lld rows of an Arrow file", (long long)w->waiting);
    if (st == MILL_OK) st = stm_ipc_writer_batch(w->stream, b, err);
    if (st == MILL_OK) st = add_block(w, stm_ipc_writer_last(w->stream), at, err);
    mill_batch_destroy(&b);
    w->waiting = 0;
    return st;
}

mill_status mill_arrow_writer_end(mill_arrow_writer *w, mill_error *err)
{
    mill_status st = mill_arrow_writer_flush(w, err);

    if (st == MILL_OK) st = stm_ipc_writer_end(w->stream, err);
    return st == MILL_OK ? stm_ipc_writer_footer(w->stream, w->blocks, w->n_blocks, err) : st;
}

void mill_arrow_writer_destroy(mill_arrow_writer **writer)
{
    mill_arrow_writer *w = *writer;

    if (w == NULL) return;
    *writer = NULL;
    stm_ipc_writer_destroy(&w->stream);
    for (int32_t i = 0; w->columns != NULL && i < w->schema->n_fields; i++) mill_builder_destroy(&w->columns[i]);
    stm_free(w->columns);
    stm_free(w->blocks);
    stm_free(w);
}
