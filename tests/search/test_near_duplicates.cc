/*
 * The near-duplicates pipeline with 64 documents and a generated BERT of two layers on four simulated devices: the same bytes as on the
 * host; every device ran kernels and NCCL moved bytes.
 */
#include "near_run.h"

using namespace mt;

namespace {

const BertShape kShape = {"small", 2, 32, 2, 64, 40, 32, 2, false, false, true, 1e-12};

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
    ASSERT_EQ(run("devices", {4, 4}, &err), MILL_RUN_DONE) << err.msg;
    stm_sim_nccl_moved(&operations[1], &bytes[1]);
    EXPECT_EQ(near_members(file("devices", "groups.jsonl")), near_members(want[0]));
    EXPECT_GE(near_members(want[0]).size(), 4u);
    for (int i = 0; i < 4; i++) EXPECT_GT(stm_sim_kernels(i), kernels[i]) << "device " << i;
    EXPECT_GT(bytes[1], bytes[0]);
    EXPECT_GT(stm_sim_calls("cublas*"), products) << "the encoder multiplied there";
    EXPECT_EQ(stm_sim_live("*"), 0);
}
