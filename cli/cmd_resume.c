/* resume [RUN]: what is left of a run, as it was started. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "stepmill/watch.h"

bool cli_go_there(const char *folder, cli_args *a, char *trace, size_t size)
{
    char here[PATH_MAX];

    if (folder[0] == '\0') return true;
    if (a->value[CLI_TRACE] != NULL && a->value[CLI_TRACE][0] != '/' && getcwd(here, sizeof here) != NULL) {
        if ((size_t)snprintf(trace, size, "%s/%s", here, a->value[CLI_TRACE]) >= size) return false;
        a->value[CLI_TRACE] = trace;
    }
    if (chdir(folder) == 0) return true;
    fprintf(stderr, "stepmill: cannot go to %s, where the run was started: %s\n", folder, strerror(errno));
    return false;
}

static int complete(const cli_args *a, const char *dir, const mill_watch *w)
{
    if (!a->given[CLI_QUIET])
        fprintf(stderr,
                "stepmill: the run in %s is complete: nothing is left to do. `stepmill run FILE --run %s` runs what has changed "
                "since\n",
                dir, dir);
    if (a->given[CLI_JSON]) {
        printf("{\"state\":\"done\",\"exit_code\":%d,\"run_dir\":\"", mill_watch_exit_code(w));
        cli_json_text(stdout, dir);
        printf("\"}\n");
    }
    return mill_watch_exit_code(w);
}

int cmd_resume(const cli_args *given)
{
    const char *operand = given->n_operands > 0 ? given->operands[0] : ".";
    char dir[PATH_MAX], trace[PATH_MAX + 256];
    cli_args a = *given;
    mill_watch *w = NULL;
    mill_retry_state retry;
    mill_error err = {0}, ignored = {0};
    int code = -1;

    if (realpath(operand, dir) == NULL) {
        fprintf(stderr, "stepmill: cannot open %s: %s\n", operand, strerror(errno));
        return MILL_EXIT_USAGE;
    }
    if (mill_watch_open(dir, &w, &err) != MILL_OK) {
        cli_say_error(&a, &err);
        return MILL_EXIT_USAGE;
    }
    if (mill_watch_state(w) == MILL_RUN_DONE && !(mill_retry_look(dir, &retry, &ignored) == MILL_OK && retry == MILL_RETRY_HALFWAY))
        code = complete(&a, dir, w);
    else if (!cli_go_there(mill_watch_folder(w), &a, trace, sizeof trace))
        code = MILL_EXIT_USAGE;
    mill_watch_destroy(&w);
    return code >= 0 ? code : cli_work(&a, &(cli_work_on){.started = dir});
}
