/* From a pipeline to a placement: which GPUs there are, what each step needs of them, who gets what. */
#ifndef STM_PIPELINE_PLACING_H
#define STM_PIPELINE_PLACING_H

#include "pipeline/estimate.h"
#include "pipeline/pipeline.h"
#include "placement/claim.h"

/**
 * The GPUs that this process sees, in CUDA's order, with the machine around them.
 * @param file  a recorded machine; CUDA_VISIBLE_DEVICES applies to it as to a real one. NULL = this machine.
 * @param why   why there are none, or what of CUDA_VISIBLE_DEVICES was ignored; "" = nothing to say.
 * Blocks: reads files; for this machine starts CUDA where there is a module.
 */
mill_status stm_devices_open(const char *file, stm_topology **out, char why[256], mill_error *err);
/** All of them, for people and programs. */
void stm_devices_show(const stm_topology *t, const char *why, mill_format format, stm_text *out);

/**
 * Place the steps of @p plan if any of them wants GPUs and there are any; plan->topology and plan->placement are set then.
 * Errors have the place of the step's `resources`.
 * @param taken  [n_gpus of plan->topology] from an earlier call on this plan: GPUs that other processes have; NULL = none.
 */
mill_status stm_pipeline_place(const mill_pipeline *p, const stm_graph *g, stm_plan *plan, const bool *taken, mill_error *err);
/**
 * Claim the GPUs of the plan, so that no other run takes them. What is taken is replaced by another where the file leaves the
 * choice (placement: auto, no `devices`). Nothing is claimed under `placement: external`: then somebody else gave out the GPUs.
 * @retval MILL_ERR_BUSY  another process has what is needed; the message names it.
 */
mill_status stm_pipeline_claim(const mill_pipeline *p, const stm_graph *g, stm_plan *plan, stm_claims **out, mill_error *err);
/** GPU memory that a replica of step @p at is expected to need on each of its GPUs, in bytes; 0 = not known. */
int64_t stm_device_bytes(const mill_step *s, const stm_estimate *e);
/** Lines and JSON of `plan` about one step's replicas. */
void stm_placing_show(const stm_plan *plan, int32_t step, int width, stm_text *out);
void stm_placing_json(const stm_plan *plan, int32_t step, stm_text *out);

#endif
