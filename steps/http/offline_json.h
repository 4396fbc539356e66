/* JSON of a service for offline batches: files, batches, and the lines of their results. */
#ifndef STM_STEPS_HTTP_OFFLINE_JSON_H
#define STM_STEPS_HTTP_OFFLINE_JSON_H

#include "steps/http/answer.h"

MILL_BEGIN_DECLS

#define STM_OFFLINE_ID 160

/** A batch, or a file: then only id is set. What is absent is "". */
typedef struct stm_offline_object {
    char id[STM_OFFLINE_ID], status[32];
    char output[STM_OFFLINE_ID], errors[STM_OFFLINE_ID]; /* ids of files */
    char words[160];                                     /* why it failed */
} stm_offline_object;

/** What came of one row. */
typedef struct stm_offline_line {
    int64_t row;    /* number in the batch; -1 = not one of ours */
    int32_t status; /* of HTTP; 0 = the row was not asked: words says why */
    char words[160];
    char *body;     /* malloc, the caller's, STM_HTTP_PADDING zeroes behind it; NULL = none */
    size_t bytes;
} stm_offline_line;

/* Texts have STM_HTTP_PADDING readable bytes behind them. MILL_ERR_DATA: not what such a service says. Threads: one at a time per
 * parser. */
mill_status stm_offline_object_read(stm_answers *a, const char *json, size_t bytes, stm_offline_object *out, mill_error *err);
/** A page of the list of batches: out->id is "" when none has metadata.stepmill == @p token. @p last: where the next page begins;
 *  "" = there is none. */
mill_status stm_offline_find(stm_answers *a, const char *json, size_t bytes, const char *token, stm_offline_object *out,
                             char last[STM_OFFLINE_ID], mill_error *err);
mill_status stm_offline_line_read(stm_answers *a, const char *json, size_t bytes, stm_offline_line *out, mill_error *err);

MILL_END_DECLS

#endif
