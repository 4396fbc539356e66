#include "models/json.h"

#include <simdjson.h>

#include <cerrno>
#include <cstring>
#include <new>

extern "C" {
#include "models/weights/file.h"
}

using simdjson::dom::element;
using simdjson::dom::element_type;

struct stm_json {
    simdjson::dom::parser parser;
    element root;
};

/* An element is a document's address and a place on its tape: it travels through C as two words. */
static_assert(sizeof(element) <= sizeof(stm_json_value), "a value must hold an element");

namespace {

stm_json_value wrap(element e)
{
    stm_json_value v = {nullptr, 0};
    memcpy(static_cast<void *>(&v), &e, sizeof e);
    return v;
}

bool unwrap(stm_json_value v, element *e)
{
    if (v.doc == nullptr) return false;
    memcpy(static_cast<void *>(e), &v, sizeof *e);
    return true;
}

} // namespace

extern "C" mill_status stm_json_parse(const char *bytes, size_t n, const char *name, stm_json **out, mill_error *err)
{
    stm_json *doc = new (std::nothrow) stm_json;
    simdjson::error_code code;

    if (doc == nullptr) return mill_fail(err, MILL_ERR_NOMEM, "no memory to read %s", name);
    doc->parser.parse(reinterpret_cast<const uint8_t *>(bytes), n, true).tie(doc->root, code);
    if (code != simdjson::SUCCESS) {
        delete doc;
        if (code == simdjson::MEMALLOC) return mill_fail(err, MILL_ERR_NOMEM, "no memory to read %s", name);
        return mill_fail(err, MILL_ERR_PARSE, "%s is not valid JSON: %s", name, simdjson::error_message(code));
    }
    *out = doc;
    return MILL_OK;
}

extern "C" mill_status stm_json_open(const char *path, bool optional, stm_json **out, mill_error *err)
{
    stm_file file = {};
    mill_status st = stm_file_map(path, &file, optional, err);

    if (st != MILL_OK) return st;
    st = stm_json_parse(static_cast<const char *>(file.data), file.bytes, path, out, err);
    stm_file_unmap(&file); /* the document holds copies */
    return st;
}

extern "C" void stm_json_close(stm_json **doc)
{
    delete *doc;
    *doc = nullptr;
}

extern "C" stm_json_value stm_json_root(const stm_json *doc) { return wrap(doc->root); }

extern "C" stm_json_kind stm_json_kind_of(stm_json_value v)
{
    element e;

    if (!unwrap(v, &e)) return STM_JSON_NONE;
    switch (e.type()) {
    case element_type::NULL_VALUE: return STM_JSON_NULL;
    case element_type::BOOL: return STM_JSON_BOOL;
    case element_type::INT64: return STM_JSON_INT;
    case element_type::UINT64: /* past int64: as a float, like any number that large */
    case element_type::DOUBLE: return STM_JSON_FLOAT;
    case element_type::STRING: return STM_JSON_STRING;
    case element_type::ARRAY: return STM_JSON_ARRAY;
    case element_type::OBJECT: return STM_JSON_OBJECT;
    }
    return STM_JSON_NONE;
}

extern "C" stm_json_value stm_json_get(stm_json_value v, const char *key)
{
    const stm_json_value none = {nullptr, 0};
    simdjson::dom::object object;
    element e, member;

    if (!unwrap(v, &e) || e.get_object().get(object) != simdjson::SUCCESS) return none;
    if (object.at_key(key).get(member) != simdjson::SUCCESS) return none;
    return wrap(member);
}

extern "C" const char *stm_json_text(stm_json_value v, size_t *bytes)
{
    element e;
    std::string_view text;

    if (!unwrap(v, &e) || e.get_string().get(text) != simdjson::SUCCESS) return nullptr;
    if (bytes != nullptr) *bytes = text.size();
    return text.data();
}

extern "C" int64_t stm_json_int(stm_json_value v, int64_t otherwise)
{
    element e;
    int64_t i;

    return unwrap(v, &e) && e.get_int64().get(i) == simdjson::SUCCESS ? i : otherwise;
}

extern "C" double stm_json_float(stm_json_value v, double otherwise)
{
    element e;
    double d;

    return unwrap(v, &e) && e.get_double().get(d) == simdjson::SUCCESS ? d : otherwise;
}

extern "C" bool stm_json_bool(stm_json_value v, bool otherwise)
{
    element e;
    bool b;

    return unwrap(v, &e) && e.get_bool().get(b) == simdjson::SUCCESS ? b : otherwise;
}

extern "C" bool stm_json_each(stm_json_value v, stm_json_visit *visit, void *user)
{
    simdjson::dom::object object;
    simdjson::dom::array array;
    element e;

    if (!unwrap(v, &e)) return true;
    if (e.get_object().get(object) == simdjson::SUCCESS) {
        for (const auto member : object)
            if (!visit(user, member.key.data(), member.key.size(), wrap(member.value))) return false;
    } else if (e.get_array().get(array) == simdjson::SUCCESS) {
        for (const element item : array)
            if (!visit(user, nullptr, 0, wrap(item))) return false;
    }
    return true;
}

extern "C" size_t stm_json_count(stm_json_value v)
{
    size_t n = 0;

    stm_json_each(
        v, [](void *user, const char *, size_t, stm_json_value) { return ++*static_cast<size_t *>(user), true; }, &n);
    return n;
}
