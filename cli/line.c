#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const char *cli_field(const char *line, const char *key, char *buf, size_t size)
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

/* Goes over the lines of DIR/FILE that begin with a step; what is in front of the first in its line is passed over. NULL: no more,
 * f is closed. */
static const char *next_step(FILE **f, char **line, size_t *cap)
{
    const char *at = NULL;

    while (*f != NULL && at == NULL && getline(line, cap, *f) > 0) at = strstr(*line, "{\"step\":\"");
    if (at != NULL || *f == NULL) return at;
    fclose(*f);
    *f = NULL;
    return NULL;
}

static FILE *open_file(const char *dir, const char *name)
{
    char path[PATH_MAX + 32];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return fopen(path, "re");
}

bool cli_has_step(const char *dir, const char *step, size_t n, const char *asked)
{
    char word[80], name[80], near[80] = "", *line = NULL;
    FILE *f = open_file(dir, "run.json");
    bool any = false, found = false;
    const char *at;
    size_t cap = 0;

    snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), step);
    while ((at = next_step(&f, &line, &cap)) != NULL) {
        if (at != line) continue; /* the pipeline file, as text, may look like one */
        any = true;
        cli_field(at, "step", name, sizeof name);
        found = found || strcmp(name, word) == 0;
        const char *two[2] = {near, name}, *best = cli_nearest(word, near[0] != '\0' ? two : two + 1, near[0] != '\0' ? 2 : 1);
        if (best == name) memcpy(near, name, sizeof near);
    }
    free(line);
    if (found || !any) return true;
    fprintf(stderr, "stepmill: %sthe run in %s has no step '%s'", asked, dir, word);
    cli_say_near(near[0] != '\0' ? near : NULL);
    fputc('\n', stderr);
    return false;
}

long cli_replicas(const char *dir, const char *step, size_t n)
{
    char name[80], value[16], *line = NULL;
    FILE *f = open_file(dir, "progress.json");
    const char *at;
    size_t cap = 0;
    long replicas = 0;

    while ((at = next_step(&f, &line, &cap)) != NULL)
        if (strlen(cli_field(at, "step", name, sizeof name)) == n && strncmp(name, step, n) == 0)
            replicas = strtol(cli_field(at, "replicas", value, sizeof value), NULL, 10);
    free(line);
    return replicas;
}

bool cli_is_whole(const char *dir, const char *step)
{
    char name[80], value[16], *line = NULL;
    FILE *f = open_file(dir, "manifest.json");
    const char *at;
    size_t cap = 0;
    bool whole = false;

    while ((at = next_step(&f, &line, &cap)) != NULL)
        if (strcmp(cli_field(at, "step", name, sizeof name), step) == 0)
            whole = strcmp(cli_field(at, "complete", value, sizeof value), "true") == 0;
    free(line);
    return whole;
}

bool cli_take_classes(const cli_args *a, uint32_t *out)
{
    const char *classes[MILL_CLASSES];

    for (int32_t k = 0; k < MILL_CLASSES; k++) classes[k] = mill_class_text(k);
    for (size_t i = 0; i < a->n_class; i++) {
        int class = -1;
        for (int k = 0; k < MILL_CLASSES; k++)
            if (strcmp(a->class[i], classes[k]) == 0) class = k;
        if (class < 0) {
            fprintf(stderr, "stepmill: --class %s: there are permanent, transient, data and device", a->class[i]);
            cli_say_near(cli_nearest(a->class[i], classes, MILL_CLASSES));
            fputc('\n', stderr);
            return false;
        }
        *out |= 1u << class;
    }
    return true;
}

bool cli_failure_wanted(const cli_args *a, uint32_t classes, const char *line)
{
    char class[32], step[80];
    bool wanted = classes == 0;

    cli_field(line, "class", class, sizeof class);
    for (int k = 0; k < MILL_CLASSES; k++) wanted = wanted || ((classes >> k & 1) != 0 && strcmp(class, mill_class_text(k)) == 0);
    return wanted && (!a->given[CLI_STEP] || strcmp(cli_field(line, "step", step, sizeof step), a->value[CLI_STEP]) == 0);
}
