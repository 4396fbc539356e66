/* `command`: processes that do what they should, and all that they should not. Every case ends in bounded time. */
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "steps/command/child.h"
#include "steps/command/idle.h"
#include "support/chain.h"

extern "C" {
#include "core/log.h"
}

using mt::Chain;
using mt::Folder;
using mt::Params;
using mt::Value;

namespace {

Value sh(const std::string &script) { return Value::list({"sh", "-c", script}); }

struct Result {
    stm_run_end end;
    std::string rows, errors, first, remedy;
    int64_t failed;
    double seconds;
};

Result run(const std::string &in, Params params, const Chain::Opts &step = Chain::Opts(), int64_t batch_rows = 4,
           double timeout_s = 20, const char *type = "command")
{
    Folder f;
    Chain c;
    Chain::Opts read;
    Result r = {};
    read.batch_rows = batch_rows;
    c.dir = f.path;
    c.add("in", "read_jsonl", {{"path", f.put("in.jsonl", in)}, {"extra", ""}}, read)
        .add("cmd", type, params, step)
        .add("out", "write_jsonl", {{"path", "out.jsonl"}});
    const auto start = std::chrono::steady_clock::now();
    r.end = c.run(timeout_s);
    r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    r.rows = f.get("out.jsonl");
    for (const stm_error_record &e : c.errors) {
        if (r.first.empty()) r.first = e.error.msg, r.remedy = e.error.remedy;
        r.errors += std::string(e.error.msg) + " (" + e.error.context + ")\n";
    }
    if (c.error.status != MILL_OK) r.errors += std::string("run: ") + c.error.msg;
    r.failed = r.end == STM_END_DONE ? c.stats("cmd").rows_failed : -1;
    return r;
}

std::string numbers(int from, int to, const char *more = "")
{
    std::string s;
    for (int i = from; i < to; i++) s += "{\"a\":" + std::to_string(i) + more + "}\n";
    return s;
}

const std::pair<std::string, Value> kB = {"columns", Value::map({{"b", "int64"}})};
const char *kRename = "s/\"a\"/\"b\"/";

std::string both(int from, int to)
{
    std::string s;
    for (int i = from; i < to; i++) s += "{\"a\":" + std::to_string(i) + ",\"b\":" + std::to_string(i) + "}\n";
    return s;
}

} // namespace

TEST(Command, Answers)
{
    const Result r = run(numbers(0, 50), {{"argv", Value::list({"sed", "-u", kRename})}, kB});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, both(0, 50));
    EXPECT_EQ(r.errors, "");
}

TEST(Command, PerBatchNeedsNoFlush)
{
    const Result r = run(numbers(0, 50), {{"argv", Value::list({"sed", kRename})}, kB, {"process", "per_batch"}});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, both(0, 50));
}

TEST(Command, ReplicasKeepTheOrder)
{
    Chain::Opts o;
    o.replicas = 3;
    const Result r = run(numbers(0, 200), {{"argv", Value::list({"sed", "-u", kRename})}, kB}, o);
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, both(0, 200));
}

TEST(Command, WithoutColumnsAnswersAreCounted)
{
    const Result r = run(numbers(0, 9), {{"argv", Value::list({"cat"})}});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, numbers(0, 9));
}

TEST(Command, SendsTheColumnsAsked)
{
    const Result r = run("{\"a\":1,\"t\":\"x\",\"u\":null}\n", {{"argv", sh("while read -r l; do echo \"{\\\"got\\\":$l}\"; done")},
                                                            {"send", Value::list({"t", "u"})},
                                                            {"columns", Value::map({{"got", "json"}})}});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, "{\"a\":1,\"t\":\"x\",\"u\":null,\"got\":{\"t\":\"x\",\"u\":null}}\n");
}

/* Both pipes full at once: 40 rows of 300 kB each way, echoed while they come. */
TEST(Command, HugeRowsBothWays)
{
    std::string in;
    for (int i = 0; i < 40; i++) in += "{\"t\":\"" + std::string(300000, static_cast<char>('a' + i % 26)) + "\"}\n";
    const Result r = run(in, {{"argv", Value::list({"cat"})}, {"columns", Value::map({{"t", "utf8"}})}}, Chain::Opts(), 20);
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_TRUE(r.rows == in);
}

TEST(Command, EnvironmentFolderAndDescriptors)
{
    Result r = run("{\"x\":1}\n{\"x\":1}\n",
                   {{"argv", sh("cat >/dev/null; for i in 1 2; do echo \"{\\\"w\\\":\\\"$WHO in $PWD\\\"}\"; done")},
                    {"columns", Value::map({{"w", "utf8"}})},
                    {"process", "per_batch"},
                    {"cwd", "/usr"},
                    {"send", Value::list({"x"})},
                    {"env", Value::map({{"WHO", "me"}})}});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, "{\"x\":1,\"w\":\"me in /usr\"}\n{\"x\":1,\"w\":\"me in /usr\"}\n");
    r = run("{\"x\":1}\n", {{"argv", sh("cat >/dev/null; echo \"{\\\"n\\\":$(ls /proc/self/fd | wc -l)}\"")},
                            {"columns", Value::map({{"n", "int64"}})},
                            {"process", "per_batch"}});
    EXPECT_EQ(r.rows, "{\"x\":1,\"n\":4}\n") << "0, 1, 2 and the folder that ls reads";
}

TEST(Command, ItsFaultsAreErrorsOfTheBatch)
{
    const struct { const char *name, *script, *message; bool per_batch; } cases[] = {
        {"exits", "read l; echo boom >&2; exit 3", "sh exited with code 3 before it had answered; standard error: boom", false},
        {"exits at once", "exit 0", "sh exited with code 0 before it had answered", false},
        {"killed", "read l; kill -SEGV $$", "sh was killed by signal 11", false},
        {"sent away each time", "read l; kill -TERM $$", "sh was killed by signal 15 (Terminated) before it had answered", false},
        {"garbage", "while read -r l; do echo oops; done", "answer 1 is not a row (expected an object of JSON): oops", false},
        {"too few", "head -n 2", "sh exited with code 0 before it had answered", false},
        {"too few, per batch", "head -n 2", "sh exited with code 0 before it had answered", true},
        {"too many, per batch", "cat; echo '{}'", "sh answered with more lines than there were rows", true},
        {"too many and gone", "read a; read a; read a; read a; for i in 1 2 3 4 5 6; do echo '{\"b\":1}'; done",
         "sh answered with more lines than there were rows", false},
        {"bad end, per batch", "cat; exit 7", "sh exited with code 7 after its last answer", true},
        {"closes its input", "exec 0<&-; sleep 0.1; exit 5", "sh exited with code 5 before it had answered", false},
        {"closes its output", "exec 1>&-; sleep 0.1; exit 6", "sh exited with code 6 before it had answered", false},
        {"leaves a child with its pipes", "sleep 60 & exit 4", "sh exited with code 4 before it had answered", false},
        {"floods standard error and dies", "yes error | head -c 1000000 >&2; echo last >&2; exit 9", "sh exited with code 9",
         false},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        Params p = {{"argv", sh(k.script)}, kB};
        if (k.per_batch) p.emplace_back("process", "per_batch");
        const Result r = run(numbers(0, 4), p);
        EXPECT_EQ(r.end, STM_END_DONE);
        EXPECT_EQ(r.first.substr(0, strlen(k.message)), k.message) << r.errors;
        EXPECT_EQ(r.failed, 4);
        EXPECT_EQ(std::count(r.rows.begin(), r.rows.end(), '\n'), 4) << "no row is lost";
        EXPECT_NE(r.rows.find("\"b\":null"), std::string::npos);
        EXPECT_LT(r.seconds, 10.0);
    }
}

TEST(Command, ANewProcessForTheNextBatch)
{
    /* Dies on the row 5; batches of 4: rows 4..7 fail, the others do not. */
    const Result r = run(numbers(0, 12),
                         {{"argv", sh("while read -r l; do case $l in *5*) exit 1;; esac; echo \"$l\" | sed 's/a/b/'; done")}, kB});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    std::string expected = both(0, 4);
    for (int i = 4; i < 8; i++) expected += "{\"a\":" + std::to_string(i) + ",\"b\":null}\n";
    EXPECT_EQ(r.rows, expected + both(8, 12));
    EXPECT_EQ(r.failed, 4);
}

/* Somebody sent it away in the middle of an answer, which is no fault of the rows; but only once. */
TEST(Command, RowsOfOneThatWasSentAwayGoToAnother)
{
    for (const char *how : {"kill -TERM $$", "exit 130"}) {
        Folder f;
        const std::string once = "read -r l; if [ ! -e " + f.path + "/gone ]; then touch " + f.path + "/gone; printf '{\"b'; " +
                                 how + "; fi; { echo \"$l\"; cat; } | sed -u s/a/b/";
        const Result r = run(numbers(0, 12), {{"argv", sh(once)}, kB});
        ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
        EXPECT_EQ(r.rows, both(0, 12)) << how;
        EXPECT_EQ(r.errors, "") << how;
    }
}

TEST(Command, AnAnswerThatDoesNotFitIsAnErrorOfItsRow)
{
    const Result r =
        run(numbers(0, 4),
            {{"argv", sh("while read -r l; do case $l in *2*) echo '{\"b\":\"x\"}';; *) echo '{\"b\":7}';; esac; done")}, kB});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, "{\"a\":0,\"b\":7}\n{\"a\":1,\"b\":7}\n{\"a\":2,\"b\":null}\n{\"a\":3,\"b\":7}\n");
    EXPECT_EQ(r.first, "the command's answer, column b: expected int64, found \"x\"");
    EXPECT_EQ(r.failed, 1);
}

/* Slow enough that the first batch has all its answers before the first of too many comes. */
TEST(Command, AlwaysTwoAnswersFailEveryBatch)
{
    const Result r =
        run(numbers(0, 24), {{"argv", sh("while read -r l; do echo \"$l\"; sleep 0.01; echo \"$l\"; done")}, kB}, Chain::Opts(), 8);
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.failed, 24) << r.rows << r.errors;
    EXPECT_NE(r.first.find("more lines than there were rows"), std::string::npos) << r.errors;
}

/* One answer too many, now and then, of a program that is well known by then: the batch that has it fails, and its rows only. */
TEST(Command, ASurplusAnswerFailsItsBatchWithoutRowKey)
{
    const struct {
        const char *name, *script;
        int bad;
    } cases[] = {
        {"first row of a batch",
         "while read -r l; do v=${l#*:}; echo \"{\\\"b\\\":$v\"; case $v in 8*) echo \"{\\\"b\\\":$v\";; esac; done", 2},
        {"last row of a batch",
         "while read -r l; do v=${l#*:}; echo \"{\\\"b\\\":$v\"; case $v in 7*) echo \"{\\\"b\\\":$v\";; esac; done", 1},
        {"last row of a batch, late",
         "while read -r l; do v=${l#*:}; echo \"{\\\"b\\\":$v\"; case $v in 7*) sleep 0.01; echo \"{\\\"b\\\":$v\";; esac; done",
         1},
        {"two processes", "while read -r l; do echo \"$l\"; case $l in *:5*) echo \"$l\";; esac; done | sed -u 's/a/b/'", 1},
        {"it leaves with the next answer", /* held back, as an unflushed buffer does */
         "x=; while read -r l; do v=${l#*:}; case $v in 4*) x=\"{\\\"b\\\":$v\";; *) [ -z \"$x\" ] || echo \"$x\"; x=;; esac; echo "
         "\"{\\\"b\\\":$v\"; done",
         1},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        const Result r = run(numbers(0, 16), {{"argv", sh(k.script)}, kB});
        ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
        std::string expected = both(0, 4 * k.bad);
        for (int i = 4 * k.bad; i < 4 * k.bad + 4; i++) expected += "{\"a\":" + std::to_string(i) + ",\"b\":null}\n";
        EXPECT_EQ(r.rows, expected + both(4 * k.bad + 4, 16));
        EXPECT_EQ(r.failed, 4);
        EXPECT_NE(r.first.find("more lines than there were rows"), std::string::npos) << r.errors;
    }
}

/* What "waits for input" means: the proof that no answer too many is on its way. */
TEST(Command, IdleIsWhatWaitsForInput)
{
    const struct {
        const char *name, *script;
        bool idle;
    } cases[] = {
        {"shell that reads", "while read -r l; do :; done", true},
        {"program", "exec cat", true},
        {"programs in a row", "cat | cat | cat", true},
        {"sleeps", "exec sleep 60", false},
        {"waits for what sleeps", "sleep 60; read l", false},
        {"one of two sleeps", "cat | sleep 60", false},
        {"computes", "while :; do :; done", false},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        int in[2];
        ASSERT_EQ(pipe(in), 0);
        const pid_t pid = fork();
        if (pid == 0) {
            setpgid(0, 0);
            dup2(in[0], 0);
            close(in[1]);
            execl("/bin/sh", "sh", "-c", k.script, nullptr);
            _exit(127);
        }
        close(in[0]);
        setpgid(pid, pid); /* whoever comes first */
        bool idle = false;
        for (int i = 0; i < (k.idle ? 5000 : 30) && !idle; i++) { /* also while it starts: it is not idle for a moment */
            idle = stm_group_look(pid, 0) == STM_GROUP_IDLE;
            if (!idle) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
        EXPECT_EQ(idle, k.idle);
        kill(-pid, SIGKILL);
        close(in[1]);
        while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
        }
        EXPECT_NE(stm_group_look(pid, 0), STM_GROUP_IDLE) << "what is gone is not idle";
    }
}

/* Answers that are out of step cannot always be seen, but when numbered. */
TEST(Command, TooManyAnswers)
{
    /* The second of two lines written at once is one too many for an odd number of rows. */
    Result r = run(numbers(0, 3), {{"argv", sh("while read -r l; do printf '%s\\n%s\\n' \"$l\" \"$l\"; done")}, kB});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_NE(r.first.find("more lines than there were rows"), std::string::npos) << r.errors;
    EXPECT_EQ(r.failed, 3);
    r = run(numbers(0, 4), {{"argv", sh("while read -r l; do echo \"$l\"; echo \"$l\"; done")}, kB, {"row_key", "_row"}});
    EXPECT_EQ(r.failed, 4);
    r = run(numbers(0, 8), {{"argv", sh("sed -u 's/\"a\"/\"b\"/'")}, kB, {"row_key", "_row"}});
    EXPECT_EQ(r.rows, both(0, 8)) << r.errors;
    r = run(numbers(0, 4), {{"argv", sh("while read -r l; do echo '{\"b\":1,\"_row\":2}'; done")}, kB, {"row_key", "_row"}});
    EXPECT_EQ(r.first, "answer 1 is for row 2, not 0");
    r = run(numbers(0, 4), {{"argv", sh("while read -r l; do echo '{\"b\":1}'; done")}, {"row_key", "_row"}, kB});
    EXPECT_EQ(r.first, "answer 1 lacks the key _row");
    /* An answer of nothing says no number, whatever columns there are; one that does not fit has said so itself. */
    for (const char *column : {"b", "a"}) {
        r = run(numbers(0, 4), {{"argv", sh("while read -r l; do echo '{}'; done")},
                                {"row_key", "_row"},
                                {"columns", Value::map({{column, "int64"}})}});
        EXPECT_NE(r.errors.find("answer 1 lacks the key _row"), std::string::npos) << r.errors;
    }
    r = run(numbers(0, 4), {{"argv", sh("sed -u 's/\"a\":2/\"b\":\"x\"/;s/\"a\"/\"b\"/'")}, {"row_key", "_row"}, kB});
    EXPECT_EQ(r.errors.find("lacks"), std::string::npos) << r.errors;
    EXPECT_NE(r.rows.find("{\"a\":2,\"b\":null}\n{\"a\":3,\"b\":3}\n"), std::string::npos) << r.rows;
}

TEST(Command, HangsUntilItsDeadline)
{
    const Result r = run(numbers(0, 2), {{"argv", sh("sleep 60")}, kB, {"deadline", "200ms"}});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.first, "sh did not answer within 0.2 s");
    EXPECT_EQ(r.failed, 2);
    EXPECT_LT(r.seconds, 5.0);
}

/* Its answers are in its own buffer: what helps is said, in the log while it is waited for, and with the error. */
TEST(Command, SaysWhatHelpsWhereOutputIsNotFlushed)
{
    struct Seen {
        std::string warning;
    } seen;
    stm_log_tap tap = {};
    tap.sink = [](stm_level level, const char *, const char *line, void *user) {
        if (level == STM_WARN) static_cast<Seen *>(user)->warning += line;
    };
    tap.user = &seen;
    stm_log_tap_add(&tap);
    const Result r = run(numbers(0, 2), {{"argv", sh("read -r l; echo '{\"b\":1}'; while read -r l; do :; done")},
                                         kB,
                                         {"deadline", std::to_string(STM_CHILD_QUIET_S + 1) + "s"}});
    stm_log_tap_remove(&tap);
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.failed, 2);
    EXPECT_NE(r.remedy.find("It waits for more input; if it has answered, it has to flush its output"),
              std::string::npos) << r.remedy;
    EXPECT_NE(seen.warning.find("sh was given 2 rows, has answered 1 and waits for more input"), std::string::npos) << seen.warning;
    EXPECT_EQ(seen.warning.find("was given"), seen.warning.rfind("was given")) << "once: " << seen.warning;
}

/* Neither reads nor ends, and ignores being told to: 2 s of grace and it is killed. */
TEST(Command, UnloadEndsWhatDoesNotWantToEnd)
{
    const Result r =
        run(numbers(0, 2),
            {{"argv", sh("trap '' TERM; read l; echo '{\"b\":1}'; read l; echo '{\"b\":2}'; while :; do sleep 0.1; done")}, kB});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, "{\"a\":0,\"b\":1}\n{\"a\":1,\"b\":2}\n");
    EXPECT_LT(r.seconds, 8.0);
}

TEST(Command, LeavesNoProcessBehind)
{
    Folder f;
    const Result r = run(numbers(0, 2), {{"argv", sh("sleep 300 & echo $! > " + f.path + "/pid; exec cat")},
                                         {"columns", Value::map({{"b", "int64"}})}});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    const pid_t pid = atoi(f.get("pid").c_str());
    ASSERT_GT(pid, 1);
    bool gone = false;
    for (int i = 0; i < 100 && !gone; i++) { /* an orphan is reaped by somebody else; a zombie is as good as gone */
        std::string stat = "/proc/" + std::to_string(pid) + "/stat";
        FILE *s = fopen(stat.c_str(), "r");
        char state = 'Z';
        if (s) {
            if (fscanf(s, "%*d %*s %c", &state) != 1) state = 'Z';
            fclose(s);
        }
        gone = state == 'Z' || state == 'X';
        if (!gone) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_TRUE(gone);
}

TEST(Command, MissingProgramIsAnErrorOfLoading)
{
    const Result r = run(numbers(0, 2), {{"argv", Value::list({"no-such-program-of-ours"})}, kB});
    EXPECT_EQ(r.end, STM_END_LOAD_FAILED);
    EXPECT_NE(r.errors.find("cannot start no-such-program-of-ours: No such file"), std::string::npos) << r.errors;
}

namespace {

Result run_rows(const std::string &in, Params params, int64_t batch_rows = 4, int32_t replicas = 1)
{
    Chain::Opts o;
    o.replicas = replicas;
    return run(in, params, o, batch_rows, 20, "command_rows");
}

} // namespace

/* Row r has r % 3 answers: one of three goes, one of three doubles. */
TEST(CommandRows, AnyNumberOfAnswersPerRow)
{
    std::string expected;
    for (int a = 0; a < 50; a++)
        for (int k = 0; k < a % 7 % 3; k++) expected += "{\"a\":" + std::to_string(a) + ",\"b\":" + std::to_string(k) + "}\n";
    const Value script = sh("while read -r l; do r=${l##*:}; r=${r%\\}}; k=0; while [ $k -lt $((r % 3)) ]; do echo "
                            "\"{\\\"_row\\\":$r,\\\"b\\\":$k}\"; k=$((k+1)); done; done");
    for (int32_t replicas : {1, 3}) {
        const Result r = run_rows(numbers(0, 50), {{"argv", script}, kB}, 7, replicas);
        ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
        EXPECT_EQ(r.rows, expected);
        EXPECT_EQ(r.errors, "");
    }
}

TEST(CommandRows, ThousandsPerRowAndNoneAtAll)
{
    Result r = run_rows(
        numbers(0, 8),
        {{"argv", sh("while read -r l; do r=${l##*:}; r=${r%\\}}; yes \"{\\\"_row\\\":$r,\\\"b\\\":1}\" | head -n 3000; done")},
         kB});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(std::count(r.rows.begin(), r.rows.end(), '\n'), 24000) << r.errors;
    EXPECT_EQ(r.rows.substr(0, 14), "{\"a\":0,\"b\":1}\n");
    r = run_rows(numbers(0, 8), {{"argv", Value::list({"grep", "-v", "."})}});
    EXPECT_EQ(r.first, "grep exited with code 1 after its last answer") << "grep says so when it finds nothing";
    r = run_rows(numbers(0, 8), {{"argv", sh("cat >/dev/null")}});
    ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
    EXPECT_EQ(r.rows, "");
    r = run_rows(numbers(0, 8), {{"argv", Value::list({"grep", "-E", ":[1-6],"})}});
    EXPECT_EQ(r.rows, numbers(1, 7)) << r.errors;
}

TEST(CommandRows, ItsFaultsAreErrorsOfTheBatch)
{
    const struct { const char *name, *script, *message; } cases[] = {
        {"goes back", "cat >/dev/null; echo '{\"_row\":2,\"b\":1}'; echo '{\"_row\":1,\"b\":1}'",
         "answer 2 is for row 1, after one for row 2"},
        {"of no row", "cat >/dev/null; echo '{\"_row\":4,\"b\":1}'", "answer 1 is for row 4 of 4"},
        {"without a number", "cat >/dev/null; echo '{\"b\":1}'", "answer 1 lacks the key _row"},
        {"does not fit", "cat >/dev/null; echo '{\"_row\":0,\"b\":\"x\"}'", "answer 1, column b: expected int64, found \"x\""},
        {"no row", "cat >/dev/null; echo oops", "answer 1, not a row: expected an object of JSON"},
        {"fails", "cat >/dev/null; echo '{\"_row\":0,\"b\":1}'; exit 3", "sh exited with code 3 after its last answer"},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        const Result r = run_rows(numbers(0, 4), {{"argv", sh(k.script)}, kB});
        ASSERT_EQ(r.end, STM_END_DONE) << r.errors;
        EXPECT_EQ(r.first, k.message);
        EXPECT_EQ(r.failed, 4);
        EXPECT_EQ(std::count(r.rows.begin(), r.rows.end(), '\n'), 4) << "no row is lost";
    }
    std::string in;
    for (int i = 0; i < 4; i++) in += "{\"t\":\"" + std::string(300000, 'x') + "\"}\n";
    const Result r = run_rows(in, {{"argv", sh("head -c 10 >/dev/null")}, kB, {"send", Value::list({"t"})}});
    EXPECT_EQ(r.first, "sh exited with code 0 before it had answered") << "it has not read its rows";
    EXPECT_EQ(r.failed, 4);
}

/* The end of its output is the end of its answers, also where it lives on and no deadline is set. */
TEST(Command, OutputThatEndsIsNotWaitedForForEver)
{
    const Result r = run(numbers(0, 4), {{"argv", sh("exec >&-; sleep 1000")}, kB});
    EXPECT_NE(r.errors.find("sh closed its output, but did not end within 5 s"), std::string::npos) << r.errors;
}
