/* Signals of `run`: who asked for the end, and who sees to it that it comes. */
#ifndef STM_CLI_SIGNALS_H
#define STM_CLI_SIGNALS_H

#include <stdbool.h>

#include "stepmill/run.h"

/**
 * Block INT, TERM and USR1 in this thread and those it starts, and start the thread that takes them. The first INT or USR1 drains
 * the run, for at most @p drain_s; TERM stops it, for at most 4 s; a second signal leaves it 1 s. When the time is over the
 * process ends with code 75, whatever hangs. Call before any other thread is started. false: no thread could be started.
 */
bool signals_start(double drain_s);
/** The run that signals are for from now on (NULL = none); stops it at once when one has come already. */
void signals_watch(mill_run *run);
/** Whether one has come. */
bool signals_came(void);

#endif
