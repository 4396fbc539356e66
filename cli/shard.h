/* --shard: which part of how many. */
#ifndef STM_CLI_SHARD_H
#define STM_CLI_SHARD_H

#include <stdbool.h>
#include <stdint.h>

/** @p text is "2/4", or "slurm": then the four variables of a Slurm array's task say it (NULL = not set). The array must be without
 *  gaps, or its tasks cannot be numbered: --array=1-4 or 0-3. false: *why says why not. */
bool cli_shard(const char *text, const char *id, const char *least, const char *most, const char *count, int32_t *shard,
               int32_t *shards, const char **why);

#endif
