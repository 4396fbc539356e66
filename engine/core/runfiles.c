#include "core/runfiles.h"

#include <stddef.h>
#include <string.h>

static bool ends_with(const char *name, size_t n, const char *end)
{
    const size_t m = strlen(end);

    return n > m && memcmp(name + n - m, end, m) == 0;
}

bool stm_run_keeps(const char *name)
{
    static const char *const whole[] = {STM_RUN_MANIFEST, STM_RUN_ERRORS,   STM_RUN_FACTS,  STM_RUN_LOG,
                                        STM_RUN_METRICS,  STM_RUN_PROGRESS, STM_RUN_REPORT, STM_RUN_SUSPECTS};
    static const char *const begin[] = {STM_RUN_JOURNAL, STM_RUN_OWNER};
    const size_t n = strcspn(name, "/");

    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        if (n == strlen(whole[i]) && memcmp(name, whole[i], n) == 0) return true;
    for (size_t i = 0; i < sizeof begin / sizeof begin[0]; i++)
        if (strncmp(name, begin[i], strlen(begin[i])) == 0) return true;
    return ends_with(name, n, STM_RUN_SEGMENT) || (name[0] == '.' && ends_with(name, n, ".tmp"));
}
