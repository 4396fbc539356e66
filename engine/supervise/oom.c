#include "supervise/oom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The line "oom_kill N" of a file; -1 = there is none. */
static int64_t counter(const char *path)
{
    FILE *f = fopen(path, "re");
    char line[256];
    long long n = -1;

    if (f == NULL) return -1;
    while (n < 0 && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "oom_kill %lld", &n) != 1) n = -1;
    fclose(f);
    return n;
}

/* Of the control group: "0::/path" in version 2, "N:...memory...:/path" in version 1. */
static int64_t of_group(void)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[2048], path[2200];
    int64_t n = -1;

    if (f == NULL) return -1;
    while (n < 0 && fgets(line, sizeof line, f) != NULL) {
        char *names = strchr(line, ':'), *folder = names != NULL ? strchr(names + 1, ':') : NULL;

        if (folder == NULL) continue;
        *folder++ = '\0';
        folder[strcspn(folder, "\n")] = '\0';
        if (strcmp(line, "0:") == 0)
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.events", folder);
        else if (strstr(names, "memory") != NULL)
            snprintf(path, sizeof path, "/sys/fs/cgroup/memory%s/memory.oom_control", folder);
        else
            continue;
        n = counter(path);
    }
    fclose(f);
    return n;
}

int64_t stm_oom_kills(void)
{
    const char *path = getenv("STEPMILL_MEMORY_EVENTS");
    int64_t n = path != NULL ? counter(path) : of_group();

    if (n < 0) n = counter("/sys/fs/cgroup/memory.events"); /* a container sees its own group as the root */
    return n >= 0 ? n : counter("/proc/vmstat");
}
