/*
 * What run.py times of stepmill without its engine: bench_embed MODE MODEL TEXTS PRECISION THREADS BATCH
 *   encode  texts -> vectors with THREADS replicas of one thread each, batches of BATCH texts: documents/s
 *   inside  the same with one replica of THREADS threads
 *   tokens  texts -> ids, one thread: documents/s, and the mean number of ids
 *   gemm    the model's products alone in blocks of BATCH rows on THREADS threads: GFLOP/s
 *   load    opening the model until the first vector: seconds
 *   vectors vectors of all texts to standard output as float32
 * encode and inside take the texts eight times, so that the last batches, when a thread has none left, do not weigh much.
 * TEXTS: for each text its bytes as a uint32, then the bytes. One figure is printed, after a warm-up.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "kernels/bf16.h"
#include "kernels/gemm.h"
#include "models/tokenizers/wordpiece.h"
#include "stepmill/model.h"

enum { THREADS_MAX = 64, LAYERS = 6, PASSES = 8 };

typedef struct corpus {
    char *data;
    int64_t *offsets, n;
} corpus;

typedef struct job {
    const corpus *texts;
    mill_encoder *enc[THREADS_MAX];
    float *out;
    int64_t batch, dim;
    _Atomic int64_t next;
    /* gemm */
    stm_gemm_weight *w[LAYERS][6];
    stm_gemm_type type;
    _Atomic int64_t flop;
} job;

typedef struct thread_arg {
    job *j;
    int index;
} thread_arg;

static void die(const char *what)
{
    fprintf(stderr, "bench_embed: %s\n", what);
    exit(1);
}

static void *need(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    if (p == NULL) die("no memory");
    memset(p, 0, bytes);
    return p;
}

static corpus read_texts(const char *path)
{
    FILE *f = fopen(path, "rb");
    corpus c = {0};
    uint32_t bytes;
    int64_t cap = 0, used = 0;

    if (f == NULL) die("cannot read the texts");
    c.offsets = need(sizeof(int64_t) * 1000001);
    while (c.n < 1000000 && fread(&bytes, sizeof bytes, 1, f) == 1) {
        if (used + bytes + 64 > cap) {
            cap = 2 * (used + bytes + 64);
            if ((c.data = realloc(c.data, (size_t)cap)) == NULL) die("no memory");
        }
        if (fread(c.data + used, 1, bytes, f) != bytes) die("the texts are cut short");
        used += bytes;
        c.offsets[++c.n] = used;
    }
    fclose(f);
    return c;
}

static mill_encoder *open_encoder(const char *model, const char *precision, int threads)
{
    mill_encoder_options o = MILL_ENCODER_INIT;
    mill_encoder *enc = NULL;
    mill_error err = {0};

    o.precision = strcmp(precision, "bf16") == 0 ? MILL_PRECISION_BF16 : MILL_PRECISION_F32;
    o.threads = threads;
    if (mill_encoder_open(model, &o, &enc, &err) != MILL_OK) die(err.msg);
    return enc;
}

static void *encode(void *arg)
{
    const thread_arg *t = arg;
    job *j = t->j;

    for (;;) {
        const int64_t per_pass = (j->texts->n + j->batch - 1) / j->batch, turn = atomic_fetch_add(&j->next, 1);
        if (turn >= PASSES * per_pass) return NULL;
        const int64_t first = turn % per_pass * j->batch;
        const int64_t rows = j->texts->n - first < j->batch ? j->texts->n - first : j->batch;
        const mill_texts in = {j->texts->data, j->texts->offsets, NULL, first, rows};
        mill_error err = {0};
        if (mill_encoder_run(j->enc[t->index], &in, j->out + first * j->dim, &err) != MILL_OK) die(err.msg);
    }
}

/* Every thread takes groups of BATCH rows through all products of the model, as the encoder does. */
static void *multiply(void *arg)
{
    static const int shapes[6][2] = {{384, 384}, {384, 384}, {384, 384}, {384, 384}, {1536, 384}, {384, 1536}};
    const thread_arg *t = arg;
    job *j = t->j;
    const int64_t ld = 1568, rows = (j->batch + 15) / 16 * 16;
    float *a = need((size_t)(rows * ld) * sizeof *a), *c = need((size_t)(rows * ld) * sizeof *c);
    stm_gemm_scratch *s = NULL;
    int64_t flop = 0;

    for (int64_t i = 0; i < rows * ld; i++) {
        const float v = (float)(i * 2654435761u % 1000) / 500.0f - 1.0f;
        if (j->type == STM_GEMM_F32)
            a[i] = v;
        else
            ((uint16_t *)a)[i] = stm_bf16_of(v);
    }
    if (stm_gemm_scratch_create(&s, NULL) != MILL_OK) die("no memory");
    while (atomic_fetch_sub(&j->next, 1) > 0)
        for (int l = 0; l < LAYERS; l++)
            for (int m = 0; m < 6; m++) {
                if (stm_gemm_run(j->w[l][m], s, a, shapes[m][1] + 32, j->batch, c, shapes[m][0] + 32, NULL) != MILL_OK)
                    die("product failed");
                flop += 2LL * j->batch * shapes[m][0] * shapes[m][1];
            }
    atomic_fetch_add(&j->flop, flop);
    stm_gemm_scratch_destroy(&s);
    free(a);
    free(c);
    return NULL;
}

static double timed(job *j, int threads, void *(*fn)(void *), int64_t start)
{
    pthread_t id[THREADS_MAX];
    thread_arg args[THREADS_MAX];
    const int64_t begin = stm_now_ns();

    atomic_store(&j->next, start);
    atomic_store(&j->flop, 0);
    for (int i = 0; i < threads; i++) {
        args[i] = (thread_arg){j, i};
        if (pthread_create(&id[i], NULL, fn, &args[i]) != 0) die("cannot start a thread");
    }
    for (int i = 0; i < threads; i++) pthread_join(id[i], NULL);
    return (double)(stm_now_ns() - begin) * 1e-9;
}

static void time_tokens(const char *model, const corpus *texts)
{
    stm_wordpiece *tok = NULL;
    mill_error err = {0};
    int32_t ids[512];
    int64_t total = 0, begin = 0;

    if (stm_wordpiece_open(model, &tok, &err) != MILL_OK) die(err.msg);
    for (int pass = 0; pass < 2; pass++) {
        total = 0, begin = stm_now_ns();
        for (int64_t r = 0; r < texts->n; r++)
            total +=
                stm_wordpiece_encode(tok, texts->data + texts->offsets[r], texts->offsets[r + 1] - texts->offsets[r], 256, ids);
    }
    printf("%.1f %.2f\n", (double)texts->n / ((double)(stm_now_ns() - begin) * 1e-9), (double)total / (double)texts->n);
    stm_wordpiece_close(&tok);
}

static void time_gemm(job *j, const char *precision, int threads)
{
    static const int shapes[6][2] = {{384, 384}, {384, 384}, {384, 384}, {384, 384}, {1536, 384}, {384, 1536}};
    float *b = need(sizeof(float) * 1536 * 384);

    j->type = strcmp(precision, "bf16") == 0 ? STM_GEMM_BF16 : STM_GEMM_F32;
    for (int i = 0; i < 1536 * 384; i++) b[i] = (float)((unsigned)i * 40503u % 1000) / 500.0f - 1.0f;
    for (int l = 0; l < LAYERS; l++)
        for (int m = 0; m < 6; m++)
            if (stm_gemm_pack(j->type, b, NULL, shapes[m][0], shapes[m][1], &j->w[l][m], NULL) != MILL_OK) die("no memory");
    const int64_t groups = (j->type == STM_GEMM_BF16 ? 16384 : 2048) / j->batch + 1;
    timed(j, threads, multiply, threads);
    const double s = timed(j, threads, multiply, groups * threads);
    printf("%.1f\n", (double)atomic_load(&j->flop) / s * 1e-9);
    free(b); /* packed weights go with the process */
}

int main(int argc, char **argv)
{
    if (argc != 7) die("usage: bench_embed MODE MODEL TEXTS PRECISION THREADS BATCH");
    const char *mode = argv[1], *model = argv[2], *precision = argv[4];
    const int threads = (int)strtol(argv[5], NULL, 10), inside = strcmp(mode, "inside") == 0;
    corpus texts = read_texts(argv[3]);
    job j = {.texts = &texts, .batch = strtoll(argv[6], NULL, 10)};

    if (threads < 1 || threads > THREADS_MAX || j.batch < 1) die("THREADS or BATCH is out of range");
    if (strcmp(mode, "tokens") == 0) {
        time_tokens(model, &texts);
        return 0;
    }
    if (strcmp(mode, "gemm") == 0) {
        time_gemm(&j, precision, threads);
        return 0;
    }
    const int64_t begin = stm_now_ns();
    const int n = inside ? 1 : threads;
    for (int i = 0; i < n; i++) j.enc[i] = open_encoder(model, precision, inside ? threads : 1);
    j.dim = mill_encoder_info_of(j.enc[0]).dim;
    j.out = need((size_t)(texts.n * j.dim) * sizeof(float));
    const mill_texts one = {texts.data, texts.offsets, NULL, 0, 1};
    if (mill_encoder_run(j.enc[0], &one, j.out, NULL) != MILL_OK) die("encoding failed");
    if (strcmp(mode, "load") == 0) {
        printf("%.5f\n", (double)(stm_now_ns() - begin) * 1e-9);
    } else {
        timed(&j, n, encode, (texts.n + j.batch - 1) / j.batch * (PASSES - 1)); /* warm-up: the last pass only */
        const double s = timed(&j, n, encode, 0);
        if (strcmp(mode, "vectors") == 0)
            fwrite(j.out, sizeof(float), (size_t)(texts.n * j.dim), stdout);
        else
            printf("%.2f\n", (double)texts.n * PASSES / s);
    }
    for (int i = 0; i < n; i++) mill_encoder_close(&j.enc[i]);
    free(j.out);
    free(texts.data);
    free(texts.offsets);
    return 0;
}
