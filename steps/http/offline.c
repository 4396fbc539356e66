#include "steps/http/offline.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "steps/http/offline_json.h"

#define ANSWER_BYTES ((size_t)4 << 20) /* of anything but results */
enum { MOST_PAGES = 10000 };           /* of a list: a million batches */

/* One batch. The thread's while `busy`; else under the lock. */
typedef struct unit {
    struct unit *next;
    uint64_t ticket;
    stm_http_job *jobs; /* in the order of their rows in the file */
    int64_t n;
    uint64_t hash[2];
    int32_t attempt; /* how often this process was handed the same rows before: they are tried again */
    char token[33];  /* the word; "" = not looked for yet */
    char id[STM_OFFLINE_ID];
    bool clean;   /* no create with this word was ever sent */
    bool asked;   /* there is nothing to do but to wait */
    bool dropped;
    int32_t tries; /* failures in a row that may pass */
    int64_t next_ns;
} unit;

typedef struct answer {
    char *bytes;
    size_t n, cap, most;
    long status;
    CURLcode code;
    char words[CURL_ERROR_SIZE];
} answer;

struct stm_offline {
    stm_offline_options o;
    char *base, *path, *folder, *name, *ca_file;
    struct curl_slist *headers, *json; /* with the key; the second for bodies of JSON */
    CURL *easy;           /* thread */
    stm_answers *answers; /* thread */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    _Atomic bool quit;
    unit *units, *busy;        /* lock */
    stm_http_job *done, **end; /* lock */
    int64_t news_ns;           /* lock: something last happened */
    char news[300];            /* lock */
    bool bad;
    uint64_t (*seen)[2];       /* lock: hashes of what was added */
    size_t n_seen, cap_seen;
};

static void unit_free(unit *u)
{
    if (u == NULL) return;
    while (u->jobs != NULL) {
        stm_http_job *job = u->jobs;
        u->jobs = job->next;
        stm_http_job_free(job);
    }
    free(u);
}

static void tell(stm_offline *o, bool bad, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void tell(stm_offline *o, bool bad, const char *fmt, ...)
{
    va_list args;

    pthread_mutex_lock(&o->lock);
    va_start(args, fmt);
    vsnprintf(o->news, sizeof o->news, fmt, args);
    va_end(args);
    o->bad = bad;
    o->news_ns = stm_http_now_ns();
    pthread_mutex_unlock(&o->lock);
    o->o.http.wake(o->o.http.user);
}

/* ---- what is written down ----------------------------------------------------------------------------------------- */

static bool record_name(const stm_offline *o, const unit *u, const char *end, char *out, size_t size)
{
    return snprintf(out, size, "%s/%s.%016" PRIx64 "%016" PRIx64 ".%d%s", o->folder, o->name, u->hash[0], u->hash[1],
                    (int)u->attempt, end) < (int)size;
}

/* A file of this text, synced. 0, or what errno said. */
static int write_synced(const char *path, const char *text, size_t n)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int e = 0;

    if (fd < 0) return errno;
    const ssize_t written = write(fd, text, n);
    if (written != (ssize_t)n) e = written < 0 ? errno : ENOSPC;
    if (e == 0 && fsync(fd) != 0) e = errno;
    if (close(fd) != 0 && e == 0) e = errno;
    return e;
}

static int sync_names(const char *folder)
{
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) return errno;
    const int e = fsync(fd) == 0 || errno == EINVAL ? 0 : errno; /* EINVAL: a file system that cannot, or need not */
    close(fd);
    return e;
}

/* Two lines: the word; the batch's id, or nothing yet. 0, or what errno said; then what was there is left as it was. */
static int write_record(const stm_offline *o, const unit *u)
{
    char name[4096], temporary[4096], text[STM_OFFLINE_ID + 64];
    const int n = snprintf(text, sizeof text, "%s\n%s\n", u->token, u->id);
    int e;

    if (!record_name(o, u, "", name, sizeof name) || !record_name(o, u, ".tmp", temporary, sizeof temporary)) return ENAMETOOLONG;
    e = write_synced(temporary, text, (size_t)n);
    if (e == 0 && rename(temporary, name) != 0) e = errno;
    if (e == 0) return sync_names(o->folder);
    (void)unlink(temporary);
    return e;
}

/* Whether there is one; then token and id are set. */
static bool read_record(const stm_offline *o, unit *u)
{
    char name[4096];
    FILE *f = record_name(o, u, "", name, sizeof name) ? fopen(name, "re") : NULL;
    bool ok;

    if (f == NULL) return false;
    ok = fscanf(f, "%32[0-9a-f]\n", u->token) == 1 && strlen(u->token) == 32;
    if (!ok) u->token[0] = 0;
    if (ok && fscanf(f, "%159[^\n]", u->id) != 1) u->id[0] = 0;
    fclose(f);
    return ok;
}

static bool draw_word(unit *u)
{
    unsigned char raw[16];

    if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw) return false;
    for (size_t i = 0; i < sizeof raw; i++) snprintf(u->token + 2 * i, 3, "%02x", raw[i]);
    return true;
}

/* ---- requests: the thread ----------------------------------------------------------------------------------------- */

static size_t on_bytes(char *bytes, size_t size, size_t n, void *user)
{
    answer *a = user;

    n *= size;
    if (n > a->most - a->n) return 0;
    if (a->cap < a->n + n + STM_HTTP_PADDING) {
        size_t cap = a->cap > 0 ? a->cap : 4096;
        while (cap < a->n + n + STM_HTTP_PADDING) cap *= 2;
        char *p = realloc(a->bytes, cap);
        if (p == NULL) return 0;
        a->bytes = p;
        a->cap = cap;
    }
    memcpy(a->bytes + a->n, bytes, n);
    a->n += n;
    memset(a->bytes + a->n, 0, STM_HTTP_PADDING);
    return n;
}

static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    return ((stm_offline *)user)->quit;
}

static long milliseconds(double s) { return s >= 1e6 ? 1000000000L : s < 0.001 ? 1L : (long)(s * 1000.0); }

/* GET, or POST with a body or a form. @p what: behind the base. */
static void ask(stm_offline *o, const char *what, const char *body, curl_mime *form, size_t most, answer *a)
{
    char url[2048];
    CURL *e = o->easy;

    *a = (answer){.most = most, .bytes = a->bytes, .cap = a->cap};
    if (a->bytes != NULL) memset(a->bytes, 0, STM_HTTP_PADDING);
    snprintf(url, sizeof url, "%s%s", o->base, what);
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, body != NULL ? o->json : o->headers);
    /* on an old connection libcurl may send twice: it may have been closed unseen */
    curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, body != NULL || form != NULL ? 1L : 0L);
    if (form != NULL) curl_easy_setopt(e, CURLOPT_MIMEPOST, form);
    else if (body != NULL) {
        curl_easy_setopt(e, CURLOPT_POST, 1L);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
    } else curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, a->words);
    a->code = curl_easy_perform(e);
    curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &a->status);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, NULL);
}

static bool prepare(stm_offline *o)
{
    CURL *e = o->easy = curl_easy_init();

    if (e == NULL || (o->answers = stm_answers_create()) == NULL) return false;
    return curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK && curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(o->o.http.connect_s)) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, milliseconds(o->o.http.total_s)) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_bytes) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_XFERINFODATA, o) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_USERAGENT, "stepmill") == CURLE_OK &&
           (o->ca_file == NULL || curl_easy_setopt(e, CURLOPT_CAINFO, o->ca_file) == CURLE_OK);
}

/* What a unit's step came to. */
typedef enum step { AGAIN, WAIT, DONE } step;

/* All rows without an answer fail for @p why. @p status: of HTTP, 0 = it may pass. */
static step give_up(unit *u, int32_t status, const char *why)
{
    for (stm_http_job *job = u->jobs; job != NULL; job = job->next) {
        if (job->answer != NULL || job->outcome.curl != 0) continue;
        job->outcome = (stm_http_outcome){.curl = STM_HTTP_UNASKED, .status = status, .attempts = 1};
        snprintf(job->outcome.words, sizeof job->outcome.words, "%s", why);
    }
    return DONE;
}

/* A request failed. What may pass is tried again; after that it is waited for, since rows cost more than time. */
static step failed(stm_offline *o, unit *u, const char *what, const answer *a)
{
    const stm_http_outcome as = {.curl = (int32_t)a->code, .status = (int32_t)a->status};
    char words[160] = "", why[160];

    if (a->code == CURLE_OK) stm_answer_words(o->answers, a->bytes != NULL ? a->bytes : "", a->n, words, sizeof words);
    else snprintf(words, sizeof words, "%.150s", a->words[0] != 0 ? a->words : curl_easy_strerror(a->code));
    if (a->code == CURLE_OK) snprintf(why, sizeof why, "%s: HTTP status %ld: %.100s", what, a->status, words);
    else snprintf(why, sizeof why, "%s: no answer: %.110s", what, words);
    if (a->code != CURLE_WRITE_ERROR && stm_http_class(&as) != MILL_CLASS_TRANSIENT)
        return give_up(u, a->status != 0 ? (int32_t)a->status : 400, why);
    u->next_ns = stm_http_now_ns() + stm_http_backoff_ns(o->o.http.backoff_s, o->o.http.backoff_max_s, ++u->tries, u->hash[0]);
    if (u->tries < o->o.http.attempts) return AGAIN;
    if (!o->quit) tell(o, true, "%s; it is tried again, in this run or the next", why);
    u->tries = 0;
    u->asked = true;
    return WAIT;
}

static bool is_ok(const answer *a) { return a->code == CURLE_OK && a->status >= 200 && a->status < 300; }

/* The file of requests. NULL: no memory. */
static char *requests_of(const stm_offline *o, const unit *u, size_t *bytes)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, bytes);
    int64_t i = 0;

    if (f == NULL) return NULL;
    for (const stm_http_job *job = u->jobs; job != NULL; job = job->next, i++) {
        fprintf(f, "{\"custom_id\":\"r%" PRId64 "\",\"method\":\"POST\",\"url\":\"%s\",\"body\":", i, o->path);
        fwrite(job->body, 1, job->body_bytes, f);
        fputs("}\n", f);
    }
    const bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) {
        free(text);
        return NULL;
    }
    return text;
}

static step upload(stm_offline *o, unit *u, answer *a, char id[STM_OFFLINE_ID])
{
    size_t bytes = 0;
    char *text = requests_of(o, u, &bytes);
    curl_mime *form = text != NULL ? curl_mime_init(o->easy) : NULL;
    curl_mimepart *purpose = form != NULL ? curl_mime_addpart(form) : NULL, *file = form != NULL ? curl_mime_addpart(form) : NULL;
    stm_offline_object made;
    mill_error err = {0};
    step to = AGAIN;
    bool ok = purpose != NULL && file != NULL && curl_mime_name(purpose, "purpose") == CURLE_OK &&
              curl_mime_data(purpose, "batch", CURL_ZERO_TERMINATED) == CURLE_OK && curl_mime_name(file, "file") == CURLE_OK &&
              curl_mime_filename(file, "requests.jsonl") == CURLE_OK && curl_mime_type(file, "application/jsonl") == CURLE_OK &&
              curl_mime_data(file, text, bytes) == CURLE_OK;

    id[0] = 0;
    if (!ok) to = give_up(u, 0, "no memory for the file of requests");
    else {
        ask(o, "/files", NULL, form, ANSWER_BYTES, a);
        if (!is_ok(a)) to = failed(o, u, "upload of the requests", a);
        else if (stm_offline_object_read(o->answers, a->bytes, a->n, &made, &err) != MILL_OK) to = give_up(u, 400, err.msg);
        else strcpy(id, made.id);
    }
    curl_easy_setopt(o->easy, CURLOPT_MIMEPOST, NULL);
    curl_mime_free(form);
    free(text);
    return to;
}

/* A batch with our word may be there: a process ended, or an answer was lost, before its id was written down. A service that gives
 * the same pages for ever cannot tell us, and to create one all the same might be to pay twice. */
static step look_for(stm_offline *o, unit *u, answer *a)
{
    char what[STM_OFFLINE_ID + 64], last[STM_OFFLINE_ID] = "", before[STM_OFFLINE_ID];
    int pages = 0;
    stm_offline_object found;
    mill_error err = {0};

    do {
        strcpy(before, last);
        snprintf(what, sizeof what, "/batches?limit=100%s%s", last[0] != 0 ? "&after=" : "", last);
        ask(o, what, NULL, NULL, ANSWER_BYTES * 16, a);
        if (!is_ok(a)) return failed(o, u, "list of batches, to know whether one was created", a);
        if (stm_offline_find(o->answers, a->bytes, a->n, u->token, &found, last, &err) != MILL_OK) return give_up(u, 400, err.msg);
        if (last[0] != 0 && (strcmp(last, before) == 0 || ++pages == MOST_PAGES))
            return give_up(u, 400,
                           "list of batches, to know whether one was created: the service gives the same page again and again (it "
                           "does not know \"after\")");
    } while (last[0] != 0 && !o->quit);
    u->clean = found.id[0] == 0;
    strcpy(u->id, found.id);
    return AGAIN;
}

static step create(stm_offline *o, unit *u, answer *a)
{
    char body[STM_OFFLINE_ID + 512], file[STM_OFFLINE_ID];
    stm_offline_object made;
    mill_error err = {0};
    const step to = upload(o, u, a, file);

    if (file[0] == 0) return to;
    snprintf(body, sizeof body,
             "{\"input_file_id\":\"%s\",\"endpoint\":\"%.200s\",\"completion_window\":\"24h\",\"metadata\":{\"stepmill\":\"%s\"}}",
             file, o->path, u->token);
    u->clean = false;
    ask(o, "/batches", body, NULL, ANSWER_BYTES, a);
    if (!is_ok(a)) return failed(o, u, "creation of a batch", a);
    if (stm_offline_object_read(o->answers, a->bytes, a->n, &made, &err) != MILL_OK) return AGAIN; /* it is in the list */
    strcpy(u->id, made.id);
    tell(o, false, "batch %s of %" PRId64 " requests is at the service", u->id, u->n);
    return AGAIN;
}

/* Until the unit has an id, and that is on the disk. */
static step hand_over(stm_offline *o, unit *u, answer *a)
{
    char why[160];
    step to = AGAIN;
    int e;

    if (u->token[0] == 0 && !read_record(o, u)) {
        e = draw_word(u) ? write_record(o, u) : errno;
        if (e != 0) {
            snprintf(why, sizeof why,
                     "not handed to the service: a note of it cannot be written to `batches` of the run directory: %s",
                     strerror(e));
            return give_up(u, 0, why);
        }
        u->clean = true;
    }
    if (u->id[0] != 0) return AGAIN;
    to = u->clean ? create(o, u, a) : look_for(o, u, a);
    if (u->id[0] != 0 && (e = write_record(o, u)) != 0)
        tell(o, true, "the number of batch %s cannot be written down: %s", u->id, strerror(e));
    return to;
}

/* Answers of a file of results go to their rows. */
static void spread(stm_offline *o, unit *u, stm_http_job **by_row, const answer *a)
{
    const char *at = a->bytes, *end = a->bytes + a->n;

    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const size_t n = stop != NULL ? (size_t)(stop - at) : (size_t)(end - at);
        stm_offline_line line = {.row = -1};
        mill_error err = {0};
        stm_http_job *job;

        if (n > 0 && stm_offline_line_read(o->answers, at, n, &line, &err) != MILL_OK) line.row = -1;
        job = line.row >= 0 && line.row < u->n ? by_row[line.row] : NULL;
        if (job != NULL && job->answer == NULL && job->outcome.curl == 0) { /* the first answer counts */
            job->outcome = (stm_http_outcome){.attempts = 1, .status = line.status};
            if (line.status != 0 && line.body != NULL && line.bytes <= o->o.http.max_answer_bytes) {
                job->answer = line.body;
                job->answer_bytes = line.bytes;
                line.body = NULL;
            } else if (line.body != NULL && line.status != 0) {
                job->outcome.too_big = true;
                job->outcome.curl = STM_HTTP_UNASKED;
            } else {
                job->outcome.curl = STM_HTTP_UNASKED;
                snprintf(job->outcome.words, sizeof job->outcome.words, "the service: %.140s",
                         line.words[0] != 0 ? line.words : "no reason given");
            }
        }
        free(line.body);
        at += n + 1;
    }
}

static step fetch(stm_offline *o, unit *u, const stm_offline_object *b, answer *a)
{
    const char *files[] = {b->output, b->errors};
    stm_http_job **by_row = calloc((size_t)u->n + 1, sizeof(stm_http_job *));
    char what[STM_OFFLINE_ID + 64], why[160];
    int64_t i = 0;

    if (by_row == NULL) return give_up(u, 0, "no memory for results");
    for (stm_http_job *job = u->jobs; job != NULL; job = job->next) by_row[i++] = job;
    for (int k = 0; k < 2; k++) {
        if (files[k][0] == 0) continue;
        snprintf(what, sizeof what, "/files/%s/content", files[k]);
        ask(o, what, NULL, NULL, (size_t)(u->n + 1) * (o->o.http.max_answer_bytes + 4096), a);
        if (!is_ok(a)) {
            const step to = failed(o, u, "results of a batch", a);
            free(by_row);
            return to;
        }
        spread(o, u, by_row, a);
    }
    free(by_row);
    if (strcmp(b->status, "completed") == 0)
        snprintf(why, sizeof why, "batch %.60s is completed without an answer for this row", u->id);
    else
        snprintf(why, sizeof why, "batch %.40s %s%.12s before this row was answered%s%.50s", u->id,
                 strcmp(b->status, "cancelled") == 0 ? "was " : "", b->status, b->words[0] != 0 ? ": " : "", b->words);
    return give_up(u, strcmp(b->status, "failed") == 0 ? 400 : 0, why);
}

static step look_at(stm_offline *o, unit *u, answer *a)
{
    static const char *const final[] = {"completed", "failed", "expired", "cancelled"};
    char what[STM_OFFLINE_ID + 32];
    stm_offline_object b;
    mill_error err = {0};

    snprintf(what, sizeof what, "/batches/%s", u->id);
    ask(o, what, NULL, NULL, ANSWER_BYTES, a);
    if (!is_ok(a)) return failed(o, u, "question about a batch", a);
    if (stm_offline_object_read(o->answers, a->bytes, a->n, &b, &err) != MILL_OK) {
        a->code = CURLE_WEIRD_SERVER_REPLY;
        return failed(o, u, "question about a batch", a);
    }
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++)
        if (strcmp(b.status, final[i]) == 0) return fetch(o, u, &b, a);
    u->tries = 0;
    u->asked = true;
    u->next_ns = stm_http_now_ns() + (int64_t)(o->o.poll_s * 1e9);
    return WAIT;
}

/* ---- the thread --------------------------------------------------------------------------------------------------- */

/* With the lock. The jobs are done, in their order. */
static void move_done(stm_offline *o, stm_http_job *jobs)
{
    *o->end = jobs;
    while (*o->end != NULL) o->end = &(*o->end)->next;
}

/* With the lock: the unit that is due, out of the list; or ns until one is. */
static unit *next_due(stm_offline *o, int64_t *wait)
{
    const int64_t now = stm_http_now_ns();

    *wait = 3600000000000;
    for (unit **up = &o->units; *up != NULL; up = &(*up)->next) {
        unit *u = *up;
        if (u->next_ns <= now) {
            *up = u->next;
            u->next = NULL;
            return u;
        }
        if (u->next_ns - now < *wait) *wait = u->next_ns - now;
    }
    return NULL;
}

static void *work(void *arg)
{
    stm_offline *o = arg;
    answer a = {0};
    const bool able = prepare(o);

    pthread_mutex_lock(&o->lock);
    while (!o->quit) {
        int64_t wait;
        unit *u = o->busy = next_due(o, &wait);
        struct timespec until;
        if (u == NULL) {
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += (until.tv_nsec + wait) / 1000000000;
            until.tv_nsec = (until.tv_nsec + wait) % 1000000000;
            pthread_cond_timedwait(&o->cond, &o->lock, &until);
            continue;
        }
        pthread_mutex_unlock(&o->lock);
        const step to = !able ? give_up(u, 0, "no memory for a client") : u->id[0] == 0 ? hand_over(o, u, &a) : look_at(o, u, &a);
        pthread_mutex_lock(&o->lock);
        o->busy = NULL;
        if (to == DONE && !u->dropped) {
            move_done(o, u->jobs);
            u->jobs = NULL;
            o->news_ns = stm_http_now_ns();
        }
        if (to == DONE || u->dropped) {
            unit_free(u);
        } else {
            unit **end = &o->units;
            while (*end != NULL) end = &(*end)->next;
            *end = u;
        }
        if (to == AGAIN) continue;
        pthread_mutex_unlock(&o->lock);
        o->o.http.wake(o->o.http.user);
        pthread_mutex_lock(&o->lock);
    }
    pthread_mutex_unlock(&o->lock);
    free(a.bytes);
    return NULL;
}

/* ---- for the step ------------------------------------------------------------------------------------------------- */

static mill_status make_headers(stm_offline *o, const stm_offline_options *from)
{
    char *key = from->http.key != NULL ? stm_http_key_line(from->http.key_header, from->http.key) : NULL;
    const char *const lines[] = {"Accept: application/json", "Expect:", key, "Content-Type: application/json"};
    mill_status st = from->http.key != NULL && key == NULL ? MILL_ERR_NOMEM : MILL_OK;

    for (size_t i = 0; i < 7 && st == MILL_OK; i++) {
        struct curl_slist **list = i < 3 ? &o->headers : &o->json, *more;
        const char *line = lines[i < 3 ? i : i - 3];
        if (line == NULL) continue;
        if ((more = curl_slist_append(*list, line)) == NULL) st = MILL_ERR_NOMEM;
        else *list = more;
    }
    if (key != NULL) explicit_bzero(key, strlen(key));
    free(key);
    return st;
}

static void free_headers(struct curl_slist *list)
{
    for (struct curl_slist *l = list; l != NULL; l = l->next) explicit_bzero(l->data, strlen(l->data));
    curl_slist_free_all(list);
}

mill_status stm_offline_open(const stm_offline_options *from, stm_offline **out, mill_error *err)
{
    stm_offline *o = calloc(1, sizeof *o);
    const size_t n = strlen(from->run_dir) + 16;
    pthread_condattr_t attr;
    sigset_t all, before;
    int rc;

    if (o == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for offline batches");
    o->o = *from;
    o->o.http.key = NULL; /* only in the header */
    o->end = &o->done;
    pthread_mutex_init(&o->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&o->cond, &attr);
    pthread_condattr_destroy(&attr);
    o->base = strdup(from->base), o->path = strdup(from->path), o->name = strdup(from->name), o->folder = malloc(n);
    if (from->http.ca_file != NULL) o->ca_file = strdup(from->http.ca_file);
    if (o->base == NULL || o->path == NULL || o->name == NULL || o->folder == NULL ||
        (from->http.ca_file != NULL && o->ca_file == NULL) || make_headers(o, from) != MILL_OK) {
        stm_offline_close(&o);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for offline batches");
    }
    snprintf(o->folder, n, "%s/batches", from->run_dir);
    if (mkdir(o->folder, 0777) != 0 && errno != EEXIST) {
        mill_fail(err, MILL_ERR_IO, "cannot make the folder %s: %s", o->folder, strerror(errno));
        stm_offline_close(&o);
        return MILL_ERR_IO;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&o->thread, NULL, work, o);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        stm_offline_close(&o);
        return mill_fail(err, MILL_ERR_NOMEM, "cannot start the thread for offline batches: %s", strerror(rc));
    }
    o->started = true;
    *out = o;
    return MILL_OK;
}

void stm_offline_close(stm_offline **op)
{
    stm_offline *o = *op;

    *op = NULL;
    if (o == NULL) return;
    if (o->started) {
        pthread_mutex_lock(&o->lock);
        o->quit = true;
        pthread_cond_signal(&o->cond);
        pthread_mutex_unlock(&o->lock);
        pthread_join(o->thread, NULL);
    }
    while (o->units != NULL) {
        unit *u = o->units;
        o->units = u->next;
        unit_free(u);
    }
    while (o->done != NULL) {
        stm_http_job *job = o->done;
        o->done = job->next;
        stm_http_job_free(job);
    }
    curl_easy_cleanup(o->easy);
    stm_answers_destroy(&o->answers);
    free_headers(o->headers);
    free_headers(o->json);
    pthread_cond_destroy(&o->cond);
    pthread_mutex_destroy(&o->lock);
    free(o->seen);
    free(o->base);
    free(o->path);
    free(o->name);
    free(o->folder);
    free(o->ca_file);
    free(o);
}

static uint64_t mix(uint64_t h, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    h ^= h >> 29;
    return h * 0xbf58476d1ce4e5b9u + n;
}

/* With the lock: how often the same was added before. false: no memory. */
static bool count_seen(stm_offline *o, unit *u)
{
    for (size_t i = 0; i < o->n_seen; i++) u->attempt += o->seen[i][0] == u->hash[0] && o->seen[i][1] == u->hash[1];
    if (o->n_seen == o->cap_seen) {
        const size_t cap = o->cap_seen > 0 ? 2 * o->cap_seen : 16;
        uint64_t(*p)[2] = realloc(o->seen, cap * sizeof *p);
        if (p == NULL) return false;
        o->seen = p;
        o->cap_seen = cap;
    }
    memcpy(o->seen[o->n_seen++], u->hash, sizeof u->hash);
    return true;
}

void stm_offline_add(stm_offline *o, uint64_t ticket, stm_http_job *jobs, uint64_t seed)
{
    unit *u = calloc(1, sizeof *u);
    stm_http_job *empty = NULL, **end_empty = &empty, **end = u != NULL ? &u->jobs : &empty;

    for (stm_http_job *job = jobs, *next; job != NULL; job = next) {
        next = job->next;
        job->next = NULL;
        if (u == NULL && !job->empty) job->outcome = (stm_http_outcome){.no_memory = true, .curl = CURLE_OUT_OF_MEMORY};
        if (u == NULL || job->empty) {
            *end_empty = job, end_empty = &job->next;
            continue;
        }
        if (u->n++ == 0) u->hash[0] = mix(seed, o->path, strlen(o->path)), u->hash[1] = ~u->hash[0];
        u->hash[0] = mix(u->hash[0], job->body, job->body_bytes);
        u->hash[1] = mix(u->hash[1] + 0x9e3779b97f4a7c15u, job->body, job->body_bytes);
        *end = job, end = &job->next;
    }
    pthread_mutex_lock(&o->lock);
    move_done(o, empty);
    o->news_ns = stm_http_now_ns();
    if (u != NULL && u->n > 0 && !count_seen(o, u)) {
        give_up(u, 0, "no memory for a batch");
        move_done(o, u->jobs);
        u->jobs = NULL;
        u->n = 0;
    }
    if (u != NULL && u->n > 0) {
        unit **at = &o->units;
        u->ticket = ticket;
        while (*at != NULL) at = &(*at)->next;
        *at = u;
    } else {
        unit_free(u);
    }
    const bool some_done = o->done != NULL;
    pthread_cond_signal(&o->cond);
    pthread_mutex_unlock(&o->lock);
    if (some_done) o->o.http.wake(o->o.http.user);
}

stm_http_job *stm_offline_take(stm_offline *o)
{
    pthread_mutex_lock(&o->lock);
    stm_http_job *jobs = o->done;
    o->done = NULL;
    o->end = &o->done;
    pthread_mutex_unlock(&o->lock);
    return jobs;
}

void stm_offline_cancel(stm_offline *o, uint64_t ticket)
{
    pthread_mutex_lock(&o->lock);
    if (o->busy != NULL && o->busy->ticket == ticket) o->busy->dropped = true;
    for (unit **up = &o->units; *up != NULL;) {
        unit *u = *up;
        if (u->ticket != ticket) {
            up = &u->next;
            continue;
        }
        *up = u->next;
        unit_free(u);
    }
    o->end = &o->done;
    while (*o->end != NULL) {
        stm_http_job *job = *o->end;
        if (job->ticket != ticket) {
            o->end = &job->next;
            continue;
        }
        *o->end = job->next;
        stm_http_job_free(job);
    }
    pthread_mutex_unlock(&o->lock);
}

bool stm_offline_waits(stm_offline *o, int64_t *batches)
{
    bool waits;

    *batches = 0;
    pthread_mutex_lock(&o->lock);
    waits = o->done == NULL && o->busy == NULL && o->units != NULL && (double)(stm_http_now_ns() - o->news_ns) >= o->o.wait_s * 1e9;
    for (const unit *u = o->units; u != NULL; u = u->next) waits = waits && u->asked, ++*batches;
    pthread_mutex_unlock(&o->lock);
    return waits;
}

void stm_offline_news(stm_offline *o, char *text, size_t size, bool *bad)
{
    pthread_mutex_lock(&o->lock);
    snprintf(text, size, "%s", o->news);
    *bad = o->bad;
    o->news[0] = 0;
    pthread_mutex_unlock(&o->lock);
}
