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
