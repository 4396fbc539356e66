/*
 * Groups of signatures (minhash_text) that are alike: two are when at least a share of their numbers, place by place, is equal.
 *
 * Signatures that are alike with a share t of L numbers differ in at most d = L - ceil(t L) places. Cut into d + 1 bands, they
 * agree in all of one band at least; so each is compared only with those that it has a band in common with, and none that is alike
 * is missed. Bands have two numbers at least: below a share of one half some that are only just alike may be missed (at 0.3 two of
 * a thousand).
 */
#ifndef STM_STEPS_VECTORS_SIGNATURES_H
#define STM_STEPS_VECTORS_SIGNATURES_H

#include <stdbool.h>

#include "steps/vectors/forest.h"

typedef struct stm_signatures {
    const int32_t *const *rows; /* [n] pointers to [length] numbers, borrowed */
    int64_t n, length;
    float threshold;            /* the share */
    bool (*cancelled)(void *user);
    void *user;
} stm_signatures;

/** The share of numbers that are equal. */
float stm_signatures_score(const int32_t *a, const int32_t *b, int64_t length);
/** Link in @p f [n rows] those that are alike. MILL_ERR_NOMEM, MILL_ERR_STOPPED when cancelled() says so. */
mill_status stm_signatures_link(const stm_signatures *s, stm_forest *f, mill_error *err);

#endif
