/* Steps with submit and poll: many rows in flight, results as they come, batches put together again in the end. */
#include <string.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "wrapper/replica.h"

struct mill_results {
    stm_wrapper *w;
    mill_status st;  /* the first failure the run must hear of */
    mill_error *err; /* its cause */
};

mill_status stm_wrapper_submit(stm_wrapper *w, stm_ready *in, mill_error *err)
{
    const int32_t n_in = w->step->n_inputs;
    stm_flight *f, **tail = &w->flights;
    mill_status st;
    int64_t n;
    bool apart;

    if ((st = stm_wrapper_inputs(w, in, err)) != MILL_OK) return st;
    f = stm_calloc(sizeof *f);
    if (f == NULL) goto no_memory;
    f->held = -1;
    f->in = stm_calloc((size_t)n_in * sizeof *f->in);
    f->view = stm_calloc((size_t)n_in * sizeof *f->view);
    if (f->in == NULL || f->view == NULL) goto no_memory;
    if (stm_visible_rows(w, w->inputs, n_in, &f->visible, &n) != MILL_OK) goto no_memory;
    if (stm_view_own(w, f->visible, n, f->view) != MILL_OK) goto no_memory;
    f->owner = stm_calloc((size_t)(n + 1) * sizeof *f->owner);
    if (f->owner == NULL) goto no_memory;
    for (int64_t i = 0; i < n; i++)
        if (stm_outcome_add(&f->outcome, -1, f->visible != NULL ? f->visible[i] : i, 0) != MILL_OK) goto no_memory;
    f->rows = f->left = n;
    f->held = stm_recorder_hold(w->env->recorder, w->record, f->view[0]);
    apart = n > 0 && w->env->quarantine != NULL && stm_apart_wanted_flight(w, f);
    if (n > 0 && !apart && stm_ticket_add(w, f, NULL, n, 0, 0) != MILL_OK) goto no_memory;
    for (int32_t i = 0; i < n_in; i++) {
        f->in[i] = w->inputs[i];
        w->inputs[i] = NULL;
    }
    while (*tail != NULL) tail = &(*tail)->next;
    *tail = f;
    atomic_fetch_add_explicit(&w->n_flights, 1, memory_order_release);
    if (apart) return stm_apart_submit(w, f, err);
    return n > 0 ? stm_tickets_offer(w, err) : MILL_OK;
no_memory:
    if (f != NULL) stm_flight_free(w, f);
    for (int32_t i = 0; i < n_in; i++) mill_batch_destroy(&w->inputs[i]);
    return stm_call_blame(w, err, mill_fail(err, MILL_ERR_NOMEM, "submitting a batch to %s", w->step->said), MILL_PHASE_PROCESS, 0);
}

bool stm_wrapper_full(const stm_wrapper *w) { return atomic_load_explicit(&w->full, memory_order_acquire); }
bool stm_wrapper_waits(const stm_wrapper *w) { return atomic_load_explicit(&w->waits, memory_order_acquire); }
int32_t stm_wrapper_in_flight(const stm_wrapper *w) { return atomic_load_explicit(&w->n_flights, memory_order_acquire); }

/* ---- results ----------------------------------------------------------------------------------------------------- */

static stm_ticket *find(stm_wrapper *w, uint64_t id)
{
    stm_ticket *t = w->tickets;

    while (t != NULL && t->id != id) t = t->next;
    return t;
}

/* Claims the rows, so that one named twice is seen; on failure everything is as it was. */
static mill_status claim_rows(stm_ticket *t, const int64_t *rows, int64_t n, mill_error *err)
{
    uint64_t *owner = t->flight->owner;
    mill_status st = MILL_OK;
    int64_t i = 0;

    for (; i < n && st == MILL_OK; i++) {
        if (rows[i] < 0 || rows[i] >= t->n)
            st = mill_fail(err, MILL_ERR_INVALID, "result for row %lld of a submit of %lld rows", (long long)rows[i],
                           (long long)t->n);
        else if (owner[stm_ticket_row(t, rows[i])] != t->id)
            st = mill_fail(err, MILL_ERR_INVALID, "second result for row %lld", (long long)rows[i]);
        else
            owner[stm_ticket_row(t, rows[i])] = STM_ROW_CLAIMED;
    }
    for (i--; st != MILL_OK && --i >= 0;) owner[stm_ticket_row(t, rows[i])] = t->id;
    return st;
}

static void hear(struct mill_results *out, mill_status st)
{
    if (out->st == MILL_OK) out->st = st;
}

mill_status mill_results_rows(mill_results *out, uint64_t ticket, const int64_t *rows, int64_t n, mill_batch **batch,
                              mill_error *err)
{
    stm_wrapper *w = out->w;
    stm_ticket *t = find(w, ticket);
    stm_emitted part = {0};
    mill_status st;
    int64_t first;

    if (t == NULL)
        return mill_fail(err, MILL_ERR_INVALID, "result for ticket %llu, which is not in flight", (unsigned long long)ticket);
    if (*batch == NULL) return mill_fail(err, MILL_ERR_INVALID, "result of %lld rows without a batch", (long long)n);
    if ((*batch)->rows != n || (*batch)->n_columns != w->step->n_outputs)
        return mill_fail(err, MILL_ERR_INVALID, "result of %lld rows and %d columns for %lld rows; %d columns are declared",
                         (long long)(*batch)->rows, (int)(*batch)->n_columns, (long long)n, (int)w->step->n_outputs);
    for (int32_t i = 0; i < w->step->n_outputs; i++)
        if ((*batch)->columns[i] != NULL && mill_column_type((*batch)->columns[i]) != w->step->outputs[i].type)
            return mill_fail(err, MILL_ERR_TYPE, "column '%s' has another type than declared", w->step->outputs[i].name);
    if ((st = claim_rows(t, rows, n, err)) != MILL_OK) return st;
    first = t->flight->outcome.part_rows;
    part.batch = *batch;
    if ((st = stm_outcome_part(&t->flight->outcome, &part)) != MILL_OK) {
        for (int64_t i = 0; i < n; i++) t->flight->owner[stm_ticket_row(t, rows[i])] = t->id;
        return mill_fail(err, st, "list of results");
    }
    *batch = NULL;
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = stm_ticket_row(t, rows[i]);
        t->flight->outcome.source[r] = first + i;
        t->flight->owner[r] = 0;
    }
    t->left -= n;
    t->flight->left -= n;
    hear(out, stm_call_window(w, n, 0, out->err));
    return MILL_OK;
}

mill_status mill_results_fail(mill_results *out, uint64_t ticket, const int64_t *rows, int64_t n, const mill_error *cause)
{
    stm_wrapper *w = out->w;
    stm_ticket *t = find(w, ticket);
    mill_error e;

    if (t == NULL || cause == NULL || claim_rows(t, rows, n, NULL) != MILL_OK) return MILL_ERR_INVALID;
    e = *cause;
    if (n > 0)
        hear(out,
             stm_ticket_rows_failed(w, t, rows, n, STM_ROW_CLAIMED, &e, e.status != MILL_OK ? e.status : MILL_ERR_STEP, out->err));
    return MILL_OK;
}

/* The step lost track: everything it holds fails, nothing is lost. */
static mill_status fail_all(stm_wrapper *w, const mill_error *e, mill_status st, mill_error *err)
{
    mill_status heard = MILL_OK;

    for (stm_ticket *t = w->tickets; t != NULL && heard == MILL_OK; t = t->next) {
        if (t->left == 0) continue;
        stm_ticket_cancel(w, t);
        heard = stm_ticket_failed(w, t, e, st, err);
    }
    return heard;
}

static mill_status ask(stm_wrapper *w, mill_error *err)
{
    struct mill_results results = {w, MILL_OK, err};
    mill_error e = {0};
    mill_status st;

    if (w->tickets == NULL) return MILL_OK;
    if (stm_fault_fires(STM_FAULT_PROCESS)) {
        st = mill_fail(&e, MILL_ERR_STEP, "poll failed (fault point)");
    } else {
        stm_call_enter(w, STM_DOING_POLL, NULL);
        st = w->step->type->poll(&w->replica, &results, &e);
        st = stm_call_over(w, st, &e);
    }
    if (results.st != MILL_OK) return results.st;
    atomic_store_explicit(&w->waits, st == MILL_ERR_NOT_FINISHED && w->waiting == NULL, memory_order_release);
    if (st == MILL_ERR_NOT_FINISHED) return MILL_OK;
    return st != MILL_OK && st != MILL_ERR_AGAIN ? fail_all(w, &e, st, err) : MILL_OK;
}

mill_status stm_tickets_turn(stm_wrapper *w, mill_error *err)
{
    mill_status st = ask(w, err);

    if (st == MILL_OK) st = stm_tickets_expire(w, err);
    return st == MILL_OK ? stm_tickets_offer(w, err) : st;
}

/* The outgoing batch of a flight that has all its answers. */
static mill_status land(stm_wrapper *w, stm_flight *f, mill_batch **out, mill_error *err)
{
    const int64_t rows = f->in[0]->rows;
    mill_status st = MILL_OK;

    if (f->visible != NULL) {
        stm_count(&w->rows_skipped, rows - f->rows);
        st = stm_outcome_weave(&f->outcome, rows, f->visible, f->rows);
        stm_free(f->visible);
        f->visible = NULL;
    }
    if (st == MILL_OK) st = stm_merge_general(w, f->in, w->step->n_inputs, &f->outcome, out);
    if (st != MILL_OK) return mill_fail(err, st, "merging results of %s", w->step->said);
    stm_wrapper_count(w, *out, rows, &f->outcome);
    return MILL_OK;
}

mill_status stm_wrapper_poll(stm_wrapper *w, mill_batch **out, int32_t max, int32_t *n, mill_error *err)
{
    mill_status st;

    *n = 0;
    st = stm_tickets_turn(w, err);
    for (stm_flight **fp = &w->flights; *fp != NULL && *n < max && st == MILL_OK;) {
        stm_flight *f = *fp;
        if (f->left > 0) {
            fp = &f->next;
            continue;
        }
        if ((st = land(w, f, &out[*n], err)) != MILL_OK) break;
        ++*n;
        *fp = f->next;
        atomic_fetch_sub_explicit(&w->n_flights, 1, memory_order_release);
        stm_flight_free(w, f);
    }
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

mill_status stm_wrapper_flush(stm_wrapper *w, mill_error *err)
{
    mill_error e = {0};
    mill_status st;

    if (w->step->type->flush == NULL || w->tickets == NULL) return MILL_OK;
    stm_call_enter(w, STM_DOING_POLL, NULL);
    st = w->step->type->flush(&w->replica, &e);
    st = stm_call_over(w, st, &e);
    if (st == MILL_OK) return MILL_OK;
    st = fail_all(w, &e, st, err);
    if (st == MILL_OK) st = stm_tickets_settle(w, err);
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}
