/*
 * The state of a part, in bytes:
 *
 *   version u32 | roots u32 | graph u64 | finished u64: nothing is left to do, what follows the next does not matter |
 *   retries u64: bit N - 1: what retry N made counts | per station, in order:
 *     item u64, FINISHED, or BEGINNING: it begins over, and what follows is zero | skip u64
 *     roots:      rows i64 | cursor: size u32, 252 bytes
 *     sinks:      cursor
 *     terminals:  covered [roots] i64
 *     globals:    per input: items accepted u64
 *     inlets:     checkpoint, bytes as the graph says
 */
#include "exec/durable_state.h"

#include <string.h>

#include "core/alloc.h"
#include "store/wire.h"

#define VERSION 2u
#define FINISHED UINT64_MAX
#define BEGINNING (UINT64_MAX - 1)
#define HEAD_BYTES ((size_t)32)

static void put_cursor(stm_text *out, const mill_cursor *c)
{
    mill_cursor clean = {.size = c->size};

    memcpy(clean.bytes, c->bytes, c->size);
    stm_wire_put(out, &clean, sizeof clean);
}

stm_part_share stm_durable_share(const stm_run *run, int32_t part)
{
    stm_part_share share = STM_SHARE_SHARDS;

    for (int32_t i = 0; i < run->n_stations; i++) {
        if (run->stations[i].lasting->part != part) continue;
        if (run->stations[i].for_merge) return STM_SHARE_MERGE;
        if (run->stations[i].kind == STM_AT_SINK) share = STM_SHARE_BOTH;
    }
    return share;
}

bool stm_durable_is_others(const stm_run *run, int32_t part)
{
    return run->opts.shards > 0 && stm_durable_share(run, part) == (run->opts.merge != NULL ? STM_SHARE_SHARDS : STM_SHARE_MERGE);
}

void stm_durable_mark_unread(stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].kind != STM_AT_READER && run->stations[i].store != NULL) run->stations[i].store->unread = true;
    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].kind == STM_AT_READER && !run->stations[i].lasting->finished) run->stations[i].store->unread = false;
}

static void put_head(const stm_run *run, bool finished, uint64_t retries, stm_text *out)
{
    stm_wire_u32(out, VERSION);
    stm_wire_u32(out, (uint32_t)stm_flow_roots(run->flow));
    stm_wire_u64(out, run->durable->graph);
    stm_wire_u64(out, finished);
    stm_wire_u64(out, retries);
}

void stm_durable_encode_finished(const stm_run *run, uint64_t retries, stm_text *out) { put_head(run, true, retries, out); }

bool stm_durable_is_finished(const void *state, size_t n, uint64_t *retries)
{
    stm_wire w = {state, (const unsigned char *)state + n, false};
    const bool version = n > 0 && stm_wire_get_u32(&w) == VERSION;
    uint64_t finished, bits;

    (void)stm_wire_get_u32(&w);
    (void)stm_wire_get_u64(&w);
    finished = stm_wire_get_u64(&w);
    bits = stm_wire_get_u64(&w);
    if (retries != NULL) *retries = version && !w.failed ? bits : 0;
    return version && finished != 0 && !w.failed;
}

void stm_durable_encode(const stm_run *run, int32_t part, stm_text *out)
{
    const stm_durable *d = run->durable;
    const uint32_t roots = (uint32_t)stm_flow_roots(run->flow);
    bool finished = true;

    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].lasting->part == part) finished = finished && d->now[i].item == FINISHED;
    put_head(run, finished, d->kept.retries[part], out);
    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        const stm_going_on *p = &d->now[i];
        if (s->lasting->part != part) continue;
        stm_wire_u64(out, p->item);
        stm_wire_u64(out, p->skip);
        if (s->root >= 0) {
            stm_wire_i64(out, p->root.rows);
            put_cursor(out, &p->root.cursor);
        }
        if (s->kind == STM_AT_SINK) put_cursor(out, &s->lasting->said.cursor);
        if (s->n_outs == 0) stm_wire_put(out, s->lasting->said.covered, roots * sizeof(int64_t));
        for (int32_t k = 0; s->kind == STM_AT_GLOBAL && k < s->n_inputs; k++) stm_wire_u64(out, s->lasting->said.lanes[k]);
        if (s->inlet != NULL) stm_wire_put(out, p->checkpoint, stm_inlet_checkpoint_bytes(s->inlet));
    }
}

mill_status stm_durable_no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory to open the run directory"); }

static mill_status malformed(mill_error *err)
{
    return mill_fail(err, MILL_ERR_DATA, "the state of the run is not what this version writes");
}

static bool get_cursor(stm_wire *w, mill_cursor *c)
{
    const void *p = stm_wire_bytes(w, sizeof *c);

    if (p != NULL) memcpy(c, p, sizeof *c);
    return p != NULL && c->size <= sizeof c->bytes;
}

/* A station that has nothing to do in this run. */
static void close_station(stm_station *s)
{
    s->lasting->finished = s->lasting->said.finished = true;
    if (s->inlet != NULL) stm_inlet_close(s->inlet);
    if (s->root >= 0) stm_credit_end(s->run->flow, s->root);
    atomic_store(&s->inlet_done, true);
    atomic_store(&s->dead, true);
    s->closing = true;
    atomic_store(&s->done, true);
}

static void finish_station(stm_station *s, uint32_t roots)
{
    if (s->n_outs == 0) {
        for (uint32_t r = 0; r < roots; r++) s->lasting->said.covered[r] = INT64_MAX;
        stm_credit_restore(s->run->flow, s->node, s->lasting->said.covered);
    }
    close_station(s);
}

void stm_durable_finish(stm_station *s) { finish_station(s, (uint32_t)stm_flow_roots(s->run->flow)); }

bool stm_durable_fits(const stm_run *run, const void *state, size_t n)
{
    stm_wire w = {state, (const unsigned char *)state + n, false};
    const bool version = stm_wire_get_u32(&w) == VERSION, roots = stm_wire_get_u32(&w) == (uint32_t)stm_flow_roots(run->flow),
               graph = stm_wire_get_u64(&w) == run->durable->graph, finished = stm_wire_get_u64(&w) != 0;

    return n == 0 || (!w.failed && version && ((roots && graph) || finished));
}

static mill_status place_root(stm_station *s, uint64_t item, int64_t rows, const mill_cursor *cursor, mill_error *err)
{
    if (rows < 0) return malformed(err);
    s->next_seq = item;
    atomic_store(&s->lasting->given, item);
    s->sent_rows = rows;
    stm_credit_admit(s->run->flow, s->root, rows);
    if (s->kind == STM_AT_GENERATOR) stm_wrapper_resume(s->slots[0].wrapper, cursor, rows);
    return MILL_OK;
}

static mill_status place_inlet(stm_station *s, uint64_t item, const void *bytes, size_t n, mill_error *err)
{
    if (n > 0) return stm_inlet_restore(s->inlet, bytes, n, err);
    for (int32_t i = 0; i < s->n_inputs; i++) {
        stm_kept_input *lane = s->lasting->lanes != NULL ? &s->lasting->lanes[i] : NULL;
        if (lane != NULL) item = lane->items > 0 ? lane->items - 1 : 0; /* the last one comes again: it may be the end */
        if (lane != NULL) lane->skip = lane->items - item;
        stm_inlet_begin_at(s->inlet, i, item);
    }
    return MILL_OK;
}

static size_t entry_bytes(const stm_station *s, uint32_t roots)
{
    size_t n = 2 * sizeof(uint64_t);

    if (s->root >= 0) n += sizeof(int64_t) + sizeof(mill_cursor);
    if (s->kind == STM_AT_SINK) n += sizeof(mill_cursor);
    if (s->n_outs == 0) n += roots * sizeof(int64_t);
    if (s->kind == STM_AT_GLOBAL) n += (size_t)s->n_inputs * sizeof(uint64_t);
    if (s->inlet != NULL) n += stm_inlet_checkpoint_bytes(s->inlet);
    return n;
}

mill_status stm_durable_encode_rests(const stm_run *run, int32_t part, const void *state, size_t n, const bool *rest, stm_text *out,
                                     mill_error *err)
{
    const uint32_t roots = (uint32_t)stm_flow_roots(run->flow);
    uint64_t retries;
    const bool finished = stm_durable_is_finished(state, n, &retries); /* then there is nothing behind its head */
    stm_wire w = {state, (const unsigned char *)state + n, false};
    bool all = finished;

    for (int32_t i = 0; i < run->n_stations; i++) all = all && (run->stations[i].lasting->part != part || rest[i]);
    put_head(run, all, retries, out);
    (void)stm_wire_bytes(&w, HEAD_BYTES);
    for (int32_t i = 0; i < run->n_stations && !all; i++) {
        const stm_station *s = &run->stations[i];
        const size_t bytes = entry_bytes(s, roots);
        const void *was;

        if (s->lasting->part != part) continue;
        was = finished ? NULL : stm_wire_bytes(&w, bytes);
        if (rest[i] && was != NULL) {
            stm_wire_put(out, was, bytes);
            continue;
        }
        stm_wire_u64(out, rest[i] ? FINISHED : BEGINNING);
        for (size_t k = sizeof(uint64_t); k < bytes; k += sizeof(uint64_t)) stm_wire_u64(out, 0);
    }
    if (w.failed) return malformed(err);
    return out->failed ? stm_durable_no_memory(err) : MILL_OK;
}

static mill_status decode_station(stm_station *s, stm_wire *w, uint32_t roots, mill_error *err)
{
    struct stm_lasting *l = s->lasting;
    const uint64_t item = stm_wire_get_u64(w), skip = stm_wire_get_u64(w);
    mill_cursor cursor = {0};
    mill_status st = MILL_OK;

    if (item == BEGINNING) return stm_wire_bytes(w, entry_bytes(s, roots) - 2 * sizeof item) != NULL ? MILL_OK : malformed(err);
    if (w->failed || (item != FINISHED && (item > INT64_MAX || skip > INT64_MAX))) return malformed(err);
    if (s->root >= 0) {
        const int64_t rows = stm_wire_get_i64(w);
        if (!get_cursor(w, &cursor)) return malformed(err);
        if (item != FINISHED) st = place_root(s, item, rows, &cursor, err);
    }
    if (s->kind == STM_AT_SINK) {
        if (!get_cursor(w, &l->said.cursor)) return malformed(err);
        if (item != FINISHED) stm_wrapper_resume(s->slots[0].wrapper, &l->said.cursor, 0);
    }
    if (s->n_outs == 0) {
        const void *covered = stm_wire_bytes(w, roots * sizeof(int64_t));
        if (covered == NULL) return malformed(err);
        memcpy(l->said.covered, covered, roots * sizeof(int64_t));
        stm_credit_restore(s->run->flow, s->node, l->said.covered);
        l->skip = skip;
        l->items = l->said.items = item == FINISHED ? 0 : item + skip;
    }
    for (int32_t k = 0; s->kind == STM_AT_GLOBAL && k < s->n_inputs; k++) {
        stm_kept_input *lane = &l->lanes[k];
        lane->items = l->said.lanes[k] = stm_wire_get_u64(w);
        if (lane->items > INT64_MAX) return malformed(err);
    }
    if (s->inlet != NULL) {
        const size_t n = stm_inlet_checkpoint_bytes(s->inlet);
        const void *bytes = stm_wire_bytes(w, n);
        if (bytes == NULL) return malformed(err);
        if (item != FINISHED && st == MILL_OK) st = place_inlet(s, item, bytes, n, err);
    }
    if (item == FINISHED) finish_station(s, roots);
    return w->failed ? malformed(err) : st;
}

mill_status stm_durable_decode(stm_run *run, int32_t part, const void *bytes, size_t n, mill_error *err)
{
    stm_wire w = {bytes, (const unsigned char *)bytes + n, false};
    const uint32_t version = stm_wire_get_u32(&w), roots = stm_wire_get_u32(&w);
    const uint64_t graph = stm_wire_get_u64(&w), finished = stm_wire_get_u64(&w), retries = stm_wire_get_u64(&w);
    mill_status st = MILL_OK;

    if (w.failed || version != VERSION) return malformed(err);
    run->durable->kept.retries[part] = retries;
    for (int32_t i = 0; i < run->n_stations && finished != 0; i++)
        if (run->stations[i].lasting->part == part) finish_station(&run->stations[i], (uint32_t)stm_flow_roots(run->flow));
    if (finished != 0) return MILL_OK;
    if (roots != (uint32_t)stm_flow_roots(run->flow) || graph != run->durable->graph) return malformed(err);
    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++)
        if (run->stations[i].lasting->part == part) st = decode_station(&run->stations[i], &w, roots, err);
    if (st == MILL_OK && w.at != w.end) st = malformed(err);
    return st;
}
