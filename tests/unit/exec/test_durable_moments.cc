/*
 * Kills at every moment. A small run is made by hand, burst by burst; at some moments it commits, at one it is gone: what is in the
 * run directory and in the sinks' files then is all that the next process finds. Moments lie between bursts and inside of steps'
 * functions (a global between two batches of its output, a sink in the middle of a write or a sync), while others go on working.
 * Then a second process, which is killed, too, and a third. Each row has to be in each sink once, and everywhere the same. So it
 * has to be when one of the steps has changed in between: what does not hang on that goes on from where it was, all else begins
 * over.
 */
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <set>

#include "support/by_hand.h"
#include "support/pipe.h"
#include "support/sanitized.h"

extern "C" {
#include "batch/batch.h"
}

using namespace mt;

namespace {

namespace fs = std::filesystem;

/* What outlives a process. */
struct Disk {
    fs::path dir;
    std::map<std::string, std::vector<Row>> files; /* of sinks: all that was written, synced or not */
};

fs::path new_dir()
{
    static const std::string base = access("/dev/shm", W_OK) == 0 ? "/dev/shm/moments-XXXXXX" : "/tmp/moments-XXXXXX";
    std::string name = base;
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    return name;
}

/* Who goes next: a fixed order, or one that a seed draws. */
enum Policy { kFirst, kNested, kRandom };

/* One process. */
class Process {
public:
    Process(const Disk &found, Policy policy, unsigned seed) : disk(found), policy_(policy), draw_(seed)
    {
        disk.dir = new_dir();
        if (!found.dir.empty()) fs::copy(found.dir, disk.dir, fs::copy_options::recursive);
        pipe.run_dir = disk.dir.string();
        pipe.durable = pipe.by_hand = true;
    }
    ~Process()
    {
        pipe.destroy();
        fs::remove_all(disk.dir);
        if (killed != nullptr) fs::remove_all(killed->dir);
    }

    /* Runs to its end, or until it is killed; commits at each of @p commits. Whether it came to its end. */
    bool run(const std::set<int> &commits, int kill)
    {
        commits_ = commits;
        kill_ = kill;
        const mill_status st = pipe.start();
        EXPECT_EQ(st, MILL_OK) << pipe.error.msg;
        if (st != MILL_OK) return false;
        for (int32_t i = 0; i < stm_run_steps(pipe.handle()); i++) { /* of rows that come again, too, no fewer than none wait */
            stm_step_stats now = {};
            stm_run_stats(pipe.handle(), i, &now);
            EXPECT_GE(now.queued_rows, 0);
        }
        while (killed == nullptr) {
            moment();
            if (killed != nullptr) break;
            if (burst() || mt_hand_unstall(pipe.handle())) continue;
            break;
        }
        mill_error err = {};
        if (killed != nullptr) return false;
        EXPECT_FALSE(mt_hand_failed(pipe.handle(), &err)) << err.step << ": " << err.msg;
        EXPECT_TRUE(mt_hand_done(pipe.handle()));
        commit();
        EXPECT_FALSE(mt_hand_failed(pipe.handle(), &err)) << err.step << ": " << err.msg;
        return true;
    }

    /* Called wherever time passes. */
    void moment()
    {
        const int now = ++moments;
        if (killed != nullptr) return;
        if (commits_.count(now) > 0 && pipe.handle() != nullptr && !committing_) commit();
        if (now != kill_) return;
        killed = std::make_unique<Disk>(disk);
        killed->dir = new_dir();
        fs::remove(killed->dir);
        fs::copy(disk.dir, killed->dir, fs::copy_options::recursive);
    }
    /* In a step's function: others may work meanwhile. */
    mill_status inside(mill_error *err)
    {
        moment();
        if (depth_ < 2 && pipe.handle() != nullptr) {
            depth_++;
            if (policy_ == kNested)
                while (killed == nullptr && burst()) moment();
            else if (policy_ == kRandom && draw_() % 2 == 0)
                for (unsigned n = draw_() % 6; killed == nullptr && n > 0 && burst(); n--) moment();
            depth_--;
        }
        return killed == nullptr ? MILL_OK : mill_fail(err, MILL_ERR_STOPPED, "killed");
    }

    Disk disk;
    Pipe pipe;
    int moments = 0;
    std::unique_ptr<Disk> killed;
    int gone_on = 0;     /* sinks that were opened in the middle */
    std::string changed; /* step that is not what it was */

    /* A sink whose file is in `disk`. */
    void sink(const std::string &name, const std::string &from, Pipe::Opts o = Pipe::Opts())
    {
        Behaviour b;
        std::vector<Row> *file = &disk.files[name];
        b.open = [this, file](mill_replica *, const mill_cursor *c, mill_error *err) -> mill_status {
            size_t rows = 0;
            if (c != nullptr && c->size > 0) memcpy(&rows, c->bytes, sizeof rows);
            if (file->size() < rows) return mill_fail(err, MILL_ERR_DATA, "the file has %zu rows, not %zu", file->size(), rows);
            gone_on += rows > 0;
            file->resize(rows);
            return MILL_OK;
        };
        b.write = [this, file](mill_replica *r, const mill_batch *in, mill_error *err) -> mill_status {
            for (int64_t i = 0; i < in->rows; i++) {
                Row row;
                row.key = key_text(in, i);
                for (int32_t c = 0; c < in->n_columns; c++)
                    row.values[mill_replica_step(r)->inputs[0].used[c].name] = value(in, c, i);
                file->push_back(row);
                const mill_status st = inside(err);
                if (st != MILL_OK) return st;
            }
            return MILL_OK;
        };
        b.sync = [this, file](mill_replica *, mill_cursor *c, mill_error *err) {
            const size_t rows = file->size();
            memcpy(c->bytes, &rows, sizeof rows);
            c->size = sizeof rows;
            return inside(err);
        };
        b.finalize = [this](mill_replica *, mill_error *err) { return inside(err); };
        pipe.add(name, MILL_SINK, {{from}}, b, o);
    }
    /* A step that gives `y`: the row's number, and one that no other call gives, or (@p same) that says whether the step has
     * changed. */
    void step(const std::string &name, const std::string &from, bool same, Pipe::Opts o = Pipe::Opts(),
              const std::string &column = "y")
    {
        Behaviour b;
        b.flags = same ? MILL_PER_ROW : MILL_NONDETERMINISTIC;
        b.uses = {{"x", "int64"}};
        b.adds = {{column, "int64"}};
        b.process = [this, same, name](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *err) {
            static int64_t calls;
            std::vector<int64_t> v;
            calls++;
            for (int64_t i = 0; i < in[0]->rows; i++)
                v.push_back(value(in[0], 0, i) * 1000 + (same ? 7 + (changed == name) : calls % 1000));
            const mill_status st = inside(err);
            return st == MILL_OK ? emit_int64(r, out, v, err) : st;
        };
        if (o.budget_tokens > 0)
            b.cost = [](size_t, const mill_batch *in, int64_t *tokens, mill_error *) -> mill_status {
                for (int64_t i = 0; i < in->rows; i++) tokens[i] = 1 + value(in, 0, i) % 3;
                return MILL_OK;
            };
        pipe.add(name, MILL_STEP, {{from}}, b, o);
    }
    /* A global that gives what came to it, `batch` rows at a time. */
    void global(const std::string &name, const std::vector<Pipe::From> &from, size_t batch)
    {
        Behaviour b;
        auto rows = std::make_shared<std::vector<std::vector<int64_t>>>(from.size());
        b.adds = {{"x", "int64"}};
        b.accept = [this, rows](mill_replica *, size_t input, const mill_batch *in, mill_error *err) {
            for (int64_t i = 0; i < in->rows; i++) (*rows)[input].push_back(value(in, 0, i));
            return inside(err);
        };
        b.finish = [this, rows, batch](mill_replica *r, mill_emit *out, mill_error *err) {
            std::vector<int64_t> all;
            mill_status st = MILL_OK;
            for (auto &lane : *rows) all.insert(all.end(), lane.begin(), lane.end());
            for (size_t at = 0; at < all.size() && st == MILL_OK; at += batch) {
                st = emit_int64(r, out, {all.begin() + (long)at, all.begin() + (long)std::min(at + batch, all.size())}, err);
                if (st == MILL_OK) st = inside(err);
            }
            return st;
        };
        pipe.add(name, MILL_GLOBAL, from, b);
    }
    void keep(bool sinks, const std::set<int> &cached)
    {
        pipe.adjust = [this, sinks, cached](stm_plan *p) {
            p->keep_sink_rows = sinks;
            for (int i : cached) p->steps[i].cache = true;
            for (int i = 0; i < p->n_steps; i++) {
                const std::string field = std::string("step ") + p->steps[i].step->name + ": version" + '\0' +
                                          (changed == p->steps[i].step->name ? "2" : "1") + '\0';
                stm_text_add(&p->steps[i].signature, field.data(), field.size());
            }
        };
    }

private:
    void commit()
    {
        committing_ = true;
        mt_hand_commit(pipe.handle());
        committing_ = false;
    }
    bool burst()
    {
        stm_run *run = pipe.handle();
        std::vector<int> can;
        for (int i = 0; i < mt_hand_stations(run); i++)
            if (mt_hand_runnable(run, i)) can.push_back(i);
        if (can.empty()) return false;
        mt_hand_burst(run, policy_ == kRandom ? can[draw_() % can.size()] : policy_ == kFirst ? can.front() : can.back());
        return true;
    }

    Policy policy_;
    std::mt19937 draw_;
    std::set<int> commits_;
    int kill_ = 0, depth_ = 0;
    bool committing_ = false;
};

struct Case {
    const char *name;
    void (*build)(Process &p);
    bool same; /* no step is nondeterministic: what sinks get does not depend on anything */
    std::array<const char *, 2> steps; /* that may change without all sinks hanging on them */
};

std::string text_of(const std::vector<Row> &rows)
{
    std::string out;
    for (const Row &r : rows) {
        out += r.key;
        for (auto &v : r.values) out += " " + v.first + "=" + std::to_string(v.second);
        out += "\n";
    }
    return out;
}

const Case kCases[] = {
    {"global",
     [](Process &p) {
         p.pipe.source("src", 4, 2);
         p.global("all", {{"src"}}, 1);
         p.sink("out", "all");
         p.keep(true, {});
     },
     true, {}},
    {"sink_rows_kept",
     [](Process &p) {
         Pipe::Opts o;
         o.batch_rows = 3;
         p.pipe.source("src", 7, 2);
         p.step("work", "src", true);
         p.sink("out", "work", o);
         p.sink("other", "work");
         p.keep(true, {});
     },
     true, {"out", "other"}},
    {"nondeterministic",
     [](Process &p) {
         p.pipe.source("src", 5, 1);
         p.step("work", "src", false);
         p.sink("out", "work");
         p.sink("other", "work");
         p.keep(false, {1});
     },
     false, {"other"}},
    {"store_behind_store",
     [](Process &p) {
         Pipe::Opts o;
         o.batch_rows = 2;
         p.pipe.source("src", 6, 2);
         p.step("work", "src", false, o);
         p.step("more", "work", false, Pipe::Opts(), "z");
         p.sink("out", "more");
         p.sink("other", "more");
         p.keep(true, {1, 2});
     },
     false, {}},
    {"global_and_kept_joined",
     [](Process &p) {
         Pipe::Opts join, by_three;
         join.mode = STM_INPUT_JOIN;
         join.batch_rows = 2;
         by_three.batch_rows = 3;
         p.pipe.source("src", 5, 2);
         p.step("work", "src", true, by_three);
         p.global("all", {{"work"}}, 2);
         Behaviour b;
         p.pipe.add("both", MILL_STEP, {{"work"}, {"all"}}, b, join);
         p.sink("out", "both");
         p.keep(false, {1});
     },
     true, {}},
    {"short_global_joined", /* which still needs rows of the global's last batch when it has seen that there are no more */
     [](Process &p) {
         Pipe::Opts join;
         join.mode = STM_INPUT_JOIN;
         join.on_uneven = STM_UNEVEN_NULL;
         join.batch_rows = 3;
         p.pipe.source("src", 4, 2);
         p.pipe.source("long", 10, 5, "l");
         p.global("all", {{"src"}}, 2);
         p.pipe.add("both", MILL_STEP, {{"long"}, {"all"}}, Behaviour(), join);
         p.sink("out", "both");
         p.keep(false, {});
     },
     true, {}},
    {"budget", /* whose items are not those of the batches that come */
     [](Process &p) {
         Pipe::Opts o;
         o.budget_tokens = 5;
         p.pipe.source("src", 9, 2);
         p.step("work", "src", true, o);
         p.sink("out", "work");
         p.sink("other", "src", [] { Pipe::Opts by_four; by_four.batch_rows = 4; return by_four; }());
         p.keep(false, {});
     },
     true, {"work"}},
    {"side_by_side", /* one part, in which steps that need others, and one that does not, hang on the same source */
     [](Process &p) {
         Pipe::Opts by_two, by_three;
         by_two.batch_rows = 2;
         by_three.batch_rows = 3;
         p.pipe.source("src", 6, 1);
         p.step("one", "src", true, by_two);
         p.step("two", "src", true, by_three);
         p.global("all", {{"one"}}, 2);
         p.sink("out", "one");
         p.sink("other", "two", by_two);
         p.sink("rest", "all");
         p.keep(false, {});
     },
     true, {"one", "two"}},
    {"globals_in_a_row",
     [](Process &p) {
         p.pipe.source("src", 4, 2);
         p.global("all", {{"src"}}, 2);
         p.global("again", {{"all"}}, 1);
         p.sink("out", "again");
         p.keep(false, {});
     },
     true, {}},
};

class Moments : public testing::TestWithParam<std::tuple<int, int>> {
protected:
    const Case &the() { return kCases[std::get<0>(GetParam())]; }
    Policy policy() { return (Policy)std::get<1>(GetParam()); }

    std::unique_ptr<Process> process(const Disk &found, unsigned seed)
    {
        auto p = std::make_unique<Process>(found, policy(), seed);
        the().build(*p);
        processes_++;
        return p;
    }
    /* What is there in the end. */
    void judge(const Process &p, const std::string &how) { judge(p, how, want_); }
    void judge(const Process &p, const std::string &how, const std::map<std::string, std::vector<Row>> &want)
    {
        for (auto &f : p.disk.files) {
            std::set<std::string> keys;
            for (const Row &r : f.second)
                EXPECT_TRUE(keys.insert(r.key).second) << f.first << " has row " << r.key << " twice: " << how;
            EXPECT_EQ(f.second.size(), want.at(f.first).size()) << f.first << ": " << how;
            if (the().same) {
                EXPECT_EQ(text_of(f.second), text_of(want.at(f.first))) << f.first << ": " << how;
            }
        }
        if (!the().same) {
            EXPECT_EQ(text_of(p.disk.files.at("out")), text_of(p.disk.files.at("other"))) << how;
        }
    }
    std::map<std::string, std::vector<Row>> want_;
    std::map<std::string, std::map<std::string, std::vector<Row>>> want_of_; /* by the step that has changed */
    std::map<std::string, int> gone_on_; /* sinks, by the step that had changed */
    int processes_ = 0;
};

TEST_P(Moments, EveryRowOnce)
{
    const bool all = getenv("STEPMILL_ALL_MOMENTS") != nullptr;
    const int later = all ? 1 : 3, apart = all ? 1 : 8, next_commit = mt::rounds(1, 3); /* each third moment under a sanitizer */
    const unsigned seeds = all && policy() == kRandom ? 20 : 1;
    for (unsigned seed = 1; seed <= seeds; seed++) {
        auto whole = process({}, seed);
        ASSERT_TRUE(whole->run({}, 0));
        want_ = whole->disk.files;
        const int moments = whole->moments;
        ASSERT_GT(moments, 10);
        for (int commit = 1; commit <= moments; commit += next_commit)
            for (int kill = commit; kill <= commit + 3 && kill <= moments; kill += later) { /* at once, or when more was written */
                auto first = process({}, seed);
                ASSERT_FALSE(first->run({commit}, kill));
                const std::string how = "commit at " + std::to_string(commit) + ", killed at " + std::to_string(kill) + ", seed " +
                                        std::to_string(seed);
                auto second = process(*first->killed, seed + 10);
                ASSERT_TRUE(second->run({}, 0)) << how;
                judge(*second, how);
                for (const char *step : the().steps) {
                    if (kill != commit || step == nullptr) break;
                    auto &want = want_of_[step];
                    if (want.empty()) {
                        auto undisturbed = process({}, seed);
                        undisturbed->changed = step;
                        ASSERT_TRUE(undisturbed->run({}, 0));
                        want = undisturbed->disk.files;
                    }
                    auto other = process(*first->killed, seed + 10);
                    other->changed = step;
                    ASSERT_TRUE(other->run({}, 0)) << how << ", and another " << step;
                    judge(*other, how + ", and another " + step, want);
                    gone_on_[step] += other->gone_on;
                }
                for (int again = 1 + commit % apart; kill == commit && again <= second->moments; again += apart) {
                    const std::string twice = how + "; commit and kill at " + std::to_string(again);
                    auto next = process(*first->killed, seed + 10);
                    if (next->run({again}, again)) break; /* it is through already */
                    auto third = process(*next->killed, seed + 20);
                    ASSERT_TRUE(third->run({}, 0)) << twice;
                    judge(*third, twice);
                }
                if (HasFailure()) return;
            }
    }
    for (const char *step : the().steps) {
        if (step == nullptr || next_commit > 1) break;
        EXPECT_GT(gone_on_[step], 0) << "another " << step << " is nothing to the sinks that do not hang on it";
    }
    RecordProperty("processes", processes_);
}

std::string name_of(const testing::TestParamInfo<std::tuple<int, int>> &i)
{
    static const char *const policies[] = {"first", "nested", "random"};
    return std::string(kCases[std::get<0>(i.param)].name) + "_" + policies[std::get<1>(i.param)];
}

/* What a reader of a global's output gives out does not depend on how far the global was when it was read. */
TEST(GlobalsOutput, HasItsEndInItsLastBatch)
{
    for (const Policy policy : {kFirst, kNested}) {
        Process p({}, policy, 1);
        p.pipe.source("src", 4, 2);
        p.global("all", {{"src"}}, 2);
        p.sink("out", "all");
        p.keep(false, {});
        ASSERT_TRUE(p.run({}, 0));
        EXPECT_EQ(p.pipe.stats("out").batches_in, 2);
    }
}

INSTANTIATE_TEST_SUITE_P(Pipelines, Moments,
                         testing::Combine(testing::Range(0, (int)(sizeof kCases / sizeof kCases[0])), testing::Range(0, 3)),
                         name_of);

} // namespace
