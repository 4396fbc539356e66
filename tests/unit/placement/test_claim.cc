#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include "support/fail_nth.h"

extern "C" {
#include "placement/claim.h"
}

namespace {

/* A UUID that only this test process uses. */
std::string device(const char *name) { return "GPU-test-" + std::to_string(getpid()) + "-" + name; }

class Claims {
public:
    Claims() { EXPECT_EQ(stm_claims_create(&c_, nullptr), MILL_OK); }
    ~Claims() { stm_claims_destroy(&c_); }
    mill_status take(const std::string &uuid, bool shared = false, mill_error *err = nullptr)
    {
        return stm_claims_take(c_, uuid.c_str(), shared, err);
    }
    stm_claims *get() { return c_; }
    void leave() { stm_claims_destroy(&c_); }

private:
    stm_claims *c_ = nullptr;
};

/* A process that takes a device and says how that went, then waits to be told to end, or killed. */
class Other {
public:
    Other(const std::string &uuid, bool shared)
    {
        int up[2], down[2];
        EXPECT_EQ(pipe(up), 0);
        EXPECT_EQ(pipe(down), 0);
        pid_ = fork();
        if (pid_ == 0) {
            close(up[0]), close(down[1]);
            stm_claims *c = nullptr;
            char st = stm_claims_create(&c, nullptr) == MILL_OK && stm_claims_take(c, uuid.c_str(), shared, nullptr) == MILL_OK
                          ? 'y'
                          : 'n';
            (void)!write(up[1], &st, 1);
            (void)!read(down[0], &st, 1); /* until the parent closes */
            _exit(0);
        }
        close(up[1]), close(down[0]);
        char st = '?';
        EXPECT_EQ(read(up[0], &st, 1), 1);
        close(up[0]);
        got_ = st == 'y';
        down_ = down[1];
    }
    ~Other()
    {
        close(down_);
        if (pid_ > 0) waitpid(pid_, nullptr, 0);
    }
    void kill9()
    {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
        pid_ = 0;
    }
    bool got() const { return got_; }
    pid_t pid() const { return pid_; }

private:
    pid_t pid_;
    int down_;
    bool got_;
};

TEST(Claim, OneProcessOnly)
{
    const std::string uuid = device("one");
    Claims mine;
    bool shared = true;

    EXPECT_EQ(stm_claim_holder(uuid.c_str(), nullptr), 0);
    ASSERT_EQ(mine.take(uuid), MILL_OK);
    EXPECT_EQ(stm_claim_holder(uuid.c_str(), &shared), getpid());
    EXPECT_FALSE(shared);
    EXPECT_FALSE(Other(uuid, false).got());
    EXPECT_FALSE(Other(uuid, true).got());
    EXPECT_TRUE(Other(device("another"), false).got());
    mine.leave();
    EXPECT_EQ(stm_claim_holder(uuid.c_str(), nullptr), 0);
    EXPECT_TRUE(Other(uuid, false).got());
}

TEST(Claim, ConflictNamesTheProcess)
{
    const std::string uuid = device("named");
    Other other(uuid, false);
    Claims mine;
    mill_error err = {};

    ASSERT_TRUE(other.got());
    EXPECT_EQ(mine.take(uuid, false, &err), MILL_ERR_BUSY);
    EXPECT_NE(strstr(err.msg, ("process " + std::to_string(other.pid()) + " (").c_str()), nullptr) << err.msg;
    EXPECT_NE(strstr(err.msg, uuid.c_str()), nullptr);
    EXPECT_NE(strstr(err.remedy, "share"), nullptr);
}

TEST(Claim, GoesWithAKilledProcess)
{
    for (bool shared : {false, true}) {
        const std::string uuid = device(shared ? "killed-shared" : "killed");
        Other other(uuid, shared);
        Claims mine;

        ASSERT_TRUE(other.got());
        ASSERT_EQ(mine.take(uuid), MILL_ERR_BUSY);
        other.kill9();
        EXPECT_EQ(stm_claim_holder(uuid.c_str(), nullptr), 0);
        EXPECT_EQ(mine.take(uuid), MILL_OK);
    }
}

TEST(Claim, SharersMeetOnlySharers)
{
    const std::string uuid = device("shared");
    Other a(uuid, true), b(uuid, true);
    Claims mine, alone;
    bool shared = false;
    mill_error err = {};

    EXPECT_TRUE(a.got());
    EXPECT_TRUE(b.got());
    EXPECT_EQ(mine.take(uuid, true), MILL_OK);
    const int32_t holder = stm_claim_holder(uuid.c_str(), &shared);
    EXPECT_TRUE(holder == a.pid() || holder == b.pid() || holder == getpid());
    EXPECT_TRUE(shared);
    EXPECT_EQ(alone.take(uuid, false, &err), MILL_ERR_BUSY);
    a.kill9(), b.kill9();
    EXPECT_EQ(alone.take(uuid), MILL_ERR_BUSY) << "mine is still there";
    mine.leave();
    EXPECT_EQ(alone.take(uuid), MILL_OK);
}

TEST(Claim, TwoRunsOfOneProcess)
{
    const std::string uuid = device("twice");
    Claims a, b;
    mill_error err = {};

    ASSERT_EQ(a.take(uuid), MILL_OK);
    EXPECT_EQ(b.take(uuid, false, &err), MILL_ERR_BUSY);
    EXPECT_NE(strstr(err.msg, "another run of this process"), nullptr) << err.msg;
    stm_claims_drop(a.get(), uuid.c_str());
    EXPECT_EQ(b.take(uuid), MILL_OK);
    stm_claims_drop(a.get(), uuid.c_str()); /* held no more */
}

/* A claim is not handed on to a program that the process starts. */
TEST(Claim, ExecDoesNotInherit)
{
    const std::string uuid = device("exec");
    int ready[2];
    Claims mine;
    char program[32] = "";

    ASSERT_EQ(pipe(ready), 0);
    const pid_t holder = fork();
    if (holder == 0) { /* takes it, starts a program that outlives it */
        stm_claims *own = nullptr;
        if (stm_claims_create(&own, nullptr) != MILL_OK || stm_claims_take(own, uuid.c_str(), false, nullptr) != MILL_OK) _exit(1);
        if (fork() == 0) {
            dup2(ready[1], 1);
            close(ready[0]);
            execl("/bin/sh", "sh", "-c", "echo $$; exec sleep 20 >/dev/null 2>&1", (char *)nullptr);
            _exit(1);
        }
        _exit(0);
    }
    close(ready[1]);
    ASSERT_GT(read(ready[0], program, sizeof program - 1), 0);
    int status = -1;
    ASSERT_EQ(waitpid(holder, &status, 0), holder);
    ASSERT_EQ(status, 0);
    ASSERT_EQ(kill((pid_t)atol(program), 0), 0) << "`sleep` is still running";
    EXPECT_EQ(mine.take(uuid), MILL_OK) << "and holds nothing";
    kill((pid_t)atol(program), SIGKILL);
    close(ready[0]);
}

/* Who asks leaves a connection behind that nobody accepts: that must not lock anybody out, or hide the holder. */
TEST(Claim, AskingOftenIsHarmless)
{
    const std::string uuid = device("asked");
    Other other(uuid, false);

    for (int i = 0; i < 2000; i++) ASSERT_EQ(stm_claim_holder(uuid.c_str(), nullptr), other.pid()) << i;
}

TEST(Claim, LongNamesAreRefused)
{
    Claims mine;
    EXPECT_EQ(mine.take(std::string(64, 'x')), MILL_ERR_INVALID);
    EXPECT_EQ(mine.take(std::string(63, 'x')), MILL_OK);
}

TEST(Claim, FailsCleanlyAtEveryPoint)
{
    const std::string uuid = device("faults");

    for (int nth = 0;; nth++) {
        const long before = mt::live();
        stm_claims *c = nullptr;
        mill_error err = {};
        mt::FailNth fail(nth, STM_FAULT_ALLOC | STM_FAULT_OPEN);
        mill_status st = stm_claims_create(&c, &err);
        if (st == MILL_OK) st = stm_claims_take(c, uuid.c_str(), false, &err);
        if (st == MILL_OK) st = stm_claims_take(c, (uuid + "b").c_str(), true, &err);
        const bool fired = fail.fired();

        EXPECT_EQ(st == MILL_OK, !fired);
        stm_claims_destroy(&c);
        EXPECT_EQ(mt::live(), before) << "leak when point " << nth << " fails";
        EXPECT_EQ(stm_claim_holder(uuid.c_str(), nullptr), 0) << "still held after point " << nth;
        if (!fired) return;
        EXPECT_STRNE(err.msg, "");
    }
}

} // namespace
