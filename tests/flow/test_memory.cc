/* Every allocation of create, push, take and build fails once: nothing is lost, the call can be repeated, nothing leaks. */
#include "kit.h"

using namespace kit;

namespace {

struct Case {
    const char *name;
    std::vector<stm_flow_node> nodes;
    int node_at, roots;
    int columns; /* batches a build makes */
    uint32_t borders;
};

stm_flow_node null_filled(stm_flow_node n)
{
    n.on_missing = STM_MISSING_NULL;
    n.on_uneven = STM_UNEVEN_NULL;
    return n;
}

std::vector<Case> cases()
{
    auto r = node("r", STM_NODE_ROUTER, {{0, 0}});
    r.n_branches = 2;
    auto loose = node("t", STM_NODE_TERMINAL, {{0, 0}});
    loose.unordered = true;
    auto costed = node("t", STM_NODE_TERMINAL, {{0, 0}}),
         joined = null_filled(node("t", STM_NODE_TERMINAL, {{0, 0}, {1, 0}}, 0, STM_INPUT_JOIN));
    costed.budget = 9;
    joined.budget = 11;
    return {
        {"budget", {generator("g"), costed}, 1, 1, 1, 0},
        {"budget of a join", {generator("g"), node("a", STM_NODE_STEP, {{0, 0}}), joined}, 2, 1, 2, 0},
        {"as they come", {generator("g"), node("t", STM_NODE_TERMINAL, {{0, 0}})}, 1, 1, 1, 0},
        {"re-batched", {generator("g"), node("t", STM_NODE_TERMINAL, {{0, 0}}, 5)}, 1, 1, 1, 0},
        {"unordered", {generator("g"), loose}, 1, 1, 1, 0},
        {"union", {generator("g"), generator("h"), node("t", STM_NODE_TERMINAL, {{0, 0}, {1, 0}}, 4, STM_INPUT_UNION)}, 2, 2, 1, 0},
        {"join by position",
         {generator("g"), generator("h"), null_filled(node("t", STM_NODE_TERMINAL, {{0, 0}, {1, 0}}, 4, STM_INPUT_JOIN))},
         2,
         2,
         2,
         0},
        {"join by key",
         {generator("g"), node("a", STM_NODE_STEP, {{0, 0}}),
          null_filled(node("t", STM_NODE_TERMINAL, {{0, 0}, {1, 0}}, 4, STM_INPUT_JOIN))},
         2,
         1,
         2,
         0},
        {"convergence",
         {generator("g"), r, null_filled(node("t", STM_NODE_TERMINAL, {{1, 0}, {1, 1}}, 5, STM_INPUT_CONVERGE))},
         2,
         1,
         2,
         1},
        {"each", {generator("g"), generator("h"), node("t", STM_NODE_TERMINAL, {{0, 0}, {1, 0}}, 5, STM_INPUT_EACH)}, 2, 2, 1, 0},
    };
}

/* Arrivals: out of order on both inputs, 24 batches; each row of input 1 that is odd is missing. */
std::vector<std::pair<int, Spec>> arrivals(const Case &c, int n_inputs)
{
    std::vector<std::pair<int, Spec>> out;
    for (uint64_t group = 0; group < 4; group++) {
        for (int i = n_inputs - 1; i >= 0; i--) {
            for (uint64_t k : {2, 0, 1}) {
                Spec s;
                s.seq = group * 3 + k;
                for (int64_t row = (int64_t)s.seq * 3; row < (int64_t)s.seq * 3 + 3; row++)
                    if (i == 0 || row % 2 == 0) s.keys.push_back({row});
                s.covered = (int64_t)s.seq * 3 + 3;
                s.end = s.seq == 11;
                s.borders = c.borders;
                s.root = c.roots > 1 ? i : 0;
                s.roots = c.roots;
                out.push_back({i, s});
            }
        }
    }
    return out;
}

/* NULL when out of memory. */
mill_buffer *prices(mill_pool *pool, const Spec &s)
{
    mill_buffer *b = nullptr;
    if (mill_buffer_create(pool, s.keys.size() * 8, &b) != MILL_OK) return nullptr;
    for (size_t i = 0; i < s.keys.size(); i++) ((int64_t *)mill_buffer_data(b))[i] = s.keys[i][0] % 7;
    return b;
}

/* With the nth passage failing (negative: none). Whether it fired. */
bool run(const Case &c, int64_t nth, std::vector<Item> *items)
{
    mill_pool *pool = nullptr;
    EXPECT_EQ(MILL_OK, stm_pool_create(0, &pool));
    mt::FailNth fault(nth < 0 ? INT64_MAX : nth);
    stm_flow *f = nullptr;
    mill_error err = {};
    if (stm_flow_create(pool, c.nodes.data(), (int32_t)c.nodes.size(), &f, &err) != MILL_OK) {
        EXPECT_EQ(MILL_ERR_NOMEM, err.status);
        EXPECT_EQ(nullptr, f);
        EXPECT_EQ(MILL_OK, stm_flow_create(pool, c.nodes.data(), (int32_t)c.nodes.size(), &f, nullptr));
    }
    stm_inlet *in = stm_flow_inlet(f, c.node_at);
    int n_inputs = c.nodes[(size_t)c.node_at].n_inputs;
    int since = 0;
    for (auto &a : arrivals(c, n_inputs)) {
        mill_batch *b = make(pool, a.second, a.first);
        if (!b) b = make(pool, a.second, a.first);
        mill_batch *same = b;
        mill_buffer *costs = nullptr, *same_costs;
        while (c.nodes[(size_t)c.node_at].budget > 0 && !costs) costs = prices(pool, a.second);
        same_costs = costs;
        int64_t rows = stm_inlet_rows(in), ready = stm_inlet_ready(in);
        if (stm_inlet_push_costed(in, a.first, &b, &costs, nullptr) != MILL_OK) {
            EXPECT_EQ(same, b);
            EXPECT_EQ(same_costs, costs);
            EXPECT_EQ(rows, stm_inlet_rows(in));
            EXPECT_EQ(ready, stm_inlet_ready(in));
            EXPECT_EQ(MILL_OK, stm_inlet_push_costed(in, a.first, &b, &costs, nullptr));
        }
        EXPECT_EQ(nullptr, costs);
        EXPECT_EQ(nullptr, b);
        if (++since % 4 != 0) continue; /* let some pile up */
        stm_ready r;
        while (stm_inlet_take(in, &r)) {
            Item i;
            bool built = build(&r, pool, c.columns, &i) || build(&r, pool, c.columns, &i);
            EXPECT_TRUE(built);
            items->push_back(i);
        }
    }
    EXPECT_TRUE(stm_inlet_ended(in));
    stm_flow_destroy(&f);
    bool fired = fault.fired();
    stm_pool_release(&pool);
    return fired;
}

} // namespace

TEST(Memory, EveryAllocationMayFail)
{
    mill_type_plain(MILL_INT64);
    for (const Case &c : cases()) {
        SCOPED_TRACE(c.name);
        std::vector<Item> want;
        long before = mt::live();
        run(c, -1, &want);
        ASSERT_EQ(before, mt::live());
        ASSERT_GT(want.size(), 2u);
        int64_t nth = 0;
        for (bool fired = true; fired && !::testing::Test::HasFailure(); nth++) {
            std::vector<Item> got;
            fired = run(c, nth, &got);
            ASSERT_EQ(want.size(), got.size()) << nth;
            for (size_t i = 0; i < want.size(); i++) {
                EXPECT_EQ(want[i].keys, got[i].keys) << nth;
                EXPECT_EQ(want[i].values, got[i].values) << nth;
                EXPECT_EQ(want[i].covered, got[i].covered) << nth;
                EXPECT_EQ(want[i].end, got[i].end) << nth;
            }
            ASSERT_EQ(before, mt::live()) << nth;
        }
        EXPECT_GT(nth, 20);
    }
}
