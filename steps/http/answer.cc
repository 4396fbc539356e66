#include "steps/http/answer.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>

#include "steps/http/parser.h"

namespace dom = simdjson::dom;

namespace {

int64_t whole(simdjson::simdjson_result<dom::element> v)
{
    int64_t n;
    return v.get(n) == simdjson::SUCCESS && n >= 0 ? n : -1;
}

/* Text, null or absent: true. Something else: false. */
bool text_or_null(simdjson::simdjson_result<dom::element> v, const char **text, int64_t *bytes)
{
    dom::element e;
    const char *p;
    *text = nullptr;
    *bytes = 0;
    if (v.get(e) != simdjson::SUCCESS || e.is_null()) return true;
    if (e.get_c_str().get(p) != simdjson::SUCCESS) return false;
    *text = p;
    *bytes = static_cast<int64_t>(e.get_string_length().value_unsafe());
    return true;
}

void one_line(const char *text, size_t n, char *out, size_t size)
{
    size_t used = 0;
    bool blank = true;
    for (size_t i = 0; i < n && used + 1 < size; i++) {
        const unsigned char c = static_cast<unsigned char>(text[i]);
        if (c <= 0x20 || c == 0x7f) {
            if (!blank) out[used++] = ' ';
            blank = true;
        } else {
            out[used++] = static_cast<char>(c);
            blank = false;
        }
        if (used + 4 >= size && n - i > 4) { /* shortened, not inside of a character */
            while (used > 0 && (static_cast<unsigned char>(out[used - 1]) & 0xc0) == 0x80) used--;
            if (used > 0 && static_cast<unsigned char>(out[used - 1]) >= 0xc0) used--;
            if (used + 4 <= size) memcpy(out + used, "...", 3), used += 3;
            break;
        }
    }
    while (used > 0 && out[used - 1] == ' ') used--;
    out[used] = 0;
}

} // namespace

stm_answers *stm_answers_create(void) { return new (std::nothrow) stm_answers; }

void stm_answers_destroy(stm_answers **a)
{
    delete *a;
    *a = nullptr;
}

mill_status stm_answer_choice(stm_answers *a, const char *json, size_t bytes, bool chat, stm_choice *out, mill_error *err)
{
    dom::element doc, choice;
    dom::array choices;
    stm_choice c = {};
    const mill_status st = stm_answers_parse(a, json, bytes, &doc, err);
    if (st != MILL_OK) return st;
    if (doc["choices"].get(choices) != simdjson::SUCCESS)
        return mill_fail(err, MILL_ERR_DATA, "the answer has no list \"choices\"");
    if (choices.size() != 1) return mill_fail(err, MILL_ERR_DATA, "the answer has %zu choices, expected 1", choices.size());
    choice = choices.at(0).value_unsafe();
    dom::element holder = choice;
    if (chat && (choice["message"].get(holder) != simdjson::SUCCESS || !holder.is_object()))
        return mill_fail(err, MILL_ERR_DATA, "the answer's choice has no \"message\"");
    const char *const key = chat ? "content" : "text";
    if (!choice.is_object() || (!chat && choice["text"].error() != simdjson::SUCCESS) ||
        !text_or_null(holder[key], &c.text, &c.text_bytes) ||
        !text_or_null(choice["finish_reason"], &c.finish_reason, &c.finish_reason_bytes))
        return mill_fail(err, MILL_ERR_DATA, "\"%s\" of the answer's choice is no text", key);
    c.prompt_tokens = whole(doc["usage"]["prompt_tokens"]);
    c.completion_tokens = whole(doc["usage"]["completion_tokens"]);
    *out = c;
    return MILL_OK;
}

mill_status stm_answer_vectors(stm_answers *a, const char *json, size_t bytes, int64_t n, int32_t dim, float *out, int64_t *tokens,
                               mill_error *err)
{
    dom::element doc;
    dom::array data;
    int64_t place = 0, filled = 0;
    const mill_status st = stm_answers_parse(a, json, bytes, &doc, err);
    if (st != MILL_OK) return st;
    if (doc["data"].get(data) != simdjson::SUCCESS) return mill_fail(err, MILL_ERR_DATA, "the answer has no list \"data\"");
    if (data.size() != static_cast<size_t>(n))
        return mill_fail(err, MILL_ERR_DATA, "the answer has %zu vectors, expected %lld", data.size(), static_cast<long long>(n));
    for (int64_t i = 0; i < n; i++) out[i * dim] = NAN; /* not filled */
    for (dom::element item : data) {
        dom::array values;
        int64_t index = place++;
        if (item["index"].error() == simdjson::SUCCESS) index = whole(item["index"]);
        if (index < 0 || index >= n || !std::isnan(out[index * dim]))
            return mill_fail(err, MILL_ERR_DATA, "the answer's vectors are numbered otherwise than 0 to %lld",
                             static_cast<long long>(n - 1));
        if (item["embedding"].get(values) != simdjson::SUCCESS)
            return mill_fail(err, MILL_ERR_DATA, "the answer has no list \"embedding\" for text %lld",
                             static_cast<long long>(index));
        if (values.size() != static_cast<size_t>(dim)) {
            mill_fail(err, MILL_ERR_DATA, "the server's vectors have %zu values, expected %d", values.size(),
                      static_cast<int>(dim));
            mill_error_remedy(err, "Set dimensions to what the model gives");
            return MILL_ERR_DATA;
        }
        float *to = out + index * dim;
        for (dom::element v : values) {
            double x;
            if (v.get(x) != simdjson::SUCCESS || !std::isfinite(static_cast<float>(x)))
                return mill_fail(err, MILL_ERR_DATA, "a vector of the answer holds something that is no number");
            *to++ = static_cast<float>(x);
        }
        filled++;
    }
    *tokens = whole(doc["usage"]["total_tokens"]);
    return filled == n ? MILL_OK : mill_fail(err, MILL_ERR_DATA, "the answer lacks vectors");
}

void stm_answer_words(stm_answers *a, const char *body, size_t bytes, char *out, size_t size)
{
    dom::element doc;
    const char *text = nullptr;
    int64_t n = 0;
    if (bytes > 0 && stm_answers_parse(a, body, bytes, &doc, nullptr) == MILL_OK) {
        const char *p;
        dom::element e;
        const simdjson::simdjson_result<dom::element> tried[] = {doc["error"]["message"], doc["error"], doc["message"],
                                                                 doc["detail"]};
        for (auto &t : tried)
            if (text == nullptr && t.error() == simdjson::SUCCESS &&
                (e = t.value_unsafe()).get_c_str().get(p) == simdjson::SUCCESS) {
                text = p;
                n = static_cast<int64_t>(e.get_string_length().value_unsafe());
            }
    }
    if (text == nullptr) text = body, n = static_cast<int64_t>(bytes < 4 * size ? bytes : 4 * size);
    one_line(text, static_cast<size_t>(n), out, size);
}

mill_status stm_messages_check(stm_answers *a, const char *json, size_t bytes)
{
    dom::element doc;
    dom::array messages;
    const mill_status st = stm_answers_parse(a, json, bytes, &doc, nullptr);
    if (st != MILL_OK) return st;
    if (doc.get(messages) != simdjson::SUCCESS || messages.size() == 0) return MILL_ERR_DATA;
    for (dom::element m : messages)
        if (!m.is_object()) return MILL_ERR_DATA;
    return MILL_OK;
}

mill_status stm_object_check(stm_answers *a, const char *json, const char *const *taken, const char **wrong, size_t *members)
{
    dom::object object;
    *wrong = nullptr;
    *members = 0;
    const simdjson::error_code e = a->parser.parse(json, strlen(json), true).get(object);
    if (e != simdjson::SUCCESS) return e == simdjson::MEMALLOC ? MILL_ERR_NOMEM : MILL_ERR_DATA;
    for (dom::key_value_pair pair : object) {
        for (size_t i = 0; taken[i] != nullptr; i++)
            if (pair.key == taken[i]) {
                *wrong = taken[i];
                return MILL_ERR_DATA;
            }
        ++*members;
    }
    return MILL_OK;
}
