/* Joins, unions, convergence by hand: what they say when inputs do not fit, and what a recipe makes. */
#include "kit.h"

#include <cstring>

using namespace kit;
using Sizes = std::vector<size_t>;

namespace {

std::vector<stm_flow_node> two_generators(stm_flow_node join) { return {generator("left"), generator("right"), join}; }
stm_flow_node join_of(std::vector<stm_flow_edge> in, int64_t rows = 0)
{
    return node("join", STM_NODE_TERMINAL, std::move(in), rows, STM_INPUT_JOIN);
}
std::vector<stm_flow_node> diamond(stm_flow_node join)
{
    return {generator("root"), node("a", STM_NODE_STEP, {{0, 0}}), node("b", STM_NODE_STEP, {{0, 0}}), join};
}
mill_status push(Flow &f, int node_at, int input, mill_pool *pool, const Spec &s, mill_error *err = nullptr)
{
    mill_batch *b = make(pool, s, input);
    mill_status st = stm_inlet_push(f.at(node_at), input, &b, err);
    EXPECT_EQ(nullptr, b);
    return st;
}

} // namespace

TEST(Join, AMissingKeyIsNamed)
{
    Pool pool;
    auto j = join_of({{1, 0}, {2, 0}});
    j.on_missing = STM_MISSING_ERROR;
    Flow f(pool, diamond(j));
    ASSERT_EQ(MILL_OK, f.status);
    ASSERT_EQ(MILL_OK, push(f, 3, 0, pool, {.keys = keys_of(0, 2), .covered = 2}));
    ASSERT_EQ(MILL_OK, push(f, 3, 1, pool, {.keys = keys_of(0, 2), .covered = 2}));
    ASSERT_EQ(MILL_OK, push(f, 3, 0, pool, {.seq = 1, .keys = {{2}, {3}}, .covered = 4}));
    mill_error err = {};
    EXPECT_EQ(MILL_ERR_DATA, push(f, 3, 1, pool, {.seq = 1, .keys = {{2}}, .covered = 4}, &err));
    EXPECT_STREQ("step 'join' joins 'a' and 'b': row root:3 is in 'a' but not in 'b'", err.msg);
    EXPECT_STRNE("", err.remedy);
    EXPECT_EQ(MILL_CLASS_DATA, err.error_class);
    EXPECT_EQ(2, stm_inlet_rows(f.at(3)) / 2); /* what was complete is still there */
    EXPECT_EQ(Sizes({2}), sizes(take_all(f.at(3), pool, 2)));
    mill_error again = {};
    EXPECT_EQ(MILL_ERR_DATA, push(f, 3, 0, pool, {.seq = 2, .keys = {}, .covered = 4, .end = true}, &again));
    EXPECT_STREQ(err.msg, again.msg);
}

TEST(Join, MissingRowsAreNullOrDropped)
{
    Pool pool;
    for (auto policy : {STM_MISSING_NULL, STM_MISSING_DROP}) {
        auto j = join_of({{1, 0}, {2, 0}});
        j.on_missing = policy;
        Flow f(pool, diamond(j));
        ASSERT_EQ(MILL_OK, push(f, 3, 0, pool, {.keys = {{1}, {2}}, .covered = 4, .end = true}));
        ASSERT_EQ(MILL_OK, push(f, 3, 1, pool, {.keys = {{0}, {2}, {3, 1}}, .covered = 4, .end = true}));
        auto got = take_all(f.at(3), pool, 2);
        ASSERT_EQ(1u, got.size());
        if (policy == STM_MISSING_DROP) {
            EXPECT_EQ(std::vector<Key>({{2}}), got[0].keys);
        } else {
            EXPECT_EQ(std::vector<Key>({{0}, {1}, {2}, {3, 1}}), got[0].keys);
            EXPECT_EQ(std::vector<int64_t>({-1, payload({1}), payload({2}), -1}), got[0].values[0]);
            EXPECT_EQ(std::vector<int64_t>({payload({0}, 1), -1, payload({2}, 1), payload({3, 1}, 1)}), got[0].values[1]);
        }
        EXPECT_EQ(4, got[0].covered[0]);
        EXPECT_TRUE(got[0].end);
        EXPECT_EQ(0, stm_inlet_rows(f.at(3)));
    }
}

TEST(Join, UnevenTotalsAreNamed)
{
    Pool pool;
    auto j = join_of({{0, 0}, {1, 0}});
    j.on_uneven = STM_UNEVEN_ERROR;
    Flow f(pool, two_generators(j));
    ASSERT_EQ(MILL_OK, push(f, 2, 0, pool, {.keys = keys_of(0, 3), .covered = 3, .end = true, .root = 0, .roots = 2}));
    ASSERT_EQ(MILL_OK, push(f, 2, 1, pool, {.keys = keys_of(0, 2), .covered = 2, .root = 1, .roots = 2}));
    ASSERT_EQ(MILL_OK, push(f, 2, 1, pool, {.seq = 1, .keys = keys_of(2, 2), .covered = 4, .root = 1, .roots = 2}));
    mill_error err = {};
    EXPECT_EQ(MILL_ERR_DATA,
              push(f, 2, 1, pool, {.seq = 2, .keys = keys_of(4, 1), .covered = 5, .end = true, .root = 1, .roots = 2}, &err));
    EXPECT_STREQ("step 'join' joins by position: 'left' has 3 rows, 'right' has 5", err.msg);
}

TEST(Join, RowsPastTheFirstInputsEndGetFreshKeys)
{
    Pool pool;
    auto j = join_of({{0, 0}, {1, 0}}, 2);
    j.on_uneven = STM_UNEVEN_NULL;
    Flow f(pool, two_generators(j));
    ASSERT_EQ(MILL_OK, push(f, 2, 0, pool, {.keys = {{0}, {4}}, .covered = 9, .end = true, .root = 0, .roots = 2}));
    ASSERT_EQ(MILL_OK, push(f, 2, 1, pool, {.keys = keys_of(0, 5), .covered = 5, .end = true, .root = 1, .roots = 2}));
    auto got = take_all(f.at(2), pool, 2);
    EXPECT_EQ(Sizes({2, 2, 1}), sizes(got));
    EXPECT_EQ(std::vector<Key>({{9}, {10}}), got[1].keys);
    EXPECT_EQ(std::vector<Key>({{11}}), got[2].keys);
    EXPECT_EQ(std::vector<int64_t>({-1}), got[2].values[0]);
    EXPECT_EQ(std::vector<int64_t>({payload({4}, 1)}), got[2].values[1]);
    EXPECT_EQ(9, got[2].covered[0]);
    EXPECT_EQ(5, got[2].covered[1]);
}

TEST(Union, KeysSayWhichInput)
{
    Pool pool;
    Flow f(pool, {generator("left"), generator("right"), node("u", STM_NODE_TERMINAL, {{0, 0}, {1, 0}}, 3, STM_INPUT_UNION)});
    EXPECT_EQ(2, stm_flow_stream_of(f.f, 2)->key_width);
    EXPECT_EQ(2, stm_flow_stream_of(f.f, 2)->key_space);
    ASSERT_EQ(MILL_OK, push(f, 2, 1, pool, {.keys = keys_of(0, 2), .covered = 2, .end = true, .root = 1, .roots = 2}));
    EXPECT_EQ(0, stm_inlet_ready(f.at(2)));
    ASSERT_EQ(MILL_OK, push(f, 2, 0, pool, {.keys = keys_of(0, 2), .covered = 2, .end = true, .root = 0, .roots = 2}));
    auto got = take_all(f.at(2), pool);
    EXPECT_EQ(Sizes({3, 1}), sizes(got));
    EXPECT_EQ(std::vector<Key>({{0, 0}, {0, 1}, {1, 0}}), got[0].keys);
    EXPECT_EQ(1, got[0].frontier[0]);
    EXPECT_EQ(1, got[0].frontier[1]);
    EXPECT_EQ(2, got[0].covered[0]);
    EXPECT_EQ(0, got[0].covered[1]);
    EXPECT_EQ(std::vector<Key>({{1, 1}}), got[1].keys);
    EXPECT_TRUE(got[1].end);
}

/* R11's pair: each routed copy brings its columns, rows that did not come this way have nulls there. */
TEST(Converge, PairsRoutedCopiesByKey)
{
    Pool pool;
    auto r = node("r", STM_NODE_ROUTER, {{0, 0}}, 2);
    r.n_branches = 2;
    auto c = node("c", STM_NODE_TERMINAL, {{1, 0}, {1, 1}}, 0, STM_INPUT_CONVERGE);
    c.on_missing = STM_MISSING_NULL;
    for (int late : {0, 1}) { /* the branch whose batches come last */
        Flow f(pool, {generator("g"), r, c});
        ASSERT_EQ(MILL_OK, f.status);
        EXPECT_EQ(0, stm_flow_stream_of(f.f, 2)->depth);
        const Spec first[2] = {{.keys = keys_of(0, 2), .covered = 2, .borders = 1}, {.keys = {}, .covered = 2, .borders = 1}};
        const Spec second[2] = {{.seq = 1, .keys = {}, .covered = 4, .end = true, .borders = 1},
                                {.seq = 1, .keys = keys_of(2, 2), .covered = 4, .end = true, .borders = 1}};
        ASSERT_EQ(MILL_OK, push(f, 2, 1 - late, pool, first[1 - late]));
        ASSERT_EQ(MILL_OK, push(f, 2, 1 - late, pool, second[1 - late]));
        EXPECT_EQ(0, stm_inlet_ready(f.at(2))); /* not by arrival: copies of the first routed batch are still on their way */
        ASSERT_EQ(MILL_OK, push(f, 2, late, pool, first[late]));
        EXPECT_EQ(1, stm_inlet_ready(f.at(2)));
        ASSERT_EQ(MILL_OK, push(f, 2, late, pool, second[late]));
        auto got = take_all(f.at(2), pool, 2);
        EXPECT_EQ(Sizes({2, 2}), sizes(got));
        EXPECT_EQ(std::vector<int64_t>({payload({0}), payload({1})}), got[0].values[0]);
        EXPECT_EQ(std::vector<int64_t>({-1, -1}), got[0].values[1]);
        EXPECT_EQ(std::vector<Key>({{2}, {3}}), got[1].keys);
        EXPECT_EQ(std::vector<int64_t>({-1, -1}), got[1].values[0]);
        EXPECT_EQ(std::vector<int64_t>({payload({2}, 1), payload({3}, 1)}), got[1].values[1]);
        EXPECT_EQ(0u, got[0].borders);
    }
}

/* An empty branch says nothing by being empty: whether it was taken stands in the envelope. */
TEST(Converge, FilteredIsMissingNotTakenIsNot)
{
    const struct {
        const char *name;
        bool taken;
        stm_on_missing missing;
        size_t rows; /* that come out; 9 = fails */
    } cases[] = {{"taken, drop", true, STM_MISSING_DROP, 0},     {"not taken, drop", false, STM_MISSING_DROP, 2},
                 {"taken, error", true, STM_MISSING_ERROR, 9},   {"not taken, error", false, STM_MISSING_ERROR, 2},
                 {"taken, null", true, STM_MISSING_NULL, 2},     {"not taken, null", false, STM_MISSING_NULL, 2}};
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        Pool pool;
        auto r = node("r", STM_NODE_ROUTER, {{0, 0}}, 2);
        r.n_branches = 2;
        auto c = node("c", STM_NODE_TERMINAL, {{2, 0}, {3, 0}}, 0, STM_INPUT_CONVERGE);
        c.on_missing = k.missing;
        Flow f(pool, {generator("g"), r, node("a", STM_NODE_STEP, {{1, 0}}, 3), node("b", STM_NODE_STEP, {{1, 1}}, 1), c});
        ASSERT_EQ(MILL_OK, f.status);
        ASSERT_EQ(MILL_OK, push(f, 1, 0, pool, {.keys = keys_of(0, 2), .covered = 2, .end = true}));
        stm_ready routed, item;
        ASSERT_TRUE(stm_inlet_take(f.at(1), &routed));
        mill_status st = MILL_OK;
        for (int branch : {0, 1}) {
            mill_batch *b = nullptr;
            ASSERT_EQ(MILL_OK, stm_inlet_branch(f.at(1), routed.batch, branch == 0 || k.taken, &b));
            ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(2 + branch), 0, &b, nullptr));
            while (stm_inlet_take(f.at(2 + branch), &item)) { /* branch 1 drops every row */
                const mill_type *t = mill_type_plain(MILL_INT64);
                const mill_type *const *types = &t;
                const int32_t one = 1;
                ASSERT_EQ(MILL_OK, stm_ready_build(&item, pool, &types, &one, &b, nullptr));
                mill_batch *out = nullptr;
                ASSERT_EQ(MILL_OK, branch == 1 ? stm_batch_clone_empty(b, &out) : stm_batch_clone(b, &out));
                mill_batch_destroy(&b);
                const mill_status pushed = stm_inlet_push(f.at(4), branch, &out, &f.err);
                if (pushed != MILL_OK) st = pushed;
            }
        }
        stm_ready_discard(&routed);
        EXPECT_EQ(k.rows == 9 ? MILL_ERR_DATA : MILL_OK, st);
        if (k.rows == 9) {
            EXPECT_NE(nullptr, strstr(f.err.msg, "step 'c' converges 'a' and 'b': row g:0 is in 'a' but not in 'b'")) << f.err.msg;
            continue;
        }
        auto got = take_all(f.at(4), pool, 2);
        ASSERT_EQ(1u, got.size());
        EXPECT_EQ(k.rows, got[0].keys.size());
        EXPECT_TRUE(got[0].end);
    }
}

namespace {
struct Bad {
    const char *name;
    std::vector<stm_flow_node> nodes;
    const char *says; /* part of the message */
};
stm_flow_node routes(std::vector<stm_flow_edge> in, int branches)
{
    auto r = node("route", STM_NODE_ROUTER, std::move(in), 2);
    r.n_branches = branches;
    return r;
}
stm_flow_node with_unordered(stm_flow_node n)
{
    n.unordered = true;
    return n;
}
} // namespace

TEST(Graph, WhatCannotBeIsRefusedByName)
{
    const std::vector<Bad> bad = {
        {"upwards", {generator("g"), node("s", STM_NODE_STEP, {{2, 0}}), node("t", STM_NODE_TERMINAL, {{1, 0}})}, "'s'"},
        {"itself", {generator("g"), node("s", STM_NODE_STEP, {{1, 0}})}, "'s'"},
        {"no such branch", {generator("g"), routes({{0, 0}}, 2), node("t", STM_NODE_TERMINAL, {{1, 2}})}, "branch 2 of 'route'"},
        {"branch of a step", {generator("g"), node("t", STM_NODE_TERMINAL, {{0, 1}})}, "branch 1 of 'g'"},
        {"after a terminal",
         {generator("g"), node("t", STM_NODE_TERMINAL, {{0, 0}}), node("u", STM_NODE_TERMINAL, {{1, 0}})},
         "'t'"},
        {"no input", {generator("g"), node("s", STM_NODE_STEP, {})}, "'s' has no input"},
        {"two inputs, single", {generator("g"), generator("h"), node("s", STM_NODE_STEP, {{0, 0}, {1, 0}})}, "'s'"},
        {"no credit", {generator("g", 0), node("t", STM_NODE_TERMINAL, {{0, 0}})}, "'g'"},
        {"convergence without a router",
         {generator("g"), node("c", STM_NODE_STEP, {{0, 0}, {0, 0}}, 0, STM_INPUT_CONVERGE)},
         "'c'"},
        {"convergence of two routers",
         {generator("g"), routes({{0, 0}}, 2), routes({{0, 0}}, 2),
          node("c", STM_NODE_STEP, {{1, 0}, {2, 1}}, 0, STM_INPUT_CONVERGE)},
         "'c'"},
        {"join of two branches",
         {generator("g"), routes({{0, 0}}, 2), node("j", STM_NODE_STEP, {{1, 0}, {1, 1}}, 0, STM_INPUT_JOIN)},
         "converge them first"},
        {"union of a branch and what was before",
         {generator("g"), routes({{0, 0}}, 2), node("u", STM_NODE_STEP, {{1, 0}, {0, 0}}, 0, STM_INPUT_UNION)},
         "'u'"},
        {"unordered with batches",
         {generator("g"), with_unordered(node("s", STM_NODE_STEP, {{0, 0}}, 4))},
         "'s' needs its input in order"},
        {"unordered join",
         {generator("g"), generator("h"), with_unordered(node("j", STM_NODE_STEP, {{0, 0}, {1, 0}}, 0, STM_INPUT_JOIN))},
         "'j'"},
        {"one side below a union",
         {generator("g"), generator("h"), node("u", STM_NODE_STEP, {{0, 0}, {1, 0}}, 0, STM_INPUT_UNION),
          node("j", STM_NODE_STEP, {{2, 0}, {0, 0}}, 0, STM_INPUT_JOIN)},
         "union"},
        {"each in the middle", {generator("g"), node("s", STM_NODE_STEP, {{0, 0}}, 0, STM_INPUT_EACH)}, "'s'"},
    };
    for (const Bad &b : bad) {
        Pool pool;
        Flow f(pool, b.nodes);
        EXPECT_EQ(MILL_ERR_INVALID, f.status) << b.name;
        EXPECT_NE(nullptr, strstr(f.err.msg, b.says)) << b.name << ": " << f.err.msg;
        EXPECT_EQ(nullptr, f.f);
    }
    std::vector<stm_flow_node> deep = {generator("g")};
    for (int i = 0; i < STM_FLOW_MAX_DEPTH; i++) deep.push_back(routes({{i, 0}}, 1));
    Pool pool;
    Flow f(pool, deep);
    EXPECT_EQ(MILL_ERR_INVALID, f.status);
    EXPECT_NE(nullptr, strstr(f.err.msg, "31 deep")) << f.err.msg;
}
