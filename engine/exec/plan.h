/* The plan: configured steps and how they are connected, ready to run. Made by the pipeline, carried out by drivers. */
#ifndef STM_EXEC_PLAN_H
#define STM_EXEC_PLAN_H

#include "flow/flow.h"
#include "core/text.h"
#include "placement/plan.h"
#include "plugin/step.h"

typedef struct stm_plan_step {
    mill_step *step; /* owned by the plan */
    stm_input_mode mode;
    stm_on_missing on_missing;
    stm_on_uneven on_uneven;
    stm_flow_edge *inputs; /* from = index into plan steps, which stand in topological order */
    int32_t n_inputs;
    int32_t stage; /* load group it belongs to: 0 .. n_stages-1, never below that of a producer */
    bool any_order;      /* sinks: rows may come in any order */
    bool for_merge;      /* a global, or behind one: it needs the rows of all shards, so of a run in shards the merge runs it */
    bool cache;          /* its output is kept: with a run directory a store stands behind it */
    stm_text signature;  /* what its results depend on (store/signature.h); empty where nothing is kept */
    int64_t credit_rows; /* generators and globals: rows in the pipeline at once; filled by stm_plan_try */
    int64_t credit_asked; /* generators: credit_rows as the pipeline wants it, 0 = worked out */
} stm_plan_step;

typedef struct stm_plan {
    char *name;
    stm_plan_step *steps;
    int32_t n_steps;
    int32_t n_stages;
    uint64_t seed;
    int64_t memory_limit; /* bytes of host memory; 0 = half of what is there */
    int64_t pinned_limit; /* bytes of it that are pinned for rows that rest there; 0 = none */
    int64_t max_errors;
    bool input_order;     /* order: input */
    /* Which GPUs, node and processors each replica has; both NULL when no step wants GPUs, placement NULL when there are none. An
     * entry's `step` is the index into steps. */
    stm_topology *topology;   /* of the GPUs that this process sees: position = CUDA's number */
    stm_placement *placement;
    double commit_interval_s; /* 0 = 1 s */
    bool keep_sink_rows;      /* with a run directory a store stands in front of every sink */
} stm_plan;
void stm_plan_destroy(stm_plan **plan);
/** Build all of a run but its threads, and take it down again: what a run would refuse (MILL_ERR_INVALID, the message names the
 *  steps), and credit_rows. Nothing is loaded. */
mill_status stm_plan_try(stm_plan *plan, mill_error *err);

#endif
