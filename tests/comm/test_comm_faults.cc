/* NCCL that fails, on simulated devices: each call in turn, work that fails as it runs, a rank that does not come. */
#include "comm/ranks.h"

#include <atomic>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include "nccl/stm_sim_nccl.h"
#include "stm_sim.h"

namespace {

class CommFaults : public ::testing::Test {
protected:
    void SetUp() override
    {
        std::string why;
        ops = mt::comm_library("nccl", &why);
        ASSERT_NE(ops, nullptr) << why;
        ranks = std::make_unique<mt::Ranks>(ops, n);
        for (int r = 0; r < n; r++) {
            buffers.push_back(std::make_unique<mt::Buffer>(*ranks, r, 64));
            calls.push_back(mt::call_of(STM_COMM_ALL_REDUCE, r, 16, buffers.back()->device(), buffers.back()->device()));
        }
        fill();
    }
    void TearDown() override
    {
        stm_sim_fault_clear();
        buffers.clear();
        ranks.reset();
        EXPECT_EQ(stm_sim_findings(), 0);
    }
    void fill()
    {
        for (auto &b : buffers) {
            b->idle();
            for (int i = 0; i < 16; i++) reinterpret_cast<float *>(b->host())[i] = 1.0f;
            b->up();
        }
    }
    /* A group from fresh contents gives the right sums. */
    void works(stm_comm *c)
    {
        mill_error err = {};
        fill();
        ASSERT_EQ(stm_comm_submit(c, calls.data(), n, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK) << err.msg;
        for (auto &b : buffers) {
            b->down();
            ASSERT_EQ(reinterpret_cast<float *>(b->host())[15], static_cast<float>(n));
        }
    }
    const int n = 3;
    const stm_comm_ops *ops = nullptr;
    std::unique_ptr<mt::Ranks> ranks;
    std::vector<std::unique_ptr<mt::Buffer>> buffers;
    std::vector<stm_comm_call> calls;
};

} // namespace

TEST_F(CommFaults, EveryCallOfNcclInTurn)
{
    int points = 0;
    for (int k = 1;; k++) {
        ASSERT_LT(k, 200);
        stm_comm *c = nullptr;
        mill_error err = {};
        stm_sim_fault_clear();
        stm_sim_fault("nccl*", k, ncclInternalError, 0);
        mill_status st = stm_comm_open(ops, ranks->streams(), n, 0, &c, &err);
        if (st == MILL_OK) st = stm_comm_wait(c, &err);
        if (st == MILL_OK) st = stm_comm_submit(c, calls.data(), n, &err);
        if (st == MILL_OK) st = stm_comm_wait(c, &err);
        const bool fired = stm_sim_fault_fired() != 0;
        stm_sim_fault_clear();
        EXPECT_EQ(st == MILL_OK, !fired) << k << ": " << err.msg;
        if (fired) {
            EXPECT_EQ(st, MILL_ERR_IO) << k << ": " << err.msg;
        }
        if (fired && c != nullptr) {
            ASSERT_EQ(stm_comm_rebuild(c, &err), MILL_OK) << k;
            err = {};
            ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK) << k << err.msg;
            works(c);
        }
        stm_comm_close(&c);
        if (!fired) break;
        points++;
    }
    EXPECT_GE(points, 3 + n + n) << "id, group start and end, a rank each, a call each";
}

TEST_F(CommFaults, WorkThatFailsAsItRuns)
{
    struct Row {
        ncclResult_t code;
        mill_status status;
        stm_verdict verdict;
    };
    for (const Row &row : {Row{ncclSystemError, MILL_ERR_IO, STM_RETRY}, Row{ncclRemoteError, MILL_ERR_IO, STM_RETRY},
                           Row{ncclInternalError, MILL_ERR_IO, STM_RETRY}}) {
        mt::Comm c(ops, *ranks);
        mill_error err = {};
        stm_sim_fault("nccl", 2, row.code, 1);
        ASSERT_EQ(stm_comm_submit(c, calls.data(), n, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_comm_wait(c, &err), row.status) << err.msg;
        EXPECT_EQ(stm_comm_verdict(err.status), row.verdict);
        stm_sim_fault_clear();
        err = {};
        ASSERT_EQ(stm_comm_rebuild(c, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK) << err.msg;
        works(c);
    }
}

/* One rank's stream is held up by something else: the others wait, the watch ends it. */
TEST_F(CommFaults, ARankThatDoesNotCome)
{
    static std::atomic<bool> held;
    held = true;
    const int64_t timeout = 200000000; /* ns */
    {
        mt::Comm c(ops, *ranks, timeout);
        mill_error err = {};
        ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
        ASSERT_EQ(cudaLaunchHostFunc(static_cast<cudaStream_t>(stm_stream_native(ranks->stream(1))),
                                     [](void *) {
                                         while (held) {
                                             const struct timespec t = {0, 1000000};
                                             nanosleep(&t, nullptr);
                                         }
                                     },
                                     nullptr),
                  cudaSuccess);
        ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
        ASSERT_EQ(stm_comm_submit(c, calls.data(), n, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_comm_wait(c, &err), MILL_ERR_TIMEOUT) << err.msg;
        err = {};
        EXPECT_EQ(stm_comm_rebuild(c, &err), MILL_ERR_DEVICE) << "the held stream does not come back in time: " << err.msg;
        held = false;
        err = {};
        ASSERT_EQ(stm_comm_rebuild(c, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK) << err.msg;
        works(c);
    }
}

TEST_F(CommFaults, BytesMoved)
{
    long operations[2];
    long long bytes[2];
    mt::Comm c(ops, *ranks);
    stm_sim_nccl_moved(&operations[0], &bytes[0]);
    works(c);
    stm_sim_nccl_moved(&operations[1], &bytes[1]);
    EXPECT_EQ(operations[1] - operations[0], n);
    EXPECT_EQ(bytes[1] - bytes[0], static_cast<long long>(n) * 64);
}
