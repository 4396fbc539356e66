#include "memory/buffer.h"

_Static_assert(sizeof(mill_buffer) == MILL_BUFFER_ALIGN, "the payload follows the head and must be aligned");

static size_t round_up(size_t bytes) { return (bytes + MILL_BUFFER_ALIGN - 1) & ~(size_t)(MILL_BUFFER_ALIGN - 1); }

mill_status mill_buffer_create(mill_pool *pool, size_t bytes, mill_buffer **out)
{
    mill_buffer *b;
    size_t block;

    if (bytes > MILL_BUFFER_MAX_BYTES) return MILL_ERR_INVALID;
    block = sizeof *b + round_up(bytes);
    b = stm_pool_take(pool, block);
    if (b == NULL) return MILL_ERR_NOMEM;
    b->refs = 1;
    b->where = 0;
    b->bytes = bytes;
    b->block_bytes = block;
    b->pool = pool;
    b->data = b + 1;
    b->release = NULL;
    b->owner = NULL;
    *out = b;
    return MILL_OK;
}

mill_status stm_buffer_wrap(mill_pool *pool, const void *data, size_t bytes, void (*release)(void *owner), void *owner,
                            mill_buffer **out)
{
    mill_buffer *b;

    if (bytes > MILL_BUFFER_MAX_BYTES) return MILL_ERR_INVALID;
    b = stm_pool_take(pool, sizeof *b);
    if (b == NULL) return MILL_ERR_NOMEM;
    b->refs = 1;
    b->where = 0;
    b->bytes = bytes;
    b->block_bytes = sizeof *b;
    b->pool = pool;
    b->data = (void *)(uintptr_t)data;
    b->release = release;
    b->owner = owner;
    *out = b;
    return MILL_OK;
}

mill_buffer *mill_buffer_ref(mill_buffer *buf)
{
    stm_refs_add(&buf->refs);
    return buf;
}

void mill_buffer_unref(mill_buffer **buf)
{
    mill_buffer *b = *buf;

    if (b == NULL) return;
    *buf = NULL;
    if (!stm_refs_drop(&b->refs)) return;
    if (b->release != NULL) b->release(b->owner);
    stm_pool_give(b->pool, b, b->block_bytes);
}

void *mill_buffer_data(const mill_buffer *buf) { return buf->data; }
size_t mill_buffer_bytes(const mill_buffer *buf) { return buf->bytes; }

size_t stm_buffer_round(size_t bytes)
{
    if (bytes > MILL_BUFFER_MAX_BYTES) return bytes;
    return stm_pool_block_bytes(sizeof(mill_buffer) + round_up(bytes)) - sizeof(mill_buffer);
}

void stm_buffer_cut(mill_buffer *buf, size_t bytes) { buf->bytes = bytes; }

size_t stm_buffer_capacity(const mill_buffer *buf)
{
    return stm_pool_block_bytes(buf->block_bytes) + (buf->release != NULL ? buf->bytes : 0);
}
