/* Arrivals of one input, put in order by their sequence numbers. */
#include "flow/internal.h"

#include <string.h>

#include "core/alloc.h"

void stm_held_drop(stm_held *h)
{
    if (atomic_fetch_sub_explicit(&h->users, 1, memory_order_acq_rel) != 1) return;
    mill_pool *pool = h->pool;
    mill_batch_destroy(&h->batch);
    stm_pool_give(pool, h, sizeof *h);
}

stm_held *stm_slot_hold(stm_slot *s)
{
    if (s->held) return s->held;
    stm_held *h = stm_pool_take(s->batch->pool, sizeof *h);
    if (!h) return NULL;
    atomic_init(&h->users, 1);
    h->batch = s->batch;
    h->pool = s->batch->pool;
    return s->held = h;
}

void stm_slot_forget(stm_slot *s)
{
    if (s->held) stm_pool_give(s->held->pool, s->held, sizeof *s->held);
    mill_buffer_unref(&s->costs);
    s->held = NULL;
    s->batch = NULL;
}

static int grow(stm_queue *q, uint64_t span)
{
    size_t cap = q->cap ? q->cap : 8;
    while (cap < span) cap *= 2;
    stm_slot *slots = stm_calloc(cap * sizeof *slots);
    if (!slots) return -1;
    for (uint64_t s = q->base; s < q->top; s++) slots[s & (cap - 1)] = *stm_queue_slot(q, s);
    stm_free(q->slots);
    q->slots = slots;
    q->cap = cap;
    return 0;
}

mill_status stm_queue_store(stm_queue *q, mill_batch *b, mill_error *err)
{
    uint64_t seq = b->seq;
    if (seq < q->next || (seq < q->top && stm_queue_batch(q, seq)))
        return mill_fail(err, MILL_ERR_INTERNAL, "batch %llu arrived twice", (unsigned long long)seq);
    if (seq > q->end || (b->end && seq + 1 < q->top))
        return mill_fail(err, MILL_ERR_INTERNAL, "batch %llu arrived behind the end", (unsigned long long)seq);
    if (seq - q->base >= q->cap && grow(q, seq - q->base + 1) != 0)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for %llu waiting batches", (unsigned long long)(seq - q->base + 1));
    stm_queue_slot(q, seq)->batch = b;
    if (seq >= q->top) q->top = seq + 1;
    if (b->end) q->end = seq;
    while (q->next < q->top && stm_queue_batch(q, q->next)) q->next++;
    return MILL_OK;
}

void stm_queue_release(stm_queue *q, uint64_t up_to)
{
    for (; q->base < up_to; q->base++) {
        stm_slot *s = stm_queue_slot(q, q->base);
        if (s->held)
            stm_held_drop(s->held);
        else
            mill_batch_destroy(&s->batch);
        if (s->costs) mill_buffer_unref(&s->costs);
        *s = (stm_slot){0};
    }
}

void stm_queue_clear(stm_queue *q)
{
    if (q->cap) stm_queue_release(q, q->top);
    stm_free(q->slots);
    q->slots = NULL;
    q->cap = 0;
}

void stm_inlet_visit_waiting(stm_inlet *in, bool (*visit)(mill_batch *b, void *user), void *user)
{
    for (int32_t i = 0; i < in->n_inputs && !in->unordered; i++) {
        const stm_queue *q = &in->queues[i];
        for (uint64_t s = q->top; s > q->base; s--) {
            const stm_slot *slot = stm_queue_slot(q, s - 1);
            if (slot->batch && !slot->held && !visit(slot->batch, user)) return;
        }
    }
}
