/* Column types. Types are interned: two equal types are one pointer, valid for the life of the process: nobody releases one. */
#ifndef STEPMILL_TYPE_H
#define STEPMILL_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

/** Layouts are those of Apache Arrow, always with 64-bit offsets, so that no column wraps at 2 GiB. */
typedef enum mill_type_id {
    MILL_BOOL = 1,   /* bits, least significant first */
    MILL_INT32 = 2,
    MILL_INT64 = 3,
    MILL_FLOAT16 = 4,
    MILL_FLOAT32 = 5,
    MILL_FLOAT64 = 6,
    MILL_UTF8 = 7,   /* int64 offsets [rows + 1] + bytes */
    MILL_BINARY = 8, /* as utf8, any bytes */
    MILL_JSON = 9,   /* as utf8; one JSON value per row, kept as read */
    MILL_LIST = 10,  /* int64 offsets [rows + 1] + one child */
    MILL_FIXED_LIST = 11, /* one child of rows * length values */
    MILL_STRUCT = 12      /* one child per field */
} mill_type_id;

typedef struct mill_type mill_type;
typedef struct mill_field {
    const char *name;
    const mill_type *type;
} mill_field;
struct mill_type {
    int32_t id;       /* mill_type_id */
    int32_t length;   /* fixed list: values per row; else 0 */
    int32_t n_fields; /* list and fixed list: 1; struct: its fields; else 0 */
    int32_t width;    /* bytes per value of a fixed-width type; 0 = variable or nested; bool: 0 (bits) */
    const mill_field *fields;
};

/** A type without children. @p id must be bool .. json; NULL for any other. Threads: any. Blocks: no. */
MILL_API const mill_type *mill_type_plain(mill_type_id id);
/** list<item>; NULL when out of memory or nested too deeply (64 levels), as the two below. Threads: any. Blocks: a short lock. */
MILL_API const mill_type *mill_type_list(const mill_type *item);
/** fixed_list<item>[length], length >= 1; NULL when out of memory or length < 1. Threads: any. Blocks: a short lock. */
MILL_API const mill_type *mill_type_fixed_list(const mill_type *item, int32_t length);
/** struct<name: type, ...>; names and array are copied; NULL when out of memory or a name repeats. Threads: any. Blocks: a short
 *  lock. */
MILL_API const mill_type *mill_type_struct(const mill_field *fields, int32_t n_fields);
/** Read the text form, e.g. "utf8", "float32", "list<int32>", "fixed_list<float32>[384]",
 *  "struct<a: utf8, b: list<int64>>". On failure *out is untouched and @p err says what was expected.
 *  @retval MILL_ERR_PARSE  it is no type, or nested too deeply.
 *  @retval MILL_ERR_NOMEM  out of memory.
 *  Threads: any. Blocks: a short lock. */
MILL_API mill_status mill_type_parse(const char *text, const mill_type **out, mill_error *err);
/** Write the text form; returns the length it would need, as snprintf. Threads: any. Blocks: no. */
MILL_API int mill_type_format(const mill_type *type, char *buf, size_t size);

MILL_END_DECLS

#endif
