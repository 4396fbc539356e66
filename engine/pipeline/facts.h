/* run.json: what a run was started with. Written once, before its first row. */
#ifndef STM_PIPELINE_FACTS_H
#define STM_PIPELINE_FACTS_H

#include "exec/plan.h"
#include "pipeline/pipeline.h"

/** @p run_dir absolute. */
void stm_facts_write(const mill_pipeline *p, const stm_plan *plan, const char *run_dir, stm_text *out);

#endif
