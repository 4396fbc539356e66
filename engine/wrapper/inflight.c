/* Steps with submit and poll: many rows in flight, results as they come, batches put together again in the end. */
#include <string.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "wrapper/replica.h"

struct mill_results {
    stm_wrapper *w;
};

static void set_pending(stm_wrapper *w, stm_ticket *t)
{
    w->pending = t;
    atomic_store_explicit(&w->full, t != NULL, memory_order_release);
}

static void ticket_free(stm_wrapper *w, stm_ticket *t)
{
    for (int32_t i = 0; i < w->step->n_inputs; i++) {
        if (t->in != NULL) mill_batch_destroy(&t->in[i]);
        if (t->view != NULL) mill_batch_destroy(&t->view[i]);
    }
    stm_outcome_fini(&t->outcome);
    stm_free(t->in);
    stm_free(t->view);
    stm_free(t->visible);
    stm_free(t);
}

void stm_tickets_drop(stm_wrapper *w)
{
    while (w->tickets != NULL) {
        stm_ticket *t = w->tickets;
        w->tickets = t->next;
        if (t != w->pending && t->left > 0 && w->step->type->cancel != NULL && w->owes_unload)
            w->step->type->cancel(&w->replica, t->id);
        ticket_free(w, t);
    }
    set_pending(w, NULL);
    atomic_store_explicit(&w->n_tickets, 0, memory_order_release);
}

/* Rows without a result yet fail for one reason. */
static void fail_rest(stm_wrapper *w, stm_ticket *t, mill_error *e, mill_status st)
{
    int64_t id;

    stm_call_blame(w, e, st, MILL_PHASE_PROCESS, 0);
    for (int64_t i = 0; i < t->rows; i++) { /* runs of rows without an answer: a record each, with their keys */
        int64_t end = i;
        if (t->outcome.source[i] != -2) continue;
        while (end + 1 < t->rows && t->outcome.source[end + 1] == -2) end++;
        id = stm_call_record(w, e, t->view[0], i, end);
        for (; i <= end; i++) {
            t->outcome.source[i] = -1;
            t->outcome.error[i] = id != 0 ? id : -1;
        }
        i = end;
    }
    t->left = 0;
}

static void offer(stm_wrapper *w, stm_ticket *t)
{
    mill_error e = {0};
    mill_status st;

    if (stm_fault_fires(STM_FAULT_PROCESS))
        st = mill_fail(&e, MILL_ERR_STEP, "submit failed (fault point)");
    else {
        stm_call_enter(w);
        st = w->step->type->submit(&w->replica, t->id, t->view, (size_t)w->step->n_inputs, &e);
        stm_call_leave(w);
    }
    set_pending(w, st == MILL_ERR_AGAIN ? t : NULL);
    if (st == MILL_ERR_AGAIN) {
        return;
    } else if (st != MILL_OK) {
        fail_rest(w, t, &e, st);
    }
}

mill_status stm_wrapper_submit(stm_wrapper *w, stm_ready *in, mill_error *err)
{
    const int32_t n_in = w->step->n_inputs;
    stm_ticket *t, **tail = &w->tickets;
    mill_status st;
    int64_t n;

    if ((st = stm_wrapper_inputs(w, in, err)) != MILL_OK) return st;
    t = stm_calloc(sizeof *t);
    if (t == NULL) goto no_memory;
    t->in = stm_calloc((size_t)n_in * sizeof *t->in);
    t->view = stm_calloc((size_t)n_in * sizeof *t->view);
    if (t->in == NULL || t->view == NULL) goto no_memory;
    if (stm_visible_rows(w, w->inputs, n_in, &t->visible, &n) != MILL_OK) goto no_memory;
    if (stm_view_own(w, t->visible, n, t->view) != MILL_OK) goto no_memory;
    for (int64_t i = 0; i < n; i++)
        if (stm_outcome_add(&t->outcome, -2, t->visible != NULL ? t->visible[i] : i, 0) != MILL_OK) goto no_memory;
    for (int32_t i = 0; i < n_in; i++) {
        t->in[i] = w->inputs[i];
        w->inputs[i] = NULL;
    }
    t->id = ++w->next_ticket;
    t->rows = t->left = n;
    while (*tail != NULL) tail = &(*tail)->next;
    *tail = t;
    w->n_tickets++;
    if (n > 0) offer(w, t);
    return MILL_OK;
no_memory:
    if (t != NULL) ticket_free(w, t);
    for (int32_t i = 0; i < n_in; i++) mill_batch_destroy(&w->inputs[i]);
    return stm_call_blame(w, err, mill_fail(err, MILL_ERR_NOMEM, "submitting a batch to %s", w->step->name), MILL_PHASE_PROCESS, 0);
}

bool stm_wrapper_full(const stm_wrapper *w) { return atomic_load_explicit(&w->full, memory_order_acquire); }
int32_t stm_wrapper_in_flight(const stm_wrapper *w) { return atomic_load_explicit(&w->n_tickets, memory_order_acquire); }

static stm_ticket *find(stm_wrapper *w, uint64_t id)
{
    stm_ticket *t = w->tickets;

    while (t != NULL && t->id != id) t = t->next;
    return t == w->pending ? NULL : t;
}

/* Claims the rows (source -3), so that one named twice is seen; on failure everything is as it was. */
static mill_status claim_rows(stm_ticket *t, const int64_t *rows, int64_t n, mill_error *err)
{
    mill_status st = MILL_OK;
    int64_t i = 0;

    for (; i < n && st == MILL_OK; i++) {
        if (rows[i] < 0 || rows[i] >= t->rows)
            st = mill_fail(err, MILL_ERR_INVALID, "result for row %lld of a submit of %lld rows", (long long)rows[i], (long long)t->rows);
        else if (t->outcome.source[rows[i]] != -2)
            st = mill_fail(err, MILL_ERR_INVALID, "second result for row %lld", (long long)rows[i]);
        else
            t->outcome.source[rows[i]] = -3;
    }
    for (i--; st != MILL_OK && --i >= 0;) t->outcome.source[rows[i]] = -2;
    return st;
}

mill_status mill_results_rows(mill_results *out, uint64_t ticket, const int64_t *rows, int64_t n, mill_batch **batch, mill_error *err)
{
    stm_wrapper *w = out->w;
    stm_ticket *t = find(w, ticket);
    stm_emitted part = {0};
    mill_status st;
    int64_t first;

    if (t == NULL) return mill_fail(err, MILL_ERR_INVALID, "result for ticket %llu, which is not in flight", (unsigned long long)ticket);
    if ((*batch)->rows != n || (*batch)->n_columns != w->step->n_outputs)
        return mill_fail(err, MILL_ERR_INVALID, "result of %lld rows and %d columns for %lld rows; %d columns are declared", (long long)(*batch)->rows,
                         (int)(*batch)->n_columns, (long long)n, (int)w->step->n_outputs);
    for (int32_t i = 0; i < w->step->n_outputs; i++)
        if ((*batch)->columns[i] != NULL && mill_column_type((*batch)->columns[i]) != w->step->outputs[i].type)
            return mill_fail(err, MILL_ERR_TYPE, "column '%s' has another type than declared", w->step->outputs[i].name);
    if ((st = claim_rows(t, rows, n, err)) != MILL_OK) return st;
    first = t->outcome.part_rows;
    part.batch = *batch;
    if ((st = stm_outcome_part(&t->outcome, &part)) != MILL_OK) {
        for (int64_t i = 0; i < n; i++) t->outcome.source[rows[i]] = -2;
        return mill_fail(err, st, "list of results");
    }
    *batch = NULL;
    for (int64_t i = 0; i < n; i++) t->outcome.source[rows[i]] = first + i;
    t->left -= n;
    return MILL_OK;
}

mill_status mill_results_fail(mill_results *out, uint64_t ticket, const int64_t *rows, int64_t n, const mill_error *cause)
{
    stm_wrapper *w = out->w;
    stm_ticket *t = find(w, ticket);
    mill_error e = *cause;

    if (t == NULL || claim_rows(t, rows, n, NULL) != MILL_OK) return MILL_ERR_INVALID;
    stm_call_blame(w, &e, e.status != MILL_OK ? e.status : MILL_ERR_STEP, MILL_PHASE_PROCESS, 0);
    for (int64_t i = 0; i < n; i++) {
        const int64_t id = stm_call_record(w, &e, t->view[0], rows[i], rows[i]);
        t->outcome.source[rows[i]] = -1;
        t->outcome.error[rows[i]] = id != 0 ? id : -1;
    }
    t->left -= n;
    return MILL_OK;
}

mill_status stm_wrapper_poll(stm_wrapper *w, mill_batch **out, int32_t max, int32_t *n, mill_error *err)
{
    struct mill_results results = {w};
    mill_error e = {0};
    mill_status st = MILL_OK;

    *n = 0;
    if (w->n_tickets > 0 && !(w->n_tickets == 1 && w->pending != NULL)) {
        if (stm_fault_fires(STM_FAULT_PROCESS))
            st = mill_fail(&e, MILL_ERR_STEP, "poll failed (fault point)");
        else {
            stm_call_enter(w);
            st = w->step->type->poll(&w->replica, &results, &e);
            stm_call_leave(w);
        }
        if (st != MILL_OK && st != MILL_ERR_AGAIN) /* the step lost track: everything it holds fails, nothing is lost */
            for (stm_ticket *t = w->tickets; t != NULL; t = t->next)
                if (t != w->pending && t->left > 0) {
                    mill_error each = e;
                    if (w->step->type->cancel != NULL) w->step->type->cancel(&w->replica, t->id);
                    fail_rest(w, t, &each, st);
                }
    }
    if (w->pending != NULL) offer(w, w->pending);
    for (stm_ticket **tp = &w->tickets; *tp != NULL && *n < max;) {
        stm_ticket *t = *tp;
        const int64_t rows = t->in[0]->rows;
        if (t->left > 0) {
            tp = &t->next;
            continue;
        }
        st = MILL_OK;
        if (t->visible != NULL) {
            stm_count(&w->rows_skipped, rows - t->rows);
            st = stm_outcome_weave(&t->outcome, rows, t->visible, t->rows);
            stm_free(t->visible);
            t->visible = NULL;
        }
        if (st == MILL_OK) st = stm_merge_general(w, t->in, w->step->n_inputs, &t->outcome, &out[*n]);
        if (st != MILL_OK)
            return stm_call_blame(w, err, mill_fail(err, st, "merging results of %s", w->step->name), MILL_PHASE_PROCESS, 0);
        stm_wrapper_count(w, out[*n], rows, &t->outcome);
        ++*n;
        *tp = t->next;
        w->n_tickets--;
        ticket_free(w, t);
    }
    return MILL_OK;
}

mill_status stm_wrapper_flush(stm_wrapper *w, mill_error *err)
{
    mill_status st;

    if (w->step->type->flush == NULL) return MILL_OK;
    stm_call_enter(w);
    st = w->step->type->flush(&w->replica, err);
    stm_call_leave(w);
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}
