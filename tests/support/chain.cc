#include "support/chain.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

extern "C" {
#include "core/alloc.h"
#include "plugin/modules.h"
#include "stepmill/json.h"
#include "support/wrapper_peek.h"
#include "wrapper/wrapper.h"
}

namespace mt {

Chain::Chain(const std::vector<std::string> &plugins)
{
    EXPECT_EQ(stm_registry_create(&registry_, &error), MILL_OK) << error.msg;
    for (const std::string &p : plugins) EXPECT_EQ(stm_registry_open(registry_, p.c_str(), &error), MILL_OK) << error.msg;
    plan_ = static_cast<stm_plan *>(stm_calloc(sizeof *plan_));
    plan_->name = stm_strdup("test");
    plan_->n_stages = 1;
    plan_->seed = 7;
    plan_->input_order = true;
    plan_->steps = static_cast<stm_plan_step *>(stm_calloc(32 * sizeof(stm_plan_step)));
}

Chain::~Chain()
{
    release();
    stm_registry_destroy(&registry_);
}

void Chain::release() { stm_plan_destroy(&plan_); }

void Chain::keep(const stm_error_record *rec, void *user)
{
    Chain *c = static_cast<Chain *>(user);
    std::lock_guard<std::mutex> guard(c->lock_);
    c->errors.push_back(*rec);
}

Chain &Chain::add(const std::string &name, const std::string &type, const Params &params, const Opts &o)
{
    if (error.status != MILL_OK) return *this;
    if (stm_registry_want(registry_, type.c_str(), &error) != MILL_OK) return *this;
    const mill_step_type *t = stm_registry_find(registry_, type.c_str());
    EXPECT_NE(t, nullptr) << type;
    if (t == nullptr) return *this;

    std::vector<stm_value> values(params.size());
    std::vector<std::vector<stm_value>> items(params.size());
    for (size_t i = 0; i < params.size(); i++) {
        const Value &v = params[i].second;
        for (const auto &item : v.items) {
            stm_value x = {};
            x.text = item.second.c_str();
            x.key = v.kind == Value::kMap ? item.first.c_str() : nullptr;
            items[i].push_back(x);
        }
        values[i] = {};
        values[i].kind = v.kind == Value::kScalar ? stm_value::STM_VALUE_SCALAR
                         : v.kind == Value::kList ? stm_value::STM_VALUE_LIST
                                                  : stm_value::STM_VALUE_MAP;
        values[i].text = v.kind == Value::kScalar ? v.text.c_str() : nullptr;
        values[i].quoted = v.kind == Value::kScalar && v.text.empty(); /* "" and not YAML's null */
        values[i].key = params[i].first.c_str();
        values[i].items = items[i].data();
        values[i].n_items = items[i].size();
    }
    stm_step_spec spec = {};
    stm_plan_step *ps = &plan_->steps[plan_->n_steps];
    std::vector<const char *> branches;
    const bool generator = t->kind == MILL_GENERATOR;
    const int from = generator ? -1 : o.from.empty() ? plan_->n_steps - 1 : index_.at(o.from);
    for (const std::string &b : o.branches) branches.push_back(b.c_str());
    spec.name = name.c_str();
    spec.type = t;
    spec.params = values.data();
    spec.n_params = values.size();
    spec.base_dir = dir.c_str();
    spec.run_dir = dir.c_str();
    spec.arriving = generator ? nullptr : &plan_->steps[from].step->out;
    spec.n_arriving = generator ? 0 : 1;
    spec.branches = branches.data();
    spec.n_branches = static_cast<int32_t>(branches.size());
    spec.batch_rows = generator && o.batch_rows == 0 ? 64 : o.batch_rows;
    spec.policy = stm_policy_default(t);
    spec.policy.replicas = o.replicas;
    spec.policy.gpus = o.gpus;
    spec.policy.sink_errors = o.errors;
    spec.policy.batch_timeout_s = o.batch_timeout_s;
    spec.policy.numerics = o.numerics;
    if (o.on_error_set) spec.policy.on_error = o.on_error;
    spec.run_seed = 7;
    if (stm_step_create(&spec, &ps->step, &error) != MILL_OK) return *this;
    ps->mode = STM_INPUT_SINGLE;
    if (!generator) {
        ps->inputs = static_cast<stm_flow_edge *>(stm_calloc(sizeof(stm_flow_edge)));
        ps->inputs[0] = {from, o.branch};
        ps->n_inputs = 1;
    }
    index_[name] = plan_->n_steps++;
    return *this;
}

stm_run_end Chain::run(double timeout_s, int32_t threads, bool dry_run)
{
    if (error.status != MILL_OK) return STM_END_LOAD_FAILED;
    stm_run_opts o = {};
    stm_run *run = nullptr;
    o.struct_size = sizeof o;
    o.threads = threads;
    o.dry_run = dry_run;
    o.run_dir = dir.c_str();
    o.on_error = keep;
    o.user = this;
    if (stm_run_start(&plan_, &o, &run, &error) != MILL_OK) return STM_END_LOAD_FAILED;
    const stm_run_end end = stm_run_wait(run, timeout_s, &error);
    EXPECT_NE(end, STM_END_RUNNING) << "the run did not end";
    for (const auto &i : index_) stm_run_stats(run, i.second, &stats_[i.first]);
    stm_run_destroy(&run);
    return end;
}

std::string Chain::columns(const std::string &step) const
{
    const stm_schema &s = plan_->steps[index_.at(step)].step->out;
    std::string text;
    for (int32_t i = 0; i < s.n; i++) {
        char type[128];
        mill_type_format(s.fields[i].type, type, sizeof type);
        text += (i ? ", " : "") + std::string(s.fields[i].name) + " " + type;
    }
    return text;
}

static std::string lines(const mill_batch *b, const stm_schema &schema)
{
    std::vector<const char *> names;
    for (int32_t i = 0; i < schema.n; i++) names.push_back(schema.fields[i].name);
    mill_json_writer *w = nullptr;
    EXPECT_EQ(mill_json_writer_create(names.data(), schema.n, 0, &w), MILL_OK);
    mill_json_writer_batch(w, b);
    for (int64_t r = 0; r < b->rows; r++) {
        EXPECT_EQ(mill_json_writer_row(w, r), MILL_OK);
        EXPECT_EQ(mill_json_writer_end(w), MILL_OK);
    }
    size_t n = 0;
    const char *text = mill_json_writer_data(w, &n);
    std::string out(n > 0 ? text : "", n);
    mill_json_writer_destroy(&w);
    return out;
}

void Chain::with_replica(const std::string &step, const std::function<void(stm_wrapper *)> &use)
{
    stm_wrapper_env env = {};
    stm_wrapper_opts o = {};
    stm_wrapper *w = nullptr;
    mill_error e = {};

    EXPECT_EQ(stm_pool_create(0, &env.pool), MILL_OK);
    EXPECT_EQ(stm_errors_create(nullptr, nullptr, &env.errors), MILL_OK);
    env.n_roots = 1;
    o.step = plan_->steps[index_.at(step)].step;
    o.count = 1;
    o.env = &env;
    o.root_name = "root";
    o.key_width = 1;
    EXPECT_EQ(stm_wrapper_create(&o, &w, &e), MILL_OK) << e.msg;
    const mill_status st = stm_wrapper_load(w, &e);
    EXPECT_EQ(st, MILL_OK) << e.msg;
    if (st == MILL_OK) {
        stm_wrapper_run(w);
        use(w);
    }
    stm_wrapper_destroy(&w);
    stm_errors_destroy(&env.errors);
    EXPECT_EQ(stm_pool_counts(env.pool).live_bytes, 0);
    stm_pool_release(&env.pool);
}

std::string Chain::generate(const std::string &step, int64_t max_rows, const mill_cursor *from, std::vector<Mark> *marks)
{
    const mill_step *s = plan_->steps[index_.at(step)].step;
    std::string out;

    with_replica(step, [&](stm_wrapper *w) {
        mill_error e = {};
        bool end = false;
        if (from != nullptr) *mt_wrapper_cursor(w) = *from;
        while (!end) {
            mill_batch *b = nullptr;
            const mill_status st = stm_wrapper_generate(w, max_rows, &b, &e);
            EXPECT_EQ(st, MILL_OK) << e.msg;
            if (st != MILL_OK) break;
            if (b == nullptr) continue;
            EXPECT_LE(b->rows, max_rows);
            end = b->end;
            out += lines(b, s->out);
            mill_batch_destroy(&b);
            /* one batch may have been made ahead, to know the end: the cursor is behind that one */
            if (marks != nullptr)
                marks->push_back({*mt_wrapper_cursor(w),
                                  out.size() + (mt_wrapper_held(w) != nullptr ? lines(mt_wrapper_held(w), s->out).size() : 0)});
        }
    });
    return out;
}

std::string Folder::put(const std::string &name, const std::string &bytes) const
{
    std::ofstream(path + "/" + name, std::ios::binary) << bytes;
    return path + "/" + name;
}

std::string Folder::get(const std::string &name) const
{
    std::ifstream f(path + "/" + name, std::ios::binary);
    if (!f) return "<none>";
    std::stringstream s;
    s << f.rdbuf();
    return s.str();
}

} // namespace mt
