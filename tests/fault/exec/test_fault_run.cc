/*
 * Every passage through a fault point of a small run fails once: allocations, threads, loads, calls into steps, emits, calls of
 * files. Whatever fails, the run ends in bounded time, every load is unloaded once, nothing leaks, and every row and value at the
 * sinks is what it has to be: that of the undisturbed run, or null where an error record says that the row failed. A durable run
 * that failed is gone on with, and then has all of its rows.
 */
#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>

#include "support/fail_nth.h"
#include "support/pipe.h"
#include "support/temp_dir.h"

using namespace mt;
namespace fs = std::filesystem;

namespace {

struct Lives {
    std::atomic<int> loads{0}, unloads{0};
};

Behaviour counted(Behaviour b, Lives *l)
{
    b.load = [l](mill_replica *, mill_error *) -> mill_status {
        l->loads++;
        return MILL_OK;
    };
    b.unload = [l](mill_replica *) { l->unloads++; };
    return b;
}

Behaviour copies(const char *from, const char *to, uint64_t flags = 0)
{
    Behaviour b;
    b.uses = {{from, "int64"}};
    b.adds = {{to, "int64"}};
    b.flags = flags;
    b.process = [flags](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v, parent;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) {
            const int64_t x = value(in[0], 0, i);
            const int copies = flags & MILL_EXPANDS ? 2 : flags & MILL_FILTERS ? x % 2 == 0 : 1;
            for (int k = 0; k < copies; k++) v.push_back(x), parent.push_back(i);
        }
        return emit_int64(r, out, v, e, flags & (MILL_EXPANDS | MILL_FILTERS) ? &parent : nullptr);
    };
    return b;
}

/* What outlives a process: the run directory, and the files of the sinks with all that was written to them. */
struct Disk {
    TempDir folder{true};
    fs::path dir{folder.path()};
    std::map<std::string, std::vector<Row>> files;
    std::map<std::string, int> finalized; /* times */
};

/* A sink that can be gone on with. */
void sink(Pipe &p, Disk &disk, const std::string &name, const std::string &from, const Pipe::Opts &o = Pipe::Opts())
{
    std::vector<Row> *file = &disk.files[name];
    Behaviour b;
    b.open = [file](mill_replica *, const mill_cursor *c, mill_error *err) -> mill_status {
        size_t rows = 0;
        if (c != nullptr && c->size > 0) memcpy(&rows, c->bytes, sizeof rows);
        if (file->size() < rows) return mill_fail(err, MILL_ERR_DATA, "the file has %zu rows, not %zu", file->size(), rows);
        file->resize(rows);
        return MILL_OK;
    };
    b.write = [file](mill_replica *r, const mill_batch *in, mill_error *) -> mill_status {
        for (int64_t i = 0; i < in->rows; i++) {
            Row row;
            row.key = key_text(in, i);
            for (int32_t c = 0; c < in->n_columns; c++) row.values[mill_replica_step(r)->inputs[0].used[c].name] = value(in, c, i);
            if (in->marks != nullptr) row.error = value_of_marks(in, i);
            file->push_back(row);
        }
        return MILL_OK;
    };
    b.sync = [file](mill_replica *, mill_cursor *c, mill_error *) -> mill_status {
        const size_t rows = file->size();
        memcpy(c->bytes, &rows, sizeof rows);
        c->size = sizeof rows;
        return MILL_OK;
    };
    b.finalize = [&disk, name](mill_replica *, mill_error *) -> mill_status {
        disk.finalized[name]++;
        return MILL_OK;
    };
    disk.finalized[name] += 0;
    p.add(name, MILL_SINK, {{from}}, b, o);
}

void linear(Pipe &p, Lives *l, Disk &d)
{
    Pipe::Opts o;
    o.batch_rows = 4;
    o.replicas = 2;
    p.source("src", 20, 7);
    p.add("a", MILL_STEP, {{"src"}}, counted(copies("x", "a", MILL_PER_ROW), l), o);
    p.add("grow", MILL_STEP, {{"a"}}, counted(copies("a", "g", MILL_EXPANDS), l));
    p.add("thin", MILL_STEP, {{"grow"}}, counted(copies("g", "t", MILL_FILTERS), l));
    sink(p, d, "out", "thin");
}

void diamond(Pipe &p, Lives *l, Disk &d)
{
    Pipe::Opts a, b, j;
    a.batch_rows = 3;
    b.batch_rows = 5;
    j.mode = STM_INPUT_JOIN;
    j.on_missing = STM_MISSING_NULL;
    j.batch_rows = 4;
    p.source("src", 20, 7);
    p.add("a", MILL_STEP, {{"src"}}, counted(copies("x", "a"), l), a);
    p.add("b", MILL_STEP, {{"src"}}, counted(copies("x", "b", MILL_FILTERS), l), b);
    p.add("both", MILL_STEP, {{"a"}, {"b"}}, counted(copies("a", "c"), l), j);
    sink(p, d, "out", "both");
}

void routed(Pipe &p, Lives *l, Disk &d)
{
    Pipe::Opts r, c;
    r.branches = {"even", "odd"};
    r.batch_rows = 3;
    c.mode = STM_INPUT_CONVERGE;
    Behaviour route;
    route.uses = {{"x", "int64"}};
    route.route = [](mill_replica *, const mill_batch *in, mill_route *out, mill_error *e) {
        return mill_route_to(out, (size_t)(value(in, 0, 0) % 2), e);
    };
    p.source("src", 20, 7);
    p.add("router", MILL_ROUTER, {{"src"}}, counted(route, l), r);
    p.add("even", MILL_STEP, {{"router", 0}}, counted(copies("x", "y"), l));
    p.add("odd", MILL_STEP, {{"router", 1}}, counted(copies("x", "y"), l));
    p.add("meet", MILL_STEP, {{"even"}, {"odd"}}, counted(Behaviour(), l), c);
    sink(p, d, "out", "meet");
}

void global_and_groups(Pipe &p, Lives *l, Disk &d)
{
    Pipe::Opts later;
    later.stage = 1;
    Behaviour g;
    g.adds = {{"x", "int64"}};
    g.finish = [](mill_replica *r, mill_emit *out, mill_error *e) -> mill_status {
        for (int64_t i = 0; i < 4; i++)
            if (mill_status st = emit_int64(r, out, {i, i}, e)) return st;
        return MILL_OK;
    };
    p.source("src", 20, 7);
    p.add("all", MILL_GLOBAL, {{"src"}}, counted(g, l));
    p.add("a", MILL_STEP, {{"all"}}, counted(copies("x", "a"), l), later);
    sink(p, d, "out", "a", later);
    sink(p, d, "other", "src");
}

/* ---- what the sinks have to get ---------------------------------------------------------------------------------- */

constexpr int64_t kNull = INT64_MIN;

/* Where a row stands: its number at its root and, behind an expansion, which child of it; -1 = it is no child. */
using Place = std::pair<int64_t, int64_t>;
Place place(const char *key)
{
    const char *row = strchr(key, ':') + 1, *child = strchr(row, '.');
    return {atoll(row), child != nullptr ? atoll(child + 1) : -1};
}

/* The rows that failed, by the records of errors. */
struct Failures {
    std::vector<stm_error_record> records;
    /* Number of the record of step's failure of a row; 0 = it did not fail there. */
    int64_t at(const char *step, int64_t row, int64_t child = -1) const
    {
        for (const stm_error_record &r : records)
            if (strcmp(r.error.step, step) == 0 && r.first_key[0] != 0 && place(r.first_key) <= Place(row, child) &&
                Place(row, child) <= place(r.last_key))
                return r.id;
        return 0;
    }
};

using Rows = std::vector<Row>;
using Want = std::map<std::string, Rows>;

void put(Rows &rows, const std::string &key, std::map<std::string, int64_t> values, int64_t error)
{
    rows.push_back(Row{key, values, error});
}

std::string key(int64_t row) { return std::to_string(row); }

Want linear_rows(const Failures &f)
{
    Want w;
    Rows &out = w["out"];
    for (int64_t x = 0; x < 20; x++) {
        const int64_t a = f.at("a", x), g = f.at("grow", x);
        if (a != 0 || g != 0) { /* not expanded, and so not shown to what comes after */
            put(out, key(x), {{"x", x}, {"a", a ? kNull : x}, {"g", kNull}, {"t", kNull}}, a ? a : g);
            continue;
        }
        for (int64_t k = 0; k < 2; k++) {
            const int64_t t = f.at("thin", x, k);
            if (t != 0 || x % 2 == 0)
                put(out, key(x) + "." + std::to_string(k), {{"x", x}, {"a", x}, {"g", x}, {"t", t ? kNull : x}}, t);
        }
    }
    return w;
}

Want diamond_rows(const Failures &f)
{
    Want w;
    for (int64_t x = 0; x < 20; x++) {
        const int64_t a = f.at("a", x), b = f.at("b", x), both = f.at("both", x);
        put(w["out"], key(x), {{"x", x}, {"a", a ? kNull : x}, {"b", b || x % 2 ? kNull : x}, {"c", a || both ? kNull : x}},
            a   ? a
            : b ? b
                : both);
    }
    return w;
}

Want routed_rows(const Failures &f)
{
    Want w;
    for (int64_t x = 0; x < 20; x++) { /* batches of three, and those that the router fails go to its first branch */
        const int64_t r = f.at("router", x), s = f.at(r == 0 && x / 3 % 2 == 1 ? "odd" : "even", x), m = f.at("meet", x);
        put(w["out"], key(x), {{"x", x}, {"y", s ? kNull : x}}, r ? r : s ? s : m);
    }
    return w;
}

Want global_rows(const Failures &f)
{
    Want w;
    for (int64_t i = 0; i < 8; i++) {
        const int64_t a = f.at("a", i);
        put(w["out"], key(i), {{"x", i / 2}, {"a", a ? kNull : i / 2}}, a);
    }
    for (int64_t x = 0; x < 20; x++) put(w["other"], key(x), {{"x", x}}, 0);
    return w;
}

std::string text_of(const Row &r)
{
    std::string out = r.key;
    for (auto &v : r.values) out += " " + v.first + "=" + (v.second == kNull ? "null" : std::to_string(v.second));
    return out + (r.error != 0 ? " error " + std::to_string(r.error) : "") + "\n";
}
std::string text_of(const Rows &rows)
{
    std::string out;
    for (const Row &r : rows) out += text_of(r);
    return out;
}

/* Every row of a run that failed is one of those that a whole run gives, in their order. */
void expect_part(const Rows &got, const Rows &want, const std::string &name)
{
    size_t at = 0;
    for (const Row &r : got) {
        while (at < want.size() && text_of(want[at]) != text_of(r)) at++;
        ASSERT_LT(at, want.size()) << name << " has a row that is wrong, doubled or out of order: " << text_of(r) << "among\n"
                                   << text_of(got);
        at++;
    }
}

/* ---- the runs ---------------------------------------------------------------------------------------------------- */

const struct {
    const char *name;
    void (*build)(Pipe &, Lives *, Disk &);
    Want (*rows)(const Failures &);
} kPipes[] = {{"linear", linear, linear_rows},
              {"diamond", diamond, diamond_rows},
              {"routed", routed, routed_rows},
              {"global and groups", global_and_groups, global_rows}};

const struct {
    const char *name;
    uint32_t kinds;
    bool durable;
} kFaults[] = {{"alloc and thread", STM_FAULT_ALLOC | STM_FAULT_THREAD, false},
               {"load", STM_FAULT_LOAD, false},
               {"process", STM_FAULT_PROCESS, false},
               {"emit", STM_FAULT_EMIT, false},
               {"file", STM_FAULT_OPEN | STM_FAULT_READ | STM_FAULT_WRITE, true},
               {"process, durable", STM_FAULT_PROCESS, true}};

/* A run, which @p fail disturbs; whether it came to its end. */
class FaultRun : public testing::TestWithParam<size_t> {
protected:
    bool run(Disk &disk, bool durable, FailNth *fail, Failures *failures, bool *fired, mill_error *error)
    {
        const auto &pipe = kPipes[GetParam()];
        Pipe p;
        pipe.build(p, &lives_, disk);
        p.run_dir = durable ? disk.dir.string() : "";
        p.durable = durable;
        const mill_status st = p.start(2);
        stm_run_end end = STM_END_LOAD_FAILED;
        if (st == MILL_OK) end = stm_run_wait(p.handle(), 20, &p.error);
        if (end == STM_END_RUNNING) {
            ADD_FAILURE() << "does not end";
            return false;
        }
        const int64_t imputed = st == MILL_OK ? stm_run_imputed_rows(p.handle()) : 0;
        /* rows are conserved at every step */
        for (int32_t i = 0; end == STM_END_DONE && !went_on_ && i < stm_run_steps(p.handle()); i++) {
            stm_step_stats s;
            stm_run_stats(p.handle(), i, &s);
            const int32_t kind = stm_run_step(p.handle(), i)->type->kind;
            if (kind == MILL_STEP || kind == MILL_ROUTER) {
                EXPECT_EQ(s.rows_out, s.rows_in - s.rows_dropped - s.parents_expanded + s.children) << stm_run_step(p.handle(),
                                                                                                                    i)->name;
            }
            if (kind == MILL_GENERATOR) { EXPECT_EQ(s.rows_out, 20); }
        }
        p.destroy();
        *fired = fail != nullptr && fail->fired();
        *error = p.error;
        failures->records.insert(failures->records.end(), p.errors.begin(), p.errors.end());
        if (end == STM_END_DONE) {
            int64_t told = 0;
            for (auto &r : p.errors) told += r.rows;
            if (!went_on_) { EXPECT_EQ(told, imputed) << "rows imputed and not told, or told and not imputed"; }
            if (fail == nullptr || !*fired) { EXPECT_TRUE(p.errors.empty()); }
        } else {
            EXPECT_TRUE(*fired) << p.error.msg;
            EXPECT_STRNE(p.error.msg, "");
        }
        last_ = end;
        return end == STM_END_DONE;
    }

    void judge(const Disk &disk, const Failures &failures, bool whole)
    {
        for (auto &want : kPipes[GetParam()].rows(failures)) {
            const Rows &got = disk.files.at(want.first);
            if (whole) EXPECT_EQ(text_of(got), text_of(want.second)) << want.first;
            else expect_part(got, want.second, want.first);
            if (whole && !went_on_) { EXPECT_EQ(disk.finalized.at(want.first), 1) << want.first; }
            /* once more where the run that failed could not write that down */
            if (went_on_) { EXPECT_GE(disk.finalized.at(want.first), 1) << want.first; }
        }
        for (auto &r : failures.records) { /* no more rows than the record counts, and none less */
            int64_t marked = 0;
            for (auto &file : disk.files)
                for (auto &row : file.second) marked += row.error == r.id;
            if (whole) { EXPECT_EQ(marked, r.rows) << r.error.step << ": " << r.error.msg; }
        }
    }

    Lives lives_;
    bool went_on_ = false;
    stm_run_end last_ = STM_END_DONE;
};

} // namespace

TEST_P(FaultRun, EveryPointOfEveryPipeline)
{
    for (auto &fault : kFaults) {
        int64_t points = 0, ended = 0, imputed = 0;
        for (;; points++) {
            SCOPED_TRACE(std::string(fault.name) + " point " + std::to_string(points));
            const long before = live();
            bool fired = false;
            {
                Disk disk;
                Failures failures;
                mill_error error = {};
                FailNth fail(points, fault.kinds);
                const bool done = run(disk, fault.durable, &fail, &failures, &fired, &error);
                if (HasFailure()) return;
                judge(disk, failures, done);
                ended += !done;
                imputed += done && !failures.records.empty();
                if (!done && fault.kinds == STM_FAULT_LOAD) { EXPECT_EQ(last_, STM_END_LOAD_FAILED); }
                if (!done && fault.durable) {
                    bool ignored;
                    went_on_ = true;
                    Failures then; /* what failed in the run before was not counted, or is told again */
                    EXPECT_TRUE(run(disk, true, nullptr, &then, &ignored, &error)) << error.msg;
                    judge(disk, then, true);
                    went_on_ = false;
                }
            }
            EXPECT_EQ(live(), before) << "leak";
            EXPECT_EQ(lives_.loads, lives_.unloads) << "every load is unloaded, also the ones that failed half-way";
            if (!fired || HasFailure()) break;
        }
        printf("%-18s %-17s %4lld points: %lld ended the run, %lld cost rows\n", kPipes[GetParam()].name, fault.name,
               (long long)points, (long long)ended, (long long)imputed);
        EXPECT_GT(points, 2);
        if (HasFailure()) return;
    }
}

INSTANTIATE_TEST_SUITE_P(Pipelines, FaultRun, testing::Range<size_t>(0, sizeof kPipes / sizeof *kPipes), [](const auto &i) {
    std::string name = kPipes[i.param].name;
    for (char &c : name) c = c == ' ' ? '_' : c;
    return name;
});
