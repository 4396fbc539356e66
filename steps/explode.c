/* explode: one row per item of a list. The other columns are repeated by the engine. */
#include <stdlib.h>

#include "steps/builtin.h"

typedef struct settings {
    bool keep_empty, index;
    const mill_type *item;
} settings;

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    const char *column = mill_config_text(c, "column"), *index = mill_config_text(c, "index");
    const char *output = mill_config_has(c, "output") ? mill_config_text(c, "output") : column;
    settings *s = calloc(1, sizeof *s);
    int32_t in;
    mill_status st;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, free);
    s->keep_empty = mill_config_bool(c, "keep_empty");
    if ((st = mill_io_use(io, 0, column, "any", &in, err)) != MILL_OK) return st;
    const mill_type *type = mill_io_used_type(io, 0, in);
    if (type->id != MILL_LIST && type->id != MILL_FIXED_LIST) {
        char text[96];
        mill_type_format(type, text, sizeof text);
        return mill_config_fail(c, "column", err, MILL_ERR_TYPE, "column %s is no list but %s", column, text);
    }
    s->item = type->fields[0].type;
    s->index = index != NULL && index[0] != 0;
    if ((st = mill_io_add(io, output, s->item, NULL, err)) != MILL_OK) return st;
    return s->index ? mill_io_add(io, index, mill_type_plain(MILL_INT64), NULL, err) : MILL_OK;
}

/* Children of row r: [*first, *first + n). */
static int64_t items(const mill_view *v, int64_t r, int64_t *first)
{
    const int64_t i = v->offset + r;

    *first = 0;
    if (v->validity != NULL && !(v->validity[i >> 3] >> (i & 7) & 1)) return 0;
    if (v->type->id == MILL_FIXED_LIST) {
        *first = i * v->type->length;
        return v->type->length;
    }
    *first = v->offsets[i];
    return v->offsets[i + 1] - v->offsets[i];
}

static mill_status append_item(mill_builder *b, const mill_column *child, const mill_view *v, int64_t r);

static mill_status append_list(mill_builder *b, const mill_view *v, int64_t r)
{
    const mill_view item = mill_column_view(v->children[0]);
    int64_t first, n = items(v, r, &first);
    mill_status st = MILL_OK;

    for (int64_t k = 0; k < n && st == MILL_OK; k++) st = append_item(mill_builder_child(b, 0), v->children[0], &item, first + k);
    return st == MILL_OK ? mill_builder_close_row(b) : st;
}

static mill_status append_item(mill_builder *b, const mill_column *child, const mill_view *v, int64_t r)
{
    const int64_t i = v->offset + r;
    int64_t n;

    if (mill_column_is_null(child, r)) return mill_builder_null(b);
    switch (v->type->id) {
    case MILL_BOOL: return mill_builder_bool(b, ((const uint8_t *)v->data)[i >> 3] >> (i & 7) & 1);
    case MILL_INT32: return mill_builder_int(b, ((const int32_t *)v->data)[i]);
    case MILL_INT64: return mill_builder_int(b, ((const int64_t *)v->data)[i]);
    case MILL_FLOAT32: return mill_builder_float(b, (double)((const float *)v->data)[i]);
    case MILL_FLOAT64: return mill_builder_float(b, ((const double *)v->data)[i]);
    case MILL_UTF8:
    case MILL_BINARY:
    case MILL_JSON: {
        const char *text = mill_column_text(child, r, &n);
        return mill_builder_text(b, text, n);
    }
    case MILL_LIST:
    case MILL_FIXED_LIST: return append_list(b, v, r);
    case MILL_STRUCT: {
        mill_status st = MILL_OK;
        for (int32_t f = 0; f < v->type->n_fields && st == MILL_OK; f++) {
            const mill_view field = mill_column_view(v->children[f]);
            st = append_item(mill_builder_child(b, f), v->children[f], &field, i);
        }
        return st == MILL_OK ? mill_builder_close_row(b) : st;
    }
    default: return MILL_ERR_UNSUPPORTED;
    }
}

typedef struct state {
    mill_builder *item, *index;
} state;

static mill_status load(mill_replica *r, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = calloc(1, sizeof *me);

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_replica_set_state(r, me);
    if (mill_builder_create(mill_replica_pool(r), s->item, &me->item) != MILL_OK ||
        mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &me->index) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    state *me = mill_replica_state(r);

    if (me == NULL) return;
    mill_builder_destroy(&me->item);
    mill_builder_destroy(&me->index);
    free(me);
    mill_replica_set_state(r, NULL);
}

static mill_status fill(const settings *s, state *me, const mill_batch *in, int64_t *parent, int64_t *total)
{
    mill_column *col = mill_batch_column(in, 0);
    const mill_view v = col != NULL ? mill_column_view(col) : (mill_view){0};
    const mill_view child = col != NULL ? mill_column_view(v.children[0]) : (mill_view){0};
    mill_status st = MILL_OK;

    *total = 0;
    for (int64_t r = 0; r < mill_batch_rows(in); r++) {
        int64_t first = 0;
        const int64_t n = col != NULL ? items(&v, r, &first) : 0;
        if (n == 0 && s->keep_empty) {
            if (parent != NULL) {
                parent[*total] = r;
                if ((st = mill_builder_null(me->item)) != MILL_OK || (st = mill_builder_null(me->index)) != MILL_OK) return st;
            }
            ++*total;
        }
        for (int64_t k = 0; k < n; k++, ++*total) {
            if (parent == NULL) continue; /* only counting */
            parent[*total] = r;
            if ((st = append_item(me->item, v.children[0], &child, first + k)) != MILL_OK) return st;
            if ((st = mill_builder_int(me->index, k)) != MILL_OK) return st;
        }
    }
    return MILL_OK;
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);
    mill_buffer *parent = NULL;
    mill_column *item = NULL, *index = NULL;
    mill_batch *batch = NULL;
    int64_t rows;
    mill_status st;

    (void)n_in;
    mill_builder_truncate(me->item, 0); /* of a batch that failed */
    mill_builder_truncate(me->index, 0);
    (void)fill(s, me, in[0], NULL, &rows);
    st = mill_buffer_create(mill_replica_pool(r), (size_t)rows * sizeof(int64_t), &parent);
    if (st == MILL_OK) st = fill(s, me, in[0], mill_buffer_data(parent), &rows);
    if (st == MILL_OK) st = mill_builder_finish(me->item, &item);
    if (st == MILL_OK) st = mill_builder_finish(me->index, &index);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, 1 + s->index, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &item);
    if (st == MILL_OK && s->index) st = mill_batch_set_column(batch, 1, &index);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, &parent, err);
    mill_column_unref(&item);
    mill_column_unref(&index);
    mill_buffer_unref(&parent);
    mill_batch_destroy(&batch);
    return st == MILL_OK ? MILL_OK : mill_fail(err, st, "cannot make %lld rows of the items", (long long)rows);
}

static const mill_param params[] = {
    {.name = "column", .type = MILL_PARAM_STRING, .text = "the list"},
    {.name = "output",
     .type = MILL_PARAM_STRING,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "name of the column of items; without it, the list's"},
    {.name = "index",
     .type = MILL_PARAM_STRING,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "name of a column with the item's number in its list, from 0"},
    {.name = "keep_empty",
     .type = MILL_PARAM_BOOL,
     .default_value = "false",
     .text = "keep rows with no items, as one row with a null"},
};

const mill_step_type stm_step_explode = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW | MILL_EXPANDS | MILL_FILTERS,
    .name = "explode",
    .summary = "one row per item of a list",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .process = process,
};
