#include "placement/limits.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

stm_cpus stm_cpus_allowed(void)
{
    cpu_set_t *set = CPU_ALLOC(STM_CPUS_MAX); /* larger than the kernel's, so it fits */
    const size_t size = CPU_ALLOC_SIZE(STM_CPUS_MAX);
    stm_cpus out = {0};
    bool got = false;

    if (set != NULL) {
        CPU_ZERO_S(size, set);
        got = sched_getaffinity(0, size, set) == 0;
        for (int32_t i = 0; got && i < STM_CPUS_MAX; i++)
            if (CPU_ISSET_S((size_t)i, size, set)) stm_cpus_add(&out, i);
        CPU_FREE(set);
    }
    if (!got) /* no memory, or a kernel of more processors than we know: those that are there */
        for (long i = 0, n = sysconf(_SC_NPROCESSORS_ONLN); i < n; i++) stm_cpus_add(&out, (int32_t)i);
    return out;
}

/* ---- quota ------------------------------------------------------------------------------------------------------- */

static bool read_line(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "re");
    bool ok = f != NULL && fgets(buf, (int)size, f) != NULL;

    if (f != NULL) fclose(f);
    return ok;
}

/* "150000 100000": the first number over the second; 0 = no limit ("max", "-1"), or not there. */
static double ratio(const char *first, const char *second)
{
    char *end;
    const double quota = strtod(first, &end), period = strtod(second != NULL ? second : end, NULL);

    return end != first && quota > 0 && period > 0 ? quota / period : 0;
}

static double quota_v2(const char *dir)
{
    char path[4400], line[128];

    snprintf(path, sizeof path, "%s/cpu.max", dir);
    return read_line(path, line, sizeof line) ? ratio(line, NULL) : 0;
}

static double quota_v1(const char *dir)
{
    char path[4400], quota[64], period[64];

    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (!read_line(path, quota, sizeof quota)) return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    return read_line(path, period, sizeof period) ? ratio(quota, period) : 0;
}

/* The strictest from @p group (a path below @p mount) up to the mount. In a container the path may be the host's and not be
 * there; the mount itself then speaks for the container. */
static double strictest(const char *mount, const char *group, double (*quota_of)(const char *))
{
    char dir[4300];
    const size_t floor = strlen(mount);
    double least = 0;
    int n = snprintf(dir, sizeof dir, "%s%s", mount, group);

    if (n < 0 || (size_t)n >= sizeof dir) return 0;
    for (;;) {
        const double q = quota_of(dir);
        char *slash;

        if (q > 0 && (least == 0 || q < least)) least = q;
        if (strlen(dir) <= floor || (slash = strrchr(dir + floor, '/')) == NULL) return least;
        *slash = '\0';
    }
}

static bool names_cpu(const char *controllers)
{
    char list[256];
    char *save = NULL;

    snprintf(list, sizeof list, "%s", controllers);
    for (char *c = strtok_r(list, ",", &save); c != NULL; c = strtok_r(NULL, ",", &save))
        if (strcmp(c, "cpu") == 0) return true;
    return false;
}

double stm_cpu_quota(const char *root)
{
    char path[4096], mount[4096], line[4200];
    double least = 0;
    FILE *f;

    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if ((f = fopen(path, "re")) == NULL) return 0;
    while (fgets(line, sizeof line, f) != NULL) { /* "0::/user.slice" or "4:cpu,cpuacct:/docker/x" */
        char *controllers = strchr(line, ':'), *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        double q;

        if (group == NULL) continue;
        *group++ = '\0';
        controllers++;
        group[strcspn(group, "\n")] = '\0';
        if (controllers[0] != '\0' && !names_cpu(controllers)) continue;
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, controllers[0] != '\0' ? "/cpu" : "");
        q = strictest(mount, strcmp(group, "/") == 0 ? "" : group, controllers[0] != '\0' ? quota_v1 : quota_v2);
        if (q > 0 && (least == 0 || q < least)) least = q;
    }
    fclose(f);
    return least;
}

int32_t stm_cpu_count(void)
{
    const stm_cpus allowed = stm_cpus_allowed();
    const int32_t n = stm_cpus_count(&allowed);
    const double quota = stm_cpu_quota("");
    const int32_t whole = quota > 0 && quota < n ? (int32_t)quota + (quota > (int32_t)quota) : n;

    return whole > 0 ? whole : 1;
}
