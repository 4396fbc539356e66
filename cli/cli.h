/* What the command's files share. Each cmd_<verb>.c holds one verb; it gives the exit code. */
#ifndef STM_CLI_CLI_H
#define STM_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "stepmill/run.h"
#include "table.h"

/* A process that died may be replaced by its supervisor: nobody works on a run when nobody did for so many seconds. */
#define CLI_GONE_S 5.0

enum { CLI_MAX_REPEATS = 64 };

/** A call of the command, taken apart. Strings are those of argv. */
typedef struct cli_args {
    const cli_verb *verb;
    const char *operands[CLI_MOST_OPERANDS];
    int n_operands;
    bool given[CLI_FLAGS];
    const char *value[CLI_FLAGS];
    const char *set[CLI_MAX_REPEATS], *plugin[CLI_MAX_REPEATS], *column[CLI_MAX_REPEATS], *class[CLI_MAX_REPEATS];
    int set_at[CLI_MAX_REPEATS]; /* which argument of the command it is, from 1 */
    size_t n_set, n_plugin, n_column, n_class;
} cli_args;

/** Take argv apart. Says what is wrong on standard error and gives false. */
bool cli_parse(int argc, char **argv, cli_args *out);
/** A whole number of at least @p least / a time ("60s", "1.5m", "200ms") of a flag; said and false when it is not. */
bool cli_number(const cli_args *a, cli_flag_id flag, int64_t least, int64_t otherwise, int64_t *out);
bool cli_time(const cli_args *a, cli_flag_id flag, double otherwise, double *out);

/** Whether standard output is a pipe that nobody reads any more. */
bool cli_reader_left(void);
/** Help of one verb, or of all (NULL), to standard output. */
void cli_help(const cli_verb *verb);
/** "; did you mean 'NEAR'?" to standard error; nothing for NULL. */
void cli_say_near(const char *near);
/** The nearest of @p n words, NULL = none is near. */
const char *cli_nearest(const char *word, const char *const *words, size_t n);
/** Whether standard error takes colours: a terminal, NO_COLOR not set. */
bool cli_colour(void);
/** The same for standard output. */
bool cli_colour_out(void);
/** "error: ..." on standard error; as a JSON object on standard output with --json. */
void cli_say_error(const cli_args *a, const mill_error *err);
/** Exit code of a failure before the run. */
int cli_exit_code(const mill_error *err);
/** Open FILE and apply --set; said and NULL on failure, *code = exit code. */
mill_pipeline *cli_open(const cli_args *a, int *code);
/** Print a text that a call gave, release it: exit code 0, or that of the failure. */
int cli_print(const cli_args *a, mill_status st, char **text, const mill_error *err);
/** Value of @p key in a flat JSON object on one line, as we write it: texts unescaped into buf, other values as they stand; null
 *  and what is not there are "". Walks pair by pair, so that the inside of a text is never taken for a key. */
const char *cli_field(const char *line, const char *key, char *buf, size_t size);
/** Whether the run in @p dir has a step of that name, of @p n bytes: run.json has a line for each. Also true when it cannot be
 *  read; false is said, with where it was @p asked ("--step: ", or "") and the nearest name. */
bool cli_has_step(const char *dir, const char *step, size_t n, const char *asked);
/** Replicas of a step of the run in @p dir, as progress.json has them; 0 = not known. */
long cli_replicas(const char *dir, const char *step, size_t n);
/** Whether manifest.json in @p dir says that the output of that sink is complete. */
bool cli_is_whole(const char *dir, const char *step);
/** --class of a as bits 1 << mill_error_class; false: one is none of them, which is said. */
bool cli_take_classes(const cli_args *a, uint32_t *out);
/** Whether the failure that a line of errors.jsonl tells is of these classes (0 = all), and of --step. */
bool cli_failure_wanted(const cli_args *a, uint32_t classes, const char *line);
/** @p text as the inside of a JSON string. */
void cli_json_text(FILE *to, const char *text);

/** What a supervised run works on: FILE of the call, or a run as it was started. */
typedef struct cli_work_on {
    const char *started;      /* its run directory; NULL = FILE */
    const char *dir;          /* merge: where to; else NULL */
    const char *const *merge; /* [n_merge] shards; `started` is one of them */
    size_t n_merge;
    mill_retry retry;         /* which half of one */
    uint32_t retry_classes;
    double spent_s; /* of --time-left, by what came before */
} cli_work_on;
/** A supervised run, shown, to its end. The exit code. */
int cli_work(const cli_args *a, const cli_work_on *on);

int cmd_run(const cli_args *a);
int cmd_resume(const cli_args *a);
int cmd_retry(const cli_args *a);
int cmd_merge(const cli_args *a);
/** To where the run was started: programs of `command` steps may be named from there. --trace, the caller's, goes along. Said and
 *  false on failure. */
bool cli_go_there(const char *folder, cli_args *a, char *trace, size_t size);
int cmd_check(const cli_args *a);
int cmd_plan(const cli_args *a);
int cmd_errors(const cli_args *a);
int cmd_status(const cli_args *a);
int cmd_logs(const cli_args *a);
int cmd_report(const cli_args *a);
int cmd_trace(const cli_args *a);
int cmd_steps(const cli_args *a);
int cmd_devices(const cli_args *a);
int cmd_doctor(const cli_args *a);
int cmd_schema(const cli_args *a);
int cmd_version(const cli_args *a);

#endif
