/*
 * Batches with rows that ended a process, or may (supervise/suspects.h): the former are nulled and recorded without being run, the latter
 * run in pieces, so that a death says which piece it was.
 */
#include <string.h>

#include "core/alloc.h"
#include "wrapper/lane.h"
#include "wrapper/replica.h"

bool stm_apart_wanted(const stm_wrapper *w)
{
    const mill_batch *b = w->inputs[0];
    stm_key_range keys;

    if (b->rows == 0) return false;
    stm_key_of(b, 0, keys.low);
    stm_key_of(b, b->rows - 1, keys.high);
    return stm_quarantine_meets(w->env->quarantine, w->step->name, &keys);
}

static int32_t entry_of(const stm_wrapper *w, int64_t row)
{
    int64_t key[STM_RECORD_KEY];

    stm_key_of(w->inputs[0], row, key);
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
        const int32_t entry = entry_of(w, row);
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
        const int32_t e = entry_of(w, row);

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
               ? mill_fail(err, st, "step %s: out of memory for a batch of %lld rows", w->step->name, (long long)rows)
               : st;
}
