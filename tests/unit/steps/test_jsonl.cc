#include "rows.h"
#include "steps/jsonl/walk.h"

#include <iterator>
#include <random>

namespace {

/* One line through a parser with these columns: the row as JSON, or "!byte column cause". */
std::string one(const std::vector<std::string> &columns, const std::string &line, bool extra = true)
{
    mt::Pool pool;
    mt::Columns c(columns);
    stm_jsonl *p = nullptr;
    EXPECT_EQ(stm_jsonl_create(pool, c.fields.data(), static_cast<int32_t>(c.fields.size()), extra, &p), MILL_OK);
    EXPECT_EQ(stm_jsonl_begin(p, 3), MILL_OK);
    stm_jsonl_fault f = {};
    const std::string good = mt::padded(line);
    const mill_status st = stm_jsonl_row(p, good.data(), line.size(), &f);
    EXPECT_EQ(stm_jsonl_rows(p), 1);
    mill_batch *batch = nullptr;
    mill_error err = {};
    EXPECT_EQ(stm_jsonl_finish(p, &batch, &err), MILL_OK) << err.msg;
    for (int32_t i = 0; i < mill_batch_columns(batch); i++) {
        EXPECT_EQ(stm_column_validate(mill_batch_column(batch, i), &err), MILL_OK) << err.msg;
    }
    std::vector<std::string> names = c.names;
    if (extra) names.push_back("extra");
    std::string out = mt::to_json(batch, names);
    if (st == MILL_ERR_DATA) {
        for (int32_t i = 0; i < mill_batch_columns(batch); i++)
            EXPECT_TRUE(mill_column_is_null(mill_batch_column(batch, i), 0)) << "a bad row has only nulls";
        out = "!" + std::to_string(f.byte) + " " + f.column + ": " + f.cause;
    } else {
        EXPECT_EQ(st, MILL_OK);
        EXPECT_EQ(stm_jsonl_scan::walk(good.data(), line.size(), good.data() + line.size()).fault, nullptr) << "the slow walk, too";
        out.pop_back();
    }
    mill_batch_destroy(&batch);
    stm_jsonl_destroy(&p);
    return out;
}

struct Case {
    const char *name;
    std::vector<std::string> columns;
    std::string line, expected;
};

std::string deep(int n)
{
    return "{\"a\":" + std::string(static_cast<size_t>(n), '[') + std::string(static_cast<size_t>(n), ']') + "}";
}

} // namespace

TEST(Jsonl, GoodLines)
{
    const Case cases[] = {
        {"utf8", {"a: utf8"}, R"({"a":"x y"})", R"({"a":"x y","extra":null})"},
        {"space everywhere", {"a: int64"}, " \t{ \"a\" : 1 , \"b\" : 2 } \r", R"({"a":1,"extra":{"b":2}})"},
        {"escapes",
         {"a: utf8"},
         R"({"a":"q\"b\\s\/n\nt\tr\rb\bf\fu\u0041\u00e9\u20ac\ud83d\ude00"})",
         "{\"a\":\"q\\\"b\\\\s/n\\nt\\tr\\rb\\bf\\fuA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\",\"extra\":null}"},
        {"NUL by escape", {"a: utf8"}, R"({"a":"x\u0000y"})", R"({"a":"x\u0000y","extra":null})"},
        {"16 and 17 bytes, then an escape",
         {"a: utf8", "b: utf8"},
         R"({"a":"0123456789abcdef","b":"0123456789abcdefg\"h"})",
         R"({"a":"0123456789abcdef","b":"0123456789abcdefg\"h","extra":null})"},
        {"int64 limits",
         {"a: int64", "b: int64"},
         R"({"a":9223372036854775807,"b":-9223372036854775808})",
         R"({"a":9223372036854775807,"b":-9223372036854775808,"extra":null})"},
        {"int32 limits",
         {"a: int32", "b: int32"},
         R"({"a":2147483647,"b":-2147483648})",
         R"({"a":2147483647,"b":-2147483648,"extra":null})"},
        {"floats",
         {"a: float64", "b: float64", "c: float32"},
         R"({"a":1,"b":-1.5e-3,"c":0.1})",
         R"({"a":1.0,"b":-0.0015,"c":0.1,"extra":null})"},
        {"exponents with zeros in front",
         {"a: float64", "b: float32", "c: list<float64>", "d: json"},
         R"({"a":34E000000000000000000001,"b":2e+0000000000000000000003 ,)"
         R"("c":[15e-00000000000000000000001,2],"d":1e0000000000000000000001})",
         R"({"a":340.0,"b":2000.0,"c":[1.5,2.0],"d":1e0000000000000000000001,"extra":null})"},
        {"float16", {"a: float16"}, R"({"a":0.5})", R"({"a":0.5,"extra":null})"},
        {"bools", {"a: bool", "b: bool"}, R"({"a":true,"b":false})", R"({"a":true,"b":false,"extra":null})"},
        {"nulls",
         {"a: bool", "b: int64", "c: utf8", "d: list<int64>", "e: json"},
         R"({"a":null,"b":null,"c":null,"d":null,"e":null})",
         R"({"a":null,"b":null,"c":null,"d":null,"e":null,"extra":null})"},
        {"missing keys",
         {"a: bool", "b: int64", "c: utf8", "d: list<int64>", "e: json"},
         R"({})",
         R"({"a":null,"b":null,"c":null,"d":null,"e":null,"extra":null})"},
        {"another order", {"a: int64", "b: int64", "c: int64"}, R"({"c":3,"a":1,"b":2})", R"({"a":1,"b":2,"c":3,"extra":null})"},
        {"json as read", {"a: json"}, R"({"a": [1, {"b" : null}, "x"] })", R"({"a":[1, {"b" : null}, "x"],"extra":null})"},
        {"json scalars",
         {"a: json", "b: json", "c: json"},
         R"({"a":"s","b":1.50,"c":true})",
         R"({"a":"s","b":1.50,"c":true,"extra":null})"},
        {"json whole number beyond 64 bits",
         {"a: json"},
         R"({"a":123456789012345678901234567890})",
         R"({"a":123456789012345678901234567890,"extra":null})"},
        {"extra keys",
         {"b: int64"},
         R"({"a":[1],"b":2,"c":"x\u0041","d":null})",
         R"({"b":2,"extra":{"a":[1],"c":"x\u0041","d":null}})"},
        {"escaped key", {"ab: int64"}, R"({"\u0061b":1,"q\"":2})", R"({"ab":1,"extra":{"q\"":2}})"},
        {"key with a quote", {"q\": int64"}, R"({"q\"":2})", R"({"q\"":2,"extra":null})"},
        {"key that is another's beginning", {"a: int64", "ab: int64"}, R"({"ab":1,"a":2})", R"({"a":2,"ab":1,"extra":null})"},
        {"empty name", {": int64"}, R"({"":1})", R"({"":1,"extra":null})"},
        {"list", {"a: list<int64>"}, R"({"a":[1,null,3]})", R"({"a":[1,null,3],"extra":null})"},
        {"empty list", {"a: list<utf8>"}, R"({"a":[]})", R"({"a":[],"extra":null})"},
        {"largest float16", {"a: list<float16>"}, R"({"a":[65519,-65504,1e-30]})", R"({"a":[65504.0,-65504.0,0.0],"extra":null})"},
        {"embedding", {"a: fixed_list<float32>[3]"}, R"({"a":[1,2.5,-3e2]})", R"({"a":[1.0,2.5,-300.0],"extra":null})"},
        {"struct", {"a: struct<x: int64, y: utf8>"}, R"({"a":{"y":"t"}})", R"({"a":{"x":null,"y":"t"},"extra":null})"},
        {"list of lists", {"a: list<list<int64>>"}, R"({"a":[[1],[],[2,3]]})", R"({"a":[[1],[],[2,3]],"extra":null})"},
        {"deep, but not too deep",
         {"a: json"},
         deep(500),
         "{\"a\":" + std::string(500, '[') + std::string(500, ']') + ",\"extra\":null}"},
    };
    for (const Case &c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(one(c.columns, c.line), c.expected);
    }
}

TEST(Jsonl, BadLines)
{
    const std::string nul("{\"a\":\"x\0y\"}", 11);
    const Case cases[] = {
        {"no object", {"a: int64"}, "[1]", "!1 : expected an object of JSON"},
        {"a word", {"a: int64"}, "hello", "!1 : expected an object of JSON"},
        {"cut off", {"a: int64"}, R"({"a":1)", "!7 : an object is not closed"},
        {"string cut off", {"a: utf8"}, R"({"a":"x)", "!6 : a string has no closing quote"},
        {"more behind it", {"a: int64"}, R"({"a":1} {"a":2})", "!9 : there is more behind the object"},
        {"text behind it", {"a: int64"}, R"({"a":1} x)", "!9 : there is more behind the object"},
        {"no comma", {"a: int64"}, R"({"a":1 "b":2})", "!8 : expected a comma or }"},
        {"no colon", {"a: int64"}, R"({"a" 1})", "!6 : expected a colon"},
        {"comma at the end", {"a: int64"}, R"({"a":1,})", "!8 : expected a key in double quotes"},
        {"single quotes", {"a: int64"}, R"({'a':1})", "!2 : expected a key in double quotes"},
        {"control character", {"a: utf8"}, "{\"a\":\"x\ty\"}", "!8 : a string holds a control character"},
        {"NUL byte", {"a: utf8"}, nul, "!8 : a string holds a control character"},
        {"not UTF-8", {"a: utf8"}, "{\"a\":\"x\xff\"}", "!8 : the text is not UTF-8"},
        {"overlong UTF-8", {"a: utf8"}, "{\"a\":\"x\xc0\xaf\"}", "!8 : the text is not UTF-8"},
        {"half a surrogate", {"a: utf8"}, R"({"a":"\ud83d"})", "!7 : a string holds a malformed escape"},
        {"low surrogate first", {"a: utf8"}, R"({"a":"\ude00"})", "!7 : a string holds a malformed escape"},
        {"unknown escape", {"a: utf8"}, R"({"a":"\x"})", "!7 : a string holds a malformed escape"},
        {"short escape", {"a: utf8"}, R"({"a":"\u12"})", "!7 : a string holds a malformed escape"},
        {"malformed number", {"a: int64"}, R"({"a":01})", "!6 : a number is malformed or out of range"},
        {"malformed number in json", {"a: json"}, R"({"a":[1,-]})", "!9 : a number is malformed or out of range"},
        {"word in json", {"a: json"}, R"({"a":[tru]})", "!7 : a word that is not true, false or null"},
        {"mismatched brackets", {"a: json"}, R"({"a":[1}])", "!8 : expected a comma or ]"},
        {"bad escape in json", {"a: json"}, R"({"a":["\q"]})", "!8 : a string holds a malformed escape"},
        {"bad value in an unknown key", {"a: int64"}, R"({"a":1,"b":tru})", "!12 : a word that is not true, false or null"},
        {"too deep", {"a: json"}, deep(2000), "!1029 : values are nested too deeply"},
        {"text for int64", {"a: int64"}, R"({"a":"x"})", "!6 a: expected int64, found \"x\""},
        {"real for int64", {"a: int64"}, R"({"a":1.5})", "!6 a: expected int64, found 1.5"},
        {"beyond int64", {"a: int64"}, R"({"a":9223372036854775808})", "!6 a: expected int64, found 9223372036854775808"},
        {"beyond int32", {"a: int32"}, R"({"a":2147483648})", "!6 a: expected int32, found 2147483648"},
        {"beyond float32", {"a: float32"}, R"({"a":1e39})", "!6 a: expected float32, found 1e39"},
        {"beyond float64", {"a: float64"}, R"({"a":1e00000000000000000000400})", "!6 : a number is malformed or out of range"},
        {"beyond float16", {"a: float16"}, R"({"a":100000})", "!6 a: expected float16, found 100000"},
        {"just beyond float16", {"a: float16"}, R"({"a":-65520,"b":1})", "!6 a: expected float16, found -65520"},
        {"far beyond float16", {"a: float16"}, R"({"a":3e9})", "!6 a: expected float16, found 3e9"},
        {"beyond float32 in a list",
         {"a: fixed_list<float32>[3]"},
         R"({"a":[1,2,1e39]})",
         "!6 a: expected fixed_list<float32>[3], found 1e39"},
        {"beyond float16 in a struct",
         {"a: struct<x: list<float16>>"},
         R"({"a":{"x":[-1e5]}})",
         "!6 a: expected struct<x: list<float16>>, found -1e5"},
        {"beyond float64", {"a: float64"}, R"({"a":1e999})", "!6 : a number is malformed or out of range"},
        {"number for utf8", {"a: utf8"}, R"({"a":5})", "!6 a: expected utf8, found 5"},
        {"object for utf8", {"a: utf8"}, R"({"a":{"b":[1,2]}})", "!6 a: expected utf8, found {\"b\":[1,2]}"},
        {"number for bool", {"a: bool"}, R"({"a":0})", "!6 a: expected bool, found 0"},
        {"long value",
         {"a: bool"},
         "{\"a\":\"" + std::string(100, 'x') + "\"}",
         "!6 a: expected bool, found \"" + std::string(36, 'x') + "..."},
        {"scalar for list", {"a: list<int64>"}, R"({"a":1})", "!6 a: expected list<int64>, found 1"},
        {"text in a list", {"a: list<int64>"}, R"({"a":[1,"x"]})", "!6 a: expected list<int64>, found \"x\""},
        {"short embedding",
         {"a: fixed_list<float32>[3]"},
         R"({"a":[1,2]})",
         "!6 a: expected fixed_list<float32>[3], found 2 values"},
        {"unknown field",
         {"a: struct<x: int64>"},
         R"({"a":{"z":1}})",
         "!6 a: expected struct<x: int64>, found the unknown field z"},
        {"key twice", {"a: int64"}, R"({"a":1,"a":2})", "!8 a: the key occurs twice"},
        {"second column", {"a: int64", "b: int64"}, R"({"a":1, "b" : "x" , "c":1})", "!15 b: expected int64, found \"x\""},
        {"cut behind a key", {"a: int64"}, R"({"a")", "!5 : an object is not closed"},
        {"cut in a list", {"a: json"}, R"({"a":[1, )", "!10 : a list is not closed"},
        {"cut in an escape", {"a: utf8"}, R"({"a":"x\)", "!6 : a string has no closing quote"},
        {"cut in a word", {"a: bool"}, R"({"a":tr)", "!6 : a word that is not true, false or null"},
        {"two commas", {"a: int64"}, R"({"a":1,,"b":2})", "!8 : expected a key in double quotes"},
        {"list that ends in a comma", {"a: json"}, R"({"a":[1,]})", "!9 : expected a value"},
        {"control character outside of strings", {"a: int64"}, "{\"a\":\x01 1}", "!6 : expected a value"},
        {"number and more", {"a: json"}, R"({"a":[1x]})", "!7 : a number is malformed or out of range"},
        {"NUL behind a real", {"a: float64"}, std::string("{\"a\":1.5\0}", 10), "!6 : a number is malformed or out of range"},
        {"NUL behind a real of no column",
         {"b: int64"},
         std::string("{\"a\":1.5\0;x}", 12),
         "!6 : a number is malformed or out of range"},
        {"NUL behind a whole number", {"a: int64"}, std::string("{\"a\":15\0}", 9), "!6 : a number is malformed or out of range"},
        {"bad key", {"a: int64"}, R"({"\q":1})", "!3 : a string holds a malformed escape"},
    };
    for (const Case &c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(one(c.columns, c.line), c.expected);
    }
}

/* Good and bad rows in turn: a bad one leaves nothing behind in its neighbours, in columns of every kind. */
TEST(Jsonl, BadRowsLeaveNoTrace)
{
    mt::Pool pool;
    mt::Columns c({"a: utf8", "b: bool", "c: int64", "d: list<int64>", "e: json", "f: struct<x: list<utf8>>", "z: int64"});
    stm_jsonl *p = nullptr;
    ASSERT_EQ(stm_jsonl_create(pool, c.fields.data(), 7, true, &p), MILL_OK);
    const std::string good = R"({"a":"text","b":true,"c":7,"d":[1,2],"e":{"k":1},"f":{"x":["u"]},"z":9,"w":5})";
    const std::string out = R"({"a":"text","b":true,"c":7,"d":[1,2],"e":{"k":1},"f":{"x":["u"]},"z":9,"extra":{"w":5}})" "\n";
    const std::string bad = R"({"a":"bad","b":true,"c":8,"d":[3,4],"e":{"k":2},"f":{"x":["v"]},"w":6,"z":"misfit"})";
    const std::string null = R"({"a":null,"b":null,"c":null,"d":null,"e":null,"f":null,"z":null,"extra":null})" "\n";
    for (int round = 0; round < 3; round++) {
        ASSERT_EQ(stm_jsonl_begin(p, 40), MILL_OK);
        std::string expected;
        for (int i = 0; i < 40; i++) {
            stm_jsonl_fault f = {};
            const std::string line = mt::padded(i % 3 == round ? bad : good);
            ASSERT_EQ(stm_jsonl_row(p, line.data(), line.size() - 64, &f), i % 3 == round ? MILL_ERR_DATA : MILL_OK);
            expected += i % 3 == round ? null : out;
        }
        stm_jsonl_fault f = {};
        EXPECT_EQ(stm_jsonl_row(p, mt::padded("{}").data(), 2, &f), MILL_ERR_INVALID) << "the batch is full";
        mill_batch *batch = nullptr;
        mill_error err = {};
        ASSERT_EQ(stm_jsonl_finish(p, &batch, &err), MILL_OK) << err.msg;
        auto names = c.names;
        names.push_back("extra");
        EXPECT_EQ(mt::to_json(batch, names), expected);
        mill_batch_destroy(&batch);
    }
    stm_jsonl_destroy(&p);
}

/* Good lines with one to three bytes changed, cut or doubled: whatever comes of it, both ways to read a row agree. */
TEST(Jsonl, TheQuickWayReadsAsTheOther)
{
    const std::vector<std::string> columns = {"a: int64", "text: utf8", "score: float64", "seen: bool", "a rather long name: utf8"};
    const std::string seeds[] = {
        R"({"a":12,"text":"a few words, more than sixteen bytes","score":0.25,"seen":true,"a rather long name":"x"})",
        R"( { "a" : -9223372036854775808 , "text" : "q\"b\\ \u00e9\ud83d\ude00 end" , "score" : -1.5e-3 , "seen" : false } )",
        "{\"a\":null,\"text\":\"gr\xc3\xbc\xc3\x9f\x65 \xe2\x82\xac \xf0\x9f\x98\x80\",\"score\":1e308,\"seen\":null}",
        R"({"a":0,"text":"","score":-0.0})",
        R"({"a":9223372036854775807,"text":"0123456789abcdef"})",
        R"({"a":1,"text":"t","score":3456E0000000000000000000000123})",
        "{\"a\":1,\"text\":\"" + std::string(70, 'x') +
            "gr\xc3\xbc\xc3\x9f\x65 \\n\\u20ac\\\\ and some more words than fit into a block or two\",\"score\":1}",
    };
    const std::string alphabet = "\"\\{}[]:, \t\n\x01\x7f\x80\xc3\xff-+.eE0123456789nulltruefalse";
    mt::Pool pool;
    mt::Columns c(columns);
    std::mt19937 random(20261122);
    const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
    std::vector<std::string> names = c.names;
    names.push_back("extra");
    stm_jsonl *p[2] = {};
    int good = 0;
    for (int round = 0; round < 20000; round++) {
        if (round % 20 == 0) { /* a parser gives the quick way up where it is in vain too often */
            for (auto *&x : p) {
                stm_jsonl_destroy(&x);
                ASSERT_EQ(stm_jsonl_create(pool, c.fields.data(), static_cast<int32_t>(c.fields.size()), true, &x), MILL_OK);
            }
            stm_jsonl_no_quick(p[1]);
        }
        std::string line = seeds[below(std::size(seeds))];
        for (size_t k = below(4); k > 0; k--) {
            const size_t at = below(line.size());
            if (below(3) == 0) line.erase(at, 1 + below(3));
            else if (below(2) == 0) line.insert(at, 1, alphabet[below(alphabet.size())]);
            else line[at] = alphabet[below(alphabet.size())];
        }
        for (char &ch : line) ch = ch == '\n' ? ' ' : ch; /* a line has none */
        const std::string text = mt::padded(line);
        mill_status st[2];
        stm_jsonl_fault f[2] = {};
        std::string row[2];
        for (int w = 0; w < 2; w++) {
            mill_batch *batch = nullptr;
            ASSERT_EQ(stm_jsonl_begin(p[w], 1), MILL_OK);
            st[w] = stm_jsonl_row(p[w], text.data(), line.size(), &f[w]);
            ASSERT_EQ(stm_jsonl_finish(p[w], &batch, nullptr), MILL_OK);
            row[w] = mt::to_json(batch, names);
            mill_batch_destroy(&batch);
        }
        ASSERT_EQ(st[0], st[1]) << line;
        ASSERT_EQ(row[0], row[1]) << line;
        ASSERT_STREQ(f[0].cause, f[1].cause) << line;
        ASSERT_EQ(f[0].byte, f[1].byte) << line;
        good += st[0] == MILL_OK;
    }
    EXPECT_GT(good, 3000) << "too few good lines to compare";
    for (auto *&x : p) stm_jsonl_destroy(&x);
}

TEST(Jsonl, SteadyStateAllocatesNothingFromThePool)
{
    mt::Pool pool;
    mt::Columns c({"a: utf8", "b: int64", "c: list<float32>"});
    stm_jsonl *p = nullptr;
    ASSERT_EQ(stm_jsonl_create(pool, c.fields.data(), 3, true, &p), MILL_OK);
    const std::string line = mt::padded(R"({"a":"some text","b":12,"c":[1,2,3],"d":{"x":[1,2]}})");
    int64_t misses = 0;
    for (int round = 0; round < 20; round++) {
        ASSERT_EQ(stm_jsonl_begin(p, 64), MILL_OK);
        for (int i = 0; i < 64; i++) {
            stm_jsonl_fault f = {};
            ASSERT_EQ(stm_jsonl_row(p, line.data(), line.size() - 64, &f), MILL_OK);
        }
        mill_batch *batch = nullptr;
        mill_error err = {};
        ASSERT_EQ(stm_jsonl_finish(p, &batch, &err), MILL_OK);
        mill_batch_destroy(&batch);
        if (round == 3) misses = stm_pool_counts(pool).misses;
    }
    EXPECT_EQ(stm_pool_counts(pool).misses, misses);
    stm_jsonl_destroy(&p);
}

TEST(Jsonl, PoolLimitIsAnError)
{
    mill_pool *pool = nullptr;
    ASSERT_EQ(stm_pool_create(4096, &pool), MILL_OK);
    mt::Columns c({"a: utf8"});
    stm_jsonl *p = nullptr;
    ASSERT_EQ(stm_jsonl_create(pool, c.fields.data(), 1, false, &p), MILL_OK);
    EXPECT_EQ(stm_jsonl_begin(p, 1 << 20), MILL_ERR_NOMEM);
    stm_jsonl_destroy(&p);
    EXPECT_EQ(stm_pool_counts(pool).live_bytes, 0);
    stm_pool_release(&pool);
}

TEST(JsonlGuess, TypesFromValues)
{
    const struct { const char *name; std::vector<std::string> lines; const char *expected; } cases[] = {
        {"one of each", {R"({"b":true,"i":1,"f":1.5,"t":"x","l":[1],"o":{"a":1},"n":null})"},
         "b bool, i int64, f float64, t utf8, l json, o json, n json"},
        {"whole then real", {R"({"a":1})", R"({"a":1.5})"}, "a float64"},
        {"number then text", {R"({"a":1})", R"({"a":"x"})"}, "a json"},
        {"null then text", {R"({"a":null})", R"({"a":"x"})"}, "a utf8"},
        {"beyond int64", {R"({"a":18446744073709551615})"}, "a json"},
        {"exponent", {R"({"a":1e3})"}, "a float64"},
        {"order of first appearance", {R"({"b":1})", R"({"a":1,"b":2})"}, "b int64, a int64"},
        {"bad lines teach nothing", {"nonsense", R"({"x":1)", R"({"a":1, "y":tru})", R"({"a":"t"})"}, "a utf8"},
        {"escaped key", {R"({"\u0061":1})", R"({"a":2})"}, "a int64"},
        {"nothing", {}, ""},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        stm_jsonl_guess *g = nullptr;
        ASSERT_EQ(stm_jsonl_guess_create(&g), MILL_OK);
        for (const std::string &line : c.lines) ASSERT_EQ(stm_jsonl_guess_line(g, mt::padded(line).c_str(), line.size()), MILL_OK);
        std::string got;
        for (int32_t i = 0; i < stm_jsonl_guess_count(g); i++) {
            const mill_field f = stm_jsonl_guess_field(g, i);
            char type[64];
            mill_type_format(f.type, type, sizeof type);
            got += (got.empty() ? "" : ", ") + std::string(f.name) + " " + type;
        }
        EXPECT_EQ(got, c.expected);
        stm_jsonl_guess_destroy(&g);
    }
}

TEST(JsonlGuess, KeysBeyondTheLimitAreLeftOut)
{
    stm_jsonl_guess *g = nullptr;
    ASSERT_EQ(stm_jsonl_guess_create(&g), MILL_OK);
    std::string line = "{";
    for (int i = 0; i < STM_JSONL_GUESS_MAX + 50; i++) line += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":1";
    line += "}";
    ASSERT_EQ(stm_jsonl_guess_line(g, mt::padded(line).c_str(), line.size()), MILL_OK);
    EXPECT_EQ(stm_jsonl_guess_count(g), STM_JSONL_GUESS_MAX);
    stm_jsonl_guess_destroy(&g);
}
