/*
 * Joins by position: row i with row i. A step is what is left of the leading input's next batch and as many rows of the others; the
 * first input leads until its end, then the next one that has rows left.
 *
 * on_uneven error: rows without partners are dropped as they come, so that credit flows and both totals get known;
 * the failure comes with the last end.
 */
#include "flow/internal.h"

#include <string.h>

static bool drained(const stm_inlet *in, int32_t i)
{
    const stm_cursor *c = &stm_cursors(in->now)[i];
    return c->reach == 0 && c->scan > 0 && c->scan == in->queues[i].end + 1;
}

static bool at_end(const stm_inlet *in, int32_t i)
{
    const stm_cursor *c = &stm_cursors(in->now)[i];
    return in->queues[i].end != STM_NO_SEQ && c->scan == in->queues[i].end + 1;
}

/* Look at more batches until input i shows more than @p rows unused rows (or as many: @p enough), or its end. */
static bool look(stm_inlet *in, int32_t i, int64_t rows, bool enough)
{
    stm_cursor *c = &stm_cursors(in->now)[i];
    while (c->reach < rows || (c->reach == rows && !enough)) {
        if (at_end(in, i)) return true;
        if (c->scan == in->queues[i].next) return false;
        c->reach += stm_queue_batch(&in->queues[i], c->scan++)->rows;
    }
    return true;
}

/* Rows of the leading input's current batch, or -1 = it has not arrived. */
static int64_t step_rows(const stm_inlet *in, const mill_batch **b)
{
    const stm_cursor *c = &stm_cursors(in->now)[in->now->lead];
    const stm_queue *q = &in->queues[in->now->lead];
    if (c->seq == q->next) return -1;
    *b = stm_queue_batch(q, c->seq);
    return (*b)->rows - c->row;
}

int64_t stm_position_lacks(const stm_inlet *in, int32_t input)
{
    const mill_batch *b;
    int64_t n = step_rows(in, &b);
    if (input == in->now->lead) return n >= 0 ? 0 : stm_assembly_lacks(in, 0);
    if (n < 0 || at_end(in, input)) return 0;
    const stm_cursor *c = &stm_cursors(in->now)[input];
    int64_t need = b->end ? n + 1 : n;
    return c->reach >= need ? 0 : need - c->reach;
}

/* Use @p rows rows of input i; batches used up are left and covered. */
static void use(stm_inlet *in, int32_t i, int64_t rows)
{
    stm_cursor *c = &stm_cursors(in->now)[i];
    c->row += rows;
    c->rows += rows;
    c->reach -= rows;
    for (; c->seq < c->scan; c->seq++, c->row = 0) {
        const mill_batch *b = stm_queue_batch(&in->queues[i], c->seq);
        if (c->row < b->rows) return;
        memcpy(stm_covered(in, i), b->covered, (size_t)in->n_roots * sizeof *b->covered);
        if (i > 0) continue;
        int64_t key[2] = {-1, -1};
        if (b->rows > 0) stm_key_head(b, b->rows - 1, key);
        if (key[0] + 1 > in->now->fresh) in->now->fresh = key[0] + 1;
        if (b->end && b->frontier[0] > in->now->fresh) in->now->fresh = b->frontier[0];
    }
}

/* One run of rows from all inputs that have some, as long as no batch ends. */
static mill_status pair(stm_inlet *in, int64_t rows)
{
    stm_cursor *c = stm_cursors(in->now);
    while (rows > 0) {
        int64_t len = rows;
        for (int32_t i = 0; i < in->n_inputs; i++) {
            use(in, i, 0);
            if (c[i].reach == 0) continue;
            int64_t here = stm_queue_batch(&in->queues[i], c[i].seq)->rows - c[i].row;
            if (here < len) len = here;
        }
        stm_piece *row = stm_assembly_add(in, 0, len);
        if (!row) return MILL_ERR_NOMEM;
        if (c[0].reach == 0) in->now->fresh_added += len;
        for (int32_t i = 0; i < in->n_inputs; i++) {
            bool here = c[i].reach > 0;
            row[i] = (stm_piece){.first = here ? c[i].row : 0, .rows = len, .seq = here ? c[i].seq : 0, .input = here ? i : -1};
        }
        for (int32_t i = 0; i < in->n_inputs; i++)
            if (row[i].input >= 0) use(in, i, len);
        rows -= len;
    }
    return MILL_OK;
}

static mill_status fail_uneven(stm_inlet *in)
{
    const stm_vertex *v = &in->flow->nodes[in->node];
    const stm_cursor *c = stm_cursors(in->now);
    int32_t other = 1;
    while (other + 1 < in->n_inputs && c[other].rows == c[0].rows) other++;
    mill_fail(in->failure, MILL_ERR_DATA, "step '%s' joins by position: '%s' has %lld rows, '%s' has %lld", v->name,
              in->flow->nodes[v->inputs[0].from].name, (long long)c[0].rows, in->flow->nodes[v->inputs[other].from].name,
              (long long)c[other].rows);
    mill_error_remedy(in->failure, "set on_uneven to 'null' if the inputs may differ in length");
    in->failure->error_class = MILL_CLASS_DATA;
    return MILL_ERR_DATA;
}

int stm_step_position(stm_inlet *in)
{
    stm_state *s = in->now;
    if (s->done) return 0;
    int32_t lead = s->lead;
    const mill_batch *b;
    int64_t n = step_rows(in, &b);
    if (n < 0) return 0;
    stm_cursor *c = &stm_cursors(s)[lead];
    if (c->scan == c->seq) c->scan++, c->reach += b->rows;
    int64_t partners = n; /* rows that every input has */
    for (int32_t i = 0; i < in->n_inputs; i++) {
        if (i == lead) continue;
        if (!look(in, i, n, !b->end)) return 0;
        int64_t reach = stm_cursors(s)[i].reach;
        if (reach < partners) partners = reach;
    }
    bool end = b->end;
    int64_t frontier[2] = {b->frontier[0], b->frontier[1]}, paired = n;
    if (in->on_uneven == STM_UNEVEN_ERROR) {
        if (partners < n) s->uneven = true;
        paired = partners;
    }
    mill_status st = pair(in, paired);
    if (st != MILL_OK) return st;
    for (int32_t i = 0; i < in->n_inputs && paired < n; i++) {
        int64_t left = stm_cursors(s)[i].reach, drop = left < n - paired ? left : n - paired;
        while (drop > 0) { /* batch by batch, so that `use` sees every border */
            use(in, i, 0);
            int64_t here = stm_queue_batch(&in->queues[i], stm_cursors(s)[i].seq)->rows - stm_cursors(s)[i].row;
            if (here > drop) here = drop;
            use(in, i, here);
            s->rows -= here;
            drop -= here;
        }
    }
    for (int32_t i = 0; i < in->n_inputs; i++) use(in, i, 0);
    if (end) {
        s->lead = in->n_inputs;
        for (int32_t i = in->n_inputs - 1; i >= 0; i--)
            if (!drained(in, i)) s->lead = i;
        end = s->lead == in->n_inputs;
    }
    if (end && s->uneven) return fail_uneven(in);
    int64_t covered[64];
    stm_compose(in, stm_covered(in, 0), covered);
    stm_envelope e = {.covered = covered, .frontier = {frontier[0], frontier[1]}, .end = end};
    if (lead > 0) e.frontier[0] = s->fresh + s->fresh_added;
    if (lead > 0 || b->end) e.frontier[1] = -1; /* a fresh key has one element: the next one stands in front of all with a second */
    st = stm_assembly_finish(in, 0, &e);
    if (st != MILL_OK) return st;
    s->done = end;
    return 1;
}
