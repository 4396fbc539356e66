/*
 * A run: carries out a plan with a few driver threads. Starts, can be stopped, ends, says what happened.
 */
#ifndef STM_EXEC_RUN_H
#define STM_EXEC_RUN_H

#include "exec/plan.h"
#include "trace/timeline.h"
#include "wrapper/errors.h"

typedef struct stm_run stm_run;

#define STM_DRAIN_S 60.0     /* default of drain_s */
#define STM_QUIET_S 60.0     /* default of quiet_s */
#define STM_STOP_GRACE_S 3.0 /* a call that does not return within so long after it was told to stop counts as hung */

typedef struct stm_run_opts {
    size_t struct_size;
    int32_t threads;       /* drivers; 0 = processors available to the process */
    bool dry_run;          /* one batch of each generator; sinks print */
    int64_t limit;         /* rows per generator; 0 = all */
    double drain_s;        /* longest drain; 0 = STM_DRAIN_S */
    double quiet_s;        /* when nothing has moved for so long, it is said who is at work and what waits; 0 = STM_QUIET_S */
    const char *run_dir;   /* absolute; NULL = none */
    bool durable;          /* keep in run_dir how far everything is, and go on from there (exec/durable.h); not with dry_run */
    bool fresh;            /* durable: forget what is kept */
    int32_t shard, shards; /* durable: shard number `shard` (1 ..) of `shards`; 0, 0 = no shards. merge: 0 of so many */
    /* durable: [shards] run directories, absolute, of the shards, in order: their rows are what sinks get; NULL = no merge */
    const char *const *merge;
    bool look;             /* durable: built to look at what is kept (exec/history.h), not to be started: run_dir stays as it is */
    bool resume;           /* durable: nothing that is kept may run again for what changed; MILL_ERR_INVALID says what it is */
    /* durable: run rows that failed again, those of the run in this directory, absolute, and stop in front of the sinks
     * (exec/durable_state.h); NULL = no retry */
    const char *retry_of;
    uint32_t retry_classes; /* bits mill_error_class: of which failures; 0 = all */
    const char *retry_step; /* of which step; NULL = all */
    /* durable, resume: what retry number `put`, in run_dir/retry.N, made takes the place of what was kept, and sinks run again; 0 =
     * nothing */
    int32_t put;
    double commit_interval_s; /* durable; 0 = 1 s */
    struct stm_recorder *recorder; /* shared with a supervising process; NULL = none; outlives the run */
    /* Called for every error record as it happens, from any driver, never two at once. NULL = none. */
    void (*on_error)(const stm_error_record *rec, void *user);
    /* Dry run: what a sink would have written; columns in the order of its step's inputs. One call at a time. */
    void (*on_sink_batch)(const mill_replica *sink, const mill_batch *batch, void *user);
    void *user;
    /* durable: what is there before; the run looks, and undoes what it made when it cannot load. Borrowed; NULL = all stays */
    struct stm_footprint *footprint;
    struct stm_tracer *tracer; /* what everybody does is noted there; borrowed until the run has ended. NULL = it is not */
} stm_run_opts;

typedef enum stm_step_phase { STM_STEP_WAITING, STM_STEP_LOADING, STM_STEP_RUNNING, STM_STEP_DONE, STM_STEP_FAILED } stm_step_phase;

/** Counters of one step, over all its replicas. A snapshot, each value exact at some recent moment. */
typedef struct stm_step_stats {
    stm_step_phase phase;
    int32_t replicas_loaded;
    int64_t batches_in, rows_in, batches_out, rows_out;
    int64_t rows_dropped, parents_expanded, children;
    int64_t rows_failed;     /* imputed by this step */
    int64_t rows_skipped;    /* not shown to it: nulled before */
    int64_t retries;
    int64_t busy_ns;         /* inside its functions, all replicas */
    int64_t queued_rows;     /* waiting in front of it */
    int64_t ready_batches;
    int64_t stalls;          /* grants made because it starved */
    int64_t rows_before;     /* generators: made by earlier runs */
    double done;             /* generators: share of their input that is read; < 0 = unknown */
} stm_step_stats;

/** One replica. */
typedef struct stm_replica_stats {
    stm_spent doing;       /* at this moment */
    int64_t rows, batches; /* taken; of a generator made */
    int64_t busy_ns;       /* spent in its functions; -1 = says nothing: its rows are with a service */
} stm_replica_stats;

typedef enum stm_run_end { STM_END_RUNNING, STM_END_DONE, STM_END_LOAD_FAILED, STM_END_FAILED, STM_END_STOPPED } stm_run_end;

/** What of the run in @p dir counts: *retries: bit N - 1: number N is taken; *ended: nothing is left to do. MILL_ERR_NOT_FOUND:
 *  nothing is kept there. */
mill_status stm_run_look(const char *dir, uint64_t *retries, bool *ended, mill_error *err);
/** Error records that the last commit of the run in @p dir has, into @p into, which is empty; void ones as such. The run may go on
 *  meanwhile. */
mill_status stm_run_look_at_errors(const char *dir, stm_errors *into, mill_error *err);
/** Takes the plan over (success or not). Returns once drivers run; loading goes on in the background. */
mill_status stm_run_start(stm_plan **plan, const stm_run_opts *opts, stm_run **out, mill_error *err);
/** Wait until it ended or @p timeout_s passed (< 0: for ever; the run itself has deadlines). Returns how it ended. */
stm_run_end stm_run_wait(stm_run *run, double timeout_s, mill_error *err);
/** Ask it to stop: drain = take no more rows, finish what is in the pipeline; else drop what is not in a replica.
 *  Safe from any thread (not from a signal handler: write to your own pipe there). */
void stm_run_stop(stm_run *run, bool drain);
int32_t stm_run_steps(const stm_run *run);
const mill_step *stm_run_step(const stm_run *run, int32_t step);
/** Whether no shard runs the step, but their merge does. */
bool stm_run_is_for_merge(const stm_run *run, int32_t step);
void stm_run_stats(const stm_run *run, int32_t step, stm_step_stats *out);
/** Whether an earlier run in the same directory had finished the step: this one has nothing to do with it. Constant. */
bool stm_run_kept(const stm_run *run, int32_t step);
/** Whether there was nothing left to do at all. Constant. */
bool stm_run_was_complete(const stm_run *run);
/** Threads: any. Blocks: a short lock of a station at most. */
void stm_run_replica(const stm_run *run, int32_t step, int32_t replica, stm_replica_stats *out);
/** The inputs of a step: *n of them, indices of steps. */
int32_t stm_run_inputs(const stm_run *run, int32_t step);
int32_t stm_run_input(const stm_run *run, int32_t step, int32_t input);
/** Memory of rows: what the run may use, uses and has used, and what waits on disk. */
typedef struct stm_memory_stats {
    int64_t limit, live, peak;              /* bytes */
    int64_t spilled_batches, spilled_bytes; /* written to disk since the start */
    int64_t on_disk_bytes;                  /* now */
    int64_t stalls;                         /* times everything stood still because memory was short */
} stm_memory_stats;
/** Threads: any. */
void stm_run_memory(const stm_run *run, stm_memory_stats *out);
/** Error records so far; a record's text stays valid until the run is destroyed. */
int64_t stm_run_errors(const stm_run *run);
const stm_error_record *stm_run_error(const stm_run *run, int64_t i); /* from 1 */
int64_t stm_run_imputed_rows(const stm_run *run);
/** A replica whose load, call or unload did not return within its deadline, or STM_STOP_GRACE_S after a stop: names step, replica
 *  and phase; false = none. The process must end then. */
bool stm_run_hung(const stm_run *run, mill_error *err);
/** The replica that has been inside a call the longest: who holds up a run that was told to stop, however short a time ago. false =
 *  nobody is. */
bool stm_run_at_work(const stm_run *run, mill_error *err);
/** Whether it could not load what its first rows need: then nothing of it is worth keeping, and stm_run_destroy undoes its
 *  footprint. Threads: any. */
bool stm_run_never_began(stm_run *run);
/** Joins the threads; waits for nothing but calls that are due to return. */
void stm_run_destroy(stm_run **run);

#endif
