/* filter: goes on with the rows for which an expression is true; false and null both drop a row. */
#include <stdlib.h>

#include "steps/builtin.h"
#include "steps/expr/expr.h"
#include "steps/expr/lookup.h"

static void expr_free(void *p)
{
    stm_expr *e = p;
    stm_expr_destroy(&e);
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    stm_expr *e = NULL;
    mill_error cause = {0};
    const mill_status st = stm_expr_compile(mill_config_text(c, "where"), stm_expr_lookup_io, io, &e, &cause);

    if (st != MILL_OK) {
        (void)mill_config_fail(c, "where", err, st, "%s", cause.msg);
        if (cause.remedy[0] != 0) mill_error_remedy(err, "%s", cause.remedy);
        return st;
    }
    mill_step_set_state(step, e, expr_free);
    return MILL_OK;
}

static mill_status load(mill_replica *r, mill_error *err)
{
    stm_expr_run *run = NULL;

    if (stm_expr_run_create(mill_step_state(mill_replica_step(r)), &run) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a filter");
    mill_replica_set_state(r, run);
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    stm_expr_run *run = mill_replica_state(r);

    stm_expr_run_destroy(&run);
    mill_replica_set_state(r, NULL);
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const int64_t rows = mill_batch_rows(in[0]);
    const uint8_t *pass;
    mill_buffer *parent = NULL;
    mill_batch *batch = NULL;
    int64_t kept = 0;
    mill_status st = stm_expr_eval(mill_replica_state(r), in[0], &pass, err);

    (void)n_in;
    if (st != MILL_OK) return st;
    for (int64_t i = 0; i < rows; i++) kept += pass[i] == 1;
    st = mill_buffer_create(mill_replica_pool(r), (size_t)kept * sizeof(int64_t), &parent);
    if (st == MILL_OK) {
        int64_t *p = mill_buffer_data(parent), k = 0;
        for (int64_t i = 0; i < rows; i++)
            if (pass[i] == 1) p[k++] = i;
        st = mill_batch_create(mill_replica_pool(r), kept, 0, &batch);
    }
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, &parent, err);
    mill_buffer_unref(&parent);
    mill_batch_destroy(&batch);
    return st == MILL_OK ? MILL_OK : mill_fail(err, st, "no memory for a batch of %lld rows", (long long)kept);
}

static const mill_param params[] = {
    {.name = "where", .type = MILL_PARAM_STRING,
     .text = "which rows go on: length(text) > 20 and (lang == \"en\" or lang is null) and not title matches \"^draft\""},
};

const mill_step_type stm_step_filter = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW | MILL_FILTERS,
    .name = "filter",
    .summary = "the rows for which an expression is true",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .process = process,
};
