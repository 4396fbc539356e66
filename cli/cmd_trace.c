/* trace RUN KEY: what became of one row. */
#include "cli.h"
#include "stepmill/watch.h"

int cmd_trace(const cli_args *a)
{
    mill_error err = {0};
    char *text = NULL;
    const mill_status st =
        mill_row_trace(a->operands[0], a->operands[1], a->given[CLI_JSON] ? MILL_FORMAT_JSON : MILL_FORMAT_TEXT, &text, &err);
    const int code = cli_print(a, st, &text, &err);

    return st == MILL_OK ? code : err.phase == MILL_PHASE_CHECK ? MILL_EXIT_PIPELINE : MILL_EXIT_USAGE;
}
