/* report RUN: the page that shows a run. */
#include <limits.h>
#include <stdlib.h>

#include "cli.h"
#include "stepmill/watch.h"

int cmd_report(const cli_args *a)
{
    char path[PATH_MAX + 16], full[PATH_MAX];
    mill_error err = {0};

    if (mill_report_write(a->operands[0], NULL, &err) != MILL_OK) {
        cli_say_error(a, &err);
        return MILL_EXIT_USAGE;
    }
    snprintf(path, sizeof path, "%s/report.html", realpath(a->operands[0], full) != NULL ? full : a->operands[0]);
    if (a->given[CLI_JSON]) {
        printf("{\"report\":\"");
        cli_json_text(stdout, path);
        printf("\"}\n");
    } else {
        printf("%s\n", path);
    }
    return MILL_EXIT_OK;
}
