/*
 * The near-duplicates pipeline with 64 documents and a generated BERT of two layers on four simulated devices: the same bytes as on
 * the host; every device ran kernels and NCCL moved bytes.
 */
#include "near_run.h"

using namespace mt;

namespace {

const BertShape kShape = {"small", 2, 32, 2, 64, 40, 32, 2, false, false, true, 1e-12};

long long moved_so_far(const char *direction)
{
    long copies;
    long long bytes;
    stm_sim_copied(direction, &copies, &bytes);
    return bytes;
}

class NearDuplicates : public NearPipeline {
protected:
    NearDuplicates() : NearPipeline(kShape, 64, 12, 16) {}
    void SetUp() override
    {
        NearPipeline::SetUp();
        ASSERT_EQ(run("host", {}, &err), MILL_RUN_DONE) << err.msg;
        want[0] = file("host", "groups.jsonl"), want[1] = file("host", "near.jsonl");
        ASSERT_GT(std::count(want[0].begin(), want[0].end(), '\n'), 3);
        ASSERT_EQ(std::count(want[1].begin(), want[1].end(), '\n'), 64);
    }
    void expect_same(const std::string &name)
    {
        EXPECT_TRUE(file(name, "groups.jsonl") == want[0]) << "other bytes in groups.jsonl";
        EXPECT_TRUE(file(name, "near.jsonl") == want[1]) << "other bytes in near.jsonl";
    }
    std::string want[2];
};

/* Fewer and shorter documents, for what is run many times. */
const BertShape kSmaller = {"smaller", 1, 32, 2, 32, 40, 32, 2, false, false, true, 1e-12};
constexpr long long kDocs = 20, kVectors = 19, kBytes = 32 * 4; /* one text is null; of a vector */

class NearVectors : public NearPipeline {
protected:
    NearVectors() : NearPipeline(kSmaller, kDocs, 6, 4) {}
    /* What the copies of a run moved. */
    struct Moved {
        long long up, down, there; /* bytes: to devices, from them, within and between them */
    };
    Moved moved(const std::string &name, const NearRun &n)
    {
        const auto all = [] { return Moved{moved_so_far("h2d"), moved_so_far("d2h"), moved_so_far("d2d") + moved_so_far("p2p")}; };
        const Moved before = all();
        EXPECT_EQ(run(name, n, &err), MILL_RUN_DONE) << err.msg;
        const Moved now = all();
        return {now.up - before.up, now.down - before.down, now.there - before.there};
    }
};


} // namespace

TEST_F(NearDuplicates, SameBytesOnOneTwoAndFourDevices)
{
    for (int gpus : {1, 2, 4}) {
        SCOPED_TRACE(gpus);
        long kernels[4], operations[2];
        long long bytes[2];
        for (int i = 0; i < 4; i++) kernels[i] = stm_sim_kernels(i);
        stm_sim_nccl_moved(&operations[0], &bytes[0]);
        ASSERT_EQ(run("devices", {gpus}, &err), MILL_RUN_DONE) << err.msg;
        expect_same("devices");
        stm_sim_nccl_moved(&operations[1], &bytes[1]);
        int worked = 0;
        for (int i = 0; i < 4; i++) worked += stm_sim_kernels(i) > kernels[i];
        EXPECT_GE(worked, gpus) << "devices that ran kernels";
        /* queries, lists and blocks that came from other devices: at least each vector once to each of the others */
        if (gpus > 1) {
            EXPECT_GE(bytes[1] - bytes[0], (gpus - 1) * 64 * 32 * 4);
        } else {
            EXPECT_EQ(bytes[1], bytes[0]);
        }
    }
    EXPECT_EQ(stm_sim_live("*"), 0);
}

TEST_F(NearDuplicates, SameGroupsWithTheEncoderOnDevicesToo)
{
    long kernels[4], operations[2];
    long long bytes[2];
    const long products = stm_sim_calls("cublas*");
    for (int i = 0; i < 4; i++) kernels[i] = stm_sim_kernels(i);
    stm_sim_nccl_moved(&operations[0], &bytes[0]);
    const long long across = moved_so_far("p2p");
    ASSERT_EQ(run("devices", {4, 4}, &err), MILL_RUN_DONE) << err.msg;
    stm_sim_nccl_moved(&operations[1], &bytes[1]);
    EXPECT_GT(moved_so_far("p2p") - across, 61 * 32 * 4) << "what others embedded, for queries, for what can be found, for blocks";
    EXPECT_EQ(near_members(file("devices", "groups.jsonl")), near_members(want[0]));
    EXPECT_GE(near_members(want[0]).size(), 4u);
    for (int i = 0; i < 4; i++) EXPECT_GT(stm_sim_kernels(i), kernels[i]) << "device " << i;
    EXPECT_GT(bytes[1], bytes[0]);
    EXPECT_GT(stm_sim_calls("cublas*"), products) << "the encoder multiplied there";
    EXPECT_EQ(stm_sim_live("*"), 0);
}

/* What the encoder made on devices is still there when the searches want it: it comes down once, since the journal has what a
 * global took, and nothing of it goes up: between the steps there is no copy by way of the host, and on one device none between
 * devices. */
TEST_F(NearVectors, StayOnTheDevices)
{
    const Moved alone = moved("alone", {0, 1}); /* the searches on the host */
    EXPECT_GE(alone.down, kDocs * kBytes);
    EXPECT_LT(alone.down, 2 * kDocs * kBytes) << "once";
    for (int gpus : {1, 2, 4}) {
        SCOPED_TRACE(gpus);
        NearRun on = {gpus, 1};
        on.together = gpus == 1;
        const long long across = moved_so_far("p2p");
        const Moved both = moved("both", on);
        if (on.together) {
            EXPECT_EQ(moved_so_far("p2p"), across);
        }
        EXPECT_EQ(file("both", "groups.jsonl"), file("alone", "groups.jsonl"));
        EXPECT_EQ(file("both", "near.jsonl"), file("alone", "near.jsonl"));
        EXPECT_LT(both.up - alone.up, kVectors * kBytes / 2) << "lengths, and places of queries";
        EXPECT_LT(both.down - alone.down, kVectors * kBytes) << "neighbours, pairs, lengths and hashes: no vectors";
        EXPECT_GE(both.there - alone.there, 3 * kVectors * kBytes) << "queries, what can be found, blocks";
    }
    EXPECT_EQ(stm_sim_live("*"), 0);
}

/* Nothing depends on it: where no memory is to be spared for it, where a batch fails, and after a stop. */
TEST_F(NearVectors, GoUpWhereTheyAreNotThere)
{
    const Moved there = moved("there", {1, 1});
    stm_sim_fault_clear();
    stm_sim_fault("cudaMemGetInfo", 1, cudaErrorInvalidValue, 0); /* nobody knows how much memory there is */
    const Moved blind = moved("blind", {1, 1});
    EXPECT_NE(stm_sim_fault_fired(), 0);
    EXPECT_EQ(blind.up - there.up, 3 * kVectors * kBytes);
    EXPECT_EQ(file("blind", "groups.jsonl"), file("there", "groups.jsonl"));
    EXPECT_EQ(file("blind", "near.jsonl"), file("there", "near.jsonl"));
    for (int gpus : {2, 0}) { /* a batch whose work fails; the same with searches on the host */
        stm_sim_fault_clear();
        stm_sim_fault("cublasLtMatmul", 3, 7, 0); /* an invalid value: the device is none the worse for it */
        ASSERT_EQ(run(gpus > 0 ? "failed" : "failed_host", {gpus, 1}, &err), MILL_RUN_DONE) << err.msg;
        EXPECT_NE(stm_sim_fault_fired(), 0);
        EXPECT_GT(imputed, 0);
    }
    EXPECT_EQ(file("failed", "groups.jsonl"), file("failed_host", "groups.jsonl"));
    EXPECT_EQ(file("failed", "near.jsonl"), file("failed_host", "near.jsonl"));
    /* stopped when all was in the journal: what was there is gone, and comes from the host */
    NearRun on = {2, 2};
    stm_sim_fault_clear();
    stm_sim_fault("ncclAllGather", -1, ncclInternalError, 0);
    EXPECT_EQ(run("stopped", on, &err), MILL_RUN_FAILED);
    stm_sim_fault_clear();
    on.fresh = false;
    EXPECT_GE(moved("stopped", on).up, 2 * kVectors * kBytes);
    EXPECT_EQ(near_members(file("stopped", "groups.jsonl")), near_members(file("there", "groups.jsonl")));
    const std::string near = file("stopped", "near.jsonl");
    EXPECT_EQ(std::count(near.begin(), near.end(), '\n'), kDocs);
    EXPECT_EQ(stm_sim_live("*"), 0);
}
