/*
 * What a graph must do, computed the naive way: node by node over whole streams of rows, no batches in flight, no
 * sharing of code with the engine. A row is its key, the routed batches around it, and a value.
 */
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

extern "C" {
#include "flow/flow.h"
}

namespace flowtest {

using Key = std::vector<int64_t>;

/* A node of a graph under test and how it behaves; every choice depends on keys only. */
struct Node {
    std::string name;
    stm_node_kind kind = STM_NODE_STEP;
    stm_input_mode mode = STM_INPUT_SINGLE;
    std::vector<stm_flow_edge> in;
    int64_t batch_rows = 0;
    int replicas = 1;
    int branches = 0;
    int source = -1;          /* readers: node whose stream is replayed */
    int store = -1;           /* readers: terminal that stored it, or the global whose output it is */
    int64_t credit = 1;       /* roots */
    std::vector<int> batches; /* generators: rows of each batch; the last carries the end */
    int drop = 0;             /* steps: drop rows with hash % drop == 0 (1: all) */
    int children = 0;         /* steps: 0 = keep rows; n: hash % n children (0 .. n-1) per row */
    int route = 0;            /* routers: 0 by hash, 1 all branches, 2 always branch 0, 3 a subset by hash */
    int64_t budget = 0;       /* 0 = none */
    int costs = 0;            /* with a budget: a row's cost is hash % costs */
    bool unordered = false;
    stm_on_missing on_missing = STM_MISSING_NULL;
    stm_on_uneven on_uneven = STM_UNEVEN_NULL;
    int fail_at = -1; /* fails when it takes this item */
};
using Graph = std::vector<Node>;

inline uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    h *= 0xff51afd7ed558ccdu;
    return h ^ (h >> 33);
}
inline uint64_t hash_key(const Key &k) /* however wide: -1 counts only where something follows it */
{
    uint64_t h = 7;
    size_t n = k.size();
    while (n > 0 && k[n - 1] < 0) n--;
    for (size_t i = 0; i < n; i++) h = mix(h, (uint64_t)k[i]);
    return h;
}
/* Each expansion has a place of its own in the key, the last of its stream's: what went through fewer expansions has -1 in
 * between, and children of a row never get the keys of its children's children. */
inline Key child_of(Key parent, int32_t width, int child)
{
    parent.resize((size_t)width - 1, -1);
    parent.push_back(child);
    return parent;
}
inline bool key_less(const Key &a, const Key &b)
{
    for (size_t i = 0; i < a.size() || i < b.size(); i++) {
        int64_t x = i < a.size() ? a[i] : -1, y = i < b.size() ? b[i] : -1;
        if (x != y) return x < y;
    }
    return false;
}
struct KeyLess {
    bool operator()(const Key &a, const Key &b) const { return key_less(a, b); }
};

constexpr int64_t kNull = -1;
inline int64_t value_of(const Key &k, int node) { return (int64_t)(mix(hash_key(k), (uint64_t)node) >> 2); }
inline int64_t combine(const std::vector<int64_t> &v)
{
    uint64_t h = 3;
    for (int64_t x : v) h = mix(h, (uint64_t)x);
    return v.size() == 1 ? v[0] : (int64_t)(h >> 2);
}

/* What the behaviours decide. */
inline bool dropped(const Node &n, const Key &k) { return n.drop > 0 && hash_key(k) % (uint64_t)n.drop == 0; }
inline int children(const Node &n, const Key &k) { return (int)((hash_key(k) >> 20) % (uint64_t)n.children); }
inline uint32_t route(const Node &n, const Key &first)
{
    uint64_t h = hash_key(first) >> 13;
    uint32_t all = (1u << n.branches) - 1u;
    if (n.route == 1) return all;
    if (n.route == 2) return 1;
    if (n.route == 3) return (uint32_t)(h % all) + 1u;
    return 1u << (h % (uint64_t)n.branches);
}

/* What a row costs at this node as it arrives on input @p input; the engine takes less than 1 as 1. */
inline int64_t price(const Node &n, int input, const Key &k)
{
    return (int64_t)(mix(hash_key(k), 1009 + (uint64_t)input) % (uint64_t)n.costs);
}

struct Row {
    Key key;
    std::vector<int> path;       /* number of the routed batch at each depth */
    std::vector<int64_t> values; /* as input: one per joined input, kNull where it lacks the row; as output: one */
    uint32_t mask = ~0u;         /* output of a router: branches taken */
    int64_t cost = 1;            /* as input */
};
using Rows = std::vector<Row>;

struct Expected {
    std::vector<std::vector<Rows>> in; /* per node, per lane (EACH: per input) */
    std::vector<Rows> out;
    std::vector<int64_t> last; /* where keys end: first elements are below, also of rows that were dropped on the way */
    std::vector<bool> fails;   /* joins and convergences that must fail */
    std::vector<std::vector<uint32_t>> taken; /* routers: per routed batch the branches it took */
};

inline Rows edge_rows(const Expected &x, const Graph &g, stm_flow_edge e)
{
    Rows rows;
    for (const Row &r : x.out[(size_t)e.from])
        if (g[(size_t)e.from].kind != STM_NODE_ROUTER || (r.mask >> e.branch & 1)) rows.push_back(r);
    return rows;
}

/* Which branch of which router leads to this edge: the innermost one that has not converged on the way. */
inline stm_flow_edge branch_of(const Graph &g, stm_flow_edge e)
{
    for (int closed = 0;;) {
        const Node &n = g[(size_t)e.from];
        if (n.kind == STM_NODE_ROUTER && closed-- == 0) return e;
        if (n.mode == STM_INPUT_CONVERGE) closed++;
        e = n.kind == STM_NODE_READER ? stm_flow_edge{n.source, 0} : n.in[0];
    }
}

/* @p due: whether input i must have row r; a row that it lacks all the same is missing. */
template <typename Due>
inline Rows join_by_key(const std::vector<Rows> &in, stm_on_missing missing, bool *fails, bool costs_most, Due due)
{
    std::map<Key, Row, KeyLess> all;
    for (size_t i = 0; i < in.size(); i++) {
        for (const Row &r : in[i]) {
            Row &o = all[r.key];
            if (o.values.empty()) o.key = r.key, o.path = r.path, o.values.assign(in.size(), kNull), o.cost = 0;
            o.values[i] = r.values[0];
            o.cost = costs_most ? std::max(o.cost, r.cost) : o.cost + r.cost;
        }
    }
    Rows out;
    for (auto &kv : all) {
        bool whole = true;
        for (size_t i = 0; i < in.size(); i++) whole = whole && (kv.second.values[i] != kNull || !due(i, kv.second));
        if (!whole && missing == STM_MISSING_ERROR) {
            *fails = true;
            return out;
        }
        if (whole || missing == STM_MISSING_NULL) out.push_back(kv.second);
    }
    return out;
}

inline Rows join_by_position(const std::vector<Rows> &in, stm_on_uneven uneven, int64_t fresh, bool *fails)
{
    size_t most = 0, least = SIZE_MAX;
    for (auto &r : in) most = std::max(most, r.size()), least = std::min(least, r.size());
    if (uneven == STM_UNEVEN_ERROR && most != least) *fails = true;
    Rows out;
    for (size_t k = 0; k < (uneven == STM_UNEVEN_ERROR ? least : most); k++) {
        Row o;
        o.cost = 0;
        for (auto &r : in) o.cost += k < r.size() ? r[k].cost : 0;
        o.key = k < in[0].size() ? in[0][k].key : Key{fresh++};
        for (auto &r : in) o.values.push_back(k < r.size() ? r[k].values[0] : kNull);
        out.push_back(o);
    }
    return out;
}

/* @p space, @p width: key space and key width of each node's stream. */
inline Expected expect(const Graph &g, const std::vector<int> &space, const std::vector<int32_t> &width)
{
    Expected x;
    x.in.resize(g.size());
    x.out.resize(g.size());
    x.fails.resize(g.size());
    x.last.resize(g.size());
    x.taken.resize(g.size());
    for (size_t i = 0; i < g.size(); i++) {
        const Node &n = g[i];
        Rows &out = x.out[i];
        if (n.kind == STM_NODE_GENERATOR) {
            int64_t k = 0;
            for (int rows : n.batches)
                for (int r = 0; r < rows; r++, k++) out.push_back({{k}, {}, {value_of({k}, (int)i)}});
            x.last[i] = k;
            continue;
        }
        if (n.kind == STM_NODE_READER) {
            if (n.source >= 0) {
                out = x.out[(size_t)n.source];
                x.last[i] = x.last[(size_t)n.source];
            } else {
                int64_t &rows = x.last[i];
                for (auto &lane : x.in[(size_t)n.store]) rows += (int64_t)lane.size();
                for (int64_t k = 0; k < rows; k++) out.push_back({{k}, {}, {value_of({k}, (int)i)}});
            }
            continue;
        }
        std::vector<Rows> in;
        bool fails = false, one_space = true;
        for (auto &e : n.in) {
            in.push_back(edge_rows(x, g, e));
            for (Row &r : in.back()) r.cost = n.budget > 0 ? std::max<int64_t>(1, price(n, (int)in.size() - 1, r.key)) : 1;
            one_space = one_space && space[(size_t)e.from] == space[(size_t)n.in[0].from];
        }
        if (n.mode == STM_INPUT_EACH) {
            x.in[i] = in;
            continue;
        }
        Rows rows;
        if (n.mode == STM_INPUT_SINGLE) rows = in[0];
        if (n.mode == STM_INPUT_UNION) {
            /* all routed batches of one input, then all of the next: none may share a number, also below a union of unions */
            int first = 0;
            for (size_t k = 0; k < in.size(); k++) {
                int past = first;
                for (Row &r : in[k]) {
                    r.key.insert(r.key.begin(), (int64_t)k);
                    for (int &p : r.path) past = std::max(past, (p += first) + 1);
                    rows.push_back(r);
                }
                first = past;
            }
        }
        if (n.mode == STM_INPUT_JOIN && one_space)
            rows = join_by_key(in, n.on_missing, &fails, false, [](size_t, const Row &) { return true; });
        int64_t &last = x.last[i];
        for (size_t k = 0; k < n.in.size(); k++)
            if (k == 0 || one_space) last = std::max(last, x.last[(size_t)n.in[k].from]);
        if (n.mode == STM_INPUT_UNION) last = (int64_t)n.in.size();
        if (n.mode == STM_INPUT_JOIN && !one_space) {
            rows = join_by_position(in, n.on_uneven, last, &fails);
            if (rows.size() > in[0].size()) last += (int64_t)(rows.size() - in[0].size());
        }
        if (n.mode == STM_INPUT_CONVERGE) {
            rows = join_by_key(in, n.on_missing, &fails, true, [&](size_t k, const Row &r) {
                stm_flow_edge b = branch_of(g, n.in[k]);
                return (x.taken[(size_t)b.from][(size_t)r.path.back()] >> b.branch & 1) != 0;
            });
            for (Row &r : rows) r.path.pop_back();
        }
        x.fails[i] = fails;
        x.in[i] = {rows};
        if (n.kind == STM_NODE_TERMINAL) { /* a store: readers may name it */
            out = rows;
            continue;
        }
        int segment = -1;
        size_t in_segment = 0;
        int64_t spent = 0;
        uint32_t mask = 0;
        std::vector<int> path;
        for (const Row &r : rows) {
            Row o = r;
            o.values = {combine(r.values)};
            if (n.kind == STM_NODE_ROUTER) {
                bool full = n.batch_rows > 0 && in_segment == (size_t)n.batch_rows;
                if (n.budget > 0) full = full || spent >= n.budget || spent + r.cost > n.budget;
                if (segment < 0 || r.path != path || full) {
                    segment++, in_segment = 0, spent = 0, path = r.path;
                    mask = route(n, r.key);
                    x.taken[i].push_back(mask);
                }
                in_segment++;
                spent += r.cost;
                o.path.push_back(segment);
                o.mask = mask;
            } else if (dropped(n, r.key)) {
                continue;
            } else if (n.children > 0) {
                for (int c = 0, k = children(n, r.key); c < k; c++) {
                    Row child = o;
                    child.key = child_of(o.key, width[i], c);
                    child.values[0] = (int64_t)(mix((uint64_t)o.values[0], (uint64_t)c) >> 2);
                    out.push_back(child);
                }
                continue;
            }
            out.push_back(o);
        }
    }
    return x;
}

} // namespace flowtest
