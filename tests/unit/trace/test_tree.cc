/* The JSON reader: what it takes, what it refuses, what it makes of it. */
#include <gtest/gtest.h>

#include <string>
extern "C" {
#include "core/tree.h"
}

struct Doc {
    stm_tree_doc *doc = nullptr;
    const stm_tree *root = nullptr;
    mill_status st;
    explicit Doc(const std::string &text) : st(stm_tree_parse(text.data(), text.size(), &doc, &root)) {}
    ~Doc() { stm_tree_destroy(&doc); }
    Doc(const Doc &) = delete;
    Doc &operator=(const Doc &) = delete;
};

TEST(Tree, ValuesComeBack)
{
    const Doc d(" {\"a\": [1, -2.5e3, true, false, null, \"x\"], \"big\": 9007199254740993, \"o\":{ } , \"e\":[]}\n");
    ASSERT_EQ(d.st, MILL_OK);
    const stm_tree *a = stm_tree_get(d.root, "a");
    ASSERT_EQ(a->n, 6);
    const stm_tree *v = a->first;
    EXPECT_EQ(v->whole, 1);
    EXPECT_EQ((v = v->next)->number, -2500);
    EXPECT_EQ((v = v->next)->whole, 1);
    EXPECT_EQ((v = v->next)->whole, 0);
    EXPECT_EQ((v = v->next)->kind, STM_TREE_NULL);
    EXPECT_STREQ((v = v->next)->text, "x");
    EXPECT_EQ(stm_tree_whole(d.root, "big", 0), 9007199254740993) << "exact where a double is not";
    EXPECT_EQ(stm_tree_get(d.root, "o")->n, 0);
    EXPECT_STREQ(stm_tree_text(d.root, "none"), "");
    EXPECT_EQ(stm_tree_number(nullptr, "x", 7), 7);
}

TEST(Tree, TextsAreUnescaped)
{
    const Doc d(R"(["\"\\\/\b\f\n\r\t", "\u00e4\u20ac\ud83d\ude00", "\ud800x", "ä"])");
    ASSERT_EQ(d.st, MILL_OK);
    const stm_tree *v = d.root->first;
    EXPECT_STREQ(v->text, "\"\\/\b\f\n\r\t");
    EXPECT_STREQ((v = v->next)->text, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    EXPECT_STREQ((v = v->next)->text, "\xef\xbf\xbdx");
    EXPECT_STREQ((v = v->next)->text, "\xc3\xa4");
}

TEST(Tree, WhatIsNoJsonIsRefused)
{
    for (const char *text : {"", " ", "{", "[1,]", "{\"a\"}", "{\"a\":}", "[1 2]", "nul", "01x", "\"a", "\"\\x\"", "\"\\u12\"",
                             "\"a\nb\"", "[1] 2", "{a:1}", "inf", "nan", "+1", "]"}) {
        const Doc d(text);
        EXPECT_EQ(d.st, MILL_ERR_DATA) << text;
    }
    const Doc deep(std::string(100, '[') + std::string(100, ']')), deep_enough(std::string(60, '[') + std::string(60, ']'));
    EXPECT_EQ(deep.st, MILL_ERR_DATA);
    EXPECT_EQ(deep_enough.st, MILL_OK);
}
