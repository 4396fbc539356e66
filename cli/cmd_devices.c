#include "cli.h"

int cmd_devices(const cli_args *a)
{
    mill_error err = {0};
    char *text = NULL;
    const mill_status st = mill_devices_list(a->given[CLI_JSON] ? MILL_FORMAT_JSON : MILL_FORMAT_TEXT, &text, &err);

    return cli_print(a, st, &text, &err);
}
