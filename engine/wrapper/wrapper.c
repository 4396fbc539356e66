#include "wrapper/wrapper.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"
#include "core/log.h"
#include "search/team.h"
#include "wrapper/lane.h"
#include "wrapper/replica.h"

/* ---- life ------------------------------------------------------------------------------------------------------ */

static void move(stm_wrapper *w, stm_wrapper_event event)
{
    stm_wrapper_state s = (stm_wrapper_state)atomic_load_explicit(&w->state, memory_order_relaxed);

    if (stm_wrapper_move(&s, event) == MILL_OK) atomic_store_explicit(&w->state, (int32_t)s, memory_order_release);
}

/* Whether a successful call without outputs leaves the arriving batch exactly as it is. */
static bool is_plain(const mill_step *s)
{
    if (s->n_inputs != 1 || s->n_outputs != 0 || s->n_pass != s->inputs[0].schema.n || s->out.n != s->n_pass) return false;
    if ((s->type->flags & (MILL_EXPANDS | MILL_FILTERS)) != 0) return false;
    for (int32_t i = 0; i < s->n_pass; i++)
        if (s->pass[i].from != s->pass[i].to) return false;
    return true;
}

mill_status stm_wrapper_create(const stm_wrapper_opts *opts, stm_wrapper **out, mill_error *err)
{
    mill_step *s = opts->step;
    stm_wrapper *w = stm_calloc(sizeof *w);
    const int32_t n = s->n_inputs > 0 ? s->n_inputs : 1;
    size_t columns = 0, at = 0;

    if (w == NULL) return mill_fail(err, MILL_ERR_NOMEM, "replica of %s", s->name);
    w->step = s;
    w->env = opts->env;
    w->replica = (mill_replica){
        .step = s, .env = opts->env, .w = w, .index = opts->index, .count = opts->count, .cancel_fd = -1, .done = -1.0};
    w->owner = opts->owner;
    w->root_name = opts->root_name;
    w->record = stm_recorder_add(opts->env->recorder, s->name, opts->root_name, opts->index);
    if (w->record == NULL) {
        static const _Atomic int64_t no_clock;
        w->record = &w->unseen;
        w->unseen.clock = &no_clock;
        snprintf(w->unseen.step, sizeof w->unseen.step, "%s", s->name);
        snprintf(w->unseen.root, sizeof w->unseen.root, "%s", opts->root_name != NULL ? opts->root_name : "");
        w->unseen.replica = opts->index;
    }
    w->root = opts->root;
    w->key_width = opts->key_width;
    w->n_roots = opts->env->n_roots;
    w->rows_left = INT64_MAX;
    w->plain = is_plain(s);
    w->straight = s->n_inputs == 1 && !s->converge && s->policy.stop_of <= 0 && s->policy.batch_timeout_s < 0.0 &&
                  (s->type->flags & (MILL_EXPANDS | MILL_FILTERS)) == 0;
    w->direct = s->type->kind == MILL_GENERATOR && s->out.n == s->n_outputs;
    for (int32_t i = 0; w->direct && i < s->n_outputs; i++) w->direct = s->outputs[i].column == i;
    w->views = stm_calloc((size_t)n * sizeof *w->views);
    w->inputs = stm_calloc((size_t)n * sizeof *w->inputs);
    w->in_types = stm_calloc((size_t)n * sizeof *w->in_types);
    w->in_columns = stm_calloc((size_t)n * sizeof *w->in_columns);
    for (int32_t i = 0; i < s->n_inputs; i++) columns += (size_t)s->inputs[i].schema.n;
    w->type_pool = stm_calloc((columns + 1) * sizeof *w->type_pool);
    if (w->views == NULL || w->inputs == NULL || w->in_types == NULL || w->in_columns == NULL || w->type_pool == NULL) goto fail;
    for (int32_t i = 0; i < s->n_inputs; i++) {
        w->in_types[i] = w->type_pool + at;
        w->in_columns[i] = s->inputs[i].schema.n;
        for (int32_t c = 0; c < s->inputs[i].schema.n; c++) w->type_pool[at++] = s->inputs[i].schema.fields[c].type;
        if (stm_batch_create(opts->env->pool, 0, s->inputs[i].n_used, 0, &w->views[i]) != MILL_OK) goto fail;
    }
    *out = w;
    return MILL_OK;
fail:
    stm_wrapper_destroy(&w);
    return mill_fail(err, MILL_ERR_NOMEM, "replica of %s", s->name);
}

static void unload(stm_wrapper *w)
{
    mill_error e = {0};

    if (stm_call_barred(w, STM_DOING_UNLOAD, NULL, 0, 0, &e)) { /* its rows are through */
        stm_log(STM_WARN, w->step->name, "%s; it is not unloaded", e.msg);
        return;
    }
    if (w->env->quarantine != NULL) w->hold = stm_quarantine_enter(w->env->quarantine, w->step->name, STM_DOING_UNLOAD, NULL);
    atomic_store_explicit(&w->record->alone, w->hold == STM_HOLD_ALONE, memory_order_relaxed);
    stm_record_begin(w->record, STM_DOING_UNLOAD, NULL, 0, 0);
    w->step->type->unload(&w->replica);
    stm_record_end(w->record);
    if (w->env->quarantine != NULL) stm_quarantine_leave(w->env->quarantine, w->step->name, STM_DOING_UNLOAD, NULL, w->hold);
    w->hold = STM_HOLD_NONE;
}

/* What a replica has on devices goes with the step: whoever is loaded next has that memory. */
static void release_step(stm_wrapper *w)
{
    if (!w->owes_unload) return;
    w->owes_unload = false;
    if (w->lane != NULL) stm_lane_settle(w->lane); /* unload lets go of memory that queued work may be using */
    stm_emit_drop(&w->emit);
    if (w->step->type->unload != NULL) unload(w);
    if (w->lane != NULL) stm_lane_retire(w->lane);
    stm_team_close(&w->team);
}

void stm_wrapper_trim(stm_wrapper *w)
{
    if (w->lane != NULL) stm_lane_trim(w->lane);
}

void stm_wrapper_destroy(stm_wrapper **wp)
{
    stm_wrapper *w = *wp;

    if (w == NULL) return;
    stm_wrapper_unload(w);
    release_step(w);
    stm_emit_drop(&w->emit);
    for (int32_t i = 0; i < (w->step->n_inputs > 0 ? w->step->n_inputs : 1); i++) {
        if (w->inputs != NULL) mill_batch_destroy(&w->inputs[i]);
        if (w->views != NULL && w->views[i] != NULL) {
            stm_view_clear(w->views[i]);
            mill_batch_destroy(&w->views[i]);
        }
    }
    mill_batch_destroy(&w->held);
    stm_lane_close(&w->lane);
    stm_team_close(&w->team);
    stm_free(w->views);
    stm_free(w->inputs);
    stm_free(w->in_types);
    stm_free(w->in_columns);
    stm_free(w->type_pool);
    stm_free(w->failing);
    stm_free(w->window);
    if (w->replica.cancel_fd >= 0) close(w->replica.cancel_fd);
    stm_free(w);
    *wp = NULL;
}

mill_status stm_wrapper_load(stm_wrapper *w, mill_error *err)
{
    const mill_step_type *t = w->step->type;
    mill_status st = MILL_OK;

    w->watched = w->env->quarantine != NULL || w->step->policy.batch_timeout_s >= 0.0;
    move(w, STM_ON_START);
    stm_record_begin(w->record, STM_DOING_LOAD, NULL, 0, 0);
    if ((t->flags & MILL_ON_DEVICE) != 0 && w->step->policy.gpus > 0) {
        if (t->kind == MILL_GLOBAL && w->env->team != NULL) st = w->env->team(w, &w->team, w->env->user, err);
        if (t->kind != MILL_GLOBAL && w->env->device != NULL) st = w->env->device(w, &w->lane, w->env->user, err);
    }
    w->owes_unload = st == MILL_OK; /* from here on, also for a half-loaded replica */
    if (st == MILL_OK && t->load != NULL) st = t->load(&w->replica, err);
    if (st == MILL_OK && t->kind == MILL_SINK && w->cursor.size == 0 && w->env->output != NULL)
        st = w->env->output(w, STM_OUTPUT_BEGINS, NULL, w->env->user, err);
    if (st == MILL_OK && t->open != NULL && !w->env->dry_run) st = t->open(&w->replica, &w->cursor, err);
    stm_record_end(w->record);
    /* as late as can be */
    if (st == MILL_OK && stm_fault_fires(STM_FAULT_LOAD)) st = mill_fail(err, MILL_ERR_STEP, "load failed (fault point)");
    if (st == MILL_OK) {
        move(w, STM_ON_LOADED);
        return MILL_OK;
    }
    stm_call_blame(w, err, st, MILL_PHASE_LOAD, 0);
    release_step(w);
    move(w, STM_ON_FAULT);
    return st;
}

void stm_wrapper_run(stm_wrapper *w) { move(w, STM_ON_RUN); }

void stm_wrapper_unload(stm_wrapper *w)
{
    stm_tickets_drop(w);
    move(w, STM_ON_END);     /* RUNNING → DRAINING */
    move(w, STM_ON_STOP);    /* LOADED → DRAINING, NEW → DONE */
    move(w, STM_ON_DRAINED); /* → UNLOADING */
    release_step(w);
    move(w, STM_ON_UNLOADED);
}

void stm_wrapper_fail(stm_wrapper *w)
{
    stm_tickets_drop(w);
    move(w, STM_ON_FAULT);
    release_step(w);
}

void stm_wrapper_cancel(stm_wrapper *w)
{
    if (atomic_exchange_explicit(&w->replica.stopped, true, memory_order_relaxed)) return;
    stm_replica_ring(&w->replica);
}

void stm_wrapper_expire(stm_wrapper *w, int64_t since_ns)
{
    if (atomic_exchange_explicit(&w->replica.expired, since_ns, memory_order_relaxed) == since_ns) return;
    stm_replica_ring(&w->replica);
}

stm_wrapper_state stm_wrapper_state_of(const stm_wrapper *w)
{
    return (stm_wrapper_state)atomic_load_explicit(&w->state, memory_order_acquire);
}
mill_step *stm_wrapper_step(const stm_wrapper *w) { return w->step; }
const mill_replica *stm_wrapper_replica(const stm_wrapper *w) { return &w->replica; }
int32_t stm_wrapper_index(const stm_wrapper *w) { return w->replica.index; }
const struct stm_record *stm_wrapper_record(const stm_wrapper *w) { return w->record; }
void *stm_wrapper_owner(const stm_wrapper *w) { return w->owner; }
struct stm_lane *stm_wrapper_lane(const stm_wrapper *w) { return w->lane; }
void stm_wrapper_busy(stm_wrapper *w, int64_t ns) { stm_count(&w->busy_ns, ns); }
void stm_wrapper_called(stm_wrapper *w, int64_t since_ns)
{
    if (w->step->policy.batch_timeout_s >= 0.0) atomic_store_explicit(&w->call_since, since_ns, memory_order_release);
}
int64_t stm_wrapper_call_since(const stm_wrapper *w) { return atomic_load_explicit(&w->call_since, memory_order_acquire); }

stm_wrapper_stats stm_wrapper_counts(const stm_wrapper *w)
{
#define GET(f) .f = atomic_load_explicit(&w->f, memory_order_relaxed)
    return (stm_wrapper_stats){GET(batches_in),   GET(rows_in),          GET(batches_out), GET(rows_out),
                               GET(rows_dropped), GET(parents_expanded), GET(children),    GET(rows_failed),
                               GET(rows_skipped), GET(retries),          GET(busy_ns)};
#undef GET
}

/* ---- inputs ---------------------------------------------------------------------------------------------------- */

mill_status stm_wrapper_build(stm_wrapper *w, stm_ready *in, mill_batch **out, mill_error *err)
{
    if (in->recipe == NULL) {
        *out = in->batch;
        in->batch = NULL;
        return MILL_OK;
    }
    if (__builtin_expect(w->lane != NULL, 0)) {
        mill_error first = {0};
        const mill_status st =
            stm_ready_build_at(in, stm_lane_site(w->lane, &first), w->env->pool, w->in_types, w->in_columns, out, &first);
        if (st == MILL_OK || st == MILL_ERR_DEVICE) {
            if (st != MILL_OK && err != NULL) *err = first;
            return st;
        }
        /* no row is to blame */
        return stm_ready_build_at(in, stm_lane_site(w->lane, err), w->env->pool, w->in_types, w->in_columns, out, err);
    }
    return stm_ready_build(in, w->env->pool, w->in_types, w->in_columns, out, err);
}

mill_status stm_wrapper_inputs(stm_wrapper *w, stm_ready *in, mill_error *err)
{
    return w->step->converge && in->recipe != NULL ? stm_converge(w, in, err) : stm_wrapper_build(w, in, w->inputs, err);
}

static void drop_inputs(stm_wrapper *w)
{
    for (int32_t i = 0; i < w->step->n_inputs; i++) mill_batch_destroy(&w->inputs[i]);
}

/* ---- map -------------------------------------------------------------------------------------------------------- */

/* Rows of the first emit that the step itself marked as failed: null by imputation, with a record each; with on_error: stop
 * the first of them is the failure. */
static mill_status take_row_errors(stm_wrapper *w, stm_outcome *o, size_t first, mill_error *err)
{
    mill_emit *e = &w->emit;

    for (size_t i = 0; i < e->n_row_errors; i++) {
        stm_row_error *re = &e->row_errors[i];
        const size_t at = first + (size_t)re->row;
        if (at >= o->n || o->source[at] < 0) continue; /* marked twice */
        stm_call_blame(w, &re->error, re->error.status, MILL_PHASE_PROCESS, 0);
        if (w->step->policy.on_error == STM_ON_ERROR_STOP)
            return stm_call_stop(w, &re->error, w->inputs[0], o->parent[at], o->parent[at], err);
        const int64_t id = stm_call_record(w, &re->error, w->inputs[0], o->parent[at], o->parent[at]);
        o->source[at] = -1;
        o->error[at] = id != 0 ? id : -1;
    }
    return MILL_OK;
}

/* Makes outcome rows of what the last successful call emitted. visible: input row of each submitted row, NULL = the
 * same; base: first submitted row. */
static mill_status take_emitted(stm_wrapper *w, stm_outcome *o, const int64_t *visible, int64_t base, int64_t rows, mill_error *err)
{
    mill_emit *e = &w->emit;
    const size_t before = o->n;
    mill_status st = MILL_OK;

    if (e->passed)
        for (int64_t i = 0; i < rows && st == MILL_OK; i++) {
            const int64_t r = visible != NULL ? visible[base + i] : base + i;
            st = stm_outcome_add(o, o->part_rows + i, r, 0);
        }
    else {
        int64_t at = 0;
        for (size_t p = 0; p < e->n_parts && st == MILL_OK; p++) {
            const int64_t n = e->parts[p].batch->rows, first = o->part_rows;
            const int64_t *parent = e->parts[p].parent != NULL ? mill_buffer_data(e->parts[p].parent) : NULL;
            for (int64_t i = 0; i < n && st == MILL_OK; i++) {
                const int64_t sub = base + (parent != NULL ? parent[i] : at + i);
                st = stm_outcome_add(o, first + i, visible != NULL ? visible[sub] : sub, 0);
            }
            at += n;
            if (st == MILL_OK) st = stm_outcome_part(o, &e->parts[p]);
        }
    }
    if (st == MILL_OK && e->n_row_errors > 0) st = take_row_errors(w, o, before, err);
    stm_emit_drop(e);
    return st;
}

/*
 * Device memory: after a call that it did not suffice for, calls have fewer rows, and slowly more again.
 *
 *      did not fit with n rows    at most what has fitted since, if that is more than n / 2, else n / 2
 *      PATIENCE calls fitted      a quarter more; each time that this was too much the patience doubles, until it is not
 *      whole batches fit again    no limit
 */
enum { PATIENCE = 32, MOST_PATIENCE = 4096 };

static void did_not_fit(stm_wrapper *w, int64_t rows)
{
    const bool tried = w->most_rows > 0 && w->fit_rows > 0 && w->fit_rows < rows; /* more than before, and too much */

    w->most_rows = tried && w->fit_rows > rows / 2 ? w->fit_rows : rows > 1 ? rows / 2 : 1;
    if (!tried) w->fit_rows = 0;
    w->patience = tried && w->patience < MOST_PATIENCE ? 2 * w->patience : w->patience > 0 ? w->patience : PATIENCE;
    w->fitted = 0;
}

static void did_fit(stm_wrapper *w, int64_t rows)
{
    if (rows > w->fit_rows && w->fit_rows > 0) w->patience = PATIENCE;
    if (rows > w->fit_rows) w->fit_rows = rows;
    if (rows < w->most_rows || ++w->fitted < w->patience) return; /* the rest of a batch says nothing */
    w->fitted = 0;
    w->most_rows += w->most_rows / 4 + 1;
}

/* Runs rows [first, first + rows) of the submitted rows, bisecting where the policy says so. view[] are whole. @p failed: what the
 * first call with all of them came to, when it was made already; else NULL. */
mill_status stm_rows_run(stm_wrapper *w, mill_batch **view, const int64_t *visible, int64_t first, int64_t rows,
                         const mill_error *failed, stm_outcome *o, mill_error *err)
{
    const int32_t n_in = w->step->n_inputs;
    const int64_t all = view[0]->rows;
    mill_batch *cut[64], **in = view;
    mill_error e = {0};
    mill_status st = MILL_OK;
    int32_t attempt = 0, made = 0;
    int64_t id, good = 0;
    bool less;

    if (rows == 0) return MILL_OK;
    if (w->most_rows > 0 && failed == NULL && rows > w->most_rows) { /* in parts that may fit */
        for (int64_t done = 0, part; done < rows && st == MILL_OK; done += part) {
            part = w->most_rows > 0 && w->most_rows < rows - done ? w->most_rows : rows - done;
            st = stm_rows_run(w, view, visible, first + done, part, NULL, o, err);
        }
        return st;
    }
    if (first != 0 || rows != all) { /* the whole batch needs no cutting */
        for (; made < n_in && st == MILL_OK; made++) st = stm_batch_slice(view[made], first, rows, &cut[made]);
        if (st != MILL_OK) {
            made--;
            goto done;
        }
        in = cut;
    }
    for (;; attempt++) {
        memset(&e, 0, sizeof e);
        if (attempt == 0 && failed != NULL) {
            e = *failed;
            st = e.status;
        } else {
            st = stm_call_process(w, in, &e);
        }
        if (st == MILL_OK) break;
        if (st == MILL_ERR_DEVICE_MEM && rows == 1 && w->lane != NULL && stm_lane_await_room(w)) {
            failed = NULL;
            attempt--; /* the row has not been tried yet */
            continue;
        }
        stm_call_blame(w, &e, st, MILL_PHASE_PROCESS, attempt);
        if (stm_call_told_to_stop(w, st) || !stm_call_retry(w, &e, attempt)) break;
    }
    if (st == MILL_OK) {
        const int64_t marked = (int64_t)w->emit.n_row_errors;
        if (w->most_rows > 0) did_fit(w, rows);
        good = rows > marked ? rows - marked : 0;
        st = take_emitted(w, o, visible, first, rows, err);
        if (st == MILL_OK) st = stm_call_window(w, good, rows - good, err);
        goto done;
    }
    /* a lost device fails every batch: no fault of rows */
    if (st == MILL_ERR_NOT_FINISHED || st == MILL_ERR_DEVICE || stm_call_told_to_stop(w, st)) {
        if (err != NULL) *err = e;
        if (st == MILL_ERR_DEVICE) atomic_store(&w->record->doing, STM_DOING_PROCESS); /* for the recorder it is still in there */
        goto done;
    }
    less = st == MILL_ERR_DEVICE_MEM && rows > 1; /* may fit, whatever on_error says */
    if (w->step->policy.on_error == STM_ON_ERROR_STOP && !less) {
        st = stm_call_stop(w, &e, in[0], 0, rows - 1, err);
        goto done;
    }
    if (st == MILL_ERR_DEVICE_MEM) did_not_fit(w, rows);
    if (less || (w->step->policy.on_error == STM_ON_ERROR_ISOLATE && rows > 1)) {
        const int64_t half = st == MILL_ERR_DEVICE_MEM ? w->most_rows : rows / 2;
        st = stm_rows_run(w, view, visible, first, half, NULL, o, err);
        if (st == MILL_OK) st = stm_rows_run(w, view, visible, first + half, rows - half, NULL, o, err);
        goto done;
    }
    id = stm_call_record(w, &e, in[0], 0, rows - 1);
    st = MILL_OK;
    for (int64_t i = 0; i < rows && st == MILL_OK; i++)
        st = stm_outcome_add(o, -1, visible != NULL ? visible[first + i] : first + i, id != 0 ? id : -1);
    if (st == MILL_OK) st = stm_call_window(w, 0, rows, err);
done:
    for (int32_t i = 0; i < made; i++) mill_batch_destroy(&cut[i]);
    return st;
}

/* Rows that the step does not get because an input of theirs is null by imputation keep their place. */
mill_status stm_outcome_weave(stm_outcome *o, int64_t rows, const int64_t *visible, int64_t n_visible)
{
    stm_outcome w = {0};
    size_t at = 0;
    int64_t v = 0;
    mill_status st = MILL_OK;

    for (int64_t r = 0; r < rows && st == MILL_OK; r++) {
        if (v < n_visible && visible[v] == r) {
            v++;
            for (; at < o->n && o->parent[at] == r && st == MILL_OK; at++)
                st = stm_outcome_add(&w, o->source[at], r, o->error[at]);
        } else {
            st = stm_outcome_add(&w, -1, r, -1);
        }
    }
    if (st != MILL_OK) {
        stm_outcome_fini(&w);
        return st;
    }
    stm_free(o->source);
    stm_free(o->parent);
    stm_free(o->error);
    o->source = w.source;
    o->parent = w.parent;
    o->error = w.error;
    o->n = w.n;
    o->cap = w.cap;
    return MILL_OK;
}

void stm_wrapper_count(stm_wrapper *w, const mill_batch *out, int64_t in_rows, const stm_outcome *o)
{
    stm_count(&w->batches_in, 1);
    stm_count(&w->rows_in, in_rows);
    stm_count(&w->batches_out, 1);
    stm_count(&w->rows_out, out->rows);
    if (o == NULL || (w->step->type->flags & (MILL_EXPANDS | MILL_FILTERS)) == 0) return;
    int64_t seen = 0, expanded = 0, children = 0;
    for (size_t i = 0; i < o->n; i++) {
        const bool more = i + 1 < o->n && o->parent[i + 1] == o->parent[i], again = i > 0 && o->parent[i - 1] == o->parent[i];
        seen += !again;
        expanded += more && !again;
        children += more || again;
    }
    stm_count(&w->rows_dropped, in_rows - seen);
    stm_count(&w->parents_expanded, expanded);
    stm_count(&w->children, children);
}

/* The way through when the first plain call does not settle it: hidden rows, several emits, filters, failures. */
static mill_status map_slow(stm_wrapper *w, const int64_t *visible, int64_t n_visible, const mill_error *failed, mill_batch **out,
                            mill_error *err)
{
    const int32_t n_in = w->step->n_inputs;
    const int64_t rows = w->inputs[0]->rows;
    mill_batch *view[64] = {0};
    stm_outcome o = {0};
    mill_status st;

    st = stm_view_own(w, visible, n_visible, view);
    if (st == MILL_OK) st = stm_rows_run(w, view, visible, 0, n_visible, failed, &o, err);
    if (st == MILL_OK && visible != NULL) {
        stm_count(&w->rows_skipped, rows - n_visible);
        st = stm_outcome_weave(&o, rows, visible, n_visible);
    }
    if (st == MILL_OK) st = stm_merge_general(w, w->inputs, n_in, &o, out);
    if (st == MILL_OK) stm_wrapper_count(w, *out, rows, &o);
    for (int32_t i = 0; i < n_in; i++) mill_batch_destroy(&view[i]);
    stm_outcome_fini(&o);
    return st == MILL_ERR_NOMEM
               ? mill_fail(err, st, "step %s: out of memory while merging %lld rows", w->step->said, (long long)rows)
               : st;
}

static mill_status map_failed(stm_wrapper *w, mill_status st, int64_t rows, mill_error *err)
{
    drop_inputs(w);
    if (st == MILL_ERR_NOMEM) mill_fail(err, st, "step %s: out of memory for a batch of %lld rows", w->step->said, (long long)rows);
    return stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

/* What a call with all rows of the inputs came to: @p st, w->emit and w->error. */
static mill_status map_called(stm_wrapper *w, mill_status st, mill_batch **out, mill_error *err)
{
    const mill_step *s = w->step;
    mill_batch *head = w->inputs[0];
    const int64_t rows = head->rows;
    mill_error e;

    if (__builtin_expect(w->error.status != MILL_OK, 0)) { /* leave it clean: clearing 1.5 KiB per batch would show */
        e = w->error;
        memset(&w->error, 0, sizeof w->error);
    } else if (st != MILL_OK) {
        memset(&e, 0, sizeof e);
    }
    if (st == MILL_OK && (w->emit.passed || w->emit.n_parts == 1) && w->emit.n_row_errors == 0) {
        mill_batch *result = w->emit.n_parts == 1 ? w->emit.parts[0].batch : NULL;
        if (w->plain) {
            *out = head;
            w->inputs[0] = NULL;
        } else if ((st = stm_merge_fast(w, w->inputs, s->n_inputs, result, out)) != MILL_OK) {
            stm_emit_drop(&w->emit);
            goto fail;
        }
        if (result != NULL) mill_batch_destroy(&w->emit.parts[0].batch);
        w->emit.n_parts = 0;
        stm_wrapper_count(w, *out, rows, NULL);
        if (s->policy.stop_of > 0 && (st = stm_call_window(w, rows, 0, err)) != MILL_OK) mill_batch_destroy(out);
        return st;
    }
    if (st == MILL_OK) { /* several emits, or rows marked as failed: once more through the general case would call twice */
        const int64_t marked = (int64_t)w->emit.n_row_errors;
        stm_outcome o = {0};
        if (w->lane != NULL && (st = stm_lane_land_inputs(w, err)) != MILL_OK) goto fail;
        st = take_emitted(w, &o, NULL, 0, rows, err);
        if (st == MILL_OK) st = stm_call_window(w, rows > marked ? rows - marked : 0, marked < rows ? marked : rows, err);
        if (st == MILL_OK) st = stm_merge_general(w, w->inputs, s->n_inputs, &o, out);
        if (st == MILL_OK) stm_wrapper_count(w, *out, rows, &o);
        stm_outcome_fini(&o);
        if (st != MILL_OK) goto fail;
        return MILL_OK;
    }
    /* failed: the general case tries again where the policy allows, and imputes */
    stm_call_blame(w, &e, st, MILL_PHASE_PROCESS, 0);
    if (w->lane != NULL && (st = stm_lane_land_inputs(w, err)) != MILL_OK) goto fail;
    if ((st = map_slow(w, NULL, rows, &e, out, err)) == MILL_OK) return MILL_OK;
fail:
    return map_failed(w, st, rows, err);
}

mill_status stm_wrapper_map(stm_wrapper *w, stm_ready *in, mill_batch **out, mill_error *err)
{
    const mill_step *s = w->step;
    mill_batch *head;
    int64_t *visible = NULL, n_visible, rows;
    bool flagged = false;
    mill_status st;

    if ((st = stm_wrapper_inputs(w, in, err)) != MILL_OK) return st;
    head = w->inputs[0];
    rows = head->rows;
    if (rows == 0) { /* coverage only: nothing for the step to see */
        if (w->plain) {
            *out = head;
            w->inputs[0] = NULL;
            return MILL_OK;
        }
        st = stm_merge_fast(w, w->inputs, s->n_inputs, NULL, out);
        if (st == MILL_OK && (*out)->keys.width < w->key_width)
            (*out)->keys.width = (*out)->keys.tuples == NULL ? 1 : (*out)->keys.width;
        if (st != MILL_OK) drop_inputs(w);
        return st;
    }
    for (int32_t i = 0; i < s->n_inputs; i++) flagged = flagged || w->inputs[i]->imputed != NULL;
    if (flagged && (st = stm_visible_rows(w, w->inputs, s->n_inputs, &visible, &n_visible)) != MILL_OK) goto fail;
    if (__builtin_expect(w->env->quarantine != NULL, 0) && stm_apart_wanted(w)) {
        st = stm_apart_map(w, visible, visible != NULL ? n_visible : rows, out, err);
        stm_free(visible);
        if (st == MILL_OK) return MILL_OK;
        goto fail;
    }
    /* whole batches fit again */
    if (__builtin_expect(w->most_rows > 0, 0) && rows <= w->most_rows && w->fit_rows >= rows) w->most_rows = 0;
    if (visible == NULL && (s->type->flags & (MILL_EXPANDS | MILL_FILTERS)) == 0 && w->most_rows == 0) {
        for (int32_t i = 0; i < s->n_inputs; i++) stm_view_fill(w, i, w->inputs[i], w->views[i]);
        return map_called(w, stm_call_process(w, w->views, &w->error), out, err);
    }
    st = w->lane == NULL ? MILL_OK : stm_lane_land_inputs(w, err);
    if (st == MILL_OK) st = map_slow(w, visible, visible != NULL ? n_visible : rows, NULL, out, err);
    stm_free(visible);
    if (st == MILL_OK) return MILL_OK;
fail:
    return map_failed(w, st, rows, err);
}

/* A burst in one pass. Nearly every item is one batch as it arrived, of which nothing is hidden from the step, for one call that
 * succeeds: that is done here, in the order of the general way, which takes over wherever an item or a call is anything else. */
mill_status stm_wrapper_map_all(stm_wrapper *w, stm_ready *in, int32_t n, mill_batch **out, int32_t *done, mill_error *err)
{
    const bool straight =
        w->straight && w->lane == NULL && (stm_fault_kinds & STM_FAULT_PROCESS) == 0 && w->env->quarantine == NULL;
    const stm_step_input *si = w->step->inputs;
    mill_batch *view = w->views[0];
    mill_status (*const process)(mill_replica *, mill_batch *const *, size_t, mill_emit *, mill_error *) = w->step->type->process;
    int64_t passed = 0, rows = 0;
    int32_t i = 0;
    mill_status st = MILL_OK;

    for (; i < n; i++) {
        mill_batch *b = in[i].batch;
        if (!straight || in[i].recipe != NULL || b->rows == 0 || b->imputed != NULL || w->most_rows > 0) {
            if ((st = stm_wrapper_map(w, &in[i], &out[i], err)) != MILL_OK) break;
            continue;
        }
        stm_view_fill_one(si, b, view);
        stm_emit_begin(&w->emit, &w->replica, b->rows, INT64_MAX);
        stm_record_begin(w->record, STM_DOING_PROCESS, b, 0, 0);
        st = process(&w->replica, w->views, 1, &w->emit, &w->error);
        stm_record_end(w->record);
        if (__builtin_expect(st == MILL_OK && w->emit.passed && w->plain && w->error.status == MILL_OK && w->emit.n_row_errors == 0,
                             1)) {
            out[i] = b;
            passed++;
            rows += b->rows;
            continue;
        }
        w->inputs[0] = b;
        in[i].batch = NULL;
        st = map_called(w, stm_call_settle(w, b->rows, st, &w->error), &out[i], err);
        if (st != MILL_OK) break;
    }
    if (passed > 0) {
        stm_count(&w->batches_in, passed);
        stm_count(&w->rows_in, rows);
        stm_count(&w->batches_out, passed);
        stm_count(&w->rows_out, rows);
    }
    *done = i;
    return st;
}

/* ---- generate --------------------------------------------------------------------------------------------------- */

void stm_wrapper_limit(stm_wrapper *w, int64_t rows) { w->rows_left = rows; }
void stm_wrapper_choose(stm_wrapper *w, const stm_row_choice *choice) { w->choice = choice; }

mill_status stm_mark_rows(stm_wrapper *w, mill_batch *b, mill_error *err)
{
    mill_emit *e = &w->emit;
    mill_status st = MILL_OK;

    for (size_t i = 0; i < e->n_row_errors && st == MILL_OK; i++) {
        stm_row_error *re = &e->row_errors[i];
        int64_t id;
        stm_call_blame(w, &re->error, re->error.status, MILL_PHASE_PROCESS, 0);
        id = stm_call_record(w, &re->error, b, re->row, re->row);
        st = stm_batch_impute(b, -1, re->row, 1, id);
        for (int32_t c = 0; c < b->n_columns && st == MILL_OK; c++) st = stm_batch_impute(b, c, re->row, 1, id);
    }
    e->n_row_errors = 0;
    return st == MILL_OK ? st : mill_fail(err, st, "error marks of step %s", w->step->said);
}

/* Only what is used: 256 bytes twice per batch would show, and so does a copy of unknown length (30 cycles). Small ones are the
 * rule. */
static void copy_cursor(mill_cursor *to, const mill_cursor *from)
{
    to->size = from->size;
    if (from->size <= 32)
        memcpy(to->bytes, from->bytes, 32);
    else
        memcpy(to->bytes, from->bytes, sizeof to->bytes);
}

/* One call of the step: what it emits is in w->emit, its failure in w->error; *cursor and *last are as it left them. */
static mill_status call_generate(stm_wrapper *w, int64_t max_rows, mill_cursor *cursor, bool *last)
{
    mill_status st;

    copy_cursor(cursor, &w->cursor); /* a failed attempt leaves no trace */
    stm_emit_begin(&w->emit, &w->replica, -1, max_rows);
    *last = max_rows == 0;
    if (max_rows == 0) return MILL_OK;
    if (stm_fault_fires(STM_FAULT_PROCESS)) return mill_fail(&w->error, MILL_ERR_STEP, "generate failed (fault point)");
    if (stm_call_barred(w, STM_DOING_GENERATE, NULL, w->next_row, max_rows, &w->error)) return MILL_ERR_STEP;
    stm_call_enter_rows(w, STM_DOING_GENERATE, NULL, w->next_row, max_rows);
    st = w->step->type->generate(&w->replica, max_rows, cursor, last, &w->emit, &w->error);
    st = stm_call_over(w, st, &w->error);
    if (__builtin_expect(st == MILL_OK && cursor->size > sizeof cursor->bytes, 0))
        st = mill_fail(&w->error, MILL_ERR_STEP, "generate gave a cursor of %u bytes; %zu are the most", cursor->size,
                       sizeof cursor->bytes);
    return st;
}

/* As often as the policy says. *attempts: how many calls failed. */
static mill_status try_generate(stm_wrapper *w, int64_t max_rows, mill_cursor *cursor, bool *last, int32_t *attempts,
                                mill_error *err)
{
    for (int32_t attempt = 0;; attempt++) {
        const mill_status st = call_generate(w, max_rows, cursor, last);

        *attempts = attempt;
        if (__builtin_expect(st == MILL_OK && w->error.status == MILL_OK, 1)) return MILL_OK;
        mill_error e = w->error;
        memset(&w->error, 0, sizeof w->error);
        if (st == MILL_OK) return MILL_OK; /* it recovered from what it told */
        stm_call_blame(w, &e, st, MILL_PHASE_PROCESS, attempt);
        stm_emit_drop(&w->emit);
        if (stm_call_retry(w, &e, attempt)) continue;
        if (err != NULL) *err = e;
        return st;
    }
}

/* The batch of the stream out of what was emitted (NULL: nothing), with the keys of the root's next rows. */
static mill_status batch_of_root(stm_wrapper *w, mill_batch *emitted, mill_batch **out, mill_error *err)
{
    const mill_step *s = w->step;

    if (emitted != NULL && w->direct && emitted->n_roots >= w->n_roots) {
        w->emit.n_parts = 0;
        emitted->keys = (stm_keys){.first = w->next_row, .width = 1};
        *out = emitted; /* its columns are in their places already */
        return MILL_OK;
    }
    const mill_status st = stm_batch_create(w->env->pool, emitted != NULL ? emitted->rows : 0, s->out.n, w->n_roots, out);
    if (st != MILL_OK) return mill_fail(err, st, "batch of generator %s", s->name);
    (*out)->keys.first = w->next_row;
    for (int32_t i = 0; emitted != NULL && i < s->n_outputs; i++)
        if (emitted->columns[i] != NULL) (*out)->columns[s->outputs[i].column] = mill_column_ref(emitted->columns[i]);
    return MILL_OK;
}

mill_status stm_wrapper_generate(stm_wrapper *w, int64_t max_rows, mill_batch **out, mill_error *err)
{
    mill_batch *emitted, *b = NULL;
    mill_cursor cursor;
    mill_status st;
    bool last;
    int64_t made;
    int32_t attempts;

    *out = NULL;
    if (w->ended) return MILL_OK;
    if (max_rows > w->rows_left) max_rows = w->rows_left;
    if (w->step->batch_rows > 0 && max_rows > w->step->batch_rows) max_rows = w->step->batch_rows;
    if ((st = try_generate(w, max_rows, &cursor, &last, &attempts, err)) != MILL_OK) return st;
    emitted = w->emit.n_parts > 0 ? w->emit.parts[0].batch : NULL;
    if (emitted == NULL) last = true; /* returning without rows ends the stream, said or not */
    if ((st = batch_of_root(w, emitted, &b, err)) != MILL_OK) goto fail;
    made = b->rows;
    if (__builtin_expect(w->choice != NULL, 0) && (st = stm_choose_rows(w, &b, err)) != MILL_OK) goto fail;
    if ((w->emit.n_row_errors > 0) | (w->step->policy.stop_of > 0)) {
        const int64_t marked = (int64_t)w->emit.n_row_errors;
        if ((st = stm_mark_rows(w, b, err)) != MILL_OK) goto fail;
        if ((st = stm_call_window(w, b->rows > marked ? b->rows - marked : 0, marked, err)) != MILL_OK) goto fail;
    }
    stm_emit_drop(&w->emit);
    copy_cursor(&w->cursor, &cursor);
    w->next_row += made;
    w->rows_left -= made;
    b->end = w->ended = last || w->rows_left == 0 || w->env->dry_run;
    b->frontier[0] = w->next_row;
    b->covered[w->root] = w->next_row;
    stm_count(&w->batches_out, 1);
    stm_count(&w->rows_out, b->rows);
    *out = b;
    return MILL_OK;
fail:
    stm_emit_drop(&w->emit);
    mill_batch_destroy(&b);
    return stm_call_blame(w, err, st, MILL_PHASE_PROCESS, attempts);
}
