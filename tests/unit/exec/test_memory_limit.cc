/* Pipelines with many times more data than memory_limit: they end, with every row, and live bytes stay where they should. */
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "support/fail_nth.h"
#include "support/by_hand.h"
#include "support/pipe.h"
#include "support/sanitized.h"

extern "C" {
#include "batch/batch.h"
}

using namespace mt;

namespace {

/* Under a sanitizer a quarter of everything: as many moves to the disk and back for each byte of the limit. */
const int64_t kLimit = mt::rounds(8 << 20, 2 << 20);
constexpr int64_t kRowBytes = 4096, kBatch = 16;
const int64_t kRows = 20 * kLimit / kRowBytes;
/* What may be alive above the limit: an eighth of it (relief), three batches for each replica of the few steps here, envelopes and
 * recipes of the batches on disk (about 1 KiB for each 64 KiB), and the small blocks that threads keep in stock (0.75 MiB each). */
const int64_t kReserve = kLimit / 8 + 3 * 6 * 96 * 1024 + kRows / kBatch * 1024 + 3 * (768 << 10);
constexpr int kThreads = 3;

/* A pattern of 97 letters that begins elsewhere for each x, over and over: the suite makes and compares some 10 GB of it. */
std::string payload(int64_t x, int64_t bytes)
{
    constexpr size_t kPattern = 97;
    char pattern[kPattern];
    std::string s((size_t)bytes, 0);
    for (size_t i = 0; i < kPattern; i++) pattern[i] = (char)('a' + (x * 7 + (int64_t)i) % 26);
    for (size_t at = 0; at < s.size(); at += kPattern) memcpy(&s[at], pattern, std::min(kPattern, s.size() - at));
    return s;
}

/* Columns x and text: text of row x says x again, in @p bytes letters. */
mill_status emit_wide(mill_replica *r, mill_emit *out, int64_t first, int64_t n, int64_t bytes, mill_error *err, bool with_x = true)
{
    mill_pool *pool = mill_replica_pool(r);
    mill_batch *b = nullptr;
    mill_status st = mill_batch_create(pool, n, with_x ? 2 : 1, &b);
    for (int32_t c = with_x ? 0 : 1; c < 2 && st == MILL_OK; c++) {
        mill_builder *build = nullptr;
        mill_column *col = nullptr;
        st = mill_builder_create(pool, mill_type_plain(c == 0 ? MILL_INT64 : MILL_UTF8), &build);
        for (int64_t i = 0; i < n && st == MILL_OK; i++)
            st = c == 0 ? mill_builder_int(build, first + i) : mill_builder_text(build, payload(first + i, bytes).data(), bytes);
        if (st == MILL_OK) st = mill_builder_finish(build, &col);
        if (st == MILL_OK) st = mill_batch_set_column(b, with_x ? c : 0, &col);
        mill_builder_destroy(&build);
    }
    if (st == MILL_OK) st = mill_emit_batch(out, &b, nullptr, err);
    mill_batch_destroy(&b);
    return st == MILL_OK ? st : mill_fail(err, st, "emitting wide rows");
}

void wide_source(Pipe &p, const std::string &name, int64_t rows, Pipe::Opts o = {}, uint64_t flags = 0, int64_t bytes = kRowBytes)
{
    Behaviour b;
    b.flags = flags;
    b.adds = {{"x", "int64"}, {"text", "utf8"}};
    b.generate = [rows, bytes](mill_replica *r, int64_t max, mill_cursor *cursor, bool *last, mill_emit *out, mill_error *err) {
        int64_t at = 0;
        if (cursor->size) memcpy(&at, cursor->bytes, sizeof at);
        const int64_t n = std::min(std::min(max, kBatch), rows - at), next = at + n;
        cursor->size = sizeof next;
        memcpy(cursor->bytes, &next, sizeof next);
        *last = next == rows;
        return emit_wide(r, out, at, n, bytes, err);
    };
    o.batch_rows = kBatch;
    p.add(name, MILL_GENERATOR, {}, b, o);
}

/* Sinks write nothing while it is shut: what a global sends cannot be read away while it sends. */
std::atomic<bool> g_open{true};

/* Sees every row's x in order and holds its text against it. */
struct Seen {
    std::vector<int64_t> x;
    int64_t wrong = 0;
    bool finalized = false;
};
void wide_sink(Pipe &p, const std::string &name, const std::vector<Pipe::From> &from, Seen *seen, Pipe::Opts o = {},
               int64_t sleep_us = 0, const std::string &text = "text")
{
    Behaviour b;
    if (sleep_us > 0) b.flags = MILL_BLOCKS;
    b.write = [seen, sleep_us, text](mill_replica *r, const mill_batch *in, mill_error *) {
        const mill_step *s = mill_replica_step(r);
        int32_t x = -1, t = -1;
        while (!g_open) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        for (int32_t c = 0; c < in->n_columns; c++) {
            const std::string column = s->inputs[0].used[c].name;
            if (column == "x") x = c;
            if (column == text) t = c;
        }
        for (int64_t i = 0; i < in->rows; i++) {
            const int64_t v = value(in, x, i);
            int64_t n = 0;
            const char *got = in->columns[t] != nullptr ? mill_column_text(in->columns[t], i, &n) : nullptr;
            const std::string want = payload(v, kRowBytes);
            if (got == nullptr || n != kRowBytes || memcmp(got, want.data(), want.size()) != 0) seen->wrong++;
            seen->x.push_back(v);
        }
        if (sleep_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(sleep_us));
        return MILL_OK;
    };
    b.finalize = [seen](mill_replica *, mill_error *) {
        seen->finalized = true;
        return MILL_OK;
    };
    p.add(name, MILL_SINK, from, b, o);
}

std::vector<int64_t> sequence(int64_t n, int times = 1)
{
    std::vector<int64_t> v;
    for (int k = 0; k < times; k++)
        for (int64_t i = 0; i < n; i++) v.push_back(i);
    return v;
}

Pipe::Opts in_stage(int32_t stage)
{
    Pipe::Opts o;
    o.stage = stage;
    return o;
}
Pipe::Opts with_mode(stm_input_mode mode)
{
    Pipe::Opts o;
    o.mode = mode;
    return o;
}

/* The pipelines that need the disk. Each has kRows wide rows at least. */
struct Shape {
    const char *name;
    int times; /* rows 0 .. kRows-1 reach the sink so many times, one after the other */
    void (*make)(Pipe &p, Seen *seen);
};

void load_groups(Pipe &p, Seen *seen)
{
    wide_source(p, "rows", kRows);
    p.add("pass", MILL_STEP, {{"rows"}}, Behaviour());
    wide_sink(p, "out", {{"pass"}}, seen, in_stage(1));
}

/* The second input of the union is complete before the first row of it may go: credit grows until it is. */
void union_of_one_root(Pipe &p, Seen *seen)
{
    Pipe::Opts o = with_mode(STM_INPUT_UNION);
    wide_source(p, "rows", kRows);
    p.add("slow", MILL_STEP, {{"rows"}}, Behaviour());
    p.add("both", MILL_STEP, {{"slow"}, {"rows"}}, Behaviour(), o);
    wide_sink(p, "out", {{"both"}}, seen);
}

/* Behind the union rows come from disk, a slow sink takes them: they must not pile up in front of it. */
void union_and_slow_sink(Pipe &p, Seen *seen)
{
    Pipe::Opts o = with_mode(STM_INPUT_UNION);
    wide_source(p, "rows", kRows);
    p.add("slow", MILL_STEP, {{"rows"}}, Behaviour());
    p.add("both", MILL_STEP, {{"slow"}, {"rows"}}, Behaviour(), o);
    p.add("pass", MILL_STEP, {{"both"}}, Behaviour());
    wide_sink(p, "out", {{"pass"}}, seen, {}, 50);
}

/* Batches of another size: rows of one batch from disk are used by several. */
void union_in_other_batches(Pipe &p, Seen *seen)
{
    Pipe::Opts o = with_mode(STM_INPUT_UNION);
    o.batch_rows = 7;
    wide_source(p, "rows", kRows);
    p.add("slow", MILL_STEP, {{"rows"}}, Behaviour());
    p.add("both", MILL_STEP, {{"slow"}, {"rows"}}, Behaviour(), o);
    wide_sink(p, "out", {{"both"}}, seen);
}

void global_output(Pipe &p, Seen *seen)
{
    Behaviour all;
    all.adds = {{"x", "int64"}, {"text", "utf8"}};
    all.finish = [](mill_replica *r, mill_emit *out, mill_error *err) {
        mill_status st = MILL_OK;
        for (int64_t at = 0; at < kRows && st == MILL_OK; at += kBatch) st = emit_wide(r, out, at, kBatch, kRowBytes, err);
        g_open = true;
        return st;
    };
    g_open = false;
    p.source("few", 10, 5);
    p.add("all", MILL_GLOBAL, {{"few"}}, all);
    wide_sink(p, "out", {{"all"}}, seen);
}

const Shape kShapes[] = {
    {"load_groups", 1, load_groups},
    {"union_of_one_root", 2, union_of_one_root},
    {"union_and_slow_sink", 2, union_and_slow_sink},
    {"union_in_other_batches", 2, union_in_other_batches},
    {"global_output", 1, global_output},
};

std::ostream &operator<<(std::ostream &to, const Shape &shape) { return to << shape.name; }

void tell(const stm_memory_stats &m)
{
    printf("           peak %.1f MiB of %.1f, %.1f MiB in %lld batches to disk, %lld stalls\n", (double)m.peak / (1 << 20),
           (double)m.limit / (1 << 20), (double)m.spilled_bytes / (1 << 20), (long long)m.spilled_batches, (long long)m.stalls);
}

class Spills : public testing::TestWithParam<Shape> {};

} // namespace

TEST_P(Spills, TwentyTimesTheLimit)
{
    Pipe p;
    Seen seen;
    p.memory_limit = kLimit;
    GetParam().make(p, &seen);
    ASSERT_EQ(p.run(120, kThreads), STM_END_DONE) << p.error.msg;
    const stm_memory_stats m = p.memory();
    tell(m);
    EXPECT_TRUE(seen.finalized);
    EXPECT_EQ(seen.wrong, 0);
    EXPECT_TRUE(seen.x == sequence(kRows, GetParam().times)) << seen.x.size() << " rows";
    EXPECT_LE(m.peak, kLimit + kReserve);
    EXPECT_GT(m.spilled_bytes, 10 * kLimit);
    EXPECT_EQ(m.on_disk_bytes, 0);
}

/* With room for everything nothing goes to disk. */
TEST_P(Spills, NothingWhenThereIsRoom)
{
    Pipe p;
    Seen seen;
    p.memory_limit = 100 * kLimit;
    GetParam().make(p, &seen);
    ASSERT_EQ(p.run(120, kThreads), STM_END_DONE) << p.error.msg;
    EXPECT_EQ(seen.x.size(), (size_t)(kRows * GetParam().times));
    EXPECT_EQ(p.memory().spilled_batches, 0);
}

/* The disk is full, or gives nothing back, from the n-th time on or once: the run fails, names a step and the cause, and no sink
 * calls what it has got complete. */
TEST_P(Spills, DiskFails)
{
    for (uint32_t kind : {(uint32_t)STM_FAULT_OPEN, (uint32_t)STM_FAULT_WRITE, (uint32_t)STM_FAULT_READ})
        for (int64_t nth : {0, 1, 300}) {
            if (kind == STM_FAULT_OPEN && nth > 0) continue;
            SCOPED_TRACE("kind " + std::to_string(kind) + ", passage " + std::to_string(nth));
            Pipe p;
            Seen seen;
            p.memory_limit = kLimit;
            GetParam().make(p, &seen);
            FailNth fail(nth, kind);
            const stm_run_end end = p.run(120, kThreads);
            ASSERT_TRUE(fail.fired());
            ASSERT_EQ(end, STM_END_FAILED);
            EXPECT_EQ(p.error.status, MILL_ERR_IO) << p.error.msg;
            EXPECT_STRNE(p.error.step, "");
            EXPECT_NE(std::string(p.error.msg).find("memory_limit is reached"), std::string::npos) << p.error.msg;
            EXPECT_STRNE(p.error.remedy, kind == STM_FAULT_READ ? "-" : "") << p.error.msg;
            EXPECT_LT(seen.x.size(), (size_t)(kRows * GetParam().times));
            EXPECT_EQ(seen.wrong, 0);
            p.destroy();
        }
}

TEST_P(Spills, StoppedInTheMiddle)
{
    Pipe p;
    Seen seen;
    p.memory_limit = kLimit;
    GetParam().make(p, &seen);
    ASSERT_EQ(p.start(kThreads), MILL_OK) << p.error.msg;
    for (int i = 0; i < 2000 && p.memory().on_disk_bytes < kLimit; i++) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    stm_run_stop(p.handle(), false);
    const stm_run_end end = p.wait(30);
    EXPECT_TRUE(end == STM_END_STOPPED || end == STM_END_DONE) << end << " " << p.error.msg;
}

INSTANTIATE_TEST_SUITE_P(Shapes, Spills, testing::ValuesIn(kShapes),
                         [](const auto &shape) { return std::string(shape.param.name); });

/* What can be held back at the roots is: a slow sink alone never needs the disk. */
TEST(MemoryLimit, RootsWaitForASlowSink)
{
    Pipe p;
    Seen seen;
    p.memory_limit = 1 << 20; /* credit alone would allow more */
    wide_source(p, "rows", 4000);
    wide_sink(p, "out", {{"rows"}}, &seen, {}, 50);
    ASSERT_EQ(p.run(60, kThreads), STM_END_DONE) << p.error.msg;
    tell(p.memory());
    EXPECT_TRUE(seen.x == sequence(4000));
    EXPECT_EQ(p.memory().spilled_batches, 0);
    EXPECT_LE(p.memory().peak, (1 << 20) + 3 * (768 << 10) + 6 * 96 * 1024);
}

/* Rows that grow a hundredfold on their way: held back in the middle, too. */
TEST(MemoryLimit, RowsThatGrowAreHeldBack)
{
    Pipe p;
    Seen seen;
    Behaviour grow;
    grow.uses = {{"x", "int64"}};
    grow.adds = {{"grown", "utf8"}};
    grow.flags = MILL_BLOCKS;
    grow.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *err) {
        /* many small rows come */
        if (in[0]->rows > 0 && value(in[0], 0, 0) < 2 * kBatch) std::this_thread::sleep_for(std::chrono::milliseconds(100));
        return emit_wide(r, out, in[0]->rows > 0 ? value(in[0], 0, 0) : 0, in[0]->rows, kRowBytes, err, false);
    };
    Pipe::Opts many, large;
    many.replicas = 2;
    large.batch_rows = 2000; /* credit for as many, which would be 16 MiB behind `grow` */
    p.memory_limit = 1 << 20;
    wide_source(p, "rows", 8000, {}, 0, 40);
    p.add("grow", MILL_STEP, {{"rows"}}, grow, many);
    p.sink("numbers", "rows", large);
    wide_sink(p, "out", {{"grow"}}, &seen, {}, 400, "grown");
    ASSERT_EQ(p.run(60, kThreads), STM_END_DONE) << p.error.msg;
    tell(p.memory());
    EXPECT_TRUE(seen.x == sequence(8000));
    EXPECT_EQ(seen.wrong, 0);
    EXPECT_LE(p.memory().peak, (1 << 20) + (1 << 20) / 8 + 3 * (768 << 10) + 12 * 96 * 1024);
}

/* One replica has a batch in its hands while all else goes on: what the others make waits for it, and only some of it. Then it
 * comes to its end, and so does the run. */
TEST(MemoryLimit, ReplicasDoNotRunAheadOfADelayedOne)
{
    constexpr int64_t kBatches = 60, kBytes = 64 << 10, kTight = 4 * kBatch * kBytes;
    for (const bool between : {false, true}) { /* a step in between that passes batches on as they come */
        Pipe p;
        Seen seen;
        Behaviour grow;
        int64_t made = 0, ahead = -1;
        grow.uses = {{"x", "int64"}};
        grow.adds = {{"grown", "utf8"}};
        grow.process = [&](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *err) {
            const int64_t first = in[0]->rows > 0 ? value(in[0], 0, 0) : 0;
            if (first == 0 && ahead < 0) {
                ahead = 0;
                for (bool any = true; any;) {
                    any = false;
                    for (int32_t i = 0; i < mt_hand_stations(p.handle()); i++)
                        while (mt_hand_runnable(p.handle(), i)) {
                            mt_hand_burst(p.handle(), i);
                            any = true;
                        }
                }
                ahead = made;
            }
            made++;
            return emit_wide(r, out, first, in[0]->rows, kBytes, err, false);
        };
        Pipe::Opts two;
        two.replicas = 2;
        p.memory_limit = kTight;
        p.by_hand = true;
        p.adjust = [](stm_plan *plan) { plan->steps[0].credit_asked = kBatches * kBatch; };
        wide_source(p, "rows", kBatches * kBatch, {}, 0, 8);
        p.add("grow", MILL_STEP, {{"rows"}}, grow, two);
        if (between) p.add("pass", MILL_STEP, {{"grow"}}, Behaviour());
        wide_sink(p, "out", {{between ? "pass" : "grow"}}, &seen, {}, 0, "grown");
        ASSERT_EQ(p.start(), MILL_OK) << p.error.msg;
        for (bool more = true; more;) {
            more = false;
            for (int32_t i = 0; i < mt_hand_stations(p.handle()); i++)
                if (mt_hand_runnable(p.handle(), i)) mt_hand_burst(p.handle(), i), more = true;
            more = more || mt_hand_unstall(p.handle());
        }
        EXPECT_TRUE(mt_hand_done(p.handle()));
        EXPECT_TRUE(seen.x == sequence(kBatches * kBatch));
        EXPECT_GE(ahead, 4);
        EXPECT_LE(ahead, 10) << "batches of a mebibyte with a limit of four"; /* those, two for each replica,
        and what brought it above */
    }
}

/* A global that keeps all it gets holds more than the limit for ever. The run goes on, and not one batch at a time. */
TEST(MemoryLimit, AStepMayHoldMore)
{
    Pipe p;
    auto held = std::make_shared<std::vector<mill_column *>>();
    Behaviour all;
    all.adds = {{"n", "int64"}};
    all.accept = [held](mill_replica *, size_t, const mill_batch *in, mill_error *) {
        for (int32_t c = 0; c < in->n_columns; c++) held->push_back(mill_column_ref(in->columns[c]));
        return MILL_OK;
    };
    all.finish = [held](mill_replica *r, mill_emit *out, mill_error *err) {
        int64_t rows = 0;
        for (auto &c : *held) rows += mill_column_rows(c), mill_column_unref(&c);
        held->clear();
        return emit_int64(r, out, {rows / 2}, err);
    };
    p.memory_limit = 4 << 20;
    wide_source(p, "rows", 4096);
    p.add("all", MILL_GLOBAL, {{"rows"}}, all);
    p.sink("out", "all");
    ASSERT_EQ(p.run(60, kThreads), STM_END_DONE) << p.error.msg;
    tell(p.memory());
    ASSERT_EQ(p.rows("out").size(), 1u);
    EXPECT_EQ(p.rows("out")[0].values.at("n"), 4096);
    EXPECT_LT(p.memory().stalls, 4096 / kBatch / 3);
}

/* A join of a fast root and a slow one: the fast one's rows wait. */
TEST(MemoryLimit, JoinOfFastAndSlow)
{
    Pipe p;
    Seen seen;
    Behaviour slow;
    slow.flags = MILL_BLOCKS;
    slow.process = [](mill_replica *, mill_batch *const *, size_t, mill_emit *out, mill_error *err) {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        return mill_emit_pass(out, err);
    };
    p.memory_limit = 512 << 10;
    wide_source(p, "fast", 4000);
    p.source("numbers", 4000, 8, "y");
    p.add("slow", MILL_STEP, {{"numbers"}}, slow);
    p.add("pair", MILL_STEP, {{"slow"}, {"fast"}}, Behaviour(), with_mode(STM_INPUT_JOIN));
    wide_sink(p, "out", {{"pair"}}, &seen);
    ASSERT_EQ(p.run(60, kThreads), STM_END_DONE) << p.error.msg;
    tell(p.memory());
    EXPECT_TRUE(seen.x == sequence(4000));
    EXPECT_EQ(seen.wrong, 0);
}

/* A generator with a thread of its own sleeps when its credit is used up; nobody rings it when the credit comes back. */
TEST(MemoryLimit, BlockingGeneratorsGoOn)
{
    for (int64_t limit : {(int64_t)0, kLimit / 16}) {
        Pipe p;
        Seen seen;
        p.memory_limit = limit;
        wide_source(p, "rows", 6000, {}, MILL_BLOCKS);
        wide_sink(p, "out", {{"rows"}}, &seen);
        ASSERT_EQ(p.run(60, kThreads), STM_END_DONE) << p.error.msg;
        EXPECT_TRUE(seen.x == sequence(6000));
    }
}

/* The file is in the run directory, and leaves nothing there. */
TEST(MemoryLimit, TheRunDirectoryIsUsed)
{
    Pipe p;
    Seen seen;
    p.memory_limit = kLimit;
    p.run_dir = "/nowhere/at/all";
    load_groups(p, &seen);
    EXPECT_EQ(p.run(60, kThreads), STM_END_FAILED);
    EXPECT_NE(std::string(p.error.msg).find("/nowhere/at/all"), std::string::npos) << p.error.msg;
    EXPECT_STREQ(p.error.step, "pass");
}
