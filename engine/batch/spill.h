/*
 * Batches on disk: where rows go that only wait while memory is short.
 *
 * A spill file belongs to one process and is never seen by another: it is unlinked as soon as it is open, so nothing is
 * left behind however the process ends. Its records are the bytes of the columns as they lie in memory, cut to the rows
 * of the batch; what is read is held against a checksum that stayed in memory.
 *
 * Two ways in:
 *   put, get       the whole batch goes, a token stays                 (a store between load groups)
 *   park, recall   the contents go; envelope, keys and row count stay  (a batch that an inlet still looks at)
 *
 * Space is given back when a record has been read or dropped: later records take it, and the file is cut to nothing
 * when the last one is gone.
 */
#ifndef STM_BATCH_SPILL_H
#define STM_BATCH_SPILL_H

#include "batch/batch.h"

typedef struct stm_spill stm_spill;

typedef struct stm_spill_stats {
    int64_t records_written, bytes_written; /* since the start */
    int64_t records, bytes;                 /* in the file now */
    int64_t file_bytes;                     /* up to the end of the last one */
} stm_spill_stats;

/** @p dir is where the file will be (copied); NULL: $TMPDIR, or /tmp. The file is opened when the first batch comes. */
mill_status stm_spill_create(const char *dir, stm_spill **out, mill_error *err);
/** Every parked batch must be gone. Accepts NULL. */
void stm_spill_destroy(stm_spill **s);
/**
 * Write a batch: contents and envelope (keys, coverage, marks, what was imputed, columns that are not there). The batch
 * stays the caller's, unchanged. Takes nothing from any pool.
 * @param token  Names the record until stm_spill_get or stm_spill_drop; never 0.
 * @retval MILL_ERR_IO     the file cannot be made or written (disk full); @p err says why. The file is as before.
 * @retval MILL_ERR_NOMEM  no memory for the note of one more record.
 * Threads: any, all calls; records are written and read side by side. Blocks: on the disk.
 */
mill_status stm_spill_put(stm_spill *s, const mill_batch *b, uint64_t *token, mill_error *err);
/** Read it back into @p pool and give up the record. On failure (IO, NOMEM) the record stays. */
mill_status stm_spill_get(stm_spill *s, mill_pool *pool, uint64_t token, mill_batch **out, mill_error *err);
/** Give up a record unread. Cannot fail. */
void stm_spill_drop(stm_spill *s, uint64_t token);
stm_spill_stats stm_spill_counts(stm_spill *s);

/** Send the contents of @p b to disk; it keeps its envelope, keys and row count, has no columns, and must be recalled before
 *  anybody looks at those (mill_batch_destroy takes it as it is). No effect on a parked batch, nor on one with columns on a device.
 *  On failure nothing has changed. Threads: the batch's owner. */
mill_status stm_batch_park(mill_batch *b, stm_spill *s, mill_error *err);
/** Bring the contents back, if they are away. On failure the batch stays parked. Threads: any, also several at once with one
 *  batch: all return once it is complete. */
mill_status stm_batch_recall(mill_batch *b, mill_error *err);
/** Whether the contents are away. Threads: any. */
static inline bool stm_batch_parked(const mill_batch *b) { return __atomic_load_n(&b->away_in, __ATOMIC_ACQUIRE) != NULL; }

#endif
