/* Commits: how far everything is, written down. */
#include "exec/durable.h"

#include <string.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "exec/durable_state.h"

#define COMMIT_BYTES ((int64_t)64 << 20)
#define FINISHED UINT64_MAX

/* ---- hooks ------------------------------------------------------------------------------------------------------- */

static stm_root_place *place_at(const struct stm_lasting *l, size_t i) { return &l->places[(l->first + i) % STM_ROOT_PLACES]; }

void stm_lasting_place(stm_station *s, const mill_cursor *cursor, int64_t rows)
{
    struct stm_lasting *l = s->lasting;
    stm_root_place *p;

    stm_lock_take(&s->lock);
    if (l->n == STM_ROOT_PLACES) {
        for (size_t i = 1; 2 * i < STM_ROOT_PLACES; i++) *place_at(l, i) = *place_at(l, 2 * i);
        l->n = STM_ROOT_PLACES / 2;
        l->stride *= 2;
        l->due = place_at(l, l->n - 1)->seq + l->stride;
    }
    if (s->next_seq >= l->due) {
        p = place_at(l, l->n++);
        p->seq = s->next_seq;
        p->rows = rows;
        p->cursor.size = cursor != NULL && cursor->size <= sizeof cursor->bytes ? cursor->size : 0;
        if (p->cursor.size > 0) memcpy(p->cursor.bytes, cursor->bytes, p->cursor.size);
        l->due = p->seq + l->stride;
    }
    stm_lock_give(&s->lock);
}

mill_status stm_lasting_store(stm_station *s, const mill_batch *b, mill_error *err)
{
    return s->lasting->out != NULL ? stm_batch_sink_put(s->lasting->out, b, s->lasting->items, err) : MILL_OK;
}

void stm_lasting_wrote(stm_station *s, bool marked)
{
    struct stm_lasting *l = s->lasting;

    if (marked) {
        l->marks = true;
        l->marked = l->items;
        stm_credit_done(s->run->flow, s->node, l->marked_covered);
    }
    l->items++;
}

bool stm_lasting_accepted(stm_station *s, int32_t input)
{
    stm_kept_input *lane = &s->lasting->lanes[input];

    if (lane->skip == 0) return false;
    lane->skip--;
    return true;
}

mill_status stm_lasting_keep(stm_station *s, int32_t input, const mill_batch *b, mill_error *err)
{
    stm_kept_input *lane = &s->lasting->lanes[input];
    const mill_status st = stm_batch_sink_put(lane->out, b, lane->items, err);

    lane->items += st == MILL_OK;
    return st;
}

mill_status stm_lasting_replay(stm_station *s, stm_wrapper *w, mill_error *err)
{
    const stm_durable *d = s->run->durable;
    mill_status st = MILL_OK;

    if (s->lasting->replayed) return MILL_OK;
    s->lasting->replayed = true;
    for (int32_t i = 0; i < s->n_inputs && st == MILL_OK; i++) {
        stm_batch_source *source = NULL;
        mill_batch *b = NULL;
        uint64_t label;
        st = stm_batch_source_create(d->vault, (size_t)s->lasting->lanes[i].stream, s->run->pool, stm_lane_type(s, i),
                                     s->run->env.n_roots, &source, err);
        while (st == MILL_OK && (st = stm_batch_source_next(source, &b, &label, err)) == MILL_OK && b != NULL) {
            st = s->lasting->gathers ? stm_lasting_gather(s, i, b, err) : stm_wrapper_accept(w, i, b, err);
            mill_batch_destroy(&b);
        }
        stm_batch_source_destroy(&source);
    }
    return st;
}

/* ---- terminals --------------------------------------------------------------------------------------------------- */

/* Nobody may take the run for being at rest while we hold a claim: everything may be waiting for it. */
static void enter(stm_run *run)
{
    atomic_fetch_add(&run->threads, 1);
    while (atomic_load(&run->quiescing) != 0) sched_yield();
}
/* Drivers sleep on unless somebody could run now that a claim is free, or all of them are idle: then one has to look whether the
 * run is at rest. */
static void leave(stm_run *run)
{
    atomic_fetch_sub(&run->threads, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (stm_run_any_runnable(run, true))
        stm_run_ring(run, true);
    else if (atomic_load(&run->idle) >= atomic_load(&run->threads))
        stm_run_ring(run, false);
}

/* The terminal is here, whose claim we hold, or nobody has any more. Whatever it has seen, its readers had given out before. */
static void look(stm_station *s, const mill_cursor *cursor)
{
    struct stm_lasting *l = s->lasting;
    const stm_run *run = s->run;

    l->looked = true;
    l->found.items = l->items;
    l->found.finished = l->finished;
    if (cursor != NULL) l->found.cursor = *cursor;
    stm_credit_done(run->flow, s->node, l->found.covered);
    if (l->marks && !l->finished) { /* the sync was about that place */
        l->found.items = l->marked;
        memcpy(l->found.covered, l->marked_covered, (size_t)stm_flow_roots(run->flow) * sizeof *l->marked_covered);
    }
    for (int32_t r = 0; r < stm_flow_roots(run->flow); r++)
        l->found.given[r] =
            atomic_load_explicit(&run->stations[stm_flow_root_node(run->flow, r)].lasting->given, memory_order_acquire);
    for (int32_t i = 0; i < s->n_inputs && l->lanes != NULL; i++) l->found.lanes[i] = l->lanes[i].items;
}

static mill_status look_at_sink(stm_station *s, stm_replica_slot *slot, mill_error *err)
{
    struct stm_lasting *l = s->lasting;
    mill_cursor cursor = {0};
    mill_status st;

    if (l->finished) {
        look(s, NULL);
        return MILL_OK;
    }
    if (l->at_least_once || (l->marks ? l->marked : l->items) == l->said.items ||
        stm_wrapper_state_of(slot->wrapper) != STM_RUNNING)
        return MILL_OK;
    st = stm_wrapper_sync(slot->wrapper, &cursor, err);
    if (st == MILL_ERR_AGAIN) return MILL_OK;
    if (st == MILL_ERR_UNSUPPORTED) {
        l->at_least_once = true;
        return MILL_OK;
    }
    if (st == MILL_OK) look(s, &cursor);
    return st;
}

static mill_status mark(const stm_station *s, bool complete, mill_error *err)
{
    const struct stm_lasting *l = s->lasting;
    stm_vault *v = s->run->durable->vault;
    mill_status st = MILL_OK;

    if (l->stream >= 0 && (complete || l->lanes == NULL)) st = stm_vault_mark(v, (size_t)l->stream, complete, err);
    for (int32_t i = 0; i < s->n_inputs && l->lanes != NULL && st == MILL_OK; i++) /* a retry gives all of them to it once more */
        st = stm_vault_mark(v, (size_t)l->lanes[i].stream, false, err);
    return st;
}

static void unmark(const stm_station *s)
{
    const struct stm_lasting *l = s->lasting;
    stm_vault *v = s->run->durable->vault;

    if (l->stream >= 0) stm_vault_unmark(v, (size_t)l->stream);
    for (int32_t i = 0; i < s->n_inputs && l->lanes != NULL; i++) stm_vault_unmark(v, (size_t)l->lanes[i].stream);
}

/* How far a terminal is. One that is at work, or failed, is taken to be where it was; but a store is waited for, since without it
 * nothing counts that was read from it. */
static void look_at(stm_station *s)
{
    struct stm_lasting *l = s->lasting;
    const bool done = atomic_load(&s->done); /* then nobody works there any more, and all it did can be seen */
    stm_replica_slot *slot;
    mill_error err = {0};
    mill_status st = MILL_OK;

    l->looked = false;
    slot = done ? &s->slots[0] : s->kind == STM_AT_STORE ? stm_station_await(s) : stm_station_claim(s);
    if (slot == NULL) return;
    if (!atomic_load(&s->dead) || l->finished) { /* else what it has written since is not to be trusted */
        if (s->kind == STM_AT_SINK)
            st = look_at_sink(s, slot, &err);
        else if ((st = mark(s, l->finished, &err)) == MILL_OK)
            look(s, NULL);
    }
    if (!done) stm_station_release(s, slot);
    if (st != MILL_OK) stm_station_fail(s, &err);
}

/* Whether all that a terminal has seen of stored rows goes into this commit. What was stored and is not kept is made again, and
 * need not be the same; and of a global that is at work nothing is kept. */
static bool rests_on_kept(const stm_station *s)
{
    const stm_run *run = s->run;
    const uint64_t roots = stm_flow_stream_of(run->flow, s->node)->roots;

    for (int32_t r = 0; r < stm_flow_roots(run->flow); r++) {
        const stm_station *store = run->stations[stm_flow_root_node(run->flow, r)].lasting->store;
        const stm_reached *kept = store != NULL ? &store->lasting->said : NULL;
        if ((roots >> r & 1) == 0 || kept == NULL || kept->finished) continue;
        if (s->lasting->found.given[r] > (store->kind == STM_AT_GLOBAL ? 0 : kept->items)) return false;
    }
    return true;
}

/* Readers before what they read from: so that a store, looked at later, is as far as they are. Then, stores first, what counts is
 * taken over. */
static void settle(stm_run *run)
{
    for (int32_t i = run->n_stations - 1; i >= 0; i--)
        if (run->stations[i].n_outs == 0) look_at(&run->stations[i]);
    for (int32_t i = 0; i < run->n_stations; i++) {
        struct stm_lasting *l = run->stations[i].lasting;
        if (run->stations[i].n_outs != 0 || !l->looked) continue;
        if (rests_on_kept(&run->stations[i])) {
            const stm_reached found = l->found;
            l->found = l->said;
            l->said = found;
            l->found.cursor = found.cursor; /* a look need not give another */
        } else {
            unmark(&run->stations[i]);
        }
    }
}

/* ---- how far back ------------------------------------------------------------------------------------------------ */

/* The oldest batch of this station's output that anybody needs; FINISHED: nobody needs any. */
static uint64_t needed(const stm_durable *d, const stm_station *s)
{
    uint64_t least = FINISHED;

    for (int32_t o = 0; o < s->n_outs; o++) {
        const uint64_t need = d->need[d->first_input[s->outs[o].to->node] + s->outs[o].input];
        if (need < least) least = need;
    }
    return least;
}

static void checkpoint(stm_durable *d, stm_station *s, uint64_t item)
{
    stm_going_on *p = &d->now[s->node];
    uint64_t *need = &d->need[d->first_input[s->node]];

    if (item == FINISHED || (s->plan_step >= 0 && (stm_wrapper_step(s->slots[0].wrapper)->type->flags & MILL_STATEFUL) != 0 &&
                             s->kind != STM_AT_SINK)) {
        p->item = item == FINISHED ? FINISHED : 0; /* what it knows cannot be had back but by starting over */
        if (item != FINISHED) item = 0;
    }
    if (item == FINISHED) {
        for (int32_t i = 0; i < s->n_inputs; i++) need[i] = FINISHED;
        return;
    }
    stm_lock_take(&s->lock);
    p->item = stm_inlet_checkpoint(s->inlet, item, need, p->checkpoint);
    stm_inlet_forget(s->inlet, item);
    stm_lock_give(&s->lock);
}

static void root_place(stm_durable *d, stm_station *s, uint64_t item)
{
    struct stm_lasting *l = s->lasting;
    stm_going_on *p = &d->now[s->node];
    size_t k;

    p->item = FINISHED;
    if (item == FINISHED) return;
    stm_lock_take(&s->lock);
    p->item = 0;
    p->root = (stm_root_place){0};
    for (k = l->n; k > 1 && place_at(l, k - 1)->seq > item; k--) {}
    if (l->n > 0 && place_at(l, k - 1)->seq <= item) {
        p->root = *place_at(l, k - 1);
        p->item = p->root.seq;
        l->first = (l->first + k - 1) % STM_ROOT_PLACES; /* older ones are wanted never again */
        l->n -= k - 1;
        if (l->n < STM_ROOT_PLACES / 4 && l->stride > 1) l->stride /= 2;
    }
    stm_lock_give(&s->lock);
}

static void find_places(stm_run *run)
{
    stm_durable *d = run->durable;

    for (int32_t i = run->n_stations - 1; i >= 0; i--) {
        stm_station *s = &run->stations[i];
        struct stm_lasting *l = s->lasting;
        stm_going_on *p = &d->now[i];
        p->skip = 0;
        if (s->root >= 0) {
            root_place(d, s, l->finished ? FINISHED : needed(d, s));
        } else if (s->n_outs > 0) {
            checkpoint(d, s, l->finished ? FINISHED : needed(d, s));
        } else if (l->said.finished) {
            checkpoint(d, s, FINISHED);
        } else if (s->kind == STM_AT_GLOBAL) {
            p->item = 0; /* lane by lane */
            for (int32_t k = 0; k < s->n_inputs; k++)
                d->need[d->first_input[i] + k] = l->said.lanes[k] > 0 ? l->said.lanes[k] - 1 : 0;
        } else {
            /* the last item says that the stream ends, so it comes again however far the terminal is */
            const uint64_t to = l->said.items > 0 ? l->said.items - 1 : 0;
            checkpoint(d, s, to);
            p->skip = l->said.items - p->item;
        }
    }
}

/* ---- commits ----------------------------------------------------------------------------------------------------- */

static void fail_run(stm_run *run, const mill_error *err)
{
    stm_durable *d = run->durable;

    d->broken = true;
    pthread_mutex_lock(&run->mutex);
    if (!run->failed) {
        run->failed = true;
        run->first_error = *err;
        if (run->first_error.phase == MILL_PHASE_NONE) run->first_error.phase = MILL_PHASE_PROCESS;
        stm_errors_add(run->errors, &run->first_error, 0, "", "");
    }
    pthread_mutex_unlock(&run->mutex);
    stm_run_stop(run, err->status != MILL_ERR_BUSY);
}

void stm_durable_commit(stm_run *run)
{
    stm_durable *d = run->durable;
    mill_error err = {0};
    mill_status st = MILL_OK;

    if (d == NULL || d->broken) return;
    enter(run);
    settle(run);
    leave(run);
    find_places(run);
    for (int32_t p = 0; p < d->n_parts && st == MILL_OK; p++) {
        d->state.bytes = 0;
        stm_durable_encode(run, p, &d->state);
        st = d->state.failed ? mill_fail(&err, MILL_ERR_NOMEM, "no memory for a commit")
                             : stm_vault_set_state(d->vault, (size_t)p, d->state.data, d->state.bytes, &err);
    }
    if (st == MILL_OK) st = stm_durable_errors_commit(run, &err);
    if (st == MILL_OK) st = stm_manifest_sync(d->manifest, &err);
    if (st == MILL_OK) st = stm_vault_commit(d->vault, &err);
    d->next_ns = stm_now_ns() + d->interval_ns;
    if (st == MILL_OK) stm_durable_progress(run);
    if (st == MILL_OK) return;
    mill_error_context(&err, "writing down how far the run is");
    fail_run(run, &err);
}

void stm_durable_tick(stm_run *run)
{
    stm_durable *d = run->durable;

    if (d == NULL) return;
    stm_owner_tick(d->owner);
    stm_again_tick(run);
    if (stm_now_ns() >= d->next_ns || stm_vault_pending(d->vault) > COMMIT_BYTES) stm_durable_commit(run);
}

int64_t stm_durable_next_ns(const stm_run *run) { return run->durable != NULL ? run->durable->next_ns : INT64_MAX; }
