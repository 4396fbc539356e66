/* Batches as records. The order of the pieces is the same for the writer and the reader; nothing else describes it. */
#include "batch/spill_file.h"

#include <string.h>

#include "batch/bits.h"
#include "batch/column.h"
#include "batch/move.h"
#include "batch/type.h"

static const char kNoMemory[] = "no memory for rows that come back from disk";
static const char kChanged[] = "rows that waited on disk came back changed";

#define CHUNK 64 /* words that are moved or shifted at a time */

/* Heads are checked before they are used: the checksum of the record is known only at its end, and a type is a pointer. */
typedef struct column_head {
    uint64_t check;
    const mill_type *type; /* interned, valid as long as the process; NULL = no column */
    int64_t rows;
    int64_t bytes; /* of text */
    int64_t validity;
} column_head;

typedef struct batch_head {
    uint64_t check;
    uint64_t seq;
    int64_t rows, frontier[2], first;
    int32_t n_roots, n_columns, width, tuples;
    uint32_t borders, skipped;
    int32_t end, failed;
} batch_head;

static uint64_t check_of(const void *head, size_t n)
{
    const unsigned char *p = head;
    uint64_t h = 0xCBF29CE484222325u;

    for (size_t i = sizeof(uint64_t); i < n; i++) h = (h ^ p[i]) * 0x100000001B3u;
    return h;
}

/* ---- out -------------------------------------------------------------------------------------------------------- */

static void put_bits(stm_stream *s, const uint8_t *bits, int64_t from, int64_t n)
{
    uint64_t part[CHUNK];

    if ((from & 7) == 0) {
        stm_stream_put(s, bits + from / 8, (size_t)stm_bits_bytes(n));
        return;
    }
    for (int64_t done = 0; done < n; done += CHUNK * 64) {
        const int64_t here = n - done < CHUNK * 64 ? n - done : CHUNK * 64;
        part[(here - 1) / 64] = 0;
        stm_bits_copy(part, 0, bits, from + done, here);
        stm_stream_put(s, part, (size_t)stm_bits_bytes(here));
    }
}

/* n + 1 offsets, moved so that they begin at 0. */
static void put_offsets(stm_stream *s, const int64_t *offsets, int64_t n)
{
    int64_t part[CHUNK];

    for (int64_t done = 0; done <= n; done += CHUNK) {
        const int64_t here = n + 1 - done < CHUNK ? n + 1 - done : CHUNK;
        for (int64_t i = 0; i < here; i++) part[i] = offsets[done + i] - offsets[0];
        stm_stream_put(s, part, (size_t)here * sizeof *part);
    }
}

/* Rows [first, first + n) of a column, NULL = none. */
static void put_column(stm_stream *s, const mill_column *col, int64_t first, int64_t n)
{
    column_head h = {.type = col != NULL ? col->view.type : NULL, .rows = n};
    const mill_view *v;
    const mill_type *t;
    int64_t at, from = 0, items = 0;

    if (col == NULL) {
        h.check = check_of(&h, sizeof h);
        stm_stream_put(s, &h, sizeof h);
        return;
    }
    v = stm_view(col);
    t = v->type;
    at = v->offset + first;
    h.validity = v->validity != NULL && n > 0;
    if (stm_type_has_offsets(t) && n > 0) {
        from = v->offsets[at];
        items = v->offsets[at + n] - from;
    }
    h.bytes = stm_type_is_text(t) ? items : 0;
    h.check = check_of(&h, sizeof h);
    stm_stream_put(s, &h, sizeof h);
    if (h.validity) put_bits(s, v->validity, at, n);
    if (stm_type_has_offsets(t) && n > 0) put_offsets(s, v->offsets + at, n);
    if (stm_type_is_text(t)) {
        if (items > 0) stm_stream_put(s, (const char *)v->data + from, (size_t)items);
    } else if (t->id == MILL_BOOL) {
        if (n > 0) put_bits(s, v->data, at, n);
    } else if (stm_type_is_plain(t)) {
        if (n > 0) stm_stream_put(s, (const char *)v->data + at * t->width, (size_t)(n * t->width));
    } else if (t->id == MILL_LIST) {
        put_column(s, v->children[0], from, items);
    } else if (t->id == MILL_FIXED_LIST) {
        put_column(s, v->children[0], at * t->length, n * t->length);
    } else {
        for (int32_t i = 0; i < t->n_fields; i++) put_column(s, v->children[i], at, n);
    }
}

static void put_contents(stm_stream *s, const mill_batch *b)
{
    const int64_t imputed = b->imputed != NULL;

    stm_stream_put(s, &imputed, sizeof imputed);
    for (int32_t i = 0; i < b->n_columns; i++) put_column(s, b->columns[i], 0, b->rows);
    for (int32_t i = 0; i < b->n_columns && imputed; i++) put_column(s, b->imputed[i], 0, b->rows);
    put_column(s, b->marks, 0, b->rows);
}

static void put_envelope(stm_stream *s, const mill_batch *b)
{
    const stm_keys *k = &b->keys;
    batch_head h = {.seq = b->seq,
                    .rows = b->rows,
                    .frontier = {b->frontier[0], b->frontier[1]},
                    .first = k->first,
                    .n_roots = b->n_roots,
                    .n_columns = b->n_columns,
                    .width = k->width,
                    .tuples = k->tuples != NULL,
                    .borders = b->borders,
                    .skipped = b->skipped,
                    .end = b->end,
                    .failed = b->failed};

    h.check = check_of(&h, sizeof h);
    stm_stream_put(s, &h, sizeof h);
    if (b->n_roots > 0) stm_stream_put(s, b->covered, (size_t)b->n_roots * sizeof *b->covered);
    if (k->tuples != NULL && b->rows > 0)
        stm_stream_put(s, (const int64_t *)mill_buffer_data(k->tuples) + k->offset * k->width,
                       (size_t)(b->rows * k->width) * sizeof(int64_t));
}

static mill_status write_record(stm_spill *file, const mill_batch *b, bool envelope, uint64_t *token, mill_error *err)
{
    stm_stream s;
    mill_status st;

    stm_stream_measure(&s);
    if (envelope) put_envelope(&s, b);
    put_contents(&s, b);
    st = stm_stream_write(&s, file, s.at, err);
    if (st != MILL_OK) return st;
    if (envelope) put_envelope(&s, b);
    put_contents(&s, b);
    return stm_stream_written(&s, token);
}

/* ---- in --------------------------------------------------------------------------------------------------------- */

/* A buffer of @p bytes, read in; @p empty: nothing was written of it, it is zeroes. */
static mill_buffer *get_buffer(stm_stream *s, mill_pool *pool, size_t bytes, bool empty)
{
    mill_buffer *b = NULL;

    if (s->st != MILL_OK) return NULL;
    if (mill_buffer_create(pool, bytes, &b) != MILL_OK) {
        stm_stream_fail(s, MILL_ERR_NOMEM, kNoMemory);
        return NULL;
    }
    if (empty)
        memset(b->data, 0, bytes);
    else
        stm_stream_get(s, b->data, bytes);
    return b;
}

/* NULL: there is none, or the stream has failed. */
static mill_column *get_column(stm_stream *s, mill_pool *pool)
{
    column_head h = {0};
    mill_column *c;
    const mill_type *t;

    stm_stream_get(s, &h, sizeof h);
    if (s->st == MILL_OK && h.check != check_of(&h, sizeof h)) stm_stream_fail(s, MILL_ERR_IO, kChanged);
    if (s->st != MILL_OK || h.type == NULL) return NULL;
    t = h.type;
    c = stm_column_new(pool, t, h.rows);
    if (c == NULL) {
        stm_stream_fail(s, MILL_ERR_NOMEM, kNoMemory);
        return NULL;
    }
    if (h.validity)
        c->validity = get_buffer(s, pool, (size_t)stm_bits_bytes(h.rows), false);
    else
        __atomic_store_n(&c->nulls, 0, __ATOMIC_RELAXED);
    if (stm_type_has_offsets(t)) c->offsets = get_buffer(s, pool, (size_t)(h.rows + 1) * sizeof(int64_t), h.rows == 0);
    if (stm_type_is_text(t))
        c->data = get_buffer(s, pool, (size_t)h.bytes, false);
    else if (t->id == MILL_BOOL)
        c->data = get_buffer(s, pool, (size_t)stm_bits_bytes(h.rows), false);
    else if (stm_type_is_plain(t))
        c->data = get_buffer(s, pool, (size_t)(h.rows * t->width), false);
    for (int32_t i = 0; i < t->n_fields && s->st == MILL_OK; i++) c->children[i] = get_column(s, pool);
    stm_column_fix_view(c);
    if (s->st != MILL_OK) mill_column_unref(&c);
    return c;
}

/* What goes to disk of a batch; columns and imputed have n entries. */
typedef struct contents {
    mill_column **columns, **imputed, *marks;
} contents;

static void drop_contents(mill_pool *pool, contents *c, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        mill_column_unref(&c->columns[i]);
        if (c->imputed != NULL) mill_column_unref(&c->imputed[i]);
    }
    stm_pool_give(pool, c->imputed, (size_t)n * sizeof *c->imputed);
    c->imputed = NULL;
    mill_column_unref(&c->marks);
}

/* Into @p c, whose columns[] is there and empty. On failure it is empty again. */
static void get_contents(stm_stream *s, mill_pool *pool, contents *c, int32_t n)
{
    int64_t imputed = 0;

    stm_stream_get(s, &imputed, sizeof imputed);
    for (int32_t i = 0; i < n && s->st == MILL_OK; i++) c->columns[i] = get_column(s, pool);
    if (imputed != 0 && s->st == MILL_OK) {
        c->imputed = stm_pool_take(pool, (size_t)n * sizeof *c->imputed);
        if (c->imputed == NULL)
            stm_stream_fail(s, MILL_ERR_NOMEM, kNoMemory);
        else
            memset(c->imputed, 0, (size_t)n * sizeof *c->imputed);
        for (int32_t i = 0; i < n && s->st == MILL_OK; i++) c->imputed[i] = get_column(s, pool);
    }
    if (s->st == MILL_OK) c->marks = get_column(s, pool);
    if (stm_stream_check(s) != MILL_OK) drop_contents(pool, c, n);
}

/* ---- whole batches ---------------------------------------------------------------------------------------------- */

mill_status stm_spill_put(stm_spill *file, const mill_batch *b, uint64_t *token, mill_error *err)
{
    return write_record(file, b, true, token, err);
}

mill_status stm_spill_get(stm_spill *file, mill_pool *pool, uint64_t token, mill_batch **out, mill_error *err)
{
    stm_stream s;
    batch_head h = {0};
    mill_batch *b = NULL;
    contents c = {0};

    stm_stream_read(&s, file, token, err);
    stm_stream_get(&s, &h, sizeof h);
    if (s.st == MILL_OK && h.check != check_of(&h, sizeof h)) stm_stream_fail(&s, MILL_ERR_IO, kChanged);
    if (s.st != MILL_OK) return s.st;
    if (stm_batch_create(pool, h.rows, h.n_columns, h.n_roots, &b) != MILL_OK) {
        stm_stream_fail(&s, MILL_ERR_NOMEM, kNoMemory);
        return s.st;
    }
    b->seq = h.seq;
    memcpy(b->frontier, h.frontier, sizeof b->frontier);
    b->borders = h.borders;
    b->skipped = h.skipped;
    b->end = h.end != 0;
    b->failed = h.failed != 0;
    b->keys = (stm_keys){.first = h.first, .width = h.width};
    if (h.n_roots > 0) stm_stream_get(&s, b->covered, (size_t)h.n_roots * sizeof *b->covered);
    if (h.tuples) b->keys.tuples = get_buffer(&s, pool, (size_t)(h.rows * h.width) * sizeof(int64_t), false);
    c.columns = b->columns;
    get_contents(&s, pool, &c, b->n_columns);
    b->imputed = c.imputed;
    b->marks = c.marks;
    if (s.st != MILL_OK) {
        mill_batch_destroy(&b);
        return s.st;
    }
    stm_spill_drop(file, token);
    *out = b;
    return MILL_OK;
}

/* ---- parked ones ------------------------------------------------------------------------------------------------ */

mill_status stm_batch_park(mill_batch *b, stm_spill *file, mill_error *err)
{
    contents c = {b->columns, b->imputed, b->marks};
    uint64_t token;
    mill_status st;

    if (stm_batch_parked(b)) return MILL_OK;
    for (int32_t i = 0; i < b->n_columns; i++) /* the disk is for memory of the host */
        if (b->columns[i] != NULL && stm_column_is_on_device(b->columns[i], NULL)) return MILL_OK;
    st = write_record(file, b, false, &token, err);
    if (st != MILL_OK) return st;
    drop_contents(b->pool, &c, b->n_columns);
    b->imputed = NULL;
    b->marks = NULL;
    b->away = token;
    __atomic_store_n(&b->away_in, file, __ATOMIC_RELEASE);
    return MILL_OK;
}

static mill_status bring_back(mill_batch *b, stm_spill *file, mill_error *err)
{
    stm_stream s;
    contents c = {.columns = b->columns};

    stm_stream_read(&s, file, b->away, err);
    get_contents(&s, b->pool, &c, b->n_columns);
    if (s.st != MILL_OK) return s.st;
    b->imputed = c.imputed;
    b->marks = c.marks;
    stm_spill_drop(file, b->away);
    __atomic_store_n(&b->away_in, NULL, __ATOMIC_RELEASE);
    return MILL_OK;
}

mill_status stm_batch_recall(mill_batch *b, mill_error *err)
{
    stm_spill *file = __atomic_load_n(&b->away_in, __ATOMIC_ACQUIRE);
    mill_status st = MILL_OK;

    if (file == NULL) return MILL_OK;
    stm_spill_lock(file, b);
    if (stm_batch_parked(b)) st = bring_back(b, file, err); /* else somebody was faster */
    stm_spill_unlock(file, b);
    return st;
}
