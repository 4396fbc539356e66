/* What a step sees of its inputs: the columns that it declares, without the rows that are hidden from it. */
#include "core/alloc.h"
#include "wrapper/replica.h"

void stm_view_fill(stm_wrapper *w, int32_t i, const mill_batch *in, mill_batch *view)
{
    const stm_step_input *si = &w->step->inputs[i];

    view->rows = in->rows;
    view->keys = in->keys; /* borrowed, like the columns */
    view->marks = in->marks;
    for (int32_t c = 0; c < si->n_used; c++) {
        const mill_batch *from = si->used[c].input == i ? in : w->inputs[si->used[c].input]; /* joins show one row of all inputs */
        view->columns[c] = from->columns[si->used[c].column];
    }
}

void stm_view_clear(mill_batch *view)
{
    view->marks = NULL;
    view->keys = (stm_keys){.width = 1};
    for (int32_t c = 0; c < view->n_columns; c++) view->columns[c] = NULL;
}

mill_status stm_view_gather(stm_wrapper *w, int32_t i, const mill_batch *src, const int64_t *index, int64_t n, mill_batch **out)
{
    const stm_step_input *si = &w->step->inputs[i];
    const mill_type **types = stm_malloc(((size_t)si->n_used + 1) * sizeof *types);
    mill_status st;

    if (types == NULL) return MILL_ERR_NOMEM;
    for (int32_t c = 0; c < si->n_used; c++) types[c] = si->used[c].type;
    st = stm_batch_gather(w->env->pool, src, index, n, types, out);
    stm_free(types);
    return st;
}

mill_status stm_view_own(stm_wrapper *w, const int64_t *visible, int64_t n, mill_batch **out)
{
    const int32_t n_in = w->step->n_inputs;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < n_in; i++) out[i] = NULL;
    for (int32_t i = 0; i < n_in && st == MILL_OK; i++) {
        stm_view_fill(w, i, w->inputs[i], w->views[i]);
        st = visible == NULL ? stm_batch_clone(w->views[i], &out[i]) : stm_view_gather(w, i, w->views[i], visible, n, &out[i]);
    }
    if (st != MILL_OK)
        for (int32_t i = 0; i < n_in; i++) mill_batch_destroy(&out[i]);
    return st;
}

mill_status stm_visible_rows(stm_wrapper *w, mill_batch *const *in, int32_t n_in, int64_t **rows, int64_t *n)
{
    const int64_t total = in[0]->rows;
    bool any = false;

    *rows = NULL;
    *n = total;
    if (w->step->policy.nulls_pass) return MILL_OK;
    for (int32_t i = 0; i < n_in && !any; i++)
        for (int32_t c = 0; c < w->step->inputs[i].n_used && !any; c++) {
            const stm_used_column *u = &w->step->inputs[i].used[c];
            any = in[u->input]->imputed != NULL && in[u->input]->imputed[u->column] != NULL;
        }
    if (!any) return MILL_OK;
    *rows = stm_malloc((size_t)(total > 0 ? total : 1) * sizeof **rows);
    if (*rows == NULL) return MILL_ERR_NOMEM;
    *n = 0;
    for (int64_t r = 0; r < total; r++) {
        bool hidden = false;
        for (int32_t i = 0; i < n_in && !hidden; i++)
            for (int32_t c = 0; c < w->step->inputs[i].n_used && !hidden; c++) {
                const stm_used_column *u = &w->step->inputs[i].used[c];
                hidden = stm_batch_is_imputed(in[u->input], u->column, r);
            }
        if (!hidden) (*rows)[(*n)++] = r;
    }
    if (*n == total) {
        stm_free(*rows);
        *rows = NULL;
    }
    return MILL_OK;
}
