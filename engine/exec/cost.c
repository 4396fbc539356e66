#include "exec/cost.h"

#include <string.h>

#include "core/alloc.h"
#include "flow/flow.h"

/* Columns of an arriving batch that stand in the places of one of the step's inputs; -1 = not from there. */
typedef struct view {
    int32_t *column; /* [n_used of the step's input] */
    int32_t n, step_input;
} view;

typedef struct priced_input {
    int32_t *columns; /* that the step reads, each once */
    int32_t n_columns;
    view *views; /* [n_views] of those step inputs that read some of it */
    int32_t n_views;
} priced_input;

struct stm_cost {
    const mill_step *step;
    bool tokens;
    int32_t n_inputs;
    priced_input *inputs; /* of the inlet */
};

static bool counts_tokens(const mill_step *s)
{
    mill_bound b = {.struct_size = sizeof b};

    return s->type->cost != NULL || (s->type->bound != NULL && s->type->bound(s, 1, 64, &b) == MILL_OK && b.tokens > 0);
}

bool stm_cost_unknown(const mill_step *step) { return step->budget_tokens > 0 && !counts_tokens(step); }

/* Place of a used column in what arrives on input @p at, -1 = it does not come from there. */
static int32_t place_of(const stm_used_column *u, int32_t at)
{
    if (u->in_branch != NULL) return u->in_branch[at];
    return u->input == at ? u->column : -1;
}

static mill_status price_input(stm_cost *c, priced_input *p, int32_t at)
{
    const mill_step *s = c->step;
    const int32_t n_columns = s->inputs[at].schema.n;

    p->columns = stm_calloc(((size_t)n_columns + 1) * sizeof *p->columns);
    p->views = stm_calloc((size_t)s->n_inputs * sizeof *p->views);
    if (p->columns == NULL || p->views == NULL) return MILL_ERR_NOMEM;
    for (int32_t k = 0; k < s->n_inputs; k++) {
        const stm_step_input *si = &s->inputs[k];
        view *v = &p->views[p->n_views];
        bool any = false;
        v->step_input = k;
        v->n = si->n_used;
        v->column = stm_malloc(((size_t)si->n_used + 1) * sizeof *v->column);
        p->n_views++;
        if (v->column == NULL) return MILL_ERR_NOMEM;
        for (int32_t i = 0; i < si->n_used; i++) {
            const int32_t column = v->column[i] = place_of(&si->used[i], at);
            bool seen = column < 0;
            any = any || column >= 0;
            for (int32_t q = 0; q < p->n_columns; q++) seen = seen || p->columns[q] == column;
            if (!seen) p->columns[p->n_columns++] = column;
        }
        if (!any) stm_free(v->column), *v = (view){0}, p->n_views--;
    }
    return MILL_OK;
}

mill_status stm_cost_create(const mill_step *step, int32_t n_inputs, stm_cost **out)
{
    stm_cost *c;
    bool reads = false;

    *out = NULL;
    if (step->budget_tokens == 0 && step->budget_bytes == 0) return MILL_OK;
    c = stm_calloc(sizeof *c);
    if (c == NULL) return MILL_ERR_NOMEM;
    c->step = step;
    c->tokens = step->budget_tokens > 0;
    c->n_inputs = step->n_inputs == 1 ? 1 : n_inputs; /* a union is one input to the step, whatever it is made of */
    c->inputs = stm_calloc((size_t)c->n_inputs * sizeof *c->inputs);
    if (c->inputs == NULL) goto fail;
    for (int32_t i = 0; i < c->n_inputs; i++) {
        if (price_input(c, &c->inputs[i], i) != MILL_OK) goto fail;
        reads = reads || c->inputs[i].n_columns > 0;
    }
    for (int32_t i = 0; i < c->n_inputs && !reads; i++)
        for (int32_t k = 0; k < step->inputs[i].schema.n; k++) c->inputs[i].columns[c->inputs[i].n_columns++] = k;
    *out = c;
    return MILL_OK;
fail:
    stm_cost_destroy(&c);
    return MILL_ERR_NOMEM;
}

void stm_cost_destroy(stm_cost **cp)
{
    stm_cost *c = *cp;

    if (c == NULL) return;
    *cp = NULL;
    for (int32_t i = 0; i < c->n_inputs && c->inputs != NULL; i++) {
        for (int32_t k = 0; k < c->inputs[i].n_views; k++) stm_free(c->inputs[i].views[k].column);
        stm_free(c->inputs[i].views);
        stm_free(c->inputs[i].columns);
    }
    stm_free(c->inputs);
    stm_free(c);
}

static void add_bytes(const priced_input *p, const mill_batch *b, int64_t *cost)
{
    for (int32_t k = 0; k < p->n_columns; k++) {
        const mill_column *col = b->columns[p->columns[k]];
        if (col == NULL) continue;
        const int32_t width = mill_column_type(col)->width;
        for (int64_t r = 0; r < b->rows; r++) cost[r] += width > 0 ? width : stm_column_span(col, r, 1);
    }
}

/* The step type's own count. Rows are shown as they are shown to process, but for columns of other inputs. */
static mill_status add_tokens(const stm_cost *c, const priced_input *p, const mill_batch *b, int64_t *cost, mill_error *err)
{
    const mill_step *s = c->step;
    int64_t *one = NULL;
    mill_status st = MILL_OK;

    if (s->type->cost == NULL) { /* row by row, from its bytes: what `bound` can say */
        add_bytes(p, b, cost);
        for (int64_t r = 0; r < b->rows && st == MILL_OK && p->n_columns > 0; r++) {
            mill_bound bound = {.struct_size = sizeof bound};
            st = s->type->bound(s, 1, cost[r], &bound);
            cost[r] = bound.tokens;
        }
        return st == MILL_OK ? st : mill_fail(err, st, "step %s: bound: %s", s->name, mill_status_text(st));
    }
    for (int32_t k = 0; k < p->n_views && st == MILL_OK; k++) {
        const view *v = &p->views[k];
        mill_batch *seen = NULL;
        if (one == NULL && (one = stm_pool_take(b->pool, (size_t)b->rows * sizeof *one)) == NULL) st = MILL_ERR_NOMEM;
        if (st == MILL_OK) st = stm_batch_create(b->pool, b->rows, v->n, 0, &seen);
        if (st != MILL_OK) {
            mill_fail(err, st, "step %s: no memory for the cost of %lld rows", s->name, (long long)b->rows);
            break;
        }
        memset(one, 0, (size_t)b->rows * sizeof *one);
        for (int32_t i = 0; i < v->n; i++)
            if (v->column[i] >= 0 && b->columns[v->column[i]] != NULL) seen->columns[i] = mill_column_ref(b->columns[v->column[i]]);
        st = s->type->cost(s, (size_t)v->step_input, seen, one, err);
        for (int64_t r = 0; r < b->rows; r++)
            cost[r] += one[r] < 0 ? 0 : one[r] > STM_FLOW_MAX_BUDGET ? STM_FLOW_MAX_BUDGET : one[r];
        mill_batch_destroy(&seen);
        if (st != MILL_OK) mill_fail(err, st, "step %s: cost: %s", s->name, mill_status_text(st));
    }
    if (one != NULL) stm_pool_give(b->pool, one, (size_t)b->rows * sizeof *one);
    return st;
}

mill_status stm_cost_rows(const stm_cost *c, int32_t input, const mill_batch *b, mill_buffer **out, mill_error *err)
{
    const priced_input *p = &c->inputs[c->n_inputs == 1 ? 0 : input];
    mill_buffer *buf = NULL;
    mill_status st = MILL_OK;

    *out = NULL;
    if (b->rows == 0) return MILL_OK;
    st = mill_buffer_create(b->pool, (size_t)b->rows * sizeof(int64_t), &buf);
    if (st != MILL_OK) return mill_fail(err, st, "step %s: no memory for the cost of %lld rows", c->step->said, (long long)b->rows);
    memset(mill_buffer_data(buf), 0, (size_t)b->rows * sizeof(int64_t));
    if (c->tokens)
        st = add_tokens(c, p, b, mill_buffer_data(buf), err);
    else
        add_bytes(p, b, mill_buffer_data(buf));
    if (st != MILL_OK) {
        mill_buffer_unref(&buf);
        return st;
    }
    *out = buf;
    return MILL_OK;
}
