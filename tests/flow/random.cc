/*
 * Random graphs, random rows, random schedules: each must end, with the right rows in the right order in the right
 * batches, within its credit, whatever fails on the way. Each graph runs under two schedules that must show the same items.
 * A failing seed is printed; STM_FLOW_SEED=n runs that one alone.
 */
#include <chrono>
#include <cstdlib>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "graphs.h"
#include "sim.h"
#include "support/fail_nth.h"
#include "support/sanitized.h"

using namespace flowtest;

namespace {

/* A seed names the same graph everywhere: no two draws in one expression whose order C++ leaves open, and none by functions
 * of the standard library that each one writes its own way (shuffle, distributions). */
using Rng = std::mt19937_64;
int pick(Rng &r, int lo, int hi) { return lo + (int)(r() % (uint64_t)(hi - lo + 1)); }
bool chance(Rng &r, int percent) { return pick(r, 1, 100) <= percent; }

struct Stream {
    stm_flow_edge edge;
    std::vector<std::pair<int, int>> routes; /* router, branch */
    int space;
    uint32_t bases;
    bool used = false;
};

struct Counts {
    int joins_by_key = 0, joins_by_position = 0, unions = 0, routers = 0, convergences = 0, globals = 0, groups = 0, budgets = 0;
};

/* Grows a graph stream by stream, by the rules that stm_flow_create checks. */
class Builder {
public:
    Builder(Rng &r, Counts *c) : r_(r), counts_(c) {}

    Graph build()
    {
        int roots = pick(r_, 1, 3);
        for (int i = 0; i < roots; i++) {
            std::vector<int> batches;
            int most = pick(r_, 0, 6);
            for (int n = pick(r_, 3, 12); n > 0; n--) batches.push_back(pick(r_, 0, most));
            if (chance(r_, 10)) batches.back() = 0; /* stopped: an end without rows */
            add(gen("g", batches, pick(r_, 1, 20)), {}, (int)g_.size(), 1u << i);
        }
        for (int n = pick(r_, 1, 9); n > 0 && g_.size() < 40; n--) grow();
        for (size_t k = 0; k < streams_.size(); k++) {
            if (streams_[k].used) continue;
            Node s = sink({streams_[k].edge}, chance(r_, 50) ? 0 : pick(r_, 1, 8));
            priced(&s);
            if (s.batch_rows == 0 && s.budget == 0 && chance(r_, 20)) s.unordered = true;
            g_.push_back(s);
        }
        for (size_t i = 0; i < g_.size(); i++) g_[i].name += std::to_string(i);
        return g_;
    }

private:
    void priced(Node *n)
    {
        if (!chance(r_, 25)) return;
        counts_->budgets++;
        n->budget = pick(r_, 1, 12);
        n->costs = pick(r_, 1, 15);
        if (n->kind != STM_NODE_ROUTER && chance(r_, 60)) n->batch_rows = 0;
    }
    Node vary(Node n)
    {
        priced(&n);
        if (chance(r_, 30))
            n.drop = pick(r_, 1, 4);
        else if (chance(r_, 15))
            n.children = pick(r_, 2, 4);
        n.replicas = pick(r_, 1, 3);
        return n;
    }
    Stream &any() { return streams_[(size_t)pick(r_, 0, (int)streams_.size() - 1)]; }
    void add(Node n, std::vector<std::pair<int, int>> routes, int space, uint32_t bases)
    {
        int at = (int)g_.size();
        g_.push_back(n);
        if (n.kind != STM_NODE_ROUTER) {
            streams_.push_back({{at, 0}, routes, space, bases});
            return;
        }
        for (int b = 0; b < n.branches; b++) {
            auto inner = routes;
            inner.push_back({at, b});
            streams_.push_back({{at, b}, inner, space, bases});
        }
    }
    /* Up to @p most streams that go together with @p first. */
    template <typename Fits> std::vector<size_t> partners(size_t first, int most, Fits fits)
    {
        std::vector<size_t> all, out = {first};
        for (size_t k = 0; k < streams_.size(); k++)
            if (k != first && fits(streams_[k])) all.push_back(k);
        for (size_t k = all.size(); k > 1; k--) std::swap(all[k - 1], all[(size_t)pick(r_, 0, (int)k - 1)]);
        for (size_t k : all)
            if ((int)out.size() < most) out.push_back(k);
        return out;
    }
    std::vector<stm_flow_edge> use(const std::vector<size_t> &which)
    {
        std::vector<stm_flow_edge> e;
        for (size_t k : which) {
            streams_[k].used = true;
            e.push_back(streams_[k].edge);
        }
        return e;
    }
    int64_t rows() { return chance(r_, 35) ? 0 : pick(r_, 1, 7); }

    void grow()
    {
        size_t at = (size_t)pick(r_, 0, (int)streams_.size() - 1);
        Stream s = streams_[at];
        switch (pick(r_, 0, 9)) {
        case 0:
        case 1: return join(at, s);
        case 2: {
            auto which = partners(at, pick(r_, 2, 3), [&](const Stream &o) { return o.routes == s.routes; });
            if (which.size() < 2) break;
            uint32_t bases = 0;
            for (size_t k : which) bases |= streams_[k].bases;
            counts_->unions++;
            int space = (int)g_.size();
            return add(vary(step("u", use(which), rows(), 1, UNION)), s.routes, space, bases);
        }
        case 3:
        case 4: {
            if (s.routes.size() >= 3) break;
            counts_->routers++;
            const int branches = pick(r_, 2, 3), rows = pick(r_, 1, 5), how = pick(r_, 0, 3), replicas = pick(r_, 1, 3);
            Node n = router(use({at}), branches, rows, how, replicas);
            priced(&n);
            return add(n, s.routes, s.space, s.bases);
        }
        case 5:
        case 6: return converge();
        case 7: {
            counts_->globals++;
            auto which = partners(at, pick(r_, 1, 3), [&](const Stream &) { return true; });
            Node t = sink(use(which), rows(), EACH);
            priced(&t);
            t.unordered = t.batch_rows == 0 && t.budget == 0 && chance(r_, 20);
            int store = (int)g_.size();
            g_.push_back(t);
            int space = (int)g_.size();
            return add(reader("global", store, -1, pick(r_, 1, 10)), {}, space, 1u << std::min(31, 8 + space % 24));
        }
        case 8: {
            counts_->groups++;
            int store = (int)g_.size(),
                source = g_[(size_t)s.edge.from].kind == STM_NODE_ROUTER || chance(r_, 30) ? store : s.edge.from;
            g_.push_back(sink(use({at})));
            return add(reader("r", store, source, pick(r_, 1, 10)), s.routes, s.space, s.bases);
        }
        default: break;
        }
        Node n = vary(step("s", use({at}), rows()));
        if (n.batch_rows == 0 && n.budget == 0 && chance(r_, 20)) n.unordered = true;
        add(n, s.routes, s.space, s.bases);
    }
    void join(size_t at, const Stream &s)
    {
        auto which = partners(at, pick(r_, 2, 3), [&](const Stream &o) { return o.routes == s.routes && o.space == s.space; });
        bool by_key = which.size() >= 2 && chance(r_, 70);
        if (!by_key) { /* by position: nothing in common */
            uint32_t bases = s.bases;
            which = {at};
            for (size_t k = 0; k < streams_.size() && which.size() < 3; k++) {
                if (streams_[k].routes != s.routes || (streams_[k].bases & bases)) continue;
                bases |= streams_[k].bases;
                which.push_back(k);
            }
            if (which.size() < 2) return;
        }
        Node n = vary(step("j", use(which), rows(), 1, JOIN));
        n.on_missing = chance(r_, 60) ? STM_MISSING_NULL : chance(r_, 70) ? STM_MISSING_DROP : STM_MISSING_ERROR;
        n.on_uneven = chance(r_, 80) ? STM_UNEVEN_NULL : STM_UNEVEN_ERROR;
        (by_key ? counts_->joins_by_key : counts_->joins_by_position)++;
        add(n, s.routes, s.space, s.bases);
    }
    void converge()
    {
        std::vector<size_t> deep;
        for (size_t k = 0; k < streams_.size(); k++)
            if (!streams_[k].routes.empty()) deep.push_back(k);
        if (deep.empty()) return;
        size_t at = deep[(size_t)pick(r_, 0, (int)deep.size() - 1)];
        Stream s = streams_[at];
        std::set<int> branches = {s.routes.back().second};
        std::vector<size_t> which = {at};
        for (size_t k : deep) {
            const Stream &o = streams_[k];
            if (o.space != s.space || o.routes.size() != s.routes.size() || o.routes.back().first != s.routes.back().first)
                continue;
            if (branches.insert(o.routes.back().second).second) which.push_back(k);
        }
        if (which.size() < 2) return;
        counts_->convergences++;
        auto outer = s.routes;
        outer.pop_back();
        Node n = vary(step("c", use(which), rows(), 1, CONVERGE));
        n.on_missing = chance(r_, 60) ? STM_MISSING_NULL : chance(r_, 80) ? STM_MISSING_DROP : STM_MISSING_ERROR;
        add(n, outer, s.space, s.bases);
    }

    Rng &r_;
    Counts *counts_;
    Graph g_;
    std::vector<Stream> streams_;
};

/* Which action comes next: evenly, the newest or oldest work first, or one node kept waiting. */
size_t choose(Rng &r, int policy, int slow, const std::vector<Action> &a)
{
    if (policy == 1) return a.size() - 1;
    if (policy == 2) return 0;
    size_t at = (size_t)pick(r, 0, (int)a.size() - 1);
    for (int tries = 0; policy == 3 && tries < 3 && a[at].node == slow; tries++) at = (size_t)pick(r, 0, (int)a.size() - 1);
    return at;
}

struct Totals {
    int64_t graphs = 0, runs = 0, actions = 0, failed = 0, abandoned = 0, grants = 0;
    Counts counts;
};

void print(const Graph &g)
{
    static const char *kinds[] = {"generator", "reader", "step", "router", "terminal"};
    static const char *modes[] = {"single", "join", "union", "converge", "each"};
    for (size_t i = 0; i < g.size(); i++) {
        const Node &n = g[i];
        printf("%2zu %-8s %-9s", i, n.name.c_str(), kinds[n.kind]);
        if (!n.in.empty()) printf(" %s of", modes[n.mode]);
        for (auto &e : n.in) printf(" %d.%d", (int)e.from, (int)e.branch);
        if (n.in.empty()) printf(" credit %lld", (long long)n.credit);
        for (int b : n.batches) printf(" %d", b);
        if (n.kind == STM_NODE_READER) printf(" source %d store %d", n.source, n.store);
        if (n.budget > 0) printf("; budget %lld costs %d", (long long)n.budget, n.costs);
        printf("; rows %lld replicas %d drop %d children %d route %d unordered %d missing %d uneven %d fail_at %d\n",
               (long long)n.batch_rows, n.replicas, n.drop, n.children, n.route, (int)n.unordered, (int)n.on_missing,
               (int)n.on_uneven, n.fail_at);
    }
}

Rng rng_of(uint64_t seed) { return Rng(seed * 7919 + 1); }

uint64_t fingerprint(const Graph &g)
{
    uint64_t h = g.size();
    for (const Node &n : g) {
        for (int64_t v : {(int64_t)n.kind, (int64_t)n.mode, n.batch_rows, (int64_t)n.replicas, (int64_t)n.branches,
                          (int64_t)n.source, (int64_t)n.store, n.credit, (int64_t)n.drop, (int64_t)n.children, (int64_t)n.route,
                          n.budget, (int64_t)n.costs, (int64_t)n.unordered, (int64_t)n.on_missing, (int64_t)n.on_uneven})
            h = mix(h, (uint64_t)v);
        for (auto &e : n.in) h = mix(mix(h, (uint64_t)e.from), (uint64_t)e.branch);
        for (int b : n.batches) h = mix(h, (uint64_t)b);
    }
    return h;
}

std::string run(const Graph &g, uint64_t seed, Shapes *shapes, Totals *t)
{
    Rng r(seed);
    mill_pool *pool = nullptr;
    if (stm_pool_create(0, &pool) != MILL_OK) return "no memory";
    std::string problem;
    {
        Sim sim(g, pool, true, shapes);
        int policy = pick(r, 0, 3), slow = pick(r, 0, (int)g.size() - 1);
        int64_t leave_at = chance(r, 10) ? pick(r, 0, 300) : INT64_MAX, n = 0;
        std::vector<Action> actions;
        while (sim.problem().empty()) {
            if (n == leave_at) { /* stopped with everything in flight */
                t->abandoned++;
                break;
            }
            sim.actions(&actions);
            if (actions.empty()) {
                if (sim.quiescent()) break;
                if (++n > 20000) return "grants do not end";
                continue;
            }
            size_t k = choose(r, chance(r, 20) ? 0 : policy, slow, actions);
            sim.act(actions[k]);
            if (++n > 20000) {
                problem = "does not end";
                break;
            }
        }
        t->runs++;
        t->actions += n;
        t->failed += sim.failed();
        t->grants += sim.grants();
        if (problem.empty()) problem = sim.problem();
    }
    stm_pool_release(&pool);
    return problem;
}

} // namespace

TEST(Random, GraphsEndWithTheRightRows)
{
    mill_type_plain(MILL_INT64); /* interned for good */
    const char *one = getenv("STM_FLOW_SEED"), *count = getenv("STM_FLOW_GRAPHS");
    uint64_t first = one ? strtoull(one, nullptr, 10) : 0, last = one     ? first + 1
                                                                  : count ? strtoull(count, nullptr, 10)
                                                                          : mt::rounds<uint64_t>(12000, 1000);
    Totals t;
    int wrong = 0;
    for (uint64_t seed = first; seed < last && wrong < 5; seed++) {
        Rng r = rng_of(seed);
        long before = mt::live();
        Graph g = Builder(r, &t.counts).build();
        if (chance(r, 20)) { /* some step fails */
            Node &n = g[(size_t)pick(r, 0, (int)g.size() - 1)];
            if (!n.in.empty()) n.fail_at = pick(r, 0, 4);
        }
        if (one) print(g);
        t.graphs++;
        Shapes shapes;
        for (uint64_t schedule = 0; schedule < 2; schedule++) {
            std::string problem = run(g, seed * 2 + schedule, &shapes, &t);
            if (problem.empty() && mt::live() != before) problem = "leaks";
            if (problem.empty()) continue;
            wrong++;
            ADD_FAILURE() << "STM_FLOW_SEED=" << seed << ": " << problem;
            break;
        }
    }
    printf("%lld graphs, %lld runs, %lld actions, %lld grants; %lld runs with a failure, %lld stopped in flight\n",
           (long long)t.graphs, (long long)t.runs, (long long)t.actions, (long long)t.grants, (long long)t.failed,
           (long long)t.abandoned);
    printf("joins by key %d, by position %d, unions %d, routers %d, convergences %d, globals %d, load groups %d, budgets %d\n",
           t.counts.joins_by_key, t.counts.joins_by_position, t.counts.unions, t.counts.routers, t.counts.convergences,
           t.counts.globals, t.counts.groups, t.counts.budgets);
    if (one) return;
    EXPECT_GE(t.graphs, count ? 1 : mt::rounds(10000, 1000));
    EXPECT_GT(t.failed, t.runs / 50);
    EXPECT_GT(t.abandoned, t.runs / 50);
}

/* What one build finds by a seed, every other build finds, too. Whoever changes what is drawn puts the new number here. */
TEST(Random, ASeedIsTheSameGraphWithEveryCompiler)
{
    Counts counts;
    uint64_t all = 0;
    for (uint64_t seed = 0; seed < 500; seed++) {
        Rng r = rng_of(seed);
        all = mix(all, fingerprint(Builder(r, &counts).build()));
    }
    EXPECT_EQ(12754868066708472066ull, all);
}
