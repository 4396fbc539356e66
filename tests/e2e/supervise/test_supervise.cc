/* The command, when the process that works for it crashes, hangs, is stopped or killed. */
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cmath>
#include <set>

#include "command.h"

namespace {

using mt::Command;
using mt::Folder;
using mt::Result;

std::string pipeline(const std::string &count, const std::string &work, const std::string &between = "",
                     const std::string &type = "e2e_work")
{
    return "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, " + count + "}\n" +
           (between.empty() ? "" : "  total: {type: e2e_total, from: count, " + between + "}\n") +
           "  work: {type: " + type + ", from: " + (between.empty() ? "count" : "total") + ", " + work +
           "}\n  out: {type: write_jsonl, from: work, path: out.jsonl}\n";
}

int times(const std::string &text, const std::string &part)
{
    int n = 0;
    for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) n++;
    return n;
}

int deaths(const Result &r) { return times(r.err, " was ended by "); }

/* All rows in order, those of @p nulled without a result. */
std::string rows(int64_t n, const std::set<int64_t> &nulled)
{
    std::string s;
    for (int64_t i = 0; i < n; i++)
        s += "{\"id\":" + std::to_string(i) + ",\"doubled\":" + (nulled.count(i) ? "null" : std::to_string(2 * i)) + "}\n";
    return s;
}

TEST(Supervise, ARowThatCrashesIsFoundAmongAHundredThousand)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 100000, batch_size: 64", "mode: crash, at: 54321, replicas: 8"));
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 3) << r.err;
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(100000, {54321})) << "exactly that row";
    const std::string errors = f.read("runs/t/errors.jsonl");
    EXPECT_EQ(times(errors, "\n"), 1) << errors;
    for (const char *part :
         {"\"step\":\"work\",\"replica\":", "\"phase\":\"process\",\"class\":\"device\"",
          "\"rows\":1,\"first_key\":\"count:54321\"", "this row, alone in the step, ends the process: signal 11 (SIGSEGV)"})
        EXPECT_NE(errors.find(part), std::string::npos) << part << " in " << errors;
    EXPECT_LE(deaths(r), 2 + (int)std::log2(64)) << "one in company, one alone, then halves: " << r.err;
    EXPECT_GE(deaths(r), 2);
}

/* Two bad rows of one batch, and one elsewhere; a neighbour whose results depend on how rows are cut is not disturbed. */
TEST(Supervise, OthersAndANeighbourThatMinds)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 100000, batch_size: 64", "mode: crash, at: 54320, more: [54330, 98765], replicas: 8",
                               "input_batch_size: 50"));
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 3) << r.err;
    std::string want;
    for (int64_t i = 0; i < 100000; i++) {
        const int64_t first = i / 50 * 50;
        want += "{\"id\":" + std::to_string(i) + ",\"total\":" + std::to_string(50 * first + 49 * 50 / 2) +
                ",\"doubled\":" + (i == 54320 || i == 54330 || i == 98765 ? "null" : std::to_string(2 * i)) + "}\n";
    }
    EXPECT_EQ(f.read("runs/t/out.jsonl"), want);
    EXPECT_EQ(times(f.read("runs/t/errors.jsonl"), "\n"), 3);
    EXPECT_LE(deaths(r), 3 * (2 + (int)std::ceil(std::log2(50)))) << r.err;
}

/* Restarts by the number of bad rows, the size of a batch and the kind of call: two deaths for a row (in company, alone) and one
 * for each halving. */
struct Many {
    const char *name, *type, *mode;
    int batch;
    std::set<int64_t> bad;
};
const Many kMany[] = {
    {"process_2_of_16", "e2e_work", "crash", 16, {403, 845}},
    {"process_4_of_8", "e2e_work", "crash", 8, {70, 71, 100, 845}},
    {"submit_1_of_64", "e2e_ask", "submit", 64, {845}},
    {"submit_4_of_4", "e2e_ask", "submit", 4, {68, 71, 100, 845}},
    {"poll_2_of_16", "e2e_ask", "poll", 16, {833, 836}},
    {"poll_4_of_4", "e2e_ask", "poll", 4, {68, 71, 100, 845}},
    {"thread_1_of_8", "e2e_ask", "thread", 8, {845}}, /* of the step's own, while no call is under way */
};
class Restarts : public testing::TestWithParam<Many> {};
TEST_P(Restarts, GrowWithTheLogarithmOfTheBatchOnly)
{
    const Many &m = GetParam();
    Folder f;
    std::string more;
    for (int64_t row : m.bad)
        if (row != *m.bad.begin()) more += (more.empty() ? "" : ", ") + std::to_string(row);
    f.write("t.yaml", pipeline("rows: 1000, batch_size: 64",
                               std::string("mode: ") + m.mode + ", at: " + std::to_string(*m.bad.begin()) + ", more: [" + more +
                                   "], replicas: 4, input_batch_size: " + std::to_string(m.batch),
                               "input_batch_size: 50", m.type));
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 3) << r.err;
    std::string want;
    for (int64_t i = 0; i < 1000; i++)
        want += "{\"id\":" + std::to_string(i) + ",\"total\":" + std::to_string(50 * (i / 50 * 50) + 49 * 50 / 2) +
                ",\"doubled\":" + (m.bad.count(i) ? "null" : std::to_string(2 * i)) + "}\n";
    EXPECT_EQ(f.read("runs/t/out.jsonl"), want) << "exactly those rows";
    const std::string errors = f.read("runs/t/errors.jsonl");
    EXPECT_EQ(times(errors, "\n"), (int)m.bad.size()) << errors;
    for (int64_t row : m.bad)
        EXPECT_NE(errors.find("\"rows\":1,\"first_key\":\"count:" + std::to_string(row) + "\""), std::string::npos) << errors;
    /* A sink that is synced at that moment makes one alone look as if it were not. A thread of the step's own ends the process some
     * time after the call that began it, so that whoever is in a call by then is looked at first. */
    const int rounds = std::string(m.mode) == "thread" ? 2 : 1,
              most = rounds * (int)m.bad.size() * (2 + (int)std::log2(m.batch)) + 3;
    printf("%s: %d deaths for %zu rows, at most %d\n", m.name, deaths(r), m.bad.size(), most);
    EXPECT_GE(deaths(r), (int)m.bad.size() + 1);
    EXPECT_LE(deaths(r), most) << r.err;
}
INSTANTIATE_TEST_SUITE_P(Table, Restarts, testing::ValuesIn(kMany), [](const auto &i) { return std::string(i.param.name); });

TEST(Supervise, APollThatNeverReturnsCostsItsRow)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 16, batch_size: 2", "mode: hang, at: 5, timeout: {batch: 0.2s}, replicas: 2", "", "e2e_ask"));
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 3) << r.err;
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(16, {5}));
    const std::string errors = f.read("runs/t/errors.jsonl");
    EXPECT_EQ(times(errors, "\n"), 1) << errors;
    EXPECT_NE(errors.find("this row, alone in the step, ends the process: a call that did not return by its deadline"),
              std::string::npos) << errors;
    EXPECT_LE(deaths(r), 2 + 1) << r.err;
}

/* While others are at work: it is the one that cancels that is suspected, not they. */
TEST(Supervise, ACrashInCancelCostsItsRow)
{
    Folder f;
    f.write("t.yaml",
            pipeline("rows: 400, batch_size: 2, pause: 1ms", "mode: cancel, at: 5, timeout: {batch: 0.2s}", "", "e2e_ask") +
                "  busy: {type: e2e_work, from: count, pause: 5ms, replicas: 2}\n  rest: {type: write_jsonl, from: busy, path: "
                "rest.jsonl}\n");
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 3) << r.err;
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(400, {5}));
    EXPECT_EQ(f.read("runs/t/rest.jsonl"), rows(400, {}));
    const std::string errors = f.read("runs/t/errors.jsonl");
    EXPECT_EQ(times(errors, "\n"), 1) << errors;
    EXPECT_NE(errors.find("this row, alone in the step, ends the process: signal 11 (SIGSEGV)"), std::string::npos) << errors;
    EXPECT_LE(deaths(r), 2 + 1) << r.err;
}

/* Called again after each death, without a restart of its own: what was learnt is in the run directory. */
TEST(Supervise, BlameOutlivesTheSupervisor)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 1000, batch_size: 16", "mode: crash, at: 700, replicas: 4"));
    int calls = 1;
    Result r = mt::run(f, {"run", "t.yaml", "--restarts", "0"});
    for (; r.code == 2 && calls < 20; calls++) r = mt::run(f, {"run", "t.yaml", "--restarts", "0"});
    EXPECT_EQ(r.code, 3) << r.err;
    EXPECT_LE(calls, 3 + 4);
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(1000, {700}));
    /* a step that was changed is not blamed for what it did before */
    r = mt::run(f, {"run", "t.yaml", "--set", "work.mode=fine"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(1000, {}));
    EXPECT_FALSE(f.has("runs/t/suspects"));
}

struct Ending {
    const char *name, *count, *work;
    int code;
    const char *says;
    int most; /* deaths that another process follows */
};
const Ending kEndings[] = {
    {"process_exits", "rows: 100, batch_size: 8", "mode: exit, at: 5, replicas: 2", 3,
     "work[0]: this row, alone in the step, ends the process: exit(0) from within", 5},
    {"device_lost", "rows: 100, batch_size: 8", "mode: lose, at: 5", 3,
     "work[0]: this row, alone in the step, ends the process: the device fell off the bus at row 5", 5},
    {"generator_crashes", "rows: 100, batch_size: 8, crash_at: 50", "mode: fine", 2,
     "count[0]: the process ended by signal 11 (SIGSEGV) in count[0], generate of rows count:48 to count:55", 2},
    {"load_crashes", "rows: 10", "mode: load_crash", 1, "work[0]: the process ended by signal 11 (SIGSEGV) in work[0], load", 0},
};
class SuperviseEnds : public testing::TestWithParam<Ending> {};
TEST_P(SuperviseEnds, AsItShould)
{
    Folder f;
    const Ending &e = GetParam();
    f.write("t.yaml", pipeline(e.count, e.work));
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, e.code) << r.err;
    EXPECT_NE(r.err.find(e.says), std::string::npos) << r.err;
    EXPECT_LE(deaths(r), e.most) << r.err;
    if (e.code == 3) {
        EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(100, {5}));
    } else if (e.code == 1) { /* it had not begun */
        EXPECT_EQ(f.list(), std::vector<std::string>{"t.yaml"});
    } else { /* what ended the run stands beside what rows failed of */
        const std::string errors = f.read("runs/t/errors.jsonl"),
                          step = std::string(e.says).substr(0, std::string(e.says).find('['));
        EXPECT_EQ(times(errors, "\n"), 1) << errors;
        for (const std::string &part : {"\"step\":\"" + step + "\",\"replica\":0", std::string("\"phase\":\"process\""),
                                        std::string("\"message\":\"the process ended by signal 11 (SIGSEGV) in ")})
            EXPECT_NE(errors.find(part), std::string::npos) << part << " in " << errors;
        EXPECT_NE(mt::run(f, {"errors", "runs/t"}).out.find("the process ended by signal 11"), std::string::npos);
    }
}
INSTANTIATE_TEST_SUITE_P(Table, SuperviseEnds, testing::ValuesIn(kEndings),
                         [](const auto &i) { return std::string(i.param.name); });

TEST(Supervise, WithoutItACrashIsACrash)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 10", "mode: crash, at: 5"));
    const Result r = mt::run(f, {"run", "t.yaml", "--no-supervise"});
    EXPECT_NE(r.code, 3) << r.err;
    EXPECT_EQ(deaths(r), 0);
    const Result dry = mt::run(f, {"run", "t.yaml", "--dry-run"});
    EXPECT_EQ(dry.code, 2) << dry.err;
    EXPECT_NE(dry.err.find("in work[0], process of rows count:0 to count:9"), std::string::npos) << dry.err;
    const Result json = mt::run(f, {"run", "t.yaml", "--json", "--restarts", "0"});
    EXPECT_EQ(json.code, 2) << json.err;
    EXPECT_EQ(json.out.find("{\"state\":\"failed\",\"exit_code\":2,\"error\":\"the process ended by "), 0u) << json.out;
}

/* A call that the run can do without, but not without a row of it: it counts as failed, and all that does not hang on it goes on to
 * its end. */
struct Barred {
    const char *name, *branch; /* steps beside count -> work -> out, behind count */
    int code;
    const char *says;
    int most; /* deaths */
    const char *mends; /* --set, so that the next run has no failure */
};
const Barred kBarred[] = {
    {"accept", "  other: {type: e2e_gather, from: count, in: accept, at: 50}\n  rest: {type: e2e_put, from: other}\n", 2,
     "other[0]: the process ended by signal 11 (SIGSEGV) in other[0], accept of rows count:48 to count:55", 2, "other.in=none"},
    {"finish", "  other: {type: e2e_gather, from: count, in: finish}\n  rest: {type: e2e_put, from: other}\n", 2,
     "other[0]: the process ended by signal 11 (SIGSEGV) in other[0], finish", 2, "other.in=none"},
    {"finish_hangs",
     "  other: {type: e2e_gather, from: count, in: finish, hang: true, timeout: {batch: 0.3s}}\n  rest: {type: e2e_put, from: "
     "other}\n",
     2, "other[0]: the process ended by a call that did not return by its deadline in other[0], finish", 1, "other.in=none"},
    {"write", "  rest: {type: e2e_put, from: count, in: write, at: 50}\n", 2,
     "rest[0]: the process ended by signal 11 (SIGSEGV) in rest[0], write of rows count:48 to count:55", 2, "rest.in=none"},
    {"sync",
     "  slow: {type: e2e_count, rows: 100, batch_size: 8, pause: 100ms}\n"
     "  rest: {type: e2e_put, from: slow, in: sync}\ncommit_interval: 0.05s\n",
     2,
     "rest[0]: the process ended by signal 11 (SIGSEGV) in rest[0], sync", 2, "rest.in=none"},
    {"sync_hangs",
     "  slow: {type: e2e_count, rows: 100, batch_size: 8, pause: 100ms}\n"
     "  rest: {type: e2e_put, from: slow, in: sync, hang: true, timeout: {batch: 0.3s}}\ncommit_interval: 0.05s\n",
     2,
     "rest[0]: the process ended by a call that did not return by its deadline in rest[0], sync", 1, "rest.in=none"},
    {"finalize", "  rest: {type: e2e_put, from: count, in: finalize}\n", 2,
     "rest[0]: the process ended by signal 11 (SIGSEGV) in rest[0], finalize", 2, "rest.in=none"},
    {"generate", "  two: {type: e2e_count, rows: 100, batch_size: 8, crash_at: 50}\n  rest: {type: e2e_put, from: two}\n", 2,
     "two[0]: the process ended by signal 11 (SIGSEGV) in two[0], generate of rows two:48 to two:55", 2, "two.crash_at=-1"},
    {"route",
     "  deal: {type: e2e_deal, from: count, in: route, at: 50, to: {a: one, b: two}}\n"
     "  one: {type: e2e_work, from: deal}\n  two: {type: e2e_work, from: deal}\n"
     "  ones: {type: write_jsonl, from: one, path: ones.jsonl}\n  twos: {type: write_jsonl, from: two, path: twos.jsonl}\n",
     3,
     "deal[0]: the process ended by signal 11 (SIGSEGV) in deal[0], route of rows count:48 to count:55", 2, "deal.in=none"},
    /* While the run goes on. */
    {"unload",
     "  other: {type: e2e_work, from: count, mode: unload_crash, at: 1, replicas: 2}\n  rest: {type: e2e_put, from: other}\n"
     "  slow: {type: e2e_count, rows: 100, batch_size: 8, pause: 20ms}\n  late: {type: e2e_put, from: slow}\n",
     0,
     "the process ended by signal 11 (SIGSEGV) in other[1], unload; it is not unloaded", 2, "other.mode=fine"},
};
class SuperviseGoesOn : public testing::TestWithParam<Barred> {};
TEST_P(SuperviseGoesOn, WithoutACallThatEndsTheProcess)
{
    Folder f;
    const Barred &b = GetParam();
    f.write("t.yaml", pipeline("rows: 100, batch_size: 8", "replicas: 2, mode: fine") + b.branch);
    Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, b.code) << r.err;
    EXPECT_NE(r.err.find(b.says), std::string::npos) << r.err;
    EXPECT_LE(deaths(r), b.most) << r.err;
    EXPECT_GE(deaths(r), 1) << r.err;
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(100, {})) << "what does not hang on it is whole";
    const std::string errors = f.read("runs/t/errors.jsonl");
    EXPECT_EQ(times(errors, "\n"), b.code == 0 ? 0 : 1) << errors;
    EXPECT_EQ(times(errors, "the process ended by "), b.code == 0 ? 0 : 1) << errors;
    if (b.code == 3) { /* a router's rows that no branch was chosen for go to the first one, marked */
        EXPECT_EQ(times(f.read("runs/t/ones.jsonl"), "\n"), 8);
        EXPECT_EQ(times(f.read("runs/t/twos.jsonl"), "\n"), 92);
        EXPECT_NE(errors.find("\"rows\":8,\"first_key\":\"count:48\",\"last_key\":\"count:55\""), std::string::npos) << errors;
    }
    EXPECT_EQ(f.has("runs/t/suspects"), b.code == 3) << "the next run tries again what is not a matter of rows";
    r = mt::run(f, {"run", "t.yaml", "--set", b.mends});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(deaths(r), 0) << r.err;
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(100, {}));
    EXPECT_EQ(f.read("runs/t/errors.jsonl"), "");
}
INSTANTIATE_TEST_SUITE_P(Table, SuperviseGoesOn, testing::ValuesIn(kBarred),
                         [](const auto &i) { return std::string(i.param.name); });

/* Until rows flow and some are committed. */
void until_rows(const Folder &f)
{
    for (int i = 0; i < 20000 && f.read("runs/t/.out.jsonl.tmp").empty() && !f.has("runs/t/journal.1"); i++) usleep(1000);
    usleep(150000);
}

/* Until rows are committed, however slow the machine is: a commit of nothing new adds nothing to the journal. */
void until_commit(const Folder &f)
{
    size_t begun = 0;
    for (int i = 0; i < 20000 && begun == 0; i++, usleep(1000)) begun = f.read("runs/t/journal.1").size();
    for (int i = 0; i < 20000 && f.read("runs/t/journal.1").size() <= begun; i++) usleep(1000);
}

/* What cannot be done without ends the attempt, by name; what had been committed before stays, and the next one that can goes on
 * with it. */
struct Hurdle {
    const char *name, *set; /* of an attempt in between */
    int code;
    const char *says;
};
const Hurdle kHurdles[] = {
    {"load_crashes", "work.mode=load_crash", 1, "work[0]: the process ended by signal 11 (SIGSEGV) in work[0], load"},
    {"load_fails", "work.mode=load_fail", 1, "work[0]: there is no model"},
    {"load_hangs", "work.mode=load_hang", 1, "work[0]: load has not returned"},
    {"unload_hangs", "work.mode=unload_hang", 2, "work[0]: unload has not returned"},
};
class SuperviseIsTakenUp : public testing::TestWithParam<Hurdle> {};
TEST_P(SuperviseIsTakenUp, AfterAnAttemptThatDidNotGetThrough)
{
    Folder f;
    const Hurdle &h = GetParam();
    /* `first` costs what nobody wants to pay twice; `work`, behind what is kept of it, is what is tried in between */
    f.write("t.yaml", "stepmill: 1\nname: t\ncommit_interval: 0.02s\nplugins: [" E2E_PLUGIN
                      "]\nsteps:\n  count: {type: e2e_count, rows: 200, batch_size: 4, pause: 10ms}\n"
                      "  first: {type: e2e_work, from: count, outputs: {doubled: twice}, cache: true}\n"
                      "  work: {type: e2e_work, from: first, timeout: {load: 0.5s, unload: 0.5s}}\n  out: {type: write_jsonl, "
                      "from: work, path: out.jsonl}\n");
    Command c(f, {"run", "t.yaml"});
    until_commit(f);
    c.signal(SIGTERM);
    ASSERT_EQ(c.wait(30), 75) << c.err();
    Result r = mt::run(f, {"run", "t.yaml", "--set", h.set});
    EXPECT_EQ(r.code, h.code) << r.err;
    EXPECT_NE(r.err.find(h.says), std::string::npos) << r.err;
    EXPECT_LT(r.seconds, 20);
    r = mt::run(f, {"run", "t.yaml", "--json"});
    EXPECT_EQ(r.code, 0) << r.err;
    std::string want;
    for (int i = 0; i < 200; i++)
        want += "{\"id\":" + std::to_string(i) + ",\"twice\":" + std::to_string(2 * i) + ",\"doubled\":" + std::to_string(2 * i) +
                "}\n";
    EXPECT_EQ(f.read("runs/t/out.jsonl"), want);
    EXPECT_EQ(f.read("runs/t/errors.jsonl"), "");
    EXPECT_EQ(r.out.find("\"rows_in\":200,"), std::string::npos) << "what was committed is not done again: " << r.out;
}
INSTANTIATE_TEST_SUITE_P(Table, SuperviseIsTakenUp, testing::ValuesIn(kHurdles),
                         [](const auto &i) { return std::string(i.param.name); });

/* A process that nobody has waited for yet is gone, too. */
bool is_gone(pid_t pid)
{
    char state = 'X';
    if (FILE *f = fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "re")) {
        if (fscanf(f, "%*d %*s %c", &state) != 1) state = 'X';
        fclose(f);
    }
    return state == 'X' || state == 'Z';
}

bool goes(pid_t pid)
{
    for (int i = 0; i < 10000 && !is_gone(pid); i++) usleep(1000);
    return is_gone(pid);
}

/* ---- kills ----------------------------------------------------------------------------------------------------------- */

const char kSlow[] = "rows: 400, batch_size: 4, pause: 5ms";

TEST(SuperviseKills, AWorkerThatIsKilledBlamesNobody)
{
    Folder f;
    f.write("t.yaml", pipeline(kSlow, "replicas: 2"));
    Command c(f, {"run", "t.yaml"});
    until_rows(f);
    ASSERT_GT(c.worker(), 0);
    kill(c.worker(), SIGKILL);
    EXPECT_EQ(c.wait(60), 0) << c.err();
    EXPECT_NE(c.err().find("was ended by signal 9 (SIGKILL)"), std::string::npos) << c.err();
    EXPECT_NE(c.err().find("(nobody is blamed)"), std::string::npos) << c.err();
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(400, {}));
}

TEST(SuperviseKills, ASupervisorThatIsKilledTakesItsWorkerAlong)
{
    Folder f;
    f.write("t.yaml", pipeline(kSlow, "replicas: 2"));
    Command c(f, {"run", "t.yaml"});
    until_rows(f);
    const pid_t worker = c.worker();
    ASSERT_GT(worker, 0);
    c.signal(SIGKILL);
    EXPECT_EQ(c.wait(60), 1000 + SIGKILL);
    EXPECT_TRUE(goes(worker)) << "the worker lives on";
    const Result r = mt::run(f, {"run", "t.yaml"});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(400, {}));
}

TEST(SuperviseKills, LackOfMemoryThatEndsARunIsWrittenDown)
{
    Folder f;
    const std::string events = f.write("memory.events", "low 0\noom_kill 0\n");
    f.write("t.yaml", pipeline(kSlow, "replicas: 2"));
    setenv("STEPMILL_MEMORY_EVENTS", events.c_str(), 1);
    Command c(f, {"run", "t.yaml", "--restarts", "0"});
    unsetenv("STEPMILL_MEMORY_EVENTS");
    until_rows(f);
    ASSERT_GT(c.worker(), 0);
    f.write("memory.events", "low 0\noom_kill 1\n");
    kill(c.worker(), SIGKILL);
    EXPECT_EQ(c.wait(60), 2) << c.err();
    EXPECT_NE(f.read("runs/t/errors.jsonl").find("\"message\":\"the process ended by the out-of-memory killer"),
              std::string::npos) << f.read("runs/t/errors.jsonl");
    EXPECT_EQ(mt::run(f, {"resume", "runs/t"}).code, 0);
    EXPECT_EQ(f.read("runs/t/errors.jsonl"), "") << "the run went on after all";
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(400, {}));
}

TEST(SuperviseKills, LackOfMemoryHalvesWhatIsInFlight)
{
    Folder f;
    const std::string events = f.write("memory.events", "low 0\noom_kill 0\n");
    f.write("t.yaml", pipeline(kSlow, "replicas: 2"));
    setenv("STEPMILL_MEMORY_EVENTS", events.c_str(), 1);
    Command c(f, {"run", "t.yaml"});
    unsetenv("STEPMILL_MEMORY_EVENTS");
    until_rows(f);
    ASSERT_GT(c.worker(), 0);
    f.write("memory.events", "low 0\noom_kill 1\n");
    kill(c.worker(), SIGKILL);
    EXPECT_EQ(c.wait(60), 0) << c.err();
    EXPECT_NE(c.err().find("was ended by the out-of-memory killer"), std::string::npos) << c.err();
    EXPECT_NE(c.err().find("(half of it in flight)"), std::string::npos) << c.err();
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(400, {}));
}

/* ---- signals ----------------------------------------------------------------------------------------------------------- */

TEST(SuperviseSignals, NoneIsLostInTheFirstMilliseconds)
{
    for (int i = 0; i < 20; i++) {
        Folder f;
        f.write("t.yaml", pipeline("rows: 100000000, batch_size: 64, pause: 1ms", "mode: fine"));
        Command c(f, {"run", "t.yaml"});
        usleep((useconds_t)(i * 250));
        const int sig = i % 2 ? SIGTERM : SIGINT;
        c.signal(sig);
        const int code = c.wait(30);
        EXPECT_TRUE(code == 75 || code == 1000 + sig)
            << code << " after " << i * 250 << " us: " << c.err(); /* the latter: before its first line of code */
    }
}

/* The worker cannot answer: whoever supervises ends it, in time. */
TEST(SuperviseSignals, AStoppedWorkerDoesNotHoldUpTheEnd)
{
    Folder f;
    f.write("t.yaml", pipeline("rows: 100000000, batch_size: 64, pause: 1ms", "mode: fine"));
    Command c(f, {"run", "t.yaml"});
    until_rows(f);
    const pid_t worker = c.worker();
    ASSERT_GT(worker, 0);
    kill(worker, SIGSTOP);
    c.signal(SIGINT);
    usleep(100000);
    EXPECT_FALSE(c.ended(0));
    c.signal(SIGINT);
    EXPECT_TRUE(c.ended(5)) << "1 s and some slack for a busy machine";
    EXPECT_EQ(c.wait(30), 75) << c.err();
    EXPECT_NE(c.err().find("did not end in time"), std::string::npos) << c.err();
    EXPECT_TRUE(goes(worker)) << "the worker lives on";
}

/* As it is called by default: 10 s until it is looked at, 10 more until it is ended. In the slow tier. */
TEST(SuperviseSlow, AStoppedWorkerIsNamedEndedAndFollowedByAnother)
{
    Folder f;
    f.write("t.yaml", pipeline(kSlow, "replicas: 2"));
    Command c(f, {"run", "t.yaml"});
    until_rows(f);
    const pid_t worker = c.worker();
    ASSERT_GT(worker, 0);
    kill(worker, SIGSTOP);
    EXPECT_EQ(c.wait(90), 0) << c.err();
    EXPECT_GT(c.seconds(), 20);
    EXPECT_LT(c.seconds(), 40);
    EXPECT_NE(c.err().find("process " + std::to_string(worker) + " has not moved for 10"), std::string::npos) << c.err();
    EXPECT_NE(c.err().find("(it was stopped by a signal or a debugger); at work: "), std::string::npos) << c.err();
    EXPECT_NE(c.err().find("was ended by us, since it did not move for 20 s"), std::string::npos) << c.err();
    EXPECT_TRUE(goes(worker)) << "the worker lives on";
    EXPECT_EQ(f.read("runs/t/out.jsonl"), rows(400, {}));
}

} // namespace
