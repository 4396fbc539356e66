#include "wrapper/probe.h"

#include <string.h>

#include "core/alloc.h"
#include "wrapper/replica.h"

void stm_probe_out_fini(stm_probe_out *out)
{
    for (size_t i = 0; i < out->n; i++) {
        mill_batch_destroy(&out->parts[i].batch);
        mill_buffer_unref(&out->parts[i].parent);
    }
    stm_free(out->parts);
    stm_free(out->row_errors);
    *out = (stm_probe_out){0};
}

bool stm_probe_is_breach(const mill_error *err)
{
    /* Who knew first: the functions that look at what is emitted. A fault point says NOMEM, which is nobody's fault. */
    if (err->status == MILL_ERR_NOMEM) return false;
    return strcmp(err->origin, "emit.c") == 0 || strcmp(err->origin, "call.c") == 0;
}

/* Everything emitted leaves the wrapper. */
static mill_status take(stm_wrapper *w, stm_probe_out *out, mill_error *err)
{
    mill_emit *e = &w->emit;

    out->passed = e->passed;
    if (e->n_parts > 0 && (out->parts = stm_malloc(e->n_parts * sizeof *out->parts)) == NULL) goto no_memory;
    if (e->n_row_errors > 0 && (out->row_errors = stm_malloc(e->n_row_errors * sizeof *out->row_errors)) == NULL) goto no_memory;
    for (size_t i = 0; i < e->n_parts; i++) out->parts[i] = (stm_probe_part){e->parts[i].batch, e->parts[i].parent};
    for (size_t i = 0; i < e->n_row_errors; i++) out->row_errors[i] = e->row_errors[i].row;
    out->n = e->n_parts;
    out->n_row_errors = e->n_row_errors;
    e->n_parts = 0; /* moved */
    stm_emit_drop(e);
    return MILL_OK;
no_memory:
    stm_probe_out_fini(out);
    stm_emit_drop(e);
    return mill_fail(err, MILL_ERR_NOMEM, "what a step put out");
}

mill_status stm_probe_process(stm_wrapper *w, const mill_batch *in, stm_probe_out *out, mill_error *err)
{
    mill_status st;

    stm_view_fill(w, 0, in, w->views[0]);
    st = stm_call_process(w, w->views, err);
    stm_view_clear(w->views[0]);
    return st == MILL_OK ? take(w, out, err) : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

mill_status stm_probe_generate(stm_wrapper *w, int64_t max_rows, mill_cursor *cursor, bool *last, stm_probe_out *out,
                               mill_error *err)
{
    mill_status st;

    stm_emit_begin(&w->emit, &w->replica, -1, max_rows);
    *last = false;
    st = w->step->type->generate(&w->replica, max_rows, cursor, last, &w->emit, err);
    if (st == MILL_OK) return take(w, out, err);
    stm_emit_drop(&w->emit);
    return stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

mill_status stm_probe_accept(stm_wrapper *w, int32_t input, const mill_batch *in, mill_error *err)
{
    mill_status st;

    stm_view_fill(w, input, in, w->views[input]);
    st = w->step->type->accept(&w->replica, (size_t)input, w->views[input], err);
    stm_view_clear(w->views[input]);
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

mill_status stm_probe_write(stm_wrapper *w, const mill_batch *in, mill_error *err)
{
    mill_status st;

    stm_view_fill(w, 0, in, w->views[0]);
    st = w->step->type->write(&w->replica, w->views[0], err);
    stm_view_clear(w->views[0]);
    return st == MILL_OK ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}

void stm_probe_open_at(stm_wrapper *w, const mill_cursor *cursor) { w->cursor = *cursor; }

mill_status stm_probe_sync(stm_wrapper *w, mill_cursor *cursor, mill_error *err)
{
    mill_status st = MILL_OK;

    if (w->step->type->sync != NULL) st = w->step->type->sync(&w->replica, cursor, err);
    return st == MILL_OK || st == MILL_ERR_AGAIN ? st : stm_call_blame(w, err, st, MILL_PHASE_PROCESS, 0);
}
