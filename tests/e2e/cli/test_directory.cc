/* Run directories from outside: whose they are, and what stays in them when a run is called again. */
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "command.h"

namespace {

using mt::Folder;
using mt::Result;

std::string pipeline(const std::string &count)
{
    return "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, " + count +
           "}\n  work: {type: e2e_work, from: count}\n  out: {type: write_jsonl, from: work, path: out.jsonl}\n";
}

int lines(const std::string &s) { return (int)std::count(s.begin(), s.end(), '\n'); }

/* Nothing is written into a folder of others, and --fresh, which forgets what a run kept, forgets nothing there. */
TEST(RunDirectory, AFolderOfOthersIsNoRunDirectory)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 10"));
    ASSERT_EQ(mkdir((f.path() + "/mine").c_str(), 0777) + mkdir((f.path() + "/mine/batches").c_str(), 0777), 0);
    f.write("mine/batches/notes.txt", "a year's work\n");
    f.write("mine/out.jsonl", "also mine\n");
    const std::vector<std::string> before = f.list();
    const std::string want =
        "error: " + f.path() +
        "/mine is not the directory of a run, and not empty: it holds batches and out.jsonl. A run has a directory of its own";
    for (const std::vector<std::string> &args : std::vector<std::vector<std::string>>{
             {"run", "t.yaml", "--run", "mine"}, {"run", "t.yaml", "--run", "mine", "--fresh"},
             {"run", "t.yaml", "--run", "mine", "--shard", "1/2"}, {"check", "t.yaml", "--run", "mine"}}) {
        const Result r = mt::run(f, args);
        EXPECT_EQ(r.code, 65) << args.back();
        EXPECT_EQ(r.err.find(want), 0u) << r.err;
        EXPECT_EQ(f.list(), before);
        EXPECT_EQ(f.read("mine/batches/notes.txt") + f.read("mine/out.jsonl"), "a year's work\nalso mine\n");
    }
    EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml", "--run", "new"}).code, 0);
    f.write("new/notes.txt", "x");
    EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml", "--run", "new", "--fresh"}).code, 0) << "it is a run's";
    EXPECT_EQ(f.read("new/notes.txt"), "x");
}

std::string between(const std::string &text, const std::string &from, const std::string &to)
{
    const size_t a = text.find(from), b = a == std::string::npos ? a : text.find(to, a + from.size());
    return b == std::string::npos ? "" : text.substr(a + from.size(), b - a - from.size());
}

/* Called again, a complete run says so, and what is to be seen of it is what the attempt left that did the work. */
TEST(RunDirectory, ACompleteRunStaysAsItIs)
{
    static const char *const kept[] = {"progress.json", "metrics.prom", "run.json", "report.html", "errors.jsonl", "out.jsonl",
                                       "manifest.json"};
    Folder f;
    f.write("t.yaml", pipeline("rows: 100, batch_size: 8"));
    ASSERT_EQ(mt::run(f, {"run", "t.yaml"}).code, 0);
    std::vector<std::string> before;
    for (const char *name : kept) before.push_back(f.read(std::string("runs/t/") + name));
    Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.err.find("complete already, nothing was left to do: it was done after "), 0u) << r.err;
    EXPECT_NE(r.err.find(" s: 100 rows in, 100 rows out, "), std::string::npos) << r.err;
    EXPECT_NE(r.err.find("  out: " + f.path() + "/runs/t/out.jsonl\n"), std::string::npos) << r.err;
    r = mt::run(f, {"run", "t.yaml", "--json", "-q"});
    EXPECT_NE(r.out.find("\"rows_in\":100,\"rows_out\":100,"), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("\"complete_already\":true"), std::string::npos) << r.out;
    for (size_t i = 0; i < before.size(); i++) EXPECT_EQ(f.read(std::string("runs/t/") + kept[i]), before[i]) << kept[i];
    EXPECT_NE(f.read("runs/t/log.jsonl").find("complete already"), std::string::npos);

    /* Who did the work was killed before it could say that it was done. */
    std::string killed = before[0];
    killed.replace(killed.find("\"state\":\"done\""), 14, "\"state\":\"running\"");
    f.write("runs/t/progress.json", killed);
    r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_NE(f.read("runs/t/progress.json").find("\"state\":\"done\""), std::string::npos);
    EXPECT_NE(f.read("runs/t/progress.json").find("\"rows_in\":100,"), std::string::npos);

    /* What changed runs again; the rest keeps its numbers. */
    std::string text = f.read("t.yaml");
    text.replace(text.find("path: out.jsonl"), 15, "path: new.jsonl");
    f.write("t.yaml", text);
    r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_NE(r.err.find("complete already: count, work\n"), std::string::npos) << r.err;
    EXPECT_NE(r.err.find(" s: 0 rows in, 100 rows out, "), std::string::npos) << r.err;
    const std::string now = f.read("runs/t/progress.json");
    for (const char *step : {"count", "work", "out"}) {
        SCOPED_TRACE(step);
        const std::string part = between(now, "{\"step\":\"" + std::string(step) + "\"", "\"rows_dropped\"");
        EXPECT_EQ(between(part, "\"kept\":", ","), std::string(step) == "out" ? "false" : "true");
        EXPECT_EQ(between(part, std::string(step) == "count" ? "\"rows_out\":" : "\"rows_in\":", ","), "100") << part;
    }
    r = mt::run(f, {"status", "runs/t"});
    EXPECT_NE(r.out.find("count  kept "), std::string::npos) << r.out;
    EXPECT_NE(f.read("runs/t/report.html").find("count (kept)"), std::string::npos);
}

/* What ended an attempt is not true any more when the next one has come past it. */
TEST(RunDirectory, AnErrorThatAResumeMendedIsGone)
{
    Folder f;
    f.write("in.jsonl", "{\"a\":1}\n{\"a\":2}\n");
    f.write("t.yaml", "stepmill: 1\nname: t\nsteps:\n  in: {type: read_jsonl, path: in.jsonl, columns: {a: int64}}\n"
                      "  work: {type: command, from: in, on_error: stop, argv: [sh, -c, \"while [ -e ok ] && read -r l; do echo "
                      "'{\\\"b\\\":1}'; done\"], "
                      "cwd: ., columns: {b: int64}}\n"
                      "  out: {type: write_jsonl, from: work, path: out.jsonl}\n");
    Result r = mt::run(f, {"run", "t.yaml", "--json", "-q"});
    EXPECT_EQ(r.code, 2) << r.err;
    EXPECT_EQ(lines(f.read("runs/t/errors.jsonl")), 1) << f.read("runs/t/errors.jsonl");
    r = mt::run(f, {"run", "t.yaml", "--json", "-q"});
    EXPECT_EQ(r.code, 2) << "it is not mended";
    EXPECT_EQ(lines(f.read("runs/t/errors.jsonl")), 1) << "and not twice there";
    f.write("ok", "");
    r = mt::run(f, {"run", "t.yaml", "--json", "-q"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_NE(r.out.find("\"errors\":0,"), std::string::npos) << r.out;
    EXPECT_EQ(f.read("runs/t/errors.jsonl"), "");
    EXPECT_EQ(f.read("runs/t/out.jsonl"), "{\"a\":1,\"extra\":null,\"b\":1}\n{\"a\":2,\"extra\":null,\"b\":1}\n");
    EXPECT_NE(f.read("runs/t/progress.json").find("\"errors\":0,"), std::string::npos);
}

/* A trace replaces a trace, and nothing else that is there. */
TEST(RunDirectory, ATraceReplacesTracesOnly)
{
    Folder f;
    f.write("in.jsonl", "{\"n\":1}\n");
    f.write("t.yaml", "stepmill: 1\nname: t\nsteps:\n  in: {type: read_jsonl, path: in.jsonl}\n"
                      "  out: {type: write_jsonl, from: in, path: out.jsonl}\n");
    const std::string file = f.read("t.yaml");
    for (const char *there : {"in.jsonl", "t.yaml"}) {
        const Result r = mt::run(f, {"run", "-q", "t.yaml", "--trace", there});
        EXPECT_EQ(r.code, 65);
        EXPECT_NE(r.err.find(std::string("the trace would replace ") + there + ", which"), std::string::npos) << r.err;
        EXPECT_FALSE(f.has("runs"));
    }
    EXPECT_EQ(f.read("in.jsonl"), "{\"n\":1}\n");
    EXPECT_EQ(f.read("t.yaml"), file);
    f.write("trace.json", "");
    for (const char *there : {"trace.json", "trace.json", "/dev/null"})
        EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml", "--fresh", "--trace", there}).code, 0) << there;
    EXPECT_EQ(f.read("trace.json").rfind("[{\"ph\":\"M\"", 0), 0u);
}

} // namespace
