#include "store/vault_state.h"

#include "core/alloc.h"
#include "store/wire.h"

#define VERSION 1u
#define MAX_TABLE 65536u

void stm_tables_fini(stm_tables *t)
{
    for (size_t i = 0; t->parts != NULL && i < t->n_parts; i++) {
        stm_text_free(&t->parts[i].fields);
        stm_text_free(&t->parts[i].state);
    }
    for (size_t i = 0; t->streams != NULL && i < t->n_streams; i++) {
        stm_segment_fini(&t->streams[i].segment);
        stm_free(t->streams[i].extents);
    }
    stm_free(t->parts);
    stm_free(t->streams);
    stm_text_free(&t->who);
    memset(t, 0, sizeof *t);
}

/* ---- out -------------------------------------------------------------------------------------------------------- */

static void put_name(stm_text *out, const char *name)
{
    char fixed[STM_STREAM_NAME] = {0};

    memcpy(fixed, name, strlen(name)); /* shorter than that: stm_stream_name_ok */
    stm_wire_put(out, fixed, sizeof fixed);
}

void stm_tables_encode_base(const stm_tables *t, stm_text *out)
{
    stm_wire_u32(out, VERSION);
    stm_wire_u32(out, (uint32_t)t->n_parts);
    stm_wire_u32(out, (uint32_t)t->n_streams);
    stm_wire_u32(out, (uint32_t)t->who.bytes);
    stm_wire_put(out, t->who.data, t->who.bytes);
    stm_wire_pad(out, 8);
    for (size_t i = 0; i < t->n_parts; i++) {
        const stm_part_state *p = &t->parts[i];
        put_name(out, p->name);
        stm_wire_put(out, p->signature, sizeof p->signature);
        stm_wire_u32(out, (uint32_t)p->fields.bytes);
        stm_wire_u32(out, (uint32_t)p->state.bytes);
        stm_wire_put(out, p->fields.data, p->fields.bytes);
        stm_wire_put(out, p->state.data, p->state.bytes);
        stm_wire_pad(out, 8);
    }
    for (size_t i = 0; i < t->n_streams; i++) {
        const stm_stream_state *s = &t->streams[i];
        put_name(out, s->name);
        stm_wire_u32(out, (uint32_t)s->part);
        stm_wire_u32(out, s->complete);
        stm_wire_u64(out, s->n_extents);
        for (size_t k = 0; k < s->n_extents; k++) {
            const stm_extent *e = &s->extents[k];
            stm_wire_u64(out, e->epoch);
            stm_wire_u64(out, e->nonce);
            stm_wire_i64(out, e->bytes);
            stm_wire_i64(out, e->frames);
            stm_wire_i64(out, e->rows);
            stm_wire_u64(out, e->chain);
        }
    }
}

void stm_tables_encode_commit(const stm_tables *t, stm_text *out)
{
    stm_wire_u32(out, (uint32_t)t->n_parts);
    stm_wire_u32(out, (uint32_t)t->n_streams);
    for (size_t i = 0; i < t->n_parts; i++) {
        stm_wire_u64(out, t->parts[i].state.bytes);
        stm_wire_put(out, t->parts[i].state.data, t->parts[i].state.bytes);
        stm_wire_pad(out, 8);
    }
    for (size_t i = 0; i < t->n_streams; i++) {
        const stm_stream_state *s = &t->streams[i];
        stm_wire_u32(out, s->marked_complete);
        stm_wire_u32(out, s->marked.chain);
        stm_wire_i64(out, s->marked.bytes);
        stm_wire_i64(out, s->marked.frames);
        stm_wire_i64(out, s->marked.rows);
    }
}

/* ---- in --------------------------------------------------------------------------------------------------------- */

static void skip_pad(stm_wire *w, const unsigned char *start)
{
    (void)stm_wire_bytes(w, (0 - (size_t)(w->at - start)) & 7);
}

static bool get_text(stm_wire *w, size_t n, stm_text *out)
{
    const void *p = stm_wire_bytes(w, n);

    if (p != NULL) stm_text_add(out, p, n);
    return !out->failed;
}

static void get_name(stm_wire *w, char *name)
{
    const char *p = stm_wire_bytes(w, STM_STREAM_NAME);

    if (p == NULL) return;
    memcpy(name, p, STM_STREAM_NAME);
    if (name[STM_STREAM_NAME - 1] != 0 || !stm_stream_name_ok(name)) w->failed = true;
}

static bool extent_ok(const stm_extent *e)
{
    return e->bytes >= 0 && e->frames >= 0 && e->rows >= 0 && e->bytes % STM_SEGMENT_ALIGN == 0 &&
           e->frames <= e->bytes / STM_SEGMENT_ALIGN && (e->frames > 0 || e->rows == 0);
}

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for what the journal says"); }
static mill_status malformed(mill_error *err)
{
    return mill_fail(err, MILL_ERR_DATA, "a record of the journal is not what this version writes");
}

static mill_status get_streams(stm_wire *w, stm_tables *t, uint64_t epoch, mill_error *err)
{
    for (size_t i = 0; i < t->n_streams && !w->failed; i++) {
        stm_stream_state *s = &t->streams[i];
        uint64_t n, before = 0;
        s->segment.fd = -1;
        get_name(w, s->name);
        s->part = (int32_t)stm_wire_get_u32(w);
        s->complete = s->marked_complete = stm_wire_get_u32(w) != 0;
        n = stm_wire_get_u64(w);
        if (w->failed || s->part < 0 || (size_t)s->part >= t->n_parts || n > (uint64_t)(w->end - w->at) / 48) return malformed(err);
        s->extents = stm_calloc((size_t)(n + 1) * sizeof *s->extents); /* one more for the commits of this epoch */
        if (s->extents == NULL) return no_memory(err);
        for (s->n_extents = 0; s->n_extents < n; s->n_extents++) {
            stm_extent *e = &s->extents[s->n_extents];
            e->epoch = stm_wire_get_u64(w);
            e->nonce = stm_wire_get_u64(w);
            e->bytes = stm_wire_get_i64(w);
            e->frames = stm_wire_get_i64(w);
            e->rows = stm_wire_get_i64(w);
            e->chain = (uint32_t)stm_wire_get_u64(w);
            if (!extent_ok(e) || e->epoch <= before || e->epoch >= epoch) return malformed(err);
            before = e->epoch;
        }
    }
    return w->failed ? malformed(err) : MILL_OK;
}

static mill_status get_base(stm_wire *w, stm_tables *t, uint64_t epoch, mill_error *err)
{
    const unsigned char *start = w->at;
    const uint32_t version = stm_wire_get_u32(w);
    uint32_t n_parts, n_streams, n_who;

    if (!w->failed && version != VERSION)
        return mill_fail(err, MILL_ERR_UNSUPPORTED,
                         "the run directory was written by another version of stepmill (format %u; this one reads %u)", version,
                         VERSION);
    n_parts = stm_wire_get_u32(w);
    n_streams = stm_wire_get_u32(w);
    n_who = stm_wire_get_u32(w);
    if (w->failed || n_parts > MAX_TABLE || n_streams > MAX_TABLE || n_parts > (size_t)(w->end - w->at) ||
        n_streams > (size_t)(w->end - w->at))
        return malformed(err);
    if (!get_text(w, n_who, &t->who)) return no_memory(err);
    skip_pad(w, start);
    t->parts = stm_calloc((n_parts + 1) * sizeof *t->parts);
    t->streams = stm_calloc((n_streams + 1) * sizeof *t->streams);
    if (t->parts == NULL || t->streams == NULL) return no_memory(err);
    t->n_parts = n_parts;
    t->n_streams = n_streams;
    for (size_t i = 0; i < n_streams; i++) t->streams[i].segment.fd = -1;
    for (size_t i = 0; i < n_parts && !w->failed; i++) {
        stm_part_state *p = &t->parts[i];
        uint32_t n_fields, n_state;
        const void *sig;
        get_name(w, p->name);
        if ((sig = stm_wire_bytes(w, sizeof p->signature)) != NULL) memcpy(p->signature, sig, sizeof p->signature);
        n_fields = stm_wire_get_u32(w);
        n_state = stm_wire_get_u32(w);
        if (!get_text(w, n_fields, &p->fields) || !get_text(w, n_state, &p->state)) return no_memory(err);
        skip_pad(w, start);
    }
    return get_streams(w, t, epoch, err);
}

mill_status stm_tables_decode_base(stm_tables *t, const void *bytes, size_t n, uint64_t epoch, mill_error *err)
{
    stm_wire w = {bytes, (const unsigned char *)bytes + n, false};
    mill_status st;

    memset(t, 0, sizeof *t);
    st = get_base(&w, t, epoch, err);
    if (st == MILL_OK && w.at != w.end) st = malformed(err);
    if (st != MILL_OK) stm_tables_fini(t);
    return st;
}

mill_status stm_tables_decode_commit(stm_tables *t, const void *bytes, size_t n, uint64_t epoch, uint64_t nonce, mill_error *err)
{
    stm_wire w = {bytes, (const unsigned char *)bytes + n, false};

    if (stm_wire_get_u32(&w) != t->n_parts || stm_wire_get_u32(&w) != t->n_streams) return malformed(err);
    for (size_t i = 0; i < t->n_parts && !w.failed; i++) {
        const uint64_t size = stm_wire_get_u64(&w);
        t->parts[i].state.bytes = 0;
        if (!get_text(&w, size, &t->parts[i].state)) return no_memory(err);
        skip_pad(&w, bytes);
    }
    for (size_t i = 0; i < t->n_streams && !w.failed; i++) {
        stm_stream_state *s = &t->streams[i];
        stm_extent e = {.epoch = epoch, .nonce = nonce};
        s->complete = s->marked_complete = stm_wire_get_u32(&w) != 0;
        e.chain = stm_wire_get_u32(&w);
        e.bytes = stm_wire_get_i64(&w);
        e.frames = stm_wire_get_i64(&w);
        e.rows = stm_wire_get_i64(&w);
        if (!extent_ok(&e)) return malformed(err);
        if (e.frames > 0) s->extents[s->n_extents++] = e;
    }
    return w.failed || w.at != w.end ? malformed(err) : MILL_OK;
}
