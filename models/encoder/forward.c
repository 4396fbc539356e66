#include "models/encoder/forward.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "kernels/attention.h"
#include "kernels/gemm_gelu.h"

/* Columns of the wide layer that exist at a time in bf16: they are made, and at once multiplied into the narrow one, so that
 * neither they nor the weights at work leave L2. Fewer would add up the narrow layer more often. In f32 the products take so
 * long that it does not matter, and the whole layer is made. */
#define WIDE_COLUMNS 384

struct stm_encoder_work {
    int64_t rows_max, docs_max;
    int64_t rows, docs;
    int64_t ld, ld_wide, ld_heads; /* strides in values */
    int32_t heads;                 /* heads made at a time */
    int32_t *ids, *places;         /* [rows_max] */
    int64_t *starts;               /* [docs_max + 1] */
    float **outs;                  /* [docs_max] */
    float *x, *y;                  /* [rows][ld] */
    uint16_t *x_bf16;              /* [rows][ld], bf16 only */
    void *context;                 /* [rows][ld] in the products' type */
    void *wide;                    /* [rows][ld_wide] in the products' type: WIDE_COLUMNS, or all */
    float *piece;                  /* stm_gemm_gelu_scratch, or q, k, v [rows][ld_heads] */
    void *scratch;                 /* attention */
    stm_gemm_scratch *gemm;
    void *memory;
};

static int64_t up(int64_t v, int64_t to) { return (v + to - 1) / to * to; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* Stride of rows of @p n values: an odd number of cache lines of bf16, so that the 16 rows of a tile lie in different sets of L1
 * (a tenth faster than 384 or 1,536 values end to end). */
static int64_t stride(int64_t n) { return (up(n, 32) / 32 | 1) * 32; }

/* Heads whose columns are whole panels of the product, best whole blocks of 48: at least a few, so that products are wide. */
static int32_t heads_at_a_time(const stm_encoder_config *c, stm_gemm_type type)
{
    const int32_t dim = c->hidden / c->heads, block = type == STM_GEMM_F32 ? 48 : 32;

    for (int32_t n = 1; n < c->heads; n++)
        if (n * dim % block == 0 && n * dim >= 96) return n;
    for (int32_t n = 1; n < c->heads; n++)
        if (n * dim % 16 == 0 && n * dim >= 96) return n;
    return c->heads;
}

mill_status stm_encoder_work_create(const stm_encoder_config *c, stm_gemm_type type, int64_t rows, stm_encoder_work **out,
                                    mill_error *err)
{
    const size_t value = type == STM_GEMM_F32 ? sizeof(float) : sizeof(uint16_t);
    stm_encoder_work *w = stm_calloc(sizeof *w);
    mill_status st = MILL_OK;

    if (w == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for an encoder's work space");
    w->rows_max = up(rows, 64), w->docs_max = w->rows_max; /* a document has a token at least */
    w->ld = stride(c->hidden);
    w->ld_wide = stride(type == STM_GEMM_F32 || c->feed_forward <= WIDE_COLUMNS || c->feed_forward % 32 != 0 ? c->feed_forward
                                                                                                             : WIDE_COLUMNS);
    w->heads = heads_at_a_time(c, type);
    w->ld_heads = stride((int64_t)w->heads * (c->hidden / c->heads));
    const struct {
        void **at;
        size_t bytes;
    } parts[] = {
        {(void **)&w->ids, (size_t)(w->rows_max + c->positions) * sizeof(int32_t)},
        {(void **)&w->places, (size_t)w->rows_max * sizeof(int32_t)},
        {(void **)&w->starts, (size_t)(w->docs_max + 1) * sizeof(int64_t)},
        {(void **)&w->outs, (size_t)w->docs_max * sizeof(float *)},
        {(void **)&w->x, (size_t)(w->rows_max * w->ld) * sizeof(float)},
        {(void **)&w->y, (size_t)(w->rows_max * w->ld) * sizeof(float)},
        {(void **)&w->x_bf16, type == STM_GEMM_F32 ? 0 : (size_t)(w->rows_max * w->ld) * sizeof(uint16_t)},
        {&w->context, (size_t)(w->rows_max * w->ld) * value},
        {&w->wide, (size_t)(w->rows_max * w->ld_wide) * value},
        {(void **)&w->piece, most((size_t)(w->rows_max * 3 * w->ld_heads) * sizeof(float), stm_gemm_gelu_scratch(w->rows_max))},
        {&w->scratch, stm_attention_scratch(c->positions < w->rows_max ? c->positions : w->rows_max, c->hidden / c->heads)},
    };
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) bytes += (size_t)up((int64_t)parts[i].bytes, 64);
    /* Zeros: rows past a group's end go through products of 16 rows and should not be slow denormals or NaN. */
    w->memory = stm_aligned(bytes, 4096);
    if (w->memory == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "no memory for an encoder's work space");
    if (st == MILL_OK) st = stm_gemm_scratch_create(&w->gemm, err);
    if (st == MILL_OK && type == STM_GEMM_BF16)
        st = stm_gemm_scratch_reserve(w->gemm, c->hidden > c->feed_forward ? c->hidden : c->feed_forward, err);
    if (st != MILL_OK) {
        stm_encoder_work_destroy(&w);
        return st;
    }
    memset(w->memory, 0, bytes);
    char *next = w->memory;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].at = parts[i].bytes != 0 ? next : NULL;
        next += up((int64_t)parts[i].bytes, 64);
    }
    *out = w;
    return MILL_OK;
}

void stm_encoder_work_destroy(stm_encoder_work **work)
{
    if (*work == NULL) return;
    stm_gemm_scratch_destroy(&(*work)->gemm);
    stm_free((*work)->memory);
    stm_free(*work);
    *work = NULL;
}

void stm_encoder_work_reset(stm_encoder_work *work) { work->rows = 0, work->docs = 0; }
int64_t stm_encoder_work_rows(const stm_encoder_work *work) { return work->rows; }
int64_t stm_encoder_work_docs(const stm_encoder_work *work) { return work->docs; }
int32_t *stm_encoder_work_ids(stm_encoder_work *work) { return work->ids + work->rows; }

void stm_encoder_work_add(stm_encoder_work *work, int32_t n, float *out)
{
    for (int32_t i = 0; i < n; i++) work->places[work->rows + i] = i;
    work->outs[work->docs++] = out;
    work->rows += n;
    work->starts[work->docs] = work->rows;
}

static const void *input(const stm_encoder_work *k) { return k->x_bf16 != NULL ? (const void *)k->x_bf16 : k->x; }

/* A few heads at a time: q, k, v of all rows, then their attention while they are in cache. */
static mill_status attend(const stm_encoder_config *c, const stm_encoder_layer *l, stm_gemm_type type, stm_encoder_work *k,
                          mill_error *err)
{
    const int32_t dim = c->hidden / c->heads;
    float *const q = k->piece, *const keys = q + k->rows_max * k->ld_heads, *const values = keys + k->rows_max * k->ld_heads;
    const struct {
        const stm_gemm_weight *w;
        float *to;
    } parts[3] = {{l->query, q}, {l->key, keys}, {l->value, values}};
    mill_status st;

    for (int32_t h = 0; h < c->heads; h += k->heads) {
        const int32_t n = c->heads - h < k->heads ? c->heads - h : k->heads;
        const int64_t column = (int64_t)h * dim;
        for (int i = 0; i < 3; i++) {
            st = stm_gemm_run_columns(parts[i].w, k->gemm, input(k), k->ld, k->rows, column, (int64_t)n * dim, parts[i].to,
                                      k->ld_heads, err);
            if (st != MILL_OK) return st;
        }
        const stm_attention_args a = {
            .q = q,
            .k = keys,
            .v = values,
            .ld = k->ld_heads,
            .starts = k->starts,
            .docs = k->docs,
            .heads = n,
            .dim = dim,
            .scale = 1.0f / sqrtf((float)dim),
            .out = (char *)k->context + (size_t)column * (type == STM_GEMM_F32 ? sizeof(float) : sizeof(uint16_t)),
            .out_type = type,
            .ldo = k->ld,
            .scratch = k->scratch,
        };
        stm_attention(&a);
    }
    return stm_gemm_run(l->output, k->gemm, k->context, k->ld, k->rows, k->y, k->ld, err);
}

static mill_status feed_forward(const stm_encoder_config *c, const stm_encoder_layer *l, stm_encoder_work *k, mill_error *err)
{
    const int64_t slice = k->x_bf16 != NULL ? stm_gemm_slice(l->down, WIDE_COLUMNS) : c->feed_forward;
    mill_status st = MILL_OK;

    for (int64_t first = 0; st == MILL_OK && first < c->feed_forward; first += slice) {
        const int64_t n = c->feed_forward - first < slice ? c->feed_forward - first : slice;
        const stm_gemm_gelu_args up = {.w = l->up,
                                       .scratch = k->gemm,
                                       .a = input(k),
                                       .lda = k->ld,
                                       .m = k->rows,
                                       .first = first,
                                       .count = n,
                                       .kind = c->gelu,
                                       .out = k->wide,
                                       .ldo = k->ld_wide,
                                       .piece = k->piece};
        st = stm_gemm_run_gelu(&up, err);
        if (st == MILL_OK)
            st = stm_gemm_run_slice(l->down, k->gemm, k->wide, k->ld_wide, k->rows, first, first + n, k->y, k->ld, err);
    }
    return st;
}

static void add_norm(const stm_encoder_config *c, const stm_encoder_norm *n, stm_encoder_work *k)
{
    const stm_add_norm_args a = {k->x, k->y, k->x_bf16, n->gain, n->bias, c->eps, k->rows, c->hidden, k->ld, k->ld};

    stm_add_norm(&a);
}

mill_status stm_encoder_forward(const stm_encoder_config *c, const stm_encoder_weights *w, stm_encoder_work *k, mill_error *err)
{
    const stm_embed_args embed = {
        k->ids,  k->places, w->words, w->positions, w->type_row, w->embedding_norm.gain, w->embedding_norm.bias, c->eps,
        k->rows, c->hidden, k->x,     k->x_bf16,    k->ld};
    mill_status st;

    if (k->docs == 0) return MILL_OK;
    stm_embed(&embed);
    for (int32_t i = 0; i < c->layers; i++) {
        const stm_encoder_layer *l = &w->layers[i];
        if ((st = attend(c, l, w->type, k, err)) != MILL_OK) return st;
        add_norm(c, &l->attention_norm, k);
        if ((st = feed_forward(c, l, k, err)) != MILL_OK) return st;
        add_norm(c, &l->output_norm, k);
    }
    const stm_pool_args pool = {k->x, k->starts, k->docs, c->hidden, k->ld, c->pooling == MILL_POOLING_CLS, c->normalize, k->outs};
    stm_pool_rows(&pool);
    return MILL_OK;
}
