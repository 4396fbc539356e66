/*
 * Bursts: what a thread does at a station. Claim a wrapper, take items, run the step, hand on, release.
 *
 * Claiming and taking is one turn of the station's lock. A driver goes on to the station that its batches go to, so it carries
 * them there: where nothing waits in the inlet and the wrapper is free, they become items in that same turn (stm_inlet_pass). Then
 * a hop is one locked instruction and one pass over the burst.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "exec/durable.h"
#include "exec/station.h"

#define LOOP __attribute__((noinline)) /* the loop over a burst, apart from its caller, whose variables would take its registers */
#define BUDGET_NS 3000                 /* of a burst: long enough to pay for claim and locks, short enough for the next core */

/* A record that reads as empty: clearing all 1.5 KiB per burst would show. */
static void error_reset(mill_error *e)
{
    e->status = MILL_OK;
    e->phase = e->error_class = e->replica = e->attempt = e->line = e->column = e->origin_line = 0;
    e->msg[0] = e->context[0] = e->remedy[0] = e->file[0] = e->field[0] = e->step[0] = e->origin[0] = '\0';
}

/* ---- handing on ------------------------------------------------------------------------------------------------- */

static void publish_ready(stm_station *s) { atomic_store_explicit(&s->ready, stm_inlet_ready(s->inlet), memory_order_release); }

/* Push batches with what their rows cost. As push; the costs are worked out before the batches are parked and outside the lock. */
static mill_status push_costed(stm_station *to, int32_t input, mill_batch **b, int32_t n, mill_error *err)
{
    mill_buffer *costs[STM_BURST] = {0};
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < n && st == MILL_OK; i++) st = stm_cost_rows(to->cost, input, b[i], &costs[i], err);
    if (st == MILL_OK && to->pairs && stm_memory_short(to->run)) st = stm_memory_park(to, input, b, n, err);
    stm_lock_take(&to->lock);
    for (int32_t i = 0; i < n && st == MILL_OK; i++) st = stm_inlet_push_costed(to->inlet, input, &b[i], &costs[i], err);
    publish_ready(to);
    stm_lock_give(&to->lock);
    for (int32_t i = 0; i < n; i++) mill_buffer_unref(&costs[i]);
    return st;
}

/* Push batches to one inlet; on return b[] holds what was not taken (only on failure). */
static void push(stm_station *to, int32_t input, mill_batch **b, int32_t n)
{
    mill_error err;
    mill_status st = MILL_OK;

    error_reset(&err);
    if (atomic_load_explicit(&to->dead, memory_order_relaxed)) { /* nobody will read it */
        for (int32_t i = 0; i < n; i++) mill_batch_destroy(&b[i]);
        return;
    }
    if (__builtin_expect(to->cost != NULL, 0)) {
        st = push_costed(to, input, b, n, &err);
    } else {
        if (to->pairs && stm_memory_short(to->run)) st = stm_memory_park(to, input, b, n, &err);
        stm_lock_take(&to->lock);
        for (int32_t i = 0; i < n && st == MILL_OK; i++) st = stm_inlet_push(to->inlet, input, &b[i], &err);
        publish_ready(to);
        stm_lock_give(&to->lock);
    }
    if (__builtin_expect(st != MILL_OK, 0)) {
        for (int32_t i = 0; i < n; i++) mill_batch_destroy(&b[i]);
        if (err.status == MILL_OK) mill_fail(&err, st, "queueing a batch for step %s", to->name);
        stm_station_fail(to, &err);
    }
    if (to->own_threads) stm_station_ring(to);
}

/* The same rows with columns in the places a union has them. */
static mill_status remap(mill_batch **bp, const stm_out *o)
{
    mill_batch *b = *bp, *made = NULL;
    mill_status st = stm_batch_create(b->pool, b->rows, o->n_remap, b->n_roots, &made);

    if (st != MILL_OK) return st;
    stm_batch_copy_envelope(made, b);
    made->failed = b->failed;
    if (b->imputed != NULL) {
        made->imputed = stm_pool_take(b->pool, (size_t)o->n_remap * sizeof *made->imputed);
        if (made->imputed == NULL) {
            mill_batch_destroy(&made);
            return MILL_ERR_NOMEM;
        }
        memset(made->imputed, 0, (size_t)o->n_remap * sizeof *made->imputed);
    }
    for (int32_t c = 0; c < o->n_remap; c++) {
        const int32_t from = o->remap[c];
        if (from < 0) continue;
        made->columns[c] = b->columns[from] != NULL ? mill_column_ref(b->columns[from]) : NULL;
        if (b->imputed != NULL && b->imputed[from] != NULL) made->imputed[c] = mill_column_ref(b->imputed[from]);
    }
    made->keys = b->keys; /* moved */
    b->keys = (stm_keys){.width = 1};
    made->marks = b->marks;
    b->marks = NULL;
    mill_batch_destroy(bp);
    *bp = made;
    return MILL_OK;
}

static void push_out(const stm_out *o, mill_batch **b, int32_t n)
{
    if (o->remap != NULL)
        for (int32_t i = 0; i < n; i++)
            if (remap(&b[i], o) != MILL_OK) {
                mill_error err = {0};
                mill_fail(&err, MILL_ERR_NOMEM, "out of memory in the union at %s", o->to->name);
                for (int32_t k = 0; k < n; k++) mill_batch_destroy(&b[k]);
                stm_station_fail(o->to, &err);
                return;
            }
    push(o->to, o->input, b, n);
}

/* Give batches to everybody who reads this stream. Takes them over: b is c->b. */
void stm_station_hand_on(stm_station *s, int32_t n, stm_carry *c)
{
    mill_batch **b = c->b;
    const stm_out *first = &s->outs[0];

    if (n == 0) return;
    for (int32_t o = 1; o < s->n_outs; o++) { /* all but the first reader get clones: columns are shared */
        mill_batch *copy[STM_BURST];
        mill_error err = {0};
        int32_t made = 0;
        while (made < n && stm_batch_clone(b[made], &copy[made]) == MILL_OK) made++;
        if (made < n) {
            mill_fail(&err, MILL_ERR_NOMEM, "out of memory while handing batches from %s to %s", s->name, s->outs[o].to->name);
            for (int32_t i = 0; i < made; i++) mill_batch_destroy(&copy[i]);
            stm_station_fail(s->outs[o].to, &err);
            continue;
        }
        push_out(&s->outs[o], copy, n);
    }
    if (c->may && first->to->direct && first->remap == NULL) {
        c->to = first->to;
        c->n = n;
    } else {
        push_out(first, b, n);
    }
}

/* ---- claims ------------------------------------------------------------------------------------------------------ */

static void drop_items(stm_ready *items, int32_t from, int32_t n)
{
    for (int32_t i = from; i < n; i++) stm_ready_discard(&items[i]);
}

/* Under the lock. */
static stm_replica_slot *claim_any(stm_station *s, const stm_replica_slot *mine)
{
    for (int32_t i = 0; i < s->n_slots && !s->closing; i++) {
        stm_replica_slot *slot = &s->slots[i];
        if ((mine != NULL && slot != mine) || atomic_load_explicit(&slot->claimed, memory_order_acquire) != 0) continue;
        if (s->kind == STM_AT_SUBMIT && stm_wrapper_full(slot->wrapper) &&
            atomic_load_explicit(&slot->poll, memory_order_relaxed) == 0)
            continue;
        atomic_store_explicit(&slot->claimed, 1, memory_order_relaxed);
        return slot;
    }
    return NULL;
}

/* Under the lock. */
static stm_replica_slot *claim(stm_station *s, const stm_replica_slot *mine) { return s->awaited ? NULL : claim_any(s, mine); }

static void release(stm_station *s, stm_replica_slot *slot)
{
    /* With siblings, of two that end at the same time one must see the other's end: a full fence between giving up and looking. */
    if (s->n_slots > 1)
        atomic_exchange(&slot->claimed, 0);
    else
        atomic_store_explicit(&slot->claimed, 0, memory_order_release);
    if (__builtin_expect(
            atomic_load_explicit(&s->inlet_done, memory_order_relaxed) || atomic_load_explicit(&s->dead, memory_order_relaxed), 0))
        stm_station_check_done(s);
}

void stm_carry_drop(stm_carry *c)
{
    const int32_t n = c->n;

    c->n = 0;
    if (n == 0) return;
    push(c->to, 0, c->b, n);
    release(c->from, c->slot);
}

/* Under the lock: up to @p want items; notes the end. */
static int32_t take_locked(stm_station *s, stm_ready *items, int32_t n, int32_t want)
{
    while (n < want && stm_inlet_take(s->inlet, &items[n])) n++;
    publish_ready(s);
    if (__builtin_expect(atomic_load_explicit(&s->parked, memory_order_relaxed), 0) && stm_inlet_rows(s->inlet) == 0)
        atomic_store_explicit(&s->parked, false, memory_order_relaxed);
    if (n > 0 && stm_inlet_ended(s->inlet)) atomic_store_explicit(&s->inlet_done, true, memory_order_release);
    return n;
}

/* What waited on disk comes back; 0 when it cannot be had: then the station has failed. */
static int32_t recall(stm_station *s, stm_ready *items, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        mill_error err;
        if (__builtin_expect(items[i].recipe != NULL || !stm_batch_parked(items[i].batch), 1)) continue;
        memset(&err, 0, sizeof err);
        if (stm_batch_recall(items[i].batch, &err) == MILL_OK) continue;
        drop_items(items, 0, n);
        stm_station_fail(s, &err);
        return 0;
    }
    return n;
}

/* Submit: items are taken while the step has room. */
int32_t stm_station_take(stm_station *s, stm_ready *items, int32_t want)
{
    int32_t n;

    stm_lock_take(&s->lock);
    n = take_locked(s, items, 0, want);
    stm_lock_give(&s->lock);
    return recall(s, items, n);
}

/* Claims a wrapper and takes its items (*n), those carried here first; what is carried and cannot be handled now is pushed. NULL =
 * no wrapper is free. */
static stm_replica_slot *begin(stm_station *s, stm_carry *c, stm_ready *items, int32_t want, int32_t *n)
{
    const bool takes = s->inlet != NULL && s->kind != STM_AT_SUBMIT;
    const int32_t carried = c->n;
    stm_replica_slot *slot;
    mill_error err;
    mill_status st = MILL_OK;
    int32_t passed = 0, k = 0;

    c->n = 0;
    stm_lock_take(&s->lock);
    slot = claim(s, c->mine);
    if (slot != NULL && carried > 0 && carried <= want) k = passed = stm_inlet_pass(s->inlet, c->b, carried, items);
    if (passed == 0 || passed < carried) { /* else nothing else is there */
        if (__builtin_expect(passed < carried, 0)) {
            error_reset(&err);
            for (int32_t i = passed; i < carried && st == MILL_OK; i++) st = stm_inlet_push(s->inlet, 0, &c->b[i], &err);
        }
        if (takes && slot != NULL)
            k = take_locked(s, items, k, want);
        else if (carried > 0)
            publish_ready(s);
    }
    stm_lock_give(&s->lock);
    if (carried > 0) release(c->from, c->slot);
    if (__builtin_expect(st != MILL_OK, 0)) {
        for (int32_t i = passed; i < carried; i++) mill_batch_destroy(&c->b[i]); /* those that were taken over are NULL */
        if (err.status == MILL_OK) mill_fail(&err, st, "queueing a batch for step %s", s->name);
        stm_station_fail(s, &err);
    }
    *n = k > passed ? recall(s, items, k) : k; /* what was carried is in memory */
    return slot;
}

static int32_t burst_size(const stm_station *s)
{
    const int64_t cost = atomic_load_explicit(&s->cost_ns, memory_order_relaxed);
    int64_t k = cost * STM_BURST <= BUDGET_NS ? STM_BURST : BUDGET_NS / (cost + 1) + 1;

    if (s->n_slots > 1) { /* leave some for the siblings */
        const int64_t share = atomic_load_explicit(&s->ready, memory_order_relaxed) / s->n_slots;
        if (k > share) k = share > 1 ? share : 1;
    }
    return (int32_t)k;
}

/* ---- the kinds --------------------------------------------------------------------------------------------------- */

/* Whole batches only: their borders must not depend on when credit came back. */
static bool may_send(const stm_station *s, int64_t room)
{
    return room > 0 && (s->kind != STM_AT_GENERATOR || room >= s->batch_rows);
}

static int64_t room_at(const stm_station *s)
{
    const stm_run *run = s->run;
    int64_t room;

    if (atomic_load_explicit(&run->stop, memory_order_relaxed) != 0 || !stm_memory_admits(s)) return 0;
    room = stm_credit_room(run->flow, s->root);
    return may_send(s, room) ? room : 0;
}

static void admit(stm_station *s, int64_t rows)
{
    atomic_store_explicit(&s->pass, atomic_load_explicit(&s->run->pass, memory_order_relaxed), memory_order_relaxed);
    stm_credit_admit(s->run->flow, s->root, rows);
}

static LOOP int32_t run_generator(stm_station *s, stm_replica_slot *slot, int32_t want, stm_carry *c)
{
    mill_batch **made = c->b;
    mill_error err;
    mill_status st = MILL_OK;
    const int64_t before = stm_wrapper_rows_made(slot->wrapper);
    int64_t room, rows = 0;
    int32_t n = 0;
    bool end = false;

    if (atomic_load_explicit(&s->inlet_done, memory_order_acquire)) return 0;
    room = room_at(s); /* once: more of it may come back meanwhile, none goes */
    error_reset(&err);
    while (n < want && !end && may_send(s, room - rows)) {
        mill_batch *b = NULL;
        if (s->lasting != NULL) stm_lasting_root(s, stm_wrapper_cursor(slot->wrapper), stm_wrapper_rows_made(slot->wrapper));
        st = stm_wrapper_generate(slot->wrapper, room - rows, &b, &err);
        if (__builtin_expect(st != MILL_OK || b == NULL, 0)) break;
        b->seq = s->next_seq++;
        end = b->end;
        rows = stm_wrapper_rows_made(slot->wrapper) - before; /* also those that go no further: the batch covers them */
        made[n++] = b;
        if (stm_memory_short(s->run)) break;
    }
    if (n > 0) admit(s, rows);
    if (end) {
        stm_credit_end(s->run->flow, s->root);
        atomic_store_explicit(&s->inlet_done, true, memory_order_release);
    }
    stm_station_hand_on(s, n, c);
    if (__builtin_expect(st != MILL_OK, 0)) {
        stm_station_fail(s, &err);
        return n + 1;
    }
    return n;
}

static int32_t run_reader(stm_station *s, int32_t want, stm_carry *c)
{
    stm_run *run = s->run;
    stm_store *store = s->store;
    const bool own_space = s->plan_step >= 0; /* a global's output: rows of a new root */
    mill_batch **made = c->b;
    int32_t n = 0;
    bool end = false;

    if (atomic_load_explicit(&s->inlet_done, memory_order_acquire)) return 0;
    while (n < want && !end) {
        const bool complete = atomic_load_explicit(&store->complete, memory_order_acquire);
        mill_batch *b = NULL;
        mill_error err = {0};
        if (room_at(s) <= 0 || !stm_store_readable(s)) break;
        if (s->lasting != NULL) stm_lasting_root(s, NULL, s->sent_rows);
        if (stm_store_take(run, store, &b, &end, &err) != MILL_OK) {
            end = false;
            stm_station_fail(s, &err);
            break;
        }
        if (b == NULL && complete && own_space) { /* it made nothing */
            if (stm_batch_create(run->pool, 0, run->plan->steps[s->plan_step].step->out.n, stm_flow_roots(run->flow), &b) !=
                MILL_OK) {
                mill_fail(&err, MILL_ERR_NOMEM, "out of memory at the end of %s", s->name);
                stm_station_fail(s, &err);
                break;
            }
            b->keys.first = s->sent_rows;
            end = true;
        }
        if (b == NULL) break;
        s->sent_rows += b->rows;
        memset(b->covered, 0, (size_t)b->n_roots * sizeof *b->covered);
        b->covered[s->root] = s->sent_rows;
        if (own_space) {
            b->seq = s->next_seq++;
            b->frontier[0] = s->sent_rows;
            b->frontier[1] = 0;
            b->borders = b->skipped = 0;
            b->end = end;
        } else {
            s->next_seq = b->seq + 1;
            end = b->end;
        }
        admit(s, b->rows);
        made[n++] = b;
    }
    if (s->lasting != NULL) atomic_store_explicit(&s->lasting->given, s->next_seq, memory_order_release);
    if (end) {
        stm_credit_end(run->flow, s->root);
        atomic_store_explicit(&s->inlet_done, true, memory_order_release);
    }
    stm_station_hand_on(s, n, c);
    return n;
}

static LOOP int32_t run_step(stm_station *s, stm_replica_slot *slot, stm_ready *items, int32_t n, stm_carry *c)
{
    mill_error err;
    int32_t done = 0;
    mill_status st;

    error_reset(&err);
    st = stm_wrapper_map_all(slot->wrapper, items, n, c->b, &done, &err);
    stm_station_hand_on(s, done, c);
    if (__builtin_expect(st != MILL_OK, 0)) {
        drop_items(items, done, n);
        if (err.status == MILL_OK) memset(&err, 0, sizeof err), mill_fail(&err, st, "%s", mill_status_text(st));
        stm_station_fail(s, &err);
    }
    return n;
}

static int32_t run_submit(stm_station *s, stm_replica_slot *slot, int32_t want)
{
    stm_carry found; /* several rounds: each is pushed */
    mill_error err = {0};
    stm_ready item;
    mill_status st = MILL_OK;
    int32_t n = 0, done = 0;

    found.may = false;
    found.n = 0;
    atomic_store_explicit(&slot->poll, 0, memory_order_relaxed);
    while (n < want && !stm_wrapper_full(slot->wrapper) && st == MILL_OK && stm_station_take(s, &item, 1) == 1) {
        st = stm_wrapper_submit(slot->wrapper, &item, &err);
        if (st != MILL_OK) stm_ready_discard(&item); /* nothing is left of it if it was consumed */
        n++;
    }
    if (n > 0) atomic_store_explicit(&slot->flush_due, 0, memory_order_relaxed);
    if (st == MILL_OK && (atomic_load_explicit(&s->inlet_done, memory_order_acquire) ||
                          (atomic_exchange(&slot->flush_due, 0) != 0 && stm_wrapper_in_flight(slot->wrapper) > 0)))
        st = stm_wrapper_flush(slot->wrapper, &err);
    while (st == MILL_OK) {
        st = stm_wrapper_poll(slot->wrapper, found.b, STM_BURST, &done, &err);
        stm_station_hand_on(s, done, &found);
        n += done;
        if (done < STM_BURST) break;
    }
    if (st != MILL_OK) stm_station_fail(s, &err);
    return n;
}

static int32_t run_router(stm_station *s, stm_replica_slot *slot, stm_ready *items, int32_t n)
{
    mill_batch *in = NULL, *copy;
    mill_error err = {0};
    const int32_t n_branches = stm_wrapper_step(slot->wrapper)->n_branches;
    bool taken[STM_MAX_BRANCHES] = {0};

    for (int32_t i = 0; i < n; i++) {
        mill_status st = MILL_OK;
        in = NULL;
        st = stm_wrapper_build(slot->wrapper, &items[i], &in, &err);
        if (st == MILL_OK) st = stm_wrapper_route(slot->wrapper, in, taken, &err);
        for (int32_t o = 0; o < s->n_outs && st == MILL_OK; o++) {
            const int32_t br = s->outs[o].branch;
            st = stm_inlet_branch(s->inlet, in, br < n_branches && taken[br], &copy);
            if (st == MILL_OK)
                push_out(&s->outs[o], &copy, 1);
            else
                mill_fail(&err, st, "out of memory at router %s", s->name);
        }
        mill_batch_destroy(&in);
        if (st != MILL_OK) {
            drop_items(items, i, n);
            stm_station_fail(s, &err);
            break;
        }
    }
    return n;
}

static mill_status global_send(void *user, mill_batch **b, mill_error *err)
{
    stm_station *s = user;

    const mill_status st = s->store != NULL && s->lasting != NULL ? stm_lasting_store(s, *b, err) : MILL_OK;

    if (st == MILL_OK && s->store != NULL && !s->store->unread) return stm_store_put(s->run, s->store, b, err);
    if (st == MILL_OK) mill_batch_destroy(b); /* nobody reads it */
    return st;
}

static int32_t run_global(stm_station *s, stm_replica_slot *slot, stm_ready *items, int32_t n)
{
    mill_error err = {0};
    mill_status st = MILL_OK;

    if (s->lasting != NULL && n > 0) st = stm_lasting_replay(s, slot->wrapper, &err);
    for (int32_t i = 0; i < n; i++) {
        const bool again = s->lasting != NULL && stm_lasting_accepted(s, items[i].input);
        if (st == MILL_OK && !again)
            st = s->lasting != NULL && s->lasting->gathers
                     ? stm_lasting_gather(s, items[i].input, items[i].batch, &err)
                     : stm_wrapper_accept(slot->wrapper, items[i].input, items[i].batch, &err);
        if (st == MILL_OK && !again && s->lasting != NULL) st = stm_lasting_keep(s, items[i].input, items[i].batch, &err);
        stm_credit_return(s->run->flow, s->node, items[i].batch);
        mill_batch_destroy(&items[i].batch);
    }
    if (st == MILL_OK && n > 0 && atomic_load_explicit(&s->inlet_done, memory_order_acquire)) {
        if (s->lasting != NULL && s->lasting->gathers) st = stm_lasting_give_gathered(s, slot->wrapper, &err);
        if (st == MILL_OK) st = stm_wrapper_finish(slot->wrapper, global_send, s, &err);
        if (st == MILL_OK && s->store != NULL) atomic_store_explicit(&s->store->complete, true, memory_order_release);
        if (st == MILL_OK && s->lasting != NULL) s->lasting->finished = true;
    }
    if (st != MILL_OK) stm_station_fail(s, &err);
    return n;
}

static LOOP int32_t run_sink(stm_station *s, stm_replica_slot *slot, stm_ready *items, int32_t n)
{
    mill_batch *built;
    mill_error err;
    mill_status st = MILL_OK;

    error_reset(&err);
    for (int32_t i = 0; i < n; i++) {
        if (s->lasting != NULL && stm_lasting_drops(s)) { /* written in an earlier run */
            stm_credit_return(s->run->flow, s->node, items[i].batch);
            stm_ready_discard(&items[i]);
            continue;
        }
        built = items[i].batch;
        if (items[i].recipe != NULL) {
            built = NULL;
            st = stm_wrapper_build(slot->wrapper, &items[i], &built, &err);
            if (st != MILL_OK) stm_ready_discard(&items[i]);
        }
        if (st == MILL_OK) st = stm_wrapper_write(slot->wrapper, built, &err);
        if (st == MILL_OK && s->lasting != NULL) stm_lasting_wrote(s, stm_wrapper_marked(slot->wrapper));
        if (st == MILL_OK) stm_credit_return(s->run->flow, s->node, built);
        items[i].batch = NULL;
        mill_batch_destroy(&built);
        if (st != MILL_OK) {
            drop_items(items, i + 1, n);
            break;
        }
    }
    if (st == MILL_OK && n > 0 && atomic_load_explicit(&s->inlet_done, memory_order_acquire)) {
        st = stm_wrapper_finalize(slot->wrapper, &err);
        s->finalized = true;
        if (st == MILL_OK && s->run->env.output != NULL &&
            !atomic_load(&s->dead)) /* else it is whole only as far as the failure let it be */
            st = s->run->env.output(slot->wrapper, STM_OUTPUT_ENDS, NULL, s->run, &err);
        if (st == MILL_OK && s->lasting != NULL) s->lasting->finished = true;
    }
    if (st != MILL_OK) stm_station_fail(s, &err);
    return n;
}

static int32_t run_store(stm_station *s, stm_ready *items, int32_t n)
{
    mill_error err = {0};
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < n; i++) {
        const bool end = items[i].batch->end, again = s->lasting != NULL && stm_lasting_drops(s);
        stm_credit_return(s->run->flow, s->node, items[i].batch);
        if (s->kind == STM_AT_STORE && st == MILL_OK && s->lasting != NULL && !again)
            st = stm_lasting_store(s, items[i].batch, &err);
        if (s->kind == STM_AT_STORE && st == MILL_OK && !again && !s->store->unread)
            st = stm_store_put(s->run, s->store, &items[i].batch, &err);
        if (s->kind == STM_AT_STORE && st == MILL_OK && end) atomic_store_explicit(&s->store->complete, true, memory_order_release);
        if (s->lasting != NULL && st == MILL_OK) {
            s->lasting->items += !again;
            if (end) s->lasting->finished = true;
        }
        mill_batch_destroy(&items[i].batch);
    }
    if (st != MILL_OK) stm_station_fail(s, &err);
    return n;
}

stm_replica_slot *stm_station_claim(stm_station *s)
{
    stm_replica_slot *slot;

    stm_lock_take(&s->lock);
    slot = claim(s, NULL);
    stm_lock_give(&s->lock);
    return slot;
}
void stm_station_release(stm_station *s, stm_replica_slot *slot) { release(s, slot); }

stm_replica_slot *stm_station_await(stm_station *s)
{
    stm_replica_slot *slot = NULL;
    bool closing = false;

    while (slot == NULL && !closing) {
        stm_lock_take(&s->lock);
        slot = claim_any(s, NULL);
        closing = s->closing;
        s->awaited = slot == NULL && !closing;
        stm_lock_give(&s->lock);
        if (slot == NULL && !closing) sched_yield();
    }
    return slot;
}

/* ---- entry ------------------------------------------------------------------------------------------------------- */

static bool has_free_slot(const stm_station *s)
{
    for (int32_t i = 0; i < s->n_slots; i++)
        if (atomic_load_explicit(&s->slots[i].claimed, memory_order_relaxed) == 0) return true;
    return false;
}

/* @p carried: items that come along. */
static bool may_run(const stm_station *s, int32_t carried)
{
    bool free_slot = false;

    if (!atomic_load_explicit(&s->active, memory_order_acquire) || atomic_load_explicit(&s->dead, memory_order_relaxed))
        return false;
    if (atomic_load_explicit(&s->done, memory_order_relaxed))
        return false; /* a poll that came due late would keep all drivers at it */
    if (atomic_load_explicit(&s->run->stop, memory_order_relaxed) == 2) return false;
    if (s->kind == STM_AT_GENERATOR || s->kind == STM_AT_READER) {
        if (atomic_load_explicit(&s->slots[0].claimed, memory_order_relaxed) != 0 ||
            atomic_load_explicit(&s->inlet_done, memory_order_relaxed))
            return false;
        return (s->kind == STM_AT_GENERATOR || stm_store_readable(s)) && room_at(s) > 0;
    }
    if (s->kind == STM_AT_SUBMIT) {
        for (int32_t i = 0; i < s->n_slots; i++) {
            if (atomic_load_explicit(&s->slots[i].claimed, memory_order_relaxed) != 0) continue;
            if (atomic_load_explicit(&s->slots[i].poll, memory_order_acquire) != 0) return true;
            free_slot = free_slot || !stm_wrapper_full(s->slots[i].wrapper);
        }
        return free_slot && atomic_load_explicit(&s->ready, memory_order_acquire) > 0 && !stm_memory_holds_back(s);
    }
    if ((carried == 0 && atomic_load_explicit(&s->ready, memory_order_acquire) <= 0) || stm_memory_holds_back(s)) return false;
    return has_free_slot(s);
}

bool stm_station_runnable(const stm_station *s) { return may_run(s, 0); }

/* Generators with threads of their own sleep for credit, and no driver looks after them. */
static void ring_roots(stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *r = &run->stations[i];
        if (r->own_threads && r->root >= 0 && atomic_load_explicit(&r->asleep, memory_order_relaxed) > 0 && stm_station_runnable(r))
            stm_station_ring(r);
    }
}

static int64_t rows_through(const stm_station *s, const stm_replica_slot *slot)
{
    stm_wrapper_stats n;

    if (slot->wrapper == NULL) return 0;
    n = stm_wrapper_counts(slot->wrapper);
    return s->kind == STM_AT_GENERATOR ? n.rows_out : n.rows_in;
}

/* For who asked for a trace. */
static void note_burst(stm_station *s, const stm_replica_slot *slot, stm_ring *ring, uint64_t began, int32_t items, int64_t rows)
{
    const stm_event e = {.begin = began,
                         .end = stm_ticks(),
                         .place = s->node,
                         .replica = slot->wrapper != NULL ? stm_wrapper_index(slot->wrapper) : -1,
                         .items = items,
                         .rows = rows < INT32_MAX ? (int32_t)rows : INT32_MAX};

    stm_ring_put(ring, &e);
}

/* One short burst in eight reads the clock. Threads may lose each other's counts: nothing depends on which it is. */
static inline bool is_timed_in_turn(stm_station *s)
{
    const uint32_t n = atomic_load_explicit(&s->bursts, memory_order_relaxed) + 1;

    atomic_store_explicit(&s->bursts, n, memory_order_relaxed);
    return (n & 7) == 0 || n < 8;
}

int32_t stm_station_run(stm_station *s, stm_carry *c)
{
    stm_ready items[STM_BURST];
    stm_replica_slot *slot;
    const bool tight = stm_memory_short(s->run);
    const int32_t want = s->own_threads || tight || atomic_load_explicit(&s->parked, memory_order_relaxed) ? 1 : burst_size(s);
    const int64_t cost = atomic_load_explicit(&s->cost_ns, memory_order_relaxed);
    const bool timed = c->ring != NULL || cost > STM_CHEAP_NS || is_timed_in_turn(s);
    uint64_t began;
    int64_t rows = 0;
    int32_t n = 0;

    if (!may_run(s, c->n)) {
        stm_carry_drop(c);
        return 0;
    }
    slot = begin(s, c, items, want, &n);
    if (slot == NULL) return 0;
    began = timed ? stm_ticks() : 0;
    if (__builtin_expect(c->ring != NULL, 0)) rows = rows_through(s, slot);
    switch (s->kind) {
    case STM_AT_GENERATOR: n = run_generator(s, slot, want, c); break;
    case STM_AT_READER: n = run_reader(s, want, c); break;
    case STM_AT_STEP:
        n = stm_wrapper_lane(slot->wrapper) != NULL ? stm_station_overlap(s, slot, items, n, c->ring)
                                                    : run_step(s, slot, items, n, c);
        break;
    case STM_AT_SUBMIT: n = run_submit(s, slot, want); break;
    case STM_AT_ROUTER: n = run_router(s, slot, items, n); break;
    case STM_AT_GLOBAL: n = run_global(s, slot, items, n); break;
    case STM_AT_SINK: n = run_sink(s, slot, items, n); break;
    case STM_AT_STORE:
    case STM_AT_DISCARD: n = run_store(s, items, n); break;
    }
    if (n > 0 && timed) {
        const int64_t each = (int64_t)((double)(stm_ticks() - began) * stm_ns_per_tick()) / n;
        atomic_store_explicit(&s->cost_ns, cost + (each - cost) / 4, memory_order_relaxed);
        if (slot->wrapper != NULL) stm_wrapper_busy(slot->wrapper, each * n);
    } else if (n > 0 && slot->wrapper != NULL) {
        stm_wrapper_busy(slot->wrapper, cost * n);
    }
    if (__builtin_expect(c->ring != NULL, 0) && n > 0) note_burst(s, slot, c->ring, began, n, rows_through(s, slot) - rows);
    if (c->n > 0) {
        c->from = s;
        c->slot = slot;
    } else {
        release(s, slot);
    }
    if (__builtin_expect(s->run->own_roots, 0) && n > 0 && s->inlet != NULL && s->n_outs == 0)
        ring_roots(s->run); /* credit came back */
    if (__builtin_expect(tight, 0)) stm_run_ring_held(s->run);
    return n;
}
