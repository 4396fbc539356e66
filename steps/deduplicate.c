/*
 * deduplicate: groups of near-duplicates. Two rows whose vectors have at least the threshold's cosine belong together, or whose
 * signatures have at least that share of numbers in common, and so do rows that are linked through others. Groups stand in the
 * order of their first members, members in row order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stepmill/device.h"
#include "stepmill/ops.h"
#include "steps/builtin.h"
#include "steps/vectors/rows.h"
#include "steps/vectors/signatures.h"

enum { GROUPS_PER_BATCH = 256, OWN_COLUMNS = 4 };

typedef struct settings {
    stm_rows_layout layout; /* first: the step's state begins with it */
    float threshold;
    bool groups;            /* output: groups, else rows */
    const mill_type **types; /* groups: [n_types] of the columns, first those of our own, then the lists of what is carried */
    int32_t *carried;       /* groups: [n_types - OWN_COLUMNS] columns */
    int32_t n_types;
} settings;

static void settings_free(void *p)
{
    settings *s = p;

    stm_rows_layout_fini(&s->layout);
    free(s->types);
    free(s->carried);
    free(s);
}

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for groups"); }

static mill_status add_group_column(settings *s, mill_io *io, const char *name, const mill_type *type, mill_error *err)
{
    if (type == NULL) return no_memory(err);
    s->types[s->n_types++] = type;
    return mill_io_add(io, name, type, NULL, err);
}

/* A list of the members' values, under the column's name. */
static mill_status carry(settings *s, mill_io *io, int32_t column, mill_error *err)
{
    static const char *const own[OWN_COLUMNS] = {"group", "size", "rows", "scores"};

    for (int i = 0; i < OWN_COLUMNS; i++)
        if (strcmp(s->layout.names[column], own[i]) == 0) return stm_rows_layout_taken(own[i], err);
    s->carried[s->n_types - OWN_COLUMNS] = column;
    return add_group_column(s, io, s->layout.names[column], mill_type_list(s->layout.types[column]), err);
}

static mill_status configure_groups(settings *s, const mill_config *c, mill_io *io, mill_error *err)
{
    const mill_type *number = mill_type_plain(MILL_INT64);
    const size_t named = mill_config_count(c, "columns"), most = (size_t)s->layout.n_columns + named;
    mill_status st;

    s->types = calloc(OWN_COLUMNS + most, sizeof *s->types);
    s->carried = calloc(most + 1, sizeof *s->carried);
    if (s->types == NULL || s->carried == NULL) return no_memory(err);
    if ((st = add_group_column(s, io, "group", number, err)) != MILL_OK) return st;
    if ((st = add_group_column(s, io, "size", number, err)) != MILL_OK) return st;
    if ((st = add_group_column(s, io, "rows", mill_type_list(number), err)) != MILL_OK) return st;
    if ((st = add_group_column(s, io, "scores", mill_type_list(mill_type_plain(MILL_FLOAT32)), err)) != MILL_OK) return st;
    for (size_t i = 0; i < named; i++) {
        char key[32];
        int32_t column;

        snprintf(key, sizeof key, "columns[%zu]", i);
        column = stm_rows_layout_column(&s->layout, mill_config_item(c, "columns", i));
        if (column < 0)
            return mill_config_fail(c, key, err, MILL_ERR_NOT_FOUND, "no column \"%s\" arrives", mill_config_item(c, "columns", i));
        if (!stm_rows_can_append(s->layout.types[column]))
            return mill_config_fail(c, key, err, MILL_ERR_TYPE, "column \"%s\" is nested and cannot be listed",
                                    s->layout.names[column]);
        if ((st = carry(s, io, column, err)) != MILL_OK) return st;
    }
    for (int32_t i = 0; !mill_config_has(c, "columns") && i < s->layout.n_columns; i++)
        if (stm_rows_can_append(s->layout.types[i]) && (st = carry(s, io, i, err)) != MILL_OK) return st;
    return MILL_OK;
}

static mill_status configure_rows(settings *s, mill_io *io, mill_error *err)
{
    mill_status st;

    for (int32_t i = 0; i < s->layout.n_columns; i++)
        if ((st = mill_io_add(io, s->layout.names[i], s->layout.types[i], NULL, err)) != MILL_OK) return st;
    if ((st = stm_rows_layout_add(&s->layout, io, "group", mill_type_plain(MILL_INT64), err)) != MILL_OK) return st;
    return stm_rows_layout_add(&s->layout, io, "keep", mill_type_plain(MILL_BOOL), err);
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);
    mill_status st;

    if (s == NULL) return no_memory(err);
    mill_step_set_state(step, s, settings_free);
    s->threshold = (float)mill_config_float(c, "threshold");
    s->groups = strcmp(mill_config_text(c, "output"), "groups") == 0;
    if ((st = stm_rows_layout_init(&s->layout, io, true, err)) != MILL_OK) return st;
    return s->groups ? configure_groups(s, c, io, err) : configure_rows(s, io, err);
}

static const settings *settings_of(const mill_replica *r) { return mill_step_state(mill_replica_step(r)); }

/* ---- groups ---- */

/* What a search for links works on. */
typedef struct links {
    mill_replica *replica;
    stm_forest *forest;
} links;

static mill_status unite(void *user, const mill_pair *pairs, int64_t n, mill_error *err)
{
    (void)err;
    for (int64_t p = 0; p < n; p++) stm_forest_link(((links *)user)->forest, pairs[p].i, pairs[p].j);
    return MILL_OK;
}

static bool cancelled(void *user) { return mill_replica_cancelled(((links *)user)->replica); }

static mill_status link_vectors(links *l, const settings *s, const stm_rows *t, mill_error *err)
{
    mill_pairs_args a = MILL_PAIRS_INIT;

    a.metric = MILL_COSINE, a.threads = mill_replica_cpus(l->replica);
    a.vectors = t->vectors, a.n = t->n_vectors, a.dim = s->layout.dim, a.threshold = s->threshold;
    a.cancelled = cancelled, a.found = unite, a.user = l;
    return mill_replica_pairs(l->replica, &a, t->columns, stm_rows_columns(t, &s->layout), err);
}

static mill_status link_signatures(links *l, const settings *s, const stm_rows *t, mill_error *err)
{
    const stm_signatures a = {.rows = (const int32_t *const *)(const void *)t->vectors,
                              .n = t->n_vectors,
                              .length = s->layout.dim,
                              .threshold = s->threshold,
                              .cancelled = cancelled,
                              .user = l};

    return stm_signatures_link(&a, l->forest, err);
}

static mill_status grow_forest(mill_replica *r, const settings *s, const stm_rows *t, stm_forest *f, mill_error *err)
{
    links l = {r, f};
    mill_status st = stm_forest_init(f, t->n_vectors, err);

    if (st == MILL_OK) st = s->layout.signatures ? link_signatures(&l, s, t, err) : link_vectors(&l, s, t, err);
    return st == MILL_OK ? stm_forest_settle(f, err) : st;
}

static float score(const settings *s, const stm_rows *t, int64_t i, int64_t j)
{
    if (s->layout.signatures)
        return stm_signatures_score((const int32_t *)(const void *)t->vectors[i], (const int32_t *)(const void *)t->vectors[j],
                                    s->layout.dim);
    return mill_score(MILL_COSINE, t->vectors[i], t->vectors[j], s->layout.dim);
}

/* ---- one row per group ---- */

static mill_status append_group(const settings *s, const stm_rows *t, const stm_forest *f, int64_t root, int64_t number,
                                mill_builder *const *b)
{
    mill_status st;

    if ((st = mill_builder_int(b[0], number)) != MILL_OK) return st;
    if ((st = mill_builder_int(b[1], f->size[root])) != MILL_OK) return st;
    for (int64_t i = root; i >= 0; i = f->next[i]) {
        if ((st = mill_builder_int(mill_builder_child(b[2], 0), t->row_of[i])) != MILL_OK) return st;
        if ((st = mill_builder_float(mill_builder_child(b[3], 0), (double)score(s, t, root, i))) != MILL_OK) return st;
        for (int32_t c = OWN_COLUMNS; c < s->n_types; c++) {
            mill_builder *values = mill_builder_child(b[c], 0);
            if ((st = stm_rows_append(t, &s->layout, s->carried[c - OWN_COLUMNS], t->row_of[i], values)) != MILL_OK) return st;
        }
    }
    for (int32_t c = 2; c < s->n_types; c++)
        if ((st = mill_builder_close_row(b[c])) != MILL_OK) return st;
    return MILL_OK;
}

static mill_status emit_built(const settings *s, mill_pool *pool, mill_builder *const *b, mill_emit *out, mill_error *err)
{
    mill_batch *batch = NULL;
    mill_column *col = NULL;
    mill_status st;

    if (mill_batch_create(pool, mill_builder_rows(b[0]), s->n_types, &batch) != MILL_OK) return no_memory(err);
    for (int32_t c = 0; c < s->n_types; c++) {
        if ((st = mill_builder_finish(b[c], &col)) == MILL_OK) st = mill_batch_set_column(batch, c, &col);
        if (st != MILL_OK) {
            mill_column_unref(&col);
            mill_batch_destroy(&batch);
            return mill_fail(err, st, "cannot make the columns of groups");
        }
    }
    st = mill_emit_batch(out, &batch, NULL, err);
    mill_batch_destroy(&batch);
    return st;
}

static mill_status emit_groups(mill_replica *r, const stm_rows *t, const stm_forest *f, mill_emit *out, mill_error *err)
{
    const settings *s = settings_of(r);
    mill_builder **b = calloc((size_t)s->n_types, sizeof *b);
    int64_t number = 0;
    mill_status st = MILL_OK;

    if (b == NULL) return no_memory(err);
    for (int32_t c = 0; c < s->n_types; c++)
        if (mill_builder_create(mill_replica_pool(r), s->types[c], &b[c]) != MILL_OK) {
            st = no_memory(err);
            goto done;
        }
    for (int64_t i = 0; i < f->n; i++) {
        if (f->parent[i] != i || f->size[i] < 2) continue;
        if ((st = append_group(s, t, f, i, number++, b)) != MILL_OK) {
            (void)mill_fail(err, st, "cannot list the members of a group");
            goto done;
        }
        if (number % GROUPS_PER_BATCH == 0 && (st = emit_built(s, mill_replica_pool(r), b, out, err)) != MILL_OK) goto done;
    }
    if (mill_builder_rows(b[0]) > 0) st = emit_built(s, mill_replica_pool(r), b, out, err);
done:
    for (int32_t c = 0; c < s->n_types; c++) mill_builder_destroy(&b[c]);
    free(b);
    return st;
}

/* ---- every row, with its group ---- */

static mill_status emit_rows(mill_replica *r, const stm_rows *t, stm_forest *f, mill_emit *out, mill_error *err)
{
    const settings *s = settings_of(r);
    mill_pool *pool = mill_replica_pool(r);
    mill_builder *b[2] = {NULL, NULL};
    mill_batch *batch = NULL;
    mill_column *col = NULL;
    int64_t v = 0, number = 0;
    mill_status st;

    if ((st = mill_builder_create(pool, mill_type_plain(MILL_INT64), &b[0])) != MILL_OK ||
        (st = mill_builder_create(pool, mill_type_plain(MILL_BOOL), &b[1])) != MILL_OK)
        goto memory;
    for (size_t i = 0; i < t->n_chunks; i++) {
        const stm_rows_chunk *k = &t->chunks[i];
        if (k->rows == 0) continue;
        for (int64_t row = k->first; row < k->first + k->rows; row++) {
            const bool has = v < f->n && t->row_of[v] == row;
            const int64_t root = has ? f->parent[v] : 0;
            const bool grouped = has && f->size[root] > 1, first = !grouped || root == v;
            if (grouped && first) f->next[v] = number++; /* the chain is not needed here: the root keeps its number in it */
            st = grouped ? mill_builder_int(b[0], f->next[root]) : mill_builder_null(b[0]);
            if (st != MILL_OK || (st = mill_builder_bool(b[1], first)) != MILL_OK) goto memory;
            if (has) v++;
        }
        if ((st = stm_rows_batch(t, &s->layout, k, 2, pool, &batch, err)) != MILL_OK) goto done;
        for (int32_t c = 0; c < 2; c++)
            if ((st = mill_builder_finish(b[c], &col)) != MILL_OK ||
                (st = mill_batch_set_column(batch, s->layout.n_columns + c, &col)) != MILL_OK)
                goto memory;
        if ((st = mill_emit_batch(out, &batch, NULL, err)) != MILL_OK) goto done;
    }
    goto done;
memory:
    (void)no_memory(err);
done:
    mill_column_unref(&col);
    mill_batch_destroy(&batch);
    mill_builder_destroy(&b[0]);
    mill_builder_destroy(&b[1]);
    return st;
}

static mill_status finish(mill_replica *r, mill_emit *out, mill_error *err)
{
    const settings *s = settings_of(r);
    stm_rows *t = mill_replica_state(r);
    stm_forest f = {0};
    mill_status st;

    if ((st = stm_rows_seal(t, &s->layout, err)) == MILL_OK && (st = grow_forest(r, s, t, &f, err)) == MILL_OK)
        st = s->groups ? emit_groups(r, t, &f, out, err) : emit_rows(r, t, &f, out, err);
    stm_forest_fini(&f);
    return st;
}

static const mill_param params[] = {
    {"threshold", MILL_PARAM_FLOAT, 0, "0.92", -1, 1, NULL,
     "from which on two rows belong together: the cosine of their vectors, or the share of equal numbers of their signatures"},
    {"output", MILL_PARAM_ENUM, 0, "groups", 0, 0, "groups|rows",
     "groups: one row per group of two or more, with group, size, and lists of rows (numbers from 0), scores (to the first member) "
     "and columns; "
     "rows: every row, with group (null: in none) and keep (the first of its group, or in none)"},
    {"columns", MILL_PARAM_STRINGS, MILL_PARAM_OPTIONAL, NULL, 0, 0, NULL,
     "groups: columns to list for the members of a group; default: all that are not nested"},
};
static const mill_column_decl inputs[] = {{"embedding", "any", "vectors, fixed_list<float32>, or the signatures of minhash_text"}};

const mill_step_type stm_step_deduplicate = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_GLOBAL,
    .flags = MILL_ORDERED | MILL_ON_DEVICE,
    .name = "deduplicate",
    .summary = "Groups of near-duplicates: rows whose vectors or signatures are alike as far as the threshold says, and rows "
               "linked through others",
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
