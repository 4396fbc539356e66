#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* Edit distance, words of at most 31 letters. */
static size_t distance(const char *a, const char *b)
{
    size_t row[32], n = strlen(b);

    if (strlen(a) > 31 || n > 31) return 99;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            const size_t above = row[j];
            size_t best = corner + (a[i - 1] != b[j - 1]);

            if (above + 1 < best) best = above + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            corner = above;
            row[j] = best;
        }
    }
    return row[n];
}

const char *cli_nearest(const char *word, const char *const *words, size_t n)
{
    const char *best = NULL;
    size_t least = strlen(word) / 3 + 2;

    for (size_t i = 0; i < n; i++)
        if (distance(word, words[i]) < least) least = distance(word, words[i]), best = words[i];
    return best;
}

void cli_say_near(const char *near)
{
    if (near != NULL) fprintf(stderr, "; did you mean '%s'?", near);
}

static bool usage(const cli_verb *verb, const char *what, const char *word, const char *near)
{
    fprintf(stderr, "stepmill: %s '%s'", what, word);
    cli_say_near(near);
    if (verb != NULL)
        fprintf(stderr, "\nSee 'stepmill %s --help'.\n", verb->name);
    else
        fprintf(stderr, "\nSee 'stepmill --help'.\n");
    return false;
}

static const cli_verb *find_verb(const char *name)
{
    for (size_t i = 0; i < cli_verb_count; i++)
        if (strcmp(cli_verbs[i].name, name) == 0) return &cli_verbs[i];
    return NULL;
}

static bool unknown_verb(const char *word)
{
    const char *names[32];

    for (size_t i = 0; i < cli_verb_count; i++) names[i] = cli_verbs[i].name;
    if (word[0] == '-')
        return usage(NULL, "what is needed first is a verb, not", word,
                     strcmp(word, "-v") == 0 || strcmp(word, "-V") == 0 ? "--version" : NULL);
    return usage(NULL, "unknown verb", word, cli_nearest(word, names, cli_verb_count));
}

static int find_flag(const cli_verb *verb, const char *name, size_t n)
{
    for (int i = 0; i < CLI_FLAGS; i++)
        if ((i == CLI_HELP || (verb->flags & 1u << i) != 0) && strlen(cli_flags[i].name) == n &&
            strncmp(cli_flags[i].name, name, n) == 0)
            return i;
    return -1;
}

static bool unknown_flag(const cli_verb *verb, const char *arg)
{
    const char *names[CLI_FLAGS], *near;
    char word[40], shown[48];
    size_t n = 0;

    for (int i = 0; i < CLI_FLAGS; i++)
        if (i == CLI_HELP || (verb->flags & 1u << i) != 0) names[n++] = cli_flags[i].name;
    snprintf(word, sizeof word, "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
    near = cli_nearest(word, names, n);
    if (near != NULL) snprintf(shown, sizeof shown, "--%s", near);
    return usage(verb, "unknown flag", arg, near != NULL ? shown : NULL);
}

/* argv[*i] is a flag; its value may be the next argument. */
static bool take_flag(int argc, char **argv, int *i, cli_args *out)
{
    const char *arg = argv[*i], *value = NULL;
    const int at = *i;
    int id = -1;

    if (arg[1] == '-') {
        const size_t n = strcspn(arg + 2, "=");

        id = find_flag(out->verb, arg + 2, n);
        if (arg[2 + n] == '=') value = arg + 2 + n + 1;
    } else if (arg[1] != '\0' && arg[2] == '\0') {
        for (int k = 0; k < CLI_FLAGS; k++)
            if (cli_flags[k].letter == arg[1] && (k == CLI_HELP || (out->verb->flags & 1u << k) != 0)) id = k;
    }
    if (id < 0) return arg[1] == '-' ? unknown_flag(out->verb, arg) : usage(out->verb, "unknown flag", arg, NULL);
    if (cli_flags[id].value == NULL && value != NULL) return usage(out->verb, "no value is taken by", arg, NULL);
    if (cli_flags[id].value != NULL && value == NULL) {
        if (*i + 1 >= argc) return usage(out->verb, "a value is missing after", arg, NULL);
        value = argv[++*i];
    }
    if (value != NULL && value[0] == '\0')
        return usage(out->verb, "an empty value was given to", arg, NULL); /* a variable that is not set */
    out->given[id] = true;
    out->value[id] = value;
    if ((id == CLI_SET && out->n_set == CLI_MAX_REPEATS) || (id == CLI_PLUGIN && out->n_plugin == CLI_MAX_REPEATS) ||
        (id == CLI_COLUMN && out->n_column == CLI_MAX_REPEATS) || (id == CLI_CLASS && out->n_class == CLI_MAX_REPEATS))
        return usage(out->verb, "too many of", arg, NULL);
    if (id == CLI_SET) out->set_at[out->n_set] = at;
    if (id == CLI_SET) out->set[out->n_set++] = value;
    if (id == CLI_PLUGIN) out->plugin[out->n_plugin++] = value;
    if (id == CLI_COLUMN) out->column[out->n_column++] = value;
    if (id == CLI_CLASS) out->class[out->n_class++] = value;
    return true;
}

bool cli_parse(int argc, char **argv, cli_args *out)
{
    bool flags = true;
    int first = 1;

    memset(out, 0, sizeof *out);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        out->verb = find_verb("help");
        return true;
    }
    if (strcmp(argv[1], "--version") == 0) {
        out->verb = find_verb("version");
        return true;
    }
    if ((out->verb = find_verb(argv[first])) == NULL) return unknown_verb(argv[first]);
    for (int i = first + 1; i < argc; i++) {
        if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
        } else if (flags && argv[i][0] == '-' && argv[i][1] != '\0') {
            if (!take_flag(argc, argv, &i, out)) return false;
        } else if (out->n_operands == out->verb->most) {
            return usage(out->verb, "one operand too many:", argv[i], NULL);
        } else {
            out->operands[out->n_operands++] = argv[i];
        }
    }
    if (out->given[CLI_HELP] || out->n_operands >= out->verb->least) return true;
    return usage(out->verb, "what is missing is", out->verb->operands, NULL);
}

static bool bad_value(const cli_args *a, cli_flag_id flag, const char *expected)
{
    fprintf(stderr, "stepmill: --%s: expected %s, got '%s'\n", cli_flags[flag].name, expected, a->value[flag]);
    return false;
}

bool cli_number(const cli_args *a, cli_flag_id flag, int64_t least, int64_t otherwise, int64_t *out)
{
    char *end;
    long long v;

    *out = otherwise;
    if (!a->given[flag]) return true;
    v = strtoll(a->value[flag], &end, 10);
    if (end == a->value[flag] || *end != '\0' || v < least || v > INT64_MAX / 2)
        return bad_value(a, flag, least > 0 ? "a whole number of at least 1" : "a whole number, or 0");
    *out = v;
    return true;
}

bool cli_time(const cli_args *a, cli_flag_id flag, double otherwise, double *out)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"", 1}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}};
    char *end;
    double v;

    *out = otherwise;
    if (!a->given[flag]) return true;
    v = strtod(a->value[flag], &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (end != a->value[flag] && strcmp(end, units[i].unit) == 0 && v >= 0 && v * units[i].seconds < 1e9) {
            *out = v * units[i].seconds;
            return true;
        }
    return bad_value(a, flag, "a time such as 60s, 1.5m or 200ms");
}
