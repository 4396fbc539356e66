/* Searches on four simulated devices: what NCCL moves, memory that runs out, and every CUDA and NCCL call failing in turn. */
#include "search/vectors.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "nccl/stm_sim_nccl.h"
#include "stm_sim.h"
#include "support/fail_nth.h"
#include "support/sanitized.h"

using namespace mt;

namespace {

class SearchFaults : public ::testing::Test {
protected:
    enum { RANKS = 4 };
    void SetUp() override
    {
        std::string why;
        ops = backend("cuda", &why);
        ASSERT_NE(ops, nullptr) << why;
        ASSERT_NE(comm_library("nccl", &why), nullptr) << why;
        v.spoil();
        mill_topk_args a = topk_args(v, v, 3, MILL_COSINE, &want);
        mill_error err = {};
        ASSERT_EQ(mill_topk(&a, &err), MILL_OK) << err.msg;
        mill_pairs_args p = pairs_args(v, 0.6f, MILL_COSINE, &want_pairs);
        ASSERT_EQ(mill_pairs(&p, &err), MILL_OK) << err.msg;
    }
    void TearDown() override
    {
        stm_sim_fault_clear();
        EXPECT_EQ(stm_sim_findings(), 0);
    }
    /* A team made, both searches, the end. MILL_OK: answers are right. */
    mill_status both(mill_error *err) { return both(v, want, want_pairs, RANKS, {0, 40, 0, nullptr}, err); }
    mill_status both(const Vectors &of, const Neighbours &neighbours, const Pairs &pairs, int ranks, stm_search_opts opts,
                     mill_error *err)
    {
        stm_device *devices[RANKS] = {};
        stm_team *team = nullptr;
        mill_status st = MILL_OK;
        for (int i = 0; i < ranks && st == MILL_OK; i++) st = stm_device_open(ops, i, &devices[i], err);
        if (st == MILL_OK) st = stm_team_open(devices, ranks, 0, &team, err);
        if (st == MILL_OK) {
            Neighbours got;
            const mill_topk_args a = topk_args(of, of, 3, MILL_COSINE, &got);
            st = stm_topk_team(team, &a, &opts, err);
            EXPECT_TRUE(st != MILL_OK || got == neighbours);
        }
        if (st == MILL_OK) {
            Pairs got;
            const mill_pairs_args p = pairs_args(of, 0.6f, MILL_COSINE, &got);
            st = stm_pairs_team(team, &p, &opts, err);
            EXPECT_TRUE(st != MILL_OK || same_pairs(got, pairs));
        }
        stm_team_close(&team);
        for (int i = 0; i < ranks; i++) stm_device_unref(&devices[i]);
        return st;
    }
    /* Fails call k of an API for k = 1, 1 + step, ...; answers are right or there is a cause, and nothing is left behind. */
    void sweep(const char *api, int code, int step, int *right, int *failed)
    {
        const long before = live();
        *right = *failed = 0;
        for (int k = 1;; k += step) {
            mill_error err = {};
            ASSERT_LT(k, 20000);
            stm_sim_fault_clear();
            stm_sim_fault(api, k, code, 0);
            const mill_status st = both(&err);
            const bool fired = stm_sim_fault_fired() != 0;
            stm_sim_fault_clear();
            stm_sim_revive();
            EXPECT_EQ(st == MILL_OK, err.msg[0] == '\0') << api << " " << k << ": " << err.msg;
            EXPECT_EQ(live(), before) << api << " " << k;
            EXPECT_EQ(stm_sim_live("*"), 0) << api << " " << k;
            ASSERT_EQ(stm_sim_findings(), 0) << api << " " << k << ": " << stm_sim_take_finding();
            if (!fired) {
                EXPECT_EQ(st, MILL_OK);
                return;
            }
            (st == MILL_OK ? *right : *failed)++;
        }
    }
    Vectors v{70, 5, 11};
    Neighbours want;
    Pairs want_pairs;
    const stm_device_ops *ops = nullptr;
};

} // namespace

TEST_F(SearchFaults, EveryDeviceWorksAndNcclMovesWhatItShould)
{
    long operations[2], kernels[2][RANKS];
    long long bytes[2];
    mill_error err = {};
    stm_sim_nccl_moved(&operations[0], &bytes[0]);
    for (int i = 0; i < RANKS; i++) kernels[0][i] = stm_sim_kernels(i);
    ASSERT_EQ(both(&err), MILL_OK) << err.msg;
    stm_sim_nccl_moved(&operations[1], &bytes[1]);
    for (int i = 0; i < RANKS; i++) EXPECT_GT(stm_sim_kernels(i), kernels[0][i]) << "device " << i;
    /* One chunk of 72 places, of which each of 4 ranks takes 3 shares of 18: rows and lengths; then the lists of the others. */
    EXPECT_GE(bytes[1] - bytes[0], 4 * 3 * 18 * (5 * 4 + 8) + 4 * 3 * 72 * 3 * 8);
    EXPECT_GE(operations[1] - operations[0], 3 * RANKS);
}

/* Blocks and chunks are halved until they fit; the answers stay. */
TEST_F(SearchFaults, OutOfDeviceMemoryHalvesTheBlocks)
{
    const Vectors more(300, 3, 12);
    Neighbours neighbours;
    Pairs pairs;
    mill_error err = {};
    mill_topk_args a = topk_args(more, more, 3, MILL_COSINE, &neighbours);
    ASSERT_EQ(mill_topk(&a, &err), MILL_OK);
    mill_pairs_args p = pairs_args(more, 0.6f, MILL_COSINE, &pairs);
    ASSERT_EQ(mill_pairs(&p, &err), MILL_OK);
    for (int k : {1, 2}) { /* the arena of the first search, of the second */
        stm_sim_fault_clear();
        stm_sim_fault("cudaMalloc", k, cudaErrorMemoryAllocation, 0);
        EXPECT_EQ(both(more, neighbours, pairs, 1, {}, &err), MILL_OK) << k << ": " << err.msg;
        EXPECT_NE(stm_sim_fault_fired(), 0) << k;
    }
    stm_sim_fault_clear();
    stm_sim_fault("cudaMalloc", -1, cudaErrorMemoryAllocation, 0);
    EXPECT_EQ(both(more, neighbours, pairs, 1, {}, &err), MILL_ERR_DEVICE_MEM) << "never any";
    EXPECT_STRNE(err.msg, "");
}

TEST_F(SearchFaults, EveryNcclCall)
{
    int right, failed;
    const int stride = does_every_case() ? 1 : 3;
    sweep("nccl*", ncclInternalError, stride, &right, &failed);
    std::printf("NCCL calls, 1 in %d: %d runs right, %d failed with a cause\n", stride, right, failed);
    EXPECT_GT(right, 5) << "a communicator that fails is built again";
}

TEST_F(SearchFaults, EveryCudaCall)
{
    int right, failed;
    const int stride = does_every_case() ? 1 : 13;
    sweep("cuda*", 0, stride, &right, &failed);
    std::printf("CUDA calls, 1 in %d: %d runs right, %d failed with a cause\n", stride, right, failed);
    EXPECT_GT(failed, 10);
}

/* Work that fails as it runs. */
TEST_F(SearchFaults, NcclFailsAsItRuns)
{
    for (int k : {1, 6, 12}) {
        mill_error err = {};
        stm_sim_fault_clear();
        stm_sim_fault("nccl", k, ncclInternalError, 1);
        EXPECT_EQ(both(&err), MILL_OK) << k << ": " << err.msg;
        EXPECT_NE(stm_sim_fault_fired(), 0) << k;
    }
}
