/* Putting a step's results and the columns that pass through into the outgoing batch. */
#include <string.h>

#include "core/alloc.h"
#include "wrapper/replica.h"

/* Moves the imputation flags of a passed column along. */
static mill_status pass_imputed(mill_batch *out, int32_t to, mill_batch *in, int32_t from)
{
    if (in->imputed == NULL || in->imputed[from] == NULL) return MILL_OK;
    if (out->imputed == NULL) {
        out->imputed = stm_pool_take(out->pool, (size_t)out->n_columns * sizeof *out->imputed);
        if (out->imputed == NULL) return MILL_ERR_NOMEM;
        memset(out->imputed, 0, (size_t)out->n_columns * sizeof *out->imputed);
    }
    out->imputed[to] = mill_column_ref(in->imputed[from]);
    return MILL_OK;
}

mill_status stm_merge_marks(stm_wrapper *w, mill_batch *const *in, int32_t n_in, mill_column **out)
{
    mill_buffer *data = NULL;
    mill_column *first = NULL;
    int32_t with = 0;
    int64_t *mark;
    mill_status st;

    for (int32_t i = 0; i < n_in; i++)
        if (in[i]->marks != NULL && with++ == 0) first = in[i]->marks;
    if (with <= 1) {
        *out = first != NULL ? mill_column_ref(first) : NULL;
        return MILL_OK;
    }
    st = mill_buffer_create(w->env->pool, (size_t)in[0]->rows * sizeof *mark, &data);
    if (st != MILL_OK) return st;
    mark = mill_buffer_data(data);
    memset(mark, 0, (size_t)in[0]->rows * sizeof *mark);
    for (int32_t i = 0; i < n_in; i++) {
        if (in[i]->marks == NULL) continue;
        const mill_view v = mill_column_view(in[i]->marks);
        const int64_t *m = (const int64_t *)v.data + v.offset;
        for (int64_t r = 0; r < in[0]->rows; r++)
            if (mark[r] == 0) mark[r] = m[r];
    }
    st = mill_column_create(w->env->pool, mill_type_plain(MILL_INT64), in[0]->rows, NULL, NULL, &data, NULL, out, NULL);
    mill_buffer_unref(&data);
    return st;
}

mill_status stm_merge_fast(stm_wrapper *w, mill_batch **in, int32_t n_in, mill_batch *result, mill_batch **out)
{
    const mill_step *s = w->step;
    mill_batch *b = NULL, *head = in[0];
    mill_status st;

    st = stm_batch_create(w->env->pool, head->rows, s->out.n, w->n_roots, &b);
    if (st != MILL_OK) return st;
    stm_batch_copy_envelope(b, head);
    b->keys = head->keys;
    if (b->keys.tuples != NULL) mill_buffer_ref(b->keys.tuples);
    for (int32_t i = 0; i < s->n_pass; i++) {
        mill_batch *src = in[s->pass[i].input];
        if (src->columns[s->pass[i].from] != NULL) b->columns[s->pass[i].to] = mill_column_ref(src->columns[s->pass[i].from]);
        if ((st = pass_imputed(b, s->pass[i].to, src, s->pass[i].from)) != MILL_OK) goto fail;
    }
    for (int32_t i = 0; i < s->n_outputs && result != NULL; i++)
        if (result->columns[i] != NULL) b->columns[s->outputs[i].column] = mill_column_ref(result->columns[i]);
    if ((st = stm_merge_marks(w, in, n_in, &b->marks)) != MILL_OK) goto fail;
    for (int32_t i = 0; i < n_in; i++) mill_batch_destroy(&in[i]);
    *out = b;
    return MILL_OK;
fail:
    mill_batch_destroy(&b);
    return st;
}

mill_status stm_outcome_add(stm_outcome *o, int64_t source, int64_t parent, int64_t error)
{
    if (o->n == o->cap) { /* three arrays that grow together */
        size_t cap = o->cap, a = cap, b = cap, c = cap;
        if (stm_grow(&o->source, &a, cap + 1, sizeof *o->source) != 0 ||
            stm_grow(&o->parent, &b, cap + 1, sizeof *o->parent) != 0 || stm_grow(&o->error, &c, cap + 1, sizeof *o->error) != 0)
            return MILL_ERR_NOMEM;
        o->cap = a;
    }
    o->source[o->n] = source;
    o->parent[o->n] = parent;
    o->error[o->n] = error;
    o->n++;
    return MILL_OK;
}

mill_status stm_outcome_part(stm_outcome *o, stm_emitted *part)
{
    if (stm_grow(&o->parts, &o->cap_parts, o->n_parts + 1, sizeof *o->parts) != 0) return MILL_ERR_NOMEM;
    o->parts[o->n_parts++] = *part;
    o->part_rows += part->batch->rows;
    memset(part, 0, sizeof *part);
    return MILL_OK;
}

void stm_outcome_fini(stm_outcome *o)
{
    for (size_t i = 0; i < o->n_parts; i++) {
        mill_batch_destroy(&o->parts[i].batch);
        mill_buffer_unref(&o->parts[i].parent);
    }
    stm_free(o->parts);
    stm_free(o->source);
    stm_free(o->parent);
    stm_free(o->error);
    memset(o, 0, sizeof *o);
}

/* Keys of children: the parent's tuple with the child's index appended; -1 where the row was imputed and has no child. */
static mill_status child_keys(stm_wrapper *w, mill_batch *b, const mill_batch *in, const stm_outcome *o)
{
    const int32_t from = in->keys.width, to = w->key_width;
    mill_buffer *tuples = NULL;
    int64_t *t, child = 0;
    mill_status st;

    st = mill_buffer_create(w->env->pool, o->n * (size_t)to * sizeof *t, &tuples);
    if (st != MILL_OK) return st;
    t = mill_buffer_data(tuples);
    for (size_t i = 0; i < o->n; i++) {
        int64_t *key = t + (int64_t)i * to;
        child = i > 0 && o->parent[i] == o->parent[i - 1] ? child + 1 : 0;
        for (int32_t k = 0; k < to; k++) key[k] = -1;
        stm_batch_key(in, o->parent[i], key);
        const bool alone = (i == 0 || o->parent[i - 1] != o->parent[i]) && (i + 1 == o->n || o->parent[i + 1] != o->parent[i]);
        if (to > from) key[to - 1] = alone && o->error[i] != 0 && o->source[i] < 0 ? -1 : child; /* a row that was not expanded */
    }
    mill_buffer_unref(&b->keys.tuples);
    b->keys = (stm_keys){.tuples = tuples, .width = to};
    return MILL_OK;
}

/* Declared output columns: results laid end to end, picked by source. */
static mill_status result_columns(stm_wrapper *w, mill_batch *b, const stm_outcome *o, bool in_place)
{
    const mill_step *s = w->step;
    mill_column **cols;
    mill_status st = MILL_OK;

    if (s->n_outputs == 0 || o->n_parts == 0) return MILL_OK;
    cols = stm_malloc(o->n_parts * sizeof *cols);
    if (cols == NULL) return MILL_ERR_NOMEM;
    for (int32_t i = 0; i < s->n_outputs && st == MILL_OK; i++) {
        mill_column *whole = NULL, *picked = NULL;
        size_t made = 0;
        for (; made < o->n_parts && st == MILL_OK; made++) {
            cols[made] = NULL;
            if (o->parts[made].batch->columns[i] != NULL)
                cols[made] = mill_column_ref(o->parts[made].batch->columns[i]);
            else
                st = mill_column_nulls(w->env->pool, s->outputs[i].type, o->parts[made].batch->rows, &cols[made]);
        }
        if (st == MILL_OK) st = stm_column_concat(w->env->pool, cols, o->n_parts, s->outputs[i].type, &whole);
        for (size_t k = 0; k < made; k++) mill_column_unref(&cols[k]);
        if (st == MILL_OK && in_place) {
            picked = whole;
            whole = NULL;
        } else if (st == MILL_OK) {
            st = stm_column_gather(w->env->pool, whole, o->source, (int64_t)o->n, &picked);
        }
        mill_column_unref(&whole);
        b->columns[s->outputs[i].column] = picked;
    }
    stm_free(cols);
    return st;
}

mill_status stm_merge_general(stm_wrapper *w, mill_batch **in, int32_t n_in, stm_outcome *o, mill_batch **out)
{
    const mill_step *s = w->step;
    const int64_t n = (int64_t)o->n;
    bool same_rows = n == in[0]->rows, in_place = n == o->part_rows;
    mill_batch *b = NULL, **picked;
    mill_status st;

    for (int64_t i = 0; i < n; i++) {
        same_rows = same_rows && o->parent[i] == i;
        in_place = in_place && o->source[i] == i;
    }
    picked = stm_calloc((size_t)n_in * sizeof *picked);
    if (picked == NULL) return MILL_ERR_NOMEM;
    for (int32_t i = 0; i < n_in; i++) {
        st = same_rows ? stm_batch_clone(in[i], &picked[i])
                       : stm_batch_gather(w->env->pool, in[i], o->parent, n, w->in_types[i], &picked[i]);
        if (st != MILL_OK) goto fail;
        stm_batch_copy_envelope(picked[i], in[i]);
    }
    st = stm_merge_fast(w, picked, n_in, NULL, &b); /* consumes picked on success */
    if (st != MILL_OK) goto fail;
    if ((s->type->flags & MILL_EXPANDS) != 0 && (st = child_keys(w, b, in[0], o)) != MILL_OK) goto fail;
    if ((st = result_columns(w, b, o, in_place)) != MILL_OK) goto fail;
    for (int64_t i = 0; i < n;) { /* runs of rows imputed for the same reason */
        int64_t end = i + 1;
        if (o->source[i] >= 0 || o->error[i] == 0) {
            i++;
            continue;
        }
        while (end < n && o->source[end] < 0 && o->error[end] == o->error[i]) end++;
        if (o->error[i] > 0) st = stm_batch_impute(b, -1, i, end - i, o->error[i]);
        for (int32_t c = 0; c < s->n_outputs && st == MILL_OK; c++)
            st = stm_batch_impute(b, s->outputs[c].column, i, end - i, o->error[i] > 0 ? o->error[i] : 0);
        if (st != MILL_OK) goto fail;
        b->failed = b->failed || o->error[i] > 0;
        i = end;
    }
    for (int32_t i = 0; i < n_in; i++) {
        mill_batch_destroy(&in[i]);
        mill_batch_destroy(&picked[i]);
    }
    stm_free(picked);
    *out = b;
    return MILL_OK;
fail:
    for (int32_t i = 0; i < n_in; i++) mill_batch_destroy(&picked[i]);
    stm_free(picked);
    mill_batch_destroy(&b);
    return st;
}
