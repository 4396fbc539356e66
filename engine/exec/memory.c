/*
 * Memory: what keeps the live bytes of a run at its limit.
 *
 *   admission   a root sends only while live <= ceiling; the ceiling is the limit, except as below
 *   backpressure while more than that is alive, a step whose output would only wait in front of the next, or for an earlier batch
 *   that
 *               another replica of it has in its hands, does not run, and bursts are of one item (and where something was parked,
 *               until nothing waits there: each may come back from disk)
 *   parking     batches that wait for another input of their step (a union's later inputs, the fast branch of a join) go to
 *               disk: at a stall, newest first, until half of the limit is free; and on arrival when a sixteenth more than the
 *               ceiling is alive, since what comes back from disk in one place may have to wait in the next
 *   stores      what goes into a store waits for a whole load group: it goes to disk from three quarters of the limit on
 *   relief      at a stall with memory short: park, then give every root one pass, one batch whatever is alive. What is alive
 *               at rest and cannot be parked is held by steps; the ceiling is put an eighth of the limit above it, so that the
 *               run goes on at speed, and comes back down when that memory does
 *
 * So live bytes stay below the limit and a sixteenth, plus one batch per root, plus for each replica what it makes of the batch in
 * its hands and two batches in front of it that are ready, or wait to be put in order, plus envelope, keys and recipe of what
 * inlets have on disk, plus the stocks of threads; or an eighth of the limit above what steps hold.
 */
#include <string.h>

#include "core/alloc.h"
#include "exec/station.h"
#include "store/merged.h"
#include "store/batches.h"

#define BACKLOG 2 /* ready batches per replica that count as enough */

/* Whether more than @p enough batches of @p s wait where their order is restored. */
static bool is_ahead(const stm_station *s, int64_t enough)
{
    for (int32_t o = 0; o < s->n_outs; o++) {
        stm_station *to = s->outs[o].to;
        int64_t ahead;
        stm_lock_take(&to->lock);
        ahead = stm_inlet_ahead(to->inlet, s->outs[o].input);
        stm_lock_give(&to->lock);
        if (ahead < 0 ? is_ahead(to, enough) : ahead > enough) return true;
    }
    return false;
}

/* While some replica has a batch in its hands, that may be the one that is waited for; when none has, the next to run may make
 * it. */
static bool is_at_work(const stm_station *s)
{
    for (int32_t i = 0; i < s->n_slots; i++)
        if (atomic_load_explicit(&s->slots[i].claimed, memory_order_acquire) != 0 ||
            (s->kind == STM_AT_SUBMIT && stm_wrapper_in_flight(s->slots[i].wrapper) > 0))
            return true;
    return false;
}

bool stm_memory_holds_back(const stm_station *s)
{
    if (!stm_memory_short(s->run)) return false;
    for (int32_t o = 0; o < s->n_outs; o++) {
        const stm_station *to = s->outs[o].to;
        if (atomic_load_explicit(&to->ready, memory_order_relaxed) > (int64_t)BACKLOG * to->n_slots) return true;
    }
    return (s->n_slots > 1 || s->kind == STM_AT_SUBMIT) && is_at_work(s) && is_ahead(s, (int64_t)BACKLOG * s->n_slots);
}

mill_status stm_memory_park(stm_station *to, int32_t input, mill_batch **b, int32_t n, mill_error *err)
{
    mill_status st = MILL_OK;
    int64_t lacks;

    /* what roots overshoot by is not worth the disk: they stop at the ceiling, and a stall parks if that is not enough */
    if (stm_pool_live(to->run->pool) <= atomic_load_explicit(&to->run->ceiling, memory_order_relaxed) + to->run->memory_limit / 16)
        return MILL_OK;
    stm_lock_take(&to->lock);
    lacks = stm_inlet_lacks(to->inlet, input);
    stm_lock_give(&to->lock);
    if (lacks > 0) return MILL_OK;
    atomic_store_explicit(&to->parked, true, memory_order_relaxed);
    for (int32_t i = 0; i < n && st == MILL_OK; i++)
        if (b[i]->rows > 0) st = stm_batch_park(b[i], to->run->spill, err);
    return st;
}

/* ---- stores ------------------------------------------------------------------------------------------------------ */

mill_status stm_store_put(stm_run *run, stm_store *store, mill_batch **b, mill_error *err)
{
    stm_stored item = {.batch = *b};
    mill_status st = MILL_OK;

    if (run->memory_limit > 0 && stm_pool_live(run->pool) > run->memory_limit - run->memory_limit / 4) {
        st = stm_spill_put(run->spill, *b, &item.token, err);
        if (st != MILL_OK) return st;
        item.batch = NULL;
    }
    stm_lock_take(&store->lock);
    if (store->n == store->cap && store->head > store->cap / 2) { /* forget what was read */
        memmove(store->items, store->items + store->head, (store->n - store->head) * sizeof *store->items);
        store->n -= store->head;
        store->head = 0;
    }
    if (stm_grow(&store->items, &store->cap, store->n + 1, sizeof *store->items) != 0)
        st = MILL_ERR_NOMEM;
    else {
        store->items[store->n++] = item;
        atomic_store_explicit(&store->waiting, (int64_t)(store->n - store->head) + store->on_disk, memory_order_release);
    }
    stm_lock_give(&store->lock);
    if (st != MILL_OK) {
        if (item.batch == NULL) stm_spill_drop(run->spill, item.token);
        return mill_fail(err, st, "out of memory while storing a batch");
    }
    if (item.batch == NULL) mill_batch_destroy(b);
    *b = NULL;
    return MILL_OK;
}

bool stm_store_readable(const stm_station *reader)
{
    const stm_store *store = reader->store;
    const bool own_space = reader->plan_step >= 0;

    return atomic_load_explicit(&store->waiting, memory_order_acquire) > (own_space ? 1 : 0) ||
           (own_space && atomic_load_explicit(&store->complete, memory_order_acquire));
}

mill_status stm_store_take(stm_run *run, stm_store *store, mill_batch **out, bool *last, mill_error *err)
{
    const bool complete = atomic_load_explicit(&store->complete, memory_order_acquire);
    stm_stored item = {0};

    if (store->merged != NULL) {
        const mill_status st = stm_merged_next(store->merged, out, err);
        *last = st == MILL_OK && *out != NULL && (*out)->end;
        if (*last) atomic_store_explicit(&store->waiting, 0, memory_order_release);
        return st;
    }
    if (store->source != NULL) { /* what an earlier run has left comes first */
        uint64_t label;
        const mill_status st = stm_batch_source_next(store->source, out, &label, err);
        if (st != MILL_OK) return st;
        if (*out != NULL) {
            stm_lock_take(&store->lock);
            store->on_disk--;
            atomic_store_explicit(&store->waiting, (int64_t)(store->n - store->head) + store->on_disk, memory_order_release);
            *last = complete && store->n == store->head && store->on_disk == 0;
            stm_lock_give(&store->lock);
            return MILL_OK;
        }
        stm_batch_source_destroy(&store->source);
    }
    stm_lock_take(&store->lock);
    if (store->n > store->head) {
        item = store->items[store->head++];
        atomic_store_explicit(&store->waiting, (int64_t)(store->n - store->head), memory_order_release);
        *last = complete && store->n == store->head;
    }
    stm_lock_give(&store->lock);
    *out = item.batch;
    if (item.token == 0) return MILL_OK;
    return stm_spill_get(run->spill, run->pool, item.token, out, err);
}

void stm_store_free(stm_run *run, stm_store *store)
{
    stm_merged_destroy(&store->merged);
    stm_batch_source_destroy(&store->source);
    for (size_t k = store->head; k < store->n; k++) {
        if (store->items[k].batch != NULL)
            mill_batch_destroy(&store->items[k].batch);
        else
            stm_spill_drop(run->spill, store->items[k].token);
    }
    stm_free(store->items);
    stm_free(store);
}

/* ---- relief ------------------------------------------------------------------------------------------------------ */

typedef struct relief {
    stm_run *run;
    mill_error err;
} relief;

static bool park_one(mill_batch *b, void *user)
{
    relief *r = user;

    if (stm_pool_live(r->run->pool) <= r->run->memory_limit / 2 || atomic_load(&r->run->stop) != 0) return false;
    return b->rows == 0 || stm_batch_park(b, r->run->spill, &r->err) == MILL_OK;
}

bool stm_memory_relieve(stm_run *run)
{
    relief r = {.run = run};
    int64_t live;

    if (!stm_memory_short(run)) return false;
    atomic_fetch_add(&run->memory_stalls, 1);
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (s->inlet == NULL || atomic_load(&s->dead)) continue;
        if (stm_inlet_rows(s->inlet) > 0) atomic_store(&s->parked, true);
        stm_inlet_visit_waiting(s->inlet, park_one, &r);
        if (r.err.status == MILL_OK) continue;
        stm_station_fail(s, &r.err);
        return true;
    }
    live = stm_pool_live(run->pool) + run->memory_limit / 8;
    atomic_store(&run->ceiling, live > run->memory_limit ? live : run->memory_limit);
    atomic_fetch_add(&run->pass, 1);
    stm_run_ring(run, true);
    for (int32_t i = 0; i < run->n_stations; i++)
        if (stm_station_runnable(&run->stations[i])) return true;
    return false;
}

void stm_memory_settle(stm_run *run)
{
    if (atomic_load(&run->ceiling) > run->memory_limit && run->memory_limit > 0 &&
        stm_pool_live(run->pool) <= run->memory_limit - run->memory_limit / 8)
        atomic_store(&run->ceiling, run->memory_limit);
}
