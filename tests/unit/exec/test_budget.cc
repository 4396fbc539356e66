/* Budgets in whole runs: which rows go together, where their cost comes from, and what happens when a step cannot say. */
#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "support/pipe.h"
#include "unit/exec/behaviours.h"

using namespace mt;

namespace {

/* Notes the rows of every batch that a step gets, by the first row's number. */
struct Noted {
    std::mutex lock;
    std::map<int64_t, std::vector<int64_t>> batches;
    Behaviour step(std::function<int64_t(int64_t)> tokens = nullptr)
    {
        Behaviour b;
        b.uses = {{"x", "int64"}};
        b.process = [this](mill_replica *, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
            std::lock_guard<std::mutex> guard(lock);
            for (int64_t r = 0; r < mill_batch_rows(in[0]); r++) batches[value(in[0], 0, 0)].push_back(value(in[0], 0, r));
            return mill_emit_pass(out, e);
        };
        if (tokens)
            b.cost = [tokens](size_t, const mill_batch *in, int64_t *cost, mill_error *) -> mill_status {
                for (int64_t r = 0; r < mill_batch_rows(in); r++) cost[r] = tokens(value(in, 0, r));
                return MILL_OK;
            };
        return b;
    }
    /* In order, and cut as the cost of the rows says. */
    void expect(const std::vector<int64_t> &rows, int64_t budget, int64_t most_rows, std::function<int64_t(int64_t)> cost)
    {
        std::vector<std::vector<int64_t>> want, got;
        int64_t sum = 0;
        for (int64_t x : rows) {
            const int64_t c = std::max<int64_t>(1, cost(x));
            const bool full =
                !want.empty() && (sum >= budget || sum + c > budget || (most_rows > 0 && (int64_t)want.back().size() == most_rows));
            if (want.empty() || full) want.emplace_back(), sum = 0;
            want.back().push_back(x);
            sum += c;
        }
        for (auto &b : batches) got.push_back(b.second);
        EXPECT_EQ(got, want);
    }
};

std::vector<int64_t> upto(int64_t n)
{
    std::vector<int64_t> v;
    for (int64_t i = 0; i < n; i++) v.push_back(i);
    return v;
}
int64_t eight(int64_t) { return 8; }
int64_t by_number(int64_t x) { return x * 7 % 13; }

} // namespace

TEST(Budget, BytesAndTokensWhateverTheBatchesBefore)
{
    const struct {
        const char *name;
        int64_t tokens, bytes, rows;
        std::function<int64_t(int64_t)> cost;
    } cases[] = {{"bytes", 0, 64, 0, eight},
                 {"bytes, not a multiple", 0, 63, 0, eight},
                 {"bytes below a row", 0, 3, 0, eight},
                 {"bytes and rows", 0, 64, 5, eight},
                 {"tokens", 30, 0, 0, by_number},
                 {"tokens and rows", 30, 0, 3, by_number},
                 {"tokens below a row", 5, 0, 0, by_number}};
    for (const auto &k : cases)
        for (int64_t arriving : {1, 7, 64, 500})
            for (int32_t replicas : {1, 3}) {
                SCOPED_TRACE(std::string(k.name) + ", batches of " + std::to_string(arriving) + ", replicas " +
                             std::to_string(replicas));
                Pipe p;
                Noted n;
                Pipe::Opts o;
                o.replicas = replicas;
                o.budget_tokens = k.tokens;
                o.budget_bytes = k.bytes;
                o.batch_rows = k.rows;
                p.source("src", 500, arriving);
                p.add("step", MILL_STEP, {{"src"}}, n.step(k.tokens ? k.cost : nullptr), o);
                p.sink("out", "step");
                ASSERT_EQ(p.run(), STM_END_DONE);
                expect_rows(p, "out", 500);
                n.expect(upto(500), k.tokens + k.bytes, k.rows, k.cost);
            }
}

/* A budget far above what credit lets in at first: grants make up for it, and the batch is whole. */
TEST(Budget, LargerThanTheCredit)
{
    Pipe p;
    Noted n;
    Pipe::Opts o;
    o.budget_bytes = 1 << 20;
    p.source("src", 300000, 64);
    p.add("step", MILL_STEP, {{"src"}}, n.step(), o);
    p.sink("out", "step");
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(p.rows("out").size(), 300000u);
    ASSERT_EQ(n.batches.size(), 3u);
    EXPECT_EQ(n.batches[0].size(), (size_t)(1 << 20) / 8);
}

/* A join's rows cost what they cost in all inputs; a step sees the columns of one of them at a time. */
TEST(Budget, JoinsAddUp)
{
    std::atomic<int> wrong{0};
    for (bool tokens : {false, true}) {
        Pipe p;
        Noted n;
        Pipe::Opts o, renamed = rows_per_batch(3);
        renamed.map_out = {{"y", "other"}};
        p.source("src", 100, 10);
        p.add("a", MILL_STEP, {{"src"}}, maps([](int64_t x) { return x; }), renamed);
        p.add("b", MILL_STEP, {{"src"}}, maps([](int64_t x) { return x; }), rows_per_batch(4));
        o.mode = STM_INPUT_JOIN;
        (tokens ? o.budget_tokens : o.budget_bytes) = tokens ? 11 : 50;
        Behaviour b = n.step();
        b.uses = {{"x", "int64"}, {"other", "int64"}, {"y", "int64"}}; /* 0 and 1 come from a, 2 from b */
        b.cost = [&wrong](size_t, const mill_batch *in, int64_t *cost, mill_error *) -> mill_status {
            const bool first = mill_batch_column(in, 1) != nullptr;
            wrong += first == (mill_batch_column(in, 2) != nullptr) || first != (mill_batch_column(in, 0) != nullptr);
            for (int64_t r = 0; r < mill_batch_rows(in); r++) cost[r] = first ? value(in, 1, r) % 3 : value(in, 2, r) % 5;
            return MILL_OK;
        };
        if (!tokens) b.cost = nullptr;
        p.add("join", MILL_STEP, {{"a"}, {"b"}}, b, o);
        p.sink("out", "join");
        ASSERT_EQ(p.run(), STM_END_DONE);
        expect_rows(p, "out", 100);
        n.expect(upto(100), tokens ? 11 : 50, 0,
                 [tokens](int64_t x) { return tokens ? std::max<int64_t>(1, x % 3) + std::max<int64_t>(1, x % 5) : 24; });
    }
    EXPECT_EQ(wrong, 0);
}

TEST(Budget, UnionsAndConvergences)
{
    Pipe p;
    Noted u, c;
    Pipe::Opts o, r, m, out;
    p.source("a", 20, 7, "z");
    p.source("b", 30, 4);
    p.add("from_z", MILL_STEP, {{"a"}}, [] {
        Behaviour b = maps([](int64_t z) { return z; }, "x"); /* x stands behind z there, and first in b */
        b.uses = {{"z", "int64"}};
        return b;
    }());
    o.mode = STM_INPUT_UNION;
    o.budget_bytes = 40;
    p.add("all", MILL_STEP, {{"from_z"}, {"b"}}, u.step(), o);
    p.sink("united", "all");
    r = rows_per_batch(8);
    r.branches = {"left", "right"};
    p.source("src", 64, 10);
    p.add("router", MILL_ROUTER, {{"src"}}, routes([](int64_t x) {
              return x / 8 % 2 ? std::vector<size_t>{0, 1} : std::vector<size_t>{1};
          }),
          r);
    p.add("left", MILL_STEP, {{"router", 0}}, keeps([](int64_t x) { return x % 2 == 0; }));
    p.add("right", MILL_STEP, {{"router", 1}}, maps([](int64_t x) { return x; }));
    m.mode = STM_INPUT_CONVERGE;
    m.on_missing = STM_MISSING_NULL;
    m.budget_tokens = 20;
    p.add("meet", MILL_STEP, {{"left"}, {"right"}}, c.step(by_number), m);
    p.sink("met", "meet");
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(p.rows("united").size(), 50u);
    size_t batches = 0;
    for (auto &b : u.batches) batches += b.second.size(); /* numbers of both inputs: 0 .. 19 and 0 .. 29 */
    EXPECT_EQ(batches, 50u);
    EXPECT_EQ(u.batches[5], std::vector<int64_t>({5, 6, 7, 8, 9, 5, 6, 7, 8, 9})) << "five rows of 8 bytes from each";
    expect_rows(p, "met", 64);
    c.expect(upto(64), 20, 0, by_number); /* the copies of a row are one row */
}

TEST(Budget, SinksAndRouters)
{
    Pipe p;
    Pipe::Opts r, s;
    r.branches = {"all"};
    r.budget_bytes = 24;
    s.budget_bytes = 80;
    p.source("src", 100, 7);
    p.add("router", MILL_ROUTER, {{"src"}}, routes([](int64_t) { return std::vector<size_t>{0}; }), r);
    p.sink("routed", "router");
    p.sink("out", "src", s);
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 100);
    EXPECT_EQ(p.batch_sizes("out"), std::vector<int64_t>(10, 10));
    std::vector<int64_t> three(33, 3);
    three.push_back(1);
    EXPECT_EQ(p.batch_sizes("routed"), three);
}

TEST(Budget, AFailingCostFailsTheStep)
{
    for (bool says : {true, false}) {
        Pipe p;
        Noted n;
        Pipe::Opts o;
        o.budget_tokens = 10;
        Behaviour b = n.step();
        b.cost = [says](size_t, const mill_batch *in, int64_t *, mill_error *e) -> mill_status {
            if (value(in, 0, 0) < 20) return MILL_OK;
            return says ? mill_fail(e, MILL_ERR_STEP, "no dictionary") : MILL_ERR_STEP;
        };
        p.source("src", 100, 10);
        p.add("step", MILL_STEP, {{"src"}}, b, o);
        p.sink("out", "step");
        p.sink("other", "src");
        EXPECT_EQ(p.run(), STM_END_FAILED);
        EXPECT_STREQ(p.error.step, "step");
        EXPECT_NE(std::string(p.error.msg).find(says ? "no dictionary" : "step step: cost"), std::string::npos) << p.error.msg;
        expect_rows(p, "other", 100);
    }
}

/* Batches that wait on disk have the cost they had. */
TEST(Budget, UnderAMemoryLimit)
{
    Pipe p;
    Noted n;
    Pipe::Opts o, slow = rows_per_batch(4096);
    p.memory_limit = 1 << 20;
    o.mode = STM_INPUT_JOIN;
    o.budget_tokens = 1000;
    p.source("src", 120000, 1000);
    p.add("a", MILL_STEP, {{"src"}}, maps([](int64_t x) { return x; }), slow);
    p.add("join", MILL_STEP, {{"a"}, {"src"}}, n.step(by_number), o);
    p.sink("out", "join");
    ASSERT_EQ(p.run(60), STM_END_DONE);
    EXPECT_EQ(p.rows("out").size(), 120000u);
    n.expect(upto(120000), 1000, 0, [](int64_t x) { return std::max<int64_t>(1, by_number(x)) + 1; });
}

/* Where a type has no `cost`, `bound` prices row by row, from the bytes that the step reads. */
TEST(Budget, BoundPricesRowByRow)
{
    static std::atomic<int> largest{0};
    static mill_step_type t = {};
    t.struct_size = sizeof t;
    t.abi = MILL_ABI_1;
    t.kind = MILL_STEP;
    t.name = "bounded";
    t.summary = "a step with a bound";
    static const mill_column_decl in[] = {{"x", "int64", "numbers"}};
    t.inputs = in;
    t.n_inputs = 1;
    t.bound = [](const mill_step *, int64_t rows, int64_t bytes, mill_bound *b) -> mill_status {
        b->tokens = rows * 2 + bytes / 4; /* 4 for a row of 8 bytes */
        return MILL_OK;
    };
    t.process = [](mill_replica *, mill_batch *const *b, size_t, mill_emit *out, mill_error *e) -> mill_status {
        largest = std::max<int>(largest, (int)mill_batch_rows(b[0]));
        return mill_emit_pass(out, e);
    };
    Pipe p;
    Pipe::Opts o;
    o.budget_tokens = 21;
    p.source("src", 100, 10);
    p.add_type("step", &t, {{"src"}}, {}, o);
    p.sink("out", "step");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 100);
    EXPECT_EQ(largest, 5);
    EXPECT_EQ(p.batch_sizes("out"), std::vector<int64_t>(20, 5));
}
