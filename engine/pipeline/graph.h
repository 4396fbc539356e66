/* The graph: steps of a pipeline by name, their keys, and how they are connected. Checked; nothing is configured yet. */
#ifndef STM_PIPELINE_GRAPH_H
#define STM_PIPELINE_GRAPH_H

#include "flow/flow.h"
#include "pipeline/arena.h"
#include "pipeline/keys.h"

typedef struct stm_graph_input {
    int32_t step;    /* the producer */
    int32_t branch;  /* of a router: index into its branches; else 0 */
    stm_place place; /* of its name in `from` */
} stm_graph_input;

typedef struct stm_graph_step {
    const char *name, *said; /* said: what errors call it, which is not its name if it `gathers` */
    const stm_value *value; /* the step's map; its key_place is where the name stands */
    const mill_step_type *type;
    stm_step_keys keys;
    stm_place type_place, from_place;
    stm_input_mode mode;
    stm_on_missing on_missing;
    stm_on_uneven on_uneven;
    stm_graph_input *inputs;
    int32_t n_inputs;
    const char **branches; /* routers: choices of `to`, in order */
    int32_t *branch_to;    /* [n_branches] step of each */
    int32_t n_branches;
    int32_t stage;
    /* not in the file: stands in front of a global, router or sink and does what its `from` says; has no parameters */
    bool gathers;
    /* routed branches this step's output lies in, outermost first: pairs (router, branch) */
    int32_t around[STM_FLOW_MAX_DEPTH][2];
    int32_t n_around;
} stm_graph_step;

typedef struct stm_graph {
    stm_file_keys keys;
    stm_graph_step *steps; /* in file order */
    int32_t n_steps;
    int32_t *order; /* [n_steps] topological; file order among equals */
    int32_t n_stages;
} stm_graph;

/** Read and check everything about a pipeline that needs no step to be configured. @p root: the file's map. All of *@p out lives in
 *  @p a and borrows the tree. Errors have the place at fault. */
mill_status stm_graph_read(stm_arena *a, const stm_value *root, stm_registry *reg, stm_graph *out, mill_error *err);
/** File keys only (plugins are needed before step types can be found). */
mill_status stm_graph_read_file_keys(const stm_value *root, stm_file_keys *out, mill_error *err);
/** Stages from `load_groups`; steps and order must be there. */
mill_status stm_graph_stages(stm_arena *a, stm_graph *g, mill_error *err);
/** A step of the file. */
int32_t stm_graph_find(const stm_graph *g, const char *name); /* -1 = none */
/** "unknown step 'x'; did you mean 'y'?" */
mill_status stm_graph_unknown_step(const stm_graph *g, const char *what, const char *name, stm_place at, mill_error *err);

#endif
