#include "pipeline/keys.h"

#include <stddef.h>

/* Step keys of one kind of step only. */
#define GEN (1u << MILL_GENERATOR)
#define STEP (1u << MILL_STEP)
#define GLOBAL (1u << MILL_GLOBAL)
#define SINK (1u << MILL_SINK)
#define ROUTER (1u << MILL_ROUTER)
#define FED (STEP | GLOBAL | SINK | ROUTER)

#define F(field) offsetof(stm_file_keys, field)
#define S(field) offsetof(stm_step_keys, field)
#define SUB(table) .sub = (table), .n_sub = sizeof(table) / sizeof *(table)

static const stm_key memory_keys[] = {
    {"host", STM_SHAPE_BYTES, "0", 0, 1e15, .offset = F(memory_host),
     .text = "host memory for live rows; 0 = half of what the process may use"},
    {"pinned", STM_SHAPE_BYTES, "0", 0, 1e15, .offset = F(memory_pinned),
     .text = "page-locked host memory that rows from GPUs may rest in; beyond it they come to other memory, slower; 0 = as needed"},
    {"cuda", STM_SHAPE_FLOAT, "0.9", 0, 1, .above = true, .offset = F(memory_cuda),
     .text = "share of each GPU's memory that steps may use"},
};

const stm_key stm_file_table[] = {
    {"stepmill", STM_SHAPE_INT, NULL, 1, 1, .offset = F(version), .required = true, .text = "version of the file format"},
    {"name", STM_SHAPE_NAME, NULL, .offset = F(name),
     .text = "name of the pipeline and of its default run directory, runs/NAME; default: the file's name"},
    {"seed", STM_SHAPE_INT, "0", 0, 9e18, .offset = F(seed),
     .text = "seed of everything random: a step's row is seeded by hash(seed, step, key)"},
    {"memory_limit", STM_SHAPE_BYTES_OR_OBJECT, NULL, 0, 1e15, .offset = F(memory_host), SUB(memory_keys),
     .text = "limit on the bytes of rows in the pipeline"},
    {"commit_interval", STM_SHAPE_DURATION, "1s", 0.01, 3600, .offset = F(commit_interval),
     .text = "longest time between two commits: what a kill or power cut may cost"},
    {"keep_sink_rows", STM_SHAPE_BOOL, "true", .offset = F(keep_sink_rows),
     .text = "keep the rows that arrive at sinks in the run directory, so that a changed sink runs alone; false: they are written "
             "once only"},
    {"max_errors", STM_SHAPE_INT, "0", 0, 9e18, .offset = F(max_errors),
     .text = "imputed rows allowed before a finished run exits with code 3"},
    {"placement", STM_SHAPE_ENUM, "auto", .choices = "auto|external|explicit", .offset = F(placement),
     .text =
         "who assigns GPUs to replicas: auto, the planner; explicit, `devices` of each step; external, a scheduler has given this "
         "process its own: nothing is claimed"},
    {"order", STM_SHAPE_ENUM, "input", .choices = "input|any", .offset = F(order),
     .text = "order of rows at sinks: as they came in, or as they get done"},
    {"numerics", STM_SHAPE_ENUM, NULL, .choices = "invariant|fast", .offset = F(numerics),
     .text = "invariant: a row's result has the same bits in any batch; default: invariant on cpu"},
    {"plugins", STM_SHAPE_TEXTS, NULL, .offset = F(plugins),
     .text = "shared objects with step types; relative paths start at the pipeline file"},
    {"load_groups", STM_SHAPE_GROUPS, NULL, .offset = F(load_groups),
     .text = "lists of steps loaded together, one list after the other; or sequential: one step at a time"},
    {"steps", STM_SHAPE_STEPS, NULL, .offset = F(steps), .required = true, .text = "the steps, by name"},
};
const size_t stm_file_table_count = sizeof stm_file_table / sizeof *stm_file_table;

static const stm_key budget_keys[] = {
    {"tokens", STM_SHAPE_INT, "0", 0, 1e12, .offset = S(budget_tokens),
     .text = "tokens per batch at most, by the step type's own count"},
    {"bytes", STM_SHAPE_BYTES, "0", 0, 1e15, .offset = S(budget_bytes),
     .text = "bytes per batch at most, of the columns that the step reads"},
};
static const stm_key resource_keys[] = {
    {"gpus", STM_SHAPE_INT, "0", 0, 64, .offset = S(gpus), .text = "GPUs per replica"},
    {"cpus", STM_SHAPE_INT, "1", 1, 1024, .offset = S(cpus), .text = "host threads per replica"},
    {"memory", STM_SHAPE_BYTES, "0", 0, 1e15, .offset = S(memory),
     .text = "memory on each GPU of a replica; 0 = what the step type says"},
    {"share", STM_SHAPE_BOOL, "false", .offset = S(share), .text = "may share its GPUs with other steps that may"},
    {"devices", STM_SHAPE_TEXTS, NULL, .offset = S(devices),
     .text = "GPUs by position in CUDA_VISIBLE_DEVICES or by UUID, in turn for the replicas, one each unless `gpus` says "
             "more; default: the planner chooses"},
};
static const stm_key retry_keys[] = {
    {"times", STM_SHAPE_INT, "0", 0, 1000, .offset = S(retry_times), .text = "attempts after the first"},
    {"backoff", STM_SHAPE_DURATION, "1s", 0, 86400, .offset = S(retry_backoff),
     .text = "pause before the first of them; doubles each time"},
    {"classes", STM_SHAPE_FLAGS, "transient", .choices = "permanent|transient|data|device", .offset = S(retry_classes),
     .text = "classes of failure worth another attempt"},
};
static const stm_key timeout_keys[] = {
    {"load", STM_SHAPE_DURATION, "600s", -1, 1e9, .above = true, .offset = S(load_timeout),
     .text = "longest load of a replica, or none"},
    {"batch", STM_SHAPE_DURATION, "none", -1, 1e9, .above = true, .offset = S(batch_timeout),
     .text = "longest time for one batch, or none"},
    {"unload", STM_SHAPE_DURATION, "60s", -1, 1e9, .above = true, .offset = S(unload_timeout),
     .text = "longest unload of a replica, or none"},
};
static const stm_key stop_keys[] = {
    {"failed", STM_SHAPE_FLOAT, "0.5", 0, 1, .above = true, .offset = S(stop_failed), .text = "share of rows"},
    {"of", STM_SHAPE_INT, "0", 0, 1e12, .offset = S(stop_of), .text = "number of last rows looked at; 0 = off"},
};

const stm_key stm_step_table[] = {
    {"type", STM_SHAPE_TEXT, NULL, .offset = S(type), .required = true, .text = "step type: see `stepmill steps list`"},
    {"from", STM_SHAPE_FROM, NULL, .offset = S(from), .kinds = FED,
     .text = "the step before; a list or {join: [...], on_missing: error|drop|null, on_uneven: error|null} joins, {union: [...]} "
             "concatenates, "
             "{converge: [...], on_missing: null|error|drop} puts a router's branches together"},
    {"to", STM_SHAPE_MAP, NULL, .offset = S(to), .kinds = ROUTER, .text = "routers: choice: step"},
    {"inputs", STM_SHAPE_MAP, NULL, .offset = S(inputs), .kinds = FED,
     .text = "the step type's name of a column: the column's name"},
    {"outputs", STM_SHAPE_MAP, NULL, .offset = S(outputs), .kinds = GEN | STEP | GLOBAL | ROUTER,
     .text = "the step type's name of a column: the name to write"},
    {"batch_size", STM_SHAPE_INT, "64", 1, 1 << 24, .offset = S(batch_size), .kinds = GEN, .text = "generators: rows per batch"},
    {"credit", STM_SHAPE_INT, "0", 0, 1e12, .offset = S(credit), .kinds = GEN,
     .text = "generators: rows that may be in the pipeline at once, in whole batches; 0 = what keeps every replica busy"},
    {"input_batch_size", STM_SHAPE_INT, "0", 0, 1 << 24, .offset = S(input_batch_size), .kinds = FED & ~GLOBAL,
     .text = "exactly so many rows per batch, whatever the batches before; 0 = as they come. With a budget: at most so many"},
    {"budget", STM_SHAPE_OBJECT, NULL, .kinds = FED & ~GLOBAL, SUB(budget_keys),
     .text = "batches of equal cost: as many rows as fit in, at least one"},
    {"replicas", STM_SHAPE_INT, "1", 1, 1024, .offset = S(replicas),
     .text = "copies that run at once; steps and routers without state only"},
    {"resources", STM_SHAPE_OBJECT, NULL, SUB(resource_keys), .text = "what a replica gets"},
    {"on_error", STM_SHAPE_ENUM, NULL, .choices = "impute|isolate|stop", .offset = S(on_error), .kinds = STEP | ROUTER,
     .text = "a batch that fails: impute nulls its rows, isolate finds the rows at fault and nulls those, stop ends the run; "
             "default: isolate for per-row steps, else impute"},
    {"retries", STM_SHAPE_OBJECT, NULL, SUB(retry_keys), .text = "try a failed batch again"},
    {"timeout", STM_SHAPE_OBJECT, NULL, SUB(timeout_keys), .text = "deadlines"},
    {"stop_if", STM_SHAPE_OBJECT, NULL, .kinds = GEN | STEP | ROUTER, SUB(stop_keys),
     .text = "end the run when this share of the last rows failed"},
    {"nulls", STM_SHAPE_ENUM, "skip", .choices = "skip|pass", .offset = S(nulls), .kinds = STEP | ROUTER,
     .text = "rows whose inputs are null by imputation: skip them or show them"},
    {"cache", STM_SHAPE_ENUM, "auto", .choices = "auto|true|false", .offset = S(cache),
     .text = "keep the output for later runs; auto = nondeterministic steps; false = run it again each time"},
    {"errors", STM_SHAPE_BOOL, "false", .offset = S(errors), .kinds = SINK,
     .text = "sinks: add column _error, the message of a row's error or null"},
    {"order", STM_SHAPE_ENUM, NULL, .choices = "input|any", .offset = S(order), .kinds = SINK,
     .text = "sinks: order of rows; default: the pipeline's"},
};
const size_t stm_step_table_count = sizeof stm_step_table / sizeof *stm_step_table;
