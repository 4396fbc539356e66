/* Signals of `run`: who asked for the end, and who sees to it that it comes. */
#ifndef STM_CLI_SIGNALS_H
#define STM_CLI_SIGNALS_H

#include <stdbool.h>

#include "stepmill/run.h"
#include "time_limit.h"

/** Block INT, TERM, USR1 and HUP in this thread and those it starts: from here on none is lost, and none ends the process. */
void signals_block(void);
/**
 * Start the thread that takes signals, from @p child where the process is supervised (else NULL). The first INT or USR1 drains
 * the run, for at most @p drain_s; TERM stops it, for at most 4 s; a second signal leaves it 1 s; all of them for no longer than @p
 * limit allows, which itself drains the run when its time has come. When the time is over the process ends with code 75, whatever
 * hangs. After signals_block, before any other thread is started. false: no thread could be started.
 */
bool signals_start(double drain_s, const time_limit *limit, mill_child *child);
/** The run that signals are for from now on (NULL = none); stops it at once when one has come already. */
void signals_watch(mill_run *run);
/** Whether one has come. */
bool signals_came(void);

#endif
