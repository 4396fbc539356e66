#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* Text in lines of at most 78 columns. */
static void wrap(const char *text, int indent)
{
    int at = 0;

    while (*text != '\0') {
        const int n = (int)strcspn(text, " ");

        if (at > 0 && indent + at + 1 + n > 78) {
            printf("\n");
            at = 0;
        }
        at += at == 0 ? printf("%*s%.*s", indent, "", n, text) - indent : printf(" %.*s", n, text);
        text += n + (text[n] == ' ');
    }
    printf("\n");
}

static void help_all(void)
{
    printf("usage: stepmill VERB ...\n       stepmill --version\n\nBatch-inference pipelines from YAML files.\n\n");
    for (size_t i = 0; i < cli_verb_count; i++)
        if (strlen(cli_verbs[i].operands) > 8) /* several forms, or a long one: too much here */
            printf("  %-16s %s\n", cli_verbs[i].name, cli_verbs[i].summary);
        else
            printf("  %-7s %-8s %s\n", cli_verbs[i].name, cli_verbs[i].operands, cli_verbs[i].summary);
    printf("\n'stepmill VERB --help' says more.\n");
}

void cli_help(const cli_verb *verb)
{
    if (verb == NULL) {
        help_all();
        return;
    }
    printf("usage: stepmill %s%s%s%s\n\n", verb->name, verb->operands[0] != '\0' ? " " : "", verb->operands,
           verb->flags != 0 ? " [FLAG...]" : "");
    printf("%s.\n", verb->summary);
    if (verb->text[0] != '\0') printf("\n"), wrap(verb->text, 0);
    printf("\n");
    for (int i = 0; i < CLI_FLAGS; i++) {
        char left[64];

        if (i != CLI_HELP && (verb->flags & 1u << i) == 0) continue;
        snprintf(left, sizeof left, "--%s%s%s%s%c", cli_flags[i].name, cli_flags[i].value != NULL ? " " : "",
                 cli_flags[i].value != NULL ? cli_flags[i].value : "", cli_flags[i].letter != 0 ? ", -" : "", cli_flags[i].letter);
        printf("  %s\n", left);
        wrap(cli_flags[i].text, 6);
    }
    if ((verb->flags & 1u << CLI_RESTARTS) == 0) return; /* what works on a run */
    printf("\nexit codes\n");
    for (size_t i = 0; i < cli_exit_count; i++) printf("  %2d  %s\n", cli_exits[i].code, cli_exits[i].text);
}

static bool takes_colours(int fd)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(fd) && (no == NULL || *no == '\0') && (term == NULL || strcmp(term, "dumb") != 0);
}

bool cli_reader_left(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};

    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

bool cli_colour(void) { return takes_colours(STDERR_FILENO); }
bool cli_colour_out(void) { return takes_colours(STDOUT_FILENO); }

void cli_json_text(FILE *to, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(to, "\\%c", *p);
        else if (*p < 0x20)
            fprintf(to, "\\u%04x", *p);
        else
            fputc(*p, to);
    }
}

/* A fault of an argument: which one it is. The library names what was set as it would stand in --set. */
static void name_argument(const cli_args *a, mill_error *err)
{
    for (size_t i = 0; i < a->n_set; i++) {
        const size_t n = strcspn(a->set[i], "=");
        char text[sizeof err->file];

        snprintf(text, sizeof text, "--set %.*s=%.120s", n < 120 ? (int)n : 120, a->set[i], a->set[i] + n + (a->set[i][n] == '='));
        if (strcmp(text, err->file) != 0) continue;
        mill_error_context(err, "argument %d of the command", a->set_at[i]);
        return;
    }
    if (a->given[CLI_PLACEMENT] && strncmp(err->file, "--set placement=", 16) == 0)
        snprintf(err->file, sizeof err->file, "--placement %.120s", a->value[CLI_PLACEMENT]);
}

void cli_say_error(const cli_args *a, const mill_error *given)
{
    mill_error named = *given, *err = &named;
    char text[1600];

    name_argument(a, err);
    mill_error_format(err, text, sizeof text);
    fprintf(stderr, "%serror:%s %s\n", cli_colour() ? "\033[31m" : "", cli_colour() ? "\033[0m" : "", text);
    if (!a->given[CLI_JSON]) return;
    printf("{\"error\":{\"status\":\"%s\",\"message\":\"", mill_status_text(err->status));
    cli_json_text(stdout, err->msg);
    printf("\",\"file\":\"");
    cli_json_text(stdout, err->file);
    printf("\",\"line\":%d,\"column\":%d,\"step\":\"", err->line, err->column);
    cli_json_text(stdout, err->step);
    printf("\",\"remedy\":\"");
    cli_json_text(stdout, err->remedy);
    printf("\"}}\n");
}

int cli_exit_code(const mill_error *err)
{
    if (err->status == MILL_ERR_BUSY) return MILL_EXIT_BUSY;
    if (err->phase == MILL_PHASE_CHECK) return MILL_EXIT_PIPELINE;
    return err->phase == MILL_PHASE_PROCESS ? MILL_EXIT_PROCESS : MILL_EXIT_LOAD;
}

mill_pipeline *cli_open(const cli_args *a, int *code)
{
    mill_pipeline *p = NULL;
    mill_error err = {0};
    mill_status st = mill_pipeline_open(a->operands[0], &p, &err);

    for (size_t i = 0; i < a->n_set && st == MILL_OK; i++) {
        const size_t n = strcspn(a->set[i], "=");
        char key[256];

        if (a->set[i][n] != '=' || n == 0 || n >= sizeof key) {
            fprintf(stderr, "stepmill: --set %s (argument %d of the command): expected STEP.KEY=VALUE\n", a->set[i], a->set_at[i]);
            mill_pipeline_destroy(&p);
            *code = MILL_EXIT_USAGE;
            return NULL;
        }
        memcpy(key, a->set[i], n);
        key[n] = '\0';
        st = mill_pipeline_set(p, key, a->set[i] + n + 1, &err);
        if (st != MILL_OK && st != MILL_ERR_NOMEM) err.phase = MILL_PHASE_CHECK;
    }
    if (st == MILL_OK && a->given[CLI_PLACEMENT]) st = mill_pipeline_set(p, "placement", a->value[CLI_PLACEMENT], &err);
    if (st == MILL_OK && a->given[CLI_RUN]) st = mill_pipeline_use_dir(p, a->value[CLI_RUN], &err);
    if (st == MILL_OK && a->given[CLI_DEVICES]) st = mill_pipeline_use_devices(p, a->value[CLI_DEVICES], &err);
    if (st == MILL_OK) return p;
    cli_say_error(a, &err);
    *code = cli_exit_code(&err);
    mill_pipeline_destroy(&p);
    return NULL;
}

int cli_print(const cli_args *a, mill_status st, char **text, const mill_error *err)
{
    if (st != MILL_OK) {
        cli_say_error(a, err);
        return cli_exit_code(err);
    }
    fputs(*text, stdout);
    mill_text_free(text);
    return MILL_EXIT_OK;
}
