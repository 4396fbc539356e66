/* Rows as plain C++ values: the slow, obvious model that columns are held against. */
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "support/fail_nth.h"

extern "C" {
#include "batch/batch.h"
#include "batch/half.h"
#include "batch/type.h"
}

namespace mt {

/** One value of any type. Numbers are doubles and 64-bit integers side by side; nested values in items. */
struct Value {
    bool null = true;
    int64_t i = 0;
    double f = 0;
    std::string bytes;
    std::vector<Value> items;
    bool operator==(const Value &o) const
    {
        return null == o.null && (null || (i == o.i && f == o.f && bytes == o.bytes && items == o.items));
    }
    std::string show() const
    {
        if (null) return "null";
        std::string s = std::to_string(i) + "/" + std::to_string(f) + "/" + bytes + "[";
        for (auto &v : items) s += v.show() + " ";
        return s + "]";
    }
};
using Rows = std::vector<Value>;
using Rng = std::mt19937_64;

/** A pool that must be empty at the end, and whose end must leave nothing. */
class Pool {
public:
    Pool() : before_(live()) { EXPECT_EQ(stm_pool_create(0, &p_), MILL_OK); }
    ~Pool()
    {
        EXPECT_EQ(stm_pool_counts(p_).live_bytes, 0) << "something was not given back";
        stm_pool_release(&p_);
        EXPECT_EQ(live(), before_);
    }
    operator mill_pool *() const { return p_; }

private:
    long before_;
    mill_pool *p_ = nullptr;
};

/** Owning handles. */
struct Column {
    mill_column *p = nullptr;
    Column() = default;
    Column(const Column &o) : p(o.p ? mill_column_ref(o.p) : nullptr) {}
    Column(Column &&o) noexcept : p(o.p) { o.p = nullptr; }
    Column &operator=(Column o)
    {
        std::swap(p, o.p);
        return *this;
    }
    ~Column() { mill_column_unref(&p); }
};
struct Batch {
    mill_batch *p = nullptr;
    Batch() = default;
    Batch(Batch &&o) noexcept : p(o.p) { o.p = nullptr; }
    Batch &operator=(Batch &&o) noexcept
    {
        std::swap(p, o.p);
        return *this;
    }
    ~Batch() { mill_batch_destroy(&p); }
};

inline const mill_type *type_of(const std::string &text)
{
    const mill_type *t = nullptr;
    mill_error err = {};
    EXPECT_EQ(mill_type_parse(text.c_str(), &t, &err), MILL_OK) << err.msg;
    return t;
}

inline const mill_type *random_type(Rng &rng, int depth)
{
    const int k = (int)(rng() % (depth > 0 ? 14 : 9));
    if (k < 9) return mill_type_plain((mill_type_id)(k + 1));
    if (k < 11) return mill_type_list(random_type(rng, depth - 1));
    const mill_type *a = random_type(rng, depth - 1); /* one draw at a time: arguments have no order */
    if (k < 12) return mill_type_fixed_list(a, 1 + (int)(rng() % 4));
    const mill_type *b = random_type(rng, depth - 1);
    mill_field f[] = {{"a", a}, {"b", b}};
    return mill_type_struct(f, (int32_t)(rng() % 3));
}

/** nulls: 0 none, 1 some, 2 all. */
inline Value random_value(Rng &rng, const mill_type *t, int nulls)
{
    Value v;
    v.null = nulls == 2 || (nulls == 1 && rng() % 3 == 0);
    if (v.null) return v;
    switch (t->id) {
    case MILL_BOOL: v.i = (int64_t)(rng() % 2); break;
    case MILL_INT32: v.i = (int32_t)rng(); break;
    case MILL_INT64: v.i = (int64_t)rng(); break;
    case MILL_FLOAT16:
    case MILL_FLOAT32:
    case MILL_FLOAT64: v.f = (double)((int64_t)(rng() % 2001) - 1000) / 4; break; /* exact in all three */
    case MILL_UTF8:
    case MILL_BINARY:
    case MILL_JSON:
        for (size_t n = rng() % 4 == 0 ? rng() % 60 : rng() % 5; n > 0; n--) v.bytes += (char)('a' + rng() % 26);
        break;
    case MILL_LIST:
        for (size_t n = rng() % 5; n > 0; n--) v.items.push_back(random_value(rng, t->fields[0].type, nulls));
        break;
    case MILL_FIXED_LIST:
        for (int i = 0; i < t->length; i++) v.items.push_back(random_value(rng, t->fields[0].type, nulls));
        break;
    default:
        for (int i = 0; i < t->n_fields; i++) v.items.push_back(random_value(rng, t->fields[i].type, nulls));
    }
    return v;
}

inline Rows random_rows(Rng &rng, const mill_type *t, int64_t n, int nulls)
{
    Rows rows;
    for (; n > 0; n--) rows.push_back(random_value(rng, t, nulls));
    return rows;
}

inline mill_status append(mill_builder *b, const mill_type *t, const Value &v)
{
    if (v.null) return mill_builder_null(b);
    switch (t->id) {
    case MILL_BOOL: return mill_builder_bool(b, v.i != 0);
    case MILL_INT32:
    case MILL_INT64: return mill_builder_int(b, v.i);
    case MILL_FLOAT16:
    case MILL_FLOAT32:
    case MILL_FLOAT64: return mill_builder_float(b, v.f);
    case MILL_UTF8:
    case MILL_BINARY:
    case MILL_JSON: return mill_builder_text(b, v.bytes.data(), (int64_t)v.bytes.size());
    default:
        for (size_t i = 0; i < v.items.size(); i++) {
            const int32_t k = t->id == MILL_STRUCT ? (int32_t)i : 0;
            const mill_status st = append(mill_builder_child(b, k), t->fields[k].type, v.items[i]);
            if (st != MILL_OK) return st;
        }
        return mill_builder_close_row(b);
    }
}

inline mill_status try_build(mill_pool *pool, const mill_type *t, const Rows &rows, mill_column **out)
{
    mill_builder *b = nullptr;
    mill_status st = mill_builder_create(pool, t, &b);
    for (size_t i = 0; i < rows.size() && st == MILL_OK; i++) st = append(b, t, rows[i]);
    if (st == MILL_OK) st = mill_builder_finish(b, out);
    mill_builder_destroy(&b);
    return st;
}

inline Column build(mill_pool *pool, const mill_type *t, const Rows &rows)
{
    Column c;
    EXPECT_EQ(try_build(pool, t, rows, &c.p), MILL_OK);
    return c;
}

/** Row r through the public view only. */
inline Value read(const mill_column *c, int64_t r)
{
    const mill_view w = mill_column_view(c);
    const int64_t e = w.offset + r;
    Value v;
    v.null = mill_column_is_null(c, r);
    EXPECT_EQ(v.null, w.validity != nullptr && !(w.validity[e >> 3] >> (e & 7) & 1));
    if (v.null) return v;
    switch (w.type->id) {
    case MILL_BOOL: v.i = ((const uint8_t *)w.data)[e >> 3] >> (e & 7) & 1; break;
    case MILL_INT32: v.i = ((const int32_t *)w.data)[e]; break;
    case MILL_INT64: v.i = ((const int64_t *)w.data)[e]; break;
    case MILL_FLOAT16: v.f = (double)stm_half_to_float(((const uint16_t *)w.data)[e]); break;
    case MILL_FLOAT32: v.f = (double)((const float *)w.data)[e]; break;
    case MILL_FLOAT64: v.f = ((const double *)w.data)[e]; break;
    case MILL_UTF8:
    case MILL_BINARY:
    case MILL_JSON: {
        int64_t n = 0;
        const char *text = mill_column_text(c, r, &n);
        EXPECT_EQ(text, (const char *)w.data + w.offsets[e]);
        v.bytes.assign(text, (size_t)n);
        break;
    }
    case MILL_LIST:
        for (int64_t i = w.offsets[e]; i < w.offsets[e + 1]; i++) v.items.push_back(read(w.children[0], i));
        break;
    case MILL_FIXED_LIST:
        for (int64_t i = e * w.type->length; i < (e + 1) * w.type->length; i++) v.items.push_back(read(w.children[0], i));
        break;
    default:
        for (int i = 0; i < w.type->n_fields; i++) v.items.push_back(read(w.children[i], e));
    }
    return v;
}

inline ::testing::AssertionResult same(const mill_column *c, const Rows &want)
{
    mill_error err = {};
    if (mill_column_rows(c) != (int64_t)want.size())
        return ::testing::AssertionFailure() << mill_column_rows(c) << " rows, want " << want.size();
    if (stm_column_validate(c, &err) != MILL_OK) return ::testing::AssertionFailure() << err.msg << " " << err.context;
    int64_t nulls = 0;
    for (size_t r = 0; r < want.size(); r++) {
        const Value got = read(c, (int64_t)r);
        nulls += got.null;
        if (!(got == want[r]))
            return ::testing::AssertionFailure() << "row " << r << ": " << got.show() << ", want " << want[r].show();
    }
    if (mill_column_view(c).null_count != nulls)
        return ::testing::AssertionFailure() << "null_count " << mill_column_view(c).null_count << ", want " << nulls;
    return ::testing::AssertionSuccess();
}

/** Every type worth a case of its own. */
inline const std::vector<std::string> &all_types()
{
    static const std::vector<std::string> t = {
        "bool", "int32", "int64", "float16", "float32", "float64", "utf8", "binary", "json", "list<int32>", "list<utf8>",
        "list<bool>", "fixed_list<float32>[3]", "fixed_list<bool>[5]", "fixed_list<utf8>[2]", "struct<>",
        "struct<a: utf8, b: list<int64>>",
        "list<list<json>>", "list<struct<a: bool, b: fixed_list<int32>[2]>>", "fixed_list<fixed_list<float16>[2]>[3]",
        "struct<s: struct<t: struct<u: binary>>>", "list<struct<>>",
    };
    return t;
}

} // namespace mt
