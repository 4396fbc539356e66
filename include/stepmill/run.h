/* A run: one execution of a pipeline. */
#ifndef STEPMILL_RUN_H
#define STEPMILL_RUN_H

#include "stepmill/pipeline.h"
#include "stepmill/supervise.h"

MILL_BEGIN_DECLS

/** A run. Threads of all calls, unless they say otherwise: owner, one at a time; they block only where they say so.
 *  A signal handler may call none. */
typedef struct mill_run mill_run;

/** To run rows that failed again is two runs, one after the other; mill_run_reopen gives pipeline and options of both. */
typedef enum mill_retry {
    MILL_RETRY_NONE = 0,
    MILL_RETRY_ROWS, /* run them, in DIR/retry.N; nothing else in `dir` changes. MILL_ERR_INVALID: rows cannot run alone */
    MILL_RETRY_PUT   /* put what that made in place, and write outputs */
} mill_retry;

/** How to run. Initialise with MILL_RUN_OPTIONS_INIT. */
typedef struct mill_run_options {
    size_t struct_size;
    const char *dir; /* run directory; NULL = runs/NAME in the working directory. Made if it is not there */
    bool fresh;      /* ignore what the directory holds of earlier runs */
    bool dry_run;    /* one batch of each generator, nothing written, rows that reach sinks go to on_sink_row */
    int64_t limit;   /* rows per generator; 0 = all */
    int32_t threads; /* drivers; 0 = processors the process may use */
    /** A dry run's rows: one JSON object, no newline. One call at a time, from any thread. */
    void (*on_sink_row)(const char *step, const char *json, size_t bytes, void *user);
    void *user;
    /* s; longest time a drain may take before what is left is dropped, also one that the run itself begins (on_error: stop,
     * stop_if); 0 = 60 */
    double drain_s;
    mill_child *child;    /* the process is one of mill_supervise; NULL = nobody supervises it */
    int32_t metrics_port; /* give metrics on http://127.0.0.1:PORT/metrics; 0 = do not, -1 = on any port, which the log names */
    const char *trace;    /* file for what every thread and replica did when, for Perfetto or chrome://tracing; NULL = none. A
                           * file that is there and no trace is refused */
    /* take shard number `shard` (1 ..) of `shards` of the rows of every generator; 0, 0 = all rows. The run directory is
     * shard-I-of-N in `dir`, with `resume` it is `dir` itself */
    int32_t shard, shards;
    /* [n_merge] run directories of all shards of this pipeline, in any order: their rows are put together in `dir`, and only sinks,
     * globals and what is behind those run. NULL, 0 = no merge */
    const char *const *merge;
    size_t n_merge;
    /* begin nothing over: where something changed that kept results depend on, fail with MILL_ERR_INVALID and what it is */
    bool resume;
    mill_retry retry;       /* `dir` is a run that has ended */
    uint32_t retry_classes; /* MILL_RETRY_ROWS: bits 1 << mill_error_class, of which failures; 0 = of all */
    const char *retry_step; /* of which step; NULL = of all */
} mill_run_options;
#define MILL_RUN_OPTIONS_INIT                                                                                             \
    {                                                                                                                     \
        sizeof(mill_run_options), NULL, false, false, 0, 0, NULL, NULL, 0.0, NULL, 0, NULL, 0, 0, NULL, 0, false,         \
            MILL_RETRY_NONE, 0, NULL                                                                                      \
    }

typedef enum mill_run_state {
    MILL_RUN_RUNNING = 0,
    MILL_RUN_DONE,
    MILL_RUN_LOAD_FAILED, /* a replica could not load */
    MILL_RUN_FAILED,      /* a generator, global or sink failed; what was complete before is written */
    MILL_RUN_STOPPED      /* as asked, or because only waiting for offline batches was left; it can be gone on with */
} mill_run_state;

/** Exit codes of the command. */
enum {
    MILL_EXIT_OK = 0,
    MILL_EXIT_LOAD = 1,      /* a replica could not load */
    MILL_EXIT_PROCESS = 2,   /* a generator, global or sink failed, or a step with on_error: stop */
    MILL_EXIT_ERRORS = 3,    /* done, with more imputed rows than max_errors */
    MILL_EXIT_USAGE = 64,    /* the command line is wrong */
    MILL_EXIT_PIPELINE = 65, /* mill_pipeline_check finds a fault */
    MILL_EXIT_BUSY = 73,     /* run directory, output or GPU in use */
    MILL_EXIT_STOPPED = 75   /* MILL_RUN_STOPPED: the same command goes on with it */
};

/**
 * Check, plan, take the run directory, start. Returns once it runs; loading goes on in the background. A pipeline that does
 * not check out fails with phase MILL_PHASE_CHECK before anything is written.
 * @param options  NULL = the defaults. Texts in it are borrowed until mill_run_destroy; so is @p p.
 * @param out      The caller's (mill_run_destroy); untouched on failure.
 * @retval MILL_ERR_BUSY     the run directory, an output or a GPU is in use by another process.
 * @retval MILL_ERR_IO       the run directory cannot be made, read or written.
 * @retval MILL_ERR_INVALID  options that do not go together; besides, what mill_pipeline_check gives.
 * Threads: as all calls on @p p. Blocks: reads what the run directory keeps.
 */
MILL_API mill_status mill_run_start(mill_pipeline *p, const mill_run_options *options, mill_run **out, mill_error *err);
/**
 * To go on with the run in @p dir as it was started: its pipeline, with what was set besides its file, and in *options all that its
 * results depend on, and `resume`. @p dir is borrowed by *options; what is no part of the results there stays as it is.
 * @retval MILL_ERR_NOT_FOUND  @p dir is no run directory, or the pipeline file is not where it was.
 * @retval MILL_ERR_INVALID    a program made the pipeline: only that can make it again.
 * @retval MILL_ERR_IO, MILL_ERR_PARSE  DIR/run.json or the pipeline file cannot be read.
 * On failure *out is untouched. Threads: any. Blocks: reads files.
 */
MILL_API mill_status mill_run_reopen(const char *dir, mill_pipeline **out, mill_run_options *options, mill_error *err);
typedef enum mill_retry_state {
    MILL_RETRY_READY,     /* the run has ended */
    MILL_RETRY_HALFWAY,   /* rows of a retry are in place, outputs are being written, or were when that was stopped: resume */
    MILL_RETRY_UNFINISHED /* the run is not at its end: resume */
} mill_retry_state;
/** How the run in @p dir is for a retry.
 *  @retval MILL_ERR_NOT_FOUND         nothing is kept there.
 *  @retval MILL_ERR_IO, MILL_ERR_DATA  what is there cannot be read, or makes no sense.
 *  Threads: any. Blocks: reads. */
MILL_API mill_status mill_retry_look(const char *dir, mill_retry_state *out, mill_error *err);
/** Wait until it has ended or @p timeout_s passed (< 0: no limit). @p err: why it failed, when it did. Blocks: so long. */
MILL_API mill_run_state mill_run_wait(mill_run *run, double timeout_s, mill_error *err);
/** Ask it to end. drain: take no more rows, finish those in the pipeline (for options.drain_s at most); else drop what is not
 *  being worked on. Threads: any. Blocks: short locks. */
MILL_API void mill_run_stop(mill_run *run, bool drain);
/** A replica that did not come back by its deadline (timeout: load, batch, unload), or 3 s after it was told that the run is being
 *  stopped: @p err names step, replica and phase; the process should end, since nothing can take the replica's thread back, and
 *  mill_run_destroy would wait for it. false = none. Threads: any. */
MILL_API bool mill_run_hung(const mill_run *run, mill_error *err);
/** As mill_run_hung, but without waiting for 3 s: of a run that was told to stop, who it still waits for.
 *  For a process that has no more time and must say whose call was not over. Threads: any. */
MILL_API bool mill_run_at_work(const mill_run *run, mill_error *err);
/** After the end: write errors.jsonl into the run directory (not on a dry run).
 *  Of a run that ended as MILL_RUN_LOAD_FAILED before any row could flow, take away what it made instead: its directory, if that
 *  was not there, and unfinished files; what was there is as it was. Once; later calls do nothing.
 *  @retval MILL_ERR_IO, MILL_ERR_NOMEM  errors.jsonl cannot be written.
 *  Blocks: writes. */
MILL_API mill_status mill_run_finish(mill_run *run, mill_error *err);
/** Whether nothing was left to do when it was started: its totals are those of the attempt that did the work, whose numbers and
 *  report stay in the directory. Threads: any. */
MILL_API bool mill_run_was_complete(const mill_run *run);
/** What the command's exit code would be, after the end. */
MILL_API int mill_run_exit_code(const mill_run *run);
/** Joins its threads, frees it, lets the run directory go. Sets *run to NULL; accepts NULL. Blocks: until its threads have ended.
 *  Cannot fail. */
MILL_API void mill_run_destroy(mill_run **run);

/** Absolute; NULL on a dry run, and of a run that has left nothing (mill_run_finish), until which it is valid. */
MILL_API const char *mill_run_dir(const mill_run *run);

/** Numbers of a run; growing ones may lag by a moment while it runs. */
typedef struct mill_run_totals {
    size_t struct_size;
    double seconds;       /* since the start, or of the whole attempt */
    int64_t rows_in;      /* made by generators */
    int64_t rows_out;     /* taken by sinks */
    int64_t rows_imputed; /* rows with nulls made by imputation */
    int64_t max_errors;   /* of the pipeline */
    int64_t errors;       /* error records */
} mill_run_totals;
/** Fills what the caller's struct_size has room for. Threads: any. */
MILL_API void mill_run_get_totals(const mill_run *run, mill_run_totals *out);

/** One failure of rows or of a step. Texts are valid as long as the run. */
typedef struct mill_run_error {
    size_t struct_size;
    mill_error error;
    int64_t rows; /* imputed for it */
    const char *first_key, *last_key;
} mill_run_error;
/** Record @p i, from 0; fills what the caller's struct_size has room for. false: no such record. Threads: any. */
MILL_API bool mill_run_get_error(const mill_run *run, int64_t i, mill_run_error *out);

/** Outputs: file or folder that output parameter @p i of the pipeline's sinks stands for, and the sink. NULL: no such one.
 *  Valid as long as the run. */
MILL_API const char *mill_run_output(const mill_run *run, size_t i, const char **step);

typedef enum mill_progress_style {
    MILL_PROGRESS_LINE = 0,
    MILL_PROGRESS_TABLE = 1,
    MILL_PROGRESS_JSON = 2,  /* progress.json, docs/seeing-a-run.md */
    MILL_PROGRESS_COLOUR = 4 /* added to the others: with colours of a terminal */
} mill_progress_style;
/**
 * How far it is: one line, a table (a row per step: rows, rows/s, queued, how its time is spent, failed, left;
 * at most @p width columns wide), or a JSON object. Rates are those of about the last five seconds. *lines = lines of text, each
 * ended by a newline. The text is valid until the next call. Blocks: short locks.
 */
MILL_API const char *mill_run_progress(mill_run *run, mill_progress_style style, int width, int *lines);

/** The same with a style made of several (TABLE | COLOUR), in at most @p height lines (0 = no limit). */
MILL_API const char *mill_run_show(mill_run *run, int style, int width, int height, int *lines);

/** Where lines of the log go, besides the run's log.jsonl; NULL = standard error, as it is without this call.
 *  Lines come one at a time, from any thread; @p level is a mill_level, @p who is "step[replica]" or "". For the whole process.
 *  @p user is borrowed until another call. Threads: any, one at a time, while no run is alive. Blocks: until nobody is inside the
 *  one before. */
MILL_API void mill_log_to(void (*sink)(int level, const char *who, const char *line, void *user), void *user);

MILL_END_DECLS

#endif
