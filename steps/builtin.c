#include "steps/builtin.h"

/* One line per step type, in alphabetical order; the NULL at the end is not counted. */
static const mill_step_type *const types[] = {
    &stm_step_command,
    &stm_step_command_rows,
    &stm_step_deduplicate,
    &stm_step_embed_text,
    &stm_step_explode,
    &stm_step_filter,
    &stm_step_limit,
    &stm_step_minhash_text,
    &stm_step_nearest_neighbours,
    &stm_step_read_arrow,
    &stm_step_read_jsonl,
    &stm_step_round_robin,
    &stm_step_route_by,
    &stm_step_select,
    &stm_step_template,
    &stm_step_write_arrow,
    &stm_step_write_jsonl,
    NULL,
};

static const mill_plugin builtin = {
    .struct_size = sizeof(mill_plugin),
    .abi = MILL_ABI_1,
    .name = "stepmill",
    .version = MILL_VERSION,
    .types = types,
    .n_types = sizeof types / sizeof types[0] - 1,
};

const mill_plugin *stm_builtin_steps(void) { return &builtin; }
