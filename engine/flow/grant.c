/*
 * What happens when nothing moves any more: a grant, or the end of a part of the graph. The proof that a grant
 * always helps stands in docs/flow.md.
 */
#include "flow/internal.h"

/* The root that can feed what input @p input lacks; -1 = its producer is no root, or has no rows left. */
static int32_t feeder(const stm_flow *f, int32_t node, int32_t input)
{
    int32_t root = f->nodes[f->nodes[node].inputs[input].from].root;
    if (root < 0) return -1;
    const stm_root *r = &f->roots[root];
    if (atomic_load_explicit(&r->ended, memory_order_acquire) || atomic_load_explicit(&r->paused, memory_order_acquire)) return -1;
    return root;
}

#define MOST_ROWS (INT64_MAX / 4) /* of a grant: sums with it stay in range */

static void grant(stm_flow *f, int32_t root, int64_t rows)
{
    stm_root *r = &f->roots[root];
    int64_t batch = f->nodes[r->node].node.batch_rows;
    if (rows < batch) rows = batch; /* a generator sends whole batches */
    int64_t old = atomic_load_explicit(&r->allowed, memory_order_relaxed);
    int64_t room = stm_credit_room(f, root), missing = room < rows ? rows - room : 1;
    int64_t now = 2 * old > old + missing ? 2 * old : old + missing;
    if (now > MOST_ROWS) now = MOST_ROWS;
    atomic_store_explicit(&r->allowed, now, memory_order_release);
    atomic_fetch_add_explicit(&r->grants, 1, memory_order_relaxed);
}

int32_t stm_flow_grant(stm_flow *flow, int32_t *starved)
{
    for (int32_t i = 0; i < flow->n; i++) {
        const stm_inlet *in = flow->nodes[i].inlet;
        if (!in || flow->nodes[i].cut || stm_inlet_ended(in) || stm_inlet_ready(in) > 0) continue;
        for (int32_t k = 0; k < in->n_inputs; k++) {
            int64_t rows = stm_inlet_lacks(in, k);
            int32_t root = rows > 0 ? feeder(flow, i, k) : -1;
            if (root < 0) continue;
            grant(flow, root, rows);
            *starved = i;
            return root;
        }
    }
    return -1;
}

void stm_flow_cut(stm_flow *flow, int32_t node, bool *closed)
{
    for (int32_t i = node; i < flow->n; i++) {
        stm_vertex *v = &flow->nodes[i];
        bool reached = i == node;
        for (int32_t k = 0; k < v->node.n_inputs; k++) reached = reached || closed[v->inputs[k].from];
        if (v->node.kind == STM_NODE_READER && v->node.source >= 0) reached = reached || closed[v->node.source];
        if (!reached) continue;
        closed[i] = true;
        atomic_store_explicit(&v->cut, true, memory_order_release); /* a terminal: credit no longer waits for it */
        if (v->inlet) stm_inlet_close(v->inlet);
        if (v->root >= 0) stm_credit_end(flow, v->root);
    }
}
