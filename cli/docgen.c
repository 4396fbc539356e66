/* Writes the man page or a shell's completion from the table: docgen man|bash|zsh|fish. Run at build time. */
#include <stdio.h>
#include <string.h>

#include "table.h"

static void man_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '-' || *text == '\\') putchar('\\');
        putchar(*text);
    }
}

static void man(void)
{
    printf(".TH STEPMILL 1\n.SH NAME\nstepmill \\- run batch\\-inference pipelines\n.SH SYNOPSIS\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        printf(".B stepmill %s\n", cli_verbs[i].name);
        if (cli_verbs[i].operands[0] != '\0') printf(".I %s\n", cli_verbs[i].operands);
        printf(".br\n");
    }
    printf(".SH DESCRIPTION\nRows come in, pass through the steps of a pipeline file, and go out. Data goes to standard output, "
           "all else to standard error.\n");
    printf(".SH VERBS\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb *v = &cli_verbs[i];

        printf(".SS %s %s\n", v->name, v->operands);
        man_text(v->summary);
        printf(".\n");
        if (v->text[0] != '\0') {
            man_text(v->text);
            printf("\n");
        }
        for (int k = 0; k < CLI_FLAGS; k++) {
            if ((v->flags & 1u << k) == 0) continue;
            printf(".TP\n.B \\-\\-");
            man_text(cli_flags[k].name);
            if (cli_flags[k].value != NULL) printf(" %s", cli_flags[k].value);
            if (cli_flags[k].letter != 0) printf(", \\-%c", cli_flags[k].letter);
            printf("\n");
            man_text(cli_flags[k].text);
            printf("\n");
        }
    }
    printf(".SH EXIT STATUS\n");
    for (size_t i = 0; i < cli_exit_count; i++) printf(".TP\n.B %d\n%s\n", cli_exits[i].code, cli_exits[i].text);
    printf(".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nWhen set and not empty, no colours.\n.TP\n.B SLURM_JOB_END_TIME\nWhen the job ends "
           "that the run is part "
           "of, unless \\-\\-time\\-left says otherwise.\n.TP\n.B STEPMILL_ARROW_DIR\nWhere libarrow and libparquet are, for "
           "Parquet.\n.SH FILES\n.TP\n.I "
           "runs/NAME/errors.jsonl\nErrors of a run's rows.\n");
}

static void flags_of(const cli_verb *v, const char *separator)
{
    for (int k = 0; k < CLI_FLAGS; k++)
        if (k == CLI_HELP || (v->flags & 1u << k) != 0) printf("%s--%s", separator, cli_flags[k].name);
}

static void verbs(void)
{
    for (size_t i = 0; i < cli_verb_count; i++) printf("%s%s", i > 0 ? " " : "", cli_verbs[i].name);
}

/* Candidates of the word, one a line: names of files may have spaces. */
static void bash_of(const char *completes)
{
    if (completes == NULL)
        printf(":");
    else if (strcmp(completes, "dir") == 0)
        printf("compgen -d -- \"$word\"");
    else if (strcmp(completes, "file") == 0)
        printf("compgen -f -- \"$word\"");
    else if (strcmp(completes, "yaml") == 0)
        printf("{ compgen -f -X '!*.y*ml' -- \"$word\"; compgen -d -- \"$word\"; }");
    else if (strcmp(completes, "verbs") == 0)
        printf("compgen -W '"), verbs(), printf("' -- \"$word\"");
    else
        printf("if [ \"$COMP_CWORD\" -eq 2 ] || [[ $before == -* ]]; then compgen -W '%s' -- \"$word\"; else compgen -f -- "
               "\"$word\"; fi",
               completes);
}

static void bash(void)
{
    printf("_stepmill_words() {\n    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n");
    printf("    if [ \"$COMP_CWORD\" -eq 1 ]; then compgen -W '");
    verbs();
    printf(" --help --version' -- \"$word\"; return; fi\n    case $before in\n");
    for (int k = 0; k < CLI_FLAGS; k++) {
        if (cli_flags[k].value == NULL) continue;
        printf("    --%s) ", cli_flags[k].name);
        bash_of(cli_flags[k].completes);
        printf("; return ;;\n");
    }
    printf("    esac\n    case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb *v = &cli_verbs[i];

        printf("    %s) if [[ $word == -* ]]; then compgen -W '", v->name);
        flags_of(v, " ");
        printf("' -- \"$word\"; else ");
        bash_of(v->completes);
        printf("; fi ;;\n");
    }
    printf(
        "    esac\n}\n_stepmill() { mapfile -t COMPREPLY < <(_stepmill_words); }\ncomplete -o filenames -F _stepmill stepmill\n");
}

/* Text inside '...[ ]' of zsh: brackets and quotes need a backslash. */
static void zsh_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            printf("'\\''");
            continue;
        }
        if (*text == '[' || *text == ']' || *text == ':' || *text == '\\') putchar('\\');
        putchar(*text);
    }
}

static void zsh_of(const char *completes)
{
    if (completes == NULL) return;
    if (strcmp(completes, "dir") == 0) printf("_files -/");
    else if (strcmp(completes, "file") == 0) printf("_files");
    else if (strcmp(completes, "yaml") == 0) printf("_files -g \"*.y*ml\"");
    else if (strcmp(completes, "verbs") == 0) printf("("), verbs(), printf(")");
    else printf("(%s)", completes);
}

static void zsh(void)
{
    printf("#compdef stepmill\n_stepmill() {\n    local -a verbs\n    verbs=(\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        printf("        '%s:", cli_verbs[i].name);
        zsh_text(cli_verbs[i].summary);
        printf("'\n");
    }
    printf("    )\n    if (( CURRENT == 2 )); then _describe verb verbs; return; fi\n    case $words[2] in\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb *v = &cli_verbs[i];

        printf("    %s) shift words; (( CURRENT-- )); _arguments", v->name);
        for (int k = 0; k < CLI_FLAGS; k++) {
            if (k != CLI_HELP && (v->flags & 1u << k) == 0) continue;
            const cli_flag *f = &cli_flags[k];
            if (f->letter != 0) printf(" '(-%c --%s)'{-%c,--%s}'[", f->letter, f->name, f->letter, f->name);
            else printf(" '%s--%s[", f->repeats ? "*" : "", f->name);
            zsh_text(f->text);
            printf("]");
            if (f->value != NULL) printf(":%s:", strcmp(f->value, "STEP.KEY=VALUE") == 0 ? "value" : f->name), zsh_of(f->completes);
            printf("'");
        }
        if (v->completes != NULL && strchr(v->completes, ' ') != NULL)
            printf(" '1:what:(%s)' '*:file:_files'", v->completes);
        else if (v->completes != NULL)
            printf(" '%s:what:", v->most > 2 ? "*" : "1"), zsh_of(v->completes), printf("'");
        printf(" ;;\n");
    }
    printf("    esac\n}\n_stepmill \"$@\"\n");
}

static void fish_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\') putchar('\\');
        putchar(*text);
    }
}

static void fish(void)
{
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb *v = &cli_verbs[i];

        printf("complete -c stepmill -n __fish_use_subcommand -f -a %s -d '", v->name);
        fish_text(v->summary);
        printf("'\n");
        for (int k = 0; k < CLI_FLAGS; k++) {
            if (k != CLI_HELP && (v->flags & 1u << k) == 0) continue;
            const cli_flag *f = &cli_flags[k];
            printf("complete -c stepmill -n '__fish_seen_subcommand_from %s' -l %s", v->name, f->name);
            if (f->letter != 0) printf(" -s %c", f->letter);
            if (f->value != NULL) printf(f->completes != NULL && strcmp(f->completes, "file") == 0 ? " -r" : " -x");
            if (f->completes != NULL && strcmp(f->completes, "file") != 0)
                printf(" -a '%s'", strcmp(f->completes, "dir") == 0 ? "(__fish_complete_directories)" : f->completes);
            printf(" -d '");
            fish_text(cli_flags[k].text);
            printf("'\n");
        }
        if (v->completes != NULL && (strchr(v->completes, ' ') != NULL || strcmp(v->completes, "verbs") == 0)) {
            printf("complete -c stepmill -n '__fish_seen_subcommand_from %s' -f -a '", v->name);
            if (strcmp(v->completes, "verbs") == 0) verbs();
            else printf("%s", v->completes);
            printf("'\n");
        }
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*write)(void);
    } forms[] = {{"man", man}, {"bash", bash}, {"zsh", zsh}, {"fish", fish}};

    for (size_t i = 0; argc == 2 && i < sizeof forms / sizeof *forms; i++)
        if (strcmp(argv[1], forms[i].name) == 0) {
            forms[i].write();
            return fflush(stdout) != 0;
        }
    fprintf(stderr, "usage: docgen man|bash|zsh|fish\n");
    return 64;
}
