/*
 * Batches as an Arrow IPC stream: for spilling, for the store, and for what other programs read and write (arrow_file.c). Columns
 * only; keys and marks are added as columns by those who need them.
 */
#ifndef STM_BATCH_IPC_H
#define STM_BATCH_IPC_H

#include "memory/pool.h"
#include "stepmill/batch.h"

/** Takes the next @p n bytes of the stream. */
typedef mill_status (*stm_ipc_sink)(void *user, const void *bytes, size_t n, mill_error *err);
/** Gives up to @p n bytes, *got of them; *got 0 = the stream is over. */
typedef mill_status (*stm_ipc_source)(void *user, void *bytes, size_t n, size_t *got, mill_error *err);

/** Where a batch lies in a stream. */
typedef struct stm_ipc_block {
    int64_t offset; /* of its message */
    int32_t head_bytes;
    int64_t body_bytes; /* behind the head */
} stm_ipc_block;

typedef struct stm_ipc_writer stm_ipc_writer;
/** Begin a stream of batches of @p schema (a struct type): writes the schema. Threads: owner, all calls. */
mill_status stm_ipc_writer_create(const mill_type *schema, stm_ipc_sink sink, void *user, stm_ipc_writer **out, mill_error *err);
/** The same for a stream that has a schema and perhaps batches already. */
mill_status stm_ipc_writer_resume(const mill_type *schema, stm_ipc_sink sink, void *user, stm_ipc_writer **out, mill_error *err);
/** Write one batch. After a failure of the sink the stream is broken. */
mill_status stm_ipc_writer_batch(stm_ipc_writer *w, const mill_batch *batch, mill_error *err);
/** Write the end-of-stream mark. */
mill_status stm_ipc_writer_end(stm_ipc_writer *w, mill_error *err);
/** Sizes of the message that was written last; its offset is for the caller to know. */
stm_ipc_block stm_ipc_writer_last(const stm_ipc_writer *w);
/** Write what stands at the end of a file behind the end-of-stream mark: footer, its length, magic. */
mill_status stm_ipc_writer_footer(stm_ipc_writer *w, const stm_ipc_block *blocks, size_t n, mill_error *err);
void stm_ipc_writer_destroy(stm_ipc_writer **w);

typedef struct stm_ipc_reader stm_ipc_reader;
/** Begin to read: reads the schema. Nothing of the input is trusted: memory taken is bounded by a small multiple of the bytes
 *  that came (of compressed ones as zstd can pack them), and every size, offset and text is checked before use. MILL_ERR_PARSE:
 *  malformed; MILL_ERR_UNSUPPORTED: a type without counterpart, a dictionary, another compression than zstd, big-endian. Threads:
 *  owner, all calls. */
mill_status stm_ipc_reader_create(mill_pool *pool, stm_ipc_source source, void *user, stm_ipc_reader **out, mill_error *err);
/** What the batches are: a struct type. */
const mill_type *stm_ipc_reader_schema(const stm_ipc_reader *r);
/** The next batch, or *out = NULL at the end of the stream (its mark, or the end of the input at a message's border). */
mill_status stm_ipc_reader_next(stm_ipc_reader *r, mill_batch **out, mill_error *err);
/** The head of the next message, a batch whose bytes the caller leaves out: he moves the source by body_bytes. *end: there is
 *  none. */
mill_status stm_ipc_reader_skip(stm_ipc_reader *r, stm_ipc_block *sizes, bool *end, mill_error *err);
/** The source was moved to the border of a message. */
void stm_ipc_reader_moved(stm_ipc_reader *r);
void stm_ipc_reader_destroy(stm_ipc_reader **r);

#endif
