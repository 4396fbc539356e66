#include "shard.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 65536 };

static bool number(const char *text, char end, long *out)
{
    char *at;

    if (text == NULL || !isdigit((unsigned char)text[0])) return false;
    *out = strtol(text, &at, 10);
    return *at == end && *out < 1L << 30;
}

static bool of_array(const char *id, const char *least, const char *most, const char *count, long *shard, long *shards,
                     const char **why)
{
    long i, low, high;

    *why = "this is no task of a Slurm job array: SLURM_ARRAY_TASK_ID, _MIN, _MAX and _COUNT are not all set";
    if (!number(id, '\0', &i) || !number(least, '\0', &low) || !number(most, '\0', &high) || !number(count, '\0', shards))
        return false;
    *why = "the job array has gaps, so its tasks are not the shards 1 to N: give it as --array=1-N, or say --shard I/N";
    *shard = i - low + 1;
    return high - low + 1 == *shards && i >= low && i <= high;
}

bool cli_shard(const char *text, const char *id, const char *least, const char *most, const char *count, int32_t *shard,
               int32_t *shards, const char **why)
{
    const char *slash = strchr(text, '/');
    long i = 0, n = 0;

    if (strcmp(text, "slurm") == 0) {
        if (!of_array(id, least, most, count, &i, &n, why)) return false;
    } else if (slash == NULL || !number(text, '/', &i) || !number(slash + 1, '\0', &n)) {
        return false;
    }
    if (i < 1 || i > n || n > MOST) {
        *why = "there is no such shard: I goes from 1 to N, N to 65536";
        return false;
    }
    *shard = (int32_t)i;
    *shards = (int32_t)n;
    return true;
}
