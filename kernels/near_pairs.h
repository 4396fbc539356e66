/*
 * near_pairs: the pairs of two blocks of rows whose score is at least the threshold, in no order.
 *
 *     out = {(a.first + i, b.first + j, score)}     with a.first + i < b.first + j and score >= threshold
 *
 * A block against itself is so the triangle above the diagonal, and only the tiles above it are computed. Scores are exact, as in
 * nearest.h; how they are found, too. No tolerance.
 *
 * Room may not suffice: found[0] counts the pairs that passed the screen. Where it passes `room`, out and found[1] mean nothing:
 * ask again for fewer rows. Blocks of STM_NEAREST_TILE rows each never pass STM_NEAR_PAIRS_ROOM.
 */
#ifndef STM_KERNELS_NEAR_PAIRS_H
#define STM_KERNELS_NEAR_PAIRS_H

#include "kernels/nearest.h"

MILL_BEGIN_DECLS

#define STM_NEAR_PAIRS_ROOM (STM_NEAREST_TILE * STM_NEAREST_TILE)

typedef struct stm_near_pair {
    int32_t i, j;
    float score;
} stm_near_pair;

typedef struct stm_near_pairs_args {
    stm_block a, b;           /* of a at most 65535 tiles */
    int64_t a_first, b_first; /* places of their rows 0; with n at most STM_RANK_ROWS */
    int32_t dim, metric;
    float threshold;
    double longest;     /* no length of a or b passes it */
    int64_t room;       /* pairs in out and in scratch: 1 .. 2^31-1 */
    stm_near_pair *out; /* [room] */
    int64_t *found;     /* [2]: passed the screen; pairs in out */
    void *scratch;      /* stm_near_pairs_scratch_bytes(room); aligned to 8; NULL on cpu */
    stm_tiles tiles;    /* a form that the device has; not read on cpu */
} stm_near_pairs_args;

static inline size_t stm_near_pairs_scratch_bytes(int64_t room) { return (size_t)room * 8; }
static inline int stm_near_pairs_fits(const stm_near_pairs_args *a)
{
    return stm_block_fits(&a->a) && stm_block_fits(&a->b) && a->a.n <= (int64_t)65535 * STM_NEAREST_TILE && a->dim >= 1 &&
           a->dim <= 65536 && (a->metric == 0 || a->metric == 1) && a->threshold == a->threshold && a->a_first >= 0 &&
           a->b_first >= 0 && a->a_first + a->a.n <= STM_RANK_ROWS && a->b_first + a->b.n <= STM_RANK_ROWS && a->room >= 1 &&
           a->room < STM_RANK_ROWS && (a->tiles == STM_TILES_MMA || a->tiles == STM_TILES_WGMMA) && a->out != NULL &&
           a->found != NULL;
}

void stm_near_pairs_ref(const stm_near_pairs_args *a);
mill_status stm_near_pairs_cpu(const stm_near_pairs_args *a);
mill_status stm_near_pairs_cuda(const stm_near_pairs_args *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
