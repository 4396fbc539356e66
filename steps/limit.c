/* limit: the first rows of its input, in order; the rest is dropped. */
#include <stdlib.h>

#include "steps/builtin.h"

typedef struct settings {
    int64_t skip, rows;
} settings;

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);

    (void)io;
    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, free);
    s->rows = mill_config_int(c, "rows");
    s->skip = mill_config_int(c, "skip");
    return MILL_OK;
}

static mill_status load(mill_replica *r, mill_error *err)
{
    int64_t *seen = calloc(1, sizeof *seen); /* rows before the next batch */

    if (seen == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_replica_set_state(r, seen);
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    free(mill_replica_state(r));
    mill_replica_set_state(r, NULL);
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    int64_t *seen = mill_replica_state(r);
    const int64_t rows = mill_batch_rows(in[0]);
    int64_t first = s->skip - *seen, end = s->skip + s->rows - *seen; /* of this batch */
    mill_buffer *parent = NULL;
    mill_batch *batch = NULL;
    mill_status st;

    (void)n_in;
    first = first < 0 ? 0 : first > rows ? rows : first;
    end = end < first ? first : end > rows ? rows : end;
    st = mill_buffer_create(mill_replica_pool(r), (size_t)(end - first) * sizeof(int64_t), &parent);
    if (st == MILL_OK) {
        int64_t *p = mill_buffer_data(parent);
        for (int64_t i = first; i < end; i++) p[i - first] = i;
        st = mill_batch_create(mill_replica_pool(r), end - first, 0, &batch);
    }
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, &parent, err);
    mill_buffer_unref(&parent);
    mill_batch_destroy(&batch);
    if (st != MILL_OK) return mill_fail(err, st, "no memory for a batch of %lld rows", (long long)(end - first));
    *seen += rows; /* only now: a batch that failed is counted when it is tried again */
    return MILL_OK;
}

static const mill_param params[] = {
    {.name = "rows", .type = MILL_PARAM_INT, .min = 0, .max = 4e18, .text = "rows that go on"},
    {.name = "skip", .type = MILL_PARAM_INT, .default_value = "0", .min = 0, .max = 4e18, .text = "rows dropped before them"},
};

const mill_step_type stm_step_limit = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_STATEFUL | MILL_FILTERS,
    .name = "limit",
    .summary = "the first rows of its input",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .process = process,
};
