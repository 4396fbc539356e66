/*
 * The encoder on one GPU, in parts, as the engine calls them.
 *
 *   bench_gpu_forward MODEL THREADS [--quick]
 *   bench_gpu_forward --attention [--quick]
 *
 *     forward    ids of documents of some 64 tokens to vectors, in groups of 16,384 tokens: milliseconds a group
 *     products   the matrix products of that group alone, by the same calls
 *     tokens     what the forward passes do: tokens a second, those that groups are filled up with left out
 *     tokenizer  texts of such lengths to ids on THREADS threads of the host: tokens a second
 *     attention DIM x LENGTH   16,384 rows in documents of that length, heads for 384 (32) or 768 (64) columns: milliseconds
 *
 * Weights of the products and what attention reads are random.
 */
#include <string.h>

#include "bench/gpu/measure.h"
#include "bench/gpu/spin.h"
#include "device/registry.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "models/encoder/device_forward.h"
#include "models/encoder/device_weights.h"
#include "models/tokenizers/wordpiece.h"

enum { TOKENS = 16384, GROUPS = 8, TEXTS = 4096, WORDS_MOST = 250 };

static mill_error err;
static const stm_kernels *table;
static stm_device *dev;
static stm_stream *stream;
static int quick, rounds, warm_up;

#define OK(call) ok((call), #call, __LINE__)
static void ok(mill_status st, const char *call, int line)
{
    if (st == MILL_OK) return;
    fprintf(stderr, "line %d: %s: status %d %s\n", line, call, (int)st, err.msg);
    exit(1);
}

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Random lengths around 64: the sum of four uniform ones. */
static int32_t length_of(uint32_t *seed, int32_t most)
{
    const int32_t n = 4 + (int32_t)(next(seed) % 31 + next(seed) % 31 + next(seed) % 31 + next(seed) % 31);

    return n < most ? n : most;
}

static void *device_bytes(size_t bytes)
{
    void *p = NULL;

    OK(stm_device_alloc(dev, STM_MEM_DEVICE, bytes, &p, &err));
    return p;
}

static uint16_t *random_bf16(int64_t n, uint32_t seed)
{
    uint16_t *p = device_bytes((size_t)n * sizeof *p);

    CHECK(stm_bench_random_bf16(p, n, seed, stm_stream_native(stream)));
    return p;
}

/* ---- the forward pass and its products -------------------------------------------------------------------------- */

typedef struct documents {
    int32_t *ids, *lengths;
    int64_t n, tokens;
} documents;

/* What fills one group. */
static documents make_documents(const stm_encoder_config *c, int64_t tokens)
{
    documents d = {.ids = calloc((size_t)(tokens * c->max_tokens), sizeof *d.ids),
                   .lengths = calloc((size_t)tokens, sizeof *d.lengths)};
    uint32_t seed = 5;

    for (;;) {
        const int32_t length = length_of(&seed, c->max_tokens);
        if (d.tokens + length > tokens) return d;
        for (int32_t i = 0; i < length; i++) d.ids[d.n * c->max_tokens + i] = (int32_t)(next(&seed) % (uint32_t)c->vocabulary);
        d.lengths[d.n++] = length;
        d.tokens += length;
    }
}

static double forward_once(stm_device_forward *f, const stm_encoder_config *c, const documents *d, float *out)
{
    const int groups = quick ? 2 : GROUPS;
    const double begin = seconds();

    for (int g = 0; g < groups; g++) {
        mill_status st;
        stm_mark mark;

        while ((st = stm_device_forward_queue(f, d->ids, c->max_tokens, d->lengths, d->n, out, &err)) == MILL_ERR_AGAIN) {
            err.status = MILL_OK;
            OK(stm_stream_poll(stream, &err));
        }
        OK(st);
        OK(stm_stream_raise(stream, &mark, &err));
    }
    OK(stm_stream_sync(stream, &err));
    return (seconds() - begin) / groups * 1e3;
}

typedef struct products {
    stm_linear *linear;
    uint16_t *x, *w, *out;
    void *workspace;
    const stm_encoder_config *c;
    int64_t m;
} products;

static void product(const products *p, const uint16_t **w, int64_t n, int64_t k)
{
    const stm_linear_args a = {.x = p->x,
                               .w = *w,
                               .out = p->out,
                               .type = STM_BF16,
                               .m = p->m,
                               .n = n,
                               .k = k,
                               .ldx = stm_device_stride(k),
                               .ldw = stm_device_stride(k),
                               .ldo = stm_device_stride(n)};

    OK(table->linear(p->linear, &a, stm_stream_native(stream), &err));
    *w += n * stm_device_stride(k);
}

static double products_once(const products *p)
{
    const int groups = quick ? 2 : GROUPS;
    const int64_t h = p->c->hidden, wide = p->c->feed_forward;
    const double begin = seconds();

    for (int g = 0; g < groups; g++) {
        const uint16_t *w = p->w;
        for (int32_t i = 0; i < p->c->layers; i++) {
            product(p, &w, 3 * h, h);
            product(p, &w, h, h);
            product(p, &w, wide, h);
            product(p, &w, h, wide);
        }
    }
    OK(stm_stream_sync(stream, &err));
    return (seconds() - begin) / groups * 1e3;
}

static void forward(const char *model, const stm_encoder_config *c)
{
    const int64_t tokens = quick ? 128 : TOKENS, h = stm_device_stride(c->hidden), wide = stm_device_stride(c->feed_forward);
    const size_t workspace = (size_t)32 << 20; /* as the encoder gives */
    const documents d = make_documents(c, tokens);
    stm_device_forward_opts o = {.stream = stream, .config = *c, .type = STM_BF16, .tokens = tokens};
    stm_linear_opts linear = {.workspace = device_bytes(workspace), .workspace_bytes = workspace};
    products p = {.c = c, .m = stm_device_bucket(d.tokens, tokens), .workspace = linear.workspace};
    double value[3][ROUNDS_MOST];
    char path[4096];
    stm_device_forward *f = NULL;
    float *out = device_bytes((size_t)(d.n * c->hidden) * sizeof *out);

    snprintf(path, sizeof path, "%s/model.safetensors", model);
    o.path = path;
    OK(stm_device_forward_open(&o, &f, &err));
    OK(table->linear_open(&linear, &p.linear, &err));
    p.x = random_bf16(p.m * (wide > h ? wide : h), 1);
    p.w = random_bf16(c->layers * (4 * h + 2 * wide) * (wide > h ? wide : h), 2);
    p.out = device_bytes((size_t)(p.m * (3 * h > wide ? 3 * h : wide)) * sizeof *p.out);
    for (int round = -warm_up; round < rounds; round++) {
        const double ours = forward_once(f, c, &d, out), alone = products_once(&p);
        if (round >= 0) value[0][round] = ours, value[1][round] = alone, value[2][round] = (double)d.tokens / (ours * 1e-3);
    }
    print_figure("forward", "ms", value[0], rounds);
    print_figure("products", "ms", value[1], rounds);
    print_figure("tokens", "1/s", value[2], rounds);
    table->linear_close(&p.linear);
    stm_device_forward_close(&f);
    void *const memory[] = {p.x, p.w, p.out, p.workspace, out};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) stm_device_free(dev, STM_MEM_DEVICE, memory[i]);
    free(d.ids);
    free(d.lengths);
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

static void attention(int32_t dim, int32_t length)
{
    const int64_t docs = quick ? 1 : TOKENS / length, rows = docs * length;
    const int32_t heads = quick ? 1 : 12;
    const int64_t width = (int64_t)heads * dim;
    stm_token_attention_args a = {
        .type = STM_BF16, .rows = rows, .heads = heads, .dim = dim, .scale = 0.125f, .ld = 3 * width, .ldo = width};
    int32_t *starts = calloc((size_t)docs + 1, sizeof *starts);
    uint16_t *qkv = random_bf16(rows * a.ld, 3);
    stm_token_tile *host;
    double value[ROUNDS_MOST];
    char name[64];
    void *tiles;

    for (int64_t d = 0; d <= docs; d++) starts[d] = (int32_t)(d * length);
    a.n_tiles = stm_token_tiles(starts, docs, NULL);
    host = calloc((size_t)a.n_tiles, sizeof *host);
    (void)stm_token_tiles(starts, docs, host);
    tiles = device_bytes((size_t)a.n_tiles * sizeof *host);
    CHECK(cudaMemcpy(tiles, host, (size_t)a.n_tiles * sizeof *host, cudaMemcpyHostToDevice));
    a.q = qkv, a.k = qkv + width, a.v = qkv + 2 * width, a.tiles = tiles;
    a.out = device_bytes((size_t)(rows * width) * sizeof(uint16_t));
    for (int round = -warm_up; round < rounds; round++) {
        const int turns = quick ? 1 : 20;
        double t = seconds();
        for (int i = 0; i < turns; i++) OK(table->token_attention(&a, stm_stream_native(stream)));
        OK(stm_stream_sync(stream, &err));
        t = (seconds() - t) / turns * 1e3;
        if (round >= 0) value[round] = t;
    }
    snprintf(name, sizeof name, "attention %d x %d", (int)dim, (int)length);
    print_figure(name, "ms", value, rounds);
    void *const memory[] = {qkv, tiles, a.out};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) stm_device_free(dev, STM_MEM_DEVICE, memory[i]);
    free(host);
    free(starts);
}

/* ---- the tokenizer ---------------------------------------------------------------------------------------------- */

typedef struct texts {
    const stm_wordpiece *tokenizer;
    char *text[TEXTS];
    int64_t bytes[TEXTS];
    int32_t n, most;
    int32_t next;   /* atomic */
    int64_t tokens; /* atomic */
} texts;

static mill_status tokenize(void *user, int32_t worker, mill_error *e)
{
    texts *t = user;
    int32_t ids[4096];
    int64_t made = 0;

    (void)worker, (void)e;
    for (int32_t i; (i = __atomic_fetch_add(&t->next, 1, __ATOMIC_RELAXED)) < t->n;)
        made += stm_wordpiece_encode(t->tokenizer, t->text[i], t->bytes[i], t->most, ids);
    __atomic_fetch_add(&t->tokens, made, __ATOMIC_RELAXED);
    return MILL_OK;
}

static void tokenizer(const char *model, const stm_encoder_config *c, int32_t threads)
{
    texts *t = calloc(1, sizeof *t);
    stm_wordpiece *tok = NULL;
    double value[ROUNDS_MOST];
    uint32_t seed = 9;

    OK(stm_wordpiece_open(model, &tok, &err));
    t->tokenizer = tok, t->n = quick ? 64 : TEXTS, t->most = c->max_tokens < 4096 ? c->max_tokens : 4096;
    for (int32_t i = 0; i < t->n; i++) {
        const int32_t words = length_of(&seed, WORDS_MOST);
        t->text[i] = calloc((size_t)words, 8);
        for (int32_t k = 0; k < words; k++)
            t->bytes[i] += sprintf(t->text[i] + t->bytes[i], k > 0 ? " w%u" : "w%u", next(&seed) % 1000);
    }
    for (int round = -warm_up; round < rounds; round++) {
        const double begin = seconds();
        t->next = 0, t->tokens = 0;
        OK(stm_parallel(threads, tokenize, t, &err));
        if (round >= 0) value[round] = (double)t->tokens / (seconds() - begin);
    }
    print_figure("tokenizer", "1/s", value, rounds);
    for (int32_t i = 0; i < t->n; i++) free(t->text[i]);
    stm_wordpiece_close(&tok);
    free(t);
}

int main(int argc, char **argv)
{
    static const int32_t lengths[] = {64, 128, 256, 512};
    const mill_encoder_options usual = MILL_ENCODER_INIT;
    const stm_device_ops *ops = NULL;
    const int alone = argc > 1 && strcmp(argv[1], "--attention") == 0;
    stm_encoder_config c;

    if (!alone && (argc < 3 || atoi(argv[2]) < 1)) {
        fprintf(stderr, "usage: %s MODEL THREADS [--quick], or --attention [--quick]\n", argv[0]);
        return 64;
    }
    quick = strcmp(argv[argc - 1], "--quick") == 0;
    rounds = quick ? 1 : 7, warm_up = quick ? 0 : 3;
    if (!alone) OK(stm_encoder_config_read(argv[1], &usual, &c, &err));
    OK(stm_backend_find("cuda", &ops, &err));
    OK(stm_device_open(ops, 0, &dev, &err));
    if ((table = stm_kernels_of(ops)) == NULL) {
        fprintf(stderr, "the CUDA module is of another version\n");
        return 1;
    }
    OK(stm_device_enter(dev, &err));
    OK(stm_stream_open(dev, &stream, &err));
    if (!alone) {
        forward(argv[1], &c);
        tokenizer(argv[1], &c, atoi(argv[2]));
    }
    for (int32_t dim = 32; alone && dim <= 64; dim += 32)
        for (size_t i = 0; i < (quick ? 1 : sizeof lengths / sizeof *lengths); i++) attention(dim, lengths[i]);
    stm_stream_close(&stream);
    stm_device_unref(&dev);
    return 0;
}
