#include "models/encoder/tensors.h"

#include <stdio.h>

#define NAME 160

/* Finds tensors one after another; after the first failure it does nothing. */
typedef struct finder {
    const stm_safetensors *file;
    const char *prefix; /* before every name: "" or "bert." */
    int64_t parameters;
    mill_status status;
    mill_error *err;
} finder;

static const stm_tensor *find(finder *f, const char *name, int32_t rank, int64_t rows, int64_t cols)
{
    const int64_t shape[2] = {rows, cols};
    const stm_tensor *t = NULL;
    char full[NAME + 16];

    if (f->status != MILL_OK) return NULL;
    snprintf(full, sizeof full, "%s%s", f->prefix, name);
    f->status = stm_safetensors_need(f->file, full, rank, shape, &t, f->err);
    if (f->status != MILL_OK) return NULL;
    f->parameters += t->values;
    return t;
}

/* Norms of early checkpoints are called gamma and beta. */
static stm_norm_tensors norm(finder *f, const char *name, int64_t n)
{
    char weight[NAME + 16], bias[NAME + 16];
    stm_norm_tensors out;

    snprintf(weight, sizeof weight, "%s%s.gamma", f->prefix, name);
    const bool old = stm_safetensors_find(f->file, weight) != NULL;
    snprintf(weight, sizeof weight, "%s.%s", name, old ? "gamma" : "weight");
    snprintf(bias, sizeof bias, "%s.%s", name, old ? "beta" : "bias");
    out.gain = find(f, weight, 1, n, 0);
    out.bias = find(f, bias, 1, n, 0);
    return out;
}

static stm_linear_tensors linear(finder *f, int32_t layer, const char *name, int64_t n, int64_t k)
{
    char part[NAME + 16];
    stm_linear_tensors out;

    snprintf(part, sizeof part, "encoder.layer.%d.%s.weight", (int)layer, name);
    out.weight = find(f, part, 2, n, k);
    snprintf(part, sizeof part, "encoder.layer.%d.%s.bias", (int)layer, name);
    out.bias = find(f, part, 1, n, 0);
    return out;
}

static finder begin(const stm_safetensors *file, mill_error *err)
{
    const bool inner = stm_safetensors_find(file, "bert.embeddings.word_embeddings.weight") != NULL;

    return (finder){.file = file, .prefix = inner ? "bert." : "", .status = MILL_OK, .err = err};
}

static mill_status end(const finder *f, int64_t *parameters)
{
    if (f->status == MILL_OK && parameters != NULL) *parameters += f->parameters;
    return f->status;
}

mill_status stm_embedding_tensors_find(const stm_safetensors *file, const stm_encoder_config *c, stm_embedding_tensors *out,
                                       int64_t *parameters, mill_error *err)
{
    finder f = begin(file, err);

    out->words = find(&f, "embeddings.word_embeddings.weight", 2, c->vocabulary, c->hidden);
    out->positions = find(&f, "embeddings.position_embeddings.weight", 2, c->positions, c->hidden);
    out->types = find(&f, "embeddings.token_type_embeddings.weight", 2, c->types, c->hidden);
    out->norm = norm(&f, "embeddings.LayerNorm", c->hidden);
    return end(&f, parameters);
}

mill_status stm_layer_tensors_find(const stm_safetensors *file, const stm_encoder_config *c, int32_t layer, stm_layer_tensors *out,
                                   int64_t *parameters, mill_error *err)
{
    finder f = begin(file, err);
    char name[NAME];

    out->query = linear(&f, layer, "attention.self.query", c->hidden, c->hidden);
    out->key = linear(&f, layer, "attention.self.key", c->hidden, c->hidden);
    out->value = linear(&f, layer, "attention.self.value", c->hidden, c->hidden);
    out->output = linear(&f, layer, "attention.output.dense", c->hidden, c->hidden);
    out->up = linear(&f, layer, "intermediate.dense", c->feed_forward, c->hidden);
    out->down = linear(&f, layer, "output.dense", c->hidden, c->feed_forward);
    snprintf(name, sizeof name, "encoder.layer.%d.attention.output.LayerNorm", (int)layer);
    out->attention_norm = norm(&f, name, c->hidden);
    snprintf(name, sizeof name, "encoder.layer.%d.output.LayerNorm", (int)layer);
    out->output_norm = norm(&f, name, c->hidden);
    return end(&f, parameters);
}
