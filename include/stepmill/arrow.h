/* Batches to and from the Apache Arrow C data interface (https://arrow.apache.org/docs/format/CDataInterface.html). Experimental
 * until 1.0. */
#ifndef STEPMILL_ARROW_H
#define STEPMILL_ARROW_H

#include "stepmill/batch.h"

MILL_BEGIN_DECLS

/* The structs of the Arrow C data and stream interfaces, an ABI that every Arrow library shares; the guards are those they use. */
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4
struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};
struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#endif
#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE
struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};
#endif

/*
 * A schema here is a struct type: one field per column, in order. Types map as follows; all layouts are shared, not copied:
 *   bool, int32, int64, float16/32/64   the same      list         large_list
 *   utf8                                large_utf8    fixed_list   fixed_size_list
 *   binary                              large_binary  struct       struct
 *   json                                large_utf8 with the extension name "arrow.json"
 * On import also: utf8, binary, list (32-bit offsets, widened by a copy); int8, int16, uint8, uint16 (to int32) and uint32
 * (to int64). Anything else, and dictionaries, are MILL_ERR_UNSUPPORTED, naming the column.
 */

/** Describe @p schema (any type, usually a struct). On success the caller calls out->release; on failure *out is untouched.
 *  Threads: any. Blocks: no. */
MILL_API mill_status mill_arrow_export_type(const mill_type *schema, struct ArrowSchema *out, mill_error *err);
/** The type that a column described by @p in becomes. @p in is borrowed. Extension names other than "arrow.json" are ignored.
 *  @retval MILL_ERR_INVALID      @p in is released, or has no format.
 *  @retval MILL_ERR_UNSUPPORTED  a type without counterpart, which is named.
 *  @retval MILL_ERR_NOMEM        out of memory.
 *  Threads: any. Blocks: a short lock. */
MILL_API mill_status mill_arrow_import_type(const struct ArrowSchema *in, const mill_type **out, mill_error *err);
/**
 * Share the columns of @p batch as one struct array. Nothing is copied: the array holds references, so it may outlive the
 * batch and be released by any thread. Columns that the batch does not have become nulls. Keys and error marks do not go along.
 * @param schema  Struct type with as many fields as the batch has columns, of their types.
 * @param out     On success the caller calls out->release; untouched on failure.
 * @retval MILL_ERR_TYPE     a column has another type.
 * @retval MILL_ERR_INVALID  @p schema is no struct with as many fields.
 * @retval MILL_ERR_NOMEM    out of memory.
 * Threads: the batch's owner. Blocks: no.
 */
MILL_API mill_status mill_arrow_export_batch(const mill_batch *batch, const mill_type *schema, struct ArrowArray *out,
                                             mill_error *err);
/**
 * Make a batch of a struct array. On success @p array is moved from (its release is NULL afterwards) and its memory is released
 * with the last column that shares it, from whatever thread; on failure it is still the caller's.
 * @param schema  Borrowed.
 * @param out     The caller's (mill_batch_destroy); untouched on failure.
 * @retval MILL_ERR_DATA         an offset or a text is not what it should be: each is checked. Sizes of buffers cannot be, the
 *                               interface does not tell them.
 * @retval MILL_ERR_UNSUPPORTED  a type without counterpart, or a struct with nulls of its own rather than in its fields.
 * @retval MILL_ERR_INVALID      it is no struct, or @p array is released.
 * @retval MILL_ERR_NOMEM        memory or the pool's limit is exhausted.
 * Threads: any; one that nobody else uses @p array in. Blocks: no.
 */
MILL_API mill_status mill_arrow_import_batch(mill_pool *pool, const struct ArrowSchema *schema, struct ArrowArray *array,
                                             mill_batch **out, mill_error *err);

MILL_END_DECLS

#endif
