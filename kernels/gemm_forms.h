/* Inside of the matrix product: the packed layout, and one function per instruction set. */
#ifndef STM_KERNELS_GEMM_FORMS_H
#define STM_KERNELS_GEMM_FORMS_H

#include <stdint.h>

#include "kernels/gemm.h"
#include "kernels/row_ops.h"

#define STM_GEMM_PANEL 16 /* columns of a panel: one AVX-512 register of f32, one tile row */
#define STM_GEMM_PAIRS 32 /* k of one bf16 tile */

/*
 * f32:  [panels][k][16]: for each k the 16 columns of a panel.
 * bf16: [panels][k/32][16][16][2]: tiles of 16 rows, each row the pairs (2p, 2p+1) of k for 16 columns; k padded with 0.
 * Columns past n are 0. bias has panels * 16 entries, 0 where there is none. The layout is the same at every level.
 */
struct stm_gemm_weight {
    stm_gemm_type type;
    int64_t n, k;
    int64_t panels;   /* n / 16 rounded up */
    int64_t k_padded; /* k; bf16: rounded up to 32 */
    void *packed;
    void *own; /* the same where the weight has it of its own, else NULL */
    float *bias;
};

/** Panels [first, last) of rows 0 .. m-1 into c, whose column 0 is column 16 * first. Every element is one chain of
 *  multiply-adds in the order of k that starts at the bias, so its bits depend neither on m nor on the neighbours. A slice of
 *  k that does not begin at 0 goes on with the chain from what c holds. */
typedef struct stm_gemm_part {
    const stm_gemm_weight *w;
    const void *a; /* [m][lda], column 0 is k `from` */
    int64_t lda, m;
    int64_t first, last; /* panels */
    int64_t from, to;    /* of k_padded; bf16: multiples of 32 */
    float *c;
    int64_t ldc;
} stm_gemm_part;
typedef void stm_gemm_form(const stm_gemm_part *g);
stm_gemm_form stm_gemm_f32_generic, stm_gemm_f32_avx2, stm_gemm_f32_avx512;
/* a has k_padded readable values per row. The tile form reads rows up to the next multiple of 16. */
stm_gemm_form stm_gemm_bf16_avx512, stm_gemm_bf16_amx, stm_gemm_bf16_generic, stm_gemm_bf16_avx2;

#if defined(__x86_64__)
/** Tiles: gelu of the product as bf16 [m][ldo] instead of c; the whole of k; rows up to the next multiple of 16 are written. */
void stm_gemm_gelu_amx(const stm_gemm_part *g, stm_gelu_kind kind, uint16_t *out, int64_t ldo);
#endif

/** Columns of c that the panel starting at column @p col of the weight has. */
static inline int stm_gemm_cols(const stm_gemm_weight *w, int64_t panel)
{
    const int64_t left = w->n - panel * STM_GEMM_PANEL;
    return left < STM_GEMM_PANEL ? (int)left : STM_GEMM_PANEL;
}

/** Transpose 16 rows of k values at b[row * k] into dst [k][16] (rows past @p rows give 0), or into tiles of bf16. */
void stm_gemm_pack_f32(const float *b, int64_t k, int rows, float *dst);
void stm_gemm_pack_bf16(const float *b, int64_t k, int rows, uint16_t *dst);

#endif
