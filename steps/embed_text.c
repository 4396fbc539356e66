/* embed_text: a vector for every text, by an encoder of the BERT family, on the CPU or on the GPU of its replica. */
#include <stdlib.h>
#include <string.h>

#include "stepmill/device.h"
#include "stepmill/model.h"
#include "steps/builtin.h"

typedef struct settings {
    char *model;                  /* absolute */
    mill_encoder_options options; /* precision as asked; on the CPU f32 stands for f16 */
    mill_encoder_info info;
    const mill_type *vector; /* fixed_list<float32>[dim] */
} settings;

static void settings_free(void *p)
{
    settings *s = p;

    free(s->model);
    free(s);
}

/* 0 = the first of the choices of an enum parameter, and so on. */
static int32_t choice(const mill_config *c, const char *name, const char *const *choices)
{
    int32_t i = 0;

    while (choices[i + 1] != NULL && strcmp(mill_config_text(c, name), choices[i]) != 0) i++;
    return i;
}

/* The encoder's own words, at the place of parameter @p name. */
static mill_status fail_as(const mill_config *c, const char *name, const mill_error *cause, mill_error *err)
{
    const mill_status st = mill_config_fail(c, name, err, cause->status, "%s", cause->msg);

    if (cause->remedy[0] != 0) mill_error_remedy(err, "%s", cause->remedy);
    return st;
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    static const char *const precisions[] = {"f32", "bf16", "f16", NULL}, *const poolings[] = {"auto", "mean", "cls", NULL},
                             *const normalizes[] = {"auto", "true", "false", NULL};
    settings *s = calloc(1, sizeof *s);
    mill_encoder_options checked;
    mill_error cause = {0};

    if (s == NULL || (s->model = strdup(mill_config_text(c, "model"))) == NULL) {
        free(s);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    }
    mill_step_set_state(step, s, settings_free);
    s->options = (mill_encoder_options)MILL_ENCODER_INIT;
    s->options.precision = choice(c, "precision", precisions);
    s->options.pooling = choice(c, "pooling", poolings);
    s->options.normalize = choice(c, "normalize", normalizes);
    s->options.numerics = mill_step_numerics(step);
    /* f16 is a matter of devices: what is checked here is the same in f32 */
    checked = s->options;
    if (checked.precision == MILL_PRECISION_F16) checked.precision = MILL_PRECISION_F32;
    if (mill_encoder_check(s->model, &checked, &s->info, &cause) != MILL_OK) return fail_as(c, "model", &cause, err);
    checked.max_tokens = s->options.max_tokens = (int32_t)mill_config_int(c, "max_tokens");
    if (checked.max_tokens > 0 && mill_encoder_check(s->model, &checked, &s->info, &cause) != MILL_OK)
        return fail_as(c, "max_tokens", &cause, err);
    s->vector = mill_type_fixed_list(mill_type_plain(MILL_FLOAT32), s->info.dim);
    if (s->vector == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a column type");
    return mill_io_add(io, "embedding", s->vector, NULL, err);
}

static mill_status bound(const mill_step *step, int64_t rows, int64_t bytes, mill_bound *out)
{
    const settings *s = mill_step_state(step);
    const int64_t most = rows * s->info.max_tokens;

    out->host_bytes = (size_t)rows * (size_t)s->info.dim * sizeof(float);
    out->resident_bytes =
        (size_t)(s->info.device_weights_bytes + s->info.device_work_bytes);  /* weights, and the layers' work space */
    out->device_bytes = out->host_bytes;                                     /* a batch itself has its vectors there */
    out->tokens = bytes / 4 + 2 * rows < most ? bytes / 4 + 2 * rows : most; /* 4 to 5 bytes a token in English */
    return MILL_OK;
}

/*
 * Tokens of a text, guessed: a token per 4 ASCII bytes (English has 4 to 5) and one per other character, which word pieces take
 * alone or nearly so, and the two special ones; cut where the encoder cuts. To count them exactly would be to tokenise everything
 * twice, and on the thread that hands the rows on.
 */
static mill_status cost(const mill_step *step, size_t input, const mill_batch *in, int64_t *tokens, mill_error *err)
{
    const settings *s = mill_step_state(step);
    const mill_column *texts = mill_batch_column(in, 0);

    (void)input, (void)err;
    for (int64_t r = 0; texts != NULL && r < mill_batch_rows(in); r++) {
        int64_t bytes, ascii = 0, others = 0;
        const char *text = mill_column_text(texts, r, &bytes);
        if (text == NULL) continue; /* a null text is not encoded */
        for (int64_t i = 0; i < bytes; i++) {
            ascii += (unsigned char)text[i] < 0x80;
            others += (unsigned char)text[i] >= 0xC0;
        }
        tokens[r] = ascii / 4 + others + 2;
        if (tokens[r] > s->info.max_tokens) tokens[r] = s->info.max_tokens;
    }
    return MILL_OK;
}

static bool cancelled(void *user) { return mill_replica_cancelled(user); }

static mill_status load(mill_replica *r, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    mill_encoder_options options = s->options;
    mill_replica_device device = MILL_REPLICA_DEVICE_INIT;
    mill_encoder *enc = NULL;
    mill_status st;

    if (mill_replica_device_of(r, &device))
        options.queue = device.queue;
    else if (options.precision == MILL_PRECISION_F16)
        options.precision = MILL_PRECISION_F32;
    options.threads = mill_replica_cpus(r);
    options.cancelled = cancelled, options.user = r;
    if ((st = mill_encoder_open(s->model, &options, &enc, err)) == MILL_OK) mill_replica_set_state(r, enc);
    return st;
}

static void unload(mill_replica *r)
{
    mill_encoder *enc = mill_replica_state(r);

    mill_encoder_close(&enc);
    mill_replica_set_state(r, NULL);
}

/* The nulls of @p view as a buffer of its own; NULL where there are none. */
static mill_status copy_validity(mill_pool *pool, const mill_view *view, mill_buffer **out)
{
    uint8_t *bits;
    mill_status st;

    if (view->null_count == 0) return MILL_OK;
    if ((st = mill_buffer_create(pool, (size_t)(view->rows + 7) / 8, out)) != MILL_OK) return st;
    bits = mill_buffer_data(*out);
    memset(bits, 0, (size_t)(view->rows + 7) / 8);
    for (int64_t i = 0; i < view->rows; i++) {
        const int64_t at = view->offset + i;
        bits[i / 8] |= (uint8_t)((view->validity[at / 8] >> at % 8 & 1) << i % 8);
    }
    return MILL_OK;
}

static mill_status encode(mill_replica *r, const settings *s, const mill_column *texts, int64_t rows, mill_column **out,
                          mill_error *err)
{
    const size_t bytes = (size_t)rows * (size_t)s->info.dim * sizeof(float);
    mill_replica_device device = MILL_REPLICA_DEVICE_INIT;
    const bool on_device = mill_replica_device_of(r, &device);
    mill_pool *pool = mill_replica_pool(r);
    mill_buffer *values = NULL, *validity = NULL;
    mill_column *child = NULL;
    mill_status st;

    if (texts == NULL) {
        st = mill_column_nulls(pool, s->vector, rows, out);
        return st == MILL_OK ? st : mill_fail(err, st, "no memory for %lld vectors", (long long)rows);
    }
    const mill_view view = mill_column_view(texts);
    const mill_texts in = {.data = view.data,
                           .offsets = view.offsets,
                           .validity = view.null_count > 0 ? view.validity : NULL,
                           .offset = view.offset,
                           .rows = rows};
    st = copy_validity(pool, &view, &validity);
    if (st == MILL_OK)
        st = on_device ? mill_replica_device_buffer(r, bytes, &values, err) : mill_buffer_create(pool, bytes, &values);
    if (st != MILL_OK && err->status == MILL_OK) (void)mill_fail(err, st, "no memory for %lld vectors", (long long)rows);
    if (st == MILL_OK)
        st = (on_device ? mill_encoder_queue : mill_encoder_run)(mill_replica_state(r), &in, mill_buffer_data(values), err);
    if (st == MILL_OK)
        st = mill_column_create(pool, s->vector->fields[0].type, rows * s->info.dim, NULL, NULL, &values, NULL, &child, err);
    if (st == MILL_OK) st = mill_column_create(pool, s->vector, rows, &validity, NULL, NULL, &child, out, err);
    mill_column_unref(&child);
    mill_buffer_unref(&values);
    mill_buffer_unref(&validity);
    return st;
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    const int64_t rows = mill_batch_rows(in[0]);
    mill_column *vectors = NULL;
    mill_batch *batch = NULL;
    mill_status st = encode(r, s, mill_batch_column(in[0], 0), rows, &vectors, err);

    (void)n_in;
    if (st == MILL_OK && (st = mill_batch_create(mill_replica_pool(r), rows, 1, &batch)) != MILL_OK)
        (void)mill_fail(err, st, "no memory for a batch");
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &vectors);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&vectors);
    mill_batch_destroy(&batch);
    return st;
}

static const mill_param params[] = {
    {.name = "model",
     .type = MILL_PARAM_PATH,
     .text = "folder of an encoder of the BERT family, as sentence-transformers writes it (config.json, model.safetensors, "
             "tokenizer.json)"},
    {.name = "precision",
     .type = MILL_PARAM_ENUM,
     .default_value = "f32",
     .choices = "f32|bf16|f16",
     .text =
         "of matrix products: f32 is exact; bf16 is several times as fast on GPUs and on processors with AMX; f16 likewise on GPUs "
         "(on the CPU it is f32)"},
    {.name = "max_tokens",
     .type = MILL_PARAM_INT,
     .default_value = "0",
     .min = 0,
     .max = 1 << 20,
     .text = "cut texts to so many tokens, special ones included; 0 = as the model's files say"},
    {.name = "pooling",
     .type = MILL_PARAM_ENUM,
     .default_value = "auto",
     .choices = "auto|mean|cls",
     .text = "the mean of all tokens' vectors, or the first token's; auto = as the model's files say"},
    {.name = "normalize",
     .type = MILL_PARAM_ENUM,
     .default_value = "auto",
     .choices = "auto|true|false",
     .text = "scale vectors to length 1; auto = as the model's files say"},
};

static const mill_column_decl inputs[] = {{"text", "utf8", "what to encode; a null text has a null vector"}};

const mill_step_type stm_step_embed_text = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW | MILL_ON_DEVICE | MILL_INPUTS_ON_HOST,
    .name = "embed_text",
    .summary = "a vector for every text, by a text encoder on the CPU or a GPU",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .inputs = inputs,
    .n_inputs = 1,
    .configure = configure,
    .bound = bound,
    .load = load,
    .unload = unload,
    .process = process,
    .cost = cost,
};
