/* All pairs above a threshold: the upper triangle of the score matrix, tile by tile. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "core/alloc.h"
#include "kernels/candidates.h"
#include "kernels/parallel.h"
#include "kernels/topk.h"

enum { HELD_PAIRS = 4096 }; /* pairs a worker collects before it takes the lock */

typedef struct search {
    const mill_pairs_args *args;
    stm_screen screen;
    _Atomic int64_t next;
    _Atomic bool stop;
    pthread_mutex_t lock; /* around args->found */
} search;

typedef struct worker {
    stm_screen_worker w;
    mill_pair *held; /* [HELD_PAIRS] */
    int64_t n;
} worker;

static mill_status hand_over(search *s, worker *k, mill_error *err)
{
    mill_status st = MILL_OK;

    if (k->n == 0) return MILL_OK;
    (void)pthread_mutex_lock(&s->lock);
    if (!atomic_load_explicit(&s->stop, memory_order_relaxed)) st = s->args->found(s->args->user, k->held, k->n, err);
    if (st != MILL_OK) atomic_store_explicit(&s->stop, true, memory_order_relaxed); /* inside: no call after a refusal */
    (void)pthread_mutex_unlock(&s->lock);
    k->n = 0;
    return st;
}

/* Scores of the valid row number @p at against tile @p t. */
static mill_status take_row(search *s, worker *k, int64_t at, int64_t t, float floor, const float *scores, mill_error *err)
{
    const mill_pairs_args *a = s->args;
    const stm_vectors *v = &s->screen.own;
    const int64_t start = t * s->screen.opts.tile_rows, width = stm_screen_tile(&s->screen, t);
    const int64_t skip = at + 1 > start ? at + 1 - start : 0; /* columns at or before the diagonal */
    const int64_t i = v->valid[at];
    int64_t n;
    float sure;
    mill_status st;

    if (skip >= width) return MILL_OK;
    n = stm_scan_above(scores + skip, width - skip, floor, k->w.found);
    if (n == 0) return MILL_OK;
    sure = floor + 2.0f * stm_screen_margin(&s->screen, i) + 0x1p-20f; /* surely above the threshold, whatever the rounding */
    for (int64_t p = 0; p < n; p++) {
        const int64_t column = skip + k->w.found[p];
        mill_pair pair = {.i = i, .j = v->valid[start + column]};
        if (a->scores || !(scores[column] >= sure)) {
            const float exact = stm_screen_exact(&s->screen, i, pair.j);
            if (!(exact >= a->threshold)) continue;
            if (a->scores) pair.score = exact;
        }
        k->held[k->n++] = pair;
        if (k->n == HELD_PAIRS && (st = hand_over(s, k, err)) != MILL_OK) return st;
    }
    return MILL_OK;
}

static mill_status search_block(search *s, worker *k, int64_t first, int64_t n, mill_error *err)
{
    const mill_pairs_args *a = s->args;
    const int64_t tile = s->screen.opts.tile_rows;
    mill_status st;

    stm_screen_load(&s->screen, &k->w, first, n);
    for (int64_t t = first / tile; t < s->screen.n_tiles; t++) {
        if (a->cancelled != NULL && a->cancelled(a->user)) return mill_fail(err, MILL_ERR_STOPPED, "the search was told to stop");
        if (atomic_load_explicit(&s->stop, memory_order_relaxed)) return MILL_OK;
        for (int64_t from = 0; from < n; from += STM_GEMM_ROWS) {
            const int64_t m = n - from < STM_GEMM_ROWS ? n - from : STM_GEMM_ROWS;
            if (t * tile + stm_screen_tile(&s->screen, t) <= first + from + 1) continue; /* all below the diagonal */
            if ((st = stm_screen_run(&s->screen, &k->w, t, from / STM_GEMM_ROWS, m, err)) != MILL_OK) return st;
            for (int64_t i = 0; i < m; i++) {
                const int64_t at = first + from + i;
                const float floor = stm_screen_floor(&s->screen, s->screen.own.valid[at], a->threshold);
                if ((st = take_row(s, k, at, t, floor, k->w.scores + i * tile, err)) != MILL_OK) return st;
            }
        }
    }
    return MILL_OK;
}

static mill_status search_main(void *user, int32_t index, mill_error *err)
{
    search *s = user;
    const int64_t block = s->screen.opts.block_rows, total = s->screen.own.n_valid;
    worker k = {0};
    mill_status st;

    (void)index;
    if ((st = stm_screen_worker_init(&s->screen, &k.w, err)) != MILL_OK) goto done;
    if ((k.held = stm_malloc(HELD_PAIRS * sizeof *k.held)) == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory for pairs");
        goto done;
    }
    /* The first blocks are the longest, so the threads end at about the same time. */
    while (st == MILL_OK && !atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        const int64_t first = atomic_fetch_add_explicit(&s->next, block, memory_order_relaxed);
        if (first >= total) break;
        st = search_block(s, &k, first, total - first < block ? total - first : block, err);
    }
    if (st == MILL_OK) st = hand_over(s, &k, err);
done:
    if (st != MILL_OK) atomic_store_explicit(&s->stop, true, memory_order_relaxed);
    stm_free(k.held);
    stm_screen_worker_fini(&k.w);
    return st;
}

mill_status stm_pairs_cpu(const mill_pairs_args *a, const stm_screen_opts *opts, mill_error *err)
{
    const stm_screen_opts usual = stm_screen_defaults(a->n, 0, a->threads);
    search s = {.args = a, .lock = PTHREAD_MUTEX_INITIALIZER};
    mill_status st;

    if ((st = stm_screen_init(&s.screen, opts != NULL ? opts : &usual, a->metric, a->threads, a->dim, NULL, 0, a->vectors, a->n, 0,
                              err)) != MILL_OK)
        return st;
    st = stm_parallel(a->threads, search_main, &s, err);
    stm_screen_fini(&s.screen);
    (void)pthread_mutex_destroy(&s.lock);
    return st;
}
