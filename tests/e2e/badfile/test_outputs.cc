/* What a sink must not write, refused by `check` and `run` at its path, before anything is written; and what it may. */
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"

namespace {

/* A is the folder, absolute. The sink's path begins at line 5, column 43. */
const char kHead[] = "stepmill: 1\nname: p\nsteps:\n  r: {type: read_jsonl, path: A/in.jsonl}\n";
const char kSink[] = "  out: {type: write_jsonl, from: r, path: ";

struct Case {
    const char *name, *path, *rest; /* rest: further steps */
    const char *says;               /* behind "error: p.yaml:"; nullptr: fine */
};

const Case kCases[] = {
    {"pipeline_file", "A/p.yaml", "", "5:43: out: parameter \"path\": A/p.yaml is the pipeline file. Choose another path"},
    {"pipeline_file_by_a_link", "A/link/p.yaml", "", "5:43: out: parameter \"path\": A/p.yaml is the pipeline file"},
    {"plugin", BADFILE_PLUGIN, "", "5:43: out: parameter \"path\": " BADFILE_PLUGIN " is a plugin of the pipeline"},
    {"input", "A/link/in.jsonl", "", "5:43: out: parameter \"path\": step r reads the file that this would write"},
    {"input_is_a_part", "A/i.jsonl",
     "  r2: {type: read_jsonl, path: A/i-00001.jsonl}\n  o2: {type: write_jsonl, from: r2, path: o2.jsonl}\n",
     "5:43: out: parameter \"path\": step r2 reads A/i-00001.jsonl, which this may write: it has the name of a part"},
    {"folder_that_is_read", "A/model/x.jsonl",
     "  c: {type: command, from: r, argv: [cat], columns: {x: utf8}, cwd: A/model}\n  o2: {type: write_jsonl, from: c, path: "
     "o2.jsonl}\n",
     "5:43: out: parameter \"path\": step c reads the folder A/model, which this would write into"},
    {"below_a_folder_that_is_read", "A/model/sub/x.jsonl",
     "  c: {type: command, from: r, argv: [cat], columns: {x: utf8}, cwd: A/model}\n  o2: {type: write_jsonl, from: c, path: "
     "o2.jsonl}\n",
     nullptr},
    {"part_of_another", "out.jsonl, part_rows: 2", "  o2: {type: write_jsonl, from: r, path: out-00001.jsonl}\n",
     "6:42: o2: parameter \"path\": of this file and that of step out one has the name of a part of the other. Give every sink a "
     "path of its own"},
    {"part_of_a_later_one", "out-00001.jsonl.gz", "  o2: {type: write_jsonl, from: r, path: ./out.jsonl.gz}\n",
     "6:42: o2: parameter \"path\": of this file and that of step out one has the name of a part of the other"},
    {"unfinished_file_of_another", "out.jsonl", "  o2: {type: write_jsonl, from: r, path: out.jsonl.1.tmp}\n",
     "6:42: o2: parameter \"path\": of this file and that of step out one has the name of a part of the other"},
    {"nearly_a_part", "out.jsonl, part_rows: 2", "  o2: {type: write_jsonl, from: r, path: out-0001.jsonl}\n", nullptr},
    {"nearly_a_part_2", "out.jsonl, part_rows: 2", "  o2: {type: write_jsonl, from: r, path: out-00001.json}\n", nullptr},
    {"file_and_folder", "x", "  o2: {type: write_jsonl, from: r, path: x/y}\n",
     "6:42: o2: parameter \"path\": what step out writes as a file, this needs as a folder"},
    {"pipe", "A/fifo", "", "5:43: out: parameter \"path\": A/fifo is a pipe, not a file that can be replaced"},
    {"link_to_a_device", "A/null", "", "5:43: out: parameter \"path\": /dev/null is a device, not a file that can be replaced"},
    {"link_to_a_file", "A/alias", "",
     "5:43: out: parameter \"path\": A/alias is a symbolic link, which the output would replace. Choose another path"},
    {"link_to_nothing", "A/loose", "", "5:43: out: parameter \"path\": A/loose is a symbolic link, which the output would replace"},
    {"folder", "A/model", "", "5:43: out: parameter \"path\": A/model is a folder, not a file that can be replaced"},
    {"name_of_a_folder", "sub/", "", "5:43: out: parameter \"path\" is \"sub/\", which names a folder, not a file"},
    {"dots", "..", "", "5:43: out: parameter \"path\" is \"..\", which names a folder, not a file"},
    {"dot", "x/.", "", "5:43: out: parameter \"path\" is \"x/.\", which names a folder, not a file"},
    {"file_as_a_folder", "A/in.jsonl/x/out.jsonl", "", "5:43: out: parameter \"path\": A/in.jsonl is a file, not a folder"},
    {"in_another_run", "A/other/out.jsonl", "",
     "5:43: out: parameter \"path\": A/other is the run directory of another run, which alone writes there"},
    {"replaces_a_file", "A/old.jsonl", "", nullptr},
};

std::string with(std::string text, const std::string &from, const std::string &to)
{
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
    return text;
}

class Outputs : public testing::TestWithParam<Case> {};

TEST_P(Outputs, WhatMustNotBeWrittenIsRefused)
{
    const Case &c = GetParam();
    const mt::Folder f;
    const std::string at = f.path();
    ASSERT_EQ(mkdir((at + "/model").c_str(), 0777), 0);
    ASSERT_EQ(mkfifo((at + "/fifo").c_str(), 0666), 0);
    ASSERT_EQ(symlink(".", (at + "/link").c_str()), 0);
    ASSERT_EQ(symlink("/dev/null", (at + "/null").c_str()), 0);
    ASSERT_EQ(symlink("old.jsonl", (at + "/alias").c_str()), 0);
    ASSERT_EQ(symlink("not-there", (at + "/loose").c_str()), 0);
    f.write("in.jsonl", "{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"id\":\"3\"}\n");
    f.write("i-00001.jsonl", "{\"id\":\"1\"}\n");
    f.write("old.jsonl", "old\n");
    ASSERT_EQ(mkdir((at + "/other").c_str(), 0777), 0);
    f.write("other/run.json", "{}");
    f.write("other/progress.json", "{}");
    const bool plugin = std::string(c.name) == "plugin";
    f.write("p.yaml",
            with(std::string(kHead) + kSink, "A/", at + "/") + with(c.path, "A/", at + "/") + "}\n" + with(c.rest, "A/", at + "/"));
    const std::vector<std::string> before = f.list();
    for (const char *verb : {"check", "run"}) {
        std::vector<std::string> args = {verb, "p.yaml"};
        if (plugin) args.insert(args.end(), {"--set", "plugins=[" BADFILE_PLUGIN "]"});
        const mt::Result r = mt::run(f, args);
        if (c.says == nullptr) {
            EXPECT_EQ(r.code, 0) << verb << ": " << r.err;
            continue;
        }
        EXPECT_EQ(r.code, 65) << verb << ": " << r.err;
        EXPECT_EQ(r.err.find(with(std::string("error: p.yaml:") + c.says, "A/", at + "/")), 0u) << r.err;
        EXPECT_EQ(f.list(), before) << "nothing may be written";
        EXPECT_EQ(f.read("in.jsonl").size(), 33u);
    }
}

INSTANTIATE_TEST_SUITE_P(Table, Outputs, testing::ValuesIn(kCases), [](const auto &i) { return std::string(i.param.name); });

/* Paths of sinks start at the run directory, which `check` and `plan` know as well as `run` does. */
TEST(RunDirectory, AnUnknownCompressionIsRefused)
{
    const mt::Folder f;
    f.write("in.jsonl", "{\"id\":1}\n");
    f.write(
        "p.yaml",
        "stepmill: 1\nsteps:\n  r: {type: read_jsonl, path: in.jsonl}\n  o: {type: write_jsonl, from: r, path: out.jsonl.bz2}\n");
    for (const std::vector<std::string> &call : {std::vector<std::string>{"check", "p.yaml"}, {"plan", "p.yaml"}, {"run", "p.yaml"},
                                                 {"run", "--dry-run", "p.yaml"}}) {
        const mt::Result r = mt::run(f, call);
        EXPECT_EQ(r.code, 65) << call[0];
        EXPECT_EQ(r.err, "error: p.yaml:4:41: o: parameter \"path\": .bz2 is not a compression that is written; use .gz or .zst\n");
        EXPECT_FALSE(f.has("runs"));
    }
}

/* What its own table of parameters cannot say. */
TEST(Parameters, OfACommandLeaveItTime)
{
    const mt::Folder f;
    f.write("in.jsonl", "{\"id\":1}\n");
    for (const char *deadline : {"0", "0s", "99999999999d"}) {
        f.write("p.yaml", std::string("stepmill: 1\nsteps:\n  r: {type: read_jsonl, path: in.jsonl}\n  c: {type: command, from: r, "
                                      "argv: [cat], deadline: ") +
                              deadline + "}\n");
        const mt::Result r = mt::run(f, {"check", "p.yaml"});
        EXPECT_EQ(r.code, 65) << deadline;
        EXPECT_EQ(r.err, "error: p.yaml:4:54: c: parameter \"deadline\": expected a duration above 0 and at most 1e9 s, or none\n");
    }
}

TEST(RunDirectory, AFileInItThatAStepReadsIsNotWritten)
{
    const mt::Folder f;
    f.write("in.jsonl", "{\"id\":1}\n");
    f.write("p.yaml", "stepmill: 1\nname: p\nsteps:\n  r: {type: read_jsonl, path: in.jsonl}\n  o: {type: write_jsonl, from: r, "
                      "path: old.jsonl}\n");
    ASSERT_EQ(mt::run(f, {"run", "-q", "p.yaml"}).code, 0);
    f.write("p.yaml", "stepmill: 1\nname: p\nsteps:\n  r: {type: read_jsonl, path: runs/p/old.jsonl}\n  o: {type: write_jsonl, "
                      "from: r, path: old.jsonl}\n");
    for (const char *verb : {"check", "plan", "run"}) {
        const mt::Result r = mt::run(f, {verb, "p.yaml"});
        EXPECT_EQ(r.code, 65) << verb;
        EXPECT_EQ(r.err,
                  "error: p.yaml:5:41: o: parameter \"path\": step r reads the file that this would write. Choose another path\n");
        EXPECT_EQ(mt::run(f, {verb, "--run", "runs/other", "p.yaml"}).code, 0) << verb; /* there it is another file */
    }
    EXPECT_EQ(f.read("runs/p/old.jsonl"), "{\"id\":1,\"extra\":null}\n");
}

/* Whatever a run leaves in its directory, no sink can have: the list of names is complete. */
TEST(RunDirectory, EveryFileOfARunIsItsOwn)
{
    const mt::Folder f;
    f.write("in.jsonl", "{\"id\":1}\noops\n");
    const std::string head = "stepmill: 1\nname: p\nsteps:\n  r: {type: read_jsonl, path: in.jsonl}\n  s: {type: select, from: r, "
                             "keep: [id], cache: true}\n"
                             "  o: {type: write_jsonl, from: s, path: ";
    f.write("p.yaml", head + "rows.jsonl}\n");
    EXPECT_EQ(mt::run(f, {"run", "p.yaml"}).code, 3);
    int files = 0;
    for (const std::string &name : f.list()) {
        if (name.compare(0, 7, "runs/p/") != 0 || name == "runs/p/rows.jsonl") continue;
        const std::string own = name.substr(7);
        SCOPED_TRACE(own);
        files++;
        for (const std::string &path : {own, "./" + own, f.path() + "/" + name}) {
            f.write("p.yaml", head + path + "}\n");
            const mt::Result r = mt::run(f, {"run", "p.yaml"});
            EXPECT_EQ(r.code, 65);
            EXPECT_NE(r.err.find(": o: parameter \"path\": " + own + " in the run directory is a file of the run itself"),
                      std::string::npos) << r.err;
        }
    }
    EXPECT_GE(files, 9);
}

} // namespace
