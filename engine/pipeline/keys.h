/*
 * The keys of a pipeline file: name, type, default, range, text. One table drives validation, `stepmill schema`,
 * `--set` and the documentation.
 */
#ifndef STM_PIPELINE_KEYS_H
#define STM_PIPELINE_KEYS_H

#include "core/text.h"
#include "plugin/step.h"

#define STM_UUID_LEAST 5 /* characters of a UUID that say which GPU is meant */

typedef enum stm_shape {
    STM_SHAPE_INT,             /* int64_t */
    STM_SHAPE_FLOAT,           /* double */
    STM_SHAPE_BOOL,            /* bool */
    STM_SHAPE_TEXT,            /* const char * */
    STM_SHAPE_NAME,            /* const char *: letters, digits, '_', '-' */
    STM_SHAPE_ENUM,            /* int32_t: index into choices */
    STM_SHAPE_BYTES,           /* int64_t */
    STM_SHAPE_DURATION,        /* double, seconds; "none" = -1 where min < 0 */
    STM_SHAPE_TEXTS,           /* const stm_value *: a text or a list of texts */
    STM_SHAPE_MAP,             /* const stm_value *: name: text */
    STM_SHAPE_FLAGS,           /* uint32_t: a list of choices, bit i = choice i */
    STM_SHAPE_OBJECT,          /* keys of `sub`, whose offsets are in the same struct */
    STM_SHAPE_BYTES_OR_OBJECT, /* a scalar stands for the first key of `sub` */
    STM_SHAPE_FROM,            /* const stm_value *; read by the graph */
    STM_SHAPE_GROUPS,          /* const stm_value *; read by the stages */
    STM_SHAPE_STEPS            /* const stm_value *; read by the graph */
} stm_shape;

typedef struct stm_key {
    const char *name;
    stm_shape shape;
    const char *default_value; /* as in YAML; NULL = none (or it depends, see text) */
    double min, max;           /* numbers */
    bool above;                /* min itself (of durations 0) is too little */
    const char *choices;       /* enum, flags: "a|b" */
    size_t offset;             /* of the value in stm_file_keys or stm_step_keys */
    uint32_t kinds;            /* step keys: bit mill_kind of the kinds that may have it; 0 = all */
    bool required;
    const struct stm_key *sub;
    size_t n_sub;
    const char *text; /* one line */
} stm_key;

enum { STM_PLACEMENT_AUTO, STM_PLACEMENT_EXTERNAL, STM_PLACEMENT_EXPLICIT };
enum { STM_ORDER_INPUT, STM_ORDER_ANY };
enum { STM_CACHE_AUTO, STM_CACHE_TRUE, STM_CACHE_FALSE };
enum { STM_NULLS_SKIP, STM_NULLS_PASS };

typedef struct stm_file_keys {
    int64_t version, seed, max_errors;
    const char *name; /* NULL = not given */
    int64_t memory_host, memory_pinned;
    double memory_cuda, commit_interval;
    bool keep_sink_rows;
    int32_t placement, order, numerics; /* numerics: mill_numerics, -1 = not given */
    const stm_value *plugins, *load_groups, *steps;
} stm_file_keys;

typedef struct stm_step_keys {
    const char *type;
    const stm_value *from, *to, *inputs, *outputs, *devices;
    int64_t batch_size, credit, input_batch_size, budget_tokens, budget_bytes;
    int64_t replicas, gpus, cpus, memory;
    bool share, errors;
    int32_t on_error; /* -1 = not given */
    int64_t retry_times;
    double retry_backoff;
    uint32_t retry_classes;
    double load_timeout, batch_timeout, unload_timeout;
    double stop_failed;
    int64_t stop_of;
    int32_t nulls, cache, order;
} stm_step_keys;

extern const stm_key stm_file_table[], stm_step_table[];
extern const size_t stm_file_table_count, stm_step_table_count;

const stm_key *stm_key_find(const stm_key *table, size_t n, const char *name);
/** Defaults of every key of @p table into struct @p dest. */
void stm_keys_default(const stm_key *table, size_t n, void *dest);
/** One key's value into @p dest. @p path: how errors call it ("retries.times"). */
mill_status stm_key_read(const stm_key *key, const stm_value *v, const char *path, void *dest, mill_error *err);
/** Fill @p err: "PATH: expected EXPECTED, got ...", with the place of @p v. */
mill_status stm_key_expected(const stm_value *v, const char *path, const char *expected, mill_error *err);
/** Fill @p err: entry @p v of the list stands there twice. */
mill_status stm_named_twice(const stm_value *v, const char *path, mill_error *err);
/** Fill @p err for a name that is none of @p names: "WHAT 'x' ...; did you mean 'y'?". */
mill_status stm_unknown_name(const char *what, const char *name, stm_place at, const char *const *names, size_t n, mill_error *err);
/** Whether @p name may name a step or a pipeline: letters, digits, '_', '-', not first '-', at most 63 bytes. */
bool stm_name_ok(const char *name);

#endif
