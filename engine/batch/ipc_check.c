#include "batch/ipc_check.h"

#include <string.h>

#include "batch/type.h"
#include "nanoarrow/ipc/flatcc_generated.h"

#define NS(x) FLATBUFFERS_WRAP_NAMESPACE(org_apache_arrow_flatbuf, x)
#define MAX_ROWS ((int64_t)1 << 45)
#define MAX_PACKED 16384 /* times as many bytes unpacked, and some more: runs of one byte */
#define MORE_UNPACKED ((int64_t)64 << 20)

static mill_status missing(mill_error *err, const char *what) { return mill_fail(err, MILL_ERR_PARSE, "Arrow stream: %s", what); }

static mill_status check_pairs(NS(KeyValue_vec_t) pairs, mill_error *err)
{
    for (size_t i = 0; i < NS(KeyValue_vec_len(pairs)); i++) {
        NS(KeyValue_table_t) kv = NS(KeyValue_vec_at(pairs, i));

        if (kv == NULL || NS(KeyValue_key(kv)) == NULL || NS(KeyValue_value(kv)) == NULL)
            return missing(err, "metadata without key or value");
    }
    return MILL_OK;
}

static mill_status no_counterpart(NS(Field_table_t) f, const char *why, mill_error *err)
{
    return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow column \"%.64s\" %s", NS(Field_name(f)) != NULL ? NS(Field_name(f)) : "",
                     why);
}

/* The verifier bounds nesting, so this may recurse. */
static mill_status check_fields(NS(Field_vec_t) fields, int depth, mill_error *err)
{
    mill_status st = MILL_OK;

    if (depth > STM_TYPE_MAX_DEPTH) return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow stream: types nested too deeply");
    for (size_t i = 0; i < NS(Field_vec_len(fields)) && st == MILL_OK; i++) {
        NS(Field_table_t) f = NS(Field_vec_at(fields, i));

        if (f == NULL || NS(Field_type_get(f)) == NULL) return missing(err, "a field without a type");
        if (NS(Field_dictionary(f)) != NULL) return no_counterpart(f, "is dictionary-encoded: write its values", err);
        if (NS(Field_type_type(f)) > NS(Type_LargeList))
            return no_counterpart(f, "is of a type, such as a view, that has no counterpart: cast it", err);
        if ((st = check_pairs(NS(Field_custom_metadata(f)), err)) == MILL_OK)
            st = check_fields(NS(Field_children(f)), depth + 1, err);
    }
    return st;
}

/* Lengths of a field and what is below it; nodes stand in the order of a walk from the top. */
static mill_status check_nodes(const mill_type *t, NS(FieldNode_vec_t) nodes, size_t *at, mill_error *err)
{
    NS(FieldNode_struct_t) node;
    int64_t rows, nulls;
    mill_status st = MILL_OK;

    if (*at >= NS(FieldNode_vec_len(nodes))) return missing(err, "a batch with too few columns");
    node = NS(FieldNode_vec_at(nodes, *at));
    rows = NS(FieldNode_length(node));
    nulls = NS(FieldNode_null_count(node));
    ++*at;
    if (rows < 0 || rows > MAX_ROWS || nulls < -1 || nulls > rows || (t->length > 0 && rows > INT64_MAX / 4 / t->length))
        return mill_fail(err, MILL_ERR_PARSE, "Arrow stream: a column of %lld rows with %lld nulls", (long long)rows,
                         (long long)nulls);
    for (int32_t i = 0; i < t->n_fields && st == MILL_OK; i++) st = check_nodes(t->fields[i].type, nodes, at, err);
    return st;
}

static mill_status check_batch(NS(RecordBatch_table_t) batch, int64_t body_bytes, const mill_type *schema, mill_error *err)
{
    NS(Buffer_vec_t) buffers = NS(RecordBatch_buffers(batch));
    NS(FieldNode_vec_t) nodes = NS(RecordBatch_nodes(batch));
    size_t at = 0;
    mill_status st = MILL_OK;

    if (schema == NULL) return missing(err, "a batch before the schema");
    if (NS(RecordBatch_length(batch)) < 0 || NS(RecordBatch_length(batch)) > MAX_ROWS)
        return missing(err, "a batch of absurd length");
    if (NS(RecordBatch_compression(batch)) != NULL &&
        NS(BodyCompression_codec(NS(RecordBatch_compression(batch)))) != NS(CompressionType_ZSTD)) {
        mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow stream is compressed with lz4");
        mill_error_remedy(err, "Write it with zstd, or without compression");
        return MILL_ERR_UNSUPPORTED;
    }
    if (NS(RecordBatch_variadicBufferCounts(batch)) != NULL)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow stream: view columns");
    for (size_t i = 0; i < NS(Buffer_vec_len(buffers)); i++) {
        NS(Buffer_struct_t) b = NS(Buffer_vec_at(buffers, i));
        const int64_t from = NS(Buffer_offset(b)), bytes = NS(Buffer_length(b));

        if (from < 0 || bytes < 0 || from > body_bytes || bytes > body_bytes - from)
            return missing(err, "a buffer outside its message");
        if (from % 8 != 0) return missing(err, "a buffer that is not aligned");
    }
    for (int32_t i = 0; i < schema->n_fields && st == MILL_OK; i++) st = check_nodes(schema->fields[i].type, nodes, &at, err);
    return st;
}

mill_status stm_ipc_check_body(const void *message, const uint8_t *body, mill_error *err)
{
    NS(Message_table_t) m = NS(Message_as_root(message));
    NS(RecordBatch_table_t) batch = NS(Message_header_get(m));
    NS(Buffer_vec_t) buffers = NS(RecordBatch_buffers(batch));
    int64_t packed = 0, unpacked = 0;

    if (NS(RecordBatch_compression(batch)) == NULL) return MILL_OK;
    for (size_t i = 0; i < NS(Buffer_vec_len(buffers)); i++) {
        NS(Buffer_struct_t) b = NS(Buffer_vec_at(buffers, i));
        const int64_t from = NS(Buffer_offset(b)), bytes = NS(Buffer_length(b));
        int64_t says;

        if (bytes == 0) continue;
        if (bytes < (int64_t)sizeof says) return missing(err, "a compressed buffer without its size");
        memcpy(&says, body + from, sizeof says);
        if (says == -1) continue; /* not compressed after all */
        packed += bytes;
        if (says < 0 || __builtin_add_overflow(unpacked, says, &unpacked) || unpacked > packed * MAX_PACKED + MORE_UNPACKED)
            return mill_fail(err, MILL_ERR_PARSE, "Arrow stream: a compressed buffer of %lld bytes that says it is %lld",
                             (long long)bytes, (long long)says);
    }
    return MILL_OK;
}

mill_status stm_ipc_check(const void *message, const mill_type *schema, mill_error *err)
{
    NS(Message_table_t) m = NS(Message_as_root(message));
    const void *header = m != NULL ? NS(Message_header_get(m)) : NULL;
    mill_status st;

    if (header == NULL) return missing(err, "a message without a header");
    if (NS(Message_bodyLength(m)) < 0) return missing(err, "a message of negative length");
    if (NS(Message_header_type(m)) == NS(MessageHeader_RecordBatch))
        return check_batch(header, NS(Message_bodyLength(m)), schema, err);
    if (NS(Message_header_type(m)) == NS(MessageHeader_DictionaryBatch))
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow stream has dictionaries");
    if (NS(Message_header_type(m)) != NS(MessageHeader_Schema)) return missing(err, "a message that is neither schema nor batch");
    if ((st = check_pairs(NS(Schema_custom_metadata(header)), err)) != MILL_OK) return st;
    return check_fields(NS(Schema_fields(header)), 0, err);
}
