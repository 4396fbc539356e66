/* Small runs that last, made through the public interface, and what a user gets of one. */
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>

#include "calls.h"
#include "stepmill/run.h"

namespace mt {

namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;

inline std::string contents(const fs::path &path)
{
    std::ifstream f(path, std::ios::binary);
    std::stringstream text;
    text << f.rdbuf();
    return text.str();
}

/** Everything but what the run keeps for itself: files whose names begin with "out". */
inline Files outputs(const fs::path &dir)
{
    Files files;
    std::error_code ec;
    for (const auto &e : fs::recursive_directory_iterator(dir, ec)) {
        const std::string name = fs::relative(e.path(), dir).string();
        if (!e.is_regular_file() || name.find("out") != name.find_last_of('/') + 1 || name.find(".tmp") != std::string::npos)
            continue;
        files[name] = contents(e.path());
    }
    return files;
}

struct End {
    mill_status start = MILL_OK;
    mill_run_state state = MILL_RUN_RUNNING;
    int code = 0;
    int64_t rows_in = 0;
    bool fired = false;
    std::string message;
};

/** A run of @p pipeline, whose files are in @p base, in the directory @p run there. @p arm is called when the pipeline has been
 *  read: the library that reads YAML falls when memory runs out; from there on it is ours. */
inline End run_once(const char *pipeline, const fs::path &base, const std::string &run, const std::function<void()> &arm = nullptr)
{
    End end;
    mill_error err = {};
    mill_pipeline *p = nullptr;
    mill_run *r = nullptr;
    const std::string dir = (base / run).string();
    mill_run_options o = MILL_RUN_OPTIONS_INIT;
    o.dir = dir.c_str();
    o.threads = 1;
    end.start = mill_pipeline_parse(pipeline, strlen(pipeline), "small.yaml", base.c_str(), &p, &err);
    if (arm) arm();
    if (end.start == MILL_OK) end.start = mill_run_start(p, &o, &r, &err);
    if (r != nullptr) {
        mill_run_totals totals = {};
        end.state = mill_run_wait(r, 30.0, &err);
        if (end.state == MILL_RUN_RUNNING) {
            fprintf(stderr, "the run does not end\n");
            abort();
        }
        mill_error late = {};
        const mill_status st = mill_run_finish(r, &late);
        end.code = mill_run_exit_code(r);
        totals.struct_size = sizeof totals;
        mill_run_get_totals(r, &totals);
        end.rows_in = totals.rows_in;
        if (st != MILL_OK && end.state == MILL_RUN_DONE) {
            end.start = st;
            err = late;
        }
    }
    mill_run_destroy(&r);
    mill_pipeline_destroy(&p);
    end.fired = calls_work_again();
    end.message = err.msg;
    return end;
}

} // namespace mt
