#include <string.h>

#include "cli.h"

static int check(const cli_args *a, mill_format format)
{
    mill_plugin_check_options o = MILL_PLUGIN_CHECK_OPTIONS_INIT;
    const char *path = strcmp(a->operands[1], "builtin") == 0 ? NULL : a->operands[1];
    mill_verdict verdict = MILL_VERDICT_RIGHT;
    mill_error err = {0};
    char *text = NULL;
    mill_status st;
    int code;

    if (!cli_time(a, CLI_TIMEOUT, o.timeout_s, &o.timeout_s)) return MILL_EXIT_USAGE;
    if (!(o.timeout_s > 0)) {
        fprintf(stderr, "stepmill: --timeout: no time is left for a check\n");
        return MILL_EXIT_USAGE;
    }
    o.set = a->set;
    o.n_set = a->n_set;
    o.columns = a->column;
    o.n_columns = a->n_column;
    st = mill_plugin_conform(path, &o, format, &text, &verdict, &err);
    code = cli_print(a, st, &text, &err);
    return st == MILL_OK ? (int)verdict : code; /* 0, 1, 2 as they are */
}

int cmd_steps(const cli_args *a)
{
    static const char *const forms[] = {"list", "describe", "check"};
    const char *what = a->operands[0];
    const mill_format format = a->given[CLI_JSON] ? MILL_FORMAT_JSON : MILL_FORMAT_TEXT;
    mill_error err = {0};
    char *text = NULL;
    mill_status st;

    if (strcmp(what, "list") == 0 && a->n_operands == 1)
        st = mill_types_list(a->plugin, a->n_plugin, format, &text, &err);
    else if (strcmp(what, "describe") == 0 && a->n_operands == 2)
        st = mill_types_describe(a->plugin, a->n_plugin, a->operands[1], format, &text, &err);
    else if (strcmp(what, "check") == 0 && a->n_operands == 2)
        return check(a, format);
    else if (strcmp(what, "list") == 0 || strcmp(what, "describe") == 0 || strcmp(what, "check") == 0) {
        if (what[0] == 'l')
            fprintf(stderr, "stepmill: steps list: one operand too many: '%s'\n", a->operands[1]);
        else
            fprintf(stderr, "stepmill: steps %s: what is missing is %s\n", what,
                    what[0] == 'd' ? "the TYPE to describe" : "the PLUGIN.so to check");
        return MILL_EXIT_USAGE;
    } else {
        fprintf(stderr, "stepmill: steps: expected %s, got '%s'", a->verb->operands, what);
        cli_say_near(cli_nearest(what, forms, 3));
        fputc('\n', stderr);
        return MILL_EXIT_USAGE;
    }
    if (st == MILL_ERR_NOT_FOUND && strcmp(what, "describe") == 0) {
        cli_say_error(a, &err);
        return MILL_EXIT_USAGE; /* the name is the caller's */
    }
    return cli_print(a, st, &text, &err);
}
