/* The watch over a communicator: deadlines, faults, abort, rebuild; with a library that does as it is told. */
#include "comm/ranks.h"

#include <algorithm>

extern "C" {
#include "core/alloc.h"
#include "core/clock.h"
}

namespace {

struct Script {
    mill_status open = MILL_OK, group = MILL_OK, finish = MILL_OK;
    std::vector<mill_status> polls; /* one a call; then the last one again */
    size_t at = 0;
    int opened = 0, aborted = 0, closed = 0, finished = 0, groups = 0;
    void then(std::vector<mill_status> next) { polls = std::move(next), at = 0; }
} script;

mill_status say(mill_status st, mill_error *err)
{
    return st == MILL_OK ? MILL_OK : mill_fail(err, st, "the script says %d", static_cast<int>(st));
}

mill_status fake_open(const int32_t *, void *const *, int32_t, stm_hw_comm **out, mill_error *err)
{
    if (script.open == MILL_OK) {
        *out = reinterpret_cast<stm_hw_comm *>(stm_calloc(16));
        script.opened++;
    }
    return say(script.open, err);
}
mill_status fake_poll(stm_hw_comm *, mill_error *err)
{
    if (script.polls.empty()) return MILL_OK;
    return say(script.polls[std::min(script.at++, script.polls.size() - 1)], err);
}
mill_status fake_group(stm_hw_comm *, const stm_comm_call *, int32_t, mill_error *err)
{
    script.groups++;
    return say(script.group, err);
}
mill_status fake_finish(stm_hw_comm *, mill_error *err)
{
    script.finished++;
    return say(script.finish, err);
}
void fake_abort(stm_hw_comm *) { script.aborted++; }
void fake_close(stm_hw_comm **c)
{
    if (*c == nullptr) return;
    script.closed++;
    stm_free(*c);
    *c = nullptr;
}

const stm_comm_ops *fake()
{
    static stm_comm_ops ops = stm_comm_cpu;
    ops.name = "fake";
    ops.open = fake_open;
    ops.poll = fake_poll;
    ops.group = fake_group;
    ops.finish = fake_finish;
    ops.abort = fake_abort;
    ops.close = fake_close;
    return &ops;
}

const int64_t kShort = 20000000; /* ns */

class CommWatch : public ::testing::Test {
protected:
    void SetUp() override
    {
        script = Script();
        before_ = stm_alloc_counts().live;
        ranks = std::make_unique<mt::Ranks>(fake(), 2);
        calls = {mt::call_of(STM_COMM_ALL_REDUCE, 0, 1, &x[0], &x[0]), mt::call_of(STM_COMM_ALL_REDUCE, 1, 1, &x[1], &x[1])};
    }
    void TearDown() override
    {
        stm_comm_close(&c);
        ranks.reset();
        EXPECT_EQ(script.opened, script.closed);
        EXPECT_EQ(stm_alloc_counts().live, before_) << "leak";
    }
    mill_status open() { return stm_comm_open(fake(), ranks->streams(), 2, kShort, &c, &err); }
    mill_status submit() { return stm_comm_submit(c, calls.data(), 2, &err); }
    std::unique_ptr<mt::Ranks> ranks;
    stm_comm *c = nullptr;
    mill_error err = {};
    float x[2] = {1, 2};
    std::vector<stm_comm_call> calls;

private:
    long before_ = 0;
};

} // namespace

TEST_F(CommWatch, ReadyOnlyWhenTheLibrarySaysSo)
{
    script.then({MILL_ERR_AGAIN, MILL_ERR_AGAIN, MILL_OK});
    ASSERT_EQ(open(), MILL_OK);
    EXPECT_EQ(submit(), MILL_ERR_AGAIN) << "still forming";
    EXPECT_EQ(script.groups, 0);
    EXPECT_EQ(stm_comm_poll(c, &err), MILL_ERR_AGAIN);
    EXPECT_EQ(stm_comm_poll(c, &err), MILL_ERR_AGAIN);
    EXPECT_EQ(stm_comm_poll(c, &err), MILL_OK);
    err = {};
    script.then({MILL_ERR_AGAIN, MILL_OK});
    EXPECT_EQ(submit(), MILL_OK);
    EXPECT_EQ(stm_comm_state_of(c), STM_COMM_QUEUEING);
    EXPECT_EQ(stm_comm_in_flight(c), 1);
    EXPECT_EQ(submit(), MILL_ERR_AGAIN) << "the last group is not queued yet";
    EXPECT_EQ(stm_comm_poll(c, nullptr), MILL_ERR_AGAIN);
    EXPECT_EQ(stm_comm_poll(c, nullptr), MILL_OK);
    EXPECT_EQ(stm_comm_wait(c, nullptr), MILL_OK);
    EXPECT_EQ(stm_comm_in_flight(c), 0);
    stm_comm_close(&c);
    EXPECT_EQ(script.finished, 1);
    EXPECT_EQ(script.aborted, 0);
}

TEST_F(CommWatch, AConnectionThatDoesNotComeIsGivenUp)
{
    script.then({MILL_ERR_AGAIN});
    ASSERT_EQ(open(), MILL_OK);
    const int64_t from = stm_now_ns();
    EXPECT_EQ(stm_comm_wait(c, &err), MILL_ERR_TIMEOUT);
    EXPECT_GE(stm_now_ns() - from, kShort - 1000000);
    EXPECT_NE(std::string(err.msg).find("connection"), std::string::npos) << err.msg;
    EXPECT_EQ(script.aborted, 1);
    EXPECT_EQ(stm_comm_verdict(MILL_ERR_TIMEOUT), STM_RETRY);
    script.then({MILL_OK});
    err = {};
    ASSERT_EQ(stm_comm_rebuild(c, &err), MILL_OK) << err.msg;
    EXPECT_EQ(stm_comm_wait(c, &err), MILL_OK);
    EXPECT_EQ(submit(), MILL_OK);
}

TEST_F(CommWatch, AGroupThatIsNeverQueuedIsGivenUp)
{
    ASSERT_EQ(open(), MILL_OK);
    ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK);
    script.then({MILL_ERR_AGAIN});
    ASSERT_EQ(submit(), MILL_OK);
    EXPECT_EQ(stm_comm_wait(c, &err), MILL_ERR_TIMEOUT);
    EXPECT_NE(std::string(err.msg).find("operation"), std::string::npos) << err.msg;
    EXPECT_EQ(script.aborted, 1);
}

TEST_F(CommWatch, TheFirstFailureStaysUntilRebuild)
{
    struct Row {
        mill_status fault;
        stm_verdict verdict;
    };
    for (const Row &row : {Row{MILL_ERR_IO, STM_RETRY}, Row{MILL_ERR_DEVICE, STM_LOST}, Row{MILL_ERR_INVALID, STM_IMPUTE}}) {
        script = Script();
        err = {};
        ASSERT_EQ(open(), MILL_OK);
        ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK);
        script.then({row.fault, MILL_OK});
        EXPECT_EQ(stm_comm_poll(c, &err), row.fault);
        EXPECT_EQ(stm_comm_verdict(row.fault), row.verdict);
        EXPECT_EQ(script.aborted, 1);
        EXPECT_EQ(stm_comm_state_of(c), STM_COMM_BROKEN);
        for (int i = 0; i < 2; i++) {
            mill_error again = {};
            EXPECT_EQ(i ? stm_comm_poll(c, &again) : stm_comm_submit(c, calls.data(), 2, &again), row.fault);
            EXPECT_STREQ(again.msg, err.msg);
        }
        EXPECT_EQ(script.groups, 0);
        EXPECT_EQ(stm_comm_rebuild(c, nullptr), MILL_OK);
        EXPECT_EQ(stm_comm_wait(c, nullptr), MILL_OK);
        EXPECT_EQ(stm_comm_submit(c, calls.data(), 2, nullptr), MILL_OK);
        stm_comm_close(&c);
        EXPECT_EQ(script.closed, 2);
    }
    script = Script();
}

TEST_F(CommWatch, AGroupThatFailsHalfwayEndsTheCommunicator)
{
    ASSERT_EQ(open(), MILL_OK);
    ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK);
    script.group = MILL_ERR_IO;
    EXPECT_EQ(submit(), MILL_ERR_IO);
    EXPECT_EQ(stm_comm_state_of(c), STM_COMM_BROKEN);
    EXPECT_EQ(script.aborted, 1);
    /* a rebuild that fails leaves it broken, with the new reason */
    script.open = MILL_ERR_UNSUPPORTED;
    err = {};
    EXPECT_EQ(stm_comm_rebuild(c, &err), MILL_ERR_UNSUPPORTED);
    EXPECT_EQ(stm_comm_state_of(c), STM_COMM_BROKEN);
    script.open = MILL_OK;
    script.group = MILL_OK;
    EXPECT_EQ(stm_comm_rebuild(c, nullptr), MILL_OK);
    EXPECT_EQ(stm_comm_wait(c, nullptr), MILL_OK);
}

TEST_F(CommWatch, CloseOfWhatCannotPartAborts)
{
    ASSERT_EQ(open(), MILL_OK);
    ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK);
    script.then({MILL_OK, MILL_ERR_AGAIN}); /* well, and then its end does not come */
    stm_comm_close(&c);
    EXPECT_EQ(c, nullptr);
    EXPECT_EQ(script.finished, 1);
    EXPECT_EQ(script.aborted, 1);
}

TEST_F(CommWatch, OpenTellsWhyNot)
{
    script.open = MILL_ERR_UNSUPPORTED;
    EXPECT_EQ(open(), MILL_ERR_UNSUPPORTED);
    EXPECT_EQ(c, nullptr);
    EXPECT_STRNE(err.msg, "");
}
