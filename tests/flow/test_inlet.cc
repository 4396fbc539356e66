/* Single inputs: order, re-batching, borders, coverage, the end. */
#include "kit.h"

#include <algorithm>
#include <random>

using namespace kit;
using Sizes = std::vector<size_t>;

namespace {

struct Case {
    const char *name;
    int64_t batch_rows;
    std::vector<int64_t> arriving; /* rows of each batch; the last is the end */
    Sizes ready;
};

const Case cases[] = {
    {"as they come", 0, {3, 0, 5, 1}, {3, 0, 5, 1}},
    {"exact", 4, {4, 4, 4}, {4, 4, 4}},
    {"split", 2, {5, 4}, {2, 2, 2, 2, 1}},
    {"joined", 6, {2, 2, 2, 3}, {6, 3}},
    {"joined and split", 3, {2, 5, 4, 0}, {3, 3, 3, 2}},
    {"end without rows, nothing pending", 3, {3, 0}, {3, 0}},
    {"end without rows, rows pending", 3, {2, 0}, {2}},
    {"empty batches carry coverage on", 3, {0, 3, 0, 0, 3, 0}, {0, 3, 0, 0, 3, 0}},
    {"empty batches while rows are pending", 3, {2, 0, 0, 1, 0}, {3, 0}},
    {"only an end", 5, {0}, {0}},
    {"end with the last rows", 2, {2, 4}, {2, 2, 2}},
    {"all less than one batch", 100, {1, 2, 3}, {6}},
};

void check(const std::vector<Item> &got, const Sizes &want, int64_t rows)
{
    EXPECT_EQ(want, sizes(got));
    int64_t next = 0;
    for (size_t i = 0; i < got.size(); i++) {
        EXPECT_EQ(i, got[i].seq);
        EXPECT_EQ(i + 1 == got.size(), got[i].end);
        for (size_t r = 0; r < got[i].keys.size(); r++) {
            ASSERT_EQ(Key({next}), got[i].keys[r]);
            EXPECT_EQ(payload({next}), got[i].values[0][r]);
            next++;
        }
        EXPECT_LE(got[i].covered[0], next);
        EXPECT_GE(got[i].frontier[0], got[i].covered[0]);
        EXPECT_LE(got[i].frontier[0], next);
    }
    EXPECT_EQ(rows, next);
    EXPECT_EQ(rows, got.back().covered[0]);
}

std::vector<mill_batch *> stream(mill_pool *pool, const std::vector<int64_t> &rows, int64_t *total)
{
    std::vector<mill_batch *> b;
    *total = 0;
    for (size_t i = 0; i < rows.size(); i++) {
        b.push_back(
            make(pool, {.seq = i, .keys = keys_of(*total, rows[i]), .covered = *total + rows[i], .end = i + 1 == rows.size()}));
        *total += rows[i];
    }
    return b;
}

} // namespace

TEST(Single, CutsInEveryOrderOfArrival)
{
    Pool pool;
    for (const Case &c : cases) {
        SCOPED_TRACE(c.name);
        std::vector<size_t> order;
        for (size_t i = 0; i < c.arriving.size(); i++) order.push_back(i);
        do {
            for (int eager = 0; eager < 2; eager++) { /* take as soon as ready, or at the end */
                Flow f(pool, {generator("g"), node("s", STM_NODE_TERMINAL, {{0, 0}}, c.batch_rows)});
                ASSERT_EQ(MILL_OK, f.status);
                int64_t total;
                auto b = stream(pool, c.arriving, &total);
                std::vector<Item> got;
                for (size_t i : order) {
                    ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(1), 0, &b[i], nullptr));
                    EXPECT_EQ(nullptr, b[i]);
                    if (eager)
                        for (Item &x : take_all(f.at(1), pool)) got.push_back(x);
                }
                for (Item &x : take_all(f.at(1), pool)) got.push_back(x);
                check(got, c.ready, total);
                EXPECT_TRUE(stm_inlet_ended(f.at(1)));
                EXPECT_EQ(0, stm_inlet_rows(f.at(1)));
                EXPECT_EQ(0, stm_inlet_shortfall(f.at(1)));
            }
        } while (std::next_permutation(order.begin(), order.end()));
    }
}

/* Twin inlets get the same random stream: one by push and take, the other by pass where that is possible. Same items. */
TEST(Single, PassingIsPushingAndTaking)
{
    struct {
        const char *name;
        stm_node_kind kind;
        int64_t batch_rows;
        bool routed, unordered;
        bool passes;
    } table[] = {{"step as they come", STM_NODE_STEP, 0, false, false, true}, {"step of 3", STM_NODE_STEP, 3, false, false, true},
                 {"terminal", STM_NODE_TERMINAL, 0, false, false, true},
                 {"terminal of 4", STM_NODE_TERMINAL, 4, false, false, true},
                 {"router", STM_NODE_ROUTER, 0, false, false, true},
                 {"routed step of 3", STM_NODE_STEP, 3, true, false, true},
                 {"routed router", STM_NODE_ROUTER, 0, true, false, true},    {"unordered", STM_NODE_STEP, 0, false, true, false}};
    Pool pool;
    std::mt19937 rnd(20261122);
    auto upto = [&](int n) { return (int)(rnd() % (unsigned)(n + 1)); };
    for (auto &c : table) {
        SCOPED_TRACE(c.name);
        int passed = 0;
        for (int round = 0; round < 200; round++) {
            auto r = node("r", STM_NODE_ROUTER, {{0, 0}});
            r.n_branches = 2;
            auto x = node("x", c.kind, {{c.routed ? 1 : 0, 0}}, c.batch_rows);
            x.n_branches = c.kind == STM_NODE_ROUTER ? 2 : 0;
            x.unordered = c.unordered;
            std::vector<stm_flow_node> nodes = {generator("g"), r, x};
            if (!c.routed) nodes.erase(nodes.begin() + 1);
            const int at = (int)nodes.size() - 1;
            Flow a(pool, nodes), b(pool, nodes);
            ASSERT_EQ(MILL_OK, a.status);
            ASSERT_EQ(MILL_OK, b.status);
            const int n = 1 + upto(12);
            std::vector<Spec> stream;
            int64_t first = 0;
            for (int i = 0; i < n; i++) {
                const int64_t rows = upto(2) == 0 ? c.batch_rows : upto(5);
                stream.push_back({.seq = (uint64_t)i, .keys = keys_of(first, rows), .covered = first + rows, .end = i == n - 1,
                                  .borders = c.routed && (upto(2) == 0 || i == n - 1) ? 1u : 0u});
                first += rows;
            }
            if (upto(3) == 0 && n > 1) {
                const size_t one = (size_t)upto(n - 1), other = (size_t)upto(n - 1);
                std::swap(stream[one], stream[other]);
            }
            std::vector<Item> left, right;
            for (size_t i = 0; i < stream.size();) {
                const size_t group = std::min(stream.size() - i, (size_t)(1 + upto(3)));
                const bool take = upto(3) != 0 || i + group == stream.size();
                std::vector<mill_batch *> one, two;
                for (size_t k = i; k < i + group; k++) {
                    one.push_back(make(pool, stream[k]));
                    two.push_back(make(pool, stream[k]));
                }
                i += group;
                for (auto &p : one) ASSERT_EQ(MILL_OK, stm_inlet_push(a.at(at), 0, &p, nullptr));
                std::vector<stm_ready> items(group);
                const int32_t done = take ? stm_inlet_pass(b.at(at), two.data(), (int32_t)group, items.data()) : 0;
                passed += done;
                for (int32_t k = 0; k < done; k++) {
                    Item item;
                    EXPECT_EQ(two[(size_t)k], items[(size_t)k].batch);
                    ASSERT_TRUE(build(&items[(size_t)k], pool, 1, &item));
                    right.push_back(item);
                }
                for (size_t k = (size_t)done; k < group; k++) ASSERT_EQ(MILL_OK, stm_inlet_push(b.at(at), 0, &two[k], nullptr));
                if (take) {
                    for (Item &item : take_all(a.at(at), pool)) left.push_back(item);
                    for (Item &item : take_all(b.at(at), pool)) right.push_back(item);
                }
                ASSERT_EQ(stm_inlet_rows(a.at(at)), stm_inlet_rows(b.at(at)));
                ASSERT_EQ(stm_inlet_ended(a.at(at)), stm_inlet_ended(b.at(at)));
                ASSERT_EQ(stm_inlet_shortfall(a.at(at)), stm_inlet_shortfall(b.at(at)));
            }
            ASSERT_EQ(left.size(), right.size());
            for (size_t i = 0; i < left.size(); i++) {
                EXPECT_EQ(left[i].keys, right[i].keys);
                EXPECT_EQ(left[i].values, right[i].values);
                EXPECT_EQ(left[i].seq, right[i].seq);
                EXPECT_EQ(left[i].covered, right[i].covered);
                EXPECT_EQ(left[i].frontier[0], right[i].frontier[0]);
                EXPECT_EQ(left[i].borders, right[i].borders);
                EXPECT_EQ(left[i].end, right[i].end);
            }
        }
        EXPECT_EQ(c.passes, passed > 100) << passed;
    }
}

TEST(Single, BordersAreNotCrossed)
{
    Pool pool;
    Flow f(pool, {generator("g"),
                  [] {
                      auto r = node("r", STM_NODE_ROUTER, {{0, 0}});
                      r.n_branches = 2;
                      return r;
                  }(),
                  node("a", STM_NODE_TERMINAL, {{1, 0}}, 4), node("b", STM_NODE_TERMINAL, {{1, 1}})});
    ASSERT_EQ(MILL_OK, f.status);
    EXPECT_EQ(1, stm_flow_stream_of(f.f, 1)->depth);
    struct {
        int64_t rows;
        uint32_t borders;
    } in[] = {{3, 0}, {3, 1}, {0, 1}, {4, 1}, {1, 0}, {0, 1}, {2, 1}};
    int64_t at = 0;
    for (size_t i = 0; i < 7; i++) {
        mill_batch *b = make(
            pool, {.seq = i, .keys = keys_of(at, in[i].rows), .covered = at + in[i].rows, .end = i == 6, .borders = in[i].borders});
        at += in[i].rows;
        ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(2), 0, &b, nullptr));
    }
    auto got = take_all(f.at(2), pool);
    EXPECT_EQ(Sizes({4, 2, 0, 4, 1, 2}), sizes(got));
    std::vector<uint32_t> borders;
    for (auto &i : got) borders.push_back(i.borders);
    EXPECT_EQ(std::vector<uint32_t>({0, 1, 1, 1, 1, 1}), borders);
}

TEST(Single, ARouterMarksItsBorders)
{
    Pool pool;
    Flow f(pool, {generator("g"),
                  [] {
                      auto r = node("r", STM_NODE_ROUTER, {{0, 0}}, 2);
                      r.n_branches = 1;
                      return r;
                  }(),
                  node("a", STM_NODE_TERMINAL, {{1, 0}})});
    mill_batch *b = make(pool, {.keys = keys_of(0, 3), .covered = 3, .end = true});
    ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(1), 0, &b, nullptr));
    for (auto &i : take_all(f.at(1), pool)) EXPECT_EQ(1u, i.borders);
}

TEST(Single, ShortfallSaysWhatIsMissing)
{
    Pool pool;
    Flow f(pool, {generator("g"), node("s", STM_NODE_TERMINAL, {{0, 0}}, 10)});
    EXPECT_EQ(10, stm_inlet_shortfall(f.at(1)));
    mill_batch *b = make(pool, {.keys = keys_of(0, 3), .covered = 3});
    ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(1), 0, &b, nullptr));
    EXPECT_EQ(7, stm_inlet_shortfall(f.at(1)));
    EXPECT_EQ(3, stm_inlet_rows(f.at(1)));
    EXPECT_GT(stm_inlet_bytes(f.at(1)), 0);
    EXPECT_EQ(0, stm_inlet_ready(f.at(1)));
}

TEST(Single, RefusesBatchesThatCannotBe)
{
    Pool pool;
    Flow f(pool, {generator("g"), node("s", STM_NODE_TERMINAL, {{0, 0}})});
    mill_batch *b = make(pool, {.seq = 2, .keys = {}, .end = true});
    ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(1), 0, &b, nullptr));
    for (uint64_t seq : {2, 3}) {
        b = make(pool, {.seq = seq, .keys = {}});
        EXPECT_EQ(MILL_ERR_INTERNAL, stm_inlet_push(f.at(1), 0, &b, nullptr));
        ASSERT_NE(nullptr, b);
        mill_batch_destroy(&b);
    }
}

TEST(Single, SteadyStateCallsNoAllocator)
{
    Pool pool;
    for (int64_t batch_rows : {0, 8, 5, 24}) {
        Flow f(pool, {generator("g"), node("s", STM_NODE_TERMINAL, {{0, 0}}, batch_rows)});
        long before = 0;
        for (uint64_t i = 0; i < 1000; i++) {
            if (i == 500) before = stm_alloc_counts().allocs;
            mill_batch *b = nullptr; /* no columns: those are not the inlet's business */
            ASSERT_EQ(MILL_OK, stm_batch_create(pool, 8, 0, 1, &b));
            b->seq = i;
            b->keys.first = (int64_t)i * 8;
            b->covered[0] = b->frontier[0] = (int64_t)i * 8 + 8;
            ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(1), 0, &b, nullptr));
            stm_ready r;
            while (stm_inlet_take(f.at(1), &r)) {
                mill_batch *out = nullptr;
                const mill_type *const *types[1] = {nullptr};
                int32_t n[1] = {0};
                ASSERT_EQ(MILL_OK, stm_ready_build(&r, pool, types, n, &out, nullptr));
                mill_batch_destroy(&out);
            }
        }
        EXPECT_EQ(before, stm_alloc_counts().allocs) << batch_rows;
    }
}

TEST(Unordered, PassesAsTheyComeAndKeepsTheEndLast)
{
    Pool pool;
    auto t = node("t", STM_NODE_TERMINAL, {{0, 0}});
    t.unordered = true;
    auto s = node("s", STM_NODE_STEP, {{0, 0}});
    s.unordered = true;
    std::vector<uint64_t> order = {0, 1, 2, 3};
    do {
        Flow f(pool, {generator("g"), s, t, node("x", STM_NODE_TERMINAL, {{1, 0}})});
        ASSERT_EQ(MILL_OK, f.status);
        std::vector<uint64_t> arrived;
        int64_t covered = 0;
        for (uint64_t q : order) {
            for (int node_at : {1, 2}) {
                mill_batch *b =
                    make(pool, {.seq = q, .keys = keys_of((int64_t)q * 2, 2), .covered = (int64_t)q * 2 + 2, .end = q == 3});
                ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(node_at), 0, &b, nullptr));
            }
            if (q != 3) arrived.push_back(q);
            for (auto &i : take_all(f.at(2), pool)) {
                EXPECT_GE(i.covered[0], covered);
                covered = i.covered[0];
                uint64_t all = 0; /* never more than what has arrived without a gap */
                while (std::count(arrived.begin(), arrived.end(), all) > 0) all++;
                EXPECT_LE(covered, i.end ? 8 : (int64_t)all * 2);
            }
        }
        EXPECT_EQ(8, covered);
        EXPECT_TRUE(stm_inlet_ended(f.at(2)));
        auto items = take_all(f.at(1), pool); /* a step in the middle: envelopes as they were */
        ASSERT_EQ(4u, items.size());
        EXPECT_EQ(3u, items.back().seq);
        for (auto &i : items) EXPECT_EQ((int64_t)i.seq * 2 + 2, i.covered[0]);
    } while (std::next_permutation(order.begin(), order.end()));
}
