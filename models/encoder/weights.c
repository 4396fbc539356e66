#include "models/encoder/weights.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "kernels/parallel.h"
#include "models/encoder/tensors.h"

/* Packs tensors one after another; after the first failure it does nothing. */
typedef struct packer {
    const stm_safetensors *file;
    mill_error *err;
    mill_status status;
    stm_gemm_type type;
    char *to; /* where the next matrix goes */
    float *scratch; /* for matrices that are not f32 in the file */
    size_t scratch_values;
} packer;

static void norm(const stm_norm_tensors *t, int64_t n, stm_encoder_norm *out)
{
    stm_tensor_read(t->gain, 0, n, out->gain);
    stm_tensor_read(t->bias, 0, n, out->bias);
}

/* f32 values of a whole tensor: where they lie in the file, or converted into *copy (kept) or the packer's scratch. */
static const float *values(packer *r, const stm_tensor *t, float **copy)
{
    float *to;

    if (t->dtype == STM_DTYPE_F32 && (uintptr_t)t->data % _Alignof(float) == 0) return t->data;
    if (copy != NULL) {
        to = *copy = stm_malloc((size_t)t->values * sizeof(float));
    } else {
        if (r->scratch_values < (size_t)t->values) {
            stm_free(r->scratch);
            r->scratch = stm_malloc((size_t)t->values * sizeof(float));
            r->scratch_values = r->scratch != NULL ? (size_t)t->values : 0;
        }
        to = r->scratch;
    }
    if (to == NULL) {
        r->status = mill_fail(r->err, MILL_ERR_NOMEM, "no memory for tensor %s", t->name);
        return NULL;
    }
    stm_tensor_read(t, 0, t->values, to);
    return to;
}

static void matrix(packer *r, const stm_linear_tensors *t, int64_t n, int64_t k, stm_gemm_weight **out)
{
    const float *b;
    float *shift = NULL;

    if (r->status != MILL_OK || (b = values(r, t->weight, NULL)) == NULL) return;
    if ((shift = stm_malloc((size_t)n * sizeof(float))) == NULL) {
        r->status = mill_fail(r->err, MILL_ERR_NOMEM, "no memory for tensor %s", t->bias->name);
        return;
    }
    stm_tensor_read(t->bias, 0, n, shift);
    r->status = stm_gemm_pack_into(r->type, b, shift, n, k, r->to, out, r->err);
    r->to += stm_gemm_packed_bytes(r->type, n, k);
    stm_free(shift);
}

static void embeddings(packer *r, const stm_encoder_config *c, stm_encoder_weights *w)
{
    stm_embedding_tensors t;

    if ((r->status = stm_embedding_tensors_find(r->file, c, &t, NULL, r->err)) != MILL_OK) return;
    norm(&t.norm, c->hidden, &w->embedding_norm);
    stm_tensor_read(t.types, 0, c->hidden, w->type_row);
    if ((w->words = values(r, t.words, &w->words_copy)) == NULL) return;
    w->positions = values(r, t.positions, &w->positions_copy);
}

/* Of the matrices of one layer. */
static size_t layer_bytes(stm_gemm_type type, const stm_encoder_config *c)
{
    return 4 * stm_gemm_packed_bytes(type, c->hidden, c->hidden) + stm_gemm_packed_bytes(type, c->feed_forward, c->hidden) +
           stm_gemm_packed_bytes(type, c->hidden, c->feed_forward);
}

static void layer(packer *r, const stm_encoder_config *c, int32_t i, stm_encoder_layer *l)
{
    stm_layer_tensors t;

    if ((r->status = stm_layer_tensors_find(r->file, c, i, &t, NULL, r->err)) != MILL_OK) return;
    matrix(r, &t.query, c->hidden, c->hidden, &l->query);
    matrix(r, &t.key, c->hidden, c->hidden, &l->key);
    matrix(r, &t.value, c->hidden, c->hidden, &l->value);
    matrix(r, &t.output, c->hidden, c->hidden, &l->output);
    matrix(r, &t.up, c->feed_forward, c->hidden, &l->up);
    matrix(r, &t.down, c->hidden, c->feed_forward, &l->down);
    if (r->status != MILL_OK) return;
    norm(&t.attention_norm, c->hidden, &l->attention_norm);
    norm(&t.output_norm, c->hidden, &l->output_norm);
}

mill_status stm_encoder_weights_check(const stm_safetensors *file, const stm_encoder_config *c, int64_t *parameters,
                                      mill_error *err)
{
    stm_embedding_tensors e;
    stm_layer_tensors l;
    int64_t n = 0;
    mill_status st = stm_embedding_tensors_find(file, c, &e, &n, err);

    for (int32_t i = 0; i < c->layers && st == MILL_OK; i++) st = stm_layer_tensors_find(file, c, i, &l, &n, err);
    if (st == MILL_OK && parameters != NULL) *parameters = n;
    return st;
}

static void destroy(stm_shared *shared)
{
    stm_encoder_weights *w = (stm_encoder_weights *)shared;

    for (int32_t i = 0; w->layers != NULL && i < w->n_layers; i++) {
        stm_encoder_layer *l = &w->layers[i];
        stm_gemm_weight **all[] = {&l->query, &l->key, &l->value, &l->output, &l->up, &l->down};
        for (size_t m = 0; m < sizeof all / sizeof *all; m++) stm_gemm_unpack(all[m]);
    }
    stm_free(w->layers);
    stm_free(w->packed);
    stm_free(w->vectors);
    stm_free(w->words_copy);
    stm_free(w->positions_copy);
    stm_safetensors_close(&w->file);
    stm_free(w);
}

/* Room for all matrices, and for all vectors: type row, and gain and bias of 1 + 2 norms a layer. */
static bool make_room(stm_encoder_weights *w, const stm_encoder_config *c, stm_gemm_type type)
{
    const size_t hidden = (size_t)c->hidden;
    float *next;

    w->n_layers = c->layers;
    w->layers = stm_calloc((size_t)c->layers * sizeof *w->layers);
    w->vectors = stm_aligned((3 + 4 * (size_t)c->layers) * hidden * sizeof(float), 64);
    w->packed = stm_gemm_packed_memory((size_t)c->layers * layer_bytes(type, c));
    if (w->layers == NULL || w->vectors == NULL || w->packed == NULL) return false;
    next = w->vectors;
    w->type_row = next, next += hidden;
    w->embedding_norm = (stm_encoder_norm){next, next + hidden}, next += 2 * hidden;
    for (int32_t i = 0; i < c->layers; i++, next += 4 * hidden) {
        w->layers[i].attention_norm = (stm_encoder_norm){next, next + hidden};
        w->layers[i].output_norm = (stm_encoder_norm){next + 2 * hidden, next + 3 * hidden};
    }
    return true;
}

/* Packing is a copy of all weights, mostly page faults: a few threads share the layers. */
#define LOADERS_MAX 4

typedef struct loading {
    const stm_safetensors *file;
    const stm_encoder_config *config;
    stm_encoder_weights *weights;
    stm_gemm_type type;
    _Atomic int32_t next; /* layer; relaxed, layers are independent */
    _Atomic bool stop;    /* relaxed */
} loading;

static mill_status load_layers(void *user, int32_t worker, mill_error *err)
{
    loading *l = user;
    packer r = {.file = l->file, .err = err, .status = MILL_OK, .type = l->type};
    int32_t i;

    if (worker == 0) embeddings(&r, l->config, l->weights);
    while (r.status == MILL_OK && !atomic_load_explicit(&l->stop, memory_order_relaxed) &&
           (i = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed)) < l->config->layers) {
        r.to = l->weights->packed + (size_t)i * layer_bytes(l->type, l->config);
        layer(&r, l->config, i, &l->weights->layers[i]);
    }
    if (r.status != MILL_OK) atomic_store_explicit(&l->stop, true, memory_order_relaxed);
    stm_free(r.scratch);
    return r.status;
}

static int32_t loaders(void)
{
    cpu_set_t set;
    const int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;

    return n < LOADERS_MAX ? n : LOADERS_MAX;
}

/* ---- the shelf ---- */

typedef struct wanted {
    stm_safetensors *file;
    const stm_encoder_config *config;
    stm_gemm_type type;
    int64_t parameters;
} wanted;

static bool is_wanted(const stm_shared *shared, const void *user)
{
    const stm_encoder_weights *w = (const stm_encoder_weights *)shared;
    const wanted *of = user;

    return w->type == of->type && w->n_layers == of->config->layers &&
           memcmp(stm_safetensors_id(w->file), stm_safetensors_id(of->file), sizeof(stm_file_id)) == 0;
}

static mill_status load(void *user, stm_shared **out, mill_error *err)
{
    wanted *of = user;
    stm_encoder_weights *w = stm_calloc(sizeof *w);
    loading l = {.file = of->file, .config = of->config, .weights = w, .type = of->type};
    mill_status st = MILL_OK;

    if (w == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the weights of a model");
    if (stm_fault_fires(STM_FAULT_LOAD)) st = mill_fail(err, MILL_ERR_IO, "injected failure of loading weights");
    if (st == MILL_OK && !make_room(w, of->config, of->type))
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory for the weights of a model");
    if (st == MILL_OK) st = stm_parallel(loaders(), load_layers, &l, err);
    if (st != MILL_OK) {
        destroy(&w->shared);
        return st;
    }
    w->type = of->type, w->parameters = of->parameters;
    w->file = of->file, of->file = NULL; /* stays mapped: the word embeddings are read from it */
    *out = &w->shared;
    return MILL_OK;
}

/* Lock order: nothing is called with the shelf's lock that takes another lock of the engine; threads that pack take none. */
static stm_shelf shelf = STM_SHELF(is_wanted, load, destroy);

mill_status stm_encoder_weights_get(const char *path, const stm_encoder_config *c, stm_gemm_type type, stm_encoder_weights **out,
                                    mill_error *err)
{
    wanted of = {.config = c, .type = type};
    stm_shared *found;
    mill_status st = stm_safetensors_open(path, &of.file, err);

    if (st == MILL_OK) st = stm_encoder_weights_check(of.file, c, &of.parameters, err);
    if (st == MILL_OK) st = stm_shelf_get(&shelf, &of, &found, err);
    stm_safetensors_close(&of.file);
    if (st == MILL_OK) *out = (stm_encoder_weights *)found;
    return st;
}

void stm_encoder_weights_put(stm_encoder_weights **w)
{
    if (*w != NULL) stm_shelf_put(&shelf, &(*w)->shared);
    *w = NULL;
}
