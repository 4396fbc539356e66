/* Columns from the host to a device, back, and between devices. */
#ifndef STM_BATCH_MOVE_H
#define STM_BATCH_MOVE_H

#include "memory/place.h"
#include "stepmill/column.h"

/** How to move. Copies are queued on the stream, behind what fills their sources; what is made carries the mark that the stream's
 *  next raise gives (stm_stream_next), and sources on devices are kept until then. */
typedef struct stm_mover {
    stm_stream *stream;
    stm_device_pool *to;     /* NULL: to the host */
    /* To the host: into its buffers, or, beyond its share, into the pool's, which is waited for. To a device: bytes of pageable
     * memory go through its buffers. */
    stm_device_pool *pinned;
    mill_pool *pool;         /* heads of columns */
    bool pairs;              /* to the host: what is made has the buffers of the device as twins (memory/place.h) */
    int64_t bytes;           /* moved; added up */
} stm_mover;

/** Whether any buffer of @p col is memory of a device, or of another one than @p but (NULL = any counts). */
bool stm_column_is_on_device(const mill_column *col, const stm_device *but);
/** A column with the same rows elsewhere. MILL_ERR_AGAIN: no room until queued work is done. Nothing is waited for. */
mill_status stm_column_move(stm_mover *m, const mill_column *col, mill_column **out, mill_error *err);
/** @p col, on the host, with the twins of its buffers in their stead where they have any; *out untouched where none has: rows that
 *  are on a device, too. @p pool: for heads of columns. MILL_ERR_NOMEM. */
mill_status stm_column_twin(mill_pool *pool, const mill_column *col, mill_column **out);
/** Call @p visit with every buffer that the rows of @p col are in. */
void stm_column_buffers(const mill_column *col, void (*visit)(mill_buffer *b, void *user), void *user);

#endif
