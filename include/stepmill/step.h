/*
 * The step interface, ABI version 1 (draft until release 1.0).
 *
 * A step type is one const mill_step_type. A plugin is a shared object that exports `mill_plugin_v1`, which returns
 * its step types. Built-in steps use this header and nothing else.
 *
 * Objects given to a step type:
 *   mill_step     one step of a pipeline: its parameters, columns and what `configure` made of them. Read only after
 *                 configure; shared by all replicas.
 *   mill_replica  one running copy of a step. All calls with the same replica are serialised (never two at once, not
 *                 always from the same thread); calls on different replicas overlap.
 *   mill_emit     where a call puts its output. Valid during that call.
 *
 * A batch that is handed to process, submit, accept, write or route has at least one row: where none is left, there is no call.
 * finish and finalize are called all the same. What a step emits may be empty.
 *
 * Who may call what: functions on a replica or emit, only from inside a call for that replica, except
 * mill_replica_wake and mill_replica_cancelled (any thread).
 */
#ifndef STEPMILL_STEP_H
#define STEPMILL_STEP_H

#include "stepmill/batch.h"
#include "stepmill/numerics.h"

MILL_BEGIN_DECLS

#define MILL_ABI_1 1u

typedef struct mill_step mill_step;
typedef struct mill_replica mill_replica;
typedef struct mill_config mill_config;
typedef struct mill_io mill_io;
typedef struct mill_emit mill_emit;
typedef struct mill_results mill_results;
typedef struct mill_route mill_route;

/* ---- parameters ------------------------------------------------------------------------------------------- */

typedef enum mill_param_type {
    MILL_PARAM_BOOL = 1,
    MILL_PARAM_INT,      /* min..max; digits alone, no suffixes */
    MILL_PARAM_FLOAT,    /* min..max */
    MILL_PARAM_STRING,
    MILL_PARAM_ENUM,     /* one of `choices`, parted by '|' */
    MILL_PARAM_PATH,     /* an input file or folder, no pipe or device; relative paths start at the pipeline file */
    MILL_PARAM_PATHS,    /* one or a list of paths or globs, expanded and sorted per entry */
    MILL_PARAM_OUT_PATH, /* an output; relative paths start at the run directory */
    MILL_PARAM_BYTES,    /* 64MiB; kB MB GB kiB.. ; min..max in bytes */
    MILL_PARAM_DURATION, /* 10s, 1.5h, 200ms; min..max in seconds; read as float seconds */
    MILL_PARAM_STRINGS,  /* one string or a list */
    MILL_PARAM_MAP,      /* name: string */
    MILL_PARAM_COLUMNS,  /* name: column type */
    MILL_PARAM_JSON      /* any YAML value, handed over as JSON text */
} mill_param_type;

/** One parameter: drives validation, `steps describe`, the JSON schema and error messages. */
typedef struct mill_param {
    const char *name;
    int32_t type;              /* mill_param_type */
    int32_t flags;             /* MILL_PARAM_* flags below */
    const char *default_value; /* as it would stand in YAML; NULL = required unless MILL_PARAM_OPTIONAL */
    double min, max;           /* numbers; both 0 = no bounds */
    const char *choices;       /* enum: "f32|bf16" */
    const char *text;          /* one line for people */
} mill_param;
enum {
    MILL_PARAM_OPTIONAL = 1,   /* may be absent without a default */
    MILL_PARAM_NO_RESULT = 2,  /* cannot change a result: not part of the signature */
    /* strings: a command line; the program and the scripts that it names by path count with their contents. Relative paths are from
     * the folder that parameter `cwd` gives, or the current one */
    MILL_PARAM_PROGRAM = 4
};

/* ---- columns ---------------------------------------------------------------------------------------------- */

/** A column that a step type always has. */
typedef struct mill_column_decl {
    const char *name;
    const char *type; /* text form of a type. Inputs also: "any", or "text" = utf8 or json. Outputs also: "any" = depends
                       * on parameters or inputs; configure then says it by mill_io_add of the same name */
    const char *text; /* one line for people */
} mill_column_decl;

/* ---- the step type ---------------------------------------------------------------------------------------- */

typedef enum mill_kind { MILL_GENERATOR = 1, MILL_STEP = 2, MILL_GLOBAL = 3, MILL_SINK = 4, MILL_ROUTER = 5 } mill_kind;

enum {
    MILL_PER_ROW = 1 << 0,          /* a row's result does not depend on its neighbours in the batch */
    MILL_BATCH_SENSITIVE = 1 << 1,  /* it does, and on the batch's borders */
    MILL_STATEFUL = 1 << 2,         /* results depend on what came before: one replica, input order restored */
    MILL_NONDETERMINISTIC = 1 << 3, /* running again may give something else */
    MILL_EXPANDS = 1 << 4,          /* may give several rows per input row; must return `parent` */
    MILL_FILTERS = 1 << 5,          /* may drop rows; must return `parent`; may emit nothing */
    MILL_BLOCKS = 1 << 6,           /* calls may block (I/O, sleeping): gets a thread of its own */
    MILL_ROUTES = 1 << 7,           /* a router */
    MILL_REPORTS_STATUS = 1 << 8,   /* writes a word per batch: mill_replica_device_status (device.h) */
    MILL_ORDERED = 1 << 9           /* wants its input in order (sinks, globals and stateful steps always get it) */
};

/** A place to go on from, opaque to the engine, small enough for a journal record. size 0 = the beginning. */
typedef struct mill_cursor {
    uint32_t size; /* bytes used */
    uint8_t bytes[252];
} mill_cursor;

/** What a batch of some rows needs at most. */
typedef struct mill_bound {
    size_t struct_size;
    size_t host_bytes;   /* outputs and scratch in host memory */
    size_t device_bytes; /* on the replica's device */
    /* of these rows; 0 = unknown. Without `cost`, the cost of a row in a budget is what one row of its bytes has */
    int64_t tokens;
    size_t resident_bytes; /* on each of the replica's devices for as long as it is loaded: weights, tables */
} mill_bound;

typedef struct mill_step_type {
    size_t struct_size; /* sizeof(mill_step_type): later versions append */
    uint32_t abi;       /* MILL_ABI_1 */
    int32_t kind;       /* mill_kind */
    uint64_t flags;
    const char *name;    /* lower case, digits, '_' */
    const char *summary; /* one line */
    const char *version; /* part of the signature of results; bump when results change; NULL = "1" */
    const mill_param *params;
    size_t n_params;
    const mill_column_decl *inputs; /* always there; further ones by mill_io_use in configure */
    size_t n_inputs;
    const mill_column_decl *outputs; /* always there; further ones by mill_io_add */
    size_t n_outputs;

    /** Check parameters, name input and output columns; needs no device and opens no model beyond its header
     *  (`stepmill check` calls it). May set the step's state (mill_step_set_state). Optional. Once per step.
     *  On failure the step's state, if set, is released by its destructor. */
    mill_status (*configure)(mill_step *s, const mill_config *c, mill_io *io, mill_error *err);
    /** Upper bound of what `rows` rows of `bytes` bytes of input need. Optional. May overlap with everything. */
    mill_status (*bound)(const mill_step *s, int64_t rows, int64_t bytes, mill_bound *out);

    /** Open what a replica needs (files, models). Optional. On failure unload is called all the same, once. */
    mill_status (*load)(mill_replica *r, mill_error *err);
    /** Release it; also a half-loaded replica. Once per load, whatever happened. Optional. Cannot fail. */
    void (*unload)(mill_replica *r);

    /** Generators: emit the next rows, at most @p max_rows (>= 1), as one batch (mill_emit_batch). @p cursor holds where to
     *  go on (size 0 = the beginning) and is moved past what was emitted; it is the only state that survives a
     *  restart. *last = true: there is nothing after this. Emitting nothing ends the stream, too; an emitted batch of no rows does
     *  not. */
    mill_status (*generate)(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out, mill_error *err);

    /** Steps: one batch per input (a join has several, equal row counts), borrowed and immutable; emit the declared
     *  output columns. All emits of one call are one batch. */
    mill_status (*process)(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err);

    /** Steps with many rows in flight (instead of process). submit: take a batch; it stays alive and unchanged until
     *  every row of @p ticket got a result or was cancelled. MILL_ERR_AGAIN: full, ask later; another failure: the ticket was not
     *  taken. Rows that failed may come again under a new ticket (retries, on_error: isolate). */
    mill_status (*submit)(mill_replica *r, uint64_t ticket, mill_batch *const *in, size_t n_in, mill_error *err);
    /** Hand over what is finished (mill_results_*). Called after mill_replica_wake, and ten times a second while rows are in
     *  flight. A failure is one of every ticket in flight: each is cancelled. But MILL_ERR_NOT_FINISHED: nothing can be done here
     *  than to wait for something outside that may take hours, as an offline batch. The tickets stay, poll is called as before.
     *  When nothing else of the pipeline can move either, the run ends as stopped (exit code 75), and the next one hands the same
     *  rows over again. */
    mill_status (*poll)(mill_replica *r, mill_results *out, mill_error *err);
    /** Forget a ticket whose rows are not all answered: it is past its deadline (timeout: {batch}), poll failed, or the run ends.
     *  Once per ticket. No results for it any more, and its batch may be gone when this returns. */
    void (*cancel)(mill_replica *r, uint64_t ticket);
    /** No more submits for now: send what waits for company. Optional. */
    mill_status (*flush)(mill_replica *r, mill_error *err);

    /** Globals: any number of accepts (input index @p input; borrowed), then one finish, which may emit any number of
     *  batches, each sent on at once. finish is called without any accept, too. */
    mill_status (*accept)(mill_replica *r, size_t input, const mill_batch *in, mill_error *err);
    mill_status (*finish)(mill_replica *r, mill_emit *out, mill_error *err);

    /** Sinks: open at a cursor (size 0 = new), write batches in order (borrowed), sync makes everything written so far
     *  durable and says how to go on from there (or from the last mill_replica_mark), finalize closes the output as complete.
     *  unload without finalize leaves it incomplete. sync optional. */
    mill_status (*open)(mill_replica *r, const mill_cursor *cursor, mill_error *err);
    mill_status (*write)(mill_replica *r, const mill_batch *in, mill_error *err);
    mill_status (*sync)(mill_replica *r, mill_cursor *cursor, mill_error *err);
    mill_status (*finalize)(mill_replica *r, mill_error *err);

    /** Routers: name one or more branches for the whole batch (mill_route_to). */
    mill_status (*route)(mill_replica *r, const mill_batch *in, mill_route *out, mill_error *err);

    /** Tokens of every row of @p in, for `budget: {tokens: N}`: into tokens [rows], zeroed. A row's number must not depend on the
     *  others; it may be an estimate. @p in shows the columns of input @p input as process sees them; of a join the columns that
     *  come from one of its inputs at a time, the others NULL, and the numbers of a row are added up. Optional. May overlap with
     *  everything; called once for every row that arrives, by the thread that hands it on: it should be fast. A failure fails the
     *  step. */
    mill_status (*cost)(const mill_step *s, size_t input, const mill_batch *in, int64_t *tokens, mill_error *err);
} mill_step_type;

/** What a plugin exports: `MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);` */
typedef struct mill_plugin {
    size_t struct_size;
    uint32_t abi;
    const char *name, *version;
    const mill_step_type *const *types;
    size_t n_types;
} mill_plugin;
typedef const mill_plugin *(*mill_plugin_entry)(void);
#define MILL_PLUGIN_ENTRY "mill_plugin_v1"
#define MILL_PLUGIN_EXPORT __attribute__((visibility("default")))

/* ---- inside configure: parameters ------------------------------------------------------------------------- */

/* Values are checked against the parameter table and defaulted before configure runs, so these cannot fail for a
 * declared parameter of that type; an undeclared or absent one gives false, 0, 0.0, NULL. Text lives as long as the step. */
MILL_API bool mill_config_has(const mill_config *c, const char *name);
MILL_API bool mill_config_bool(const mill_config *c, const char *name);
MILL_API int64_t mill_config_int(const mill_config *c, const char *name);   /* int, bytes */
MILL_API double mill_config_float(const mill_config *c, const char *name);  /* float, duration (seconds), int */
/** string, enum, path (absolute), json (text), out_path (absolute, or NULL under `check`). */
MILL_API const char *mill_config_text(const mill_config *c, const char *name);
/** strings, paths, map, columns: number of entries, and entry i. key is "" for strings and paths. */
MILL_API size_t mill_config_count(const mill_config *c, const char *name);
MILL_API const char *mill_config_key(const mill_config *c, const char *name, size_t i);
MILL_API const char *mill_config_item(const mill_config *c, const char *name, size_t i);
/** Entry i of a columns parameter. */
MILL_API const mill_type *mill_config_type(const mill_config *c, const char *name, size_t i);
/** A fault of parameter @p name: fills @p err with the place in the pipeline file, and returns @p status.
 *  @p name may be "key[i]" for an entry. */
MILL_API mill_status mill_config_fail(const mill_config *c, const char *name, mill_error *err, mill_status status,
                                      const char *fmt, ...) MILL_PRINTF(5, 6);
/** Batch size that the pipeline asks of this step: `batch_size` of a generator, `input_batch_size` of others; 0 = as they come. */
MILL_API int64_t mill_config_batch_rows(const mill_config *c);
/** Sinks: whether the pipeline says `errors: true`, so that rows are written with their error (mill_replica_row_error). */
MILL_API bool mill_config_row_errors(const mill_config *c);

/* ---- inside configure: columns ---------------------------------------------------------------------------- */

/* Input 0 of a join shows the joined row: all columns of all inputs in order, the first input that has a name wins; and
 * what is used through input 0 is found in in[0]. So a step for one input works behind a join. Inputs 1, 2, ... show
 * their own columns. The inputs of a global arrive one after the other: each, also input 0, shows its own columns. */
MILL_API size_t mill_io_inputs(const mill_io *io);  /* 0 for a generator; a join has several */
/** Columns arriving on input i, in order, before mapping. */
MILL_API size_t mill_io_column_count(const mill_io *io, size_t input);
MILL_API const char *mill_io_column_name(const mill_io *io, size_t input, size_t column);
MILL_API const mill_type *mill_io_column_type(const mill_io *io, size_t input, size_t column);
/** Declare that the step reads column @p name (its own name; `inputs:` of the pipeline maps it). @p type is a text
 *  form, "any" or "text". *index = its place among the columns of that input's batches; the descriptor's inputs have the
 *  places 0, 1, ... of each input of a global, and of input 0 of other steps. Using a name twice gives the same place. A missing or
 *  ill-typed column is an error with the place in the pipeline file and the nearest name. @p index may be NULL. */
MILL_API mill_status mill_io_use(mill_io *io, size_t input, const char *name, const char *type, int32_t *index, mill_error *err);
/** Type of the input at place @p index after mill_io_use. */
MILL_API const mill_type *mill_io_used_type(const mill_io *io, size_t input, int32_t index);
/** Declare output column @p name (`outputs:` of the pipeline maps it); *index = its place in emitted batches (the descriptor's
 *  outputs come first). A descriptor's output may be named again: with its type, or to give "any" a type. @p index may be NULL. */
MILL_API mill_status mill_io_add(mill_io *io, const char *name, const mill_type *type, int32_t *index, mill_error *err);
/** Whether columns that arrive and are not declared go on (default: true; a global's and a sink's never do). */
MILL_API void mill_io_pass(mill_io *io, bool pass);
/** Do not pass on column @p name: an arriving column, or the column that an input of that name is mapped to. */
MILL_API mill_status mill_io_drop(mill_io *io, const char *name, mill_error *err);
/** Routers: number of branches and their names in the pipeline's `to:`. */
MILL_API size_t mill_io_branches(const mill_io *io);
MILL_API const char *mill_io_branch_name(const mill_io *io, size_t i);

/* ---- the step and its replicas ----------------------------------------------------------------------------- */

MILL_API const char *mill_step_name(const mill_step *s);
/** What the pipeline's `numerics` asks of this step, also inside configure; when it says nothing, MILL_NUMERICS_INVARIANT on the
 *  CPU and MILL_NUMERICS_FAST for a step with GPUs. */
MILL_API mill_numerics mill_step_numerics(const mill_step *s);
/** What configure worked out, shared by the replicas, read only afterwards. @p destroy (may be NULL) runs when the step goes. */
MILL_API void mill_step_set_state(mill_step *s, void *state, void (*destroy)(void *state));
MILL_API void *mill_step_state(const mill_step *s);

MILL_API const mill_step *mill_replica_step(const mill_replica *r);
MILL_API void mill_replica_set_state(mill_replica *r, void *state); /* released by unload */
MILL_API void *mill_replica_state(const mill_replica *r);
MILL_API int32_t mill_replica_index(const mill_replica *r); /* 0 .. replicas-1 */
MILL_API int32_t mill_replica_count(const mill_replica *r);
MILL_API int32_t mill_replica_cpus(const mill_replica *r); /* host threads it may use, >= 1 */
MILL_API mill_pool *mill_replica_pool(const mill_replica *r); /* host memory */
/** Whether the run is being stopped or the batch has passed its deadline: long calls look now and then and return
 *  MILL_ERR_STOPPED. Threads: any. */
MILL_API bool mill_replica_cancelled(const mill_replica *r);
/** For calls that wait in poll() for something else: a descriptor that can be read from when mill_replica_cancelled has become true
 *  for this call; -1 = none can be had: look now and then. It may also be so without a cause, and stays so until it is asked for
 *  again: ask in each call, and after each time that there was none. It belongs to the replica: neither read from it nor close it.
 *  Threads: that of the call. Blocks: no. */
MILL_API int mill_replica_cancel_fd(mill_replica *r);
/** Ask for a poll. Threads: any. Blocks: no. */
MILL_API void mill_replica_wake(mill_replica *r);
/** Whether this is a dry run: sinks get no files, rows are printed by the engine. */
MILL_API bool mill_replica_dry_run(const mill_replica *r);
/** A 64-bit seed for row @p row of the first input: hash(run seed, step, key). The same in every run, batch size and replica. */
MILL_API uint64_t mill_replica_seed(const mill_replica *r, const mill_batch *in, int64_t row);
/** The absolute run directory; NULL when there is none (dry run). */
MILL_API const char *mill_replica_run_dir(const mill_replica *r);
/** Which opening of the run directory this is: 1, 2, ...; 0 = none. An unfinished file with it in its name is no other process's,
 *  not even one's that slept while the run went on elsewhere. */
MILL_API uint64_t mill_replica_opening(const mill_replica *r);
/** Whether the process of an earlier opening has certainly ended: nobody writes to its files any more. */
MILL_API bool mill_replica_opening_over(const mill_replica *r, uint64_t opening);
/** A file of an output. */
typedef struct mill_part {
    size_t struct_size;
    const char *path; /* absolute */
    int64_t rows;
    uint64_t bytes; /* 0 of a part with rows: the engine reads the file for these two */
    uint32_t crc32; /* of the file's bytes: mill_crc32 */
} mill_part;
/** Sinks, inside open, write, finalize: @p part is complete under its own name; manifest.json of the run directory lists it from
 *  now on. One of the same path is replaced. What an earlier output of this step had and this one has not is removed once all
 *  outputs of the run are complete, unless another has it by then or a step reads it. */
MILL_API mill_status mill_replica_part(const mill_replica *r, const mill_part *part, mill_error *err);
/** Sinks with sync, inside write: the output can be gone on with here. The cursor of the next sync is of this place, and a run that
 *  goes on from it hands over the batch in hand again, whole, and those behind it: the cursor says how many rows of it are there
 *  already. For formats that can be gone on with at some rows only; without it, the cursor of sync is behind all that was written.
 *  A type that uses it answers MILL_ERR_AGAIN to a sync for which there was no such place yet, and the last one stands. */
MILL_API void mill_replica_mark(mill_replica *r);
/** Sinks with `errors: true`: message of an error mark of row @p row of the batch in hand; NULL if it has none. Valid during the
 *  call. */
MILL_API const char *mill_replica_row_error(const mill_replica *r, const mill_batch *in, int64_t row);

/** Generators: what share of their input they have read so far, 0 .. 1, as far as it is known. Rows that are left, and how long
 *  they will take, are told from it; nothing else depends on it. Inside generate. Costs nothing to speak of. */
MILL_API void mill_replica_progress(mill_replica *r, double share);
typedef enum mill_level { MILL_DEBUG = 0, MILL_INFO = 1, MILL_WARN = 2, MILL_ERROR = 3 } mill_level;
/** A line for the run's log, as of printf; step and replica are added. Another level than these counts as the nearest. Blocks:
 *  writes. */
MILL_API void mill_replica_log(const mill_replica *r, mill_level level, const char *fmt, ...) MILL_PRINTF(3, 4);

/* ---- output -------------------------------------------------------------------------------------------------- */

/**
 * Emit rows: a batch with the declared output columns, in order. On success the batch is taken over and *batch set to
 * NULL; on failure the caller still owns it.
 * @p parent  for steps that expand or filter: a buffer of int64 [rows], the input row each output row comes from,
 *            never decreasing; taken over on success. NULL otherwise.
 * @retval MILL_ERR_TYPE     a column has another type than declared.
 * @retval MILL_ERR_INVALID  wrong number of columns; or rows, or parent, not what the step's flags allow.
 */
MILL_API mill_status mill_emit_batch(mill_emit *out, mill_batch **batch, mill_buffer **parent, mill_error *err);
/** Emit as many rows as came in, with no column of its own: for steps without output columns. */
MILL_API mill_status mill_emit_pass(mill_emit *out, mill_error *err);
/** Mark row @p row of the batch to be emitted next as failed: its output columns are null by imputation, the error is
 *  recorded (a bad record that a generator met, an answer that a step could not use). Before mill_emit_batch, of a step the
 *  first one of the call; the caller makes the row's values null. */
MILL_API mill_status mill_emit_row_error(mill_emit *out, int64_t row, const mill_error *cause);

/** submit/poll: rows rows[0..n-1] of @p ticket are done; *batch holds one row each. Taken over on success (set to NULL); on failure
 *  the caller still owns it.
 *  @retval MILL_ERR_INVALID  no such ticket in flight, a row that has its answer, or no batch of as many rows and columns.
 *  @retval MILL_ERR_TYPE     a column has another type than declared.
 *  @retval MILL_ERR_NOMEM    out of memory. */
MILL_API mill_status mill_results_rows(mill_results *out, uint64_t ticket, const int64_t *rows, int64_t n, mill_batch **batch,
                                       mill_error *err);
/** submit/poll: those rows failed. Rows of one call are taken to have failed together: with on_error: isolate they come again
 *  apart, a single one is given up (after retries). @p cause is copied.
 *  @retval MILL_ERR_INVALID  no such ticket in flight, a row that has its answer, or no cause. */
MILL_API mill_status mill_results_fail(mill_results *out, uint64_t ticket, const int64_t *rows, int64_t n, const mill_error *cause);

/** Routers: this batch goes to branch @p i (an index of mill_io_branch_name), too. */
MILL_API mill_status mill_route_to(mill_route *out, size_t i, mill_error *err);

MILL_END_DECLS

#endif
