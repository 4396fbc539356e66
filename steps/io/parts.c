#include "steps/io/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *stm_part_name(const char *path, uint32_t part)
{
    static const char *const packed[] = {".gz", ".zst"};
    const size_t n = strlen(path);
    const char *base = strrchr(path, '/');
    size_t cut = n; /* where the number goes in */

    base = base != NULL ? base + 1 : path;
    for (size_t i = 0; i < 2; i++) {
        const size_t m = strlen(packed[i]);
        if (n > m && strcmp(path + n - m, packed[i]) == 0) cut = n - m;
    }
    for (size_t i = cut; i > (size_t)(base - path) + 1; i--) /* a leading dot is no extension */
        if (path[i - 1] == '.') {
            cut = i - 1;
            break;
        }
    char *name = malloc(n + 16);
    if (name != NULL) snprintf(name, n + 16, "%.*s-%05u%s", (int)cut, path, part, path + cut);
    return name;
}

char *stm_part_path(const char *path, int64_t part_rows, uint32_t part)
{
    return part_rows == 0 ? strdup(path) : stm_part_name(path, part);
}
