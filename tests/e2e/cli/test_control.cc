/* Ending in time, and going on: --time-left, the end of a Slurm job, resume. */
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "command.h"

extern "C" {
#include "time_limit.h"
}

namespace {

using mt::Command;
using mt::Folder;
using mt::Result;

/* 50 batches of 10 rows, 2.5 s. */
std::string pipeline(const std::string &count = "pause: 0.05s", const std::string &out = "")
{
    return "stepmill: 1\nname: t\ncommit_interval: 0.05s\nplugins: [" E2E_PLUGIN
           "]\nsteps:\n  count: {type: e2e_count, rows: 500, batch_size: 10, " +
           count + "}\n  work: {type: e2e_work, from: count}\n  out: {type: write_jsonl, from: work, path: out.jsonl" + out + "}\n";
}

std::string rows(int64_t n)
{
    std::string s;
    for (int64_t i = 0; i < n; i++) s += "{\"id\":" + std::to_string(i) + ",\"doubled\":" + std::to_string(2 * i) + "}\n";
    return s;
}

/* A variable of the environment for the commands of one test. */
struct Env {
    const char *name;
    Env(const char *n, const std::string &value) : name(n) { setenv(n, value.c_str(), 1); }
    ~Env() { unsetenv(name); }
};

void says(const Result &r, const std::string &part) { EXPECT_NE(r.err.find(part), std::string::npos) << part << " in " << r.err; }

/* ---- the division of the time left ----------------------------------------------------------------------------------- */

TEST(TimeLimit, ALongTimeKeepsTheDrainAndHalfAMinute)
{
    const time_limit t = time_limit_divide(7200, 60);
    EXPECT_DOUBLE_EQ(t.reserve, 30);
    EXPECT_DOUBLE_EQ(t.margin, 94) << "60 to drain, 4 to stop, 30 for who called";
    EXPECT_DOUBLE_EQ(t.ask, 7106);
    EXPECT_DOUBLE_EQ(t.gone, 7170);
    EXPECT_DOUBLE_EQ(time_limit_divide(7200, 600).margin, 634);
}

TEST(TimeLimit, OfAShortTimeThreeQuartersAreForWork)
{
    for (double left : {0.1, 2.0, 60.0, 120.0, 300.0}) {
        const time_limit t = time_limit_divide(left, 60);
        EXPECT_GE(t.ask, left * 0.75 - 1e-9) << left;
        EXPECT_LT(t.ask, t.gone) << left;
        EXPECT_LT(t.gone, left) << left;
    }
}

TEST(TimeLimit, WhatTheEnvironmentSaysOfAJob)
{
    const char *why = nullptr;
    EXPECT_DOUBLE_EQ(time_limit_of_job(nullptr, 1000, &why), 0);
    EXPECT_DOUBLE_EQ(time_limit_of_job("", 1000, &why), 0);
    EXPECT_DOUBLE_EQ(time_limit_of_job("1600", 1000.5, &why), 599.5);
    for (const char *no : {"999", "1000", "x", "12x", "-5", "inf", "nan", "1e99"}) {
        EXPECT_LT(time_limit_of_job(no, 1000.5, &why), 0) << no;
        ASSERT_NE(why, nullptr);
    }
}

/* ---- ending in time ---------------------------------------------------------------------------------------------------- */

TEST(TimeLeft, EndsInTimeAndIsResumedToTheSameBytes)
{
    Folder f;
    f.write("t.yaml", pipeline());
    const Result r = mt::run(f, {"run", "t.yaml", "--time-left", "2s"});
    EXPECT_EQ(r.code, 75) << r.err;
    says(r, "2 s are left (--time-left)");
    says(r, "the time is nearly over");
    /* On a busy machine its process may have been killed at the deadline, and it has not written how it ended. */
    if (r.err.find("what was not written is lost") == std::string::npos) {
        EXPECT_NE(f.read("runs/t/progress.json").find("\"state\":\"stopped\""), std::string::npos);
    }
    const Result again = mt::run(f, {"resume", "runs/t"});
    EXPECT_EQ(again.code, 0) << again.err;
    /* on a busy machine it may have just begun */
    if (r.err.find(" 0 rows out") == std::string::npos) says(again, "going on where the last run stopped");
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(500));
}

TEST(TimeLeft, OfAJobComesFromItsEnvironment)
{
    Folder f;
    f.write("t.yaml", pipeline("pause: 0.2s"));
    {
        Env end("SLURM_JOB_END_TIME", std::to_string(time(nullptr) + 2));
        const Result r = mt::run(f, {"run", "t.yaml"});
        EXPECT_EQ(r.code, 75) << r.err;
        says(r, "(SLURM_JOB_END_TIME)");
    }
    f.write("t.yaml", pipeline("pause: 0s"));
    for (const char *end : {"17", "soon"}) { /* of a job that was given more time */
        Env stale("SLURM_JOB_END_TIME", end);
        const Result r = mt::run(f, {"run", "t.yaml", "--fresh"});
        EXPECT_EQ(r.code, 0) << r.err;
        says(r, "SLURM_JOB_END_TIME=" + std::string(end) + " is not used");
    }
    Env soon("SLURM_JOB_END_TIME", std::to_string(time(nullptr) + 2));
    EXPECT_EQ(mt::run(f, {"run", "t.yaml", "--fresh", "--time-left", "none"}).err.find("are left"), std::string::npos);
}

/* The drain is given what there is of its time: a step that does not come back does not take the job's last second. */
TEST(TimeLeft, AStepThatNeverReturnsIsLeft)
{
    for (const char *more : {"--quiet", "--no-supervise"}) {
        Folder f;
        f.write("t.yaml", "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, rows: 400}\n"
                          "  work: {type: e2e_work, from: count, mode: hang, at: 200}\n  out: {type: write_jsonl, from: work, "
                          "path: out.jsonl}\n");
        Command c(f, {"run", "t.yaml", "--time-left", "2s", more});
        EXPECT_EQ(c.wait(30), 75) << c.err();
        EXPECT_LT(c.seconds(), 20);
    }
}

/* ---- going on ---------------------------------------------------------------------------------------------------------- */

TEST(Resume, InsideTheRunDirectoryWithWhatWasSet)
{
    Folder f;
    f.write("t.yaml", pipeline());
    EXPECT_EQ(mt::run(f, {"run", "t.yaml", "--time-left", "1.5s", "--limit", "333", "--set", "out.path=other.jsonl"}).code, 75);
    Command c(f, {"resume", "runs/t", "--quiet"});
    usleep(300000);
    c.signal(SIGINT);
    EXPECT_EQ(c.wait(), 75) << c.err();
    const std::string dir = f.path() + "/runs/t";
    EXPECT_EQ(system(("cd '" + dir + "' && '" STEPMILL_COMMAND "' resume --quiet").c_str()), 0);
    EXPECT_EQ(f.read("runs/t/other.jsonl"), rows(333));
    EXPECT_FALSE(f.has("runs/t/out.jsonl"));
    const Result done = mt::run(f, {"resume", "runs/t", "--json"});
    EXPECT_EQ(done.code, 0);
    says(done, "is complete: nothing is left to do");
    EXPECT_NE(done.out.find("\"state\":\"done\",\"exit_code\":0"), std::string::npos) << done.out;
}

TEST(Resume, SaysWhyItCannot)
{
    Folder f;
    Result r = mt::run(f, {"resume"});
    EXPECT_EQ(r.code, 64);
    says(r, "is not a run directory: it has no progress.json");
    says(mt::run(f, {"resume", "no/such"}), "cannot open no/such");
    f.write("t.yaml", pipeline());
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--time-left", "1.5s", "--quiet"}).code, 75);
    ASSERT_EQ(rename((f.path() + "/t.yaml").c_str(), (f.path() + "/u.yaml").c_str()), 0);
    r = mt::run(f, {"resume", "runs/t"});
    EXPECT_EQ(r.code, 65) << r.err;
    says(r, "t.yaml: cannot open the pipeline file");
    says(r, "stepmill run FILE --run");
    const struct {
        std::string text;
        const char *what;
    } changes[] = {{pipeline("pause: 0.05s", ", omit_nulls: true"), "step out: omit_nulls was false, is true"},
                   {pipeline("pause: 0.05s, fail_at: 499"), "step count: fail_at was -1, is 499"},
                   {pipeline("batch_size: 20"), "twice"}, /* not a pipeline at all */
                   {pipeline() + "  more: {type: write_jsonl, from: work, path: more.jsonl}\n", "how steps are connected"}};
    for (const auto &c : changes) {
        f.write("t.yaml", c.text);
        r = mt::run(f, {"resume", "runs/t"});
        EXPECT_EQ(r.code, 65) << r.err;
        says(r, c.what);
    }
    f.write("t.yaml", pipeline()); /* nothing of that began anything over */
    r = mt::run(f, {"resume", "runs/t"});
    EXPECT_EQ(r.code, 0) << r.err;
    says(r, "going on where the last run stopped");
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(500));
}

/* What runs each time by its own wish is no change. */
TEST(Resume, CacheFalseIsNoChange)
{
    Folder f;
    f.write("t.yaml", pipeline("pause: 0.05s, cache: false"));
    ASSERT_EQ(mt::run(f, {"run", "t.yaml", "--time-left", "1.5s", "--quiet"}).code, 75);
    EXPECT_EQ(mt::run(f, {"resume", "runs/t", "--quiet"}).code, 0);
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(500));
}

} // namespace
