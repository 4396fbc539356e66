/* Every key of the pipeline file and every parameter of every built-in step type, from the tables that the engine itself reads:
 * each kind of wrong value gives one error at its place, also when it is set by a call. */
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "types.h"

extern "C" {
#include "pipeline/keys.h"
}

namespace {

/* Steps of every kind around the one in question, which is X; its own keys follow on line kLine on. */
enum { kLine = 5 };
const char kRest[] = "  src: {type: t_source}\n  map1: {type: t_map, from: src}\n";

struct Bad {
    std::string text;   /* as YAML behind "key: " */
    size_t at = 0;      /* where in it the fault stands */
    bool scalar = true; /* may be given to mill_pipeline_set as well: no quotes, one line */
};

void add_number(std::vector<Bad> *all, double min, double max, bool whole)
{
    for (const char *t : {"many", ".nan", "nan", "1 2", "0xg", "1_000", "--1", "1e999"}) all->push_back({t});
    all->push_back({"'5'", 0, false});
    if (whole)
        for (const char *t : {"1.5", "99999999999999999999", "-99999999999999999999", "1e3"}) all->push_back({t});
    char text[64];
    const double step = whole ? 1 : std::max(1.0, std::fabs(min));
    if (min > -1e15) snprintf(text, sizeof text, "%.0f", min - step), all->push_back({text});
    if (max < 1e15) snprintf(text, sizeof text, "%.0f", max + std::max(1.0, std::fabs(max))), all->push_back({text});
}

/* What is neither a scalar nor wanted. */
void add_shapes(std::vector<Bad> *all, bool list, bool map)
{
    if (!list) all->push_back({"[1]"}), all->push_back({"[]"});
    if (!map) all->push_back({"{a: 1}"}), all->push_back({"{}"});
    if (!list) all->push_back({"[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]"});
}

std::vector<Bad> bad_of_key(const stm_key &k)
{
    std::vector<Bad> all;
    switch (k.shape) {
    case STM_SHAPE_INT: add_number(&all, k.min, k.max, true), add_shapes(&all, false, false); break;
    case STM_SHAPE_FLOAT:
        add_number(&all, k.min, k.max, false), add_shapes(&all, false, false);
        if (k.above) all.push_back({"0"});
        break;
    case STM_SHAPE_BOOL:
        for (const char *t : {"yes", "1", "TrUe", "''", "'true'"}) all.push_back({t, 0, t[0] != '\''});
        add_shapes(&all, false, false);
        break;
    case STM_SHAPE_NAME:
        for (const char *t : {"''", "a b", "a.b", "ä", "-a", "a/b"}) all.push_back({t, 0, t[0] != '\''});
        all.push_back({std::string(64, 'a')});
        add_shapes(&all, false, false);
        break;
    case STM_SHAPE_TEXT:
        all.push_back({"''", 0, false});
        add_shapes(&all, false, false);
        break;
    case STM_SHAPE_ENUM:
        for (const char *t : {"zz", "''", "1"}) all.push_back({t, 0, t[0] != '\''});
        add_shapes(&all, false, false);
        break;
    case STM_SHAPE_BYTES:
        for (const char *t : {"much", "-1", "1XB", "1 parsec", ".inf", "99999999TiB", "1.5", "nanMiB"}) all.push_back({t});
        add_shapes(&all, false, false);
        break;
    case STM_SHAPE_DURATION:
        for (const char *t : {"soon", "-1s", "1 parsec", ".inf", "nans", "99999999d"}) all.push_back({t});
        if (k.min >= 0) all.push_back({"none"});
        if (k.min > 0 || k.above) all.push_back({"0"});
        add_shapes(&all, false, false);
        break;
    case STM_SHAPE_TEXTS:
        all.push_back({"''", 0, false}), all.push_back({"['']", 1}), all.push_back({"[abcdef, [b]]", 9}),
            all.push_back({"[abcdef, abcdef]", 9});
        add_shapes(&all, true, false);
        break;
    case STM_SHAPE_MAP:
        all.push_back({"x"}), all.push_back({"{a: [b]}", 4}), all.push_back({"{a: {b: c}}", 4}), all.push_back({"{a: ''}", 4}),
            all.push_back({"{a: b, a: c}", 7, false});
        all.push_back({"{a: }", 1, false});
        add_shapes(&all, false, true);
        break;
    case STM_SHAPE_FLAGS:
        all.push_back({"zz"}), all.push_back({"[zz]", 1}), all.push_back({"[[data]]", 1}), all.push_back({"[data, data]", 7}),
            all.push_back({"[]"});
        add_shapes(&all, true, false);
        break;
    case STM_SHAPE_OBJECT:
    case STM_SHAPE_BYTES_OR_OBJECT:
        all.push_back({"zz"}), all.push_back({"{zz: 1}", 1}), all.push_back({"[1]"});
        for (size_t i = 0; i < k.n_sub; i++)
            for (const Bad &b : bad_of_key(k.sub[i])) {
                const std::string head = std::string("{") + k.sub[i].name + ": ";
                all.push_back({head + b.text + "}", b.at + head.size(), b.scalar || b.text[0] == '\''});
            }
        break;
    case STM_SHAPE_FROM:
        for (const char *t : {"zz", "''"}) all.push_back({t, 0, t[0] != '\''});
        all.push_back({"[]"}), all.push_back({"[zz]", 1}), all.push_back({"[src, src]", 6}), all.push_back({"[[src]]", 1}),
            all.push_back({"{}"}), all.push_back({"{zz: src}", 1});
        all.push_back({"{join: src}", 7}), all.push_back({"{join: []}", 7}), all.push_back({"{join: [src, src]}", 13}),
            all.push_back({"{union: [src], on_missing: null}", 15});
        all.push_back({"{join: [src, map1], on_missing: zz}", 32}), all.push_back({"x", 0});
        break;
    case STM_SHAPE_GROUPS:
        all.push_back({"zz"}), all.push_back({"[zz]", 1}), all.push_back({"[[zz]]", 2}), all.push_back({"[[]]", 1}),
            all.push_back({"[[src], [src]]", 9}), all.push_back({"{}"});
        break;
    case STM_SHAPE_STEPS: break; /* the whole file: test_mistakes.cc */
    }
    return all;
}

std::vector<Bad> bad_of_param(const mill_param &p)
{
    std::vector<Bad> all;
    const bool bounded = p.min != 0 || p.max != 0;
    switch (p.type) {
    case MILL_PARAM_INT:
        add_number(&all, bounded ? p.min : -1e18, bounded ? p.max : 1e18, true), add_shapes(&all, false, false);
        break;
    case MILL_PARAM_FLOAT:
        add_number(&all, bounded ? p.min : -1e18, bounded ? p.max : 1e18, false), add_shapes(&all, false, false);
        break;
    case MILL_PARAM_BOOL:
        for (const char *t : {"yes", "1", "'true'"}) all.push_back({t, 0, t[0] != '\''});
        add_shapes(&all, false, false);
        break;
    case MILL_PARAM_STRING: add_shapes(&all, false, false); break;
    case MILL_PARAM_ENUM:
        for (const char *t : {"zz", "''", "1"}) all.push_back({t, 0, t[0] != '\''});
        add_shapes(&all, false, false);
        break;
    case MILL_PARAM_PATH:
    case MILL_PARAM_OUT_PATH:
        all.push_back({"''", 0, false});
        if (p.type == MILL_PARAM_PATH) all.push_back({"/no/such/file"});
        add_shapes(&all, false, false);
        break;
    case MILL_PARAM_PATHS:
        all.push_back({"''", 0, false}), all.push_back({"['']", 1}), all.push_back({"[]"}), all.push_back({"[[a]]", 1}),
            all.push_back({"/no/such/file"});
        all.push_back({"[/no/such/*.file]", 1});
        add_shapes(&all, true, false);
        break;
    case MILL_PARAM_BYTES:
        for (const char *t : {"much", "-1", "1XB", "1 parsec", ".inf", "99999999TiB", "1.5", "nanMiB"}) all.push_back({t});
        if (p.min > 0) all.push_back({"0"});
        add_shapes(&all, false, false);
        break;
    case MILL_PARAM_DURATION:
        for (const char *t : {"soon", "-1s", "1 parsec", ".inf", "nans"}) all.push_back({t});
        if (bounded) all.push_back({"99999999999d"});
        if (p.min > 0) all.push_back({"0"});
        if (bounded && p.min >= 0) all.push_back({"none"});
        add_shapes(&all, false, false);
        break;
    case MILL_PARAM_STRINGS:
        all.push_back({"[[a]]", 1}), all.push_back({"[a, {b: c}]", 4});
        add_shapes(&all, true, false);
        break;
    case MILL_PARAM_MAP:
    case MILL_PARAM_COLUMNS:
        all.push_back({"x"}), all.push_back({"{a: [b]}", 4}), all.push_back({"{a: utf8, a: utf8}", 10, false});
        if (p.type == MILL_PARAM_COLUMNS)
            all.push_back({"{a: utf9}", 4}), all.push_back({"{a: ''}", 4}), all.push_back({"{a: 'fixed_list<float32>[0]'}", 4});
        add_shapes(&all, false, true);
        break;
    case MILL_PARAM_JSON: all.push_back({"{a: .inf}", 4}); break;
    default: break;
    }
    return all;
}

/* One error with its place; and by calls, the same one without a place. */
class Values {
public:
    Values(std::string head, std::string key, std::string set) : head_(std::move(head)), key_(std::move(key)), set_(std::move(set))
    {
    }
    void check(const Bad &b, int line, int indent, const std::string &rest)
    {
        const std::string text = head_ + std::string((size_t)indent, ' ') + key_ + ": " + b.text + "\n" + rest;
        SCOPED_TRACE(text);
        mill_error err = {};
        tried++;
        if (run(text, nullptr, &err) == MILL_OK) {
            ADD_FAILURE() << "taken";
            return;
        }
        EXPECT_EQ(err.phase, MILL_PHASE_CHECK) << err.msg;
        EXPECT_STREQ(err.file, "p.yaml") << err.msg;
        EXPECT_EQ(err.line, line) << err.msg;
        EXPECT_EQ(err.column, indent + (int)key_.size() + 3 + (int)b.at) << err.msg;
        EXPECT_STRNE(err.msg, "");
        EXPECT_EQ(std::string(err.msg).find('\n'), std::string::npos);
        if (!b.scalar) return;
        mill_error same = {};
        EXPECT_NE(run(head_ + rest, &b.text, &same), MILL_OK);
        EXPECT_STREQ(same.msg, err.msg);
        EXPECT_EQ(same.status, err.status);
        EXPECT_STREQ(same.step, err.step);
    }
    int tried = 0;

private:
    mill_status run(const std::string &text, const std::string *set, mill_error *err)
    {
        mill_pipeline *p = nullptr;
        mill_status st = mill_pipeline_parse(text.data(), text.size(), "p.yaml", "/tmp", &p, err);
        if (st == MILL_OK) st = mill_pipeline_add_types(p, &mt::kTypes, err);
        if (st == MILL_OK && set != nullptr) st = mill_pipeline_set(p, set_.c_str(), set->c_str(), err);
        if (st == MILL_OK) st = mill_pipeline_check(p, err);
        mill_pipeline_destroy(&p);
        return st;
    }
    std::string head_, key_, set_;
};

TEST(Values, OfEveryKeyOfTheFile)
{
    int tried = 0;
    for (size_t i = 0; i < stm_file_table_count; i++) {
        const stm_key &k = stm_file_table[i];
        const std::string version = std::string(k.name) == "stepmill" ? "" : "stepmill: 1\n";
        Values v(version, k.name, k.name);
        for (const Bad &b : bad_of_key(k)) v.check(b, version.empty() ? 1 : 2, 0, std::string("steps:\n") + kRest);
        EXPECT_TRUE(v.tried > 0 || k.shape == STM_SHAPE_STEPS) << k.name;
        tried += v.tried;
    }
    EXPECT_GT(tried, 100);
}

const char *type_of(const stm_key &k)
{
    static const struct {
        mill_kind kind;
        const char *type;
    } types[] = {{MILL_STEP, "t_map"},
                 {MILL_GENERATOR, "t_source"},
                 {MILL_SINK, "t_sink"},
                 {MILL_ROUTER, "t_route"},
                 {MILL_GLOBAL, "t_group"}};
    for (const auto &t : types)
        if (k.kinds == 0 || (k.kinds & 1u << t.kind) != 0) return t.type;
    return "";
}

TEST(Values, OfEveryKeyOfAStep)
{
    int tried = 0;
    for (size_t i = 0; i < stm_step_table_count; i++) {
        const stm_key &k = stm_step_table[i];
        const std::string type = type_of(k), name = k.name;
        std::string head = "stepmill: 1\nsteps:\n  x:\n";
        head += name == "type" ? "    nulls: skip\n" : "    type: " + type + "\n";
        std::string rest = name == "from" || type == "t_source" ? "" : "    from: src\n";
        if (type == "t_sink") rest += "    path: o\n";
        if (type == "t_route" && name != "to") rest += "    to: {a: map1}\n";
        Values v(head, name, "x." + name);
        for (const Bad &b : bad_of_key(k)) v.check(b, kLine, 4, rest + kRest);
        EXPECT_GT(v.tried, 0) << name;
        tried += v.tried;
    }
    EXPECT_GT(tried, 300);
}

TEST(Values, OfEveryParameterOfEveryBuiltInStepType)
{
    stm_registry *reg = nullptr;
    mill_error err = {};
    int tried = 0;
    ASSERT_EQ(stm_registry_create(&reg, &err), MILL_OK) << err.msg;
    ASSERT_GT(stm_registry_count(reg), 10u);
    for (size_t t = 0; t < stm_registry_count(reg); t++) {
        const mill_step_type *type = stm_registry_at(reg, t);
        for (size_t i = 0; i < type->n_params; i++) {
            const mill_param &p = type->params[i];
            std::string rest = type->kind == MILL_GENERATOR ? "" : "    from: src\n";
            if (type->kind == MILL_ROUTER) rest += "    to: {a: map2}\n  map2: {type: t_map, from: x}\n";
            Values v(std::string("stepmill: 1\nsteps:\n  x:\n    type: ") + type->name + "\n", p.name, std::string("x.") + p.name);
            for (const Bad &b : bad_of_param(p)) v.check(b, kLine, 4, rest + kRest);
            EXPECT_GT(v.tried, 0) << type->name << "." << p.name;
            tried += v.tried;
        }
    }
    EXPECT_GT(tried, 500);
    stm_registry_destroy(&reg);
}

} // namespace
