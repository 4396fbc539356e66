#include <gtest/gtest.h>

#include <string>

#include "support/fail_nth.h"

extern "C" {
#include "batch/type.h"
}

namespace {
std::string text_of(const mill_type *t)
{
    char small[4];
    std::string s((size_t)mill_type_format(t, small, sizeof small), '\0');
    EXPECT_EQ(mill_type_format(t, &s[0], s.size() + 1), (int)s.size());
    EXPECT_EQ(std::string(small), s.substr(0, 3));
    return s;
}
} // namespace

TEST(Type, TextForms)
{
    static const struct { const char *text, *same_as; } kGood[] = {
        {"bool", nullptr}, {"int32", nullptr}, {"int64", nullptr}, {"float16", nullptr}, {"float32", nullptr},
        {"float64", nullptr}, {"utf8", nullptr}, {"binary", nullptr}, {"json", nullptr},
        {"list<int32>", nullptr}, {"fixed_list<float32>[384]", nullptr}, {"struct<>", nullptr},
        {"struct<a: utf8, b: list<int64>>", nullptr}, {"list<list<list<bool>>>", nullptr},
        {"struct<a b: int32>", nullptr}, {"struct<\"a b\": int32>", nullptr}, {"struct<\"\": json>", nullptr},
        {"struct<\"q\\\"\\\\\": json>", nullptr}, {"struct<\xC3\xA4.x-y/$@: int32>", nullptr},
        {" list < int32 > ", "list<int32>"}, {"struct<a:utf8,b:int32>", "struct<a: utf8, b: int32>"},
        {"fixed_list<bool>[ 2147483647 ]", "fixed_list<bool>[2147483647]"}, {"struct<\"a\": int32>", "struct<a: int32>"},
    };
    for (auto &c : kGood) {
        SCOPED_TRACE(c.text);
        const mill_type *t = nullptr, *again = nullptr;
        mill_error err = {};
        if (std::string(c.text) == "struct<a b: int32>") { /* a bare name has no spaces */
            EXPECT_EQ(mill_type_parse(c.text, &t, &err), MILL_ERR_PARSE);
            continue;
        }
        ASSERT_EQ(mill_type_parse(c.text, &t, &err), MILL_OK) << err.msg;
        EXPECT_EQ(text_of(t), c.same_as ? c.same_as : c.text);
        ASSERT_EQ(mill_type_parse(text_of(t).c_str(), &again, &err), MILL_OK);
        EXPECT_EQ(t, again) << "interned";
    }
}

TEST(Type, BadTextSaysWhatWasExpected)
{
    static const struct { const char *text, *expected; } kBad[] = {
        {"", "expected bool"}, {"int", "expected bool"}, {"int32x", "expected bool"}, {"int32 int32", "expected the end"},
        {"list", "expected '<'"}, {"list<int32", "expected '>'"}, {"list<>", "expected bool"},
        {"fixed_list<int32>", "expected '['"}, {"fixed_list<int32>[0]", "a length from 1"},
        {"fixed_list<int32>[]", "a length from 1"},
        {"fixed_list<int32>[99999999999999999999]", "a length from 1"}, {"fixed_list<int32>[-1]", "a length"},
        {"fixed_list<int32>[3", "expected ']'"}, {"struct<a>", "expected ':'"}, {"struct<a: int32", "expected ',' or '>'"},
        {"struct<a: int32,>", "a field name"}, {"struct<a: int32, a: utf8>", "stands twice"},
        {"struct<\"a: int32>", "closing quote"},
        {"struct<\"a\\", "closing quote"},
    };
    for (auto &c : kBad) {
        SCOPED_TRACE(c.text);
        const mill_type *t = nullptr;
        mill_error err = {};
        EXPECT_EQ(mill_type_parse(c.text, &t, &err), MILL_ERR_PARSE);
        EXPECT_NE(std::string(err.msg).find(c.expected), std::string::npos) << err.msg;
        EXPECT_EQ(t, nullptr);
    }
}

TEST(Type, NestingIsBounded)
{
    std::string deep = "int32";
    for (int i = 0; i < STM_TYPE_MAX_DEPTH; i++) deep = "list<" + deep + ">";
    const mill_type *t = nullptr;
    mill_error err = {};
    EXPECT_EQ(mill_type_parse(deep.c_str(), &t, &err), MILL_OK) << err.msg;
    EXPECT_EQ(mill_type_list(t), nullptr);
    t = nullptr;
    EXPECT_EQ(mill_type_parse(("list<" + deep + ">").c_str(), &t, &err), MILL_ERR_PARSE);
    std::string hostile(1 << 20, '\0');
    for (size_t i = 0; i + 5 <= hostile.size(); i += 5) hostile.replace(i, 5, "list<");
    mill_error err2 = {};
    EXPECT_EQ(mill_type_parse(hostile.c_str(), &t, &err2), MILL_ERR_PARSE);
    EXPECT_EQ(t, nullptr);
}

TEST(Type, ConstructorsInternAndRefuse)
{
    const mill_type *i32 = mill_type_plain(MILL_INT32);
    ASSERT_NE(i32, nullptr);
    EXPECT_EQ(i32->width, 4);
    EXPECT_EQ(mill_type_plain(MILL_LIST), nullptr);
    EXPECT_EQ(mill_type_plain((mill_type_id)0), nullptr);
    EXPECT_EQ(mill_type_plain((mill_type_id)-5), nullptr);
    EXPECT_EQ(mill_type_list(i32), mill_type_list(i32));
    EXPECT_NE(mill_type_list(i32), mill_type_list(mill_type_plain(MILL_INT64)));
    EXPECT_NE(mill_type_fixed_list(i32, 2), mill_type_fixed_list(i32, 3));
    EXPECT_EQ(mill_type_fixed_list(i32, 0), nullptr);
    char name[] = "x";
    mill_field f[2] = {{name, i32}, {"y", i32}};
    const mill_type *s = mill_type_struct(f, 2);
    ASSERT_NE(s, nullptr);
    name[0] = 'z';
    EXPECT_STREQ(s->fields[0].name, "x") << "copied";
    f[1].name = "z";
    EXPECT_EQ(mill_type_struct(f, 2), nullptr) << "repeats";
    EXPECT_EQ(mill_type_struct(f, -1), nullptr);
    std::vector<std::string> names;
    std::vector<mill_field> many;
    for (int i = 0; i < 5000; i++) names.push_back("column_" + std::to_string(i));
    for (auto &n : names) many.push_back({n.c_str(), i32});
    const mill_type *wide = mill_type_struct(many.data(), 5000);
    ASSERT_NE(wide, nullptr);
    EXPECT_EQ(wide, mill_type_struct(many.data(), 5000));
    many.back().name = "column_17";
    EXPECT_EQ(mill_type_struct(many.data(), 5000), nullptr);
}

TEST(Type, ParsingFailsCleanlyAtEveryAllocation)
{
    for (int nth = 0;; nth++) {
        const std::string text = "struct<n" + std::to_string(nth) + ": list<utf8>, b: fixed_list<struct<q" + std::to_string(nth) +
                                 ": int32, r: bool>>[3]>";
        const mill_type *t = nullptr;
        mill_error err = {};
        const long before = mt::live();
        mt::FailNth fail(nth);
        const mill_status st = mill_type_parse(text.c_str(), &t, &err);
        const bool fired = fail.fired();
        EXPECT_EQ(st, fired ? MILL_ERR_NOMEM : MILL_OK);
        EXPECT_EQ(t != nullptr, st == MILL_OK);
        EXPECT_EQ(mt::live(), before);
        if (!fired) break;
    }
}
