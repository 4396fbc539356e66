/* What `steps describe` and the schema say of a type. */
#include "kit.h"

extern "C" {
#include "plugin/describe.h"
}

#include <cmath>

namespace {

const mill_param kParams[] = {
    {"path", MILL_PARAM_PATHS, 0, nullptr, 0, 0, nullptr, "files to read"},
    {"k", MILL_PARAM_INT, 0, "10", 1, HUGE_VAL, nullptr, "neighbours"},
    {"mode", MILL_PARAM_ENUM, 0, "fast", 0, 0, "fast|exact", "how"},
    {"size", MILL_PARAM_BYTES, MILL_PARAM_NO_RESULT, "64MiB", 0, 0, nullptr, "of a \"block\""},
    {"names", MILL_PARAM_STRINGS, 0, "[a, 'b']", 0, 0, nullptr, "names"},
    {"word", MILL_PARAM_STRING, 0, "5", 0, 0, nullptr, "a word"},
    {"share", MILL_PARAM_FLOAT, 0, ".5", 0, 1, nullptr, "a share"},
    {"any", MILL_PARAM_JSON, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "anything"},
};
const mill_column_decl kIn[] = {{"text", "text", "what to read"}};
const mill_column_decl kOut[] = {{"v", "list<float32>", "what is written"}};

mill_step_type described()
{
    mill_step_type t = kit::type(MILL_STEP, "demo");
    t.flags = MILL_PER_ROW | MILL_FILTERS;
    t.params = kParams;
    t.n_params = sizeof kParams / sizeof kParams[0];
    t.inputs = kIn, t.n_inputs = 1;
    t.outputs = kOut, t.n_outputs = 1;
    return t;
}

template <class F> std::string run(F f)
{
    const mill_step_type t = described();
    stm_text out = {};
    f(&t, &out);
    std::string s(out.data ? out.data : "", out.bytes);
    EXPECT_FALSE(out.failed);
    stm_text_free(&out);
    return s;
}

TEST(Describe, Text)
{
    EXPECT_EQ(run([](auto *t, auto *o) { stm_describe_text(t, "built in", o); }),
              "demo: for tests\n"
              "kind: step; version 1; built in\n"
              "\nproperties\n"
              "  per_row: a row's result does not depend on its neighbours\n"
              "  filters: may drop rows\n"
              "\nreads\n  text: utf8 or json\n      what to read\n"
              "\nwrites\n  v: list<float32>\n      what is written\n"
              "\nparameters\n"
              "  path: a path, a pattern such as data/*.jsonl, or a list of them (required)\n      files to read\n"
              "  k: an integer of at least 1 (default 10)\n      neighbours\n"
              "  mode: one of fast, exact (default fast)\n      how\n"
              "  size: a size such as 1000 or 64MiB (default 64MiB)\n      of a \"block\"\n"
              "  names: text or a list of texts (default [a, 'b'])\n      names\n"
              "  word: text (default 5)\n      a word\n"
              "  share: a number from 0 to 1 (default .5)\n      a share\n"
              "  any: a value that JSON can hold (optional)\n      anything\n");
}

TEST(Describe, Json)
{
    EXPECT_EQ(
        run([](auto *t, auto *o) { stm_describe_json(t, "./x.so", o); }),
        "{\"name\": \"demo\", \"kind\": \"step\", \"summary\": \"for tests\", \"version\": \"1\", \"origin\": \"./x.so\", "
        "\"flags\": [\"per_row\", \"filters\"], "
        "\"inputs\": [{\"name\": \"text\", \"type\": \"text\", \"text\": \"what to read\"}], "
        "\"outputs\": [{\"name\": \"v\", \"type\": \"list<float32>\", \"text\": \"what is written\"}], \"parameters\": ["
        "{\"name\": \"path\", \"type\": \"paths\", \"required\": true, \"text\": \"files to read\", \"result\": true}, "
        "{\"name\": \"k\", \"type\": \"int\", \"required\": false, \"default\": 10, \"min\": 1, \"text\": \"neighbours\", "
        "\"result\": true}, "
        "{\"name\": \"mode\", \"type\": \"enum\", \"required\": false, \"default\": \"fast\", \"choices\": [\"fast\", \"exact\"], "
        "\"text\": \"how\", \"result\": true}, "
        "{\"name\": \"size\", \"type\": \"bytes\", \"required\": false, \"default\": \"64MiB\", \"text\": \"of a \\\"block\\\"\", "
        "\"result\": false}, "
        "{\"name\": \"names\", \"type\": \"strings\", \"required\": false, \"default\": [\"a\", \"b\"], \"text\": \"names\", "
        "\"result\": true}, "
        "{\"name\": \"word\", \"type\": \"string\", \"required\": false, \"default\": \"5\", \"text\": \"a word\", "
        "\"result\": true}, "
        "{\"name\": \"share\", \"type\": \"float\", \"required\": false, \"default\": 0.5, \"min\": 0, \"max\": 1, "
        "\"text\": \"a share\", \"result\": true}, "
        "{\"name\": \"any\", \"type\": \"json\", \"required\": false, \"text\": \"anything\", \"result\": true}]}");
}

TEST(Describe, Schema)
{
    const std::string s = run([](auto *t, auto *o) { stm_describe_schema_properties(t, o); });
    EXPECT_NE(s.find("\"k\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 9.2233720368547758e+18, \"description\": "
                     "\"neighbours\", \"default\": 10}"),
              std::string::npos)
        << s;
    EXPECT_NE(s.find("\"mode\": {\"enum\": [\"fast\", \"exact\"], \"description\": \"how\", \"default\": \"fast\"}"),
              std::string::npos)
        << s;
    EXPECT_NE(s.find("\"any\": {\"description\": \"anything\"}"), std::string::npos) << s;
    EXPECT_EQ(run([](auto *t, auto *o) { stm_describe_schema_required(t, o); }), "\"path\"");
}

TEST(Describe, OutOfMemoryIsSeen)
{
    const mill_step_type t = described();
    const long before = mt::live();
    for (int nth = 0;; nth++) {
        stm_text out = {};
        mt::FailNth fail(nth);
        stm_describe_json(&t, "x", &out);
        const bool fired = fail.fired();
        EXPECT_EQ(out.failed, fired) << nth;
        stm_text_free(&out);
        EXPECT_EQ(mt::live(), before);
        if (!fired) {
            EXPECT_GT(nth, 3);
            break;
        }
    }
}

} // namespace
