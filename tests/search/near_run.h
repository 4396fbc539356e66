/* The near-duplicates pipeline on simulated devices: documents, a generated BERT, groups and neighbours, in whole runs. */
#pragma once
#include "../unit/models/model_maker.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "nccl/stm_sim_nccl.h"
#include "stm_sim.h"
#include "support/fail_nth.h"
#include "support/sim_watch.h"

extern "C" {
#include "stepmill/run.h"
}

namespace mt {

/** What is run, and where. */
struct NearRun {
    int gpus = 0;      /* of each search; 0 = on the host */
    int embedders = 0; /* replicas of the encoder, a device each; 0 = on the host */
    const char *on_error = "impute";
    bool fresh = true;
    bool together = false; /* all on device 0 */
};

/** @p n texts, of which each fourth is like the first of its four but for its last word; from 17 on every 17th is null. */
inline std::string near_documents(int n, int words)
{
    std::string out;
    for (int i = 0; i < n; i++) {
        std::string text;
        for (int w = 0; w < words; w++)
            text += " w" + std::to_string(5 + ((i % 4 == 3 && w < words - 1 ? i - 3 : i) * 7 + w * (i / 4 + 1) * 3) % 30);
        out += "{\"name\":\"d" + std::to_string(i) + "\",\"text\":" + (i > 0 && i % 17 == 0 ? "null" : "\"" + text + "\"") + "}\n";
    }
    return out;
}

/** The members of each group; scores are left out: vectors of the device's encoder differ in their last bits. */
inline std::vector<std::string> near_members(const std::string &lines)
{
    std::vector<std::string> out;
    for (size_t at = 0; (at = lines.find("\"rows\":[", at)) != std::string::npos; at++)
        out.push_back(lines.substr(at, lines.find(']', at) - at));
    return out;
}

class NearPipeline : public ::testing::Test {
protected:
    NearPipeline(const BertShape &shape, int docs, int words, int batch) : shape_(shape), docs_(docs), words_(words), batch_(batch)
    {
    }
    void SetUp() override
    {
        Bert(shape_).write(dir.path() + "/model");
        write_file(dir.path() + "/docs.jsonl", near_documents(docs_, words_));
        ASSERT_TRUE(watch_pools());
    }
    void TearDown() override
    {
        stm_sim_fault_clear();
        stm_place_watch = nullptr;
        EXPECT_EQ(stm_sim_findings(), 0);
    }
    std::string file(const std::string &name, const char *what) const
    {
        return read_file(dir.path() + "/" + name + "/run/" + what);
    }
    /** Outputs and run directory are in a folder of that name. */
    mill_run_state run(const std::string &name, const NearRun &n, mill_error *e)
    {
        const std::string there = dir.path() + "/" + name;
        std::filesystem::create_directories(there);
        const std::string at = n.together ? ", devices: [0]" : "";
        const std::string on = n.gpus > 0 ? "    resources: {gpus: " + std::to_string(n.gpus) + ", share: true" + at + "}\n" : "";
        const std::string yaml =
            "stepmill: 1\nname: near-duplicates\nsteps:\n"
            "  docs: {type: read_jsonl, path: ../docs.jsonl, columns: {name: utf8, text: utf8}, batch_size: " +
            std::to_string(batch_) + "}\n  embed: {type: embed_text, from: docs, model: ../model, on_error: " + n.on_error +
            (n.embedders > 0
                 ? ", replicas: " + std::to_string(n.embedders) + ", resources: {gpus: 1, share: true, memory: 2MiB" + at + "}"
                 : "") +
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
        o.dir = run_dir.c_str(), o.fresh = n.fresh, o.threads = 2;
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
    TempDir dir{true};
    int64_t imputed = 0; /* of the last run */
    mill_error err = {};

private:
    const BertShape shape_;
    const int docs_, words_, batch_;
};

} // namespace mt
