/* Pipelines of real step types with parameters as a pipeline file would give them: made, run, and looked at. */
#pragma once
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

extern "C" {
#include "exec/run.h"
#include "wrapper/wrapper.h"
}
#include "support/temp_dir.h"

namespace mt {

/** A parameter's value: a scalar, a list, or a map. */
struct Value {
    std::string text;
    std::vector<std::pair<std::string, std::string>> items; /* key "" in lists */
    enum { kScalar, kList, kMap } kind = kScalar;

    Value(const char *t) : text(t) {}
    Value(const std::string &t) : text(t) {}
    static Value list(const std::vector<std::string> &v)
    {
        Value x("");
        x.kind = kList;
        for (const std::string &s : v) x.items.emplace_back("", s);
        return x;
    }
    static Value map(const std::vector<std::pair<std::string, std::string>> &v)
    {
        Value x("");
        x.kind = kMap;
        x.items = v;
        return x;
    }
};

using Params = std::vector<std::pair<std::string, Value>>;

class Chain {
public:
    /** Step types beyond the built-in ones come from @p plugins. */
    explicit Chain(const std::vector<std::string> &plugins = {});
    ~Chain();
    Chain(const Chain &) = delete;

    struct Opts {
        std::string from; /* "" = the step added before */
        int32_t branch = 0;
        int64_t batch_rows = 0; /* generators: 0 = 64 */
        int32_t replicas = 1;
        int32_t gpus = 0;
        bool errors = false; /* sinks: `errors: true` */
        double batch_timeout_s = -1;
        stm_on_error on_error = STM_ON_ERROR_IMPUTE;
        bool on_error_set = false;
        mill_numerics numerics = MILL_NUMERICS_INVARIANT;
        std::vector<std::string> branches;
    };
    /** Add a step; the first error is kept in `error` and makes the run fail. */
    Chain &add(const std::string &name, const std::string &type, const Params &params, const Opts &o);
    Chain &add(const std::string &name, const std::string &type, const Params &params) { return add(name, type, params, Opts()); }

    stm_run_end run(double timeout_s = 30.0, int32_t threads = 2, bool dry_run = false);
    /** Output schema of a step: "a int64, b utf8". */
    std::string columns(const std::string &step) const;
    stm_step_stats stats(const std::string &step) const { return stats_.at(step); }
    /** A place to go on from and how many bytes of rows (as JSON lines) lie before it. */
    struct Mark {
        mill_cursor cursor;
        size_t bytes;
    };
    /** Rows of generator @p step from @p from (NULL = the beginning) to its end as JSON lines, without a run; *marks
     *  gets every cursor on the way. */
    std::string generate(const std::string &step, int64_t max_rows, const mill_cursor *from = nullptr,
                         std::vector<Mark> *marks = nullptr);
    /** A loaded replica of @p step, without a run. */
    void with_replica(const std::string &step, const std::function<void(stm_wrapper *)> &use);
    void release(); /* the run or plan; also done by the destructor */

    std::string dir = "/tmp"; /* where relative paths start, and the run directory */
    mill_error error = {};
    std::vector<stm_error_record> errors;

private:
    stm_registry *registry_ = nullptr;
    stm_plan *plan_ = nullptr;
    std::map<std::string, int> index_;
    std::map<std::string, stm_step_stats> stats_;
    std::mutex lock_;
    static void keep(const stm_error_record *rec, void *user);
};

/** A folder that goes with the object, and its files. */
class Folder {
    TempDir dir_;

public:
    std::string put(const std::string &name, const std::string &bytes) const;
    std::string get(const std::string &name) const; /* "<none>" where there is no such file */
    const std::string path{dir_.path()};
};

} // namespace mt
