#include "steps/jsonl/parse.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <new>

#include "steps/jsonl/columns.h"
#include "steps/jsonl/walk.h"

using namespace stm_jsonl_scan;
using simdjson::error_code;

#define QUICK_PATIENCE 64 /* rows in vain until a file of another form is read without the try */

static void drop_buffers(stm_jsonl *p)
{
    for (int32_t i = 0; i < p->n_all; i++) {
        Column &c = p->cols[i];
        mill_buffer_unref(&c.offsets);
        mill_buffer_unref(&c.data);
        c.text.size = 0;
        if (c.builder != nullptr) mill_builder_truncate(c.builder, 0);
    }
    p->rows = p->max_rows = 0;
    p->bytes = 0;
}

stm_jsonl::~stm_jsonl()
{
    drop_buffers(this);
    for (int32_t i = 0; i < n_all; i++) {
        mill_builder_destroy(&cols[i].builder);
        free(cols[i].name);
        free(cols[i].valid);
    }
    delete[] cols;
}

bool stm_jsonl_can_read(const mill_type *type)
{
    if (type->id == MILL_BINARY) return false;
    for (int32_t i = 0; i < type->n_fields; i++)
        if (!stm_jsonl_can_read(type->fields[i].type)) return false;
    return true;
}

static bool plain_name(const char *s)
{
    for (; *s; s++)
        if (*s == '"' || *s == '\\' || static_cast<unsigned char>(*s) < ' ') return false;
    return true;
}

mill_status stm_jsonl_create(mill_pool *pool, const mill_field *fields, int32_t n, bool extra, stm_jsonl **out)
{
    stm_jsonl *p = new (std::nothrow) stm_jsonl;

    if (p == nullptr) return MILL_ERR_NOMEM;
    p->pool = pool;
    p->cols = new (std::nothrow) Column[static_cast<size_t>(n) + 1];
    if (p->cols == nullptr) {
        delete p;
        return MILL_ERR_NOMEM;
    }
    p->n = n;
    p->n_all = n + extra;
    p->can_quick = true;
    for (int32_t i = 0; i < p->n_all; i++) {
        Column &c = p->cols[i];
        c.type = i < n ? fields[i].type : mill_type_plain(MILL_JSON);
        c.name = strdup(i < n ? fields[i].name : "");
        if (c.name == nullptr || (c.is_built() && mill_builder_create(pool, c.type, &c.builder) != MILL_OK)) {
            delete p;
            return MILL_ERR_NOMEM;
        }
        if (i < n && !c.is_quick()) p->can_quick = false;
        c.name_bytes = strlen(c.name);
        c.plain = plain_name(c.name);
        if (c.plain && c.name_bytes < 8) {
            char text[8] = {0}, ones[8] = {0};
            memcpy(text, c.name, c.name_bytes);
            text[c.name_bytes] = '"';
            memset(ones, 0xff, c.name_bytes + 1);
            memcpy(&c.word, text, 8);
            memcpy(&c.mask, ones, 8);
        }
    }
    if (reserve(p->parser, 16384) != simdjson::SUCCESS) {
        delete p;
        return MILL_ERR_NOMEM;
    }
    *out = p;
    return MILL_OK;
}

void stm_jsonl_destroy(stm_jsonl **p)
{
    delete *p;
    *p = nullptr;
}

mill_status stm_jsonl_begin(stm_jsonl *p, int64_t max_rows)
{
    drop_buffers(p);
    const size_t rows = static_cast<size_t>(max_rows);
    const size_t bits = rows / 8 + 1;
    const bool grow = max_rows > p->rows_cap;
    mill_status st;

    for (int32_t i = 0; i < p->n_all; i++) {
        Column &c = p->cols[i];
        if (grow) {
            uint8_t *v = static_cast<uint8_t *>(realloc(c.valid, bits));
            if (v == nullptr) return MILL_ERR_NOMEM;
            c.valid = v;
        }
        memset(c.valid, 0xff, bits);
        c.nulls = 0;
        c.seen = -1;
        if (c.is_built()) continue;
        if (c.is_text()) {
            if ((st = mill_buffer_create(p->pool, (rows + 1) * 8, &c.offsets)) != MILL_OK) return st;
            c.off = static_cast<int64_t *>(mill_buffer_data(c.offsets));
            c.off[0] = 0;
        } else {
            const size_t need = c.type->id == MILL_BOOL ? bits : rows * static_cast<size_t>(c.type->width);
            if ((st = mill_buffer_create(p->pool, need, &c.data)) != MILL_OK) return st;
            c.values = mill_buffer_data(c.data);
            if (c.type->id == MILL_BOOL) memset(c.values, 0, need);
        }
    }
    if (grow) p->rows_cap = max_rows;
    p->max_rows = max_rows;
    return MILL_OK;
}

/* A value is JSON but not of the column's type: remember what stands there. */
static Out misfit(stm_jsonl *p, od::value &v)
{
    std::string_view raw;
    const error_code e = p->checker.raw(v, p->end, raw);

    if (e != simdjson::SUCCESS) {
        p->error = e;
        return Out::json;
    }
    const size_t show = raw.size() < 40 ? raw.size() : 37;
    snprintf(p->found, sizeof p->found, "%.*s%s", static_cast<int>(show), raw.data(), show < raw.size() ? "..." : "");
    /* Do not cut inside of a character. */
    if (show < raw.size()) {
        size_t k = show;
        while (k > 0 && (static_cast<unsigned char>(raw[k]) & 0xc0) == 0x80) k--;
        memcpy(p->found + k, "...", 4);
    }
    return Out::misfit;
}

static Out json_error(stm_jsonl *p, error_code e)
{
    p->error = e;
    return Out::json;
}

/* Text of the string at v behind t.size, which is moved. */
static Out add_string(stm_jsonl *p, od::value &v, Bytes &t)
{
    od::raw_json_string s;

    if (v.get_raw_json_string().get(s) != simdjson::SUCCESS) return misfit(p, v);
    if (!t.reserve(static_cast<size_t>(p->end - s.raw()) + 16)) return Out::memory;
    char *dst = t.data + t.size;
    if (unescape(s.raw(), p->end, dst) == nullptr) return json_error(p, simdjson::STRING_ERROR);
    t.size = static_cast<size_t>(dst - t.data);
    return Out::ok;
}

static Out built(mill_status st)
{
    return st == MILL_OK ? Out::ok : Out::memory;
}

/* One value of any type to a builder. What was half appended is cut off by the caller. */
static Out build(stm_jsonl *p, od::value &v, const mill_type *type, mill_builder *b);

static Out build_list(stm_jsonl *p, od::value &v, const mill_type *type, mill_builder *b)
{
    od::array items;
    int64_t n = 0;

    if (v.get_array().get(items) != simdjson::SUCCESS) return misfit(p, v);
    mill_builder *child = mill_builder_child(b, 0);
    for (auto item : items) {
        od::value e;
        if (auto err = std::move(item).get(e)) return json_error(p, err);
        const Out o = build(p, e, type->fields[0].type, child);
        if (o != Out::ok) return o;
        n++;
    }
    if (type->id == MILL_FIXED_LIST && n != type->length) {
        snprintf(p->found, sizeof p->found, "%" PRId64 " values", n);
        return Out::misfit;
    }
    return built(mill_builder_close_row(b));
}

static Out build_struct(stm_jsonl *p, od::value &v, const mill_type *type, mill_builder *b)
{
    od::object obj;
    const int64_t row = mill_builder_rows(b);

    if (v.get_object().get(obj) != simdjson::SUCCESS) return misfit(p, v);
    for (auto item : obj) {
        od::field f;
        std::string_view name;
        if (auto err = std::move(item).get(f)) return json_error(p, err);
        if (auto err = f.unescaped_key().get(name)) return json_error(p, err);
        int32_t i = 0;
        while (i < type->n_fields && name != type->fields[i].name) i++;
        if (i == type->n_fields || mill_builder_rows(mill_builder_child(b, i)) > row) {
            snprintf(p->found, sizeof p->found, "%s field %.*s", i == type->n_fields ? "the unknown" : "twice the",
                     static_cast<int>(name.size() < 30 ? name.size() : 30), name.data());
            return Out::misfit;
        }
        const Out o = build(p, f.value(), type->fields[i].type, mill_builder_child(b, i));
        if (o != Out::ok) return o;
    }
    for (int32_t i = 0; i < type->n_fields; i++) {
        mill_builder *child = mill_builder_child(b, i);
        if (mill_builder_rows(child) == row && mill_builder_null(child) != MILL_OK) return Out::memory;
    }
    return built(mill_builder_close_row(b));
}

/* Whether a number is one of the type, when rounded: a larger one would be infinite, which no JSON can say. */
static bool fits(int32_t id, double x)
{
    constexpr double half_end = 65520.0; /* rounds up to 2^16, past the largest float16 */
    return id == MILL_FLOAT16 ? std::fabs(x) < half_end : id != MILL_FLOAT32 || !std::isinf(static_cast<float>(x));
}

static Out out_of_range(stm_jsonl *p, std::string_view token)
{
    const std::string_view shown = token.substr(0, std::min<size_t>(24, token.find_first_of(",]} \t\r\n")));

    snprintf(p->found, sizeof p->found, "%.*s", static_cast<int>(shown.size()), shown.data());
    return Out::misfit;
}

static Out build(stm_jsonl *p, od::value &v, const mill_type *type, mill_builder *b)
{
    bool null = false;

    if (v.is_null().get(null) != simdjson::SUCCESS) return misfit(p, v);
    if (null) return built(mill_builder_null(b));
    switch (type->id) {
    case MILL_BOOL: {
        bool x;
        if (v.get_bool().get(x) != simdjson::SUCCESS) return misfit(p, v);
        return built(mill_builder_bool(b, x));
    }
    case MILL_INT32:
    case MILL_INT64: {
        int64_t x;
        const char *token = v.raw_json_token().data();
        if (v.get_int64().get(x) != simdjson::SUCCESS) return misfit(p, v);
        if (type->id == MILL_INT32 && (x < INT32_MIN || x > INT32_MAX)) {
            snprintf(p->found, sizeof p->found, "%.*s", static_cast<int>(strcspn(token, ",]} \t\r\n")), token);
            return Out::misfit;
        }
        return built(mill_builder_int(b, x));
    }
    case MILL_FLOAT16:
    case MILL_FLOAT32:
    case MILL_FLOAT64: {
        double x;
        const std::string_view token = v.raw_json_token();
        if (to_double(v, x) != simdjson::SUCCESS) return misfit(p, v);
        if (!fits(type->id, x)) return out_of_range(p, token);
        return built(mill_builder_float(b, x));
    }
    case MILL_UTF8: {
        p->key.size = 0;
        const Out o = add_string(p, v, p->key);
        return o != Out::ok ? o : built(mill_builder_text(b, p->key.data, static_cast<int64_t>(p->key.size)));
    }
    case MILL_JSON: {
        std::string_view raw;
        if (auto e = p->checker.raw(v, p->end, raw)) return json_error(p, e);
        return built(mill_builder_text(b, raw.data(), static_cast<int64_t>(raw.size())));
    }
    case MILL_LIST:
    case MILL_FIXED_LIST: return build_list(p, v, type, b);
    default: return build_struct(p, v, type, b);
    }
}

/* The value of column c in row r. */
static Out put(stm_jsonl *p, Column &c, od::value &v, int64_t r)
{
    if (c.is_built()) {
        const Out o = build(p, v, c.type, c.builder);
        return o;
    }
    bool null = false;
    if (v.is_null().get(null) != simdjson::SUCCESS) return misfit(p, v);
    if (null) return c.put_null(r) ? Out::ok : Out::memory;
    switch (c.type->id) {
    case MILL_UTF8: {
        const Out o = add_string(p, v, c.text);
        if (o != Out::ok) return o;
        c.off[r + 1] = static_cast<int64_t>(c.text.size);
        return Out::ok;
    }
    case MILL_JSON: {
        std::string_view raw;
        if (auto e = p->checker.raw(v, p->end, raw)) return json_error(p, e);
        if (!c.text.add(raw.data(), raw.size())) return Out::memory;
        c.off[r + 1] = static_cast<int64_t>(c.text.size);
        return Out::ok;
    }
    case MILL_BOOL: {
        bool x;
        if (v.get_bool().get(x) != simdjson::SUCCESS) return misfit(p, v);
        if (x) static_cast<uint8_t *>(c.values)[r >> 3] |= static_cast<uint8_t>(1u << (r & 7));
        return Out::ok;
    }
    case MILL_INT64: {
        if (v.get_int64().get(static_cast<int64_t *>(c.values)[r]) != simdjson::SUCCESS) return misfit(p, v);
        return Out::ok;
    }
    case MILL_INT32: {
        int64_t x;
        std::string_view token = v.raw_json_token();
        if (v.get_int64().get(x) != simdjson::SUCCESS) return misfit(p, v);
        if (x < INT32_MIN || x > INT32_MAX) {
            snprintf(p->found, sizeof p->found, "%.*s", static_cast<int>(token.size() < 24 ? token.size() : 24), token.data());
            return Out::misfit;
        }
        static_cast<int32_t *>(c.values)[r] = static_cast<int32_t>(x);
        return Out::ok;
    }
    case MILL_FLOAT32: {
        double x;
        std::string_view token = v.raw_json_token();
        if (to_double(v, x) != simdjson::SUCCESS) return misfit(p, v);
        if (!fits(MILL_FLOAT32, x)) return out_of_range(p, token);
        static_cast<float *>(c.values)[r] = static_cast<float>(x);
        return Out::ok;
    }
    default: { /* MILL_FLOAT64 */
        if (to_double(v, static_cast<double *>(c.values)[r]) != simdjson::SUCCESS) return misfit(p, v);
        return Out::ok;
    }
    }
}

static Out put_extra(stm_jsonl *p, const char *key, const char *key_end, od::value &v, int64_t r)
{
    std::string_view raw;

    if (auto e = p->checker.raw(v, p->end, raw)) return json_error(p, e);
    if (p->n == p->n_all) return Out::ok; /* not wanted */
    Column &c = p->cols[p->n];
    const size_t key_bytes = static_cast<size_t>(key_end - key);
    if (!c.text.reserve(key_bytes + raw.size() + 8)) return Out::memory; /* 8: punctuation, and the brace at the end */
    char *d = c.text.data + c.text.size;
    *d++ = c.seen == r ? ',' : '{';
    *d++ = '"';
    memcpy(d, key, key_bytes);
    d += key_bytes;
    *d++ = '"';
    *d++ = ':';
    memcpy(d, raw.data(), raw.size());
    d += raw.size();
    c.text.size = static_cast<size_t>(d - c.text.data);
    c.seen = r;
    return Out::ok;
}

/* The column of a key that the fast comparison did not find, or -1. */
static int32_t find_column(stm_jsonl *p, const char *key, const char *key_end, bool escaped, Out *out)
{
    const char *name = key;
    size_t n = static_cast<size_t>(key_end - key);

    if (escaped) {
        p->key.size = 0;
        if (!p->key.reserve(static_cast<size_t>(p->end - key) + 16)) {
            *out = Out::memory;
            return -1;
        }
        char *dst = p->key.data;
        if (unescape(key, p->end, dst) == nullptr) {
            *out = json_error(p, simdjson::STRING_ERROR);
            return -1;
        }
        name = p->key.data;
        n = static_cast<size_t>(dst - p->key.data);
    }
    for (int32_t i = 0; i < p->n; i++)
        if (p->cols[i].name_bytes == n && memcmp(p->cols[i].name, name, n) == 0) return i;
    return -1;
}

static Out parse(stm_jsonl *p, const char *line, size_t bytes, od::document &doc)
{
    const int64_t r = p->rows;
    od::object obj;
    int32_t next = 0; /* keys mostly come in the order of the columns */

    if (reserve(p->parser, bytes) != simdjson::SUCCESS) return Out::memory;
    if (auto e = p->parser.iterate(line, bytes, bytes + simdjson::SIMDJSON_PADDING).get(doc)) return json_error(p, e);
    if (memchr(line, 0, bytes) != nullptr) return json_error(p, simdjson::TAPE_ERROR); /* simdjson lets a NUL end a number */
    if (auto e = doc.get_object().get(obj)) return json_error(p, e);
    for (auto item : obj) {
        od::field f;
        if (auto e = std::move(item).get(f)) return json_error(p, e);
        const char *key = f.key().raw();
        int32_t i = next;
        if (i < p->n) {
            if (!p->cols[i].is_named(key, p->end)) i = p->n;
        }
        if (i >= p->n) {
            bool escaped = false;
            const char *q = key;
            for (; q < p->end && *q != '"'; q++)
                if (*q == '\\') escaped = true, q++;
            Out o = Out::ok;
            i = find_column(p, key, q, escaped, &o);
            if (o != Out::ok) return o;
            if (i < 0) {
                if ((o = put_extra(p, key, q, f.value(), r)) != Out::ok) return o;
                continue;
            }
        }
        Column &c = p->cols[i];
        p->at = &c;
        if (c.seen == r) return Out::repeated;
        c.seen = r;
        const Out o = put(p, c, f.value(), r);
        if (o != Out::ok) return o;
        p->at = nullptr;
        next = i + 1;
    }
    if (!at_end(doc)) return json_error(p, simdjson::TRAILING_CONTENT);
    for (int32_t i = 0; i < p->n; i++)
        if (p->cols[i].seen != r && !p->cols[i].put_null(r)) return Out::memory;
    if (p->n_all > p->n) {
        Column &c = p->cols[p->n];
        if (c.seen == r) {
            c.text.data[c.text.size++] = '}'; /* put_extra kept room */
            c.off[r + 1] = static_cast<int64_t>(c.text.size);
        } else {
            c.put_null(r);
        }
    }
    return Out::ok;
}

/* Columns hold r rows or, where the row in hand got to them, r + 1: back to r. */
static void cut_row(stm_jsonl *p)
{
    const int64_t r = p->rows;

    for (int32_t i = 0; i < p->n_all; i++) {
        Column &c = p->cols[i];
        const uint8_t bit = static_cast<uint8_t>(1u << (r & 7));
        if (!(c.valid[r >> 3] & bit)) {
            c.valid[r >> 3] |= bit;
            c.nulls--;
        }
        c.seen = -1;
        if (c.is_built()) mill_builder_truncate(c.builder, r);
        else if (c.is_text()) c.text.size = static_cast<size_t>(c.off[r]);
        else if (c.type->id == MILL_BOOL) static_cast<uint8_t *>(c.values)[r >> 3] &= static_cast<uint8_t>(~bit);
    }
}

void stm_jsonl_null_row(stm_jsonl *p)
{
    cut_row(p);
    /* A builder that cannot append stays short, and finish says so. */
    for (int32_t i = 0; i < p->n_all; i++) (void)p->cols[i].put_null(p->rows);
    p->rows++;
}

/* Byte of the first character that is not UTF-8, 1-based; 0 = none. */
static int64_t bad_utf8(const char *s, size_t n)
{
    const unsigned char *p = reinterpret_cast<const unsigned char *>(s);

    for (size_t i = 0; i < n;) {
        const unsigned c = p[i];
        size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        if (len == 0 || i + len > n) return static_cast<int64_t>(i) + 1;
        for (size_t k = 1; k < len; k++)
            if ((p[i + k] & 0xc0) != 0x80) return static_cast<int64_t>(i) + 1;
        if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] >= 0xa0) || (c == 0xf0 && p[i + 1] < 0x90) ||
            (c == 0xf4 && p[i + 1] >= 0x90))
            return static_cast<int64_t>(i) + 1;
        i += len;
    }
    return 0;
}

static void say(stm_jsonl_fault *f, const char *fmt, ...) MILL_PRINTF(2, 3);
static void say(stm_jsonl_fault *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->cause, sizeof f->cause, fmt, args);
    va_end(args);
}

static void explain(stm_jsonl *p, Out o, od::document &doc, const char *line, size_t bytes, stm_jsonl_fault *f)
{
    const char *const end = line + bytes, *where = nullptr;
    char type[64];

    *f = stm_jsonl_fault{};
    if (!doc.is_alive() || doc.current_location().get(where) != simdjson::SUCCESS || where < line || where > end) where = nullptr;
    if (o != Out::json && p->at != nullptr) snprintf(f->column, sizeof f->column, "%s", p->at->name);
    if (o == Out::misfit) {
        mill_type_format(p->at->type, type, sizeof type);
        say(f, "expected %s, found %s", type, p->found);
        where = walk(line, bytes, where != nullptr ? where : end).value;
    } else if (o == Out::repeated) {
        say(f, "the key occurs twice");
        where = walk(line, bytes, where != nullptr ? where : end).key;
    } else if (p->error == simdjson::UTF8_ERROR) {
        say(f, "%s", words(p->error));
        f->byte = bad_utf8(line, bytes);
        return;
    } else {
        const Walk found = walk(line, bytes, end);
        say(f, "%s", found.fault != nullptr ? found.cause : words(p->error));
        if (found.fault != nullptr) where = found.fault;
    }
    if (where != nullptr) f->byte = where - line + 1;
}

mill_status stm_jsonl_row(stm_jsonl *p, const char *line, size_t bytes, stm_jsonl_fault *fault)
{
    if (p->rows >= p->max_rows) return MILL_ERR_INVALID;
    od::document doc;

    p->at = nullptr;
    p->error = simdjson::SUCCESS;
    p->end = line + bytes;
    if (p->can_quick && p->quick_luck > -QUICK_PATIENCE) {
        if (stm_jsonl_quick(p, line, bytes)) {
            if (p->quick_luck < QUICK_PATIENCE) p->quick_luck++;
            p->rows++;
            p->bytes += static_cast<int64_t>(bytes);
            return MILL_OK;
        }
        p->quick_luck -= 2;
        cut_row(p);
    }
    const Out o = parse(p, line, bytes, doc);
    if (o == Out::ok) {
        p->rows++;
        p->bytes += static_cast<int64_t>(bytes);
        return MILL_OK;
    }
    if (o == Out::memory || p->error == simdjson::MEMALLOC || p->error == simdjson::CAPACITY) {
        cut_row(p);
        return MILL_ERR_NOMEM;
    }
    explain(p, o, doc, line, bytes, fault);
    stm_jsonl_null_row(p);
    return MILL_ERR_DATA;
}

void stm_jsonl_no_quick(stm_jsonl *p) { p->can_quick = false; }

int64_t stm_jsonl_rows(const stm_jsonl *p) { return p->rows; }
int64_t stm_jsonl_bytes(const stm_jsonl *p) { return p->bytes; }

static mill_status finish_column(stm_jsonl *p, Column &c, mill_column **out, mill_error *err)
{
    mill_buffer *validity = nullptr;
    mill_status st;

    if (c.is_built()) {
        if (mill_builder_rows(c.builder) != p->rows) return mill_fail(err, MILL_ERR_NOMEM, "no memory for column %s", c.name);
        return mill_builder_finish(c.builder, out);
    }
    if (c.nulls > 0) {
        const size_t need = static_cast<size_t>(p->rows + 7) / 8;
        if ((st = mill_buffer_create(p->pool, need, &validity)) != MILL_OK)
            return mill_fail(err, st, "no memory for column %s", c.name);
        memcpy(mill_buffer_data(validity), c.valid, need);
        if (p->rows & 7) /* nothing behind the last row */
            static_cast<uint8_t *>(mill_buffer_data(validity))[need - 1] &= static_cast<uint8_t>((1u << (p->rows & 7)) - 1);
    }
    if (c.is_text()) {
        if ((st = mill_buffer_create(p->pool, c.text.size, &c.data)) != MILL_OK) {
            mill_buffer_unref(&validity);
            return mill_fail(err, st, "no memory for column %s", c.name);
        }
        if (c.text.size > 0) memcpy(mill_buffer_data(c.data), c.text.data, c.text.size);
    }
    st = mill_column_create(p->pool, c.type, p->rows, validity ? &validity : nullptr, c.offsets ? &c.offsets : nullptr, &c.data,
                            nullptr, out, err);
    mill_buffer_unref(&validity);
    return st;
}

mill_status stm_jsonl_finish(stm_jsonl *p, mill_batch **out, mill_error *err)
{
    mill_batch *batch = nullptr;
    mill_status st = mill_batch_create(p->pool, p->rows, p->n_all, &batch);

    if (st != MILL_OK) {
        drop_buffers(p);
        return mill_fail(err, st, "no memory for a batch of %" PRId64 " rows", p->rows);
    }
    for (int32_t i = 0; i < p->n_all && st == MILL_OK; i++) {
        mill_column *col = nullptr;
        st = finish_column(p, p->cols[i], &col, err);
        if (st == MILL_OK) st = mill_batch_set_column(batch, i, &col);
        mill_column_unref(&col);
    }
    drop_buffers(p);
    if (st != MILL_OK) {
        mill_batch_destroy(&batch);
        return mill_fail(err, st, "cannot make a batch of what was read");
    }
    *out = batch;
    return MILL_OK;
}
