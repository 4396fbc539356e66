/*
 * Attention with tiles. Per document and head, in scratch: keys and values as tiles of bf16 (16 keys x 32 of dim, turned so
 * that pairs of dim lie together; 32 keys x 16 of dim, pairs of keys together), padded with zeros. Then for 16 queries at a
 * time: scores by tiles, softmax in f32, weights rounded to bf16, their sum over the values by tiles.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "kernels/attention_forms.h"
#include "kernels/tiles_x86.h"
#include "kernels/transpose_x86.h"

#define FORM(name) amx_##name
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define LEVEL 3
#include "kernels/lanes.h"

#define TILE 512 /* bf16 values of a tile */

typedef struct head_state {
    int64_t n, padded;  /* keys, rounded up to 32 */
    int32_t dim, steps; /* steps of 32 of dim */
    uint16_t *keys;     /* [padded / 16][steps] tiles */
    uint16_t *values;   /* [steps * 2][padded / 32] tiles */
    uint16_t *queries;  /* [16][steps * 32] */
    float *scores;      /* [16][padded] */
    uint16_t *weights;  /* [16][padded] */
    float *sums;        /* [16][steps * 32] */
} head_state;

/* 32 values of a row from column d on as bf16; zeros past dim. */
TARGET static inline __m512i row32(const float *row, int32_t d, int32_t dim)
{
    const int32_t left = dim - d;
    if (left >= 32) return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + d + 16), _mm512_loadu_ps(row + d));
    const uint32_t mask = (1u << left) - 1u;
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(mask >> 16), row + d + 16),
                                        _mm512_maskz_loadu_ps((__mmask16)mask, row + d));
}

TARGET static void pack_keys(const head_state *s, const float *k, int64_t ld)
{
    for (int64_t j = 0; j < s->padded; j += 16)
        for (int32_t t = 0; t < s->steps; t++) {
            uint16_t *tile = s->keys + (j / 16 * s->steps + t) * TILE;
            __m512i r[16];
            for (int i = 0; i < 16; i++) r[i] = j + i < s->n ? row32(k + (j + i) * ld, 32 * t, s->dim) : _mm512_setzero_si512();
            stm_transpose16(r);
            for (int i = 0; i < 16; i++) _mm512_store_si512(tile + 32 * i, r[i]);
        }
}

TARGET static inline __m512i widen(const float *row, int32_t d, int32_t dim)
{
    const __mmask16 mask = dim - d >= 16 ? (__mmask16)0xffff : dim > d ? (__mmask16)((1u << (dim - d)) - 1u) : (__mmask16)0;
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, row + d)));
}

TARGET static void pack_values(const head_state *s, const float *v, int64_t ld)
{
    for (int32_t d = 0; d < 32 * s->steps; d += 16)
        for (int64_t j = 0; j < s->padded; j += 2) {
            const __m512i even = j < s->n ? widen(v + j * ld, d, s->dim) : _mm512_setzero_si512();
            const __m512i odd = j + 1 < s->n ? widen(v + (j + 1) * ld, d, s->dim) : _mm512_setzero_si512();
            _mm512_store_si512(s->values + (d / 16 * (s->padded / 32) + j / 32) * TILE + j % 32 / 2 * 32,
                               _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
}

TARGET static void pack_queries(const head_state *s, const float *q, int64_t ld, int64_t rows)
{
    for (int64_t i = 0; i < 16; i++)
        for (int32_t t = 0; t < s->steps; t++)
            _mm512_store_si512(s->queries + (i * s->steps + t) * 32,
                               i < rows ? row32(q + i * ld, 32 * t, s->dim) : _mm512_setzero_si512());
}

static void score_tiles(const head_state *s)
{
    const int64_t row = s->steps * 64, tile = (int64_t)s->steps * TILE, out = s->padded * 4;

    for (int64_t j = 0; j < s->padded; j += 32) { /* padded is a multiple of 32: always two tiles */
        const uint16_t *k0 = s->keys + j / 16 * tile, *k1 = k0 + tile;
        TILE_ZERO(0);
        TILE_ZERO(1);
        for (int32_t t = 0; t < s->steps; t++) {
            TILE_LOAD(4, s->queries + 32 * t, row);
            TILE_LOAD(5, k0 + t * TILE, 64);
            TILE_LOAD(6, k1 + t * TILE, 64);
            TILE_DOT(0, 4, 5);
            TILE_DOT(1, 4, 6);
        }
        TILE_STORE(0, s->scores + j, out);
        TILE_STORE(1, s->scores + j + 16, out);
    }
}

/* 2^t for t <= 0 to 1e-4, for results that keep 8 bits; far below zero it is 0. */
TARGET static inline __m512 exp2_short(__m512 t)
{
    const __m512 whole = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(t, whole);
    __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(5.5171669e-2f), _mm512_set1_ps(2.4261115e-1f));

    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9326097e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.9992812e-1f));
    return _mm512_scalef_ps(p, whole);
}

/* Weights of one query, not yet divided by their sum, whose inverse is returned. */
TARGET static float softmax_row(const head_state *s, const float *row, uint16_t *weights, float scale)
{
    const int64_t n = s->n, whole = n / 16 * 16;
    const __mmask16 tail = (__mmask16)((1u << (n - whole)) - 1u);
    __m512 most = _mm512_set1_ps(-INFINITY);
    v16 sum = V16(0.0f);

    for (int64_t j = 0; j < whole; j += 16) most = _mm512_max_ps(most, _mm512_load_ps(row + j));
    most = _mm512_mask_max_ps(most, tail, most, _mm512_maskz_load_ps(tail, row + whole));
    const __m512 by = _mm512_set1_ps(scale), max = _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(most)), by);
    for (int64_t j = 0; j < whole; j += 16) {
        const __m512 e = exp2_short(_mm512_fmsub_ps(_mm512_load_ps(row + j), by, max));
        sum += (v16)e;
        _mm256_store_si256((__m256i *)(weights + j), (__m256i)_mm512_cvtneps_pbh(e));
    }
    for (int64_t j = whole; j < s->padded; j += 16) { /* the part of the last key, and nothing behind it */
        const __m512 e =
            _mm512_maskz_mov_ps(j == whole ? tail : (__mmask16)0, exp2_short(_mm512_fmsub_ps(_mm512_load_ps(row + j), by, max)));
        sum += (v16)e;
        _mm256_store_si256((__m256i *)(weights + j), (__m256i)_mm512_cvtneps_pbh(e));
    }
    return 1.0f / FORM(sum)(sum);
}

static void weigh_tiles(const head_state *s)
{
    const int64_t blocks = s->padded / 32, row = s->padded * 2, out = s->steps * 128;

    for (int32_t d = 0; d < 2 * s->steps; d += 2) {
        const uint16_t *v0 = s->values + d * blocks * TILE, *v1 = v0 + blocks * TILE;
        TILE_ZERO(0);
        TILE_ZERO(1);
        for (int64_t j = 0; j < blocks; j++) {
            TILE_LOAD(4, s->weights + 32 * j, row);
            TILE_LOAD(5, v0 + j * TILE, 64);
            TILE_LOAD(6, v1 + j * TILE, 64);
            TILE_DOT(0, 4, 5);
            TILE_DOT(1, 4, 6);
        }
        TILE_STORE(0, s->sums + 16 * d, out);
        TILE_STORE(1, s->sums + 16 * d + 16, out);
    }
}

TARGET static void head(const stm_attention_args *a, const head_state *s, int64_t first, int32_t h)
{
    const int64_t column = (int64_t)h * s->dim;
    const float scale = a->scale * 1.44269504f; /* powers of 2 instead of e */
    float share[16];

    pack_keys(s, a->k + first * a->ld + column, a->ld);
    pack_values(s, a->v + first * a->ld + column, a->ld);
    for (int64_t i = 0; i < s->n; i += 16) {
        const int64_t rows = s->n - i < 16 ? s->n - i : 16;
        pack_queries(s, a->q + (first + i) * a->ld + column, a->ld, rows);
        score_tiles(s);
        for (int64_t r = 0; r < 16; r++) /* rows past the end too: their zeros keep the weights finite */
            share[r] = softmax_row(s, s->scores + r * s->padded, s->weights + r * s->padded, scale);
        weigh_tiles(s);
        for (int64_t r = 0; r < rows; r++) {
            uint16_t *out = (uint16_t *)a->out + (first + i + r) * a->ldo + column;
            for (int32_t d = 0; d < s->dim; d += 16) {
                const __mmask16 mask = s->dim - d >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << (s->dim - d)) - 1u);
                const __m512 v = _mm512_mul_ps(_mm512_load_ps(s->sums + r * s->steps * 32 + d), _mm512_set1_ps(share[r]));
                _mm256_mask_storeu_epi16(out + d, mask, (__m256i)_mm512_cvtneps_pbh(v));
            }
        }
    }
}

void stm_amx_attention(const stm_attention_args *a)
{
    head_state s = {.dim = a->dim, .steps = (a->dim + 31) / 32};

    TILE_CONFIG(stm_tiles_full);
    for (int64_t d = 0; d < a->docs; d++) {
        s.n = a->starts[d + 1] - a->starts[d], s.padded = (s.n + 31) / 32 * 32;
        s.scores = a->scratch;
        s.sums = s.scores + 16 * s.padded;
        s.keys = (uint16_t *)(s.sums + 16 * 32 * s.steps);
        s.values = s.keys + s.padded * 32 * s.steps;
        s.weights = s.values + s.padded * 32 * s.steps;
        s.queries = s.weights + 16 * s.padded;
        for (int32_t h = 0; h < a->heads; h++) head(a, &s, a->starts[d], h);
    }
    TILE_RELEASE();
}
#endif
