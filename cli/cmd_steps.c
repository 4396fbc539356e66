#include <string.h>

#include "cli.h"

int cmd_steps(const cli_args *a)
{
    static const char *const forms[] = {"list", "describe", "check"};
    const char *what = a->operands[0], *near;
    const mill_format format = a->given[CLI_JSON] ? MILL_FORMAT_JSON : MILL_FORMAT_TEXT;
    mill_error err = {0};
    char *text = NULL;
    mill_status st;

    if (strcmp(what, "list") == 0 && a->n_operands == 1)
        st = mill_types_list(a->plugin, a->n_plugin, format, &text, &err);
    else if (strcmp(what, "describe") == 0 && a->n_operands == 2)
        st = mill_types_describe(a->plugin, a->n_plugin, a->operands[1], format, &text, &err);
    else if (strcmp(what, "check") == 0 && a->n_operands == 2)
        st = mill_plugin_check(a->operands[1], format, &text, &err);
    else {
        near = cli_nearest(what, forms, 3);
        fprintf(stderr, "stepmill: steps: expected %s, got '%s'%s%s%s\n", a->verb->operands, what,
                near != NULL && strcmp(near, what) != 0 ? "; did you mean '" : "",
                near != NULL && strcmp(near, what) != 0 ? near : "", near != NULL && strcmp(near, what) != 0 ? "'?" : "");
        return MILL_EXIT_USAGE;
    }
    if (st == MILL_ERR_NOT_FOUND && strcmp(what, "describe") == 0) {
        cli_say_error(a, &err);
        return MILL_EXIT_USAGE; /* the name is the caller's */
    }
    return cli_print(a, st, &text, &err);
}
