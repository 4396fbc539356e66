/* Reading JSON files of models: a document as a tree of values. A C face for simdjson. */
#ifndef STM_MODELS_JSON_H
#define STM_MODELS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

typedef struct stm_json stm_json;
/** A value inside a document; copied freely, valid as long as the document. Zeroed: absent (kind STM_JSON_NONE). */
typedef struct stm_json_value {
    const void *doc;
    size_t at;
} stm_json_value;
typedef enum stm_json_kind {
    STM_JSON_NONE = 0, /* absent */
    STM_JSON_NULL,
    STM_JSON_BOOL,
    STM_JSON_INT, /* fits int64 */
    STM_JSON_FLOAT,
    STM_JSON_STRING,
    STM_JSON_ARRAY,
    STM_JSON_OBJECT
} stm_json_kind;

/** Parse all @p n bytes. @p name stands in messages. MILL_ERR_PARSE with the reason. Threads: any, one per document. */
mill_status stm_json_parse(const char *bytes, size_t n, const char *name, stm_json **out, mill_error *err);
/** Read and parse a file. MILL_ERR_NOT_FOUND when it does not exist (then @p err stays empty if @p optional). */
mill_status stm_json_open(const char *path, bool optional, stm_json **out, mill_error *err);
void stm_json_close(stm_json **doc);
stm_json_value stm_json_root(const stm_json *doc);

stm_json_kind stm_json_kind_of(stm_json_value v);
/** Member @p key of an object; absent when v is no object or has none. The first of equal keys. */
stm_json_value stm_json_get(stm_json_value v, const char *key);
/** Text of a string and its bytes (may contain NUL; also NUL-terminated); NULL for another kind. */
const char *stm_json_text(stm_json_value v, size_t *bytes);
/** The value, or @p otherwise for another kind. */
int64_t stm_json_int(stm_json_value v, int64_t otherwise);
double stm_json_float(stm_json_value v, double otherwise); /* integers, too */
bool stm_json_bool(stm_json_value v, bool otherwise);
/** Visit members of an object (key not NULL) or items of an array (key NULL) in order, until @p visit returns false.
 *  Returns whether all were visited; other kinds have none. */
typedef bool stm_json_visit(void *user, const char *key, size_t key_bytes, stm_json_value v);
bool stm_json_each(stm_json_value v, stm_json_visit *visit, void *user);
size_t stm_json_count(stm_json_value v);

MILL_END_DECLS

#endif
