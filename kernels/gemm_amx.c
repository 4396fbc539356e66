/*
 * bf16 products with tiles (AMX). C is made in blocks of 32 rows x 32 columns (4 accumulators, 2 tiles of A, 2 of B: all 8
 * registers), so that 4 loads feed 4 products. The accumulators start as the bias, loaded with stride 0, or as what C holds.
 *
 * Where GELU follows, a block's accumulators go to a buffer of 4 KiB, and the vector units work on it while the tiles make the
 * next block: a few rows at each step of k. So it costs next to nothing, and no f32 form of the wide layer ever leaves L1.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "kernels/gemm_forms.h"
#include "kernels/tiles_x86.h"

#define FORM(name) amx_##name
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,prfchw")))
#define LEVEL 3
#include "kernels/gelu_form.h"

#define TILE_VALUES (STM_GEMM_PANEL * STM_GEMM_PAIRS) /* bf16 values of a packed tile */
#define BLOCK 32                                      /* rows and columns of C */

/* Tiles of which only some columns are wanted, or there. */
static void store_part(const float *tile, float *c, int64_t ldc, int cols)
{
    for (int i = 0; i < 16; i++) memcpy(c + i * ldc, tile + i * 16, (size_t)cols * sizeof(float));
}
static void load_part(float *tile, const float *c, int64_t ldc, int cols)
{
    memset(tile, 0, 256 * sizeof *tile);
    for (int i = 0; i < 16; i++) memcpy(tile + i * 16, c + i * ldc, (size_t)cols * sizeof(float));
}
#define TILE_STORE_COLS(t, ptr, ldc, cols)                      \
    do {                                                        \
        if ((cols) == STM_GEMM_PANEL) {                         \
            TILE_STORE(t, ptr, (ldc) * (int64_t)sizeof(float)); \
        } else {                                                \
            float part_[256] __attribute__((aligned(64)));      \
            TILE_STORE(t, part_, 64);                           \
            store_part(part_, ptr, ldc, cols);                  \
        }                                                       \
    } while (0)
#define TILE_LOAD_COLS(t, ptr, ldc, cols)                      \
    do {                                                       \
        if ((cols) == STM_GEMM_PANEL) {                        \
            TILE_LOAD(t, ptr, (ldc) * (int64_t)sizeof(float)); \
        } else {                                               \
            float part_[256] __attribute__((aligned(64)));     \
            load_part(part_, ptr, ldc, cols);                  \
            TILE_LOAD(t, part_, 64);                           \
        }                                                      \
    } while (0)

/* A block of accumulators whose GELU is still to be made. */
typedef struct pending {
    const float *block; /* tiles: rows 0-15 of both panels, then rows 16-31 */
    uint16_t *out;
    int64_t ldo, done, rows; /* of the block's rows */
    __mmask32 columns;
} pending;

LANE v16 gelu(v16 x, stm_gelu_kind kind) { return kind == STM_GELU_TANH ? amx_gelu_tanh(x) : amx_gelu_erf_short(x); }

LANE void work_on(pending *p, stm_gelu_kind kind, int64_t rows)
{
    const int64_t last = p->done + rows < p->rows ? p->done + rows : p->rows;

    for (int64_t r = p->done; r < last; r++) {
        const float *x = p->block + r / 16 * 512 + r % 16 * 16;
        const v16 lo = gelu(amx_load(x), kind), hi = gelu(amx_load(x + 256), kind);
        _mm512_mask_storeu_epi16(p->out + r * p->ldo, p->columns, (__m512i)_mm512_cvtne2ps_pbh((__m512)hi, (__m512)lo));
    }
    p->done = last;
}

/* Rows of a block of C that will be stored to: fetched as owned while the block is made. Without that each of its 64 lines is
 * waited for in turn when it is stored, which takes longer than the block's products. */
LANE void own(const float *c, int64_t ldc, int64_t from, int64_t to)
{
    for (int64_t r = from; r < to; r++) {
        __builtin_prefetch(c + r * ldc, 1);
        __builtin_prefetch(c + r * ldc + STM_GEMM_PANEL, 1);
    }
}

/* @p after NULL: the product itself. Else @p out has GELU of it, and every pending block is worked on during the next. */
LANE void multiply(const stm_gemm_part *g, pending *after, stm_gelu_kind kind, uint16_t *out)
{
    const stm_gemm_weight *const w = g->w;
    const int64_t blocks = (g->to - g->from) / STM_GEMM_PAIRS, panel = w->k_padded / STM_GEMM_PAIRS * TILE_VALUES;
    const int64_t m = g->m, lda = g->lda, ldc = g->ldc, strip = 16 * lda, row_bytes = lda * (int64_t)sizeof(uint16_t);
    const int64_t c_strip = 16 * ldc, share = (BLOCK + blocks - 1) / blocks;
    float buffers[2][4 * 256] __attribute__((aligned(64)));
    int turn = 0;

    /* Weights come from L3 where all of them are larger than L2. Processors do not see far enough ahead by themselves: each
     * step fetches so many lines of the next two panels that they are there when their turn comes (a third faster). */
    const int64_t ahead = m < BLOCK ? 0 : (16 + m / BLOCK - 1) / (m / BLOCK);

    TILE_CONFIG(stm_tiles_full);
    for (int64_t p = g->first; p < g->last; p += 2) {
        const bool pair = p + 1 < g->last;
        const uint16_t *b0 = (const uint16_t *)w->packed + p * panel + g->from * STM_GEMM_PANEL, *b1 = pair ? b0 + panel : b0;
        const float *bias0 = w->bias + p * STM_GEMM_PANEL, *bias1 = pair ? bias0 + STM_GEMM_PANEL : bias0;
        const int cols0 = stm_gemm_cols(w, p), cols1 = pair ? stm_gemm_cols(w, p + 1) : 0;
        const int64_t column = (p - g->first) * STM_GEMM_PANEL;
        const uint16_t *next0 = b0 + 2 * panel, *next1 = next0 + panel; /* may pass the end: fetching is never a fault */

        for (int64_t i = 0; i < m; i += BLOCK) {
            const uint16_t *a0 = (const uint16_t *)g->a + i * lda;
            const bool second = i + 16 < m;

            if (g->from == 0) {
                TILE_LOAD(0, bias0, 0);
                TILE_LOAD(1, bias1, 0);
                if (second) {
                    TILE_LOAD(2, bias0, 0);
                    TILE_LOAD(3, bias1, 0);
                }
            } else {
                const float *ci = g->c + i * ldc + column;
                TILE_LOAD_COLS(0, ci, ldc, cols0);
                if (pair) TILE_LOAD_COLS(1, ci + STM_GEMM_PANEL, ldc, cols1);
                if (second) TILE_LOAD_COLS(2, ci + c_strip, ldc, cols0);
                if (second && pair) TILE_LOAD_COLS(3, ci + c_strip + STM_GEMM_PANEL, ldc, cols1);
            }
            if (second) {
                for (int64_t q = 0; q < blocks; q++) {
                    for (int64_t r = 0; r < ahead; r++, next0 += 32, next1 += 32) {
                        __builtin_prefetch(next0);
                        __builtin_prefetch(next1);
                    }
                    TILE_LOAD(6, b0 + q * TILE_VALUES, 64);
                    TILE_LOAD(4, a0 + q * STM_GEMM_PAIRS, row_bytes);
                    TILE_DOT(0, 4, 6);
                    TILE_LOAD(7, b1 + q * TILE_VALUES, 64);
                    TILE_DOT(1, 4, 7);
                    TILE_LOAD(5, a0 + strip + q * STM_GEMM_PAIRS, row_bytes);
                    TILE_DOT(2, 5, 6);
                    TILE_DOT(3, 5, 7);
                    if (after != NULL)
                        work_on(after, kind, share);
                    else
                        own(g->c + i * ldc + column, ldc, q * share, (q + 1) * share);
                }
            } else {
                for (int64_t q = 0; q < blocks; q++) {
                    TILE_LOAD(6, b0 + q * TILE_VALUES, 64);
                    TILE_LOAD(4, a0 + q * STM_GEMM_PAIRS, row_bytes);
                    TILE_DOT(0, 4, 6);
                    TILE_LOAD(7, b1 + q * TILE_VALUES, 64);
                    TILE_DOT(1, 4, 7);
                    if (after != NULL) work_on(after, kind, share);
                }
            }
            if (after != NULL) {
                float *to = buffers[turn];
                TILE_STORE(0, to, 64);
                TILE_STORE(1, to + 256, 64);
                if (second) {
                    TILE_STORE(2, to + 512, 64);
                    TILE_STORE(3, to + 768, 64);
                }
                after->block = to, after->out = out + i * after->ldo + column;
                after->done = 0, after->rows = second ? BLOCK : 16;
                after->columns = cols0 + cols1 == BLOCK ? 0xffffffffu : (__mmask32)((1u << (cols0 + cols1)) - 1u);
                turn = !turn;
            } else {
                float *ci = g->c + i * ldc + column;
                TILE_STORE_COLS(0, ci, ldc, cols0);
                if (second) TILE_STORE_COLS(2, ci + c_strip, ldc, cols0);
                if (pair) {
                    TILE_STORE_COLS(1, ci + STM_GEMM_PANEL, ldc, cols1);
                    if (second) TILE_STORE_COLS(3, ci + c_strip + STM_GEMM_PANEL, ldc, cols1);
                }
            }
        }
    }
    if (after != NULL) work_on(after, kind, BLOCK);
    TILE_RELEASE();
}

TARGET void stm_gemm_bf16_amx(const stm_gemm_part *g) { multiply(g, NULL, STM_GELU_ERF, NULL); }

TARGET void stm_gemm_gelu_amx(const stm_gemm_part *g, stm_gelu_kind kind, uint16_t *out, int64_t ldo)
{
    pending after = {.ldo = ldo};

    if (kind == STM_GELU_TANH)
        multiply(g, &after, STM_GELU_TANH, out);
    else
        multiply(g, &after, STM_GELU_ERF, out);
}
#endif
