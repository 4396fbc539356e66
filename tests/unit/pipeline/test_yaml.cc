/* The YAML reader: places, aliases, limits. */
#include <gtest/gtest.h>

#include <string>

#include "support/fail_nth.h"
extern "C" {
#include "pipeline/yaml.h"
}

namespace {

struct Doc {
    stm_arena arena = {};
    stm_value root = {};
    mill_error err = {};
    mill_status status;
    explicit Doc(const std::string &text) { status = stm_yaml_parse(&arena, text.data(), text.size(), "f.yaml", &root, &err); }
    ~Doc() { stm_arena_fini(&arena); }
    Doc(const Doc &) = delete;
    Doc &operator=(const Doc &) = delete;
};

/* The tree as text: {key=value,...} [a,b] 'quoted' plain null */
std::string show(const stm_value &v)
{
    std::string s;
    if (v.kind == stm_value::STM_VALUE_SCALAR)
        return v.text == nullptr ? "null" : v.quoted ? "'" + std::string(v.text) + "'" : v.text;
    for (size_t i = 0; i < v.n_items; i++)
        s += (i > 0 ? "," : "") + (v.kind == stm_value::STM_VALUE_MAP ? std::string(v.items[i].key) + "=" : "") + show(v.items[i]);
    return v.kind == stm_value::STM_VALUE_MAP ? "{" + s + "}" : "[" + s + "]";
}

struct Tree {
    const char *name, *text, *want;
};
const Tree kTrees[] = {
    {"nothing", "", "null"},
    {"comment_only", "# nothing\n", "null"},
    {"scalars", "a: 1\nb: 'x'\nc: \"y\\n\"\nd:\ne: ~\nf: null\ng: 'null'\nh: ''\n",
     "{a=1,b='x',c='y\n',d=null,e=null,f=null,g='null',h=''}"},
    {"block_text", "a: |\n  one\n  two\nb: >\n  three\n  four\n", "{a='one\ntwo\n',b='three four\n'}"},
    {"flow", "{a: [1, 2, {b: c}], d: {}}", "{a=[1,2,{b=c}],d={}}"},
    {"json", "{\"a\": [true, null, \"x\"]}", "{a=[true,null,'x']}"},
    {"several_lines", "a: one\n   two\n", "{a=one two}"},
    {"alias_of_scalar", "a: &x 5\nb: *x\n", "{a=5,b=5}"},
    {"alias_of_map", "a: &x {k: [1, 2]}\nb: *x\nc: [*x, *x]\n", "{a={k=[1,2]},b={k=[1,2]},c=[{k=[1,2]},{k=[1,2]}]}"},
    {"anchor_again", "a: &x 1\nb: &x 2\nc: *x\n", "{a=1,b=2,c=2}"},
    {"alias_as_key", "a: &x key\n*x : 1\n", "{a=key,key=1}"},
    {"anchor_on_key", "&k a: 1\nb: *k\n", "{a=1,b=a}"},
    {"byte_order_mark",
     "\xef\xbb\xbf"
     "a: 1\n",
     "{a=1}"},
    {"unicode", "größe: 名前\n", "{größe=名前}"},
    {"document_marks", "---\na: 1\n...\n", "{a=1}"},
    {"many_quotes", "a: ''''''''''''''''''''''''''''''''\nb: 'x''''y''z'\n", "{a=''''''''''''''''',b='x''y'z'}"},
    {"single_quoted_lines", "a: 'one  \n  two''s\n\n\n  three '\n", "{a='one two's\n\nthree '}"},
    {"double_quoted_lines", "a: \"one\\n\\n\\n\\n\\n\\n\\n\\n\\n\\ntwo \\\n  three\"\n", "{a='one\n\n\n\n\n\n\n\n\n\ntwo three'}"},
    {"long_block", "a: |\n  1\n  2\n  3\n  4\n  5\n  6\n  7\n  8\n  9\n  10\n", "{a='1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n'}"},
    {"quoted_behind_byte_order_mark",
     "\xef\xbb\xbf"
     "a: 'b''c'\n",
     "{a='b'c'}"},
    {"windows_lines", "a: 1\r\nb: 2\r\n", "{a=1,b=2}"},
};

class YamlTree : public testing::TestWithParam<Tree> {};
TEST_P(YamlTree, IsRead)
{
    const Doc d(GetParam().text);
    ASSERT_EQ(d.status, MILL_OK) << d.err.msg;
    EXPECT_EQ(show(d.root), GetParam().want);
}
INSTANTIATE_TEST_SUITE_P(Table, YamlTree, testing::ValuesIn(kTrees), [](const auto &i) { return std::string(i.param.name); });

TEST(Yaml, EveryValueKnowsItsPlace)
{
    const Doc d("a: 1\nb:\n  - x\n  - 'y'\nc: {d: \"z\", e: *v}\n");
    EXPECT_EQ(d.status, MILL_ERR_PARSE); /* v is not there: the place of the alias itself */
    EXPECT_EQ(d.err.line, 5);
    EXPECT_EQ(d.err.column, 16);

    const Doc g("a: 1\nb:\n  - x\n  - 'y'\nc: {d: \"z\"}\nempty:\n");
    ASSERT_EQ(g.status, MILL_OK);
    const stm_value &b = g.root.items[1], &z = g.root.items[2].items[0], &empty = g.root.items[3];
    EXPECT_EQ(b.key_place.line, 2);
    EXPECT_EQ(b.key_place.column, 1);
    EXPECT_EQ(b.items[0].place.line, 3);
    EXPECT_EQ(b.items[0].place.column, 5);
    EXPECT_EQ(b.items[1].place.column, 5); /* at the quote */
    EXPECT_EQ(z.key_place.column, 5);
    EXPECT_EQ(z.place.column, 8);
    EXPECT_EQ(empty.place.line, 6); /* nothing there: at its key */
    EXPECT_EQ(empty.place.column, 1);
}

struct Refusal {
    const char *name;
    std::string text;
    int line, column;
    const char *says;
};
std::string repeat(const std::string &s, int n)
{
    std::string r;
    while (n-- > 0) r += s;
    return r;
}
const Refusal kRefusals[] = {
    {"nul_byte", std::string("a: b\0c\n", 7), 1, 5, "a NUL byte: this is not a text file"},
    {"nul_escape", "a: \"b\\0c\"\n", 1, 4, "a NUL character in a text"},
    {"overlong_utf8", "a: \xc0\xaf\n", 1, 4, "not UTF-8"},
    {"surrogate", "a: b\nc: \xed\xa0\x80\n", 2, 4, "not UTF-8"},
    {"cut_utf8", "a: \xe4\xb8", 1, 4, "not UTF-8"},
    {"utf16", std::string("\xff\xfe\x61\x00", 4), 1, 1, "not UTF-8"},
    {"null_key", "a: 1\n: 2\n", 1, 1, "expected a key before ':'"},
    {"list_as_key", "[a]: 1\n", 1, 1, "a key must be a text"},
    {"map_alias_as_key", "a: &x {b: c}\n*x : 1\n", 2, 1, "a key must be a text"},
    {"duplicate", "a: 1\nb: 2\n'a': 3\n", 3, 1, "key \"a\" stands twice (first on line 1)"},
    {"duplicate_deep", "x:\n  - {k: 1, j: 2, k: 3}\n", 2, 18, "key \"k\" stands twice (first on line 2)"},
    {"alias_inside_its_anchor", "a: &x [1, *x]\n", 1, 11, "an alias stands inside its own anchor"},
    {"too_deep", repeat("[", 200) + repeat("]", 200), 1, 49, "lists and maps nested too deep (limit 48)"},
    {"tag_on_map", "a: !mine {b: c}\n", 1, 10, "tags (!...) are not used in pipeline files"},
};

class YamlRefusal : public testing::TestWithParam<Refusal> {};
TEST_P(YamlRefusal, HasPlaceAndReason)
{
    const Refusal &c = GetParam();
    const Doc d(c.text);
    ASSERT_EQ(d.status, MILL_ERR_PARSE);
    EXPECT_STREQ(d.err.msg, c.says);
    EXPECT_EQ(d.err.line, c.line);
    EXPECT_EQ(d.err.column, c.column);
    EXPECT_STREQ(d.err.file, "f.yaml");
}
INSTANTIATE_TEST_SUITE_P(Table, YamlRefusal, testing::ValuesIn(kRefusals), [](const auto &i) { return std::string(i.param.name); });

/* Nine levels of nine aliases each: 9^9 values, were they written out. */
TEST(Yaml, AliasBombIsRefusedAndCheap)
{
    std::string text = "a0: &a0 x\n";
    for (int i = 1; i <= 9; i++) {
        const std::string before = "*a" + std::to_string(i - 1);
        text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
        for (int k = 1; k < 9; k++) text += ", " + before;
        text += "]\n";
    }
    const long live = mt::live();
    {
        const Doc d(text);
        EXPECT_EQ(d.status, MILL_ERR_PARSE);
        EXPECT_STREQ(d.err.msg, "too many values (aliases written out)");
        EXPECT_LT(mt::live() - live, 100);
    }
    EXPECT_EQ(mt::live(), live);
}

TEST(Yaml, LargeMapIsReadInReasonableTime)
{
    std::string text;
    for (int i = 0; i < 50000; i++) text += "key" + std::to_string(i * 7919 % 50000) + ": 1\n";
    const Doc d(text);
    ASSERT_EQ(d.status, MILL_OK) << d.err.msg;
    EXPECT_EQ(d.root.n_items, 50000u);
}

TEST(Yaml, TooLargeFileIsRefused)
{
    const Doc d(std::string(STM_YAML_MAX_BYTES + 1, '#'));
    EXPECT_EQ(d.status, MILL_ERR_PARSE);
    EXPECT_STREQ(d.err.msg, "the file has more than 8 MiB");
}

TEST(Yaml, FailsCleanlyAtEveryAllocation)
{
    const std::string text = "a: &x {k: [1, 2]}\nb: *x\nc: [" + repeat("1, ", 40) + "]\n";
    const long before = mt::live();
    for (int nth = 0;; nth++) {
        ASSERT_LT(nth, 1000);
        mt::FailNth fail(nth);
        bool fired;
        {
            const Doc d(text);
            fired = fail.fired();
            EXPECT_EQ(d.status, fired ? MILL_ERR_NOMEM : MILL_OK) << nth;
        }
        EXPECT_EQ(mt::live(), before) << "leak when allocation " << nth << " fails";
        if (!fired) {
            EXPECT_GT(nth, 3);
            return;
        }
    }
}

} // namespace
