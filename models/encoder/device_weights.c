#include "models/encoder/device_weights.h"

#include <string.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "kernels/kernels.h"
#include "models/encoder/tensors.h"

#define PIECE ((size_t)4 << 20) /* bytes that go up at once: two of them, one read while the other one is copied */
#define ALIGN 256

/*
 * Lays tensors into the memory on the device and fills them. It goes over all of them twice: first with no memory, when places are
 * only counted, then with it. After the first failure it does nothing.
 */
typedef struct uploader {
    stm_device_weights *w;
    stm_stream *stream;
    const stm_kernels *kernels;
    char *memory; /* NULL: count */
    size_t used;
    float *pinned[2]; /* PIECE each */
    float *raw;       /* on the device, 2 * PIECE: f32 on its way into another type */
    int half;
    mill_status status;
    mill_error *err;
} uploader;

static void *place(uploader *u, size_t bytes)
{
    char *at = u->memory != NULL ? u->memory + u->used : NULL;

    u->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

/* What stands in the pinned half goes to value @p at of @p to. */
static void send(uploader *u, void *to, stm_real type, int64_t at, int64_t count)
{
    float *raw = u->raw + (size_t)u->half * PIECE / sizeof(float);
    const float *from = u->pinned[u->half];
    const size_t bytes = (size_t)count * sizeof(float);

    if (type == STM_F32) {
        u->status = stm_stream_copy(u->stream, (float *)to + at, from, bytes, u->err);
    } else {
        const stm_convert_args a = {raw, (char *)to + (size_t)at * stm_real_bytes(type), STM_F32, type, count};
        u->status = stm_stream_copy(u->stream, raw, from, bytes, u->err);
        if (u->status == MILL_OK && (u->status = u->kernels->convert(&a, stm_stream_native(u->stream))) != MILL_OK)
            (void)mill_fail(u->err, u->status, "cannot convert weights on the device");
    }
    u->half = 1 - u->half;
    if (u->half == 0 && u->status == MILL_OK)
        u->status = stm_stream_sync(u->stream, u->err); /* both are on the way: wait, then go on */
}

/* Rows of a matrix, with a row added to each (NULL = none), to row `first` of to. */
static void rows(uploader *u, const stm_tensor *t, const float *add, int64_t n, int64_t k, int64_t ld, void *to, stm_real type,
                 int64_t first)
{
    const int64_t most = (int64_t)(PIECE / sizeof(float)) / ld; /* > 0: a row has at most 2^18 values */

    for (int64_t r = 0; r < n && u->status == MILL_OK; r += most) {
        const int64_t count = n - r < most ? n - r : most;
        float *p = u->pinned[u->half];
        for (int64_t i = 0; i < count; i++, p += ld) {
            stm_tensor_read(t, (r + i) * k, k, p);
            for (int64_t c = 0; c < k && add != NULL; c++) p[c] += add[c];
            memset(p + k, 0, (size_t)(ld - k) * sizeof(float));
        }
        send(u, to, type, (first + r) * ld, count * ld);
    }
}

static void *matrix(uploader *u, const stm_tensor *t, const float *add, int64_t n, int64_t k, int64_t ld)
{
    void *to = place(u, (size_t)(n * ld) * stm_real_bytes(u->w->type));

    if (u->memory != NULL) rows(u, t, add, n, k, ld, to, u->w->type, 0);
    return to;
}

static void *vector(uploader *u, const stm_tensor *t, int64_t n, stm_real type)
{
    void *to = place(u, (size_t)n * stm_real_bytes(type));

    if (u->memory != NULL) rows(u, t, NULL, 1, n, n, to, type, 0);
    return to;
}

static stm_device_norm norm(uploader *u, const stm_norm_tensors *t, int64_t n)
{
    stm_device_norm out;

    out.gain = vector(u, t->gain, n, STM_F32);
    out.shift = vector(u, t->bias, n, STM_F32);
    return out;
}

static void layer(uploader *u, const stm_layer_tensors *t, stm_device_layer *l)
{
    const stm_device_weights *w = u->w;
    const stm_linear_tensors *parts[3] = {&t->query, &t->key, &t->value};
    const int64_t hidden = w->config.hidden, wide = w->config.feed_forward;

    l->qkv = place(u, (size_t)(3 * hidden * w->ld) * stm_real_bytes(w->type));
    l->qkv_bias = place(u, (size_t)(3 * hidden) * stm_real_bytes(w->type));
    for (int i = 0; i < 3 && u->memory != NULL; i++) {
        rows(u, parts[i]->weight, NULL, hidden, hidden, w->ld, l->qkv, w->type, i * hidden);
        rows(u, parts[i]->bias, NULL, 1, hidden, hidden, l->qkv_bias, w->type, i);
    }
    l->output = matrix(u, t->output.weight, NULL, hidden, hidden, w->ld);
    l->output_bias = vector(u, t->output.bias, hidden, STM_F32);
    l->attention_norm = norm(u, &t->attention_norm, hidden);
    l->up = matrix(u, t->up.weight, NULL, wide, hidden, w->ld);
    if (w->gelu_in_product)
        l->up_bias = vector(u, t->up.bias, wide, w->type);
    else
        l->up_bias_f32 = vector(u, t->up.bias, wide, STM_F32);
    l->down = matrix(u, t->down.weight, NULL, hidden, wide, w->ld_wide);
    l->down_bias = vector(u, t->down.bias, hidden, STM_F32);
    l->output_norm = norm(u, &t->output_norm, hidden);
}

static void all(uploader *u, const stm_safetensors *file, const float *type_row, int64_t *parameters)
{
    stm_device_weights *w = u->w;
    const stm_encoder_config *c = &w->config;
    stm_embedding_tensors e;
    stm_layer_tensors t;

    u->used = 0;
    u->status = stm_embedding_tensors_find(file, c, &e, parameters, u->err);
    if (u->status != MILL_OK) return;
    w->words = matrix(u, e.words, NULL, c->vocabulary, c->hidden, w->ld);
    w->positions = matrix(u, e.positions, type_row, c->positions, c->hidden, w->ld);
    w->embedding_norm = norm(u, &e.norm, c->hidden);
    for (int32_t i = 0; i < c->layers && u->status == MILL_OK; i++) {
        u->status = stm_layer_tensors_find(file, c, i, &t, parameters, u->err);
        if (u->status == MILL_OK) layer(u, &t, &w->layers[i]);
    }
}

static void destroy(stm_shared *shared)
{
    stm_device_weights *w = (stm_device_weights *)shared;

    if (w->device != NULL) stm_device_free(w->device, STM_MEM_DEVICE, w->memory);
    stm_device_unref(&w->device);
    stm_free(w->layers);
    stm_free(w);
}

static mill_status fill(uploader *u, const stm_safetensors *file, mill_error *err)
{
    stm_device_weights *w = u->w;
    stm_device *dev = w->device;
    stm_embedding_tensors e;
    float *type_row = stm_malloc((size_t)w->config.hidden * sizeof(float));
    mill_status st = MILL_OK, waited;
    void *p = NULL;

    if (type_row == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the weights of a model");
    all(u, file, NULL, &w->parameters); /* counts */
    st = u->status;
    w->bytes = u->used;
    if (st == MILL_OK) st = stm_embedding_tensors_find(file, &w->config, &e, NULL, err);
    if (st == MILL_OK) {
        stm_tensor_read(e.types, 0, w->config.hidden, type_row);
        st = stm_device_alloc(dev, STM_MEM_DEVICE, w->bytes, &w->memory, err);
    }
    for (int i = 0; i < 2 && st == MILL_OK; i++)
        if ((st = stm_device_alloc(dev, STM_MEM_PINNED, PIECE, &p, err)) == MILL_OK) u->pinned[i] = p;
    if (st == MILL_OK && (st = stm_device_alloc(dev, STM_MEM_DEVICE, 2 * PIECE, &p, err)) == MILL_OK) u->raw = p;
    if (st == MILL_OK) {
        u->memory = w->memory;
        all(u, file, type_row, NULL);
        st = u->status;
    }
    /* also after a failure: something may be queued that reads what is freed here */
    waited = u->memory != NULL ? stm_stream_sync(u->stream, st == MILL_OK ? err : NULL) : MILL_OK;
    if (waited != MILL_OK) stm_stream_settle(u->stream);
    if (st == MILL_OK) st = waited;
    stm_device_free(dev, STM_MEM_DEVICE, u->raw);
    for (int i = 0; i < 2; i++) stm_device_free(dev, STM_MEM_PINNED, u->pinned[i]);
    stm_free(type_row);
    return st;
}

/* ---- the shelf ---- */

typedef struct wanted {
    const stm_safetensors *file;
    const stm_encoder_config *config;
    stm_real type;
    stm_stream *stream;
} wanted;

/* The parts of a configuration that say what is on the device. */
static bool same(const stm_encoder_config *a, const stm_encoder_config *b)
{
    return a->layers == b->layers && a->hidden == b->hidden && a->feed_forward == b->feed_forward && a->gelu == b->gelu;
}

static bool is_wanted(const stm_shared *shared, const void *user)
{
    const stm_device_weights *w = (const stm_device_weights *)shared;
    const wanted *of = user;
    const stm_device *dev = stm_stream_device(of->stream);

    return stm_device_ops_of(w->device) == stm_device_ops_of(dev) && stm_device_ordinal(w->device) == stm_device_ordinal(dev) &&
           !stm_device_lost(w->device) && w->type == of->type && same(&w->config, of->config) &&
           memcmp(&w->file, stm_safetensors_id(of->file), sizeof w->file) == 0;
}

static mill_status load(void *user, stm_shared **out, mill_error *err)
{
    const wanted *of = user;
    const stm_encoder_config *c = of->config;
    stm_device_weights *w = stm_calloc(sizeof *w);
    stm_device *dev = stm_stream_device(of->stream);
    uploader u = {.w = w, .stream = of->stream, .kernels = stm_kernels_of(stm_device_ops_of(dev)), .err = err};
    mill_status st = MILL_OK;

    if (w == NULL || (w->layers = stm_calloc((size_t)c->layers * sizeof *w->layers)) == NULL) {
        stm_free(w);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for the weights of a model");
    }
    w->type = of->type, w->config = *c;
    w->ld = stm_device_stride(c->hidden), w->ld_wide = stm_device_stride(c->feed_forward);
    /* The products' GELU is the one with tanh. In bf16 it stands for the one with erf, too: they differ by less than the roundings
     * around them. */
    w->gelu_in_product = c->gelu == STM_GELU_TANH || of->type == STM_BF16;
    w->device = stm_device_ref(dev);
    w->file = *stm_safetensors_id(of->file);
    if (u.kernels == NULL) st = mill_fail(err, MILL_ERR_UNSUPPORTED, "the device's kernels are of another version");
    if (st == MILL_OK && stm_fault_fires(STM_FAULT_LOAD)) st = mill_fail(err, MILL_ERR_IO, "injected failure of loading weights");
    if (st == MILL_OK) st = stm_device_enter(dev, err);
    if (st == MILL_OK) st = fill(&u, of->file, err);
    if (st != MILL_OK) {
        destroy(&w->shared);
        return st;
    }
    *out = &w->shared;
    return MILL_OK;
}

/* Lock order: the locks of devices (alloc, free) are taken under the shelf's, nothing of the engine's. */
static stm_shelf shelf = STM_SHELF(is_wanted, load, destroy);

mill_status stm_device_weights_get(const char *path, const stm_encoder_config *c, stm_real type, stm_stream *stream,
                                   stm_device_weights **out, mill_error *err)
{
    wanted of = {.config = c, .type = type, .stream = stream};
    stm_safetensors *file = NULL;
    stm_shared *found;
    mill_status st = stm_safetensors_open(path, &file, err);

    of.file = file;
    if (st == MILL_OK) st = stm_shelf_get(&shelf, &of, &found, err);
    stm_safetensors_close(&file);
    if (st == MILL_OK) *out = (stm_device_weights *)found;
    return st;
}

void stm_device_weights_put(stm_device_weights **w)
{
    if (*w != NULL) stm_shelf_put(&shelf, &(*w)->shared);
    *w = NULL;
}
