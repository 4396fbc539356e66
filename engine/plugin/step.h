/*
 * A configured step: its type, parameters, columns and policies. Made by the pipeline (or a test), read by wrapper and
 * drivers. Also the registry of step types: built-in ones and those of plugins.
 */
#ifndef STM_PLUGIN_STEP_H
#define STM_PLUGIN_STEP_H

#include "stepmill/step.h"

/** Columns on an edge, in order. */
typedef struct stm_schema {
    mill_field *fields; /* names owned by the schema */
    int32_t n;
} stm_schema;

/*
 * How columns go through a step (interface.md section 1, semantics A2.7, A2.8):
 *
 *  - A step sees the columns it uses, nothing else: its process gets one batch per input, whose column k is inputs[i].used[k].
 *    The descriptor's static inputs come first, in their order, then what configure asked for by mill_io_use.
 *  - A join (several inputs; not a global) shows itself to the step as a row of all columns, the first input that has a name wins.
 *    That row is what input 0 of mill_io_* speaks of, and static inputs are looked up in it, so a step written for one input works
 *    behind a join. Hence used[k] of input 0 may come from another input: its `input` says from which. Inputs 1, 2, ... are
 *    strictly their own columns.
 *  - A convergence is a join whose rows took one or more of the branches: where branches share a name, a row's value comes from the
 *    first branch that the row took, so `input`/`column` are those of the first branch that has the name at all and `in_branch`
 *    has its place in every branch. Types must agree.
 *  - A union (spec.unite) is one input: columns by name in order of first appearance, null where an input lacks them.
 *  - A global's inputs arrive one after the other and not side by side: each must have every static input, and a step asks for
 *    further ones per input.
 *  - Leaving: the arriving columns in order (joins: input by input), without dropped ones; an output whose name (after mapping)
 *    arrives takes that place and replaces it; other outputs follow in order of declaration. A mapped input hides an equally
 *    named column from the step only: that column passes through like any other. Globals: the outputs only. Sinks: nothing.
 */
typedef struct stm_used_column { /* an input the step reads */
    char *name;                  /* the step's name for it */
    int32_t input;               /* arriving input it comes from: i of inputs[i], except behind a join, see above */
    int32_t column;              /* place in that input's arriving schema */
    const mill_type *type;
    int32_t *in_branch; /* convergence: [n_inputs] place in each branch's schema, -1 = not there; else NULL */
} stm_used_column;

typedef struct stm_step_input {
    stm_schema schema; /* arriving */
    stm_used_column *used;
    int32_t n_used;
} stm_step_input;

typedef struct stm_step_output {
    char *name;   /* the step's name for it */
    char *mapped; /* name on the outgoing edge */
    const mill_type *type;
    int32_t column; /* place in the outgoing schema */
} stm_step_output;

typedef struct stm_pass_column { /* a column that goes on untouched */
    int32_t input, from;         /* arriving */
    int32_t to;                  /* place in the outgoing schema */
    int32_t *in_branch;          /* convergence: as in stm_used_column; else NULL */
} stm_pass_column;

/** One of the united inputs: for every column of the union its place in that input's schema, -1 = null. */
typedef struct stm_united {
    int32_t *from; /* [inputs[0].schema.n] */
} stm_united;

typedef enum stm_on_error { STM_ON_ERROR_IMPUTE, STM_ON_ERROR_ISOLATE, STM_ON_ERROR_STOP } stm_on_error;

/** What the pipeline says about failures, time and devices; defaults from stm_policy_default. */
typedef struct stm_policy {
    stm_on_error on_error;
    int32_t retry_times;
    double retry_backoff_s; /* doubles each time */
    uint32_t retry_classes; /* bit mill_error_class */
    double load_timeout_s;  /* < 0: none */
    double batch_timeout_s; /* < 0: none (default) */
    double unload_timeout_s; /* < 0: none */
    double stop_failed;     /* stop_if: this share of ... */
    int64_t stop_of;        /* ... the last so many rows failed; 0 = off */
    bool nulls_pass;        /* see rows whose inputs are null by imputation */
    bool sink_errors;       /* sinks: column _error */
    mill_numerics numerics;
    int32_t replicas, cpus, gpus;
    int64_t memory_bytes; /* 0 = not said */
} stm_policy;
stm_policy stm_policy_default(const mill_step_type *type);

struct mill_step {
    char *name;
    /* what errors call it: the name in the file; that of the step in front of which this one does what its `from` says */
    char *said;
    const mill_step_type *type;
    mill_config *config; /* owned */
    stm_policy policy;
    int64_t batch_rows;                  /* generators: rows per batch; others: input_batch_size, 0 = as they come */
    int64_t budget_tokens, budget_bytes; /* `budget:`; 0 = none */
    bool converge;
    stm_step_input *inputs;
    int32_t n_inputs;   /* a union: 1, with the united schema */
    stm_united *united; /* [n_united] union: how the inputs' columns become those of inputs[0]; else NULL */
    int32_t n_united;
    stm_step_output *outputs;
    int32_t n_outputs;
    stm_pass_column *pass;
    int32_t n_pass;
    stm_schema out;  /* leaving; without columns for sinks */
    char **branches; /* routers: names in `to:` order */
    int32_t n_branches;
    uint64_t seed; /* hash of run seed and step name */
    void *state;
    void (*destroy_state)(void *state);
};

/* ---- making a step ------------------------------------------------------------------------------------------- */

/** Where something stands: in the pipeline file, or, with line 0, in a value that was set by itself, which `file` shows. file
 *  borrowed; none or "" = nowhere (built through the API). */
typedef struct stm_place {
    const char *file;
    int32_t line, column;
} stm_place;
static inline bool stm_place_known(stm_place p) { return p.file != NULL && p.file[0] != '\0'; }

/** A parameter as the pipeline gives it: a tree of scalars, lists and maps. Built by the YAML reader or the C API. */
typedef struct stm_value {
    enum { STM_VALUE_SCALAR, STM_VALUE_LIST, STM_VALUE_MAP } kind;
    const char *text; /* scalar as written, unquoted; NULL = YAML null */
    bool quoted;      /* "5" is not the number 5 */
    const char *key;  /* inside a map */
    stm_place place, key_place;
    struct stm_value *items;
    size_t n_items;
} stm_value;

typedef struct stm_mapping {
    const char *own, *column; /* step's name : column */
    stm_place place;
} stm_mapping;

/** Everything stm_step_create needs; borrowed for the call. */
typedef struct stm_step_spec {
    const char *name, *said; /* said NULL = as name */
    const mill_step_type *type;
    stm_place place; /* of the step's key */
    stm_place type_place;
    const stm_value *params; /* [n_params], each with key */
    size_t n_params;
    const char *base_dir;       /* relative input paths start here */
    const char *run_dir;        /* relative out_paths start here; NULL under `check` */
    const stm_schema *arriving; /* [n_arriving] schemas of the inputs */
    int32_t n_arriving;
    const char *const *arriving_names; /* [n_arriving] steps they come from, for messages; may be NULL */
    const stm_place *arriving_places;  /* [n_arriving] where the file names them; may be NULL */
    const stm_mapping *map_in, *map_out;
    size_t n_map_in, n_map_out;
    const char *const *branches;
    int32_t n_branches;
    int64_t batch_rows, budget_tokens, budget_bytes;
    stm_policy policy;
    uint64_t run_seed;
    bool converge;                 /* arriving are branches: a column's type must agree where branches share it */
    bool unite;                    /* arriving are united: likewise */
    const char *const *other_keys; /* keys a step has besides its parameters: candidates for the nearest name */
    size_t n_other_keys;
} stm_step_spec;

/** Validate parameters against the table, run configure, work out columns. Errors carry file:line:column, what was expected, the
 *  nearest name; step and phase (check) are filled in. Threads: owner. Blocks: looks at files that parameters name. */
mill_status stm_step_create(const stm_step_spec *spec, mill_step **out, mill_error *err);
/** Whether the record @p err is of this step, rather than of one in front of it that errors call the same. */
bool stm_step_is_of(const mill_step *step, const mill_error *err);
/** Where the pipeline file is at fault when the step cannot load: at the parameter whose file the message names, else at the
 *  step. */
void stm_step_blame(const mill_step *step, mill_error *err);
/** Runs the state's destructor; sets *step to NULL, accepts NULL. No replica of it may be alive. */
void stm_step_destroy(mill_step **step);

/** Into @p out, which is overwritten; MILL_ERR_NOMEM leaves it empty. */
mill_status stm_schema_copy(const stm_schema *src, stm_schema *out);
/** Append a column; the name is copied. Names are not compared. */
mill_status stm_schema_add(stm_schema *s, const char *name, const mill_type *type);
void stm_schema_fini(stm_schema *s);
int32_t stm_schema_find(const stm_schema *s, const char *name); /* -1 = none */

/* ---- registry of step types ---------------------------------------------------------------------------------- */

/** Step types one engine knows. Threads: owner. */
typedef struct stm_registry stm_registry;
/** With the built-in types (steps/builtin.c). */
mill_status stm_registry_create(stm_registry **out, mill_error *err);
void stm_registry_destroy(stm_registry **reg); /* plugins are closed: no step of them may be alive */
/** Open a plugin, check its ABI and every descriptor (name, kind, required functions, parameter defaults), add its types: all or,
 *  on failure, none. Opening the same file again does nothing. @p path without a slash is a file of the working directory.
 *  Blocks: reads the file, runs its constructors. */
mill_status stm_registry_open(stm_registry *reg, const char *path, mill_error *err);
/** Add types of the program itself; @p plugin is borrowed for the life of the registry. */
mill_status stm_registry_add(stm_registry *reg, const mill_plugin *plugin, mill_error *err);
/** NULL = unknown. */
const mill_step_type *stm_registry_find(const stm_registry *reg, const char *name);
/** Types in order of their names. */
size_t stm_registry_count(const stm_registry *reg);
const mill_step_type *stm_registry_at(const stm_registry *reg, size_t i);
const char *stm_registry_origin(const stm_registry *reg, size_t i); /* path of the plugin, or "built in" */
/** The built-in plugin; defined in steps/builtin.c. */
const mill_plugin *stm_builtin_steps(void);
/** What is wrong with a descriptor, as a plugin author needs to hear it. */
mill_status stm_step_type_check(const mill_step_type *type, mill_error *err);

#endif
