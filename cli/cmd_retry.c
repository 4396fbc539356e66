/* retry RUN: rows that failed run again (first half, in RUN/retry.N), and take their places in the outputs (second half). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "stepmill/watch.h"
#include "time_limit.h"

typedef struct failures {
    long long rows, asked; /* with nulls; of them of what is asked for */
} failures;

/* What RUN/errors.jsonl says. */
static bool count(const cli_args *a, const char *dir, uint32_t asked_for, failures *out)
{
    char path[PATH_MAX + 16], rows[32], *line = NULL;
    size_t cap = 0;
    FILE *f;

    *out = (failures){0, 0};
    snprintf(path, sizeof path, "%s/errors.jsonl", dir);
    if ((f = fopen(path, "re")) == NULL) return false;
    while (getline(&line, &cap, f) > 0) {
        const long long n = atoll(cli_field(line, "rows", rows, sizeof rows));

        out->rows += n;
        if (cli_failure_wanted(a, asked_for, line)) out->asked += n;
    }
    free(line);
    fclose(f);
    return true;
}

static int nothing(const cli_args *a, const char *dir)
{
    if (!a->given[CLI_QUIET])
        fprintf(stderr, "stepmill: no rows of the run in %s failed%s: nothing is left to do\n", dir,
                a->n_class > 0 || a->given[CLI_STEP] ? " so" : "");
    if (a->given[CLI_JSON]) {
        printf("{\"state\":\"done\",\"exit_code\":0,\"run_dir\":\"");
        cli_json_text(stdout, dir);
        printf("\"}\n");
    }
    return MILL_EXIT_OK;
}

/* @p ended: the run; else it is told why not, and whether somebody is at work on it. */
static int both(const cli_args *a, const char *dir, bool ended, uint32_t asked_for)
{
    const double begun = time_limit_now();
    const pid_t self = getpid();
    failures before = {0, 0}, after = {0, 0};
    int code;

    if (count(a, dir, asked_for, &before) && before.asked == 0 && ended) return nothing(a, dir);
    code = cli_work(a, &(cli_work_on){.started = dir, .retry = MILL_RETRY_ROWS, .retry_classes = asked_for});
    /* the process that worked comes by, too */
    if (getpid() != self || (code != MILL_EXIT_OK && code != MILL_EXIT_ERRORS)) return code;
    code = cli_work(a, &(cli_work_on){.started = dir, .retry = MILL_RETRY_PUT, .spent_s = time_limit_now() - begun});
    if (getpid() == self && (code == MILL_EXIT_OK || code == MILL_EXIT_ERRORS) && !a->given[CLI_QUIET] &&
        count(a, dir, asked_for, &after))
        fprintf(stderr, "stepmill: rows that failed: %lld before, %lld after\n", before.rows, after.rows);
    return code;
}

int cmd_retry(const cli_args *given)
{
    char dir[PATH_MAX], folder[PATH_MAX];
    cli_args a = *given;
    mill_watch *w = NULL;
    mill_retry_state state;
    mill_error err = {0};
    uint32_t asked_for = 0;

    if (!cli_take_classes(&a, &asked_for)) return MILL_EXIT_USAGE;
    if (realpath(a.operands[0], dir) == NULL) {
        fprintf(stderr, "stepmill: cannot open %s: %s\n", a.operands[0], strerror(errno));
        return MILL_EXIT_USAGE;
    }
    if (a.given[CLI_STEP] && !cli_has_step(dir, a.value[CLI_STEP], strlen(a.value[CLI_STEP]), "--step: ")) return MILL_EXIT_USAGE;
    if (mill_watch_open(dir, &w, &err) != MILL_OK || mill_retry_look(dir, &state, &err) != MILL_OK) {
        mill_watch_destroy(&w);
        cli_say_error(&a, &err);
        return MILL_EXIT_USAGE;
    }
    snprintf(folder, sizeof folder, "%s", mill_watch_folder(w));
    mill_watch_destroy(&w);
    if (!cli_go_there(folder, &a, NULL, 0)) return MILL_EXIT_USAGE;
    if (state != MILL_RETRY_HALFWAY) return both(&a, dir, state == MILL_RETRY_READY, asked_for);
    if (!a.given[CLI_QUIET])
        fprintf(stderr, "stepmill: going on with the retry before, which was stopped; call again for rows that fail still\n");
    return cli_work(&a, &(cli_work_on){.started = dir});
}
