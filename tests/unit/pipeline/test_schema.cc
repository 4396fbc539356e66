/* The JSON schema that editors use, held against the engine itself: what it says of a key or parameter it takes and refuses exactly
 * as the engine does, but for what no schema can know. */
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <regex>
#include <string>
#include <vector>

#include "mistakes.h"
#include "types.h"

extern "C" {
#include "core/tree.h"
#include "pipeline/keys.h"
#include "pipeline/yaml.h"
#include "plugin/param.h"
}

namespace {

using Tree = const stm_tree *;

bool same(Tree a, Tree b) /* scalars */
{
    return a->kind == b->kind && (a->kind == STM_TREE_TEXT ? strcmp(a->text, b->text) == 0 : a->number == b->number);
}

template <typename F> bool all(Tree list, F holds)
{
    for (Tree i = list->first; i != nullptr; i = i->next)
        if (!holds(i)) return false;
    return true;
}

bool is_type(Tree v, const std::string &t)
{
    switch (v->kind) {
    case STM_TREE_NULL: return t == "null";
    case STM_TREE_BOOL: return t == "boolean";
    case STM_TREE_NUMBER: return t == "number" || (t == "integer" && v->number == std::floor(v->number));
    case STM_TREE_TEXT: return t == "string";
    case STM_TREE_ARRAY: return t == "array";
    default: return t == "object";
    }
}

/* The keywords that the schema uses; one that is not known here fails. */
bool valid(Tree v, Tree schema)
{
    return all(schema, [&](Tree k) {
        const std::string key = k->key;
        if (key == "type")
            return k->kind == STM_TREE_TEXT ? is_type(v, k->text) : !all(k, [&](Tree t) { return !is_type(v, t->text); });
        if (key == "enum") return !all(k, [&](Tree e) { return !same(v, e); });
        if (key == "const") return same(v, k);
        if (key == "anyOf") return !all(k, [&](Tree s) { return !valid(v, s); });
        if (key == "not") return !valid(v, k);
        if (key == "required")
            return v->kind != STM_TREE_OBJECT || all(k, [&](Tree name) { return stm_tree_get(v, name->text) != nullptr; });
        if (key == "properties")
            return v->kind != STM_TREE_OBJECT ||
                   all(v, [&](Tree m) { return stm_tree_get(k, m->key) == nullptr || valid(m, stm_tree_get(k, m->key)); });
        if (key == "additionalProperties")
            return v->kind != STM_TREE_OBJECT || all(v, [&](Tree m) {
                       const Tree known = stm_tree_get(schema, "properties");
                       return (known != nullptr && stm_tree_get(known, m->key) != nullptr) ||
                              (k->kind == STM_TREE_BOOL ? k->number != 0 : valid(m, k));
                   });
        if (key == "propertyNames") {
            const std::regex pattern(stm_tree_text(k, "pattern"));
            return v->kind != STM_TREE_OBJECT || all(v, [&](Tree m) { return std::regex_search(m->key, pattern); });
        }
        if (key == "minProperties") return v->kind != STM_TREE_OBJECT || v->n >= k->whole;
        if (key == "items") return v->kind != STM_TREE_ARRAY || all(v, [&](Tree i) { return valid(i, k); });
        if (key == "minItems") return v->kind != STM_TREE_ARRAY || v->n >= k->whole;
        if (key == "uniqueItems")
            return v->kind != STM_TREE_ARRAY || all(v, [&](Tree a) {
                       return all(v, [&](Tree b) { return a == b || a->kind > STM_TREE_TEXT || !same(a, b); });
                   });
        if (key == "minimum") return v->kind != STM_TREE_NUMBER || v->number >= k->number;
        if (key == "exclusiveMinimum") return v->kind != STM_TREE_NUMBER || v->number > k->number;
        if (key == "maximum") return v->kind != STM_TREE_NUMBER || v->number <= k->number;
        if (key == "minLength") return v->kind != STM_TREE_TEXT || strlen(v->text) >= (size_t)k->whole;
        if (key == "pattern") return v->kind != STM_TREE_TEXT || std::regex_search(v->text, std::regex(k->text));
        EXPECT_TRUE(key == "$schema" || key == "title" || key == "description" || key == "default")
            << "a keyword that is not known here: " << key;
        return true;
    });
}

class Schema : public testing::Test {
protected:
    void SetUp() override
    {
        mill_error err = {};
        ASSERT_EQ(mill_schema_text(&text_, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_tree_parse(text_, strlen(text_), &doc_, &root_), MILL_OK);
    }
    void TearDown() override
    {
        stm_tree_destroy(&doc_);
        mill_text_free(&text_);
    }
    Tree step_of(const char *title) const
    {
        const Tree alternatives =
            stm_tree_get(stm_tree_get(stm_tree_get(stm_tree_get(root_, "properties"), "steps"), "additionalProperties"), "anyOf");
        for (Tree a = alternatives->first; a != nullptr; a = a->next)
            if (strcmp(stm_tree_text(a, "title"), title) == 0) return a;
        return nullptr;
    }

    /* YAML read as the engine reads it, and as JSON, which editors see; false: JSON has no word for it. */
    bool read(const std::string &yaml, const std::function<void(const stm_value &, Tree)> &use)
    {
        stm_arena a = {};
        stm_value v = {};
        mill_error err = {};
        stm_text json = {};
        const stm_value *at = nullptr;
        stm_tree_doc *doc = nullptr;
        Tree tree = nullptr;
        EXPECT_EQ(stm_yaml_parse(&a, yaml.data(), yaml.size(), "p.yaml", &v, &err), MILL_OK) << yaml << ": " << err.msg;
        const bool ok = stm_value_json(&v, &json, &at) == MILL_OK;
        if (ok) {
            EXPECT_EQ(stm_tree_parse(json.data, json.bytes, &doc, &tree), MILL_OK) << json.data;
            use(v, tree);
        }
        stm_tree_destroy(&doc);
        stm_text_free(&json);
        stm_arena_fini(&a);
        return ok;
    }

    /* Every text of the pool, and the key's own choices, default and limits. */
    void compare(const std::string &name, Tree schema, std::vector<std::string> more,
                 const std::function<bool(const stm_value &)> &engine, const std::function<bool(const std::string &)> &unknowable)
    {
        static const char *const pool[] = {
            "0", "1", "2", "5", "-1", "0.5", "1.5", "2.5", "1000000", "99999999999999999999", "0x10", "1_000", "'5'", "'true'",
            "''", "true", "false", "null", "yes", "many", "zz", "a-b",
            "a b", "4GiB", "512MB", "1.5 GiB", "10 kB", "1XB", "1.5B", "64 parsec", "1s", "200ms", "5m", "10 min", "1.5h", "1d",
            "none", "soon", "-1s", "[]", "{}", "[1]", "[a]", "[a, b]", "[a, a]",
            "[[a]]", "['']", "{a: b}", "{a: 1}", "{a: [b]}", "{a: {b: c}}", "{a: ''}", "{a: }", "{a: utf8}", "[transient]",
            "[transient, data]", "[data, data]", "transient", "[zz]", "{host: 1GiB}",
            "{host: 5}", "{hosts: 5}", "{cuda: 0.5}", "{cuda: 0}", "{cuda: 2}", "{tokens: 5}", "{bytes: 1MiB}", "{load: 10s}",
            "{load: none}", "{load: 0}", "{batch: soon}",
            "{times: 2, backoff: 1s, classes: [data]}", "{times: -1}", "{classes: data}", "{classes: []}", "{failed: 0, of: 1}",
            "{failed: 0.5, of: 10}", "{failed: 1.5}", "{gpus: 1, share: true}", "{devices: [0, 1]}",
            "{devices: GPU-12345678}", "{cpus: 0}", "{memory: 1GiB}"};
        for (const char *t : pool) more.push_back(t);
        ASSERT_NE(schema, nullptr) << name;
        EXPECT_STRNE(stm_tree_text(schema, "description"), "") << name << " has no text";
        bool takes = false, refuses = false;
        for (const std::string &t : more)
            read(t, [&](const stm_value &v, Tree tree) {
                const bool by_engine = engine(v), by_schema = valid(tree, schema);
                compared_++;
                takes |= by_engine, refuses |= !by_engine;
                if (by_schema && !by_engine && unknowable(t)) return;
                EXPECT_EQ(by_schema, by_engine) << name << ": " << t;
            });
        EXPECT_TRUE(takes && refuses) << name << ": the pool has nothing that is taken, or nothing that is refused";
    }

    char *text_ = nullptr;
    stm_tree_doc *doc_ = nullptr;
    Tree root_ = nullptr;
    int compared_ = 0;
};

std::vector<std::string> own(const char *choices, const char *value, double min, double max)
{
    std::vector<std::string> texts;
    for (const char *p = choices; p != nullptr && *p != '\0'; p += strcspn(p, "|") + (p[strcspn(p, "|")] == '|'))
        texts.emplace_back(p, strcspn(p, "|"));
    if (value != nullptr && value[0] != '\0') texts.emplace_back(value);
    if (min != 0 || max != 0)
        for (double x : {min, max, min - 1, max + 1}) {
            char text[64];
            snprintf(text, sizeof text, "%.0f", x);
            if (std::fabs(x) < 1e15) texts.emplace_back(text);
        }
    return texts;
}

/* A size or time with a unit or in quotes is a text to a schema, whose limits are of numbers. */
bool is_text(const std::string &t)
{
    static const std::regex form("^([0-9.]+ ?[a-zA-Z]+|'[0-9]+')$");
    return std::regex_search(t, form);
}

} // namespace

TEST_F(Schema, SaysOfEveryKeyWhatTheEngineDoes)
{
    const auto keys = [&](const stm_key *table, size_t n, Tree properties, auto dest) {
        for (size_t i = 0; i < n; i++) {
            const stm_key &k = table[i];
            if (k.shape == STM_SHAPE_STEPS || k.shape == STM_SHAPE_FROM || k.shape == STM_SHAPE_GROUPS ||
                strcmp(k.name, "type") == 0)
                continue; /* below */
            compare(k.name, stm_tree_get(properties, k.name), own(k.choices, k.default_value, k.min, k.max),
                    [&](const stm_value &v) {
                        mill_error err = {};
                        return stm_key_read(&k, &v, k.name, dest, &err) == MILL_OK;
                    },
                    is_text);
        }
    };
    stm_file_keys file = {};
    stm_step_keys step = {};
    keys(stm_file_table, stm_file_table_count, stm_tree_get(root_, "properties"), &file);
    keys(stm_step_table, stm_step_table_count, stm_tree_get(step_of("a plugin's step type"), "properties"), &step);
    EXPECT_GT(compared_, 2000);
}

TEST_F(Schema, SaysOfEveryParameterWhatTheEngineDoes)
{
    stm_registry *reg = nullptr;
    mill_error err = {};
    const stm_param_dirs dirs = {nullptr, nullptr, false};
    ASSERT_EQ(stm_registry_create(&reg, &err), MILL_OK) << err.msg;
    for (size_t t = 0; t < stm_registry_count(reg); t++) {
        const mill_step_type *type = stm_registry_at(reg, t);
        const Tree alternative = step_of(type->name);
        ASSERT_NE(alternative, nullptr) << type->name;
        EXPECT_STRNE(stm_tree_text(alternative, "description"), "") << type->name;
        for (size_t i = 0; i < type->n_params; i++) {
            const mill_param &p = type->params[i];
            if (p.type == MILL_PARAM_JSON) continue; /* anything */
            compare(
                std::string(type->name) + "." + p.name, stm_tree_get(stm_tree_get(alternative, "properties"), p.name),
                own(p.choices, p.default_value, p.min, p.max),
                [&](const stm_value &v) {
                    stm_param_value out = {};
                    mill_error e = {};
                    const bool ok = stm_param_read(&p, &v, &dirs, &out, &e) == MILL_OK;
                    stm_param_value_fini(&out);
                    return ok;
                },
                [&](const std::string &text) { return p.type == MILL_PARAM_COLUMNS /* names of types */ || is_text(text); });
        }
    }
    stm_registry_destroy(&reg);
    EXPECT_GT(compared_, 3000);
}

/* Whole files: what the engine takes the schema takes; what has another form than the file may have, it refuses. */
TEST_F(Schema, TakesWhatTheEngineTakes)
{
    for (const char *good : {mt::kLine, mt::kGraph})
        EXPECT_TRUE(read(good, [&](const stm_value &, Tree v) { EXPECT_TRUE(valid(v, root_)) << good; }));
    for (const char *from : {"x", "[x]", "[x, y]", "{join: [x, y]}", "{join: [x, y], on_missing: drop, on_uneven: null}",
                             "{union: [x, y]}", "{converge: [x, y], on_missing: null}"})
        read(std::string("{stepmill: 1, steps: {a: {type: t_map, from: ") + from + "}}}",
             [&](const stm_value &, Tree v) { EXPECT_TRUE(valid(v, root_)) << from; });
    for (const char *groups : {"sequential", "[[a], [b, c]]"})
        read(std::string("{stepmill: 1, load_groups: ") + groups + ", steps: {a: {type: t_map}}}",
             [&](const stm_value &, Tree v) { EXPECT_TRUE(valid(v, root_)) << groups; });
    for (const char *bad :
         {"[]", "{}", "{stepmill: 1}", "{stepmill: 2, steps: {a: {type: t_map}}}", "{stepmill: 1, steps: {}}",
          "{stepmill: 1, steps: {a b: {type: t_map}}}", "{stepmill: 1, steps: {a: {}}}", "{stepmill: 1, step: {a: {type: t_map}}}",
          "{stepmill: 1, steps: {a: t_map}}", "{stepmill: 1, steps: {a: {type: filter, from: x}}}",
          "{stepmill: 1, steps: {a: {type: filter, where: x}}}",
          "{stepmill: 1, steps: {a: {type: filter, from: x, where: y, wher: z}}}",
          "{stepmill: 1, steps: {a: {type: filter, from: x, where: y, batch_size: 3}}}",
          "{stepmill: 1, steps: {a: {type: read_jsonl, path: x, from: y}}}"})
        read(bad, [&](const stm_value &, Tree v) { EXPECT_FALSE(valid(v, root_)) << bad; });
    for (const char *from : {"''", "[]", "{}", "{zz: x}", "[[x]]", "[x, x]", "{join: x}", "{join: []}", "{join: [x], union: [x]}",
                             "{union: [x], on_missing: null}", "{join: [x, y], on_missing: zz}", "{union: [x], on_uneven: null}"})
        read(std::string("{stepmill: 1, steps: {a: {type: t_map, from: ") + from + "}}}",
             [&](const stm_value &, Tree v) { EXPECT_FALSE(valid(v, root_)) << from; });
    for (const char *groups : {"zz", "[zz]", "[[]]", "{}"})
        read(std::string("{stepmill: 1, load_groups: ") + groups + ", steps: {a: {type: t_map}}}",
             [&](const stm_value &, Tree v) { EXPECT_FALSE(valid(v, root_)) << groups; });
}
