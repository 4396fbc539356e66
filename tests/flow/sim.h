/*
 * A run of a graph without threads: generators, replicas and terminals as a list of actions that could happen next. The
 * caller chooses one, so it can try all of them (explore) or some of them (random). Every item that a node gets is
 * checked on the spot against the oracle and against what any other order of actions gave.
 *
 * All that changes lives in memory from stm_malloc, so that an arena of it is a copy of the whole run.
 */
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "oracle.h"

extern "C" {
#include "core/alloc.h"
#include "flow/internal.h"
}

namespace flowtest {

enum ActionKind { SEND, TAKE, DELIVER };
struct Action {
    int8_t kind;
    int16_t node;
    int8_t replica;
};

struct Replica {
    mill_batch *out; /* NULL = idle */
    uint32_t mask;   /* branches taken */
    int32_t edge;    /* next consumer that gets it */
};

struct NodeState {
    Replica *replicas;
    int64_t *consumed; /* [lanes] rows */
    int64_t *items;    /* [lanes] */
    int64_t *covered;  /* [roots] of the last item, ordered nodes */
    int64_t *finished; /* [roots] terminals: rows that are done with here */
    uint64_t sum;      /* unordered: of hashes of rows */
    int64_t ends;
    int32_t sent;        /* roots: batches */
    int64_t rows;        /* roots: rows sent */
    bool closed;         /* cut away */
    mill_batch **stored; /* stores */
    size_t n_stored, cap_stored;
};

struct ItemShape { /* what any interleaving must give */
    int64_t rows;
    uint32_t borders;
    bool end;
    bool operator!=(const ItemShape &o) const { return rows != o.rows || borders != o.borders || end != o.end; }
};

using Shapes = std::vector<std::vector<std::vector<ItemShape>>>; /* per node, lane, item */

class Sim {
public:
    /* @p shapes: items of other runs of the same graph to compare with; NULL = only those of this one. */
    Sim(const Graph &g, mill_pool *pool, bool columns, Shapes *shapes = nullptr)
        : g_(g), pool_(pool), columns_(columns), shapes_(shapes ? *shapes : own_shapes_)
    {
        std::vector<stm_flow_node> nodes(g.size());
        for (size_t i = 0; i < g.size(); i++) {
            const Node &n = g[i];
            stm_flow_node &f = nodes[i];
            f = {};
            f.name = n.name.c_str(), f.kind = n.kind, f.mode = n.mode, f.on_missing = n.on_missing, f.on_uneven = n.on_uneven;
            f.inputs = n.in.data(), f.n_inputs = (int32_t)n.in.size(), f.n_branches = n.branches, f.source = n.source;
            f.batch_rows = n.batch_rows, f.budget = n.budget, f.unordered = n.unordered, f.expands = n.children > 0,
            f.credit_rows = n.credit;
            if (n.kind == STM_NODE_GENERATOR) f.batch_rows = *std::max_element(n.batches.begin(), n.batches.end());
        }
        mill_error err = {};
        if (stm_flow_create(pool, nodes.data(), (int32_t)nodes.size(), &flow_, &err) != MILL_OK) {
            fail("graph refused: %s", err.msg);
            return;
        }
        std::vector<int32_t> width;
        for (size_t i = 0; i < g.size(); i++) {
            const stm_flow_stream *stream = stm_flow_stream_of(flow_, (int32_t)i);
            space_.push_back(stream->key_space);
            width.push_back(stream->key_width);
        }
        x_ = expect(g, space_, width);
        roots_ = stm_flow_roots(flow_);
        fed_by_.resize(g.size());
        for (size_t i = 0; i < g.size(); i++) {
            if (g[i].in.empty()) fed_by_[i] = uint64_t(1) << stm_flow_root_of(flow_, (int32_t)i);
            for (auto &e : g[i].in) fed_by_[i] |= fed_by_[(size_t)e.from];
        }
        edges_.resize(g.size());
        shapes_.resize(g.size());
        for (size_t i = 0; i < g.size(); i++) {
            for (size_t k = 0; k < g[i].in.size(); k++)
                edges_[(size_t)g[i].in[k].from].push_back({(int32_t)i, (int32_t)k, g[i].in[k].branch});
            shapes_[i].resize(std::max<size_t>(1, g[i].in.size()));
            for (size_t k = 0; k < g.size(); k++)
                if (g[k].kind == STM_NODE_READER && g[k].store == (int)i) reader_of_[(int)i] = (int)k;
        }
        s_ = (NodeState *)stm_calloc(g.size() * sizeof *s_);
        for (size_t i = 0; i < g.size(); i++) {
            size_t lanes = std::max<size_t>(1, g[i].in.size());
            s_[i].replicas = (Replica *)stm_calloc((size_t)g[i].replicas * sizeof(Replica));
            s_[i].consumed = (int64_t *)stm_calloc(lanes * 8);
            s_[i].items = (int64_t *)stm_calloc(lanes * 8);
            s_[i].covered = (int64_t *)stm_calloc((size_t)roots_ * 8);
            s_[i].finished = (int64_t *)stm_calloc((size_t)roots_ * 8);
            if (g[i].kind == STM_NODE_READER) stm_credit_pause(flow_, stm_flow_root_of(flow_, (int32_t)i), true);
        }
        grants_in_a_row_ = (int32_t *)stm_calloc(sizeof(int32_t));
    }
    ~Sim()
    {
        for (size_t i = 0; s_ && i < g_.size(); i++) {
            for (int r = 0; r < g_[i].replicas; r++) mill_batch_destroy(&s_[i].replicas[r].out);
            for (size_t k = 0; k < s_[i].n_stored; k++) mill_batch_destroy(&s_[i].stored[k]);
            stm_free(s_[i].replicas);
            stm_free(s_[i].consumed);
            stm_free(s_[i].items);
            stm_free(s_[i].covered);
            stm_free(s_[i].finished);
            stm_free(s_[i].stored);
        }
        stm_free(s_);
        stm_free(grants_in_a_row_);
        stm_flow_destroy(&flow_);
    }
    Sim(const Sim &) = delete;
    Sim &operator=(const Sim &) = delete;

    const std::string &problem() const { return problem_; }
    int64_t grants() const
    {
        int64_t n = 0;
        for (int32_t r = 0; r < roots_; r++) n += stm_credit_grants(flow_, r);
        return n;
    }
    bool failed() const
    {
        for (size_t i = 0; i < g_.size(); i++)
            if (s_[i].closed) return true;
        return false;
    }

    /* Everything that could happen next. */
    void actions(std::vector<Action> *out) const
    {
        out->clear();
        for (size_t i = 0; i < g_.size(); i++) {
            const NodeState &s = s_[i];
            int idle = -1;
            for (int r = g_[i].replicas - 1; r >= 0; r--) {
                if (s.replicas[r].out)
                    out->push_back({DELIVER, (int16_t)i, (int8_t)r});
                else
                    idle = r; /* replicas are alike */
            }
            if (s.closed || idle < 0) continue;
            int32_t root = stm_flow_root_of(flow_, (int32_t)i);
            if (root >= 0) {
                int64_t rows = next_rows((int)i);
                if (rows >= 0 && (rows == 0 || rows <= stm_credit_room(flow_, root)))
                    out->push_back({SEND, (int16_t)i, (int8_t)idle});
            } else if (stm_inlet_ready(stm_flow_inlet(flow_, (int32_t)i)) > 0) {
                out->push_back({TAKE, (int16_t)i, (int8_t)idle});
            }
        }
    }

    /* Nothing can happen: true = done; else a grant was made, or problem() says that the run is stuck. */
    bool quiescent()
    {
        bool ended = true;
        for (size_t i = 0; i < g_.size() && ended; i++) {
            stm_inlet *in = stm_flow_inlet(flow_, (int32_t)i);
            if (!in && !s_[i].closed && next_rows((int)i) >= 0) ended = false;
            if (in && !stm_inlet_ended(in)) ended = false;
        }
        if (ended) {
            check_end();
            return true;
        }
        int32_t starved = -1;
        if (stm_flow_grant(flow_, &starved) < 0) {
            std::string who;
            for (size_t i = 0; i < g_.size(); i++)
                if (stm_flow_inlet(flow_, (int32_t)i) && !stm_inlet_ended(stm_flow_inlet(flow_, (int32_t)i)))
                    who += " " + g_[i].name;
            fail("stuck: nothing can happen, and nobody gets a grant; not ended:%s", who.c_str());
        }
        if (++*grants_in_a_row_ > 40) fail("stuck: grants do not help (the last one for '%s')", g_[(size_t)starved].name.c_str());
        return false;
    }

    void act(const Action &a)
    {
        *grants_in_a_row_ = 0;
        if (a.kind == SEND) send(a.node, a.replica);
        if (a.kind == TAKE) take(a.node, a.replica);
        if (a.kind == DELIVER) deliver(a.node, a.replica);
        for (int32_t r = 0; r < roots_; r++) {
            const int32_t root = stm_flow_root_node(flow_, r);
            const int64_t sent = s_[root].rows, live = sent - finished(r);
            const int64_t bound = g_[(size_t)root].credit + stm_credit_largest_grant(flow_, r);
            if (live > bound) fail("%lld rows of root %d are live, bound %lld", (long long)live, (int)r, (long long)bound);
            if (live < 0) fail("more rows of root %d are completed than were sent", (int)r);
            if (stm_credit_admitted(flow_, r) != sent)
                fail("root %d counts %lld of %lld rows that it sent", (int)r, (long long)stm_credit_admitted(flow_, r),
                     (long long)sent);
            if (stm_credit_completed(flow_, r) != finished(r))
                fail("root %d counts %lld of %lld rows that are done", (int)r, (long long)stm_credit_completed(flow_, r),
                     (long long)finished(r));
        }
    }

    /* The same for equal states, whatever way led there. */
    uint64_t hash() const
    {
        uint64_t h = 1;
        for (size_t i = 0; i < g_.size(); i++) {
            const NodeState &s = s_[i];
            uint64_t reps = 0;
            for (int r = 0; r < g_[i].replicas; r++) {
                const Replica &p = s.replicas[r];
                if (p.out) reps += mix(mix(mix(11, p.out->seq), (uint64_t)p.edge), (uint64_t)p.out->end);
            }
            h = mix(mix(mix(h, reps), (uint64_t)s.sent), (uint64_t)s.closed);
            for (size_t k = 0; k < std::max<size_t>(1, g_[i].in.size()); k++)
                h = mix(mix(h, (uint64_t)s.consumed[k]), (uint64_t)s.items[k]);
            h = mix(mix(h, s.sum), s.n_stored);
            const stm_vertex &v = flow_->nodes[i];
            for (int32_t r = 0; v.done && r < roots_; r++) h = mix(h, (uint64_t)v.done[r]);
            if (v.inlet) h = hash_inlet(h, v.inlet);
        }
        for (int32_t r = 0; r < roots_; r++) {
            const stm_root &root = flow_->roots[r];
            h = mix(mix(h, (uint64_t)root.admitted), (uint64_t)root.allowed);
            h = mix(mix(h, (uint64_t)root.ended), (uint64_t)root.paused);
        }
        return mix(h, (uint64_t)*grants_in_a_row_);
    }

private:
    struct Edge {
        int32_t node, input, branch;
    };

    void fail(const char *fmt, ...) __attribute__((format(printf, 2, 3)))
    {
        if (!problem_.empty()) return;
        char text[512];
        va_list args;
        va_start(args, fmt);
        vsnprintf(text, sizeof text, fmt, args);
        va_end(args);
        problem_ = text;
    }

    static uint64_t hash_inlet(uint64_t h, const stm_inlet *in)
    {
        const stm_state *s = in->now;
        h = mix(mix(mix(h, in->head), s->tail), (uint64_t)s->rows);
        h = mix(mix(mix(h, (uint64_t)s->lead), (uint64_t)s->done), (uint64_t)(in->closed + 2 * in->failed));
        h = mix(mix(h, (uint64_t)(s->fresh + 97 * s->fresh_added)), (uint64_t)s->fresh_sent);
        for (int32_t i = 0; i < in->n_inputs; i++) {
            const stm_queue &q = in->queues[i];
            const stm_cursor &c = stm_cursors(in->now)[i];
            h = mix(mix(mix(h, q.base), q.next), q.end);
            if (in->unordered)
                for (uint64_t k = q.next; k < q.top; k++)
                    h = mix(h, (uint64_t)in->prefix[i][(k & (q.cap - 1)) * (size_t)(in->n_roots + 1)]);
            for (uint64_t k = q.base; k < q.top && !in->unordered; k++) h = mix(h, stm_queue_batch(&q, k) != nullptr);
            h = mix(mix(mix(h, c.seq), (uint64_t)c.row), c.scan);
        }
        for (int32_t l = 0; l < in->n_lanes; l++) {
            const stm_assembly &a = stm_assemblies(in)[l];
            h = mix(mix(h, (uint64_t)a.pending), in->taken[l]);
            for (int32_t c = 0; c < in->n_columns; c++) { /* cut runs that go on count as one */
                stm_piece last = {0, 0, 0, -2};
                for (size_t k = a.head; k <= a.n; k++) {
                    stm_piece p = {0, 0, 0, -3};
                    if (k < a.n) p = in->pieces[l].items[k * (size_t)in->n_columns + (size_t)c];
                    if (k == a.head && k < a.n && a.skip) p.first += p.input >= 0 ? a.skip : 0, p.rows -= a.skip;
                    if (p.input == last.input && p.seq == last.seq && (p.input < 0 || p.first == last.first + last.rows)) {
                        last.rows += p.rows;
                        continue;
                    }
                    h = mix(mix(mix(h, (uint64_t)last.input), last.seq), mix((uint64_t)last.first, (uint64_t)last.rows));
                    last = p;
                }
            }
        }
        return h;
    }

    /* Rows of a root that every terminal which it leads to, and which is not cut away, is done with. */
    int64_t finished(int32_t root) const
    {
        int64_t least = s_[stm_flow_root_node(flow_, root)].rows;
        for (size_t i = 0; i < g_.size(); i++)
            if (g_[i].kind == STM_NODE_TERMINAL && !s_[i].closed && (fed_by_[i] >> root & 1))
                least = std::min(least, s_[i].finished[root]);
        return least;
    }

    /* Rows of the next batch of a root; -1 = it has sent its end, or its stream is not stored yet. */
    int64_t next_rows(int i) const
    {
        const Node &n = g_[(size_t)i];
        const NodeState &s = s_[i];
        if (n.kind == STM_NODE_GENERATOR) return s.sent < (int)n.batches.size() ? n.batches[(size_t)s.sent] : -1;
        const NodeState &store = s_[n.store];
        const int64_t lanes = g_[(size_t)n.store].mode == STM_INPUT_EACH ? (int64_t)g_[(size_t)n.store].in.size() : 1;
        if (store.ends < lanes) return -1;
        if (n.source >= 0) return (size_t)s.sent < store.n_stored ? store.stored[s.sent]->rows : -1;
        int64_t total = 0;
        for (int64_t l = 0; l < lanes; l++) total += store.consumed[l];
        int64_t left = total - s.rows;
        return s.ends ? -1 : std::min<int64_t>(left, 2);
    }

    mill_batch *make(const std::vector<Key> &keys, const std::vector<int64_t> &values)
    {
        mill_batch *b = nullptr;
        int64_t n = (int64_t)keys.size();
        if (stm_batch_create(pool_, n, columns_ ? 1 : 0, roots_, &b) != MILL_OK) return fail("no memory"), nullptr;
        size_t width = 1;
        bool consecutive = true;
        for (size_t i = 0; i < keys.size(); i++) {
            width = std::max(width, keys[i].size());
            consecutive = consecutive && keys[i].size() == 1 && keys[i][0] == keys[0][0] + (int64_t)i;
        }
        if (consecutive) {
            b->keys.first = n > 0 ? keys[0][0] : 0;
        } else {
            mill_buffer *t = nullptr;
            if (mill_buffer_create(pool_, keys.size() * width * 8, &t) != MILL_OK) fail("no memory");
            auto *d = (int64_t *)mill_buffer_data(t);
            for (auto &k : keys)
                for (size_t e = 0; e < width; e++) *d++ = e < k.size() ? k[e] : -1;
            b->keys.tuples = t;
            b->keys.width = (int32_t)width;
        }
        if (!columns_) return b;
        mill_buffer *data = nullptr;
        mill_column *col = nullptr;
        if (mill_buffer_create(pool_, (size_t)n * 8, &data) != MILL_OK) fail("no memory");
        if (n > 0) memcpy(mill_buffer_data(data), values.data(), (size_t)n * 8);
        if (mill_column_create(pool_, mill_type_plain(MILL_INT64), n, nullptr, nullptr, &data, nullptr, &col, nullptr) != MILL_OK ||
            mill_batch_set_column(b, 0, &col) != MILL_OK)
            fail("no memory");
        return b;
    }

    void send(int i, int replica)
    {
        const Node &n = g_[(size_t)i];
        NodeState &s = s_[i];
        int32_t root = stm_flow_root_of(flow_, i);
        int64_t rows = next_rows(i);
        mill_batch *b;
        bool end;
        if (n.kind == STM_NODE_READER && n.source >= 0) {
            b = s_[n.store].stored[s.sent];
            s_[n.store].stored[s.sent] = nullptr;
            end = b->end;
            memset(b->covered, 0, (size_t)roots_ * 8);
        } else {
            std::vector<Key> keys;
            std::vector<int64_t> values;
            for (int64_t r = 0; r < rows; r++) {
                keys.push_back({s.rows + r});
                values.push_back(value_of(keys.back(), i));
            }
            b = make(keys, values);
            b->frontier[0] = s.rows + rows;
            end = n.kind == STM_NODE_GENERATOR ? s.sent + 1 == (int)n.batches.size() : rows_left_after(i, rows) == 0;
        }
        b->seq = (uint64_t)s.sent++;
        b->end = end;
        s.rows += rows;
        s.ends = end;
        b->covered[root] = s.rows;
        stm_credit_admit(flow_, root, rows);
        if (end) stm_credit_end(flow_, root);
        s.replicas[replica] = {b, ~0u, 0};
    }
    int64_t rows_left_after(int i, int64_t rows) const
    {
        const NodeState &store = s_[g_[(size_t)i].store];
        int64_t total = 0;
        for (size_t l = 0; l < std::max<size_t>(1, g_[(size_t)g_[(size_t)i].store].in.size()); l++) total += store.consumed[l];
        return total - s_[i].rows - rows;
    }

    void cut(int i)
    {
        bool closed[64] = {};
        for (size_t k = 0; k < g_.size(); k++) closed[k] = s_[k].closed;
        stm_flow_cut(flow_, i, closed);
        for (size_t k = 0; k < g_.size(); k++) { /* the output of a global that will not be */
            const Node &n = g_[k];
            if (n.kind == STM_NODE_READER && !closed[k] && closed[n.store]) stm_flow_cut(flow_, (int32_t)k, closed);
        }
        for (size_t k = 0; k < g_.size(); k++) {
            if (!closed[k]) continue;
            s_[k].closed = true;
            for (int r = 0; r < g_[k].replicas; r++) mill_batch_destroy(&s_[k].replicas[r].out);
        }
    }

    int64_t value_at(const mill_batch *b, int64_t r) const
    {
        mill_column *c = mill_batch_column(b, 0);
        if (!c || mill_column_is_null(c, r)) return kNull;
        mill_view v = mill_column_view(c);
        return ((const int64_t *)v.data)[v.offset + r];
    }

    void take(int i, int replica)
    {
        const Node &n = g_[(size_t)i];
        NodeState &s = s_[i];
        stm_ready item;
        stm_inlet_take(stm_flow_inlet(flow_, i), &item);
        int lane = item.input;
        if (n.fail_at >= 0 && s.items[lane] == n.fail_at) {
            stm_ready_discard(&item);
            cut(i);
            return;
        }
        int columns = item.recipe ? item.recipe->columns : 1;
        mill_batch *in[64] = {};
        const mill_type *type = mill_type_plain(MILL_INT64);
        const mill_type *const *types[64];
        int32_t counts[64];
        for (int c = 0; c < columns; c++) types[c] = &type, counts[c] = columns_ ? 1 : 0;
        if (stm_ready_build(&item, pool_, types, counts, in, nullptr) != MILL_OK) return fail("building failed");
        std::vector<Key> keys;
        for (int64_t r = 0; r < in[0]->rows; r++) {
            Key k((size_t)in[0]->keys.width);
            stm_batch_key(in[0], r, k.data());
            while (k.size() > 1 && k.back() < 0) k.pop_back();
            keys.push_back(k);
        }
        check_item(i, lane, in, columns, keys);
        s.items[lane]++;
        s.consumed[lane] += in[0]->rows;
        s.ends += in[0]->end;
        mill_batch *out = n.kind == STM_NODE_TERMINAL ? in[0] : process(i, in, columns, keys, &s.replicas[replica].mask);
        if (out != in[0]) mill_batch_destroy(&in[0]);
        for (int c = 1; c < columns; c++) mill_batch_destroy(&in[c]);
        s.replicas[replica].out = out;
        s.replicas[replica].edge = 0;
    }

    mill_batch *process(int i, mill_batch **in, int columns, const std::vector<Key> &keys, uint32_t *mask)
    {
        const Node &n = g_[(size_t)i];
        std::vector<Key> out_keys;
        std::vector<int64_t> out_values;
        for (size_t r = 0; r < keys.size(); r++) {
            std::vector<int64_t> v;
            for (int c = 0; c < columns && columns_; c++) v.push_back(value_at(in[c], (int64_t)r));
            int64_t value = columns_ ? combine(v) : 0;
            if (dropped(n, keys[r])) continue;
            if (n.children == 0) {
                out_keys.push_back(keys[r]);
                out_values.push_back(value);
            }
            for (int c = 0, k = n.children ? children(n, keys[r]) : 0; c < k; c++) {
                out_keys.push_back(child_of(keys[r], stm_flow_stream_of(flow_, i)->key_width, c));
                out_values.push_back((int64_t)(mix((uint64_t)value, (uint64_t)c) >> 2));
            }
        }
        *mask = n.kind == STM_NODE_ROUTER ? (keys.empty() ? 0 : route(n, keys[0])) : ~0u;
        mill_batch *b = make(out_keys, out_values);
        b->seq = in[0]->seq;
        b->frontier[0] = in[0]->frontier[0];
        b->frontier[1] = in[0]->frontier[1];
        memcpy(b->covered, in[0]->covered, (size_t)roots_ * 8);
        b->borders = in[0]->borders;
        b->skipped = in[0]->skipped;
        b->end = in[0]->end;
        return b;
    }

    void deliver(int i, int replica)
    {
        const Node &n = g_[(size_t)i];
        Replica &p = s_[i].replicas[replica];
        if (n.kind == STM_NODE_TERMINAL) {
            auto reader = reader_of_.find(i);
            for (int32_t r = 0; r < roots_; r++) s_[i].finished[r] = std::max(s_[i].finished[r], p.out->covered[r]);
            stm_credit_return(flow_, i, p.out);
            bool end = p.out->end;
            if (reader != reader_of_.end() && g_[(size_t)reader->second].source >= 0) {
                if (stm_grow(&s_[i].stored, &s_[i].cap_stored, s_[i].n_stored + 1, sizeof(mill_batch *)) != 0) fail("no memory");
                s_[i].stored[s_[i].n_stored++] = p.out;
                p.out = nullptr;
            }
            if (end && reader != reader_of_.end()) stm_credit_pause(flow_, stm_flow_root_of(flow_, reader->second), false);
            mill_batch_destroy(&p.out);
            return;
        }
        const Edge &e = edges_[(size_t)i][(size_t)p.edge++];
        mill_batch *b = nullptr;
        const bool router = n.kind == STM_NODE_ROUTER;
        if ((router ? stm_inlet_branch(stm_flow_inlet(flow_, i), p.out, p.mask >> e.branch & 1, &b) : stm_batch_clone(p.out, &b)) !=
            MILL_OK)
            fail("no memory");
        if ((size_t)p.edge == edges_[(size_t)i].size()) mill_batch_destroy(&p.out);
        mill_error err = {};
        mill_buffer *costs = g_[(size_t)e.node].budget > 0 ? prices(g_[(size_t)e.node], e.input, b) : nullptr;
        mill_status st = costs ? stm_inlet_push_costed(stm_flow_inlet(flow_, e.node), e.input, &b, &costs, &err)
                               : stm_inlet_push(stm_flow_inlet(flow_, e.node), e.input, &b, &err);
        if (costs) fail("costs were left behind");
        if (st == MILL_ERR_DATA && x_.fails[(size_t)e.node] && !b) {
            cut(e.node);
        } else if (st != MILL_OK || b) {
            mill_batch_destroy(&b);
            fail("push into '%s' failed: %s", g_[(size_t)e.node].name.c_str(), err.msg);
        }
    }

    mill_buffer *prices(const Node &n, int input, const mill_batch *b)
    {
        mill_buffer *out = nullptr;
        if (mill_buffer_create(pool_, (size_t)b->rows * 8, &out) != MILL_OK) return fail("no memory"), nullptr;
        auto *d = (int64_t *)mill_buffer_data(out);
        Key k((size_t)b->keys.width);
        for (int64_t r = 0; r < b->rows; r++) {
            stm_batch_key(b, r, k.data());
            d[r] = price(n, input, k);
        }
        return out;
    }

    /* The rows cost no more than the budget, or it is one row; and no more of them would have fitted in. */
    void check_cost(int i, const Rows &want, size_t at, size_t rows, bool may_be_short)
    {
        const Node &n = g_[(size_t)i];
        int64_t cost = 0;
        for (size_t r = at; r < at + rows; r++) cost += want[r].cost;
        if (rows > 1 && cost > n.budget)
            fail("'%s' got rows for %lld with a budget of %lld", n.name.c_str(), (long long)cost, (long long)n.budget);
        bool full = cost >= n.budget || (int64_t)rows == n.batch_rows;
        full = full || (at + rows < want.size() ? cost + want[at + rows].cost > n.budget : (bool)x_.fails[(size_t)i]);
        if (!full && !may_be_short)
            fail("'%s' got %zu rows for %lld, which is not what fits in", n.name.c_str(), rows, (long long)cost);
    }

    void check_item(int i, int lane, mill_batch **in, int columns, const std::vector<Key> &keys)
    {
        const Node &n = g_[(size_t)i];
        NodeState &s = s_[i];
        const char *name = n.name.c_str();
        const mill_batch *b = in[0];
        const Rows &want = x_.in[(size_t)i][(size_t)lane];
        size_t at = (size_t)s.consumed[lane];
        if (at + keys.size() > want.size()) return fail("'%s' got more rows than there are", name);
        if (n.unordered) {
            for (auto &k : keys) s.sum += hash_key(k);
        } else {
            if (b->seq != (uint64_t)s.items[lane])
                fail("'%s' got item %lld as number %lld", name, (long long)b->seq, (long long)s.items[lane]);
            check_rows(i, lane, at, want, in, columns, keys);
            ItemShape shape = {b->rows, b->borders, b->end};
            auto &seen = shapes_[(size_t)i][(size_t)lane];
            if ((size_t)s.items[lane] == seen.size())
                seen.push_back(shape);
            else if (seen[(size_t)s.items[lane]] != shape)
                fail("item %lld of '%s' depends on the order of arrival", (long long)s.items[lane], name);
        }
        bool may_be_short = b->end || (b->borders & stm_flow_inlet(flow_, i)->borders_out[lane]) != 0 || b->rows == 0;
        if (n.budget > 0) {
            if (n.batch_rows > 0 && b->rows > n.batch_rows) fail("'%s' got %lld rows, more than it may", name, (long long)b->rows);
            check_cost(i, want, at, keys.size(), may_be_short);
        } else if (n.batch_rows > 0 && (b->rows > n.batch_rows || (b->rows < n.batch_rows && !may_be_short)))
            fail("'%s' got %lld rows instead of %lld", name, (long long)b->rows, (long long)n.batch_rows);
        if (b->end && at + keys.size() != want.size()) fail("the end of '%s' came before its last rows", name);
        if (s.ends >= (n.mode == STM_INPUT_EACH ? (int64_t)n.in.size() : 1)) fail("'%s' got something behind its end", name);
        for (int32_t r = 0; r < roots_; r++) {
            if (!(stm_flow_stream_of(flow_, i)->roots >> r & 1)) continue;
            if (b->covered[r] > stm_credit_admitted(flow_, r)) fail("'%s': covers rows that were not sent", name);
            if (n.unordered && n.kind != STM_NODE_TERMINAL) continue;
            if (b->covered[r] < s.covered[r]) fail("'%s': coverage goes back", name);
            s.covered[r] = b->covered[r];
            const size_t root = (size_t)stm_flow_root_node(flow_, r), next = at + keys.size();
            const bool own_keys =
                !n.unordered && n.mode != STM_INPUT_EACH && g_[root].kind == STM_NODE_GENERATOR && space_[i] == space_[root];
            if (own_keys && next < want.size() && want[next].key[0] < b->covered[r])
                fail("'%s': %lld rows are said to be done, and row %lld comes later", name, (long long)b->covered[r],
                     (long long)want[next].key[0]);
        }
    }

    void check_rows(int i, int lane, size_t at, const Rows &want, mill_batch **in, int columns, const std::vector<Key> &keys)
    {
        const char *name = g_[(size_t)i].name.c_str();
        for (size_t r = 0; r < keys.size(); r++) {
            const Row &w = want[at + r];
            if (keys[r] != w.key)
                return fail("'%s': row %zu has another key than it should (first element %lld, not %lld)", name, at + r,
                            (long long)keys[r][0], (long long)w.key[0]);
            if (w.path != want[at].path) return fail("'%s': an item goes over the border of a routed batch", name);
            if (in[0]->frontier[0] < 0) fail("'%s': no frontier", name);
            if ((int)w.values.size() != columns) return fail("'%s' got %d inputs", name, columns);
            for (int c = 0; c < columns && columns_; c++)
                if (value_at(in[c], (int64_t)r) != w.values[(size_t)c])
                    return fail("'%s': row %zu has wrong contents", name, at + r);
            if (c_has_keys(i))
                for (int c = 1; c < columns; c++) check_partner(i, in, c, (int64_t)r, w);
        }
        /* everything below the frontier has been seen, and a border ends all of its routed batch */
        size_t next = at + keys.size();
        if (next < want.size() && (in[0]->borders & stm_flow_inlet(flow_, i)->borders_out[lane]) && !keys.empty() &&
            want[next].path == want[at].path)
            fail("'%s': a border stands before the end of its routed batch", name);
        if (next < want.size() && want[next].key[0] < in[0]->frontier[0])
            fail("'%s': row %lld comes after frontier %lld", name, (long long)want[next].key[0], (long long)in[0]->frontier[0]);
        const stm_input_mode mode = g_[(size_t)i].mode; /* the lanes of a global have key spaces of their own */
        const bool two = mode == STM_INPUT_UNION || (mode != STM_INPUT_EACH && stm_flow_inlet(flow_, i)->two_levels);
        if (two && next < want.size() && want[next].key[0] == in[0]->frontier[0] &&
            (want[next].key.size() > 1 ? want[next].key[1] : -1) < in[0]->frontier[1])
            fail("'%s': row %lld comes after frontier %lld.%lld", name, (long long)want[next].key[0], (long long)in[0]->frontier[0],
                 (long long)in[0]->frontier[1]);
    }
    bool c_has_keys(int i) const { return stm_flow_inlet(flow_, i)->by_key; }
    void check_partner(int i, mill_batch **in, int c, int64_t r, const Row &w)
    {
        bool there = w.values[(size_t)c] != kNull;
        Key k((size_t)in[c]->keys.width);
        stm_batch_key(in[c], r, k.data());
        while (k.size() > 1 && k.back() < 0) k.pop_back();
        if (there ? k != w.key : k[0] != -1) fail("'%s': input %d has another row than the first", g_[(size_t)i].name.c_str(), c);
    }

    void check_end()
    {
        for (size_t i = 0; i < g_.size(); i++) {
            const Node &n = g_[i];
            if (s_[i].closed) continue;
            if (x_.fails[i]) fail("'%s' should have failed", n.name.c_str());
            if (n.in.empty()) continue;
            size_t lanes = n.mode == STM_INPUT_EACH ? n.in.size() : 1;
            for (size_t l = 0; l < lanes; l++) {
                if (s_[i].consumed[l] != (int64_t)x_.in[i][l].size())
                    fail("'%s' got %lld of %zu rows", n.name.c_str(), (long long)s_[i].consumed[l], x_.in[i][l].size());
                if (!n.unordered && !failed() && (size_t)s_[i].items[l] != shapes_[i][l].size())
                    fail("'%s': items are missing", n.name.c_str());
            }
            if (s_[i].ends != (int64_t)lanes) fail("'%s' got %lld ends", n.name.c_str(), (long long)s_[i].ends);
            uint64_t sum = 0;
            for (auto &r : x_.in[i][0]) sum += hash_key(r.key);
            if (n.unordered && lanes == 1 && sum != s_[i].sum) fail("'%s' got other rows than it should", n.name.c_str());
        }
        for (int32_t r = 0; r < roots_; r++)
            if (stm_credit_completed(flow_, r) != stm_credit_admitted(flow_, r))
                fail("root %d: %lld rows were sent, %lld completed", (int)r, (long long)stm_credit_admitted(flow_, r),
                     (long long)stm_credit_completed(flow_, r));
    }

    const Graph &g_;
    mill_pool *pool_;
    bool columns_;
    stm_flow *flow_ = nullptr;
    NodeState *s_ = nullptr;
    int32_t *grants_in_a_row_ = nullptr;
    int32_t roots_ = 0;
    std::vector<int> space_;
    std::vector<uint64_t> fed_by_; /* per node: the roots whose rows reach it */
    Expected x_;
    std::vector<std::vector<Edge>> edges_;
    std::map<int, int> reader_of_;
    Shapes own_shapes_;
    Shapes &shapes_; /* first seen: the same for all interleavings */
    std::string problem_;
};

} // namespace flowtest
