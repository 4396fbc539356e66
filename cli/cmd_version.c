#include "cli.h"

int cmd_version(const cli_args *a)
{
    printf(a->given[CLI_JSON] ? "{\"version\":\"%s\",\"abi\":%u}\n" : "stepmill %s (step interface %u)\n", MILL_VERSION,
           MILL_ABI_1);
    return MILL_EXIT_OK;
}
