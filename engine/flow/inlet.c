/* Inlets: what stands in front of a consuming node. */
#include "flow/internal.h"

#include <string.h>

#include "core/alloc.h"

/* ---- life ------------------------------------------------------------------------------------------------------- */

mill_status stm_inlet_create(stm_flow *flow, int32_t node, stm_inlet **out)
{
    const stm_vertex *v = &flow->nodes[node];
    stm_inlet *in = stm_calloc(sizeof *in);
    if (!in) return MILL_ERR_NOMEM;
    in->flow = flow;
    in->pool = flow->pool;
    in->node = node;
    in->mode = v->node.mode;
    in->on_missing = v->node.on_missing;
    in->on_uneven = v->node.on_uneven;
    in->unordered = v->node.unordered;
    in->terminal = v->node.kind == STM_NODE_TERMINAL;
    in->batch_rows = v->node.batch_rows;
    in->budget = v->node.budget;
    in->n_roots = flow->n_roots;
    in->n_inputs = v->node.n_inputs;
    in->n_lanes = in->mode == STM_INPUT_EACH ? in->n_inputs : 1;
    bool pairs = in->mode == STM_INPUT_JOIN || in->mode == STM_INPUT_CONVERGE;
    in->n_columns = pairs ? in->n_inputs : 1;
    int32_t n = in->n_inputs;
    const stm_vertex *first = &flow->nodes[v->inputs[0].from];
    in->two_levels = first->two_levels;
    in->by_key = in->mode == STM_INPUT_CONVERGE;
    if (in->mode == STM_INPUT_JOIN) {
        in->by_key = true;
        for (int32_t i = 1; i < n; i++)
            if (flow->nodes[v->inputs[i].from].stream.key_space != first->stream.key_space) in->by_key = false;
    }
    in->borders_in = (1u << first->stream.depth) - 1u;
    in->border_own = v->node.kind == STM_NODE_ROUTER ? in->borders_in + 1u : 0;

    size_t covers = (size_t)n * (size_t)in->n_roots * sizeof(int64_t);
    in->state_bytes = sizeof(stm_state) + (size_t)n * sizeof(stm_cursor) + (size_t)in->n_lanes * sizeof(stm_assembly) + covers +
                      (size_t)in->n_lanes * (size_t)in->n_roots * sizeof(int64_t);
    in->roots = stm_calloc((size_t)n * sizeof *in->roots);
    in->queues = stm_calloc((size_t)n * sizeof *in->queues);
    in->pieces = stm_calloc((size_t)in->n_lanes * sizeof *in->pieces);
    in->now = stm_calloc(in->state_bytes);
    in->saved = stm_calloc(in->state_bytes);
    in->taken = stm_calloc((size_t)in->n_lanes * sizeof *in->taken);
    in->borders_out = stm_calloc((size_t)in->n_lanes * sizeof *in->borders_out);
    bool made = in->roots && in->queues && in->pieces && in->now && in->saved && in->taken && in->borders_out;
    if (pairs) made = (in->failure = stm_calloc(sizeof *in->failure)) && made;
    if (in->mode == STM_INPUT_EACH) made = (in->taken_covered = stm_calloc(covers)) && made;
    if (in->unordered) {
        made = (in->late_end = stm_calloc((size_t)n * sizeof *in->late_end)) && made;
        made = (in->prefix = stm_calloc((size_t)n * sizeof *in->prefix)) && made;
        made = (in->prefix_covered = stm_calloc(covers)) && made;
    }
    if (!made) {
        stm_inlet_destroy(&in);
        return MILL_ERR_NOMEM;
    }
    for (int32_t i = 0; i < n; i++) {
        in->roots[i] = flow->nodes[v->inputs[i].from].stream.roots;
        in->all_roots |= in->roots[i];
        in->queues[i].end = STM_NO_SEQ;
    }
    for (int32_t l = 0; l < in->n_lanes; l++) in->borders_out[l] = (1u << flow->nodes[v->inputs[l].from].stream.depth) - 1u;
    if (in->mode == STM_INPUT_CONVERGE) in->borders_out[0] >>= 1;
    in->plain = in->mode == STM_INPUT_SINGLE && !in->unordered && in->budget == 0;
    *out = in;
    return MILL_OK;
}

/* Give up what waits, but not what is ready. */
static void drop_queues(stm_inlet *in)
{
    for (int32_t i = 0; i < in->n_inputs; i++) {
        if (in->queues && in->unordered) in->queues[i].cap = 0; /* that is the ring of coverage */
        if (in->queues) stm_queue_clear(&in->queues[i]);
        if (in->late_end) mill_batch_destroy(&in->late_end[i]);
        if (in->prefix) {
            stm_free(in->prefix[i]);
            in->prefix[i] = NULL;
        }
    }
    for (int32_t l = 0; l < in->n_lanes && in->pieces; l++) {
        stm_free(in->pieces[l].items);
        in->pieces[l] = (stm_pieces){0};
        if (in->now) stm_assemblies(in)[l] = (stm_assembly){0};
    }
}

static void drop_ring(stm_inlet *in)
{
    for (; in->now && in->head < in->now->tail; in->head++) stm_ready_discard(&in->ring[in->head & (in->cap - 1)]);
}

void stm_inlet_close(stm_inlet *in)
{
    drop_ring(in);
    drop_queues(in);
    if (in->now) in->now->rows = 0;
    in->closed = true;
    in->plain = false;
}

void stm_inlet_destroy(stm_inlet **inp)
{
    stm_inlet *in = *inp;
    if (!in) return;
    stm_inlet_close(in);
    stm_free(in->roots);
    stm_free(in->queues);
    stm_free(in->pieces);
    stm_free(in->now);
    stm_free(in->saved);
    stm_free(in->taken);
    stm_free(in->borders_out);
    stm_free(in->taken_covered);
    stm_free(in->late_end);
    stm_free(in->prefix);
    stm_free(in->prefix_covered);
    stm_free(in->failure);
    stm_free(in->ring);
    stm_track_destroy(&in->track);
    stm_free(in);
    *inp = NULL;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

void stm_compose(const stm_inlet *in, const int64_t *per_input, int64_t *out)
{
    for (int32_t r = 0; r < in->n_roots; r++) {
        int64_t least = INT64_MAX;
        for (int32_t i = 0; i < in->n_inputs; i++) {
            int64_t v = per_input[(size_t)i * (size_t)in->n_roots + (size_t)r];
            if ((in->roots[i] >> r & 1) && v < least) least = v;
        }
        out[r] = least == INT64_MAX ? 0 : least;
    }
}

static int step_single(stm_inlet *in, int32_t lane)
{
    stm_cursor *c = &stm_cursors(in->now)[lane];
    const stm_queue *q = &in->queues[lane];
    if (c->seq == q->next) return 0;
    const mill_batch *b = stm_queue_batch(q, c->seq);
    if (b->rows > 0) {
        stm_piece *p = stm_assembly_add(in, lane, b->rows);
        if (!p) return MILL_ERR_NOMEM;
        *p = (stm_piece){.rows = b->rows, .seq = c->seq, .input = lane};
    }
    stm_envelope e = {.covered = b->covered,
                      .frontier = {b->frontier[0], b->frontier[1]},
                      .borders = b->borders & in->borders_out[lane],
                      .skipped = b->skipped,
                      .end = b->end};
    mill_status st = stm_assembly_finish(in, lane, &e);
    if (st != MILL_OK) return st;
    c->seq++;
    return 1;
}

static int step(stm_inlet *in, int32_t input)
{
    switch (in->mode) {
    case STM_INPUT_SINGLE:
    case STM_INPUT_EACH: return step_single(in, in->mode == STM_INPUT_EACH ? input : 0);
    case STM_INPUT_UNION: return stm_step_union(in);
    case STM_INPUT_JOIN:
        if (!in->by_key) return stm_step_position(in);
        return stm_step_key(in);
    case STM_INPUT_CONVERGE: return stm_step_key(in);
    }
    return 0;
}

/* As many steps as can be done; nothing at all when memory runs out. State is saved already. */
static mill_status advance(stm_inlet *in, int32_t input)
{
    int st;
    do st = step(in, input);
    while (st > 0);
    if (st == MILL_ERR_NOMEM) {
        for (uint64_t i = in->saved->tail; i < in->now->tail; i++) {
            stm_ready *item = &in->ring[i & (in->cap - 1)];
            if (item->recipe) stm_recipe_destroy(item->recipe);
        }
        memcpy(in->now, in->saved, in->state_bytes);
        return st;
    }
    stm_assembly_commit(in);
    if (st == 0) {
        if (in->track && in->now->tail != in->saved->tail) stm_track_note(in);
        return MILL_OK;
    }
    in->failed = true; /* what was complete stays ready */
    drop_queues(in);
    in->now->rows = 0;
    for (uint64_t i = in->head; i < in->now->tail; i++) in->now->rows += in->ring[i & (in->cap - 1)].recipe->source_rows;
    return st;
}

/* ---- push ------------------------------------------------------------------------------------------------------- */

static mill_status report(const stm_inlet *in, mill_error *err)
{
    if (err && err->status == MILL_OK) *err = *in->failure;
    return in->failure->status;
}

static mill_status push_ordered(stm_inlet *in, int32_t input, mill_batch **bp, mill_buffer **costs, mill_error *err)
{
    mill_batch *b = *bp;
    stm_queue *q = &in->queues[input], before = *q;
    mill_status st = stm_queue_store(q, b, err);
    if (st != MILL_OK) return st;
    if (costs) stm_queue_slot(q, b->seq)->costs = *costs;
    if (q->next == before.next || (in->restoring && !stm_track_restored(in))) { /* ahead of others: it waits for them */
        in->now->rows += b->rows;
        *bp = NULL;
        if (costs) *costs = NULL;
        return MILL_OK;
    }
    memcpy(in->saved, in->now, in->state_bytes);
    in->now->rows += b->rows;
    st = advance(in, input);
    if (st == MILL_ERR_NOMEM) {
        stm_queue_slot(q, b->seq)->costs = NULL; /* still the caller's */
        stm_slot_forget(stm_queue_slot(q, b->seq));
        q->next = before.next;
        q->top = before.top;
        q->end = before.end;
        return mill_fail(err, st, "no memory to assemble batches for step '%s'", in->flow->nodes[in->node].name);
    }
    *bp = NULL;
    if (costs) *costs = NULL;
    if (q->end != STM_NO_SEQ) in->plain = false; /* nothing may come behind it */
    return st == MILL_OK ? MILL_OK : report(in, err);
}

/* Move `next` over the batches that have arrived, at most to @p limit; remember their coverage. */
static void settle_prefix(stm_inlet *in, int32_t input, uint64_t limit)
{
    stm_queue *q = &in->queues[input];
    size_t roots = (size_t)in->n_roots;
    for (; q->next < limit; q->next++) {
        int64_t *p = in->prefix[input] + (q->next & (q->cap - 1)) * (roots + 1);
        if (!p[0]) return;
        memcpy(in->prefix_covered + (size_t)input * roots, p + 1, roots * sizeof *p);
        p[0] = 0;
    }
}

static void put_unordered(stm_inlet *in, int32_t input, mill_batch *b)
{
    /* Nobody puts a terminal's stream in order again; elsewhere the envelope stays what it was. */
    size_t roots = (size_t)in->n_roots;
    if (in->terminal) memcpy(b->covered, in->prefix_covered + (size_t)input * roots, roots * sizeof *b->covered);
    in->ring[in->now->tail++ & (in->cap - 1)] = (stm_ready){.batch = b, .input = input};
}

/* Coverage of a batch that overtook others counts once all before it have arrived. */
static mill_status push_unordered(stm_inlet *in, int32_t input, mill_batch **bp, mill_error *err)
{
    mill_batch *b = *bp;
    stm_queue *q = &in->queues[input];
    if (b->seq < q->next || b->seq > q->end || (b->end && b->seq + 1 < q->top))
        return mill_fail(err, MILL_ERR_INTERNAL, "batch arrived twice or behind the end");
    size_t roots = (size_t)in->n_roots;
    if (stm_ring_reserve(in, 2) != 0) return mill_fail(err, MILL_ERR_NOMEM, "no memory for ready batches");
    if (b->seq - q->next >= q->cap) {
        size_t cap = q->cap ? q->cap : 8;
        while (cap <= b->seq - q->next) cap *= 2;
        int64_t *rows = stm_calloc(cap * (roots + 1) * sizeof *rows);
        if (!rows) return mill_fail(err, MILL_ERR_NOMEM, "no memory for batches out of order");
        for (uint64_t s = q->next; s < q->top; s++)
            memcpy(rows + (s & (cap - 1)) * (roots + 1), in->prefix[input] + (s & (q->cap - 1)) * (roots + 1),
                   (roots + 1) * sizeof *rows);
        stm_free(in->prefix[input]);
        in->prefix[input] = rows;
        q->cap = cap;
    }
    int64_t *mine = in->prefix[input] + (b->seq & (q->cap - 1)) * (roots + 1);
    if (mine[0]) return mill_fail(err, MILL_ERR_INTERNAL, "batch arrived twice");
    mine[0] = 1;
    memcpy(mine + 1, b->covered, roots * sizeof *mine);
    if (b->seq >= q->top) q->top = b->seq + 1;
    if (b->end) q->end = b->seq;
    in->now->rows += b->rows;
    *bp = NULL;
    if (b->end) in->late_end[input] = b; /* goes last */
    settle_prefix(in, input, q->end == STM_NO_SEQ ? q->top : q->end);
    if (!b->end) put_unordered(in, input, b);
    if (q->next == q->end) {
        settle_prefix(in, input, q->top);
        put_unordered(in, input, in->late_end[input]);
        in->late_end[input] = NULL;
    }
    return MILL_OK;
}

/* Whether the next batch of the stream is an item by itself, when nothing waits in the inlet. @p exact, @p borders: the inlet's
 * batch_rows and borders_out[0]. */
static inline bool is_an_item(int64_t exact, uint32_t borders, const mill_batch *b, uint64_t next)
{
    const int64_t rows = b->rows;
    return b->seq == next && !b->end && (exact == 0 || rows == exact || rows == 0 || (rows < exact && (b->borders & borders)));
}

/* Batches up to @p b have become items as they were. */
static inline void note_items(stm_inlet *in, const mill_batch *b, uint64_t next)
{
    stm_queue *q = in->queues;
    q->base = q->next = q->top = stm_cursors(in->now)->seq = next;
    if (in->batch_rows == 0) return;
    stm_assembly *a = stm_assemblies(in); /* needed when a later batch is cut */
    a->frontier[0] = b->frontier[0];
    a->frontier[1] = b->frontier[1];
    for (int32_t r = 0; r < in->n_roots; r++) stm_sent(in, 0)[r] = b->covered[r];
}

static inline bool nothing_waits(const stm_inlet *in)
{
    return in->queues->base == in->queues->top && stm_assemblies(in)->pending == 0;
}

mill_status stm_inlet_push(stm_inlet *in, int32_t input, mill_batch **bp, mill_error *err)
{
    mill_batch *b = *bp;
    if (__builtin_expect(in->plain, 1) && input == 0 && nothing_waits(in) &&
        is_an_item(in->batch_rows, in->borders_out[0], b, in->queues->next)) {
        stm_state *s = in->now;
        if (__builtin_expect(s->tail - in->head == in->cap, 0) && stm_ring_reserve(in, 1) != 0)
            return mill_fail(err, MILL_ERR_NOMEM, "no memory for ready batches");
        note_items(in, b, b->seq + 1);
        s->rows += b->rows;
        in->ring[s->tail++ & (in->cap - 1)] = (stm_ready){.batch = b};
        if (__builtin_expect(in->track != NULL, 0)) stm_track_note(in);
        *bp = NULL;
        return MILL_OK;
    }
    if (in->closed) {
        mill_batch_destroy(bp);
        return MILL_OK;
    }
    if (in->failed) {
        mill_batch_destroy(bp);
        return report(in, err);
    }
    if (input >= 0 && input < in->n_inputs && b->seq < in->queues[input].start) { /* made again on the way to where it goes on */
        mill_batch_destroy(bp);
        return MILL_OK;
    }
    if (input < 0 || input >= in->n_inputs) return mill_fail(err, MILL_ERR_INTERNAL, "input %d does not exist", (int)input);
    return in->unordered ? push_unordered(in, input, bp, err) : push_ordered(in, input, bp, NULL, err);
}

mill_status stm_inlet_push_costed(stm_inlet *in, int32_t input, mill_batch **bp, mill_buffer **costs, mill_error *err)
{
    if (in->budget > 0 && !in->closed && !in->failed && input >= 0 && input < in->n_inputs && (*bp)->seq >= in->queues[input].start)
        return push_ordered(in, input, bp, costs, err);
    mill_buffer_unref(costs);
    return stm_inlet_push(in, input, bp, err);
}

/* ---- take ------------------------------------------------------------------------------------------------------- */

/* A node with several streams completes a root row once all of them have. */
static void cover_each(stm_inlet *in, int32_t input, mill_batch *b)
{
    if (in->n_roots == 0) return;
    memcpy(in->taken_covered + (size_t)input * (size_t)in->n_roots, b->covered, (size_t)in->n_roots * sizeof *b->covered);
    stm_compose(in, in->taken_covered, b->covered);
}

static inline void stamp_borders(uint32_t borders, uint32_t own, mill_batch *b)
{
    const uint32_t kept = b->borders & borders;
    if ((b->borders | b->skipped | own) == 0) return; /* no router anywhere */
    b->borders = kept | own;
    b->skipped &= kept & ~own;
}

bool stm_inlet_take(stm_inlet *in, stm_ready *out)
{
    if (in->head == in->now->tail) return false;
    stm_ready item = in->ring[in->head++ & (in->cap - 1)];
    mill_batch *b = item.batch;
    in->now->rows -= item.recipe ? item.recipe->source_rows : b->rows;
    if (!in->unordered || in->terminal) b->seq = in->taken[item.input]++;
    stamp_borders(in->borders_out[item.input], in->border_own, b);
    if (__builtin_expect(b->end, 0)) in->ends_taken++;
    if (in->taken_covered) cover_each(in, item.input, b);
    *out = item;
    return true;
}

mill_status stm_inlet_branch(const stm_inlet *in, const mill_batch *item, bool taken, mill_batch **out)
{
    if (taken) return stm_batch_clone(item, out);
    mill_status st = stm_batch_clone_empty(item, out);
    if (st == MILL_OK) (*out)->skipped |= in->border_own;
    return st;
}

/* Apart from its caller, whose variables would take the registers of the loop. */
__attribute__((noinline)) int32_t stm_inlet_pass(stm_inlet *in, mill_batch *const *b, int32_t n, stm_ready *out)
{
    int32_t k = 0;
    /* checkpoints count the items of the ring */
    if (!in->plain || in->track != NULL || in->head != in->now->tail || !nothing_waits(in)) return 0;
    /* in locals: for all the compiler knows, what is written to a batch changes the inlet */
    const uint64_t next = in->queues->next, taken = in->taken[0];
    const int64_t exact = in->batch_rows;
    const uint32_t borders = in->borders_out[0], own = in->border_own;
    for (; k < n && is_an_item(exact, borders, b[k], next + (uint64_t)k); k++) {
        b[k]->seq = taken + (uint64_t)k;
        stamp_borders(borders, own, b[k]);
        out[k].batch = b[k];
        out[k].recipe = NULL;
        out[k].input = 0;
    }
    if (k == 0) return 0;
    note_items(in, b[k - 1], next + (uint64_t)k);
    in->taken[0] += (uint64_t)k;
    return k;
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

int64_t stm_inlet_ready(const stm_inlet *in) { return (int64_t)(in->now->tail - in->head); }

/* After a resume rows of batches that come again count as used before they are here (resume.c). */
int64_t stm_inlet_rows(const stm_inlet *in) { return in->now->rows > 0 ? in->now->rows : 0; }

bool stm_inlet_ended(const stm_inlet *in) { return in->closed || in->ends_taken == in->n_lanes; }

int64_t stm_inlet_ahead(const stm_inlet *in, int32_t input)
{
    const stm_queue *q = &in->queues[input];
    int64_t n = 0;

    if (in->unordered) return -1;
    if (in->closed || in->failed || q->cap == 0) return 0;
    for (uint64_t s = q->next; s < q->top; s++) n += stm_queue_batch(q, s) != NULL;
    return n;
}

int64_t stm_inlet_bytes(const stm_inlet *in)
{
    int64_t bytes = 0;
    for (uint64_t i = in->head; i < in->now->tail; i++) {
        const stm_ready *item = &in->ring[i & (in->cap - 1)];
        bytes += stm_batch_bytes(item->batch);
        if (!item->recipe) continue;
        for (int32_t c = 0; c < item->recipe->columns; c++) { /* its share of the batches that it uses */
            for (size_t k = 0; k < item->recipe->n_runs; k++) {
                const stm_run_of_rows *run = &stm_recipe_runs(item->recipe, c)[k];
                if (run->batch) bytes += stm_batch_bytes(run->batch) / run->batch->rows * run->rows;
            }
        }
    }
    for (int32_t i = 0; i < in->n_inputs; i++) {
        const stm_queue *q = &in->queues[i];
        if (in->late_end && in->late_end[i]) bytes += stm_batch_bytes(in->late_end[i]);
        if (in->unordered) continue;
        for (uint64_t s = q->base; s < q->top; s++)
            if (stm_queue_batch(q, s)) bytes += stm_batch_bytes(stm_queue_batch(q, s));
    }
    return bytes;
}

int64_t stm_inlet_lacks(const stm_inlet *in, int32_t input)
{
    const stm_queue *q = &in->queues[input];
    if (in->closed || in->failed || (q->end != STM_NO_SEQ && q->next == q->end + 1)) return 0;
    if (in->restoring) return q->next < q->await;
    if (in->mode == STM_INPUT_JOIN || in->mode == STM_INPUT_CONVERGE)
        return in->by_key ? stm_key_lacks(in, input) : stm_position_lacks(in, input);
    if (in->mode == STM_INPUT_UNION && input != in->now->lead) return 0;
    return stm_assembly_lacks(in, in->mode == STM_INPUT_EACH ? input : 0);
}

int64_t stm_inlet_shortfall(const stm_inlet *in)
{
    if (stm_inlet_ready(in) > 0 || stm_inlet_ended(in)) return 0;
    int64_t rows = 0;
    for (int32_t i = 0; i < in->n_inputs; i++) rows += stm_inlet_lacks(in, i);
    return rows;
}
