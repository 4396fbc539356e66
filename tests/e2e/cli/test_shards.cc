/* Runs in shards, and their merge: the bytes of one run, whatever happens on the way; and what cannot be done in shards. */
#include <gtest/gtest.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>

#include "command.h"

extern "C" {
#include "shard.h"
}

namespace {

using mt::Command;
using mt::Folder;
using mt::Result;

void says(const Result &r, const std::string &part) { EXPECT_NE(r.err.find(part), std::string::npos) << part << " in " << r.err; }

/* Rows that expand, are dropped, meet again, and fail: in the source, in a step. */
const char kSteps[] = "steps:\n"
                      "  src: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8, l: \"list<int64>\"}, extra: "
                      "\"\", batch_size: 100}\n"
                      "  items: {type: explode, from: src, column: l}\n"
                      "  work: {type: e2e_work, from: items, mode: fail, at: 333, input_batch_size: 33, replicas: 2}\n"
                      "  label: {type: template, from: work, template: \"{id}/{l}/{doubled}\", output: label}\n"
                      "  third: {type: filter, from: src, where: \"id % 3 == 0\"}\n"
                      "  named: {type: template, from: src, template: \"<{text}>\", output: name}\n"
                      "  both: {type: select, from: {join: [named, third], on_missing: drop}, keep: [id, name]}\n"
                      "  out: {type: write_jsonl, from: label, path: out.jsonl, part_rows: 500, errors: true}\n"
                      "  zip: {type: write_jsonl, from: {union: [third, src]}, path: zip.jsonl.gz}\n"
#ifdef HAVE_PARQUET
                      "  table: {type: write_parquet, from: both, path: table.parquet}\n"
#endif
                      "  joined: {type: write_jsonl, from: both, path: joined.jsonl}\n"
                      "  raw: {type: write_jsonl, from: src, path: raw.jsonl}\n";

std::string pipeline(const std::string &steps = kSteps)
{
    return "stepmill: 1\nname: t\ncommit_interval: 0.01s\nmax_errors: 100\nplugins: [" E2E_PLUGIN "]\n" + steps;
}

void write_input(const Folder &f, int n)
{
    std::string s;
    for (int i = 0; i < n; i++) {
        s += "{\"id\":" + std::to_string(i) + ",\"text\":" + (i % 301 == 7 ? "5" : "\"t" + std::to_string(i) + "\"") + ",\"l\":[";
        for (int k = 0; k < i % 4; k++) s += (k > 0 ? "," : "") + std::to_string(k);
        s += "]}\n";
    }
    f.write("in.jsonl", s);
}

void expect_same(const Folder &f, const std::string &one, const std::string &other)
{
    int files = 0;
    for (const std::string &name : f.list()) {
        const std::string base = one + "/";
        if (name.rfind(base, 0) != 0) continue;
        const std::string file = name.substr(base.size());
        if (file.find(".jsonl") == std::string::npos && file.find(".parquet") == std::string::npos && file != "manifest.json")
            continue;
        if (file == "log.jsonl" || file == "errors.jsonl") continue;
        files++;
        EXPECT_TRUE(f.has(other + "/" + file)) << file;
        EXPECT_TRUE(f.read(other + "/" + file) == f.read(name)) << file << " differs";
    }
    EXPECT_GE(files, 5);
}

int lines(const std::string &text)
{
    int n = 0;
    for (char c : text) n += c == '\n';
    return n;
}

void run_shards(const Folder &f, int n)
{
    for (int i = 1; i <= n; i++) {
        const Result r = mt::run(f, {"run", "t.yaml", "--quiet", "--shard", std::to_string(i) + "/" + std::to_string(n)});
        ASSERT_EQ(r.code, 0) << r.err;
    }
}

TEST(Shards, MergedAreTheBytesOfOneRun)
{
    Folder f;
    write_input(f, 1500);
    f.write("t.yaml", pipeline());
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--run", "one"}).code, 0);
    for (int n : {1, 4}) {
        run_shards(f, n);
        const Result r =
            mt::run(f, {"merge", "runs/t/shard-1-of-" + std::to_string(n), n == 1 ? "--fresh" : "runs/t/shard-3-of-4",
                        n == 1 ? "--quiet" : "runs/t/shard-2-of-4", n == 1 ? "--json" : "runs/t/shard-4-of-4", "--run", "merged"});
        EXPECT_EQ(r.code, 0) << r.err;
        expect_same(f, "one", "merged");
        EXPECT_EQ(lines(f.read("merged/errors.jsonl")), lines(f.read("one/errors.jsonl")));
    }
}

/* Each shard does its share only, and no row is in two. */
TEST(Shards, DivideTheRows)
{
    Folder f;
    write_input(f, 1000);
    f.write("t.yaml", pipeline());
    run_shards(f, 3);
    int all = 0;
    for (int i = 1; i <= 3; i++) {
        const int n = lines(f.read("runs/t/shard-" + std::to_string(i) + "-of-3/raw.jsonl"));
        EXPECT_GT(n, 1000 / 3 - 64);
        EXPECT_LT(n, 1000 / 3 + 64);
        all += n;
    }
    EXPECT_EQ(all, 1000);
    /* A folder of shards stands for all of them, and is where they are merged. */
    ASSERT_EQ(mt::run(f, {"merge", "runs/t", "--quiet"}).code, 0);
    EXPECT_EQ(lines(f.read("runs/t/raw.jsonl")), 1000);
}

/* A shard that is stopped, resumed inside its directory; sizes of batches that differ do no harm. */
TEST(Shards, AreResumedAsTheyWere)
{
    Folder f;
    f.write("t.yaml", pipeline("steps:\n  count: {type: e2e_count, rows: 2000, batch_size: 10, pause: 0.01s}\n"
                               "  out: {type: write_jsonl, from: count, path: out.jsonl}\n"));
    EXPECT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--shard", "1/2", "--time-left", "1s"}).code, 75);
    EXPECT_EQ(mt::run(f, {"resume", "runs/t/shard-1-of-2", "--quiet"}).code, 0);
    EXPECT_EQ(mt::run(f,
                      {"run", "t.yaml", "--quiet", "--shard", "2/2", "--set", "count.batch_size=333", "--set",
                       "count.pause=0s"}).code, 0);
    EXPECT_EQ(mt::run(f, {"merge", "runs/t", "--quiet"}).code, 65) << "another pause is another parameter";
    EXPECT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--shard", "2/2", "--set", "count.batch_size=333"}).code, 0);
    const Result r = mt::run(f, {"merge", "runs/t", "--quiet"});
    EXPECT_EQ(r.code, 0) << r.err;
    std::string want;
    for (int i = 0; i < 2000; i++) want += "{\"id\":" + std::to_string(i) + "}\n";
    EXPECT_TRUE(f.read("runs/t/out.jsonl") == want);
}

/* Killed at any moment it goes on, and ends with the same bytes. */
TEST(Shards, AKilledMergeGoesOn)
{
    Folder f;
    write_input(f, 6000);
    f.write("t.yaml", pipeline(kSteps));
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--run", "one", "--set", "max_errors=1000"}).code, 0);
    for (const char *i : {"1/2", "2/2"})
        ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--set", "max_errors=1000", "--shard", i}).code, 0);
    int killed = 0;
    for (int k = 0; k < 14; k++) {
        Command c(f, {"merge", "runs/t", "--quiet"});
        usleep(8000 * (useconds_t)(k + 1));
        if (c.ended(0)) break;
        if (k % 2 == 0 && c.worker() > 0) {
            kill(c.worker(), SIGKILL); /* another one goes on */
            usleep(20000);
        }
        c.signal(SIGKILL);
        killed += c.wait() == 1000 + SIGKILL;
    }
    EXPECT_GT(killed, 0);
    const Result r = mt::run(f, {"merge", "runs/t", "--quiet"});
    EXPECT_EQ(r.code, 0) << r.err;
    expect_same(f, "one", "runs/t");
}

/* ---- globals --------------------------------------------------------------------------------------------------------- */

/* In front of the first global: rows that fail, a union, sinks. Behind it: failures, a second global, a router, a join by position
 * with the source, a step that keeps a state. */
const char kGlobals[] = "steps:\n"
                        "  src: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8, embedding: "
                        "\"fixed_list<float32>[2]\"}, extra: \"\", batch_size: 100}\n"
                        "  work: {type: e2e_work, from: src, mode: fail, at: 333, input_batch_size: 33, replicas: 2}\n"
                        "  third: {type: filter, from: work, where: \"id % 3 == 0\"}\n"
                        "  groups: {type: deduplicate, from: {union: [third, src]}, threshold: 0.9999, output: rows}\n"
                        "  kept: {type: filter, from: groups, where: \"keep\"}\n"
                        "  late: {type: e2e_work, from: kept, mode: fail, at: 6, input_batch_size: 7, outputs: {doubled: twice}}\n"
                        "  near: {type: nearest_neighbours, from: late, k: 2, id: id}\n"
                        "  deal: {type: round_robin, from: near, input_batch_size: 20, to: {a: left, b: right}}\n"
                        "  left: {type: template, from: deal, template: \"A{id}\", output: branch}\n"
                        "  right: {type: template, from: deal, template: \"B{id}\", output: branch}\n"
                        "  both: {type: template, from: {converge: [left, right]}, template: \"{branch}!\", output: shout}\n"
                        "  few: {type: limit, from: both, rows: 50}\n"
                        "  pairs: {type: select, from: {join: [both, src], on_uneven: \"null\"}, keep: [shout, text]}\n"
                        "  raw: {type: write_jsonl, from: src, path: raw.jsonl, part_rows: 400}\n"
                        "  front: {type: write_jsonl, from: third, path: third.jsonl.gz}\n"
                        "  out: {type: write_jsonl, from: groups, path: groups.jsonl, part_rows: 500, errors: true}\n"
                        "  out2: {type: write_jsonl, from: both, path: both.jsonl, part_rows: 100}\n"
                        "  out3: {type: write_jsonl, from: few, path: few.jsonl}\n"
                        "  out4: {type: write_jsonl, from: pairs, path: pairs.jsonl}\n";

void write_vectors(const Folder &f, int n)
{
    std::string s;
    for (int i = 0; i < n; i++) {
        const double angle = i * 37 % 211 * 0.0297;
        s += "{\"id\":" + std::to_string(i) + ",\"text\":" + (i % 301 == 7 ? "5" : "\"t" + std::to_string(i) + "\"") +
             ",\"embedding\":[" + std::to_string(cos(angle)) + "," + std::to_string(sin(angle)) + "]}\n";
    }
    f.write("in.jsonl", s);
}

/* Which rows failed where, in order; numbers and places of batches may differ. */
std::vector<std::string> failures(const Folder &f, const std::string &run)
{
    std::vector<std::string> v;
    const std::string text = f.read(run + "/errors.jsonl");
    const auto value = [](const std::string &line, const std::string &key) {
        const size_t at = line.find("\"" + key + "\":\"");
        return at == std::string::npos ? std::string() : line.substr(at, line.find('"', at + key.size() + 4) - at);
    };
    for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
        const std::string line = text.substr(at, end - at);
        v.push_back(value(line, "step") + value(line, "first_key") + value(line, "message"));
    }
    std::sort(v.begin(), v.end());
    return v;
}

TEST(ShardsOfGlobals, MergedAreTheBytesOfOneRun)
{
    Folder f;
    write_vectors(f, 1500);
    f.write("t.yaml", pipeline(kGlobals));
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--run", "one"}).code, 0);
    ASSERT_GT(lines(f.read("one/both-00000.jsonl")) + lines(f.read("one/both-00001.jsonl")), 110);
    const std::vector<std::string> want = failures(f, "one");
    int late = 0;
    for (const std::string &e : want) late += e.find("late") != std::string::npos;
    ASSERT_EQ(late, 1) << "rows fail behind the global, too";
    for (int n : {1, 4}) {
        run_shards(f, n);
        for (const std::string &name : f.list()) {
            EXPECT_EQ(name.find("of-" + std::to_string(n) + "/groups.jsonl"), std::string::npos) << "a shard cannot know";
            EXPECT_EQ(name.find("of-" + std::to_string(n) + "/both"), std::string::npos);
        }
        EXPECT_NE(f.read("runs/t/shard-1-of-" + std::to_string(n) + "/manifest.json").find("\"complete\":true"), std::string::npos);
        std::vector<std::string> args = {"merge", "--run", "merged", n == 1 ? "--fresh" : "--quiet"};
        for (int i = 1; i <= n; i++) args.push_back("runs/t/shard-" + std::to_string(i) + "-of-" + std::to_string(n));
        Result r = mt::run(f, args);
        EXPECT_EQ(r.code, 0) << r.err;
        expect_same(f, "one", "merged");
        EXPECT_EQ(failures(f, "merged"), want);
        r = mt::run(f, args); /* once too often */
        EXPECT_EQ(r.code, 0) << r.err;
        expect_same(f, "one", "merged");
        EXPECT_EQ(failures(f, "merged"), want);
    }
    /* Of what is behind a global the shards know nothing: it may change without them. */
    f.write("t.yaml", pipeline(std::string(kGlobals).replace(std::string(kGlobals).find("rows: 50"), 8, "rows: 60")));
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--run", "other"}).code, 0);
    const Result r = mt::run(f, {"merge", "runs/t/shard-1-of-4", "runs/t/shard-2-of-4", "runs/t/shard-3-of-4",
                                 "runs/t/shard-4-of-4", "--run", "merged"});
    EXPECT_EQ(r.code, 0) << r.err;
    says(r, "out3 runs again: step few: rows was 50, is 60");
    EXPECT_EQ(lines(f.read("merged/few.jsonl")), 60);
    expect_same(f, "other", "merged");
    EXPECT_EQ(failures(f, "merged"), want);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kKills = 3; /* starting a process is slow there */
#else
constexpr int kKills = 14;
#endif

/* Shards that are killed, and a merge that is killed again and again, in all of its globals. */
TEST(ShardsOfGlobals, GoOnAfterKills)
{
    Folder f;
    write_vectors(f, 4000);
    f.write("t.yaml", pipeline(kGlobals));
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--run", "one"}).code, 0);
    int killed = 0;
    const auto kill_until_done = [&](const std::vector<std::string> &args, useconds_t step) {
        for (int k = 0; k < kKills; k++) {
            Command c(f, args);
            usleep(step * (useconds_t)(k + 1));
            if (c.ended(0)) break;
            if (k % 2 == 0 && c.worker() > 0) {
                kill(c.worker(), SIGKILL);
                usleep(20000);
            }
            c.signal(SIGKILL);
            killed += c.wait() == 1000 + SIGKILL;
        }
        const Result r = mt::run(f, args);
        EXPECT_EQ(r.code, 0) << r.err;
    };
    for (const char *i : {"1/2", "2/2"}) kill_until_done({"run", "t.yaml", "--quiet", "--shard", i}, 9000);
    const int of_shards = killed;
    kill_until_done({"merge", "runs/t", "--quiet"}, 8000);
    EXPECT_GT(of_shards, 0);
    EXPECT_GT(killed, of_shards);
    expect_same(f, "one", "runs/t");
    EXPECT_EQ(failures(f, "runs/t"), failures(f, "one"));
}

TEST(ShardsOfGlobals, WantEachShardFinishedAndNoDeviceOfTheOthers)
{
    Folder f;
    write_vectors(f, 2000);
    const std::string steps =
        "steps:\n"
        "  count: {type: e2e_count, rows: 2000, batch_size: 10, pause: 0.01s}\n"
        "  src: {type: read_jsonl, path: in.jsonl, columns: {id: int64, embedding: \"fixed_list<float32>[2]\"}, extra: \"\"}\n"
        "  both: {type: select, from: {union: [count, src]}, keep: [id, embedding]}\n"
        "  groups: {type: deduplicate, from: both, threshold: 0.9999, output: rows}\n"
        "  out: {type: write_jsonl, from: groups, path: " +
        f.path() + "/outside.jsonl}\n";
    f.write("t.yaml", pipeline(steps));
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--shard", "1/2", "--time-left", "1s"}).code, 75);
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--shard", "2/2", "--set", "count.pause=0s"}).code,
              0) << "only the merge writes outside.jsonl";
    Result r = mt::run(f, {"merge", "runs/t"});
    EXPECT_EQ(r.code, 65);
    says(r, "is not finished");
    says(r, "stepmill resume ");
    EXPECT_FALSE(f.has("outside.jsonl"));
}

/* ---- what cannot be ------------------------------------------------------------------------------------------------ */

TEST(Shards, WhatNeedsOtherRowsIsRefused)
{
    const struct {
        const char *steps, *says;
    } refused[] = {
        {"  r: {type: round_robin, from: v, to: {a: x, b: y}}\n  x: {type: write_jsonl, from: r, path: x.jsonl}\n  y: {type: "
         "write_jsonl, from: r, path: y.jsonl}\n",
         "r: cannot be run in shards: the step is a router"},
        {"  l: {type: limit, from: v, rows: 3}\n  out: {type: write_jsonl, from: l, path: o.jsonl}\n",
         "l: cannot be run in shards: the step gives results that depend on other rows"},
        {"  t: {type: e2e_total, from: v, input_batch_size: 7}\n  out: {type: write_jsonl, from: t, path: o.jsonl}\n",
         "t: cannot be run in shards"},
        {"  w: {type: e2e_count}\n  j: {type: select, from: [v, w], keep: [id]}\n  out: {type: write_jsonl, from: j, path: "
         "o.jsonl}\n",
         "j: cannot be run in shards: the step joins by position"},
        {"  out: {type: write_jsonl, from: v, path: /tmp/all.jsonl}\n", "all shards would write /tmp/all.jsonl"},
    };
    Folder f;
    f.write("in.jsonl", "{\"id\":1,\"embedding\":[1.0,2.0]}\n");
    for (const auto &r : refused) {
        f.write(
            "t.yaml",
            pipeline(
                "steps:\n  v: {type: read_jsonl, path: in.jsonl, columns: {id: int64, embedding: \"fixed_list<float32>[2]\"}}\n" +
                std::string(r.steps)));
        const Result result = mt::run(f, {"run", "t.yaml", "--shard", "1/2"});
        EXPECT_EQ(result.code, 65) << result.err;
        says(result, r.says);
    }
}

TEST(Shards, MergeSaysWhatIsWrong)
{
    Folder f;
    write_input(f, 600);
    f.write("t.yaml", pipeline());
    run_shards(f, 2);
    const auto merge = [&](std::vector<std::string> more) {
        std::vector<std::string> args = {"merge", "--quiet", "--run", "m"};
        args.insert(args.end(), more.begin(), more.end());
        const Result r = mt::run(f, args);
        EXPECT_NE(r.code, 0) << r.err;
        return r;
    };
    const std::string one = "runs/t/shard-1-of-2", two = "runs/t/shard-2-of-2";
    says(merge({one}), "shard 2 of 2 is missing");
    says(merge({one, two, one}), "shard 1 of 2 is there twice");
    says(merge({"no/such"}), "cannot open no/such");
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--run", "plain"}).code, 0);
    says(merge({"plain", two}), "is not a shard: it was run without --shard");
    says(mt::run(f, {"merge", "--quiet", "plain"}), "is not a shard: it was run without --shard");
    says(mt::run(f, {"merge", one, two, "--run", "plain"}), "holds a run that is no merge");
    says(mt::run(f, {"merge", one, two, "--run", one}), "is a shard, and nothing is merged into one");
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--shard", "3/3"}).code, 0);
    says(merge({one, "runs/t/shard-3-of-3"}), "is a shard of 2, ");
    /* Unfinished, of another file, of another pipeline. */
    ASSERT_EQ(mt::run(f,
                      {"run", "t.yaml", "--quiet", "--shard", "2/2", "--fresh", "--set", "work.mode=hang", "--set", "work.at=334",
                       "--time-left", "1s"}).code, 75);
    const Result other = merge({one, two});
    says(other, "shard 2 of 2, in ");
    says(other, "step work: mode was hang, is fail");
    f.write("t.yaml", pipeline(std::string(kSteps)));
    write_input(f, 601);
    const Result changed = merge({one, two});
    EXPECT_EQ(changed.code, 65);
    says(changed, "in.jsonl changed");
    EXPECT_FALSE(f.has("m/manifest.json")) << "nothing was written";
}

TEST(Shards, MergeWantsThemFinished)
{
    Folder f;
    f.write("t.yaml", pipeline("steps:\n  count: {type: e2e_count, rows: 2000, batch_size: 10, pause: 0.01s}\n"
                               "  out: {type: write_jsonl, from: count, path: out.jsonl}\n"));
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--quiet", "--shard", "1/1", "--time-left", "1s"}).code, 75);
    const Result r = mt::run(f, {"merge", "runs/t"});
    EXPECT_EQ(r.code, 65);
    says(r, "shard 1 of 1, in ");
    says(r, "is not finished");
    says(r, "stepmill resume ");
}

/* ---- which shard ----------------------------------------------------------------------------------------------------- */

TEST(Shards, FromTheFlagAndFromAJobArray)
{
    const struct {
        const char *text, *id, *least, *most, *count;
        int shard, shards; /* 0: refused */
    } cases[] = {
        {"1/1", nullptr, nullptr, nullptr, nullptr, 1, 1}, {"4/4", nullptr, nullptr, nullptr, nullptr, 4, 4},
        {"0/4", nullptr, nullptr, nullptr, nullptr, 0, 0}, {"5/4", nullptr, nullptr, nullptr, nullptr, 0, 0},
        {"1", nullptr, nullptr, nullptr, nullptr, 0, 0},   {"1/4x", nullptr, nullptr, nullptr, nullptr, 0, 0},
        {"-1/4", nullptr, nullptr, nullptr, nullptr, 0, 0}, {"1/99999", nullptr, nullptr, nullptr, nullptr, 0, 0},
        {"slurm", "0", "0", "3", "4", 1, 4},               {"slurm", "4", "1", "4", "4", 4, 4},
        {"slurm", "7", "1", "7", "3", 0, 0},               {"slurm", "2", "2", "2", "1", 1, 1},
        {"slurm", nullptr, "1", "4", "4", 0, 0},           {"slurm", "9", "1", "4", "4", 0, 0},
    };
    for (const auto &c : cases) {
        int32_t shard = 0, shards = 0;
        const char *why = "as expected";
        EXPECT_EQ(cli_shard(c.text, c.id, c.least, c.most, c.count, &shard, &shards, &why),
                  c.shard > 0) << c.text << (c.id ? c.id : "");
        EXPECT_EQ(shard, c.shard);
        EXPECT_EQ(shards, c.shards);
    }
}

} // namespace
