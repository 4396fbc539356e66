#include <new>

#include "steps/jsonl/parse.h"
#include "steps/jsonl/scan.h"

using namespace stm_jsonl_scan;

namespace {

enum : unsigned { kBool = 1, kInt = 2, kFloat = 4, kText = 8, kOther = 16 };

struct Key {
    char *name;
    unsigned kinds; /* of the values seen; 0 = only nulls */
};

} // namespace

struct stm_jsonl_guess {
    od::parser parser;
    Checker checker;
    Key keys[STM_JSONL_GUESS_MAX];
    int32_t n = 0;
    Bytes key;

    ~stm_jsonl_guess()
    {
        for (int32_t i = 0; i < n; i++) free(keys[i].name);
    }
};

mill_status stm_jsonl_guess_create(stm_jsonl_guess **out)
{
    stm_jsonl_guess *g = new (std::nothrow) stm_jsonl_guess;
    if (g == nullptr) return MILL_ERR_NOMEM;
    *out = g;
    return MILL_OK;
}

void stm_jsonl_guess_destroy(stm_jsonl_guess **g)
{
    delete *g;
    *g = nullptr;
}

static unsigned kind_of(od::value &v)
{
    od::json_type type;
    int64_t whole;
    bool b;

    if (v.type().get(type) != simdjson::SUCCESS) return kOther;
    switch (type) {
    case od::json_type::boolean: return v.get_bool().get(b) == simdjson::SUCCESS ? kBool : kOther;
    case od::json_type::string: return kText;
    case od::json_type::null: return 0;
    case od::json_type::number: break;
    default: return kOther;
    }
    if (v.get_int64().get(whole) == simdjson::SUCCESS) return kInt;
    /* 1.5 and 1e3 are float64; a whole number beyond 64 bits would lose digits as one and stays text. */
    const std::string_view token = v.raw_json_token();
    return token.find_first_of(".eE") != std::string_view::npos ? kFloat : kOther;
}

static bool valid_line(stm_jsonl_guess *g, const char *line, size_t bytes)
{
    od::document doc;
    std::string_view raw;
    od::object obj;

    if (memchr(line, 0, bytes) != nullptr) return false; /* which simdjson lets end a number */
    if (g->parser.iterate(line, bytes, bytes + simdjson::SIMDJSON_PADDING).get(doc) != simdjson::SUCCESS) return false;
    if (doc.get_object().get(obj) != simdjson::SUCCESS) return false;
    for (auto item : obj) {
        od::field f;
        if (std::move(item).get(f) != simdjson::SUCCESS) return false;
        if (g->checker.raw(f.value(), line + bytes, raw) != simdjson::SUCCESS) return false;
    }
    return at_end(doc);
}

mill_status stm_jsonl_guess_line(stm_jsonl_guess *g, const char *line, size_t bytes)
{
    od::document doc;
    od::object obj;
    int32_t hint = 0;

    if (reserve(g->parser, bytes) != simdjson::SUCCESS) return MILL_ERR_NOMEM;
    if (!valid_line(g, line, bytes)) return MILL_OK; /* a bad line says nothing about the columns */
    if (g->parser.iterate(line, bytes, bytes + simdjson::SIMDJSON_PADDING).get(doc) != simdjson::SUCCESS) return MILL_OK;
    if (doc.get_object().get(obj) != simdjson::SUCCESS) return MILL_OK;
    for (auto item : obj) {
        od::field f;
        if (std::move(item).get(f) != simdjson::SUCCESS) return MILL_OK;
        const char *raw = f.key().raw();
        g->key.size = 0;
        if (!g->key.reserve(static_cast<size_t>(line + bytes - raw) + 17)) return MILL_ERR_NOMEM;
        char *dst = g->key.data;
        if (unescape(raw, line + bytes, dst) == nullptr) return MILL_OK;
        *dst = 0;
        /* "" or \u0000 in it is no name of a column: it goes to extra */
        if (g->key.data[0] == 0 || strlen(g->key.data) != static_cast<size_t>(dst - g->key.data)) continue;
        int32_t i = hint < g->n && strcmp(g->keys[hint].name, g->key.data) == 0 ? hint : 0;
        while (i < g->n && strcmp(g->keys[i].name, g->key.data) != 0) i++;
        if (i == g->n) {
            if (g->n == STM_JSONL_GUESS_MAX) continue;
            char *name = strdup(g->key.data);
            if (name == nullptr) return MILL_ERR_NOMEM;
            g->keys[g->n++] = Key{name, 0};
        }
        g->keys[i].kinds |= kind_of(f.value());
        hint = i + 1;
    }
    return MILL_OK;
}

int32_t stm_jsonl_guess_count(const stm_jsonl_guess *g) { return g->n; }

mill_field stm_jsonl_guess_field(const stm_jsonl_guess *g, int32_t i)
{
    const Key &k = g->keys[i];
    mill_type_id id = MILL_JSON;

    if (k.kinds == kBool) id = MILL_BOOL;
    else if (k.kinds == kInt) id = MILL_INT64;
    else if (k.kinds == kFloat || k.kinds == (kInt | kFloat)) id = MILL_FLOAT64;
    else if (k.kinds == kText) id = MILL_UTF8;
    return mill_field{k.name, mill_type_plain(id)};
}
