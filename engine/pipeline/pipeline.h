/* The pipeline object behind stepmill/pipeline.h: one tree of values, whatever it was made from. */
#ifndef STM_PIPELINE_PIPELINE_H
#define STM_PIPELINE_PIPELINE_H

#include "exec/plan.h"
#include "pipeline/graph.h"
#include "placement/claim.h"
#include "store/footprint.h"
#include "stepmill/pipeline.h"

/* Whose devices a plan needs: of a run in shards each process runs some of the steps. */
typedef enum stm_runs {
    STM_RUNS_ALL,
    STM_RUNS_SHARD, /* all but globals and what is behind them */
    STM_RUNS_MERGE, /* those alone; and sinks, which need none */
    STM_RUNS_NONE   /* it is only looked at */
} stm_runs;

struct mill_pipeline {
    stm_arena arena; /* of the tree and its texts */
    stm_value root;
    const char *file; /* for errors; "" = built by calls */
    char *base_dir;   /* absolute */
    char name[64];    /* when the tree has none */
    stm_registry *registry;
    stm_text set;       /* mill_pipeline_set of a pipeline from a file: "k","v" in brackets, parted by commas */
    bool edited;        /* changed by other calls since it was read: its file is not all of it */
    char *devices_file; /* a recorded machine to plan for; NULL = this one */
    stm_runs runs;      /* for the next plan */
    char *run_dir;      /* to check and plan for; absolute; NULL = what a run takes that is given none */
};

/**
 * Check everything and make a plan.
 * @param run_dir  absolute; NULL = the one of mill_pipeline_use_dir (`check`, `plan`, dry run): then no run will come of it, and
 *                 nothing is signed.
 * @param arena    caller's; takes the graph.
 * @param graph    may be NULL.
 * @param out      the caller owns it (stm_plan_destroy). Its steps borrow step types of the pipeline's registry.
 */
mill_status stm_pipeline_plan(mill_pipeline *p, const char *run_dir, stm_arena *arena, stm_graph *graph, stm_plan **out,
                              mill_error *err);
/** Whether every sink has a file of its own that can be written and that neither the pipeline nor the run reads or keeps: else
 *  INVALID at the path. */
mill_status stm_check_outputs(const mill_pipeline *p, const stm_graph *g, const stm_plan *plan, const char *run_dir,
                              mill_error *err);
/** Claim the files that sinks write outside of the run directory, where no run directory guards them. *claims: made when NULL.
 *  MILL_ERR_BUSY: another run writes one. */
mill_status stm_claim_outputs(const stm_plan *plan, const char *run_dir, stm_claims **claims, mill_error *err);
/** What is there where the sinks of @p plan and a run in @p run_dir will write. */
mill_status stm_note_outputs(const stm_plan *plan, const char *run_dir, stm_footprint **out, mill_error *err);
/** Say a plan. */
mill_status stm_plan_show(const mill_pipeline *p, const stm_graph *g, const stm_plan *plan, mill_format format, stm_text *out);
/** Hand a text out to the caller of a public function: NULL-safe, reports a failed text. */
mill_status stm_text_hand_out(stm_text *t, char **out, mill_error *err);
/** The run directory of a run that is given none: runs/NAME in the working directory. NULL when out of memory. */
char *stm_pipeline_dir(const mill_pipeline *p);
/** Absolute form of @p path, which starts at @p base (NULL = working directory) when relative. NULL when out of memory. */
char *stm_path_absolute(const char *base, const char *path);

#endif
