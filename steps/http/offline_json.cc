#include "steps/http/offline_json.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "steps/http/parser.h"

namespace dom = simdjson::dom;

namespace {

/* Text of a member, "" where there is none; false: longer than there is room. */
bool text(simdjson::simdjson_result<dom::element> v, char *out, size_t size)
{
    std::string_view s;
    out[0] = 0;
    if (v.get(s) != simdjson::SUCCESS) return true;
    const size_t n = s.size() < size ? s.size() : size - 1;
    memcpy(out, s.data(), n);
    out[n] = 0;
    return s.size() < size && memchr(out, 0, n) == nullptr;
}

/* An id goes into urls and files of ours. */
bool id_text(simdjson::simdjson_result<dom::element> v, char *out)
{
    if (!text(v, out, STM_OFFLINE_ID)) return false;
    for (const char *p = out; *p != 0; p++)
        if (!((*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || strchr("-_=.:~", *p) != nullptr))
            return false;
    return strstr(out, "..") == nullptr;
}

bool object(dom::element e, stm_offline_object *out)
{
    dom::array errors;
    *out = {};
    if (!id_text(e["id"], out->id) || out->id[0] == 0 || !id_text(e["output_file_id"], out->output) ||
        !id_text(e["error_file_id"], out->errors))
        return false;
    text(e["status"], out->status, sizeof out->status);
    if (e["errors"]["data"].get(errors) == simdjson::SUCCESS)
        for (dom::element one : errors) {
            text(one["message"], out->words, sizeof out->words);
            break;
        }
    return true;
}

} // namespace

mill_status stm_offline_object_read(stm_answers *a, const char *json, size_t bytes, stm_offline_object *out, mill_error *err)
{
    dom::element e;
    const mill_status st = stm_answers_parse(a, json, bytes, &e, err);
    if (st != MILL_OK) return st;
    return object(e, out) ? MILL_OK : mill_fail(err, MILL_ERR_DATA, "the service's answer has no id, or one that is no word");
}

mill_status stm_offline_find(stm_answers *a, const char *json, size_t bytes, const char *token, stm_offline_object *out,
                             char last[STM_OFFLINE_ID], mill_error *err)
{
    dom::element e;
    dom::array all;
    bool more = false;
    const mill_status st = stm_answers_parse(a, json, bytes, &e, err);
    *out = {};
    last[0] = 0;
    if (st != MILL_OK) return st;
    if (e["data"].get(all) != simdjson::SUCCESS) return mill_fail(err, MILL_ERR_DATA, "the service's list of batches has no data");
    for (dom::element one : all) {
        char has[64];
        stm_offline_object o;
        if (!object(one, &o)) continue;
        snprintf(last, STM_OFFLINE_ID, "%s", o.id);
        if (text(one["metadata"]["stepmill"], has, sizeof has) && strcmp(has, token) == 0) *out = o;
    }
    if (e["has_more"].get(more) != simdjson::SUCCESS || !more || out->id[0] != 0) last[0] = 0;
    return MILL_OK;
}

mill_status stm_offline_line_read(stm_answers *a, const char *json, size_t bytes, stm_offline_line *out, mill_error *err)
{
    dom::element e, body;
    char id[32], code[64];
    int64_t status = 0;
    const mill_status st = stm_answers_parse(a, json, bytes, &e, err);
    *out = {};
    out->row = -1;
    if (st != MILL_OK) return st;
    if (text(e["custom_id"], id, sizeof id) && id[0] == 'r' && id[1] >= '0' && id[1] <= '9') {
        char *end;
        out->row = strtoll(id + 1, &end, 10);
        if (*end != 0) out->row = -1;
    }
    if (e["response"]["status_code"].get(status) == simdjson::SUCCESS && status > 0 && status < 1000)
        out->status = static_cast<int32_t>(status);
    text(e["error"]["code"], code, sizeof code);
    text(e["error"]["message"], out->words, sizeof out->words);
    if (out->words[0] == 0) snprintf(out->words, sizeof out->words, "%s", code);
    if (e["response"]["body"].get(body) != simdjson::SUCCESS) return MILL_OK;
    try {
        const std::string s = simdjson::minify(body);
        out->body = static_cast<char *>(calloc(1, s.size() + STM_HTTP_PADDING));
        if (out->body == nullptr) return mill_fail(err, MILL_ERR_NOMEM, "no memory for an answer");
        memcpy(out->body, s.data(), s.size());
        out->bytes = s.size();
    } catch (const std::bad_alloc &) {
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for an answer");
    }
    return MILL_OK;
}
