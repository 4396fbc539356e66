/* mill_supervise with work that is no run: what it does with children that do not move, end early or never come about. */
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "stepmill/run.h"
#include "stepmill/supervise.h"

namespace {

/* gtest has no other threads, so it may be forked; a child must not come back into it. */
int supervise(int (*work)(mill_child *, void *), mill_supervise_options o, mill_error *err)
{
    const pid_t self = getpid();
    const int code = mill_supervise(&o, work, nullptr, err);
    if (getpid() != self) _exit(code);
    return code;
}

mill_supervise_options quick()
{
    mill_supervise_options o = MILL_SUPERVISE_OPTIONS_INIT;
    o.silence_s = 0.3;
    return o;
}

TEST(Silence, AStoppedChildIsNamedEndedAndFollowedByAnother)
{
    mill_error err = {};
    testing::internal::CaptureStderr();
    const int code = supervise(
        [](mill_child *c, void *) {
            if (mill_child_number(c) == 0) raise(SIGSTOP);
            return 40 + mill_child_number(c);
        },
        quick(), &err);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, 41);
    EXPECT_EQ(err.status, MILL_OK);
    EXPECT_NE(said.find("has not moved for"), std::string::npos) << said;
    EXPECT_NE(said.find("it was stopped by a signal or a debugger"), std::string::npos) << said;
}

TEST(Silence, ButNotForEver)
{
    mill_error err = {};
    mill_supervise_options o = quick();
    o.restarts = 1;
    testing::internal::CaptureStderr();
    const int code = supervise([](mill_child *, void *) { return raise(SIGSTOP); }, o, &err);
    testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, MILL_EXIT_PROCESS);
    EXPECT_NE(std::string(err.msg).find("did not move for 0.6 s"), std::string::npos) << err.msg;
    EXPECT_NE(std::string(err.context).find("2 processes in a row got nowhere"), std::string::npos) << err.context;
}

TEST(Silence, ADeathNeedsNoErrorRecord)
{
    mill_supervise_options o = quick();
    o.restarts = 0;
    testing::internal::CaptureStderr();
    const int code = supervise([](mill_child *, void *) { return raise(SIGKILL); }, o, nullptr);
    testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, MILL_EXIT_PROCESS);
}

TEST(Silence, WhoMovesIsLeftAlone)
{
    mill_error err = {};
    mill_supervise_options patient = quick();
    patient.silence_s = 1.2; /* so that a busy machine does not look like silence */
    const int code = supervise(
        [](mill_child *c, void *) {
            for (int i = 0; i < 4; i++) mill_child_command(c, 0.8); /* longer than a child may stand still */
            return mill_child_number(c);
        },
        patient, &err);
    EXPECT_EQ(code, 0);
}

TEST(Silence, ADeathForNoStepEndsAfterTheRestarts)
{
    mill_error err = {};
    testing::internal::CaptureStderr();
    const int code = supervise([](mill_child *, void *) -> int { _exit(0); }, quick(), &err);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, MILL_EXIT_PROCESS);
    EXPECT_NE(std::string(err.msg).find("exit(0) from within; no step was at work"), std::string::npos) << err.msg;
    EXPECT_EQ(err.error_class, MILL_CLASS_DEVICE);
    int n = 0;
    for (size_t at = 0; (at = said.find("going on in another", at)) != std::string::npos; at++) n++;
    EXPECT_EQ(n, 3) << said;
}

TEST(Silence, WhoeverIgnoresDeadChildrenDoesNotMakeItWaitForEver)
{
    mill_error err = {};
    struct sigaction before, ignored = {};
    ignored.sa_handler = SIG_IGN;
    ASSERT_EQ(sigaction(SIGCHLD, &ignored, &before), 0);
    const int code = supervise([](mill_child *c, void *) { return 20 + mill_child_number(c); }, quick(), &err);
    ASSERT_EQ(sigaction(SIGCHLD, &before, nullptr), 0);
    EXPECT_EQ(code, 20) << err.msg;
}

TEST(Silence, WhereNoProcessCanBeMadeTheWorkIsDoneHere)
{
    mill_error err = {};
    rlimit before, none;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    testing::internal::CaptureStderr();
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const int code = supervise([](mill_child *c, void *) { return c == nullptr ? 7 : 8; }, quick(), &err);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, 7);
    EXPECT_NE(said.find("nobody supervises this run"), std::string::npos) << said;
}

} // namespace
