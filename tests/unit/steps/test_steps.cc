/* Built-in step types in whole runs: files in, files out. */
#include <gtest/gtest.h>

#include "support/chain.h"

using mt::Chain;
using mt::Folder;
using mt::Params;
using mt::Value;

namespace {

/* Errors as "file:line:column message". */
std::string places(const Chain &c)
{
    std::string out;
    for (const stm_error_record &r : c.errors) {
        const char *file = strrchr(r.error.file, '/');
        out += std::string(file ? file + 1 : r.error.file) + ":" + std::to_string(r.error.line) + " " + r.error.msg + "\n";
    }
    return out;
}

/* The message of a parameter's fault, without the parameter's name. */
std::string fault(const Chain &c)
{
    const std::string m = c.error.msg;
    return "error: " + (m.compare(0, 11, "parameter \"") == 0 ? m.substr(m.find("\": ") + 3) : m);
}

/* One step between reader and writer: what is written. */
std::string through(const std::string &in, const std::string &type, const Params &params, const Params &read = {},
                    int64_t batch_rows = 0)
{
    Folder f;
    Chain c;
    Chain::Opts o;
    c.dir = f.path;
    o.batch_rows = batch_rows;
    Params p = read;
    p.emplace_back("path", f.put("in.jsonl", in));
    p.emplace_back("extra", "");
    c.add("in", "read_jsonl", p, o).add("step", type, params).add("out", "write_jsonl", {{"path", "out.jsonl"}});
    if (c.error.status != MILL_OK) return fault(c);
    const stm_run_end end = c.run();
    if (end != STM_END_DONE) return "ended " + std::to_string(end) + ": " + c.error.msg;
    return f.get("out.jsonl") + places(c);
}

} // namespace

TEST(ReadWrite, BytesComeThrough)
{
    Folder f;
    std::string in;
    for (int i = 0; i < 5000; i++)
        in += "{\"i\":" + std::to_string(i) + ",\"t\":\"text " + std::string(static_cast<size_t>(i % 50), 'x') +
              "\",\"f\":" + std::to_string(i) + ".5,\"b\":" + (i % 2 ? "true" : "false") + ",\"n\":null,\"j\":{\"k\":[1,2]}}\n";
    for (const char *out : {"out.jsonl", "sub/out.jsonl.gz", "out.jsonl.zst"})
        for (int64_t rows : {1, 7, 64, 10000}) {
            SCOPED_TRACE(out);
            Chain c;
            Chain::Opts o;
            o.batch_rows = rows;
            c.dir = f.path;
            f.put("in.jsonl", in);
            c.add("in", "read_jsonl", {{"path", "in.jsonl"}, {"extra", ""}}, o).add("out", "write_jsonl", {{"path", out}});
            ASSERT_EQ(c.error.status, MILL_OK) << c.error.msg;
            EXPECT_EQ(c.columns("in"), "i int64, t utf8, f float64, b bool, n json, j json");
            ASSERT_EQ(c.run(), STM_END_DONE) << c.error.msg;
            if (std::string(out) == "out.jsonl") {
                EXPECT_TRUE(f.get(out) == in);
            } else { /* read it again */
                Chain again;
                again.dir = f.path;
                again.add("in", "read_jsonl", {{"path", out}, {"extra", ""}}).add("out", "write_jsonl", {{"path", "again.jsonl"}});
                ASSERT_EQ(again.run(), STM_END_DONE) << again.error.msg;
                EXPECT_TRUE(f.get("again.jsonl") == in);
            }
            if (rows != 64 && std::string(out) != "out.jsonl") break;
        }
}

TEST(ReadWrite, BadLinesAreMarkedRows)
{
    Folder f;
    Chain c;
    Chain::Opts sink;
    sink.errors = true;
    c.dir = f.path;
    f.put("a.jsonl", "{\"a\":1}\nnot json\n\n{\"a\":\"x\"}\n{\"a\":2,\"b\":3}\n");
    f.put("b.jsonl", "{\"a\":5");
    c.add("in", "read_jsonl", {{"path", Value::list({"a.jsonl", "b.jsonl"})}, {"columns", Value::map({{"a", "int64"}})}})
        .add("out", "write_jsonl", {{"path", "out.jsonl"}}, sink);
    ASSERT_EQ(c.run(), STM_END_DONE) << c.error.msg;
    EXPECT_EQ(f.get("out.jsonl"), "{\"a\":1,\"extra\":null,\"_error\":null}\n"
                                  "{\"a\":null,\"extra\":null,\"_error\":\"expected an object of JSON\"}\n"
                                  "{\"a\":null,\"extra\":null,\"_error\":\"column a: expected int64, found \\\"x\\\"\"}\n"
                                  "{\"a\":2,\"extra\":{\"b\":3},\"_error\":null}\n"
                                  "{\"a\":null,\"extra\":null,\"_error\":\"an object is not closed\"}\n");
    EXPECT_EQ(places(c), "a.jsonl:2 expected an object of JSON\na.jsonl:4 column a: expected int64, found \"x\"\n"
                         "b.jsonl:1 an object is not closed\n");
}

TEST(ReadWrite, Parts)
{
    const struct { int rows; std::vector<int> parts; } cases[] = {{0, {0}}, {1, {1}}, {100, {100}}, {101, {100, 1}},
                                                                  {250, {100, 100, 50}}};
    for (const auto &k : cases) {
        Folder f;
        Chain c;
        c.dir = f.path;
        std::string in, all;
        for (int i = 0; i < k.rows; i++) in += "{\"a\":" + std::to_string(i) + "}\n";
        f.put("in.jsonl", in);
        c.add("in", "read_jsonl", {{"path", "in.jsonl"}, {"columns", Value::map({{"a", "int64"}})}, {"extra", ""}})
            .add("out", "write_jsonl", {{"path", "out.jsonl"}, {"part_rows", "100"}});
        ASSERT_EQ(c.run(), STM_END_DONE) << c.error.msg;
        for (size_t i = 0; i < k.parts.size(); i++) {
            const std::string part = f.get("out-0000" + std::to_string(i) + ".jsonl");
            EXPECT_EQ(std::count(part.begin(), part.end(), '\n'), k.parts[i]);
            all += part;
        }
        EXPECT_EQ(all, in);
        EXPECT_EQ(f.get("out-0000" + std::to_string(k.parts.size()) + ".jsonl"), "<none>");
    }
}

TEST(ReadWrite, Columns)
{
    const struct { const char *name; std::string in; Params params; const char *expected; } cases[] = {
        {"own output read again", "{\"a\":1,\"extra\":{\"z\":1}}\n", {}, "a int64, extra json, _extra json"},
        {"another name for extra", "{\"a\":1}\n", {{"extra", "rest"}}, "a int64, rest json"},
        {"none", "{\"a\":1}\n", {{"extra", ""}}, "a int64"},
        {"nothing to learn from", "", {}, "extra json"},
        {"declared", "", {{"columns", Value::map({{"a", "list<utf8>"}, {"e", "fixed_list<float32>[3]"}})}},
         "a list<utf8>, e fixed_list<float32>[3], extra json"},
        {"clash", "", {{"columns", Value::map({{"extra", "utf8"}})}}, "error: column extra is also"},
        {"binary", "", {{"columns", Value::map({{"b", "binary"}})}}, "error: column b: binary values"},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        Folder f;
        Chain c;
        Params p = k.params;
        p.emplace_back("path", f.put("in.jsonl", k.in));
        c.add("in", "read_jsonl", p);
        const std::string got = c.error.status != MILL_OK ? fault(c) : c.columns("in");
        EXPECT_EQ(got.substr(0, strlen(k.expected)), k.expected);
    }
}

TEST(ReadWrite, CutOffGzipEndsTheRunAndSaysSo)
{
    Folder f;
    Chain w, c;
    w.dir = c.dir = f.path;
    std::string in;
    for (int i = 0; i < 20000; i++) in += "{\"a\":" + std::to_string(i * 7919 % 20011) + "}\n";
    f.put("in.jsonl", in);
    w.add("in", "read_jsonl", {{"path", "in.jsonl"}}).add("out", "write_jsonl", {{"path", "x.jsonl.gz"}});
    ASSERT_EQ(w.run(), STM_END_DONE);
    const std::string gz = f.get("x.jsonl.gz");
    f.put("x.jsonl.gz", gz.substr(0, gz.size() - 100));
    c.add("in", "read_jsonl", {{"path", "x.jsonl.gz"}, {"columns", Value::map({{"a", "int64"}})}})
        .add("out", "write_jsonl", {{"path", "out.jsonl"}});
    EXPECT_EQ(c.run(), STM_END_FAILED);
    EXPECT_NE(std::string(c.error.msg).find("cut off"), std::string::npos) << c.error.msg;
}

TEST(ReadWrite, FullDiskEndsTheRun)
{
    Folder f;
    Chain c;
    c.dir = f.path;
    f.put("in.jsonl", "{\"a\":1}\n");
    ASSERT_EQ(symlink("/dev/full", (f.path + "/out.jsonl.tmp").c_str()), 0);
    c.add("in", "read_jsonl", {{"path", "in.jsonl"}}).add("out", "write_jsonl", {{"path", "out.jsonl"}});
    EXPECT_EQ(c.run(), STM_END_FAILED);
    EXPECT_NE(std::string(c.error.msg).find("No space left"), std::string::npos) << c.error.msg;
    EXPECT_EQ(f.get("out.jsonl"), "<none>");
}

TEST(Template, Texts)
{
    const std::string in = R"({"n":"a\"b","i":-5,"f":1.5,"b":true,"j":{"k":[1]},"x y":"s","z":null})" "\n";
    const Params cols = {
        {"columns",
         Value::map(
             {{"n", "utf8"}, {"i", "int64"}, {"f", "float64"}, {"b", "bool"}, {"j", "json"}, {"x y", "utf8"}, {"z", "utf8"}})}};
    const struct { const char *text, *expected; } cases[] = {
        {"{n}: {i} {f} {b} {j} {x y}{z}.", "a\\\"b: -5 1.5 true {\\\"k\\\":[1]} s."},
        {"no columns", "no columns"}, {"", ""}, {"{{{n}}}", "{a\\\"b}"}, {"{{n}}", "{n}"}, {"{n}{n}", "a\\\"ba\\\"b"},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.text);
        const std::string got = through(in, "template", {{"template", k.text}, {"output", "out"}}, cols);
        const std::string tail = std::string(",\"out\":\"") + k.expected + "\"}\n";
        ASSERT_GE(got.size(), tail.size()) << got;
        EXPECT_EQ(got.substr(got.size() - tail.size()), tail);
    }
    EXPECT_EQ(through(in, "template", {{"template", "{n}{z}"}, {"on_null", "propagate"}, {"output", "n"}},
                      {{"columns", Value::map({{"n", "utf8"}, {"z", "utf8"}})}}),
              "{\"n\":null,\"z\":null}\n");
}

TEST(Template, FaultsNameTheCharacter)
{
    const struct { const char *text, *message; } cases[] = {
        {"{n", "error: character 1: this { has no }"},
        {"ab}", "error: character 3: this } has no {"},
        {"{}", "error: character 2: a column's name is expected"},
        {"{n{n}}", "error: character 1: this { has no }"},
        {"\xc3\xa9 {m}", "error: character 4: "},
        {"line\n  {m}", "error: line 2, character 4: "},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.text);
        EXPECT_EQ(through("{\"n\":1}\n", "template", {{"template", k.text}}).substr(0, strlen(k.message)), k.message);
    }
}

TEST(Filter, KeepsRows)
{
    std::string in, odd;
    for (int i = 0; i < 300; i++) {
        const std::string row =
            "{\"i\":" + std::to_string(i) + ",\"t\":\"" + std::string(static_cast<size_t>(i % 7), 'x') + "\"}\n";
        in += row;
        if (i % 2 == 1 && i % 7 > 2) odd += row;
    }
    for (int64_t rows : {1, 64, 1000}) {
        EXPECT_EQ(through(in, "filter", {{"where", "i % 2 == 1 and length(t) > 2"}}, {}, rows), odd);
        EXPECT_EQ(through(in, "filter", {{"where", "false"}}, {}, rows), "");
        EXPECT_EQ(through(in, "filter", {{"where", "true"}}, {}, rows), in);
    }
    EXPECT_EQ(through(in, "filter", {{"where", "i >"}}).substr(0, 39), "error: character 4: the expression ends");
    EXPECT_EQ(through(in, "filter", {{"where", "j > 1"}}).substr(0, 20), "error: character 1: ");
}
