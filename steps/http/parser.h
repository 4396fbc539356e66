/* The parser behind stm_answers: for answer.cc and offline_json.cc. */
#ifndef STM_STEPS_HTTP_PARSER_H
#define STM_STEPS_HTTP_PARSER_H

#ifdef __cplusplus
#include <simdjson.h>

#include "steps/http/answer.h"
#include "steps/http/client.h"

static_assert(STM_HTTP_PADDING >= simdjson::SIMDJSON_PADDING, "answers are parsed where they are");

struct stm_answers {
    simdjson::dom::parser parser;
};

/* In place; the parser itself refuses documents nested deeper than 1,024. */
inline mill_status stm_answers_parse(stm_answers *a, const char *json, size_t bytes, simdjson::dom::element *out, mill_error *err)
{
    if (bytes == 0) return mill_fail(err, MILL_ERR_DATA, "the answer is empty");
    const simdjson::error_code e = a->parser.parse(json, bytes, false).get(*out);
    if (e == simdjson::SUCCESS) return MILL_OK;
    if (e == simdjson::MEMALLOC) return mill_fail(err, MILL_ERR_NOMEM, "no memory to read an answer of %zu bytes", bytes);
    return mill_fail(err, MILL_ERR_DATA, "the answer is not JSON: %s", simdjson::error_message(e));
}

#endif
#endif
