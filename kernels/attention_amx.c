/*
 * Attention with tiles, everything turned by a quarter: scores are [keys][queries], so that the maximum, the sum and the
 * division of a softmax run down columns and no register is ever added up across (which took as long as all the rest for
 * documents of some tens of rows).
 *
 * Per document and head, in scratch: keys as rows of bf16, values as tiles [16 of dim][32 keys], both padded with zeros. Then
 * for 16 queries at a time, q as tiles of pairs of dim [16 pairs][16 queries]:
 *     scores  [keys][16] = keys . q
 *     weights [keys / 2][16][2] = 2^(scores - largest), rounded to bf16: pairs of keys, as the next product wants them
 *     sums    [dim][16] = values . weights, divided, turned back and stored as rows.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "kernels/attention_forms.h"
#include "kernels/tiles_x86.h"
#include "kernels/transpose_x86.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define TILE 512 /* bf16 values of a tile */

typedef struct head_state {
    int64_t n, padded;  /* keys, rounded up to 32 */
    int32_t dim, steps; /* steps of 32 of dim */
    uint16_t *keys;     /* [padded][steps * 32] */
    uint16_t *values;   /* [steps * 2][padded / 32] tiles */
    uint16_t *queries;  /* [steps] tiles */
    float *scores;      /* [padded][16] */
    uint16_t *weights;  /* [padded / 32] tiles */
    float *sums;        /* [steps * 32][16] */
} head_state;

/* 32 values of a row from column d on as bf16; zeros past dim. */
INLINE __m512i row32(const float *row, int32_t d, int32_t dim)
{
    const int32_t left = dim - d;
    if (left >= 32) return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + d + 16), _mm512_loadu_ps(row + d));
    const uint32_t mask = (1u << left) - 1u;
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(mask >> 16), row + d + 16),
                                        _mm512_maskz_loadu_ps((__mmask16)mask, row + d));
}

/* Pairs (even[i], odd[i]) as bf16. */
INLINE __m512i pairs(__m512 even, __m512 odd)
{
    const __m512i turn = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                          19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(turn, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

TARGET static void pack_keys(const head_state *s, const float *k, int64_t ld)
{
    for (int64_t j = 0; j < s->padded; j++)
        for (int32_t t = 0; t < s->steps; t++)
            _mm512_store_si512(s->keys + (j * s->steps + t) * 32,
                               j < s->n ? row32(k + j * ld, 32 * t, s->dim) : _mm512_setzero_si512());
}

TARGET static void pack_values(const head_state *s, const float *v, int64_t ld)
{
    for (int32_t d = 0; d < 32 * s->steps; d += 16) {
        const int32_t left = s->dim - d;
        const __mmask16 mask = left >= 16 ? (__mmask16)0xffff : left > 0 ? (__mmask16)((1u << left) - 1u) : (__mmask16)0;
        for (int64_t j = 0; j < s->padded; j += 32) {
            uint16_t *tile = s->values + (d / 16 * (s->padded / 32) + j / 32) * TILE;
            __m512i r[16];
            for (int i = 0; i < 16; i++) { /* rows past the document are not looked at: their NaN would spread */
                const int64_t at = j + 2 * i;
                r[i] = pairs(_mm512_maskz_loadu_ps(at < s->n ? mask : (__mmask16)0, v + at * ld + d),
                             _mm512_maskz_loadu_ps(at + 1 < s->n ? mask : (__mmask16)0, v + (at + 1) * ld + d));
            }
            stm_transpose16(r);
            for (int i = 0; i < 16; i++) _mm512_store_si512(tile + 32 * i, r[i]);
        }
    }
}

TARGET static void pack_queries(const head_state *s, const float *q, int64_t ld, int64_t rows)
{
    for (int32_t t = 0; t < s->steps; t++) {
        __m512i r[16];
        for (int i = 0; i < 16; i++) r[i] = i < rows ? row32(q + i * ld, 32 * t, s->dim) : _mm512_setzero_si512();
        stm_transpose16(r);
        for (int i = 0; i < 16; i++) _mm512_store_si512(s->queries + t * TILE + 32 * i, r[i]);
    }
}

static void score_tiles(const head_state *s)
{
    const int64_t row = s->steps * 64;

    for (int64_t j = 0; j < s->padded; j += 32) { /* padded is a multiple of 32: always two tiles */
        const uint16_t *k0 = s->keys + j * s->steps * 32, *k1 = k0 + 16 * s->steps * 32;
        TILE_ZERO(0);
        TILE_ZERO(1);
        for (int32_t t = 0; t < s->steps; t++) {
            TILE_LOAD(4, s->queries + t * TILE, 64);
            TILE_LOAD(5, k0 + 32 * t, row);
            TILE_LOAD(6, k1 + 32 * t, row);
            TILE_DOT(0, 5, 4);
            TILE_DOT(1, 6, 4);
        }
        TILE_STORE(0, s->scores + j * 16, 64);
        TILE_STORE(1, s->scores + (j + 16) * 16, 64);
    }
}

/* 2^t for t <= 0 to 1.1e-4, for results that keep 8 bits; far below zero it is 0. Polynomial fitted for the smallest largest
 * relative error on [0, 1). */
INLINE __m512 exp2_short(__m512 t)
{
    const __m512 f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF); /* t - floor t */
    __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(7.80245226e-02f), _mm512_set1_ps(2.26067155e-01f));

    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.95833540e-01f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.99925219e-01f));
    return _mm512_scalef_ps(p, t); /* times 2^floor t */
}

/* Weights of 16 queries, not yet divided by their sums, whose inverses are returned. */
TARGET static __m512 softmax(const head_state *s, float scale)
{
    const __m512 by = _mm512_set1_ps(scale);
    const int64_t n = s->n, even = n / 2 * 2;
    __m512 most[2], sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};

    most[0] = most[1] = _mm512_load_ps(s->scores);
    for (int64_t j = 0; j < even; j += 2)
        for (int i = 0; i < 2; i++) most[i] = _mm512_max_ps(most[i], _mm512_load_ps(s->scores + (j + i) * 16));
    if (even < n) most[0] = _mm512_max_ps(most[0], _mm512_load_ps(s->scores + even * 16));
    const __m512 max = _mm512_mul_ps(_mm512_max_ps(most[0], most[1]), by);
    for (int64_t j = 0; j < even; j += 2) {
        __m512 e[2];
        for (int i = 0; i < 2; i++) {
            e[i] = exp2_short(_mm512_fmsub_ps(_mm512_load_ps(s->scores + (j + i) * 16), by, max));
            sum[i] = _mm512_add_ps(sum[i], e[i]);
        }
        _mm512_store_si512(s->weights + j * 16, pairs(e[0], e[1]));
    }
    if (even < n) {
        const __m512 e = exp2_short(_mm512_fmsub_ps(_mm512_load_ps(s->scores + even * 16), by, max));
        sum[0] = _mm512_add_ps(sum[0], e);
        _mm512_store_si512(s->weights + even * 16, pairs(e, _mm512_setzero_ps()));
    }
    for (int64_t j = (n + 1) / 2 * 2; j < s->padded; j += 2) _mm512_store_si512(s->weights + j * 16, _mm512_setzero_si512());
    return _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_add_ps(sum[0], sum[1]));
}

static void weigh_tiles(const head_state *s)
{
    const int64_t blocks = s->padded / 32;

    for (int32_t d = 0; d < 2 * s->steps; d += 2) {
        const uint16_t *v0 = s->values + d * blocks * TILE, *v1 = v0 + blocks * TILE;
        TILE_ZERO(2);
        TILE_ZERO(3);
        for (int64_t j = 0; j < blocks; j++) {
            TILE_LOAD(4, s->weights + j * TILE, 64);
            TILE_LOAD(5, v0 + j * TILE, 64);
            TILE_LOAD(6, v1 + j * TILE, 64);
            TILE_DOT(2, 5, 4);
            TILE_DOT(3, 6, 4);
        }
        TILE_STORE(2, s->sums + d * 256, 64);
        TILE_STORE(3, s->sums + (d + 1) * 256, 64);
    }
}

/* Rows of the result from its columns, times each query's share. */
TARGET static void store_rows(const head_state *s, __m512 share, uint16_t *out, int64_t ldo, int64_t rows)
{
    for (int32_t t = 0; t < s->steps; t++) {
        const int32_t left = s->dim - 32 * t;
        const __mmask32 mask = left >= 32 ? 0xffffffffu : (__mmask32)((1u << left) - 1u);
        const float *sums = s->sums + t * TILE;
        __m512i r[16];
        for (int i = 0; i < 16; i++)
            r[i] = pairs(_mm512_mul_ps(_mm512_load_ps(sums + 32 * i), share),
                         _mm512_mul_ps(_mm512_load_ps(sums + 32 * i + 16), share));
        stm_transpose16(r);
        for (int i = 0; i < 16; i++)
            if (i < rows) _mm512_mask_storeu_epi16(out + i * ldo + 32 * t, mask, r[i]);
    }
}

TARGET static void head(const stm_attention_args *a, const head_state *s, int64_t first, int32_t h)
{
    const int64_t column = (int64_t)h * s->dim;
    const float scale = a->scale * 1.44269504f; /* powers of 2 instead of e */

    pack_keys(s, a->k + first * a->ld + column, a->ld);
    pack_values(s, a->v + first * a->ld + column, a->ld);
    for (int64_t i = 0; i < s->n; i += 16) {
        const int64_t rows = s->n - i < 16 ? s->n - i : 16;
        pack_queries(s, a->q + (first + i) * a->ld + column, a->ld, rows);
        score_tiles(s);
        const __m512 share = softmax(s, scale); /* of queries past the end too: their zeros do no harm */
        weigh_tiles(s);
        store_rows(s, share, (uint16_t *)a->out + (first + i) * a->ldo + column, a->ldo, rows);
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
