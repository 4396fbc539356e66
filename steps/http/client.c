#include "steps/http/client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "steps/http/rate.h"
#include "steps/http/width.h"

#define FIRST_ANSWER_BYTES 4096

typedef struct slot {
    CURL *easy;        /* made when first used, then kept */
    stm_http_job *job; /* lock; NULL = free */
    bool running;      /* client's thread: the handle is in the multi handle */
    bool dropped;      /* lock: the job was cancelled while its request runs */
    int64_t resume_ns; /* client's thread: of one that pauses */
    uint32_t round;    /* client's thread: the width's when the request was begun */
    stm_http *owner;
    char words[CURL_ERROR_SIZE];
} slot;

typedef struct list {
    stm_http_job *first, **end;
} list;

struct stm_http {
    stm_http_options o;
    char *url, *ca_file;
    struct curl_slist *headers; /* with the key */
    CURLM *multi;               /* client's thread, but for curl_multi_wakeup */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    list waiting, done;    /* lock */
    int64_t n_waiting;     /* lock */
    int32_t n_held;        /* lock: jobs in slots and done ones that had one */
    int32_t n_slots;       /* lock: slots with a job */
    int32_t n_running;     /* client's thread */
    stm_width width;       /* lock: how many slots may have a job */
    bool quit;             /* lock */
    stm_rate requests, tokens; /* lock */
    stm_http_counts counts;    /* lock */
    int64_t paused_until_ns;   /* client's thread: the server asked everybody to wait */
    slot *slots;               /* [o.concurrency] */
};

int64_t stm_http_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000 + t.tv_nsec;
}

static void list_init(list *l) { l->first = NULL, l->end = &l->first; }

static void list_add(list *l, stm_http_job *job)
{
    job->next = NULL;
    *l->end = job;
    l->end = &job->next;
}

/* Frees the jobs of @p ticket. Returns how many of them were not empty. */
static int64_t list_drop(list *l, uint64_t ticket)
{
    int64_t n = 0;

    l->end = &l->first;
    for (stm_http_job *job = l->first, *next; job != NULL; job = next) {
        next = job->next;
        if (job->ticket == ticket) {
            n += !job->empty;
            stm_http_job_free(job);
        } else {
            *l->end = job;
            l->end = &job->next;
        }
    }
    *l->end = NULL;
    return n;
}

static void list_free(list *l)
{
    while (l->first != NULL) {
        stm_http_job *job = l->first;
        l->first = job->next;
        stm_http_job_free(job);
    }
    list_init(l);
}

void stm_http_job_free(stm_http_job *job)
{
    if (job == NULL) return;
    free(job->row);
    free(job->at);
    free(job->body);
    free(job->answer);
    free(job);
}

/* ---- libcurl's callbacks ----------------------------------------------------------------------------------------- */

static size_t on_bytes(char *bytes, size_t size, size_t n, void *user)
{
    slot *s = user;
    stm_http_job *job = s->job;

    n *= size;
    if (n > s->owner->o.max_answer_bytes - job->answer_bytes) {
        job->outcome.too_big = true;
        return 0;
    }
    if (job->answer_cap < job->answer_bytes + n + STM_HTTP_PADDING) {
        size_t cap = job->answer_cap > 0 ? job->answer_cap : FIRST_ANSWER_BYTES;
        while (cap < job->answer_bytes + n + STM_HTTP_PADDING) cap *= 2;
        char *p = realloc(job->answer, cap);
        if (p == NULL) {
            job->outcome.no_memory = true;
            return 0;
        }
        job->answer = p;
        job->answer_cap = cap;
    }
    memcpy(job->answer + job->answer_bytes, bytes, n);
    job->answer_bytes += n;
    memset(job->answer + job->answer_bytes, 0, STM_HTTP_PADDING);
    return n;
}

/* Children that other steps start must not hold our connections open. */
static curl_socket_t on_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
    (void)user, (void)purpose;
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- requests: the client's thread ------------------------------------------------------------------------------- */

static long milliseconds(double s)
{
    return s >= 1e6 ? 1000000000L : s < 0.001 ? 1L : (long)(s * 1000.0);
}

static CURLcode prepare(stm_http *h, slot *s)
{
    CURL *e = s->easy = curl_easy_init();
    CURLcode c = e != NULL ? CURLE_OK : CURLE_OUT_OF_MEMORY;

    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_URL, h->url);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_POST, 1L);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_HTTPHEADER, h->headers);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L); /* would take rows and key to somebody else */
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(h->o.connect_s));
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_bytes);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_WRITEDATA, s);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_ERRORBUFFER, s->words);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_PRIVATE, s);
    if (c == CURLE_OK) c = curl_easy_setopt(e, CURLOPT_USERAGENT, "stepmill");
    if (c == CURLE_OK && h->ca_file != NULL) c = curl_easy_setopt(e, CURLOPT_CAINFO, h->ca_file);
    if (c != CURLE_OK) {
        curl_easy_cleanup(e);
        s->easy = NULL;
    }
    return c;
}

/* With the lock. The job leaves its slot, done. */
static void done(stm_http *h, slot *s)
{
    if (s->dropped) {
        stm_http_job_free(s->job);
        h->n_held--;
    } else {
        list_add(&h->done, s->job);
    }
    s->job = NULL;
    s->dropped = false;
    h->n_slots--;
}

/* The slot's request is over, or is given up. */
static void halt(stm_http *h, slot *s)
{
    curl_multi_remove_handle(h->multi, s->easy);
    s->running = false;
    h->n_running--;
}

/* With the lock. Puts the slot's job on its way. false: it failed and is done. */
static bool start(stm_http *h, slot *s, int64_t now)
{
    stm_http_job *job = s->job;
    CURLcode c = s->easy != NULL ? CURLE_OK : prepare(h, s);
    double left;

    if (job->deadline_ns == 0) job->deadline_ns = now + (int64_t)(h->o.total_s * 1e9);
    left = (double)(job->deadline_ns - now) * 1e-9;
    job->answer_bytes = 0;
    const int32_t attempts = job->outcome.attempts + 1;
    job->outcome = (stm_http_outcome){.attempts = attempts};
    s->words[0] = 0;
    if (c == CURLE_OK) c = curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)job->body_bytes);
    if (c == CURLE_OK) c = curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, job->body);
    if (c == CURLE_OK)
        c = curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, milliseconds(left < h->o.request_s ? left : h->o.request_s));
    if (c == CURLE_OK && curl_multi_add_handle(h->multi, s->easy) != CURLM_OK) c = CURLE_OUT_OF_MEMORY;
    if (c != CURLE_OK) {
        job->outcome.curl = (int32_t)c;
        job->outcome.no_memory = c == CURLE_OUT_OF_MEMORY;
        snprintf(job->outcome.words, sizeof job->outcome.words, "%s", curl_easy_strerror(c));
        done(h, s);
        return false;
    }
    s->running = true;
    s->round = h->width.round;
    h->n_running++;
    h->counts.requests++;
    stm_rate_take(&h->requests, 1.0);
    stm_rate_take(&h->tokens, job->tokens);
    return true;
}

/* With the lock. Starts what may start. Returns ns until something else may, and adds to *finished what ended without a request. */
static int64_t start_due(stm_http *h, int32_t *finished)
{
    const int64_t now = stm_http_now_ns();
    int64_t soonest = 1000000000;

    for (int32_t i = 0; i < h->o.concurrency; i++) {
        slot *s = &h->slots[i];
        int64_t wait = h->paused_until_ns - now, more;
        if (s->running) {
            if (!s->dropped) continue;
            halt(h, s);
            done(h, s);
        }
        if (s->job != NULL && (s->dropped || now >= s->job->deadline_ns)) { /* paused for too long: its last failure stands */
            done(h, s);
            ++*finished;
        }
        const stm_http_job *next = s->job;
        if (next == NULL && h->n_held < h->o.concurrency && h->n_slots < h->width.now) next = h->waiting.first;
        if (next == NULL) continue;
        if (s->job != NULL && s->resume_ns - now > wait) wait = s->resume_ns - now;
        if (wait <= 0 && h->n_running >= h->width.now) wait = 1000000000; /* until one of those that run ends */
        if ((more = stm_rate_wait(&h->requests, 1.0, now)) > wait) wait = more;
        if ((more = stm_rate_wait(&h->tokens, next->tokens, now)) > wait) wait = more;
        if (wait > 0) {
            if (s->job != NULL && s->job->deadline_ns - now < wait) wait = s->job->deadline_ns - now;
            if (wait < soonest) soonest = wait;
            continue;
        }
        if (s->job == NULL) {
            s->job = h->waiting.first;
            h->waiting.first = s->job->next;
            if (h->waiting.first == NULL) list_init(&h->waiting);
            h->n_waiting--;
            h->n_held++;
            h->n_slots++;
        }
        if (!start(h, s, now)) ++*finished;
    }
    return soonest;
}

/* With the lock. A request ended, one of @p under_way: on to a pause and another attempt, or done. Returns whether it is done. */
static bool ended(stm_http *h, slot *s, CURLcode code, int32_t under_way)
{
    stm_http_job *job = s->job;
    stm_http_outcome *o = &job->outcome;
    const int64_t now = stm_http_now_ns();
    curl_off_t asked = 0;
    long status = 0;
    int64_t pause, left;

    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(s->easy, CURLINFO_RETRY_AFTER, &asked); /* seconds, or a date made seconds */
    halt(h, s);
    if (code == CURLE_OK && status == 200 && job->answer_bytes == 0) { /* no body, and none announced: cut off in the headers */
        curl_off_t length = 0;
        curl_easy_getinfo(s->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
        if (length < 0) code = CURLE_GOT_NOTHING;
    }
    o->curl = (int32_t)code;
    o->status = (int32_t)status;
    o->retry_after_s = asked > 0 ? (int64_t)asked : 0;
    if (code != CURLE_OK) snprintf(o->words, sizeof o->words, "%.159s", s->words[0] != 0 ? s->words : curl_easy_strerror(code));
    const bool passing = stm_http_class(o) == MILL_CLASS_TRANSIENT, refused = code == CURLE_OK && (status == 429 || status == 503);
    if (refused || !passing) stm_width_answer(&h->width, s->round, under_way, refused); /* a broken connection says neither */
    if (s->dropped || !passing) {
        done(h, s);
        return true;
    }
    if (code != CURLE_OK) h->counts.network++;
    else if (status == 429) h->counts.limited++;
    else h->counts.server++;
    pause = stm_http_backoff_ns(h->o.backoff_s, h->o.backoff_max_s, o->attempts, job->seed);
    left = job->deadline_ns - now;
    if (o->retry_after_s > 0) { /* said to us, not to this row: everybody waits, but not beyond what a row may take */
        const double wait = (double)o->retry_after_s < h->o.total_s ? (double)o->retry_after_s : h->o.total_s;
        const int64_t until = now + (int64_t)(wait * 1e9);
        if (until > h->paused_until_ns) h->paused_until_ns = until;
        o->again_after = (double)o->retry_after_s >= (double)left * 1e-9;
        pause = o->again_after ? left : o->retry_after_s * 1000000000 + pause / 8; /* not all in the same moment */
    }
    if (o->attempts >= h->o.attempts || pause >= left) {
        done(h, s);
        return true;
    }
    s->resume_ns = now + pause;
    return false;
}

/* Whether any request ended; adds to *finished those that are done. */
static bool finish(stm_http *h, int32_t *finished)
{
    const int32_t under_way = h->n_running; /* before any of those that ended at the same time is taken off */
    CURLMsg *m;
    int left;
    bool any = false;

    while ((m = curl_multi_info_read(h->multi, &left)) != NULL) {
        slot *s = NULL;
        const CURLcode code = m->data.result; /* m is gone once the handle is removed */
        if (m->msg != CURLMSG_DONE || curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s) != CURLE_OK) continue;
        pthread_mutex_lock(&h->lock);
        *finished += ended(h, s, code, under_way);
        pthread_mutex_unlock(&h->lock);
        any = true;
    }
    return any;
}

static void *work(void *arg)
{
    stm_http *h = arg;

    for (;;) {
        int32_t finished = 0;
        int running;
        pthread_mutex_lock(&h->lock);
        const bool quit = h->quit;
        const int64_t wait = quit ? 0 : start_due(h, &finished);
        pthread_mutex_unlock(&h->lock);
        if (quit) return NULL;
        curl_multi_perform(h->multi, &running);
        const bool any = finish(h, &finished);
        if (finished > 0) h->o.wake(h->o.user);
        /* What ended may leave a pause to be timed, or room for another: look again before sleeping. */
        curl_multi_poll(h->multi, NULL, 0, any ? 0 : (int)(wait / 1000000 + 1), NULL);
    }
}

/* ---- the client -------------------------------------------------------------------------------------------------- */

static mill_status add_header(stm_http *h, const char *line)
{
    struct curl_slist *more = curl_slist_append(h->headers, line);

    if (more == NULL) return MILL_ERR_NOMEM;
    h->headers = more;
    return MILL_OK;
}

char *stm_http_key_line(const char *header, const char *key)
{
    const size_t room = strlen(header) + strlen(key) + 16;
    char *line = malloc(room);

    if (line != NULL) snprintf(line, room, "%s: %s%s", header, strcasecmp(header, "Authorization") == 0 ? "Bearer " : "", key);
    return line;
}

static mill_status add_headers(stm_http *h, const stm_http_options *o)
{
    mill_status st = add_header(h, "Content-Type: application/json");

    if (st == MILL_OK) st = add_header(h, "Accept: application/json");
    if (st == MILL_OK) st = add_header(h, "Expect:"); /* no 100-continue: a round trip for nothing */
    if (st == MILL_OK && o->key != NULL) {
        char *line = stm_http_key_line(o->key_header, o->key);
        if (line == NULL) return MILL_ERR_NOMEM;
        st = add_header(h, line);
        explicit_bzero(line, strlen(line));
        free(line);
    }
    return st;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode global = CURLE_FAILED_INIT;
static void init_once(void) { global = curl_global_init(CURL_GLOBAL_DEFAULT); }

static mill_status start_thread(stm_http *h, mill_error *err)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all); /* signals are the engine's; a broken connection must not raise SIGPIPE */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&h->thread, NULL, work, h);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) return mill_fail(err, MILL_ERR_NOMEM, "cannot start the thread for requests: %s", strerror(rc));
    h->started = true;
    return MILL_OK;
}

mill_status stm_http_open(const stm_http_options *o, stm_http **out, mill_error *err)
{
    stm_http *h;
    mill_status st = MILL_ERR_NOMEM;

    pthread_once(&once, init_once);
    if (global != CURLE_OK) return mill_fail(err, MILL_ERR_IO, "libcurl cannot start: %s", curl_easy_strerror(global));
    if ((h = calloc(1, sizeof *h)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a client");
    h->o = *o;
    h->o.key = NULL; /* only in the header */
    list_init(&h->waiting);
    list_init(&h->done);
    stm_width_init(&h->width, o->concurrency);
    stm_rate_init(&h->requests, o->requests_per_minute, stm_http_now_ns());
    stm_rate_init(&h->tokens, o->tokens_per_minute, stm_http_now_ns());
    pthread_mutex_init(&h->lock, NULL);
    h->url = strdup(o->url);
    h->slots = calloc((size_t)o->concurrency, sizeof *h->slots);
    if (o->ca_file != NULL) h->ca_file = strdup(o->ca_file);
    h->multi = curl_multi_init();
    if (h->url != NULL && h->slots != NULL && h->multi != NULL && (o->ca_file == NULL || h->ca_file != NULL))
        st = add_headers(h, o);
    if (st == MILL_OK) {
        for (int32_t i = 0; i < o->concurrency; i++) h->slots[i].owner = h;
        curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)o->concurrency);
        st = start_thread(h, err);
    } else {
        mill_fail(err, st, "no memory for a client");
    }
    if (st == MILL_OK) *out = h;
    else stm_http_close(&h);
    return st;
}

void stm_http_close(stm_http **hp)
{
    stm_http *h = *hp;

    *hp = NULL;
    if (h == NULL) return;
    if (h->started) {
        pthread_mutex_lock(&h->lock);
        h->quit = true;
        pthread_mutex_unlock(&h->lock);
        curl_multi_wakeup(h->multi);
        pthread_join(h->thread, NULL);
    }
    for (int32_t i = 0; h->slots != NULL && i < h->o.concurrency; i++) {
        slot *s = &h->slots[i];
        if (s->running) halt(h, s);
        curl_easy_cleanup(s->easy);
        stm_http_job_free(s->job);
    }
    if (h->multi != NULL) curl_multi_cleanup(h->multi);
    for (struct curl_slist *l = h->headers; l != NULL; l = l->next) explicit_bzero(l->data, strlen(l->data));
    curl_slist_free_all(h->headers);
    list_free(&h->waiting);
    list_free(&h->done);
    pthread_mutex_destroy(&h->lock);
    free(h->slots);
    free(h->url);
    free(h->ca_file);
    free(h);
}

bool stm_http_full(stm_http *h)
{
    pthread_mutex_lock(&h->lock);
    const bool full = h->n_waiting >= h->o.concurrency;
    pthread_mutex_unlock(&h->lock);
    return full;
}

void stm_http_push(stm_http *h, stm_http_job *jobs, bool front)
{
    list add;
    bool some_done = false;

    list_init(&add);
    pthread_mutex_lock(&h->lock);
    for (stm_http_job *next; jobs != NULL; jobs = next) {
        next = jobs->next;
        if (jobs->empty) {
            list_add(&h->done, jobs);
            some_done = true;
        } else {
            list_add(&add, jobs);
            h->n_waiting++;
        }
    }
    if (add.first != NULL && front) {
        *add.end = h->waiting.first;
        if (h->waiting.first == NULL) h->waiting.end = add.end;
        h->waiting.first = add.first;
    } else if (add.first != NULL) {
        *h->waiting.end = add.first;
        h->waiting.end = add.end;
    }
    pthread_mutex_unlock(&h->lock);
    curl_multi_wakeup(h->multi);
    if (some_done) h->o.wake(h->o.user);
}

stm_http_job *stm_http_take(stm_http *h)
{
    stm_http_job *jobs;

    pthread_mutex_lock(&h->lock);
    jobs = h->done.first;
    list_init(&h->done);
    for (const stm_http_job *j = jobs; j != NULL; j = j->next) h->n_held -= !j->empty;
    const bool more = jobs != NULL && h->n_waiting > 0;
    pthread_mutex_unlock(&h->lock);
    if (more) curl_multi_wakeup(h->multi); /* there is room */
    return jobs;
}

void stm_http_cancel(stm_http *h, uint64_t ticket)
{
    pthread_mutex_lock(&h->lock);
    h->n_waiting -= list_drop(&h->waiting, ticket);
    h->n_held -= (int32_t)list_drop(&h->done, ticket);
    for (int32_t i = 0; i < h->o.concurrency; i++)
        if (h->slots[i].job != NULL && h->slots[i].job->ticket == ticket) h->slots[i].dropped = true;
    pthread_mutex_unlock(&h->lock);
    curl_multi_wakeup(h->multi);
}

void stm_http_used(stm_http *h, const stm_http_job *job, int64_t used)
{
    pthread_mutex_lock(&h->lock);
    stm_rate_take(&h->tokens, (double)used - job->tokens);
    pthread_mutex_unlock(&h->lock);
}

stm_http_counts stm_http_count(stm_http *h)
{
    pthread_mutex_lock(&h->lock);
    stm_http_counts c = h->counts;
    c.least = h->width.least;
    pthread_mutex_unlock(&h->lock);
    return c;
}
