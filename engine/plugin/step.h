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

typedef struct stm_used_column { /* an input the step reads */
    const char *name;       /* the step's name for it */
    int32_t column;         /* place in the arriving schema; -1 = absent */
    const mill_type *type;
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
    int32_t input, from; /* arriving */
    int32_t to;          /* place in the outgoing schema */
} stm_pass_column;

typedef enum stm_on_error { STM_ON_ERROR_IMPUTE, STM_ON_ERROR_ISOLATE, STM_ON_ERROR_STOP } stm_on_error;

/** What the pipeline says about failures, time and devices; defaults from stm_policy_default. */
typedef struct stm_policy {
    stm_on_error on_error;
    int32_t retry_times;
    double retry_backoff_s;   /* doubles each time */
    uint32_t retry_classes;   /* bit mill_error_class */
    double load_timeout_s;    /* < 0: none */
    double batch_timeout_s;   /* < 0: none (default) */
    double stop_failed;       /* stop_if: this share of ... */
    int64_t stop_of;          /* ... the last so many rows failed; 0 = off */
    bool nulls_pass;          /* see rows whose inputs are null by imputation */
    bool sink_errors;         /* sinks: column _error */
    int32_t replicas, cpus, gpus;
    int64_t memory_bytes;     /* 0 = not said */
} stm_policy;
stm_policy stm_policy_default(const mill_step_type *type);

struct mill_step {
    char *name;
    const mill_step_type *type;
    mill_config *config; /* owned */
    stm_policy policy;
    int64_t batch_rows; /* generators: rows per batch; others: input_batch_size, 0 = as they come */
    int64_t budget_tokens, budget_bytes; /* `budget:`; 0 = none */
    stm_step_input *inputs;
    int32_t n_inputs;
    stm_step_output *outputs;
    int32_t n_outputs;
    stm_pass_column *pass;
    int32_t n_pass;
    stm_schema out; /* leaving; without columns for sinks */
    char **branches; /* routers: names in `to:` order */
    int32_t n_branches;
    uint64_t seed; /* hash of run seed and step name */
    void *state;
    void (*destroy_state)(void *state);
};

/* ---- making a step ------------------------------------------------------------------------------------------- */

/** Where in the pipeline file something stands; file borrowed. line 0 = nowhere (built through the API). */
typedef struct stm_place {
    const char *file;
    int32_t line, column;
} stm_place;

/** A parameter as the pipeline gives it: a tree of scalars, lists and maps. Built by the YAML reader or the C API. */
typedef struct stm_value {
    enum { STM_VALUE_SCALAR, STM_VALUE_LIST, STM_VALUE_MAP } kind;
    const char *text;  /* scalar as written, unquoted; NULL = YAML null */
    bool quoted;       /* "5" is not the number 5 */
    const char *key;   /* inside a map */
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
    const char *name;
    const mill_step_type *type;
    stm_place place;         /* of the step's key */
    stm_place type_place;
    const stm_value *params; /* [n_params], each with key */
    size_t n_params;
    const char *base_dir;    /* relative input paths start here */
    const char *run_dir;     /* relative out_paths start here; NULL under `check` */
    const stm_schema *arriving; /* [n_arriving] schemas of the inputs */
    int32_t n_arriving;
    const stm_mapping *map_in, *map_out;
    size_t n_map_in, n_map_out;
    const char *const *branches;
    int32_t n_branches;
    int64_t batch_rows, budget_tokens, budget_bytes;
    stm_policy policy;
    uint64_t run_seed;
    bool converge; /* arriving are branches: a column's type must agree where branches share it */
} stm_step_spec;

/** Validate parameters against the table, run configure, work out columns. Errors carry file:line:column, what was expected, the nearest name. */
mill_status stm_step_create(const stm_step_spec *spec, mill_step **out, mill_error *err);
void stm_step_destroy(mill_step **step);
mill_status stm_schema_copy(const stm_schema *src, stm_schema *out);
void stm_schema_fini(stm_schema *s);
int32_t stm_schema_find(const stm_schema *s, const char *name); /* -1 = none */

/* ---- registry of step types ---------------------------------------------------------------------------------- */

/** Step types one engine knows. Threads: owner. */
typedef struct stm_registry stm_registry;
/** With the built-in types (steps/registry.c). */
mill_status stm_registry_create(stm_registry **out, mill_error *err);
void stm_registry_destroy(stm_registry **reg); /* plugins are closed: no step of them may be alive */
/** Open a plugin, check its ABI and every descriptor (name, kind, required functions, parameter defaults), add its types. */
mill_status stm_registry_open(stm_registry *reg, const char *path, mill_error *err);
/** Add types of the program itself. */
mill_status stm_registry_add(stm_registry *reg, const mill_plugin *plugin, mill_error *err);
const mill_step_type *stm_registry_find(const stm_registry *reg, const char *name);
const char *stm_registry_nearest(const stm_registry *reg, const char *name);
size_t stm_registry_count(const stm_registry *reg);
const mill_step_type *stm_registry_at(const stm_registry *reg, size_t i);
const char *stm_registry_origin(const stm_registry *reg, size_t i); /* path of the plugin, or "built in" */
/** The built-in plugin; defined in steps/builtin.c. */
const mill_plugin *stm_builtin_steps(void);
/** What is wrong with a descriptor, as a plugin author needs to hear it. */
mill_status stm_step_type_check(const mill_step_type *type, mill_error *err);

#endif
