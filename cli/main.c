/* stepmill: the command. */
#include <signal.h>
#include <string.h>

#include "cli.h"
#include "signals.h"

static const struct {
    const char *verb;
    int (*run)(const cli_args *a);
} commands[] = {
    {"run", cmd_run},         {"resume", cmd_resume}, {"retry", cmd_retry},   {"merge", cmd_merge},
    {"check", cmd_check},     {"plan", cmd_plan},     {"errors", cmd_errors}, {"steps", cmd_steps},
    {"status", cmd_status},   {"logs", cmd_logs},     {"report", cmd_report}, {"trace", cmd_trace},
    {"devices", cmd_devices}, {"doctor", cmd_doctor}, {"schema", cmd_schema}, {"version", cmd_version},
};

static int help(const cli_args *a)
{
    const char *names[32];

    if (a->n_operands == 0) {
        cli_help(NULL);
        return MILL_EXIT_OK;
    }
    for (size_t i = 0; i < cli_verb_count; i++) {
        names[i] = cli_verbs[i].name;
        if (strcmp(cli_verbs[i].name, a->operands[0]) != 0) continue;
        cli_help(&cli_verbs[i]);
        return MILL_EXIT_OK;
    }
    fprintf(stderr, "stepmill: unknown verb '%s'", a->operands[0]);
    cli_say_near(cli_nearest(a->operands[0], names, cli_verb_count));
    fprintf(stderr, "\nSee 'stepmill --help'.\n");
    return MILL_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    cli_args a;
    int code = MILL_EXIT_USAGE;

    if (argc > 1 && (strcmp(argv[1], "run") == 0 || strcmp(argv[1], "resume") == 0 || strcmp(argv[1], "retry") == 0 ||
                     strcmp(argv[1], "merge") == 0))
        signals_block(); /* before anything: one that comes now counts */
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is a failed write */
    signal(SIGCHLD, SIG_DFL); /* inherited as ignored, the kernel would take the ends of our children from us */
    if (!cli_parse(argc, argv, &a)) return MILL_EXIT_USAGE;
    if (a.given[CLI_HELP]) {
        cli_help(a.verb);
        code = MILL_EXIT_OK;
    } else if (strcmp(a.verb->name, "help") == 0) {
        code = help(&a);
    } else {
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
            if (strcmp(commands[i].verb, a.verb->name) == 0) code = commands[i].run(&a);
    }
    /* `| head` has read what it wanted: nothing is wrong then, and there is nobody to tell */
    if ((fflush(stdout) != 0 || ferror(stdout)) && !cli_reader_left()) {
        fprintf(stderr, "stepmill: writing to standard output failed\n");
        if (code == MILL_EXIT_OK) code = MILL_EXIT_LOAD;
    }
    return code;
}
