/* Parameters: every type, valid and not, with the exact words a user reads. */
#include "kit.h"
#include "support/temp_dir.h"

#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cmath>
#include <cstdlib>
#include <fstream>

namespace {

const mill_param kParams[] = {
    {"flag", MILL_PARAM_BOOL, 0, "false", 0, 0, nullptr, "a flag"},
    {"count", MILL_PARAM_INT, 0, "3", 1, 64, nullptr, "an integer with a range"},
    {"least", MILL_PARAM_INT, MILL_PARAM_OPTIONAL, nullptr, 1, HUGE_VAL, nullptr, "an integer with one bound"},
    {"most", MILL_PARAM_INT, MILL_PARAM_OPTIONAL, nullptr, -HUGE_VAL, 9, nullptr, "an integer with the other bound"},
    {"any_int", MILL_PARAM_INT, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "an integer"},
    {"share", MILL_PARAM_FLOAT, 0, "0.5", 0, 1, nullptr, "a number"},
    {"free", MILL_PARAM_FLOAT, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "any number"},
    {"word", MILL_PARAM_STRING, 0, "'it''s'", 0, 0, nullptr, "text"},
    {"mode", MILL_PARAM_ENUM, 0, "fast", 0, 0, "fast|exact|auto", "a choice"},
    {"size", MILL_PARAM_BYTES, 0, "64MiB", 1024, 1 << 30, nullptr, "bytes"},
    {"wait", MILL_PARAM_DURATION, 0, "1.5s", 0.001, 3600, nullptr, "a duration"},
    {"limit", MILL_PARAM_DURATION, 0, "none", 0, 0, nullptr, "a duration or none"},
    {"names", MILL_PARAM_STRINGS, 0, "[a, 'b, c']", 0, 0, nullptr, "texts"},
    {"labels", MILL_PARAM_MAP, 0, "{x: one, y: two}", 0, 0, nullptr, "a map"},
    {"cols", MILL_PARAM_COLUMNS, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "columns"},
    {"extra", MILL_PARAM_JSON, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "anything"},
    {"in", MILL_PARAM_PATH, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "an input"},
    {"ins", MILL_PARAM_PATHS, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "inputs"},
    {"to_file", MILL_PARAM_OUT_PATH, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "an output"},
};

/* What configure saw of parameter `asked`. */
std::string asked, seen;

std::string number(double v)
{
    char b[64];
    snprintf(b, sizeof b, "%g", v);
    return b;
}

mill_status look(mill_step *, const mill_config *c, mill_io *, mill_error *)
{
    const char *n = asked.c_str();
    const char *text = mill_config_text(c, n);
    seen = std::string(mill_config_has(c, n) ? "" : "absent ") + (mill_config_bool(c, n) ? "true " : "") + "i" +
           std::to_string(mill_config_int(c, n)) + " f" + number(mill_config_float(c, n)) + (text ? " t" : "") + (text ? text : "");
    for (size_t i = 0; i < mill_config_count(c, n); i++)
        seen += std::string(" [") + mill_config_key(c, n, i) + "=" + mill_config_item(c, n, i) +
                (mill_config_type(c, n, i) ? "!" : "") + "]";
    EXPECT_EQ(mill_config_key(c, n, 1000), nullptr);
    EXPECT_EQ(mill_config_item(c, n, 1000), nullptr);
    EXPECT_EQ(mill_config_type(c, n, 1000), nullptr);
    return MILL_OK;
}

mill_step_type param_type()
{
    mill_step_type t = kit::type(MILL_STEP, "every");
    t.params = kParams;
    t.n_params = sizeof kParams / sizeof kParams[0];
    t.configure = look;
    return t;
}

struct ParamCase {
    const char *name;   /* of the parameter */
    const char *params; /* as the file has them */
    const char *want;   /* what configure saw, or the error */
};

class Param : public testing::TestWithParam<ParamCase> {};

TEST_P(Param, IsReadOrRefused)
{
    const mill_step_type type = param_type();
    const long before = mt::live();
    {
        kit::Spec s(&type, GetParam().params);
        s.from({{"x", "utf8"}});
        asked = GetParam().name;
        seen.clear();
        const std::string verdict = s.verdict();
        EXPECT_EQ(verdict == "ok" ? seen : verdict, GetParam().want) << GetParam().params;
        if (verdict != "ok") {
            EXPECT_EQ(s.error.phase, MILL_PHASE_CHECK);
            EXPECT_STREQ(s.error.step, "s1");
            EXPECT_STREQ(s.error.field, GetParam().name);
        }
    }
    EXPECT_EQ(mt::live(), before);
}

const ParamCase kGood[] = {
    {"flag", "{}", "i0 f0"},
    {"flag", "{flag: true}", "true i0 f0"},
    {"flag", "{flag: FALSE}", "i0 f0"},
    {"flag", "{flag: null}", "i0 f0"},
    {"count", "{}", "i3 f3"},
    {"count", "{count: 64}", "i64 f64"},
    {"count", "{count: +1}", "i1 f1"},
    {"least", "{}", "absent i0 f0"},
    {"least", "{least: ~}", "absent i0 f0"},
    {"least", "{least: 9223372036854775807}", "i9223372036854775807 f9.22337e+18"},
    {"most", "{most: -9223372036854775808}", "i-9223372036854775808 f-9.22337e+18"},
    {"any_int", "{any_int: -5}", "i-5 f-5"},
    {"share", "{}", "i0 f0.5"},
    {"share", "{share: 1}", "i0 f1"},
    {"share", "{share: 1e-3}", "i0 f0.001"},
    {"free", "{free: -.inf}", "i0 f-inf"},
    {"word", "{}", "i0 f0 tit's"},
    {"word", "{word: hello world}", "i0 f0 thello world"},
    {"word", "{word: 5}", "i0 f0 t5"},
    {"word", "{word: ''}", "i0 f0 t"},
    {"word", "{word: 'null'}", "i0 f0 tnull"},
    {"mode", "{}", "i0 f0 tfast"},
    {"mode", "{mode: exact}", "i0 f0 texact"},
    {"size", "{}", "i67108864 f6.71089e+07"},
    {"size", "{size: '1.5MB'}", "i1500000 f1.5e+06"},
    {"wait", "{}", "i0 f1.5"},
    {"wait", "{wait: 200ms}", "i0 f0.2"},
    {"wait", "{wait: 10}", "i0 f10"},
    {"limit", "{}", "i0 f-1"},
    {"names", "{}", "i0 f0 [=a] [=b, c]"},
    {"names", "{names: one}", "i0 f0 [=one]"},
    {"names", "{names: []}", "i0 f0"},
    {"names", "{names: [x, 5, '']}", "i0 f0 [=x] [=5] [=]"},
    {"labels", "{}", "i0 f0 [x=one] [y=two]"},
    {"labels", "{labels: {}}", "i0 f0"},
    {"labels", "{labels: {b: 2, a: 1}}", "i0 f0 [b=2] [a=1]"},
    {"cols", "{cols: {id: int64, v: 'fixed_list<float32>[3]'}}", "i0 f0 [id=int64!] [v=fixed_list<float32>[3]!]"},
    {"extra", "{extra: null}", "i0 f0 tnull"},
    {"extra", "{extra: {a: [1, -0.5e3, true, ~, 'x\"y'], b: {}}}",
     "i0 f0 t{\"a\": [1, -0.5e3, true, null, \"x\\\"y\"], \"b\": {}}"},
    {"extra", "{extra: [+5, 007, .5, 0x1f, 0o17, '0x1f', 0xg, '7', 1.]}",
     "i0 f0 t[5, 7, 0.5, 31, 15, \"0x1f\", \"0xg\", \"7\", 1]"},
    {"to_file", "{to_file: out/x.jsonl}", "i0 f0"}, /* no run directory under `check` */
};
/* named after parameter and place in the table */
INSTANTIATE_TEST_SUITE_P(Good, Param, testing::ValuesIn(kGood), [](const testing::TestParamInfo<ParamCase> &i) {
    return std::string(i.param.name) + "_" + std::to_string(i.index);
});

const ParamCase kBad[] = {
    {"flag", "{flag: yes}", "p.yaml:10:10: s1: parameter \"flag\" is \"yes\", expected true or false"},
    {"flag", "{flag: 'true'}", "p.yaml:10:10: s1: parameter \"flag\" is the text \"true\", expected true or false"},
    {"flag", "{flag: 1}", "p.yaml:10:10: s1: parameter \"flag\" is 1, expected true or false"},
    {"flag", "{flag: [true]}", "p.yaml:10:10: s1: parameter \"flag\" is a list, expected true or false"},
    {"count", "{count: 0}", "p.yaml:10:10: s1: parameter \"count\" is 0, expected an integer from 1 to 64"},
    {"count", "{count: 65}", "p.yaml:10:10: s1: parameter \"count\" is 65, expected an integer from 1 to 64"},
    {"count", "{count: 1.0}", "p.yaml:10:10: s1: parameter \"count\" is 1.0, expected an integer from 1 to 64"},
    {"count", "{count: many}", "p.yaml:10:10: s1: parameter \"count\" is \"many\", expected an integer from 1 to 64"},
    {"count", "{count: '5'}",
     "p.yaml:10:10: s1: parameter \"count\" is the text \"5\", expected an integer from 1 to 64. Leave the quotes out"},
    {"count", "{count: 1k}", "p.yaml:10:10: s1: parameter \"count\" is \"1k\", expected an integer from 1 to 64"},
    {"least", "{least: 0}", "p.yaml:10:10: s1: parameter \"least\" is 0, expected an integer of at least 1"},
    {"most", "{most: 10}", "p.yaml:10:10: s1: parameter \"most\" is 10, expected an integer of at most 9"},
    {"any_int", "{any_int: 9223372036854775808}",
     "p.yaml:10:10: s1: parameter \"any_int\" is 9223372036854775808, expected an integer"},
    {"share", "{share: 1.01}", "p.yaml:10:10: s1: parameter \"share\" is 1.01, expected a number from 0 to 1"},
    {"share", "{share: .nan}", "p.yaml:10:10: s1: parameter \"share\" is \".nan\", expected a number from 0 to 1"},
    {"share", "{share: {a: 1}}", "p.yaml:10:10: s1: parameter \"share\" is a map, expected a number from 0 to 1"},
    {"word", "{word: [a]}", "p.yaml:10:10: s1: parameter \"word\" is a list, expected text"},
    {"mode", "{mode: exakt}",
     "p.yaml:10:10: s1: parameter \"mode\" is \"exakt\", expected one of fast, exact, auto. Did you mean \"exact\"?"},
    {"mode", "{mode: fast|exact}", "p.yaml:10:10: s1: parameter \"mode\" is \"fast|exact\", expected one of fast, exact, auto"},
    {"size", "{size: 64M}",
     "p.yaml:10:10: s1: parameter \"size\" is \"64M\", expected a size such as 1000 or 64MiB from 1 KiB to 1 GiB"},
    {"size", "{size: 2GiB}",
     "p.yaml:10:10: s1: parameter \"size\" is \"2GiB\", expected a size such as 1000 or 64MiB from 1 KiB to 1 GiB"},
    {"wait", "{wait: none}",
     "p.yaml:10:10: s1: parameter \"wait\" is \"none\", expected a duration such as 200ms, 10s or 1.5h "
     "from 0.001 s to 3600 s"},
    {"limit", "{limit: soon}", "p.yaml:10:10: s1: parameter \"limit\" is \"soon\", expected a duration such as 200ms, 10s or 1.5h"},
    {"names", "{names: {a: b}}", "p.yaml:10:10: s1: parameter \"names\" is a map, expected text or a list of texts"},
    {"names", "{flag: true, names: [a, [b]]}",
     "p.yaml:11:21: s1: an entry of parameter \"names\" is a list, expected text or a list of texts"},
    {"names", "{names: [a, ~]}", "p.yaml:10:21: s1: an entry of parameter \"names\" is null, expected text or a list of texts"},
    {"labels", "{labels: [a]}", "p.yaml:10:10: s1: parameter \"labels\" is a list, expected a map of name: text"},
    {"labels", "{labels: {a: [1]}}", "p.yaml:10:20: s1: an entry of parameter \"labels\" is a list, expected a map of name: text"},
    {"labels", "{labels: {a: 1, b: 2, a: 3}}", "p.yaml:10:22: s1: parameter \"labels\" has \"a\" twice"},
    {"extra", "{extra: [1, .inf]}",
     "p.yaml:10:21: s1: an entry of parameter \"extra\" is .inf, expected a value that JSON can hold"},
    {"in", "{in: ''}", "p.yaml:10:10: s1: parameter \"in\" is the text \"\", expected the path of a file or folder"},
    {"in", "{in: gone.txt}", "p.yaml:10:10: s1: cannot find /nowhere/gone.txt (parameter \"in\")"},
    {"to_file", "{to_file: []}", "p.yaml:10:10: s1: parameter \"to_file\" is a list, expected a path"},
    {"count", "{count: 1, count: 2}", "p.yaml:11:5: s1: parameter \"count\" is given twice"},
    {"cuont", "{cuont: 1}", "p.yaml:10:5: s1: step type \"every\" has no parameter \"cuont\". Did you mean \"count\"?"},
    {"zzzzzz", "{zzzzzz: 1}",
     "p.yaml:10:5: s1: step type \"every\" has no parameter \"zzzzzz\". See `stepmill steps describe every`"},
};

TEST(ParamMessages, Table)
{
    const mill_step_type type = param_type();
    for (const ParamCase &c : kBad) {
        const long before = mt::live();
        {
            kit::Spec s(&type, c.params);
            s.from({{"x", "utf8"}});
            EXPECT_EQ(s.verdict(), c.want) << c.params;
            if (std::string(c.want).find("twice") == std::string::npos) {
                EXPECT_STREQ(s.error.field, c.name) << c.params;
            }
        }
        EXPECT_EQ(mt::live(), before) << c.params;
    }
}

TEST(ParamMessages, ColumnTypesSayWhatWasExpected)
{
    const mill_step_type type = param_type();
    kit::Spec s(&type, "{cols: {id: int64, v: flaot32}}");
    s.from({{"x", "utf8"}});
    EXPECT_NE(s.create(), MILL_OK);
    EXPECT_EQ(s.error.line, 10);
    EXPECT_EQ(s.error.column, 21);
    EXPECT_STREQ(s.error.context, "column \"v\" of parameter \"cols\"");
}

TEST(ParamMessages, LongValuesAreCutBetweenCharacters)
{
    const mill_step_type type = param_type();
    std::string euros;
    for (int i = 0; i < 40; i++) euros += "\xe2\x82\xac";
    kit::Spec s(&type, ("{count: " + euros + "}").c_str());
    s.from({{"x", "utf8"}});
    EXPECT_EQ(s.verdict(),
              "p.yaml:10:10: s1: parameter \"count\" is \"" + euros.substr(0, 60) + "\"..., expected an integer from 1 to 64");
}

TEST(ParamMessages, NearestNameKnowsTheEnginesKeys)
{
    static const char *const keys[] = {"replicas", "retries"};
    const mill_step_type type = param_type();
    kit::Spec s(&type, "{replcias: 1}");
    s.from({{"x", "utf8"}});
    s.raw().other_keys = keys;
    s.raw().n_other_keys = 2;
    EXPECT_EQ(s.verdict(), "p.yaml:10:5: s1: step type \"every\" has no parameter \"replcias\". Did you mean \"replicas\"?");
}

TEST(ParamMessages, RequiredParameterIsMissed)
{
    static const mill_param params[] = {{"k", MILL_PARAM_INT, 0, nullptr, 1, 8, nullptr, "neighbours per row"}};
    mill_step_type type = kit::type(MILL_STEP, "needs");
    type.params = params;
    type.n_params = 1;
    for (const bool null : {false, true}) { /* null says: not given, at that place */
        kit::Spec s(&type, null ? "{k: null}" : "{}");
        s.from({{"x", "utf8"}});
        EXPECT_EQ(s.verdict(), std::string(null ? "p.yaml:10:10" : "p.yaml:5:3") +
                                   ": s1: step type \"needs\" needs the parameter \"k\" (neighbours per row). "
                                   "Give an integer from 1 to 8");
        EXPECT_STREQ(s.error.field, "k");
    }
}

TEST(ParamMessages, DeepValuesAreRefused)
{
    const mill_step_type type = param_type();
    std::vector<stm_value> chain(200);
    for (size_t i = 0; i < chain.size(); i++) {
        chain[i].kind = stm_value::STM_VALUE_LIST;
        chain[i].items = i + 1 < chain.size() ? &chain[i + 1] : nullptr;
        chain[i].n_items = i + 1 < chain.size();
    }
    chain[0].key = "extra";
    chain[0].place = {"p.yaml", 7, 7};
    kit::Spec s(&type);
    s.from({{"x", "utf8"}});
    s.raw().params = chain.data();
    s.raw().n_params = 1;
    EXPECT_EQ(s.verdict(), "p.yaml:7:7: s1: parameter \"extra\" is nested deeper than 64 lists and maps");
}

TEST(ConfigFail, KnowsThePlaceOfAnEntry)
{
    static const char *name;
    mill_step_type type = param_type();
    type.configure = [](mill_step *, const mill_config *c, mill_io *, mill_error *err) {
        return mill_config_fail(c, name, err, MILL_ERR_DATA, "too %s", "odd");
    };
    static const struct {
        const char *name, *want;
    } cases[] = {
        {"names[1]", "p.yaml:11:21: s1: parameter \"names[1]\": too odd"},
        {"names", "p.yaml:11:10: s1: parameter \"names\": too odd"},
        {"names[99]", "p.yaml:11:10: s1: parameter \"names[99]\": too odd"},
        {"names[x", "p.yaml:11:20: s1: parameter \"names[x\": too odd"},
        {"count", "p.yaml:5:3: s1: parameter \"count\": too odd"}, /* defaulted: the step is to blame */
        {"nonsense", "p.yaml:5:3: s1: parameter \"nonsense\": too odd"},
    };
    for (const auto &c : cases) {
        name = c.name;
        kit::Spec s(&type, "{flag: true, names: [a, b]}");
        s.from({{"x", "utf8"}});
        EXPECT_EQ(s.verdict(), c.want);
        EXPECT_EQ(s.error.status, MILL_ERR_DATA);
    }
}

/* ---- paths ------------------------------------------------------------------------------------------------------------ */

class Paths : public testing::Test {
protected:
    void SetUp() override
    {
        mkdir(dir_.c_str(), 0755);
        mkdir((dir_ + "/data").c_str(), 0755);
        for (const char *f : {"data/b.jsonl", "data/a.jsonl", "data/B.jsonl", "data/c.txt", "a[1].txt", "corpus.jsonl"})
            std::ofstream(dir_ + "/" + f) << "{}\n";
        type_ = param_type();
    }
    /* What configure saw, or the error; the folder's name cut out. */
    std::string read(const char *name, const char *params, const char *run_dir = nullptr)
    {
        kit::Spec s(&type_, params);
        s.from({{"x", "utf8"}});
        s.raw().base_dir = dir_.c_str();
        s.raw().run_dir = run_dir;
        asked = name;
        std::string got = s.verdict();
        if (got == "ok") got = seen;
        for (size_t at; (at = got.find(dir_)) != std::string::npos;) got.replace(at, dir_.size(), "D");
        return got;
    }
    mt::TempDir temp_;
    std::string dir_{temp_.path() + "/[x]"}; /* brackets: the folder's own name is no pattern */
    mill_step_type type_;
};

TEST_F(Paths, InputsAreAbsoluteAndThere)
{
    EXPECT_EQ(read("in", "{in: corpus.jsonl}"), "i0 f0 tD/corpus.jsonl");
    EXPECT_EQ(read("in", "{in: ./corpus.jsonl}"), "i0 f0 tD/corpus.jsonl");
    EXPECT_EQ(read("in", "{in: data}"), "i0 f0 tD/data");
    EXPECT_EQ(read("in", "{in: corpsu.jsonl}"),
              "p.yaml:10:10: s1: cannot find D/corpsu.jsonl (parameter \"in\"). Did you mean \"corpus.jsonl\"?");
    EXPECT_EQ(read("in", "{in: corpus.jsonl/x}"), "p.yaml:10:10: s1: cannot find D/corpus.jsonl/x (parameter \"in\")");
}

TEST_F(Paths, PatternsAreExpandedAndSortedPerEntry)
{
    EXPECT_EQ(read("ins", "{ins: 'data/*.jsonl'}"), "i0 f0 [=D/data/B.jsonl] [=D/data/a.jsonl] [=D/data/b.jsonl]");
    EXPECT_EQ(read("ins", "{ins: [corpus.jsonl, './data/[ab].jsonl']}"),
              "i0 f0 [=D/corpus.jsonl] [=D/data/a.jsonl] [=D/data/b.jsonl]");
    EXPECT_EQ(read("ins", "{ins: './/data/.///[ab].jsonl'}"),
              "i0 f0 [=D/data/.///a.jsonl] [=D/data/.///b.jsonl]") << "below the pipeline file, not the root";
    ASSERT_EQ(symlink("nowhere", (dir_ + "/data/z.link").c_str()), 0);
    EXPECT_EQ(read("ins", "{ins: 'data/*.link'}"),
              "p.yaml:10:10: s1: D/data/z.link is a link that leads nowhere (parameter \"ins\")");
    EXPECT_EQ(read("in", "{in: data/z.link}"), "p.yaml:10:10: s1: D/data/z.link is a link that leads nowhere (parameter \"in\")");
    EXPECT_EQ(read("ins", "{ins: 'a[1].txt'}"), "i0 f0 [=D/a[1].txt]"); /* a file of that very name comes first */
    EXPECT_EQ(read("ins", "{ins: [data/c.txt, 'data/*.parquet']}"),
              "p.yaml:10:21: s1: no file matches " + temp_.path() + "/\\[x]/data/*.parquet (parameter \"ins\")");
    EXPECT_EQ(read("ins", "{ins: [data/c.txt, data/d.txt]}"),
              "p.yaml:10:21: s1: cannot find D/data/d.txt (parameter \"ins\"). Did you mean \"c.txt\"?");
}

TEST_F(Paths, InputsCanBeReadAgain)
{
    ASSERT_EQ(mkfifo((dir_ + "/data/fifo").c_str(), 0644), 0);
    ASSERT_EQ(symlink("fifo", (dir_ + "/data/link").c_str()), 0);
    ASSERT_EQ(symlink("../corpus.jsonl", (dir_ + "/data/good").c_str()), 0);
    const std::string why = ", which cannot be read again (parameter \"in",
                      what = "\"). Write what it gives to a file first, and name that";
    EXPECT_EQ(read("in", "{in: /dev/null}"), "p.yaml:10:10: s1: /dev/null is a device" + why + what);
    EXPECT_EQ(read("in", "{in: data/fifo}"), "p.yaml:10:10: s1: D/data/fifo is a pipe" + why + what);
    EXPECT_EQ(read("ins", "{ins: [corpus.jsonl, data/link]}"), "p.yaml:10:21: s1: D/data/link is a pipe" + why + "s" + what);
    EXPECT_EQ(read("ins", "{ins: 'data/[fx]*'}"), "p.yaml:10:10: s1: D/data/fifo is a pipe" + why + "s" + what);
    EXPECT_EQ(read("in", "{in: data/good}"), "i0 f0 tD/data/good");
}

TEST_F(Paths, OutputsStartAtTheRunDirectory)
{
    EXPECT_EQ(read("to_file", "{to_file: x.jsonl}", "/runs/a"), "i0 f0 t/runs/a/x.jsonl");
    EXPECT_EQ(read("to_file", "{to_file: /abs/x.jsonl}", "/runs/a"), "i0 f0 t/abs/x.jsonl");
    EXPECT_EQ(read("to_file", "{to_file: x.jsonl}"), "i0 f0");
}

TEST_F(Paths, RelativeBaseStartsAtTheWorkingDirectory)
{
    char old[PATH_MAX];
    ASSERT_NE(getcwd(old, sizeof old), nullptr);
    ASSERT_EQ(chdir(dir_.c_str()), 0);
    kit::Spec s(&type_, "{in: a.jsonl}");
    s.from({{"x", "utf8"}});
    s.raw().base_dir = "data";
    asked = "in";
    EXPECT_EQ(s.verdict(), "ok");
    EXPECT_EQ(seen, "i0 f0 t" + dir_ + "/data/a.jsonl");
    s.raw().base_dir = nullptr;
    EXPECT_NE(s.verdict(), "ok");
    EXPECT_EQ(chdir(old), 0);
}

/* Every allocation of a step with many parameters fails once: an error, no leak, no half-made step. */
TEST_F(Paths, EveryAllocationMayFail)
{
    asked = "ins";
    for (int nth = 0;; nth++) {
        ASSERT_LT(nth, 5000);
        kit::Spec s(&type_, "{names: [a, b, c], labels: {a: b}, cols: {c: 'list<int32>'}, extra: {a: [1, {b: c}]}, "
                            "ins: [corpus.jsonl, 'data/*'], in: corpus.jsonl, to_file: x, mode: exact, word: w}");
        s.from({{"x", "utf8"}});
        s.raw().base_dir = dir_.c_str();
        s.raw().run_dir = "/runs/a";
        const long before = mt::live();
        mt::FailNth fail(nth);
        const mill_status st = s.create();
        const bool fired = fail.fired();
        EXPECT_EQ(st == MILL_ERR_NOMEM, fired) << nth << ": " << kit::show(s.error);
        if (fired) {
            EXPECT_EQ(mt::live(), before) << "leak when allocation " << nth << " fails";
        }
        if (!fired) {
            EXPECT_EQ(st, MILL_OK);
            EXPECT_GT(nth, 50) << "the loop has to reach the step's allocations";
            return;
        }
    }
}

} // namespace
