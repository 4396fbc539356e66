/* run.json: what a run was started with, and is resumed with. Written at each start, before its first row. */
#ifndef STM_PIPELINE_FACTS_H
#define STM_PIPELINE_FACTS_H

#include "core/tree.h"
#include "exec/plan.h"
#include "pipeline/pipeline.h"
#include "stepmill/run.h"

/** @p run_dir absolute. */
void stm_facts_write(const mill_pipeline *p, const stm_plan *plan, const char *run_dir, const mill_run_options *options,
                     stm_text *out);
/** Those of the run in @p dir; *root lives as long as *out. MILL_ERR_NOT_FOUND: there are none. */
mill_status stm_facts_open(const char *dir, stm_tree_doc **out, const stm_tree **root, mill_error *err);

#endif
