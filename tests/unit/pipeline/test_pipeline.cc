/* Pipelines from YAML and from calls: what is planned, what --set changes, what fails cleanly. */
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "support/fail_nth.h"
#include "stepmill/run.h"
#include "types.h"
extern "C" {
#include "pipeline/pipeline.h"
}

namespace {

struct Pipeline {
    mill_pipeline *p = nullptr;
    mill_error err = {};
    Pipeline() = default;
    explicit Pipeline(const std::string &yaml)
    {
        EXPECT_EQ(mill_pipeline_parse(yaml.data(), yaml.size(), "dir/my.yaml", "/tmp", &p, &err), MILL_OK) << err.msg;
        EXPECT_EQ(mill_pipeline_add_types(p, &mt::kTypes, &err), MILL_OK) << err.msg;
    }
    ~Pipeline() { mill_pipeline_destroy(&p); }
    Pipeline(const Pipeline &) = delete;
    Pipeline &operator=(const Pipeline &) = delete;
    bool set(const char *key, const char *value) { return mill_pipeline_set(p, key, value, &err) == MILL_OK; }
    bool check() { return mill_pipeline_check(p, &err) == MILL_OK; }
    std::string said() const
    {
        char text[1600];
        mill_error_format(&err, text, sizeof text);
        return text;
    }
    std::string plan(mill_format format = MILL_FORMAT_TEXT)
    {
        char *text = nullptr;
        if (mill_pipeline_plan(p, format, &text, &err) != MILL_OK) return said();
        const std::string s = text;
        mill_text_free(&text);
        return s;
    }
};

/* The plan itself. */
struct Plan {
    stm_arena arena = {};
    stm_graph graph = {};
    stm_plan *plan = nullptr;
    std::map<std::string, const stm_plan_step *> step;
    explicit Plan(Pipeline &p, const char *run_dir = nullptr)
    {
        EXPECT_EQ(stm_pipeline_plan(p.p, run_dir, &arena, &graph, &plan, &p.err), MILL_OK) << p.said();
        for (int32_t i = 0; plan != nullptr && i < plan->n_steps; i++) step[plan->steps[i].step->name] = &plan->steps[i];
    }
    ~Plan()
    {
        stm_plan_destroy(&plan);
        stm_arena_fini(&arena);
    }
    Plan(const Plan &) = delete;
    Plan &operator=(const Plan &) = delete;
};

const char kLine[] = "stepmill: 1\nseed: 7\nmax_errors: 3\nmemory_limit: 1GiB\nsteps:\n"
                     "  out: {type: t_sink, from: map, path: out.txt, errors: true, order: any}\n"
                     "  map: {type: t_map, from: src, replicas: 2, input_batch_size: 32, on_error: stop, nulls: pass,\n"
                     "        retries: {times: 2, backoff: 250ms, classes: [transient, data]}, timeout: {load: none, batch: 2m},\n"
                     "        stop_if: {failed: 0.25, of: 100}, resources: {cpus: 3}}\n"
                     "  src: {type: t_source, batch_size: 16}\n";

TEST(Plan, CarriesEveryKey)
{
    Pipeline p(kLine);
    const Plan plan(p);
    ASSERT_EQ(plan.plan->n_steps, 3);
    EXPECT_STREQ(plan.plan->name, "my");
    EXPECT_EQ(plan.plan->seed, 7u);
    EXPECT_EQ(plan.plan->max_errors, 3);
    EXPECT_EQ(plan.plan->memory_limit, 1 << 30);
    EXPECT_TRUE(plan.plan->input_order);
    EXPECT_STREQ(plan.plan->steps[0].step->name, "src"); /* topological, whatever the file's order */
    EXPECT_STREQ(plan.plan->steps[2].step->name, "out");
    const mill_step *map = plan.step.at("map")->step;
    EXPECT_EQ(map->batch_rows, 32);
    EXPECT_EQ(map->policy.on_error, STM_ON_ERROR_STOP);
    EXPECT_EQ(map->policy.retry_times, 2);
    EXPECT_DOUBLE_EQ(map->policy.retry_backoff_s, 0.25);
    EXPECT_EQ(map->policy.retry_classes, 1u << MILL_CLASS_TRANSIENT | 1u << MILL_CLASS_DATA);
    EXPECT_LT(map->policy.load_timeout_s, 0);
    EXPECT_DOUBLE_EQ(map->policy.batch_timeout_s, 120);
    EXPECT_DOUBLE_EQ(map->policy.stop_failed, 0.25);
    EXPECT_EQ(map->policy.stop_of, 100);
    EXPECT_TRUE(map->policy.nulls_pass);
    EXPECT_EQ(map->policy.replicas, 2);
    EXPECT_EQ(map->policy.cpus, 3);
    EXPECT_TRUE(plan.step.at("out")->step->policy.sink_errors);
    EXPECT_TRUE(plan.step.at("out")->any_order);
    EXPECT_EQ(plan.step.at("src")->step->batch_rows, 16);
    EXPECT_GT(plan.step.at("src")->credit_rows, 2 * 32);
}

TEST(Plan, NumericsAreWhatTheFileSaysElseWhatTheDeviceIs)
{
    const struct {
        const char *head, *map;
        mill_numerics expected;
    } cases[] = {
        {"", "", MILL_NUMERICS_INVARIANT},
        {"numerics: invariant\n", "", MILL_NUMERICS_INVARIANT},
        {"numerics: fast\n", "", MILL_NUMERICS_FAST},
        {"", ", resources: {gpus: 1}", MILL_NUMERICS_FAST},
        {"numerics: invariant\n", ", resources: {gpus: 1}", MILL_NUMERICS_INVARIANT},
    };
    for (auto &c : cases) {
        SCOPED_TRACE(std::string(c.head) + c.map);
        Pipeline p(std::string("stepmill: 1\n") + c.head + "steps:\n  src: {type: t_source}\n  map: {type: t_map, from: src" +
                   c.map + "}\n");
        const Plan plan(p);
        EXPECT_EQ(mill_step_numerics(plan.step.at("map")->step), c.expected);
        EXPECT_EQ(mill_step_numerics(plan.step.at("src")->step),
                  !strcmp(c.head, "numerics: fast\n") ? MILL_NUMERICS_FAST : MILL_NUMERICS_INVARIANT);
    }
}

TEST(Plan, CreditIsWholeBatches)
{
    for (const auto &[asked, rows] : std::map<int, int>{{16, 16}, {40, 32}, {5, 16}, {64, 64}}) {
        Pipeline p("stepmill: 1\nsteps:\n  src: {type: t_source, batch_size: 16, credit: " + std::to_string(asked) +
                   "}\n  map: {type: t_map, from: src}\n");
        EXPECT_EQ(Plan(p).step.at("src")->credit_rows, rows) << asked;
    }
}

TEST(Plan, DefaultsAreThoseOfTheTables)
{
    Pipeline p(
        "stepmill: 1\nsteps:\n  src: {type: t_source}\n  map: {type: t_map, from: src}\n  hold: {type: t_state, from: src}\n");
    const Plan plan(p);
    EXPECT_EQ(plan.step.at("src")->step->batch_rows, 64);
    EXPECT_EQ(plan.step.at("map")->step->batch_rows, 0);
    EXPECT_EQ(plan.step.at("map")->step->policy.on_error, STM_ON_ERROR_ISOLATE); /* declares per_row */
    EXPECT_EQ(plan.step.at("hold")->step->policy.on_error, STM_ON_ERROR_IMPUTE);
    EXPECT_DOUBLE_EQ(plan.step.at("map")->step->policy.load_timeout_s, 600);
    EXPECT_LT(plan.step.at("map")->step->policy.batch_timeout_s, 0);
    EXPECT_EQ(plan.plan->max_errors, 0);
    EXPECT_GT(plan.plan->memory_limit, 0);
}

TEST(Plan, ModesOfFrom)
{
    Pipeline p("stepmill: 1\nsteps:\n"
               "  a: {type: t_source}\n  b: {type: t_source}\n"
               "  r: {type: t_route, from: a, to: {x: one, y: two}}\n"
               "  one: {type: t_map, from: r}\n  two: {type: t_map, from: r}\n"
               "  list: {type: t_map, from: [a, b]}\n"
               "  join: {type: t_map, from: {join: [a, b], on_missing: drop, on_uneven: null}}\n"
               "  union: {type: t_map, from: {union: [a, b]}}\n"
               "  conv: {type: t_map, from: {converge: [one, two]}, outputs: {length: again}}\n"
               "  each: {type: t_group, from: [a, b]}\n"
               "  both: {type: t_group, from: {converge: [one, two]}}\n");
    const Plan plan(p);
    ASSERT_NE(plan.plan, nullptr);
    EXPECT_EQ(plan.step.at("list")->mode, STM_INPUT_JOIN);
    EXPECT_EQ(plan.step.at("list")->on_missing, STM_MISSING_ERROR);
    EXPECT_EQ(plan.step.at("join")->on_missing, STM_MISSING_DROP);
    EXPECT_EQ(plan.step.at("join")->on_uneven, STM_UNEVEN_NULL);
    EXPECT_EQ(plan.step.at("union")->mode, STM_INPUT_UNION);
    EXPECT_EQ(plan.step.at("conv")->mode, STM_INPUT_CONVERGE);
    EXPECT_EQ(plan.step.at("conv")->on_missing, STM_MISSING_NULL);
    EXPECT_EQ(plan.step.at("each")->mode, STM_INPUT_EACH);
    EXPECT_EQ(plan.step.at("two")->inputs[0].branch, 1);
    /* a global behind a convergence gets a step in front of it that does the converging */
    EXPECT_EQ(plan.step.at("both")->mode, STM_INPUT_EACH);
    ASSERT_EQ(plan.step.count("both.from"), 1u);
    EXPECT_EQ(plan.step.at("both.from")->mode, STM_INPUT_CONVERGE);
    EXPECT_EQ(plan.step.at("both.from")->n_inputs, 2);
}

struct Stages {
    const char *name, *groups;
    int n;
    std::map<std::string, int> want;
};
const Stages kStages[] = {
    {"none", "null", 1, {{"s", 0}, {"a", 0}, {"b", 0}, {"c", 0}, {"o", 0}}},
    {"empty", "[]", 1, {{"s", 0}, {"a", 0}, {"b", 0}, {"c", 0}, {"o", 0}}},
    {"sequential", "sequential", 5, {{"s", 0}, {"a", 1}, {"b", 2}, {"c", 3}, {"o", 4}}},
    {"two", "[[a], [c]]", 2, {{"s", 0}, {"a", 0}, {"b", 0}, {"c", 1}, {"o", 1}}},
    {"open_generator_goes_with_its_first_consumer", "[[b], [c]]", 2, {{"s", 0}, {"a", 0}, {"b", 0}, {"c", 1}, {"o", 1}}},
    {"generator_alone", "[[s], [b]]", 2, {{"s", 0}, {"a", 0}, {"b", 1}, {"c", 1}, {"o", 1}}},
    {"sink_late", "[[s, a, b, c], [o]]", 2, {{"s", 0}, {"a", 0}, {"b", 0}, {"c", 0}, {"o", 1}}},
};
class PlanStages : public testing::TestWithParam<Stages> {};
TEST_P(PlanStages, AreAsListed)
{
    Pipeline p(std::string("stepmill: 1\nload_groups: ") + GetParam().groups +
               "\nsteps:\n  s: {type: t_source}\n  a: {type: t_map, from: s}\n  b: {type: t_map, from: a}\n"
               "  c: {type: t_map, from: b}\n  o: {type: t_sink, from: c, path: x}\n");
    const Plan plan(p);
    ASSERT_NE(plan.plan, nullptr);
    EXPECT_EQ(plan.plan->n_stages, GetParam().n);
    for (const auto &want : GetParam().want) EXPECT_EQ(plan.step.at(want.first)->stage, want.second) << want.first;
}
INSTANTIATE_TEST_SUITE_P(Table, PlanStages, testing::ValuesIn(kStages), [](const auto &i) { return std::string(i.param.name); });

TEST(Plan, TextNamesStepsColumnsAndCredit)
{
    Pipeline p(kLine);
    const std::string text = p.plan(), json = p.plan(MILL_FORMAT_JSON);
    for (const char *part : {"pipeline my: 3 steps, 1 stage, seed 7", "src", "generator, t_source, batches of 16 rows",
                             "credit:", "map   step, t_map, 2 replicas, 3 cpus each, batches of 32 rows, on error stop",
                             "<- src  id: int64, text: utf8", "<- map  id: int64, text: utf8, length: int64"})
        EXPECT_NE(text.find(part), std::string::npos) << part << "\nin\n" << text;
    for (const char *part : {"\"name\":\"my\"", "\"batch_rows\":16", "\"credit_rows\":", "\"replicas\":2",
                             "\"columns\":[{\"name\":\"id\",\"type\":\"int64\"}", "\"from\":[{\"step\":\"map\"}]"})
        EXPECT_NE(json.find(part), std::string::npos) << part << "\nin\n" << json;
}

/* ---- built by calls ------------------------------------------------------------------------------------------------ */

TEST(Pipeline, BuiltByCallsIsTheSameAsRead)
{
    Pipeline read(
        "stepmill: 1\nname: two\nsteps:\n  src: {type: t_source, rows: 5}\n  map: {type: t_map, from: src, words: [a, b]}\n"
        "  out: {type: t_sink, from: [map, src], path: x}\n");
    Pipeline made;
    ASSERT_EQ(mill_pipeline_create("two", &made.p, &made.err), MILL_OK);
    ASSERT_EQ(mill_pipeline_add_types(made.p, &mt::kTypes, &made.err), MILL_OK);
    ASSERT_EQ(mill_pipeline_add(made.p, "src", "t_source", &made.err), MILL_OK);
    ASSERT_EQ(mill_pipeline_add(made.p, "map", "t_map", &made.err), MILL_OK);
    ASSERT_EQ(mill_pipeline_add(made.p, "out", "t_sink", &made.err), MILL_OK);
    ASSERT_TRUE(made.set("src.rows", "5")) << made.said();
    ASSERT_TRUE(made.set("map.words", "[a, b]")) << made.said();
    ASSERT_TRUE(made.set("out.path", "x")) << made.said();
    ASSERT_EQ(mill_pipeline_connect(made.p, "src", "map", &made.err), MILL_OK);
    ASSERT_EQ(mill_pipeline_connect(made.p, "map", "out", &made.err), MILL_OK);
    ASSERT_EQ(mill_pipeline_connect(made.p, "src", "out", &made.err), MILL_OK);
    EXPECT_EQ(made.plan(MILL_FORMAT_JSON), read.plan(MILL_FORMAT_JSON));
    EXPECT_STREQ(mill_pipeline_name(made.p), "two");
}

TEST(Pipeline, DefaultNamesKeepFilesApart)
{
    static const struct {
        const char *file, *name;
    } cases[] = {{"dir.d/near-duplicates.yaml", "near-duplicates"},
                 {"sweep.0.5.yaml", "sweep_0_5"}, {"sweep.0.9.yaml", "sweep_0_9"},
                 {"noext", "noext"}, {".yaml", "pipeline"}, {".a.yml", "_a"}, {"-d.yaml", "_d"}, {"a b.yaml", "a_b"}};
    for (const auto &c : cases) {
        mill_pipeline *p = nullptr;
        mill_error err = {};
        ASSERT_EQ(mill_pipeline_parse(kLine, strlen(kLine), c.file, nullptr, &p, &err), MILL_OK) << err.msg;
        EXPECT_STREQ(mill_pipeline_name(p), c.name) << c.file;
        mill_pipeline_destroy(&p);
    }
}

TEST(Pipeline, CallsRefuseWhatCannotBe)
{
    Pipeline p;
    EXPECT_EQ(mill_pipeline_create("a/b", &p.p, &p.err), MILL_ERR_INVALID);
    EXPECT_EQ(p.p, nullptr);
    p.err = {};
    ASSERT_EQ(mill_pipeline_create("x", &p.p, &p.err), MILL_OK);
    ASSERT_EQ(mill_pipeline_add(p.p, "a", "t_source", &p.err), MILL_OK);
    EXPECT_EQ(mill_pipeline_add(p.p, "a", "t_source", &p.err), MILL_ERR_INVALID);
    EXPECT_STREQ(p.err.msg, "there is a step a already");
    p.err = {};
    EXPECT_EQ(mill_pipeline_connect(p.p, "a", "b", &p.err), MILL_ERR_NOT_FOUND);
    EXPECT_STREQ(p.err.msg, "no step \"b\"");
    p.err = {};
    EXPECT_FALSE(p.check()); /* t_source is not known here; said without a file, since there is none */
    EXPECT_EQ(p.said().find("a: unknown step type \"t_source\""), 0u) << p.said();
}

/* ---- --set ---------------------------------------------------------------------------------------------------------- */

struct Setting {
    const char *name, *key, *value, *says; /* "" = accepted and valid */
};
const Setting kSettings[] = {
    {"parameter", "src.rows", "99", ""},
    {"engine_key", "map.replicas", "4", ""},
    {"nested", "map.retries.times", "5", ""},
    {"nested_in_nothing", "src.timeout.load", "5s", ""},
    {"file_key", "seed", "8", ""},
    {"file_key_nested", "memory_limit.host", "2GiB", ""},
    {"list", "map.words", "[a, b]", ""},
    {"map_value", "src.columns", "{id: int64, text: utf8, more: float32}", ""},
    {"text_like_yaml", "out.path", "a: b, *c", ""},
    {"wrong_type", "src.rows", "many",
     "--set src.rows=many: src: parameter \"rows\" is \"many\", expected an integer from 0 to 1000000"},
    {"out_of_range", "map.replicas", "0", "--set map.replicas=0: map: replicas: expected a whole number from 1 to 1024, got \"0\""},
    {"unknown_step", "mpa.replicas", "2", "--set mpa.replicas=2: no step \"mpa\". Did you mean \"map\"?"},
    {"unknown_key", "map.replica", "2",
     "--set map.replica=2: map: step type t_map has no parameter \"replica\". Did you mean \"replicas\"?"},
    {"unknown_file_key", "sed", "2", "--set sed=2: no key of the file \"sed\". Did you mean \"seed\"?"},
    {"whole_step", "map", "2", "--set map=2: \"map\" is a step, not a key. Say which of its keys: map.KEY=VALUE"},
    {"nothing", "out.path", "",
     "--set out.path=: out: step type \"t_sink\" needs the parameter \"path\" (file to write). Give a path"},
    {"sixteens", "map.replicas", "0x10", ""},
    {"eights", "memory_limit", "0o17777777", ""},
    {"capital_truth", "keep_sink_rows", "False", ""},
    {"broken_list", "map.words", "[a", "--set map.words=[a, character 1 of the value: a list without closing ']'"},
    {"in_a_map", "src.columns", "{id: int64, text: utf9}",
     "--set src.columns={id: int64, text: utf9}, character 19 of the value: src: type \"utf9\": expected bool, int32, int64, "
     "float16, float32, float64, utf8, binary, json, "
     "list<...>, fixed_list<...>[n] or struct<...> at character 1 (column \"text\" of parameter \"columns\")"},
};
class PipelineSet : public testing::TestWithParam<Setting> {};
TEST_P(PipelineSet, IsTypedByTheTables)
{
    Pipeline p(kLine);
    const bool ok = p.set(GetParam().key, GetParam().value) && p.check();
    EXPECT_EQ(ok, GetParam().says[0] == '\0');
    EXPECT_EQ(p.said(), GetParam().says);
}
INSTANTIATE_TEST_SUITE_P(Table, PipelineSet, testing::ValuesIn(kSettings), [](const auto &i) { return std::string(i.param.name); });

TEST(Pipeline, SetReplacesAndIsSeenInThePlan)
{
    Pipeline p(kLine);
    ASSERT_TRUE(p.set("map.replicas", "5") && p.set("map.retries.times", "9") && p.set("seed", "11"));
    const Plan plan(p);
    EXPECT_EQ(plan.step.at("map")->step->policy.replicas, 5);
    EXPECT_EQ(plan.step.at("map")->step->policy.retry_times, 9);
    EXPECT_DOUBLE_EQ(plan.step.at("map")->step->policy.retry_backoff_s, 0.25); /* what stood beside it stays */
    EXPECT_EQ(plan.plan->seed, 11u);
}

/* Two steps share a map by an alias: setting a key of one leaves the other alone. */
TEST(Pipeline, SetOfAnAliasedStepChangesThatStepOnly)
{
    Pipeline p("stepmill: 1\nsteps:\n  src: {type: t_source}\n  a: &a {type: t_map, from: src, retries: {times: 1}, replicas: 1}\n "
               " b: *a\n");
    ASSERT_TRUE(p.set("b.replicas", "3") && p.set("b.retries.times", "7") && p.set("b.scale", "2"));
    const Plan plan(p);
    EXPECT_EQ(plan.step.at("a")->step->policy.replicas, 1);
    EXPECT_EQ(plan.step.at("a")->step->policy.retry_times, 1);
    EXPECT_EQ(plan.step.at("b")->step->policy.replicas, 3);
    EXPECT_EQ(plan.step.at("b")->step->policy.retry_times, 7);
}

TEST(Pipeline, NotesSayWhatIsGivenUp)
{
    Pipeline p("stepmill: 1\norder: any\nsteps:\n  src: {type: t_source}\n  out: {type: t_sink, from: src, path: x}\n");
    char *notes = nullptr;
    ASSERT_EQ(mill_pipeline_notes(p.p, &notes, &p.err), MILL_OK);
    EXPECT_STREQ(notes, "note: out: order: any: its rows come in another order in every run\n");
    mill_text_free(&notes);
    Pipeline q("stepmill: 1\nsteps:\n  src: {type: t_source}\n");
    ASSERT_EQ(mill_pipeline_notes(q.p, &notes, &q.err), MILL_OK);
    EXPECT_STREQ(notes, "note: no step is a sink: nothing is written\n");
    mill_text_free(&notes);
}

TEST(Pipeline, RunsAreRefusedWithoutAnErrorRecordToo)
{
    const char *const none[] = {"/nonexistent/shard-1-of-2"};
    Pipeline p(kLine);
    mill_run *run = nullptr;
    mill_run_options merge = MILL_RUN_OPTIONS_INIT, retry = MILL_RUN_OPTIONS_INIT;
    merge.dir = retry.dir = "/nonexistent/run";
    merge.merge = none;
    merge.n_merge = 1;
    retry.retry = MILL_RETRY_ROWS;
    EXPECT_EQ(mill_run_start(p.p, &merge, &run, nullptr), MILL_ERR_NOT_FOUND);
    EXPECT_EQ(mill_run_start(p.p, &retry, &run, nullptr), MILL_ERR_IO);
    EXPECT_EQ(run, nullptr);
}

TEST(Pipeline, UnreadableFiles)
{
    for (const char *path : {"/no/such/file.yaml", "/tmp", "/proc/self/mem"}) {
        mill_pipeline *p = nullptr;
        mill_error err = {};
        EXPECT_NE(mill_pipeline_open(path, &p, &err), MILL_OK) << path;
        EXPECT_EQ(p, nullptr);
        EXPECT_STREQ(err.file, path);
        EXPECT_STRNE(err.msg, "");
        EXPECT_EQ(err.phase, MILL_PHASE_CHECK);
    }
}

/* ---- the n-th allocation fails ------------------------------------------------------------------------------------- */

TEST(Pipeline, FailsCleanlyAtEveryAllocationOfReadingAndPlanning)
{
    const std::string text =
        "stepmill: 1\nload_groups: [[a], [b, g]]\nsteps:\n  s: {type: t_source}\n  a: {type: t_map, from: s, words: [x, y]}\n"
        "  b: {type: t_map, from: [a, s], inputs: {text: text}, outputs: {length: l2}}\n"
        "  r: {type: t_route, from: b, to: {x: c, y: d}}\n  c: {type: t_map, from: r, outputs: {length: l3}}\n"
        "  d: {type: t_map, from: r, outputs: {length: l3}}\n"
        "  g: {type: t_group, from: {converge: [c, d]}}\n  o: {type: t_sink, from: g, path: p}\n";
    long before = -1;

    for (int nth = 0;; nth++) {
        mill_pipeline *p = nullptr;
        mill_error err = {};
        char *plan = nullptr;
        if (before < 0) before = mt::live();
        mt::FailNth fail(nth);
        mill_status st = mill_pipeline_parse(text.data(), text.size(), "p.yaml", "/tmp", &p, &err);
        if (st == MILL_OK) st = mill_pipeline_add_types(p, &mt::kTypes, &err);
        if (st == MILL_OK) st = mill_pipeline_set(p, "a.replicas", "2", &err);
        if (st == MILL_OK) st = mill_pipeline_plan(p, MILL_FORMAT_JSON, &plan, &err);
        const bool fired = fail.fired();
        EXPECT_EQ(st == MILL_OK, plan != nullptr);
        if (fired && st != MILL_OK) { /* some allocations may fail without harm: suggestions in messages, for one */
            EXPECT_EQ(st, MILL_ERR_NOMEM) << nth << ": " << err.msg;
            EXPECT_STRNE(err.msg, "");
        }
        EXPECT_TRUE(fired || st == MILL_OK) << err.msg;
        mill_text_free(&plan);
        mill_pipeline_destroy(&p);
        EXPECT_EQ(mt::live_states, 0) << nth;
        if (nth > 0 || !fired) {
            EXPECT_LE(mt::live(), before + 64) << nth; /* interned types stay */
        }
        if (!fired) {
            EXPECT_GT(nth, 100);
            break;
        }
    }
    /* exactly: once everything that is interned is there, a whole pass leaves nothing */
    before = mt::live();
    Pipeline *again = new Pipeline(text);
    EXPECT_TRUE(again->check());
    delete again;
    EXPECT_EQ(mt::live(), before);
}

} // namespace
