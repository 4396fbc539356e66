#include "rows.h"

extern "C" {
#include "steps/expr/expr.h"
}

namespace {

const mt::Columns &columns()
{
    static const mt::Columns c({"t: utf8", "u: utf8", "i: int64", "k: int32", "f: float64", "g: float32", "b: bool", "j: json",
                                "l: list<int64>", "e: fixed_list<float32>[2]", "odd name: int64"});
    return c;
}

mill_status lookup(void *, const char *name, const mill_type **type, int32_t *index, mill_error *err)
{
    for (size_t i = 0; i < columns().names.size(); i++)
        if (columns().names[i] == name) {
            *type = columns().fields[i].type;
            *index = static_cast<int32_t>(i);
            return MILL_OK;
        }
    return mill_fail(err, MILL_ERR_NOT_FOUND, "there is no column %s", name);
}

/* "1", "0" or "n" per row. */
std::string eval(const std::string &text, const mill_batch *batch)
{
    stm_expr *e = nullptr;
    stm_expr_run *run = nullptr;
    mill_error err = {};
    const uint8_t *result = nullptr;
    if (stm_expr_compile(text.c_str(), lookup, nullptr, &e, &err) != MILL_OK) return err.msg;
    EXPECT_EQ(stm_expr_run_create(e, &run), MILL_OK);
    std::string out;
    const mill_status st = stm_expr_eval(run, batch, &result, &err);
    if (st != MILL_OK) out = err.msg;
    else
        for (int64_t r = 0; r < mill_batch_rows(batch); r++) out += "01n"[result[r]];
    stm_expr_run_destroy(&run);
    stm_expr_destroy(&e);
    return out;
}

} // namespace

TEST(Expr, Values)
{
    mt::Pool pool;
    mill_batch *batch = mt::from_json(
        pool, columns(),
        {R"({"t":"hello world","u":"h\u00e9llo","i":3,"k":-1,"f":1.5,"g":0.5,"b":true,"j":{"a":1},"l":[1,2],"e":[1,2],)"
         R"("odd name":1})",
         R"({"t":"","u":"z","i":-9223372036854775808,"k":0,"f":0,"g":2,"b":false,"j":"s","l":[],"e":[3,4],"odd name":0})",
         R"({})"});
    const struct { const char *text, *expected; } cases[] = {
        {"i == 3", "10n"}, {"i != 3", "01n"}, {"i < 0", "01n"}, {"i >= 3", "10n"}, {"i > 2.5", "10n"}, {"k <= 0", "11n"},
        {"f == 1.5", "10n"}, {"g < f", "10n"}, {"i == k", "00n"}, {"f", "character 1: this gives a number, not true or false"},
        {"b", "10n"}, {"not b", "01n"}, {"b == true", "10n"}, {"b != false", "10n"},
        {"t == \"hello world\"", "10n"}, {"t < 'i'", "11n"}, {"t == u", "00n"}, {"t is null", "001"}, {"t is not null", "110"},
        {"l is null", "001"}, {"t contains 'o w'", "10n"}, {"t contains ''", "11n"}, {"t starts_with 'hell'", "10n"},
        {"t ends_with 'world'", "10n"}, {"t not contains 'world'", "01n"}, {"t matches '^h.*d$'", "10n"},
        {"u matches 'h.llo'", "10n"},
        {"t matches '\\bworld'", "10n"}, {"t not matches 'h'", "01n"},
        {"length(t) == 11", "10n"}, {"length(u) == 5", "10n"}, {"bytes(u) == 6", "10n"}, {"length(l) == 2", "10n"},
        {"length(e) == 2", "11n"},
        {"i in (1, 2, 3)", "10n"}, {"i not in (1, 2, 3)", "01n"}, {"t in ('', 'x')", "01n"}, {"i in (3, null)", "1nn"},
        {"b or t is null", "101"}, {"b and i == 3", "10n"}, {"b and null", "n0n"}, {"b or null", "1nn"},
        {"not (b and null)", "n1n"},
        {"true or i == 1", "111"}, {"false and i == 1", "000"}, {"null", "nnn"}, {"null is null", "111"}, {"i == null", "nnn"},
        {"i + 1 == 4", "10n"}, {"i - 1 < 0", "0nn"}, {"-i == -3", "1nn"}, {"i * 2 == 6", "1nn"}, {"i / 2 == 1.5", "10n"},
        {"i % 2 == 1", "10n"},
        {"1 / k == -1", "1nn"}, {"1 % k == 0", "1nn"}, {"1 / f > 0", "1nn"}, {"1 + 2 * 3 == 7", "111"}, {"(1 + 2) * 3 == 9", "111"},
        {"10 - 3 - 2 == 5", "111"}, {"i % -1 == 0", "11n"}, {"1 == 1.0", "111"},
        {"`odd name` == 1", "10n"}, {"not not b", "10n"}, {"not i == 3", "01n"}, {"j contains 'a'", "10n"},
        {"i == 3 and b or k == 0 and not b", "11n"}, {"3 == i", "10n"}, {"\"a\\\"b\" == 'a\"b'", "111"}, {"'\\n' == \"\n\"", "111"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.text);
        EXPECT_EQ(eval(c.text, batch), c.expected);
    }
    mill_batch_destroy(&batch);
}

TEST(Expr, FaultsNameTheCharacter)
{
    const struct { const char *text, *message; } cases[] = {
        {"", "character 1: the expression ends where a value is expected"},
        {"i ==", "character 5: the expression ends"},
        {"i = 3", "character 3: to compare, write =="},
        {"b && b", "character 3: write and, or, not"},
        {"i == 3 i", "character 8: the expression should end here"},
        {"(i == 3", "character 8: ) is expected here"},
        {"nope == 1", "character 1: there is no column nope"},
        {"`no pe` == 1", "character 1: there is no column no pe"},
        {"t == 3", "character 1: cannot compare a text with a number"},
        {"b < true", "character 1: bools have no order"},
        {"l == 3", "character 1: cannot compare a value of another kind"},
        {"i and b", "character 1: true or false is expected here, this is a number"},
        {"b and i", "character 7: true or false is expected here"},
        {"not t", "character 5: true or false is expected here, this is a text"},
        {"t + 1 > 2", "character 1: a number is expected here, this is a text"},
        {"1 + t > 2", "character 5: a number is expected here"},
        {"size(t) > 1", "character 1: there is no function size"},
        {"length(i) > 1", "character 8: length takes a text or a list"},
        {"bytes(l) > 1", "character 7: bytes takes a text"},
        {"t matches '('", "character 11: the regular expression, at its byte 2"},
        {"t matches u", "character 11: matches needs a regular expression in quotes"},
        {"i matches 'x'", "character 1: a text is expected here"},
        {"t contains 3", "character 12: a text is expected here"},
        {"'abc == t", "character 1: this ' has no second one"},
        {"t == \"x\\", "character 6: this \" has no second one"},
        {"i == 99999999999999999999", "character 6: this number is out of range"},
        {"i == 3x", "character 6: a number cannot go on with a letter"},
        {"i in 3", "character 6: ( is expected here"},
        {"i in ()", "character 7: a value is expected here, not )"},
        {"i not 3", "character 7: in, contains, matches"},
        {"i is 3", "character 6: null is expected here"},
        {"and", "character 1: a value is expected here, not and"},
        {"'\xc3\xa9' == # 3", "character 8: # does not belong here"},
        {"i == 3; b", "character 7: ; does not belong here"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.text);
        EXPECT_EQ(eval(c.text, nullptr).substr(0, strlen(c.message)), c.message);
    }
    EXPECT_NE(eval(std::string(5000, '(') + "b" + std::string(5000, ')'), nullptr).find("nested too deeply"), std::string::npos);
    EXPECT_NE(eval(std::string(5000, '-') + "1 == 1", nullptr).find("nested too deeply"), std::string::npos);
    std::string chain = "b";
    for (int i = 0; i < 20000; i++) chain += " or b";
    EXPECT_NE(eval(chain, nullptr).find("too long"), std::string::npos);
}

/* A column that the batch lacks is null in every row; batches may grow. */
TEST(Expr, MissingColumnsAndGrowingBatches)
{
    mt::Pool pool;
    stm_expr *e = nullptr;
    stm_expr_run *run = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_expr_compile("length(l) > 0 or i == 1 or l is null and t is null", lookup, nullptr, &e, &err),
              MILL_OK) << err.msg;
    ASSERT_EQ(stm_expr_run_create(e, &run), MILL_OK);
    for (int64_t rows : {1, 64, 65, 1000, 3}) {
        mill_batch *batch = nullptr;
        ASSERT_EQ(mill_batch_create(pool, rows, 11, &batch), MILL_OK);
        const uint8_t *result = nullptr;
        ASSERT_EQ(stm_expr_eval(run, batch, &result, &err), MILL_OK);
        for (int64_t r = 0; r < rows; r++) ASSERT_EQ(result[r], 1);
        mill_batch_destroy(&batch);
    }
    stm_expr_run_destroy(&run);
    stm_expr_destroy(&e);
}
