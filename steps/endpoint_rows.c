/* chat, complete, embed_remote: rows into requests, answers into rows. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stepmill/json.h"
#include "steps/endpoint.h"
#include "steps/http/offline.h"

#define QUOTED_AT 5      /* bytes of `{"x":` */
#define BYTES_A_TOKEN 4 /* of English; only for the limit of tokens, and put right when the server has counted */

typedef struct state {
    stm_http *http;
    stm_offline *offline; /* instead of it, for rows */
    char *key;
    stm_answers *answers;
    mill_json_writer *quoted; /* a row of one column named x */
    mill_builder *columns[5]; /* answer, finish_reason, prompt_tokens, completion_tokens, raw */
    int32_t n_columns;
    int64_t *rows; /* [cap_rows] of the results being gathered */
    int64_t n_rows, cap_rows;
} state;

/* ---- load and unload --------------------------------------------------------------------------------------------- */

static void wake(void *r) { mill_replica_wake(r); }

static mill_status make_builders(mill_replica *r, const stm_endpoint *s, state *me)
{
    static const mill_type_id ids[] = {MILL_UTF8, MILL_UTF8, MILL_INT64, MILL_INT64, MILL_JSON};
    mill_status st = MILL_OK;

    if (s->kind == STM_EMBED) return st;
    me->n_columns = s->raw ? 5 : 4;
    for (int32_t i = 0; i < me->n_columns && st == MILL_OK; i++)
        st = mill_builder_create(mill_replica_pool(r), mill_type_plain(ids[i]), &me->columns[i]);
    return st;
}

mill_status stm_endpoint_load(mill_replica *r, mill_error *err)
{
    const stm_endpoint *s = mill_step_state(mill_replica_step(r));
    static const char *const names[] = {"x"};
    stm_http_options o = s->http;
    state *me = calloc(1, sizeof *me);
    mill_status st;

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_replica_set_state(r, me);
    if ((me->answers = stm_answers_create()) == NULL || mill_json_writer_create(names, 1, 0, &me->quoted) != MILL_OK ||
        make_builders(r, s, me) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    if ((st = stm_endpoint_key(s, &me->key, err)) != MILL_OK) return st;
    if (me->key != NULL && strncmp(s->url, "https:", 6) != 0 && strstr(s->url, "//127.") == NULL &&
        strstr(s->url, "//localhost") == NULL)
        mill_replica_log(r, MILL_WARN, "the key goes to %s in the clear: the url begins with http:", s->url);
    o.url = s->url;
    o.key = me->key, o.key_header = s->key_header;
    o.ca_file = s->ca_file;
    o.requests_per_minute /= mill_replica_count(r);
    o.tokens_per_minute /= mill_replica_count(r);
    o.wake = wake, o.user = r;
    /* a dry run asks at once */
    if ((st = stm_http_open(&o, &me->http, err)) != MILL_OK || !s->offline || mill_replica_run_dir(r) == NULL) return st;
    const char *host = strstr(s->url, "//"), *path = host != NULL ? strchr(host + 2, '/') : NULL;
    const stm_offline_options off = {.http = o,
                                     .base = s->base,
                                     .path = path != NULL ? path : "/",
                                     .run_dir = mill_replica_run_dir(r),
                                     .name = mill_step_name(mill_replica_step(r)),
                                     .poll_s = s->poll_s,
                                     .wait_s = s->wait_s};
    return stm_offline_open(&off, &me->offline, err);
}

void stm_endpoint_unload(mill_replica *r)
{
    state *me = mill_replica_state(r);

    if (me == NULL) return;
    if (me->http != NULL) {
        const stm_http_counts n = stm_http_count(me->http);
        if (n.requests > 0) mill_replica_log(r, MILL_INFO,
                         "%" PRId64 " requests; failed in passing: %" PRId64 " by rate limit, %" PRId64 " by the server, %" PRId64
                         " without an answer",
                         n.requests, n.limited, n.server, n.network);
        const stm_endpoint *s = mill_step_state(mill_replica_step(r));
        if (n.least < s->http.concurrency)
            mill_replica_log(r, MILL_INFO,
                             "the server wanted fewer requests at once than concurrency (%d): it was given %d for a while",
                             s->http.concurrency, n.least);
    }
    stm_offline_close(&me->offline);
    stm_http_close(&me->http);
    if (me->key != NULL) explicit_bzero(me->key, strlen(me->key));
    free(me->key);
    stm_answers_destroy(&me->answers);
    mill_json_writer_destroy(&me->quoted);
    for (int32_t i = 0; i < me->n_columns; i++) mill_builder_destroy(&me->columns[i]);
    free(me->rows);
    free(me);
    mill_replica_set_state(r, NULL);
}

/* ---- rows into requests ------------------------------------------------------------------------------------------ */

static stm_http_job *new_job(uint64_t ticket, int64_t cap)
{
    stm_http_job *job = calloc(1, sizeof *job);

    if (job == NULL) return NULL;
    job->ticket = ticket;
    job->row = malloc((size_t)cap * sizeof *job->row);
    job->at = malloc((size_t)(cap + 1) * sizeof *job->at);
    if (job->row != NULL && job->at != NULL) return job;
    stm_http_job_free(job);
    return NULL;
}

/* The text of a row as it stands in a body. *bytes 0: nothing is asked (null, and not wrong). false: no memory. */
static bool row_text(const stm_endpoint *s, state *me, const mill_column *col, int64_t row, const char **text, size_t *bytes,
                     bool *wrong)
{
    int64_t n;
    const char *p = col != NULL ? mill_column_text(col, row, &n) : NULL;

    *bytes = 0;
    *wrong = false;
    if (p == NULL) return true;
    mill_json_writer_clear(me->quoted);
    if (!s->messages) {
        if (mill_json_writer_row(me->quoted, row) != MILL_OK) return false;
        *text = mill_json_writer_data(me->quoted, bytes) + QUOTED_AT;
        *bytes -= QUOTED_AT;
        return true;
    }
    /* What is between the brackets, once it is known to be a list of objects; a body must not be anything else than the user
     * wrote. */
    static const char padding[STM_HTTP_PADDING] = {0};
    if (mill_json_writer_raw(me->quoted, p, (size_t)n) != MILL_OK ||
        mill_json_writer_raw(me->quoted, padding, sizeof padding) != MILL_OK)
        return false;
    const char *json = mill_json_writer_data(me->quoted, bytes);
    const mill_status st = stm_messages_check(me->answers, json, (size_t)n);
    if (st != MILL_OK) {
        *wrong = st == MILL_ERR_DATA;
        return *wrong;
    }
    const char *open = memchr(json, '[', (size_t)n), *close = memrchr(json, ']', (size_t)n);
    *text = open + 1;
    *bytes = (size_t)(close - open - 1);
    return true;
}

/* Append to the job's body; *cap is its room. */
static bool put(stm_http_job *job, size_t *cap, const char *text, size_t n)
{
    if (*cap - job->body_bytes < n) {
        size_t room = *cap > 0 ? 2 * *cap : 256;
        while (room - job->body_bytes < n) room *= 2;
        char *p = realloc(job->body, room);
        if (p == NULL) return false;
        job->body = p;
        *cap = room;
    }
    memcpy(job->body + job->body_bytes, text, n);
    job->body_bytes += n;
    return true;
}

static bool put_text(const stm_endpoint *s, stm_http_job *job, size_t *cap, int64_t row, const char *text, size_t n)
{
    if (job->rows == 0 ? !put(job, cap, s->prefix, strlen(s->prefix)) : !put(job, cap, ",", 1)) return false;
    job->at[job->rows] = job->body_bytes;
    if (!put(job, cap, text, n)) return false;
    job->row[job->rows++] = row;
    job->at[job->rows] = job->body_bytes + 1; /* as if a comma followed */
    return true;
}

static bool close_body(const stm_endpoint *s, stm_http_job *job, size_t *cap)
{
    job->tokens = (double)job->body_bytes / BYTES_A_TOKEN + s->answer_tokens;
    return put(job, cap, s->suffix, strlen(s->suffix));
}

static void free_jobs(stm_http_job *jobs)
{
    while (jobs != NULL) {
        stm_http_job *next = jobs->next;
        stm_http_job_free(jobs);
        jobs = next;
    }
}

mill_status stm_endpoint_submit(mill_replica *r, uint64_t ticket, mill_batch *const *in, size_t n_in, mill_error *err)
{
    const stm_endpoint *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);
    const int64_t rows = mill_batch_rows(in[0]);
    mill_column *col = mill_batch_column(in[0], 0), *ref = col != NULL ? mill_column_ref(col) : NULL;
    mill_batch *texts = NULL;
    stm_http_job *jobs = NULL, **end = &jobs, *job = NULL, *none = NULL;
    size_t cap = 0;
    mill_status st = MILL_ERR_NOMEM;

    (void)n_in;
    if (stm_http_full(me->http)) {
        mill_column_unref(&ref);
        return MILL_ERR_AGAIN;
    }
    if (mill_batch_create(mill_replica_pool(r), rows, 1, &texts) != MILL_OK ||
        (ref != NULL && mill_batch_set_column(texts, 0, &ref) != MILL_OK))
        goto fail;
    mill_json_writer_batch(me->quoted, texts);
    for (int64_t row = 0; row < rows; row++) {
        const char *text = NULL;
        size_t bytes;
        bool wrong;
        if (!row_text(s, me, col, row, &text, &bytes, &wrong)) goto fail;
        if (bytes == 0 || wrong) { /* answered without the server: nulls; wrong ones, each for itself, as errors */
            if (none == NULL || wrong || none->outcome.too_big) {
                if ((none = *end = new_job(ticket, wrong ? 1 : rows - row)) == NULL) goto fail;
                end = &none->next;
                none->empty = true;
            }
            none->row[none->rows++] = row;
            none->outcome.too_big = wrong;
            continue;
        }
        if (job == NULL) {
            if ((job = *end = new_job(ticket, s->rows_per_request)) == NULL) goto fail;
            end = &job->next;
            job->seed = mill_replica_seed(r, in[0], row);
            cap = 0;
        }
        if (!put_text(s, job, &cap, row, text, bytes)) goto fail;
        if (job->rows < s->rows_per_request) continue;
        if (!close_body(s, job, &cap)) goto fail;
        job = NULL;
    }
    if (job != NULL && !close_body(s, job, &cap)) goto fail;
    if (me->offline != NULL) stm_offline_add(me->offline, ticket, jobs, mill_replica_seed(r, in[0], 0));
    else stm_http_push(me->http, jobs, false);
    jobs = NULL;
    st = MILL_OK;
fail:
    free_jobs(jobs);
    mill_column_unref(&ref);
    mill_batch_destroy(&texts);
    return st == MILL_OK ? st : mill_fail(err, st, "no memory for the requests of %" PRId64 " rows", rows);
}

void stm_endpoint_cancel(mill_replica *r, uint64_t ticket)
{
    state *me = mill_replica_state(r);

    if (me->offline != NULL) stm_offline_cancel(me->offline, ticket);
    stm_http_cancel(me->http, ticket);
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

static const char *advice(int32_t status)
{
    switch (status) {
    case 400:
    case 422: return "Compare model, extra_body and the row with what the server takes";
    case 401: return "Give the key by api_key_env or api_key_file";
    case 403: return "The key may not use this model or server";
    case 404: return "Compare url and model with what the server offers";
    case 413: return "Shorten the text, or ask for fewer texts_per_request";
    case 429: return "Set requests_per_minute or tokens_per_minute to what the server allows, or raise attempts";
    default:
        if (status >= 300 && status < 400) return "Redirects are not followed; give the final url";
        return status >= 500 ? "The server is in trouble: look at its log, lower concurrency, or raise attempts" : "";
    }
}

/* Why the request of @p job came to nothing. */
static void explain(const stm_endpoint *s, state *me, const stm_http_job *job, mill_error *e)
{
    const stm_http_outcome *o = &job->outcome;
    char words[200] = "";

    if (o->too_big) {
        mill_fail(e, MILL_ERR_DATA, "the answer is longer than max_answer_bytes (%zu)", s->http.max_answer_bytes);
        mill_error_remedy(e, "Raise max_answer_bytes, or lower max_tokens or texts_per_request");
    } else if (o->no_memory) {
        mill_fail(e, MILL_ERR_NOMEM, "no memory for a request or its answer");
    } else if (o->curl == STM_HTTP_UNASKED) {
        mill_fail(e, MILL_ERR_STEP, "%s", o->words);
        mill_error_remedy(e, o->status == 0 ? "`retries` hands the row over again in another batch"
                                            : "Compare url, model and the requests with what the service takes");
    } else if (o->curl != 0) {
        mill_fail(e, o->curl == 28 /* CURLE_OPERATION_TIMEDOUT */ ? MILL_ERR_TIMEOUT : MILL_ERR_IO, "no answer: %s", o->words);
        mill_error_remedy(e, "Is the server there? See url, connect_timeout, request_timeout, ca_file");
    } else {
        stm_answer_words(me->answers, job->answer, job->answer_bytes, words, sizeof words);
        mill_fail(e, o->status == 429 || o->status == 503 ? MILL_ERR_BUSY : MILL_ERR_STEP, "HTTP status %d: %s", o->status,
                  words[0] != 0 ? words : "the server said nothing more");
        if (advice(o->status)[0] != 0) mill_error_remedy(e, "%s", advice(o->status));
    }
    e->error_class = stm_http_class(o);
    mill_error_context(e, "POST %s", s->url);
    if (o->again_after)
        mill_error_context(e, "the server asks to come again after %" PRId64 " s, longer than row_timeout leaves",
                           o->retry_after_s);
    if (o->attempts > 1) mill_error_context(e, "%d attempts", o->attempts);
}

/* Whether a failure may be one text's, so that the others of the request may have better luck without it. */
static bool may_be_a_rows(const stm_http_job *job)
{
    const stm_http_outcome *o = &job->outcome;

    if (job->rows < 2 || job->empty) return false;
    if (o->too_big) return true;
    return o->curl == 0 && (o->status == 200 || o->status == 400 || o->status == 413 || o->status == 422);
}

/* One half of a request's texts. */
static stm_http_job *half(const stm_endpoint *s, const stm_http_job *whole, int64_t from, int64_t n)
{
    stm_http_job *job = new_job(whole->ticket, n);
    size_t cap = 0;

    for (int64_t i = from; job != NULL && i < from + n; i++)
        if (!put_text(s, job, &cap, whole->row[i], whole->body + whole->at[i], whole->at[i + 1] - whole->at[i] - 1))
            stm_http_job_free(job), job = NULL;
    if (job != NULL && !close_body(s, job, &cap)) stm_http_job_free(job), job = NULL;
    if (job != NULL) job->seed = whole->seed + (uint64_t)from, job->deadline_ns = whole->deadline_ns;
    return job;
}

static mill_status fail_job(const stm_endpoint *s, state *me, const stm_http_job *job, mill_results *out, mill_error *e)
{
    if (me->offline == NULL && may_be_a_rows(job)) {
        stm_http_job *a = half(s, job, 0, job->rows / 2), *b = half(s, job, job->rows / 2, job->rows - job->rows / 2);
        if (a != NULL && b != NULL) {
            a->next = b;
            stm_http_push(me->http, a, true);
            return MILL_OK;
        }
        stm_http_job_free(a);
        stm_http_job_free(b);
        *e = (mill_error){0}; /* not the fault of all of them */
        mill_fail(e, MILL_ERR_NOMEM,
                  "no memory to ask again for the %" PRId64 " texts of a request, one of which the server did not take", job->rows);
    }
    mill_status st = MILL_OK;
    for (int64_t i = 0; i < job->rows && st == MILL_OK; i++) st = mill_results_fail(out, job->ticket, &job->row[i], 1, e);
    return st;
}

/* ---- answers into rows ------------------------------------------------------------------------------------------- */

static mill_status append_text(mill_builder *b, const char *text, int64_t n)
{
    return text != NULL ? mill_builder_text(b, text, n) : mill_builder_null(b);
}
static mill_status append_count(mill_builder *b, int64_t n) { return n >= 0 ? mill_builder_int(b, n) : mill_builder_null(b); }

/* Append a row to the builders; NULL = nulls. On failure some of them have it. */
static mill_status append_row(state *me, const stm_choice *c, const stm_http_job *job)
{
    static const stm_choice nothing = {.prompt_tokens = -1, .completion_tokens = -1};
    mill_status st;

    if (c == NULL) c = &nothing;
    st = append_text(me->columns[0], c->text, c->text_bytes);
    if (st == MILL_OK) st = append_text(me->columns[1], c->finish_reason, c->finish_reason_bytes);
    if (st == MILL_OK) st = append_count(me->columns[2], c->prompt_tokens);
    if (st == MILL_OK) st = append_count(me->columns[3], c->completion_tokens);
    if (st == MILL_OK && me->n_columns == 5) st = append_text(me->columns[4], job->answer, (int64_t)job->answer_bytes);
    return st;
}

static bool remember(state *me, const int64_t *rows, int64_t n)
{
    if (me->n_rows + n > me->cap_rows) {
        const int64_t cap = 2 * (me->n_rows + n);
        int64_t *p = realloc(me->rows, (size_t)cap * sizeof *p);
        if (p == NULL) return false;
        me->rows = p;
        me->cap_rows = cap;
    }
    memcpy(me->rows + me->n_rows, rows, (size_t)n * sizeof *rows);
    me->n_rows += n;
    return true;
}

/* Hand over the rows gathered for a ticket. */
static mill_status hand_over(mill_replica *r, state *me, uint64_t ticket, mill_results *out, mill_error *err)
{
    mill_column *col = NULL;
    mill_batch *batch = NULL;
    mill_status st;

    if (me->n_rows == 0) return MILL_OK;
    st = mill_batch_create(mill_replica_pool(r), me->n_rows, me->n_columns, &batch);
    for (int32_t i = 0; i < me->n_columns && st == MILL_OK; i++) {
        st = mill_builder_finish(me->columns[i], &col);
        if (st == MILL_OK) st = mill_batch_set_column(batch, i, &col);
        mill_column_unref(&col);
    }
    if (st == MILL_OK) st = mill_results_rows(out, ticket, me->rows, me->n_rows, &batch, err);
    mill_batch_destroy(&batch);
    for (int32_t i = 0; i < me->n_columns; i++) mill_builder_truncate(me->columns[i], 0);
    me->n_rows = 0;
    return st == MILL_OK ? st : mill_fail(err, st, "no memory for answers");
}

static mill_status take_choice(const stm_endpoint *s, state *me, const stm_http_job *job, mill_error *e)
{
    const int64_t before = me->n_rows;
    stm_choice c;
    mill_status st = MILL_OK;

    if (!job->empty) {
        st = stm_answer_choice(me->answers, job->answer, job->answer_bytes, s->kind == STM_CHAT, &c, e);
        if (st == MILL_OK && c.prompt_tokens >= 0)
            stm_http_used(me->http, job, c.prompt_tokens + (c.completion_tokens > 0 ? c.completion_tokens : 0));
    }
    for (int64_t i = 0; i < job->rows && st == MILL_OK; i++) {
        st = append_row(me, job->empty ? NULL : &c, job);
        if (st == MILL_OK && !remember(me, &job->row[i], 1)) st = MILL_ERR_NOMEM;
    }
    if (st == MILL_OK) return st;
    for (int32_t i = 0; i < me->n_columns; i++) mill_builder_truncate(me->columns[i], before); /* all rows of a request, or none */
    me->n_rows = before;
    return mill_fail(e, st, "no memory for answers");
}

/* The vectors of one request, as a batch of their own. */
static mill_status take_vectors(mill_replica *r, const stm_endpoint *s, state *me, const stm_http_job *job, mill_results *out,
                                mill_error *e)
{
    mill_pool *pool = mill_replica_pool(r);
    mill_buffer *values = NULL;
    mill_column *child = NULL, *col = NULL;
    mill_batch *batch = NULL;
    int64_t used = -1;
    mill_status st;

    if (job->empty) {
        st = mill_column_nulls(pool, s->vector, job->rows, &col);
    } else {
        st = mill_buffer_create(pool, (size_t)job->rows * (size_t)s->dim * sizeof(float), &values);
        if (st == MILL_OK)
            st = stm_answer_vectors(me->answers, job->answer, job->answer_bytes, job->rows, s->dim, mill_buffer_data(values), &used,
                                    e);
        if (st == MILL_OK)
            st = mill_column_create(pool, s->vector->fields[0].type, job->rows * s->dim, NULL, NULL, &values, NULL, &child, e);
        if (st == MILL_OK) st = mill_column_create(pool, s->vector, job->rows, NULL, NULL, NULL, &child, &col, e);
        if (used >= 0) stm_http_used(me->http, job, used);
    }
    if (st == MILL_OK) st = mill_batch_create(pool, job->rows, 1, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &col);
    if (st == MILL_OK) st = mill_results_rows(out, job->ticket, job->row, job->rows, &batch, e);
    mill_batch_destroy(&batch);
    mill_column_unref(&col);
    mill_column_unref(&child);
    mill_buffer_unref(&values);
    return st == MILL_OK ? st : mill_fail(e, st, "no memory for %" PRId64 " vectors", job->rows);
}

static mill_status take(mill_replica *r, const stm_endpoint *s, state *me, stm_http_job *job, mill_results *out)
{
    const bool answered = job->outcome.curl == 0 && job->outcome.status == 200;
    mill_error e = {0};
    mill_status st;

    stm_endpoint_hide(me->key, job->answer, job->answer_bytes);
    stm_endpoint_hide(me->key, job->outcome.words, strlen(job->outcome.words));
    if (job->empty && job->outcome.too_big) {
        mill_fail(&e, MILL_ERR_DATA, "column messages holds something else than a list of messages");
        mill_error_remedy(&e, "A message is {\"role\": \"user\", \"content\": \"...\"}");
    } else if (job->empty || answered) {
        st = s->kind == STM_EMBED ? take_vectors(r, s, me, job, out, &e) : take_choice(s, me, job, &e);
        if (st == MILL_OK) return st;
        mill_error_context(&e, "answer of %s", s->url);
    } else {
        explain(s, me, job, &e);
    }
    return fail_job(s, me, job, out, &e);
}

/* Nothing came. Whether anything may in this run. */
static mill_status wait_offline(mill_replica *r, state *me, mill_error *err)
{
    char news[300];
    bool bad;
    int64_t batches;

    stm_offline_news(me->offline, news, sizeof news, &bad);
    stm_endpoint_hide(me->key, news, strlen(news));
    if (news[0] != 0) mill_replica_log(r, bad ? MILL_WARN : MILL_INFO, "%s", news);
    if (!stm_offline_waits(me->offline, &batches)) return MILL_OK;
    return mill_fail(err, MILL_ERR_NOT_FINISHED, "%" PRId64 " batches are at the service", batches);
}

mill_status stm_endpoint_poll(mill_replica *r, mill_results *out, mill_error *err)
{
    const stm_endpoint *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);
    stm_http_job *jobs = me->offline != NULL ? stm_offline_take(me->offline) : stm_http_take(me->http);
    mill_status st = MILL_OK;

    if (me->offline != NULL && jobs == NULL) return wait_offline(r, me, err);

    while (jobs != NULL && st == MILL_OK) { /* rows of a ticket that come one after the other become one batch */
        stm_http_job *job = jobs;
        const uint64_t ticket = job->ticket;
        st = take(r, s, me, job, out);
        jobs = job->next;
        stm_http_job_free(job);
        if (st == MILL_OK && (jobs == NULL || jobs->ticket != ticket)) st = hand_over(r, me, ticket, out, err);
    }
    me->n_rows = 0;
    for (int32_t i = 0; i < me->n_columns; i++) mill_builder_truncate(me->columns[i], 0);
    free_jobs(jobs);
    return st == MILL_OK ? st : mill_fail(err, st, "answers that nobody takes");
}
