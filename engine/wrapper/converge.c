/*
 * Convergence: a row comes back on every branch it took. Columns that several branches have (those from before the router, and
 * equally named results) get, row by row, the value of the first branch the row took; columns of one branch alone are null
 * elsewhere.
 */
#include <string.h>

#include "core/alloc.h"
#include "wrapper/replica.h"

/* One column as runs of rows of the branches that speak for them. first[r] = branch of row r. get gives a branch's column, NULL =
 * absent. */
static mill_status coalesce(stm_wrapper *w, const int32_t *first, int64_t rows, const int32_t *in_branch, const mill_type *type,
                            bool flags, mill_column **out)
{
    mill_column **parts;
    size_t n = 0, cap = 0;
    int64_t r = 0;
    mill_status st = MILL_OK;

    for (int64_t i = 0; i < rows; i++) cap += i == 0 || first[i] != first[i - 1];
    parts = stm_calloc((cap > 0 ? cap : 1) * sizeof *parts);
    if (parts == NULL) return MILL_ERR_NOMEM;
    while (r < rows && st == MILL_OK) {
        int64_t end = r + 1;
        mill_column *from = NULL;
        while (end < rows && first[end] == first[r]) end++;
        if (first[r] >= 0 && in_branch[first[r]] >= 0) {
            const mill_batch *b = w->inputs[first[r]];
            const int32_t at = in_branch[first[r]];
            from = !flags ? b->columns[at] : b->imputed != NULL ? b->imputed[at] : NULL;
        }
        st = from != NULL ? stm_column_slice(from, r, end - r, &parts[n])
                          : mill_column_nulls(w->env->pool, type, end - r, &parts[n]);
        n += st == MILL_OK;
        r = end;
    }
    if (st == MILL_OK) st = stm_column_concat(w->env->pool, parts, n, type, out);
    for (size_t i = 0; i < n; i++) mill_column_unref(&parts[i]);
    stm_free(parts);
    return st;
}

static mill_status settle(stm_wrapper *w, const int32_t *first, int64_t rows, int32_t input, int32_t column,
                          const int32_t *in_branch, const mill_type *type)
{
    const int32_t n_in = w->step->n_inputs;
    mill_batch *home = w->inputs[input];
    mill_column *made = NULL, *flags = NULL;
    bool any_flags = false, shared = false;
    mill_status st;

    for (int32_t i = 0; i < n_in; i++) {
        if (in_branch[i] < 0) continue;
        shared = shared || i != input;
        any_flags = any_flags || (w->inputs[i]->imputed != NULL && w->inputs[i]->imputed[in_branch[i]] != NULL);
    }
    if (!shared) return MILL_OK; /* nulls are where they belong already */
    if ((st = coalesce(w, first, rows, in_branch, type, false, &made)) != MILL_OK) return st;
    if (any_flags && (st = coalesce(w, first, rows, in_branch, mill_type_plain(MILL_BOOL), true, &flags)) != MILL_OK) goto fail;
    if (flags != NULL && home->imputed == NULL) {
        home->imputed = stm_pool_take(home->pool, (size_t)home->n_columns * sizeof *home->imputed);
        if (home->imputed == NULL) {
            st = MILL_ERR_NOMEM;
            goto fail;
        }
        memset(home->imputed, 0, (size_t)home->n_columns * sizeof *home->imputed);
    }
    mill_column_unref(&home->columns[column]);
    home->columns[column] = made;
    if (home->imputed != NULL) {
        mill_column_unref(&home->imputed[column]);
        home->imputed[column] = flags;
    }
    return MILL_OK;
fail:
    mill_column_unref(&made);
    mill_column_unref(&flags);
    return st;
}

mill_status stm_converge(stm_wrapper *w, stm_ready *in, mill_error *err)
{
    const mill_step *s = w->step;
    const int32_t n_in = s->n_inputs;
    const int64_t rows = stm_ready_rows(in);
    uint8_t *present = NULL;
    int32_t *first = stm_malloc(((size_t)rows + 1) * sizeof *first);
    mill_status st;

    if (first == NULL || (present = stm_malloc((size_t)rows + 1)) == NULL) {
        stm_free(first);
        stm_ready_discard(in);
        return mill_fail(err, MILL_ERR_NOMEM, "convergence at %s", s->name);
    }
    for (int64_t r = 0; r < rows; r++) first[r] = -1;
    for (int32_t i = n_in - 1; i >= 0; i--) {
        stm_ready_present(in, i, present);
        for (int64_t r = 0; r < rows; r++)
            if (present[r]) first[r] = i;
    }
    st = stm_ready_build(in, w->env->pool, w->in_types, w->in_columns, w->inputs, err);
    if (st == MILL_OK && rows > 0) {
        /* In reverse: a column's home is its first branch, and later entries may still read the others. Homes are distinct. */
        for (int32_t i = 0; i < s->n_pass && st == MILL_OK; i++)
            if (s->pass[i].in_branch != NULL)
                st = settle(w, first, rows, s->pass[i].input, s->pass[i].from, s->pass[i].in_branch,
                            s->out.fields[s->pass[i].to].type);
        for (int32_t k = 0; k < n_in && st == MILL_OK; k++)
            for (int32_t i = 0; i < s->inputs[k].n_used && st == MILL_OK; i++) {
                const stm_used_column *u = &s->inputs[k].used[i];
                bool passed = false; /* settled above already */
                for (int32_t p = 0; p < s->n_pass; p++)
                    passed = passed || (s->pass[p].input == u->input && s->pass[p].from == u->column);
                for (int32_t p = 0; p < i; p++)
                    passed = passed || (s->inputs[k].used[p].input == u->input && s->inputs[k].used[p].column == u->column);
                if (!passed && u->in_branch != NULL) st = settle(w, first, rows, u->input, u->column, u->in_branch, u->type);
            }
        if (st != MILL_OK) {
            for (int32_t i = 0; i < n_in; i++) mill_batch_destroy(&w->inputs[i]);
            mill_fail(err, st, "convergence at %s", s->name);
        }
    }
    stm_free(first);
    stm_free(present);
    return st;
}
