/*
 * Which rows of its generators a run takes. All are made, since what comes before a row may decide what it is; those of others are
 * dropped at once, with their keys: so a row has the key that it has in a run of all rows, and results of several runs can be put
 * together by it.
 */
#ifndef STM_WRAPPER_CHOICE_H
#define STM_WRAPPER_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STM_SHARD_BLOCK 64 /* rows that stay together, whatever the sizes of batches */

/** Rows first .. last. */
typedef struct stm_row_range {
    int64_t first, last;
} stm_row_range;

/** Shard number `shard` (from 0) of `shards`: every block of rows whose number has that remainder. Or, with ranges, the rows in
 *  there. */
typedef struct stm_row_choice {
    int32_t shard, shards;       /* shards 0: no shards */
    const stm_row_range *ranges; /* [n], in order, apart from each other; NULL = none */
    size_t n;
} stm_row_choice;

/** The numbers i for which row @p first + i, i < @p n, is taken, in order, to index [n]; how many. */
int64_t stm_row_choice_of(const stm_row_choice *c, int64_t first, int64_t n, int64_t *index);
/** Whether ranges @p r [n], in order, have row @p row. */
bool stm_row_ranges_have(const stm_row_range *r, size_t n, int64_t row);

#endif
