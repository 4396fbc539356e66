/*
 * Batches in flight inside a step with submit. A flight is a batch on its way; a ticket is what the step holds of it: all its rows
 * at first, and, after failures, those that are tried again or apart. Every row of a flight belongs to one ticket at most
 * (`owner`), so an answer that comes too late or twice is seen, whatever became of the row meanwhile.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"
#include "wrapper/replica.h"

void stm_flight_free(stm_wrapper *w, stm_flight *f)
{
    stm_recorder_release(w->env->recorder, f->held);
    for (int32_t i = 0; i < w->step->n_inputs; i++) {
        if (f->in != NULL) mill_batch_destroy(&f->in[i]);
        if (f->view != NULL) mill_batch_destroy(&f->view[i]);
    }
    stm_outcome_fini(&f->outcome);
    stm_free(f->in);
    stm_free(f->view);
    stm_free(f->visible);
    stm_free(f->owner);
    stm_free(f);
}

static void ticket_free(stm_wrapper *w, stm_ticket *t)
{
    for (int32_t i = 0; t->rows != NULL && i < w->step->n_inputs; i++) mill_batch_destroy(&t->view[i]);
    if (t->rows != NULL) stm_free(t->view);
    stm_free(t->rows);
    stm_free(t);
}

void stm_ticket_cancel(stm_wrapper *w, const stm_ticket *t)
{
    stm_call_enter(w, STM_DOING_POLL, NULL);
    w->step->type->cancel(&w->replica, t->id);
    stm_call_leave(w);
}

void stm_tickets_drop(stm_wrapper *w)
{
    while (w->tickets != NULL) {
        stm_ticket *t = w->tickets;
        w->tickets = t->next;
        if (t->left > 0 && w->owes_unload) stm_ticket_cancel(w, t);
        ticket_free(w, t);
    }
    while (w->waiting != NULL) {
        stm_ticket *t = w->waiting;
        w->waiting = t->next;
        ticket_free(w, t);
    }
    while (w->flights != NULL) {
        stm_flight *f = w->flights;
        w->flights = f->next;
        stm_flight_free(w, f);
    }
    atomic_store_explicit(&w->full, false, memory_order_release);
    atomic_store_explicit(&w->n_flights, 0, memory_order_release);
}

static void append(stm_ticket **list, stm_ticket *t)
{
    while (*list != NULL) list = &(*list)->next;
    t->next = NULL;
    *list = t;
}

mill_status stm_ticket_add(stm_wrapper *w, stm_flight *f, const int64_t *rows, int64_t n, int32_t attempt, int64_t not_before_ns)
{
    const int32_t n_in = w->step->n_inputs;
    stm_ticket *t = stm_calloc(sizeof *t);
    mill_status st = MILL_OK;

    if (t == NULL) return MILL_ERR_NOMEM;
    t->view = f->view;
    if (rows != NULL) {
        t->view = stm_calloc((size_t)n_in * sizeof *t->view);
        t->rows = stm_malloc((size_t)n * sizeof *t->rows);
        if (t->view == NULL || t->rows == NULL) st = MILL_ERR_NOMEM;
        if (st == MILL_OK) memcpy(t->rows, rows, (size_t)n * sizeof *t->rows);
        for (int32_t i = 0; i < n_in && st == MILL_OK; i++) st = stm_view_gather(w, i, f->view[i], rows, n, &t->view[i]);
        if (st != MILL_OK) {
            for (int32_t i = 0; t->view != NULL && i < n_in; i++) mill_batch_destroy(&t->view[i]);
            stm_free(t->view);
            stm_free(t->rows);
            stm_free(t);
            return st;
        }
    }
    t->id = ++w->next_ticket;
    t->flight = f;
    t->n = t->left = n;
    t->attempt = attempt;
    t->not_before_ns = not_before_ns;
    for (int64_t i = 0; i < n; i++) f->owner[stm_ticket_row(t, i)] = t->id;
    append(&w->waiting, t);
    return MILL_OK;
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

mill_status stm_flight_give_up(stm_wrapper *w, stm_flight *f, const int64_t *rows, int64_t n, const mill_error *e, mill_error *err)
{
    for (int64_t i = 0, end; i < n; i = end) {
        int64_t id;
        for (end = i + 1; end < n && rows[end] == rows[end - 1] + 1;) end++;
        id = stm_call_record(w, e, f->view[0], rows[i], rows[end - 1]);
        for (int64_t k = i; k < end; k++) {
            f->outcome.source[rows[k]] = -1;
            f->outcome.error[rows[k]] = id != 0 ? id : -1;
            f->owner[rows[k]] = 0;
        }
    }
    f->left -= n;
    return stm_call_window(w, 0, n, err);
}

/* What the policy says of @p n rows of @p t that failed for one reason: as run_rows does for calls of process. @p rows: of the
 * flight, ascending. */
static mill_status rows_failed(stm_wrapper *w, stm_ticket *t, const int64_t *rows, int64_t n, mill_error *e, mill_status st,
                               mill_error *err)
{
    const stm_policy *p = &w->step->policy;
    stm_flight *f = t->flight;
    const int64_t half = n / 2;

    stm_call_blame(w, e, st, MILL_PHASE_PROCESS, t->attempt);
    if (st == MILL_ERR_NOT_FINISHED || stm_call_told_to_stop(w, st)) {
        if (err != NULL) *err = *e;
        return st;
    }
    t->left -= n;
    if (stm_call_may_retry(w, e, t->attempt)) { /* gathered, so that what failed together is tried again together */
        for (int64_t i = 0; i < n; i++) f->owner[rows[i]] = STM_ROW_AGAIN;
        t->n_again += n;
        return MILL_OK;
    }
    if (p->on_error == STM_ON_ERROR_STOP) return stm_call_stop(w, e, f->view[0], rows[0], rows[n - 1], err);
    if (p->on_error != STM_ON_ERROR_ISOLATE || n == 1) return stm_flight_give_up(w, f, rows, n, e, err);
    st = stm_ticket_add(w, f, rows, half, 0, 0);
    if (st == MILL_OK) st = stm_ticket_add(w, f, rows + half, n - half, 0, 0);
    return st == MILL_OK ? st : mill_fail(err, st, "rows of step %s to be tried apart", w->step->said);
}

mill_status stm_ticket_rows_failed(stm_wrapper *w, stm_ticket *t, const int64_t *rows, int64_t n, uint64_t owner, mill_error *e,
                                   mill_status st, mill_error *err)
{
    int64_t made = 0, one;

    if (n == 1 && rows != NULL) {
        one = stm_ticket_row(t, rows[0]);
        return rows_failed(w, t, &one, 1, e, st, err);
    }
    if (stm_grow(&w->failing, &w->cap_failing, (size_t)t->n, sizeof *w->failing) != 0)
        return mill_fail(err, MILL_ERR_NOMEM, "list of failed rows of step %s", w->step->said);
    for (int64_t i = 0; i < t->n; i++) { /* in their order, whatever the order they were named in */
        const int64_t r = stm_ticket_row(t, i);
        if (t->flight->owner[r] == owner) w->failing[made++] = r;
    }
    return made > 0 ? rows_failed(w, t, w->failing, made, e, st, err) : MILL_OK;
}

mill_status stm_ticket_failed(stm_wrapper *w, stm_ticket *t, const mill_error *cause, mill_status st, mill_error *err)
{
    mill_error e = *cause;

    st = stm_ticket_rows_failed(w, t, NULL, 0, t->id, &e, st, err);
    t->left = 0; /* the step knows nothing of it any more, whatever came of its rows */
    return st;
}

/* The rows of @p t that are to be tried again, as a new ticket. */
static mill_status try_again(stm_wrapper *w, stm_ticket *t, mill_error *err)
{
    const double pause = stm_call_backoff_s(w, t->attempt);
    int64_t made = 0;
    mill_status st = MILL_ERR_NOMEM;

    if (stm_grow(&w->failing, &w->cap_failing, (size_t)t->n_again, sizeof *w->failing) == 0) {
        for (int64_t i = 0; i < t->n; i++) {
            const int64_t r = stm_ticket_row(t, i);
            if (t->flight->owner[r] == STM_ROW_AGAIN) w->failing[made++] = r;
        }
        st =
            stm_ticket_add(w, t->flight, w->failing, made, t->attempt + 1, pause > 0.0 ? stm_now_ns() + (int64_t)(pause * 1e9) : 0);
    }
    t->n_again = 0;
    stm_count(&w->retries, 1);
    return st == MILL_OK ? st : mill_fail(err, st, "rows of step %s to be tried again", w->step->said);
}

mill_status stm_tickets_settle(stm_wrapper *w, mill_error *err)
{
    mill_status st = MILL_OK;

    for (stm_ticket **tp = &w->tickets; *tp != NULL && st == MILL_OK;) {
        stm_ticket *t = *tp;
        if (t->n_again > 0) st = try_again(w, t, err);
        if (st != MILL_OK || t->left > 0) {
            tp = &t->next;
            continue;
        }
        *tp = t->next;
        ticket_free(w, t);
    }
    return st;
}

/* ---- to the step ------------------------------------------------------------------------------------------------- */

static mill_status offer(stm_wrapper *w, stm_ticket *t, mill_error *e)
{
    mill_status st;

    if (stm_fault_fires(STM_FAULT_PROCESS)) return mill_fail(e, MILL_ERR_STEP, "submit failed (fault point)");
    stm_call_enter(w, STM_DOING_SUBMIT, t->view[0]);
    st = w->step->type->submit(&w->replica, t->id, t->view, (size_t)w->step->n_inputs, e);
    return stm_call_over(w, st, e);
}

mill_status stm_tickets_offer(stm_wrapper *w, mill_error *err)
{
    bool full = false;
    int64_t now = w->step->policy.batch_timeout_s >= 0.0 ? stm_now_ns() : 0;
    mill_status st = MILL_OK;

    for (stm_ticket **tp = &w->waiting; *tp != NULL && !full && st == MILL_OK;) {
        stm_ticket *t = *tp;
        mill_error e = {0};
        if (t->not_before_ns > 0 && now == 0) now = stm_now_ns();
        if (t->not_before_ns > now) { /* its pause is not over; others go on */
            tp = &t->next;
            continue;
        }
        st = offer(w, t, &e);
        if (st == MILL_ERR_AGAIN) {
            full = true;
            /* refused by a step that holds nothing: that must not last for ever */
            if (w->tickets == NULL && t->since_ns == 0) t->since_ns = now;
            st = MILL_OK;
            continue;
        }
        *tp = t->next;
        append(&w->tickets, t);
        t->since_ns = now;
        atomic_store_explicit(&w->waits, false, memory_order_release);
        if (st != MILL_OK) { /* never taken: nothing to be cancelled */
            st = stm_ticket_failed(w, t, &e, st, err);
            if (st == MILL_OK) st = stm_tickets_settle(w, err); /* may add to what waits, behind *tp */
        }
    }
    atomic_store_explicit(&w->full, full, memory_order_release);
    return st;
}

mill_status stm_tickets_expire(stm_wrapper *w, mill_error *err)
{
    const double limit = w->step->policy.batch_timeout_s;
    const int64_t since =
        limit >= 0.0 && (w->tickets != NULL || w->waiting != NULL) ? stm_now_ns() - (int64_t)(limit * 1e9) : INT64_MIN;
    mill_status st = MILL_OK;

    for (stm_ticket *t = w->tickets; t != NULL && st == MILL_OK; t = t->next) {
        mill_error e = {0};
        if (t->left == 0 || t->since_ns >= since) continue;
        stm_ticket_cancel(w, t);
        mill_fail(&e, MILL_ERR_TIMEOUT, "no result within the timeout of %g s", limit);
        st = stm_ticket_failed(w, t, &e, MILL_ERR_TIMEOUT, err);
    }
    for (stm_ticket **tp = &w->waiting; *tp != NULL && st == MILL_OK;) {
        stm_ticket *t = *tp;
        mill_error e = {0};
        if (t->since_ns == 0 || t->since_ns >= since) {
            tp = &t->next;
            continue;
        }
        *tp = t->next;
        append(&w->tickets, t);
        mill_fail(&e, MILL_ERR_TIMEOUT, "not taken within the timeout of %g s, though nothing else was in flight", limit);
        st = stm_ticket_failed(w, t, &e, MILL_ERR_TIMEOUT, err);
    }
    return st == MILL_OK ? stm_tickets_settle(w, err) : st;
}
