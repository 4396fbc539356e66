/*
 * From a plan to stations. A step becomes a station; a global becomes two, one that takes rows in and one that sends its output; a
 * stream that crosses into a later load group goes through a store and a reader; a stream nobody reads ends in a discard.
 */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "exec/station.h"
#include "supervise/recorder.h"

typedef struct builder {
    stm_run *run;
    stm_flow_node *nodes;
    stm_station *stations;
    int32_t n, cap;
    int32_t *out_node; /* [plan steps] node whose stream carries the step's output */
} builder;

/* @p said: what the flow calls it in messages. */
static int32_t add_node(builder *b, stm_station_kind kind, stm_node_kind flow_kind, const char *name, const char *said,
                        int32_t plan_step, int32_t stage)
{
    const int32_t i = b->n++;
    stm_flow_node *n = &b->nodes[i];
    stm_station *s = &b->stations[i];

    memset(n, 0, sizeof *n);
    n->name = said;
    n->kind = flow_kind;
    n->source = -1;
    memset(s, 0, sizeof *s);
    s->run = b->run;
    s->name = name;
    s->said = said;
    s->node = i;
    s->plan_step = plan_step;
    s->stage = stage;
    s->root = -1;
    s->kind = kind;
    s->for_merge = plan_step >= 0 && b->run->plan->steps[plan_step].for_merge;
    atomic_store(&s->cost_ns, 500);
    return i;
}

/* Whether reader @p i replays this stream. */
static bool replays(const builder *b, int32_t i, int32_t out, int32_t branch)
{
    const int32_t source = b->nodes[i].source;

    if (source >= 0 && b->nodes[source].kind == STM_NODE_TERMINAL)
        return b->nodes[source].inputs[0].from == out && b->nodes[source].inputs[0].branch == branch;
    return source == out && b->nodes[i].credit_rows == branch;
}

/* Whether a store stands behind the producer for this consumer: its output is kept; or the consumer is a sink, which is a part of
 * its own then: changed, it runs alone. A sink right behind a generator reads the source again, which costs no more. */
static bool keeps(const builder *b, int32_t producer_step, bool sink, stm_border border)
{
    const stm_plan *plan = b->run->plan;
    const stm_plan_step *ps = &plan->steps[producer_step];

    if (!b->run->opts.durable || b->stations[b->out_node[producer_step]].kind == STM_AT_READER) return false;
    if (border != STM_BORDER_NONE) return true;
    return ps->cache || (sink && plan->keep_sink_rows && ps->step->type->kind != MILL_GENERATOR);
}

/* Whether a run in shards is cut between the two. */
static stm_border border_at(const builder *b, int32_t producer_step, const stm_plan_step *consumer)
{
    if (b->run->opts.shards == 0 || b->run->plan->steps[producer_step].for_merge) return STM_BORDER_NONE;
    return consumer->for_merge ? STM_BORDER_MERGE : consumer->step->type->kind == MILL_SINK ? STM_BORDER_SINKS : STM_BORDER_NONE;
}

/* The node from which a consumer reads this stream: the producer itself, or, across load groups and where the output is to be
 * kept, a reader behind a store. */
static int32_t source_for(builder *b, int32_t producer_step, int32_t branch, const stm_plan_step *consumer, stm_flow_edge *edge)
{
    const int32_t out = b->out_node[producer_step], stage = consumer->stage;
    const bool sink = consumer->step->type->kind == MILL_SINK;
    const stm_border border = border_at(b, producer_step, consumer);
    int32_t store, reader;

    edge->from = out;
    edge->branch = branch;
    if (b->stations[out].stage == stage && !keeps(b, producer_step, sink, border)) return 0;
    for (int32_t i = 0; i < b->n; i++) /* shared by all consumers of that group */
        if (b->stations[i].kind == STM_AT_READER && b->stations[i].plan_step < 0 && b->stations[i].stage == stage &&
            b->stations[i].border == border && replays(b, i, out, branch)) {
            edge->from = i;
            edge->branch = 0;
            return 0;
        }
    store = add_node(b, STM_AT_STORE, STM_NODE_TERMINAL, b->stations[out].name, b->nodes[out].name, -1, b->stations[out].stage);
    reader = add_node(b, STM_AT_READER, STM_NODE_READER, b->stations[out].name, b->nodes[out].name, -1, stage);
    b->nodes[store].inputs = stm_malloc(sizeof(stm_flow_edge));
    if (b->nodes[store].inputs == NULL) return -1;
    *(stm_flow_edge *)b->nodes[store].inputs = *edge;
    b->nodes[store].n_inputs = 1;
    b->nodes[reader].source = b->nodes[out].kind == STM_NODE_ROUTER ? store : out; /* of a router: the store tells which branch */
    b->nodes[reader].credit_rows = branch; /* until credits are worked out: says which branch it replays */
    b->stations[store].store = b->stations[reader].store = stm_calloc(sizeof(stm_store));
    if (b->stations[store].store == NULL) return -1;
    b->stations[store].border = b->stations[reader].border = border;
    b->stations[store].for_merge = b->stations[out].for_merge;
    b->stations[reader].for_merge = b->stations[out].for_merge || border == STM_BORDER_MERGE;
    edge->from = reader;
    edge->branch = 0;
    return 0;
}

static int add_inputs(builder *b, int32_t node, const stm_flow_edge *edges, int32_t n)
{
    stm_flow_edge *copy = stm_malloc((size_t)(n > 0 ? n : 1) * sizeof *copy);

    if (copy == NULL) return -1;
    memcpy(copy, edges, (size_t)n * sizeof *copy);
    b->nodes[node].inputs = copy;
    b->nodes[node].n_inputs = n;
    return 0;
}

/* `budget:` in the unit of its cost; 0 = none. */
static int64_t budget_of(const mill_step *s) { return s->budget_tokens > 0 ? s->budget_tokens : s->budget_bytes; }

/* Rows of a batch that a budget may well make, for the credit of roots: cheap rows rather than dear ones. Too small a guess costs a
 * few grants at the start, which stay. */
static int64_t rows_in_budget(const mill_step *s)
{
    enum { TOKENS = 16, BYTES = 64, MOST = 1 << 14 }; /* of a row */
    const int64_t rows = budget_of(s) / (s->budget_tokens > 0 ? TOKENS : BYTES) + 1;

    if (s->batch_rows > 0 && s->batch_rows < rows) return s->batch_rows;
    return rows < MOST ? rows : MOST;
}

/* Batches pass as they come where nobody needs their order: at sinks that gave it up, and at steps behind replicas, so that one
 * slow batch does not hold up those behind it. Order is restored further down, by sequence numbers. */
static bool may_pass_unordered(const builder *b, const stm_plan_step *ps, int64_t batch_rows)
{
    const mill_step_type *t = ps->step->type;
    const stm_plan_step *from = ps->n_inputs == 1 ? &b->run->plan->steps[ps->inputs[0].from] : NULL;

    if (from == NULL || ps->mode != STM_INPUT_SINGLE || batch_rows != 0 || budget_of(ps->step) != 0) return false;
    /* what was written is a beginning of the stream then */
    if (t->kind == MILL_SINK) return ps->any_order && !b->run->opts.durable;
    return t->kind == MILL_STEP && (t->flags & (MILL_STATEFUL | MILL_BATCH_SENSITIVE | MILL_ORDERED)) == 0 &&
           from->stage == ps->stage && from->step->type->kind == MILL_STEP && from->step->policy.replicas > 1;
}

static mill_status build_step(builder *b, int32_t i, mill_error *err)
{
    stm_plan_step *ps = &b->run->plan->steps[i];
    mill_step *step = ps->step;
    const uint64_t flags = step->type->flags;
    stm_flow_edge edges[64];
    int32_t node;
    const int32_t kind = step->type->kind;

    if (step->n_branches > STM_MAX_BRANCHES)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "router '%s' has %d branches; at most %d are possible", step->said,
                         (int)step->n_branches, STM_MAX_BRANCHES);
    if (ps->n_inputs > 64)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "step '%s' has %d inputs; at most 64 are possible", step->said,
                         (int)ps->n_inputs);
    for (int32_t k = 0; k < ps->n_inputs; k++)
        if (source_for(b, ps->inputs[k].from, ps->inputs[k].branch, ps, &edges[k]) != 0)
            return mill_fail(err, MILL_ERR_NOMEM, "graph of the run");
    switch (kind) {
    case MILL_GENERATOR:
        node = add_node(b, STM_AT_GENERATOR, STM_NODE_GENERATOR, step->name, step->said, i, ps->stage);
        break;
    case MILL_GLOBAL:
        node = add_node(b, STM_AT_GLOBAL, STM_NODE_TERMINAL, step->name, step->said, i, ps->stage);
        break;
    case MILL_SINK:
        node = add_node(b, STM_AT_SINK, STM_NODE_TERMINAL, step->name, step->said, i, ps->stage);
        break;
    case MILL_ROUTER:
        node = add_node(b, STM_AT_ROUTER, STM_NODE_ROUTER, step->name, step->said, i, ps->stage);
        b->nodes[node].n_branches = step->n_branches;
        break;
    default:
        node = add_node(b, step->type->submit != NULL ? STM_AT_SUBMIT : STM_AT_STEP, STM_NODE_STEP, step->name, step->said, i,
                        ps->stage);
        b->nodes[node].expands = (flags & MILL_EXPANDS) != 0;
        break;
    }
    b->run->step_station[i] = node;
    b->out_node[i] = node;
    b->nodes[node].mode = kind == MILL_GLOBAL ? STM_INPUT_EACH : ps->mode;
    b->nodes[node].on_missing = ps->on_missing;
    b->nodes[node].on_uneven = ps->on_uneven;
    b->nodes[node].batch_rows = kind == MILL_GENERATOR || kind == MILL_GLOBAL ? 0 : step->batch_rows;
    b->nodes[node].budget = kind == MILL_GENERATOR || kind == MILL_GLOBAL ? 0 : budget_of(step);
    b->nodes[node].unordered = may_pass_unordered(b, ps, b->nodes[node].batch_rows);
    if (add_inputs(b, node, edges, ps->n_inputs) != 0) return mill_fail(err, MILL_ERR_NOMEM, "graph of the run");
    if (kind == MILL_GLOBAL) {
        const int32_t reader = add_node(b, STM_AT_READER, STM_NODE_READER, step->name, step->said, i, ps->stage);
        b->out_node[i] = reader;
        b->stations[node].store = b->stations[reader].store = stm_calloc(sizeof(stm_store));
        if (b->stations[node].store == NULL) return mill_fail(err, MILL_ERR_NOMEM, "graph of the run");
    }
    return MILL_OK;
}

/* Streams that nobody reads end in a discard, so that coverage reaches an end and credit comes back. */
static mill_status add_discards(builder *b, mill_error *err)
{
    const int32_t n = b->n;

    for (int32_t i = 0; i < n; i++) {
        const int32_t branches = b->nodes[i].kind == STM_NODE_ROUTER ? b->nodes[i].n_branches : 1;
        if (b->nodes[i].kind == STM_NODE_TERMINAL) continue;
        for (int32_t br = 0; br < branches; br++) {
            bool read = false;
            for (int32_t k = 0; k < n && !read; k++)
                for (int32_t e = 0; e < b->nodes[k].n_inputs; e++)
                    read = read || (b->nodes[k].inputs[e].from == i && b->nodes[k].inputs[e].branch == br);
            if (read) continue;
            const int32_t d =
                add_node(b, STM_AT_DISCARD, STM_NODE_TERMINAL, b->stations[i].name, b->nodes[i].name, -1, b->stations[i].stage);
            b->stations[d].for_merge = b->stations[i].for_merge;
            const stm_flow_edge edge = {i, br};
            if (add_inputs(b, d, &edge, 1) != 0) return mill_fail(err, MILL_ERR_NOMEM, "graph of the run");
        }
    }
    return MILL_OK;
}

static int32_t replicas_of(const stm_run *run, const stm_station *s)
{
    if (s->plan_step < 0 || s->kind == STM_AT_READER) return 1;
    if (s->kind != STM_AT_STEP && s->kind != STM_AT_ROUTER && s->kind != STM_AT_SUBMIT) return 1;
    const stm_policy *p = &run->plan->steps[s->plan_step].step->policy;
    return p->replicas >= 1 ? p->replicas : 1;
}

/* Rows in flight that keep every replica behind a root busy, whatever the batch sizes. */
static void set_credit(builder *b)
{
    for (int32_t r = 0; r < b->n; r++) {
        stm_station *root = &b->stations[r];
        int64_t rows = 0, own;
        if (b->nodes[r].kind != STM_NODE_GENERATOR && b->nodes[r].kind != STM_NODE_READER) continue;
        own = root->plan_step >= 0 && root->kind == STM_AT_GENERATOR ? b->run->plan->steps[root->plan_step].step->batch_rows : 64;
        if (own <= 0) own = 64;
        root->batch_rows = own;
        for (int32_t i = r + 1; i < b->n; i++) { /* every station of the same stage may be behind it: an upper bound does no harm */
            const stm_station *s = &b->stations[i];
            int64_t batch =
                b->nodes[i].budget > 0 ? rows_in_budget(b->run->plan->steps[s->plan_step].step) : b->nodes[i].batch_rows;
            if (batch < own) batch = own;
            if (s->stage == root->stage && b->nodes[i].n_inputs > 0) rows += (replicas_of(b->run, s) + 1) * batch;
        }
        if (b->nodes[r].kind == STM_NODE_GENERATOR) b->nodes[r].batch_rows = own; /* grants are for whole batches */
        const int64_t asked = root->plan_step >= 0 ? b->run->plan->steps[root->plan_step].credit_asked : 0;
        if (asked > 0) rows = asked > own ? asked / own * own : own; /* what starves by it is granted its shortfall */
        else if (rows < 16 * own) rows = 16 * own;
        if (b->run->opts.recorder != NULL && b->run->opts.recorder->halvings > 0) { /* there was no memory for so many */
            rows >>= b->run->opts.recorder->halvings < 32 ? b->run->opts.recorder->halvings : 32;
            rows = rows > own ? rows / own * own : own;
        }
        b->nodes[r].credit_rows = rows;
    }
}

/* Columns of an input of a union take the places they have in the union. */
static stm_out out_to(stm_run *run, stm_station *to, int32_t input, int32_t branch)
{
    stm_out o = {.to = to, .input = input, .branch = branch};
    const mill_step *step = to->plan_step >= 0 ? run->plan->steps[to->plan_step].step : NULL;

    if (step != NULL && step->united != NULL && to->kind != STM_AT_READER) {
        o.remap = step->united[input].from;
        o.n_remap = step->inputs[0].schema.n;
    }
    return o;
}

/* Where a driver goes on: down the stream; past a store to whoever reads it, so that a sink keeps up with what is in front of it
 * and little waits in between; from the end back to the nearest root. */
static stm_station *next_of(stm_run *run, int32_t i)
{
    const stm_station *s = &run->stations[i];

    if (s->n_outs > 0) return s->outs[0].to;
    for (int32_t k = i + 1; s->kind == STM_AT_STORE && k < run->n_stations; k++)
        if (run->stations[k].store == s->store && run->stations[k].stage == s->stage) return &run->stations[k];
    for (int32_t k = i; k >= 0; k--)
        if (run->stations[k].root >= 0 && run->stations[k].stage == s->stage) return &run->stations[k];
    return NULL;
}

static mill_status connect(builder *b, mill_error *err)
{
    stm_run *run = b->run;

    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        int32_t n = 0;
        for (int32_t k = i + 1; k < b->n; k++)
            for (int32_t e = 0; e < b->nodes[k].n_inputs; e++) n += b->nodes[k].inputs[e].from == i;
        s->outs = n > 0 ? stm_calloc((size_t)n * sizeof *s->outs) : NULL;
        if (n > 0 && s->outs == NULL) return mill_fail(err, MILL_ERR_NOMEM, "graph of the run");
        for (int32_t k = i + 1; k < b->n; k++)
            for (int32_t e = 0; e < b->nodes[k].n_inputs; e++)
                if (b->nodes[k].inputs[e].from == i)
                    s->outs[s->n_outs++] = out_to(run, &run->stations[k], e, b->nodes[k].inputs[e].branch);
        s->root = stm_flow_root_of(run->flow, i);
        if (s->root >= 0 && s->stage > 0) stm_credit_pause(run->flow, s->root, true); /* until its load group runs */
        s->n_inputs = b->nodes[i].n_inputs;
        if (b->nodes[i].n_inputs > 0) s->inlet = stm_flow_inlet(run->flow, i);
        if (b->nodes[i].budget > 0 &&
            stm_cost_create(run->plan->steps[s->plan_step].step, b->nodes[i].n_inputs, &s->cost) != MILL_OK)
            return mill_fail(err, MILL_ERR_NOMEM, "graph of the run");
        s->pairs = b->nodes[i].n_inputs > 1 && b->nodes[i].mode != STM_INPUT_EACH;
    }
    for (int32_t i = 0; i < run->n_stations; i++) run->stations[i].next = next_of(run, i);
    return MILL_OK;
}

static mill_status add_wrappers(stm_run *run, mill_error *err)
{
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        const stm_flow_stream *stream = stm_flow_stream_of(run->flow, i);
        const stm_flow_stream *in = s->inlet != NULL && s->plan_step >= 0 ? stm_flow_stream_of(run->flow, i) : stream;
        s->n_slots = replicas_of(run, s);
        s->slots = stm_aligned((size_t)s->n_slots * sizeof *s->slots, 64);
        if (s->slots == NULL) {
            s->n_slots = 0;
            return mill_fail(err, MILL_ERR_NOMEM, "replicas of %s", s->name);
        }
        memset(s->slots, 0, (size_t)s->n_slots * sizeof *s->slots);
        if (s->plan_step < 0 || s->kind == STM_AT_READER) continue;
        mill_step *step = run->plan->steps[s->plan_step].step;
        s->own_threads = (step->type->flags & MILL_BLOCKS) != 0 || stm_step_wants_device(step) ||
                         (step->policy.retry_times > 0 && step->policy.retry_backoff_s > 0.0 &&
                          s->kind != STM_AT_SUBMIT); /* or sleeps between attempts */
        run->own_roots = run->own_roots || (s->own_threads && s->root >= 0);
        s->direct = s->inlet != NULL && !s->own_threads && s->n_slots == 1 && s->kind != STM_AT_SUBMIT && budget_of(step) == 0 &&
                    run->plan->steps[s->plan_step].mode == STM_INPUT_SINGLE && run->plan->steps[s->plan_step].n_inputs == 1;
        for (int32_t k = 0; k < s->n_slots; k++) {
            const stm_wrapper_opts o = {.step = step,
                                        .index = k,
                                        .count = s->n_slots,
                                        .env = &run->env,
                                        .root_name = run->stations[in->key_space >= 0 ? in->key_space : i].name,
                                        .root = s->root,
                                        .key_width = stream->key_width,
                                        .owner = s};
            mill_status st = stm_wrapper_create(&o, &s->slots[k].wrapper, err);
            if (st != MILL_OK) return st;
            if (s->kind == STM_AT_GENERATOR) {
                const int64_t batch = step->batch_rows > 0 ? step->batch_rows : 64;
                int64_t limit = run->opts.limit > 0 ? run->opts.limit : INT64_MAX;
                if (run->opts.dry_run && batch < limit) limit = batch;
                stm_wrapper_limit(s->slots[k].wrapper, limit);
                if (run->choice.shards > 0) stm_wrapper_choose(s->slots[k].wrapper, &run->choice);
            }
        }
    }
    return MILL_OK;
}

/* Shards give what one run gives where a row's results depend on that row alone, wherever it stands. Globals and what is behind
 * them get all rows. */
static mill_status check_shards(const stm_run *run, const builder *b, mill_error *err)
{
    for (int32_t i = 0; i < run->n_stations && run->opts.shards > 0; i++) {
        const stm_station *s = &run->stations[i];
        const mill_step_type *t = s->plan_step >= 0 ? run->plan->steps[s->plan_step].step->type : NULL;
        const char *why = NULL;

        if (t == NULL || s->kind == STM_AT_READER || s->for_merge) continue;
        if (t->kind == MILL_ROUTER)
            why = "is a router, which chooses for whole batches";
        else if (t->kind == MILL_STEP && (t->flags & (MILL_STATEFUL | MILL_BATCH_SENSITIVE)) != 0)
            why = "gives results that depend on other rows";
        for (int32_t k = 1; k < s->n_inputs && b->nodes[i].mode == STM_INPUT_JOIN; k++)
            if (stm_flow_stream_of(run->flow, b->nodes[i].inputs[k].from)->key_space !=
                stm_flow_stream_of(run->flow, b->nodes[i].inputs[0].from)->key_space)
                why = "joins by position, which needs all rows";
        if (why == NULL) continue;
        mill_fail(err, MILL_ERR_INVALID, "cannot be run in shards: the step %s", why);
        mill_error_remedy(err, "Run what stands in front of it in shards, merge, and run the rest on the merged file");
        snprintf(err->step, sizeof err->step, "%.63s", b->nodes[i].name);
        err->phase = MILL_PHASE_CHECK;
        return MILL_ERR_INVALID;
    }
    return MILL_OK;
}

/* A store gives its rows out as a root of its own, so there are more of them than generators. */
static mill_status count_roots(const builder *b, mill_error *err)
{
    int32_t roots = 0, readers = 0;

    for (int32_t i = 0; i < b->n; i++) {
        readers += b->nodes[i].kind == STM_NODE_READER;
        roots += b->nodes[i].kind == STM_NODE_READER || b->nodes[i].kind == STM_NODE_GENERATOR;
    }
    if (roots <= STM_FLOW_MAX_ROOTS) return MILL_OK;
    mill_fail(err, MILL_ERR_UNSUPPORTED,
              "rows would come from %d places, %d of them stores (of rows that are kept, or wait for another load group, or of a "
              "global); a run has %d at most",
              (int)roots, (int)readers, STM_FLOW_MAX_ROOTS);
    mill_error_remedy(err, "Keep less (keep_sink_rows: false, cache: false), use fewer load groups, or make two pipelines of it");
    return err != NULL ? err->status : MILL_ERR_UNSUPPORTED;
}

mill_status stm_run_build(stm_run *run, mill_error *err)
{
    const int32_t n = run->plan->n_steps;
    builder b = {.run = run, .cap = 0};
    mill_status st = MILL_OK;
    size_t edges = 0;

    for (int32_t i = 0; i < n; i++)
        edges += (size_t)run->plan->steps[i].n_inputs + 1 + (size_t)run->plan->steps[i].step->n_branches;
    b.cap = (int32_t)(2 * (size_t)n + 3 * edges + 1);
    if (b.cap > STM_MAX_STATIONS)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "the pipeline has %d steps; too many connections for one run", (int)n);
    b.nodes = stm_calloc((size_t)b.cap * sizeof *b.nodes);
    b.out_node = stm_calloc((size_t)(n + 1) * sizeof *b.out_node);
    run->step_station = stm_calloc((size_t)(n + 1) * sizeof *run->step_station);
    b.stations = stm_aligned((size_t)b.cap * sizeof *b.stations, 64);
    run->stations = b.stations;
    if (b.nodes == NULL || b.out_node == NULL || b.stations == NULL || run->step_station == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "graph of the run");
        goto done;
    }
    for (int32_t i = 0; i < n && st == MILL_OK; i++) st = build_step(&b, i, err);
    if (st == MILL_OK) st = add_discards(&b, err);
    run->n_stations = b.n;
    if (st != MILL_OK) goto done;
    set_credit(&b);
    if ((st = count_roots(&b, err)) != MILL_OK) goto done;
    if ((st = stm_flow_create(run->pool, b.nodes, b.n, &run->flow, err)) != MILL_OK) goto done;
    run->env.n_roots = stm_flow_roots(run->flow);
    if ((st = connect(&b, err)) != MILL_OK || (st = stm_run_residents(run, err)) != MILL_OK) goto done;
    if ((st = check_shards(run, &b, err)) != MILL_OK) goto done;
    st = add_wrappers(run, err);
done:
    for (int32_t i = 0; b.nodes != NULL && i < b.n; i++) stm_free((void *)b.nodes[i].inputs);
    stm_free(b.nodes);
    stm_free(b.out_node);
    return st;
}

void stm_run_unbuild(stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        for (int32_t k = 0; k < s->n_slots; k++) stm_wrapper_destroy(&s->slots[k].wrapper);
        stm_free(s->slots);
        stm_free(s->outs);
        stm_free(s->resident);
        stm_free(s->paired);
        stm_cost_destroy(&s->cost);
        if (s->store != NULL && s->kind != STM_AT_READER) stm_store_free(run, s->store); /* owned by the side that writes */
    }
    stm_free(run->stations);
    run->stations = NULL;
    run->n_stations = 0;
    stm_free(run->step_station);
    run->step_station = NULL;
    stm_flow_destroy(&run->flow);
}
