/*
 * The screen: approximate scores of blocks of queries against tiles of a corpus by matrix products, with a bound on
 * their error. What passes it is scored exactly (stm_score_of).
 *
 * Vectors are scaled first, so that every screen score is in [-1, 1] and one bound holds for all:
 *     cosine  query / |query|,  corpus / |corpus|
 *     dot     query / |query|,  corpus / (largest |corpus|); screen score = score / (|query| * largest |corpus|)
 *
 * The bound, for d dimensions. u is 2^-24, v the rounding of the product's type (f32: 0, bf16: 2^-8).
 *     scaling rounds each component once: 2 u; rounding to bf16: 2 v + v^2; d products and sums, in any order and with
 *     or without fused multiply-adds: d u (1 + ...) ; all times sum |a_i b_i| <= |a| |b| <= 1, by Cauchy and Schwarz.
 *     Denormals that bf16 hardware flushes lose less than 2^-126 each. The final rounding of the exact score: u.
 * The sum is below (d + 8) u * 1.01 + 2 v + v^2 + 2^-100 for d u < 0.01, i.e. d <= 2^17.
 */
#ifndef STM_KERNELS_SCREEN_H
#define STM_KERNELS_SCREEN_H

#include <stdatomic.h>

#include "kernels/gemm.h"
#include "kernels/vectors.h"
#include "stepmill/ops.h"

/** How to cut the work; tests vary it, results do not change. */
typedef struct stm_screen_opts {
    stm_gemm_type type;
    int32_t tile_rows;  /* corpus rows of one packed tile, >= 1 */
    int32_t block_rows; /* query rows a worker takes at a time, a multiple of STM_GEMM_ROWS */
} stm_screen_opts;
/** The fastest for this processor. @p k rows are kept per query. */
stm_screen_opts stm_screen_defaults(int64_t n_queries, int64_t k, int32_t threads);

typedef struct stm_screen {
    stm_screen_opts opts;
    int32_t metric, threads;
    int64_t dim, lda;           /* lda: values of a scaled query, padded */
    float margin;               /* see stm_screen_margin */
    stm_vectors own;            /* of the corpus */
    const stm_vectors *queries; /* &own when the corpus searches itself */
    stm_vectors other;
    stm_gemm_weight **tiles; /* [n_tiles]; tile t holds own.kept[t * tile_rows ...], the last one padded with zeros */
    int64_t n_tiles;
} stm_screen;

/** One worker's memory. */
typedef struct stm_screen_worker {
    stm_gemm_scratch *gemm;
    void *block;    /* [block_rows][lda] scaled queries, f32 or bf16 */
    float *scaled;  /* [lda] */
    float *scores;  /* [STM_GEMM_ROWS][tile_rows] */
    int32_t *found; /* [tile_rows] */
} stm_screen_worker;

/** Scale and pack. @p queries NULL: the corpus searches itself. Pointers are borrowed until stm_screen_fini. On failure
 *  nothing is left behind. @p copies > 0: of vectors with equal bytes only the first so many can be found; a search for k
 *  neighbours needs k + 1, since equal scores go by row, and a corpus of many copies would have each scored exactly for
 *  each. Threads: owner; uses @p threads. */
mill_status stm_screen_init(stm_screen *s, const stm_screen_opts *opts, int32_t metric, int32_t threads, int64_t dim,
                            const float *const *queries, int64_t n_queries, const float *const *corpus, int64_t n_corpus,
                            int64_t copies, mill_error *err);
void stm_screen_fini(stm_screen *s);
mill_status stm_screen_worker_init(const stm_screen *s, stm_screen_worker *w, mill_error *err);
void stm_screen_worker_fini(stm_screen_worker *w);

/** Scale @p n valid queries from the @p first on into the worker's block; the rest of the last 64 rows is zeroed. */
void stm_screen_load(const stm_screen *s, stm_screen_worker *w, int64_t first, int64_t n);
/** Screen scores of rows 64 * sub .. of the block against tile @p t into w->scores. */
mill_status stm_screen_run(const stm_screen *s, stm_screen_worker *w, int64_t t, int64_t sub, int64_t m, mill_error *err);
/** Corpus rows (kept ones) in tile @p t. */
int64_t stm_screen_tile(const stm_screen *s, int64_t t);

/** How far a screen score of query row @p q can be from the exact one, both scaled; INFINITY where nothing is known. */
float stm_screen_margin(const stm_screen *s, int64_t q);
/** Screen score that any pair with an exact score >= threshold reaches, for query row @p q. */
float stm_screen_floor(const stm_screen *s, int64_t q, float threshold);
/** The exact score of query row @p q and corpus row @p c, both valid. */
float stm_screen_exact(const stm_screen *s, int64_t q, int64_t c);

#endif
