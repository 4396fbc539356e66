/*
 * Batches in a stream of the store: columns as Arrow IPC messages, and around them what the flow knows of a batch.
 *
 * Each segment begins with a frame SCHEMA (the Arrow schema message), then a frame BATCH per batch, label = its seq:
 *
 *   seq u64 | rows i64 | frontier 2 x i64 | first key i64 | roots u32 | columns u32 | key width u32 | flags u32 | borders u32 |
 *   skipped u32 covered [roots] i64
 *   keys [rows][width] i64            flag TUPLES
 *   marks [rows] i64                  flag MARKS
 *   per column: u64 0 | 1, and with 1 ceil(rows / 64) words of bits      flag IMPUTED
 *   Arrow record batch message
 */
#ifndef STM_STORE_BATCHES_H
#define STM_STORE_BATCHES_H

#include "batch/batch.h"
#include "store/vault.h"

#define STM_FRAME_SCHEMA 1u
#define STM_FRAME_BATCH 2u

typedef struct stm_batch_sink stm_batch_sink;
/** Batches with columns of @p schema (a struct type) go to stream @p stream of @p v, both borrowed. Threads: one per stream, all
 *  calls. */
mill_status stm_batch_sink_create(stm_vault *v, size_t stream, const mill_type *schema, stm_batch_sink **out, mill_error *err);
/** Append a batch, which stays the caller's. @p label of its frame (usually its seq). On failure nothing was appended. Blocks: on
 *  the disk. */
mill_status stm_batch_sink_put(stm_batch_sink *s, const mill_batch *b, uint64_t label, mill_error *err);
void stm_batch_sink_destroy(stm_batch_sink **s);

typedef struct stm_batch_source stm_batch_source;
/** Reads what is committed of stream @p stream. @p n_roots: room for coverage in the batches given. */
mill_status stm_batch_source_create(const stm_vault *v, size_t stream, mill_pool *pool, const mill_type *schema, int32_t n_roots,
                                    stm_batch_source **out, mill_error *err);
/** The next batch and its label; *out NULL = there is no more. Nothing read is trusted: MILL_ERR_DATA says what is wrong with
 *  it. */
mill_status stm_batch_source_next(stm_batch_source *s, mill_batch **out, uint64_t *label, mill_error *err);
/** How many batches are committed of stream @p stream; reads heads only. */
mill_status stm_batch_source_count(const stm_vault *v, size_t stream, int64_t *batches, mill_error *err);
/** Pass over @p n batches without making them. */
mill_status stm_batch_source_skip(stm_batch_source *s, int64_t n, mill_error *err);
void stm_batch_source_destroy(stm_batch_source **s);

/** One BATCH frame behind the SCHEMA frame of its segment: for the fuzzer. */
mill_status stm_batch_decode(mill_pool *pool, const mill_type *schema, int32_t n_roots, const void *schema_message, size_t n_schema,
                             const void *frame, size_t n, mill_batch **out, mill_error *err);

#endif
