/* Builds small pipelines of steps whose behaviour is written in the test, runs them, and collects what comes out. */
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

extern "C" {
#include "exec/run.h"
}

namespace mt {

/** What a step of a test does. Unset parts have a plain default: pass on, count, succeed. */
struct Behaviour {
    uint64_t flags = 0;
    std::vector<std::pair<std::string, std::string>> uses; /* inputs: name, type (first input; joins: looked up in order) */
    std::vector<std::pair<std::string, std::string>> adds; /* outputs: name, type */
    std::function<mill_status(mill_replica *, mill_error *)> load;
    std::function<void(mill_replica *)> unload;
    std::function<mill_status(mill_replica *, int64_t max, mill_cursor *, bool *last, mill_emit *, mill_error *)> generate;
    std::function<mill_status(mill_replica *, mill_batch *const *in, size_t n, mill_emit *, mill_error *)> process;
    std::function<mill_status(mill_replica *, size_t input, const mill_batch *in, mill_error *)> accept;
    std::function<mill_status(mill_replica *, mill_emit *, mill_error *)> finish;
    std::function<mill_status(mill_replica *, const mill_cursor *, mill_error *)> open;
    std::function<mill_status(mill_replica *, const mill_batch *in, mill_error *)> write;
    std::function<mill_status(mill_replica *, mill_cursor *, mill_error *)> sync;
    std::function<mill_status(mill_replica *, mill_error *)> finalize;
    std::function<mill_status(mill_replica *, const mill_batch *in, mill_route *, mill_error *)> route;
    std::function<mill_status(mill_replica *, uint64_t ticket, mill_batch *const *in, size_t n, mill_error *)> submit;
    std::function<mill_status(mill_replica *, mill_results *, mill_error *)> poll;
    std::function<void(mill_replica *, uint64_t ticket)> cancel;
    std::function<mill_status(mill_replica *, mill_error *)> flush;
    std::function<mill_status(size_t input, const mill_batch *in, int64_t *tokens, mill_error *)> cost;
};

/** A row as a sink saw it: key text and the values of its int64 columns (INT64_MIN = null), by name. */
struct Row {
    std::string key;
    std::map<std::string, int64_t> values;
    int64_t error = 0; /* identity of its error record */
};

class Pipe {
public:
    Pipe();
    ~Pipe();
    Pipe(const Pipe &) = delete;

    struct From {
        std::string step;
        int32_t branch = 0;
    };
    struct Opts {
        stm_input_mode mode = STM_INPUT_SINGLE;
        stm_on_missing on_missing = STM_MISSING_ERROR;
        stm_on_uneven on_uneven = STM_UNEVEN_ERROR;
        int64_t batch_rows = 0, budget_tokens = 0, budget_bytes = 0;
        int32_t replicas = 1, stage = 0;
        std::vector<std::string> branches;
        std::function<void(stm_policy *)> policy;
        std::map<std::string, std::string> map_in, map_out;
    };
    /** Add a step of @p kind; a generator's batch_rows is its batch size. Returns its index. */
    int add(const std::string &name, int32_t kind, const std::vector<From> &from, const Behaviour &b, const Opts &o);
    int add(const std::string &name, int32_t kind, const std::vector<From> &from, const Behaviour &b)
    {
        return add(name, kind, from, b, Opts());
    }
    /** Add a step of a real type with parameters: one text each, or several for a list. */
    typedef std::vector<std::pair<std::string, std::vector<std::string>>> Params;
    int add_type(const std::string &name, const mill_step_type *type, const std::vector<From> &from, const Params &params,
                 const Opts &o);
    /** Generator of rows 0 .. rows-1 with column `x` = row number. */
    int source(const std::string &name, int64_t rows, int64_t batch_rows, const std::string &column = "x");
    /** A sink that keeps what it gets under its name. */
    int sink(const std::string &name, const std::string &from, Opts o, int32_t branch = 0);
    int sink(const std::string &name, const std::string &from) { return sink(name, from, Opts()); }

    /** Start, wait (at most @p timeout_s, then fails the test), collect. */
    stm_run_end run(double timeout_s = 30.0, int32_t threads = 0);
    mill_status start(int32_t threads = 0, bool dry_run = false, int64_t limit = 0);
    stm_run_end wait(double timeout_s);
    stm_run *handle() { return run_; }
    const std::vector<Row> &rows(const std::string &sink) { return sinks_[sink]; }
    bool finalized(const std::string &sink) { return finalized_[sink] > 0; }
    stm_step_stats stats(const std::string &step);
    void destroy(); /* stop and release the run; results stay */

    stm_memory_stats memory();

    int64_t memory_limit = 0; /* bytes; 0 = the engine's default */
    int64_t pinned_limit = 0; /* bytes; 0 = none */
    double drain_s = 0;       /* longest drain; 0 = the engine's default */
    double quiet_s = 0;       /* of the watchdog; 0 = the engine's default */
    std::string run_dir;      /* empty = none */
    bool durable = false;     /* the run goes on where run_dir says; commits when the test says, or at the end */
    bool by_hand = false;     /* without threads: the test does what they would do */
    struct stm_tracer *tracer = nullptr;
    std::function<void(stm_plan *)> adjust; /* the plan, before it is run */
    mill_error error = {};
    std::vector<stm_error_record> errors;
    std::vector<int64_t> batch_sizes(const std::string &sink) { return sizes_[sink]; }

private:
    struct Step;
    std::vector<Step *> steps_;
    std::map<std::string, int> index_;
    stm_plan *plan_ = nullptr;
    stm_run *run_ = nullptr;
    std::mutex lock_;
    std::map<std::string, std::vector<Row>> sinks_;
    std::map<std::string, std::vector<int64_t>> sizes_;
    std::map<std::string, int> finalized_;
    int32_t stages_ = 1;
    static void keep_error(const stm_error_record *rec, void *user);
};

/** Emit one int64 column made by @p f from each row number of the batch in hand. */
mill_status emit_int64(mill_replica *r, mill_emit *out, const std::vector<int64_t> &values, mill_error *err,
                       const std::vector<int64_t> *parent = nullptr);
/** Value of int64 column @p c, row @p r; INT64_MIN when null. */
int64_t value(const mill_batch *b, int32_t c, int64_t r);
int64_t value_of_marks(const mill_batch *b, int64_t r);
std::string key_text(const mill_batch *b, int64_t r);

} // namespace mt
