/*
 * nearest: the k best rows of a block of a corpus for each query, exactly, merged into what earlier blocks gave.
 *
 *     best[q] = the k smallest of best[q] and stm_rank_of(score(q, c), first + c)       c = 0 .. corpus.n-1, without self[q],
 *                                                                                      scores from the threshold on
 *
 * Scores are those of stepmill/ops.h: sums in double of the float32 values in one fixed order, so their bits are the host's.
 * merge_ranks does the same with lists that several devices made. Exact: no tolerance.
 *
 * How the device finds them: products of the unit vectors on tensor cores, tile by tile, whose scores stay in registers. A row is a
 * candidate while its score reaches (k-th best so far) - 2 margins; a list that is full is cut back to what can still be among
 * the k best. Then the candidates are scored exactly. Where more rows than a list holds lie that near to each other, the query
 * is scored against all rows: slow, never wrong.
 *
 * The margin, for rows of w values (w = stm_unit_width). u is 2^-24, v = 2^-8 the rounding to bf16. By Cauchy and Schwarz the
 * sum of |a_i b_i| is at most 1, up to roundings; scaling 2 u; rounding 2 v + v^2; tensor cores cut what they add off at 2^-23 of
 * the largest of 17 terms, w / 16 times: 17 / 16 w 2^-23 < 2.2 w u, which also covers plain f32 sums in any order; final roundings
 * 16 u.
 */
#ifndef STM_KERNELS_NEAREST_H
#define STM_KERNELS_NEAREST_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/rank.h"
#include "kernels/tiles.h"
#include "kernels/unit.h"
#include "stepmill/status.h"

MILL_BEGIN_DECLS

#define STM_NEAREST_MAX_K 1024 /* of these kernels; more neighbours are the host's work */
#define STM_NEAREST_TILE 128   /* rows of queries and of the corpus in one product */

typedef struct stm_block {
    const float *rows;     /* [n][dim], finite */
    const uint16_t *units; /* stm_unit_args.out of them; not read on cpu */
    const double *length;  /* [n] */
    int64_t n;             /* 0 .. 2^31-1 */
} stm_block;

typedef struct stm_nearest_args {
    stm_block queries, corpus;
    const int32_t *self; /* [queries.n] place (first + c) that the query may not find, -1: none; NULL: none for all */
    int32_t dim, k;      /* 1 .. 65536; 1 .. STM_NEAREST_MAX_K */
    int32_t metric;      /* mill_metric */
    float threshold;     /* not NaN */
    double longest;      /* no corpus length passes it; > 0 unless all are 0 */
    int64_t first;       /* place of corpus row 0; first + corpus.n <= STM_RANK_ROWS */
    uint64_t *best;      /* in and out [queries.n][k], each ascending, STM_NO_RANK behind the last */
    void *scratch;       /* stm_nearest_scratch_bytes; aligned to 16; contents do not matter */
    stm_tiles tiles;     /* a form that the device has; not read on cpu */
} stm_nearest_args;

typedef struct stm_merge_ranks_args {
    const uint64_t *lists; /* [n_lists][stride], in each: [..][k] ascending */
    int64_t stride;        /* ranks between lists */
    int64_t first, n;      /* queries first .. first + n - 1 */
    int32_t n_lists, k;    /* 1 .. 1024; 1 .. STM_NEAREST_MAX_K; no row is in two lists */
    uint64_t *out;         /* [n][k]; overlaps nothing */
} stm_merge_ranks_args;

/** Candidates that a list holds: k, and what two tiles may add. */
static inline int64_t stm_nearest_room(int32_t k) { return k + 2 * STM_NEAREST_TILE; }
/** Parts of the corpus that are searched apart, so that few queries keep a device busy. */
static inline int64_t stm_nearest_parts(int64_t n_queries, int64_t n_corpus)
{
    const int64_t tiles = (n_corpus + STM_NEAREST_TILE - 1) / STM_NEAREST_TILE,
                  rows = (n_queries + STM_NEAREST_TILE - 1) / STM_NEAREST_TILE;
    const int64_t want = rows > 0 ? (256 + rows - 1) / rows : 1, most = (tiles + 7) / 8; /* no part of less than 8 tiles */

    return want < most ? want : most > 0 ? most : 1;
}
static inline size_t stm_nearest_scratch_bytes(int64_t n_queries, int64_t n_corpus, int32_t k)
{
    const int64_t lists = stm_nearest_parts(n_queries, n_corpus) * n_queries;

    return (size_t)(lists * stm_nearest_room(k) * 8 + lists * 4 + 16);
}
/** How far a product of unit vectors can be from the cosine. */
STM_BOTH double stm_unit_margin(int32_t width)
{
    const double u = 1.0 / 16777216.0, v = 1.0 / 256.0;

    return 2.0 * v + v * v + (2.2 * width + 16.0) * u;
}

static inline int stm_block_fits(const stm_block *b)
{
    return b->n >= 0 && b->n < STM_RANK_ROWS && (b->n == 0 || (b->rows != NULL && b->length != NULL));
}
static inline int stm_nearest_fits(const stm_nearest_args *a)
{
    return stm_block_fits(&a->queries) && stm_block_fits(&a->corpus) && a->dim >= 1 && a->dim <= 65536 && a->k >= 1 &&
           a->k <= STM_NEAREST_MAX_K && (a->metric == 0 || a->metric == 1) && a->threshold == a->threshold && a->first >= 0 &&
           a->first + a->corpus.n <= STM_RANK_ROWS && (a->tiles == STM_TILES_MMA || a->tiles == STM_TILES_WGMMA) &&
           (a->queries.n == 0 || a->best != NULL);
}
static inline int stm_merge_ranks_fits(const stm_merge_ranks_args *a)
{
    return a->first >= 0 && a->n >= 0 && a->n < STM_RANK_ROWS && a->k >= 1 && a->k <= STM_NEAREST_MAX_K && a->n_lists >= 1 &&
           a->n_lists <= 1024 && a->stride >= (a->first + a->n) * a->k && (a->n == 0 || (a->lists != NULL && a->out != NULL));
}

void stm_nearest_ref(const stm_nearest_args *a);
void stm_merge_ranks_ref(const stm_merge_ranks_args *a);
mill_status stm_nearest_cpu(const stm_nearest_args *a);
mill_status stm_merge_ranks_cpu(const stm_merge_ranks_args *a);
mill_status stm_nearest_cuda(const stm_nearest_args *a, void *stream); /* in the module, as the next */
mill_status stm_merge_ranks_cuda(const stm_merge_ranks_args *a, void *stream);

MILL_END_DECLS

#endif
