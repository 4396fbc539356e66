#include "cli.h"

int cmd_check(const cli_args *a)
{
    mill_error err = {0};
    char *notes = NULL;
    int code = MILL_EXIT_OK;
    mill_pipeline *p = cli_open(a, &code);

    if (p == NULL) return code;
    if (mill_pipeline_check(p, &err) != MILL_OK || mill_pipeline_notes(p, &notes, &err) != MILL_OK) {
        cli_say_error(a, &err);
        code = cli_exit_code(&err);
    } else {
        fputs(notes, stderr);
        printf(a->given[CLI_JSON] ? "{\"valid\":true}\n" : "valid\n");
    }
    mill_text_free(&notes);
    mill_pipeline_destroy(&p);
    return code;
}
