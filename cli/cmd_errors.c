/* errors RUN: which rows failed, and what else did. */
#include <limits.h>
#include <string.h>

#include "cli.h"
#include "stepmill/watch.h"

static void show(const char *line)
{
    char id[32], step[80], replica[16], phase[16], class[16], rows[32], first[80], last[80], message[600], context[300],
        remedy[400], file[PATH_MAX], row[24], column[24];

    cli_field(line, "id", id, sizeof id);
    cli_field(line, "step", step, sizeof step);
    cli_field(line, "replica", replica, sizeof replica);
    cli_field(line, "phase", phase, sizeof phase);
    cli_field(line, "class", class, sizeof class);
    cli_field(line, "rows", rows, sizeof rows);
    cli_field(line, "first_key", first, sizeof first);
    cli_field(line, "last_key", last, sizeof last);
    cli_field(line, "message", message, sizeof message);
    cli_field(line, "context", context, sizeof context);
    cli_field(line, "remedy", remedy, sizeof remedy);
    cli_field(line, "file", file, sizeof file);
    cli_field(line, "line", row, sizeof row);
    cli_field(line, "column", column, sizeof column);
    printf("%s  %s", id, step);
    if (replica[0] != '\0' && replica[0] != '-') printf("[%s]", replica);
    printf("  %s, %s  %s row%s", phase, class, rows, strcmp(rows, "1") == 0 ? "" : "s");
    if (first[0] != '\0') printf("  %s%s%s", first, strcmp(first, last) != 0 ? " .. " : "", strcmp(first, last) != 0 ? last : "");
    printf("\n    ");
    if (file[0] != '\0') {
        printf("%s", file);
        if (strcmp(row, "0") != 0) printf(":%s", row);
        if (strcmp(row, "0") != 0 && strcmp(column, "0") != 0) printf(":%s", column);
        printf(": ");
    }
    printf("%s%s%s%s%s%s\n", message, context[0] != '\0' ? " (" : "", context, context[0] != '\0' ? ")" : "",
           remedy[0] != '\0' ? ". " : "", remedy);
}

int cmd_errors(const cli_args *a)
{
    uint32_t classes = 0;
    char *text = NULL;
    mill_error err = {0};

    if (!cli_take_classes(a, &classes)) return MILL_EXIT_USAGE;
    if (mill_errors_read(a->operands[0], &text, &err) != MILL_OK) {
        cli_say_error(a, &err);
        return MILL_EXIT_USAGE;
    }
    if (a->given[CLI_STEP] && !cli_has_step(a->operands[0], a->value[CLI_STEP], strlen(a->value[CLI_STEP]), "--step: ")) {
        mill_text_free(&text);
        return MILL_EXIT_USAGE;
    }
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        if (!cli_failure_wanted(a, classes, line)) continue;
        if (a->given[CLI_JSON])
            puts(line);
        else
            show(line);
    }
    mill_text_free(&text);
    return MILL_EXIT_OK;
}
