/* Generators gone on with from every cursor that they gave: the same rows as without a stop. */
#include <gtest/gtest.h>

#include "support/chain.h"

using mt::Chain;
using mt::Folder;
using mt::Value;

namespace {

void expect_same_rest(Chain &c, const std::string &step)
{
    for (int64_t rows : {1, 7, 30}) {
        std::vector<Chain::Mark> marks;
        const std::string all = c.generate(step, rows, nullptr, &marks);
        ASSERT_GT(all.size(), 0u);
        ASSERT_GT(marks.size(), 1u);
        EXPECT_EQ(marks.back().bytes, all.size());
        for (const Chain::Mark &m : marks)
            for (int64_t other : {rows, rows + 3})
                ASSERT_TRUE(c.generate(step, other, &m.cursor) == all.substr(m.bytes)) << "after " << m.bytes << " bytes";
    }
}

std::string rows(int from, int to)
{
    std::string s;
    for (int i = from; i < to; i++) {
        s += i % 11 == 3 ? "broken " + std::to_string(i) + "\n"
                         : "{\"a\":" + std::to_string(i) + ",\"t\":\"" + std::string(static_cast<size_t>(i % 13), 'x') + "\"}\n";
        if (i % 7 == 0) s += "\r\n\n";
    }
    return s;
}

} // namespace

TEST(Resume, ReadJsonl)
{
    Folder f;
    Chain pack, c;
    pack.dir = c.dir = f.path;
    f.put("a.jsonl", "\xef\xbb\xbf" + rows(0, 40));
    f.put("b.jsonl", "");
    f.put("d.jsonl", rows(80, 90) + "{\"a\":1}");
    f.put("plain.jsonl", "{\"a\":5,\"t\":\"y\"}\n{\"a\":6,\"t\":\"z\"}\n{\"a\":7,\"t\":\"z\"}\n");
    pack.add("in", "read_jsonl", {{"path", "plain.jsonl"}}).add("out", "write_jsonl", {{"path", "c.jsonl.gz"}});
    ASSERT_EQ(pack.run(), STM_END_DONE) << pack.error.msg;
    c.add("in", "read_jsonl", {{"path", Value::list({"a.jsonl", "b.jsonl", "c.jsonl.gz", "d.jsonl"})}});
    ASSERT_EQ(c.error.status, MILL_OK) << c.error.msg;
    expect_same_rest(c, "in");
}

TEST(Resume, ReadArrow)
{
    Folder f;
    Chain c;
    c.dir = f.path;
    f.put("a.jsonl", rows(0, 90));
    for (const char *name : {"p.arrow", "q.arrow"}) {
        Chain w;
        w.dir = f.path;
        w.add("in", "read_jsonl", {{"path", "a.jsonl"}}).add("out", "write_arrow", {{"path", name}, {"batch_rows", "37"}});
        ASSERT_EQ(w.run(), STM_END_DONE) << w.error.msg;
    }
    c.add("in", "read_arrow", {{"path", Value::list({"p.arrow", "q.arrow"})}});
    ASSERT_EQ(c.error.status, MILL_OK) << c.error.msg;
    expect_same_rest(c, "in");
}

#ifdef STEPMILL_HAVE_PARQUET
TEST(Resume, ReadParquet)
{
    Folder f;
    Chain c;
    c.dir = f.path;
    f.put("a.jsonl", rows(0, 90));
    for (const char *name : {"p.parquet", "q.parquet"}) {
        Chain w;
        w.dir = f.path;
        w.add("in", "read_jsonl", {{"path", "a.jsonl"}}).add("out", "write_parquet", {{"path", name}, {"row_group_rows", "37"}});
        ASSERT_EQ(w.run(), STM_END_DONE) << w.error.msg;
    }
    c.add("in", "read_parquet", {{"path", Value::list({"p.parquet", "q.parquet"})}});
    ASSERT_EQ(c.error.status, MILL_OK) << c.error.msg;
    expect_same_rest(c, "in");
}

TEST(Parquet, RowsComeThrough)
{
    Folder f;
    Chain w, r;
    w.dir = r.dir = f.path;
    std::string in;
    for (int i = 0; i < 1000; i++)
        in += i % 9 == 4 ? "{\"b\":null,\"i\":null,\"k\":null,\"f\":null,\"g\":null,\"t\":null,\"j\":null,\"l\":null,\"e\":null,"
                           "\"s\":null}\n"
                         : "{\"b\":" + std::string(i % 2 ? "true" : "false") + ",\"i\":" + std::to_string(i * 1000003LL) +
                               ",\"k\":" + std::to_string(-i) + ",\"f\":" + std::to_string(i) +
                               ".25,\"g\":0.5,\"t\":\"text \xc3\xa9 " + std::string(static_cast<size_t>(i % 40), 'x') +
                               "\",\"j\":{\"k\":[" + std::to_string(i) + "]},\"l\":[\"a\",null,\"" + std::to_string(i) +
                               "\"],\"e\":[1.0,2.5,3.0],\"s\":{\"x\":" + std::to_string(i) + ",\"y\":[true]}}\n";
    f.put("in.jsonl", in);
    w.add("in", "read_jsonl",
          {{"path", "in.jsonl"},
           {"extra", ""},
           {"columns", Value::map({{"b", "bool"},
                                   {"i", "int64"},
                                   {"k", "int32"},
                                   {"f", "float64"},
                                   {"g", "float32"},
                                   {"t", "utf8"},
                                   {"j", "json"},
                                   {"l", "list<utf8>"},
                                   {"e", "fixed_list<float32>[3]"},
                                   {"s", "struct<x: int64, y: list<bool>>"}})}})
        .add("out", "write_parquet", {{"path", "sub/x.parquet"}, {"row_group_rows", "300"}});
    ASSERT_EQ(w.run(), STM_END_DONE) << w.error.msg;
    EXPECT_EQ(f.get("sub/x.parquet.tmp"), "<none>");
    Chain::Opts o;
    o.batch_rows = 77;
    r.add("in", "read_parquet", {{"path", "sub/x.parquet"}}, o).add("out", "write_jsonl", {{"path", "out.jsonl"}});
    ASSERT_EQ(r.error.status, MILL_OK) << r.error.msg;
    EXPECT_EQ(r.columns("in"), "b bool, i int64, k int32, f float64, g float32, t utf8, j json, l list<utf8>, e "
                               "fixed_list<float32>[3], s struct<x: int64, y: list<bool>>");
    ASSERT_EQ(r.run(), STM_END_DONE) << r.error.msg;
    EXPECT_TRUE(f.get("out.jsonl") == in);

    Chain some;
    some.dir = f.path;
    some.add("in", "read_parquet", {{"path", "sub/x.parquet"}, {"columns", Value::list({"s", "i"})}})
        .add("l", "limit", {{"rows", "1"}})
        .add("out", "write_jsonl", {{"path", "some.jsonl"}});
    ASSERT_EQ(some.run(), STM_END_DONE) << some.error.msg;
    EXPECT_EQ(f.get("some.jsonl"), "{\"s\":{\"x\":0,\"y\":[true]},\"i\":0}\n");
}

/* tests/data/parquet/types.parquet, made by pyarrow: what other programs write and no type of ours can hold. */
TEST(Parquet, DatesTimesAndDecimalsAreTextDictionariesTheirValues)
{
    Folder f;
    Chain r, all;
    r.dir = all.dir = f.path;
    r.add("in", "read_parquet", {{"path", PARQUET_TYPES}, {"columns", Value::list({"c", "d", "t", "z", "m", "u", "n"})}})
        .add("out", "write_jsonl", {{"path", "out.jsonl"}});
    ASSERT_EQ(r.run(), STM_END_DONE) << r.error.msg;
    EXPECT_EQ(f.get("out.jsonl"),
              "{\"c\":\"b\",\"d\":\"2020-02-29\",\"t\":\"2020-01-02 "
              "03:04:05.678900\",\"z\":\"01:02:03.000000\",\"m\":\"1.50\",\"u\":\"18446744073709551615\",\"n\":null}\n"
              "{\"c\":null,\"d\":null,\"t\":null,\"z\":null,\"m\":null,\"u\":null,\"n\":null}\n"
              "{\"c\":\"a\",\"d\":\"1969-12-31\",\"t\":\"1969-12-31 "
              "00:00:00.000000\",\"z\":\"00:00:00.000000\",\"m\":\"-12345678.25\",\"u\":\"0\",\"n\":null}\n");

    all.add("in", "read_parquet", {{"path", PARQUET_TYPES}}); /* a map is nothing that can be text */
    EXPECT_NE(std::string(all.error.msg).find("column \"mp\""), std::string::npos) << all.error.msg;
    EXPECT_STREQ(all.error.remedy, "Name the other columns in `columns`");
}

TEST(Parquet, Parts)
{
    Folder f;
    Chain w, r;
    w.dir = r.dir = f.path;
    std::string in;
    for (int i = 0; i < 250; i++) in += "{\"a\":" + std::to_string(i) + "}\n";
    f.put("in.jsonl", in);
    w.add("in", "read_jsonl", {{"path", "in.jsonl"}, {"extra", ""}})
        .add("out", "write_parquet", {{"path", "x.parquet"}, {"part_rows", "100"}, {"row_group_rows", "30"}});
    ASSERT_EQ(w.run(), STM_END_DONE) << w.error.msg;
    r.add("in", "read_parquet", {{"path", "x-*.parquet"}}).add("out", "write_jsonl", {{"path", "out.jsonl"}});
    ASSERT_EQ(r.run(), STM_END_DONE) << r.error.msg;
    EXPECT_TRUE(f.get("out.jsonl") == in);
    EXPECT_NE(f.get("x-00002.parquet"), "<none>");
    EXPECT_EQ(f.get("x-00003.parquet"), "<none>");
}

TEST(Parquet, Faults)
{
    const struct { const char *name; std::string bytes; Value columns; const char *message; } cases[] = {
        {"no Parquet", "hello", Value(""), "x.parquet"},
        {"empty", "", Value(""), "x.parquet"},
        {"only its ends", "PAR1PAR1", Value(""), "x.parquet"},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        Folder f;
        Chain c;
        c.add("in", "read_parquet", {{"path", f.put("x.parquet", k.bytes)}});
        EXPECT_NE(c.error.status, MILL_OK);
        EXPECT_NE(std::string(c.error.msg).find(k.message), std::string::npos) << c.error.msg;
    }
    Folder f;
    Chain w, c;
    w.dir = c.dir = f.path;
    f.put("in.jsonl", "{\"a\":1}\n");
    w.add("in", "read_jsonl", {{"path", "in.jsonl"}}).add("out", "write_parquet", {{"path", "x.parquet"}});
    ASSERT_EQ(w.run(), STM_END_DONE);
    c.add("in", "read_parquet", {{"path", "x.parquet"}, {"columns", Value::list({"nope"})}});
    EXPECT_NE(std::string(c.error.msg).find("there is no column \"nope\""), std::string::npos) << c.error.msg;
}
#endif
