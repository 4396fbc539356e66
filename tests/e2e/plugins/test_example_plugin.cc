/* Runs the example plugin's pipeline through the public interface. */
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "stepmill/run.h"
#include "support/temp_dir.h"

namespace fs = std::filesystem;

namespace {

std::string slurp(const fs::path &p)
{
    std::ifstream in(p);
    EXPECT_TRUE(in) << p;
    std::ostringstream s;
    s << in.rdbuf();
    return s.str();
}

class ExamplePlugin : public testing::Test {
protected:
    void SetUp() override
    {
        for (const char *f : {"sentences.yaml", "docs.jsonl"}) fs::copy_file(fs::path(EXAMPLES) / f, dir_ / f);
        fs::copy_file(PLUGIN, dir_ / "text_tools.so");
    }
    void TearDown() override { mill_pipeline_destroy(&pipeline_); }
    void open()
    {
        mill_error err = {};
        ASSERT_EQ(mill_pipeline_open((dir_ / "sentences.yaml").c_str(), &pipeline_, &err), MILL_OK) << err.msg;
    }
    void set(const char *key, const char *value)
    {
        mill_error err = {};
        ASSERT_EQ(mill_pipeline_set(pipeline_, key, value, &err), MILL_OK) << err.msg;
    }
    void run(int threads)
    {
        mill_run_options options = MILL_RUN_OPTIONS_INIT;
        const std::string to = (dir_ / "run").string();
        mill_error err = {};
        mill_run *run = nullptr;
        fs::remove_all(to);
        options.dir = to.c_str();
        options.threads = threads;
        ASSERT_EQ(mill_run_start(pipeline_, &options, &run, &err), MILL_OK) << err.msg;
        EXPECT_EQ(mill_run_wait(run, 60, &err), MILL_RUN_DONE) << err.msg;
        EXPECT_EQ(mill_run_finish(run, &err), MILL_OK) << err.msg;
        EXPECT_EQ(mill_run_exit_code(run), MILL_EXIT_OK);
        mill_run_destroy(&run);
    }
    mt::TempDir temp_;
    fs::path dir_{temp_.path()};
    mill_pipeline *pipeline_ = nullptr;
};

/* clang-format off */
const char kSentences[] =
    R"({"id":1,"text":"A mill grinds. It takes grain in, and gives flour out!","sentence":"A mill grinds.","words":2}
{"id":1,"text":"A mill grinds. It takes grain in, and gives flour out!","sentence":"It takes grain in, and gives flour out!","words":7}
{"id":2,"text":"","sentence":"","words":0}
{"id":3,"text":null,"sentence":null,"words":null}
{"id":4,"text":"One sentence without an end","sentence":"One sentence without an end","words":4}
{"id":5,"text":"Café au lait? Sí.","sentence":"Café au lait?","words":2}
{"id":5,"text":"Café au lait? Sí.","sentence":"Sí.","words":1}
)";
/* clang-format on */
const char kLongest[] = R"({"text":"It takes grain in, and gives flour out!","bytes":39}
{"text":"One sentence without an end","bytes":27}
)";

TEST_F(ExamplePlugin, GivesTheSameInAnyBatchSizeReplicaAndThreadCount)
{
    for (const char *rows : {"1", "2", "64"})
        for (const char *replicas : {"1", "3"})
            for (int threads : {1, 3}) {
                SCOPED_TRACE(std::string("batches of ") + rows + ", " + replicas + " replicas, " + std::to_string(threads) +
                             " threads");
                open();
                set("docs.batch_size", rows);
                set("counted.input_batch_size", rows);
                set("counted.replicas", replicas);
                set("sentences.replicas", replicas);
                run(threads);
                EXPECT_EQ(slurp(dir_ / "run" / "sentences.jsonl"), kSentences);
                EXPECT_EQ(slurp(dir_ / "run" / "longest.jsonl"), kLongest);
                mill_pipeline_destroy(&pipeline_);
            }
}

TEST_F(ExamplePlugin, NoRowsAtAll)
{
    std::ofstream(dir_ / "docs.jsonl", std::ios::trunc).close();
    open();
    run(2);
    EXPECT_EQ(slurp(dir_ / "run" / "sentences.jsonl"), "");
    EXPECT_EQ(slurp(dir_ / "run" / "longest.jsonl"), "");
}

TEST_F(ExamplePlugin, ParametersAreChecked)
{
    mill_error err = {};
    open();
    set("counted.min_letters", "0");
    EXPECT_EQ(mill_pipeline_check(pipeline_, &err), MILL_ERR_TYPE);
    EXPECT_STREQ(err.msg, "parameter \"min_letters\" is 0, expected an integer from 1 to 1000");
    EXPECT_STREQ(err.step, "counted");
    EXPECT_EQ(err.phase, MILL_PHASE_CHECK);
}

TEST_F(ExamplePlugin, KeepsTheContract)
{
    char *report = nullptr;
    mill_error err = {};
    EXPECT_EQ(mill_plugin_check((dir_ / "text_tools.so").c_str(), MILL_FORMAT_TEXT, &report, &err), MILL_OK) << err.msg;
    ASSERT_NE(report, nullptr);
    for (const char *type : {"count_words", "split_sentences", "longest_rows"})
        EXPECT_NE(std::string(report).find(type), std::string::npos) << report;
    mill_text_free(&report);
}

} // namespace
