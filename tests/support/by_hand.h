/* A run without threads: whoever tests it does what drivers and coordinator would do, one burst of one item at a time, in any
 * order. A step of the run may do so, too, from inside of its functions: then its station is at work meanwhile. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif
#include "exec/run.h"
#include "stepmill/pipeline.h"

/** As stm_run_start; everything is loaded and may run. For plans of one load group, whose steps have no threads of their own. */
mill_status mt_hand_start(stm_plan **plan, const stm_run_opts *opts, stm_run **out, mill_error *err);
/** The same for a pipeline, in the run directory @p dir, which is there. */
mill_status mt_hand_open(mill_pipeline *p, const char *dir, stm_run **out, mill_error *err);
int32_t mt_hand_stations(const stm_run *run);
const char *mt_hand_name(const stm_run *run, int32_t station);
bool mt_hand_runnable(const stm_run *run, int32_t station);
void mt_hand_burst(stm_run *run, int32_t station);
/** Nothing is runnable: what then helps. Whether something is runnable again. */
bool mt_hand_unstall(stm_run *run);
/** All that is to be done has been done. */
bool mt_hand_done(const stm_run *run);
/** Whether some station failed; the first error. */
bool mt_hand_failed(const stm_run *run, mill_error *err);
void mt_hand_commit(stm_run *run);
/** Rows that step @p step has taken. */
int64_t mt_hand_rows(const stm_run *run, const char *step);

#ifdef __cplusplus
}
#endif
