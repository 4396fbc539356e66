/* Bytes on one device: reference counted, taken from and returned to a pool. */
#ifndef STEPMILL_BUFFER_H
#define STEPMILL_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

#define MILL_BUFFER_ALIGN 64 /* bytes; of the first byte, and what capacity is rounded up to */
#define MILL_BUFFER_MAX_BYTES ((size_t)1 << 46)

/** Where buffers, columns and batches come from. One per device and engine; a replica's is mill_replica_pool(). */
typedef struct mill_pool mill_pool;
/** Bytes on one device. The size never changes; contents may be written only while there is one reference. */
typedef struct mill_buffer mill_buffer;

/**
 * Take a buffer from @p pool. Contents are undefined; the first byte is aligned to MILL_BUFFER_ALIGN bytes and
 * reading up to the next multiple of MILL_BUFFER_ALIGN past the end is allowed.
 * @param bytes  Payload in bytes, 0 .. MILL_BUFFER_MAX_BYTES.
 * @param out    On success a reference the caller owns (mill_buffer_unref); untouched on failure.
 * @retval MILL_ERR_INVALID  bytes is out of range.
 * @retval MILL_ERR_NOMEM    memory or the pool's limit is exhausted; may succeed once another buffer is released.
 * Threads: any. Blocks: no.
 */
MILL_API mill_status mill_buffer_create(mill_pool *pool, size_t bytes, mill_buffer **out);
/** One more reference; returns @p buf. Threads: any. Blocks: no. Cannot fail. */
MILL_API mill_buffer *mill_buffer_ref(mill_buffer *buf);
/** Drop a reference and set *buf to NULL; *buf may already be NULL. The last drop returns the memory to its pool
 *  once the work already queued on it has run. Threads: any. Blocks: no. Cannot fail. */
MILL_API void mill_buffer_unref(mill_buffer **buf);
/** First byte, as long as you hold a reference; write only while it is the only one. Threads: any. Blocks: no. Cannot fail. */
MILL_API void *mill_buffer_data(const mill_buffer *buf);
/** Payload in bytes, as asked for. Threads: any. Blocks: no. Cannot fail. */
MILL_API size_t mill_buffer_bytes(const mill_buffer *buf);

MILL_END_DECLS

#endif
