/* What the results of a step depend on. */
#ifndef STM_PIPELINE_SIGNATURE_H
#define STM_PIPELINE_SIGNATURE_H

#include "exec/plan.h"
#include "pipeline/graph.h"

/** Fill out->signature from the configured step: type and version, plugin file, parameters that can change a result, the contents
 *  of files that they name, and how it is connected. Blocks: reads those files, of large ones samples. */
mill_status stm_step_sign(const stm_graph_step *g, const stm_registry *reg, stm_plan_step *out, mill_error *err);

#endif
