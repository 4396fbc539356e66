/* A pipeline run in shards: which directories a merge puts together, and what sets shards apart from other runs. */
#ifndef STM_PIPELINE_SHARDS_H
#define STM_PIPELINE_SHARDS_H

#include "pipeline/pipeline.h"
#include "stepmill/run.h"

typedef struct stm_shards {
    char **dirs; /* [n] absolute, shard 1 first */
    int32_t n;
} stm_shards;

/** The shards that @p options names for a merge into @p run_dir, put in order by their run.json. MILL_ERR_INVALID: one is missing,
 *  or there twice, or is none, or is of another number of shards. */
mill_status stm_shards_order(const mill_run_options *options, const char *run_dir, stm_shards *out, mill_error *err);
/** All zero again; accepts that. */
void stm_shards_fini(stm_shards *s);
/** Whether every sink that a shard runs writes into the run directory, so that shards are not in each other's way: else INVALID at
 *  the path. */
mill_status stm_shards_outputs(const stm_graph *g, const stm_plan *plan, const char *run_dir, mill_error *err);

#endif
