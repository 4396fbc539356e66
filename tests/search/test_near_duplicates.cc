/*
 * The near-duplicates pipeline with 64 documents and a generated BERT of two layers on four simulated devices: the same bytes as on the
 * host; every device ran kernels and NCCL moved bytes. With every k-th CUDA and NCCL call failing: the right rows, or a failed run with
 * a cause that goes on where it stopped; nothing is left behind and nothing hangs.
 */
#include "../unit/models/model_maker.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "nccl/stm_sim_nccl.h"
#include "stm_sim.h"
#include "support/fail_nth.h"

extern "C" {
#include "stepmill/run.h"
}

namespace {

const mt::BertShape kShape = {"small", 2, 32, 2, 64, 40, 32, 2, false, false, true, 1e-12};

/* 64 texts, of which each fourth is like the first of its four but for its last word. */
std::string documents()
{
    std::string out;
    for (int i = 0; i < 64; i++) {
        std::string text;
        for (int w = 0; w < 12; w++)
            text += " w" + std::to_string(5 + ((i % 4 == 3 && w < 11 ? i - 3 : i) * 7 + w * (i / 4 + 1) * 3) % 30);
        out += "{\"name\":\"d" + std::to_string(i) + "\",\"text\":\"" + text + "\"}\n";
    }
    return out;
}

class NearDuplicates : public ::testing::Test {
protected:
    void SetUp() override
    {
        mt::Bert(kShape).write(dir.path() + "/model");
        mt::write_file(dir.path() + "/docs.jsonl", documents());
        ASSERT_EQ(run("host", 0, 1, &err), MILL_RUN_DONE) << err.msg;
        want[0] = mt::read_file(dir.path() + "/host/run/groups.jsonl"),
        want[1] = mt::read_file(dir.path() + "/host/run/near.jsonl");
        ASSERT_GT(std::count(want[0].begin(), want[0].end(), '\n'), 3);
        ASSERT_EQ(std::count(want[1].begin(), want[1].end(), '\n'), 64);
    }
    void TearDown() override
    {
        stm_sim_fault_clear();
        EXPECT_EQ(stm_sim_findings(), 0);
    }
    /* Both searches on @p gpus devices each, outputs and run directory in a folder of that name. */
    mill_run_state run(const std::string &name, int gpus, int64_t fresh, mill_error *e, bool embed = false)
    {
        const std::string there = dir.path() + "/" + name;
        std::filesystem::create_directories(there);
        const std::string on = gpus > 0 ? "    resources: {gpus: " + std::to_string(gpus) + ", share: true}\n" : "";
        const std::string yaml =
            "stepmill: 1\nname: near-duplicates\nsteps:\n"
            "  docs: {type: read_jsonl, path: ../docs.jsonl, columns: {name: utf8, text: utf8}, batch_size: 16}\n"
            "  embed: {type: embed_text, from: docs, model: ../model" +
            std::string(embed ? ", replicas: 4, resources: {gpus: 1, share: true}" : "") +
            "}\n"
            "  groups:\n    type: deduplicate\n    from: embed\n    threshold: 0.97\n    columns: [name]\n" +
            on + "  near:\n    type: nearest_neighbours\n    from: embed\n    k: 3\n    id: name\n" + on +
            "  slim: {type: select, from: near, drop: [embedding, text]}\n"
            "  out: {type: write_jsonl, from: groups, path: groups.jsonl}\n"
            "  near_out: {type: write_jsonl, from: slim, path: near.jsonl}\n";
        mill_pipeline *p = nullptr;
        mill_run *r = nullptr;
        mill_run_options o = MILL_RUN_OPTIONS_INIT;
        mill_run_state state = MILL_RUN_LOAD_FAILED;
        const std::string run_dir = there + "/run";
        *e = {};
        o.dir = run_dir.c_str(), o.fresh = fresh != 0, o.threads = 2;
        mill_status st = mill_pipeline_parse(yaml.data(), yaml.size(), "p.yaml", there.c_str(), &p, e);
        if (st == MILL_OK) st = mill_run_start(p, &o, &r, e);
        if (st == MILL_OK) {
            state = mill_run_wait(r, 120, e);
            EXPECT_NE(state, MILL_RUN_RUNNING) << "hangs";
            mill_error late = {};
            (void)mill_run_finish(r, &late);
            mill_run_totals t = {};
            t.struct_size = sizeof t;
            mill_run_get_totals(r, &t);
            imputed = t.rows_imputed;
        }
        mill_run_destroy(&r);
        mill_pipeline_destroy(&p);
        return state;
    }
    void expect_same(const std::string &name)
    {
        EXPECT_TRUE(mt::read_file(dir.path() + "/" + name + "/run/groups.jsonl") == want[0]) << "other bytes in groups.jsonl";
        EXPECT_TRUE(mt::read_file(dir.path() + "/" + name + "/run/near.jsonl") == want[1]) << "other bytes in near.jsonl";
    }
    void sweep(const char *api, int code, int first, int step)
    {
        int right = 0, failed = 0;
        for (int k = first;; k += step) {
            SCOPED_TRACE(testing::Message() << api << " " << k);
            ASSERT_LT(k, 20000);
            stm_sim_fault_clear();
            stm_sim_fault(api, k, code, 0);
            mill_run_state state = run("faulty", 4, 1, &err);
            const bool fired = stm_sim_fault_fired() != 0;
            stm_sim_fault_clear();
            stm_sim_revive();
            if (state == MILL_RUN_DONE) {
                right++;
            } else {
                failed++;
                EXPECT_STRNE(err.msg, "");
                EXPECT_EQ(run("faulty", 4, 0, &err), MILL_RUN_DONE) << "goes on: " << err.msg;
            }
            expect_same("faulty");
            EXPECT_EQ(stm_sim_live("*"), 0);
            ASSERT_EQ(stm_sim_findings(), 0) << stm_sim_take_finding();
            if (!fired) break;
        }
        std::printf("%s: %d runs right, %d failed with a cause and went on\n", api, right, failed);
        EXPECT_GT(failed, 0);
    }
    mt::TempDir dir;
    std::string want[2];
    int64_t imputed = 0; /* of the last run */
    mill_error err = {};
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
        ASSERT_EQ(run("devices", gpus, 1, &err), MILL_RUN_DONE) << err.msg;
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

/* The members of each group; scores are left out: vectors of the device's encoder differ in their last bits. */
static std::vector<std::string> members(const std::string &lines)
{
    std::vector<std::string> out;
    for (size_t at = 0; (at = lines.find("\"rows\":[", at)) != std::string::npos; at++)
        out.push_back(lines.substr(at, lines.find(']', at) - at));
    return out;
}

TEST_F(NearDuplicates, SameGroupsWithTheEncoderOnDevicesToo)
{
    long kernels[4], operations[2];
    long long bytes[2];
    const long products = stm_sim_calls("cublas*");
    for (int i = 0; i < 4; i++) kernels[i] = stm_sim_kernels(i);
    stm_sim_nccl_moved(&operations[0], &bytes[0]);
    ASSERT_EQ(run("devices", 4, 1, &err, true), MILL_RUN_DONE) << err.msg;
    stm_sim_nccl_moved(&operations[1], &bytes[1]);
    EXPECT_EQ(members(mt::read_file(dir.path() + "/devices/run/groups.jsonl")), members(want[0]));
    EXPECT_GE(members(want[0]).size(), 4u);
    for (int i = 0; i < 4; i++) EXPECT_GT(stm_sim_kernels(i), kernels[i]) << "device " << i;
    EXPECT_GT(bytes[1], bytes[0]);
    EXPECT_GT(stm_sim_calls("cublas*"), products) << "the encoder multiplied there";
    EXPECT_EQ(stm_sim_live("*"), 0);
}

/* A product that fails costs its batch, whose rows are null and counted; or the run fails with a cause and goes on. */
TEST_F(NearDuplicates, CublasCallsFail)
{
    int right = 0, nulls = 0, failed = 0;
    for (int k = 1;; k += 37) {
        SCOPED_TRACE(k);
        ASSERT_LT(k, 5000);
        stm_sim_fault_clear();
        stm_sim_fault("cublas*", k, 0, 0);
        mill_run_state state = run("faulty", 4, 1, &err, true);
        const bool fired = stm_sim_fault_fired() != 0;
        stm_sim_fault_clear();
        stm_sim_revive();
        if (state != MILL_RUN_DONE) {
            failed++;
            EXPECT_STRNE(err.msg, "");
            ASSERT_EQ(run("faulty", 4, 0, &err, true), MILL_RUN_DONE) << "goes on: " << err.msg;
        } else {
            (imputed > 0 ? nulls : right)++;
        }
        if (imputed == 0) {
            EXPECT_EQ(members(mt::read_file(dir.path() + "/faulty/run/groups.jsonl")), members(want[0]));
        }
        EXPECT_EQ(stm_sim_live("*"), 0);
        ASSERT_EQ(stm_sim_findings(), 0) << stm_sim_take_finding();
        if (!fired) break;
    }
    std::printf("cublas*: %d runs right, %d with nulls, %d failed with a cause and went on\n", right, nulls, failed);
    EXPECT_GT(nulls + failed, 0);
}

TEST_F(NearDuplicates, NcclCallsFail) { sweep("nccl*", ncclInternalError, 2, 13); }
TEST_F(NearDuplicates, CudaCallsFail) { sweep("cuda*", 0, 3, 191); }
