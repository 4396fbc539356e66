/* Columns of a step: what it reads, what passes, what leaves, in which order (semantics A2.7, A2.8), and the words for what is
 * wrong. */
#include "kit.h"

#include <cstring>

namespace {

std::function<mill_status(mill_step *, const mill_config *, mill_io *, mill_error *)> doing;

mill_status configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    return doing ? doing(s, c, io, err) : MILL_OK;
}

const mill_type *utf8() { return mill_type_plain(MILL_UTF8); }
const mill_type *int64() { return mill_type_plain(MILL_INT64); }

/* "0.1 as text" per column: input, place, own name; branches of a convergence behind. */
std::string used(const mill_step *s, int32_t input)
{
    std::string out;
    for (int32_t i = 0; i < s->inputs[input].n_used; i++) {
        const stm_used_column &u = s->inputs[input].used[i];
        out += std::string(i ? ", " : "") + std::to_string(u.input) + "." + std::to_string(u.column) + " as " + u.name;
        for (int32_t k = 0; u.in_branch && k < s->n_inputs; k++) out += (k ? " " : " [") + std::to_string(u.in_branch[k]);
        if (u.in_branch) out += "]";
    }
    return out;
}

std::string passing(const mill_step *s)
{
    std::string out;
    for (int32_t i = 0; i < s->n_pass; i++) {
        const stm_pass_column &p = s->pass[i];
        out += std::string(i ? ", " : "") + std::to_string(p.input) + "." + std::to_string(p.from) + "->" + std::to_string(p.to);
        for (int32_t k = 0; p.in_branch && k < s->n_inputs; k++) out += (k ? " " : " [") + std::to_string(p.in_branch[k]);
        if (p.in_branch) out += "]";
    }
    return out;
}

const mill_column_decl kText[] = {{"text", "text", "what to read"}};
const mill_column_decl kVector[] = {{"vector", "list<float32>", "what is written"}};

class Columns : public testing::Test {
protected:
    Columns()
    {
        type_ = kit::type(MILL_STEP, "embed");
        type_.inputs = kText;
        type_.n_inputs = 1;
        type_.outputs = kVector;
        type_.n_outputs = 1;
        type_.configure = configure;
        before_ = mt::live();
    }
    ~Columns() override { doing = nullptr; }
    void TearDown() override { EXPECT_EQ(mt::live(), before_); }
    mill_step_type type_;
    long before_;
    const kit::Schema doc_{{"id", "int64"}, {"text", "utf8"}, {"extra", "json"}};
};

TEST_F(Columns, InputOrderThenNewOnes)
{
    kit::Spec s(&type_);
    ASSERT_EQ(s.from(doc_).verdict(), "ok");
    EXPECT_EQ(used(s.step, 0), "0.1 as text");
    EXPECT_EQ(kit::show(s.step->out), "id: int64, text: utf8, extra: json, vector: list<float32>");
    EXPECT_EQ(passing(s.step), "0.0->0, 0.1->1, 0.2->2");
    EXPECT_EQ(s.step->outputs[0].column, 3);
    EXPECT_EQ(kit::show(s.step->inputs[0].schema), "id: int64, text: utf8, extra: json");
    EXPECT_STREQ(mill_step_name(s.step), "s1");
}

TEST_F(Columns, OutputOfAnArrivingNameTakesItsPlace)
{
    kit::Spec s(&type_);
    ASSERT_EQ(s.from(doc_).out("vector", "text").verdict(), "ok");
    EXPECT_EQ(kit::show(s.step->out), "id: int64, text: list<float32>, extra: json");
    EXPECT_EQ(passing(s.step), "0.0->0, 0.2->2");
    EXPECT_STREQ(s.step->outputs[0].name, "vector");
    EXPECT_STREQ(s.step->outputs[0].mapped, "text");
    EXPECT_EQ(s.step->outputs[0].column, 1);
}

/* A mapped column hides an equally named one from the step only: it is still there afterwards. */
TEST_F(Columns, HiddenColumnComesBack)
{
    kit::Spec s(&type_);
    ASSERT_EQ(s.from({{"text", "int64"}, {"body", "utf8"}}).in("text", "body").verdict(), "ok");
    EXPECT_EQ(used(s.step, 0), "0.1 as text");
    EXPECT_EQ(kit::show(s.step->out), "text: int64, body: utf8, vector: list<float32>");
    EXPECT_EQ(passing(s.step), "0.0->0, 0.1->1");
}

/* ... unless the step writes that name. */
TEST_F(Columns, HiddenColumnIsReplacedWhenWritten)
{
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_add(io, "text", utf8(), nullptr, err);
    };
    kit::Spec s(&type_);
    ASSERT_EQ(s.from({{"text", "int64"}, {"body", "utf8"}}).in("text", "body").verdict(), "ok");
    EXPECT_EQ(kit::show(s.step->out), "text: utf8, body: utf8, vector: list<float32>");
    EXPECT_EQ(passing(s.step), "0.1->1");
}

TEST_F(Columns, ConfigureAddsToWhatTheDescriptorSays)
{
    static int32_t text, id, again, vector, label;
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        EXPECT_EQ(mill_io_inputs(io), 1u);
        EXPECT_EQ(mill_io_column_count(io, 0), 3u);
        EXPECT_STREQ(mill_io_column_name(io, 0, 2), "extra");
        EXPECT_EQ(mill_io_column_type(io, 0, 0), int64());
        EXPECT_EQ(mill_io_column_name(io, 0, 3), nullptr);
        EXPECT_EQ(mill_io_column_count(io, 1), 0u);
        EXPECT_EQ(mill_io_use(io, 0, "text", "utf8", &text, err), MILL_OK);
        EXPECT_EQ(mill_io_use(io, 0, "id", "any", &id, err), MILL_OK);
        EXPECT_EQ(mill_io_use(io, 0, "id", "int64", &again, err), MILL_OK);
        EXPECT_EQ(mill_io_used_type(io, 0, id), int64());
        EXPECT_EQ(mill_io_used_type(io, 0, 9), nullptr);
        EXPECT_EQ(mill_io_used_type(io, 9, 0), nullptr);
        EXPECT_EQ(mill_io_add(io, "vector", mill_type_list(mill_type_plain(MILL_FLOAT32)), &vector, err), MILL_OK);
        EXPECT_EQ(mill_io_add(io, "label", utf8(), &label, err), MILL_OK);
        return MILL_OK;
    };
    kit::Spec s(&type_);
    ASSERT_EQ(s.from(doc_).verdict(), "ok");
    EXPECT_EQ(text, 0);
    EXPECT_EQ(id, 1);
    EXPECT_EQ(again, 1);
    EXPECT_EQ(vector, 0);
    EXPECT_EQ(label, 1);
    EXPECT_EQ(used(s.step, 0), "0.1 as text, 0.0 as id");
    EXPECT_EQ(kit::show(s.step->out), "id: int64, text: utf8, extra: json, vector: list<float32>, label: utf8");
}

TEST_F(Columns, DropAndPass)
{
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        EXPECT_EQ(mill_io_drop(io, "extra", err), MILL_OK);
        EXPECT_EQ(mill_io_drop(io, "text", err), MILL_OK); /* mapped: its column goes */
        return MILL_OK;
    };
    kit::Spec dropped(&type_);
    ASSERT_EQ(dropped.from({{"body", "utf8"}, {"text", "int64"}, {"extra", "json"}}).in("text", "body").verdict(), "ok");
    EXPECT_EQ(kit::show(dropped.step->out), "text: int64, vector: list<float32>");
    EXPECT_EQ(used(dropped.step, 0), "0.0 as text"); /* dropped is not hidden */

    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *) {
        mill_io_pass(io, false);
        return MILL_OK;
    };
    kit::Spec alone(&type_);
    ASSERT_EQ(alone.from(doc_).out("vector", "text").verdict(), "ok");
    EXPECT_EQ(kit::show(alone.step->out), "text: list<float32>");
    EXPECT_EQ(alone.step->n_pass, 0);
}

TEST_F(Columns, TypeOfAnOutputMayDependOnConfigure)
{
    static const mill_column_decl any[] = {{"vector", "any", "its length depends on the model"}};
    type_.outputs = any;
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_add(io, "vector", mill_type_fixed_list(mill_type_plain(MILL_FLOAT32), 384), nullptr, err);
    };
    kit::Spec s(&type_);
    ASSERT_EQ(s.from(doc_).verdict(), "ok");
    EXPECT_EQ(kit::show(s.step->out), "id: int64, text: utf8, extra: json, vector: fixed_list<float32>[384]");
    doing = nullptr;
    EXPECT_EQ(s.verdict(), "p.yaml:5:3: s1: step type \"embed\" did not say what type its output \"vector\" has");
}

/* ---- several inputs ---------------------------------------------------------------------------------------------------- */

const kit::Schema kLeft{{"id", "int64"}, {"a", "utf8"}};
const kit::Schema kRight{{"text", "utf8"}, {"a", "int64"}, {"b", "bool"}};

TEST_F(Columns, JoinShowsOneRowAndTheFirstInputWinsAName)
{
    static int32_t a, b, a1;
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        EXPECT_EQ(mill_io_inputs(io), 2u);
        EXPECT_EQ(mill_io_column_count(io, 0), 4u);
        EXPECT_STREQ(mill_io_column_name(io, 0, 3), "b");
        EXPECT_EQ(mill_io_column_count(io, 1), 3u);
        EXPECT_EQ(mill_io_use(io, 0, "a", "utf8", &a, err), MILL_OK);
        EXPECT_EQ(mill_io_use(io, 0, "b", "bool", &b, err), MILL_OK);
        EXPECT_EQ(mill_io_use(io, 1, "a", "int64", &a1, err), MILL_OK);
        return MILL_OK;
    };
    kit::Spec s(&type_);
    ASSERT_EQ(s.from(kLeft).from(kRight).verdict(), "ok");
    EXPECT_EQ(a, 1);
    EXPECT_EQ(b, 2);
    EXPECT_EQ(a1, 0);
    EXPECT_EQ(used(s.step, 0), "1.0 as text, 0.1 as a, 1.2 as b");
    EXPECT_EQ(used(s.step, 1), "1.1 as a");
    EXPECT_EQ(kit::show(s.step->out), "id: int64, a: utf8, text: utf8, b: bool, vector: list<float32>");
    EXPECT_EQ(passing(s.step), "0.0->0, 0.1->1, 1.0->2, 1.2->3");
    EXPECT_EQ(s.step->n_inputs, 2);
}

TEST_F(Columns, SecondInputOfAJoinIsStrictlyItsOwn)
{
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_use(io, 1, "id", "any", nullptr, err);
    };
    kit::Spec s(&type_);
    EXPECT_EQ(s.from(kLeft, "left").from(kRight, "right").verdict(),
              "p.yaml:5:3: s1: step type \"embed\" reads column \"id\", which does not arrive from \"right\". "
              "There are: text, a, b");
}

TEST_F(Columns, ConvergenceTakesANameFromTheFirstBranchThatHasIt)
{
    kit::Spec s(&type_);
    s.from({{"id", "int64"}, {"x", "utf8"}}, "long").from({{"text", "utf8"}, {"x", "utf8"}, {"id", "int64"}}, "short");
    s.raw().converge = true;
    ASSERT_EQ(s.verdict(), "ok");
    EXPECT_EQ(used(s.step, 0), "1.0 as text [-1 0]");
    EXPECT_EQ(kit::show(s.step->out), "id: int64, x: utf8, text: utf8, vector: list<float32>");
    EXPECT_EQ(passing(s.step), "0.0->0 [0 2], 0.1->1 [1 1], 1.0->2 [-1 0]");
}

TEST_F(Columns, ConvergingBranchesMustAgreeOnTypes)
{
    kit::Spec s(&type_);
    s.from({{"text", "utf8"}, {"x", "utf8"}}, "long").from({{"text", "utf8"}, {"x", "int64"}}, "short");
    ASSERT_EQ(s.verdict(), "ok"); /* a join may differ: the first wins */
    s.raw().converge = true;
    EXPECT_EQ(s.verdict(), "p.yaml:5:3: s1: column \"x\" is utf8 from \"long\" but int64 from \"short\"");
}

TEST_F(Columns, UnionIsOneInputByName)
{
    kit::Spec s(&type_);
    s.from({{"id", "int64"}, {"text", "utf8"}}).from({{"text", "utf8"}, {"b", "bool"}});
    s.raw().unite = true;
    ASSERT_EQ(s.verdict(), "ok");
    ASSERT_EQ(s.step->n_inputs, 1);
    EXPECT_EQ(kit::show(s.step->inputs[0].schema), "id: int64, text: utf8, b: bool");
    EXPECT_EQ(kit::show(s.step->out), "id: int64, text: utf8, b: bool, vector: list<float32>");
    ASSERT_EQ(s.step->n_united, 2);
    const int32_t first[] = {0, 1, -1}, second[] = {-1, 0, 1};
    EXPECT_EQ(memcmp(s.step->united[0].from, first, sizeof first), 0);
    EXPECT_EQ(memcmp(s.step->united[1].from, second, sizeof second), 0);

    kit::Spec clash(&type_);
    clash.from({{"id", "int64"}}).from({{"text", "utf8"}, {"b", "bool"}}).from({{"b", "utf8"}});
    clash.raw().unite = true;
    EXPECT_EQ(clash.verdict(), "p.yaml:5:3: s1: column \"b\" is bool from input 1 but utf8 from input 2");
}

/* ---- other kinds --------------------------------------------------------------------------------------------------------- */

TEST_F(Columns, GlobalsWriteTheirColumnsOnlyAndReadEveryInput)
{
    mill_step_type t = kit::type(MILL_GLOBAL, "groups");
    t.inputs = kText;
    t.n_inputs = 1;
    t.outputs = kVector;
    t.n_outputs = 1;
    kit::Spec s(&t);
    ASSERT_EQ(s.from(doc_).from({{"text", "json"}}).verdict(), "ok");
    EXPECT_EQ(used(s.step, 0), "0.1 as text");
    EXPECT_EQ(used(s.step, 1), "1.0 as text");
    EXPECT_EQ(kit::show(s.step->out), "vector: list<float32>");
    EXPECT_EQ(s.step->n_pass, 0);

    kit::Spec lacks(&t);
    EXPECT_EQ(lacks.from(doc_, "docs").from(kLeft, "left").verdict(),
              "p.yaml:5:3: s1: step type \"groups\" reads column \"text\", which does not arrive from \"left\". There are: id, a");
}

TEST_F(Columns, SinksOfAJoinSeeTheWholeRow)
{
    mill_step_type t = kit::type(MILL_SINK, "put");
    t.configure = configure;
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        for (size_t i = 0; i < mill_io_column_count(io, 0); i++)
            EXPECT_EQ(mill_io_use(io, 0, mill_io_column_name(io, 0, i), "any", nullptr, err), MILL_OK);
        return MILL_OK;
    };
    kit::Spec s(&t);
    ASSERT_EQ(s.from(kLeft).from(kRight).verdict(), "ok");
    EXPECT_EQ(used(s.step, 0), "0.0 as id, 0.1 as a, 1.0 as text, 1.2 as b");
    EXPECT_EQ(s.step->out.n, 0);

    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_add(io, "x", utf8(), nullptr, err);
    };
    EXPECT_EQ(s.verdict(), "p.yaml:5:3: s1: step type \"put\" is a sink and cannot add column \"x\"");
}

TEST_F(Columns, RoutersPassEverythingAndKnowTheirBranches)
{
    mill_step_type t = kit::type(MILL_ROUTER, "by_length");
    t.configure = configure;
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *) {
        mill_io_pass(io, false); /* not theirs to say */
        EXPECT_EQ(mill_io_branches(io), 2u);
        EXPECT_STREQ(mill_io_branch_name(io, 1), "short");
        EXPECT_EQ(mill_io_branch_name(io, 2), nullptr);
        return MILL_OK;
    };
    kit::Spec s(&t);
    ASSERT_EQ(s.from(doc_).branch("long").branch("short").verdict(), "ok");
    EXPECT_EQ(kit::show(s.step->out), "id: int64, text: utf8, extra: json");
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) { return mill_io_drop(io, "id", err); };
    EXPECT_EQ(s.verdict(), "p.yaml:5:3: s1: step type \"by_length\" is a router and cannot drop column \"id\"");
}

TEST_F(Columns, GeneratorsWriteWhatTheyDeclare)
{
    mill_step_type t = kit::type(MILL_GENERATOR, "numbers");
    t.configure = configure;
    doing = [](mill_step *, const mill_config *c, mill_io *io, mill_error *err) {
        EXPECT_EQ(mill_io_inputs(io), 0u);
        EXPECT_EQ(mill_config_batch_rows(c), 64);
        EXPECT_EQ(mill_io_use(io, 0, "x", "any", nullptr, nullptr), MILL_ERR_INVALID);
        return mill_io_add(io, "n", int64(), nullptr, err);
    };
    kit::Spec s(&t);
    s.raw().batch_rows = 64;
    ASSERT_EQ(s.out("n", "number").verdict(), "ok");
    EXPECT_EQ(kit::show(s.step->out), "number: int64");
    doing = nullptr;
    kit::Spec none(&t);
    EXPECT_EQ(none.verdict(), "p.yaml:5:3: s1: generator \"numbers\" has no columns");
}

TEST_F(Columns, KindsStandWhereTheyCan)
{
    const mill_step_type gen = kit::type(MILL_GENERATOR, "gen"), step = kit::type(MILL_STEP, "step"),
                         router = kit::type(MILL_ROUTER, "router");
    EXPECT_EQ(kit::Spec(&gen).from(doc_).verdict(), "p.yaml:5:3: s1: step type \"gen\" is a generator and takes no input");
    EXPECT_EQ(kit::Spec(&step).verdict(), "p.yaml:5:3: s1: step type \"step\" needs an input");
    EXPECT_EQ(kit::Spec(&router).from(doc_).verdict(), "p.yaml:5:3: s1: step type \"router\" is a router and needs branches");
    EXPECT_EQ(kit::Spec(&step).from(doc_).branch("x").verdict(),
              "p.yaml:5:3: s1: step type \"step\" is no router and cannot have branches");
}

/* ---- what is wrong --------------------------------------------------------------------------------------------------------- */

TEST_F(Columns, MissingColumnNamesTheNearest)
{
    kit::Spec s(&type_);
    EXPECT_EQ(s.from({{"txt", "utf8"}, {"id", "int64"}}).verdict(),
              "p.yaml:5:3: s1: step type \"embed\" reads column \"text\", which does not arrive. Did you mean \"txt\"?");
    EXPECT_EQ(s.error.status, MILL_ERR_NOT_FOUND);
    EXPECT_STREQ(s.error.field, "text");
    kit::Spec empty(&type_);
    EXPECT_EQ(empty.from(kit::Schema()).verdict(),
              "p.yaml:5:3: s1: step type \"embed\" reads column \"text\", which does not arrive. There are none");
}

TEST_F(Columns, ManyColumnsAreCutInTheHint)
{
    std::vector<std::string> names;
    for (int i = 0; i < 100; i++) names.push_back("column_number_" + std::to_string(i));
    std::vector<mill_field> fields;
    for (const auto &n : names) fields.push_back({n.c_str(), utf8()});
    const stm_schema wide = {fields.data(), 100};
    kit::Spec s(&type_);
    s.from(doc_);
    s.raw().arriving = &wide;
    mill_error err = {};
    stm_step_spec raw = s.raw();
    raw.n_arriving = 1;
    mill_step *step = nullptr;
    EXPECT_EQ(stm_step_create(&raw, &step, &err), MILL_ERR_NOT_FOUND);
    EXPECT_EQ(std::string(err.remedy).substr(0, 40), "There are: column_number_0, column_numbe");
    EXPECT_EQ(std::string(err.remedy).substr(strlen(err.remedy) - 5), ", ...");
}

TEST_F(Columns, MappingFaultsAreFoundAtTheMapping)
{
    EXPECT_EQ(kit::Spec(&type_).from(doc_).in("text", "txet").verdict(),
              "p.yaml:30:7: s1: no column \"txet\" arrives to be read as \"text\". Did you mean \"text\"?");
    EXPECT_EQ(kit::Spec(&type_).from(doc_).in("tetx", "id").verdict(),
              "p.yaml:30:7: s1: step type \"embed\" has no input \"tetx\" to be mapped to column \"id\". Did you mean \"text\"?");
    EXPECT_EQ(kit::Spec(&type_).from(doc_).out("vector", "v").out("embedding", "e").verdict(),
              "p.yaml:41:7: s1: step type \"embed\" has no output \"embedding\" to be mapped to column \"e\". There are: vector");
    EXPECT_EQ(kit::Spec(&type_).from(doc_).in("text", "id").verdict(),
              "p.yaml:30:7: s1: column \"id\" is int64, step type \"embed\" reads utf8 or json");
    EXPECT_EQ(kit::Spec(&type_).from(doc_).out("vector", "").verdict(),
              "p.yaml:5:3: s1: output \"vector\" is mapped to a column without a name");
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_add(io, "label", utf8(), nullptr, err);
    };
    EXPECT_EQ(kit::Spec(&type_).from(doc_).out("label", "vector").verdict(),
              "p.yaml:40:7: s1: outputs \"vector\" and \"label\" are both written to column \"vector\"");
}

/* A column that a parameter names: the parameter is where the file is wrong. */
TEST_F(Columns, MissingColumnOfAParameterIsFoundThere)
{
    static const mill_param params[] = {
        {"keep", MILL_PARAM_STRINGS, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "columns"},
        {"template", MILL_PARAM_STRING, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "text with {columns}"}};
    type_.params = params;
    type_.n_params = 2;
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_use(io, 0, "titel", "any", nullptr, err);
    };
    const std::string rest = "step type \"embed\" reads column \"titel\", which does not arrive. There are: id, text, extra";
    kit::Spec whole(&type_, "{template: 'a {titel}', keep: [id, titel]}");
    EXPECT_EQ(whole.from(doc_).verdict(), "p.yaml:11:21: s1: " + rest);
    EXPECT_STREQ(whole.error.field, "keep");
    kit::Spec part(&type_, "{keep: [id], template: 'a {titel}'}");
    EXPECT_EQ(part.from(doc_).verdict(), "p.yaml:11:10: s1: " + rest);
    EXPECT_STREQ(part.error.field, "template");
}

TEST_F(Columns, FaultsOfTheStepTypeAreSaidPlainly)
{
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_add(io, "vector", utf8(), nullptr, err);
    };
    EXPECT_EQ(kit::Spec(&type_).from(doc_).verdict(),
              "p.yaml:5:3: s1: step type \"embed\" adds column \"vector\" as list<float32> and again as utf8");
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_add(io, "x", nullptr, nullptr, err);
    };
    EXPECT_EQ(kit::Spec(&type_).from(doc_).verdict(), "p.yaml:5:3: s1: step type \"embed\" adds column \"x\" without a type");
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_use(io, 0, "id", "integer", nullptr, err);
    };
    EXPECT_EQ(kit::Spec(&type_).from(doc_).create(), MILL_ERR_INVALID);
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        return mill_io_use(io, 3, "id", "any", nullptr, err);
    };
    EXPECT_EQ(kit::Spec(&type_).from(doc_).verdict(),
              "p.yaml:5:3: s1: step type \"embed\" reads column \"id\" of input 3, but has 1 inputs");
}

/* ---- configure and state ----------------------------------------------------------------------------------------------------- */

TEST_F(Columns, ConfigureMayFailWithoutAWord)
{
    doing = [](mill_step *, const mill_config *, mill_io *, mill_error *) { return mill_status(MILL_ERR_IO); };
    EXPECT_EQ(kit::Spec(&type_).from(doc_).verdict(),
              std::string("p.yaml:5:3: s1: step type \"embed\" cannot be configured: ") + mill_status_text(MILL_ERR_IO));
    doing = [](mill_step *, const mill_config *, mill_io *, mill_error *) { return mill_status(7); }; /* no such status */
    kit::Spec s(&type_);
    s.from(doc_);
    EXPECT_EQ(s.create(), MILL_ERR_STEP);
}

TEST_F(Columns, StateIsDestroyedOnce)
{
    static int destroyed;
    static mill_status result;
    doing = [](mill_step *s, const mill_config *, mill_io *, mill_error *err) {
        mill_step_set_state(s, &destroyed, [](void *p) { ++*static_cast<int *>(p); });
        EXPECT_EQ(mill_step_state(s), &destroyed);
        return result == MILL_OK ? MILL_OK : mill_fail(err, result, "after the state was set");
    };
    for (mill_status st : {mill_status(MILL_OK), mill_status(MILL_ERR_STEP)}) {
        destroyed = 0;
        result = st;
        {
            kit::Spec s(&type_);
            EXPECT_EQ(s.from(doc_).create(), st);
            EXPECT_EQ(destroyed, st == MILL_OK ? 0 : 1);
        }
        EXPECT_EQ(destroyed, 1);
    }
    /* a mistake after configure destroys it, too */
    destroyed = 0;
    result = MILL_OK;
    EXPECT_NE(kit::Spec(&type_).from(doc_).out("nope", "x").create(), MILL_OK);
    EXPECT_EQ(destroyed, 1);
}

TEST_F(Columns, SeedDependsOnRunAndStep)
{
    kit::Spec a(&type_), b(&type_), c(&type_), d(&type_);
    b.raw().run_seed = 1;
    c.raw().name = "s2";
    for (kit::Spec *s : {&a, &b, &c, &d}) ASSERT_EQ(s->from(doc_).create(), MILL_OK);
    EXPECT_NE(a.step->seed, b.step->seed);
    EXPECT_NE(a.step->seed, c.step->seed);
    EXPECT_EQ(a.step->seed, d.step->seed);
}

TEST_F(Columns, PolicyDefaultsFollowTheFlags)
{
    EXPECT_EQ(stm_policy_default(&type_).on_error, STM_ON_ERROR_IMPUTE);
    type_.flags = MILL_PER_ROW;
    const stm_policy p = stm_policy_default(&type_);
    EXPECT_EQ(p.on_error, STM_ON_ERROR_ISOLATE);
    EXPECT_EQ(p.load_timeout_s, 600);
    EXPECT_LT(p.batch_timeout_s, 0);
    EXPECT_EQ(p.replicas, 1);
}

TEST_F(Columns, EveryAllocationMayFail)
{
    static const mill_column_decl in[] = {{"text", "utf8", ""}, {"id", "any", ""}};
    static const mill_column_decl out[] = {{"vector", "any", ""}, {"n", "int64", ""}};
    type_.inputs = in, type_.n_inputs = 2;
    type_.outputs = out, type_.n_outputs = 2;
    doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
        mill_status st = mill_io_use(io, 1, "b", "any", nullptr, err);
        if (st == MILL_OK) st = mill_io_add(io, "vector", utf8(), nullptr, err);
        return st == MILL_OK ? mill_io_drop(io, "a", err) : st;
    };
    for (int mode = 0; mode < 3; mode++) { /* join, convergence, union */
        for (int nth = 0;; nth++) {
            ASSERT_LT(nth, 1000);
            kit::Spec s(&type_);
            s.from(kLeft).in("id", "id").out("vector", "b");
            s.from({{"text", "utf8"}, {"a", "utf8"}, {"b", "bool"}});
            s.raw().converge = mode == 1;
            s.raw().unite = mode == 2;
            if (mode == 2) {
                doing = [](mill_step *, const mill_config *, mill_io *io, mill_error *err) {
                    return mill_io_add(io, "vector", utf8(), nullptr, err);
                };
            }
            const long before = mt::live();
            mt::FailNth fail(nth);
            const mill_status st = s.create();
            const bool fired = fail.fired();
            EXPECT_EQ(st, fired ? MILL_ERR_NOMEM : MILL_OK) << mode << "/" << nth << ": " << kit::show(s.error);
            if (fired) {
                EXPECT_EQ(mt::live(), before) << "leak when allocation " << nth << " fails";
                continue;
            }
            EXPECT_GT(nth, 20);
            break;
        }
    }
}

} // namespace
