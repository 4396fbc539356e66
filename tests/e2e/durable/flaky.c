/* flaky: value = 3 id + 1, but for the ids that a file lists when the step is loaded, each with the class of its failure. What the
 * file says is no part of the pipeline, so that a run and its retry are the same one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stepmill/step.h"

static const mill_param params[] = {
    {"list", MILL_PARAM_STRING, 0, NULL, 0, 0, NULL,
     "file of lines: id class; none of them fails where it is not there. As long as there is one of that name and .hold, nothing "
     "is loaded"},
    {"whole", MILL_PARAM_BOOL, 0, "false", 0, 0, NULL, "a row that fails takes its batch along"},
};
static const mill_column_decl reads[] = {{"id", "int64", "number"}};
static const mill_column_decl makes[] = {{"value", "int64", "three times that and one"}};

struct config {
    char path[4096];
    bool whole;
};

static mill_status configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    struct config *k = calloc(1, sizeof *k);

    (void)io;
    if (k == NULL) return mill_fail(err, MILL_ERR_NOMEM, "flaky");
    snprintf(k->path, sizeof k->path, "%s", mill_config_text(c, "list"));
    k->whole = mill_config_bool(c, "whole");
    mill_step_set_state(s, k, free);
    return MILL_OK;
}

enum { MOST = 4096 };
typedef struct list {
    int64_t id[MOST];
    int class[MOST], n;
} list;

static mill_status load(mill_replica *r, mill_error *err)
{
    static const char *const classes[] = {"permanent", "transient", "data", "device"};
    list *l = calloc(1, sizeof *l);
    const struct config *k = mill_step_state(mill_replica_step(r));
    FILE *f = fopen(k->path, "re");
    char class[16], hold[sizeof k->path + 8];
    long long id;

    if (l == NULL) return mill_fail(err, MILL_ERR_NOMEM, "flaky");
    snprintf(hold, sizeof hold, "%s.hold", k->path);
    while (access(hold, F_OK) == 0 && !mill_replica_cancelled(r)) nanosleep(&(struct timespec){0, 10000000}, NULL);
    while (f != NULL && l->n < MOST && fscanf(f, "%lld %15s", &id, class) == 2) {
        l->id[l->n] = id;
        for (int i = 0; i < 4; i++)
            if (strcmp(class, classes[i]) == 0) l->class[l->n] = i;
        l->n++;
    }
    if (f != NULL) fclose(f);
    mill_replica_set_state(r, l);
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    free(mill_replica_state(r));
    mill_replica_set_state(r, NULL);
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const list *l = mill_replica_state(r);
    const struct config *c = mill_step_state(mill_replica_step(r));
    const mill_column *ids = mill_batch_column(in[0], 0);
    const mill_view v = ids != NULL ? mill_column_view(ids) : (mill_view){.rows = 0};
    const int64_t *id = ids != NULL ? (const int64_t *)v.data + v.offset : NULL;
    mill_builder *b = NULL;
    mill_batch *batch = NULL;
    mill_column *col = NULL;
    mill_status st;

    (void)n_in;
    if ((st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &b)) != MILL_OK) return st;
    for (int64_t i = 0; i < v.rows && st == MILL_OK; i++) {
        mill_error cause = {0};
        int k = 0;
        while (k < l->n && l->id[k] != id[i]) k++;
        if (k < l->n) {
            mill_fail(&cause, MILL_ERR_STEP, "%lld is not liked today", (long long)id[i]);
            cause.error_class = l->class[k];
            if (c->whole) {
                *err = cause;
                st = MILL_ERR_STEP;
                break;
            }
            st = mill_emit_row_error(out, i, &cause);
            if (st == MILL_OK) st = mill_builder_null(b);
        } else {
            st = mill_builder_int(b, 3 * id[i] + 1);
        }
    }
    if (st == MILL_OK && ids != NULL) st = mill_builder_finish(b, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), mill_batch_rows(in[0]), 1, &batch);
    if (st == MILL_OK && ids != NULL) st = mill_batch_set_column(batch, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&col);
    mill_batch_destroy(&batch);
    mill_builder_destroy(&b);
    return st;
}

static const mill_step_type flaky = {
    .struct_size = sizeof flaky,
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW,
    .name = "flaky",
    .summary = "fails at what a file lists",
    .params = params,
    .n_params = sizeof params / sizeof *params,
    .inputs = reads,
    .n_inputs = 1,
    .outputs = makes,
    .n_outputs = 1,
    .configure = configure,
    .load = load,
    .unload = unload,
    .process = process,
};

static const mill_step_type *const types[] = {&flaky};
static const mill_plugin plugin = {sizeof plugin, MILL_ABI_1, "flaky", "1", types, sizeof types / sizeof *types};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return &plugin; }
