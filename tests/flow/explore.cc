/*
 * All interleavings of small graphs. A state is the whole run in an arena of memory: it is copied before a choice and put
 * back for the next one. Equal states (by a hash of everything that matters) are gone on from once. There is no limit
 * of depth: a graph is done when no state is left.
 */
#include <chrono>
#include <cstdlib>
#include <memory>
#include <unordered_set>

#include <gtest/gtest.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define SHOW(p, n) ((void)0)
#endif

#include "graphs.h"
#include "sim.h"

using namespace flowtest;

namespace {

/* The engine's memory while a graph is explored: grows only, gives nothing back; top lies inside. */
struct Arena {
    char *base;
    size_t cap;
    size_t *top() const { return (size_t *)base; }
};
Arena arena;

void *arena_alloc(size_t bytes, size_t align, void *)
{
    size_t at = (*arena.top() + align - 1) / align * align;
    if (at + bytes > arena.cap) {
        fprintf(stderr, "a state is larger than %zu bytes\n", arena.cap);
        abort();
    }
    *arena.top() = at + bytes;
    return arena.base + at;
}
void *arena_resize(void *ptr, size_t bytes, void *)
{
    char *p = (char *)arena_alloc(bytes, 16, nullptr);
    const size_t most = std::min(bytes, (size_t)(p - (char *)ptr)); /* the old size is not known: at most up to the new block */
    SHOW(ptr, most); /* what lies behind the old block may be one that the pool hides */
    memcpy(p, ptr, most);
    return p;
}
void arena_release(void *, void *) {}

struct Snapshot {
    std::unique_ptr<char[]> bytes;
    size_t n = 0;
    void save()
    {
        SHOW(arena.base, *arena.top());
        n = *arena.top();
        bytes.reset(new char[n]);
        memcpy(bytes.get(), arena.base, n);
    }
    void restore() const
    {
        SHOW(arena.base, arena.cap);
        memcpy(arena.base, bytes.get(), n);
    }
};

struct Result {
    size_t states = 0, transitions = 0, ends = 0, depth = 0;
    int64_t grants = 0;
    std::string problem;
};

Result explore(const Graph &g)
{
    Result res;
    SHOW(arena.base, arena.cap); /* the pool hides free blocks; those of the last graph are nobody's */
    *arena.top() = 64;
    mill_pool *pool = nullptr;
    EXPECT_EQ(MILL_OK, stm_pool_create(0, &pool));
    Sim sim(g, pool, false);
    struct Frame {
        Snapshot state;
        std::vector<Action> actions;
        size_t next = 0;
    };
    std::unordered_set<uint64_t> seen;
    std::vector<Frame> stack;
    std::vector<Action> actions;
    std::vector<int> trail;
    bool fresh = sim.problem().empty();
    res.problem = sim.problem();
    while (res.problem.empty()) {
        if (fresh && seen.insert(sim.hash()).second) {
            res.states++;
            sim.actions(&actions);
            if (actions.empty()) {
                if (sim.quiescent()) {
                    res.ends++;
                    res.grants = std::max(res.grants, sim.grants());
                } else if (sim.problem().empty()) {
                    continue; /* a grant: the next state */
                }
            } else {
                Frame f;
                f.actions = actions;
                if (actions.size() > 1) f.state.save();
                stack.push_back(std::move(f));
                res.depth = std::max(res.depth, stack.size());
            }
        }
        res.problem = sim.problem();
        if (!res.problem.empty()) break;
        while (!stack.empty() && stack.back().next == stack.back().actions.size()) stack.pop_back();
        if (stack.empty()) break;
        Frame &f = stack.back();
        if (f.next > 0) f.state.restore();
        sim.act(f.actions[f.next++]);
        res.transitions++;
        res.problem = sim.problem();
        fresh = true;
    }
    if (!res.problem.empty()) {
        res.problem += "\n  after:";
        for (auto &f : stack) {
            const Action &a = f.actions[f.next - 1];
            res.problem += std::string(a.kind == SEND   ? " send "
                                       : a.kind == TAKE ? " take "
                                                        : " deliver ") +
                           g[(size_t)a.node].name;
            if (g[(size_t)a.node].replicas > 1) res.problem += "/" + std::to_string(a.replica);
        }
    }
    return res; /* what is left lies in the arena */
}

class Explore : public ::testing::Test {
protected:
    static void SetUpTestSuite()
    {
        mill_type_plain(MILL_INT64); /* interned: outside the arena */
        arena.cap = 8 << 20;
        arena.base = (char *)mmap(nullptr, arena.cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(MAP_FAILED, (void *)arena.base);
        static const stm_allocator table = {arena_alloc, arena_resize, arena_release, nullptr};
        stm_allocator_set(&table);
    }
    static void TearDownTestSuite()
    {
        stm_allocator_set(nullptr);
        SHOW(arena.base, arena.cap);
        munmap(arena.base, arena.cap);
    }
};

} // namespace

/* The same graph with more of everything. */
Graph scaled(const Graph &g, int repeat, int64_t credit, int more_replicas)
{
    Graph out = g;
    for (Node &n : out) {
        std::vector<int> once = n.batches;
        for (int i = 1; i < repeat; i++) n.batches.insert(n.batches.end(), once.begin(), once.end());
        n.credit = std::min<int64_t>(n.credit * credit, 1000);
        if (n.replicas > 1) n.replicas += more_replicas;
    }
    return out;
}

struct Scale {
    int repeat;
    int64_t credit;
    int more_replicas;
};
/* As drawn; with credit to spare; with twice the batches; with three replicas. */
const Scale scales[] = {{1, 1, 0}, {1, 1000, 0}, {2, 1, 0}, {2, 2, 0}, {1, 1000, 1}, {2, 1000, 0}, {2, 2, 1}};

TEST_F(Explore, AllInterleavings)
{
    auto graphs = small_graphs();
    const char *only = getenv("STM_FLOW_GRAPH");
    const char *short_run = getenv("STM_FLOW_SHORT"); /* graphs as drawn only */
    size_t states = 0, transitions = 0, with_replicas = 0, runs = 0;
    printf("%-52s %9s %11s %6s %6s %6s %8s\n", "graph", "states", "transitions", "depth", "ends", "grants", "seconds");
    for (auto &g : graphs) {
        if (only && !strstr(g.name, only)) continue;
        Result sum;
        auto start = std::chrono::steady_clock::now();
        for (const Scale &scale : scales) {
            if (short_run && &scale != scales) break;
            Graph big = scaled(g.graph, scale.repeat, scale.credit, scale.more_replicas);
            Result r = explore(big);
            EXPECT_EQ("", r.problem) << g.name << ": batches x " << scale.repeat << ", credit x " << scale.credit << ", replicas + "
                                     << scale.more_replicas;
            EXPECT_GT(r.ends, 0u) << g.name;
            sum.states += r.states, sum.transitions += r.transitions, sum.ends += r.ends;
            sum.depth = std::max(sum.depth, r.depth);
            sum.grants = std::max(sum.grants, r.grants);
            runs++;
        }
        double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        printf("%-52s %9zu %11zu %6zu %6zu %6lld %8.2f\n", g.name, sum.states, sum.transitions, sum.depth, sum.ends,
               (long long)sum.grants, s);
        fflush(stdout);
        states += sum.states, transitions += sum.transitions;
        bool two = false, three_batches = true;
        for (auto &n : g.graph) {
            two = two || n.replicas > 1;
            if (n.kind == STM_NODE_GENERATOR && strcmp(g.name, "only an end") != 0)
                three_batches = three_batches && n.batches.size() >= 3;
        }
        EXPECT_TRUE(three_batches) << g.name;
        with_replicas += two;
    }
    printf("%zu graphs (%zu with 2 or more replicas), %zu runs: %zu states, %zu transitions\n", graphs.size(), with_replicas, runs,
           states, transitions);
    if (only) return;
    EXPECT_GE(graphs.size(), 30u);
    EXPECT_GE(with_replicas * 2, graphs.size());
}
