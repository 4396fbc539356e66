/* The names of a run's own files in its run directory: whoever writes one takes its name from here, so that no output can have it. */
#ifndef STM_CORE_RUNFILES_H
#define STM_CORE_RUNFILES_H

#include <stdbool.h>

#include "stepmill/export.h"

MILL_BEGIN_DECLS

#define STM_RUN_MANIFEST "manifest.json"
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

/** Whether @p name, relative to the run directory, is one of these, lies below one, or is such a file while it is written (`.NAME.tmp`). */
bool stm_run_keeps(const char *name);

MILL_END_DECLS

#endif
