/* Steps that move columns and rows about: select, explode, limit, route_by, round_robin. */
#include <gtest/gtest.h>

#include "support/chain.h"

using mt::Chain;
using mt::Folder;
using mt::Params;
using mt::Value;

namespace {

std::string fault(const Chain &c)
{
    const std::string m = c.error.msg;
    return "error: " + (m.compare(0, 11, "parameter \"") == 0 ? m.substr(m.find("\": ") + 3) : m);
}

std::string through(const std::string &in, const std::string &type, const Params &params, const Value &columns = Value(""),
                    int64_t batch_rows = 0)
{
    Folder f;
    Chain c;
    Chain::Opts o;
    o.batch_rows = batch_rows;
    c.dir = f.path;
    Params p = {{"path", f.put("in.jsonl", in)}, {"extra", ""}};
    if (columns.kind == Value::kMap) p.emplace_back("columns", columns);
    c.add("in", "read_jsonl", p, o).add("step", type, params).add("out", "write_jsonl", {{"path", "out.jsonl"}});
    if (c.error.status != MILL_OK) return fault(c);
    if (c.run() != STM_END_DONE) return std::string("failed: ") + c.error.msg;
    std::string out = f.get("out.jsonl");
    for (const stm_error_record &e : c.errors) out += std::string("! ") + e.error.msg + "\n";
    return out;
}

std::string numbers(int from, int to)
{
    std::string s;
    for (int i = from; i < to; i++) s += "{\"a\":" + std::to_string(i) + "}\n";
    return s;
}

} // namespace

TEST(Select, Columns)
{
    const std::string in = "{\"a\":1,\"b\":\"x\",\"c\":2.5}\n";
    const struct { const char *name; Params params; const char *expected; } cases[] = {
        {"nothing", {}, "{\"a\":1,\"b\":\"x\",\"c\":2.5}\n"},
        {"keep", {{"keep", Value::list({"c", "a"})}}, "{\"a\":1,\"c\":2.5}\n"},
        {"drop", {{"drop", "b"}}, "{\"a\":1,\"c\":2.5}\n"},
        {"rename", {{"rename", Value::map({{"a", "z"}})}}, "{\"b\":\"x\",\"c\":2.5,\"z\":1}\n"},
        {"rename and keep", {{"keep", "b"}, {"rename", Value::map({{"a", "z"}})}}, "{\"b\":\"x\",\"z\":1}\n"},
        {"swap", {{"rename", Value::map({{"a", "b"}, {"b", "a"}})}}, "{\"c\":2.5,\"b\":1,\"a\":\"x\"}\n"},
        {"take a dropped one's name", {{"drop", "b"}, {"rename", Value::map({{"a", "b"}})}}, "{\"c\":2.5,\"b\":1}\n"},
        {"cast", {{"cast", Value::map({{"a", "utf8"}, {"c", "float32"}})}}, "{\"a\":\"1\",\"b\":\"x\",\"c\":2.5}\n"},
        {"cast and rename", {{"cast", Value::map({{"a", "float64"}})}, {"rename", Value::map({{"a", "z"}})}},
         "{\"b\":\"x\",\"c\":2.5,\"z\":1.0}\n"},
        {"unknown name", {{"drop", "q"}}, "error: "},
        {"name taken", {{"rename", Value::map({{"a", "b"}})}}, "error: there is a column b already; drop or rename it"},
        {"no such cast", {{"cast", Value::map({{"a", "list<int64>"}})}}, "error: column a of type int64 cannot be cast to that"},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        const std::string got = through(in, "select", k.params);
        EXPECT_EQ(k.expected[0] == 'e' ? got.substr(0, strlen(k.expected)) : got, k.expected);
    }
}

TEST(Select, CastsAreExactOrErrorsOfTheirRows)
{
    const struct { const char *from, *to, *in, *expected; } cases[] = {
        {"utf8", "int64", "\"-12\"", "-12"},      {"utf8", "int64", "\"1.0\"", "1"},     {"utf8", "int64", "\"1.5\"", nullptr},
        {"utf8", "int64", "\"x\"", nullptr},      {"utf8", "int64", "\"\"", nullptr},    {"utf8", "int64", "\" 1\"", nullptr},
        {"utf8", "int64", "\"0x10\"", nullptr},   {"utf8", "float64", "\"1e3\"", "1000.0"}, {"utf8", "float64", "\"inf\"", nullptr},
        {"utf8", "float64", "\"1e999\"", nullptr}, {"utf8", "bool", "\"true\"", "true"}, {"utf8", "bool", "\"yes\"", nullptr},
        {"float64", "int64", "3.0", "3"},         {"float64", "int64", "3.5", nullptr},  {"float64", "int64", "1e19", nullptr},
        {"int64", "int32", "2147483648", nullptr}, {"int64", "bool", "1", "true"},       {"int64", "bool", "2", nullptr},
        {"bool", "int64", "true", "1"},           {"float64", "utf8", "0.1", "\"0.1\""},
        {"json", "utf8", "{\"k\":1}", "\"{\\\"k\\\":1}\""},
        {"json", "int64", "5", "5"},              {"list<int64>", "utf8", "[1,2]", "\"[1,2]\""}, {"int64", "utf8", "null", "null"},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(std::string(k.from) + " " + k.in + " to " + k.to);
        const std::string in = std::string("{\"a\":null}\n{\"a\":") + k.in + "}\n{\"a\":null}\n";
        const std::string got = through(in, "select", {{"cast", Value::map({{"a", k.to}})}}, Value::map({{"a", k.from}}));
        const std::string rows = std::string("{\"a\":null}\n{\"a\":") + (k.expected ? k.expected : "null") + "}\n{\"a\":null}\n";
        EXPECT_EQ(got.substr(0, rows.size()), rows) << got;
        EXPECT_EQ(got.size() > rows.size(), k.expected == nullptr) << "an error record, or none: " << got;
    }
}

TEST(Explode, Items)
{
    const std::string in =
        "{\"k\":1,\"l\":[\"a\",null,\"c\"]}\n{\"k\":2,\"l\":[]}\n{\"k\":3,\"l\":null}\n{\"k\":4,\"l\":[\"d\"]}\n";
    const Value columns = Value::map({{"k", "int64"}, {"l", "list<utf8>"}});
    for (int64_t rows : {1, 3, 64}) {
        EXPECT_EQ(through(in, "explode", {{"column", "l"}}, columns, rows),
                  "{\"k\":1,\"l\":\"a\"}\n{\"k\":1,\"l\":null}\n{\"k\":1,\"l\":\"c\"}\n{\"k\":4,\"l\":\"d\"}\n");
        EXPECT_EQ(through(in, "explode", {{"column", "l"}, {"output", "i"}, {"index", "n"}, {"keep_empty", "true"}}, columns, rows),
                  "{\"k\":1,\"l\":[\"a\",null,\"c\"],\"i\":\"a\",\"n\":0}\n{\"k\":1,\"l\":[\"a\",null,\"c\"],\"i\":null,\"n\":1}\n"
                  "{\"k\":1,\"l\":[\"a\",null,\"c\"],\"i\":\"c\",\"n\":2}\n{\"k\":2,\"l\":[],\"i\":null,\"n\":null}\n"
                  "{\"k\":3,\"l\":null,\"i\":null,\"n\":null}\n{\"k\":4,\"l\":[\"d\"],\"i\":\"d\",\"n\":0}\n");
    }
    EXPECT_EQ(through("{\"s\":[{\"x\":[1,2]},null]}\n", "explode", {{"column", "s"}},
                      Value::map({{"s", "list<struct<x: list<int64>>>"}})),
              "{\"s\":{\"x\":[1,2]}}\n{\"s\":null}\n");
    EXPECT_EQ(through("{\"e\":[1,2]}\n", "explode", {{"column", "e"}}, Value::map({{"e", "fixed_list<float32>[2]"}})),
              "{\"e\":1.0}\n{\"e\":2.0}\n");
    EXPECT_EQ(through("{\"k\":1}\n", "explode", {{"column", "k"}}), "error: column k is no list but int64");
}

TEST(Limit, FirstRows)
{
    for (int64_t rows : {1, 7, 64}) {
        EXPECT_EQ(through(numbers(0, 100), "limit", {{"rows", "10"}}, Value(""), rows), numbers(0, 10));
        EXPECT_EQ(through(numbers(0, 100), "limit", {{"rows", "10"}, {"skip", "95"}}, Value(""), rows), numbers(95, 100));
        EXPECT_EQ(through(numbers(0, 100), "limit", {{"rows", "0"}}, Value(""), rows), "");
        EXPECT_EQ(through(numbers(0, 100), "limit", {{"rows", "1000"}}, Value(""), rows), numbers(0, 100));
    }
}

namespace {

/* Rows that went to each of two branches, or the faults. */
std::string routed(const std::string &in, const std::string &type, const Params &params, int64_t batch_rows)
{
    Folder f;
    Chain c;
    Chain::Opts read, router, x, y;
    c.dir = f.path;
    read.batch_rows = batch_rows;
    router.branches = {"x", "y"};
    x.from = y.from = "route";
    y.branch = 1;
    c.add("in", "read_jsonl", {{"path", f.put("in.jsonl", in)}, {"extra", ""}}, read).add("route", type, params, router);
    c.add("x", "write_jsonl", {{"path", "x.jsonl"}}, x).add("y", "write_jsonl", {{"path", "y.jsonl"}}, y);
    if (c.error.status != MILL_OK) return fault(c);
    if (c.run() != STM_END_DONE) return std::string("failed: ") + c.error.msg;
    std::string out = "x: " + f.get("x.jsonl") + "y: " + f.get("y.jsonl");
    for (const stm_error_record &e : c.errors) out += std::string("! ") + e.error.msg + "\n";
    return out;
}

} // namespace

TEST(RouteBy, Branches)
{
    const std::string in = "{\"to\":\"x\",\"n\":1}\n{\"to\":\"y\",\"n\":2}\n{\"to\":\"x\",\"n\":3}\n";
    const std::string split = "x: {\"to\":\"x\",\"n\":1}\n{\"to\":\"x\",\"n\":3}\ny: {\"to\":\"y\",\"n\":2}\n";
    EXPECT_EQ(routed(in, "route_by", {{"column", "to"}}, 1), split);
    EXPECT_EQ(routed(in, "route_by", {{"when", Value::map({{"y", "n == 2"}})}}, 1), split);
    EXPECT_EQ(routed(in, "route_by", {{"when", Value::map({{"x", "n % 2 == 1"}, {"y", "true"}})}}, 1), split);
    EXPECT_EQ(routed(in, "route_by", {{"column", "to"}, {"mixed", "most"}}, 3), "x: " + in + "y: ");
    EXPECT_EQ(routed(in, "round_robin", {}, 1), split);
    EXPECT_NE(routed(in, "route_by", {{"column", "to"}}, 3).find("rows of one batch go different ways: row 0 to x, row 1 to y"),
              std::string::npos);
    EXPECT_NE(routed("{\"to\":\"z\"}\n", "route_by", {{"column", "to"}}, 1).find("there is no branch \"z\" in `to`"),
              std::string::npos);
    EXPECT_EQ(routed(in, "route_by", {}, 1).substr(0, 50), "error: exactly one of column, when, random is to b");
    EXPECT_EQ(routed(in, "route_by", {{"when", Value::map({{"q", "true"}})}}, 1), "error: there is no branch q in `to`");
    EXPECT_EQ(routed(in, "route_by", {{"when", Value::map({{"x", "n +"}})}}, 1).substr(0, 20), "error: character 4: ");
}

TEST(RouteBy, RandomIsTheSameInEveryRun)
{
    const std::string in = numbers(0, 200), first = routed(in, "route_by", {{"random", "true"}}, 5);
    EXPECT_EQ(routed(in, "route_by", {{"random", "true"}}, 5), first);
    const size_t y = first.find("y: ");
    EXPECT_GT(std::count(first.begin(), first.begin() + static_cast<long>(y), '\n'), 40);
    EXPECT_GT(std::count(first.begin() + static_cast<long>(y), first.end(), '\n'), 40);
}
