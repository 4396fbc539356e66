#include "kernels/screen.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"
#include "kernels/bf16.h"
#include "kernels/dot.h"
#include "kernels/parallel.h"

enum { NORM_ROWS = 256 }; /* rows a worker takes at a time while measuring lengths */

stm_screen_opts stm_screen_defaults(int64_t n_queries, int64_t k, int32_t threads)
{
    const int64_t lists = ((int64_t)64 << 20) / (32 * (k + 32)); /* candidates of a block: 64 MiB or less */
    stm_screen_opts o;
    int64_t block;

    /* A tile, a block of queries and the scores of 64 rows together fit a second-level cache of 2 MiB at 384 dimensions
     * (bench/neighbours sweeps both). */
    o.type = stm_gemm_supports(STM_GEMM_BF16) ? STM_GEMM_BF16 : STM_GEMM_F32;
    o.tile_rows = o.type == STM_GEMM_BF16 ? 768 : 384;
    /* Few queries: smaller blocks, so that every thread gets some. */
    block = n_queries / ((int64_t)(threads < 1 ? 1 : threads) * 4);
    if (block > 512) block = 512;
    if (block > lists) block = lists;
    o.block_rows = (int32_t)(block < STM_GEMM_ROWS ? STM_GEMM_ROWS : block / STM_GEMM_ROWS * STM_GEMM_ROWS);
    return o;
}

double stm_length(const float *a, int64_t dim)
{
    const double square = stm_dot(a, a, dim); /* no overflow: float32 squared is below 1e78 */

    return isfinite(square) ? sqrt(square) : -1.0;
}

float stm_score_of(int32_t metric, double dot, double length_a, double length_b)
{
    if (metric == MILL_DOT) return (float)dot;
    return length_a > 0.0 && length_b > 0.0 ? (float)(dot / (length_a * length_b)) : 0.0f;
}

float stm_screen_exact(const stm_screen *s, int64_t q, int64_t c)
{
    return stm_score_of(s->metric, stm_dot(s->queries->rows[q], s->own.rows[c], s->dim), s->queries->length[q], s->own.length[c]);
}

static float scale_margin(stm_gemm_type type, int64_t dim)
{
    const double u = 0x1p-24, v = type == STM_GEMM_BF16 ? 0x1p-8 : 0.0;

    /* A little more for the rounding of this float and of the cuts that are computed from it. */
    return (float)(((double)(dim + 8) * u * 1.01 + 2.0 * v + v * v + 0x1p-100) * (1.0 + 0x1p-20) + 4.0 * u);
}

/* ---- lengths ---- */

typedef struct measure {
    stm_vectors *v;
    _Atomic int64_t next; /* relaxed: rows are shared out by it, results are read after the join */
} measure;

static mill_status measure_rows(void *user, int32_t worker, mill_error *err)
{
    measure *m = user;

    (void)worker, (void)err;
    for (;;) {
        const int64_t first = atomic_fetch_add_explicit(&m->next, NORM_ROWS, memory_order_relaxed);
        const int64_t last = first + NORM_ROWS < m->v->n ? first + NORM_ROWS : m->v->n;
        if (first >= m->v->n) return MILL_OK;
        for (int64_t r = first; r < last; r++) m->v->length[r] = stm_length(m->v->rows[r], m->v->dim);
    }
}

static mill_status vectors_init(stm_vectors *v, const float *const *rows, int64_t n, int64_t dim, int32_t threads, mill_error *err)
{
    measure m = {.v = v};

    v->rows = rows, v->n = n, v->dim = dim;
    v->length = stm_malloc((size_t)(n > 0 ? n : 1) * sizeof *v->length);
    v->valid = stm_malloc((size_t)(n > 0 ? n : 1) * sizeof *v->valid);
    if (v->length == NULL || v->valid == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for %lld vectors", (long long)n);
    (void)stm_parallel(threads, measure_rows, &m, err); /* cannot fail */
    for (int64_t r = 0; r < n; r++) {
        if (v->length[r] < 0.0) continue;
        v->valid[v->n_valid++] = r;
        if (v->length[r] > v->longest) v->longest = v->length[r];
    }
    v->kept = v->valid, v->n_kept = v->n_valid;
    return MILL_OK;
}

/* ---- copies ---- */

typedef struct kind {
    uint64_t hash;
    int64_t first, n; /* its first row; how many so far, 0 = the slot is free */
} kind;

typedef struct hashing {
    const stm_vectors *v;
    uint64_t *hash;       /* [n_valid] */
    _Atomic int64_t next; /* relaxed, as in measure */
} hashing;

static mill_status hash_rows(void *user, int32_t worker, mill_error *err)
{
    hashing *h = user;
    const stm_vectors *v = h->v;

    (void)worker, (void)err;
    for (;;) {
        const int64_t first = atomic_fetch_add_explicit(&h->next, NORM_ROWS, memory_order_relaxed);
        const int64_t last = first + NORM_ROWS < v->n_valid ? first + NORM_ROWS : v->n_valid;
        if (first >= v->n_valid) return MILL_OK;
        for (int64_t i = first; i < last; i++) h->hash[i] = stm_hash64(v->rows[v->valid[i]], (size_t)v->dim * sizeof(float), 0);
    }
}

/* The kind of valid row number @p i: found, or made in a free slot. */
static kind *kind_of(const stm_vectors *v, kind *kinds, size_t mask, uint64_t hash, int64_t row)
{
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        kind *k = &kinds[at];
        if (k->n == 0) *k = (kind){.hash = hash, .first = row};
        if (k->hash == hash && (k->first == row || memcmp(v->rows[k->first], v->rows[row], (size_t)v->dim * sizeof(float)) == 0))
            return k;
    }
}

/* Leave out of v->kept what has @p copies equals before it. */
static mill_status drop_copies(stm_vectors *v, int64_t copies, int32_t threads, mill_error *err)
{
    hashing h = {.v = v, .hash = stm_malloc((size_t)(v->n_valid + 1) * sizeof *h.hash)};
    size_t size = 64;
    kind *kinds;

    while (size < 2 * (size_t)v->n_valid) size *= 2;
    kinds = stm_calloc(size * sizeof *kinds);
    v->kept = stm_malloc((size_t)(v->n_valid + 1) * sizeof *v->kept);
    if (h.hash == NULL || kinds == NULL || v->kept == NULL) {
        stm_free(h.hash);
        stm_free(kinds);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for %lld vectors", (long long)v->n);
    }
    (void)stm_parallel(threads, hash_rows, &h, err); /* cannot fail */
    v->n_kept = 0;
    for (int64_t i = 0; i < v->n_valid; i++)
        if (kind_of(v, kinds, size - 1, h.hash[i], v->valid[i])->n++ < copies) v->kept[v->n_kept++] = v->valid[i];
    stm_free(h.hash);
    stm_free(kinds);
    return MILL_OK;
}

static void vectors_fini(stm_vectors *v)
{
    if (v->kept != v->valid) stm_free(v->kept);
    stm_free(v->length);
    stm_free(v->valid);
    memset(v, 0, sizeof *v);
}

/* ---- packing ---- */

/* In double, since 1 / length of a denormal vector is no float. A length of 0 gives zeros: all components are. */
static void scale_row(const float *row, int64_t dim, double length, float *out)
{
    const double f = length > 0.0 ? 1.0 / length : 0.0;

    for (int64_t i = 0; i < dim; i++) out[i] = (float)((double)row[i] * f);
}

typedef struct packing {
    stm_screen *s;
    _Atomic int64_t next; /* relaxed, as in measure */
} packing;

static mill_status pack_tiles(void *user, int32_t worker, mill_error *err)
{
    packing *p = user;
    stm_screen *s = p->s;
    const int64_t rows = s->opts.tile_rows;
    float *scaled = stm_aligned((size_t)(rows * s->dim) * sizeof *scaled, 64);
    mill_status st = MILL_OK;

    (void)worker;
    if (scaled == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to pack %lld vectors", (long long)rows);
    while (st == MILL_OK) {
        const int64_t t = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (t >= s->n_tiles) break;
        for (int64_t i = 0; i < rows; i++) {
            const int64_t at = t * rows + i;
            if (at < s->own.n_kept) {
                const int64_t r = s->own.kept[at];
                scale_row(s->own.rows[r], s->dim, s->metric == MILL_COSINE ? s->own.length[r] : s->own.longest,
                          scaled + i * s->dim);
            } else {
                memset(scaled + i * s->dim, 0, (size_t)s->dim * sizeof *scaled);
            }
        }
        st = stm_gemm_pack(s->opts.type, scaled, NULL, rows, s->dim, &s->tiles[t], err);
    }
    stm_free(scaled);
    return st;
}

mill_status stm_screen_init(stm_screen *s, const stm_screen_opts *opts, int32_t metric, int32_t threads, int64_t dim,
                            const float *const *queries, int64_t n_queries, const float *const *corpus, int64_t n_corpus,
                            int64_t copies, mill_error *err)
{
    packing p = {.s = s};
    mill_status st;

    memset(s, 0, sizeof *s);
    s->opts = *opts;
    s->metric = metric, s->threads = threads, s->dim = dim;
    s->lda = (dim + 31) / 32 * 32;
    s->margin = scale_margin(opts->type, dim);
    if ((st = vectors_init(&s->own, corpus, n_corpus, dim, threads, err)) != MILL_OK) goto fail;
    if (copies > 0 && copies < s->own.n_valid && (st = drop_copies(&s->own, copies, threads, err)) != MILL_OK) goto fail;
    s->queries = &s->own;
    if (queries != NULL) {
        if ((st = vectors_init(&s->other, queries, n_queries, dim, threads, err)) != MILL_OK) goto fail;
        s->queries = &s->other;
    }
    s->n_tiles = (s->own.n_kept + opts->tile_rows - 1) / opts->tile_rows;
    s->tiles = stm_calloc((size_t)(s->n_tiles > 0 ? s->n_tiles : 1) * sizeof *s->tiles);
    if (s->tiles == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory for %lld tiles", (long long)s->n_tiles);
        goto fail;
    }
    if ((st = stm_parallel(threads, pack_tiles, &p, err)) != MILL_OK) goto fail;
    return MILL_OK;
fail:
    stm_screen_fini(s);
    return st;
}

void stm_screen_fini(stm_screen *s)
{
    for (int64_t t = 0; s->tiles != NULL && t < s->n_tiles; t++) stm_gemm_unpack(&s->tiles[t]);
    stm_free(s->tiles);
    vectors_fini(&s->own);
    vectors_fini(&s->other);
    memset(s, 0, sizeof *s);
}

/* ---- workers ---- */

mill_status stm_screen_worker_init(const stm_screen *s, stm_screen_worker *w, mill_error *err)
{
    const size_t value = s->opts.type == STM_GEMM_BF16 ? sizeof(uint16_t) : sizeof(float);
    mill_status st;

    memset(w, 0, sizeof *w);
    if ((st = stm_gemm_scratch_create(&w->gemm, err)) != MILL_OK) return st;
    w->block = stm_aligned((size_t)(s->opts.block_rows * s->lda) * value, 64);
    w->scaled = stm_aligned((size_t)s->lda * sizeof(float), 64);
    w->scores = stm_aligned((size_t)STM_GEMM_ROWS * (size_t)s->opts.tile_rows * sizeof(float), 64);
    w->found = stm_malloc((size_t)s->opts.tile_rows * sizeof *w->found);
    if (w->block == NULL || w->scaled == NULL || w->scores == NULL || w->found == NULL) {
        stm_screen_worker_fini(w);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory to search");
    }
    return MILL_OK;
}

void stm_screen_worker_fini(stm_screen_worker *w)
{
    stm_gemm_scratch_destroy(&w->gemm);
    stm_free(w->block);
    stm_free(w->scaled);
    stm_free(w->scores);
    stm_free(w->found);
    memset(w, 0, sizeof *w);
}

void stm_screen_load(const stm_screen *s, stm_screen_worker *w, int64_t first, int64_t n)
{
    const int64_t rows = (n + STM_GEMM_ROWS - 1) / STM_GEMM_ROWS * STM_GEMM_ROWS;

    memset(w->scaled, 0, (size_t)s->lda * sizeof(float));
    for (int64_t i = 0; i < rows; i++) {
        if (i < n) {
            const int64_t q = s->queries->valid[first + i];
            scale_row(s->queries->rows[q], s->dim, s->queries->length[q], w->scaled);
        } else {
            memset(w->scaled, 0, (size_t)s->lda * sizeof(float));
        }
        if (s->opts.type == STM_GEMM_BF16)
            stm_to_bf16(w->scaled, (uint16_t *)w->block + i * s->lda, s->lda);
        else
            memcpy((float *)w->block + i * s->lda, w->scaled, (size_t)s->lda * sizeof(float));
    }
}

mill_status stm_screen_run(const stm_screen *s, stm_screen_worker *w, int64_t t, int64_t sub, int64_t m, mill_error *err)
{
    const int64_t at = sub * STM_GEMM_ROWS * s->lda;
    const void *a = s->opts.type == STM_GEMM_BF16 ? (const void *)((const uint16_t *)w->block + at) : (const float *)w->block + at;

    return stm_gemm_run(s->tiles[t], w->gemm, a, s->lda, m, w->scores, s->opts.tile_rows, err);
}

int64_t stm_screen_tile(const stm_screen *s, int64_t t)
{
    const int64_t left = s->own.n_kept - t * s->opts.tile_rows;

    return left < s->opts.tile_rows ? left : s->opts.tile_rows;
}

/* Outside these bounds the rounding of the score to float32 (to 0, a denormal or infinity) is no longer small against
 * the scale, and equal rounded scores say nothing about the screen's. Everything then goes on to be scored exactly. */
static bool scale_is_sound(double scale) { return scale >= 0x1p-100 && scale <= 0x1p+126; }

static double scale_of(const stm_screen *s, int64_t q)
{
    return s->metric == MILL_DOT ? s->queries->length[q] * s->own.longest : 1.0;
}

float stm_screen_margin(const stm_screen *s, int64_t q) { return scale_is_sound(scale_of(s, q)) ? s->margin : INFINITY; }

float stm_screen_floor(const stm_screen *s, int64_t q, float threshold)
{
    const double scale = scale_of(s, q);
    double cut;

    if (threshold == -INFINITY || !scale_is_sound(scale)) return -INFINITY;
    cut = (double)threshold / scale - (double)s->margin;
    return cut < -2.0 ? -INFINITY : cut > 2.0 ? INFINITY : (float)cut;
}
