/* YAML text to a tree of values, every one with its place in the file. */
#ifndef STM_PIPELINE_YAML_H
#define STM_PIPELINE_YAML_H

#include "pipeline/arena.h"
#include "plugin/step.h"

#define STM_YAML_MAX_BYTES ((size_t)8 << 20) /* of a file */
#define STM_YAML_MAX_DEPTH 48                /* lists and maps inside each other */
#define STM_YAML_MAX_NODES 200000            /* with every alias written out */

/**
 * Read one YAML 1.2 document. Scalars, lists, maps, anchors and aliases; no tags, one document, string keys, each once.
 * An alias shares the items of its anchor; what that would come to written out is limited to STM_YAML_MAX_NODES, so
 * that whoever walks the tree needs no limit of its own.
 * @param file  Name for error messages; borrowed by the tree (put it in the arena).
 * @param out   Root of the tree; all of it lives in @p a. An empty document gives a scalar with text NULL.
 * @retval MILL_ERR_PARSE  with file:line:column and what is wrong.
 */
mill_status stm_yaml_parse(stm_arena *a, const char *text, size_t bytes, const char *file, stm_value *out, mill_error *err);

/** Entry of map @p map with that key, or NULL (also when @p map is NULL or not a map). */
stm_value *stm_value_get(const stm_value *map, const char *key);
/** Add @p item to the end of list or map @p to. Gives the added item, or NULL when out of memory. */
stm_value *stm_value_append(stm_arena *a, stm_value *to, const stm_value *item);
/** Give @p map items of its own, which may then be changed: an alias shares them with others. false when out of memory. */
bool stm_value_own(stm_arena *a, stm_value *map);
/** "a list", "a map", "null", "'abc'": for "expected ..., got ...". Writes to buf, returns buf. */
const char *stm_yaml_show(const stm_value *v, char *buf, size_t size);

#endif
