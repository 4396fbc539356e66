/*
 * What does it cost to take a batch apart and put it together? One core, warm pool; each row is the median of RUNS runs with the
 * fastest and slowest beside it. Copies are held against memcpy of as many bytes, small blocks against malloc and free.
 * Prints one JSON object per line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "batch/batch.h"

enum { RUNS = 15, ROWS = 256 };

typedef struct world {
    mill_pool *pool;
    const mill_type *types[3];
    mill_batch *batch;
    int64_t index[ROWS / 2];
    char *bytes_from, *bytes_to;
    size_t bytes;
    size_t block;
} world;

static void fail(const char *what)
{
    fprintf(stderr, "bench_batch: %s\n", what);
    exit(1);
}
static void need(mill_status st)
{
    if (st != MILL_OK) fail(mill_status_text(st));
}

static void pool_pair(world *w) { stm_pool_give(w->pool, stm_pool_take(w->pool, w->block), w->block); }
static void malloc_pair(world *w)
{
    void *volatile p = malloc(w->block); /* volatile: the pair must not be optimised away */

    free(p);
}
static void shell(world *w)
{
    mill_batch *b;

    need(stm_batch_create(w->pool, ROWS, 4, 1, &b));
    mill_batch_destroy(&b);
}
static void slice(world *w)
{
    mill_batch *b;

    need(stm_batch_slice(w->batch, 10, 100, &b));
    mill_batch_destroy(&b);
}
static void concat(world *w)
{
    const stm_run_of_rows runs[2] = {{w->batch, ROWS / 2, ROWS / 2}, {w->batch, 0, ROWS / 2}};
    mill_batch *b;

    need(stm_batch_concat(w->pool, runs, 2, w->types, 3, 1, &b));
    mill_batch_destroy(&b);
}
static void gather(world *w)
{
    mill_batch *b;

    need(stm_batch_gather(w->pool, w->batch, w->index, ROWS / 2, w->types, &b));
    mill_batch_destroy(&b);
}
static void copy(world *w) { memcpy(w->bytes_to, w->bytes_from, w->bytes); }

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Time of this thread on its core: other work on the machine does not count. */
static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Median ns per call. */
static double measure(const char *name, void (*run)(world *), world *w, const char *beside, double beside_ns)
{
    double ns[RUNS];
    long n = 1000;
    int64_t t = 0;

    for (; n < 100000000; n *= 2) { /* 20 ms per run; warms up, too */
        t = cpu_ns();
        for (long i = 0; i < n; i++) run(w);
        if ((t = cpu_ns() - t) > 20000000) break;
    }
    for (int k = 0; k < RUNS; k++) {
        t = cpu_ns();
        for (long i = 0; i < n; i++) run(w);
        ns[k] = (double)(cpu_ns() - t) / (double)n;
    }
    qsort(ns, RUNS, sizeof ns[0], by_value);
    printf("{\"name\": \"%s\", \"value\": %.2f, \"unit\": \"ns\", \"spread\": [%.2f, %.2f]", name, ns[RUNS / 2], ns[0],
           ns[RUNS - 1]);
    if (beside != NULL)
        printf(", \"denominator\": \"%s\", \"denominator_value\": %.2f, \"ratio\": %.3f", beside, beside_ns,
               ns[RUNS / 2] / beside_ns);
    printf("}\n");
    return ns[RUNS / 2];
}

/* 256 rows: text of 100 bytes, a vector of 384 floats, a number. */
static void fill(world *w)
{
    char text[100];
    mill_builder *b[3];

    memset(text, 'x', sizeof text);
    w->types[0] = mill_type_plain(MILL_UTF8);
    w->types[1] = mill_type_fixed_list(mill_type_plain(MILL_FLOAT32), 384);
    w->types[2] = mill_type_plain(MILL_INT64);
    need(mill_batch_create(w->pool, ROWS, 3, &w->batch));
    for (int i = 0; i < 3; i++) need(mill_builder_create(w->pool, w->types[i], &b[i]));
    for (int r = 0; r < ROWS; r++) {
        need(mill_builder_text(b[0], text, sizeof text));
        for (int d = 0; d < 384; d++) need(mill_builder_float(mill_builder_child(b[1], 0), d));
        need(mill_builder_close_row(b[1]));
        need(mill_builder_int(b[2], r));
    }
    for (int i = 0; i < 3; i++) {
        mill_column *c = NULL;

        need(mill_builder_finish(b[i], &c));
        need(mill_batch_set_column(w->batch, i, &c));
        mill_builder_destroy(&b[i]);
    }
    for (int i = 0; i < ROWS / 2; i++) w->index[i] = 2 * i;
    w->bytes = (size_t)ROWS * (100 + 8 + 384 * 4 + 8);
    w->bytes_from = calloc(1, w->bytes);
    w->bytes_to = calloc(1, w->bytes);
    if (w->bytes_from == NULL || w->bytes_to == NULL) fail("out of memory");
}

int main(void)
{
    world w = {0};
    double beside;

    need(stm_pool_create(0, &w.pool));
    fill(&w);
    w.block = 192;
    beside = measure("malloc_free_192", malloc_pair, &w, NULL, 0);
    measure("pool_pair_192_shared", pool_pair, &w, "malloc_free_192", beside);
    stm_pool_attach(w.pool);
    measure("pool_pair_192_stocked", pool_pair, &w, "malloc_free_192", beside);
    measure("batch_create_destroy", shell, &w, "malloc_free_192", beside);
    measure("batch_slice_destroy_3_columns", slice, &w, NULL, 0);
    beside = measure("memcpy_of_a_batch", copy, &w, NULL, 0);
    measure("concat_2_halves", concat, &w, "memcpy_of_a_batch", beside);
    w.bytes /= 2;
    beside = measure("memcpy_of_half_a_batch", copy, &w, NULL, 0);
    measure("gather_every_second_row", gather, &w, "memcpy_of_half_a_batch", beside);
    stm_pool_detach();
    mill_batch_destroy(&w.batch);
    stm_pool_release(&w.pool);
    free(w.bytes_from);
    free(w.bytes_to);
    return 0;
}
