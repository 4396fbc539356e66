/* logs RUN [STEP[REPLICA]]: what is in RUN/log.jsonl, and what comes to it. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "stepmill/watch.h"

static bool wanted(const char *line, const char *which)
{
    char step[80], replica[16];
    const size_t n = which != NULL ? strcspn(which, "[") : 0;

    if (which == NULL) return true;
    if (strlen(cli_field(line, "step", step, sizeof step)) != n || strncmp(step, which, n) != 0) return false;
    return which[n] == '\0' ||
           (cli_field(line, "replica", replica, sizeof replica)[0] != '\0' && atoi(replica) == atoi(which + n + 1));
}

static void show(const cli_args *a, const char *line)
{
    char when[40], level[16], step[80], replica[16], event[40], text[2400];
    const char *colour;

    if (!wanted(line, a->n_operands > 1 ? a->operands[1] : NULL)) return;
    if (a->given[CLI_JSON]) {
        fputs(line, stdout);
        return;
    }
    cli_field(line, "time", when, sizeof when);
    cli_field(line, "level", level, sizeof level);
    cli_field(line, "step", step, sizeof step);
    cli_field(line, "replica", replica, sizeof replica);
    cli_field(line, "event", event, sizeof event);
    cli_field(line, "text", text, sizeof text);
    colour = !cli_colour_out() ? "" : strcmp(level, "error") == 0 ? "\033[31m" : strcmp(level, "warning") == 0 ? "\033[33m" : "";
    printf("%s  %s%-7s%s  ", when, colour, level, *colour != '\0' ? "\033[0m" : "");
    if (step[0] != '\0') printf("%s%s%s%s: ", step, replica[0] != '\0' ? "[" : "", replica, replica[0] != '\0' ? "]" : "");
    printf("%s%s%s\n", strcmp(event, "log") != 0 && strncmp(text, event, strlen(event)) != 0 ? event : "",
           strcmp(event, "log") != 0 && strncmp(text, event, strlen(event)) != 0 ? ": " : "", text);
}

/* Whole lines only: the last one may still be under way. */
static void show_new(const cli_args *a, FILE *f, char **line, size_t *cap)
{
    for (;;) {
        const off_t at = ftello(f);
        const ssize_t n = getline(line, cap, f);

        if (n > 0 && (*line)[n - 1] == '\n') {
            show(a, *line);
            continue;
        }
        clearerr(f);
        if (n > 0) fseeko(f, at, SEEK_SET);
        fflush(stdout);
        return;
    }
}

/* STEP or STEP[REPLICA] of the run; else it is said what is wrong. */
static bool there_is(const char *dir, const char *which)
{
    const size_t n = strcspn(which, "[");
    char *end = NULL;
    long replica, all;

    if (!cli_has_step(dir, which, n, "")) return false;
    if (which[n] == '\0') return true;
    replica = strtol(which + n + 1, &end, 10);
    if (!isdigit((unsigned char)which[n + 1]) || strcmp(end, "]") != 0) {
        fprintf(stderr, "stepmill: expected STEP or STEP[REPLICA], as in 'embed[0]', got '%s'\n", which);
        return false;
    }
    all = cli_replicas(dir, which, n);
    if (all <= 0 || replica < all) return true;
    fprintf(stderr, "stepmill: there is no %s: %.*s has %ld replica%s, counted from 0\n", which, (int)n, which, all,
            all == 1 ? "" : "s");
    return false;
}

int cmd_logs(const cli_args *a)
{
    char path[4096], *line = NULL;
    size_t cap = 0;
    mill_watch *w = NULL;
    double gone = 0;
    mill_error err = {0};
    FILE *f;

    snprintf(path, sizeof path, "%s/log.jsonl", a->operands[0]);
    if ((f = fopen(path, "re")) == NULL) {
        const int e = errno;
        if (mill_watch_open(a->operands[0], &w, &err) != MILL_OK)
            cli_say_error(a, &err);
        else
            fprintf(stderr, "stepmill: cannot open %s: %s\n", path, strerror(e));
        mill_watch_destroy(&w);
        return MILL_EXIT_USAGE;
    }
    if (a->n_operands > 1 && !there_is(a->operands[0], a->operands[1])) {
        fclose(f);
        return MILL_EXIT_USAGE;
    }
    show_new(a, f, &line, &cap);
    while (a->given[CLI_FOLLOW] && gone < CLI_GONE_S && !ferror(stdout) && !cli_reader_left()) {
        mill_error none = {0};

        if (w == NULL ? mill_watch_open(a->operands[0], &w, &none) != MILL_OK : mill_watch_look(w, &none) != MILL_OK) gone += 0.25;
        if (w != NULL && mill_watch_state(w) != MILL_RUN_RUNNING) break;
        if (w != NULL) gone = mill_watch_live(w) ? 0 : gone + 0.25;
        nanosleep(&(struct timespec){0, 250000000}, NULL);
        show_new(a, f, &line, &cap);
    }
    show_new(a, f, &line, &cap); /* what came before the run said that it has ended */
    mill_watch_destroy(&w);
    free(line);
    fclose(f);
    return MILL_EXIT_OK;
}
