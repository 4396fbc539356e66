/*
 * POST requests to one address, many at once, over connections that stay open; failures that may pass are tried again.
 *
 * One thread per client owns everything of libcurl's. A job is in one place at a time:
 *
 *   push ──> waiting ──> slot: running <──> pausing ──> done ──> take
 *                          (a job keeps its slot while it pauses, so a server in trouble is asked less, not more)
 *
 * A server that answers 429 or 503 gets half as many jobs at once from then on, at least one, and one more after every round
 * without such an answer, up to `concurrency` (width.h).
 *
 * Bounds: at most `concurrency` jobs are in slots or done, so their answers need concurrency * max_answer_bytes at most.
 */
#ifndef STM_STEPS_HTTP_CLIENT_H
#define STM_STEPS_HTTP_CLIENT_H

#include <stdbool.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

#define STM_HTTP_PADDING 64 /* readable bytes behind an answer, as parsers of JSON want them */

#define STM_HTTP_UNASKED (-1)

/** What came of a request in the end. */
typedef struct stm_http_outcome {
    /* CURLcode; 0 = there is a whole answer, of any status; or STM_HTTP_UNASKED: words says why, status 0 = it may pass */
    int32_t curl;
    int32_t status;         /* of HTTP; 0 = none came */
    int32_t attempts;       /* made */
    bool too_big;           /* the answer was, and was cut off */
    bool no_memory;         /* for the answer */
    bool again_after;       /* the server asked to wait longer than a row may take */
    int64_t retry_after_s;  /* what the server asked for */
    char words[160];        /* when curl is not 0 */
} stm_http_outcome;

/** A request and its answer: one malloc block; body and answer are others. */
typedef struct stm_http_job {
    struct stm_http_job *next;
    uint64_t ticket;
    uint64_t seed;  /* of the jitter of its pauses */
    double tokens;  /* what it is thought to cost, for the limit of tokens */
    int64_t rows;   /* how many it is about */
    int64_t *row;   /* [rows], of the ticket; the caller's to fill, freed with the job */
    size_t *at;     /* [rows + 1] places in the body where the rows' texts begin, or NULL; freed with the job */
    bool empty;     /* rows that need no request */
    char *body;
    size_t body_bytes;
    char *answer; /* STM_HTTP_PADDING zeros behind it; NULL when empty */
    size_t answer_bytes, answer_cap;
    stm_http_outcome outcome;
    int64_t deadline_ns; /* the client's; 0 before the first attempt */
} stm_http_job;

/** Frees a job and what it owns; accepts NULL. */
void stm_http_job_free(stm_http_job *job);

typedef struct stm_http_options {
    const char *url;
    const char *key, *key_header;   /* "Authorization" gets "Bearer KEY", another one KEY; key NULL = none */
    const char *ca_file;            /* PEM; NULL = the system's */
    int32_t concurrency;            /* >= 1 */
    int32_t attempts;               /* of one request, >= 1 */
    double connect_s, request_s;    /* deadlines of a connect and of an attempt */
    double total_s;                 /* of a request with all its attempts, from the first one on */
    double backoff_s, backoff_max_s; /* pause after the first failure, doubling, and the longest */
    double requests_per_minute, tokens_per_minute; /* 0 = no limit */
    size_t max_answer_bytes;
    void (*wake)(void *user); /* something is done; called from the client's thread, without a lock */
    void *user;
} stm_http_options;

typedef struct stm_http stm_http;

typedef struct stm_http_counts {
    int64_t requests; /* attempts made */
    int64_t limited;  /* answers of status 429 */
    int64_t server;   /* other failures of the server that may pass */
    int64_t network;  /* no answer: connection, deadline */
    int32_t least;    /* how many jobs the server was given at once when it wanted fewest */
} stm_http_counts;

/* Threads: one at a time, for all of a client. Blocks: close, until its thread is back (milliseconds: requests under way are
 * dropped). */

/** Texts of @p options are copied; nothing is connected yet. */
mill_status stm_http_open(const stm_http_options *options, stm_http **out, mill_error *err);
/** Drops what is under way. Sets *h to NULL; accepts NULL. */
void stm_http_close(stm_http **h);
/** Whether as many jobs wait as may run at once. */
bool stm_http_full(stm_http *h);
/** Takes the jobs over, a list by `next`. @p front: before those that wait. Jobs that are `empty` are done at once. */
void stm_http_push(stm_http *h, stm_http_job *jobs, bool front);
/** All jobs that are done, oldest first; the caller frees them. NULL = none. */
stm_http_job *stm_http_take(stm_http *h);
/** Forget all jobs of a ticket. None of them is taken from now on. */
void stm_http_cancel(stm_http *h, uint64_t ticket);
/** A request that was thought to cost job->tokens did cost @p used. */
void stm_http_used(stm_http *h, const stm_http_job *job, int64_t used);
/** So far. */
stm_http_counts stm_http_count(stm_http *h);

/** The header line that carries a key; malloc, to be overwritten before it is freed. NULL: no memory. */
char *stm_http_key_line(const char *header, const char *key);
/** Time of the monotonic clock, ns. Threads: any. */
int64_t stm_http_now_ns(void);
/** Whether trying the request of @p o again may help: connections, deadlines, 408, 425, 429, 5xx; a mill_error_class. */
int32_t stm_http_class(const stm_http_outcome *o);
/** Pause before attempt number @p attempt (1 = the second), in ns: doubling, half of it by chance of @p seed. */
int64_t stm_http_backoff_ns(double first_s, double most_s, int32_t attempt, uint64_t seed);
/** Whether @p url is an http or https address with a host, and no name, password, query or fragment; *why names what is wrong. */
bool stm_http_url_ok(const char *url, const char **why);

MILL_END_DECLS

#endif
