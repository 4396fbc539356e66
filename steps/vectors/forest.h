/*
 * Groups of rows that are linked, also through others: a forest in which every tree is a group and its root the lowest member, so
 * that the outcome does not depend on the order in which links come. After stm_forest_settle the members of each group are chained
 * in row order.
 */
#ifndef STM_STEPS_VECTORS_FOREST_H
#define STM_STEPS_VECTORS_FOREST_H

#include "stepmill/error.h"

/** Zeroed = empty. */
typedef struct stm_forest {
    int64_t *parent; /* [n]; the root, once settled */
    int64_t *next;   /* [n] settled: next member of the same group, -1 = last */
    int64_t *size;   /* [n] settled: members, at roots */
    int64_t n;
} stm_forest;

/** @p n rows, each a group of its own. stm_forest_fini in any case. */
mill_status stm_forest_init(stm_forest *f, int64_t n, mill_error *err);
void stm_forest_fini(stm_forest *f);
int64_t stm_forest_root(stm_forest *f, int64_t i);
void stm_forest_link(stm_forest *f, int64_t i, int64_t j);
/** No links come any more. */
mill_status stm_forest_settle(stm_forest *f, mill_error *err);

#endif
