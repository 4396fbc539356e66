/*
 * Attention over documents laid end to end, on a device, no padding computed:
 *
 *     out[i][h] = sum over j of softmax_j(scale * q[i][h] . k[j][h]) v[j][h],   j over the rows of i's document
 *
 * The work is cut into tiles of at most STM_TOKEN_TILE rows of one document; a tile begins at a multiple of STM_TOKEN_TILE within
 * its document. stm_token_tiles lists them; tiles without rows may fill the list up. Keys are taken in blocks that begin at the
 * document's first row, with a running maximum and sum, so a row's bits depend on its document only.
 *
 * f32: error of at most 2e-6 * (1 + the largest |scale * q . k|) * the largest |v|: a chain of dim products, an exponential, a
 * chain of as many sums as the document has rows. bf16 and f16: q, k and v are what they are, the weights of the sum are rounded,
 * and so is out: 2^-7 (bf16), 2^-10 (f16) times the largest |v|, and the error of f32.
 */
#ifndef STM_KERNELS_TOKEN_ATTENTION_H
#define STM_KERNELS_TOKEN_ATTENTION_H

#include "kernels/attention.h"
#include "kernels/values.h"

MILL_BEGIN_DECLS

#define STM_TOKEN_TILE 64

typedef struct stm_token_tile {
    int32_t row, rows;   /* of q and out; rows 0 .. STM_TOKEN_TILE */
    int32_t first, last; /* the document's rows: first .. last - 1 */
} stm_token_tile;

typedef struct stm_token_attention_args {
    const void *q, *k, *v;       /* [rows][ld]; head h in columns h * dim .. */
    void *out;                   /* [rows][ldo]; overlaps nothing */
    stm_real type;               /* of all four */
    const stm_token_tile *tiles; /* [n_tiles]; not checked */
    int64_t n_tiles;             /* 0 .. 2^31 / heads */
    int64_t rows;                /* of the matrices, 0 .. 2^31 - 1 */
    int32_t heads, dim;          /* dim 1 .. STM_ATTENTION_DIM_MAX */
    float scale;                 /* > 0 */
    int64_t ld, ldo;             /* >= heads * dim */
} stm_token_attention_args;

static inline int stm_token_attention_fits(const stm_token_attention_args *a)
{
    return stm_real_known(a->type) && a->heads >= 1 && a->dim >= 1 && a->dim <= STM_ATTENTION_DIM_MAX && a->n_tiles >= 0 &&
           a->n_tiles <= INT32_MAX / a->heads && a->rows >= 0 && a->rows <= INT32_MAX && a->scale > 0.0f &&
           a->ld >= (int64_t)a->heads * a->dim && a->ldo >= (int64_t)a->heads * a->dim &&
           (a->n_tiles == 0 || (a->q != NULL && a->k != NULL && a->v != NULL && a->out != NULL && a->tiles != NULL));
}

/** The tiles of documents starts[d] .. starts[d + 1] - 1, at most (rows / STM_TOKEN_TILE + docs) of them; how many. @p out NULL:
 *  only count. */
static inline int64_t stm_token_tiles(const int32_t *starts, int64_t docs, stm_token_tile *out)
{
    int64_t n = 0;

    for (int64_t d = 0; d < docs; d++)
        for (int32_t row = starts[d]; row < starts[d + 1]; row += STM_TOKEN_TILE, n++)
            if (out != NULL) {
                const int32_t left = starts[d + 1] - row;
                out[n] = (stm_token_tile){row, left < STM_TOKEN_TILE ? left : STM_TOKEN_TILE, starts[d], starts[d + 1]};
            }
    return n;
}

void stm_token_attention_ref(const stm_token_attention_args *a);
mill_status stm_token_attention_cuda(const stm_token_attention_args *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
