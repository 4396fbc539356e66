#include "kernels/screen.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "kernels/bf16.h"
#include "kernels/dot.h"
#include "kernels/parallel.h"

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
    if ((st = stm_vectors_init(&s->own, corpus, n_corpus, dim, threads, err)) != MILL_OK) goto fail;
    if (copies > 0 && copies < s->own.n_valid && (st = stm_vectors_drop_copies(&s->own, copies, threads, err)) != MILL_OK)
        goto fail;
    s->queries = &s->own;
    if (queries != NULL) {
        if ((st = stm_vectors_init(&s->other, queries, n_queries, dim, threads, err)) != MILL_OK) goto fail;
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
    stm_vectors_fini(&s->own);
    stm_vectors_fini(&s->other);
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
