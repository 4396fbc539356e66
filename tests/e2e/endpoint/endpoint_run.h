/* What the tests of the endpoint steps share: whole runs of a pipeline in a folder of their own, and that the key is nowhere in
 * what they leave. */
#ifndef STM_TESTS_ENDPOINT_RUN_H
#define STM_TESTS_ENDPOINT_RUN_H

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "stepmill/run.h"
#include "support/temp_dir.h"

namespace mt {

constexpr char kKey[] = "sk-test-0123456789abcdef";

inline std::string slurp(const std::filesystem::path &p)
{
    std::ifstream in(p);
    std::ostringstream s;
    s << in.rdbuf();
    return s.str();
}

struct EndpointResult {
    mill_run_state state;
    std::string out; /* of the sink `out` */
    std::vector<mill_run_error> errors;
    std::vector<std::string> keys; /* of errors' first rows */
    mill_error error;
};

/** The folder holds rows.jsonl, p.yaml and the run directory `run`. MODULES: where libstepmill-http.so is. */
class EndpointRun : public testing::Test {
protected:
    void SetUp() override
    {
        setenv("STEPMILL_MODULES", MODULES, 1);
        setenv("STEPMILL_TEST_KEY", kKey, 1);
        for (const char *p : {"http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"}) unsetenv(p);
    }
    /* Not in outputs, journal, notes or anything else that runs wrote. */
    void TearDown() override { no_key_in_files(); }
    void no_key_in_files() const
    {
        for (const auto &e : std::filesystem::recursive_directory_iterator(dir_))
            if (e.is_regular_file() && e.path().filename() != "key") {
                EXPECT_EQ(slurp(e.path()).find(kKey), std::string::npos) << e.path();
            }
    }

    void rows(int n, const std::string &text = "row ")
    {
        std::ofstream f(dir_ / "rows.jsonl", std::ios::trunc);
        for (int i = 0; i < n; i++) f << "{\"id\":" << i << ",\"q\":\"" << text << i << "\"}\n";
    }

    /* A run that does not end within @p limit_s fails the test; stopped after @p stop_after_s where that is not negative. */
    EndpointResult run_yaml(const std::string &yaml, bool fresh, double limit_s, double stop_after_s = -1)
    {
        EndpointResult r = {};
        mill_pipeline *p = nullptr;
        mill_run *run = nullptr;
        mill_run_options options = MILL_RUN_OPTIONS_INIT;
        const std::string to = (dir_ / "run").string();
        std::ofstream(dir_ / "p.yaml", std::ios::trunc) << yaml;
        options.dir = to.c_str();
        options.threads = 2;
        options.fresh = fresh;
        mill_status st = mill_pipeline_open((dir_ / "p.yaml").c_str(), &p, &r.error);
        if (st == MILL_OK) st = mill_run_start(p, &options, &run, &r.error);
        r.state = MILL_RUN_FAILED;
        if (st == MILL_OK) {
            if (stop_after_s >= 0) {
                usleep(static_cast<useconds_t>(stop_after_s * 1e6));
                mill_run_stop(run, false);
            }
            r.state = mill_run_wait(run, limit_s, &r.error);
            EXPECT_NE(r.state, MILL_RUN_RUNNING);
            mill_error ignored = {};
            mill_run_finish(run, &ignored);
            for (int64_t i = 0;; i++) {
                mill_run_error e = {};
                e.struct_size = sizeof e;
                if (!mill_run_get_error(run, i, &e)) break;
                r.keys.push_back(e.first_key);
                r.errors.push_back(e);
            }
        }
        mill_run_destroy(&run);
        mill_pipeline_destroy(&p);
        r.out = slurp(dir_ / "run" / "out.jsonl");
        return r;
    }
    mt::TempDir temp_{true};
    std::filesystem::path dir_{temp_.path()};
};

} // namespace mt

#endif
