/*
 * Supervision: work is done by a child process, whose crashes, hangs and deaths the parent survives. When a child dies, another one
 * goes on where the run directory says; rows that were at work then are run alone, so that a row that ends processes is found and
 * left out (docs/supervisor.md).
 */
#ifndef STEPMILL_SUPERVISE_H
#define STEPMILL_SUPERVISE_H

#include <stdbool.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

/** The child's end of supervision; mill_run_options.child. */
typedef struct mill_child mill_child;

typedef struct mill_supervise_options {
    size_t struct_size;
    int32_t restarts; /* children that may die in a row without the run getting anywhere; 0 = the first death ends it. Default 3 */
    double drain_s;   /* a child that was told to drain (INT, USR1) has so long, ... */
    double stop_s;    /* ... to stop (TERM, HUP) so long, ... */
    double again_s;   /* ... and after a second signal so long, in s. Defaults 60, 4, 1 */
    double silence_s; /* a child that does not move for so long is looked at, and ended after as long again. Default 10 */
    double left_s;    /* after so long the last child is gone, whatever it does; 0 = no limit */
    double margin_s;  /* so long before that it is told to drain, as by a signal. With left_s only */
} mill_supervise_options;
#define MILL_SUPERVISE_OPTIONS_INIT                                       \
    {                                                                     \
        sizeof(mill_supervise_options), 3, 60.0, 4.0, 1.0, 10.0, 0.0, 0.0 \
    }

/**
 * Call @p work in a child process and wait for it; after a death, in another. In a child this returns what @p work returned, and
 * the child should end with that as its exit code. In the parent it returns the last child's exit code, or its own; then @p err
 * says why the run ended. Where no process can be made, @p work is called here, with NULL.
 * Where SIGCHLD is ignored, it gets its default. Blocks INT, TERM, USR1 and HUP (unless it is ignored) for good, here and in the
 * children, which are told through mill_child_command instead. Threads: the only one of the process. Blocks: until the end.
 */
MILL_API int mill_supervise(const mill_supervise_options *options, int (*work)(mill_child *child, void *user), void *user,
                            mill_error *err);

/** In the child: the next signal that the parent has got, 0 = none within @p timeout_s. Shows the parent that this process moves,
 *  so call it again at once, from a thread of its own. Threads: one at a time. Blocks: so long at most. */
MILL_API int mill_child_command(mill_child *child, double timeout_s);
/** How many children came before this one. Threads: any. Blocks: no. */
MILL_API int mill_child_number(const mill_child *child);
/** Whether an earlier child has opened the run directory: what --fresh forgets must not be forgotten again. Threads: any.
 *  Blocks: no. */
MILL_API bool mill_child_went_on(const mill_child *child);
/** In the child, before it ends by itself other than by returning from the work: its exit code is the run's. Threads: any. Blocks:
 *  no. */
MILL_API void mill_child_end(mill_child *child);
/** This process gives up for @p cause, which names step and replica: another is to go on. Does not return. Threads: any. Blocks:
 *  flushes what is buffered. */
MILL_API void mill_child_lose(mill_child *child, const mill_error *cause);

MILL_END_DECLS

#endif
