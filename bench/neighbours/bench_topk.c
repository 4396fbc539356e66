/*
 * Exact top-k of the first q of n x d vectors against all: the matrix product alone, the search, the pairs (of all).
 * Prints one line of tab-separated values per repeat and kind: kind, seconds, pairs found. Vectors (float32, row-major) are
 * read from --vectors; without, made with some structure, and written to --write.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/parallel.h"
#include "kernels/topk.h"

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t state = 88172645463325252ULL;
static float uniform(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (float)(int64_t)(state >> 40) * 0x1p-23f - 1.0f;
}

/* Around 500 centres, so that neighbours stand out as they do among embeddings of texts. */
static float *make(int64_t n, int64_t dim)
{
    float *centre = malloc((size_t)(500 * dim) * sizeof *centre), *v = malloc((size_t)(n * dim) * sizeof *v);

    if (centre == NULL || v == NULL) exit(1);
    for (int64_t i = 0; i < 500 * dim; i++) centre[i] = uniform();
    for (int64_t r = 0; r < n; r++) {
        const float *c = centre + (int64_t)((uint64_t)(r * 2654435761) % 500) * dim;
        for (int64_t i = 0; i < dim; i++) v[r * dim + i] = c[i] + 0.8f * uniform();
    }
    free(centre);
    return v;
}

static float *load(const char *path, int64_t n, int64_t dim)
{
    float *v = malloc((size_t)(n * dim) * sizeof *v);
    FILE *f = fopen(path, "rb");

    if (v == NULL || f == NULL || fread(v, sizeof *v, (size_t)(n * dim), f) != (size_t)(n * dim)) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    return v;
}

static void save(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");

    if (f == NULL || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) {
        fprintf(stderr, "cannot write %s\n", path);
        exit(1);
    }
}

/* The same blocks of the same product, nothing done with the scores. */
typedef struct product {
    const stm_screen *s;
    _Atomic int64_t next;
} product;
static mill_status multiply(void *user, int32_t index, mill_error *err)
{
    product *p = user;
    stm_screen_worker w;
    const int64_t block = p->s->opts.block_rows, total = p->s->queries->n_valid;
    mill_status st = stm_screen_worker_init(p->s, &w, err);

    (void)index;
    while (st == MILL_OK) {
        const int64_t first = atomic_fetch_add(&p->next, block);
        const int64_t n = total - first < block ? total - first : block;
        if (first >= total) break;
        stm_screen_load(p->s, &w, first, n);
        for (int64_t t = 0; t < p->s->n_tiles; t++)
            for (int64_t from = 0; from < n && st == MILL_OK; from += STM_GEMM_ROWS)
                st = stm_screen_run(p->s, &w, t, from / STM_GEMM_ROWS, n - from < STM_GEMM_ROWS ? n - from : STM_GEMM_ROWS, err);
    }
    stm_screen_worker_fini(&w);
    return st;
}

static mill_status count(void *user, const mill_pair *pairs, int64_t n, mill_error *err)
{
    (void)pairs, (void)err;
    *(int64_t *)user += n;
    return MILL_OK;
}

/* Whether @p name is one of the words of a list parted by commas. */
static bool is_named(const char *list, const char *name)
{
    const size_t n = strlen(name);

    for (const char *p = list; (p = strstr(p, name)) != NULL; p += n)
        if ((p == list || p[-1] == ',') && (p[n] == ',' || p[n] == '\0')) return true;
    return false;
}

static void check(mill_status st, const mill_error *err)
{
    if (st == MILL_OK) return;
    fprintf(stderr, "%s\n", err->msg);
    exit(1);
}

int main(int argc, char **argv)
{
    int64_t n = 61703, dim = 384, k = 10, reps = 5, queries = 0;
    int threads = 2;
    double threshold = 0.92;
    const char *file = NULL, *write_to = NULL, *dump = NULL, *only = "gemm_f32,gemm_bf16,topk_f32,topk,pairs";
    stm_screen_opts cut = {0};
    mill_error err = {0};

    for (int i = 1; i + 1 < argc; i += 2) {
        const char *o = argv[i], *v = argv[i + 1];
        if (!strcmp(o, "--rows")) n = atoll(v);
        else if (!strcmp(o, "--queries")) queries = atoll(v);
        else if (!strcmp(o, "--dim")) dim = atoll(v);
        else if (!strcmp(o, "--k")) k = atoll(v);
        else if (!strcmp(o, "--reps")) reps = atoll(v);
        else if (!strcmp(o, "--threads")) threads = atoi(v);
        else if (!strcmp(o, "--threshold")) threshold = atof(v);
        else if (!strcmp(o, "--vectors")) file = v;
        else if (!strcmp(o, "--only")) only = v;
        else if (!strcmp(o, "--write")) write_to = v;
        else if (!strcmp(o, "--results")) dump = v;
        else if (!strcmp(o, "--tile")) cut.tile_rows = atoi(v);
        else if (!strcmp(o, "--block")) cut.block_rows = atoi(v);
        else return fprintf(stderr, "unknown option %s\n", o), 64;
    }
    if (queries < 1 || queries > n) queries = n;
    float *data = file != NULL ? load(file, n, dim) : make(n, dim);
    if (write_to != NULL) save(write_to, data, (size_t)(n * dim) * sizeof *data);
    const float **rows = malloc((size_t)n * sizeof *rows);
    mill_topk_args t = MILL_TOPK_INIT;
    t.threads = threads, t.queries = t.corpus = rows, t.n_queries = queries, t.n_corpus = n, t.dim = dim, t.k = k,
    t.exclude_self = true;
    t.rows = malloc((size_t)(n * k) * sizeof *t.rows), t.scores = malloc((size_t)(n * k) * sizeof *t.scores);
    if (rows == NULL || t.rows == NULL || t.scores == NULL) return 1;
    for (int64_t r = 0; r < n; r++) rows[r] = data + r * dim;

    for (int64_t rep = 0; rep < reps; rep++)
        for (int what = 0; what < 5; what++) {
            static const char *const names[] = {"gemm_f32", "gemm_bf16", "topk_f32", "topk", "pairs"};
            stm_screen_opts o = stm_screen_defaults(queries, k, threads);
            double start, seconds;
            int64_t found = 0;
            if (!is_named(only, names[what])) continue;
            if (what == 0 || what == 2) o.type = STM_GEMM_F32, o.tile_rows = 384;
            if (what == 1) o.type = STM_GEMM_BF16;
            if (cut.tile_rows) o.tile_rows = cut.tile_rows;
            if (cut.block_rows) o.block_rows = cut.block_rows;
            if (what == 1 && !stm_gemm_supports(STM_GEMM_BF16)) continue;
            if (what < 2) { /* packing is not counted here; it is in the others */
                stm_screen s;
                product p = {.s = &s};
                check(stm_screen_init(&s, &o, MILL_COSINE, threads, dim, queries < n ? rows : NULL, queries, rows, n, 0, &err),
                      &err);
                start = now();
                check(stm_parallel(threads, multiply, &p, &err), &err);
                seconds = now() - start;
                stm_screen_fini(&s);
            } else if (what < 4) {
                start = now();
                check(stm_topk_cpu(&t, &o, &err), &err);
                seconds = now() - start;
                if (dump != NULL) save(dump, t.rows, (size_t)(queries * k) * sizeof *t.rows);
            } else {
                mill_pairs_args a = MILL_PAIRS_INIT;
                a.threads = threads, a.vectors = rows, a.n = n, a.dim = dim, a.threshold = (float)threshold, a.found = count,
                a.user = &found;
                start = now();
                check(stm_pairs_cpu(&a, &o, &err), &err);
                seconds = now() - start;
            }
            printf("%s\t%.6f\t%lld\n", names[what], seconds, (long long)found);
            fflush(stdout);
        }
    free(data);
    free(rows);
    free(t.rows);
    free(t.scores);
    return 0;
}
