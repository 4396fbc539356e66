#include "models/encoder/config.h"

#include <stdio.h>
#include <string.h>

#include "kernels/attention.h"
#include "models/json.h"
#include "models/weights/file.h"

#define PATH 4096

typedef struct wanted {
    const char *key;
    int32_t *value;
    int64_t min, max;
} wanted;

static mill_status open_in(const char *dir, const char *name, bool optional, char *path, stm_json **out, mill_error *err)
{
    snprintf(path, PATH, "%s/%s", dir, name);
    return stm_json_open(path, optional, out, err);
}

static mill_status read_gelu(const char *path, stm_json_value root, stm_gelu_kind *out, mill_error *err)
{
    static const struct {
        const char *name;
        stm_gelu_kind kind;
    } known[] = {{"gelu", STM_GELU_ERF},
                 {"gelu_python", STM_GELU_ERF},
                 {"gelu_new", STM_GELU_TANH},
                 {"gelu_fast", STM_GELU_TANH},
                 {"gelu_pytorch_tanh", STM_GELU_TANH}};
    const char *name = stm_json_text(stm_json_get(root, "hidden_act"), NULL);

    if (name == NULL) name = "gelu";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0) {
            *out = known[i].kind;
            return MILL_OK;
        }
    return mill_fail(err, MILL_ERR_UNSUPPORTED, "%s: hidden_act is \"%s\"; gelu and gelu_new are supported", path, name);
}

static mill_status read_config(const char *path, stm_json_value root, stm_encoder_config *c, mill_error *err)
{
    const char *type = stm_json_text(stm_json_get(root, "model_type"), NULL);
    const char *position = stm_json_text(stm_json_get(root, "position_embedding_type"), NULL);
    const wanted sizes[] = {
        {"num_hidden_layers", &c->layers, 1, 1000},     {"hidden_size", &c->hidden, 1, 1 << 16},
        {"num_attention_heads", &c->heads, 1, 1 << 12}, {"intermediate_size", &c->feed_forward, 1, 1 << 18},
        {"vocab_size", &c->vocabulary, 1, 1 << 28},     {"max_position_embeddings", &c->positions, 3, 1 << 20},
        {"type_vocab_size", &c->types, 1, 1 << 16},
    };

    if (type == NULL || strcmp(type, "bert") != 0)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "%s: model_type is \"%s\"; only encoders of type \"bert\" are supported", path,
                         type != NULL ? type : "missing");
    if (position != NULL && strcmp(position, "absolute") != 0)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "%s: position_embedding_type is \"%s\"; only \"absolute\" is supported", path,
                         position);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t v = stm_json_int(stm_json_get(root, sizes[i].key), -1);
        if (v < sizes[i].min || v > sizes[i].max)
            return mill_fail(err, MILL_ERR_INVALID, "%s: %s must be a whole number from %lld to %lld", path, sizes[i].key,
                             (long long)sizes[i].min, (long long)sizes[i].max);
        *sizes[i].value = (int32_t)v;
    }
    if (c->hidden % c->heads != 0 || c->hidden / c->heads > STM_ATTENTION_DIM_MAX)
        return mill_fail(err, MILL_ERR_INVALID, "%s: hidden_size %d cannot be divided into %d heads of at most %d", path,
                         (int)c->hidden, (int)c->heads, STM_ATTENTION_DIM_MAX);
    c->eps = (float)stm_json_float(stm_json_get(root, "layer_norm_eps"), 1e-12);
    if (!(c->eps >= 0.0f && c->eps < 1.0f)) return mill_fail(err, MILL_ERR_INVALID, "%s: layer_norm_eps is out of range", path);
    return read_gelu(path, root, &c->gelu, err);
}

/* sentence-transformers' list of modules: Transformer, Pooling, and perhaps Normalize. */
typedef struct module_list {
    const char *path; /* of modules.json */
    char pooling[256];
    bool normalize;
    mill_status status;
    mill_error *err;
} module_list;

static bool read_module(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    module_list *m = user;
    const char *type = stm_json_text(stm_json_get(v, "type"), NULL), *path = stm_json_text(stm_json_get(v, "path"), NULL);
    const char *last = type != NULL ? strrchr(type, '.') : NULL;
    const char *name = last != NULL ? last + 1 : type != NULL ? type : "missing";

    (void)key, (void)key_bytes;
    if (strcmp(name, "Transformer") == 0) return true;
    if (strcmp(name, "Normalize") == 0) {
        m->normalize = true;
        return true;
    }
    if (strcmp(name, "Pooling") == 0) {
        snprintf(m->pooling, sizeof m->pooling, "%s", path != NULL ? path : "");
        return true;
    }
    m->status = mill_fail(m->err, MILL_ERR_UNSUPPORTED, "%s: modules of type \"%s\" are not supported", m->path, name);
    return false;
}

typedef struct pooling_modes {
    bool mean, cls;
    char other[64]; /* one that is not supported; empty = none */
} pooling_modes;

static void add_mode(pooling_modes *m, const char *mode)
{
    if (strcmp(mode, "mean") == 0)
        m->mean = true;
    else if (strcmp(mode, "cls") == 0)
        m->cls = true;
    else
        snprintf(m->other, sizeof m->other, "%s", mode);
}

static bool read_mode(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    const char *mode = stm_json_text(v, NULL);

    (void)key, (void)key_bytes;
    add_mode(user, mode != NULL ? mode : "that is no text");
    return true;
}

/* One key with a mode or a list of them, or, as written until 2025, a switch for each mode. None at all is the mean. */
static pooling_modes read_modes(stm_json_value root)
{
    static const char *const switches[][2] = {{"pooling_mode_mean_tokens", "mean"},
                                              {"pooling_mode_cls_token", "cls"},
                                              {"pooling_mode_max_tokens", "max"},
                                              {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"},
                                              {"pooling_mode_weightedmean_tokens", "weightedmean"},
                                              {"pooling_mode_lasttoken", "lasttoken"}};
    const stm_json_value mode = stm_json_get(root, "pooling_mode");
    pooling_modes m = {0};

    if (stm_json_kind_of(mode) == STM_JSON_ARRAY)
        stm_json_each(mode, read_mode, &m);
    else if (stm_json_kind_of(mode) != STM_JSON_NONE)
        read_mode(&m, NULL, 0, mode);
    else
        for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
            if (stm_json_bool(stm_json_get(root, switches[i][0]), false)) add_mode(&m, switches[i][1]);
    m.mean = m.mean || !m.cls;
    return m;
}

static mill_status read_pooling(const char *dir, const char *module, stm_encoder_config *c, mill_error *err)
{
    char path[PATH], name[512];
    stm_json *doc = NULL;
    mill_status st;

    snprintf(name, sizeof name, "%s/config.json", module);
    if ((st = open_in(dir, name, true, path, &doc, err)) != MILL_OK) return st == MILL_ERR_NOT_FOUND ? MILL_OK : st;
    const pooling_modes m = read_modes(stm_json_root(doc));
    stm_json_close(&doc);
    if (m.other[0] != '\0')
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "%s: the pooling mode %s is not supported; mean and cls are", path, m.other);
    if (m.mean && m.cls) return mill_fail(err, MILL_ERR_UNSUPPORTED, "%s: mean and cls pooling together are not supported", path);
    c->pooling = m.cls ? MILL_POOLING_CLS : MILL_POOLING_MEAN;
    return MILL_OK;
}

static mill_status read_modules(const char *dir, stm_encoder_config *c, mill_error *err)
{
    char path[PATH];
    module_list m = {.path = path, .pooling = "1_Pooling", .err = err, .status = MILL_OK};
    stm_json *doc = NULL;
    mill_status st = open_in(dir, "modules.json", true, path, &doc, err);

    if (st != MILL_OK && st != MILL_ERR_NOT_FOUND) return st;
    if (st == MILL_OK) {
        stm_json_each(stm_json_root(doc), read_module, &m);
        stm_json_close(&doc);
        if (m.status != MILL_OK) return m.status;
        c->normalize = m.normalize;
    }
    return read_pooling(dir, m.pooling, c, err);
}

/* As sentence-transformers: its own file, or the smaller of what positions and the tokenizer's configuration allow. */
static mill_status read_max_tokens(const char *dir, stm_encoder_config *c, mill_error *err)
{
    char path[PATH];
    stm_json *doc = NULL;
    mill_status st = open_in(dir, "sentence_bert_config.json", true, path, &doc, err);
    int64_t own = 0;

    if (st != MILL_OK && st != MILL_ERR_NOT_FOUND) return st;
    if (st == MILL_OK) {
        own = stm_json_int(stm_json_get(stm_json_root(doc), "max_seq_length"), 0);
        stm_json_close(&doc);
    }
    if (own <= 0) {
        st = open_in(dir, "tokenizer_config.json", true, path, &doc, err);
        if (st != MILL_OK && st != MILL_ERR_NOT_FOUND) return st;
        if (st == MILL_OK) {
            const double most = stm_json_float(stm_json_get(stm_json_root(doc), "model_max_length"), 0.0); /* 1e30 = no limit */
            own = most >= 1.0 && most < 1e9 ? (int64_t)most : 0;
            stm_json_close(&doc);
        }
    }
    c->max_tokens = own > 0 && own < c->positions ? (int32_t)own : c->positions;
    return MILL_OK;
}

mill_status stm_encoder_config_read(const char *dir, const mill_encoder_options *options, stm_encoder_config *out, mill_error *err)
{
    stm_encoder_config c;
    char path[PATH];
    stm_json *doc = NULL;
    mill_status st;

    memset(&c, 0, sizeof c); /* padding, too: models are compared byte by byte */
    c.pooling = MILL_POOLING_MEAN;
    if (strlen(dir) > PATH - 512) return mill_fail(err, MILL_ERR_INVALID, "the path of the model is too long");
    if (!stm_file_exists(dir)) return mill_fail(err, MILL_ERR_NOT_FOUND, "the model folder %s does not exist", dir);
    if ((st = open_in(dir, "config.json", false, path, &doc, err)) != MILL_OK) return st;
    st = read_config(path, stm_json_root(doc), &c, err);
    stm_json_close(&doc);
    if (st != MILL_OK) return st;
    if ((st = read_modules(dir, &c, err)) != MILL_OK) return st;
    if ((st = read_max_tokens(dir, &c, err)) != MILL_OK) return st;
    if (options->max_tokens > c.positions || options->max_tokens < 0)
        return mill_fail(err, MILL_ERR_INVALID, "max_tokens is %d, but the model has %d positions", (int)options->max_tokens,
                         (int)c.positions);
    if (options->max_tokens > 0) c.max_tokens = options->max_tokens;
    if (options->pooling != MILL_POOLING_AUTO) c.pooling = (mill_pooling)options->pooling;
    if (options->normalize != MILL_AUTO) c.normalize = options->normalize == MILL_YES;
    *out = c;
    return MILL_OK;
}
