/* A set of vectors to search: which of them take part, how long they are, which are copies of others. */
#ifndef STM_KERNELS_VECTORS_H
#define STM_KERNELS_VECTORS_H

#include <stdbool.h>
#include <stdint.h>

#include "stepmill/error.h"

/** One set of vectors: which of them take part, and their lengths. */
typedef struct stm_vectors {
    const float *const *rows; /* [n], borrowed */
    int64_t n, dim;
    double *length; /* [n]; -1: not finite, takes no part */
    uint64_t *hash; /* [n] as in lengths.h, or NULL: stm_vectors_drop_copies makes hashes of its own */
    int64_t *valid; /* [n_valid] rows that take part, increasing */
    int64_t n_valid;
    int64_t *kept; /* [n_kept] those of them that can be found: valid itself, or fewer (stm_vectors_drop_copies) */
    int64_t n_kept;
    double longest; /* 0 when there is none */
} stm_vectors;

/** Measure @p n vectors, whose pointers are borrowed. On failure too stm_vectors_fini is to follow. Threads: owner; uses
 *  @p threads. The same as stm_vectors_begin and stm_vectors_measure; between the two whoever knows lengths (and, where they are
 *  @p hashed, hashes) otherwise writes them. */
mill_status stm_vectors_init(stm_vectors *v, const float *const *rows, int64_t n, int64_t dim, int32_t threads, mill_error *err);
mill_status stm_vectors_begin(stm_vectors *v, const float *const *rows, int64_t n, int64_t dim, bool hashed, mill_error *err);
void stm_vectors_measure(stm_vectors *v, int32_t threads);
/** Leave out of v->kept what has @p copies equals before it. */
mill_status stm_vectors_drop_copies(stm_vectors *v, int64_t copies, int32_t threads, mill_error *err);
void stm_vectors_fini(stm_vectors *v);

/** Exact score from its parts; lengths are those of stm_length. */
float stm_score_of(int32_t metric, double dot, double length_a, double length_b);
/** sqrt(a . a); -1 when a component is not finite. */
double stm_length(const float *a, int64_t dim);

#endif
