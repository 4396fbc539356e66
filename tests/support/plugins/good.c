/* A plugin of two step types that only have to be there: for tests of the registry. */
#include "stepmill/step.h"

#include <stddef.h>

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    (void)r, (void)in, (void)n_in, (void)out;
    return mill_fail(err, MILL_ERR_STEP, "not meant to run");
}

#define DO_NOTHING(name_)                                                                                                      \
    {                                                                                                                          \
        .struct_size = sizeof(mill_step_type), .abi = MILL_ABI_1, .kind = MILL_STEP, .name = name_, .summary = "does nothing", \
        .process = process                                                                                                     \
    }
static const mill_step_type one = DO_NOTHING("good_one"), two = DO_NOTHING("good_two");
static const mill_step_type *const types[] = {&two, &one};
static const mill_plugin plugin = {
    .struct_size = sizeof(mill_plugin), .abi = MILL_ABI_1, .name = "good", .version = "1", .types = types, .n_types = 2};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return &plugin; }
