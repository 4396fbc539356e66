/* The names of a run's own files in its run directory: whoever writes one takes its name from here, so that no output can have
 * it. */
#ifndef STM_CORE_RUNFILES_H
#define STM_CORE_RUNFILES_H

#include <stdbool.h>
#include <stddef.h>

#include "stepmill/export.h"

MILL_BEGIN_DECLS

#define STM_RUN_MANIFEST "manifest.json"
#define STM_RUN_MANIFEST_LOG "manifest.log." /* then the epoch and a number: lines that manifest.json does not have yet */
#define STM_RUN_ERRORS "errors.jsonl"
#define STM_RUN_FACTS "run.json"
#define STM_RUN_LOG "log.jsonl"
#define STM_RUN_METRICS "metrics.prom"
#define STM_RUN_PROGRESS "progress.json"
#define STM_RUN_REPORT "report.html"
#define STM_RUN_SUSPECTS "suspects"
#define STM_RUN_JOURNAL "journal." /* then the epoch */
#define STM_RUN_OWNER "owner."     /* then the epoch */
#define STM_RUN_SEGMENT ".seg"     /* behind stream and epoch */
#define STM_RUN_BATCHES "batches"  /* a folder: where steps note what they handed to others: steps/http/offline.h */

/** The first of these, which are whole names: number @p i of STM_RUN_FILES. */
#define STM_RUN_FILES ((size_t)8)
const char *stm_run_file(size_t i);

/** Whether @p name, relative to the run directory, is one of these, lies below one, or is such a file while it is written
 *  (`.NAME.tmp`). */
bool stm_run_keeps(const char *name);

/** Whether a sink whose output is @p base may write @p name: BASE itself, a part of it, BASE with -DIGITS (five or more) somewhere
 *  in its last component, or an unfinished file of one of these, NAME.….tmp. Whatever the sink's type and parameters. */
bool stm_output_writes(const char *base, const char *name);

MILL_END_DECLS

#endif
