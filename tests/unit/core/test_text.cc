/* Strict parsing, nearest names, JSON escaping, the stable hash. */
#include <gtest/gtest.h>

#include <clocale>
#include <cmath>
#include <cstring>
#include <set>
#include <string>

extern "C" {
#include "core/text.h"
}
#include "support/fail_nth.h"

namespace {

struct BytesCase {
    const char *text;
    int64_t want; /* -1: refused */
};
const BytesCase kBytes[] = {
    {"0", 0},
    {"1000", 1000},
    {"7B", 7},
    {"1kB", 1000},
    {"1KB", 1000},
    {"1kiB", 1024},
    {"1KiB", 1024},
    {"64MiB", 64 << 20},
    {"1.5GB", 1500000000},
    {"1.5 GiB", 1610612736},
    {"0.1KiB", 102},
    {"2TiB", int64_t(2) << 40},
    {"9223372036854775807", INT64_MAX},
    {"8388607TiB", int64_t(8388607) << 40},
    {"8388608TiB", -1},
    {"9223372036854775808", -1},
    {"99999999999999999999", -1},
    {"", -1},
    {"B", -1},
    {"-1", -1},
    {"+1", -1},
    {"1.5", -1},
    {"1.5B", -1},
    {".5GB", -1},
    {"1.GB", -1},
    {"1e3", -1},
    {"0x10", 16},
    {"0xMiB", -1},
    {"0x10MiB", -1},
    {" 1", -1},
    {"1 ", -1},
    {"1  GB", -1},
    {"1gb", -1},
    {"1mib", -1},
    {"1M", -1},
    {"1MiBs", -1},
    {"1,5GB", -1},
    {"inf", -1},
};

TEST(ParseBytes, Table)
{
    for (const BytesCase &c : kBytes) {
        int64_t got = -7;
        EXPECT_EQ(stm_parse_bytes(c.text, &got), c.want >= 0) << c.text;
        EXPECT_EQ(got, c.want >= 0 ? c.want : -7) << c.text;
    }
}

struct FloatCase {
    const char *text;
    bool ok;
    double want;
};

TEST(ParseDuration, Table)
{
    static const FloatCase cases[] = {
        {"10", true, 10},    {"10s", true, 10},   {"1.5h", true, 5400}, {"200ms", true, 0.2},  {"50us", true, 50e-6},
        {"2m", true, 120},   {"2min", true, 120}, {"1d", true, 86400},  {"0.25 s", true, .25}, {"none", true, -1},
        {"", false, 0},      {"s", false, 0},     {"-1s", false, 0},    {"1.s", false, 0},     {".5s", false, 0},
        {"1e3", false, 0},   {"1h30m", false, 0}, {"1H", false, 0},     {"None", false, 0},    {"10 ", false, 0},
        {"10sec", false, 0}, {"inf", false, 0},   {"nan", false, 0},
    };
    for (const FloatCase &c : cases) {
        double got = -7;
        EXPECT_EQ(stm_parse_duration(c.text, &got), c.ok) << c.text;
        EXPECT_DOUBLE_EQ(got, c.ok ? c.want : -7) << c.text;
    }
}

TEST(ParseInt, Table)
{
    static const struct {
        const char *text;
        bool ok;
        int64_t want;
    } cases[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"+5", true, 5},
        {"007", true, 7},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"99999999999999999999999", false, 0},
        {"", false, 0},
        {"-", false, 0},
        {"+-1", false, 0},
        {"1.0", false, 0},
        {"1e3", false, 0},
        {"0x1f", true, 31},
        {"0xFF", true, 255},
        {"0o17", true, 15},
        {"0x7fffffffffffffff", true, INT64_MAX},
        {"0x8000000000000000", false, 0},
        {"0o777777777777777777777", true, INT64_MAX},
        {"0o1000000000000000000000", false, 0},
        {"0x", false, 0},
        {"0xg", false, 0},
        {"0o8", false, 0},
        {"0b1", false, 0},
        {"-0x1", false, 0},
        {"0X1f", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"1k", false, 0},
        {"1_000", false, 0},
    };
    for (const auto &c : cases) {
        int64_t got = -7;
        EXPECT_EQ(stm_parse_int(c.text, &got), c.ok) << c.text;
        EXPECT_EQ(got, c.ok ? c.want : -7) << c.text;
    }
}

TEST(ParseFloat, Table)
{
    static const FloatCase cases[] = {
        {"0", true, 0},
        {"1", true, 1},
        {"-1.5", true, -1.5},
        {"+2.", true, 2},
        {".5", true, .5},
        {"1e3", true, 1000},
        {"1E-3", true, 1e-3},
        {"1.5e+2", true, 150},
        {"0.1", true, 0.1},
        {".inf", true, INFINITY},
        {"-.inf", true, -INFINITY},
        {"inf", true, INFINITY},
        {"4.9e-324", true, 5e-324},
        {"1.7976931348623157e308", true, 1.7976931348623157e308},
        {"", false, 0},
        {".", false, 0},
        {"-", false, 0},
        {"e5", false, 0},
        {"1e", false, 0},
        {"1e+", false, 0},
        {"1e999", false, 0},
        {"nan", false, 0},
        {".nan", false, 0},
        {"0x10", true, 16},
        {"0o10", true, 8},
        {"0x1p3", false, 0},
        {"infinity", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"1,5", false, 0},
        {"1.5.2", false, 0},
        {"--1", false, 0},
    };
    for (const FloatCase &c : cases) {
        double got = -7;
        EXPECT_EQ(stm_parse_float(c.text, &got), c.ok) << c.text;
        EXPECT_EQ(got, c.ok ? c.want : -7) << c.text;
    }
}

/* A program in a locale with a decimal comma must read and write the same files. */
TEST(Numbers, IgnoreTheLocale)
{
    const char *comma = nullptr;
    for (const char *name : {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "fr_FR.utf8"})
        if ((comma = setlocale(LC_NUMERIC, name)) != nullptr) break;
    double v = 0;
    stm_text t = {};
    EXPECT_TRUE(stm_parse_float("2.5", &v));
    EXPECT_EQ(v, 2.5);
    stm_text_addf(&t, "%.1f", 2.5);
    EXPECT_STREQ(t.data, "2.5") << (comma ? comma : "no such locale here");
    stm_text_free(&t);
    setlocale(LC_NUMERIC, "C");
}

TEST(Nearest, Table)
{
    static const char *const names[] = {"read_jsonl", "write_jsonl", "embed_text", "filter", "id", nullptr, "to", ""};
    static const struct {
        const char *name, *want;
    } cases[] = {
        {"read_jsonl", "read_jsonl"},
        {"raed_jsonl", "read_jsonl"},    /* swap */
        {"read_json", "read_jsonl"},     /* missing */
        {"write_jsoonl", "write_jsonl"}, /* one too many */
        {"embad_text", "embed_text"},    /* replaced */
        {"embd_txt", "embed_text"},      /* two of eight */
        {"fitler", "filter"},
        {"ids", "id"},
        {"ot", "to"},
        {"x", nullptr}, /* nothing in common with "id" or "to" */
        {"completely_else", nullptr},
        {"", nullptr},
    };
    for (const auto &c : cases) EXPECT_STREQ(stm_nearest(c.name, names, sizeof names / sizeof names[0]), c.want) << c.name;
    EXPECT_EQ(stm_nearest(std::string(500, 'a').c_str(), names, 5), nullptr);
    EXPECT_EQ(stm_nearest("a", nullptr, 0), nullptr);
}

TEST(Show, Table)
{
    char b[64];
    EXPECT_STREQ(stm_show_bytes(0, b, sizeof b), "0 B");
    EXPECT_STREQ(stm_show_bytes(1023, b, sizeof b), "1023 B");
    EXPECT_STREQ(stm_show_bytes(1024, b, sizeof b), "1 KiB");
    EXPECT_STREQ(stm_show_bytes(1.5 * (1 << 30), b, sizeof b), "1.5 GiB");
    EXPECT_STREQ(stm_show_bytes(-2048, b, sizeof b), "-2 KiB");
    EXPECT_STREQ(stm_show_count(999, b, sizeof b), "999");
    EXPECT_STREQ(stm_show_count(12345, b, sizeof b), "12.3 k");
    EXPECT_STREQ(stm_show_count(999999, b, sizeof b), "1 M");
    EXPECT_STREQ(stm_show_count(123456, b, sizeof b), "123 k");
    EXPECT_STREQ(stm_show_seconds(65, b, sizeof b), "1 min 5 s");
    EXPECT_STREQ(stm_show_seconds(0.0123, b, sizeof b), "12.3 ms");
    EXPECT_STREQ(stm_show_seconds(59.99, b, sizeof b), "1 min 0 s");
    EXPECT_STREQ(stm_show_seconds(4000, b, sizeof b), "1 h 6 min");
    EXPECT_STREQ(stm_show_seconds(200000, b, sizeof b), "2 d 7 h");
    EXPECT_STREQ(stm_show_seconds(NAN, b, sizeof b), "?");
    char small[4];
    EXPECT_STREQ(stm_show_bytes(1024, small, sizeof small), "1 K"); /* cut, never past the end */
}

struct JsonCase {
    const char *name;
    std::string in, want;
};
const std::string kBad = "\xef\xbf\xbd";

TEST(Json, EscapesAndReplacesMalformedUtf8)
{
    static const JsonCase cases[] = {
        {"empty", "", ""},
        {"plain", "abc", "abc"},
        {"quotes", "a\"b\\c", "a\\\"b\\\\c"},
        {"short escapes", "\n\r\t\b\f", "\\n\\r\\t\\b\\f"},
        {"controls", std::string("\0\x01\x1f\x7f", 4), "\\u0000\\u0001\\u001f\x7f"},
        {"well formed", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"limits", "\xc2\x80\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\xc2\x80\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"},
        {"lone continuation", "a\x80z", "a" + kBad + "z"},
        {"overlong two", "\xc0\xaf", kBad + kBad},
        {"overlong three", "\xe0\x80\xaf", kBad + kBad + kBad},
        {"surrogate", "\xed\xa0\x80", kBad + kBad + kBad},
        {"past the end", "\xf4\x90\x80\x80", kBad + kBad + kBad + kBad},
        {"cut short", "x\xe2\x82", "x" + kBad},
        {"cut by a quote", "\xf0\x9f\x98\"", kBad + "\\\""},
        {"ff", "\xff\xfe", kBad + kBad},
    };
    for (const JsonCase &c : cases) {
        stm_text t = {};
        stm_text_add_json(&t, c.in.data(), c.in.size());
        EXPECT_EQ(std::string(t.data ? t.data : "", t.bytes), c.want) << c.name;
        stm_text_free(&t);
    }
}

TEST(Text, GrowsAndStaysFailed)
{
    stm_text t = {};
    for (int i = 0; i < 1000; i++) stm_text_addf(&t, "%d,", i);
    EXPECT_EQ(t.bytes, 3890u);
    EXPECT_EQ(strlen(t.data), t.bytes);
    stm_text_free(&t);
    EXPECT_EQ(t.data, nullptr);

    const long before = mt::live();
    {
        mt::FailNth fail(0);
        stm_text_add(&t, "abc", 3);
        EXPECT_TRUE(fail.fired());
    }
    EXPECT_TRUE(t.failed);
    stm_text_add(&t, "def", 3);
    stm_text_addf(&t, "%d", 1);
    EXPECT_EQ(t.bytes, 0u);
    stm_text_free(&t);
    EXPECT_FALSE(t.failed);
    EXPECT_EQ(mt::live(), before);
}

/* Values are written into run directories: they must never change. */
TEST(Hash, IsStable)
{
    EXPECT_EQ(stm_hash64("", 0, 0), 0xa2f7c0a7dd7787f5u);
    EXPECT_EQ(stm_hash64("a", 1, 0), 0x1e84dcdc42d042d5u);
    EXPECT_EQ(stm_hash64("stepmill", 8, 7), 0x87ba3cf5eee678dfu);
    EXPECT_EQ(stm_hash64("near-duplicates", 15, 7), 0x79d287909dab9582u);
}

TEST(Hash, LongIsStableAndTellsApart)
{
    std::string text(300, 'x');
    std::set<uint64_t> seen = {stm_hash64_long(text.data(), text.size(), 7)};
    EXPECT_EQ(*seen.begin(), 0x5009760100a7e240u);
    for (size_t n = 0; n < text.size(); n++) seen.insert(stm_hash64_long(text.data(), n, 7));
    for (size_t bit = 0; bit < 8 * text.size(); bit++) {
        text[bit / 8] ^= static_cast<char>(1 << bit % 8);
        seen.insert(stm_hash64_long(text.data(), text.size(), 7));
        text[bit / 8] ^= static_cast<char>(1 << bit % 8);
    }
    for (size_t at = 0; at + 32 < text.size(); at += 8) { /* words that change places, lanes and rounds */
        std::string other = text;
        other[at] = 'y';
        const std::string word = other.substr(at, 8);
        other.replace(at, 8, text.substr(at, 8)).replace(at + 8, 8, word);
        seen.insert(stm_hash64_long(other.data(), other.size(), 8));
    }
    EXPECT_EQ(seen.size(), 1 + 300 + 2400 + 34u);
}

TEST(Hash, TellsApart)
{
    std::set<uint64_t> seen;
    std::string zeros(64, '\0');
    for (size_t n = 0; n <= zeros.size(); n++) seen.insert(stm_hash64(zeros.data(), n, 0)); /* length counts */
    for (uint64_t seed = 1; seed <= 1000; seed++) seen.insert(stm_hash64("x", 1, seed));
    for (int64_t i = 0; i < 10000; i++) seen.insert(stm_hash64(&i, sizeof i, 0));
    EXPECT_EQ(seen.size(), 65u + 1000 + 10000 - 1); /* i = 0 is eight zeros, seen before */
}

/* Each input bit moves about half of the output bits. */
TEST(Hash, Avalanches)
{
    double total = 0;
    for (int bit = 0; bit < 128; bit++) {
        unsigned char a[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
        const uint64_t h = stm_hash64(a, sizeof a, 3);
        a[bit / 8] ^= 1u << (bit % 8);
        const int moved = __builtin_popcountll(h ^ stm_hash64(a, sizeof a, 3));
        EXPECT_GT(moved, 12) << bit;
        total += moved;
    }
    EXPECT_NEAR(total / 128, 32, 2);
}

} // namespace
