#include "cli.h"

int cmd_devices(const cli_args *a)
{
    mill_error err = {0};
    char *text = NULL;
    const mill_format format = a->given[CLI_JSON] ? MILL_FORMAT_JSON : MILL_FORMAT_TEXT;
    const mill_status st = a->given[CLI_DEVICES] ? mill_devices_read(a->value[CLI_DEVICES], format, &text, &err)
                                                 : mill_devices_list(format, &text, &err);

    return cli_print(a, st, &text, &err);
}
