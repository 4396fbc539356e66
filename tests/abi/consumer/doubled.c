/* A plugin as its author would write it: adds a column with twice the number of column n. */
#include <stepmill/step.h>

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const int64_t rows = mill_batch_rows(in[0]);
    mill_column *const n = mill_batch_column(in[0], 0);
    const mill_view v = n != NULL ? mill_column_view(n) : (mill_view){0}; /* no column: every row is null */
    mill_builder *b = NULL;
    mill_column *doubled = NULL;
    mill_batch *batch = NULL;
    mill_status st;

    (void)n_in;
    st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &b);
    for (int64_t i = 0; st == MILL_OK && i < rows; i++)
        st = n == NULL || mill_column_is_null(n, i) ? mill_builder_null(b)
                                                    : mill_builder_int(b, 2 * ((const int64_t *)v.data)[v.offset + i]);
    if (st == MILL_OK) st = mill_builder_finish(b, &doubled);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, 1, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &doubled);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_batch_destroy(&batch);
    mill_column_unref(&doubled);
    mill_builder_destroy(&b);
    return st;
}

static const mill_column_decl inputs[] = {{"n", "int64", "a number"}};
static const mill_column_decl outputs[] = {{"doubled", "int64", "twice that number"}};
static const mill_step_type doubled = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW,
    .name = "doubled",
    .summary = "twice a number",
    .inputs = inputs,
    .n_inputs = 1,
    .outputs = outputs,
    .n_outputs = 1,
    .process = process,
};
static const mill_step_type *const types[] = {&doubled};
static const mill_plugin plugin = {sizeof(mill_plugin), MILL_ABI_1, "consumer", "1", types, 1};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return &plugin; }
