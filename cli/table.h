/* Verbs and flags of the command: one table drives parsing, --help, the man page and the shells' completions. */
#ifndef STM_CLI_TABLE_H
#define STM_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLI_MOST_OPERANDS = 1024 };

typedef enum cli_flag_id {
    CLI_RUN,
    CLI_SET,
    CLI_FRESH,
    CLI_DRY_RUN,
    CLI_LIMIT,
    CLI_THREADS,
    CLI_DRAIN,
    CLI_QUIET,
    CLI_JSON,
    CLI_PLUGIN,
    CLI_COLUMN,
    CLI_TIMEOUT,
    CLI_CLASS,
    CLI_STEP,
    CLI_DEVICES,
    CLI_PLACEMENT,
    CLI_RESTARTS,
    CLI_NO_SUPERVISE,
    CLI_FOLLOW,
    CLI_METRICS_PORT,
    CLI_TRACE,
    CLI_TIME_LEFT,
    CLI_SHARD,
    CLI_HELP,
    CLI_FLAGS /* how many there are */
} cli_flag_id;

typedef struct cli_flag {
    const char *name;  /* without the dashes */
    char letter;       /* short form; 0 = none */
    const char *value; /* what it takes, "DIR"; NULL = nothing */
    const char *text;
    const char *completes; /* what the value is: "dir", "file", or words parted by spaces; NULL = nothing that a shell could know */
    bool repeats;          /* may be given several times */
} cli_flag;

typedef struct cli_verb {
    const char *name;
    const char *operands;  /* "FILE" */
    int least, most;       /* how many of them */
    uint32_t flags;        /* bit cli_flag_id */
    /* what an operand is: "yaml", "dir", "verbs", or words parted by spaces, behind which come files; NULL = nothing */
    const char *completes;
    const char *summary;   /* one line */
    const char *text;      /* more, for --help and the man page */
} cli_verb;

extern const cli_flag cli_flags[CLI_FLAGS];
extern const cli_verb cli_verbs[];
extern const size_t cli_verb_count;

typedef struct cli_exit {
    int code;
    const char *text;
} cli_exit;
extern const cli_exit cli_exits[];
extern const size_t cli_exit_count;

#endif
