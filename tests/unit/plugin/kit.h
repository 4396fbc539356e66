/* Builds specs of steps from short text, so that a case is one line. */
#pragma once
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

extern "C" {
#include "core/alloc.h"
#include "plugin/step.h"
#include "plugin/value.h"
}
#include "support/fail_nth.h"

namespace kit {

/** Columns as {{"text", "utf8"}, ...}. */
class Schema {
public:
    Schema() = default;
    Schema(std::initializer_list<std::pair<const char *, const char *>> columns)
    {
        for (const auto &c : columns) {
            const mill_type *type = nullptr;
            EXPECT_EQ(mill_type_parse(c.second, &type, nullptr), MILL_OK) << c.second;
            fields_.push_back({c.first, type});
        }
    }
    stm_schema get() const { return {const_cast<mill_field *>(fields_.data()), static_cast<int32_t>(fields_.size())}; }

private:
    std::vector<mill_field> fields_;
};

/** "a: utf8, b: int64" of a schema. */
inline std::string show(const stm_schema &s)
{
    std::string out;
    for (int32_t i = 0; i < s.n; i++) {
        char type[128];
        mill_type_format(s.fields[i].type, type, sizeof type);
        out += std::string(i ? ", " : "") + s.fields[i].name + ": " + type;
    }
    return out;
}

inline std::string show(const mill_error &e)
{
    char buf[1200];
    mill_error_format(&e, buf, sizeof buf);
    return buf;
}

/** Everything stm_step_create needs. Places: parameter i stands in line 10 + i, key in column 5, value in column 10, its entry k in
 *  column 20 + k; mapping i of inputs in line 30 + i, of outputs in line 40 + i; the step in line 5. */
class Spec {
public:
    explicit Spec(const mill_step_type *type, const char *params = nullptr)
    {
        spec_.name = "s1";
        spec_.type = type;
        spec_.place = {"p.yaml", 5, 3};
        spec_.base_dir = "/nowhere";
        spec_.policy = stm_policy_default(type);
        if (params) {
            mill_error err = {};
            EXPECT_EQ(stm_value_parse(params, &tree_, &err), MILL_OK) << err.msg;
            put_places(tree_);
            spec_.params = tree_->items;
            spec_.n_params = tree_->n_items;
        }
    }
    ~Spec()
    {
        stm_step_destroy(&step);
        stm_value_free(&tree_);
    }
    Spec(const Spec &) = delete;
    Spec &operator=(const Spec &) = delete;

    Spec &from(const Schema &s, const char *name = nullptr)
    {
        kept_.push_back(s);
        arriving_.push_back(kept_.back().get());
        names_.push_back(name);
        return *this;
    }
    Spec &in(const char *own, const char *column)
    {
        map_in_.push_back({own, column, {"p.yaml", 30 + static_cast<int32_t>(map_in_.size()), 7}});
        return *this;
    }
    Spec &out(const char *own, const char *column)
    {
        map_out_.push_back({own, column, {"p.yaml", 40 + static_cast<int32_t>(map_out_.size()), 7}});
        return *this;
    }
    Spec &branch(const char *name)
    {
        branches_.push_back(name);
        return *this;
    }
    stm_step_spec &raw() { return spec_; }

    mill_status create()
    {
        stm_step_destroy(&step);
        error = {};
        spec_.arriving = arriving_.data();
        spec_.n_arriving = static_cast<int32_t>(arriving_.size());
        spec_.arriving_names = names_.empty() || names_[0] == nullptr ? nullptr : names_.data();
        spec_.map_in = map_in_.data();
        spec_.n_map_in = map_in_.size();
        spec_.map_out = map_out_.data();
        spec_.n_map_out = map_out_.size();
        spec_.branches = branches_.data();
        spec_.n_branches = static_cast<int32_t>(branches_.size());
        const mill_status st = stm_step_create(&spec_, &step, &error);
        EXPECT_EQ(st != MILL_OK, error.status != MILL_OK);
        EXPECT_EQ(st == MILL_OK, step != nullptr);
        return st;
    }
    /** The whole error line, or "ok". */
    std::string verdict() { return create() == MILL_OK ? "ok" : show(error); }

    mill_step *step = nullptr;
    mill_error error = {};

private:
    static void put_places(stm_value *tree)
    {
        for (size_t i = 0; i < tree->n_items; i++) {
            stm_value &v = tree->items[i];
            const int32_t line = 10 + static_cast<int32_t>(i);
            v.key_place = {"p.yaml", line, 5};
            v.place = {"p.yaml", line, 10};
            for (size_t k = 0; k < v.n_items; k++)
                v.items[k].place = v.items[k].key_place = {"p.yaml", line, 20 + static_cast<int32_t>(k)};
        }
    }
    stm_step_spec spec_ = {};
    stm_value *tree_ = nullptr;
    std::deque<Schema> kept_;
    std::vector<stm_schema> arriving_;
    std::vector<const char *> names_, branches_;
    std::vector<stm_mapping> map_in_, map_out_;
};

/* Functions that are never called: descriptors need them to be there. */
inline mill_status generate(mill_replica *, int64_t, mill_cursor *, bool *, mill_emit *, mill_error *) { return MILL_OK; }
inline mill_status process(mill_replica *, mill_batch *const *, size_t, mill_emit *, mill_error *) { return MILL_OK; }
inline mill_status accept(mill_replica *, size_t, const mill_batch *, mill_error *) { return MILL_OK; }
inline mill_status finish(mill_replica *, mill_emit *, mill_error *) { return MILL_OK; }
inline mill_status open(mill_replica *, const mill_cursor *, mill_error *) { return MILL_OK; }
inline mill_status write(mill_replica *, const mill_batch *, mill_error *) { return MILL_OK; }
inline mill_status finalize(mill_replica *, mill_error *) { return MILL_OK; }
inline mill_status route(mill_replica *, const mill_batch *, mill_route *, mill_error *) { return MILL_OK; }
inline mill_status submit(mill_replica *, uint64_t, mill_batch *const *, size_t, mill_error *) { return MILL_OK; }
inline mill_status poll(mill_replica *, mill_results *, mill_error *) { return MILL_OK; }
inline void cancel(mill_replica *, uint64_t) {}

/** A valid descriptor of @p kind without parameters and columns. */
inline mill_step_type type(mill_kind kind, const char *name)
{
    mill_step_type t = {};
    t.struct_size = sizeof t;
    t.abi = MILL_ABI_1;
    t.kind = kind;
    t.name = name;
    t.summary = "for tests";
    switch (kind) {
    case MILL_GENERATOR: t.generate = generate; break;
    case MILL_STEP: t.process = process; break;
    case MILL_GLOBAL: t.accept = accept, t.finish = finish; break;
    case MILL_SINK: t.open = open, t.write = write, t.finalize = finalize; break;
    case MILL_ROUTER: t.route = route; break;
    }
    return t;
}

} // namespace kit
