#include "support/pipe.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/by_hand.h"
#include "support/sim_watch.h"

extern "C" {
#include "batch/batch.h"
#include "core/alloc.h"
}

namespace mt {

/* Behaviours are found through the step's name: a C descriptor has no room for closures, and configure runs before
 * anything else does. */
static thread_local const Behaviour *g_configuring;
static thread_local int32_t g_kind;

static const Behaviour &of(const mill_replica *r) { return *static_cast<const Behaviour *>(mill_step_state(mill_replica_step(r))); }

static mill_status t_configure(mill_step *s, const mill_config *, mill_io *io, mill_error *err)
{
    const Behaviour *b = g_configuring;
    int32_t at;
    mill_status st = MILL_OK;
    mill_step_set_state(s, const_cast<Behaviour *>(b), nullptr);
    if (g_kind == MILL_SINK || g_kind == MILL_GLOBAL)
        for (size_t i = 0; i < mill_io_inputs(io); i++)
            for (size_t c = 0; c < mill_io_column_count(io, i); c++)
                if ((st = mill_io_use(io, i, mill_io_column_name(io, i, c), "any", &at, err)) != MILL_OK) return st;
    if (g_kind != MILL_SINK && g_kind != MILL_GLOBAL)
        for (auto &u : b->uses)
            if ((st = mill_io_use(io, 0, u.first.c_str(), u.second.c_str(), &at, err)) != MILL_OK) return st;
    for (auto &a : b->adds) {
        const mill_type *t;
        if ((st = mill_type_parse(a.second.c_str(), &t, err)) != MILL_OK) return st;
        if ((st = mill_io_add(io, a.first.c_str(), t, &at, err)) != MILL_OK) return st;
    }
    return MILL_OK;
}
static mill_status t_load(mill_replica *r, mill_error *e) { return of(r).load ? of(r).load(r, e) : MILL_OK; }
static void t_unload(mill_replica *r)
{
    if (of(r).unload) of(r).unload(r);
}
static mill_status t_generate(mill_replica *r, int64_t max, mill_cursor *c, bool *last, mill_emit *out, mill_error *e)
{
    return of(r).generate(r, max, c, last, out, e);
}
static mill_status t_process(mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e)
{
    return of(r).process ? of(r).process(r, in, n, out, e) : mill_emit_pass(out, e);
}
static mill_status t_accept(mill_replica *r, size_t i, const mill_batch *in, mill_error *e)
{
    return of(r).accept ? of(r).accept(r, i, in, e) : MILL_OK;
}
static mill_status t_finish(mill_replica *r, mill_emit *out, mill_error *e)
{
    return of(r).finish ? of(r).finish(r, out, e) : MILL_OK;
}
static mill_status t_write(mill_replica *r, const mill_batch *in, mill_error *e)
{
    return of(r).write ? of(r).write(r, in, e) : MILL_OK;
}
static mill_status t_open(mill_replica *r, const mill_cursor *c, mill_error *e) { return of(r).open(r, c, e); }
static mill_status t_sync(mill_replica *r, mill_cursor *c, mill_error *e) { return of(r).sync(r, c, e); }
static mill_status t_finalize(mill_replica *r, mill_error *e) { return of(r).finalize ? of(r).finalize(r, e) : MILL_OK; }
static mill_status t_route(mill_replica *r, const mill_batch *in, mill_route *out, mill_error *e)
{
    return of(r).route(r, in, out, e);
}
static mill_status t_submit(mill_replica *r, uint64_t t, mill_batch *const *in, size_t n, mill_error *e)
{
    return of(r).submit(r, t, in, n, e);
}
static mill_status t_poll(mill_replica *r, mill_results *out, mill_error *e) { return of(r).poll(r, out, e); }
static void t_cancel(mill_replica *r, uint64_t t)
{
    if (of(r).cancel) of(r).cancel(r, t);
}
static mill_status t_flush(mill_replica *r, mill_error *e) { return of(r).flush(r, e); }
static mill_status t_cost(const mill_step *s, size_t input, const mill_batch *in, int64_t *tokens, mill_error *e)
{
    return static_cast<const Behaviour *>(mill_step_state(s))->cost(input, in, tokens, e);
}

struct Pipe::Step {
    std::string name;
    Behaviour behaviour;
    mill_step_type type = {};
    Opts opts;
    std::vector<From> from;
    int32_t kind;
    const mill_step_type *real = nullptr; /* else `type`, made of the behaviour */
    Params params;
};

Pipe::Pipe() = default;
Pipe::~Pipe()
{
    destroy();
    stm_plan_destroy(&plan_);
    for (Step *s : steps_) delete s;
}

int Pipe::add(const std::string &name, int32_t kind, const std::vector<From> &from, const Behaviour &b, const Opts &o)
{
    Step *s = new Step;
    s->name = name;
    s->behaviour = b;
    s->opts = o;
    s->from = from;
    s->kind = kind;
    mill_step_type &t = s->type;
    t.struct_size = sizeof t;
    t.abi = MILL_ABI_1;
    t.kind = kind;
    t.flags = b.flags | (kind == MILL_ROUTER ? MILL_ROUTES : 0);
    t.name = "test_step";
    t.summary = "a step of a test";
    t.configure = t_configure;
    t.load = b.load ? t_load : nullptr;
    t.unload = b.unload || b.load ? t_unload : nullptr;
    if (kind == MILL_GENERATOR) t.generate = t_generate;
    if (kind == MILL_STEP && !b.submit) t.process = t_process;
    if (kind == MILL_STEP && b.submit) t.submit = t_submit, t.poll = t_poll, t.cancel = t_cancel;
    if (b.flush) t.flush = t_flush;
    if (kind == MILL_GLOBAL) t.accept = t_accept, t.finish = t_finish;
    if (kind == MILL_SINK) t.write = t_write, t.finalize = t_finalize;
    if (b.open) t.open = t_open;
    if (b.sync) t.sync = t_sync;
    if (kind == MILL_ROUTER) t.route = t_route;
    if (b.cost) t.cost = t_cost;
    index_[name] = (int)steps_.size();
    steps_.push_back(s);
    if (o.stage + 1 > stages_) stages_ = o.stage + 1;
    return (int)steps_.size() - 1;
}

int Pipe::add_type(const std::string &name, const mill_step_type *type, const std::vector<From> &from, const Params &params,
                   const Opts &o)
{
    const int at = add(name, type->kind, from, Behaviour(), o);
    steps_[(size_t)at]->real = type;
    steps_[(size_t)at]->params = params;
    return at;
}

int Pipe::source(const std::string &name, int64_t rows, int64_t batch_rows, const std::string &column)
{
    Behaviour b;
    Opts o;
    o.batch_rows = batch_rows;
    b.adds = {{column, "int64"}};
    b.generate = [rows](mill_replica *r, int64_t max, mill_cursor *cursor, bool *last, mill_emit *out, mill_error *err) {
        int64_t at = 0;
        if (cursor->size) memcpy(&at, cursor->bytes, sizeof at);
        std::vector<int64_t> v;
        for (; at < rows && (int64_t)v.size() < max; at++) v.push_back(at);
        cursor->size = sizeof at;
        memcpy(cursor->bytes, &at, sizeof at);
        *last = at == rows;
        return emit_int64(r, out, v, err);
    };
    return add(name, MILL_GENERATOR, {}, b, o);
}

int Pipe::sink(const std::string &name, const std::string &from, Opts o, int32_t branch)
{
    Behaviour b;
    b.write = [this, name](mill_replica *r, const mill_batch *in, mill_error *) -> mill_status {
        const mill_step *s = mill_replica_step(r);
        std::lock_guard<std::mutex> guard(lock_);
        sizes_[name].push_back(in->rows);
        for (int32_t c = 0; c < in->n_columns; c++) tell_read(in->columns[c]);
        for (int64_t i = 0; i < in->rows; i++) {
            Row row;
            row.key = key_text(in, i);
            for (int32_t c = 0; c < in->n_columns; c++) {
                const mill_type *t = s->inputs[0].used[c].type;
                if (t->id == MILL_INT64) row.values[s->inputs[0].used[c].name] = value(in, c, i);
            }
            if (in->marks != nullptr) row.error = value_of_marks(in, i);
            sinks_[name].push_back(row);
        }
        return MILL_OK;
    };
    b.finalize = [this, name](mill_replica *, mill_error *) -> mill_status {
        std::lock_guard<std::mutex> guard(lock_);
        finalized_[name]++;
        return MILL_OK;
    };
    return add(name, MILL_SINK, {{from, branch}}, b, o);
}

void Pipe::keep_error(const stm_error_record *rec, void *user)
{
    Pipe *p = static_cast<Pipe *>(user);
    std::lock_guard<std::mutex> guard(p->lock_);
    p->errors.push_back(*rec);
}

mill_status Pipe::start(int32_t threads, bool dry_run, int64_t limit)
{
    plan_ = static_cast<stm_plan *>(stm_calloc(sizeof *plan_));
    if (!plan_) return mill_fail(&error, MILL_ERR_NOMEM, "plan of a test");
    plan_->name = stm_strdup("test");
    plan_->n_stages = stages_;
    plan_->seed = 7;
    plan_->memory_limit = memory_limit;
    plan_->pinned_limit = pinned_limit;
    plan_->steps = static_cast<stm_plan_step *>(stm_calloc((steps_.size() + 1) * sizeof(stm_plan_step)));
    if (!plan_->steps || !plan_->name) return mill_fail(&error, MILL_ERR_NOMEM, "plan of a test");
    for (Step *s : steps_) {
        stm_step_spec spec = {};
        stm_plan_step *ps = &plan_->steps[plan_->n_steps];
        std::vector<stm_schema> arriving;
        std::vector<stm_mapping> in, out;
        std::vector<const char *> branches;
        for (auto &f : s->from) arriving.push_back(plan_->steps[index_[f.step]].step->out);
        for (auto &m : s->opts.map_in) in.push_back({m.first.c_str(), m.second.c_str(), {}});
        for (auto &m : s->opts.map_out) out.push_back({m.first.c_str(), m.second.c_str(), {}});
        for (auto &b : s->opts.branches) branches.push_back(b.c_str());
        std::vector<stm_value> params;
        std::vector<std::vector<stm_value>> items(s->params.size());
        for (size_t i = 0; i < s->params.size(); i++) {
            stm_value v = {};
            v.key = s->params[i].first.c_str();
            for (auto &text : s->params[i].second) {
                stm_value item = {};
                item.text = text.c_str();
                items[i].push_back(item);
            }
            if (items[i].size() == 1)
                v.text = items[i][0].text;
            else
                v.kind = stm_value::STM_VALUE_LIST, v.items = items[i].data(), v.n_items = items[i].size();
            params.push_back(v);
        }
        const mill_step_type *type = s->real ? s->real : &s->type;
        spec.name = s->name.c_str();
        spec.type = type;
        spec.params = params.data();
        spec.n_params = params.size();
        spec.base_dir = "/";
        spec.arriving = arriving.data();
        spec.n_arriving = (int32_t)arriving.size();
        spec.map_in = in.data();
        spec.n_map_in = in.size();
        spec.map_out = out.data();
        spec.n_map_out = out.size();
        spec.branches = branches.data();
        spec.n_branches = (int32_t)branches.size();
        spec.batch_rows = s->opts.batch_rows;
        spec.budget_tokens = s->opts.budget_tokens;
        spec.budget_bytes = s->opts.budget_bytes;
        spec.policy = stm_policy_default(type);
        spec.policy.replicas = s->opts.replicas;
        if (s->opts.policy) s->opts.policy(&spec.policy);
        spec.run_seed = 7;
        spec.converge = s->opts.mode == STM_INPUT_CONVERGE;
        spec.unite = s->opts.mode == STM_INPUT_UNION;
        g_configuring = &s->behaviour;
        g_kind = s->kind;
        mill_status st = stm_step_create(&spec, &ps->step, &error);
        if (st != MILL_OK) return st;
        plan_->n_steps++;
        ps->mode = s->opts.mode;
        ps->on_missing = s->opts.on_missing;
        ps->on_uneven = s->opts.on_uneven;
        ps->stage = s->opts.stage;
        ps->inputs = static_cast<stm_flow_edge *>(stm_calloc((s->from.size() + 1) * sizeof(stm_flow_edge)));
        if (!ps->inputs) return mill_fail(&error, MILL_ERR_NOMEM, "plan of a test");
        for (auto &f : s->from) ps->inputs[ps->n_inputs++] = {index_[f.step], f.branch};
    }
    if (adjust) adjust(plan_);
    stm_run_opts o = {};
    o.struct_size = sizeof o;
    o.threads = threads;
    o.dry_run = dry_run;
    o.limit = limit;
    o.drain_s = drain_s;
    o.quiet_s = quiet_s;
    o.run_dir = run_dir.empty() ? nullptr : run_dir.c_str();
    o.on_error = keep_error;
    o.user = this;
    o.tracer = tracer;
    o.durable = durable;
    o.commit_interval_s = 1e6;
    return by_hand ? mt_hand_start(&plan_, &o, &run_, &error) : stm_run_start(&plan_, &o, &run_, &error);
}

stm_run_end Pipe::wait(double timeout_s)
{
    stm_run_end end = stm_run_wait(run_, timeout_s, &error);
    EXPECT_NE(end, STM_END_RUNNING) << "the run did not end within " << timeout_s << " s";
    return end;
}

stm_run_end Pipe::run(double timeout_s, int32_t threads)
{
    mill_status st = start(threads);
    char text[1024] = "";
    if (st != MILL_OK) mill_error_format(&error, text, sizeof text);
    EXPECT_EQ(st, MILL_OK) << text;
    return st == MILL_OK ? wait(timeout_s) : STM_END_FAILED;
}

stm_step_stats Pipe::stats(const std::string &step)
{
    stm_step_stats s;
    stm_run_stats(run_, index_[step], &s);
    return s;
}

stm_memory_stats Pipe::memory()
{
    stm_memory_stats m;
    stm_run_memory(run_, &m);
    return m;
}

void Pipe::destroy() { stm_run_destroy(&run_); }

int64_t value(const mill_batch *b, int32_t c, int64_t r)
{
    const mill_column *col = b->columns[c];
    if (col == nullptr || mill_column_is_null(col, r)) return INT64_MIN;
    mill_view v = mill_column_view(col);
    return static_cast<const int64_t *>(v.data)[v.offset + r];
}

int64_t value_of_marks(const mill_batch *b, int64_t r)
{
    mill_view v = mill_column_view(b->marks);
    return static_cast<const int64_t *>(v.data)[v.offset + r];
}

std::string key_text(const mill_batch *b, int64_t r)
{
    char text[96];
    stm_batch_key_text(b, r, text, sizeof text);
    return text;
}

mill_status emit_int64(mill_replica *r, mill_emit *out, const std::vector<int64_t> &values, mill_error *err,
                       const std::vector<int64_t> *parent)
{
    mill_pool *pool = mill_replica_pool(r);
    mill_buffer *data = nullptr, *par = nullptr;
    mill_column *col = nullptr;
    mill_batch *b = nullptr;
    mill_status st = mill_buffer_create(pool, values.size() * 8, &data);
    if (st == MILL_OK && !values.empty()) memcpy(mill_buffer_data(data), values.data(), values.size() * 8);
    if (st == MILL_OK)
        st = mill_column_create(pool, mill_type_plain(MILL_INT64), (int64_t)values.size(), nullptr, nullptr, &data, nullptr, &col,
                                err);
    if (st == MILL_OK) st = mill_batch_create(pool, (int64_t)values.size(), 1, &b);
    if (st == MILL_OK) st = mill_batch_set_column(b, 0, &col);
    if (st == MILL_OK && parent != nullptr) {
        st = mill_buffer_create(pool, parent->size() * 8, &par);
        if (st == MILL_OK && !parent->empty()) memcpy(mill_buffer_data(par), parent->data(), parent->size() * 8);
    }
    if (st == MILL_OK) st = mill_emit_batch(out, &b, parent != nullptr ? &par : nullptr, err);
    mill_buffer_unref(&data);
    mill_buffer_unref(&par);
    mill_column_unref(&col);
    mill_batch_destroy(&b);
    return st == MILL_ERR_NOMEM ? mill_fail(err, st, "out of memory") : st;
}

} // namespace mt
