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
    printf(".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nWhen set and not empty, no colours.\n.SH FILES\n.TP\n.I "
           "runs/NAME/errors.jsonl\nErrors of a run's rows.\n");
}

static void flags_of(const cli_verb *v, const char *separator)
{
    for (int k = 0; k < CLI_FLAGS; k++)
        if (k == CLI_HELP || (v->flags & 1u << k) != 0) printf("%s--%s", separator, cli_flags[k].name);
}

static void bash(void)
{
    printf("_stepmill() {\n    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n    COMPREPLY=()\n");
    printf("    case $before in\n    --run) COMPREPLY=($(compgen -d -- \"$word\")); return ;;\n    --plugin) COMPREPLY=($(compgen "
           "-f -- \"$word\")); return ;;\n    esac\n");
    printf("    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W '");
    for (size_t i = 0; i < cli_verb_count; i++) printf("%s%s", i > 0 ? " " : "", cli_verbs[i].name);
    printf("' -- \"$word\"))\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb *v = &cli_verbs[i];

        printf("    %s)\n        if [[ $word == -* ]]; then COMPREPLY=($(compgen -W '", v->name);
        flags_of(v, " ");
        printf("' -- \"$word\"))\n        else ");
        if (v->completes == NULL)
            printf(":; fi ;;\n");
        else if (strcmp(v->completes, "yaml") == 0)
            printf("COMPREPLY=($(compgen -f -X '!*.y*ml' -- \"$word\") $(compgen -d -- \"$word\")); fi ;;\n");
        else if (strcmp(v->completes, "dir") == 0)
            printf("COMPREPLY=($(compgen -d -- \"$word\")); fi ;;\n");
        else
            printf("COMPREPLY=($(compgen -W '%s' -- \"$word\")); fi ;;\n", v->completes);
    }
    printf("    esac\n}\ncomplete -o filenames -F _stepmill stepmill\n");
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
            printf(" '--%s[", cli_flags[k].name);
            zsh_text(cli_flags[k].text);
            printf("]%s'", cli_flags[k].value == NULL ? ""
                           : k == CLI_RUN             ? ":dir:_files -/"
                           : k == CLI_PLUGIN          ? ":file:_files"
                                                      : ":value:");
        }
        if (v->completes != NULL && strcmp(v->completes, "yaml") == 0)
            printf(" ':file:_files -g \"*.y*ml\"'");
        else if (v->completes != NULL && strcmp(v->completes, "dir") == 0)
            printf(" ':run:_files -/'");
        else if (v->completes != NULL)
            printf(" ':what:(%s)'", v->completes);
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
            printf("complete -c stepmill -n '__fish_seen_subcommand_from %s' -l %s%s -d '", v->name, cli_flags[k].name,
                   cli_flags[k].value != NULL ? " -r" : "");
            fish_text(cli_flags[k].text);
            printf("'\n");
        }
        if (v->completes != NULL && strcmp(v->completes, "yaml") != 0 && strcmp(v->completes, "dir") != 0)
            printf("complete -c stepmill -n '__fish_seen_subcommand_from %s' -f -a '%s'\n", v->name, v->completes);
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
