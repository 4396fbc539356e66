#include "batch/ipc.h"

#include <errno.h>
#include <string.h>

#include "batch/arrow_type.h"
#include "batch/batch.h"
#include "batch/builder.h"
#include "batch/column.h"
#include "core/alloc.h"
#include "nanoarrow/nanoarrow_ipc.h"

struct stm_ipc_writer {
    const mill_type *schema;
    stm_ipc_sink sink;
    void *user;
    struct ArrowSchema arrow_schema;
    struct ArrowIpcEncoder encoder;
    struct ArrowArrayView view;    /* these three are kept between batches: writing one allocates nothing */
    struct ArrowBuffer head, body;
};

static mill_status failed(int code, const struct ArrowError *why, mill_error *err)
{
    if (code == ENOMEM) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow message");
    return mill_fail(err, MILL_ERR_INTERNAL, "cannot encode an Arrow message: %.200s", why->message);
}

static mill_status send(stm_ipc_writer *w, const struct ArrowBuffer *b, mill_error *err)
{
    return b->size_bytes > 0 ? w->sink(w->user, b->data, (size_t)b->size_bytes, err) : MILL_OK;
}

static mill_status send_head(stm_ipc_writer *w, mill_error *err)
{
    struct ArrowError why = {{0}};
    int code;

    w->head.size_bytes = 0;
    code = ArrowIpcEncoderFinalizeBuffer(&w->encoder, 1, &w->head);
    if (code != NANOARROW_OK) return failed(code, &why, err);
    return send(w, &w->head, err);
}

static mill_status begin(const mill_type *schema, bool say_schema, stm_ipc_sink sink, void *user, stm_ipc_writer **out,
                         mill_error *err)
{
    struct ArrowError why = {{0}};
    stm_ipc_writer *w;
    mill_status st;
    int code;

    if (schema == NULL || schema->id != MILL_STRUCT) return mill_fail(err, MILL_ERR_INVALID, "the schema of a stream is a struct");
    w = stm_calloc(sizeof *w);
    if (w == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow stream");
    w->schema = schema;
    w->sink = sink;
    w->user = user;
    ArrowBufferInit(&w->head);
    ArrowBufferInit(&w->body);
    ArrowArrayViewInitFromType(&w->view, NANOARROW_TYPE_UNINITIALIZED);
    if ((code = ArrowIpcEncoderInit(&w->encoder)) != NANOARROW_OK) st = failed(code, &why, err);
    else if ((st = mill_arrow_export_type(schema, &w->arrow_schema, err)) != MILL_OK) (void)0;
    else if ((code = ArrowArrayViewInitFromSchema(&w->view, &w->arrow_schema, &why)) != NANOARROW_OK) st = failed(code, &why, err);
    else if (!say_schema) (void)0;
    else if ((code = ArrowIpcEncoderEncodeSchema(&w->encoder, &w->arrow_schema, &why)) != NANOARROW_OK)
        st = failed(code, &why, err);
    else st = send_head(w, err);
    if (st != MILL_OK) {
        stm_ipc_writer_destroy(&w);
        return st;
    }
    *out = w;
    return MILL_OK;
}

mill_status stm_ipc_writer_create(const mill_type *schema, stm_ipc_sink sink, void *user, stm_ipc_writer **out, mill_error *err)
{
    return begin(schema, true, sink, user, out, err);
}

mill_status stm_ipc_writer_resume(const mill_type *schema, stm_ipc_sink sink, void *user, stm_ipc_writer **out, mill_error *err)
{
    return begin(schema, false, sink, user, out, err);
}

/* IPC has no offsets and wants children of exactly the right length: whether a column is so already. */
static bool is_compact(const mill_column *c, int64_t rows)
{
    const mill_view *v = stm_view(c);

    if (v->offset != 0 || v->rows != rows) return false;
    if (v->offsets != NULL && (v->offsets[0] != 0)) return false;
    for (int32_t i = 0; i < v->type->n_fields; i++) {
        const int64_t need = v->type->id == MILL_STRUCT       ? rows
                             : v->type->id == MILL_FIXED_LIST ? rows * v->type->length
                                                              : v->offsets[rows];

        if (!is_compact(v->children[i], need)) return false;
    }
    return true;
}

/* A batch whose columns are compact; *out = NULL when the given one is. */
static mill_status compact(const mill_batch *batch, mill_batch **out)
{
    mill_builder *b = NULL;
    mill_batch *copy = NULL;
    mill_status st = MILL_OK;
    bool need = false;

    *out = NULL;
    for (int32_t i = 0; i < batch->n_columns && !need; i++)
        need = batch->columns[i] != NULL && !is_compact(batch->columns[i], batch->rows);
    if (!need) return MILL_OK;
    st = mill_batch_create(batch->pool, batch->rows, batch->n_columns, &copy);
    for (int32_t i = 0; i < batch->n_columns && st == MILL_OK; i++) {
        mill_column *c = batch->columns[i];

        if (c == NULL) continue;
        if (is_compact(c, batch->rows)) {
            copy->columns[i] = mill_column_ref(c);
            continue;
        }
        if ((st = mill_builder_create(batch->pool, c->view.type, &b)) != MILL_OK) break;
        stm_builder_plan(b, c, 0, batch->rows);
        st = stm_builder_plan_done(b);
        if (st == MILL_OK) st = stm_builder_append(b, c, 0, batch->rows);
        if (st == MILL_OK) st = mill_builder_finish(b, &copy->columns[i]);
        mill_builder_destroy(&b);
    }
    if (st != MILL_OK)
        mill_batch_destroy(&copy);
    else
        *out = copy;
    return st;
}

static mill_status encode(stm_ipc_writer *w, struct ArrowArray *array, mill_error *err)
{
    struct ArrowError why = {{0}};
    mill_status st;
    int code = ArrowArrayViewSetArray(&w->view, array, &why);

    w->body.size_bytes = 0;
    if (code == NANOARROW_OK) code = ArrowIpcEncoderEncodeSimpleRecordBatch(&w->encoder, &w->view, &w->body, &why);
    if (code != NANOARROW_OK) return failed(code, &why, err);
    if ((st = send_head(w, err)) != MILL_OK) return st;
    return send(w, &w->body, err);
}

mill_status stm_ipc_writer_batch(stm_ipc_writer *w, const mill_batch *batch, mill_error *err)
{
    struct ArrowArray array;
    mill_batch *copy;
    mill_status st = compact(batch, &copy);

    if (st != MILL_OK) return mill_fail(err, st, "out of memory for an Arrow batch");
    st = mill_arrow_export_batch(copy != NULL ? copy : batch, w->schema, &array, err);
    mill_batch_destroy(&copy);
    if (st != MILL_OK) return st;
    st = encode(w, &array, err);
    array.release(&array);
    return st;
}

mill_status stm_ipc_writer_end(stm_ipc_writer *w, mill_error *err)
{
    static const unsigned char mark[8] = {0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0};

    return w->sink(w->user, mark, sizeof mark, err);
}

stm_ipc_block stm_ipc_writer_last(const stm_ipc_writer *w)
{
    return (stm_ipc_block){.head_bytes = (int32_t)w->head.size_bytes, .body_bytes = w->body.size_bytes};
}

mill_status stm_ipc_writer_footer(stm_ipc_writer *w, const stm_ipc_block *blocks, size_t n, mill_error *err)
{
    struct ArrowError why = {{0}};
    struct ArrowIpcFooter footer;
    char tail[10] = {0, 0, 0, 0, 'A', 'R', 'R', 'O', 'W', '1'};
    mill_status st;
    int code = NANOARROW_OK;

    ArrowIpcFooterInit(&footer);
    st = mill_arrow_export_type(w->schema, &footer.schema, err);
    for (size_t i = 0; i < n && code == NANOARROW_OK; i++) {
        const struct ArrowIpcFileBlock block = {
            .offset = blocks[i].offset, .metadata_length = blocks[i].head_bytes, .body_length = blocks[i].body_bytes};

        code = ArrowBufferAppend(&footer.record_batch_blocks, &block, sizeof block);
    }
    if (st == MILL_OK && code == NANOARROW_OK) code = ArrowIpcEncoderEncodeFooter(&w->encoder, &footer, &why);
    w->head.size_bytes = 0;
    if (st == MILL_OK && code == NANOARROW_OK) code = ArrowIpcEncoderFinalizeBuffer(&w->encoder, 0, &w->head);
    ArrowIpcFooterReset(&footer);
    if (st == MILL_OK && code != NANOARROW_OK) st = failed(code, &why, err);
    for (int i = 0; i < 4; i++) tail[i] = (char)(w->head.size_bytes >> (8 * i));
    if (st == MILL_OK) st = send(w, &w->head, err);
    return st == MILL_OK ? w->sink(w->user, tail, sizeof tail, err) : st;
}

void stm_ipc_writer_destroy(stm_ipc_writer **writer)
{
    stm_ipc_writer *w = *writer;

    if (w == NULL) return;
    *writer = NULL;
    if (w->arrow_schema.release != NULL) w->arrow_schema.release(&w->arrow_schema);
    if (w->encoder.private_data != NULL) ArrowIpcEncoderReset(&w->encoder);
    ArrowArrayViewReset(&w->view);
    ArrowBufferReset(&w->head);
    ArrowBufferReset(&w->body);
    stm_free(w);
}
