#include "core/runfiles.h"

#include <stddef.h>
#include <string.h>

#define PART_DIGITS 5

static bool ends_with(const char *name, size_t n, const char *end)
{
    const size_t m = strlen(end);

    return n > m && memcmp(name + n - m, end, m) == 0;
}

static const char *const whole[STM_RUN_FILES] = {STM_RUN_MANIFEST, STM_RUN_ERRORS,   STM_RUN_FACTS,  STM_RUN_LOG,
                                                 STM_RUN_METRICS,  STM_RUN_PROGRESS, STM_RUN_REPORT, STM_RUN_SUSPECTS};

const char *stm_run_file(size_t i) { return whole[i]; }

bool stm_run_keeps(const char *name)
{
    static const char *const begin[] = {STM_RUN_JOURNAL, STM_RUN_OWNER, STM_RUN_MANIFEST_LOG};
    const size_t n = strcspn(name, "/");

    for (size_t i = 0; i < STM_RUN_FILES; i++)
        if (n == strlen(whole[i]) && memcmp(name, whole[i], n) == 0) return true;
    for (size_t i = 0; i < sizeof begin / sizeof begin[0]; i++)
        if (strncmp(name, begin[i], strlen(begin[i])) == 0) return true;
    return ends_with(name, n, STM_RUN_SEGMENT) || (name[0] == '.' && ends_with(name, n, ".tmp"));
}

/* Whether the first @p n bytes of @p name are output @p base or a part of it: BASE, or BASE with -DIGITS somewhere in its last
 * component. */
static bool is_file_of(const char *name, size_t n, const char *base)
{
    const size_t bytes = strlen(base);
    size_t same = 0, digits = 0;

    if (n == bytes && memcmp(name, base, n) == 0) return true;
    if (n < bytes + 1 + PART_DIGITS) return false;
    while (same < bytes && name[same] == base[same]) same++;
    if (name[same] != '-' || strchr(base + same, '/') != NULL) return false;
    while (name[same + 1 + digits] >= '0' && name[same + 1 + digits] <= '9') digits++;
    return digits >= PART_DIGITS && n - same - 1 - digits == bytes - same &&
           memcmp(name + same + 1 + digits, base + same, bytes - same) == 0;
}

bool stm_output_writes(const char *base, const char *name)
{
    const size_t n = strlen(name);

    if (is_file_of(name, n, base)) return true;
    if (n < 5 || strcmp(name + n - 4, ".tmp") != 0) return false;
    for (size_t i = n - 4; i > 0 && name[i] != '/'; i--)
        if (name[i] == '.' && is_file_of(name, i, base)) return true;
    return false;
}
