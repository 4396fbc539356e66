/* nearest_neighbours: for every row the rows whose vectors are nearest to its own, exactly. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stepmill/device.h"
#include "stepmill/ops.h"
#include "steps/builtin.h"
#include "steps/vectors/rows.h"

typedef struct settings {
    stm_rows_layout layout; /* first: the step's state begins with it */
    const mill_type *rows_type, *scores_type, *ids_type; /* lists; ids_type NULL = not wanted */
    int64_t k;
    float threshold;
    int32_t metric, id;
    bool exclude_self;
} settings;

static void settings_free(void *p)
{
    settings *s = p;

    stm_rows_layout_fini(&s->layout);
    free(s);
}

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for neighbours"); }

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);
    mill_status st;

    if (s == NULL) return no_memory(err);
    mill_step_set_state(step, s, settings_free);
    s->k = mill_config_int(c, "k");
    s->threshold = mill_config_has(c, "threshold") ? (float)mill_config_float(c, "threshold") : -INFINITY;
    s->metric = strcmp(mill_config_text(c, "metric"), "dot") == 0 ? MILL_DOT : MILL_COSINE;
    s->exclude_self = mill_config_bool(c, "exclude_self");
    if ((st = stm_rows_layout_init(&s->layout, io, false, err)) != MILL_OK) return st;
    s->id = -1;
    if (mill_config_has(c, "id")) {
        s->id = stm_rows_layout_column(&s->layout, mill_config_text(c, "id"));
        if (s->id < 0)
            return mill_config_fail(c, "id", err, MILL_ERR_NOT_FOUND, "no column \"%s\" arrives", mill_config_text(c, "id"));
    }
    s->rows_type = mill_type_list(mill_type_plain(MILL_INT64));
    s->scores_type = mill_type_list(mill_type_plain(MILL_FLOAT32));
    if (s->id >= 0) {
        const mill_type *t = s->layout.types[s->id];
        if (!stm_rows_can_append(t)) return mill_config_fail(c, "id", err, MILL_ERR_TYPE, "identifiers cannot be nested");
        s->ids_type = mill_type_list(t);
    }
    if (s->rows_type == NULL || s->scores_type == NULL || (s->id >= 0 && s->ids_type == NULL)) return no_memory(err);
    for (int32_t i = 0; i < s->layout.n_columns; i++)
        if ((st = mill_io_add(io, s->layout.names[i], s->layout.types[i], NULL, err)) != MILL_OK) return st;
    if ((st = stm_rows_layout_add(&s->layout, io, "neighbours", s->rows_type, err)) != MILL_OK) return st;
    if ((st = stm_rows_layout_add(&s->layout, io, "scores", s->scores_type, err)) != MILL_OK) return st;
    return s->ids_type != NULL ? stm_rows_layout_add(&s->layout, io, "neighbour_ids", s->ids_type, err) : MILL_OK;
}

static const settings *settings_of(const mill_replica *r) { return mill_step_state(mill_replica_step(r)); }

/* What the search found, k places per vector. */
typedef struct found {
    int64_t *rows; /* places in the list of vectors, -1 = no more */
    float *scores;
    int64_t k;
} found;

static int64_t count(const found *f, int64_t vector)
{
    int64_t n = 0;

    while (n < f->k && f->rows[vector * f->k + n] >= 0) n++;
    return n;
}

/* The columns `neighbours` and `scores` of one chunk, whose vectors are [from, to). */
static mill_status list_columns(const settings *s, const stm_rows *t, const stm_rows_chunk *chunk, const found *f, int64_t from,
                                int64_t to, mill_pool *pool, mill_column **rows, mill_column **scores, mill_error *err)
{
    mill_buffer *offsets[2] = {NULL, NULL}, *data[2] = {NULL, NULL};
    mill_column *children[2] = {NULL, NULL};
    int64_t total = 0, v = from, *o;
    mill_status st = MILL_OK;

    for (int64_t i = from; i < to; i++) total += count(f, i);
    for (int i = 0; i < 2 && st == MILL_OK; i++) {
        st = mill_buffer_create(pool, ((size_t)chunk->rows + 1) * sizeof(int64_t), &offsets[i]);
        if (st == MILL_OK) st = mill_buffer_create(pool, (size_t)total * (i == 0 ? sizeof(int64_t) : sizeof(float)), &data[i]);
    }
    if (st != MILL_OK) {
        (void)no_memory(err);
        goto done;
    }
    o = mill_buffer_data(offsets[0]);
    total = 0;
    for (int64_t r = 0; r < chunk->rows; r++) {
        o[r] = total;
        if (v == to || t->row_of[v] != chunk->first + r) continue; /* no vector: an empty list */
        for (int64_t i = 0, n = count(f, v); i < n; i++, total++) {
            ((int64_t *)mill_buffer_data(data[0]))[total] = t->row_of[f->rows[v * f->k + i]];
            ((float *)mill_buffer_data(data[1]))[total] = f->scores[v * f->k + i];
        }
        v++;
    }
    o[chunk->rows] = total;
    memcpy(mill_buffer_data(offsets[1]), o, ((size_t)chunk->rows + 1) * sizeof *o);
    for (int i = 0; i < 2; i++) {
        const mill_type *list = i == 0 ? s->rows_type : s->scores_type;
        st = mill_column_create(pool, list->fields[0].type, total, NULL, NULL, &data[i], NULL, &children[i], err);
        if (st != MILL_OK) goto done;
        st = mill_column_create(pool, list, chunk->rows, NULL, &offsets[i], NULL, &children[i], i == 0 ? rows : scores, err);
        if (st != MILL_OK) goto done;
    }
done:
    for (int i = 0; i < 2; i++) {
        mill_buffer_unref(&offsets[i]);
        mill_buffer_unref(&data[i]);
        mill_column_unref(&children[i]);
    }
    if (st != MILL_OK) mill_column_unref(rows);
    return st;
}

static mill_status id_column(const settings *s, const stm_rows *t, const stm_rows_chunk *chunk, const found *f, int64_t from,
                             int64_t to, mill_builder *b, mill_column **out, mill_error *err)
{
    int64_t v = from;
    mill_status st = MILL_OK;

    for (int64_t r = 0; r < chunk->rows && st == MILL_OK; r++) {
        if (v < to && t->row_of[v] == chunk->first + r) {
            for (int64_t i = 0, n = count(f, v); i < n && st == MILL_OK; i++)
                st = stm_rows_append(t, &s->layout, s->id, t->row_of[f->rows[v * f->k + i]], mill_builder_child(b, 0));
            v++;
        }
        if (st == MILL_OK) st = mill_builder_close_row(b);
    }
    if (st == MILL_OK) st = mill_builder_finish(b, out);
    return st == MILL_OK ? MILL_OK : mill_fail(err, st, "cannot list identifiers of neighbours");
}

static mill_status emit_chunk(mill_replica *r, const stm_rows *t, const stm_rows_chunk *chunk, const found *f, int64_t from,
                              int64_t to, mill_builder *ids, mill_emit *out, mill_error *err)
{
    const settings *s = settings_of(r);
    mill_pool *pool = mill_replica_pool(r);
    mill_column *col[3] = {NULL, NULL, NULL};
    mill_batch *b = NULL;
    mill_status st;

    if ((st = list_columns(s, t, chunk, f, from, to, pool, &col[0], &col[1], err)) != MILL_OK) return st;
    if (ids != NULL) st = id_column(s, t, chunk, f, from, to, ids, &col[2], err);
    if (st == MILL_OK) st = stm_rows_batch(t, &s->layout, chunk, ids != NULL ? 3 : 2, pool, &b, err);
    for (int32_t i = 0; st == MILL_OK && i < (ids != NULL ? 3 : 2); i++) {
        st = mill_batch_set_column(b, s->layout.n_columns + i, &col[i]);
        if (st != MILL_OK) (void)mill_fail(err, st, "cannot add column %d of neighbours", (int)i);
    }
    if (st == MILL_OK) st = mill_emit_batch(out, &b, NULL, err);
    for (int i = 0; i < 3; i++) mill_column_unref(&col[i]);
    mill_batch_destroy(&b);
    return st;
}

static bool cancelled(void *replica) { return mill_replica_cancelled(replica); }

static mill_status finish(mill_replica *r, mill_emit *out, mill_error *err)
{
    const settings *s = settings_of(r);
    stm_rows *t = mill_replica_state(r);
    mill_topk_args a = MILL_TOPK_INIT;
    found f = {0};
    mill_builder *ids = NULL;
    int64_t v = 0;
    mill_status st;

    if ((st = stm_rows_seal(t, &s->layout, err)) != MILL_OK) return st;
    f.k = s->k < t->n_vectors ? s->k : t->n_vectors > 0 ? t->n_vectors : 1;
    f.rows = malloc((size_t)(t->n_vectors * f.k + 1) * sizeof *f.rows);
    f.scores = malloc((size_t)(t->n_vectors * f.k + 1) * sizeof *f.scores);
    if (f.rows == NULL || f.scores == NULL) {
        st = no_memory(err);
        goto done;
    }
    a.metric = s->metric, a.threads = mill_replica_cpus(r);
    a.queries = a.corpus = t->vectors, a.n_queries = a.n_corpus = t->n_vectors, a.dim = s->layout.dim;
    a.k = f.k, a.threshold = s->threshold, a.exclude_self = s->exclude_self;
    a.cancelled = cancelled, a.user = r;
    a.rows = f.rows, a.scores = f.scores;
    if ((st = mill_replica_topk(r, &a, t->columns, stm_rows_columns(t, &s->layout), err)) != MILL_OK) goto done;
    if (s->ids_type != NULL && (st = mill_builder_create(mill_replica_pool(r), s->ids_type, &ids)) != MILL_OK) {
        (void)no_memory(err);
        goto done;
    }
    for (size_t i = 0; st == MILL_OK && i < t->n_chunks; i++) {
        const int64_t end = t->chunks[i].first + t->chunks[i].rows;
        const int64_t from = v;
        while (v < t->n_vectors && t->row_of[v] < end) v++;
        if (t->chunks[i].rows > 0) st = emit_chunk(r, t, &t->chunks[i], &f, from, v, ids, out, err);
    }
done:
    mill_builder_destroy(&ids);
    free(f.rows);
    free(f.scores);
    return st;
}

static const mill_param params[] = {
    {"k", MILL_PARAM_INT, 0, "10", 1, MILL_OPS_MAX_K, NULL, "neighbours of a row, at most"},
    {"threshold", MILL_PARAM_FLOAT, MILL_PARAM_OPTIONAL, NULL, -1e30, 1e30, NULL, "leave out neighbours with a lower score"},
    {"metric", MILL_PARAM_ENUM, 0, "cosine", 0, 0, "cosine|dot", "what the score is: cosine of the angle, or dot product"},
    {"exclude_self", MILL_PARAM_BOOL, 0, "true", 0, 0, NULL, "a row is not its own neighbour"},
    {"id", MILL_PARAM_STRING, MILL_PARAM_OPTIONAL, NULL, 0, 0, NULL, "column with identifiers: adds neighbour_ids"},
};
static const mill_column_decl inputs[] = {{"embedding", "any", "vectors, fixed_list<float32>"}};

const mill_step_type stm_step_nearest_neighbours = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_GLOBAL,
    .flags = MILL_ORDERED | MILL_ON_DEVICE,
    .name = "nearest_neighbours",
    .summary = "The rows nearest to every row by their vectors, exactly: adds neighbours (row numbers from 0) and scores",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .inputs = inputs,
    .n_inputs = 1,
    .configure = configure,
    .load = stm_rows_load,
    .unload = stm_rows_unload,
    .accept = stm_rows_take,
    .finish = finish,
};
