/*
 * Credit: per root, how many of its rows may be in the pipeline.
 *
 *      room = credit + grant - (admitted - completed)       completed = least over the terminals that the root reaches
 *
 * Every counter has one writer (the root's driver, a terminal's driver, whoever holds quiescence) and any number of readers.
 */
#include "flow/internal.h"

int64_t stm_credit_admitted(const stm_flow *flow, int32_t root)
{
    return atomic_load_explicit(&flow->roots[root].admitted, memory_order_acquire);
}

/* INT64_MAX: no terminal waits for rows of this root any more. */
static int64_t least_done(const stm_flow *flow, int32_t root)
{
    const stm_root *r = &flow->roots[root];
    int64_t least = INT64_MAX;
    for (int32_t i = 0; i < r->n_terminals; i++) {
        const stm_vertex *v = &flow->nodes[r->terminals[i]];
        if (atomic_load_explicit(&v->cut, memory_order_acquire)) continue;
        int64_t n = atomic_load_explicit(&v->done[root], memory_order_acquire);
        if (n < least) least = n;
    }
    return least;
}

int64_t stm_credit_completed(const stm_flow *flow, int32_t root)
{
    int64_t done = least_done(flow, root);
    return done == INT64_MAX ? stm_credit_admitted(flow, root) : done;
}

int64_t stm_credit_room(const stm_flow *flow, int32_t root)
{
    const stm_root *r = &flow->roots[root];
    int64_t done = least_done(flow, root);
    if (done == INT64_MAX) return INT64_MAX;
    return r->credit + atomic_load_explicit(&r->allowed, memory_order_acquire) - (stm_credit_admitted(flow, root) - done);
}

void stm_credit_admit(stm_flow *flow, int32_t root, int64_t rows)
{
    stm_root *r = &flow->roots[root];
    int64_t now = atomic_load_explicit(&r->admitted, memory_order_relaxed);
    atomic_store_explicit(&r->admitted, now + rows, memory_order_release);
}

void stm_credit_return(stm_flow *flow, int32_t terminal, const mill_batch *batch)
{
    stm_vertex *v = &flow->nodes[terminal];
    for (int32_t r = 0; r < flow->n_roots; r++) {
        if (!(v->stream.roots >> r & 1)) continue;
        if (batch->covered[r] > atomic_load_explicit(&v->done[r], memory_order_relaxed))
            atomic_store_explicit(&v->done[r], batch->covered[r], memory_order_release);
    }
}

int64_t stm_credit_largest_grant(const stm_flow *flow, int32_t root)
{
    return atomic_load_explicit(&flow->roots[root].allowed, memory_order_acquire);
}

int64_t stm_credit_grants(const stm_flow *flow, int32_t root)
{
    return atomic_load_explicit(&flow->roots[root].grants, memory_order_acquire);
}

void stm_credit_end(stm_flow *flow, int32_t root) { atomic_store_explicit(&flow->roots[root].ended, true, memory_order_release); }

void stm_credit_pause(stm_flow *flow, int32_t root, bool paused)
{
    atomic_store_explicit(&flow->roots[root].paused, paused, memory_order_release);
}

void stm_credit_restore(stm_flow *flow, int32_t terminal, const int64_t *covered)
{
    stm_vertex *v = &flow->nodes[terminal];
    for (int32_t r = 0; r < flow->n_roots; r++)
        if (v->stream.roots >> r & 1) atomic_store_explicit(&v->done[r], covered[r], memory_order_release);
}

void stm_credit_done(const stm_flow *flow, int32_t terminal, int64_t *covered)
{
    const stm_vertex *v = &flow->nodes[terminal];
    for (int32_t r = 0; r < flow->n_roots; r++)
        covered[r] = v->stream.roots >> r & 1 ? atomic_load_explicit(&v->done[r], memory_order_acquire) : 0;
}
