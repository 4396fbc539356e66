/*
 * Assembly: rows in order, cut into ready batches.
 *
 * Exactly `batch_rows` rows per item, or as many as a budget allows (budget.c), except where a step ends a routed batch or the
 * stream: there what is left is sent.
 * An item without rows is made only when nothing is pending, to carry on coverage, a border or the end.
 */
#include "flow/internal.h"

#include <string.h>

#include "core/alloc.h"

stm_piece *stm_assembly_add(stm_inlet *in, int32_t lane, int64_t rows)
{
    stm_assembly *a = &stm_assemblies(in)[lane];
    size_t columns = (size_t)in->n_columns;
    if (stm_grow(&in->pieces[lane].items, &in->pieces[lane].cap, (a->n + 1) * columns, sizeof(stm_piece)) != 0) return NULL;
    a->pending += rows;
    return in->pieces[lane].items + a->n++ * columns;
}

int stm_ring_reserve(stm_inlet *in, uint64_t items)
{
    uint64_t need = in->now->tail - in->head + items;
    if (need <= in->cap) return 0;
    size_t cap = in->cap ? in->cap : 16;
    while (cap < need) cap *= 2;
    stm_ready *ring = stm_malloc(cap * sizeof *ring);
    if (!ring) return -1;
    for (uint64_t i = in->head; i < in->now->tail; i++) ring[i & (cap - 1)] = in->ring[i & (in->cap - 1)];
    stm_free(in->ring);
    in->ring = ring;
    in->cap = cap;
    return 0;
}

/* Where the stream stands when the row at the head of the lane is the next to be sent. */
static void frontier_before_head(const stm_inlet *in, int32_t lane, int64_t out[2])
{
    const stm_assembly *a = &stm_assemblies(in)[lane];
    const stm_piece *row = in->pieces[lane].items + a->head * (size_t)in->n_columns;
    int64_t key[2] = {-1, -1};
    for (int32_t c = 0; c < (in->by_key ? in->n_columns : 1); c++) {
        if (row[c].input < 0) continue;
        stm_key_head(stm_queue_batch(&in->queues[row[c].input], row[c].seq), row[c].first + a->skip, key);
        if (in->mode == STM_INPUT_UNION) {
            key[1] = key[0];
            key[0] = row[c].input;
        } else if (!in->two_levels) {
            key[1] = 0;
        }
        break;
    }
    bool later = key[0] > a->frontier[0] || (key[0] == a->frontier[0] && key[1] > a->frontier[1]);
    out[0] = later ? key[0] : a->frontier[0];
    out[1] = later ? key[1] : a->frontier[1];
}

/* Whether the item is one whole batch with its own envelope, so that it can be handed on as it is. */
static mill_batch *whole(const stm_inlet *in, int32_t lane, int64_t rows)
{
    if (in->mode != STM_INPUT_SINGLE && in->mode != STM_INPUT_EACH) return NULL;
    const stm_assembly *a = &stm_assemblies(in)[lane];
    uint64_t seq = stm_cursors(in->now)[lane].seq;
    mill_batch *b = stm_queue_batch(&in->queues[lane], seq);
    if (b->rows != rows) return NULL;
    if (rows == 0) return b;
    const stm_piece *p = in->pieces[lane].items + a->head;
    return p->seq == seq && a->skip == 0 && p->rows == rows ? b : NULL;
}

static void consume(stm_inlet *in, int32_t lane, int64_t rows)
{
    stm_assembly *a = &stm_assemblies(in)[lane];
    a->pending -= rows;
    while (rows > 0) {
        int64_t left = in->pieces[lane].items[a->head * (size_t)in->n_columns].rows - a->skip;
        if (rows < left) {
            a->skip += rows;
            return;
        }
        rows -= left;
        a->head++;
        a->skip = 0;
    }
}

static mill_status fill(stm_inlet *in, int32_t lane, int64_t rows, stm_recipe **out)
{
    const stm_assembly *a = &stm_assemblies(in)[lane];
    size_t columns = (size_t)in->n_columns, n = 0;
    for (int64_t seen = -a->skip; seen < rows; n++) seen += in->pieces[lane].items[(a->head + n) * columns].rows;
    stm_recipe *r;
    if (stm_recipe_create(in, n, rows, &r) != MILL_OK) return MILL_ERR_NOMEM;
    r->fresh = in->now->fresh + in->now->fresh_sent;
    int64_t left = rows, skip = a->skip;
    for (size_t i = 0; i < n; i++) {
        const stm_piece *row = in->pieces[lane].items + (a->head + i) * columns;
        int64_t take = row[0].rows - skip < left ? row[0].rows - skip : left;
        for (int32_t c = 0; c < in->n_columns; c++) {
            stm_run_of_rows *run = &stm_recipe_runs(r, c)[i];
            run->rows = take;
            if (row[c].input < 0) continue;
            stm_held *h = stm_slot_hold(stm_queue_slot(&in->queues[row[c].input], row[c].seq));
            if (!h) {
                stm_recipe_destroy(r);
                return MILL_ERR_NOMEM;
            }
            atomic_fetch_add_explicit(&h->users, 1, memory_order_relaxed);
            stm_recipe_held(r, c)[i] = h;
            run->batch = h->batch;
            run->first = row[c].first + skip;
            r->source_rows += take;
        }
        if (r->union_keys) stm_recipe_branch(r)[i] = row[0].input;
        if (row[0].input < 0 && !in->by_key) in->now->fresh_sent += take;
        left -= take;
        skip = 0;
    }
    *out = r;
    return MILL_OK;
}

/* Make an item of the first @p rows rows; @p e: what it says when the step ends with it, else NULL. */
static mill_status cut(stm_inlet *in, int32_t lane, int64_t rows, const stm_envelope *e)
{
    if (stm_ring_reserve(in, 1) != 0) return MILL_ERR_NOMEM;
    stm_ready item = {.input = in->mode == STM_INPUT_EACH ? lane : 0};
    item.batch = e ? whole(in, lane, rows) : NULL;
    if (!item.batch) {
        mill_status st = fill(in, lane, rows, &item.recipe);
        if (st != MILL_OK) return st;
        item.batch = item.recipe->envelope;
    }
    consume(in, lane, rows);
    if (in->budget > 0) stm_budget_restart(in, lane);
    if (item.recipe) {
        mill_batch *b = item.batch;
        const int64_t *covered = e ? e->covered : stm_sent(in, lane);
        if (in->n_roots > 0) memcpy(b->covered, covered, (size_t)in->n_roots * sizeof *covered);
        if (e) {
            b->frontier[0] = e->frontier[0];
            b->frontier[1] = e->frontier[1];
            b->borders = e->borders;
            b->skipped = e->skipped;
            b->end = e->end;
        } else {
            frontier_before_head(in, lane, b->frontier);
        }
    }
    in->ring[in->now->tail++ & (in->cap - 1)] = item;
    return MILL_OK;
}

/* Rows of the next item if it is complete, else 0. */
static int64_t complete(stm_inlet *in, int32_t lane)
{
    if (in->budget > 0) return stm_budget_rows(in, lane);
    return in->batch_rows > 0 && stm_assemblies(in)[lane].pending >= in->batch_rows ? in->batch_rows : 0;
}

int64_t stm_assembly_lacks(const stm_inlet *in, int32_t lane)
{
    int64_t rows = in->batch_rows - stm_assemblies(in)[lane].pending;
    if (in->budget > 0) {
        int64_t guess = stm_budget_lacks(in, lane);
        if (in->batch_rows == 0 || guess < rows) rows = guess;
    }
    return rows > 0 ? rows : 1;
}

mill_status stm_assembly_finish(stm_inlet *in, int32_t lane, const stm_envelope *e)
{
    stm_assembly *a = &stm_assemblies(in)[lane];
    bool flush = (in->batch_rows == 0 && in->budget == 0) || e->end || (e->borders & in->borders_out[lane]) != 0;
    bool said = false;
    for (int64_t rows; (rows = complete(in, lane)) > 0;) {
        said = a->pending == rows;
        mill_status st = cut(in, lane, rows, said ? e : NULL);
        if (st != MILL_OK) return st;
    }
    if (!said && (flush || a->pending == 0)) {
        mill_status st = cut(in, lane, a->pending, e);
        if (st != MILL_OK) return st;
    }
    a->frontier[0] = e->frontier[0];
    a->frontier[1] = e->frontier[1];
    if (in->n_roots > 0) memcpy(stm_sent(in, lane), e->covered, (size_t)in->n_roots * sizeof *e->covered);
    return MILL_OK;
}

/* Oldest batch of an input that is still needed. */
static uint64_t oldest(const stm_inlet *in, int32_t input)
{
    int32_t lane = in->mode == STM_INPUT_EACH ? input : 0;
    const stm_assembly *a = &stm_assemblies(in)[lane];
    size_t columns = (size_t)in->n_columns;
    uint64_t seq = stm_cursors(in->now)[input].seq;
    for (size_t i = a->head; i < a->n; i++) {
        const stm_piece *p = in->pieces[lane].items + i * columns + (columns > 1 ? (size_t)input : 0);
        if (p->input == input) return p->seq < seq ? p->seq : seq;
    }
    return seq;
}

void stm_assembly_commit(stm_inlet *in)
{
    for (uint64_t i = in->saved->tail; i < in->now->tail; i++) {
        const stm_ready *item = &in->ring[i & (in->cap - 1)];
        if (!item->recipe) stm_slot_forget(stm_queue_slot(&in->queues[item->input], item->batch->seq));
    }
    for (int32_t i = 0; i < in->n_inputs; i++) stm_queue_release(&in->queues[i], oldest(in, i));
    for (int32_t l = 0; l < in->n_lanes; l++) {
        stm_assembly *a = &stm_assemblies(in)[l];
        if (a->head == 0 || a->head < a->n - a->head) continue;
        size_t columns = (size_t)in->n_columns;
        memmove(in->pieces[l].items, in->pieces[l].items + a->head * columns, (a->n - a->head) * columns * sizeof(stm_piece));
        a->n -= a->head;
        a->seen -= in->budget > 0 ? a->head : 0;
        a->head = 0;
    }
}
