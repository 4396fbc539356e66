/* One call into a step: fault point, clock, error context, retries, stop_if. Everything that every kind of call needs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"
#include "wrapper/lane.h"
#include "wrapper/replica.h"

/* What the quarantine is told of the call in the record: one of submit is by itself like one of poll (supervise/quarantine.h). */
static stm_doing told(const stm_wrapper *w, stm_doing doing, stm_key_range *keys, const stm_key_range **rows)
{
    const bool any = stm_record_keys(w->record, keys);

    *rows = any && doing != STM_DOING_SUBMIT ? keys : NULL;
    return doing == STM_DOING_SUBMIT ? STM_DOING_POLL : doing;
}

static void hold(stm_wrapper *w, stm_doing doing)
{
    stm_key_range keys;
    const stm_key_range *rows;
    const stm_doing as = told(w, doing, &keys, &rows);

    /* else it is: stm_wrapper_sync */
    if (doing != STM_DOING_SYNC) w->hold = stm_quarantine_enter(w->env->quarantine, w->step->name, as, rows);
    atomic_store_explicit(&w->record->alone, w->hold == STM_HOLD_ALONE, memory_order_relaxed);
}

static void let_go(stm_wrapper *w)
{
    stm_key_range keys;
    const stm_key_range *rows;
    const stm_doing as = told(w, (stm_doing)atomic_load_explicit(&w->record->doing, memory_order_relaxed), &keys, &rows);

    if (w->hold == STM_HOLD_ALONE && w->lane != NULL) stm_lane_settle(w->lane); /* what it queued is part of it */
    stm_record_end(w->record); /* before others may begin: or it would not look alone */
    stm_quarantine_leave(w->env->quarantine, w->step->name, as, rows, w->hold);
    w->hold = STM_HOLD_NONE;
}

void stm_call_enter_watched(stm_wrapper *w, stm_doing doing, const mill_batch *b, int64_t first, int64_t rows)
{
    if (w->env->quarantine != NULL && !w->apart) {
        stm_record_begin(w->record, STM_DOING_NOTHING, b, first, rows); /* it waits: at work it is not */
        hold(w, doing);
    }
    if (w->apart)
        stm_apart_call(w, doing);
    else
        stm_record_begin(w->record, doing, b, first, rows);
    if (w->step->policy.batch_timeout_s >= 0.0) atomic_store_explicit(&w->call_since, stm_now_ns(), memory_order_release);
}

void stm_call_leave_watched(stm_wrapper *w)
{
    if (w->hold != STM_HOLD_NONE && !w->apart) let_go(w);
    if (!w->apart) stm_record_end(w->record);
    if (w->step->policy.batch_timeout_s >= 0.0) atomic_store_explicit(&w->call_since, 0, memory_order_release);
}

bool stm_call_barred_here(stm_wrapper *w, stm_doing doing, const mill_batch *b, int64_t first, int64_t rows, mill_error *err)
{
    stm_key_range keys;
    const stm_suspect *s;
    char text[256];

    stm_record_begin(w->record, STM_DOING_NOTHING, b, first, rows);
    s = stm_quarantine_barred(w->env->quarantine, w->step->name, doing, stm_record_keys(w->record, &keys) ? &keys : NULL);
    if (s == NULL) return false;
    stm_record_begin(w->record, doing, b, first, rows); /* for its words only */
    stm_record_show(w->record, text, sizeof text);
    stm_record_end(w->record);
    mill_fail(err, MILL_ERR_STEP, "the process ended by %s in %s", s->cause, text);
    if (err != NULL) err->error_class = s->status == MILL_ERR_TIMEOUT ? MILL_CLASS_TRANSIENT : MILL_CLASS_DEVICE;
    return true;
}

mill_status stm_call_blame(stm_wrapper *w, mill_error *err, mill_status st, int32_t phase, int32_t attempt)
{
    if (err == NULL) return st;
    if (err->status == MILL_OK) { /* the step gave a status and no cause */
        mill_fail(err, st, "%s", mill_status_text(st));
        snprintf(err->origin, sizeof err->origin, "%s", w->step->type->name);
    }
    if (err->step[0] == '\0') {
        snprintf(err->step, sizeof err->step, "%s", w->step->said);
        if (err->field[0] == '\0' && strcmp(w->step->said, w->step->name) != 0) snprintf(err->field, sizeof err->field, "from");
        err->replica = w->replica.index;
        err->attempt = attempt;
    }
    if (err->phase == MILL_PHASE_NONE) err->phase = phase;
    return st;
}

/* What is left to check when process returned MILL_OK. */
static mill_status check_emitted(stm_wrapper *w, int64_t rows, mill_error *err)
{
    const mill_emit *e = &w->emit;
    const uint64_t flags = w->step->type->flags;
    int64_t sum = 0;

    if (e->passed) return MILL_OK;
    if (e->n_parts == 0) {
        if ((flags & MILL_FILTERS) != 0) return MILL_OK;
        return mill_fail(err, MILL_ERR_STEP, "process returned without emitting anything");
    }
    for (size_t i = 0; i < e->n_parts; i++) sum += e->parts[i].batch->rows;
    if (e->parts[0].parent == NULL) {
        if (sum == rows) return MILL_OK;
        return mill_fail(err, MILL_ERR_STEP, "process emitted %lld rows for %lld", (long long)sum, (long long)rows);
    }
    if ((flags & MILL_FILTERS) == 0) { /* expands without filters: every row has a child */
        int64_t next = 0;
        for (size_t i = 0; i < e->n_parts; i++) {
            const int64_t *p = mill_buffer_data(e->parts[i].parent);
            for (int64_t j = 0; j < e->parts[i].batch->rows; j++) {
                if (p[j] > next) break;
                if (p[j] == next) next++;
            }
        }
        if (next != rows)
            return mill_fail(err, MILL_ERR_STEP, "row %lld has no child; a step that drops rows must declare it (filters)",
                             (long long)next);
    }
    return MILL_OK;
}

static inline mill_status over(stm_wrapper *w, mill_status st, mill_error *err)
{
    const bool late = st == MILL_ERR_STOPPED && !atomic_load_explicit(&w->replica.stopped, memory_order_relaxed) &&
                      mill_replica_cancelled(&w->replica);

    stm_call_leave(w);
    if (__builtin_expect(!late, 1)) return st;
    memset(err, 0, sizeof *err);
    return mill_fail(err, MILL_ERR_TIMEOUT, "no result within the timeout of %g s", w->step->policy.batch_timeout_s);
}

mill_status stm_call_over(stm_wrapper *w, mill_status st, mill_error *err) { return over(w, st, err); }

mill_status stm_call_settle(stm_wrapper *w, int64_t rows, mill_status st, mill_error *err)
{
    if (st == MILL_OK) st = check_emitted(w, rows, err);
    if (st != MILL_OK) stm_emit_drop(&w->emit);
    return st;
}

mill_status stm_call_process(stm_wrapper *w, mill_batch *const *in, mill_error *err)
{
    mill_status st;

    stm_emit_begin(&w->emit, &w->replica, in[0]->rows, INT64_MAX);
    if (stm_fault_fires(STM_FAULT_PROCESS)) {
        st = mill_fail(err, MILL_ERR_STEP, "process failed (fault point)");
    } else {
        stm_call_enter(w, STM_DOING_PROCESS, in[0]);
        st = __builtin_expect(w->lane == NULL, 1)
                 ? w->step->type->process(&w->replica, in, (size_t)w->step->n_inputs, &w->emit, err)
                 : stm_lane_process(w, in, err);
        st = over(w, st, err);
    }
    return stm_call_settle(w, in[0]->rows, st, err);
}

bool stm_call_told_to_stop(const stm_wrapper *w, mill_status st)
{
    return st == MILL_ERR_STOPPED && atomic_load_explicit(&w->replica.stopped, memory_order_relaxed);
}

bool stm_call_may_retry(const stm_wrapper *w, const mill_error *err, int32_t attempt)
{
    const stm_policy *p = &w->step->policy;

    if (attempt >= p->retry_times || (p->retry_classes >> err->error_class & 1u) == 0) return false;
    return !atomic_load_explicit(&w->replica.stopped, memory_order_relaxed);
}

double stm_call_backoff_s(const stm_wrapper *w, int32_t attempt)
{
    double pause = w->step->policy.retry_backoff_s;

    for (int32_t i = 0; i < attempt && pause < 3600.0; i++) pause *= 2.0;
    return pause;
}

bool stm_call_retry(stm_wrapper *w, const mill_error *err, int32_t attempt)
{
    double left;

    if (!stm_call_may_retry(w, err, attempt)) return false;
    stm_count(&w->retries, 1);
    left = stm_call_backoff_s(w, attempt);
    while (left > 0.0 && !atomic_load_explicit(&w->replica.stopped, memory_order_relaxed)) {
        const double slice = left < 0.05 ? left : 0.05;
        const struct timespec t = {0, (long)(slice * 1e9)};
        nanosleep(&t, NULL);
        left -= slice;
    }
    return !atomic_load_explicit(&w->replica.stopped, memory_order_relaxed);
}

static void show_key(const stm_wrapper *w, const mill_batch *b, int64_t r, char *buf, size_t size)
{
    const int n = snprintf(buf, size, "%s:", w->root_name);

    if ((size_t)n < size) stm_batch_key_text(b, r, buf + n, size - (size_t)n);
}

int64_t stm_call_record(stm_wrapper *w, const mill_error *err, const mill_batch *b, int64_t first, int64_t last)
{
    char a[96] = "", z[96] = "";

    if (b != NULL && first <= last) {
        show_key(w, b, first, a, sizeof a);
        show_key(w, b, last, z, sizeof z);
    }
    stm_count(&w->rows_failed, last - first + 1);
    return stm_errors_add(w->env->errors, err, last - first + 1, a, z);
}

mill_status stm_call_stop(stm_wrapper *w, const mill_error *cause, const mill_batch *b, int64_t first, int64_t last,
                          mill_error *err)
{
    char a[96], z[96];

    if (err == NULL) return cause->status;
    *err = *cause;
    show_key(w, b, first, a, sizeof a);
    show_key(w, b, last, z, sizeof z);
    mill_error_context(err, first == last ? "on_error: stop, row %s" : "on_error: stop, rows %s to %s", a, z);
    return cause->status;
}

mill_status stm_call_window(stm_wrapper *w, int64_t good, int64_t bad, mill_error *err)
{
    const stm_policy *p = &w->step->policy;

    if (p->stop_of <= 0) return MILL_OK;
    if (w->window == NULL) {
        w->window = stm_calloc((size_t)p->stop_of);
        if (w->window == NULL) return mill_fail(err, MILL_ERR_NOMEM, "window of stop_if");
    }
    for (int64_t i = 0; i < good + bad; i++) {
        const uint8_t now = i >= good;
        w->window_failed += now - (w->window_seen >= p->stop_of ? w->window[w->window_at] : 0);
        w->window[w->window_at] = now;
        w->window_at = (w->window_at + 1) % p->stop_of;
        w->window_seen++;
    }
    if (w->window_seen < p->stop_of || (double)w->window_failed < p->stop_failed * (double)p->stop_of) return MILL_OK;
    return mill_fail(err, MILL_ERR_STOP_IF, "stop_if: %lld of the last %lld rows failed", (long long)w->window_failed,
                     (long long)p->stop_of);
}
