/*
 * Framing is ours, so that no size is believed before its bytes have come; the metadata is verified and decoded by
 * nanoarrow; the decoded array is validated in full and then imported like any other, sharing the body.
 */
#include "batch/ipc.h"

#include <errno.h>
#include <string.h>

#include "batch/arrow_type.h"
#include "batch/ipc_check.h"
#include "core/alloc.h"
#include "nanoarrow/nanoarrow_ipc.h"

enum { PREFIX_BYTES = 8, MAX_HEAD_BYTES = 64 << 20, FIRST_CHUNK = 1 << 20 };

struct stm_ipc_reader {
    mill_pool *pool;
    stm_ipc_source source;
    void *user;
    const mill_type *schema;
    struct ArrowSchema arrow_schema;
    struct ArrowIpcDecoder decoder;
    struct ArrowBuffer head;
    bool over;
};

static mill_status malformed(int code, const struct ArrowError *why, mill_error *err)
{
    if (code == ENOMEM) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow message");
    return mill_fail(err, code == ENOTSUP ? MILL_ERR_UNSUPPORTED : MILL_ERR_PARSE, "Arrow stream: %.300s", why->message);
}

/* Read exactly n bytes into dst, or as many as there are; *got says how many. */
static mill_status read_full(stm_ipc_reader *r, uint8_t *dst, size_t n, size_t *got, mill_error *err)
{
    *got = 0;
    while (*got < n) {
        size_t some = 0;
        const mill_status st = r->source(r->user, dst + *got, n - *got, &some, err);

        if (st != MILL_OK) return st;
        if (some == 0) break;
        *got += some;
    }
    return MILL_OK;
}

/* Read n bytes behind what b holds. Grows with what comes: a false size costs at most twice the input. */
static mill_status read_into(stm_ipc_reader *r, struct ArrowBuffer *b, int64_t n, mill_error *err)
{
    int64_t chunk = FIRST_CHUNK;

    while (n > 0) {
        size_t got;
        mill_status st;

        if (chunk > n) chunk = n;
        if (ArrowBufferReserve(b, chunk) != NANOARROW_OK)
            return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow message");
        if ((st = read_full(r, b->data + b->size_bytes, (size_t)chunk, &got, err)) != MILL_OK) return st;
        b->size_bytes += (int64_t)got;
        if ((int64_t)got < chunk) return mill_fail(err, MILL_ERR_PARSE, "Arrow stream ends in the middle of a message");
        n -= chunk;
        chunk = b->size_bytes;
    }
    return MILL_OK;
}

static struct ArrowBufferView view_of(const struct ArrowBuffer *b)
{
    struct ArrowBufferView v;

    v.data.as_uint8 = b->data;
    v.size_bytes = b->size_bytes;
    return v;
}

/* The next message's metadata, verified. r->over at the end. */
static mill_status next_head(stm_ipc_reader *r, mill_error *err)
{
    struct ArrowError why = {{0}};
    uint8_t prefix[PREFIX_BYTES];
    uint32_t mark;
    int32_t length;
    size_t got;
    int code;
    mill_status st = read_full(r, prefix, sizeof prefix, &got, err);

    if (st != MILL_OK) return st;
    r->over = got == 0;
    if (r->over) return MILL_OK;
    if (got < sizeof prefix) return mill_fail(err, MILL_ERR_PARSE, "Arrow stream ends in the middle of a message");
    mark = prefix[0] | (uint32_t)prefix[1] << 8 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 24;
    length = (int32_t)(prefix[4] | (uint32_t)prefix[5] << 8 | (uint32_t)prefix[6] << 16 | (uint32_t)prefix[7] << 24);
    if (mark != 0xFFFFFFFFu)
        return mill_fail(err, MILL_ERR_PARSE, "not an Arrow stream: a message begins with 0x%08X", (unsigned)mark);
    r->over = length == 0;
    if (r->over) return MILL_OK;
    if (length < 0 || length > MAX_HEAD_BYTES || length % 8 != 0)
        return mill_fail(err, MILL_ERR_PARSE, "Arrow stream: metadata of %d bytes", (int)length);
    r->head.size_bytes = 0;
    if (ArrowBufferAppend(&r->head, prefix, sizeof prefix) != NANOARROW_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow message");
    if ((st = read_into(r, &r->head, length, err)) != MILL_OK) return st;
    if ((code = ArrowIpcDecoderVerifyHeader(&r->decoder, view_of(&r->head), &why)) != NANOARROW_OK)
        return malformed(code, &why, err);
    if ((st = stm_ipc_check(r->head.data + PREFIX_BYTES, r->schema, err)) != MILL_OK) return st;
    if ((code = ArrowIpcDecoderDecodeHeader(&r->decoder, view_of(&r->head), &why)) != NANOARROW_OK)
        return malformed(code, &why, err);
    if (r->decoder.body_size_bytes < 0 || r->decoder.body_size_bytes > (int64_t)MILL_BUFFER_MAX_BYTES)
        return mill_fail(err, MILL_ERR_PARSE, "Arrow stream: a message of %lld bytes", (long long)r->decoder.body_size_bytes);
    return MILL_OK;
}

static mill_status read_schema(stm_ipc_reader *r, mill_error *err)
{
    struct ArrowError why = {{0}};
    mill_status st = next_head(r, err);
    int code;

    if (st != MILL_OK) return st;
    if (r->over || r->decoder.message_type != NANOARROW_IPC_MESSAGE_TYPE_SCHEMA)
        return mill_fail(err, MILL_ERR_PARSE, "Arrow stream does not begin with a schema");
    if (r->decoder.endianness != ArrowIpcSystemEndianness())
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow stream has the bytes of numbers the other way round");
    if (r->decoder.body_size_bytes != 0) return mill_fail(err, MILL_ERR_PARSE, "Arrow stream: a schema with a body");
    if ((code = ArrowIpcDecoderDecodeSchema(&r->decoder, &r->arrow_schema, &why)) != NANOARROW_OK)
        return malformed(code, &why, err);
    if ((st = mill_arrow_import_type(&r->arrow_schema, &r->schema, err)) != MILL_OK) return st;
    if ((code = ArrowIpcDecoderSetSchema(&r->decoder, &r->arrow_schema, &why)) != NANOARROW_OK) return malformed(code, &why, err);
    if ((code = ArrowIpcDecoderSetEndianness(&r->decoder, r->decoder.endianness)) != NANOARROW_OK)
        return malformed(code, &why, err);
    return MILL_OK;
}

mill_status stm_ipc_reader_create(mill_pool *pool, stm_ipc_source source, void *user, stm_ipc_reader **out, mill_error *err)
{
    stm_ipc_reader *r = stm_calloc(sizeof *r);
    mill_status st;

    if (r == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow stream");
    r->pool = pool;
    r->source = source;
    r->user = user;
    ArrowBufferInit(&r->head);
    st = ArrowIpcDecoderInit(&r->decoder) == NANOARROW_OK ? read_schema(r, err)
                                                          : mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow stream");
    if (st != MILL_OK) {
        stm_ipc_reader_destroy(&r);
        return st;
    }
    *out = r;
    return MILL_OK;
}

const mill_type *stm_ipc_reader_schema(const stm_ipc_reader *r) { return r->schema; }

static mill_status decode(stm_ipc_reader *r, struct ArrowBuffer *body, mill_batch **out, mill_error *err)
{
    struct ArrowError why = {{0}};
    struct ArrowBuffer shared;
    struct ArrowArray array = {0};
    mill_status st;
    int code = ArrowIpcSharedBufferInit(&shared, body);

    if (code != NANOARROW_OK) return malformed(ENOMEM, &why, err);
    code = ArrowIpcDecoderDecodeArrayFromShared(&r->decoder, &shared, -1, &array, NANOARROW_VALIDATION_LEVEL_FULL, &why);
    ArrowBufferReset(&shared);
    if (code != NANOARROW_OK) return malformed(code, &why, err);
    st = mill_arrow_import_batch(r->pool, &r->arrow_schema, &array, out, err);
    if (array.release != NULL) array.release(&array);
    return st;
}

/* The head of the next batch, or r->over. */
static mill_status next_batch(stm_ipc_reader *r, mill_error *err)
{
    const mill_status st = r->over ? MILL_OK : next_head(r, err);

    if (st != MILL_OK || r->over) return st;
    if (r->decoder.message_type == NANOARROW_IPC_MESSAGE_TYPE_RECORD_BATCH) return MILL_OK;
    return mill_fail(err, MILL_ERR_PARSE, "Arrow stream: a message that is not a batch");
}

mill_status stm_ipc_reader_skip(stm_ipc_reader *r, stm_ipc_block *sizes, bool *end, mill_error *err)
{
    const mill_status st = next_batch(r, err);

    *end = st == MILL_OK && r->over;
    *sizes = (stm_ipc_block){.head_bytes = (int32_t)r->head.size_bytes, .body_bytes = r->decoder.body_size_bytes};
    return st;
}

void stm_ipc_reader_moved(stm_ipc_reader *r) { r->over = false; }

mill_status stm_ipc_reader_next(stm_ipc_reader *r, mill_batch **out, mill_error *err)
{
    struct ArrowBuffer body;
    mill_status st;

    *out = NULL;
    if ((st = next_batch(r, err)) != MILL_OK || r->over) return st;
    ArrowBufferInit(&body);
    st = read_into(r, &body, r->decoder.body_size_bytes, err);
    if (st == MILL_OK) st = stm_ipc_check_body(r->head.data + PREFIX_BYTES, body.data, err);
    if (st == MILL_OK) st = decode(r, &body, out, err);
    ArrowBufferReset(&body); /* empty when it was shared */
    return st;
}

void stm_ipc_reader_destroy(stm_ipc_reader **reader)
{
    stm_ipc_reader *r = *reader;

    if (r == NULL) return;
    *reader = NULL;
    if (r->arrow_schema.release != NULL) r->arrow_schema.release(&r->arrow_schema);
    if (r->decoder.private_data != NULL) ArrowIpcDecoderReset(&r->decoder);
    ArrowBufferReset(&r->head);
    stm_free(r);
}
