/* JSON that comes back from an OpenAI-compatible server, and JSON that a user or a row gives for a request. */
#ifndef STM_STEPS_HTTP_ANSWER_H
#define STM_STEPS_HTTP_ANSWER_H

#include <stdbool.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

/** A parser with its memory. Threads: one at a time. */
typedef struct stm_answers stm_answers;

/** An answer with one choice. Texts lie in the parser until its next use. */
typedef struct stm_choice {
    const char *text; /* NULL = the server gave null (it called a tool, or refused) */
    int64_t text_bytes;
    const char *finish_reason; /* NULL = none */
    int64_t finish_reason_bytes;
    int64_t prompt_tokens, completion_tokens; /* -1 = not told */
} stm_choice;

/** NULL: no memory. */
stm_answers *stm_answers_create(void);
/** Accepts NULL; sets *a to NULL. */
void stm_answers_destroy(stm_answers **a);

/* All texts below have STM_HTTP_PADDING readable bytes behind them. What is malformed is MILL_ERR_DATA, with what was expected. */

/** choices[0].message.content of a chat, or choices[0].text; there must be exactly one choice. */
mill_status stm_answer_choice(stm_answers *a, const char *json, size_t bytes, bool chat, stm_choice *out, mill_error *err);
/** data[i].embedding of @p n texts, by their `index`, into @p out [n][dim]. *tokens: usage.total_tokens or -1. */
mill_status stm_answer_vectors(stm_answers *a, const char *json, size_t bytes, int64_t n, int32_t dim, float *out, int64_t *tokens,
                               mill_error *err);
/** What an answer that is none says went wrong: error.message, error, message or detail, else its beginning; on one line,
 *  shortened. */
void stm_answer_words(stm_answers *a, const char *body, size_t bytes, char *out, size_t size);
/** MILL_OK: @p json is an array of one or more objects, the messages of a chat. MILL_ERR_DATA: it is not. MILL_ERR_NOMEM. */
mill_status stm_messages_check(stm_answers *a, const char *json, size_t bytes);
/** MILL_OK: @p json (no padding needed) is an object without the members @p taken [NULL at the end]. MILL_ERR_DATA: *wrong is the
 *  name of one that it has, or NULL when it is no object. MILL_ERR_NOMEM. *members = how many it has. */
mill_status stm_object_check(stm_answers *a, const char *json, const char *const *taken, const char **wrong, size_t *members);

MILL_END_DECLS

#endif
