#include "store/batches.h"

#include "batch/bits.h"
#include "batch/column.h"
#include "batch/ipc.h"
#include "core/alloc.h"
#include "memory/buffer.h"
#include "store/wire.h"

enum { TUPLES = 1, MARKS = 2, IMPUTED = 4, END = 8, FAILED = 16 };

struct stm_batch_sink {
    stm_vault *vault;
    size_t stream;
    const mill_type *schema;
    stm_ipc_writer *ipc;
    stm_text head, body; /* kept between batches */
    bool begun;          /* the schema is in this segment */
};

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for a batch on its way to disk"); }

/* ---- out -------------------------------------------------------------------------------------------------------- */

static mill_status to_text(void *user, const void *bytes, size_t n, mill_error *err)
{
    stm_text *t = user;

    stm_wire_put(t, bytes, n);
    return t->failed ? no_memory(err) : MILL_OK;
}

mill_status stm_batch_sink_create(stm_vault *v, size_t stream, const mill_type *schema, stm_batch_sink **out, mill_error *err)
{
    stm_batch_sink *s = stm_calloc(sizeof *s);
    mill_status st;

    if (s == NULL) return no_memory(err);
    s->vault = v;
    s->stream = stream;
    s->schema = schema;
    st = stm_ipc_writer_create(schema, to_text, &s->body, &s->ipc, err);
    if (st != MILL_OK) {
        stm_batch_sink_destroy(&s);
        return st;
    }
    *out = s;
    return MILL_OK;
}

void stm_batch_sink_destroy(stm_batch_sink **sink)
{
    stm_batch_sink *s = *sink;

    if (s == NULL) return;
    *sink = NULL;
    stm_ipc_writer_destroy(&s->ipc);
    stm_text_free(&s->head);
    stm_text_free(&s->body);
    stm_free(s);
}

static void put_marks(stm_text *t, const mill_batch *b)
{
    const mill_view *v = stm_view(b->marks);
    const int64_t *values = v->data;

    for (int64_t r = 0; r < b->rows; r++)
        stm_wire_i64(t, v->validity != NULL && !stm_bit(v->validity, v->offset + r) ? 0 : values[v->offset + r]);
}

static void put_imputed(stm_text *t, const mill_column *c, int64_t rows)
{
    const mill_view *v;

    stm_wire_u64(t, c != NULL);
    if (c == NULL) return;
    v = stm_view(c);
    for (int64_t r = 0; r < rows; r += 64) {
        uint64_t word = 0;
        stm_bits_copy(&word, 0, v->data, v->offset + r, rows - r < 64 ? rows - r : 64);
        stm_wire_u64(t, word);
    }
}

static void put_envelope(stm_text *t, const mill_batch *b)
{
    const stm_keys *k = &b->keys;
    const uint32_t flags = (k->tuples != NULL ? TUPLES : 0u) | (b->marks != NULL ? MARKS : 0u) |
                           (b->imputed != NULL ? IMPUTED : 0u) | (b->end ? END : 0u) | (b->failed ? FAILED : 0u);

    stm_wire_u64(t, b->seq);
    stm_wire_i64(t, b->rows);
    stm_wire_i64(t, b->frontier[0]);
    stm_wire_i64(t, b->frontier[1]);
    stm_wire_i64(t, k->first);
    stm_wire_u32(t, (uint32_t)b->n_roots);
    stm_wire_u32(t, (uint32_t)b->n_columns);
    stm_wire_u32(t, (uint32_t)k->width);
    stm_wire_u32(t, flags);
    stm_wire_u32(t, b->borders);
    stm_wire_u32(t, b->skipped);
    stm_wire_put(t, b->covered, (size_t)b->n_roots * sizeof *b->covered);
    if (k->tuples != NULL && b->rows > 0)
        stm_wire_put(t, (const int64_t *)mill_buffer_data(k->tuples) + k->offset * k->width,
                     (size_t)(b->rows * k->width) * sizeof(int64_t));
    if (b->marks != NULL) put_marks(t, b);
    for (int32_t i = 0; b->imputed != NULL && i < b->n_columns; i++) put_imputed(t, b->imputed[i], b->rows);
}

mill_status stm_batch_sink_put(stm_batch_sink *s, const mill_batch *b, uint64_t label, mill_error *err)
{
    stm_bytes pieces[2];
    mill_status st;

    if (!s->begun) { /* the writer has left it there when it was made */
        pieces[0] = (stm_bytes){s->body.data, s->body.bytes};
        st = stm_vault_append(s->vault, s->stream, STM_FRAME_SCHEMA, 0, 0, pieces, 1, err);
        if (st != MILL_OK) return st;
        s->begun = true;
    }
    s->head.bytes = s->body.bytes = 0;
    s->head.failed = s->body.failed = false;
    put_envelope(&s->head, b);
    if (s->head.failed) return no_memory(err);
    if ((st = stm_ipc_writer_batch(s->ipc, b, err)) != MILL_OK) return st;
    pieces[0] = (stm_bytes){s->head.data, s->head.bytes};
    pieces[1] = (stm_bytes){s->body.data, s->body.bytes};
    return stm_vault_append(s->vault, s->stream, STM_FRAME_BATCH, label, b->rows, pieces, 2, err);
}

/* ---- in --------------------------------------------------------------------------------------------------------- */

typedef struct two_parts { /* schema message, then batch message: what an IPC reader sees as one stream */
    const unsigned char *part[2];
    size_t left[2];
} two_parts;

static mill_status from_parts(void *user, void *to, size_t n, size_t *got, mill_error *err)
{
    two_parts *p = user;
    const int i = p->left[0] > 0 ? 0 : 1;

    (void)err;
    if (n > p->left[i]) n = p->left[i];
    if (n > 0) memcpy(to, p->part[i], n);
    p->part[i] += n;
    p->left[i] -= n;
    *got = n;
    return MILL_OK;
}

struct stm_batch_source {
    stm_segment_reader *reader;
    mill_pool *pool;
    const mill_type *schema;
    int32_t n_roots;
    two_parts parts; /* what ipc reads */
    stm_ipc_reader *ipc;
};

static mill_status malformed(mill_error *err)
{
    return mill_fail(err, MILL_ERR_DATA, "a stored batch is not what this version writes");
}

/* A failure of the IPC reader is one of the data here. */
static mill_status of_ipc(mill_status st, mill_error *err)
{
    if (st != MILL_ERR_PARSE && st != MILL_ERR_UNSUPPORTED && st != MILL_ERR_INVALID && st != MILL_ERR_TYPE) return st;
    mill_error_context(err, "reading a stored batch");
    if (err != NULL) err->status = MILL_ERR_DATA;
    return MILL_ERR_DATA;
}

static mill_status begin_schema(stm_batch_source *s, const void *message, size_t n, mill_error *err)
{
    mill_status st;

    stm_ipc_reader_destroy(&s->ipc);
    s->parts = (two_parts){{message, NULL}, {n, 0}};
    st = stm_ipc_reader_create(s->pool, from_parts, &s->parts, &s->ipc, err);
    if (st != MILL_OK) return of_ipc(st, err);
    s->parts.left[0] = 0;
    if (stm_ipc_reader_schema(s->ipc) != s->schema)
        return mill_fail(err, MILL_ERR_DATA, "a stored stream has other columns than this pipeline gives it");
    return MILL_OK;
}

typedef struct envelope {
    mill_batch *b; /* without columns yet */
    mill_buffer *tuples, *marks;
    uint32_t flags;
} envelope;

static mill_buffer *get_buffer(stm_wire *w, mill_pool *pool, uint64_t words, mill_status *st)
{
    mill_buffer *buf = NULL;
    const void *p = words <= (uint64_t)(w->end - w->at) / 8 ? stm_wire_bytes(w, (size_t)words * 8) : NULL;

    if (p == NULL) {
        w->failed = true;
        return NULL;
    }
    if (mill_buffer_create(pool, (size_t)words * 8, &buf) != MILL_OK)
        *st = MILL_ERR_NOMEM;
    else
        memcpy(buf->data, p, (size_t)words * 8);
    return buf;
}

static mill_column *column_of(mill_pool *pool, mill_type_id id, int64_t rows, mill_buffer **data, mill_status *st)
{
    mill_column *c = stm_column_new(pool, mill_type_plain(id), rows);

    if (c == NULL) {
        *st = MILL_ERR_NOMEM;
        mill_buffer_unref(data);
        return NULL;
    }
    c->data = *data;
    *data = NULL;
    __atomic_store_n(&c->nulls, 0, __ATOMIC_RELAXED);
    stm_column_fix_view(c);
    return c;
}

static mill_status get_imputed(stm_wire *w, mill_pool *pool, mill_batch *b)
{
    mill_status st = MILL_OK;

    b->imputed = stm_pool_take(pool, (size_t)b->n_columns * sizeof *b->imputed);
    if (b->imputed == NULL) return MILL_ERR_NOMEM;
    memset(b->imputed, 0, (size_t)b->n_columns * sizeof *b->imputed);
    for (int32_t i = 0; i < b->n_columns && st == MILL_OK && !w->failed; i++) {
        mill_buffer *bits;
        if (stm_wire_get_u64(w) == 0) continue;
        bits = get_buffer(w, pool, ((uint64_t)b->rows + 63) / 64, &st);
        if (bits != NULL) b->imputed[i] = column_of(pool, MILL_BOOL, b->rows, &bits, &st);
    }
    return st;
}

/* All but the columns. */
static mill_status get_envelope(stm_wire *w, mill_pool *pool, int32_t n_columns, int32_t n_roots, mill_batch **out, mill_error *err)
{
    const uint64_t seq = stm_wire_get_u64(w);
    const int64_t rows = stm_wire_get_i64(w), f0 = stm_wire_get_i64(w), f1 = stm_wire_get_i64(w), first = stm_wire_get_i64(w);
    const uint32_t roots = stm_wire_get_u32(w), columns = stm_wire_get_u32(w), width = stm_wire_get_u32(w),
                   flags = stm_wire_get_u32(w), borders = stm_wire_get_u32(w), skipped = stm_wire_get_u32(w);
    mill_batch *b = NULL;
    mill_status st = MILL_OK;

    if (w->failed || rows < 0 || rows > (int64_t)MILL_BUFFER_MAX_BYTES / 8 || columns != (uint32_t)n_columns || roots > 64 ||
        width < 1 || width > 64 || flags > 31)
        return malformed(err);
    /* -1: of rows without a key */
    if ((flags & TUPLES) == 0 && rows > 0 && (first < -1 || first > INT64_MAX - rows)) return malformed(err);
    if (stm_batch_create(pool, rows, n_columns, n_roots, &b) != MILL_OK) return no_memory(err);
    b->seq = seq;
    b->frontier[0] = f0;
    b->frontier[1] = f1;
    b->borders = borders;
    b->skipped = skipped;
    b->end = (flags & END) != 0;
    b->failed = (flags & FAILED) != 0;
    b->keys = (stm_keys){.first = first, .width = (int32_t)width};
    for (uint32_t i = 0; i < roots; i++) {
        const int64_t v = stm_wire_get_i64(w);
        if ((int32_t)i < n_roots) b->covered[i] = v;
    }
    if ((flags & TUPLES) != 0) b->keys.tuples = get_buffer(w, pool, (uint64_t)rows * width, &st);
    if ((flags & MARKS) != 0 && st == MILL_OK && !w->failed) {
        mill_buffer *data = get_buffer(w, pool, (uint64_t)rows, &st);
        if (data != NULL) b->marks = column_of(pool, MILL_INT64, rows, &data, &st);
    }
    if ((flags & IMPUTED) != 0 && st == MILL_OK && !w->failed) st = get_imputed(w, pool, b);
    if (st != MILL_OK || w->failed) {
        mill_batch_destroy(&b);
        return st != MILL_OK ? no_memory(err) : malformed(err);
    }
    *out = b;
    return MILL_OK;
}

static mill_status get_batch(stm_batch_source *s, const void *frame, size_t n, mill_batch **out, mill_error *err)
{
    stm_wire w = {frame, (const unsigned char *)frame + n, false};
    mill_batch *b = NULL, *columns = NULL;
    mill_status st = get_envelope(&w, s->pool, s->schema->n_fields, s->n_roots, &b, err);

    if (st != MILL_OK) return st;
    s->parts.part[1] = w.at;
    s->parts.left[1] = (size_t)(w.end - w.at);
    st = of_ipc(stm_ipc_reader_next(s->ipc, &columns, err), err);
    if (st == MILL_OK && (columns == NULL || s->parts.left[1] != 0 || mill_batch_rows(columns) != b->rows)) st = malformed(err);
    for (int32_t i = 0; st == MILL_OK && i < b->n_columns; i++)
        if (columns->columns[i] != NULL) b->columns[i] = mill_column_ref(columns->columns[i]);
    mill_batch_destroy(&columns);
    if (st != MILL_OK)
        mill_batch_destroy(&b);
    else
        *out = b;
    return st;
}

mill_status stm_batch_source_create(const stm_vault *v, size_t stream, mill_pool *pool, const mill_type *schema, int32_t n_roots,
                                    stm_batch_source **out, mill_error *err)
{
    stm_batch_source *s = stm_calloc(sizeof *s);
    mill_status st;

    if (s == NULL) return no_memory(err);
    s->pool = pool;
    s->schema = schema;
    s->n_roots = n_roots;
    st = stm_vault_read(v, stream, &s->reader, err);
    if (st != MILL_OK) {
        stm_batch_source_destroy(&s);
        return st;
    }
    *out = s;
    return MILL_OK;
}

/* The next frame with a batch; schemas on the way are read. */
static mill_status next_frame(stm_batch_source *s, stm_frame *f, bool *end, mill_error *err)
{
    mill_status st;

    for (;;) {
        if ((st = stm_segment_reader_next(s->reader, true, f, end, err)) != MILL_OK || *end) return st;
        if (f->kind == STM_FRAME_BATCH) return s->ipc != NULL ? MILL_OK : malformed(err);
        if (f->kind != STM_FRAME_SCHEMA) return malformed(err);
        if ((st = begin_schema(s, f->data, f->bytes, err)) != MILL_OK) return st;
    }
}

mill_status stm_batch_source_next(stm_batch_source *s, mill_batch **out, uint64_t *label, mill_error *err)
{
    stm_frame f;
    bool end;
    mill_status st = next_frame(s, &f, &end, err);

    *out = NULL;
    if (st != MILL_OK || end) return st;
    *label = f.label;
    return get_batch(s, f.data, f.bytes, out, err);
}

mill_status stm_batch_source_count(const stm_vault *v, size_t stream, int64_t *batches, mill_error *err)
{
    stm_segment_reader *r = NULL;
    stm_frame f;
    bool end = false;
    int64_t n = 0;
    mill_status st = stm_vault_read(v, stream, &r, err);

    while (st == MILL_OK && (st = stm_segment_reader_next(r, false, &f, &end, err)) == MILL_OK && !end)
        n += f.kind == STM_FRAME_BATCH;
    stm_segment_reader_destroy(&r);
    if (st == MILL_OK) *batches = n;
    return st;
}

mill_status stm_batch_source_skip(stm_batch_source *s, int64_t n, mill_error *err)
{
    stm_frame f;
    bool end = false;
    mill_status st = MILL_OK;

    for (; n > 0 && st == MILL_OK; n--) {
        st = next_frame(s, &f, &end, err);
        if (st == MILL_OK && end) return mill_fail(err, MILL_ERR_DATA, "a stored stream has fewer batches than were committed");
    }
    return st;
}

void stm_batch_source_destroy(stm_batch_source **source)
{
    stm_batch_source *s = *source;

    if (s == NULL) return;
    *source = NULL;
    stm_segment_reader_destroy(&s->reader);
    stm_ipc_reader_destroy(&s->ipc);
    stm_free(s);
}

mill_status stm_batch_decode(mill_pool *pool, const mill_type *schema, int32_t n_roots, const void *schema_message, size_t n_schema,
                             const void *frame, size_t n, mill_batch **out, mill_error *err)
{
    stm_batch_source s = {.pool = pool, .schema = schema, .n_roots = n_roots};
    mill_status st = begin_schema(&s, schema_message, n_schema, err);

    if (st == MILL_OK) st = get_batch(&s, frame, n, out, err);
    stm_ipc_reader_destroy(&s.ipc);
    return st;
}
