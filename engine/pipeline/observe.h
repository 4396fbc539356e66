/*
 * The observer: a thread that looks at a run now and then, and keeps what people and programs see of it: progress.json,
 * metrics.prom, log.jsonl, the trace and, at the end, report.html. It never holds up the run; what it cannot write is said once and
 * left.
 */
#ifndef STM_PIPELINE_OBSERVE_H
#define STM_PIPELINE_OBSERVE_H

#include "exec/run.h"
#include "trace/progress.h"

typedef struct stm_observer stm_observer;

typedef struct stm_observer_opts {
    const char *name, *dir; /* dir: absolute; NULL = nothing is written */
    int64_t start_ns;       /* monotonic */
    int64_t max_errors;
    bool fresh;
    int32_t metrics_port;      /* 0 = none, -1 = any */
    struct stm_tracer *tracer; /* drained now and then, ended at the end; NULL = none */
    const char *facts;         /* run.json, made before the run took the plan over; NULL = none */
    size_t facts_bytes;
} stm_observer_opts;

/** Before the run starts; @p run must outlive it. Starts its thread when there is a directory. */
mill_status stm_observer_start(const stm_observer_opts *opts, stm_run *run, stm_observer **out, mill_error *err);
/** Draw the run as it is now. Threads: any, one at a time. */
void stm_observer_draw(stm_observer *o, stm_text *out, void (*draw)(const stm_picture *p, stm_text *out, void *user), void *user);
/** Whether the run was complete when it was opened: what is drawn, and what stays in the directory, are the numbers of the attempt
 *  that did the work. */
bool stm_observer_settled(const stm_observer *o);
/** The run has ended so: stop looking, write the last numbers. Once; later calls do nothing. */
void stm_observer_end(stm_observer *o, stm_picture_state state, const mill_error *why);
void stm_observer_destroy(stm_observer **o);

#endif
