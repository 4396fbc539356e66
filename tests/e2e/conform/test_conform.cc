/* Right step types pass the conformance kit, wrong ones are found for what is wrong with them, and neither takes the caller
 * down. */
#include <gtest/gtest.h>

#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "stepmill/pipeline.h"
#include "support/sanitized.h"
#include "support/temp_dir.h"

namespace fs = std::filesystem;

namespace {

struct Result {
    mill_status status;
    mill_verdict verdict = MILL_VERDICT_RIGHT;
    std::string report, error;
};

Result conform(const char *plugin, const char *only, const std::vector<const char *> &set = {},
               const std::vector<const char *> &columns = {}, double timeout_s = 20, mill_format format = MILL_FORMAT_TEXT)
{
    mill_plugin_check_options o = MILL_PLUGIN_CHECK_OPTIONS_INIT;
    mill_error err = {};
    char *text = nullptr;
    Result r;

    o.only = only;
    o.set = set.data();
    o.n_set = set.size();
    o.columns = columns.data();
    o.n_columns = columns.size();
    o.timeout_s = timeout_s;
    r.status = mill_plugin_conform(plugin, &o, format, &text, &r.verdict, &err);
    r.report = text != nullptr ? text : "";
    r.error = err.msg;
    mill_text_free(&text);
    return r;
}

/* Lines of the report with findings: "check: text". */
std::vector<std::string> findings(const std::string &report)
{
    std::vector<std::string> all;
    std::istringstream in(report);
    std::string line, check;

    while (std::getline(in, line)) {
        if (line.size() < 30 || line[0] != ' ') continue;
        if (line.compare(2, 5, "WRONG") == 0)
            check = line.substr(11, line.find_last_not_of(' ', 28) - 10);
        else if (line[2] != ' ')
            continue;
        all.push_back(check + ": " + line.substr(30));
    }
    return all;
}

/* Under a sanitizer each third of the tables: every check of a type is a process there that forks. */
constexpr size_t kEach = 3;

/* ---- what is right ------------------------------------------------------------------------------------------------------ */

struct Right {
    const char *plugin, *type;
    std::vector<const char *> set, columns;
};
const Right kRight[] = {
    {nullptr, "template", {"template.template={id}: {text}"}, {}},
    {nullptr, "filter", {"filter.where=id > 20"}, {}},
    {nullptr, "select", {"select.drop=[text]", "select.rename={id: number_of_row}"}, {}},
    {nullptr, "explode", {"explode.column=items"}, {}},
    {nullptr, "limit", {"limit.rows=30", "limit.skip=5"}, {}},
    {nullptr, "route_by", {"route_by.when={a: \"id > 3\", b: \"id <= 3\"}", "route_by.mixed=most", "route_by.to=[a, b]"}, {}},
    {nullptr, "round_robin", {}, {}},
    {nullptr, "deduplicate", {}, {"embedding=fixed_list<float32>[8]"}},
    {nullptr, "minhash_text", {"minhash_text.shingle=3"}, {}},
    {nullptr, "nearest_neighbours", {}, {"embedding=fixed_list<float32>[8]"}},
    {nullptr, "write_arrow", {"write_arrow.part_rows=23", "write_arrow.batch_rows=7"}, {}},
    {nullptr, "read_arrow", {"read_arrow.path=" ARROW_FILE}, {}},
    {nullptr, "write_jsonl", {}, {}},
    {nullptr, "command", {"command.argv=[cat]"}, {}},
    {nullptr, "command_rows", {"command_rows.argv=[cat]"}, {}},
    {TEXT_TOOLS, nullptr, {"longest_rows.k=3"}, {}},
    {WRONG, "right", {}, {}},
    {WRONG, "adds_inputs", {}, {}},
    {WRONG, "needs", {"needs.much=3", "needs.word={word}"}, {}},
    {WRONG, "counts_said", {}, {}},
    {WRONG, "good_generator", {}, {}},
    {WRONG, "for_ever", {}, {}},
    {WRONG, "good_global", {}, {}},
    {WRONG, "good_sink", {}, {}},
    {WRONG, "good_submit", {}, {}},
};

TEST(Conform, WhatIsRightPasses)
{
    for (const Right &t : mt::rows_of(kRight, kEach)) {
        SCOPED_TRACE(t.type != nullptr ? t.type : t.plugin);
        const Result r = conform(t.plugin, t.type, t.set, t.columns);
        ASSERT_EQ(r.status, MILL_OK) << r.error;
        EXPECT_EQ(r.verdict, MILL_VERDICT_RIGHT) << r.report;
        EXPECT_NE(r.report.find(": 0 wrong, 0 not run\n"), std::string::npos) << r.report;
        EXPECT_NE(r.report.find("  right    load "), std::string::npos) << r.report; /* it did run */
    }
}

TEST(Conform, AReaderOfFilesPasses)
{
    const mt::TempDir dir;
    const std::string path = dir.path() + "/rows.jsonl", set = "read_jsonl.path=" + path;
    {
        std::ofstream out(path);
        for (int i = 0; i < 40; i++)
            out << (i == 17 ? "not JSON" : "{\"id\": " + std::to_string(i) + ", \"text\": \"row\"}") << "\n";
    }
    const Result r = conform(nullptr, "read_jsonl", {set.c_str()});
    EXPECT_EQ(r.status, MILL_OK) << r.error;
    EXPECT_EQ(r.verdict, MILL_VERDICT_RIGHT) << r.report;
    EXPECT_NE(r.report.find("the same 40 rows"), std::string::npos) << r.report;
}

/* ---- what is wrong -------------------------------------------------------------------------------------------------------- */

struct Wrong {
    const char *type;
    const char *check; /* one of the checks that must find it ... */
    const char *text;  /* ... with these words */
};
const Wrong kWrong[] = {
    {"writes_input", "batches", "wrote to its input (column \"id\"); inputs are immutable, in process on a batch of 64 rows"},
    {"neighbours", "row by row", "in batches of 1 row; with MILL_PER_ROW a row's result must not depend on its neighbours"},
    {"counts", "repeat", "declares MILL_NONDETERMINISTIC"},
    {"thread_bound", "runs", "in a run; calls come from several threads, not the one that loaded"},
    {"last_input", "joins", "behind a join, with 1 replica and batches of 16 rows; input 0 of a join shows the joined row"},
    {"fewer_rows", "batches", "process emitted 63 rows for 64"},
    {"other_type", "batches", "column 'n' is float64; int64 was declared"},
    {"absent_crash", "absent columns",
     "crashed with signal 11 (Segmentation fault) in process on a batch of 5 rows whose columns are all absent"},
    {"null_crash", "batches", "crashed with signal 11 (Segmentation fault) in process on a batch of 64 rows"},
    {"hangs", "batches", "did not come back within 1 s: process on a batch of 3 rows"},
    {"exits", "batches", "ended the process (exit code 9) in process on a batch of 1 row"},
    {"keeps_pointer", "batches", "used memory of input column \"id\" after the input was released"},
    {"keeps_column", "batches", "were not released by unload, after batches; columns of the input among them"},
    {"ignores_offset", "row by row", "with MILL_PER_ROW a row's result must not depend"},
    {"reads_past_end", "batches", "went past the end of input column \"id\", in process on a batch of 64 rows"},
    {"emit_leaks", "emit that fails", "were not released by unload, after an emit fails"},
    {"emit_ignored", "emit that fails",
     "process returns success although an emit fails: process returned without emitting anything"},
    {"shares", "replicas", "replicas must not share what they change"},
    {"forgets", "load", "were not released by unload, after a load and no work"},
    {"sink_restart", "restart", "the files differ when it is opened again at the cursor that sync gave after 20 rows"},
    {"half_load", "load that fails", "crashed with signal 11 (Segmentation fault) in load with memory running out"},
    {"silent", "configure", "configure fails without saying why when column \"number\" does not arrive"},
    {"forgetful", "configure", "configure gives other columns the second time"},
    {"bad_text", "batches", "output column \"t\" is malformed: "},
    {"no_cursor", "restart", "a replica that gets a cursor goes on exactly there"},
    {"too_many", "rows", "emitted 65 rows; at most 64 were asked for"},
    {"global_batches", "rows", "a global's output does not depend on how its rows were cut into batches"},
    {"global_no_rows", "no rows", "crashed with signal 6 (Aborted) in finish after 0 rows"},
    {"sink_no_rows", "no rows", "finalize fails after 0 rows: there is nothing to finish"},
    {"sink_batches", "rows", "depend on how rows are cut into batches; declare MILL_BATCH_SENSITIVE"},
    {"route_none", "routes", "route of a batch of 3 rows names no branch"},
    {"route_third", "routes", "router chose branch 2; there are 2"},
    {"poll_loses", "tickets", "were not answered within"},
};

TEST(Conform, WhatIsWrongIsFound)
{
    for (Wrong t : mt::rows_of(kWrong, kEach)) {
        SCOPED_TRACE(t.type);
        const Result r = conform(WRONG, t.type, {}, {}, strcmp(t.type, "hangs") == 0 || strcmp(t.type, "poll_loses") == 0 ? 1 : 20);
        ASSERT_EQ(r.status, MILL_OK) << r.error;
        EXPECT_EQ(r.verdict, MILL_VERDICT_WRONG);
        bool found = false;
        /* a sanitizer's report ends the process where a plain build crashes, and gives leaks an exit code of their own */
        if (mt::kSanitized && (strncmp(t.text, "crashed with", 12) == 0 || strncmp(t.text, "ended the", 9) == 0))
            t.text = strstr(t.text, ") in ");
        for (const std::string &f : findings(r.report))
            found = found ||
                    (f.compare(0, strlen(t.check) + 2, std::string(t.check) + ": ") == 0 && f.find(t.text) != std::string::npos);
        EXPECT_TRUE(found) << r.report;
    }
}

/* The engine calls with rows or not at all, so a step that cannot do without is right. */
TEST(Conform, NoStepIsShownABatchOfNoRows)
{
    const Result r = conform(WRONG, "empty_crash");
    EXPECT_EQ(r.verdict, MILL_VERDICT_RIGHT) << r.report;
}

/* A defect that one check is for must not make the others cry: each of these is wrong in one place only. */
TEST(Conform, WhatIsWrongInOnePlaceIsSaidOnce)
{
    for (const char *type : {"thread_bound", "last_input", "absent_crash", "emit_ignored", "no_cursor", "sink_restart",
                             "sink_no_rows", "global_batches", "half_load", "silent"}) {
        SCOPED_TRACE(type);
        const Result r = conform(WRONG, type);
        EXPECT_NE(r.report.find(" checks: 1 wrong, 0 not run\n"), std::string::npos) << r.report;
    }
}

/* ---- what cannot be run -------------------------------------------------------------------------------------------------- */

TEST(Conform, WhatNeedsValuesIsNamed)
{
    const Result r = conform(WRONG, "needs", {"needs.much=1"});
    EXPECT_EQ(r.status, MILL_OK) << r.error;
    EXPECT_EQ(r.verdict, MILL_VERDICT_NOT_RUN) << r.report;
    EXPECT_NE(r.report.find("needs values: give --set needs.word=..."), std::string::npos) << r.report;
    EXPECT_EQ(r.report.find("needs.much"), std::string::npos) << r.report;

    const Result out_of_range = conform(WRONG, "needs", {"needs.much=10", "needs.word=w"});
    EXPECT_EQ(out_of_range.verdict, MILL_VERDICT_NOT_RUN);
    EXPECT_NE(out_of_range.report.find("parameter \"much\" is 10, expected an integer from 0 to 9"),
              std::string::npos) << out_of_range.report;
}

TEST(Conform, OptionsThatMeanNothingAreRefused)
{
    const struct { std::vector<const char *> set; const char *only, *text; } cases[] = {
        {{"neds.much=1"}, nullptr, "no step type \"neds\" is checked here"},
        {{"needs"}, nullptr, "expected TYPE.PARAMETER=VALUE, got \"needs\""},
        {{}, "nobody", "no step type \"nobody\" is checked here"},
    };
    for (auto &c : cases) {
        const Result r = conform(WRONG, c.only, c.set);
        EXPECT_NE(r.status, MILL_OK);
        EXPECT_NE(r.error.find(c.text), std::string::npos) << r.error;
    }
    const Result unknown = conform(WRONG, "right", {"right.colour=red"});
    EXPECT_NE(unknown.report.find("has no parameter \"colour\""), std::string::npos) << unknown.report;
}

TEST(Conform, APluginThatCrashesWhenOpenedIsAnError)
{
    const Result r = conform(OPENING, nullptr);
    EXPECT_EQ(r.status, MILL_ERR_STEP);
    EXPECT_NE(r.error.find("opening it crashed with signal 6 (Aborted)"), std::string::npos) << r.error;
    EXPECT_NE(conform("/dev/null", nullptr).status, MILL_OK);
}

TEST(Conform, TheReportAsJson)
{
    const Result r = conform(WRONG, "fewer_rows", {}, {}, 20, MILL_FORMAT_JSON);
    EXPECT_NE(r.report.find("{\"type\":\"fewer_rows\",\"kind\":\"step\",\"checks\":[{\"check\":\"configure\",\"verdict\":\"right\","
                            "\"findings\":[],"),
              std::string::npos)
        << r.report;
    EXPECT_NE(r.report.find("{\"check\":\"batches\",\"verdict\":\"wrong\",\"findings\":[\"process on a batch of 64 rows: process "
                            "emitted 63 rows for 64\""),
              std::string::npos)
        << r.report;
    EXPECT_NE(r.report.find("\"valid\":false,\"checks\":"), std::string::npos) << r.report;
}

TEST(Conform, NothingIsLeftBehind)
{
    const mt::TempDir dir;
    const char *old = getenv("TMPDIR");
    const std::string before = old != nullptr ? old : "";
    setenv("TMPDIR", dir.path().c_str(), 1);
    conform(WRONG, "sink_batches");
    conform(WRONG, "null_crash");
    if (old != nullptr) setenv("TMPDIR", before.c_str(), 1);
    else unsetenv("TMPDIR");
    EXPECT_TRUE(fs::is_empty(dir.path()));
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
}

} // namespace
