/* nearest_neighbours and deduplicate in whole runs: what they put out, in which order, and what they refuse. */
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "support/fail_nth.h"
#include "support/pipe.h"

extern "C" {
#include "stepmill/ops.h"
#include "steps/builtin.h"
}

using namespace mt;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/* A value as a person would write it. */
std::string show(const mill_column *col, int64_t r)
{
    if (col == nullptr || mill_column_is_null(col, r)) return "null";
    const mill_view v = mill_column_view(col);
    const int64_t i = v.offset + r;
    char text[64];
    switch (v.type->id) {
    case MILL_BOOL: return static_cast<const uint8_t *>(v.data)[i / 8] >> (i % 8) & 1 ? "true" : "false";
    case MILL_INT32: return std::to_string(static_cast<const int32_t *>(v.data)[i]);
    case MILL_INT64: return std::to_string(static_cast<const int64_t *>(v.data)[i]);
    case MILL_FLOAT32: snprintf(text, sizeof text, "%.3g", (double)static_cast<const float *>(v.data)[i]); return text;
    case MILL_UTF8: {
        int64_t n;
        const char *p = mill_column_text(col, r, &n);
        return std::string(p, (size_t)n);
    }
    case MILL_LIST:
    case MILL_FIXED_LIST: {
        const bool fixed = v.type->id == MILL_FIXED_LIST;
        const int64_t from = fixed ? i * v.type->length : v.offsets[i], to = fixed ? from + v.type->length : v.offsets[i + 1];
        std::string s = "[";
        for (int64_t e = from; e < to; e++) s += (e > from ? " " : "") + show(v.children[0], e);
        return s + "]";
    }
    default: return "?";
    }
}

/* Rows of a small corpus. */
struct Doc {
    std::string name;
    std::vector<float> vector; /* empty = null */
};

typedef std::vector<std::string> Lines;

/* source (id, name, vector) -> step -> sink that shows its rows. */
struct Flow {
    Pipe pipe;
    Lines lines;
    std::vector<Doc> docs;
    std::string vector_type;
    std::string vector_column = "embedding";
    Pipe::Opts opts;

    explicit Flow(std::vector<Doc> d, int dim = 2)
        : docs(std::move(d)), vector_type("fixed_list<float32>[" + std::to_string(dim) + "]")
    {
    }

    mill_status emit_docs(mill_replica *r, size_t first, size_t n, mill_emit *out, mill_error *err)
    {
        mill_pool *pool = mill_replica_pool(r);
        const mill_type *types[3] = {mill_type_plain(MILL_INT64), mill_type_plain(MILL_UTF8), nullptr};
        mill_builder *b[3] = {};
        mill_batch *batch = nullptr;
        mill_column *col = nullptr;
        mill_status st = mill_type_parse(vector_type.c_str(), &types[2], err);
        for (int c = 0; st == MILL_OK && c < 3; c++) st = mill_builder_create(pool, types[c], &b[c]);
        for (size_t i = first; st == MILL_OK && i < first + n; i++) {
            st = mill_builder_int(b[0], 100 + (int64_t)i);
            if (st == MILL_OK)
                st = docs[i].name.empty() ? mill_builder_null(b[1])
                                          : mill_builder_text(b[1], docs[i].name.data(), (int64_t)docs[i].name.size());
            if (st == MILL_OK && docs[i].vector.empty()) {
                st = mill_builder_null(b[2]);
                continue;
            }
            for (float x : docs[i].vector)
                if (st == MILL_OK) st = mill_builder_float(mill_builder_child(b[2], 0), (double)x);
            if (st == MILL_OK) st = mill_builder_close_row(b[2]);
        }
        if (st == MILL_OK) st = mill_batch_create(pool, (int64_t)n, 3, &batch);
        for (int c = 0; st == MILL_OK && c < 3; c++) {
            st = mill_builder_finish(b[c], &col);
            if (st == MILL_OK) st = mill_batch_set_column(batch, c, &col);
        }
        if (st == MILL_OK) st = mill_emit_batch(out, &batch, nullptr, err);
        mill_column_unref(&col);
        mill_batch_destroy(&batch);
        for (auto &x : b) mill_builder_destroy(&x);
        return st == MILL_OK ? MILL_OK : mill_fail(err, st, "a source of a test");
    }

    void build(const mill_step_type *type, const Pipe::Params &params, int64_t batch_rows)
    {
        Behaviour source;
        Pipe::Opts so;
        so.batch_rows = batch_rows;
        source.adds = {{"id", "int64"}, {"name", "utf8"}, {vector_column, vector_type}};
        source.generate = [this](mill_replica *r, int64_t max, mill_cursor *cursor, bool *last, mill_emit *out, mill_error *err) {
            int64_t at = 0;
            if (cursor->size) memcpy(&at, cursor->bytes, sizeof at);
            const int64_t n = std::min<int64_t>(max, (int64_t)docs.size() - at);
            const mill_status st = emit_docs(r, (size_t)at, (size_t)n, out, err);
            at += n;
            cursor->size = sizeof at;
            memcpy(cursor->bytes, &at, sizeof at);
            *last = at == (int64_t)docs.size();
            return st;
        };
        pipe.add("docs", MILL_GENERATOR, {}, source, so);
        pipe.add_type("step", type, {{"docs"}}, params, opts);
        Behaviour sink;
        sink.write = [this](mill_replica *r, const mill_batch *in, mill_error *) -> mill_status {
            const mill_step *s = mill_replica_step(r);
            for (int64_t i = 0; i < mill_batch_rows(in); i++) {
                std::string line;
                for (int32_t c = 0; c < mill_batch_columns(in); c++)
                    line += (c ? ", " : "") + std::string(s->inputs[0].used[c].name) + "=" + show(mill_batch_column(in, c), i);
                lines.push_back(line);
            }
            return MILL_OK;
        };
        pipe.add("out", MILL_SINK, {{"step"}}, sink);
    }

    Lines run(const mill_step_type *type, const Pipe::Params &params, int64_t batch_rows = 3)
    {
        build(type, params, batch_rows);
        EXPECT_EQ(pipe.run(60), STM_END_DONE) << pipe.error.msg;
        EXPECT_TRUE(pipe.errors.empty());
        return lines;
    }
};

const std::vector<Doc> kDocs = {
    {"a", {1, 0}}, {"b", {0, 1}}, {"a again", {2, 0}}, {"no vector", {}}, {"near b", {0.1f, 1}}, {"not a number", {kNan, 1}},
    {"", {1, 1}}, {"a third", {3, 0.01f}},
};

TEST(NearestNeighbours, ListsRowsScoresAndIdentifiers)
{
    const Lines want = {
        "id=100, name=a, embedding=[1 0], neighbours=[2 7], scores=[1 1], neighbour_ids=[a again a third]",
        "id=101, name=b, embedding=[0 1], neighbours=[4 6], scores=[0.995 0.707], neighbour_ids=[near b null]",
        "id=102, name=a again, embedding=[2 0], neighbours=[0 7], scores=[1 1], neighbour_ids=[a a third]",
        "id=103, name=no vector, embedding=null, neighbours=[], scores=[], neighbour_ids=[]",
        "id=104, name=near b, embedding=[0.1 1], neighbours=[1 6], scores=[0.995 0.774], neighbour_ids=[b null]",
        "id=105, name=not a number, embedding=[nan 1], neighbours=[], scores=[], neighbour_ids=[]",
        "id=106, name=null, embedding=[1 1], neighbours=[4 7], scores=[0.774 0.709], neighbour_ids=[near b a third]",
        "id=107, name=a third, embedding=[3 0.01], neighbours=[0 2], scores=[1 1], neighbour_ids=[a a again]",
    };
    for (int64_t batch : {1, 3, 100})
        EXPECT_EQ(Flow(kDocs).run(&stm_step_nearest_neighbours, {{"k", {"2"}}, {"id", {"name"}}}, batch), want);
}

TEST(NearestNeighbours, ThresholdMetricAndSelf)
{
    const Lines lines = Flow(kDocs).run(&stm_step_nearest_neighbours,
                                        {{"k", {"3"}}, {"metric", {"dot"}}, {"threshold", {"2"}}, {"exclude_self", {"false"}},
                                         {"id", {"id"}}});
    ASSERT_EQ(lines.size(), 8u);
    EXPECT_EQ(lines[0], "id=100, name=a, embedding=[1 0], neighbours=[7 2], scores=[3 2], neighbour_ids=[107 102]");
    EXPECT_EQ(lines[1], "id=101, name=b, embedding=[0 1], neighbours=[], scores=[], neighbour_ids=[]");
    EXPECT_EQ(lines[2], "id=102, name=a again, embedding=[2 0], neighbours=[7 2 0], scores=[6 4 2], neighbour_ids=[107 102 100]");
}

TEST(NearestNeighbours, OfNoRowsAndOfRowsWithoutVectors)
{
    EXPECT_TRUE(Flow({}).run(&stm_step_nearest_neighbours, {}).empty());
    const Lines lines = Flow({{"x", {}}, {"y", {}}}).run(&stm_step_nearest_neighbours, {});
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_EQ(lines[1], "id=101, name=y, embedding=null, neighbours=[], scores=[]");
}

TEST(NearestNeighbours, ReadsTheMappedColumn)
{
    Flow f(kDocs);
    f.vector_column = "v";
    f.opts.map_in = {{"embedding", "v"}};
    const Lines lines = f.run(&stm_step_nearest_neighbours, {{"k", {"1"}}});
    ASSERT_EQ(lines.size(), 8u);
    EXPECT_EQ(lines[0], "id=100, name=a, v=[1 0], neighbours=[2], scores=[1]");
}

TEST(Deduplicate, GroupsInOrderOfTheirFirstMembers)
{
    const Lines want = {
        "group=0, size=3, rows=[0 2 7], scores=[1 1 1], id=[100 102 107], name=[a a again a third]",
        "group=1, size=2, rows=[1 4], scores=[1 0.995], id=[101 104], name=[b near b]",
    };
    for (int64_t batch : {1, 3, 100}) EXPECT_EQ(Flow(kDocs).run(&stm_step_deduplicate, {}, batch), want);
}

TEST(Deduplicate, ListsTheColumnsAskedFor)
{
    const Lines lines = Flow(kDocs).run(&stm_step_deduplicate, {{"columns", {"name"}}, {"threshold", {"0.999999"}}});
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_EQ(lines[0], "group=0, size=2, rows=[0 2], scores=[1 1], name=[a a again]");
    const Lines linked = Flow(kDocs).run(&stm_step_deduplicate, {{"columns", {"name"}}, {"threshold", {"0.7"}}});
    ASSERT_EQ(linked.size(), 1u); /* b ~ the nameless ~ a: linked through it */
    EXPECT_EQ(linked[0],
              "group=0, size=6, rows=[0 1 2 4 6 7], scores=[1 0 1 0.0995 0.707 1], name=[a b a again near b null a third]");
}

TEST(Deduplicate, EveryRowWithItsGroup)
{
    const Lines want = {
        "id=100, name=a, embedding=[1 0], group=0, keep=true",          "id=101, name=b, embedding=[0 1], group=1, keep=true",
        "id=102, name=a again, embedding=[2 0], group=0, keep=false",
        "id=103, name=no vector, embedding=null, group=null, keep=true",
        "id=104, name=near b, embedding=[0.1 1], group=1, keep=false",
        "id=105, name=not a number, embedding=[nan 1], group=null, keep=true",
        "id=106, name=null, embedding=[1 1], group=null, keep=true",
        "id=107, name=a third, embedding=[3 0.01], group=0, keep=false",
    };
    for (int64_t batch : {1, 3, 100}) EXPECT_EQ(Flow(kDocs).run(&stm_step_deduplicate, {{"output", {"rows"}}}, batch), want);
    EXPECT_TRUE(Flow({}).run(&stm_step_deduplicate, {{"output", {"rows"}}}).empty());
    EXPECT_TRUE(Flow({}).run(&stm_step_deduplicate, {}).empty());
}

/* Many rows in known clusters: more groups than one batch holds, any batch size and thread count, the same bytes. */
TEST(Deduplicate, ManyGroupsWhateverTheBatches)
{
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<std::vector<float>> centre(700, std::vector<float>(24));
    for (auto &c : centre)
        for (float &x : c) x = normal(rng);
    std::vector<Doc> docs;
    for (int i = 0; i < 2000; i++) {
        Doc d{"doc " + std::to_string(i), centre[(size_t)i * 11 % 700]};
        for (float &x : d.vector) x += 0.01f * normal(rng);
        docs.push_back(d);
    }
    const auto run = [&](int64_t batch, int cpus) {
        Flow f(docs, 24);
        f.opts.policy = [cpus](stm_policy *p) { p->cpus = cpus; };
        return f.run(&stm_step_deduplicate, {}, batch);
    };
    const Lines want = run(64, 1);
    ASSERT_EQ(want.size(), 700u);
    EXPECT_EQ(want[1].substr(0, 38), "group=1, size=3, rows=[1 701 1401], sc");
    EXPECT_EQ(run(1000, 3), want);
    EXPECT_EQ(run(7, 2), want);
}

TEST(Vectors, RefuseWhatTheyCannotRead)
{
    const struct {
        const char *name;
        const mill_step_type *type;
        Pipe::Params params;
        std::string vector_column, vector_type, message;
    } cases[] = {
        {"no vectors", &stm_step_deduplicate, {}, "vector", "fixed_list<float32>[2]",
         "reads column \"embedding\", which does not arrive"},
        {"doubles", &stm_step_deduplicate, {}, "embedding", "fixed_list<float64>[2]",
         "is fixed_list<float64>[2], expected fixed_list<float32>[n]"},
        {"lists", &stm_step_nearest_neighbours, {}, "embedding", "list<float32>",
         "is list<float32>, expected fixed_list<float32>[n]"},
        {"unknown id", &stm_step_nearest_neighbours, {{"id", {"nam"}}}, "embedding", "fixed_list<float32>[2]",
         "no column \"nam\" arrives"},
        {"nested id", &stm_step_nearest_neighbours, {{"id", {"embedding"}}}, "embedding", "fixed_list<float32>[2]",
         "identifiers cannot be nested"},
        {"unknown column", &stm_step_deduplicate, {{"columns", {"nam"}}}, "embedding", "fixed_list<float32>[2]",
         "no column \"nam\" arrives"},
        {"nested column", &stm_step_deduplicate, {{"columns", {"embedding"}}}, "embedding", "fixed_list<float32>[2]",
         "is nested and cannot be listed"},
        {"threshold", &stm_step_deduplicate, {{"threshold", {"1.5"}}}, "embedding", "fixed_list<float32>[2]", "1.5"},
        {"k", &stm_step_nearest_neighbours, {{"k", {"0"}}}, "embedding", "fixed_list<float32>[2]", "0"},
    };
    for (const auto &c : cases) {
        Flow f({});
        f.vector_column = c.vector_column;
        f.vector_type = c.vector_type;
        f.build(c.type, c.params, 4);
        EXPECT_NE(f.pipe.start(), MILL_OK) << c.name;
        EXPECT_NE(std::string(f.pipe.error.msg).find(c.message), std::string::npos) << c.name << ": " << f.pipe.error.msg;
    }
}

/* Any allocation of the engine fails once while the steps work: the run ends with an error or, where that was not needed, with
 * everything; nothing is left. */
TEST(Vectors, AllocationFailuresEndCleanly)
{
    std::vector<Doc> docs;
    for (int i = 0; i < 40; i++) docs.push_back({"d", {(float)(i % 5), 1.0f}});
    for (const mill_step_type *type : {&stm_step_nearest_neighbours, &stm_step_deduplicate})
        for (int nth = 0, clean = 0; clean < 3; nth++) {
            ASSERT_LT(nth, 20000);
            const long before = live();
            bool fired;
            {
                Flow f(docs);
                f.build(type, {}, 9);
                FailNth fail(nth);
                const mill_status st = f.pipe.start(2);
                const stm_run_end end = st == MILL_OK ? f.pipe.wait(60) : STM_END_FAILED;
                f.pipe.destroy();
                fired = fail.fired();
                if (!fired) {
                    EXPECT_EQ(end, STM_END_DONE);
                }
            }
            EXPECT_EQ(live(), before) << "leak when allocation " << nth << " fails";
            clean += !fired;
        }
}

} // namespace
