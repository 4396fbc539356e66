/*
 * chat, complete, embed_remote: rows to an OpenAI-compatible server and its answers back (module libstepmill-http.so, since it
 * needs libcurl). This file: parameters, and what of a request's body is the same for every row.
 */
#include "steps/endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stepmill/json.h"

static void endpoint_free(void *p)
{
    stm_endpoint *s = p;

    free(s->url);
    free(s->base);
    free(s->key_env);
    free(s->key_file);
    free(s->key_header);
    free(s->ca_file);
    free(s->prefix);
    free(s->suffix);
    free(s);
}

/* ---- parameters -------------------------------------------------------------------------------------------------- */

static mill_status copy(const mill_config *c, const char *name, char **out)
{
    if (!mill_config_has(c, name)) return MILL_OK;
    *out = strdup(mill_config_text(c, name));
    return *out != NULL ? MILL_OK : MILL_ERR_NOMEM;
}

static mill_status read_url(stm_endpoint *s, const mill_config *c, mill_error *err)
{
    static const char *const paths[] = {"/chat/completions", "/completions", "/embeddings"};
    const char *url = mill_config_text(c, "url"), *why;
    size_t n = strlen(url);

    if (!stm_http_url_ok(url, &why))
        return mill_config_fail(c, "url", err, MILL_ERR_INVALID, "this cannot be the server's url: %s", why);
    while (n > 0 && url[n - 1] == '/') n--;
    s->url = malloc(n + strlen(paths[s->kind]) + 1);
    s->base = strndup(url, n);
    if (s->url == NULL || s->base == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    memcpy(s->url, url, n);
    strcpy(s->url + n, paths[s->kind]);
    return MILL_OK;
}

static mill_status read_key(stm_endpoint *s, const mill_config *c, mill_error *err)
{
    const char *h;

    if (mill_config_has(c, "api_key_env") && mill_config_has(c, "api_key_file"))
        return mill_config_fail(c, "api_key_file", err, MILL_ERR_INVALID,
                                "the key comes from api_key_env or from api_key_file, not from both");
    if (copy(c, "api_key_env", &s->key_env) != MILL_OK || copy(c, "api_key_file", &s->key_file) != MILL_OK ||
        copy(c, "api_key_header", &s->key_header) != MILL_OK || copy(c, "ca_file", &s->ca_file) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    for (h = s->key_header;
         (*h >= '0' && *h <= '9') || (*h >= 'A' && *h <= 'Z') || (*h >= 'a' && *h <= 'z') || *h == '-' || *h == '_';)
        h++;
    if (*h != 0 || h == s->key_header)
        return mill_config_fail(c, "api_key_header", err, MILL_ERR_INVALID, "this is no name of a header");
    return MILL_OK;
}

static void read_limits(stm_endpoint *s, const mill_config *c)
{
    stm_http_options *o = &s->http;

    o->concurrency = (int32_t)mill_config_int(c, "concurrency");
    o->attempts = (int32_t)mill_config_int(c, "attempts");
    o->connect_s = mill_config_float(c, "connect_timeout");
    o->request_s = mill_config_float(c, "request_timeout");
    o->total_s = mill_config_float(c, "row_timeout");
    o->backoff_s = mill_config_float(c, "backoff");
    o->backoff_max_s = mill_config_float(c, "backoff_max");
    o->requests_per_minute = mill_config_float(c, "requests_per_minute");
    o->tokens_per_minute = mill_config_float(c, "tokens_per_minute");
    o->max_answer_bytes = (size_t)mill_config_int(c, "max_answer_bytes");
}

/* ---- the body ---------------------------------------------------------------------------------------------------- */

typedef struct body {
    const mill_config *c;
    mill_json_writer *w;
    mill_error *err;
} body;

/* `,"key":` and a parameter as JSON text, if it is there. */
static mill_status put_json(body *b, const char *key, const char *json)
{
    mill_status st = mill_json_writer_raw(b->w, ",\"", 2);

    if (st == MILL_OK) st = mill_json_writer_raw(b->w, key, strlen(key));
    if (st == MILL_OK) st = mill_json_writer_raw(b->w, "\":", 2);
    return st == MILL_OK ? mill_json_writer_raw(b->w, json, strlen(json)) : st;
}

static mill_status put_number(body *b, const char *name)
{
    char text[40];

    if (!mill_config_has(b->c, name)) return MILL_OK;
    if (strcmp(name, "temperature") == 0 || strcmp(name, "top_p") == 0)
        snprintf(text, sizeof text, "%.9g", mill_config_float(b->c, name));
    else snprintf(text, sizeof text, "%lld", (long long)mill_config_int(b->c, name));
    return put_json(b, name, text);
}

/* The members of an object that the user wrote. They may not be ones that the step writes or relies on. */
static mill_status put_members(body *b, stm_answers *a)
{
    static const char *const taken[] = {"model", "messages",   "prompt", "input",           "temperature",
                                        "top_p", "max_tokens", "seed",   "response_format", "stream",
                                        "n",     "best_of",    "echo",   "encoding_format", NULL};
    const char *json = mill_config_text(b->c, "extra_body"), *wrong, *open, *close;
    size_t members;

    if (!mill_config_has(b->c, "extra_body")) return MILL_OK;
    const mill_status st = stm_object_check(a, json, taken, &wrong, &members);
    if (st == MILL_ERR_NOMEM) return st;
    if (st != MILL_OK) {
        if (wrong == NULL)
            return mill_config_fail(b->c, "extra_body", b->err, MILL_ERR_TYPE, "expected a map of members of the request");
        return mill_config_fail(b->c, "extra_body", b->err, MILL_ERR_INVALID,
                                "\"%s\" is not for extra_body: the step writes it, or reads answers that depend on it", wrong);
    }
    if (members == 0) return MILL_OK;
    open = strchr(json, '{'), close = strrchr(json, '}');
    if (mill_json_writer_raw(b->w, ",", 1) != MILL_OK) return MILL_ERR_NOMEM;
    return mill_json_writer_raw(b->w, open + 1, (size_t)(close - open - 1));
}

static mill_status put_format(body *b, stm_answers *a)
{
    static const char *const none[] = {NULL};
    const char *json = mill_config_text(b->c, "response_format"), *wrong;
    size_t members;

    if (!mill_config_has(b->c, "response_format")) return MILL_OK;
    const mill_status st = stm_object_check(a, json, none, &wrong, &members);
    if (st == MILL_ERR_NOMEM) return st;
    if (st != MILL_OK)
        return mill_config_fail(b->c, "response_format", b->err, MILL_ERR_TYPE, "expected a map, such as {type: json_object}");
    return put_json(b, "response_format", json);
}

/* `"messages":[` and the system's message, if there is one. */
static mill_status put_messages(body *b)
{
    const char *system = mill_config_text(b->c, "system");
    mill_status st = put_json(b, "messages", "[");

    if (!mill_config_has(b->c, "system") || st != MILL_OK) return st;
    if ((st = mill_json_writer_row(b->w, 0)) == MILL_OK) st = mill_json_writer_text(b->w, "role", "system");
    if (st == MILL_OK) st = mill_json_writer_text(b->w, "content", system);
    return st == MILL_OK ? mill_json_writer_raw(b->w, "},", 2) : st;
}

static mill_status put_prefix(stm_endpoint *s, body *b, stm_answers *a)
{
    static const char *const numbers[] = {"temperature", "top_p", "max_tokens", "seed"};
    mill_status st;

    if ((st = mill_json_writer_row(b->w, 0)) != MILL_OK) return st;
    if ((st = mill_json_writer_text(b->w, "model", mill_config_text(b->c, "model"))) != MILL_OK) return st;
    for (size_t i = 0; s->kind != STM_EMBED && i < sizeof numbers / sizeof numbers[0]; i++)
        if ((st = put_number(b, numbers[i])) != MILL_OK) return st;
    if (s->kind != STM_EMBED && (st = put_format(b, a)) != MILL_OK) return st;
    if ((st = put_members(b, a)) != MILL_OK) return st;
    if (s->kind == STM_COMPLETE) return put_json(b, "prompt", "");
    if (s->kind == STM_EMBED) return (st = put_json(b, "encoding_format", "\"float\"")) == MILL_OK ? put_json(b, "input", "[") : st;
    if ((st = put_messages(b)) != MILL_OK || s->messages) return st;
    return mill_json_writer_raw(b->w, "{\"role\":\"user\",\"content\":", 25);
}

static mill_status make_body(stm_endpoint *s, const mill_config *c, mill_error *err)
{
    static const char *const ends[] = {"}]}", "}", "]}"};
    stm_answers *a = stm_answers_create();
    body b = {c, NULL, err};
    size_t n;
    mill_status st = a != NULL ? mill_json_writer_create(NULL, 0, 0, &b.w) : MILL_ERR_NOMEM;

    if (st == MILL_OK) st = put_prefix(s, &b, a);
    if (st == MILL_OK) {
        const char *text = mill_json_writer_data(b.w, &n);
        s->prefix = malloc(n + 1); /* the writer's text has no end of its own, which strndup may look for */
        if (s->prefix != NULL) {
            memcpy(s->prefix, text, n);
            s->prefix[n] = '\0';
        }
        s->suffix = strdup(s->messages ? "]}" : ends[s->kind]);
        if (s->prefix == NULL || s->suffix == NULL) st = MILL_ERR_NOMEM;
    }
    mill_json_writer_destroy(&b.w);
    stm_answers_destroy(&a);
    return st == MILL_OK ? MILL_OK : mill_fail(err, st, "no memory for a step");
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

static mill_status configure(stm_endpoint_kind kind, mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    stm_endpoint *s = calloc(1, sizeof *s);
    mill_status st;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, endpoint_free);
    s->kind = kind;
    s->rows_per_request = 1;
    s->messages = kind == STM_CHAT && strcmp(mill_config_text(c, "ask"), "messages") == 0;
    s->raw = mill_config_bool(c, "raw");
    s->answer_tokens = mill_config_has(c, "max_tokens") ? (double)mill_config_int(c, "max_tokens") : 256.0;
    read_limits(s, c);
    if ((st = read_url(s, c, err)) != MILL_OK || (st = read_key(s, c, err)) != MILL_OK) return st;
    s->offline = mill_config_bool(c, "offline");
    s->poll_s = mill_config_float(c, "batch_poll");
    s->wait_s = mill_config_float(c, "batch_wait");
    if (s->offline && mill_config_batch_rows(c) < 1)
        return mill_config_fail(c, "offline", err, MILL_ERR_INVALID,
                                "an offline batch has the rows of an input batch: set input_batch_size, to 10000 for instance");
    if ((st = make_body(s, c, err)) != MILL_OK) return st;
    if (kind == STM_CHAT &&
        (st = mill_io_use(io, 0, s->messages ? "messages" : "prompt", s->messages ? "text" : "utf8", NULL, err)) != MILL_OK)
        return st;
    return s->raw ? mill_io_add(io, "raw", mill_type_plain(MILL_JSON), NULL, err) : MILL_OK;
}

static mill_status configure_chat(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    return configure(STM_CHAT, step, c, io, err);
}

static mill_status configure_complete(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    return configure(STM_COMPLETE, step, c, io, err);
}

static mill_status configure_embed(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    stm_endpoint *s;
    mill_status st = configure(STM_EMBED, step, c, io, err);

    if (st != MILL_OK) return st;
    s = mill_step_state(step);
    s->rows_per_request = mill_config_int(c, "texts_per_request");
    s->answer_tokens = 0.0;
    s->dim = (int32_t)mill_config_int(c, "dimensions");
    s->vector = mill_type_fixed_list(mill_type_plain(MILL_FLOAT32), s->dim);
    if (s->vector == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a column type");
    return mill_io_add(io, "embedding", s->vector, NULL, err);
}

static mill_status bound_embed(const mill_step *step, int64_t rows, int64_t bytes, mill_bound *out)
{
    const stm_endpoint *s = mill_step_state(step);

    (void)bytes;
    out->host_bytes = (size_t)rows * (size_t)s->dim * sizeof(float);
    return MILL_OK;
}

/* ---- the types --------------------------------------------------------------------------------------------------- */

/* clang-format off */
#define SERVER_PARAMS \
    {.name = "url", .type = MILL_PARAM_STRING, .text = "address of the server up to the version, as https://host/v1"}, \
    {.name = "model", .type = MILL_PARAM_STRING, .text = "name of the model at the server"}, \
    {.name = "api_key_env", .type = MILL_PARAM_STRING, .flags = MILL_PARAM_OPTIONAL | MILL_PARAM_NO_RESULT, .text = "environment variable with the key"}, \
    {.name = "api_key_file", .type = MILL_PARAM_PATH, .flags = MILL_PARAM_OPTIONAL | MILL_PARAM_NO_RESULT, .text = "file with the key and nothing else"}, \
    {.name = "api_key_header", .type = MILL_PARAM_STRING, .flags = MILL_PARAM_NO_RESULT, .default_value = "Authorization", \
     .text = "header of the key; Authorization gets Bearer before it"}, \
    {.name = "ca_file", .type = MILL_PARAM_PATH, .flags = MILL_PARAM_OPTIONAL | MILL_PARAM_NO_RESULT, .text = "PEM file with the certificates to trust instead of the system's"}, \
    {.name = "extra_body", .type = MILL_PARAM_JSON, .flags = MILL_PARAM_OPTIONAL, .text = "further members of the request, as they are"}, \
    {.name = "concurrency", .type = MILL_PARAM_INT, .flags = MILL_PARAM_NO_RESULT, .default_value = "16", .min = 1, .max = 4096, .text = "requests at once, per replica"}, \
    {.name = "requests_per_minute", .type = MILL_PARAM_FLOAT, .flags = MILL_PARAM_NO_RESULT, .default_value = "0", .min = 0, .max = 1e9, .text = "limit of all replicas together; 0 = none"}, \
    {.name = "tokens_per_minute", .type = MILL_PARAM_FLOAT, .flags = MILL_PARAM_NO_RESULT, .default_value = "0", .min = 0, .max = 1e12, .text = "limit of all replicas together, of question and answer; 0 = none"}, \
    {.name = "connect_timeout", .type = MILL_PARAM_DURATION, .flags = MILL_PARAM_NO_RESULT, .default_value = "10s", .min = 0.001, .max = 3600, .text = "longest time for a connection"}, \
    {.name = "request_timeout", .type = MILL_PARAM_DURATION, .flags = MILL_PARAM_NO_RESULT, .default_value = "120s", .min = 0.001, .max = 86400, .text = "longest time of one attempt"}, \
    {.name = "row_timeout", .type = MILL_PARAM_DURATION, .flags = MILL_PARAM_NO_RESULT, .default_value = "600s", .min = 0.001, .max = 604800, .text = "longest time of a request with all attempts and pauses"}, \
    {.name = "attempts", .type = MILL_PARAM_INT, .flags = MILL_PARAM_NO_RESULT, .default_value = "6", .min = 1, .max = 1000, .text = "how often a request is made that fails for a reason that may pass"}, \
    {.name = "backoff", .type = MILL_PARAM_DURATION, .flags = MILL_PARAM_NO_RESULT, .default_value = "500ms", .min = 0.001, .max = 3600, .text = "pause after the first failure; doubles, with jitter"}, \
    {.name = "backoff_max", .type = MILL_PARAM_DURATION, .flags = MILL_PARAM_NO_RESULT, .default_value = "30s", .min = 0.001, .max = 3600, .text = "longest pause, unless the server asks for a longer one"}, \
    {.name = "max_answer_bytes", .type = MILL_PARAM_BYTES, .flags = MILL_PARAM_NO_RESULT, .default_value = "8MiB", .min = 256, .max = 1 << 30, .text = "a longer answer fails its rows"}, \
    {.name = "offline", .type = MILL_PARAM_BOOL, .flags = MILL_PARAM_NO_RESULT, .default_value = "false", .text = "hand the rows of each input batch to the service's batch interface, and ask for the answers later"}, \
    {.name = "batch_poll", .type = MILL_PARAM_DURATION, .flags = MILL_PARAM_NO_RESULT, .default_value = "60s", .min = 0.01, .max = 86400, .text = "offline: time between two questions about a batch"}, \
    {.name = "batch_wait", .type = MILL_PARAM_DURATION, .flags = MILL_PARAM_NO_RESULT, .default_value = "0s", .min = 0, .max = 1e9, .text = "offline: how long the run stays when nothing but waiting is left; then it ends with 75"}
#define TEXT_PARAMS \
    {.name = "temperature", .type = MILL_PARAM_FLOAT, .flags = MILL_PARAM_OPTIONAL, .min = 0, .max = 100, .text = "as the server takes it"}, \
    {.name = "top_p", .type = MILL_PARAM_FLOAT, .flags = MILL_PARAM_OPTIONAL, .min = 0, .max = 1, .text = "as the server takes it"}, \
    {.name = "max_tokens", .type = MILL_PARAM_INT, .flags = MILL_PARAM_OPTIONAL, .min = 1, .max = 1 << 30, .text = "longest answer, in tokens"}, \
    {.name = "seed", .type = MILL_PARAM_INT, .flags = MILL_PARAM_OPTIONAL, .min = -2147483648.0, .max = 2147483647.0, .text = "of the server's sampling, the same for all rows"}, \
    {.name = "response_format", .type = MILL_PARAM_JSON, .flags = MILL_PARAM_OPTIONAL, .text = "structured output, as the server takes it: {type: json_schema, ...}"}, \
    {.name = "raw", .type = MILL_PARAM_BOOL, .default_value = "false", .text = "column raw with the server's whole answer"}
/* clang-format on */

static const mill_param chat_params[] = {
    SERVER_PARAMS,
    TEXT_PARAMS,
    {.name = "ask", .type = MILL_PARAM_ENUM, .default_value = "prompt", .choices = "prompt|messages",
     .text = "what is asked: column prompt (utf8) as the user's message, or column messages (json), a list of messages"},
    {.name = "system", .type = MILL_PARAM_STRING, .flags = MILL_PARAM_OPTIONAL, .text = "the system's message, before the others"},
};
static const mill_param complete_params[] = {SERVER_PARAMS, TEXT_PARAMS};
static const mill_param embed_params[] = {
    SERVER_PARAMS,
    {.name = "dimensions", .type = MILL_PARAM_INT, .min = 1, .max = 1 << 20, .text = "values of a vector, as the model gives them"},
    {.name = "texts_per_request",
     .type = MILL_PARAM_INT,
     .flags = MILL_PARAM_NO_RESULT,
     .default_value = "16",
     .min = 1,
     .max = 2048,
     .text = "texts in one request, at most"},
};

static const mill_column_decl complete_inputs[] = {{"prompt", "utf8", "what to go on from; null gives nulls"}};
static const mill_column_decl embed_inputs[] = {{"text", "utf8", "what to embed; a null text has a null vector"}};
static const mill_column_decl text_outputs[] = {
    {"answer", "utf8", "what the model wrote; null when it gave no text (it called a tool, or refused)"},
    {"finish_reason", "utf8", "why it ended: stop, length, ..."},
    {"prompt_tokens", "int64", "tokens of the question, as the server counts"},
    {"completion_tokens", "int64", "tokens of the answer"},
};

#define ENDPOINT                                                                                                                \
    .struct_size = sizeof(mill_step_type), .abi = MILL_ABI_1, .kind = MILL_STEP, .flags = MILL_PER_ROW | MILL_NONDETERMINISTIC, \
    .version = "1", .load = stm_endpoint_load, .unload = stm_endpoint_unload, .submit = stm_endpoint_submit,                    \
    .poll = stm_endpoint_poll, .cancel = stm_endpoint_cancel

static const mill_step_type chat_type = {
    ENDPOINT,
    .name = "chat",
    .summary = "answers of a chat model behind an OpenAI-compatible server",
    .params = chat_params,
    .n_params = sizeof chat_params / sizeof chat_params[0],
    .outputs = text_outputs,
    .n_outputs = sizeof text_outputs / sizeof text_outputs[0],
    .configure = configure_chat,
};
static const mill_step_type complete_type = {
    ENDPOINT,
    .name = "complete",
    .summary = "texts continued by a model behind an OpenAI-compatible server",
    .params = complete_params,
    .n_params = sizeof complete_params / sizeof complete_params[0],
    .inputs = complete_inputs,
    .n_inputs = 1,
    .outputs = text_outputs,
    .n_outputs = sizeof text_outputs / sizeof text_outputs[0],
    .configure = configure_complete,
};
static const mill_step_type embed_type = {
    ENDPOINT,
    .name = "embed_remote",
    .summary = "a vector for every text, by an OpenAI-compatible server",
    .params = embed_params,
    .n_params = sizeof embed_params / sizeof embed_params[0],
    .inputs = embed_inputs,
    .n_inputs = 1,
    .configure = configure_embed,
    .bound = bound_embed,
};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void)
{
    static const mill_step_type *const types[] = {&chat_type, &complete_type, &embed_type};
    static const mill_plugin plugin = {sizeof(mill_plugin), MILL_ABI_1, "stepmill-http",
                                       MILL_VERSION,        types,      sizeof types / sizeof types[0]};
    return &plugin;
}
