/*
 * Offline batches: requests handed to a service as a file, which answers them within a day, for less.
 *
 *   add ──> noted ──> file uploaded ──> batch created ──> asked, again and again ──> results fetched ──> take
 *            on disk                      on disk
 *
 * A batch is created once, whatever ends the process. Before anything is sent, a word drawn for it is written down (beside the run,
 * one file for a batch, synced); the service keeps that word with the batch. Who finds the word written down and no number of a
 * batch asks the service for its list first. What was handed over is known again by its contents: the same rows, handed over by a
 * later process, find their batch.
 *
 * One thread talks to the service, one request at a time.
 */
#ifndef STM_STEPS_HTTP_OFFLINE_H
#define STM_STEPS_HTTP_OFFLINE_H

#include "steps/http/client.h"

MILL_BEGIN_DECLS

typedef struct stm_offline_options {
    stm_http_options http;    /* key, deadlines, attempts, pauses, longest answer; url is not used */
    const char *base, *path;  /* url up to the version; path of one request, as /v1/chat/completions */
    const char *run_dir;      /* its folder `batches` holds what is written down */
    const char *name;         /* of the step */
    double poll_s;            /* between two questions about a batch */
    double wait_s;            /* how long to stay when nothing but waiting is left */
} stm_offline_options;

typedef struct stm_offline stm_offline;

/* Threads: one at a time, for all. Blocks: open (disk); close, until a request under way is dropped. */
mill_status stm_offline_open(const stm_offline_options *options, stm_offline **out, mill_error *err);
/** Batches at the service go on. Sets *o to NULL; accepts NULL. */
void stm_offline_close(stm_offline **o);
/** One batch of all @p jobs (taken over; those that are empty are done at once). @p seed: tells rows apart that are the same. */
void stm_offline_add(stm_offline *o, uint64_t ticket, stm_http_job *jobs, uint64_t seed);
/** As stm_http_take. */
stm_http_job *stm_offline_take(stm_offline *o);
/** Forget a ticket; its batch at the service goes on. */
void stm_offline_cancel(stm_offline *o, uint64_t ticket);
/** Whether nothing can be done but to ask again much later. *batches: how many there are. */
bool stm_offline_waits(stm_offline *o, int64_t *batches);
/** What happened that a person wants to know, once; "" = nothing. *bad: it is trouble. */
void stm_offline_news(stm_offline *o, char *text, size_t size, bool *bad);

MILL_END_DECLS

#endif
