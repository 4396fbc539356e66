/*
 * Every call into the system that supervision makes fails once, in a run with a row that ends processes: the output is right, or
 * the run says why not and the next one makes it right; it ends, and leaves neither processes nor descriptors.
 */
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"

namespace {

using mt::Command;
using mt::Folder;
using mt::Result;

const char *const kKinds[] = {"memfd_create", "ftruncate", "mmap", "socketpair", "fork", "setpgid", "signalfd", "sigprocmask",
                              "sigaction", "waitpid",
                              "poll", "read", "kill", "fopen", "open", "openat", "write", "fsync", "renameat",
                              "worker:prctl", "worker:setpgid", "worker:signalfd", "worker:sigprocmask", "worker:poll"};
const int kMost = 60; /* of one kind: those that go with time (poll) would never end */

std::string wanted(int64_t nulled)
{
    std::string s;
    for (int64_t i = 0; i < 8; i++)
        s += "{\"id\":" + std::to_string(i) + ",\"doubled\":" + (i == nulled ? "null" : std::to_string(2 * i)) + "}\n";
    return s;
}

/* Nobody whose parent has gone is left; waits a little for who is about to go. */
bool all_are_gone()
{
    for (int i = 0; i < 5000; i++) {
        int status;
        const pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0) return true;
        if (pid == 0) usleep(1000);
    }
    return false;
}

TEST(SuperviseFaults, EveryCallOfEveryKind)
{
    const int want_code = 3;
    const std::string want = wanted(5);
    int total = 0, right = 0;
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    for (const char *kind : kKinds) {
        int points = 0;
        for (; points < kMost; points++) {
            SCOPED_TRACE(std::string(kind) + " " + std::to_string(points));
            Folder f;
            f.write("t.yaml",
                    "stepmill: 1\nname: t\nplugins: [" E2E_PLUGIN "]\nsteps:\n  count: {type: e2e_count, rows: 8, batch_size: 2}\n"
                    "  work: {type: e2e_work, from: count, mode: crash, at: 5}\n"
                    "  out: {type: write_jsonl, from: work, path: out.jsonl}\n");
            setenv("LD_PRELOAD", FAIL_CALL, 1);
            setenv("STEPMILL_FAIL", (std::string(kind) + " " + std::to_string(points)).c_str(), 1);
            setenv("STEPMILL_FAIL_SAYS", (f.path() + "/says").c_str(), 1);
            Command c(f, {"run", "t.yaml"});
            for (const char *name : {"LD_PRELOAD", "STEPMILL_FAIL", "STEPMILL_FAIL_SAYS"}) unsetenv(name);
            const int code = c.wait(60);
            ASSERT_NE(code, 2000) << "it does not end: " << c.err();
            ASSERT_TRUE(all_are_gone()) << c.err();
            const std::string says = f.read("says");
            EXPECT_EQ(says.find("left"), std::string::npos) << says;
            const bool fired = says.find("fired") != std::string::npos;
            if (code == want_code) {
                EXPECT_EQ(f.read("runs/t/out.jsonl"), want) << c.err();
                right += fired;
            } else { /* without a supervisor the row ends the command; else it says why it gave up */
                EXPECT_TRUE(fired) << code << ": " << c.err();
                EXPECT_TRUE(code == 2 || c.err().find("nobody supervises this run") != std::string::npos)
                    << code << ": " << c.err();
                EXPECT_NE(c.err(), "");
                const Result again = mt::run(f, {"run", "t.yaml"});
                EXPECT_EQ(again.code, want_code) << again.err << "before: " << c.err();
                EXPECT_EQ(f.read("runs/t/out.jsonl"), want) << again.err;
            }
            if (HasFailure()) return;
            if (!fired) break;
        }
        printf("%s: %d points\n", kind, points);
        EXPECT_GT(points, 0) << kind << " is not called any more: nothing is tried";
        total += points;
    }
    printf("%d points in all, %d of them with the right output at once\n", total, right);
    EXPECT_GT(total, 60);
}
} // namespace
