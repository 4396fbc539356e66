/* The graph of a run: checked and analysed once. */
#include "flow/internal.h"

#include <string.h>

#include "core/alloc.h"

static const char *name_of(const stm_flow *f, int32_t node) { return f->nodes[node].name; }

static bool is_root(stm_node_kind k) { return k == STM_NODE_GENERATOR || k == STM_NODE_READER; }

static mill_status check_node(const stm_flow *f, int32_t at, mill_error *err)
{
    const stm_vertex *v = &f->nodes[at];
    const stm_flow_node *n = &v->node;
    if (is_root(n->kind)) {
        if (n->n_inputs != 0) return mill_fail(err, MILL_ERR_INVALID, "step '%s' makes rows and cannot have inputs", v->name);
        if (n->credit_rows < 1) return mill_fail(err, MILL_ERR_INVALID, "step '%s' has no credit", v->name);
        if (n->kind == STM_NODE_READER && (n->source < -1 || n->source >= at))
            return mill_fail(err, MILL_ERR_INVALID, "step '%s' reads a stream that does not come before it", v->name);
    } else if (n->n_inputs < 1) {
        return mill_fail(err, MILL_ERR_INVALID, "step '%s' has no input", v->name);
    }
    if (n->mode == STM_INPUT_SINGLE && n->n_inputs > 1)
        return mill_fail(err, MILL_ERR_INVALID, "step '%s' has %d inputs but neither joins nor unites them", v->name,
                         (int)n->n_inputs);
    if (n->n_inputs > 64) return mill_fail(err, MILL_ERR_INVALID, "step '%s' has more than 64 inputs", v->name);
    if (n->mode == STM_INPUT_EACH && n->kind != STM_NODE_TERMINAL)
        return mill_fail(err, MILL_ERR_INVALID, "step '%s' takes its inputs one by one, so its stream must end there", v->name);
    if (n->unordered && ((n->mode != STM_INPUT_SINGLE && n->mode != STM_INPUT_EACH) || n->batch_rows != 0 || n->budget != 0))
        return mill_fail(err, MILL_ERR_INVALID, "step '%s' needs its input in order", v->name);
    if (n->budget < 0 || n->budget > STM_FLOW_MAX_BUDGET || (n->budget > 0 && is_root(n->kind)))
        return mill_fail(err, MILL_ERR_INVALID, "step '%s': a budget of %lld", v->name, (long long)n->budget);
    if (n->batch_rows < 0)
        return mill_fail(err, MILL_ERR_INVALID, "step '%s': batches of %lld rows", v->name, (long long)n->batch_rows);
    if (n->kind == STM_NODE_ROUTER && n->n_branches < 1)
        return mill_fail(err, MILL_ERR_INVALID, "router '%s' has no branches", v->name);
    for (int32_t i = 0; i < n->n_inputs; i++) {
        stm_flow_edge e = v->inputs[i];
        if (e.from < 0 || e.from >= at)
            return mill_fail(err, MILL_ERR_INVALID, "step '%s' has an input that does not come before it", v->name);
        const stm_flow_node *from = &f->nodes[e.from].node;
        if (from->kind == STM_NODE_TERMINAL)
            return mill_fail(err, MILL_ERR_INVALID, "step '%s' follows '%s', where the stream ends", v->name, name_of(f, e.from));
        if (e.branch < 0 || e.branch >= (from->kind == STM_NODE_ROUTER ? from->n_branches : 1))
            return mill_fail(err, MILL_ERR_INVALID, "step '%s' names branch %d of '%s', which it does not have", v->name,
                             (int)e.branch, name_of(f, e.from));
    }
    return MILL_OK;
}

/* Branch of input i at router depth d; a router's own stream gets its branch from the edge. */
static int32_t branch_at(const stm_flow *f, stm_flow_edge e, int32_t d)
{
    const stm_vertex *from = &f->nodes[e.from];
    return from->node.kind == STM_NODE_ROUTER && d == from->stream.depth - 1 ? e.branch : from->branches[d];
}

static bool same_routes(const stm_flow *f, stm_flow_edge a, stm_flow_edge b, int32_t depth)
{
    for (int32_t d = 0; d < depth; d++)
        if (f->nodes[a.from].routers[d] != f->nodes[b.from].routers[d] || branch_at(f, a, d) != branch_at(f, b, d)) return false;
    return true;
}

static mill_status analyse_inputs(stm_flow *f, int32_t at, mill_error *err)
{
    stm_vertex *v = &f->nodes[at];
    const stm_flow_node *n = &v->node;
    const stm_vertex *first = &f->nodes[v->inputs[0].from];
    int32_t depth = first->stream.depth;
    bool one_space = true, related = false;
    int32_t width = 0;
    v->stream.key_space = first->stream.key_space;
    v->bases = 0;
    for (int32_t i = 0; i < n->n_inputs; i++) {
        const stm_vertex *from = &f->nodes[v->inputs[i].from];
        v->stream.roots |= from->stream.roots;
        if (from->stream.key_width > width) width = from->stream.key_width;
        if (from->stream.key_space != v->stream.key_space) one_space = false;
        for (int32_t k = 0; k < i; k++) {
            const stm_vertex *other = &f->nodes[v->inputs[k].from];
            if (from->stream.key_space != other->stream.key_space && (from->bases & other->bases) != 0) related = true;
        }
        v->bases |= from->bases;
        if (n->mode == STM_INPUT_EACH || i == 0) continue;
        int32_t shared = n->mode == STM_INPUT_CONVERGE ? depth - 1 : depth;
        bool fits = from->stream.depth == depth && same_routes(f, v->inputs[0], v->inputs[i], shared);
        if (n->mode == STM_INPUT_CONVERGE) fits = fits && depth > 0 && from->routers[depth - 1] == first->routers[depth - 1];
        if (!fits)
            return mill_fail(err, MILL_ERR_INVALID, "step '%s' puts '%s' and '%s' together, which %s", v->name, first->name,
                             from->name,
                             n->mode == STM_INPUT_CONVERGE ? "are not branches of one router"
                                                           : "lie in different routed branches (converge them first)");
    }
    if (n->mode == STM_INPUT_CONVERGE) {
        if (depth == 0)
            return mill_fail(err, MILL_ERR_INVALID, "step '%s' converges '%s', which is not in a routed branch", v->name,
                             first->name);
        if (!one_space)
            return mill_fail(err, MILL_ERR_INVALID,
                             "step '%s' converges branches of '%s' that have no common keys (a union in one of them)", v->name,
                             name_of(f, first->routers[depth - 1]));
        depth--;
    }
    if (n->mode == STM_INPUT_JOIN && related)
        return mill_fail(err, MILL_ERR_INVALID,
                         "step '%s' joins inputs of which only some are below a union, so that their rows have no common keys",
                         v->name);
    v->two_levels = first->two_levels;
    v->stream.key_width = n->mode == STM_INPUT_JOIN && !one_space ? first->stream.key_width : width;
    if (n->mode == STM_INPUT_JOIN && !one_space) v->bases = first->bases;
    if (n->mode == STM_INPUT_UNION) {
        v->stream.key_space = at;
        v->stream.key_width = width + 1;
        v->two_levels = true;
    }
    v->stream.depth = depth;
    for (int32_t d = 0; d < depth; d++) {
        v->routers[d] = first->routers[d];
        v->branches[d] = branch_at(f, v->inputs[0], d);
    }
    return MILL_OK;
}

static mill_status analyse(stm_flow *f, int32_t at, mill_error *err)
{
    stm_vertex *v = &f->nodes[at];
    const stm_flow_node *n = &v->node;
    v->root = -1;
    if (is_root(n->kind)) {
        if (f->n_roots == STM_FLOW_MAX_ROOTS)
            return mill_fail(err, MILL_ERR_INVALID, "more than %d roots", STM_FLOW_MAX_ROOTS);
        v->root = f->n_roots;
        f->roots[f->n_roots] = (stm_root){.node = at, .credit = n->credit_rows};
        v->stream = (stm_flow_stream){.key_space = at, .key_width = 1, .roots = (uint64_t)1 << f->n_roots};
        v->bases = v->stream.roots;
        f->n_roots++;
        if (n->kind == STM_NODE_READER && n->source >= 0) {
            const stm_vertex *s = &f->nodes[n->source];
            if (s->node.kind == STM_NODE_ROUTER || (s->node.kind == STM_NODE_TERMINAL && s->node.mode != STM_INPUT_SINGLE))
                return mill_fail(err, MILL_ERR_INVALID, "step '%s' cannot read the stream of '%s'", v->name, s->name);
            v->stream.key_space = s->stream.key_space;
            v->stream.key_width = s->stream.key_width;
            v->stream.depth = s->stream.depth;
            v->two_levels = s->two_levels;
            v->bases = s->bases;
            memcpy(v->routers, s->routers, sizeof v->routers);
            memcpy(v->branches, s->branches, sizeof v->branches);
        }
    } else {
        mill_status st = analyse_inputs(f, at, err);
        if (st != MILL_OK) return st;
    }
    if (n->expands && n->kind == STM_NODE_STEP) v->stream.key_width++;
    if (v->stream.key_width > STM_FLOW_MAX_KEY - 2)
        return mill_fail(err, MILL_ERR_INVALID, "keys of step '%s' are %d long: too many expansions", v->name,
                         (int)v->stream.key_width);
    if (n->kind == STM_NODE_ROUTER) {
        if (v->stream.depth == STM_FLOW_MAX_DEPTH - 1)
            return mill_fail(err, MILL_ERR_INVALID, "router '%s' is nested more than %d deep", v->name, STM_FLOW_MAX_DEPTH - 1);
        v->routers[v->stream.depth] = at;
        v->branches[v->stream.depth] = -1;
        v->stream.depth++;
    }
    return MILL_OK;
}

/* Per root the terminals it reaches. */
static mill_status link_terminals(stm_flow *f)
{
    for (int32_t r = 0; r < f->n_roots; r++) {
        stm_root *root = &f->roots[r];
        root->terminals = stm_calloc((size_t)f->n * sizeof *root->terminals);
        if (!root->terminals) return MILL_ERR_NOMEM;
        for (int32_t i = 0; i < f->n; i++)
            if (f->nodes[i].node.kind == STM_NODE_TERMINAL && (f->nodes[i].stream.roots >> r & 1))
                root->terminals[root->n_terminals++] = i;
    }
    for (int32_t i = 0; i < f->n; i++) {
        if (f->nodes[i].node.kind != STM_NODE_TERMINAL) continue;
        f->nodes[i].done = stm_calloc((size_t)f->n_roots * sizeof *f->nodes[i].done);
        if (!f->nodes[i].done) return MILL_ERR_NOMEM;
    }
    return MILL_OK;
}

static mill_status copy_node(stm_vertex *v, const stm_flow_node *n)
{
    v->node = *n;
    v->name = stm_strdup(n->name ? n->name : "?");
    v->inputs = stm_calloc((size_t)(n->n_inputs > 0 ? n->n_inputs : 1) * sizeof *v->inputs);
    if (!v->name || !v->inputs) return MILL_ERR_NOMEM;
    if (n->n_inputs > 0) memcpy(v->inputs, n->inputs, (size_t)n->n_inputs * sizeof *v->inputs);
    v->node.inputs = v->inputs;
    v->node.name = v->name;
    return MILL_OK;
}

mill_status stm_flow_create(mill_pool *pool, const stm_flow_node *nodes, int32_t n, stm_flow **out, mill_error *err)
{
    stm_flow *f = stm_calloc(sizeof *f);
    if (!f) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a graph of %d steps", (int)n);
    mill_status st = MILL_ERR_NOMEM;
    f->pool = pool;
    f->n = n;
    f->nodes = stm_calloc((size_t)n * sizeof *f->nodes);
    f->roots = stm_calloc(STM_FLOW_MAX_ROOTS * sizeof *f->roots);
    if (!f->nodes || !f->roots) goto fail;
    for (int32_t i = 0; i < n; i++) {
        st = copy_node(&f->nodes[i], &nodes[i]);
        if (st == MILL_OK) st = check_node(f, i, err);
        if (st == MILL_OK) st = analyse(f, i, err);
        if (st != MILL_OK) goto fail;
    }
    st = link_terminals(f);
    for (int32_t i = 0; i < n && st == MILL_OK; i++)
        if (f->nodes[i].node.n_inputs > 0) st = stm_inlet_create(f, i, &f->nodes[i].inlet);
    if (st != MILL_OK) goto fail;
    *out = f;
    return MILL_OK;
fail:
    stm_flow_destroy(&f);
    return mill_fail(err, st, "no memory for a graph of %d steps", (int)n);
}

void stm_flow_destroy(stm_flow **flow)
{
    stm_flow *f = *flow;
    if (!f) return;
    for (int32_t i = 0; i < f->n && f->nodes; i++) {
        stm_vertex *v = &f->nodes[i];
        stm_inlet_destroy(&v->inlet);
        stm_free(v->name);
        stm_free(v->inputs);
        stm_free((void *)v->done);
    }
    for (int32_t r = 0; r < f->n_roots; r++) stm_free(f->roots[r].terminals);
    stm_free(f->nodes);
    stm_free(f->roots);
    stm_free(f);
    *flow = NULL;
}

const stm_flow_stream *stm_flow_stream_of(const stm_flow *flow, int32_t node) { return &flow->nodes[node].stream; }
int32_t stm_flow_roots(const stm_flow *flow) { return flow->n_roots; }
int32_t stm_flow_root_of(const stm_flow *flow, int32_t node) { return flow->nodes[node].root; }
int32_t stm_flow_root_node(const stm_flow *flow, int32_t root) { return flow->roots[root].node; }
stm_inlet *stm_flow_inlet(stm_flow *flow, int32_t node) { return flow->nodes[node].inlet; }
