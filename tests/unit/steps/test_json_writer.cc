#include "rows.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace {

/* A batch of one column built by `fill`. */
template <typename F> std::string column_json(const char *type_text, int64_t rows, F fill)
{
    mt::Pool pool;
    mill_error err = {};
    const mill_type *type = nullptr;
    EXPECT_EQ(mill_type_parse(type_text, &type, &err), MILL_OK);
    mill_builder *b = nullptr;
    EXPECT_EQ(mill_builder_create(pool, type, &b), MILL_OK);
    for (int64_t r = 0; r < rows; r++) fill(b, r);
    mill_column *col = nullptr;
    EXPECT_EQ(mill_builder_finish(b, &col), MILL_OK);
    mill_builder_destroy(&b);
    mill_batch *batch = nullptr;
    EXPECT_EQ(mill_batch_create(pool, rows, 1, &batch), MILL_OK);
    EXPECT_EQ(mill_batch_set_column(batch, 0, &col), MILL_OK);
    std::string out = mt::to_json(batch, {"a"});
    mill_batch_destroy(&batch);
    return out;
}

std::string text_json(const std::string &s, const char *type = "utf8")
{
    std::string out =
        column_json(type, 1, [&](mill_builder *b, int64_t) { mill_builder_text(b, s.data(), static_cast<int64_t>(s.size())); });
    return out.substr(5, out.size() - 7); /* {"a": ... }\n */
}

std::string real_json(double v, const char *type = "float64")
{
    std::string out = column_json(type, 1, [&](mill_builder *b, int64_t) { mill_builder_float(b, v); });
    return out.substr(5, out.size() - 7);
}

} // namespace

TEST(JsonWriter, Strings)
{
    const struct { const char *name; std::string in, out; } cases[] = {
        {"empty", "", "\"\""},
        {"plain", "abc", "\"abc\""},
        {"quote and slash", "a\"b\\c", R"("a\"b\\c")"},
        {"controls", std::string("\0\b\t\n\f\r\x1f\x7f", 8), "\"\\u0000\\b\\t\\n\\f\\r\\u001f\x7f\""},
        {"UTF-8", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"stray byte", "a\xff""b", "\"a\xef\xbf\xbd""b\""},
        {"cut character", "a\xe2\x82", "\"a\xef\xbf\xbd\xef\xbf\xbd\""},
        {"overlong", "\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"surrogate", "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"beyond Unicode", "\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(text_json(c.in), c.out);
    }
}

/* Every byte at every place of a block, against a plain rule. */
TEST(JsonWriter, EveryByteAtEveryPlace)
{
    const auto expect_plain_rule = [](const std::string &in) {
        std::string out = "\"";
        for (char ch : in) {
            char buf[8];
            if (ch == '"' || ch == '\\') out += std::string("\\") + ch;
            else if (ch == '\n') out += "\\n";
            else if (ch == '\r') out += "\\r";
            else if (ch == '\t') out += "\\t";
            else if (ch == '\b') out += "\\b";
            else if (ch == '\f') out += "\\f";
            else if (static_cast<unsigned char>(ch) < 32) snprintf(buf, sizeof buf, "\\u%04x", ch), out += buf;
            else out += ch;
        }
        ASSERT_EQ(text_json(in), out + "\"");
    };
    for (int c = 0; c < 128; c++)
        for (size_t at = 0; at < 40; at++) {
            std::string in(40, 'x');
            in[at] = static_cast<char>(c);
            ASSERT_NO_FATAL_FAILURE(expect_plain_rule(in)) << c << " at " << at;
        }
    for (const char *what :
         {"", "\"", "\\", "\x1f", " ", "\x7f", "\xc3\xa9", "\xf0\x9f\x98\x80"}) /* blocks of 64 bytes, and less */
        for (size_t at = 0; at < 133; at++) {
            std::string in(133, 'x');
            ASSERT_NO_FATAL_FAILURE(expect_plain_rule(in.replace(at, strlen(what), what))) << what << " at " << at;
            ASSERT_NO_FATAL_FAILURE(expect_plain_rule(in.substr(0, at + strlen(what)))) << what << " ends " << at;
        }
}

/* Texts longer than the chunk between looks at the room left, with characters over its borders. */
TEST(JsonWriter, LongTexts)
{
    for (size_t shift = 0; shift < 5; shift++) {
        std::string in(shift, 'a'), out;
        for (int i = 0; i < 20000; i++) in += i % 3 ? "\xe2\x82\xac" : "\"";
        for (char ch : in) out += ch == '"' ? std::string("\\\"") : std::string(1, ch);
        ASSERT_EQ(text_json(in), "\"" + out + "\"");
    }
    EXPECT_EQ(text_json(std::string(100000, '\x01')).size(), 600002u);
}

TEST(JsonWriter, Numbers)
{
    const struct { double v; const char *f64, *f32; } cases[] = {
        {0.0, "0.0", "0.0"}, {-0.0, "-0.0", "-0.0"}, {1.0, "1.0", "1.0"}, {0.1, "0.1", "0.1"}, {-2.5, "-2.5", "-2.5"},
        {1e300, "1e+300", "null"}, {1.0 / 3, "0.3333333333333333", "0.33333334"}, {std::nan(""), "null", "null"},
        {INFINITY, "null", "null"}, {-INFINITY, "null", "null"}, {123456789.0, "123456789.0", "123456792.0"},
        {5e-324, "5e-324", "0.0"}};
    for (const auto &c : cases) {
        EXPECT_EQ(real_json(c.v), c.f64);
        EXPECT_EQ(real_json(c.v, "float32"), c.f32);
    }
    EXPECT_EQ(real_json(0.333251953125, "float16"), "0.33325195");
    EXPECT_EQ(real_json(6.0e-8, "float16"), "5.9604645e-08");
    std::mt19937_64 rng(7);
    for (int i = 0; i < 20000; i++) {
        const uint64_t bits = rng();
        double v;
        memcpy(&v, &bits, 8);
        if (!std::isfinite(v)) continue;
        ASSERT_EQ(strtod(real_json(v).c_str(), nullptr), v) << "the text reads back to the same bits";
    }
}

TEST(JsonWriter, OtherTypes)
{
    EXPECT_EQ(text_json("", "json"), "null");
    EXPECT_EQ(text_json("{\n\"a\":\r\n1}", "json"), "{ \"a\":\r 1}");
    EXPECT_EQ(text_json("", "binary"), "\"\"");
    EXPECT_EQ(text_json("M", "binary"), "\"TQ==\"");
    EXPECT_EQ(text_json("Ma", "binary"), "\"TWE=\"");
    EXPECT_EQ(text_json("Man", "binary"), "\"TWFu\"");
    EXPECT_EQ(text_json("\xff\xff\xff\xff", "binary"), "\"/////w==\"");
    EXPECT_EQ(column_json("int64", 2, [](mill_builder *b, int64_t r) { mill_builder_int(b, r ? INT64_MIN : INT64_MAX); }),
              "{\"a\":9223372036854775807}\n{\"a\":-9223372036854775808}\n");
}

/* Slices: every access must add the offset of the view, also of children. */
TEST(JsonWriter, Slices)
{
    mt::Pool pool;
    mt::Columns c(
        {"b: bool", "i: int32", "t: utf8", "l: list<int64>", "e: fixed_list<float32>[2]", "s: struct<x: bool, y: list<utf8>>"});
    std::vector<std::string> lines;
    for (int i = 0; i < 30; i++) {
        const std::string n = std::to_string(i);
        lines.push_back(i % 5 == 4 ? R"({"b":null,"i":null,"t":null,"l":null,"e":null,"s":null})"
                                   : "{\"b\":" + std::string(i % 3 ? "true" : "false") + ",\"i\":" + n + ",\"t\":\"t" + n +
                                         "\",\"l\":[" + n + ",null],\"e\":[" + n +
                                         ".5,0.0],\"s\":{\"x\":" + (i % 2 ? "true" : "false") + ",\"y\":[\"" + n + "\"]}}");
    }
    mill_batch *all = mt::from_json(pool, c, lines), *cut = nullptr;
    ASSERT_EQ(stm_batch_slice(all, 9, 13, &cut), MILL_OK);
    std::string expected;
    for (int i = 9; i < 22; i++) expected += lines[static_cast<size_t>(i)] + "\n";
    EXPECT_EQ(mt::to_json(cut, c.names), expected);
    mill_batch_destroy(&cut);
    mill_batch_destroy(&all);
}

TEST(JsonWriter, OmitsNullsAndAddsKeys)
{
    mt::Pool pool;
    mt::Columns c({"a: int64", "b\": utf8"});
    mill_batch *batch = mt::from_json(pool, c, {R"({"a":null,"b\"":"x"})", R"({"a":1})", "{}"});
    EXPECT_EQ(mt::to_json(batch, c.names, MILL_JSON_OMIT_NULLS), "{\"b\\\"\":\"x\"}\n{\"a\":1}\n{}\n");
    const char *names[] = {"a"};
    mill_json_writer *w = nullptr;
    ASSERT_EQ(mill_json_writer_create(names, 1, MILL_JSON_OMIT_NULLS, &w), MILL_OK);
    mill_json_writer_batch(w, batch);
    ASSERT_EQ(mill_json_writer_row(w, 2), MILL_OK);
    ASSERT_EQ(mill_json_writer_text(w, "_error", "it \"failed\""), MILL_OK);
    ASSERT_EQ(mill_json_writer_text(w, "none", nullptr), MILL_OK);
    ASSERT_EQ(mill_json_writer_int(w, "row", -5), MILL_OK);
    ASSERT_EQ(mill_json_writer_end(w), MILL_OK);
    size_t n;
    const char *text = mill_json_writer_data(w, &n);
    EXPECT_EQ(std::string(text, n), "{\"_error\":\"it \\\"failed\\\"\",\"row\":-5}\n");
    mill_json_writer_destroy(&w);
    mill_batch_destroy(&batch);
}
