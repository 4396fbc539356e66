#include "models/encoder/device_forward.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "device/graph.h"
#include "kernels/kernels.h"
#include "models/encoder/device_weights.h"

#define BLOCKS 8                     /* pinned: calls under way at once */
#define WORKSPACE ((size_t)32 << 20) /* of products, where they may use some */
#define ALIGN 256

/* A group's numbers as they go up in one copy; the same places in pinned memory and on the device. */
typedef struct layout {
    int64_t tokens, docs, tiles; /* filled up */
    size_t ids, places, starts, tile_list, bytes;
} layout;

/* Pinned memory of a call: in use until its mark is done. */
typedef struct pinned {
    char *memory;
    size_t bytes;
    stm_mark mark;
} pinned;

typedef struct kept_graph {
    int64_t tokens, docs; /* the key; 0 = free */
    int64_t seen;         /* groups of that size */
    uint64_t used;        /* when last */
    stm_graph *graph;     /* NULL: not yet, or it cannot be made */
    stm_mark mark;        /* its last launch is done */
} kept_graph;

struct stm_device_forward {
    stm_device_forward_opts opts;
    const stm_kernels *kernels;
    stm_device_weights *weights;
    stm_linear *linear;
    stm_device *device; /* a reference */
    int64_t tokens_max, docs_max;
    int64_t ld, ld_qkv, ld_wide;
    char *memory;  /* all below, on the device */
    char *numbers; /* a layout */
    void *x, *y, *context,
        *wide;      /* [tokens][ld], [..], [..], [tokens][ld_qkv or ld_wide]: queries, keys and values, or the wide layer */
    float *vectors; /* [docs][hidden] */
    void *workspace;
    pinned blocks[BLOCKS];
    kept_graph graphs[STM_DEVICE_GRAPHS];
    uint64_t clock;
    stm_device_forward_stats stats;
};

static size_t up(size_t v, size_t to) { return (v + to - 1) / to * to; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t stm_device_bucket(int64_t n, int64_t limit)
{
    int64_t step = 8;

    while (step * 16 < n) step *= 2;
    n = most(1, (n + step - 1) / step) * step;
    return n < limit ? n : limit;
}

static int64_t tokens_of(const stm_encoder_config *c, int64_t tokens)
{
    return (int64_t)up((size_t)most(tokens, most(c->max_tokens, 64)), 64);
}
static int64_t docs_of(int64_t tokens) { return most(tokens / 4, 16); }

static layout layout_for(int64_t tokens, int64_t docs)
{
    layout l = {.tokens = tokens, .docs = docs, .tiles = tokens / STM_TOKEN_TILE + docs};

    l.ids = 0;
    l.places = up(l.ids + (size_t)tokens * sizeof(int32_t), 16);
    l.starts = up(l.places + (size_t)tokens * sizeof(int32_t), 16);
    l.tile_list = up(l.starts + (size_t)(docs + 1) * sizeof(int32_t), 16);
    l.bytes = up(l.tile_list + (size_t)l.tiles * sizeof(stm_token_tile), ALIGN);
    return l;
}

/* Where parts lie in the memory of a forward; memory NULL: only how much there is. */
static size_t divide(stm_device_forward *f, const stm_encoder_config *c, stm_real type, int64_t tokens, size_t workspace)
{
    const size_t value = stm_real_bytes(type);
    const int64_t docs = docs_of(tokens), ld = stm_device_stride(c->hidden), ld_qkv = stm_device_stride(3 * (int64_t)c->hidden),
                  ld_wide = stm_device_stride(c->feed_forward);
    const size_t row = (size_t)(tokens * ld) * value;
    char *memory = f != NULL ? f->memory : NULL;
    const struct {
        void **at;
        size_t bytes;
    } parts[] = {
        {f != NULL ? (void **)&f->numbers : NULL, layout_for(tokens, docs).bytes},
        {f != NULL ? &f->x : NULL, row},
        {f != NULL ? &f->y : NULL, row},
        {f != NULL ? &f->context : NULL, row},
        {f != NULL ? &f->wide : NULL, (size_t)(tokens * most(ld_qkv, ld_wide)) * value},
        {f != NULL ? (void **)&f->vectors : NULL, (size_t)(docs * c->hidden) * sizeof(float)},
        {f != NULL ? &f->workspace : NULL, workspace},
    };
    size_t used = 0;

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (memory != NULL) *parts[i].at = parts[i].bytes > 0 ? memory + used : NULL;
        used += up(parts[i].bytes, ALIGN);
    }
    return used;
}

size_t stm_device_forward_bytes(const stm_encoder_config *c, stm_real type, int64_t tokens)
{
    return divide(NULL, c, type, tokens_of(c, tokens), WORKSPACE);
}

mill_status stm_device_forward_open(const stm_device_forward_opts *opts, stm_device_forward **out, mill_error *err)
{
    const stm_encoder_config *c = &opts->config;
    const size_t workspace = opts->invariant ? 0 : WORKSPACE;
    stm_device_forward *f = stm_calloc(sizeof *f);
    stm_linear_opts products = {.invariant = opts->invariant};
    void *memory = NULL;
    size_t bytes;
    mill_status st;

    if (f == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for an encoder");
    f->opts = *opts;
    f->device = stm_device_ref(stm_stream_device(opts->stream));
    f->kernels = stm_kernels_of(stm_device_ops_of(f->device));
    f->tokens_max = tokens_of(c, opts->tokens);
    f->docs_max = docs_of(f->tokens_max);
    f->ld = stm_device_stride(c->hidden);
    f->ld_qkv = stm_device_stride(3 * (int64_t)c->hidden);
    f->ld_wide = stm_device_stride(c->feed_forward);
    st = stm_device_enter(f->device, err);
    if (st == MILL_OK) st = stm_device_weights_get(opts->path, c, opts->type, opts->stream, &f->weights, err);
    bytes = divide(NULL, c, opts->type, f->tokens_max, workspace);
    if (st == MILL_OK) st = stm_device_alloc(f->device, STM_MEM_DEVICE, bytes, &memory, err);
    if (st == MILL_OK) {
        f->memory = memory;
        divide(f, c, opts->type, f->tokens_max, workspace);
        /* rows of no document go through the products: whatever they hold, it was written (the library's workspace, which is last,
         * may hold anything) */
        st = stm_stream_fill(opts->stream, memory, 0, divide(NULL, c, opts->type, f->tokens_max, 0), err);
        products.workspace = f->workspace, products.workspace_bytes = workspace;
    }
    if (st == MILL_OK) st = f->kernels->linear_open(&products, &f->linear, err);
    if (st != MILL_OK) {
        stm_device_forward_close(&f);
        return st;
    }
    *out = f;
    return MILL_OK;
}

void stm_device_forward_close(stm_device_forward **pf)
{
    stm_device_forward *f = *pf;

    if (f == NULL) return;
    *pf = NULL;
    stm_stream_settle(f->opts.stream);
    for (int i = 0; i < STM_DEVICE_GRAPHS; i++) stm_graph_close(&f->graphs[i].graph);
    if (f->linear != NULL) f->kernels->linear_close(&f->linear);
    for (int i = 0; i < BLOCKS; i++) stm_device_free(f->device, STM_MEM_PINNED, f->blocks[i].memory);
    stm_device_free(f->device, STM_MEM_DEVICE, f->memory);
    stm_device_weights_put(&f->weights);
    stm_device_unref(&f->device);
    stm_free(f);
}

int64_t stm_device_forward_parameters(const stm_device_forward *f) { return f->weights->parameters; }
stm_device_forward_stats stm_device_forward_counts(const stm_device_forward *f) { return f->stats; }

/* ---- the layers ------------------------------------------------------------------------------------------------- */

/* What queues a group: the statuses of kernels become errors in one place, and after the first failure nothing is queued. */
typedef struct sequence {
    stm_device_forward *f;
    layout l;
    void *stream;
    mill_status status;
    mill_error *err;
} sequence;

static void done(sequence *s, mill_status st, const char *what)
{
    s->status = st;
    if (st == MILL_OK) return;
    if (s->err != NULL && s->err->status == MILL_OK)
        (void)mill_fail(s->err, st, "cannot queue %s of an encoder on the device", what);
    (void)stm_device_note(s->f->device, st);
}

static void product(sequence *s, const void *x, int64_t ldx, const void *w, const void *bias, stm_linear_act act, int64_t n,
                    int64_t k, void *out, int64_t ldo)
{
    const stm_device_forward *f = s->f;
    const stm_linear_args a = {.x = x,
                               .w = w,
                               .bias = bias,
                               .out = out,
                               .type = f->opts.type,
                               .act = act,
                               .m = s->l.tokens,
                               .n = n,
                               .k = k,
                               .ldx = ldx,
                               .ldw = stm_device_stride(k),
                               .ldo = ldo};

    if (s->status == MILL_OK) done(s, f->kernels->linear(f->linear, &a, s->stream, s->err), "a product");
}

/* x = norm(x + y + bias) */
static void add_norm(sequence *s, const float *bias, const stm_device_norm *n)
{
    const stm_device_forward *f = s->f;
    const stm_token_norm_args a = {.x = f->x,
                                   .y = f->y,
                                   .bias = bias,
                                   .gain = n->gain,
                                   .shift = n->shift,
                                   .out = f->x,
                                   .type = f->opts.type,
                                   .eps = f->opts.config.eps,
                                   .rows = s->l.tokens,
                                   .dim = f->opts.config.hidden,
                                   .ldx = f->ld,
                                   .ldy = f->ld,
                                   .ldo = f->ld};

    if (s->status == MILL_OK) done(s, f->kernels->token_norm(&a, s->stream), "a norm");
}

static void embed(sequence *s)
{
    const stm_device_forward *f = s->f;
    const stm_device_weights *w = f->weights;
    const stm_token_norm_args a = {.x = w->words,
                                   .y = w->positions,
                                   .x_index = (const int32_t *)(f->numbers + s->l.ids),
                                   .y_index = (const int32_t *)(f->numbers + s->l.places),
                                   .gain = w->embedding_norm.gain,
                                   .shift = w->embedding_norm.shift,
                                   .out = f->x,
                                   .type = f->opts.type,
                                   .eps = f->opts.config.eps,
                                   .rows = s->l.tokens,
                                   .dim = f->opts.config.hidden,
                                   .ldx = w->ld,
                                   .ldy = w->ld,
                                   .ldo = f->ld};

    if (s->status == MILL_OK) done(s, f->kernels->token_norm(&a, s->stream), "the embedding");
}

static void attend(sequence *s)
{
    const stm_device_forward *f = s->f;
    const stm_encoder_config *c = &f->opts.config;
    const size_t width = (size_t)c->hidden * stm_real_bytes(f->opts.type);
    const stm_token_attention_args a = {.q = f->wide,
                                        .k = (const char *)f->wide + width,
                                        .v = (const char *)f->wide + 2 * width,
                                        .out = f->context,
                                        .type = f->opts.type,
                                        .tiles = (const stm_token_tile *)(f->numbers + s->l.tile_list),
                                        .n_tiles = s->l.tiles,
                                        .rows = s->l.tokens,
                                        .heads = c->heads,
                                        .dim = c->hidden / c->heads,
                                        .scale = 1.0f / sqrtf((float)(c->hidden / c->heads)),
                                        .ld = f->ld_qkv,
                                        .ldo = f->ld};

    if (s->status == MILL_OK) done(s, f->kernels->token_attention(&a, s->stream), "attention");
}

static void gelu(sequence *s, const float *bias)
{
    const stm_device_forward *f = s->f;
    const stm_token_gelu_args a = {f->wide,   bias, f->opts.type, f->opts.config.gelu, s->l.tokens, f->opts.config.feed_forward,
                                   f->ld_wide};

    if (s->status == MILL_OK) done(s, f->kernels->token_gelu(&a, s->stream), "GELU");
}

static void pool(sequence *s)
{
    const stm_device_forward *f = s->f;
    const stm_encoder_config *c = &f->opts.config;
    const stm_token_pool_args a = {.x = f->x,
                                   .starts = (const int32_t *)(f->numbers + s->l.starts),
                                   .out = f->vectors,
                                   .type = f->opts.type,
                                   .docs = s->l.docs,
                                   .dim = c->hidden,
                                   .ld = f->ld,
                                   .first_row = c->pooling == MILL_POOLING_CLS,
                                   .normalize = c->normalize};

    if (s->status == MILL_OK) done(s, f->kernels->token_pool(&a, s->stream), "pooling");
}

static mill_status forward(stm_device_forward *f, const layout *l, mill_error *err)
{
    const stm_encoder_config *c = &f->opts.config;
    const stm_device_weights *w = f->weights;
    sequence s = {.f = f, .l = *l, .stream = stm_stream_native(f->opts.stream), .status = MILL_OK, .err = err};

    embed(&s);
    for (int32_t i = 0; i < c->layers && s.status == MILL_OK; i++) {
        const stm_device_layer *y = &w->layers[i];
        product(&s, f->x, f->ld, y->qkv, y->qkv_bias, STM_LINEAR_PLAIN, 3 * (int64_t)c->hidden, c->hidden, f->wide, f->ld_qkv);
        attend(&s);
        product(&s, f->context, f->ld, y->output, NULL, STM_LINEAR_PLAIN, c->hidden, c->hidden, f->y, f->ld);
        add_norm(&s, y->output_bias, &y->attention_norm);
        if (w->gelu_in_product) {
            product(&s, f->x, f->ld, y->up, y->up_bias, STM_LINEAR_GELU_TANH, c->feed_forward, c->hidden, f->wide, f->ld_wide);
        } else {
            product(&s, f->x, f->ld, y->up, NULL, STM_LINEAR_PLAIN, c->feed_forward, c->hidden, f->wide, f->ld_wide);
            gelu(&s, y->up_bias_f32);
        }
        product(&s, f->wide, f->ld_wide, y->down, NULL, STM_LINEAR_PLAIN, c->hidden, c->feed_forward, f->y, f->ld);
        add_norm(&s, y->down_bias, &y->output_norm);
    }
    pool(&s);
    return s.status;
}

/* ---- graphs ----------------------------------------------------------------------------------------------------- */

/* The entry of a size; a free one or the oldest whose launches are done where there is none yet; NULL when all are at work. */
static kept_graph *graph_for(stm_device_forward *f, const layout *l)
{
    kept_graph *oldest = NULL;

    f->clock++;
    for (int i = 0; i < STM_DEVICE_GRAPHS; i++) {
        kept_graph *g = &f->graphs[i];
        if (g->tokens == l->tokens && g->docs == l->docs) {
            g->used = f->clock;
            return g;
        }
        if (stm_mark_done(g->mark) && (oldest == NULL || g->used < oldest->used)) oldest = g;
    }
    if (oldest == NULL) return NULL;
    stm_graph_close(&oldest->graph);
    *oldest = (kept_graph){.tokens = l->tokens, .docs = l->docs, .used = f->clock};
    return oldest;
}

/* A graph of a size pays from the second group on: the first is queued piece by piece, which also makes the products' choices. */
static mill_status run(stm_device_forward *f, const layout *l, mill_error *err)
{
    kept_graph *g = stm_graphs_supported(f->device) ? graph_for(f, l) : NULL;
    mill_status st;

    if (g == NULL || g->seen++ == 0) return forward(f, l, err);
    if (g->graph == NULL) {
        mill_error late = {0};
        if ((st = stm_graph_begin(f->opts.stream, err)) != MILL_OK) return st;
        st = forward(f, l, err);
        const mill_status ended = stm_graph_end(f->opts.stream, st == MILL_OK ? &g->graph : NULL, st == MILL_OK ? err : &late);
        if (st == MILL_OK) st = ended;
        if (st != MILL_OK) return st;
        f->stats.graphs++;
    }
    if ((st = stm_graph_launch(g->graph, f->opts.stream, err)) != MILL_OK) return st;
    g->mark = stm_stream_next(f->opts.stream);
    f->stats.launches++;
    return MILL_OK;
}

/* ---- groups ----------------------------------------------------------------------------------------------------- */

typedef struct group {
    int64_t first, docs, tokens;
} group;

/* The documents from @p first on that go together. */
static group next_group(const stm_device_forward *f, const int32_t *lengths, int64_t first, int64_t docs)
{
    group g = {.first = first};

    while (first + g.docs < docs && g.docs < f->docs_max && g.tokens + lengths[first + g.docs] <= f->tokens_max)
        g.tokens += lengths[first + g.docs++];
    return g;
}

static layout layout_of(const stm_device_forward *f, const group *g)
{
    return layout_for(stm_device_bucket(g->tokens, f->tokens_max), stm_device_bucket(g->docs, f->docs_max));
}

static void write_numbers(const group *g, const layout *l, const int32_t *ids, int64_t stride, const int32_t *lengths, char *to)
{
    int32_t *id = (int32_t *)(to + l->ids), *at = (int32_t *)(to + l->places), *starts = (int32_t *)(to + l->starts), row = 0;
    stm_token_tile *tiles = (stm_token_tile *)(to + l->tile_list);
    int64_t n;

    for (int64_t d = 0; d < g->docs; d++) {
        const int32_t length = lengths[g->first + d];
        starts[d] = row;
        memcpy(id + row, ids + (g->first + d) * stride, (size_t)length * sizeof *id);
        for (int32_t i = 0; i < length; i++) at[row++] = i;
    }
    for (int64_t d = g->docs; d <= l->docs; d++) starts[d] = row; /* the rest are empty documents, and token 0 at place 0 */
    memset(id + row, 0, (size_t)(l->tokens - row) * sizeof *id);
    memset(at + row, 0, (size_t)(l->tokens - row) * sizeof *at);
    n = stm_token_tiles(starts, g->docs, tiles);
    memset(tiles + n, 0, (size_t)(l->tiles - n) * sizeof *tiles);
}

/* A pinned block of at least @p bytes that nobody reads any more. */
static mill_status take_block(stm_device_forward *f, size_t bytes, pinned **out, mill_error *err)
{
    pinned *b = NULL;
    void *memory = NULL;
    mill_status st;

    for (int i = 0; i < BLOCKS; i++)
        if (stm_mark_done(f->blocks[i].mark) && (b == NULL || f->blocks[i].bytes > b->bytes)) b = &f->blocks[i];
    if (b == NULL) return mill_fail(err, MILL_ERR_AGAIN, "%d calls of an encoder are under way", BLOCKS);
    if (b->bytes < bytes) { /* the first calls */
        bytes += bytes / 4;
        if ((st = stm_device_alloc(f->device, STM_MEM_PINNED, bytes, &memory, err)) != MILL_OK) return st;
        stm_device_free(f->device, STM_MEM_PINNED, b->memory);
        b->memory = memory, b->bytes = bytes;
    }
    *out = b;
    return MILL_OK;
}

mill_status stm_device_forward_queue(stm_device_forward *f, const int32_t *ids, int64_t stride, const int32_t *lengths,
                                     int64_t docs, float *out, mill_error *err)
{
    stm_stream *stream = f->opts.stream;
    const int64_t dim = f->opts.config.hidden;
    pinned *block = NULL;
    size_t bytes = 0, used = 0;
    mill_status st = stm_device_enter(f->device, err);

    for (int64_t d = 0; d < docs;) {
        const group g = next_group(f, lengths, d, docs);
        bytes += layout_of(f, &g).bytes;
        d += g.docs;
    }
    if (st == MILL_OK && docs > 0) st = take_block(f, bytes, &block, err);
    for (int64_t d = 0; d < docs && st == MILL_OK;) {
        const group g = next_group(f, lengths, d, docs);
        const layout l = layout_of(f, &g);
        write_numbers(&g, &l, ids, stride, lengths, block->memory + used);
        block->mark = stm_stream_next(stream);
        st = stm_stream_copy(stream, f->numbers, block->memory + used, l.bytes, err);
        if (st == MILL_OK) st = run(f, &l, err);
        if (st == MILL_OK) st = stm_stream_copy(stream, out + d * dim, f->vectors, (size_t)(g.docs * dim) * sizeof(float), err);
        f->stats.groups++, f->stats.tokens += l.tokens, f->stats.padding += l.tokens - g.tokens;
        used += l.bytes;
        d += g.docs;
    }
    return st;
}
