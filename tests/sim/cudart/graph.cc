// Graphs and their executable instances. A launch is one operation on its stream that runs the nodes in an order that the
// dependencies allow, chosen by STM_SIM_ORDER; nodes that no path orders must not conflict, which is checked when the graph is
// instantiated.
#include "graph.h"
#include "capture.h"
#include <algorithm>
#include <cstring>

namespace sim {

static std::set<Graph *> &graphs()
{
    static auto *all = new std::set<Graph *>;
    return *all;
}
static std::set<Exec *> &execs()
{
    static auto *all = new std::set<Exec *>;
    return *all;
}
int live_graph_count()
{
    for (Graph *g : graphs()) fprintf(stderr, "sim: graph not destroyed: %s\n", describe(g->made).c_str());
    return static_cast<int>(graphs().size());
}
int live_exec_count()
{
    for (Exec *x : execs()) fprintf(stderr, "sim: graph instance not destroyed: %s\n", describe(x->made).c_str());
    return static_cast<int>(execs().size());
}

Graph *graph_new(const Site &made)
{
    auto *g = new Graph;
    g->made = made;
    graphs().insert(g);
    return g;
}
void graph_delete(Graph *g)
{
    graphs().erase(g);
    delete g;
}

size_t graph_add(Graph *g, Work work, std::vector<size_t> after)
{
    auto n = std::make_unique<Node>();
    for (const Access &x : work.accesses)
        if (const Allocation *a = find_allocation(x.p)) n->uses.emplace_back(a->at, a->id);
    n->work = std::move(work);
    n->after = std::move(after);
    g->nodes.push_back(std::move(n));
    return g->nodes.size() - 1;
}

template <class At> static std::vector<bool> ancestors(size_t count, const std::vector<size_t> &from, At at)
{
    std::vector<bool> in(count);
    for (size_t n : from) in[n] = true;
    for (size_t i = count; i-- > 0;)
        if (in[i])
            for (size_t b : at(i).after) in[b] = true;
    return in;
}
std::vector<bool> graph_ancestors(const Graph &g, const std::vector<size_t> &from)
{
    return ancestors(g.nodes.size(), from, [&](size_t i) -> const Node & { return *g.nodes[i]; });
}

static bool conflict(const Access &a, const Access &b)
{
    if (a.how == b.how && a.how != Touch::Write) return false;
    const char *p = static_cast<const char *>(a.p), *q = static_cast<const char *>(b.p);
    return p < q + b.bytes && q < p + a.bytes && find_allocation(p);
}

static bool conflict(const Node &i, const Node &j)
{
    for (const Access &a : i.work.accesses)
        for (const Access &b : j.work.accesses)
            if (conflict(a, b)) return true;
    return false;
}

static void check_graph(const std::vector<Node> &nodes)
{
    for (size_t j = 0; j < nodes.size(); j++) {
        const std::vector<bool> before = ancestors(nodes.size(), {j}, [&](size_t i) -> const Node & { return nodes[i]; });
        for (size_t i = 0; i < j; i++)
            if (!before[i] && conflict(nodes[i], nodes[j]))
                finding("missing dependency in a graph: [%s] and [%s] touch the same memory, and no path orders them",
                        describe(nodes[i].work.site).c_str(), describe(nodes[j].work.site).c_str());
    }
}

// An order that fits the dependencies: of the ready nodes the first, the last, or any.
static std::vector<size_t> run_order(const std::vector<Node> &nodes)
{
    static uint64_t random = settings().grid.order.seed * 0x9e3779b97f4a7c15ull + 1;
    std::vector<size_t> order, ready;
    std::vector<bool> done(nodes.size());
    while (order.size() < nodes.size()) {
        ready.clear();
        for (size_t i = 0; i < nodes.size(); i++) {
            bool can = !done[i];
            for (size_t b : nodes[i].after) can = can && done[b];
            if (can) ready.push_back(i);
        }
        size_t pick = 0;
        if (settings().grid.order.kind == Order::Reverse) pick = ready.size() - 1;
        if (settings().grid.order.kind == Order::Random) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            pick = random % ready.size();
        }
        done[ready[pick]] = true;
        order.push_back(ready[pick]);
    }
    return order;
}

static void copy_nodes(const Graph &g, Exec *x)
{
    x->nodes.clear();
    for (const auto &n : g.nodes) x->nodes.push_back(*n);
    if (settings().check) check_graph(x->nodes);
}

static bool memory_lives(const Exec &x)
{
    for (const Node &n : x.nodes)
        for (const auto &use : n.uses) {
            auto it = allocations().find(use.first);
            if (it != allocations().end() && it->second.id == use.second) continue;
            finding("use after free: a graph is launched whose [%s] uses memory that was freed since its capture",
                    describe(n.work.site).c_str());
            return false;
        }
    return true;
}

static Work launch_work(const Exec &x, int device, const Site &site)
{
    Work w{"graph", site, nullptr, {}};
    auto runs = std::make_shared<std::vector<std::function<void()>>>();
    for (size_t i : run_order(x.nodes)) runs->push_back(x.nodes[i].work.run);
    for (const Node &n : x.nodes) w.accesses.insert(w.accesses.end(), n.work.accesses.begin(), n.work.accesses.end());
    w.run = [runs, device] {
        for (const auto &run : *runs)
            if (run && !device_dead(device)) run();
    };
    return w;
}

static cudaError_t launch(Exec *x, cudaStream_t stream, const Site &site)
{
    Lock l;
    Stream *s = stream_of(stream);
    if (!s || !execs().count(x)) return cudaErrorInvalidResourceHandle;
    if (!memory_lives(*x)) return cudaErrorInvalidValue;
    Work w = launch_work(*x, s->device, site);
    if (s->capture) return capture_add(s, std::move(w), {});
    if (cudaError_t e = capture_forbids_implicit(s)) return e;
    std::vector<RecordP> after;
    if (x->last) after.push_back(x->last);
    x->last = enqueue_locked(s, std::move(w), after);
    return cudaSuccess;
}

static cudaGraphExecUpdateResult compare(const Exec &x, const Graph &g, size_t *where)
{
    if (x.nodes.size() != g.nodes.size()) return cudaGraphExecUpdateErrorTopologyChanged;
    for (size_t i = 0; i < x.nodes.size(); i++) {
        const Node &a = x.nodes[i], &b = *g.nodes[i];
        *where = i;
        if (a.after != b.after) return cudaGraphExecUpdateErrorTopologyChanged;
        if (strcmp(a.work.kind, b.work.kind) != 0) return cudaGraphExecUpdateErrorNodeTypeChanged;
    }
    return cudaGraphExecUpdateSuccess;
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t handle, unsigned long long flags)
{
    cudaError_t e = enter("cudaGraphInstantiate", cudaErrorMemoryAllocation);
    if (e) return e;
    Lock l;
    Graph *g = reinterpret_cast<Graph *>(handle);
    if (!graphs().count(g) || (flags & ~static_cast<unsigned long long>(cudaGraphInstantiateFlagAutoFreeOnLaunch |
                                                                         cudaGraphInstantiateFlagUseNodePriority)))
        return result(cudaErrorInvalidValue);
    auto *x = new Exec;
    x->made = SIM_SITE("cudaGraphInstantiate");
    copy_nodes(*g, x);
    execs().insert(x);
    *out = reinterpret_cast<cudaGraphExec_t>(x);
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    return cudaGraphInstantiate(out, graph, flags);
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *info)
{
    cudaError_t e = enter("cudaGraphExecUpdate", cudaErrorGraphExecUpdateFailure);
    if (e) return e;
    Lock l;
    Exec *x = reinterpret_cast<Exec *>(exec);
    Graph *g = reinterpret_cast<Graph *>(graph);
    if (!execs().count(x) || !graphs().count(g)) return result(cudaErrorInvalidValue);
    size_t where = 0;
    cudaGraphExecUpdateResultInfo r = {};
    r.result = compare(*x, *g, &where);
    if (r.result != cudaGraphExecUpdateSuccess && where < g->nodes.size())
        r.errorNode = reinterpret_cast<cudaGraphNode_t>(g->nodes[where].get());
    if (info) *info = r;
    if (r.result != cudaGraphExecUpdateSuccess) return result(cudaErrorGraphExecUpdateFailure);
    copy_nodes(*g, x); // launches already queued hold their own copies
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    cudaError_t e = enter("cudaGraphLaunch", cudaErrorLaunchOutOfResources);
    return e ? e : result(launch(reinterpret_cast<Exec *>(exec), stream, SIM_SITE("cudaGraphLaunch")));
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t)
{
    cudaError_t e = enter("cudaGraphUpload");
    if (e) return e;
    Lock l;
    return result(execs().count(reinterpret_cast<Exec *>(exec)) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    const auto injected = static_cast<cudaError_t>(fault("cudaGraphExecDestroy", cudaErrorUnknown, Call::Quiet));
    Lock l;
    Exec *x = reinterpret_cast<Exec *>(exec);
    if (!execs().erase(x)) {
        finding("a graph instance is destroyed that does not exist (any more): %s",
                describe(SIM_SITE("cudaGraphExecDestroy")).c_str());
        return result(cudaErrorInvalidValue);
    }
    delete x;
    return result(injected);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    const auto injected = static_cast<cudaError_t>(fault("cudaGraphDestroy", cudaErrorUnknown, Call::Quiet));
    Lock l;
    Graph *g = reinterpret_cast<Graph *>(graph);
    if (!graphs().count(g)) {
        finding("a graph is destroyed that does not exist (any more): %s", describe(SIM_SITE("cudaGraphDestroy")).c_str());
        return result(cudaErrorInvalidValue);
    }
    graph_delete(g);
    return result(injected);
}

cudaError_t cudaGraphCreate(cudaGraph_t *out, unsigned)
{
    cudaError_t e = enter("cudaGraphCreate", cudaErrorMemoryAllocation);
    if (e) return e;
    Lock l;
    *out = reinterpret_cast<cudaGraph_t>(graph_new(SIM_SITE("cudaGraphCreate")));
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    cudaError_t e = enter("cudaGraphGetNodes");
    if (e) return e;
    Lock l;
    Graph *g = reinterpret_cast<Graph *>(graph);
    if (!graphs().count(g)) return result(cudaErrorInvalidValue);
    if (nodes)
        for (size_t i = 0; i < *count; i++)
            nodes[i] = i < g->nodes.size() ? reinterpret_cast<cudaGraphNode_t>(g->nodes[i].get()) : nullptr;
    *count = nodes ? std::min(*count, g->nodes.size()) : g->nodes.size();
    return cudaSuccess;
}
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType *type)
{
    const std::string kind = reinterpret_cast<Node *>(node)->work.kind;
    *type = kind == "copy" ? cudaGraphNodeTypeMemcpy
            : kind == "memset" ? cudaGraphNodeTypeMemset
            : kind == "host" ? cudaGraphNodeTypeHost
            : kind == "graph" ? cudaGraphNodeTypeGraph
                              : cudaGraphNodeTypeKernel; // libraries' work, too
    return cudaSuccess;
}

} // extern "C"
