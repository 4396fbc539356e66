/* Making batches by hand, pushing them into an inlet and looking at what comes out. Real batches with one int64 column
 * that holds a number made from the key, so that a row that got lost, doubled or paired wrongly shows. */
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/fail_nth.h"

extern "C" {
#include "flow/flow.h"
#include "stepmill/type.h"
}

namespace kit {

using Key = std::vector<int64_t>;

inline int64_t payload(const Key &k, int salt = 0)
{
    uint64_t h = 1469598103934665603u + (uint64_t)salt;
    for (int64_t e : k)
        if (e >= 0) h = (h ^ (uint64_t)e) * 1099511628211u;
    return (int64_t)(h >> 2);
}

struct Pool {
    mill_pool *p = nullptr;
    Pool() { EXPECT_EQ(MILL_OK, stm_pool_create(0, &p)); }
    ~Pool() { stm_pool_release(&p); }
    operator mill_pool *() const { return p; }
};

struct Spec { /* a batch to be made */
    uint64_t seq = 0;
    std::vector<Key> keys = {};
    int64_t covered = 0;
    bool end = false;
    uint32_t borders = 0;
    int64_t frontier = -1; /* -1: covered */
    int root = 0, roots = 1;
    int64_t frontier1 = 0;
};

inline std::vector<Key> keys_of(int64_t first, int64_t rows)
{
    std::vector<Key> k;
    for (int64_t i = 0; i < rows; i++) k.push_back({first + i});
    return k;
}

/* NULL when out of memory. */
inline mill_batch *make(mill_pool *pool, const Spec &s, int salt = 0)
{
    mill_batch *b = nullptr;
    int64_t n = (int64_t)s.keys.size();
    if (stm_batch_create(pool, n, 1, s.roots, &b) != MILL_OK) return nullptr;
    b->seq = s.seq;
    b->end = s.end;
    b->borders = s.borders;
    b->frontier[0] = s.frontier < 0 ? s.covered : s.frontier;
    b->frontier[1] = s.frontier1;
    b->covered[s.root] = s.covered;
    bool consecutive = true;
    int32_t width = 1;
    for (int64_t i = 0; i < n; i++) {
        const Key &k = s.keys[(size_t)i];
        if ((int32_t)k.size() > width) width = (int32_t)k.size();
        consecutive = consecutive && k.size() == 1 && k[0] == s.keys[0][0] + i;
    }
    if (consecutive) {
        b->keys.first = n > 0 ? s.keys[0][0] : s.covered;
    } else {
        mill_buffer *t = nullptr;
        if (mill_buffer_create(pool, (size_t)(n * width) * 8, &t) != MILL_OK) return mill_batch_destroy(&b), nullptr;
        auto *d = (int64_t *)mill_buffer_data(t);
        for (int64_t i = 0; i < n; i++)
            for (int32_t e = 0; e < width; e++)
                d[i * width + e] = e < (int32_t)s.keys[(size_t)i].size() ? s.keys[(size_t)i][(size_t)e] : -1;
        b->keys.tuples = t;
        b->keys.width = width;
    }
    mill_buffer *data = nullptr;
    mill_column *col = nullptr;
    mill_status st = mill_buffer_create(pool, (size_t)n * 8, &data);
    if (st == MILL_OK) {
        for (int64_t i = 0; i < n; i++) ((int64_t *)mill_buffer_data(data))[i] = payload(s.keys[(size_t)i], salt);
        st = mill_column_create(pool, mill_type_plain(MILL_INT64), n, nullptr, nullptr, &data, nullptr, &col, nullptr);
    }
    if (st == MILL_OK) st = mill_batch_set_column(b, 0, &col);
    if (st != MILL_OK) {
        mill_buffer_unref(&data);
        mill_column_unref(&col);
        mill_batch_destroy(&b);
    }
    return b;
}

inline std::vector<Key> keys(const mill_batch *b)
{
    std::vector<Key> out;
    for (int64_t r = 0; r < b->rows; r++) {
        Key k((size_t)b->keys.width);
        stm_batch_key(b, r, k.data());
        while (k.size() > 1 && k.back() < 0) k.pop_back();
        out.push_back(k);
    }
    return out;
}

struct Item { /* a ready item, put together; column values per input, -1 = null */
    std::vector<Key> keys;
    std::vector<std::vector<int64_t>> values;
    uint64_t seq;
    std::vector<int64_t> covered;
    int64_t frontier[2];
    uint32_t borders;
    bool end;
    int input;
};

inline std::vector<int64_t> column(const mill_batch *b)
{
    std::vector<int64_t> v;
    mill_column *c = mill_batch_column(b, 0);
    for (int64_t r = 0; r < b->rows; r++) {
        if (!c || mill_column_is_null(c, r)) {
            v.push_back(-1);
        } else {
            mill_view w = mill_column_view(c);
            v.push_back(((const int64_t *)w.data)[w.offset + r]);
        }
    }
    return v;
}

/* Build a taken item with @p n_inputs batches. False: out of memory, the item is unchanged. */
inline bool build(stm_ready *r, mill_pool *pool, int n_inputs, Item *out)
{
    const mill_type *t = mill_type_plain(MILL_INT64);
    std::vector<const mill_type *const *> types((size_t)n_inputs, &t);
    std::vector<int32_t> n((size_t)n_inputs, 1);
    std::vector<mill_batch *> b((size_t)n_inputs, nullptr);
    out->input = r->input;
    if (stm_ready_build(r, pool, types.data(), n.data(), b.data(), nullptr) != MILL_OK) return false;
    out->keys = keys(b[0]);
    out->seq = b[0]->seq;
    out->covered.assign(b[0]->covered, b[0]->covered + b[0]->n_roots);
    out->frontier[0] = b[0]->frontier[0];
    out->frontier[1] = b[0]->frontier[1];
    out->borders = b[0]->borders;
    out->end = b[0]->end;
    out->values.clear();
    for (auto &x : b) {
        out->values.push_back(column(x));
        mill_batch_destroy(&x);
    }
    return true;
}

/* A flow under test. */
struct Flow {
    stm_flow *f = nullptr;
    mill_error err = {};
    mill_status status;
    Flow(mill_pool *pool, const std::vector<stm_flow_node> &nodes)
    {
        status = stm_flow_create(pool, nodes.data(), (int32_t)nodes.size(), &f, &err);
    }
    ~Flow() { stm_flow_destroy(&f); }
    stm_inlet *at(int node) const { return stm_flow_inlet(f, node); }
};

/* Node tables: inputs live as long as the program. */
inline const stm_flow_edge *edges(std::vector<stm_flow_edge> e)
{
    static std::list<std::vector<stm_flow_edge>> all;
    all.push_back(std::move(e));
    return all.back().data();
}
inline stm_flow_node generator(const char *name, int64_t credit = 1 << 20, int64_t batch = 0)
{
    stm_flow_node n = {};
    n.name = name, n.kind = STM_NODE_GENERATOR, n.source = -1, n.credit_rows = credit, n.batch_rows = batch;
    return n;
}
inline stm_flow_node node(const char *name, stm_node_kind kind, std::vector<stm_flow_edge> inputs, int64_t batch_rows = 0,
                          stm_input_mode mode = STM_INPUT_SINGLE)
{
    stm_flow_node n = {};
    n.name = name, n.kind = kind, n.mode = mode, n.n_inputs = (int32_t)inputs.size(), n.source = -1;
    n.inputs = edges(std::move(inputs));
    n.batch_rows = batch_rows;
    return n;
}

inline std::vector<Item> take_all(stm_inlet *in, mill_pool *pool, int n_inputs = 1)
{
    std::vector<Item> out;
    stm_ready r;
    while (stm_inlet_take(in, &r)) {
        Item i;
        EXPECT_TRUE(build(&r, pool, n_inputs, &i));
        out.push_back(i);
    }
    return out;
}

inline std::vector<size_t> sizes(const std::vector<Item> &items)
{
    std::vector<size_t> n;
    for (auto &i : items) n.push_back(i.keys.size());
    return n;
}

} // namespace kit
