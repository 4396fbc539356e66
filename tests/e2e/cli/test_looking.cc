/* Verbs that look at a run: what they say of what is not there, and of a process that only seems to be. */
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <regex>

#include "command.h"

namespace {

using mt::Command;
using mt::Folder;
using mt::Result;

std::string pipeline(const std::string &count)
{
    return "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, " + count +
           "}\n  work: {type: e2e_work, from: count, replicas: 2}\n  out: {type: write_jsonl, from: work, path: out.jsonl}\n";
}

TEST(Looking, AtWhatIsNoRun)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 4"));
    ASSERT_EQ(mt::run(f, {"run", "-q", "t.yaml"}).code, 0);
    const struct { const char *dir, *says; } places[] = {
        {"nowhere", "error: nowhere is not a run directory: No such file or directory\n"},
        {"t.yaml", "error: t.yaml is not a run directory: it is a file\n"},
        {"runs", "error: runs is not a run directory: it has no progress.json. There are run directories in it: t\n"},
    };
    for (const auto &k : places)
        for (const char *verb : {"status", "logs", "errors", "report"}) {
            const Result r = mt::run(f, {verb, k.dir});
            EXPECT_EQ(r.code, 64) << verb;
            EXPECT_EQ(r.err, k.says) << verb;
            EXPECT_EQ(r.out, "") << verb;
        }
}

TEST(Looking, AtStepsAndReplicasThatAreNot)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 4"));
    ASSERT_EQ(mt::run(f, {"run", "-q", "t.yaml"}).code, 0);
    const struct { std::vector<std::string> args; const char *says; } calls[] = {
        {{"logs", "runs/t", "wrok"}, "stepmill: the run in runs/t has no step 'wrok'; did you mean 'work'?\n"},
        {{"logs", "runs/t", "something"}, "stepmill: the run in runs/t has no step 'something'\n"},
        {{"logs", "runs/t", "work[2]"}, "stepmill: there is no work[2]: work has 2 replicas, counted from 0\n"},
        {{"logs", "runs/t", "work[x]"}, "stepmill: expected STEP or STEP[REPLICA], as in 'embed[0]', got 'work[x]'\n"},
        {{"logs", "runs/t", "work[1"}, "stepmill: expected STEP or STEP[REPLICA], as in 'embed[0]', got 'work[1'\n"},
        {{"errors", "runs/t", "--step", "wrok"}, "stepmill: --step: the run in runs/t has no step 'wrok'; did you mean 'work'?\n"},
    };
    for (const auto &k : calls) {
        const Result r = mt::run(f, k.args);
        EXPECT_EQ(r.code, 64);
        EXPECT_EQ(r.err, k.says);
    }
    EXPECT_EQ(mt::run(f, {"logs", "runs/t", "work[1]"}).code, 0);
}

/* A list of failures says what helps, where the step knew it. */
TEST(Looking, AtErrorsWithTheirRemedy)
{
    Folder f;
    f.write("in.jsonl", "{\"w\":\"a\"}\n{\"w\":\"b\"}\n");
    f.write("t.yaml",
            "stepmill: 1\nname: t\nsteps:\n  in: {type: read_jsonl, path: in.jsonl, columns: {w: utf8}}\n"
            "  way: {type: route_by, from: in, column: w, to: {a: one, b: two}}\n"
            "  one: {type: write_jsonl, from: way, path: one.jsonl}\n  two: {type: write_jsonl, from: way, path: two.jsonl}\n");
    EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml"}).code, 3);
    EXPECT_NE(mt::run(f, {"errors", "runs/t"}).out.find(". Set input_batch_size: 1, or mixed: most\n"), std::string::npos);
}

/* ... and where a line of input is that could not be read. */
TEST(Looking, AtErrorsOfInputs)
{
    Folder f;
    f.write("in.jsonl", "{\"w\":\"a\"}\nnonsense\n{\"w\": 7}\n");
    f.write("t.yaml", "stepmill: 1\nname: t\nsteps:\n  in: {type: read_jsonl, path: in.jsonl, columns: {w: utf8}}\n"
                      "  out: {type: write_jsonl, from: in, path: out.jsonl}\n");
    EXPECT_EQ(mt::run(f, {"run", "-q", "t.yaml"}).code, 3);
    const std::string said = mt::run(f, {"errors", "runs/t"}).out;
    EXPECT_NE(said.find("in.jsonl:2:1: expected an object of JSON\n"), std::string::npos) << said;
    EXPECT_NE(said.find("in.jsonl:3:7: column w: expected utf8, found 7\n"), std::string::npos) << said;
}

/* A reader that has read what it wanted has nothing to be told; a full disk has. */
TEST(Looking, AtTheBeginningOnly)
{
    Folder f;
    /* the reader has gone when the command begins */
    f.write("pipe.sh",
            "mkfifo p; { exec 3< p; } & exec 4> p; wait $!; '" STEPMILL_COMMAND "' schema >&4 2> said; echo $? > code\n");
    EXPECT_EQ(system(("cd '" + f.path() + "' && sh pipe.sh").c_str()), 0);
    EXPECT_EQ(f.read("said"), "");
    EXPECT_EQ(f.read("code"), "0\n");
    EXPECT_NE(system("'" STEPMILL_COMMAND "' schema 2> /dev/null > /dev/full"), 0);
}

/* Who follows a log ends with whoever reads it, also while nothing is said. */
TEST(Looking, AsLongAsSomebodyReads)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 1000000, batch_size: 1, pause: 20ms"));
    Command c(f, {"run", "-q", "t.yaml"});
    for (int i = 0; i < 20000 && f.read("runs/t/log.jsonl").find('\n') == std::string::npos; i++) usleep(1000);
    EXPECT_EQ(system(("cd '" + f.path() +
                      "' && { timeout 30 '" STEPMILL_COMMAND "' logs runs/t -f; echo $? > code; } | head -1 > /dev/null")
                         .c_str()),
              0);
    EXPECT_EQ(f.read("code"), "0\n");
    /* and is shown how it is at once, where there is no terminal, too */
    EXPECT_EQ(system(("cd '" + f.path() +
                      "' && { '" STEPMILL_COMMAND
                      "' status runs/t -f 2> first & p=$!; for i in $(seq 160); do [ -s first ] && break; sleep 0.05; done; "
                      "kill $p; test -s first; }")
                         .c_str()),
              0);
    c.signal(SIGTERM);
    EXPECT_EQ(c.wait(30), 75);
}

/* What only a module needs is missed by the doctor, not by the first run that needs it. */
TEST(Looking, AtModulesThatCannotBeOpened)
{
    Folder f;
    f.write("libstepmill-parquet.so", "no library");
    f.write("libstepmill-http.so", "no library");
    setenv("STEPMILL_MODULES", f.path().c_str(), 1); /* looked into first */
    const Result r = mt::run(f, {"doctor"});
    unsetenv("STEPMILL_MODULES");
    EXPECT_EQ(r.code, 0) << r.out;
    for (const char *what : {"warning  parquet ", "warning  servers ", "/libstepmill-parquet.so", "/libstepmill-http.so"})
        EXPECT_NE(r.out.find(what), std::string::npos) << what << " in " << r.out;
}

/* Who has ended, but was not waited for by a parent that waits for nobody, works on nothing. */
TEST(Looking, AtAProcessThatHasEnded)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 1000000, batch_size: 1, pause: 20ms"));
    Command c(f, {"run", "-q", "t.yaml"});
    for (int i = 0; i < 20000 && (!f.has("runs/t/progress.json") ||
                                  f.read("runs/t/progress.json").find("\"state\":\"running\"") == std::string::npos);
         i++)
        usleep(1000);
    EXPECT_NE(mt::run(f, {"status", "runs/t"}).out.find("t: running, process "), std::string::npos);
    c.signal(SIGKILL);
    c.wait();
    usleep(100000); /* the worker goes with it, and may have been about to write its numbers */
    const pid_t ended = fork();
    if (ended == 0) _exit(0);
    siginfo_t i;
    ASSERT_EQ(waitid(P_PID, (id_t)ended, &i, WEXITED | WNOWAIT), 0);
    f.write("runs/t/progress.json",
            std::regex_replace(f.read("runs/t/progress.json"), std::regex("\"pid\":[0-9]+"), "\"pid\":" + std::to_string(ended)));
    const Result r = mt::run(f, {"status", "runs/t"});
    waitpid(ended, nullptr, 0);
    EXPECT_EQ(r.out.find("t: nobody works on it; process " + std::to_string(ended)), 0u) << r.out;
}

/* A store in front of each sink: what they are together is found before anything runs, and what it says helps. */
TEST(Check, FindsMoreStoresThanARunCanHave)
{
    Folder f;
    f.write("in.jsonl", "{\"a\":1}\n");
    for (const int sinks : {63, 64}) {
        std::string text = "steps:\n  src: {type: read_jsonl, path: in.jsonl, columns: {a: int64}}\n";
        for (int i = 0; i < sinks; i++) {
            const std::string n = std::to_string(i);
            text += "  t" + n + ": {type: template, from: src, template: x" + n + "}\n";
            text += "  o" + n + ": {type: write_jsonl, from: t" + n + ", path: o" + n + ".jsonl}\n";
        }
        f.write("kept.yaml", "stepmill: 1\n" + text);
        f.write("loose.yaml", "stepmill: 1\nkeep_sink_rows: false\n" + text);
        EXPECT_EQ(mt::run(f, {"check", "loose.yaml"}).code, 0);
        const Result r = mt::run(f, {"check", "kept.yaml"});
        EXPECT_EQ(r.code, sinks == 63 ? 0 : 65) << r.err;
        if (sinks == 64) {
            EXPECT_NE(r.err.find("65 places, 64 of them stores"), std::string::npos) << r.err;
            EXPECT_NE(r.err.find("keep_sink_rows: false"), std::string::npos) << r.err;
        }
    }
}

} // namespace
