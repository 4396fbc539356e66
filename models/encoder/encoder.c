/*
 * The public encoder. On the CPU texts are tokenised and gathered into groups of about GROUP_ROWS tokens by whichever worker is
 * free, and computed there. On a device the workers tokenise SLICE_ROWS texts, the caller queues them, and while they are computed
 * the next are tokenised.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "models/encoder/device_forward.h"
#include "models/encoder/forward.h"
#include "models/encoder/workers.h"
#include "models/tokenizers/wordpiece.h"

/* Tokens that go through the layers together: enough that a weight, read from L3 once per group, is used often (bf16 with
 * tiles takes 4 times as long per byte of weight at 64 rows), few enough that activations stay in 2 MB of L2. Measured by
 * bench/embed. A group ends with the document that would pass it. */
#define GROUP_ROWS_F32 256
#define GROUP_ROWS_BF16 384
#define THREADS_MAX 256
#define SLICE_ROWS 2048

struct mill_encoder {
    stm_encoder_config config;
    stm_encoder_weights *weights;
    stm_wordpiece *tokenizer;
    stm_workers *workers;
    stm_encoder_work **work; /* [threads] */
    int32_t threads;
    int32_t numerics; /* mill_numerics; says what may be done, not what is: both give the same bits on the CPU */
    int32_t precision;
    int64_t device_tokens;
    int64_t group_rows;
    bool (*cancelled)(void *user);
    void *user;
    /* on a device; weights, work and group_rows are of the CPU */
    stm_device_forward *device;
    stm_stream *stream;
    int32_t *ids;     /* [room][max_tokens] of a slice */
    int32_t *lengths; /* [room] */
    int64_t room;
};

/* One mill_encoder_run. */
typedef struct run_state {
    mill_encoder *enc;
    const mill_texts *texts;
    float *out;
    _Atomic int64_t next;    /* relaxed: texts are shared out */
    _Atomic int32_t stopped; /* relaxed: a status; the first failure ends all */
    mill_error *err;         /* filled by the worker that set `stopped` */
} run_state;

static mill_status check_options(const mill_encoder_options *o, mill_error *err)
{
    if (o == NULL || o->struct_size < sizeof *o) return mill_fail(err, MILL_ERR_INVALID, "mill_encoder_options is not initialised");
    if (o->precision == MILL_PRECISION_F16 && o->queue == NULL) {
        mill_fail(err, MILL_ERR_UNSUPPORTED, "precision f16 is for GPUs");
        mill_error_remedy(err, "Use bf16 or f32 on the CPU");
        return MILL_ERR_UNSUPPORTED;
    }
    if (o->precision < MILL_PRECISION_F32 || o->precision > MILL_PRECISION_F16 || o->device_tokens < 0 ||
        o->pooling < MILL_POOLING_AUTO || o->pooling > MILL_POOLING_CLS || o->normalize < MILL_AUTO || o->normalize > MILL_NO ||
        o->numerics < MILL_NUMERICS_INVARIANT || o->numerics > MILL_NUMERICS_FAST)
        return mill_fail(err, MILL_ERR_INVALID, "an option of the encoder is out of range");
    return MILL_OK;
}

/* Tokenizer and configuration must fit together: every id has an embedding, and a text has room between special tokens. */
static mill_status open_tokenizer(const char *dir, const stm_encoder_config *c, stm_wordpiece **out, mill_error *err)
{
    stm_wordpiece *tok = NULL;
    mill_status st = stm_wordpiece_open(dir, &tok, err);

    if (st != MILL_OK) return st;
    const stm_wordpiece_info info = stm_wordpiece_info_of(tok);
    if (info.vocabulary > c->vocabulary)
        st = mill_fail(err, MILL_ERR_INVALID, "%s: the tokenizer has ids up to %d, but the model only %d embeddings", dir,
                       (int)info.vocabulary - 1, (int)c->vocabulary);
    else if (c->max_tokens <= info.n_before + info.n_after)
        st = mill_fail(err, MILL_ERR_INVALID, "max_tokens is %d, of which %d are special tokens", (int)c->max_tokens,
                       (int)(info.n_before + info.n_after));
    if (st != MILL_OK)
        stm_wordpiece_close(&tok);
    else
        *out = tok;
    return st;
}

static mill_status weights_path(const char *dir, char *path, size_t size, mill_error *err)
{
    snprintf(path, size, "%s/model.safetensors", dir);
    if (stm_file_exists(path)) return MILL_OK;
    mill_fail(err, MILL_ERR_NOT_FOUND, "%s does not exist", path);
    snprintf(path, size, "%s/pytorch_model.bin", dir);
    if (stm_file_exists(path)) mill_error_remedy(err, "pytorch_model.bin is not read; convert it to model.safetensors");
    snprintf(path, size, "%s/model.safetensors.index.json", dir);
    if (stm_file_exists(path)) mill_error_remedy(err, "Weights in several files are not supported; join them into one");
    return MILL_ERR_NOT_FOUND;
}

static stm_real real_of(int32_t precision)
{
    return precision == MILL_PRECISION_F32 ? STM_F32 : precision == MILL_PRECISION_BF16 ? STM_BF16 : STM_F16;
}
static int64_t device_tokens(int32_t asked) { return asked > 0 ? asked : MILL_ENCODER_DEVICE_TOKENS; }

static mill_encoder_info describe(const stm_encoder_config *c, int64_t parameters, int32_t numerics, stm_real type, int64_t tokens)
{
    const size_t weights = (size_t)parameters * stm_real_bytes(type) + ((size_t)1 << 20); /* ends of tensors, and vectors in f32 */

    return (mill_encoder_info){.dim = c->hidden,
                               .max_tokens = c->max_tokens,
                               .layers = c->layers,
                               .heads = c->heads,
                               .vocabulary = c->vocabulary,
                               .positions = c->positions,
                               .pooling = (int32_t)c->pooling,
                               .normalize = c->normalize,
                               .parameters = parameters,
                               .numerics = numerics,
                               .device_weights_bytes = (int64_t)weights,
                               .device_work_bytes = (int64_t)stm_device_forward_bytes(c, type, tokens)};
}

mill_status mill_encoder_check(const char *dir, const mill_encoder_options *options, mill_encoder_info *info, mill_error *err)
{
    stm_encoder_config c;
    stm_wordpiece *tok = NULL;
    stm_safetensors *file = NULL;
    char path[4096];
    int64_t parameters = 0;
    mill_status st = check_options(options, err);

    if (st == MILL_OK) st = stm_encoder_config_read(dir, options, &c, err);
    if (st == MILL_OK) st = weights_path(dir, path, sizeof path, err);
    if (st == MILL_OK) st = stm_safetensors_open(path, &file, err);
    if (st == MILL_OK) st = stm_encoder_weights_check(file, &c, &parameters, err);
    if (st == MILL_OK) st = open_tokenizer(dir, &c, &tok, err);
    if (st == MILL_OK && info != NULL)
        *info = describe(&c, parameters, options->numerics, real_of(options->precision), device_tokens(options->device_tokens));
    stm_wordpiece_close(&tok);
    stm_safetensors_close(&file);
    return st;
}

static mill_status open_device(mill_encoder *e, const char *path, const mill_encoder_options *o, mill_error *err)
{
    const stm_device_forward_opts opts = {.stream = o->queue,
                                          .path = path,
                                          .config = e->config,
                                          .type = real_of(o->precision),
                                          .invariant = o->numerics == MILL_NUMERICS_INVARIANT,
                                          .tokens = device_tokens(o->device_tokens)};

    e->stream = o->queue;
    return stm_device_forward_open(&opts, &e->device, err);
}

static mill_status open_all(mill_encoder *e, const char *dir, const mill_encoder_options *o, mill_error *err)
{
    const stm_gemm_type type = o->precision == MILL_PRECISION_BF16 ? STM_GEMM_BF16 : STM_GEMM_F32;
    char path[4096];
    mill_status st = stm_encoder_config_read(dir, o, &e->config, err);

    if (st == MILL_OK) st = weights_path(dir, path, sizeof path, err);
    if (st == MILL_OK) st = open_tokenizer(dir, &e->config, &e->tokenizer, err);
    if (st == MILL_OK) st = stm_workers_create(e->threads, &e->workers, err);
    if (st == MILL_OK && o->queue != NULL) return open_device(e, path, o, err);
    if (st == MILL_OK) st = stm_encoder_weights_get(path, &e->config, type, &e->weights, err);
    if (st != MILL_OK) return st;
    e->group_rows = type == STM_GEMM_BF16 ? GROUP_ROWS_BF16 : GROUP_ROWS_F32;
    if (e->group_rows < e->config.max_tokens) e->group_rows = e->config.max_tokens;
    if ((e->work = stm_calloc((size_t)e->threads * sizeof *e->work)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for an encoder");
    for (int32_t i = 0; i < e->threads && st == MILL_OK; i++)
        st = stm_encoder_work_create(&e->config, type, e->group_rows, &e->work[i], err);
    return st;
}

mill_status mill_encoder_open(const char *dir, const mill_encoder_options *options, mill_encoder **out, mill_error *err)
{
    mill_encoder *e;
    mill_status st = check_options(options, err);

    if (st != MILL_OK) return st;
    if ((e = stm_calloc(sizeof *e)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for an encoder");
    e->threads = options->threads < 1 ? 1 : options->threads > THREADS_MAX ? THREADS_MAX : options->threads;
    e->cancelled = options->cancelled, e->user = options->user;
    e->numerics = options->numerics;
    e->precision = options->precision, e->device_tokens = device_tokens(options->device_tokens);
    if ((st = open_all(e, dir, options, err)) != MILL_OK)
        mill_encoder_close(&e);
    else
        *out = e;
    return st;
}

void mill_encoder_close(mill_encoder **enc)
{
    mill_encoder *e = *enc;

    if (e == NULL) return;
    stm_workers_destroy(&e->workers);
    for (int32_t i = 0; e->work != NULL && i < e->threads; i++) stm_encoder_work_destroy(&e->work[i]);
    stm_free(e->work);
    stm_encoder_weights_put(&e->weights);
    stm_device_forward_close(&e->device);
    stm_free(e->ids);
    stm_free(e->lengths);
    stm_wordpiece_close(&e->tokenizer);
    stm_free(e);
    *enc = NULL;
}

mill_encoder_info mill_encoder_info_of(const mill_encoder *enc)
{
    const int64_t parameters = enc->device != NULL ? stm_device_forward_parameters(enc->device) : enc->weights->parameters;

    return describe(&enc->config, parameters, enc->numerics, real_of(enc->precision), enc->device_tokens);
}

static void stop(run_state *s, mill_status st, const mill_error *cause)
{
    int32_t none = MILL_OK;

    if (atomic_compare_exchange_strong_explicit(&s->stopped, &none, st, memory_order_relaxed, memory_order_relaxed) &&
        s->err != NULL)
        *s->err = *cause;
}

static bool flush(run_state *s, stm_encoder_work *work)
{
    mill_error err = {0};
    mill_status st = MILL_OK;

    if (s->enc->cancelled != NULL && s->enc->cancelled(s->enc->user))
        st = mill_fail(&err, MILL_ERR_STOPPED, "stopped while encoding");
    else
        st = stm_encoder_forward(&s->enc->config, s->enc->weights, work, &err);
    stm_encoder_work_reset(work);
    if (st != MILL_OK) stop(s, st, &err);
    return atomic_load_explicit(&s->stopped, memory_order_relaxed) == MILL_OK;
}

/* Token ids of text r; 0 of them for one that is absent, or empty with a tokenizer without special tokens. */
static int32_t tokenise(const mill_encoder *e, const mill_texts *t, int64_t r, int32_t *ids)
{
    const int64_t at = t->offset + r;

    if (t->validity != NULL && (t->validity[at / 8] >> at % 8 & 1) == 0) return 0;
    const int64_t bytes = t->offsets[at + 1] - t->offsets[at];
    return stm_wordpiece_encode(e->tokenizer, bytes > 0 ? t->data + t->offsets[at] : "", bytes, e->config.max_tokens, ids);
}

static void encode_worker(void *user, int32_t worker)
{
    run_state *s = user;
    const mill_encoder *e = s->enc;
    const mill_texts *t = s->texts;
    const int64_t dim = e->config.hidden, limit = e->group_rows;
    stm_encoder_work *work = e->work[worker];

    stm_encoder_work_reset(work);
    for (;;) {
        const int64_t r = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
        if (r >= t->rows) break;
        int32_t *ids = stm_encoder_work_ids(work);
        const int32_t n = tokenise(e, t, r, ids);
        if (n == 0) {
            memset(s->out + r * dim, 0, (size_t)dim * sizeof(float));
            continue;
        }
        if (stm_encoder_work_rows(work) + n > limit) { /* it opens the next group */
            if (!flush(s, work)) return;
            memmove(stm_encoder_work_ids(work), ids, (size_t)n * sizeof *ids);
        }
        stm_encoder_work_add(work, n, s->out + r * dim);
    }
    (void)flush(s, work);
}

/* ---- on a device ------------------------------------------------------------------------------------------------ */

static void tokenise_worker(void *user, int32_t worker)
{
    run_state *s = user;
    const mill_encoder *e = s->enc;
    int64_t r;

    (void)worker;
    while ((r = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed)) < s->texts->rows)
        e->lengths[r] = tokenise(e, s->texts, r, e->ids + r * e->config.max_tokens);
}

static mill_status make_room(mill_encoder *e, int64_t rows, mill_error *err)
{
    if (rows <= e->room) return MILL_OK;
    stm_free(e->ids);
    stm_free(e->lengths);
    e->ids = stm_malloc((size_t)(rows * e->config.max_tokens) * sizeof *e->ids);
    e->lengths = stm_malloc((size_t)rows * sizeof *e->lengths);
    e->room = e->ids != NULL && e->lengths != NULL ? rows : 0;
    return e->room > 0 ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "no memory for the tokens of %lld texts", (long long)rows);
}

static mill_status queue_slice(mill_encoder *e, const mill_texts *texts, int64_t first, int64_t rows, float *out, mill_error *err)
{
    const mill_texts slice = {texts->data, texts->offsets, texts->validity, texts->offset + first, rows};
    run_state s = {.enc = e, .texts = &slice, .err = err};
    mill_status st;

    if (e->cancelled != NULL && e->cancelled(e->user)) return mill_fail(err, MILL_ERR_STOPPED, "stopped while encoding");
    if ((st = make_room(e, rows, err)) != MILL_OK) return st;
    atomic_init(&s.next, 0);
    stm_workers_run(e->workers, (int32_t)(rows < e->threads ? rows : e->threads), tokenise_worker, &s);
    return stm_device_forward_queue(e->device, e->ids, e->config.max_tokens, e->lengths, rows, out + first * e->config.hidden, err);
}

static int64_t slice_at(const mill_texts *texts, int64_t first)
{
    return texts->rows - first < SLICE_ROWS ? texts->rows - first : SLICE_ROWS;
}

mill_status mill_encoder_queue(mill_encoder *enc, const mill_texts *texts, float *out, mill_error *err)
{
    mill_status st = MILL_OK;

    if (enc->device == NULL) return mill_fail(err, MILL_ERR_UNSUPPORTED, "this encoder computes on the CPU");
    for (int64_t r = 0; r < texts->rows && st == MILL_OK; r += SLICE_ROWS)
        st = queue_slice(enc, texts, r, slice_at(texts, r), out, err);
    return st;
}

static mill_status run_on_device(mill_encoder *e, const mill_texts *texts, float *out, mill_error *err)
{
    mill_status st = MILL_OK, waited;

    for (int64_t r = 0; r < texts->rows && st == MILL_OK; r += SLICE_ROWS) {
        stm_mark mark;
        st = queue_slice(e, texts, r, slice_at(texts, r), out, err);
        if (st == MILL_OK) st = stm_stream_raise(e->stream, &mark, err);
        waited = stm_stream_sync(e->stream, st == MILL_OK ? err : NULL); /* also after a failure: what is queued writes to out */
        if (waited != MILL_OK) stm_stream_settle(e->stream);
        if (st == MILL_OK) st = waited;
    }
    return st;
}

mill_status mill_encoder_run(mill_encoder *enc, const mill_texts *texts, float *out, mill_error *err)
{
    run_state s = {.enc = enc, .texts = texts, .out = out, .err = err};
    const int64_t workers = texts->rows < enc->threads ? texts->rows : enc->threads;

    atomic_init(&s.next, 0);
    atomic_init(&s.stopped, MILL_OK);
    if (texts->rows == 0) return MILL_OK;
    if (enc->device != NULL) return run_on_device(enc, texts, out, err);
    stm_workers_run(enc->workers, (int32_t)workers, encode_worker, &s);
    return atomic_load_explicit(&s.stopped, memory_order_relaxed);
}
