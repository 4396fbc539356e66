/* Calls into routers, globals and sinks. */
#include <string.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "wrapper/replica.h"

struct mill_route {
    bool *taken;
    size_t n, chosen;
};

mill_status mill_route_to(mill_route *out, size_t i, mill_error *err)
{
    if (i >= out->n) return mill_fail(err, MILL_ERR_INVALID, "router chose branch %zu; there are %zu", i, out->n);
    out->chosen += !out->taken[i];
    out->taken[i] = true;
    return MILL_OK;
}

/* Rows that no branch was chosen for go to the first branch, marked: dropped rows would be lost rows. One record per run of rows
 * that the router was shown. */
static mill_status route_failed(stm_wrapper *w, mill_batch *b, const int64_t *visible, int64_t n, const mill_error *e)
{
    mill_status st = MILL_OK;

    for (int64_t i = 0, end; i < n && st == MILL_OK; i = end) {
        const int64_t first = visible != NULL ? visible[i] : i;
        for (end = i + 1; end < n && (visible == NULL || visible[end] == first + end - i); end++) {
        }
        st = stm_batch_impute(b, -1, first, end - i, stm_call_record(w, e, b, first, first + end - i - 1));
    }
    return st;
}

/* Calls the router on @p view, what it is shown of @p in, and again as `retries` has it. */
static mill_status route_call(stm_wrapper *w, const mill_batch *in, const mill_batch *view, mill_route *route, mill_error *e)
{
    mill_status st;

    for (int32_t attempt = 0;; attempt++) {
        memset(route->taken, 0, route->n * sizeof *route->taken);
        route->chosen = 0;
        memset(e, 0, sizeof *e);
        if (stm_fault_fires(STM_FAULT_PROCESS))
            st = mill_fail(e, MILL_ERR_STEP, "route failed (fault point)");
        else if (stm_call_barred(w, STM_DOING_ROUTE, in, 0, 0, e))
            st = MILL_ERR_STEP;
        else {
            stm_call_enter(w, STM_DOING_ROUTE, in);
            st = w->step->type->route(&w->replica, view, route, e);
            st = stm_call_over(w, st, e);
        }
        if (st == MILL_OK && route->chosen == 0) st = mill_fail(e, MILL_ERR_STEP, "the router chose no branch");
        if (st == MILL_OK) return st;
        stm_call_blame(w, e, st, MILL_PHASE_PROCESS, attempt);
        if (stm_call_told_to_stop(w, st) || !stm_call_retry(w, e, attempt)) return st;
    }
}

/* @p visible [n]: the rows of @p b that are in @p view; NULL = all. */
static mill_status route_rows(stm_wrapper *w, mill_batch *b, const mill_batch *view, const int64_t *visible, int64_t n,
                              mill_route *route, mill_error *err)
{
    mill_error e;
    mill_status st = route_call(w, b, view, route, &e);
    const bool failed = st != MILL_OK;

    if (stm_call_told_to_stop(w, st)) { /* no fault of the rows: the next run routes them */
        if (err != NULL) *err = e;
        return st;
    }
    if (failed && w->step->policy.on_error == STM_ON_ERROR_STOP)
        return stm_call_stop(w, &e, b, visible != NULL ? visible[0] : 0, visible != NULL ? visible[n - 1] : n - 1, err);
    stm_count(&w->batches_out, 1);
    stm_count(&w->rows_out, b->rows);
    if (!failed) return w->step->policy.stop_of > 0 ? stm_call_window(w, n, 0, err) : MILL_OK;
    memset(route->taken, 0, route->n * sizeof *route->taken);
    route->taken[0] = true;
    if ((st = route_failed(w, b, visible, n, &e)) != MILL_OK)
        return mill_fail(err, st, "error marks of router %s", w->step->said);
    return stm_call_window(w, 0, n, err);
}

mill_status stm_wrapper_route(stm_wrapper *w, const mill_batch *in, bool *taken, mill_error *err)
{
    mill_batch *b = (mill_batch *)in, *shown = NULL; /* ours: the caller owns it and lends it for routing */
    mill_route route = {taken, (size_t)w->step->n_branches, 0};
    int64_t *visible = NULL, n = in->rows;
    mill_status st = MILL_OK;

    stm_count(&w->batches_in, 1);
    stm_count(&w->rows_in, in->rows);
    memset(taken, 0, route.n * sizeof *taken);
    if (in->rows == 0) return MILL_OK;
    if (in->imputed != NULL) st = stm_visible_rows(w, &b, 1, &visible, &n);
    stm_view_fill(w, 0, in, w->views[0]);
    if (st == MILL_OK && visible != NULL && n > 0) st = stm_view_gather(w, 0, w->views[0], visible, n, &shown);
    if (st != MILL_OK) {
        mill_fail(err, st, "rows that router %s is shown", w->step->said);
    } else if (n > 0) {
        st = route_rows(w, b, shown != NULL ? shown : w->views[0], visible, n, &route, err);
    } else { /* nothing to choose by: they go where those go for which no branch was chosen, without a new error */
        taken[0] = true;
        stm_count(&w->batches_out, 1);
        stm_count(&w->rows_out, in->rows);
    }
    if (st == MILL_OK) stm_count(&w->rows_skipped, in->rows - n);
    mill_batch_destroy(&shown);
    stm_free(visible);
    return st;
}

mill_status stm_wrapper_accept(stm_wrapper *w, int32_t input, const mill_batch *in, mill_error *err)
{
    mill_status st;

    stm_count(&w->batches_in, 1);
    stm_count(&w->rows_in, in->rows);
    if (in->rows == 0) return MILL_OK;
    stm_view_fill(w, input, in, w->views[input]);
    if (stm_fault_fires(STM_FAULT_PROCESS))
        st = mill_fail(err, MILL_ERR_STEP, "accept failed (fault point)");
    else if (stm_call_barred(w, STM_DOING_ACCEPT, in, 0, 0, err))
        st = MILL_ERR_STEP;
    else {
        stm_call_enter(w, STM_DOING_ACCEPT, in);
        st = w->step->type->accept(&w->replica, (size_t)input, w->views[input], err);
        st = stm_call_over(w, st, err);
    }
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

typedef struct finish_ctx {
    stm_wrapper *w;
    stm_wrapper_send send;
    void *user;
} finish_ctx;

/* A global's own batch becomes one in outgoing places, rows keyed from 0. */
static mill_status finish_send(void *user, mill_batch **bp, mill_error *err)
{
    finish_ctx *c = user;
    stm_wrapper *w = c->w;
    mill_batch *b = NULL;
    mill_status st = stm_batch_create(w->env->pool, (*bp)->rows, w->step->out.n, w->n_roots, &b);

    if (st != MILL_OK) return mill_fail(err, st, "batch of global %s", w->step->said);
    for (int32_t i = 0; i < w->step->n_outputs; i++)
        if ((*bp)->columns[i] != NULL) b->columns[w->step->outputs[i].column] = mill_column_ref((*bp)->columns[i]);
    b->keys.first = w->next_row;
    if (w->emit.n_row_errors > 0 && (st = stm_mark_rows(w, b, err)) != MILL_OK) goto fail;
    st = c->send(c->user, &b, err);
    if (st != MILL_OK) goto fail;
    w->next_row += (*bp)->rows;
    stm_count(&w->batches_out, 1);
    stm_count(&w->rows_out, (*bp)->rows);
    mill_batch_destroy(bp);
    return MILL_OK;
fail:
    mill_batch_destroy(&b);
    return st;
}

mill_status stm_wrapper_finish(stm_wrapper *w, stm_wrapper_send send, void *user, mill_error *err)
{
    finish_ctx ctx = {w, send, user};
    mill_status st;

    stm_emit_begin(&w->emit, &w->replica, -1, INT64_MAX);
    w->emit.send = finish_send;
    w->emit.send_user = &ctx;
    if (stm_fault_fires(STM_FAULT_PROCESS))
        st = mill_fail(err, MILL_ERR_STEP, "finish failed (fault point)");
    else if (stm_call_barred(w, STM_DOING_FINISH, NULL, 0, 0, err))
        st = MILL_ERR_STEP;
    else {
        stm_call_enter(w, STM_DOING_FINISH, NULL);
        st = w->step->type->finish(&w->replica, &w->emit, err);
        st = stm_call_over(w, st, err);
    }
    w->emit.send = NULL;
    stm_emit_drop(&w->emit);
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

mill_status stm_wrapper_write(stm_wrapper *w, const mill_batch *in, mill_error *err)
{
    mill_status st;

    stm_count(&w->batches_in, 1);
    stm_count(&w->rows_in, in->rows);
    if (in->rows == 0) return MILL_OK;
    stm_view_fill(w, 0, in, w->views[0]);
    if (w->env->dry_run) {
        if (w->env->print != NULL) w->env->print(w, w->views[0], w->env->user);
        return MILL_OK;
    }
    if (stm_fault_fires(STM_FAULT_PROCESS))
        st = mill_fail(err, MILL_ERR_STEP, "write failed (fault point)");
    else if (stm_call_barred(w, STM_DOING_WRITE, in, 0, 0, err))
        st = MILL_ERR_STEP;
    else {
        stm_call_enter(w, STM_DOING_WRITE, in);
        st = w->step->type->write(&w->replica, w->views[0], err);
        st = stm_call_over(w, st, err);
    }
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

mill_status stm_wrapper_finalize(stm_wrapper *w, mill_error *err)
{
    mill_status st = MILL_OK;

    if (w->env->dry_run) return MILL_OK;
    if (stm_fault_fires(STM_FAULT_PROCESS))
        st = mill_fail(err, MILL_ERR_STEP, "finalize failed (fault point)");
    else if (stm_call_barred(w, STM_DOING_FINALIZE, NULL, 0, 0, err))
        st = MILL_ERR_STEP;
    else {
        stm_call_enter(w, STM_DOING_FINALIZE, NULL);
        if (w->step->type->finalize != NULL) st = w->step->type->finalize(&w->replica, err);
        st = stm_call_over(w, st, err);
    }
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

bool stm_wrapper_marked(stm_wrapper *w)
{
    const bool marked = w->replica.marked;

    w->replica.marked = false;
    return marked;
}

mill_status stm_wrapper_sync(stm_wrapper *w, mill_cursor *cursor, mill_error *err)
{
    mill_status st;

    cursor->size = 0;
    if (w->step->type->sync == NULL) return MILL_ERR_UNSUPPORTED;
    if (stm_fault_fires(STM_FAULT_PROCESS))
        st = mill_fail(err, MILL_ERR_STEP, "sync failed (fault point)");
    else if (stm_call_barred(w, STM_DOING_SYNC, NULL, 0, 0, err))
        st = MILL_ERR_STEP;
    else if (w->env->quarantine != NULL && !stm_quarantine_try_sync(w->env->quarantine, w->step->name, &w->hold))
        return MILL_ERR_AGAIN;
    else {
        stm_call_enter(w, STM_DOING_SYNC, NULL);
        st = w->step->type->sync(&w->replica, cursor, err);
        st = stm_call_over(w, st, err);
    }
    if (st == MILL_ERR_AGAIN) return st;
    if (st == MILL_OK && cursor->size > sizeof cursor->bytes)
        st = mill_fail(err, MILL_ERR_STEP, "sync gave a cursor of %u bytes", cursor->size);
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

/* ---- going on ---------------------------------------------------------------------------------------------------- */

void stm_wrapper_resume(stm_wrapper *w, const mill_cursor *cursor, int64_t rows)
{
    w->cursor = *cursor;
    w->next_row = w->rows_before = rows;
    w->rows_left = rows < w->rows_left ? w->rows_left - rows : 0;
}

const mill_cursor *stm_wrapper_cursor(const stm_wrapper *w) { return &w->cursor; }
int64_t stm_wrapper_rows_made(const stm_wrapper *w) { return w->next_row; }
int64_t stm_wrapper_rows_before(const stm_wrapper *w) { return w->rows_before; }
double stm_wrapper_done(const stm_wrapper *w) { return atomic_load_explicit(&w->replica.done, memory_order_relaxed); }
