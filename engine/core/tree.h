/* A small JSON text as a tree: files of our own that are read now and then. Models are read by models/json.h, which is fast; rows
 * in steps/jsonl. */
#ifndef STM_CORE_TREE_H
#define STM_CORE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

typedef enum stm_tree_kind {
    STM_TREE_NULL,
    STM_TREE_BOOL,
    STM_TREE_NUMBER,
    STM_TREE_TEXT,
    STM_TREE_ARRAY,
    STM_TREE_OBJECT
} stm_tree_kind;

typedef struct stm_tree {
    stm_tree_kind kind;
    const char *key;        /* name in its object; "" elsewhere */
    const char *text;       /* of texts, unescaped; "" otherwise */
    double number;          /* numbers; booleans are 0 or 1 */
    int64_t whole;          /* numbers without point and exponent, exact; others truncated */
    int32_t n;              /* members of arrays and objects */
    struct stm_tree *first; /* of them */
    struct stm_tree *next;  /* sibling */
} stm_tree;

typedef struct stm_tree_doc stm_tree_doc;
/**
 * Take a whole text apart; it is copied. *root lives as long as *out, which the caller destroys.
 * @retval MILL_ERR_DATA   no JSON, something behind it, or nested more than 64 deep.
 * @retval MILL_ERR_NOMEM
 */
mill_status stm_tree_parse(const char *bytes, size_t n, stm_tree_doc **out, const stm_tree **root);
void stm_tree_destroy(stm_tree_doc **doc);

/* All take NULL for "is not there" and give something harmless for what is not there or has another kind. */
/** Member of an object; NULL = none. */
const stm_tree *stm_tree_get(const stm_tree *object, const char *key);
const char *stm_tree_text(const stm_tree *object, const char *key); /* "" */
double stm_tree_number(const stm_tree *object, const char *key, double otherwise);
int64_t stm_tree_whole(const stm_tree *object, const char *key, int64_t otherwise);

#endif
