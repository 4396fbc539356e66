/*
 * Joins by key, and convergence.
 *
 * A step of a join: the next batch of the first input says how far to go, its frontier F. Once every other input has shown
 * everything below F, the rows with keys below F of all inputs are merged. At the end of a routed batch or of the stream, all that
 * is left up to there is merged. A step of a convergence is one whole routed batch.
 */
#include "flow/internal.h"

#include <string.h>

static const char *input_name(const stm_inlet *in, int32_t input)
{
    return in->flow->nodes[in->flow->nodes[in->node].inputs[input].from].name;
}

static bool below(const stm_inlet *in, const mill_batch *b, int64_t row, const int64_t f[2])
{
    int64_t key[2];
    stm_key_head(b, row, key);
    if (key[0] != f[0]) return key[0] < f[0];
    return in->two_levels && key[1] < f[1];
}

static bool reached(const stm_inlet *in, const stm_cursor *c, const int64_t f[2], bool rest)
{
    if (c->closed) return true;
    if (rest || c->scan == 0) return false;
    if (c->frontier[0] != f[0]) return c->frontier[0] > f[0];
    return !in->two_levels || c->frontier[1] >= f[1];
}

static void scan_one(const stm_inlet *in, int32_t i, stm_cursor *c)
{
    const mill_batch *b = stm_queue_batch(&in->queues[i], c->scan++);
    c->frontier[0] = b->frontier[0];
    c->frontier[1] = b->frontier[1];
    c->borders = b->borders & in->borders_in;
    c->skipped = b->skipped & c->borders;
    c->end = b->end;
    c->closed = stm_closes(in, b);
}

/* How far the step goes; false = not all of it has arrived. */
static bool find_step(stm_inlet *in, int64_t f[2], bool *rest)
{
    stm_cursor *c = stm_cursors(in->now);
    uint64_t lead = c[0].scan; /* scanned only when the whole step is there */
    if (in->mode == STM_INPUT_CONVERGE)
        while (lead < in->queues[0].next && !stm_closes(in, stm_queue_batch(&in->queues[0], lead))) lead++;
    if (lead == in->queues[0].next) return false;
    const mill_batch *b = stm_queue_batch(&in->queues[0], lead);
    *rest = stm_closes(in, b);
    f[0] = b->frontier[0];
    f[1] = b->frontier[1];
    for (int32_t i = 1; i < in->n_inputs; i++) {
        while (!reached(in, &c[i], f, *rest)) {
            if (c[i].scan == in->queues[i].next) return false;
            scan_one(in, i, &c[i]);
        }
    }
    while (c[0].scan <= lead) scan_one(in, 0, &c[0]);
    return true;
}

int64_t stm_key_lacks(const stm_inlet *in, int32_t input)
{
    const stm_cursor *c = stm_cursors(in->now);
    const stm_queue *q = &in->queues[0];
    uint64_t lead = c[0].scan;
    if (in->mode == STM_INPUT_CONVERGE)
        while (lead < q->next && !stm_closes(in, stm_queue_batch(q, lead))) lead++;
    if (input == 0) return lead < q->next ? 0 : stm_assembly_lacks(in, 0);
    if (lead == q->next) return 0; /* what it needs is not known yet */
    const mill_batch *b = stm_queue_batch(q, lead);
    if (reached(in, &c[input], b->frontier, stm_closes(in, b))) return 0;
    int64_t rows = b->frontier[0] - (c[input].scan > 0 ? c[input].frontier[0] : 0);
    return rows > 0 && !in->two_levels ? rows : 1;
}

/* Leave batches that are used up; their coverage counts. */
static void settle(stm_inlet *in, int32_t i)
{
    stm_cursor *c = &stm_cursors(in->now)[i];
    for (; c->seq < c->scan; c->seq++, c->row = 0) {
        const mill_batch *b = stm_queue_batch(&in->queues[i], c->seq);
        if (c->row < b->rows) return;
        memcpy(stm_covered(in, i), b->covered, (size_t)in->n_roots * sizeof *b->covered);
    }
}

static mill_status fail_missing(stm_inlet *in, int32_t present, int32_t absent)
{
    const stm_cursor *c = &stm_cursors(in->now)[present];
    const mill_batch *b = stm_queue_batch(&in->queues[present], c->seq);
    char text[96];
    stm_batch_key_text(b, c->row, text, sizeof text);
    const stm_vertex *v = &in->flow->nodes[in->node];
    const char *space = in->flow->nodes[in->flow->nodes[v->inputs[0].from].stream.key_space].name;
    mill_fail(in->failure, MILL_ERR_DATA, "step '%s' %s '%s' and '%s': row %s:%s is in '%s' but not in '%s'", v->name,
              in->mode == STM_INPUT_CONVERGE ? "converges" : "joins", input_name(in, 0), input_name(in, absent ? absent : present),
              space, text, input_name(in, present), input_name(in, absent));
    mill_error_remedy(in->failure, "set on_missing to 'null' or 'drop' if rows may be missing");
    in->failure->error_class = MILL_CLASS_DATA;
    return MILL_ERR_DATA;
}

/* Lengthen the last run of rows by @p len when the inputs of @p has go on where it stopped. */
static bool lengthen(stm_inlet *in, uint64_t has, int64_t len)
{
    stm_assembly *a = stm_assemblies(in);
    const stm_assembly *old = (const stm_assembly *)(stm_cursors(in->saved) + in->n_inputs);
    if (a->n == a->head || a->n <= old->n) return false; /* older pieces must stay as they are until the commit */
    stm_piece *row = in->pieces[0].items + (a->n - 1) * (size_t)in->n_columns;
    const stm_cursor *c = stm_cursors(in->now);
    for (int32_t i = 0; i < in->n_inputs; i++) {
        bool here = has >> i & 1;
        if (here != (row[i].input >= 0)) return false;
        if (here && (row[i].seq != c[i].seq || row[i].first + row[i].rows != c[i].row)) return false;
    }
    for (int32_t i = 0; i < in->n_inputs; i++) row[i].rows += len;
    a->pending += len;
    return true;
}

static mill_status merge(stm_inlet *in, const int64_t f[2], bool rest)
{
    stm_cursor *c = stm_cursors(in->now);
    int32_t n = in->n_inputs;
    for (;;) {
        const mill_batch *at[64];
        int32_t least = -1;
        for (int32_t i = 0; i < n; i++) {
            settle(in, i);
            at[i] = c[i].seq < c[i].scan ? stm_queue_batch(&in->queues[i], c[i].seq) : NULL;
            if (at[i] && !rest && !below(in, at[i], c[i].row, f)) at[i] = NULL;
            if (at[i] && (least < 0 || stm_batch_key_compare(at[i], c[i].row, at[least], c[least].row) < 0)) least = i;
        }
        if (least < 0) return MILL_OK;
        uint64_t has = 0;
        int32_t absent = -1;
        int64_t key[2], other[2], len = INT64_MAX;
        stm_key_head(at[least], c[least].row, key);
        for (int32_t i = 0; i < n; i++) {
            if (at[i] && stm_batch_key_compare(at[i], c[i].row, at[least], c[least].row) == 0) {
                has |= (uint64_t)1 << i;
                int64_t rows = at[i]->keys.tuples ? 1 : at[i]->rows - c[i].row;
                if (!rest && rows > f[0] - key[0]) rows = f[0] > key[0] ? f[0] - key[0] : 1; /* 1: below in the second element */
                if (rows < len) len = rows;
            } else if (!c[i].aside && absent < 0) {
                absent = i;
            }
        }
        for (int32_t i = 0; i < n; i++) { /* as far as the next row of those that do not have this one */
            if (!at[i] || (has >> i & 1)) continue;
            stm_key_head(at[i], c[i].row, other);
            int64_t gap = other[0] - key[0] > 1 ? other[0] - key[0] : 1;
            if (gap < len) len = gap;
        }
        if (absent >= 0 && in->on_missing == STM_MISSING_ERROR) return fail_missing(in, least, absent);
        if (absent >= 0 && in->on_missing == STM_MISSING_DROP) {
            for (int32_t i = 0; i < n; i++)
                if (has >> i & 1) in->now->rows -= len;
        } else if (!lengthen(in, has, len)) {
            stm_piece *row = stm_assembly_add(in, 0, len);
            if (!row) return MILL_ERR_NOMEM;
            for (int32_t i = 0; i < n; i++) {
                bool here = has >> i & 1;
                row[i] = (stm_piece){.first = here ? c[i].row : 0, .rows = len, .seq = here ? c[i].seq : 0, .input = here ? i : -1};
            }
        }
        for (int32_t i = 0; i < n; i++)
            if (has >> i & 1) c[i].row += len, c[i].rows += len;
    }
}

int stm_step_key(stm_inlet *in)
{
    stm_state *s = in->now;
    int64_t f[2];
    bool rest;
    if (s->done || !find_step(in, f, &rest)) return 0;
    stm_cursor *c = stm_cursors(s);
    stm_envelope e = {
        .frontier = {f[0], f[1]}, .borders = c[0].borders & in->borders_out[0], .skipped = c[0].skipped, .end = c[0].end};
    for (int32_t i = 0; i < in->n_inputs; i++) {
        if (rest && (c[i].borders != c[0].borders || c[i].end != c[0].end)) {
            mill_fail(in->failure, MILL_ERR_INTERNAL, "inputs '%s' and '%s' of step '%s' do not agree on a border",
                      input_name(in, 0), input_name(in, i), in->flow->nodes[in->node].name);
            return MILL_ERR_INTERNAL;
        }
        if (in->mode == STM_INPUT_CONVERGE) c[i].aside = (c[i].skipped & ~in->borders_out[0]) != 0;
    }
    for (int32_t i = 1; i < in->n_inputs && e.end; i++) /* null-filled rows of another input may lie beyond the first's end */
        if (c[i].frontier[0] > e.frontier[0]) e.frontier[0] = c[i].frontier[0];
    mill_status st = merge(in, f, rest);
    if (st != MILL_OK) return st;
    int64_t covered[64];
    stm_compose(in, stm_covered(in, 0), covered);
    e.covered = covered;
    st = stm_assembly_finish(in, 0, &e);
    if (st != MILL_OK) return st;
    for (int32_t i = 0; i < in->n_inputs && rest; i++) c[i].closed = false;
    s->done = e.end;
    return 1;
}
