/* errors RUN: what is in RUN/errors.jsonl. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

/* Value of @p key in a flat JSON object on one line, as we write it: texts unescaped into buf, other values as they stand;
 * null and what is not there are "". Walks pair by pair, so that the inside of a text is never taken for a key. */
static const char *field(const char *line, const char *key, char *buf, size_t size)
{
    const char *p = line + strcspn(line, "{");

    buf[0] = '\0';
    while (*p == '{' || *p == ',') {
        const char *name = p + 2, *value;
        const size_t n = strcspn(name, "\"");
        const bool match = strlen(key) == n && strncmp(name, key, n) == 0;
        size_t at = 0;

        if (p[1] != '"' || name[n] != '"' || name[n + 1] != ':') break;
        value = name + n + 2;
        if (*value != '"') {
            const size_t len = strcspn(value, ",}");

            if (match) snprintf(buf, size, "%.*s", strncmp(value, "null", 4) == 0 ? 0 : (int)len, value);
            p = value + len;
        } else {
            for (p = value + 1; *p != '"' && *p != '\0'; p++) {
                char c = *p;

                if (c == '\\' && p[1] != '\0') {
                    c = *++p;
                    if (c == 'n' || c == 't' || c == 'r') c = ' ';
                    if (c == 'u') {
                        c = '?';
                        for (int k = 0; k < 4 && p[1] != '\0' && p[1] != '"'; k++) p++;
                    }
                }
                if (match && at + 1 < size) buf[at++] = c;
            }
            if (match) buf[at] = '\0';
            if (*p == '"') p++;
        }
        if (match) break;
    }
    return buf;
}

static void show(const char *line)
{
    char id[32], step[80], replica[16], phase[16], class[16], rows[32], first[80], last[80], message[600], context[300];

    field(line, "id", id, sizeof id);
    field(line, "step", step, sizeof step);
    field(line, "replica", replica, sizeof replica);
    field(line, "phase", phase, sizeof phase);
    field(line, "class", class, sizeof class);
    field(line, "rows", rows, sizeof rows);
    field(line, "first_key", first, sizeof first);
    field(line, "last_key", last, sizeof last);
    field(line, "message", message, sizeof message);
    field(line, "context", context, sizeof context);
    printf("%s  %s", id, step);
    if (replica[0] != '\0' && replica[0] != '-') printf("[%s]", replica);
    printf("  %s, %s  %s row%s", phase, class, rows, strcmp(rows, "1") == 0 ? "" : "s");
    if (first[0] != '\0') printf("  %s%s%s", first, strcmp(first, last) != 0 ? " .. " : "", strcmp(first, last) != 0 ? last : "");
    printf("\n    %s%s%s%s\n", message, context[0] != '\0' ? " (" : "", context, context[0] != '\0' ? ")" : "");
}

int cmd_errors(const cli_args *a)
{
    char path[4096], class[32], *line = NULL;
    struct stat s;
    size_t cap = 0;
    const bool is_dir = stat(a->operands[0], &s) == 0 && S_ISDIR(s.st_mode);
    FILE *f;

    snprintf(path, sizeof path, "%s%s", a->operands[0], is_dir ? "/errors.jsonl" : "");
    if ((f = fopen(path, "re")) == NULL) {
        fprintf(stderr, "stepmill: cannot open %s: %s\n", path, strerror(errno));
        if (is_dir && errno == ENOENT) fprintf(stderr, "It is written when a run ends.\n");
        return MILL_EXIT_USAGE;
    }
    while (getline(&line, &cap, f) > 0) {
        if (a->given[CLI_CLASS] && strcmp(field(line, "class", class, sizeof class), a->value[CLI_CLASS]) != 0) continue;
        if (a->given[CLI_JSON])
            fputs(line, stdout);
        else
            show(line);
    }
    free(line);
    fclose(f);
    return MILL_EXIT_OK;
}
