/* The command from outside: output, exit codes, signals, deadlines. */
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>

#include "command.h"

namespace {

using mt::Command;
using mt::Folder;
using mt::Result;

std::string pipeline(const std::string &count, const std::string &work, const std::string &head = "")
{
    return "stepmill: 1\nname: t\n" + head + "plugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, " + count +
           "}\n  work: {type: e2e_work, from: count" + (work.empty() ? "" : ", " + work) +
           "}\n  out: {type: write_jsonl, from: work, path: out.jsonl}\n";
}

int lines(const std::string &s) { return (int)std::count(s.begin(), s.end(), '\n'); }

TEST(Cli, RunWritesRowsAndSaysWhere)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 100, batch_size: 8", ""));
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.out, "");
    EXPECT_NE(r.err.find("done after "), std::string::npos) << r.err;
    EXPECT_NE(r.err.find("100 rows in, 100 rows out, "), std::string::npos) << r.err;
    EXPECT_NE(r.err.find("out: " + f.path() + "/runs/t/out.jsonl\n"), std::string::npos) << r.err;
    const std::string out = f.read("runs/t/out.jsonl");
    EXPECT_EQ(lines(out), 100);
    EXPECT_EQ(out.substr(0, out.find('\n')), "{\"id\":0,\"doubled\":0}");
    EXPECT_EQ(f.read("runs/t/errors.jsonl"), "");
}

/* Step types of modules stand beside the others: in the list, by name, and in the schema. */
TEST(Cli, StepTypesOfModulesAreListed)
{
    std::vector<std::string> types = {"command", "read_jsonl"};
#ifdef HAVE_HTTP
    types.insert(types.end(), {"chat", "complete", "embed_remote"});
#endif
#ifdef HAVE_PARQUET
    types.insert(types.end(), {"read_parquet", "write_parquet"});
#endif
    Folder f;
    const Result list = mt::run(f, {"steps", "list"}), json = mt::run(f, {"steps", "list", "--json"}),
                 schema = mt::run(f, {"schema"});
    EXPECT_EQ(list.code + json.code + schema.code, 0) << list.err << json.err << schema.err;
    for (const std::string &t : types) {
        EXPECT_NE(("\n" + list.out).find("\n" + t + " "), std::string::npos) << t;
        EXPECT_NE(json.out.find("\"" + t + "\""), std::string::npos) << t;
        EXPECT_NE(schema.out.find("\"" + t + "\""), std::string::npos) << t;
        EXPECT_EQ(mt::run(f, {"steps", "describe", t}).code, 0) << t;
    }
}

/* Work that is done over fails over: its old errors are neither counted nor listed, in this run and in those after it. */
TEST(Cli, ErrorsOfWorkDoneOverAreForgotten)
{
    Folder f;
    f.write("a.jsonl", "{\"a\":1}\noops\n{\"a\":3}\noops\n");
    f.write("b.jsonl", "{\"a\":1}\n{\"a\":2}\noops\n");
    f.write("t.yaml", "stepmill: 1\nname: t\nmax_errors: 2\nsteps:\n  in: {type: read_jsonl, path: a.jsonl, columns: {a: int64}}\n"
                      "  out: {type: write_jsonl, from: in, path: out.jsonl, errors: true}\n");
    const struct { const char *path; int bad; } runs[] = {{"a.jsonl", 2}, {"a.jsonl", 2}, {"b.jsonl", 1}, {"b.jsonl", 1},
                                                          {"a.jsonl", 2}, {"a.jsonl", 2}, {"b.jsonl", 1}};
    int n = 0;
    for (const auto &k : runs) {
        SCOPED_TRACE("run " + std::to_string(++n) + " of " + k.path);
        const Result r = mt::run(f, {"run", "t.yaml", "--json", "-q", "--set", std::string("in.path=") + k.path});
        EXPECT_EQ(r.code, 0) << r.err;
        EXPECT_NE(r.out.find("\"rows_imputed\":" + std::to_string(k.bad) + ",\"errors\":" + std::to_string(k.bad)),
                  std::string::npos) << r.out;
        EXPECT_EQ(lines(f.read("runs/t/errors.jsonl")), k.bad);
    }
}

TEST(Cli, PartsAreShownAsAPattern)
{
    Folder f;
    f.write("t.yaml", "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, rows: 30}\n"
                      "  a: {type: write_jsonl, from: count, path: a.jsonl.gz, part_rows: 10}\n  b: {type: write_jsonl, from: "
                      "count, path: b.c, part_rows: 30}\n");
    Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(f.has("runs/t/a-00002.jsonl.gz"));
    EXPECT_NE(r.err.find("  a: " + f.path() + "/runs/t/a-*.jsonl.gz\n  b: " + f.path() + "/runs/t/b-*.c\n"), std::string::npos)
        << r.err;
    r = mt::run(f, {"run", "t.yaml", "--json", "-q"});
    EXPECT_NE(r.out.find("\"path\":\"" + f.path() + "/runs/t/a-*.jsonl.gz\""), std::string::npos) << r.out;
}

/* Two runs that write one file outside of their directories: the second is told who does; stopped in the middle, neither touches
 * what the other has unfinished, and whoever completes last has the file, whole. */
TEST(Cli, TwoRunsOfOneFile)
{
    Folder f;
    auto text = [&](const char *name, const std::string &count) {
        return "stepmill: 1\nname: " + std::string(name) +
               "\ncommit_interval: 10ms\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, " + count +
               "}\n  out: {type: write_jsonl, from: count, path: " + f.path() + "/shared.jsonl}\n";
    };
    f.write("a.yaml", text("a", "rows: 60, batch_size: 1, pause: 50ms"));
    f.write("b.yaml", text("b", "rows: 7"));
    Command a(f, {"run", "-q", "a.yaml"});
    for (int i = 0; i < 20000 && !f.has("runs/a/manifest.json"); i++) usleep(1000);
    const Result busy = mt::run(f, {"run", "-q", "b.yaml"});
    EXPECT_EQ(busy.code, 73) << busy.err;
    EXPECT_EQ(busy.err.find("error: b.yaml:7:47: out: the output " + f.path() + "/shared.jsonl is in use by process "),
              0u) << busy.err;
    EXPECT_FALSE(f.has("runs/b"));
    for (int i = 0; i < 20000 && lines(f.read("runs/a/progress.json")) == 0; i++) usleep(1000);
    usleep(300000); /* a few rows more */
    a.signal(SIGTERM);
    EXPECT_EQ(a.wait(), 75) << a.err();
    EXPECT_FALSE(f.has("shared.jsonl"));
    EXPECT_EQ(mt::run(f, {"run", "-q", "b.yaml"}).code, 0);
    EXPECT_EQ(lines(f.read("shared.jsonl")), 7);
    EXPECT_EQ(mt::run(f, {"run", "-q", "a.yaml"}).code, 0) << "what a had is still there";
    std::string want;
    for (int i = 0; i < 60; i++) want += "{\"id\":" + std::to_string(i) + "}\n";
    EXPECT_EQ(f.read("shared.jsonl"), want);
    for (const std::string &name : f.list()) EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
}

/* Files of an earlier run go, but not when another sink has them by then, or a step reads them. */
TEST(Cli, OutputsMayChangePlaces)
{
    Folder f;
    const std::string head = "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, rows: 4}\n";
    auto sinks = [&](const char *a, const char *b) {
        return head + "  a: {type: write_jsonl, from: count, path: " + a + "}\n  half: {type: limit, from: count, rows: 2}\n" +
               "  b: {type: write_jsonl, from: half, path: " + b + "}\n";
    };
    const char *const names[][2] = {{"x.jsonl", "y.jsonl"}, {"y.jsonl", "x.jsonl"}, {"y.jsonl", "z.jsonl"}, {"z.jsonl", "x.jsonl"}};
    for (const auto &n : names) {
        f.write("t.yaml", sinks(n[0], n[1]));
        const Result r = mt::run(f, {"run", "-q", "t.yaml"});
        EXPECT_EQ(r.code, 0) << r.err;
        EXPECT_EQ(lines(f.read(std::string("runs/t/") + n[0])), 4) << n[0];
        EXPECT_EQ(lines(f.read(std::string("runs/t/") + n[1])), 2) << n[1];
        int left = 0;
        for (const char *name : {"x.jsonl", "y.jsonl", "z.jsonl"}) left += f.has(std::string("runs/t/") + name);
        EXPECT_EQ(left, 2) << "the others are gone";
    }
    f.write("t.yaml", "stepmill: 1\nname: t\nsteps:\n  r: {type: read_jsonl, path: " + f.path() + "/runs/t/z.jsonl}\n" +
                          "  a: {type: write_jsonl, from: r, path: new.jsonl}\n");
    EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml"}).code, 0);
    EXPECT_EQ(lines(f.read("runs/t/z.jsonl")), 4) << "it is read";
    EXPECT_EQ(lines(f.read("runs/t/new.jsonl")), 4);
}

/* A finished run whose output is gone, cut or overwritten has not got it: it is written again, and said. */
TEST(Cli, OutputsThatWereLostAreWrittenAgain)
{
    Folder f;
    f.write("t.yaml", "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, rows: 6}\n"
                      "  out: {type: write_jsonl, from: count, path: out.jsonl, part_rows: 3}\n");
    EXPECT_EQ(mt::run(f, {"run", "t.yaml"}).code, 0);
    const std::string name = f.path() + "/runs/t/out-00001.jsonl", was = f.read("runs/t/out-00001.jsonl");
    for (const char *how : {"untouched", "gone", "cut", "other"}) {
        SCOPED_TRACE(how);
        if (how[0] == 'g') unlink(name.c_str());
        if (how[0] == 'c') f.write("runs/t/out-00001.jsonl", was.substr(1));
        if (how[0] == 'o') f.write("runs/t/out-00001.jsonl", std::string(was.size(), 'x'));
        const Result r = mt::run(f, {"run", "t.yaml"});
        EXPECT_EQ(r.code, 0) << r.err;
        EXPECT_EQ(f.read("runs/t/out-00001.jsonl"), was);
        EXPECT_EQ(r.err.find(how[0] == 'g' ? name + " is gone: it is written again"
                                           : name + " was changed by somebody else: it is written again") != std::string::npos,
                  how[0] != 'u')
            << r.err;
    }
}

TEST(Cli, QuietSaysNothingAndJsonSaysAll)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 10", ""));
    const Result r = mt::run(f, {"run", "t.yaml", "--quiet", "--json", "--run", "here", "--limit=4", "--threads", "1"});
    EXPECT_EQ(r.code, 0);
    EXPECT_EQ(r.err, "");
    EXPECT_EQ(r.out.find("{\"state\":\"done\",\"exit_code\":0,\"seconds\":"), 0u) << r.out;
    EXPECT_NE(r.out.find("\"rows_in\":4,\"rows_out\":4,\"rows_imputed\":0,\"errors\":0,\"run_dir\":\"" + f.path() + "/here\""),
              std::string::npos)
        << r.out;
    EXPECT_EQ(lines(f.read("here/out.jsonl")), 4);
    const Result more = mt::run(f, {"run", "t.yaml", "-q", "--run", "here", "--limit=5"});
    EXPECT_EQ(more.code, 0);
    EXPECT_EQ(more.err, "") << "that steps run again is no warning";
    EXPECT_EQ(lines(f.read("here/out.jsonl")), 5);
}

TEST(Cli, DryRunPrintsRowsAndWritesNothing)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 100, batch_size: 3", ""));
    const Result r = mt::run(f, {"run", "--dry-run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.out, "{\"id\":0,\"doubled\":0}\n{\"id\":1,\"doubled\":2}\n{\"id\":2,\"doubled\":4}\n");
    EXPECT_EQ(f.list(), std::vector<std::string>{"t.yaml"});
}

TEST(Cli, DryRunShowsTheColumnOfErrors)
{
    Folder f;
    f.write("in.jsonl", "{\"a\":1}\noops\n");
    f.write("t.yaml",
            "stepmill: 1\nmax_errors: 1\nsteps:\n  in: {type: read_jsonl, path: in.jsonl, extra: '', columns: {a: int64}}\n"
            "  out: {type: write_jsonl, from: in, path: out.jsonl, errors: true}\n");
    const Result r = mt::run(f, {"run", "--dry-run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.out, "{\"a\":1,\"_error\":null}\n{\"a\":null,\"_error\":\"expected an object of JSON\"}\n");
    EXPECT_EQ(mt::run(f, {"run", "t.yaml"}).code, 0);
    EXPECT_EQ(f.read("runs/t/out.jsonl"), r.out) << "as the file has it";
}

/* The same rows whether everything is loaded at once, step by step, or the border of a load group is a router. */
TEST(Cli, LoadGroupsMayCutARoute)
{
    std::string all;
    for (const char *groups : {"", "load_groups: sequential\n", "load_groups: [[count, way], [big, small, meet, out]]\n",
                               "load_groups: [[count, way, big], [small, meet, out]]\n"}) {
        SCOPED_TRACE(groups);
        Folder f;
        f.write(
            "t.yaml",
            std::string("stepmill: 1\nname: t\n") + groups +
                "plugins: [" E2E_PLUGIN "]\nsteps:\n"
                "  count: {type: e2e_count, rows: 100, batch_size: 7}\n"
                "  way: {type: route_by, from: count, to: {big: big, small: small}, when: {big: id > 60}, input_batch_size: 1}\n"
                "  big: {type: template, from: way, template: 'B{id}', output: text}\n"
                "  small: {type: template, from: way, template: 'S{id}', output: text}\n"
                "  meet: {type: select, from: {converge: [big, small]}}\n"
                "  out: {type: write_jsonl, from: meet, path: out.jsonl}\n");
        const Result r = mt::run(f, {"run", "t.yaml"});
        EXPECT_EQ(r.code, 0) << r.err;
        EXPECT_EQ(lines(f.read("runs/t/out.jsonl")), 100);
        if (all.empty()) all = f.read("runs/t/out.jsonl");
        EXPECT_EQ(f.read("runs/t/out.jsonl"), all);
    }
}

TEST(Cli, DryRunOfAJoinByPositionNeedsNoEqualBatches)
{
    Folder f;
    f.write("t.yaml", "stepmill: 1\nplugins: [" E2E_PLUGIN "]\nsteps:\n  a: {type: e2e_count, rows: 10, batch_size: 3}\n"
                      "  b: {type: e2e_count, rows: 10, batch_size: 1, outputs: {id: other}}\n  out: {type: write_jsonl, from: [a, "
                      "b], path: out.jsonl}\n");
    const Result r = mt::run(f, {"run", "--dry-run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.out, "{\"id\":0,\"other\":0}\n{\"id\":1,\"other\":null}\n{\"id\":2,\"other\":null}\n");
    EXPECT_EQ(mt::run(f, {"run", "t.yaml", "--set", "b.rows=9"}).code, 2) << "a run does";
}

/* A sink or a router gets a join's rows whole, columns of every input. */
TEST(Cli, JoinsRightInFrontOfSinksAndRouters)
{
    Folder f;
    f.write("t.yaml", "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n"
                      "  a: {type: e2e_count, rows: 5, batch_size: 2}\n"
                      "  b: {type: template, from: a, template: \"b{id}\", output: b, input_batch_size: 3}\n"
                      "  c: {type: template, from: a, template: \"c{id}\", output: c}\n"
                      "  joined: {type: write_jsonl, from: [a, b, c], path: joined.jsonl}\n"
                      "  route: {type: route_by, from: [a, b], when: {low: 'b == \"b0\"'}, mixed: most, to: {low: out, high: "
                      "more}, input_batch_size: 1}\n"
                      "  more: {type: template, from: route, template: \"m{b}\", output: more}\n"
                      "  out: {type: write_jsonl, from: {converge: [route, more]}, path: out.jsonl}\n");
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    std::string joined, out;
    for (int i = 0; i < 5; i++) {
        const std::string n = std::to_string(i), b = "{\"id\":" + n + ",\"b\":\"b" + n + "\",";
        joined += b + "\"c\":\"c" + n + "\"}\n";
        out += b + "\"more\":" + (i == 0 ? "null" : "\"mb" + n + "\"") + "}\n";
    }
    EXPECT_EQ(f.read("runs/t/joined.jsonl"), joined);
    EXPECT_EQ(f.read("runs/t/out.jsonl"), out);
}

TEST(Cli, ASinkDoesNotWriteOverWhatIsRead)
{
    Folder f;
    f.write("in.jsonl", "{\"a\":1}\n");
    f.write("t.yaml", "stepmill: 1\nsteps:\n  in: {type: read_jsonl, path: in.jsonl}\n  out: {type: write_jsonl, from: in, path: "
                      "../../in.jsonl}\n");
    for (int i = 0; i < 2; i++) { /* the second time runs/t/ might be there */
        const Result r = mt::run(f, {"run", "t.yaml"});
        EXPECT_EQ(r.code, 65) << r.err;
        EXPECT_NE(
            r.err.find("t.yaml:4:44: out: parameter \"path\": step in reads the file that this would write. Choose another path"),
            std::string::npos)
            << r.err;
        EXPECT_EQ(f.read("in.jsonl"), "{\"a\":1}\n");
    }
}

TEST(Cli, AThousandStepsInARow)
{
    Folder f;
    std::string text = "stepmill: 1\nplugins: [" E2E_PLUGIN "]\nsteps:\n  s0: {type: e2e_count, rows: 50, batch_size: 7}\n";
    for (int i = 1; i < 1000; i++)
        text += "  s" + std::to_string(i) + ": {type: template, from: s" + std::to_string(i - 1) + ", template: \"{id}\"}\n";
    f.write("t.yaml", text + "  out: {type: write_jsonl, from: s999, path: out.jsonl}\n");
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(lines(f.read("runs/t/out.jsonl")), 50);
}

TEST(Cli, SetReplacesParameters)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 100", ""));
    EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml", "--set", "count.rows=7", "--set=work.replicas=2"}).code, 0);
    EXPECT_EQ(lines(f.read("runs/t/out.jsonl")), 7);
    const Result bad = mt::run(f, {"run", "t.yaml", "--set", "count.rowz=7"});
    EXPECT_EQ(bad.code, 65);
    EXPECT_NE(bad.err.find("Did you mean \"rows\"?"), std::string::npos) << bad.err;
    EXPECT_EQ(mt::run(f, {"run", "t.yaml", "--set", "count.rows"}).code, 64);
}

TEST(Cli, FailedRowsAreImputedCountedAndListed)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 20, batch_size: 8", "mode: fail, at: 13"));
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 3) << r.err;
    EXPECT_NE(r.err.find("1 row with nulls made by imputation (max_errors: 0)"), std::string::npos) << r.err;
    EXPECT_NE(r.err.find("work[0]: row 13 is bad"), std::string::npos) << r.err;
    EXPECT_EQ(lines(f.read("runs/t/out.jsonl")), 20);
    EXPECT_NE(f.read("runs/t/out.jsonl").find("{\"id\":13,\"doubled\":null}"), std::string::npos);
    const std::string errors = f.read("runs/t/errors.jsonl");
    EXPECT_EQ(lines(errors), 1);
    for (const char *part : {"{\"id\":1,\"step\":\"work\",\"replica\":0,", "\"phase\":\"process\"", "\"message\":\"row 13 is bad\"",
                             "\"rows\":1", "\"first_key\":\"count:13\""})
        EXPECT_NE(errors.find(part), std::string::npos) << part << " in " << errors;
    const Result list = mt::run(f, {"errors", "runs/t"}), other = mt::run(f, {"errors", "runs/t", "--class", "device"}),
                 json = mt::run(f, {"errors", "runs/t", "--json"});
    EXPECT_NE(list.out.find("work[0]  process, permanent  1 row  count:13"), std::string::npos) << list.out;
    EXPECT_EQ(other.out, "");
    EXPECT_EQ(json.out, errors);
    EXPECT_EQ(mt::run(f, {"errors", "runs/t", "--class", "device", "--class", "permanent", "--step", "work", "--json"}).out,
              errors);
    EXPECT_EQ(mt::run(f, {"errors", "runs/t", "--step", "count"}).out, "");
    EXPECT_EQ(mt::run(f, {"errors", "runs/t", "--step", "wrok"}).code, 64);
    const Result misspelt = mt::run(f, {"errors", "runs/t", "--class", "permanant"});
    EXPECT_EQ(misspelt.code, 64);
    EXPECT_NE(misspelt.err.find("did you mean 'permanent'?"), std::string::npos) << misspelt.err;
    /* the same, allowed */
    EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml", "--set", "max_errors=1"}).code, 0);
}

struct Failing {
    const char *name, *count, *work;
    int code;
    const char *says;
};
const Failing kFailing[] = {
    {"load_fails", "rows: 10", "mode: load_fail", 1, "work[0]: there is no model"},
    {"one_of_two_replicas_fails_to_load", "rows: 10", "mode: load_fail, replicas: 2", 1, "there is no model"},
    {"load_hangs", "rows: 10", "mode: load_hang, timeout: {load: 500ms}", 1, "work"},
    {"generator_fails", "rows: 100, batch_size: 10, fail_at: 55", "", 2, "count[0]: the source broke at row 55"},
    {"batch_hangs", "rows: 10, batch_size: 2", "mode: hang, at: 5, timeout: {batch: 200ms}", 3,
     "work[0]: this row, alone in the step, ends the process"},
    {"unload_hangs", "rows: 10", "mode: unload_hang, at: 1, replicas: 2, timeout: {unload: 500ms}", 2,
     "work[1]: unload has not returned"},
    {"on_error_stop", "rows: 10", "mode: fail, at: 5, on_error: stop", 2, "work[0]: row 5 is bad"},
    {"stop_if", "rows: 1000, batch_size: 1, pause: 1ms", "mode: fail, at: 0, stop_if: {failed: 0.1, of: 1}", 2, "work"},
};
class CliFails : public testing::TestWithParam<Failing> {};
TEST_P(CliFails, WithItsCodeAndCulpritInBoundedTime)
{
    Folder f;
    f.write("t.yaml", pipeline(GetParam().count, GetParam().work));
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, GetParam().code) << r.err;
    EXPECT_NE(r.err.find(GetParam().says), std::string::npos) << r.err;
    EXPECT_LT(r.seconds, 20);
    if (GetParam().code == 1) {
        EXPECT_EQ(r.err.find(GetParam().says), r.err.rfind(GetParam().says)) << "said once: " << r.err;
        EXPECT_EQ(f.list(), std::vector<std::string>{"t.yaml"}) << "of a run that could not load nothing is left";
    } else if (std::string(GetParam().name) != "stop_if") {
        EXPECT_TRUE(f.has("runs/t/errors.jsonl"));
    }
}
/* Of a run that failed each output says whether it is whole, as the manifest has it: one that has its name may not be. */
TEST(Cli, OutputsOfAFailureAreWholeOrNot)
{
    Folder f;
    f.write("in.jsonl", "{\"n\":1}\n{\"n\":2}\n");
    f.write("t.yaml", pipeline("rows: 100, batch_size: 10, fail_at: 55", "") +
                          "  in: {type: read_jsonl, path: in.jsonl}\n  whole: {type: write_jsonl, from: in, path: whole.jsonl}\n");
    const Result r = mt::run(f, {"run", "t.yaml", "--json"});
    EXPECT_EQ(r.code, 2) << r.err;
    ASSERT_TRUE(f.has("runs/t/out.jsonl"));
    EXPECT_NE(r.err.find("out.jsonl (not complete)\n"), std::string::npos) << r.err;
    EXPECT_NE(r.err.find("whole.jsonl\n"), std::string::npos) << r.err;
    EXPECT_NE(r.out.find("out.jsonl\",\"complete\":false}"), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("whole.jsonl\",\"complete\":true}"), std::string::npos) << r.out;
}
INSTANTIATE_TEST_SUITE_P(Table, CliFails, testing::ValuesIn(kFailing), [](const auto &i) { return std::string(i.param.name); });

/* ---- signals ---------------------------------------------------------------------------------------------------------- */

/* Waits until the run has written its folder, which it does before rows flow. */
void until_it_runs(const Folder &f)
{
    for (int i = 0; i < 10000 && !f.has("runs/t"); i++) usleep(1000);
    usleep(200000);
}

TEST(CliSignals, IntDrainsAndKeepsWhatWasTaken)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 1000000, batch_size: 4, pause: 5ms", ""));
    Command c(f, {"run", "t.yaml"});
    until_it_runs(f);
    c.signal(SIGINT);
    EXPECT_EQ(c.wait(30), 75) << c.err();
    EXPECT_NE(c.err().find("stopped after "), std::string::npos) << c.err();
    EXPECT_NE(c.err().find("finishing the rows in the pipeline"), std::string::npos) << c.err();
    EXPECT_NE(c.err().find("\n  not finished: the same command goes on from there\n"), std::string::npos) << c.err();
}

TEST(CliSignals, TermIsGoneWithinFourSeconds)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 1000000, batch_size: 4, pause: 5ms", "pause: 20ms"));
    Command c(f, {"run", "t.yaml"});
    until_it_runs(f);
    c.signal(SIGTERM);
    EXPECT_TRUE(c.ended(5)) << "it should have gone within 4 s";
    EXPECT_EQ(c.wait(30), 75) << c.err();
}

TEST(CliSignals, AClosedTerminalIsAsTerm)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 1000000, batch_size: 4, pause: 5ms", ""));
    Command c(f, {"run", "t.yaml"});
    until_it_runs(f);
    c.signal(SIGHUP);
    EXPECT_EQ(c.wait(30), 75) << c.err();
    EXPECT_NE(c.err().find("stepmill: stopping"), std::string::npos) << c.err();
}

/* Whoever sends to the worker alone is heard, too; once, when a job's signal comes to both. */
TEST(CliSignals, ToTheWorkerItself)
{
    for (bool both : {false, true}) {
        Folder f; /* each its own: files of the other run would say that this one runs */
        f.write("t.yaml", pipeline("rows: 1000000, batch_size: 4, pause: 5ms", ""));
        Command c(f, {"run", "t.yaml"});
        until_it_runs(f);
        ASSERT_GT(c.worker(), 0);
        if (both) c.signal(SIGINT);
        kill(c.worker(), SIGINT);
        EXPECT_EQ(c.wait(30), 75) << c.err();
        EXPECT_NE(c.err().find("finishing the rows in the pipeline"), std::string::npos) << c.err();
        EXPECT_EQ(c.err().find("stepmill: stopping"), std::string::npos) << c.err();
    }
}

/* A scheduler tells all processes of a job: the program of a step goes, too, earlier even, and its rows are for the next run. */
TEST(CliSignals, ToAProgramAsWell)
{
    for (const int signal : {SIGTERM, SIGINT}) {
        SCOPED_TRACE(signal);
        Folder f;
        std::string in, out;
        for (int i = 0; i < 400; i++) {
            const std::string id = "{\"id\":" + std::to_string(i);
            in += id + "}\n";
            out += id + ",\"echo\":" + id + "}}\n";
        }
        f.write("in.jsonl", in);
        f.write("program.sh", "n=0\nwhile read -r l; do\n  n=$((n + 1))\n  if [ $n = 14 ] && [ ! -e pid ]; then echo $$ >.pid; mv "
                              ".pid pid; sleep 60; fi\n"
                              "  echo \"{\\\"echo\\\": $l}\"\ndone\n");
        f.write("t.yaml", "stepmill: 1\nname: t\nsteps:\n  read: {type: read_jsonl, path: in.jsonl, batch_size: 4, extra: \"\"}\n"
                          "  ask: {type: command, from: read, argv: [sh, program.sh], columns: {echo: json}}\n"
                          "  out: {type: write_jsonl, from: ask, path: out.jsonl}\n");
        Command c(f, {"run", "t.yaml"});
        for (int i = 0; i < 6000 && !f.has("pid"); i++) usleep(10000);
        const pid_t program = atoi(f.read("pid").c_str());
        ASSERT_GT(program, 1);
        kill(-getpgid(program), signal); /* the shell waits for its sleep before it minds */
        c.signal(signal);
        const int code = c.wait(30);
        /* what was taken already is finished after INT */
        EXPECT_TRUE(code == 75 || (code == 0 && signal == SIGINT)) << code << c.err();
        const Result r = mt::run(f, {"run", "t.yaml"});
        EXPECT_EQ(r.code, 0) << r.err;
        EXPECT_TRUE(f.read("runs/t/out.jsonl") == out);
        EXPECT_EQ(f.read("runs/t/errors.jsonl"), "") << c.err();
    }
}

/* The run is told to stop long after the signal, since it was still being started then: here somebody must read its log first. When
 * the time that counts from the signal is over, whoever is inside a call is named all the same. */
TEST(CliSignals, DuringALoadOfARunThatIsBeingStarted)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 10", "mode: load_hang"));
    ASSERT_EQ(mkdir((f.path() + "/runs").c_str(), 0777) + mkdir((f.path() + "/runs/t").c_str(), 0777), 0);
    f.write("runs/t/run.json", "{\"format\":1,\"run\":\"" + f.path() + "/runs/t\",\"steps\":[]}"); /* as an earlier run left it */
    ASSERT_EQ(mkfifo((f.path() + "/runs/t/log.jsonl").c_str(), 0666), 0);
    Command c(f, {"run", "t.yaml"});
    for (int i = 0; i < 10000 && !f.has("runs/t/journal.1"); i++) usleep(1000);
    c.signal(SIGTERM);
    usleep(1500000);
    const int log = open((f.path() + "/runs/t/log.jsonl").c_str(), O_RDONLY | O_NONBLOCK);
    EXPECT_TRUE(c.ended(6));
    EXPECT_EQ(c.wait(30), 75) << c.err();
    EXPECT_NE(c.err().find("work[0]: load has not returned"), std::string::npos) << c.err();
    close(log);
}

/* Whatever hangs, in load, run and finish: each signal has its time, the culprit is named, and the next run goes on. All at once,
 * since they do nothing but wait. */
TEST(CliSignals, MeetTheirTimesInLoadRunAndFinish)
{
    const struct {
        const char *name, *culprit, *mends;
        std::string pipeline;
    } kWhere[] = {
        {"load", "work[0]: load", "work.mode=fine", pipeline("rows: 10", "mode: load_hang")},
        {"run", "work[0]: process", "work.mode=fine", pipeline("rows: 10", "mode: hang, at: 5")},
        {"finish of a global", "all[0]: finish", "all.in=none",
         pipeline("rows: 10", "") +
             "  all: {type: e2e_gather, from: work, in: finish, hang: true}\n  end: {type: e2e_put, from: all}\n"},
        {"end of a sink", "end[0]: finalize", "end.in=none",
         pipeline("rows: 10", "") + "  end: {type: e2e_put, from: work, in: finalize, hang: true}\n"},
        {"unload", "work[0]: unload", "work.mode=fine", pipeline("rows: 10", "mode: unload_hang")},
    };
    enum { LOAD, RUN, GLOBAL, SINK, UNLOAD };
    /* for a busy machine; still less than one signal more would have */
    const double kSlack = 2.5, kTerm = 4 + kSlack, kDrained = 1 + kTerm, kSecond = 1 + kSlack;
    struct Case {
        int where;
        std::vector<int> signals;
        double within; /* after the last of them */
    };
    std::vector<Case> cases = {{RUN, {SIGUSR1}, kDrained}, {RUN, {SIGUSR1, SIGTERM}, kSecond}, {RUN, {SIGTERM, SIGINT}, kSecond}};
    for (int where : {LOAD, RUN, GLOBAL, SINK, UNLOAD})
        for (const Case &c : std::vector<Case>{{where, {SIGINT}, kDrained},
                                               {where, {SIGTERM}, kTerm},
                                               {where, {SIGINT, SIGINT}, kSecond},
                                               {where, {SIGTERM, SIGTERM}, kSecond}})
            cases.push_back(c);
    const size_t n = cases.size();
    std::vector<std::unique_ptr<Folder>> folders;
    std::vector<std::unique_ptr<Command>> commands;
    std::vector<double> took(n, -1);
    setenv("E2E_HANGS", "hangs", 1); /* in the folder of each */
    for (const auto &k : cases) {
        folders.push_back(std::make_unique<Folder>());
        folders.back()->write("t.yaml", kWhere[k.where].pipeline);
        commands.push_back(std::make_unique<Command>(*folders.back(),
                                                     std::vector<std::string>{"run", "t.yaml", "--drain-timeout", "1s"}));
    }
    unsetenv("E2E_HANGS");
    for (const auto &f : folders)
        for (int i = 0; i < 60000 && !f->has("hangs"); i++) usleep(1000);
    usleep(100000); /* what else there is to be done is done */
    for (size_t i = 0; i < n; i++) commands[i]->signal(cases[i].signals[0]);
    usleep(300000);
    for (size_t i = 0; i < n; i++) {
        if (cases[i].signals.size() < 2) continue;
        EXPECT_FALSE(commands[i]->ended(0)) << kWhere[cases[i].where].name << ": one signal was enough";
        commands[i]->signal(cases[i].signals[1]);
    }
    const auto begin = std::chrono::steady_clock::now();
    for (double waited = 0; waited < kDrained;
         waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()) {
        for (size_t i = 0; i < n; i++)
            if (took[i] < 0 && commands[i]->ended(0)) took[i] = waited;
        usleep(10000);
    }
    for (size_t i = 0; i < n; i++) {
        const auto &where = kWhere[cases[i].where];
        SCOPED_TRACE(std::string(where.name) + ", " + strsignal(cases[i].signals[0]) +
                     (cases[i].signals.size() > 1 ? " and another" : ""));
        EXPECT_EQ(commands[i]->wait(30), 75) << commands[i]->err();
        EXPECT_GE(took[i], 0) << "it did not end in time";
        EXPECT_LE(took[i], cases[i].within);
        EXPECT_NE(commands[i]->err().find(std::string(where.culprit) + " has not returned"),
                  std::string::npos) << commands[i]->err();
        if (cases[i].where == UNLOAD) {
            EXPECT_EQ(lines(folders[i]->read("runs/t/out.jsonl")), 10) << "the sink was complete before";
        }
        if (cases[i].signals[0] != SIGTERM || cases[i].signals.size() > 1) continue;
        const Result r = mt::run(*folders[i], {"run", "t.yaml", "--set", where.mends}); /* goes on */
        EXPECT_EQ(r.code, 0) << r.err;
        EXPECT_EQ(lines(folders[i]->read("runs/t/out.jsonl")), 10);
    }
}

/* Nothing can be done on SIGKILL; what a stuck program and its own children then do is to go all the same. */
TEST(CliSignals, AProgramThatHangsGoesWithStepmillWhenThatIsKilled)
{
    Folder f;
    f.write("in.jsonl", "{\"a\":1}\n");
    f.write("t.yaml", "stepmill: 1\nname: t\nsteps:\n  in: {type: read_jsonl, path: in.jsonl}\n"
                      "  stuck:\n    type: command\n    from: in\n"
                      "    argv: [sh, -c, \"trap '' HUP INT TERM PIPE; sleep 1000 & echo $! $$ >" +
                          f.path() +
                          "/pids; wait; wait\"]\n"
                          "  out: {type: write_jsonl, from: stuck, path: out.jsonl}\n");
    Command c(f, {"run", "t.yaml"});
    int pids[2] = {0, 0};
    for (int i = 0; i < 10000 && sscanf(f.read("pids").c_str(), "%d %d", &pids[0], &pids[1]) != 2; i++) usleep(1000);
    ASSERT_GT(pids[1], 0) << c.err();
    c.signal(SIGKILL);
    EXPECT_EQ(c.wait(10), 1000 + SIGKILL);
    for (int pid : pids) {
        bool gone = false;
        for (int i = 0; i < 5000 && !gone; i++) { /* a zombie that its new parent has not taken yet is gone, too */
            char state = 'X';
            FILE *stat = fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r");
            if (stat != nullptr && fscanf(stat, "%*d %*s %c", &state) != 1) state = 'X';
            if (stat != nullptr) fclose(stat);
            gone = state == 'X' || state == 'Z';
            if (!gone) usleep(2000);
        }
        EXPECT_TRUE(gone) << pid << " is still there";
        if (!gone) kill(pid, SIGKILL);
    }
}

/* ---- run directory, startup --------------------------------------------------------------------------------------------- */

/* Also of what only the step itself finds: the place is the argument, not the step in the file. */
TEST(Cli, AFaultOfAnArgumentIsSaidThere)
{
    Folder f;
    f.write("in.jsonl", "{\"a\":1}\n");
    f.write("t.yaml", "stepmill: 1\nname: t\nsteps:\n  in: {type: read_jsonl, path: in.jsonl, columns: {a: int64}}\n  label: "
                      "{type: template, from: in, template: \"{a}\"}\n"
                      "  cmd: {type: command, from: label, argv: [cat]}\n  out: {type: write_jsonl, from: cmd, path: out.jsonl}\n");
    const struct { const char *set, *place, *cause; } cases[] = {
        {"label.template=x {nope}", "--set label.template=x {nope}: label: ", "nope"},
        {"cmd.deadline=0", "--set cmd.deadline=0: cmd: ", "expected a duration above 0"},
        {"cmd.columns={b: binary}", "--set cmd.columns={b: binary}, character 5 of the value: cmd: ",
         "binary values cannot stand in JSON"},
        {"cmd.send=[a, b]", "--set cmd.send=[a, b], character 5 of the value: cmd: ", "\"b\""},
        {"cmd.retries={tims: 2}", "--set cmd.retries={tims: 2}, character 2 of the value: cmd: ", "Did you mean \"times\"?"},
    };
    for (const auto &k : cases) {
        const Result r = mt::run(f, {"check", "t.yaml", "--set", "seed=3", "--set", k.set});
        EXPECT_EQ(r.code, 65);
        EXPECT_EQ(r.err.find(std::string("error: ") + k.place), 0u) << r.err;
        EXPECT_NE(r.err.find(k.cause), std::string::npos) << r.err;
        EXPECT_NE(r.err.find("argument 5 of the command)"), std::string::npos) << r.err;
    }
    const Result r = mt::run(f, {"check", "t.yaml", "--placement", "autoo"});
    EXPECT_EQ(r.err.find("error: --placement autoo: placement: expected one of "), 0u) << r.err;
}

TEST(Cli, ARunDirectoryInUseIsRefused)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 1000000, batch_size: 4, pause: 5ms", ""));
    Command first(f, {"run", "t.yaml"});
    until_it_runs(f);
    const Result second = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(second.code, 73) << second.err;
    EXPECT_NE(second.err.find("is in use by another run"), std::string::npos) << second.err;
    EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml", "--run", "other", "--limit", "3"}).code, 0);
    first.signal(SIGTERM);
    EXPECT_EQ(first.wait(30), 75);
}

TEST(Cli, IdleRunTakesNoProcessorTime)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 1, pause: 3s", ""));
    Command c(f, {"run", "-q", "t.yaml"});
    ASSERT_EQ(c.wait(30), 0) << c.err();
    EXPECT_GT(c.seconds(), 2.9);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    EXPECT_LT(c.cpu_seconds(), 0.1) << "start included";
#endif
}

/* ---- what there is -------------------------------------------------------------------------------------------------------- */

struct Words {
    const char *name;
    std::vector<std::string> args;
    int code;
    const char *out, *err; /* parts */
};
const Words kWords[] = {
    {"no_verb", {}, 0, "usage: stepmill VERB", ""},
    {"unknown_verb", {"rnu"}, 64, "", "unknown verb 'rnu'; did you mean 'run'?"},
    {"flag_without_verb", {"--quiet", "run"}, 64, "", "what is needed first is a verb, not '--quiet'"},
    {"short_version", {"-v"}, 64, "", "did you mean '--version'?"},
    {"unknown_flag", {"run", "--dryrun", "t.yaml"}, 64, "", "unknown flag '--dryrun'; did you mean '--dry-run'?"},
    {"flag_of_another_verb", {"plan", "t.yaml", "--limit", "3"}, 64, "", "unknown flag '--limit'"},
    {"value_missing", {"run", "t.yaml", "--limit"}, 64, "", "a value is missing after '--limit'"},
    {"value_empty", {"run", "t.yaml", "--run", ""}, 64, "", "an empty value was given to '--run'"},
    {"value_not_taken", {"run", "t.yaml", "--fresh=1"}, 64, "", "no value is taken by '--fresh=1'"},
    {"bad_number", {"run", "t.yaml", "--limit", "0"}, 64, "", "--limit: expected a whole number of at least 1, got '0'"},
    {"bad_time", {"run", "t.yaml", "--drain-timeout", "1x"}, 64, "", "--drain-timeout: expected a time"},
    {"file_missing", {"run"}, 64, "", "what is missing is 'FILE'"},
    {"too_many", {"run", "a", "b"}, 64, "", "one operand too many: 'b'"},
    {"help_of_run", {"run", "--help"}, 0, "--dry-run", ""},
    {"help_verb", {"help", "plan"}, 0, "usage: stepmill plan FILE", ""},
    {"help_of_resume", {"resume", "--help"}, 0, "  73  the run directory is in use", ""},
    {"version", {"--version"}, 0, "stepmill 0.", ""},
    {"version_json", {"version", "--json"}, 0, "{\"version\":\"0.", ""},
    {"types", {"steps", "list"}, 0, "read_jsonl", ""},
    {"types_of_plugin", {"steps", "list", "--plugin", E2E_PLUGIN}, 0, "e2e_count", ""},
    {"describe", {"steps", "describe", "write_jsonl"}, 0, "path", ""},
    {"describe_json", {"steps", "describe", "read_jsonl", "--json"}, 0, "\"name\": \"read_jsonl\"", ""},
    {"describe_unknown_of_a_module", {"steps", "describe", "read_parqet"}, 64, "", "Did you mean \"read_parquet\"?"},
    {"describe_nothing", {"steps", "describe"}, 64, "", "steps describe: what is missing is the TYPE to describe"},
    {"list_something", {"steps", "list", "all"}, 64, "", "steps list: one operand too many: 'all'"},
    {"describe_unknown", {"steps", "describe", "read_json"}, 64, "", "Did you mean \"read_jsonl\"?"},
    {"check_plugin", {"steps", "check", E2E_PLUGIN}, 0, "e2e_work (step)", ""},
    {"check_plugin_json", {"steps", "check", E2E_PLUGIN, "--json"}, 0, "\"wrong\":0,\"not_run\":0}", ""},
    {"check_plugin_wrong", {"steps", "check", E2E_PLUGIN, "--set", "e2e_work.mode=hang", "--timeout", "1s"}, 1,
     "did not come back within 1 s: process", ""},
    {"check_wants_values", {"steps", "check", "builtin"}, 2, "needs values: give --set template.template=...", ""},
    {"check_column", {"steps", "check", "builtin", "--column", "embedding=int64"}, 2, "deduplicate", ""},
    {"check_set_nobody", {"steps", "check", E2E_PLUGIN, "--set", "e2e_wrok.mode=hang"}, 65, "",
     "no step type \"e2e_wrok\" is checked here"},
    {"check_no_plugin", {"steps", "check", "/dev/null"}, 65, "", "/dev/null"},
    {"steps_unknown", {"steps", "lst"}, 64, "", "did you mean 'list'?"},
    {"devices", {"devices"}, 0, "cpu ", ""},
    {"devices_json", {"devices", "--json"}, 0, "\"cuda\":{\"devices\":[", ""},
    {"doctor", {"doctor"}, 0, "ok ", ""},
    {"schema", {"schema"}, 0, "\"$schema\":\"https://json-schema.org/draft/2020-12/schema\"", ""},
    {"schema_json", {"schema", "--json"}, 0, "\"$schema\":\"https://json-schema.org/draft/2020-12/schema\"", ""},
    {"errors_of_nothing", {"errors", "no/run"}, 64, "", "no/run is not a run directory"},
    {"errors_of_no_class", {"errors", "no/run", "--class", "transeint"}, 64, "", "did you mean 'transient'?"},
    {"missing_file", {"check", "no.yaml"}, 65, "", "no.yaml: cannot open the pipeline file: No such file or directory"},
    {"missing_file_json", {"check", "no.yaml", "--json"}, 65, "\"file\":\"no.yaml\"", ""},
};
class CliWords : public testing::TestWithParam<Words> {};
TEST_P(CliWords, SayWhatTheyShould)
{
    Folder f;
    const Words &w = GetParam();
    const Result r = mt::run(f, w.args);
    EXPECT_EQ(r.code, w.code) << r.out << r.err;
    EXPECT_NE(r.out.find(w.out), std::string::npos) << r.out;
    EXPECT_NE(r.err.find(w.err), std::string::npos) << r.err;
    if (w.code != 0 && std::string(w.out).empty()) {
        EXPECT_EQ(r.out, "");
    }
    EXPECT_TRUE(f.list().empty());
}
INSTANTIATE_TEST_SUITE_P(Table, CliWords, testing::ValuesIn(kWords), [](const auto &i) { return std::string(i.param.name); });

TEST(Cli, CheckAndPlanSayTheSameAsRun)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 100", ""));
    EXPECT_EQ(mt::run(f, {"check", "t.yaml"}).out, "valid\n");
    EXPECT_EQ(mt::run(f, {"check", "--json", "t.yaml"}).out, "{\"valid\":true}\n");
    const Result plan = mt::run(f, {"plan", "t.yaml"});
    EXPECT_NE(plan.out.find("<- work  id: int64, doubled: int64"), std::string::npos) << plan.out;
    EXPECT_EQ(f.list(), std::vector<std::string>{"t.yaml"});
}

} // namespace
