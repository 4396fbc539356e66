/*
 * Every built-in step type that works on the host while memory runs out: each allocation that steps and models make for themselves
 * fails once, and each that the engine makes, theirs through the public interface among them, from the check of the pipeline to the
 * last row. The run ends. It could not begin, or failed, and says that memory is out; or its rows are those of the undisturbed run,
 * but for rows that an error record stands for. Nothing leaks.
 */
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "unit/models/model_maker.h"
#include "support/alloc_points.h"
#include "support/fail_nth.h"
#include "support/sanitized.h"

extern "C" {
#include "batch/ipc.h"
#include "exec/run.h"
#include "pipeline/pipeline.h"

void *__real_malloc(size_t n);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
}

namespace {

struct Case {
    const char *name, *steps;
    std::vector<const char *> outputs;
    bool libraries = false; /* what they allocate themselves is nanoarrow's, which loses a block when a larger one is refused */
};

const Case kCases[] = {
    {"rows",
     "  in: {type: read_jsonl, path: [in.jsonl, in.jsonl.gz], columns: {id: int64, text: utf8, list: 'list<int64>'}, extra: rest, "
     "batch_size: 4}\n"
     "  long: {type: filter, from: in, where: 'length(text) > 1 and id != 3'}\n"
     "  pick: {type: select, from: long, keep: [id, text, list], rename: {text: t}, cast: {id: utf8}}\n"
     "  line: {type: template, from: pick, template: '{id}: {t}', output: line}\n"
     "  each: {type: explode, from: line, column: list, index: at}\n"
     "  out: {type: write_jsonl, from: each, path: out.jsonl, errors: true}\n"
     "  packed: {type: write_jsonl, from: line, path: out.jsonl.zst, part_rows: 5}\n",
     {"out.jsonl"}},
    {"guessed columns and branches",
     "  in: {type: read_jsonl, path: good.jsonl, batch_size: 4}\n"
     "  route: {type: route_by, from: in, to: {low: a, high: b}, when: {low: id < 6, high: id >= 6}, mixed: most, "
     "input_batch_size: 3}\n"
     "  a: {type: template, from: route, template: 'low {id}', output: what}\n"
     "  b: {type: template, from: route, template: 'high {id}', output: what}\n"
     "  few: {type: limit, from: {converge: [a, b]}, rows: 9, skip: 1}\n"
     "  out: {type: write_jsonl, from: few, path: out.jsonl, errors: true}\n",
     {"out.jsonl"}},
    {"arrow",
     "  in: {type: read_arrow, path: in.arrow, batch_size: 4}\n"
     "  out: {type: write_jsonl, from: in, path: out.jsonl, errors: true}\n"
     "  columns: {type: write_arrow, from: in, path: out.arrow}\n",
     {"out.jsonl"},
     true},
    {"vectors",
     "  in: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8}, extra: '', batch_size: 4}\n"
     "  embed: {type: embed_text, from: in, model: model, on_error: stop}\n"
     "  near: {type: nearest_neighbours, from: embed, k: 2}\n"
     "  out: {type: write_jsonl, from: near, path: near.jsonl, errors: true}\n"
     "  groups: {type: deduplicate, from: embed, threshold: 0.99}\n"
     "  out2: {type: write_jsonl, from: groups, path: groups.jsonl, errors: true}\n",
     {"near.jsonl", "groups.jsonl"}},
    {"vectors in bf16",
     "  in: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8}, extra: '', batch_size: 4}\n"
     "  embed: {type: embed_text, from: in, model: model, precision: bf16}\n"
     "  out: {type: write_jsonl, from: embed, path: out.jsonl, errors: true}\n",
     {"out.jsonl"}},
    {"signatures",
     "  in: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8}, extra: '', batch_size: 4}\n"
     "  sign: {type: minhash_text, from: in, on_error: stop}\n"
     "  groups: {type: deduplicate, from: sign, inputs: {embedding: signature}, threshold: 0.8}\n"
     "  out: {type: write_jsonl, from: groups, path: groups.jsonl, errors: true}\n",
     {"groups.jsonl"}},
    {"programs",
     "  in: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8}, extra: '', batch_size: 6}\n"
     "  kept: {type: command, from: in, argv: [cat], send: [id], columns: {id: int64}, outputs: {id: same}, env: {A: b}}\n"
     "  rows: {type: command_rows, from: kept, argv: [cat], send: [id], columns: {id: int64}, outputs: {id: again}}\n"
     "  out: {type: write_jsonl, from: rows, path: out.jsonl, errors: true}\n",
     {"out.jsonl"}},
};

void *plain_alloc(size_t bytes, size_t align, void *)
{
    void *p = nullptr;
    return align <= alignof(max_align_t) ? __real_malloc(bytes) : posix_memalign(&p, align, bytes) == 0 ? p : nullptr;
}
void *plain_resize(void *p, size_t bytes, void *) { return __real_realloc(p, bytes); }
void plain_release(void *p, void *) { __real_free(p); }
const stm_allocator kPlain = {plain_alloc, plain_resize, plain_release, nullptr};

using Lines = std::vector<std::string>;

struct End {
    bool done = false, fired = false;
    mill_error error = {};
    int64_t errors = 0;
    std::vector<Lines> lines; /* of each output, without those of rows with an error */
    int64_t marked = 0;       /* rows with an error */
};

class FaultSteps : public testing::TestWithParam<size_t> {
protected:
    void SetUp() override
    {
        stm_allocator_set(&kPlain); /* what the engine asks for is failed by its own fault points */
        std::string rows;
        for (int i = 0; i < 12; i++)
            rows += "{\"id\": " + std::to_string(i) + ", \"text\": " +
                    (i == 5 ? "null" : "\"w" + std::to_string(5 + i % 3) + " w9 w" + std::to_string(7 + i % 3) + "\"") +
                    ", \"list\": [" + std::to_string(i) + ", 1], \"more\": 1.5}\n";
        mt::write_file(folder_.path() + "/good.jsonl", rows);
        mt::write_file(folder_.path() + "/in.jsonl", rows + "not JSON\n{\"id\": 99999999999999999999999999, \"text\": \"w5\"}\n");
        gzFile gz = gzopen((folder_.path() + "/in.jsonl.gz").c_str(), "wb");
        ASSERT_NE(gz, nullptr);
        gzwrite(gz, rows.data(), static_cast<unsigned>(rows.size()));
        gzclose(gz);
        mt::Bert({"small", 1, 16, 2, 32, 40, 32, 2, false, false, true, 1e-12}).write(folder_.path() + "/model");
        const Case rows_of_arrow = {"",
                                    "  in: {type: read_jsonl, path: in.jsonl, columns: {id: int64, text: utf8, list: "
                                    "'list<int64>'}, extra: '', batch_size: 4}\n"
                                    "  out: {type: write_arrow, from: in, path: ../in.arrow}\n",
                                    {}};
        ASSERT_TRUE(go(rows_of_arrow, nullptr, nullptr).done);
    }
    void TearDown() override { stm_allocator_set(nullptr); }

    End go(const Case &c, const std::function<void()> &arm, const std::function<bool()> &disarm)
    {
        End end;
        const std::string text = std::string("stepmill: 1\nname: p\nmax_errors: 1000\nsteps:\n") + c.steps,
                          dir = folder_.path() + "/run";
        mill_pipeline *p = nullptr;
        stm_arena arena = {};
        stm_graph graph = {};
        stm_plan *plan = nullptr;
        stm_run *r = nullptr;
        std::atomic<int64_t> records{0};
        stm_run_opts o = {};
        std::filesystem::remove_all(dir);
        std::filesystem::create_directory(dir);
        o.struct_size = sizeof o;
        o.run_dir = dir.c_str();
        o.threads = 1;
        o.on_error = [](const stm_error_record *, void *user) { ++*static_cast<std::atomic<int64_t> *>(user); };
        o.user = &records;
        mill_status st = mill_pipeline_parse(text.data(), text.size(), "p.yaml", folder_.path().c_str(), &p, &end.error);
        EXPECT_EQ(st, MILL_OK) << end.error.msg;
        if (arm) arm(); /* reading YAML has tests of its own, and so have runs that last */
        st = stm_pipeline_plan(p, o.run_dir, &arena, &graph, &plan, &end.error);
        if (st == MILL_OK) st = stm_run_start(&plan, &o, &r, &end.error);
        if (r != nullptr) {
            const stm_run_end how = stm_run_wait(r, 60.0, &end.error);
            if (how == STM_END_RUNNING) {
                fprintf(stderr, "the run does not end\n");
                abort();
            }
            end.done = how == STM_END_DONE;
        }
        stm_run_destroy(&r);
        stm_plan_destroy(&plan);
        stm_arena_fini(&arena);
        mill_pipeline_destroy(&p);
        end.errors = records;
        if (disarm) end.fired = disarm();
        for (const char *name : c.outputs) {
            std::istringstream in(mt::read_file(dir + "/" + name));
            end.lines.emplace_back();
            for (std::string line; std::getline(in, line);)
                if (line.find("\"_error\":null") != std::string::npos) end.lines.back().push_back(line);
                else end.marked++;
        }
        return end;
    }

    /* Each point once. @p stride: under a sanitizer not all of them. */
    void every(const char *what, const Case &c, const End &whole, int64_t stride, const std::function<void(int64_t)> &arm,
               const std::function<bool()> &disarm)
    {
        int64_t points = 0, refused = 0, cost_rows = 0;
        for (;; points += stride) {
            SCOPED_TRACE(std::string(what) + ", point " + std::to_string(points));
            const int64_t own = mt_alloc_live();
            const long engine = mt::live();
            const End end = go(c, [&] { arm(points); }, disarm);
            EXPECT_EQ(mt_alloc_live(), own) << "steps leak";
            EXPECT_EQ(mt::live(), engine) << "the engine leaks";
            if (!end.done) {
                EXPECT_TRUE(end.fired);
                EXPECT_TRUE(end.error.status == MILL_ERR_NOMEM || strstr(end.error.msg, "memory") != nullptr)
                    << end.error.status << ": " << end.error.msg;
                refused++;
            } else {
                for (size_t i = 0; i < end.lines.size(); i++) { /* what is not marked is right; what is missing has a record */
                    const Lines &got = end.lines[i], &want = whole.lines[i];
                    size_t at = 0;
                    for (const std::string &line : got) {
                        while (at < want.size() && want[at] != line) at++;
                        EXPECT_LT(at++,
                                  want.size()) << c.outputs[i] << " has a row that is wrong, doubled or out of order: " << line;
                    }
                    if (got.size() < want.size()) {
                        EXPECT_GT(end.errors, whole.errors) << want.size() - got.size() << " rows are missing of " << c.outputs[i];
                    }
                    cost_rows += got.size() < want.size();
                }
                if (!end.fired) { EXPECT_EQ(end.marked, whole.marked); }
            }
            if (!end.fired || HasFailure()) break;
        }
        printf("%-28s %-22s %5lld points: %lld ended the run, %lld cost rows\n", c.name, what, static_cast<long long>(points),
               static_cast<long long>(refused), static_cast<long long>(cost_rows));
        EXPECT_GT(refused + cost_rows, 3);
    }

    mt::TempDir folder_{true};
};

} // namespace

TEST_P(FaultSteps, EveryAllocation)
{
    const Case &c = kCases[GetParam()];
    go(c, nullptr, nullptr); /* what is made once and stays */
    const End whole = go(c, nullptr, nullptr);
    ASSERT_TRUE(whole.done) << whole.error.msg;
    for (const Lines &l : whole.lines) ASSERT_GE(l.size(), 1u);
    if (!c.libraries) every("by steps and models", c, whole, mt::rounds<int64_t>(1, 3), mt_alloc_arm, mt_alloc_disarm);
    if (HasFailure()) return;
    every(
        "by the engine", c, whole, mt::rounds<int64_t>(1, 17), [](int64_t nth) { stm_fault_arm(STM_FAULT_ALLOC, nth); },
        stm_fault_disarm);
}

/* What nanoarrow and flatcc need for the head of a stream, which every run that lasts writes. */
TEST(FaultStreams, EveryAllocationOfTheHead)
{
    mill_error err = {};
    const mill_type *schema = nullptr;
    ASSERT_EQ(mill_type_parse("struct<a: int64, b: utf8, c: json, d: list<float32>, e: struct<x: bool, y: fixed_list<float32>[3]>>",
                              &schema, &err), MILL_OK) << err.msg;
    const auto nowhere = [](void *, const void *, size_t, mill_error *) -> mill_status { return MILL_OK; };
    for (int64_t nth = 0;; nth++) {
        SCOPED_TRACE(nth);
        const int64_t before = mt_alloc_live();
        stm_ipc_writer *w = nullptr;
        err = {};
        mt_alloc_arm(nth);
        const mill_status st = stm_ipc_writer_create(schema, nowhere, nullptr, &w, &err);
        const bool fired = mt_alloc_disarm();
        EXPECT_EQ(st, fired ? MILL_ERR_NOMEM : MILL_OK) << err.msg;
        EXPECT_EQ(w != nullptr, st == MILL_OK);
        stm_ipc_writer_destroy(&w);
        EXPECT_EQ(mt_alloc_live(), before);
        if (HasFailure()) return;
        if (fired) continue;
        EXPECT_GT(nth, 20);
        return;
    }
}

INSTANTIATE_TEST_SUITE_P(Pipelines, FaultSteps, testing::Range<size_t>(0, sizeof kCases / sizeof *kCases), [](const auto &i) {
    std::string name = kCases[i.param].name;
    std::replace(name.begin(), name.end(), ' ', '_');
    return name;
});
