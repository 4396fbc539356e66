#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "kernels/candidates.h"
#include "kernels/parallel.h"
#include "kernels/topk.h"

typedef struct search {
    const mill_topk_args *args;
    int64_t k; /* no more than there are rows */
    stm_screen screen;
    int64_t parts;        /* of the corpus: more than one where there are too few blocks of queries for all threads */
    _Atomic int64_t next; /* first block and part nobody has taken; relaxed, they are independent */
    _Atomic bool stop;    /* somebody failed; relaxed */
    pthread_mutex_t lock; /* args->rows and args->scores, with several parts */
} search;

typedef struct worker {
    stm_screen_worker w;
    stm_candidates *lists; /* [block_rows] */
} worker;

static int by_rank(const void *x, const void *y)
{
    const stm_candidate *a = x, *b = y;

    if (a->row == b->row) return 0;
    return stm_topk_before(a->score, a->row, b->score, b->row) ? -1 : 1;
}

static mill_status out_of_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for candidates"); }

/* @p n candidates with exact scores and what other parts of the corpus have left: the best of both. The list has room for 2 k. */
static void merge(const search *s, stm_candidates *c, int64_t n, int64_t q)
{
    const mill_topk_args *a = s->args;
    int64_t *rows = a->rows + q * a->k;
    float *scores = a->scores + q * a->k;

    if (n > s->k) n = s->k;
    for (int64_t i = 0; i < a->k && rows[i] >= 0; i++) c->items[n++] = (stm_candidate){rows[i], scores[i]};
    qsort(c->items, (size_t)n, sizeof *c->items, by_rank);
    for (int64_t i = 0; i < a->k && i < n; i++) rows[i] = c->items[i].row, scores[i] = c->items[i].score;
}

/* The k best of what passed the screen, by their exact scores. */
static void settle(search *s, stm_candidates *c, int64_t q)
{
    const mill_topk_args *a = s->args;
    int64_t n = 0;

    stm_candidates_cut_back(c, s->k, 2.0f * stm_screen_margin(&s->screen, q));
    for (int64_t i = 0; i < c->n; i++) {
        const float exact = stm_screen_exact(&s->screen, q, c->items[i].row);
        if (exact >= a->threshold) c->items[n++] = (stm_candidate){c->items[i].row, exact};
    }
    qsort(c->items, (size_t)n, sizeof *c->items, by_rank);
    if (s->parts > 1) {
        (void)pthread_mutex_lock(&s->lock);
        merge(s, c, n, q);
        (void)pthread_mutex_unlock(&s->lock);
    } else {
        for (int64_t i = 0; i < a->k && i < n; i++)
            a->rows[q * a->k + i] = c->items[i].row, a->scores[q * a->k + i] = c->items[i].score;
    }
}

/* Scores of one query against one tile: nearly always nothing passes. */
static mill_status take_row(search *s, worker *k, stm_candidates *c, int64_t q, int64_t tile, const float *scores)
{
    const mill_topk_args *a = s->args;
    const int64_t *rows = s->screen.own.kept + tile * s->screen.opts.tile_rows;
    const int64_t n = stm_scan_above(scores, stm_screen_tile(&s->screen, tile), c->cut, k->w.found);
    float margin;

    if (n == 0) return MILL_OK;
    margin = 2.0f * stm_screen_margin(&s->screen, q); /* of the k best and of the row, each off by one */
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = rows[k->w.found[i]];
        const float score = scores[k->w.found[i]];
        mill_status st;
        if (score < c->cut || (a->exclude_self && row == q)) continue;
        if ((st = stm_candidates_add(c, s->k, margin, row, score)) != MILL_OK) return st;
    }
    return MILL_OK;
}

/* Queries first .. first + n - 1 against tiles start .. end - 1. */
static mill_status search_block(search *s, worker *k, int64_t first, int64_t n, int64_t start, int64_t end, mill_error *err)
{
    const mill_topk_args *a = s->args;
    const int64_t *ids = s->screen.queries->valid + first;
    mill_status st;

    stm_screen_load(&s->screen, &k->w, first, n);
    for (int64_t i = 0; i < n; i++)
        if (stm_candidates_reset(&k->lists[i], s->k, stm_screen_floor(&s->screen, ids[i], a->threshold)) != MILL_OK)
            return out_of_memory(err);
    for (int64_t t = start; t < end; t++) {
        if (a->cancelled != NULL && a->cancelled(a->user)) return mill_fail(err, MILL_ERR_STOPPED, "the search was told to stop");
        if (atomic_load_explicit(&s->stop, memory_order_relaxed)) return MILL_OK;
        for (int64_t sub = 0; sub * STM_GEMM_ROWS < n; sub++) {
            const int64_t from = sub * STM_GEMM_ROWS, m = n - from < STM_GEMM_ROWS ? n - from : STM_GEMM_ROWS;
            if ((st = stm_screen_run(&s->screen, &k->w, t, sub, m, err)) != MILL_OK) return st;
            for (int64_t i = 0; i < m; i++)
                if (take_row(s, k, &k->lists[from + i], ids[from + i], t, k->w.scores + i * s->screen.opts.tile_rows) != MILL_OK)
                    return out_of_memory(err);
        }
    }
    for (int64_t i = 0; i < n; i++) settle(s, &k->lists[i], ids[i]);
    return MILL_OK;
}

static mill_status search_main(void *user, int32_t index, mill_error *err)
{
    search *s = user;
    const int64_t block = s->screen.opts.block_rows, total = s->screen.queries->n_valid;
    worker k = {0};
    mill_status st;

    (void)index;
    if ((st = stm_screen_worker_init(&s->screen, &k.w, err)) != MILL_OK) goto done;
    if ((k.lists = stm_calloc((size_t)block * sizeof *k.lists)) == NULL) {
        st = out_of_memory(err);
        goto done;
    }
    while (st == MILL_OK && !atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        const int64_t turn = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
        const int64_t first = turn / s->parts * block, part = turn % s->parts, tiles = s->screen.n_tiles;
        if (first >= total) break;
        st = search_block(s, &k, first, total - first < block ? total - first : block, part * tiles / s->parts,
                          (part + 1) * tiles / s->parts, err);
    }
done:
    if (st != MILL_OK) atomic_store_explicit(&s->stop, true, memory_order_relaxed);
    for (int64_t i = 0; k.lists != NULL && i < block; i++) stm_candidates_fini(&k.lists[i]);
    stm_free(k.lists);
    stm_screen_worker_fini(&k.w);
    return st;
}

/* Few queries against a large corpus: it is cut, too, until there is work for all threads, and some to level them out. */
static int64_t parts_of(const stm_screen *s)
{
    const int64_t blocks = (s->queries->n_valid + s->opts.block_rows - 1) / s->opts.block_rows, want = 4 * (int64_t)s->threads;

    if (s->threads < 2 || blocks == 0 || blocks >= want || s->n_tiles < 2) return 1;
    return (want + blocks - 1) / blocks < s->n_tiles ? (want + blocks - 1) / blocks : s->n_tiles;
}

mill_status stm_topk_cpu(const mill_topk_args *a, const stm_screen_opts *opts, mill_error *err)
{
    const int64_t k = a->k < a->n_corpus ? a->k : a->n_corpus;
    const stm_screen_opts usual = stm_screen_defaults(a->n_queries, k, a->threads);
    const bool self = a->queries == a->corpus && a->n_queries == a->n_corpus;
    search s = {.args = a, .k = k, .parts = 1, .lock = PTHREAD_MUTEX_INITIALIZER};
    mill_status st;

    if (a->n_queries == 0) return MILL_OK;
    for (int64_t i = 0; i < a->n_queries * a->k; i++) a->rows[i] = -1, a->scores[i] = 0.0f; /* for queries that take no part */
    if ((st = stm_screen_init(&s.screen, opts != NULL ? opts : &usual, a->metric, a->threads, a->dim, self ? NULL : a->queries,
                              a->n_queries, a->corpus, a->n_corpus, k + 1, err)) != MILL_OK)
        return st;
    s.parts = parts_of(&s.screen);
    st = stm_parallel(a->threads, search_main, &s, err);
    stm_screen_fini(&s.screen);
    (void)pthread_mutex_destroy(&s.lock);
    return st;
}
