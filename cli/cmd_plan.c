#include "cli.h"

int cmd_plan(const cli_args *a)
{
    mill_error err = {0};
    char *text = NULL;
    int code = MILL_EXIT_OK;
    mill_pipeline *p = cli_open(a, &code);
    mill_status st;

    if (p == NULL) return code;
    st = mill_pipeline_plan(p, a->given[CLI_JSON] ? MILL_FORMAT_JSON : MILL_FORMAT_TEXT, &text, &err);
    code = cli_print(a, st, &text, &err);
    mill_pipeline_destroy(&p);
    return code;
}
