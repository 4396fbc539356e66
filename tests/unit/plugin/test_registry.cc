/* Finding step types, opening plugins, refusing bad ones with the author's mistake in words. */
#include "kit.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>

#include "plugin/modules.h"

namespace {

class Registry {
public:
    Registry() { EXPECT_EQ(stm_registry_create(&reg, nullptr), MILL_OK); }
    ~Registry() { stm_registry_destroy(&reg); }
    std::string open(const std::string &path)
    {
        mill_error e = {};
        const mill_status st = stm_registry_open(reg, path.c_str(), &e);
        EXPECT_EQ(st, e.status);
        return st == MILL_OK ? "ok" : kit::show(e);
    }
    stm_registry *reg = nullptr;
};

std::string plugin(const char *name) { return std::string(PLUGIN_DIR "/test_plugin_") + name + ".so"; }

TEST(RegistryOf, BuiltInTypesAreValidAndSorted)
{
    Registry r;
    const size_t n = stm_registry_count(r.reg);
    EXPECT_EQ(n, stm_builtin_steps()->n_types);
    for (size_t i = 0; i < n; i++) {
        const mill_step_type *t = stm_registry_at(r.reg, i);
        mill_error e = {};
        EXPECT_EQ(stm_step_type_check(t, &e), MILL_OK) << e.msg;
        EXPECT_STREQ(stm_registry_origin(r.reg, i), "built in");
        EXPECT_EQ(stm_registry_find(r.reg, t->name), t);
        if (i > 0) {
            EXPECT_LT(std::string(stm_registry_at(r.reg, i - 1)->name), t->name);
        }
    }
    EXPECT_EQ(stm_registry_at(r.reg, n), nullptr);
    EXPECT_EQ(stm_registry_origin(r.reg, n), nullptr);
    EXPECT_EQ(stm_registry_find(r.reg, "no_such_type"), nullptr);
}

TEST(RegistryOf, PluginTypesAreFound)
{
    const long before = mt::live();
    {
        Registry r;
        const size_t n = stm_registry_count(r.reg);
        ASSERT_EQ(r.open(plugin("good")), "ok");
        EXPECT_EQ(stm_registry_count(r.reg), n + 2);
        const mill_step_type *t = stm_registry_find(r.reg, "good_two");
        ASSERT_NE(t, nullptr);
        EXPECT_STREQ(stm_registry_nearest(r.reg, "good_tow"), "good_two");
        EXPECT_STREQ(stm_registry_nearest(r.reg, "write_parqet"), "write_parquet") << "of a module that is not open";
        EXPECT_EQ(stm_registry_nearest(r.reg, "something_else"), nullptr);
        for (size_t i = 0; i < n + 2; i++)
            if (stm_registry_at(r.reg, i) == t) {
                EXPECT_EQ(stm_registry_origin(r.reg, i), plugin("good"));
            }
        EXPECT_EQ(r.open(plugin("good")), "ok"); /* again: nothing happens */
        EXPECT_EQ(r.open(PLUGIN_DIR "/./test_plugin_good.so"), "ok");
        EXPECT_EQ(stm_registry_count(r.reg), n + 2);
    }
    EXPECT_EQ(mt::live(), before);
}

TEST(RegistryOf, NameWithoutASlashIsAFileHere)
{
    char old[4096];
    ASSERT_NE(getcwd(old, sizeof old), nullptr);
    ASSERT_EQ(chdir(PLUGIN_DIR), 0);
    Registry r;
    EXPECT_EQ(r.open("test_plugin_good.so"), "ok");
    EXPECT_EQ(chdir(old), 0);
}

TEST(RegistryOf, BadPluginsAreRefusedAndLeaveNothing)
{
    static const struct {
        const char *name, *want;
    } cases[] = {
        {"no_entry", "it is no plugin of stepmill: it does not export mill_plugin_v1"},
        {"null_plugin", "mill_plugin_v1 returned NULL"},
        {"wrong_abi", "it is made for version 99 of the step interface, this is version 1"},
        {"old_struct", "struct_size is 8, version 1 of mill_plugin has 48 bytes"},
        {"no_types", "the plugin has no step types"},
        {"null_function", "it is a step without process and without submit (step type \"bad_first\"; plugin)"},
        {"unknown_flag", "it has flags that this stepmill does not know: 0x1000000000000000 (step type \"bad_first\"; plugin)"},
        {"second_is_bad", "its name has to be lower case letters, digits and _, at most 63 (step type \"Bad Second\"; plugin)"},
        {"no_name", "the plugin has no name"},
    };
    for (const auto &c : cases) {
        const long before = mt::live();
        {
            Registry r;
            const size_t n = stm_registry_count(r.reg);
            std::string got = r.open(plugin(c.name));
            const std::string where = "plugin " + plugin(c.name);
            const size_t at = got.find(where);
            ASSERT_NE(at, std::string::npos) << got;
            got = std::string(c.want).find("plugin)") != std::string::npos ? got.replace(at, where.size(), "plugin")
                                                                           : got.substr(0, at - 2);
            EXPECT_EQ(got, c.want);
            EXPECT_EQ(stm_registry_count(r.reg), n);
            EXPECT_EQ(stm_registry_find(r.reg, "bad_first"), nullptr);
            EXPECT_EQ(r.open(plugin("good")), "ok"); /* and the registry still works */
        }
        EXPECT_EQ(mt::live(), before) << c.name;
    }
}

TEST(RegistryOf, FilesThatAreNoLibraries)
{
    Registry r;
    EXPECT_EQ(r.open("/nowhere/x.so"), "cannot open the plugin: No such file or directory (plugin /nowhere/x.so)");
    EXPECT_EQ(r.open(__FILE__).find("cannot open the plugin: "), 0u);
    const std::string unresolved = r.open(plugin("unresolved"));
    EXPECT_NE(unresolved.find("nobody_has_this"), std::string::npos) << unresolved;
    EXPECT_NE(r.open("/tmp"), "ok");
}

TEST(RegistryOf, TwoTypesOfOneNameAreRefused)
{
    Registry r;
    static const mill_step_type mine = kit::type(MILL_STEP, "good_one");
    static const mill_step_type *const types[] = {&mine};
    const mill_plugin p = {sizeof p, MILL_ABI_1, "program", "1", types, 1};
    mill_error e = {};
    ASSERT_EQ(stm_registry_add(r.reg, &p, nullptr), MILL_OK);
    EXPECT_EQ(r.open(plugin("good")), "step type \"good_one\" is there already (program) (plugin " + plugin("good") + ")");
    EXPECT_EQ(stm_registry_find(r.reg, "good_two"), nullptr); /* all or none */
    EXPECT_EQ(stm_registry_add(r.reg, &p, &e), MILL_ERR_INVALID);
    EXPECT_EQ(stm_registry_add(r.reg, nullptr, nullptr), MILL_ERR_INVALID);
}

TEST(RegistryOf, EveryFailureLeavesNothing)
{
    for (int nth = 0;; nth++) {
        ASSERT_LT(nth, 100);
        const long before = mt::live();
        stm_registry *reg = nullptr;
        mill_error e = {};
        mt::FailNth fail(nth, STM_FAULT_ALLOC | STM_FAULT_LOAD);
        mill_status st = stm_registry_create(&reg, &e);
        if (st == MILL_OK) st = stm_registry_open(reg, plugin("good").c_str(), &e);
        const bool fired = fail.fired();
        EXPECT_EQ(st != MILL_OK, fired) << nth;
        if (st != MILL_OK) {
            EXPECT_STRNE(e.msg, "");
            EXPECT_TRUE(reg == nullptr || stm_registry_find(reg, "good_one") == nullptr);
        }
        stm_registry_destroy(&reg);
        EXPECT_EQ(mt::live(), before) << "leak when point " << nth << " fails";
        if (!fired) {
            EXPECT_GE(nth, 4);
            return;
        }
    }
}

/* ---- descriptors -------------------------------------------------------------------------------------------------------- */

struct Mistake {
    const char *name;
    std::function<void(mill_step_type &)> make;
    const char *want; /* nullptr: it is none */
};

mill_param param(const char *name, int32_t type, const char *def = nullptr) { return {name, type, 0, def, 0, 0, nullptr, "text"}; }
/* A one-element table that lives until the next call. */
template <int slot> void with_param(mill_step_type &t, mill_param p)
{
    static mill_param kept;
    kept = p;
    t.params = &kept;
    t.n_params = 1;
}

TEST(TypeCheck, EveryMistakeHasItsWords)
{
    static const mill_param twins[] = {param("a", MILL_PARAM_INT), param("a", MILL_PARAM_INT)};
    static const mill_column_decl same[] = {{"x", "utf8", ""}, {"x", "utf8", ""}}, unnamed[] = {{"", "utf8", ""}},
                                  odd[] = {{"x", "strange", ""}}, any[] = {{"x", "any", ""}}, text[] = {{"x", "text", ""}},
                                  untyped[] = {{"x", nullptr, ""}};
    const Mistake mistakes[] = {
        {"none", [](mill_step_type &) {}, nullptr},
        {"larger struct of a later version", [](mill_step_type &t) { t.struct_size += 64; }, nullptr},
        {"small struct", [](mill_step_type &t) { t.struct_size -= 8; }, "struct_size is"},
        {"abi", [](mill_step_type &t) { t.abi = 2; }, "it is made for version 2 of the step interface, this is version 1"},
        {"no name", [](mill_step_type &t) { t.name = nullptr; }, "its name has to be lower case letters, digits and _, at most 63"},
        {"capitals", [](mill_step_type &t) { t.name = "Bad"; }, "its name has to be lower case letters, digits and _, at most 63"},
        {"digit first", [](mill_step_type &t) { t.name = "1st"; },
         "its name has to be lower case letters, digits and _, at most 63"},
        {"long name",
         [](mill_step_type &t) {
             static const std::string n(64, 'a');
             t.name = n.c_str();
         },
         "its name has to be lower case letters, digits and _, at most 63"},
        {"no summary", [](mill_step_type &t) { t.summary = ""; }, "it has no summary"},
        {"kind", [](mill_step_type &t) { t.kind = 9; }, "it has the unknown kind 9"},
        {"flag", [](mill_step_type &t) { t.flags = 1u << 31; }, "it has flags that this stepmill does not know: 0x80000000"},
        {"per row and stateful", [](mill_step_type &t) { t.flags = MILL_PER_ROW | MILL_STATEFUL; },
         "MILL_PER_ROW contradicts MILL_STATEFUL"},
        {"per row and sensitive", [](mill_step_type &t) { t.flags = MILL_PER_ROW | MILL_BATCH_SENSITIVE; },
         "MILL_PER_ROW contradicts MILL_BATCH_SENSITIVE"},
        {"routing step", [](mill_step_type &t) { t.flags = MILL_ROUTES; }, "MILL_ROUTES is for routers; it is a step"},
        {"filtering sink",
         [](mill_step_type &t) {
             t = kit::type(MILL_SINK, "x");
             t.flags = MILL_FILTERS;
         },
         "MILL_EXPANDS and MILL_FILTERS are for steps; it is a sink"},
        {"no process", [](mill_step_type &t) { t.process = nullptr; }, "it is a step without process and without submit"},
        {"both", [](mill_step_type &t) { t.submit = kit::submit; }, "it has process, and submit, poll, cancel or flush, too"},
        {"submit alone",
         [](mill_step_type &t) {
             t.process = nullptr;
             t.submit = kit::submit;
         },
         "it has submit without poll"},
        {"submit without cancel",
         [](mill_step_type &t) {
             t.process = nullptr;
             t.submit = kit::submit;
             t.poll = kit::poll;
         },
         "it has submit without cancel"},
        {"submit",
         [](mill_step_type &t) {
             t.process = nullptr;
             t.submit = kit::submit;
             t.poll = kit::poll;
             t.cancel = kit::cancel;
         },
         nullptr},
        {"generating step", [](mill_step_type &t) { t.generate = kit::generate; },
         "it is a step but has the function generate of a generator"},
        {"empty generator",
         [](mill_step_type &t) {
             t = kit::type(MILL_GENERATOR, "x");
             t.generate = nullptr;
         },
         "it is a generator without the function generate"},
        {"endless global",
         [](mill_step_type &t) {
             t = kit::type(MILL_GLOBAL, "x");
             t.finish = nullptr;
         },
         "it is a global without the function finish"},
        {"deaf global",
         [](mill_step_type &t) {
             t = kit::type(MILL_GLOBAL, "x");
             t.accept = nullptr;
         },
         "it is a global without the function accept"},
        {"sink without open",
         [](mill_step_type &t) {
             t = kit::type(MILL_SINK, "x");
             t.open = nullptr;
         },
         "it is a sink without the function open"},
        {"sink without write",
         [](mill_step_type &t) {
             t = kit::type(MILL_SINK, "x");
             t.write = nullptr;
         },
         "it is a sink without the function write"},
        {"sink without finalize",
         [](mill_step_type &t) {
             t = kit::type(MILL_SINK, "x");
             t.finalize = nullptr;
         },
         "it is a sink without the function finalize"},
        {"router without route",
         [](mill_step_type &t) {
             t = kit::type(MILL_ROUTER, "x");
             t.route = nullptr;
         },
         "it is a router without the function route"},
        {"parameters without table", [](mill_step_type &t) { t.n_params = 2; }, "it has 2 parameters but no table of them"},
        {"parameter without name", [](mill_step_type &t) { with_param<0>(t, param(nullptr, MILL_PARAM_INT)); },
         "parameter 0 is called \"(null)\": use lower case letters, digits and _"},
        {"parameter name", [](mill_step_type &t) { with_param<1>(t, param("a-b", MILL_PARAM_INT)); },
         "parameter 0 is called \"a-b\": use lower case letters, digits and _"},
        {"twins",
         [](mill_step_type &t) {
             t.params = twins;
             t.n_params = 2;
         },
         "it has two parameters \"a\""},
        {"engine's key", [](mill_step_type &t) { with_param<2>(t, param("replicas", MILL_PARAM_INT)); },
         "parameter \"replicas\" has the name of a key of every step"},
        {"parameter type", [](mill_step_type &t) { with_param<3>(t, param("a", 77)); }, "parameter \"a\" has the unknown type 77"},
        {"parameter flag",
         [](mill_step_type &t) {
             mill_param p = param("a", MILL_PARAM_INT);
             p.flags = 8;
             with_param<4>(t, p);
         },
         "parameter \"a\" has unknown flags 0x8"},
        {"no text",
         [](mill_step_type &t) {
             mill_param p = param("a", MILL_PARAM_INT);
             p.text = "";
             with_param<5>(t, p);
         },
         "parameter \"a\" has no text for people"},
        {"range",
         [](mill_step_type &t) {
             mill_param p = param("a", MILL_PARAM_INT);
             p.min = 2, p.max = 1;
             with_param<6>(t, p);
         },
         "parameter \"a\" has the range 2 to 1"},
        {"NaN",
         [](mill_step_type &t) {
             mill_param p = param("a", MILL_PARAM_INT);
             p.min = NAN;
             with_param<7>(t, p);
         },
         "parameter \"a\" has the range"},
        {"no choices", [](mill_step_type &t) { with_param<8>(t, param("a", MILL_PARAM_ENUM)); },
         "parameter \"a\" is an enum and needs choices such as \"a|b\""},
        {"empty choice",
         [](mill_step_type &t) {
             mill_param p = param("a", MILL_PARAM_ENUM);
             p.choices = "x||y";
             with_param<9>(t, p);
         },
         "parameter \"a\" is an enum and needs choices such as \"a|b\""},
        {"default of another type", [](mill_step_type &t) { with_param<10>(t, param("a", MILL_PARAM_INT, "x")); },
         "parameter \"a\" is \"x\", expected an integer"},
        {"default no choice",
         [](mill_step_type &t) {
             mill_param p = param("a", MILL_PARAM_ENUM, "z");
             p.choices = "x|y";
             with_param<11>(t, p);
         },
         "parameter \"a\" is \"z\", expected one of x, y"},
        {"default no YAML", [](mill_step_type &t) { with_param<12>(t, param("a", MILL_PARAM_STRINGS, "[x")); },
         "expected , or ] at byte 2 of \"[x\""},
        {"default path", [](mill_step_type &t) { with_param<13>(t, param("a", MILL_PARAM_PATH, "not/there")); }, nullptr},
        {"columns without table", [](mill_step_type &t) { t.n_inputs = 1; }, "it has 1 inputs but no table of them"},
        {"two columns",
         [](mill_step_type &t) {
             t.outputs = same;
             t.n_outputs = 2;
         },
         "it has two outputs \"x\""},
        {"no column name",
         [](mill_step_type &t) {
             t.inputs = unnamed;
             t.n_inputs = 1;
         },
         "input 0 has no name"},
        {"no column type",
         [](mill_step_type &t) {
             t.inputs = untyped;
             t.n_inputs = 1;
         },
         "input \"x\" has no type"},
        {"column type",
         [](mill_step_type &t) {
             t.inputs = odd;
             t.n_inputs = 1;
         },
         ""},
        {"any",
         [](mill_step_type &t) {
             t.inputs = any;
             t.n_inputs = 1;
             t.outputs = any;
             t.n_outputs = 1;
         },
         nullptr},
        {"text",
         [](mill_step_type &t) {
             t.inputs = text;
             t.n_inputs = 1;
         },
         nullptr},
        {"text out",
         [](mill_step_type &t) {
             t.outputs = text;
             t.n_outputs = 1;
         },
         ""},
        {"generator with inputs",
         [](mill_step_type &t) {
             t = kit::type(MILL_GENERATOR, "x");
             t.inputs = any;
             t.n_inputs = 1;
         },
         "it is a generator and cannot have inputs"},
        {"sink with outputs",
         [](mill_step_type &t) {
             t = kit::type(MILL_SINK, "x");
             t.outputs = any;
             t.n_outputs = 1;
         },
         "it is a sink and cannot have outputs"},
    };
    for (const Mistake &m : mistakes) {
        mill_step_type t = kit::type(MILL_STEP, "thing");
        mill_error e = {};
        m.make(t);
        EXPECT_EQ(stm_step_type_check(&t, &e) == MILL_OK, m.want == nullptr) << m.name << ": " << e.msg;
        if (m.want != nullptr) {
            EXPECT_EQ(std::string(e.msg).substr(0, strlen(m.want)), m.want) << m.name;
        }
    }
    EXPECT_EQ(stm_step_type_check(nullptr, nullptr), MILL_ERR_INVALID);
}

} // namespace
