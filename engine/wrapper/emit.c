/* What a step may put out during a call: checked here, once, so that nothing behind it has to doubt a batch. */
#include "core/alloc.h"
#include "core/fault.h"
#include "wrapper/replica.h"

#include <string.h>

void stm_emit_drop_all(mill_emit *e)
{
    for (size_t i = 0; i < e->n_parts; i++) {
        mill_batch_destroy(&e->parts[i].batch);
        mill_buffer_unref(&e->parts[i].parent);
    }
    if (e->parts != e->inline_parts) {
        stm_free(e->parts);
        e->parts = NULL;
        e->cap = 0;
    }
    stm_free(e->row_errors);
    e->row_errors = NULL;
    e->n_parts = e->n_row_errors = e->cap_row_errors = 0;
    e->passed = false;
}

static mill_status check_parent(const mill_emit *e, const mill_batch *b, const mill_buffer *parent, mill_error *err)
{
    const mill_step *s = e->r->step;
    const bool may = (s->type->flags & (MILL_EXPANDS | MILL_FILTERS)) != 0;
    const int64_t *p;
    int64_t before = -1;

    if (parent == NULL) { /* rows keep their places: emits of one call lie end to end and must add up to the input */
        int64_t sum = b->rows;
        for (size_t i = 0; i < e->n_parts; i++) {
            if (e->parts[i].parent != NULL) return mill_fail(err, MILL_ERR_INVALID, "emitted once with parent and once without");
            sum += e->parts[i].batch->rows;
        }
        if (sum <= e->in_rows) return MILL_OK; /* too few is seen when the call returns */
        return mill_fail(
            err, MILL_ERR_INVALID,
            may ? "emitted %lld rows for %lld without saying which row each comes from (parent)"
                : "emitted %lld rows for %lld; a step that changes the number of rows must declare it (expands, filters)",
            (long long)sum, (long long)e->in_rows);
    }
    if (!may) return mill_fail(err, MILL_ERR_INVALID, "returned parent without declaring that it expands or filters");
    if (mill_buffer_bytes(parent) < (size_t)b->rows * sizeof(int64_t))
        return mill_fail(err, MILL_ERR_INVALID, "parent has %zu bytes, %lld rows need %lld", mill_buffer_bytes(parent),
                         (long long)b->rows, (long long)b->rows * 8);
    if (e->n_parts > 0 && e->parts[e->n_parts - 1].parent == NULL)
        return mill_fail(err, MILL_ERR_INVALID, "emitted once with parent and once without");
    if (e->n_parts > 0 && e->parts[e->n_parts - 1].parent != NULL && e->parts[e->n_parts - 1].batch->rows > 0) {
        const stm_emitted *last = &e->parts[e->n_parts - 1];
        before = ((const int64_t *)mill_buffer_data(last->parent))[last->batch->rows - 1];
        if ((s->type->flags & MILL_EXPANDS) == 0) before++; /* strictly increasing across emits, too */
    }
    p = mill_buffer_data(parent);
    for (int64_t i = 0; i < b->rows; i++) {
        if (p[i] < 0 || p[i] >= e->in_rows)
            return mill_fail(err, MILL_ERR_INVALID, "parent of row %lld is %lld; the input has %lld rows", (long long)i,
                             (long long)p[i], (long long)e->in_rows);
        if (p[i] < before)
            return mill_fail(err, MILL_ERR_INVALID, (s->type->flags & MILL_EXPANDS) != 0
                                                        ? "parents must not decrease: row %lld has %lld after %lld"
                                                        : "a filter may keep a row once: row %lld has parent %lld after %lld",
                             (long long)i, (long long)p[i], (long long)before);
        before = (s->type->flags & MILL_EXPANDS) != 0 ? p[i] : p[i] + 1;
    }
    return MILL_OK;
}

static __attribute__((noinline)) mill_status wrong_type(const stm_step_output *o, const mill_column *col, mill_error *err)
{
    char got[128], want[128];

    mill_type_format(mill_column_type(col), got, sizeof got);
    mill_type_format(o->type, want, sizeof want);
    return mill_fail(err, MILL_ERR_TYPE, "column '%s' is %s; %s was declared", o->name, got, want);
}

static __attribute__((noinline)) mill_status grow(mill_emit *e, mill_error *err)
{
    stm_emitted *grown = stm_malloc(2 * e->cap * sizeof *grown);

    if (grown == NULL) return mill_fail(err, MILL_ERR_NOMEM, "list of emitted batches");
    memcpy(grown, e->parts, e->n_parts * sizeof *grown);
    if (e->parts != e->inline_parts) stm_free(e->parts);
    e->parts = grown;
    e->cap *= 2;
    return MILL_OK;
}

mill_status mill_emit_batch(mill_emit *e, mill_batch **batch, mill_buffer **parent, mill_error *err)
{
    const mill_step *s = e->r->step;
    mill_batch *b = *batch;
    mill_status st;

    if (stm_fault_fires(STM_FAULT_EMIT)) return mill_fail(err, MILL_ERR_NOMEM, "emit: out of memory (fault point)");
    if (b == NULL) return mill_fail(err, MILL_ERR_INVALID, "emitted no batch (NULL)");
    if (e->passed) return mill_fail(err, MILL_ERR_INVALID, "emitted a batch after mill_emit_pass");
    if (b->n_columns != s->n_outputs)
        return mill_fail(err, MILL_ERR_INVALID, "emitted %d columns; %d are declared", (int)b->n_columns, (int)s->n_outputs);
    for (int32_t i = 0; i < b->n_columns; i++)
        if (__builtin_expect(b->columns[i] != NULL && mill_column_type(b->columns[i]) != s->outputs[i].type, 0))
            return wrong_type(&s->outputs[i], b->columns[i], err);
    if (e->in_rows >= 0) {
        if ((st = check_parent(e, b, parent != NULL ? *parent : NULL, err)) != MILL_OK) return st;
    } else if (b->rows > e->max_rows) {
        return mill_fail(err, MILL_ERR_INVALID, "emitted %lld rows; at most %lld were asked for", (long long)b->rows,
                         (long long)e->max_rows);
    }
    for (size_t i = 0; i < e->n_row_errors && e->n_parts == 0; i++) /* marks are of the call's first batch */
        if (e->row_errors[i].row >= b->rows)
            return mill_fail(err, MILL_ERR_INVALID, "error mark on row %lld of a batch of %lld", (long long)e->row_errors[i].row,
                             (long long)b->rows);
    if (e->send != NULL) return e->send(e->send_user, batch, err);
    if (e->n_parts > 0 && e->r->step->type->kind == MILL_GENERATOR)
        return mill_fail(err, MILL_ERR_INVALID, "a generator emits one batch per call");
    if (__builtin_expect(e->n_parts == e->cap, 0) && (st = grow(e, err)) != MILL_OK) return st;
    e->parts[e->n_parts].batch = b;
    e->parts[e->n_parts].parent = parent != NULL ? *parent : NULL;
    e->n_parts++;
    *batch = NULL;
    if (parent != NULL) *parent = NULL;
    return MILL_OK;
}

mill_status mill_emit_pass(mill_emit *e, mill_error *err)
{
    if (stm_fault_fires(STM_FAULT_EMIT)) return mill_fail(err, MILL_ERR_NOMEM, "emit: out of memory (fault point)");
    if (e->in_rows < 0 || e->r->step->n_outputs != 0)
        return mill_fail(err, MILL_ERR_INVALID, "mill_emit_pass is for steps without output columns");
    if (e->passed || e->n_parts > 0) return mill_fail(err, MILL_ERR_INVALID, "emitted twice, once by mill_emit_pass");
    e->passed = true;
    return MILL_OK;
}

mill_status mill_emit_row_error(mill_emit *e, int64_t row, const mill_error *cause)
{
    if (row < 0 || cause == NULL || cause->status == MILL_OK) return MILL_ERR_INVALID;
    if (stm_grow(&e->row_errors, &e->cap_row_errors, e->n_row_errors + 1, sizeof *e->row_errors) != 0) return MILL_ERR_NOMEM;
    e->row_errors[e->n_row_errors].row = row;
    e->row_errors[e->n_row_errors].error = *cause;
    e->n_row_errors++;
    return MILL_OK;
}
