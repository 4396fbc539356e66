#include "time_limit.h"

#include <ctype.h>
#include <stdlib.h>
#include <time.h>

#define RESERVE_S 30.0
#define STOP_S 4.0

double time_limit_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double least(double a, double b) { return a < b ? a : b; }

time_limit time_limit_divide(double left_s, double drain_s)
{
    const double reserve = least(RESERVE_S, left_s / 12), margin = reserve + least(drain_s + STOP_S, left_s / 6);

    return (time_limit){.left = left_s, .margin = margin, .reserve = reserve, .ask = left_s - margin, .gone = left_s - reserve};
}

double time_limit_of_job(const char *text, double wall_s, const char **why)
{
    char *end;
    double t;

    if (text == NULL || text[0] == '\0') return 0;
    t = strtod(text, &end);
    *why = "it is not a time in seconds since 1970";
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || !(t < 1e11)) return -1;
    *why = "it is past, so the job must have been given more time";
    return t > wall_s ? t - wall_s : -1;
}
