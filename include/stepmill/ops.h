/*
 * Operations on host memory for model and vector steps: exact nearest neighbours and near-duplicate pairs, signatures of texts.
 * UNSTABLE until release 1.0: this header may change in any version, and the step ABI does not cover it.
 *
 * What "exact" means here: the score of two vectors a, b is computed in double from the float32 values as they are
 * given, in one fixed order, and rounded to float32 once:
 *     dot:     sum a[i] * b[i]
 *     cosine:  sum a[i] * b[i] / (|a| * |b|), 0 when either is the zero vector
 * Fast matrix products only say which candidates can be among the results, with a proven margin. So results are the
 * same bits on every processor, for every number of threads and however vectors are cut into blocks, and equal
 * vectors tie exactly. A vector with a NaN or an infinity takes no part: it finds nothing and nothing finds it.
 */
#ifndef STEPMILL_OPS_H
#define STEPMILL_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

#define MILL_OPS_MAX_DIM 65536 /* floats of one vector */
#define MILL_OPS_MAX_K 65536   /* neighbours of one query */

typedef enum mill_metric { MILL_COSINE = 0, MILL_DOT = 1 } mill_metric;

/** The k best rows of a corpus for every query. Initialise with MILL_TOPK_INIT. All pointers are borrowed for the call. */
typedef struct mill_topk_args {
    size_t struct_size;
    int32_t metric;                /* mill_metric */
    int32_t threads;               /* host threads to use, the caller's included; < 1 means 1 */
    const float *const *queries;   /* [n_queries] pointers to [dim] floats */
    int64_t n_queries;             /* >= 0 */
    const float *const *corpus;    /* [n_corpus] pointers to [dim] floats; may be `queries` */
    int64_t n_corpus;              /* >= 0 */
    int64_t dim;                   /* 1 .. MILL_OPS_MAX_DIM */
    int64_t k;                     /* 1 .. MILL_OPS_MAX_K; may pass n_corpus */
    float threshold;               /* leave out scores below it; -INFINITY = none */
    bool exclude_self;             /* leave out corpus row q for query q */
    bool (*cancelled)(void *user); /* asked now and then, from any of the threads; NULL = never */
    void *user;
    int64_t *rows; /* out [n_queries][k]: corpus rows, best score first, equal scores by row; -1 where there are fewer */
    float *scores; /* out [n_queries][k]: their scores; 0 where there are fewer */
} mill_topk_args;
#define MILL_TOPK_INIT {.struct_size = sizeof(mill_topk_args), .threshold = -__builtin_inff(), .threads = 1}

/**
 * Needs about 2 * n_corpus * dim floats of memory at most besides the outputs.
 * @retval MILL_ERR_INVALID  an argument is out of range.
 * @retval MILL_ERR_NOMEM    out of memory.
 * @retval MILL_ERR_STOPPED  cancelled() said so.
 * On failure the outputs are undefined. Threads: any; starts and joins `threads` - 1 of its own. Blocks: until done.
 */
MILL_API mill_status mill_topk(const mill_topk_args *args, mill_error *err);

/** Rows i and j of the vectors are at least as alike as was asked for. */
typedef struct mill_pair {
    int64_t i, j; /* i < j */
    float score;
} mill_pair;

/** All pairs of rows whose score is at least `threshold`. Initialise with MILL_PAIRS_INIT. */
typedef struct mill_pairs_args {
    size_t struct_size;
    int32_t metric;              /* mill_metric */
    int32_t threads;             /* host threads to use, the caller's included; < 1 means 1 */
    const float *const *vectors; /* [n] pointers to [dim] floats */
    int64_t n;                   /* >= 0 */
    int64_t dim;                 /* 1 .. MILL_OPS_MAX_DIM */
    float threshold;             /* not NaN */
    bool scores;                 /* fill mill_pair.score (one more pass over both vectors); else it is 0 */
    bool (*cancelled)(void *user); /* asked now and then, from any of the threads; NULL = never */
    /** Takes @p n pairs: each pair comes once, never two calls at once, from any of the threads, in no fixed order.
     *  Another status than MILL_OK ends the search and is returned. Required. */
    mill_status (*found)(void *user, const mill_pair *pairs, int64_t n, mill_error *err);
    void *user;
} mill_pairs_args;
#define MILL_PAIRS_INIT {.struct_size = sizeof(mill_pairs_args), .threshold = 1.0f, .threads = 1}

/** Statuses, threads and blocking as mill_topk. Every pair is looked at once (the upper triangle of the score matrix); no list of
 *  pairs is kept. */
MILL_API mill_status mill_pairs(const mill_pairs_args *args, mill_error *err);

/** The score of two vectors of @p dim floats; NaN when one takes no part. Threads: any. Blocks: no. */
MILL_API float mill_score(int32_t metric, const float *a, const float *b, int64_t dim);

#define MILL_MINHASHES 128
#define MILL_SHINGLE_MAX 64

/** MinHash signatures (Broder, 1997). The share of places in which those of two texts are equal estimates the Jaccard similarity
 *  J = |A and B| / |A or B| of their sets of shingles, with a standard error of sqrt(J (1 - J) / MILL_MINHASHES): 0.044 at most.
 *  Initialise with MILL_MINHASH_INIT. All pointers are borrowed for the call. */
typedef struct mill_minhash_args {
    size_t struct_size;
    int32_t threads;        /* host threads to use, the caller's included; < 1 means 1 */
    /* bytes of a shingle, 1 .. MILL_SHINGLE_MAX: each window of so many is one; a shorter text is one itself */
    int32_t width;
    uint64_t seed;          /* signatures of different seeds or widths have nothing in common */
    const void *bytes;      /* texts end to end */
    const int64_t *offsets; /* [rows + 1] ascending, from any number on */
    int64_t rows;           /* 0 .. 2^31 - 1 */
    uint32_t *out;          /* out [rows][MILL_MINHASHES]; all bits set for an empty text */
} mill_minhash_args;
#define MILL_MINHASH_INIT                                         \
    {                                                             \
        sizeof(mill_minhash_args), 1, 9, 0, NULL, NULL, 0, NULL \
    }

/**
 * Equal bytes give equal numbers, on every processor and device.
 * @retval MILL_ERR_INVALID  an argument is out of range.
 * Threads: any; starts and joins `threads` - 1 of its own. Blocks until done.
 */
MILL_API mill_status mill_minhash(const mill_minhash_args *args, mill_error *err);

MILL_END_DECLS

#endif
