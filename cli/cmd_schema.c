#include "cli.h"

int cmd_schema(const cli_args *a)
{
    mill_error err = {0};
    char *text = NULL;
    const mill_status st = mill_schema_text(&text, &err);

    return cli_print(a, st, &text, &err);
}
