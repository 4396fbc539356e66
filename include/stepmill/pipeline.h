/* A pipeline: steps and how they are connected. From a YAML file, from text, or built by calls; checked, planned. */
#ifndef STEPMILL_PIPELINE_H
#define STEPMILL_PIPELINE_H

#include "stepmill/step.h"

MILL_BEGIN_DECLS

/**
 * A pipeline. All calls on one pipeline are serialised by the caller; different ones are independent. It must outlive its
 * runs (mill_run), because step types of its plugins live in it.
 *
 * Threads of all calls below, unless they say otherwise: serialised per pipeline; those that take none: any. They block on reading
 * files where they say so, and not otherwise. Texts that they take are copied. Each may also fail with MILL_ERR_NOMEM, and on
 * failure leaves *out untouched.
 */
typedef struct mill_pipeline mill_pipeline;

/** Release a text that a call handed out (char **out); sets *text to NULL, accepts NULL. Threads: any. Blocks: no. */
MILL_API void mill_text_free(char **text);

/* ---- making one ------------------------------------------------------------------------------------------------ */

/** Read a pipeline file. Relative paths in it start at its folder. Only the YAML is read here; what it says is checked by
 *  mill_pipeline_check and whatever needs it. Errors have file:line:column. *out: mill_pipeline_destroy.
 *  @retval MILL_ERR_NOT_FOUND  there is no such file.
 *  @retval MILL_ERR_IO         unreadable.
 *  @retval MILL_ERR_INVALID    a folder.
 *  @retval MILL_ERR_PARSE      not YAML.
 *  Blocks: reads the file. */
MILL_API mill_status mill_pipeline_open(const char *path, mill_pipeline **out, mill_error *err);
/** As mill_pipeline_open for text. @p file: name for error messages; @p base_dir: where relative paths start (NULL = the
 *  working directory). @retval MILL_ERR_PARSE  not YAML. */
MILL_API mill_status mill_pipeline_parse(const char *text, size_t bytes, const char *file, const char *base_dir,
                                         mill_pipeline **out, mill_error *err);
/** An empty pipeline with a name, to be filled by the calls below. @retval MILL_ERR_INVALID  it cannot be a name. */
MILL_API mill_status mill_pipeline_create(const char *name, mill_pipeline **out, mill_error *err);
/** Release it and its plugins; sets *p to NULL, accepts NULL. No run of it may be alive. Cannot fail. */
MILL_API void mill_pipeline_destroy(mill_pipeline **p);

/** Step types of the program itself, before they are named. @p plugin is borrowed for the life of the pipeline.
 *  @retval MILL_ERR_INVALID, MILL_ERR_UNSUPPORTED  a descriptor is wrong, or of another ABI. */
MILL_API mill_status mill_pipeline_add_types(mill_pipeline *p, const mill_plugin *plugin, mill_error *err);
/** Add step @p step of type @p type. MILL_ERR_INVALID: there is one of that name, or it cannot be a name. */
MILL_API mill_status mill_pipeline_add(mill_pipeline *p, const char *step, const char *type, mill_error *err);
/**
 * Set one key: "seed", "embed.batch_size", "embed.retries.times"; replaces what was there. The value is read as YAML where it
 * opens with '[' or '{' and stands for itself as a scalar otherwise ("64", "models/x", "true"); what it may be is checked
 * by the key's or parameter's table when the pipeline is checked. The first part must be a step of the pipeline or a file key.
 * @retval MILL_ERR_INVALID  it is neither, or no key.
 * @retval MILL_ERR_PARSE    a list or map is not YAML.
 */
MILL_API mill_status mill_pipeline_set(mill_pipeline *p, const char *key, const char *value, mill_error *err);
/** Let @p to take rows of @p from, after what it already takes (several make a join; for a global, several inputs). For unions and
 *  convergences set the key from: mill_pipeline_set(p, "groups.from", "{converge: [a, b]}", err).
 *  @retval MILL_ERR_NOT_FOUND  there is no such step.
 *  @retval MILL_ERR_INVALID    `from` of @p to is a map. */
MILL_API mill_status mill_pipeline_connect(mill_pipeline *p, const char *from, const char *to, mill_error *err);

/* ---- what is wrong, what will happen ---------------------------------------------------------------------------- */

/** Find whatever can be known without loading anything: keys, step types, parameters, graph, columns, headers of files.
 *  @p err says the first fault, with its place; its phase is MILL_PHASE_CHECK. The status is that of the fault: any that the caller
 *  can act on (stepmill/status.h), and what a step type's configure gives. Blocks: looks at files. */
MILL_API mill_status mill_pipeline_check(mill_pipeline *p, mill_error *err);
/** What checked out, but should be known ("order: any gives up ..."), one per line; an empty text when there is nothing. *out:
 *  mill_text_free, as of all texts below. Fails and blocks as mill_pipeline_check. */
MILL_API mill_status mill_pipeline_notes(mill_pipeline *p, char **out, mill_error *err);

typedef enum mill_format { MILL_FORMAT_TEXT = 0, MILL_FORMAT_JSON = 1 } mill_format;
/** What a run would do: steps, columns and types on every edge, batch sizes, replicas, credit in rows per root, memory,
 *  stages. Fails and blocks as mill_pipeline_check. */
MILL_API mill_status mill_pipeline_plan(mill_pipeline *p, mill_format format, char **out, mill_error *err);
/** Check and plan for the machine that a file describes (docs/placement.md) instead of this one; NULL = this one again. Such a
 *  pipeline cannot be run. The file is read when the pipeline is checked. */
MILL_API mill_status mill_pipeline_use_devices(mill_pipeline *p, const char *file, mill_error *err);
/** Check and plan for a run in @p run_dir, which sinks' relative paths start at; NULL = runs/NAME in the working directory again.
 *  It need not be there. A run says its own (mill_run_options.dir). */
MILL_API mill_status mill_pipeline_use_dir(mill_pipeline *p, const char *run_dir, mill_error *err);
/** The `name` key, else the file's name without its ending. Valid until the pipeline changes. */
MILL_API const char *mill_pipeline_name(const mill_pipeline *p);

/* ---- what there is ---------------------------------------------------------------------------------------------- */

/** Step types: built-in ones and those of @p plugins (paths; may be NULL). Fails where a plugin cannot be opened or a descriptor of
 *  it is wrong; so do the calls below that take plugins. Blocks: loads them. */
MILL_API mill_status mill_types_list(const char *const *plugins, size_t n_plugins, mill_format format, char **out, mill_error *err);
/** Parameters, columns, kind and flags of one. @retval MILL_ERR_NOT_FOUND  there is none of that name; says the nearest. Blocks:
 *  loads plugins. */
MILL_API mill_status mill_types_describe(const char *const *plugins, size_t n_plugins, const char *type, mill_format format,
                                         char **out, mill_error *err);
/** How to run a plugin through the contract of step types. Initialise with MILL_PLUGIN_CHECK_OPTIONS_INIT; texts are borrowed. */
typedef struct mill_plugin_check_options {
    size_t struct_size;
    const char *const *set;     /* [n_set] "TYPE.PARAMETER=VALUE", lists and maps as YAML; "TYPE.to=[a, b]": a router's branches */
    size_t n_set;
    const char *const *columns; /* [n_columns] "NAME=TYPE": a column that arrives, or the type of a declared input */
    size_t n_columns;
    const char *only;           /* one step type; NULL = all of the plugin */
    double timeout_s;           /* for one check; a step that takes longer hangs */
} mill_plugin_check_options;
#define MILL_PLUGIN_CHECK_OPTIONS_INIT {sizeof(mill_plugin_check_options), NULL, 0, NULL, 0, NULL, 20}
typedef enum mill_verdict {
    MILL_VERDICT_RIGHT = 0,   /* every check ran and found nothing */
    MILL_VERDICT_WRONG = 1,   /* something breaks the contract */
    MILL_VERDICT_NOT_RUN = 2  /* nothing found, but a type could not be run: the report says what it needs */
} mill_verdict;
/**
 * Run the step types of a plugin through the contract of stepmill/step.h, on generated rows: parameters, load and unload, batches
 * of many sizes, order, ownership, failures, by kind. Each check is a forked process under a watchdog: a step that crashes or
 * hangs is reported, and the caller goes on. The report says for every type what was run and what is wrong.
 * @param path     the plugin; NULL = the built-in types.
 * @param options  NULL = the defaults.
 * @param verdict  set on success.
 * Fails when the plugin cannot be opened or a descriptor is wrong. Threads: one at a time, in a process that
 * can be forked (no other thread of it holds a lock that a step needs). Blocks: until every check has run.
 */
MILL_API mill_status mill_plugin_conform(const char *path, const mill_plugin_check_options *options, mill_format format, char **out,
                                         mill_verdict *verdict, mill_error *err);
/** mill_plugin_conform with the defaults; a fault of the plugin is the error (MILL_ERR_STEP). Threads, blocking as there. */
MILL_API mill_status mill_plugin_check(const char *path, mill_format format, char **out, mill_error *err);
/** JSON schema of the pipeline file, for editors: every key and every step type's parameters. */
MILL_API mill_status mill_schema_text(char **out, mill_error *err);
/** Devices a pipeline could use, and why one could not. Blocks: asks the drivers. */
MILL_API mill_status mill_devices_list(mill_format format, char **out, mill_error *err);
/** GPUs, NUMA nodes and the paths between them of the machine that a file describes (docs/placement.md), as far as
 *  CUDA_VISIBLE_DEVICES of this process lets them be seen. @p file NULL: of this machine. Blocks: reads it.
 *  @retval MILL_ERR_NOT_FOUND, MILL_ERR_IO, MILL_ERR_PARSE  the file cannot be read, or is no such file. */
MILL_API mill_status mill_devices_read(const char *file, mill_format format, char **out, mill_error *err);

MILL_END_DECLS

#endif
