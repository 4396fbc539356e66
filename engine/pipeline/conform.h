/*
 * The conformance kit: runs a step type through the contract of stepmill/step.h and says, in its author's words, what was run
 * and what is wrong. Behind `stepmill steps check`.
 *
 * Every check runs in a process of its own (forked), under a watchdog, so that a crash or a hang is a finding and the caller
 * lives on. The child writes what it is doing, and what it found, into memory shared with the parent: that is still there
 * when it has died.
 */
#ifndef STM_PIPELINE_CONFORM_H
#define STM_PIPELINE_CONFORM_H

#include "core/text.h"
#include "stepmill/pipeline.h"
#include "wrapper/probe.h"

enum {
    STM_CONFORM_FINDINGS = 6,  /* of one check; more would say the same again */
    STM_CONFORM_ROWS = 67,     /* rows of the generated input: no multiple of anything */
    STM_CONFORM_ANY_TYPES = 7, /* types that an input "any" is tried with */
    STM_CONFORM_MAX_BATCHES = 10000
};

/** What the parent keeps of a check; lives in shared memory while the check runs. */
typedef struct stm_conform_note {
    char now[160];   /* the call that is under way: "process on a batch of 3 rows"; "" = none */
    char fault[256]; /* what a memory fault means, when it was in an input of ours */
    char findings[STM_CONFORM_FINDINGS][480];
    int32_t n_findings;
    char skipped[480]; /* why it could not be run; "" = it ran */
    char did[160];     /* what was run */
    int32_t any_type;  /* configure: which type did for inputs "any" */
    bool wants_help;   /* skipped for want of parameters or columns: the author can do something about it */
    bool complete;     /* the check came to its end */
} stm_conform_note;

/** One check in the child. */
typedef struct stm_conform {
    const mill_step_type *type;
    const mill_plugin_check_options *opts;
    stm_conform_note *note;
    char dir[256];       /* run directory: empty, removed afterwards */
    int32_t any_type;
    stm_schema arriving; /* one input; empty for generators */
} stm_conform;

/** A replica with everything around it. */
typedef struct stm_conform_bench {
    mill_step *step;
    mill_pool *pool;
    stm_errors *errors;
    stm_wrapper_env env;
    stm_wrapper *w;
} stm_conform_bench;

/** A check: returns nothing, it says. Applies to types of the kinds in the mask (bit mill_kind). */
typedef struct stm_conform_check {
    const char *name;
    uint32_t kinds;
    bool (*applies)(const mill_step_type *t); /* NULL = always */
    void (*run)(stm_conform *k);
} stm_conform_check;
extern const stm_conform_check stm_conform_checks[]; /* the first is configure; the last has no name */

/* ---- saying (conform_bench.c) ------------------------------------------------------------------------------------ */

void stm_conform_now(stm_conform *k, const char *fmt, ...) MILL_PRINTF(2, 3);
void stm_conform_find(stm_conform *k, const char *fmt, ...) MILL_PRINTF(2, 3);
void stm_conform_skip(stm_conform *k, const char *fmt, ...) MILL_PRINTF(2, 3);
void stm_conform_did(stm_conform *k, const char *fmt, ...) MILL_PRINTF(2, 3);

/** Whether finding @p z begins as @p a does, numbers aside: the same again. */
bool stm_conform_same(const char *a, const char *z);

/* ---- benches (conform_bench.c) ------------------------------------------------------------------------------------ */

/** Required parameters that were not given, parted by ", "; false = none. */
bool stm_conform_missing(const mill_step_type *t, const mill_plugin_check_options *o, char *buf, size_t size);
/** The schema that arrives: inputs as declared, then columns of every sort, then those of the options. */
mill_status stm_conform_columns(stm_conform *k, int32_t any_type, stm_schema *out, mill_error *err);
/** @p arriving [n_arriving]; generators have none. */
mill_status stm_conform_step(stm_conform *k, const stm_schema *arriving, int32_t n_arriving, mill_step **out, mill_error *err);
/** A step and one replica of it, not loaded. Says so itself when that fails. */
bool stm_conform_open(stm_conform *k, stm_conform_bench *b);
/** Another replica of @p of: same step, pool and errors. */
bool stm_conform_second(stm_conform *k, const stm_conform_bench *of, stm_conform_bench *b);
/** Load; a failure is said as "could not be run". */
bool stm_conform_load(stm_conform *k, stm_conform_bench *b);
/** Unload, and look whether batches, columns or buffers stayed behind: said with @p after ("a batch"). */
void stm_conform_close(stm_conform *k, stm_conform_bench *b, const char *after);
void stm_conform_close_second(stm_conform *k, stm_conform_bench *b);

/* ---- data (conform_data.c) ------------------------------------------------------------------------------------------ */

/**
 * Rows [first, first + rows) of the generated input. Every buffer lies on pages of its own that can be read and not written,
 * against a page that cannot be touched; once released, it cannot be read any more. @p lead: rows before the first that the
 * columns hold and the batch does not show. absent: columns are NULL (every row null).
 */
mill_batch *stm_conform_batch(stm_conform *k, mill_pool *pool, int64_t first, int64_t rows, int64_t lead, bool absent);
/** Catch faults in those pages and say what they mean. Once per child. */
void stm_conform_guard(stm_conform *k);
/** Bytes of guarded memory whose column is still referenced. */
int64_t stm_conform_held(void);

/** What came of rows: of each input row (or, of generators and globals, each row in order) a hash of all bits and a text. */
typedef struct stm_conform_row {
    uint64_t hash;
    char *text;  /* NULL = nothing came of it */
    bool failed;
} stm_conform_row;
typedef struct stm_conform_rows {
    stm_conform_row *row;
    size_t n, cap;
} stm_conform_rows;
mill_status stm_conform_rows_init(stm_conform_rows *rows, size_t n);
void stm_conform_rows_fini(stm_conform_rows *rows);
/** Add row @p r of @p b (outputs of @p s) to row @p at; at == n appends. */
void stm_conform_rows_add(stm_conform_rows *rows, size_t at, const mill_step *s, const mill_batch *b, int64_t r);
/** What a call put out for input rows first .. ; @p base in @p rows. Also looks whether the columns are well formed. */
void stm_conform_rows_take(stm_conform *k, stm_conform_rows *rows, const mill_step *s, const stm_probe_out *out, size_t base,
                           int64_t in_rows);
/** Index of the first row that differs; -1 = none. */
int64_t stm_conform_rows_differ(const stm_conform_rows *a, const stm_conform_rows *b);
/** Text of a row for people, cut. */
const char *stm_conform_rows_show(const stm_conform_rows *rows, int64_t i, char *buf, size_t size);

/** Say where @p a and @p b differ first, how each came about, and what follows. */
void stm_conform_rows_tell(stm_conform *k, const stm_conform_rows *a, const char *how_a, const stm_conform_rows *b,
                           const char *how_b, const char *so);
/** Rows 0 .. total-1 through process, in batches of @p size. False when nothing came of it (said). (conform_step.c) */
bool stm_conform_step_rows(stm_conform *k, stm_conform_bench *b, int64_t total, int64_t size, stm_conform_rows *rows);

/* conform_step.c, conform_run.c, conform_kinds.c: the checks, see conform_checks.c for the list */
void stm_conform_check_configure(stm_conform *k);
void stm_conform_check_load(stm_conform *k);
void stm_conform_check_load_fails(stm_conform *k);
void stm_conform_check_batches(stm_conform *k);
void stm_conform_check_absent(stm_conform *k);
void stm_conform_check_repeat(stm_conform *k);
void stm_conform_check_per_row(stm_conform *k);
void stm_conform_check_ownership(stm_conform *k);
void stm_conform_check_cancelled(stm_conform *k);
void stm_conform_check_emit_fails(stm_conform *k);
void stm_conform_check_memory(stm_conform *k);
void stm_conform_check_replicas(stm_conform *k);
void stm_conform_check_runs(stm_conform *k);
void stm_conform_check_joins(stm_conform *k);
void stm_conform_check_generate(stm_conform *k);
void stm_conform_check_resume(stm_conform *k);
void stm_conform_check_generate_emit(stm_conform *k);
void stm_conform_check_global(stm_conform *k);
void stm_conform_check_global_empty(stm_conform *k);
void stm_conform_check_global_emit(stm_conform *k);
void stm_conform_check_sink(stm_conform *k);
void stm_conform_check_sink_empty(stm_conform *k);
void stm_conform_check_sink_resume(stm_conform *k);
void stm_conform_check_sink_left(stm_conform *k);
void stm_conform_check_route(stm_conform *k);
void stm_conform_check_submit(stm_conform *k);
void stm_conform_check_submit_cancel(stm_conform *k);

#endif
