/*
 * The near-duplicates pipeline, small, with each call of CUDA, cuBLAS and NCCL failing in turn, teardown included, and each piece
 * of work as it runs: the right bytes, or a run that fails with a cause and goes on where it stopped; nothing is left behind and
 * nothing hangs. Under sanitizers some of the calls.
 */
#include "near_run.h"
#include "support/sanitized.h"

using namespace mt;

namespace {

constexpr long kPolls = 16;

const BertShape kTiny = {"tiny", 1, 8, 1, 8, 40, 32, 2, false, false, true, 1e-12};
const NearRun kDevices = {2, 1, "stop", true};

class EveryCall : public NearPipeline {
protected:
    EveryCall() : NearPipeline(kTiny, 8, 6, 2) {}
    void SetUp() override
    {
        NearPipeline::SetUp();
        ASSERT_EQ(run("host", {}, &err), MILL_RUN_DONE) << err.msg;
        ASSERT_EQ(run("whole", kDevices, &err), MILL_RUN_DONE) << err.msg;
        host = files("host"), want = files("whole");
        EXPECT_NE(host, want) << "the encoder's sums on devices are in another order";
        EXPECT_EQ(near_members(want.first), near_members(host.first));
        ASSERT_GE(near_members(want.first).size(), 1u);
        ASSERT_EQ(std::count(want.second.begin(), want.second.end(), '\n'), 8);
    }
    typedef std::pair<std::string, std::string> Files; /* groups, neighbours */
    Files files(const std::string &name) const { return {file(name, "groups.jsonl"), file(name, "near.jsonl")}; }
    /* Every call of every function of a library that the whole run has called. */
    void sweep(const char *library, int code)
    {
        std::vector<std::string> functions;
        for (int i = 0; const char *name = stm_sim_called(i); i++)
            if (strncmp(name, library, strlen(library)) == 0) functions.push_back(name);
        ASSERT_FALSE(functions.empty());
        each(library, functions, code, false, rounds(1, 23));
        EXPECT_GT(all[2] + all[3], 0);
    }
    /* Calls of these functions, or pieces of such work (@p async), each @p stride-th. */
    void each(const char *what, const std::vector<std::string> &functions, int code, bool async, long stride)
    {
        for (const std::string &f : functions) {
            int ends[4] = {};
            for (long k = 1;; k += stride) {
                SCOPED_TRACE(testing::Message() << f << " " << k);
                ASSERT_LT(k, 5000);
                const int end = point(f.c_str(), k, code, async);
                if (HasFatalFailure() || end < 0) break;
                ends[end]++;
                points++;
                if (f == "cudaEventQuery" && k >= kPolls) break; /* how often it is asked depends on time */
            }
            if (HasFatalFailure()) return;
            std::printf("%-32s %4d right, %3d on the host, %3d failed at load, %3d later, and went on\n", f.c_str(), ends[0],
                        ends[1], ends[2], ends[3]);
            for (int i = 0; i < 4; i++) all[i] += ends[i];
        }
        std::printf("%s: %d points: %d right, %d on the host, %d failed at load, %d later\n", what, points, all[0], all[1],
                    all[2], all[3]);
    }
    /* 0 right, 1 right on the host, 2 failed at load, 3 failed later; -1: there is no k-th call. */
    int point(const char *api, long k, int code, bool async)
    {
        NearRun on = kDevices;
        stm_sim_fault_clear();
        stm_sim_fault(api, k, code, async);
        const mill_run_state state = run("faulty", on, &err);
        const bool fired = stm_sim_fault_fired() != 0;
        int end = 0;
        stm_sim_fault_clear();
        stm_sim_revive();
        if (state != MILL_RUN_DONE) {
            EXPECT_STRNE(err.msg, "");
            end = state == MILL_RUN_LOAD_FAILED ? 2 : 3;
            on.fresh = false;
            /* a run that could not load its steps has nothing to go on from: now and then it is looked at all the same */
            if (end == 3 || k % 16 == 1) {
                EXPECT_EQ(run("faulty", on, &err), MILL_RUN_DONE) << "goes on: " << err.msg;
            }
        }
        EXPECT_EQ(stm_sim_live("*"), 0);
        EXPECT_STREQ(stm_sim_take_finding(), "");
        if (end == 2 && k % 16 != 1) return end;
        EXPECT_EQ(imputed, 0);
        const Files now = files("faulty");
        EXPECT_TRUE(now == want || now == host) << "other bytes";
        if (end == 0 && now == host) end = 1; /* the driver was not to be had when devices were looked for */
        return fired ? end : -1;
    }
    int points = 0, all[4] = {};
    Files host, want;
};

} // namespace

TEST_F(EveryCall, OfCuda) { sweep("cuda", 0); }
TEST_F(EveryCall, OfCublas) { sweep("cublas", 0); }
TEST_F(EveryCall, OfNccl) { sweep("nccl", ncclInternalError); }

TEST_F(EveryCall, OfTeardown)
{
    const std::vector<std::string> functions = {
        "cudaFree",         "cudaFreeHost",    "cudaEventDestroy", "cudaStreamDestroy", "cudaGraphExecDestroy",
        "cudaGraphDestroy", "cublasLtDestroy", "ncclCommFinalize", "ncclCommDestroy",   "ncclCommAbort"};
    for (const std::string &f : functions) {
        if (f != "ncclCommAbort") { /* there is nothing to abort in a run that goes well */
            EXPECT_GT(stm_sim_calls(f.c_str()), 0) << f;
        }
    }
    each("teardown", functions, 0, false, does_every_case() ? 1 : rounds(7, 47));
    EXPECT_EQ(all[0], points) << "what fails when all is done harms nothing";
}

/* Kernels, copies and collectives that fail as they run; the first two take their device with them. */
TEST_F(EveryCall, OfWorkThatRuns)
{
    const long stride = does_every_case() ? 1 : rounds(5, 47);
    each("work", {"kernel", "copy", "memset", "gemm"}, cudaErrorIllegalAddress, true, stride);
    each("work of NCCL", {"nccl"}, ncclInternalError, true, stride);
    EXPECT_GT(all[3], 0);
}
