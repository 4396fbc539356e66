#include "placement/cpus.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void stm_cpus_add(stm_cpus *s, int32_t cpu)
{
    if (cpu >= 0 && cpu < STM_CPUS_MAX) s->bits[cpu / 64] |= UINT64_C(1) << cpu % 64;
}

bool stm_cpus_has(const stm_cpus *s, int32_t cpu)
{
    return cpu >= 0 && cpu < STM_CPUS_MAX && (s->bits[cpu / 64] >> cpu % 64 & 1) != 0;
}

int32_t stm_cpus_count(const stm_cpus *s)
{
    int32_t n = 0;

    for (size_t i = 0; i < STM_CPUS_MAX / 64; i++) n += __builtin_popcountll(s->bits[i]);
    return n;
}

int32_t stm_cpus_next(const stm_cpus *s, int32_t after)
{
    int32_t at = after + 1;

    while (at < STM_CPUS_MAX) {
        const uint64_t rest = s->bits[at / 64] >> at % 64;

        if (rest != 0) return at + __builtin_ctzll(rest);
        at = (at / 64 + 1) * 64;
    }
    return -1;
}

stm_cpus stm_cpus_and(const stm_cpus *a, const stm_cpus *b)
{
    stm_cpus both;

    for (size_t i = 0; i < STM_CPUS_MAX / 64; i++) both.bits[i] = a->bits[i] & b->bits[i];
    return both;
}

void stm_cpus_join(stm_cpus *s, const stm_cpus *other)
{
    for (size_t i = 0; i < STM_CPUS_MAX / 64; i++) s->bits[i] |= other->bits[i];
}

bool stm_cpus_equal(const stm_cpus *a, const stm_cpus *b) { return memcmp(a->bits, b->bits, sizeof a->bits) == 0; }

static const char *skip_space(const char *p)
{
    while (isspace((unsigned char)*p)) p++;
    return p;
}

static bool read_number(const char **p, int32_t *out)
{
    char *end;
    long v;

    if (!isdigit((unsigned char)**p)) return false;
    v = strtol(*p, &end, 10);
    if (v >= STM_CPUS_MAX) return false; /* also what strtol cut to LONG_MAX */
    *out = (int32_t)v;
    *p = end;
    return true;
}

bool stm_cpus_parse(const char *text, stm_cpus *out)
{
    stm_cpus s = {0};
    const char *p = skip_space(text);

    while (*p != '\0') {
        int32_t from, to;

        if (!read_number(&p, &from)) return false;
        to = from;
        if (*p == '-') {
            p++;
            if (!read_number(&p, &to) || to < from) return false;
        }
        for (int32_t i = from; i <= to; i++) stm_cpus_add(&s, i);
        p = skip_space(p);
        if (*p == ',') {
            p = skip_space(p + 1);
            if (*p == '\0') return false;
        } else if (*p != '\0') {
            return false;
        }
    }
    *out = s;
    return true;
}

char *stm_cpus_show(const stm_cpus *s, char *buf, size_t size)
{
    size_t used = 0;
    int32_t from = stm_cpus_next(s, -1);

    if (from < 0) snprintf(buf, size, "none");
    while (from >= 0) {
        int32_t to = from;
        char part[32];
        size_t n;

        while (stm_cpus_has(s, to + 1)) to++;
        if (to > from)
            snprintf(part, sizeof part, "%s%d-%d", used > 0 ? "," : "", from, to);
        else
            snprintf(part, sizeof part, "%s%d", used > 0 ? "," : "", from);
        n = strlen(part);
        if (used + n + sizeof ",..." > size) {
            snprintf(buf + used, size - used, "%s", size - used >= sizeof ",..." ? ",..." : "");
            return buf;
        }
        memcpy(buf + used, part, n + 1);
        used += n;
        from = stm_cpus_next(s, to);
    }
    return buf;
}
