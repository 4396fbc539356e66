/* Whether a folder may be a run directory: looked at before anything is written there. */
#ifndef STM_PIPELINE_RUNDIR_H
#define STM_PIPELINE_RUNDIR_H

#include "stepmill/error.h"

/**
 * MILL_OK: @p dir is not there, is empty, or is a run's: it holds a journal (of whatever version), a progress.json or run.json that
 * a run wrote, or shards; or nothing but what a start leaves that was killed before it had any of these, and file @p own (may be
 * NULL; it need not be there).
 * @retval MILL_ERR_INVALID  it holds files of somebody else only, which @p err names, or is no folder.
 * @retval MILL_ERR_IO       it cannot be read.
 * Threads: any. Blocks: reads.
 */
mill_status stm_rundir_check(const char *dir, const char *own, mill_error *err);

#endif
