/* Mistakes that only loading can know: exit code 1, one error, and nothing is left of the run, be it the first one in its directory
 * or one after a run that was complete. Once the mistake is mended the run begins, or is found complete, as if the one that failed
 * had never been. */
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "command.h"

namespace {

/* What all files below a folder hold, and when they were changed; folders hold nothing. */
std::map<std::string, std::string> contents(const mt::Folder &f)
{
    std::map<std::string, std::string> all;
    for (const std::string &name : f.list()) {
        struct stat s = {};
        if (lstat((f.path() + "/" + name).c_str(), &s) != 0) continue;
        all[name] = S_ISREG(s.st_mode)
                        ? f.read(name) + "|" + std::to_string(s.st_mtim.tv_sec) + "." + std::to_string(s.st_mtim.tv_nsec)
                        : "";
    }
    return all;
}

struct Failure {
    const char *name, *step, *sink, *says; /* says: behind the name of the file, which is where the step or its file is named */
};

const char kMore[] = "  far: {type: write_jsonl, from: in, path: ../../far/deep/out.jsonl}\n";
const char kFine[] = "{type: select, from: in}", kSink[] = "{type: write_jsonl, from: s, path: sub/x/../out.jsonl}";

const Failure kFailures[] = {
    {"missing_program", "{type: command, from: in, argv: [no-such-program]}", kSink, "6:3: s[0]: "},
    {"program_that_cannot_run", "{type: command, from: in, argv: [/etc/passwd]}", kSink, "6:3: s[0]: "},
    {"program_is_a_folder", "{type: command, from: in, argv: [/etc]}", kSink, "6:3: s[0]: "},
    {"step_says_no", "{type: e2e_work, from: in, mode: load_fail}", kSink, "6:3: s[0]: there is no model"},
    {"step_that_never_loads", "{type: e2e_work, from: in, mode: load_hang, timeout: {load: 100ms}}", kSink, "6:3: s[0]: load "},
    {"jsonl_cannot_be_made", kFine, "{type: write_jsonl, from: s, path: /proc/none/out.jsonl}",
     "7:43: out[0]: cannot make the folder /proc/none"},
    {"jsonl_cannot_be_opened", kFine, "{type: write_jsonl, from: s, path: /proc/none.jsonl}",
     "7:43: out[0]: cannot write /proc/none.jsonl"},
    {"arrow_cannot_be_opened", kFine, "{type: write_arrow, from: s, path: /proc/none.arrow}",
     "7:43: out[0]: cannot write /proc/none.arrow"},
#ifdef HAVE_PARQUET
    {"parquet_cannot_be_opened", kFine, "{type: write_parquet, from: s, path: /proc/none.parquet}",
     "7:45: out[0]: cannot write /proc/none.parquet"},
#endif
#ifdef HAVE_HTTP
    {"no_key_in_the_environment",
     "{type: chat, from: in, model: m, url: 'http://127.0.0.1:1', api_key_env: NO_SUCH_KEY, inputs: {prompt: text}}", kSink,
     "6:3: s[0]: the environment has no NO_SUCH_KEY"},
    {"offline_without_a_key",
     "{type: chat, from: in, model: m, url: 'http://127.0.0.1:1', api_key_env: NO_SUCH_KEY, inputs: {prompt: text}, offline: true, "
     "input_batch_size: 10}",
     kSink, "6:3: s[0]: the environment has no NO_SUCH_KEY"},
#endif
};

class Loads : public testing::Test {
protected:
    void write(const char *step, const char *sink, const char *more = kMore) const
    {
        f.write("in.jsonl", "{\"id\": 1, \"text\": \"a\"}\n{\"id\": 2, \"text\": \"b\"}\n");
        f.write("p.yaml", std::string("stepmill: 1\nname: p\nplugins: [" E2E_PLUGIN
                                      "]\nsteps:\n  in: {type: read_jsonl, path: in.jsonl}\n  s: ") +
                              step + "\n  out: " + sink + "\n" + more);
    }
    mt::Folder f;
};

class LoadFailures : public Loads, public testing::WithParamInterface<Failure> {};

TEST_P(LoadFailures, LeaveNothingAndAreMended)
{
    const Failure &c = GetParam();
    for (const char *how : {"-q", "--no-supervise"}) {
        write(c.step, c.sink);
        const auto before = contents(f);
        mt::Result r = mt::run(f, {"run", "-q", how, "p.yaml"});
        EXPECT_EQ(r.code, 1) << how << r.err;
        EXPECT_EQ(r.err.find(std::string("error: p.yaml:") + c.says), 0u) << r.err;
        EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << "one error: " << r.err;
        EXPECT_EQ(contents(f), before) << how;
    }
    write(kFine, kSink);
    const mt::Result r = mt::run(f, {"run", "-q", "p.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(f.read("runs/p/sub/out.jsonl"), f.read("far/deep/out.jsonl"));
}

TEST_P(LoadFailures, LeaveAnEarlierRunAsItWas)
{
    const Failure &c = GetParam();
    write(kFine, kSink);
    ASSERT_EQ(mt::run(f, {"run", "-q", "p.yaml"}).code, 0);
    f.write("runs/p/mine.txt", "a file of the user's\n");
    write(c.step, c.sink);
    const auto before = contents(f);
    for (const char *how : {"-q", "--fresh"}) {
        const mt::Result r = mt::run(f, {"run", "-q", how, "p.yaml"});
        EXPECT_EQ(r.code, 1) << r.err;
        EXPECT_EQ(contents(f), before) << how;
    }
    write(kFine, kSink);
    const mt::Result r = mt::run(f, {"run", "p.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.err.find("complete already"), 0u) << r.err;
    EXPECT_NE(r.err.find(" 2 rows in, 4 rows out"), std::string::npos) << r.err;
}

INSTANTIATE_TEST_SUITE_P(Table, LoadFailures, testing::ValuesIn(kFailures),
                         [](const auto &i) { return std::string(i.param.name); });

/* A run that was stopped half-way has unfinished files: they are what it goes on with. */
TEST_F(Loads, ThatFailLeaveAStoppedRunAsItWas)
{
    const auto pipeline = [&](const char *mode) {
        f.write("p.yaml", "stepmill: 1\nname: p\ncommit_interval: 50ms\nplugins: [" E2E_PLUGIN
                          "]\nsteps:\n  in: {type: e2e_count, rows: 300, batch_size: 1, pause: 5ms}\n"
                          "  s: {type: e2e_work, from: in}\n  out: {type: write_jsonl, from: s, path: out.jsonl.gz}\n"
                          "  t: {type: command, from: in, argv: [" +
                              std::string(mode) + "]}\n  o: {type: write_jsonl, from: t, path: o.jsonl}\n");
    };
    pipeline("cat");
    mt::Command c(f, {"run", "-q", "p.yaml"});
    for (int i = 0; i < 2000 && !f.has("runs/p/progress.json"); i++) usleep(5000);
    usleep(300000); /* of 1.5 s at least */
    c.signal(SIGTERM);
    ASSERT_EQ(c.wait(30), 75) << c.err();
    pipeline("no-such-program");
    const auto before = contents(f);
    const mt::Result r = mt::run(f, {"run", "-q", "p.yaml"});
    EXPECT_EQ(r.code, 1) << r.err;
    EXPECT_EQ(contents(f), before);
    pipeline("cat");
    const mt::Result on = mt::run(f, {"run", "p.yaml"});
    EXPECT_EQ(on.code, 0) << on.err;
    EXPECT_NE(on.err.find("going on where the last run stopped"), std::string::npos) << on.err;
    ASSERT_EQ(
        system(
            ("cd '" + f.path() + "/runs/p' && test $(zcat out.jsonl.gz | wc -l) = 300 && test $(wc -l < o.jsonl) = 300").c_str()),
        0);
}

/* A later load group: what the groups before it have done is kept, and gone on with. */
TEST_F(Loads, OfALaterGroupThatFailKeepWhatWasDone)
{
    write("{type: command, from: in, argv: [no-such-program]}", kSink, "load_groups: [[in], [s, out]]\n");
    const mt::Result r = mt::run(f, {"run", "-q", "p.yaml"});
    EXPECT_EQ(r.code, 1) << r.err;
    EXPECT_TRUE(f.has("runs/p/errors.jsonl"));
    EXPECT_NE(f.read("runs/p/errors.jsonl").find("no-such-program"), std::string::npos);
    EXPECT_NE(f.read("runs/p/progress.json").find("\"state\":\"load_failed\""), std::string::npos);
    write("{type: command, from: in, argv: [cat]}", kSink, "load_groups: [[in], [s, out]]\n");
    EXPECT_EQ(mt::run(f, {"run", "-q", "p.yaml"}).code, 0);
}

TEST_F(Loads, OfAShardThatFailLeaveNothing)
{
    write("{type: command, from: in, argv: [no-such-program]}", "{type: write_jsonl, from: s, path: out.jsonl}", "");
    const auto before = contents(f);
    const mt::Result r = mt::run(f, {"run", "-q", "--shard", "1/2", "p.yaml"});
    EXPECT_EQ(r.code, 1) << r.err;
    EXPECT_EQ(contents(f), before);
}

/* A step that takes the process along while it loads. */
TEST_F(Loads, ThatCrashLeaveNothing)
{
    write("{type: e2e_work, from: in, mode: load_crash}", kSink);
    const auto before = contents(f);
    const mt::Result r = mt::run(f, {"run", "-q", "p.yaml"});
    EXPECT_EQ(r.code, 1) << r.err;
    EXPECT_NE(r.err.find("s[0]"), std::string::npos) << r.err;
    EXPECT_EQ(contents(f), before);
}

/* However few files may be open: the run is done, or nothing of it is there. */
TEST_F(Loads, ThatLackFilesLeaveNothing)
{
    write("{type: command, from: in, argv: [cat]}", kSink);
    const auto before = contents(f);
    int refused = 0;
    for (int files = 6; files < 64; files += 4) {
        const char *how = files % 8 < 4 ? "" : "--no-supervise";
        /* where no file may be opened, a sanitizer that needs one ends the process with a code of its own */
        const std::string call = "export UBSAN_OPTIONS=$UBSAN_OPTIONS:exitcode=99 ASAN_OPTIONS=$ASAN_OPTIONS:exitcode=99; cd '" +
                                 f.path() + "' && ulimit -n " + std::to_string(files) + " && '" STEPMILL_COMMAND "' run -q " + how +
                                 " p.yaml 2>/dev/null";
        const int code = WEXITSTATUS(system(("bash -c \"" + call + "\"").c_str()));
        refused += code == 1;
        if (code == 1 || code == 65) {
            EXPECT_EQ(contents(f), before) << files << " files " << how;
        }
        std::filesystem::remove_all(f.path() + "/runs");
        std::filesystem::remove_all(f.path() + "/far");
    }
    EXPECT_GT(refused, 0);
}

} // namespace
