/* chat, complete, embed_remote: what their files share. */
#ifndef STM_STEPS_ENDPOINT_H
#define STM_STEPS_ENDPOINT_H

#include "stepmill/step.h"
#include "steps/http/answer.h"
#include "steps/http/client.h"

typedef enum endpoint_kind { STM_CHAT, STM_COMPLETE, STM_EMBED } stm_endpoint_kind;

/** What configure made of the parameters. A body is prefix, the rows' texts parted by commas, suffix. */
typedef struct stm_endpoint {
    stm_endpoint_kind kind;
    char *url; /* with the path of the kind */
    char *base; /* without it */
    bool offline;
    double poll_s, wait_s; /* offline */
    char *key_env, *key_file, *key_header, *ca_file;
    char *prefix, *suffix;
    bool messages; /* the input is a list of messages, not a text */
    bool raw;
    int64_t rows_per_request;
    int32_t dim;            /* embed */
    double answer_tokens;   /* what an answer is thought to cost, for the limit */
    const mill_type *vector; /* embed */
    stm_http_options http;  /* without texts */
} stm_endpoint;

/* Of the step types; see stepmill/step.h. */
mill_status stm_endpoint_load(mill_replica *r, mill_error *err);
void stm_endpoint_unload(mill_replica *r);
mill_status stm_endpoint_submit(mill_replica *r, uint64_t ticket, mill_batch *const *in, size_t n_in, mill_error *err);
mill_status stm_endpoint_poll(mill_replica *r, mill_results *out, mill_error *err);
void stm_endpoint_cancel(mill_replica *r, uint64_t ticket);

/** The key from the environment or a file into *key (malloc), NULL when the pipeline names none. */
mill_status stm_endpoint_key(const stm_endpoint *s, char **key, mill_error *err);
/** Overwrite every occurrence of the key in what a server sent, so that a server that repeats it does not spread it. */
void stm_endpoint_hide(const char *key, char *text, size_t bytes);

#endif
