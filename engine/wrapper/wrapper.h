/*
 * The wrapper around one replica of a step: loads it, feeds it, replaces the output of a failed batch by nulls and says so,
 * unloads it, whatever happens. It knows nothing of threads or of other steps: a driver calls it, one call at a time.
 *
 * Every batch given to it comes back as exactly one batch with the same envelope, however the step behaves.
 */
#ifndef STM_WRAPPER_WRAPPER_H
#define STM_WRAPPER_WRAPPER_H

#include "flow/flow.h"
#include "plugin/step.h"
#include "wrapper/choice.h"
#include "wrapper/errors.h"
#include "wrapper/state.h"

typedef struct stm_wrapper stm_wrapper;
struct stm_lane;
struct stm_team;

/** What all replicas of a run share. Borrowed by the wrappers. */
typedef enum stm_output_event { STM_OUTPUT_BEGINS, STM_OUTPUT_PART, STM_OUTPUT_ENDS } stm_output_event;

typedef struct stm_wrapper_env {
    mill_pool *pool;
    stm_errors *errors;
    const char *run_dir; /* NULL = none */
    bool dry_run;
    int32_t n_roots; /* length of covered */
    struct stm_recorder *recorder;     /* NULL: nobody supervises */
    struct stm_quarantine *quarantine; /* NULL: nothing is under suspicion; set before anything is loaded */
    /* A replica asks for a poll, from any thread. */
    void (*wake)(stm_wrapper *w, void *user);
    /* A replica of a step that computes on a device is about to load: open what it has there. *lane untouched: none, it computes on
     * the host. NULL = no devices. May block. */
    mill_status (*device)(stm_wrapper *w, struct stm_lane **lane, void *user, mill_error *err);
    /* The same for a global: all its devices. */
    mill_status (*team)(stm_wrapper *w, struct stm_team **team, void *user, mill_error *err);
    uint64_t opening; /* of the run directory; 0 = none */
    bool (*opening_over)(uint64_t opening, void *user);
    /* A sink begins its output, has completed a file of it (part), has completed all of it. NULL: nobody wants to know. */
    mill_status (*output)(stm_wrapper *w, stm_output_event what, const mill_part *part, void *user, mill_error *err);
    /* Dry run: a sink's batch. */
    void (*print)(stm_wrapper *w, const mill_batch *batch, void *user);
    void *user;
} stm_wrapper_env;

typedef struct stm_wrapper_opts {
    mill_step *step; /* borrowed */
    int32_t index, count;
    const stm_wrapper_env *env;
    const char *root_name; /* founder of the key space of its rows, for error records; borrowed */
    int32_t root;          /* generators: index into covered; else -1 */
    int32_t key_width;     /* of its output */
    void *owner;           /* whoever drives it; stm_wrapper_owner */
} stm_wrapper_opts;

/** Counters of one wrapper. Written by whoever drives it, read by anybody (relaxed). */
typedef struct stm_wrapper_stats {
    int64_t batches_in, rows_in, batches_out, rows_out;
    int64_t rows_dropped, parents_expanded, children;
    int64_t rows_failed, rows_skipped, retries, busy_ns;
} stm_wrapper_stats;

mill_status stm_wrapper_create(const stm_wrapper_opts *opts, stm_wrapper **out, mill_error *err);
/** Unloads first where that is still owed. Sets *w to NULL, accepts NULL. */
void stm_wrapper_destroy(stm_wrapper **w);

/* Lifecycle. Threads: the one that drives it, but stop from any. */
/** NEW → LOADING → LOADED, or LOAD_FAILED (then unload has run). May block for as long as the step's load does. */
mill_status stm_wrapper_load(stm_wrapper *w, mill_error *err);
/** LOADED → RUNNING. */
void stm_wrapper_run(stm_wrapper *w);
/** Its input has ended, or it is to stop: → DRAINING → UNLOADING → DONE. Calls the step's unload, once. */
void stm_wrapper_unload(stm_wrapper *w);
/** Of a replica that is unloaded: memory on devices that others have given back since goes, too. Threads: the coordinator. */
void stm_wrapper_trim(stm_wrapper *w);
/** RUNNING → FAILED; calls unload. */
void stm_wrapper_fail(stm_wrapper *w);
/** Tell the step that the run is being stopped: it should return soon (mill_replica_cancelled), from now on. Threads: any. */
void stm_wrapper_cancel(stm_wrapper *w);
/** Tell the call that began at @p since_ns (stm_wrapper_call_since) that it is past its deadline; later calls are not meant.
 *  Threads: any. */
void stm_wrapper_expire(stm_wrapper *w, int64_t since_ns);
stm_wrapper_state stm_wrapper_state_of(const stm_wrapper *w);
mill_step *stm_wrapper_step(const stm_wrapper *w);
const mill_replica *stm_wrapper_replica(const stm_wrapper *w);
int32_t stm_wrapper_index(const stm_wrapper *w);
void *stm_wrapper_owner(const stm_wrapper *w);
/** What it has on its device (wrapper/lane.h); NULL: it computes on the host. Constant once it is loaded. */
struct stm_lane *stm_wrapper_lane(const stm_wrapper *w);
stm_wrapper_stats stm_wrapper_counts(const stm_wrapper *w);
/** What it is doing (supervise/recorder.h), also where nobody supervises. Threads: any. */
const struct stm_record *stm_wrapper_record(const stm_wrapper *w);
/** Add to busy_ns. Threads: the one that drives it. */
void stm_wrapper_busy(stm_wrapper *w, int64_t ns);
/** Work of the step that was queued at @p since_ns is waited for, within the deadline of its call; 0 = none is any more. Threads:
 *  the one that drives it. */
void stm_wrapper_called(stm_wrapper *w, int64_t since_ns);
/** When the call into the step that is now running began (ns, monotonic); 0 = none is. Threads: any. */
int64_t stm_wrapper_call_since(const stm_wrapper *w);

/*
 * Work. Each gives MILL_OK whatever the step did to the rows, except for failures the run must hear of:
 * on_error: stop, a failing generator or global, memory gone. *out is then untouched and inputs are released.
 */
/** Steps: one ready item → one batch. Consumes @p in. */
mill_status stm_wrapper_map(stm_wrapper *w, stm_ready *in, mill_batch **out, mill_error *err);
/** The same for @p n items in a row, until one fails: the first *done are consumed and out[0 .. *done) made; so is, on failure, the
 *  next. */
mill_status stm_wrapper_map_all(stm_wrapper *w, stm_ready *in, int32_t n, mill_batch **out, int32_t *done, mill_error *err);
/** The batches of a ready item, one per input ([n_inputs] in out; routers and sinks have one). Consumes @p in on success. */
mill_status stm_wrapper_build(stm_wrapper *w, stm_ready *in, mill_batch **out, mill_error *err);
/** Generators: the next batch, at most @p max_rows rows (a batch of batch_rows or fewer). *out NULL: nothing yet. The batch is
 *  marked `end` after the last. */
mill_status stm_wrapper_generate(stm_wrapper *w, int64_t max_rows, mill_batch **out, mill_error *err);
/** Rows a generator is still allowed (limit); counted down by generate. Default: no limit. */
void stm_wrapper_limit(stm_wrapper *w, int64_t rows);
/** Generators: of the rows that are made only these go on; they keep their keys, and batches cover all of them. Borrowed; default:
 *  all. */
void stm_wrapper_choose(stm_wrapper *w, const stm_row_choice *choice);
/** Routers: taken[i] = branch i gets the batch; at least one. The step does not see rows whose columns an earlier failure nulled,
 *  unless it says `nulls: pass`: they go with the others. When it fails, or is shown no row, the batch goes to the first branch;
 *  only a failure is recorded, for the rows that it was shown. */
mill_status stm_wrapper_route(stm_wrapper *w, const mill_batch *in, bool *taken, mill_error *err);
/** Globals. @p send takes a batch over on success; its envelope has only rows and keys 0 .. */
mill_status stm_wrapper_accept(stm_wrapper *w, int32_t input, const mill_batch *in, mill_error *err);
typedef mill_status (*stm_wrapper_send)(void *user, mill_batch **b, mill_error *err);
mill_status stm_wrapper_finish(stm_wrapper *w, stm_wrapper_send send, void *user, mill_error *err);
/** Sinks. */
mill_status stm_wrapper_write(stm_wrapper *w, const mill_batch *in, mill_error *err);
mill_status stm_wrapper_finalize(stm_wrapper *w, mill_error *err);
/** Whether the write before this call came to a place that the output can be gone on with from. Asking forgets it. */
bool stm_wrapper_marked(stm_wrapper *w);
/** Whether what is in flight waits for something outside that may take hours: the step said so. Threads: any. */
bool stm_wrapper_waits(const stm_wrapper *w);
/** Make what was written durable; *cursor = where to go on. No record with MILL_ERR_UNSUPPORTED: the step has no sync; and
 *  MILL_ERR_AGAIN: there was no such place since it was opened, or a sync that is suspected of having ended a process could not be
 *  made alone. */
mill_status stm_wrapper_sync(stm_wrapper *w, mill_cursor *cursor, mill_error *err);

/* Going on where an earlier run stopped. Before load. */
/** Generators: the next batch begins at @p cursor, its first row is number @p rows. Sinks: open at @p cursor. */
void stm_wrapper_resume(stm_wrapper *w, const mill_cursor *cursor, int64_t rows);
/** Generators: cursor and number of rows before the next batch. Threads: the one that drives it. */
const mill_cursor *stm_wrapper_cursor(const stm_wrapper *w);
int64_t stm_wrapper_rows_made(const stm_wrapper *w);
/** Generators: rows made by earlier runs. Threads: any, after load. */
int64_t stm_wrapper_rows_before(const stm_wrapper *w);
/** Generators: the share of their input that they have read, < 0 = unknown. Threads: any. */
double stm_wrapper_done(const stm_wrapper *w);

/* Steps with submit and poll. */
/** Give it an item, which is consumed. Afterwards stm_wrapper_full says whether it can take another. */
mill_status stm_wrapper_submit(stm_wrapper *w, stm_ready *in, mill_error *err);
/** Whether the step refused the last item for now (it is kept, and offered again by poll). */
bool stm_wrapper_full(const stm_wrapper *w);
/** Collect finished batches: up to @p max, in any order; *n = how many. */
mill_status stm_wrapper_poll(stm_wrapper *w, mill_batch **out, int32_t max, int32_t *n, mill_error *err);
/** No more input for now. */
mill_status stm_wrapper_flush(stm_wrapper *w, mill_error *err);
int32_t stm_wrapper_in_flight(const stm_wrapper *w); /* tickets */

#endif
