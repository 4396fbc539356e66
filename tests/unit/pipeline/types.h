/* Step types for tests of pipelines: one of each kind, with parameters of many types. They do nothing but count rows. */
#pragma once
#include "stepmill/pipeline.h"

namespace mt {

/** t_source, t_map, t_state, t_group, t_sink, t_route. */
extern const mill_plugin kTypes;
/** Steps configured and not yet destroyed. */
extern int live_states;

} // namespace mt
