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

bool cli_has_step(const char *dir, const char *step, size_t n)
{
    char path[PATH_MAX + 16], open[] = "{\"step\":\"", *line = NULL;
    const size_t head = sizeof open - 1;
    size_t cap = 0;
    bool any = false, found = false;
    FILE *f;

    snprintf(path, sizeof path, "%s/run.json", dir);
    if ((f = fopen(path, "re")) == NULL) return true;
    while (getline(&line, &cap, f) > 0) {
        if (strncmp(line, open, head) != 0) continue;
        any = true;
        found = found || (strncmp(line + head, step, n) == 0 && line[head + n] == '"');
    }
    free(line);
    fclose(f);
    return found || !any;
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
            const char *near = cli_nearest(a->class[i], classes, MILL_CLASSES);
            fprintf(stderr, "stepmill: --class %s: there are permanent, transient, data and device%s%s%s\n", a->class[i], near != NULL ? "; did you mean '" : "",
                    near != NULL ? near : "", near != NULL ? "'?" : "");
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
