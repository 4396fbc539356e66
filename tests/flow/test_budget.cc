/* Budgets by hand: which rows go together, and what is lacking. */
#include "kit.h"

using namespace kit;
using Sizes = std::vector<size_t>;

namespace {

stm_flow_node with_budget(stm_flow_node n, int64_t budget)
{
    n.budget = budget;
    return n;
}

mill_buffer *prices(mill_pool *pool, const std::vector<int64_t> &costs)
{
    mill_buffer *b = nullptr;
    EXPECT_EQ(MILL_OK, mill_buffer_create(pool, costs.size() * 8, &b));
    std::copy(costs.begin(), costs.end(), (int64_t *)mill_buffer_data(b));
    return b;
}

/* A batch of consecutive rows from @p first on, with these costs. */
void give(Flow &f, mill_pool *pool, int at, int input, Spec s, int64_t first, const std::vector<int64_t> &costs)
{
    s.keys = keys_of(first, (int64_t)costs.size());
    s.covered = first + (int64_t)costs.size();
    mill_batch *b = make(pool, s);
    mill_buffer *c = prices(pool, costs);
    ASSERT_EQ(MILL_OK, stm_inlet_push_costed(f.at(at), input, &b, &c, nullptr));
    EXPECT_EQ(nullptr, b);
    EXPECT_EQ(nullptr, c);
}

} // namespace

TEST(Budget, TakesRowsWhileTheyFit)
{
    const struct {
        const char *name;
        int64_t budget, most_rows;
        std::vector<std::vector<int64_t>> batches; /* costs */
        Sizes want;
    } cases[] = {
        {"across batches", 6, 0, {{3, 3}, {2}, {2, 2, 1}}, {2, 3, 1}},
        {"the next row does not fit", 6, 0, {{5, 2, 4, 1}}, {1, 2, 1}},
        {"a row above the budget goes alone", 6, 0, {{1, 9, 1, 1, 7}}, {1, 1, 2, 1}},
        {"also as the first and the last", 6, 0, {{7}, {8}, {100}}, {1, 1, 1}},
        {"no more rows than input_batch_size", 6, 2, {{1, 1, 1, 4, 4}}, {2, 2, 1}},
        {"free rows cost 1", 3, 0, {{0, 0, -5, 0, 0}}, {3, 2}},
        {"enormous costs", 1 << 20, 0, {{INT64_MAX, INT64_MAX, 1, 1}}, {1, 1, 2}},
        {"full without a rest", 4, 0, {{2, 2}, {4}}, {2, 1}},
        {"empty batches", 4, 0, {{}, {2}, {}, {2, 1}, {}}, {0, 2, 1}},
    };
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        Pool pool;
        Flow f(pool, {generator("g"), with_budget(node("t", STM_NODE_TERMINAL, {{0, 0}}, k.most_rows), k.budget)});
        ASSERT_EQ(MILL_OK, f.status);
        int64_t row = 0;
        for (size_t i = 0; i < k.batches.size(); i++) {
            Spec s;
            s.seq = i;
            s.end = i + 1 == k.batches.size();
            give(f, pool, 1, 0, s, row, k.batches[i]);
            row += (int64_t)k.batches[i].size();
        }
        auto got = take_all(f.at(1), pool);
        EXPECT_EQ(k.want, sizes(got));
        ASSERT_FALSE(got.empty());
        EXPECT_TRUE(got.back().end);
        EXPECT_EQ(row, got.back().covered[0]);
        int64_t next = 0;
        for (auto &i : got)
            for (auto &key : i.keys) EXPECT_EQ(next++, key[0]);
    }
}

TEST(Budget, ABorderAndTheEndSendWhatIsLeft)
{
    Pool pool;
    auto r = node("r", STM_NODE_ROUTER, {{0, 0}}, 4);
    r.n_branches = 1;
    Flow f(pool, {generator("g"), r, with_budget(node("t", STM_NODE_TERMINAL, {{1, 0}}), 10)});
    give(f, pool, 2, 0, {.seq = 0}, 0, {6});
    EXPECT_EQ(0, stm_inlet_ready(f.at(2)));
    give(f, pool, 2, 0, {.seq = 1, .borders = 1}, 1, {2});
    EXPECT_EQ(1, stm_inlet_ready(f.at(2)));
    give(f, pool, 2, 0, {.seq = 2, .end = true, .borders = 1}, 2, {9, 1, 1});
    auto got = take_all(f.at(2), pool);
    EXPECT_EQ(Sizes({2, 2, 1}), sizes(got));
    EXPECT_EQ(1u, got[0].borders);
    EXPECT_EQ(0u, got[1].borders);
    EXPECT_EQ(1u, got[2].borders);
}

TEST(Budget, AJoinAddsUpAConvergenceTakesTheLargest)
{
    for (bool converge : {false, true}) {
        Pool pool;
        auto r = node("r", STM_NODE_ROUTER, {{0, 0}}, 4);
        r.n_branches = 2;
        auto last = converge ? node("t", STM_NODE_TERMINAL, {{1, 0}, {1, 1}}, 0, STM_INPUT_CONVERGE)
                             : node("t", STM_NODE_TERMINAL, {{0, 0}, {0, 0}}, 0, STM_INPUT_JOIN);
        Flow f(pool, {generator("g"), r, with_budget(last, 6)});
        ASSERT_EQ(MILL_OK, f.status);
        const uint32_t borders = converge ? 1 : 0;
        give(f, pool, 2, 0, {.end = true, .borders = borders}, 0, {1, 2, 3, 1});
        give(f, pool, 2, 1, {.end = true, .borders = borders}, 0, {2, 1, 1, 5});
        EXPECT_EQ(converge ? Sizes({2, 1, 1}) : Sizes({2, 1, 1}), sizes(take_all(f.at(2), pool, 2))) << converge;
        Flow g(pool, {generator("g"), r, with_budget(last, 7)}); /* sums 3 3 4 6, most 2 2 3 5 */
        give(g, pool, 2, 0, {.end = true, .borders = borders}, 0, {1, 2, 3, 1});
        give(g, pool, 2, 1, {.end = true, .borders = borders}, 0, {2, 1, 1, 5});
        EXPECT_EQ(converge ? Sizes({3, 1}) : Sizes({2, 1, 1}), sizes(take_all(g.at(2), pool, 2))) << converge;
    }
}

/* What is lacking is said in rows, by what rows cost so far: a grant of the cost itself would let in thousands of rows too many. */
TEST(Budget, LacksRowsNotCost)
{
    Pool pool;
    Flow f(pool, {generator("g", 1), with_budget(node("t", STM_NODE_TERMINAL, {{0, 0}}), 100000)});
    EXPECT_EQ(1, stm_inlet_shortfall(f.at(1)));
    stm_credit_admit(f.f, 0, 4);
    give(f, pool, 1, 0, {}, 0, {900, 1100, 1500, 500});
    EXPECT_EQ(96, stm_inlet_shortfall(f.at(1)));
    int32_t starved = -1;
    ASSERT_EQ(0, stm_flow_grant(f.f, &starved));
    EXPECT_EQ(96, stm_credit_room(f.f, 0));
    EXPECT_EQ(99, stm_credit_largest_grant(f.f, 0));
    stm_credit_admit(f.f, 0, 1);
    give(f, pool, 1, 0, {.seq = 1}, 4, {95900});
    EXPECT_EQ(1, stm_inlet_shortfall(f.at(1))) << "something is lacking as long as nothing is ready";
}

/* Rows that cost nothing do not make a batch without end: it would ask for credit until the whole stream is in memory. */
TEST(Budget, FreeRowsDoNotGatherForEver)
{
    Pool pool;
    Flow f(pool, {generator("g"), with_budget(node("t", STM_NODE_TERMINAL, {{0, 0}}), 8)});
    for (uint64_t i = 0; i < 4; i++) give(f, pool, 1, 0, {.seq = i}, (int64_t)i * 4, {0, 0, 0, 0});
    EXPECT_EQ(2, stm_inlet_ready(f.at(1)));
}

TEST(Budget, CostsThatNobodyAskedForAreDropped)
{
    Pool pool;
    Flow f(pool, {generator("g"), node("t", STM_NODE_TERMINAL, {{0, 0}}, 3)});
    give(f, pool, 1, 0, {.end = true}, 0, {9, 9, 9, 9});
    EXPECT_EQ(Sizes({3, 1}), sizes(take_all(f.at(1), pool)));
    stm_inlet_close(f.at(1));
    give(f, pool, 1, 0, {.seq = 1, .end = true}, 4, {9}); /* a closed inlet takes and forgets */
}

TEST(Budget, WhatCannotBeIsRefused)
{
    Pool pool;
    auto loose = with_budget(node("t", STM_NODE_TERMINAL, {{0, 0}}), 3);
    loose.unordered = true;
    EXPECT_EQ(MILL_ERR_INVALID, Flow(pool, {generator("g"), loose}).status);
    EXPECT_EQ(MILL_ERR_INVALID, Flow(pool, {with_budget(generator("g"), 3), node("t", STM_NODE_TERMINAL, {{0, 0}})}).status);
    EXPECT_EQ(MILL_ERR_INVALID, Flow(pool, {generator("g"), with_budget(node("t", STM_NODE_TERMINAL, {{0, 0}}), -1)}).status);
    EXPECT_EQ(MILL_ERR_INVALID,
              Flow(pool, {generator("g"), with_budget(node("t", STM_NODE_TERMINAL, {{0, 0}}), STM_FLOW_MAX_BUDGET + 1)}).status);
}
