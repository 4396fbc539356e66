/* One plugin per mistake; BAD says which. */
#include "stepmill/step.h"

#include <stddef.h>

enum { NO_ENTRY = 1, NULL_PLUGIN, WRONG_ABI, OLD_STRUCT, NO_TYPES, NULL_FUNCTION, UNKNOWN_FLAG, SECOND_IS_BAD, NO_NAME };

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    (void)r, (void)in, (void)n_in, (void)out;
    return mill_fail(err, MILL_ERR_STEP, "not meant to run");
}

static const mill_step_type first = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = BAD == UNKNOWN_FLAG ? (uint64_t)1 << 60 : 0,
    .name = "bad_first",
    .summary = "does nothing",
    .process = BAD == NULL_FUNCTION ? NULL : process,
};
static const mill_step_type second = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .name = "Bad Second",
    .summary = "has a name that nobody can write in a pipeline file",
    .process = process,
};
static const mill_step_type *const types[] = {&first, &second};
static const mill_plugin plugin = {
    .struct_size = BAD == OLD_STRUCT ? sizeof(size_t) : sizeof(mill_plugin),
    .abi = BAD == WRONG_ABI ? 99 : MILL_ABI_1,
    .name = BAD == NO_NAME ? NULL : "bad",
    .version = "1",
    .types = types,
    .n_types = BAD == NO_TYPES        ? 0
               : BAD == SECOND_IS_BAD ? 2
                                      : 1,
};

#if BAD == 1
#define mill_plugin_v1 mill_plugin_v0
#endif
MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return BAD == NULL_PLUGIN ? NULL : &plugin; }
