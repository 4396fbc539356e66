/*
 * Batches with rows that ended a process, or may (supervise/suspects.h): the former are nulled and recorded without being run, the
 * latter run in pieces, so that a death says which piece it was.
 */
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "wrapper/lane.h"
#include "wrapper/replica.h"

bool stm_apart_wanted(const stm_wrapper *w)
{
    const mill_batch *b = w->inputs[0];
    stm_key_range keys;

    if (b->rows == 0) return false;
    stm_keys_of(b, &keys);
    return stm_quarantine_meets(w->env->quarantine, w->step->name, STM_DOING_PROCESS, &keys);
}

static int32_t entry_of(const stm_wrapper *w, const mill_batch *b, int64_t row)
{
    int64_t key[STM_RECORD_KEY];

    stm_key_of(b, row, key);
    return stm_quarantine_row(w->env->quarantine, w->step->name, key);
}

/* The failure of a row that is blamed for the end of a process. */
static void blame_of(stm_wrapper *w, int32_t entry, mill_error *e)
{
    const stm_suspect *s = stm_quarantine_entry(w->env->quarantine, entry);

    memset(e, 0, sizeof *e);
    mill_fail(e, s->status, "this row, alone in the step, ends the process: %s", s->cause);
    e->error_class = s->status == MILL_ERR_TIMEOUT ? MILL_CLASS_TRANSIENT : MILL_CLASS_DEVICE;
    mill_error_remedy(e, "It is not tried again in this run directory; a changed step is (docs/supervisor.md)");
    stm_call_blame(w, e, s->status, MILL_PHASE_PROCESS, 0);
}

static bool is_blamed(const stm_wrapper *w, int32_t entry)
{
    return entry >= 0 && atomic_load(&stm_quarantine_entry(w->env->quarantine, entry)->verdict) == STM_BLAMED;
}

/* The rows of @p view from @p first to before @p end are of one entry (-1 = of none): in one piece, or, when guilty, in two. */
static mill_status run_piece(stm_wrapper *w, mill_batch **view, const int64_t *rest, int64_t first, int64_t end, int32_t entry,
                             stm_outcome *o, mill_error *err)
{
    const int64_t half = entry >= 0 && end - first > 1 ? (end - first) / 2 : end - first;
    mill_status st = stm_rows_run(w, view, rest, first, half, NULL, o, err);

    if (st == MILL_OK && first + half < end) st = stm_rows_run(w, view, rest, first + half, end - first - half, NULL, o, err);
    if (st == MILL_OK && entry >= 0) stm_quarantine_clear(w->env->quarantine, entry);
    return st;
}

static mill_status run_pieces(stm_wrapper *w, const int64_t *rest, const int32_t *entry, int64_t n, stm_outcome *o, mill_error *err)
{
    mill_batch *view[64] = {0};
    mill_status st = n > 0 ? stm_view_own(w, rest, n, view) : MILL_OK;

    for (int64_t first = 0, end; first < n && st == MILL_OK; first = end) {
        for (end = first + 1; end < n && entry[end] == entry[first]; end++) {
        }
        st = run_piece(w, view, rest, first, end, entry[first], o, err);
    }
    for (int32_t i = 0; i < w->step->n_inputs; i++) mill_batch_destroy(&view[i]);
    return st;
}

/* Records for the rows that are blamed, and the marks that lead there. */
static mill_status record_blamed(stm_wrapper *w, const int64_t *visible, int64_t n_visible, stm_outcome *o, mill_error *err)
{
    mill_status st = MILL_OK;
    size_t at = 0;

    for (int64_t i = 0; i < n_visible && st == MILL_OK; i++) {
        const int64_t row = visible != NULL ? visible[i] : i;
        const int32_t entry = entry_of(w, w->inputs[0], row);
        mill_error e;
        int64_t id;

        if (!is_blamed(w, entry)) continue;
        blame_of(w, entry, &e);
        if (w->step->policy.on_error == STM_ON_ERROR_STOP) return stm_call_stop(w, &e, w->inputs[0], row, row, err);
        id = stm_call_record(w, &e, w->inputs[0], row, row);
        while (at < o->n && o->parent[at] < row) at++;
        if (at < o->n && o->parent[at] == row) o->error[at] = id != 0 ? id : -1;
        st = stm_call_window(w, 0, 1, err);
    }
    return st;
}

mill_status stm_apart_map(stm_wrapper *w, const int64_t *visible, int64_t n_visible, mill_batch **out, mill_error *err)
{
    const int64_t rows = w->inputs[0]->rows;
    int64_t *rest = stm_malloc((size_t)(n_visible + 1) * sizeof *rest), n = 0;
    int32_t *entry = stm_malloc((size_t)(n_visible + 1) * sizeof *entry);
    stm_outcome o = {0};
    mill_status st = rest != NULL && entry != NULL ? MILL_OK : MILL_ERR_NOMEM;

    for (int64_t i = 0; i < n_visible && st == MILL_OK; i++) {
        const int64_t row = visible != NULL ? visible[i] : i;
        const int32_t e = entry_of(w, w->inputs[0], row);

        if (is_blamed(w, e)) continue;
        rest[n] = row;
        entry[n++] = e;
    }
    if (st == MILL_OK && w->lane != NULL) st = stm_lane_land_inputs(w, err);
    if (st == MILL_OK) st = run_pieces(w, rest, entry, n, &o, err);
    if (st == MILL_OK) st = stm_outcome_weave(&o, rows, rest, n);
    if (st == MILL_OK) st = record_blamed(w, visible, n_visible, &o, err);
    if (st == MILL_OK) {
        stm_count(&w->rows_skipped, rows - n_visible);
        st = stm_merge_general(w, w->inputs, w->step->n_inputs, &o, out);
    }
    if (st == MILL_OK) stm_wrapper_count(w, *out, rows, &o);
    stm_outcome_fini(&o);
    stm_free(rest);
    stm_free(entry);
    return st == MILL_ERR_NOMEM
               ? mill_fail(err, st, "step %s: out of memory for a batch of %lld rows", w->step->said, (long long)rows)
               : st;
}

/* ---- steps with submit ------------------------------------------------------------------------------------------- */

#define LEAST_PAUSE_NS 20000
#define MOST_PAUSE_NS 10000000

bool stm_apart_wanted_flight(const stm_wrapper *w, const stm_flight *f)
{
    stm_key_range keys;

    stm_keys_of(f->view[0], &keys);
    return stm_quarantine_meets(w->env->quarantine, w->step->name, STM_DOING_SUBMIT, &keys);
}

void stm_apart_call(stm_wrapper *w, stm_doing doing)
{
    atomic_store_explicit(&w->record->since_ns, atomic_load_explicit(w->record->clock, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(&w->record->doing, (int32_t)doing, memory_order_release);
}

/* Until the step holds nothing. false in *done: the run is being stopped, or the step waits for something that may take hours. */
static mill_status wait_for_answers(stm_wrapper *w, bool *done, mill_error *err)
{
    struct timespec pause = {0, LEAST_PAUSE_NS};
    mill_status st = MILL_OK;

    for (*done = false; st == MILL_OK;) {
        st = stm_tickets_turn(w, err);
        if (st == MILL_OK) st = stm_wrapper_flush(w, err);
        if (w->tickets == NULL && w->waiting == NULL) {
            *done = st == MILL_OK;
            return st;
        }
        if (stm_wrapper_waits(w) || atomic_load_explicit(&w->replica.stopped, memory_order_relaxed)) return st;
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < MOST_PAUSE_NS) pause.tv_nsec *= 2;
    }
    return st;
}

/* Rows @p rows [n] of @p f (NULL: all of it), with nothing else under way anywhere if they are under suspicion. */
static mill_status answer_alone(stm_wrapper *w, stm_flight *f, const int64_t *rows, int64_t n, bool *done, mill_error *err)
{
    stm_quarantine *q = w->env->quarantine;
    stm_key_range keys;
    stm_hold hold;
    mill_status st = stm_ticket_add(w, f, rows, n, 0, 0);

    if (st != MILL_OK) return mill_fail(err, st, "rows of step %s to be run apart", w->step->name);
    stm_key_of(f->view[0], rows != NULL ? rows[0] : 0, keys.low);
    stm_key_of(f->view[0], rows != NULL ? rows[n - 1] : n - 1, keys.high);
    stm_record_begin(w->record, STM_DOING_NOTHING, w->waiting->view[0], 0, 0); /* it waits: at work it is not */
    hold = stm_quarantine_enter(q, w->step->name, STM_DOING_SUBMIT, &keys);
    atomic_store_explicit(&w->record->alone, hold == STM_HOLD_ALONE, memory_order_relaxed);
    w->apart = true;
    stm_apart_call(w, STM_DOING_POLL); /* between calls, too: it may have threads */
    st = wait_for_answers(w, done, err);
    w->apart = false;
    stm_record_end(w->record); /* before others may begin: or it would not look alone */
    atomic_store_explicit(&w->record->alone, 0, memory_order_relaxed);
    stm_quarantine_leave(q, w->step->name, *done ? STM_DOING_SUBMIT : STM_DOING_NOTHING, &keys, hold);
    return st;
}

/* The rows of one entry, as run_piece. *at: how many of them were submitted. */
static mill_status answer_piece(stm_wrapper *w, stm_flight *f, const int64_t *rows, int64_t n, int32_t entry, int64_t *at,
                                bool *done, mill_error *err)
{
    const bool whole = n == f->rows && entry < 0; /* as it would have been given to the step, not a copy */
    const int64_t half = entry >= 0 && n > 1 ? n / 2 : n;
    mill_status st = answer_alone(w, f, whole ? NULL : rows, half, done, err);

    *at = half;
    if (st == MILL_OK && *done && half < n) {
        st = answer_alone(w, f, rows + half, n - half, done, err);
        *at = n;
    }
    if (st == MILL_OK && *done && entry >= 0) stm_quarantine_clear(w->env->quarantine, entry);
    return st;
}

/* Rows that are blamed are given up; the others, and the entry that says something about each: *n of them. */
static mill_status sort_out(stm_wrapper *w, stm_flight *f, int64_t *rest, int32_t *entry, int64_t *n, mill_error *err)
{
    mill_status st = MILL_OK;

    *n = 0;
    for (int64_t i = 0; i < f->rows && st == MILL_OK; i++) {
        const int32_t e = entry_of(w, f->view[0], i);
        mill_error cause;

        if (!is_blamed(w, e)) {
            rest[*n] = i;
            entry[(*n)++] = e;
            continue;
        }
        blame_of(w, e, &cause);
        if (w->step->policy.on_error == STM_ON_ERROR_STOP) return stm_call_stop(w, &cause, f->view[0], i, i, err);
        st = stm_flight_give_up(w, f, &i, 1, &cause, err);
    }
    return st;
}

mill_status stm_apart_submit(stm_wrapper *w, stm_flight *f, mill_error *err)
{
    int64_t *rest = stm_malloc((size_t)f->rows * sizeof *rest), n = 0, first = 0;
    int32_t *entry = stm_malloc((size_t)f->rows * sizeof *entry);
    mill_status st =
        rest != NULL && entry != NULL
            ? MILL_OK
            : mill_fail(err, MILL_ERR_NOMEM, "step %s: out of memory for a batch of %lld rows", w->step->name, (long long)f->rows);
    bool done = false;

    if (st == MILL_OK) st = sort_out(w, f, rest, entry, &n, err);
    if (st == MILL_OK && n > 0) st = wait_for_answers(w, &done, err); /* what it was given before */
    while (first < n && done && st == MILL_OK) {
        int64_t end = first + 1, at = 0;

        while (end < n && entry[end] == entry[first]) end++;
        st = answer_piece(w, f, rest + first, end - first, entry[first], &at, &done, err);
        first += at;
    }
    if (st == MILL_OK && first < n && !atomic_load_explicit(&w->replica.stopped, memory_order_relaxed)) {
        /* not to be waited for: among others, then */
        st = stm_ticket_add(w, f, rest + first, n - first, 0, 0);
        st = st == MILL_OK ? stm_tickets_offer(w, err) : mill_fail(err, st, "rows of step %s", w->step->name);
    }
    stm_free(rest);
    stm_free(entry);
    return st;
}
