/* Whole runs of small pipelines: rows, order, keys, borders of batches, in every kind of connection. */
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

extern "C" {
#include "core/log.h"
}
#include "support/fail_nth.h"
#include "support/pipe.h"

using namespace mt;

namespace {

/* y = 2 x */
Behaviour doubles()
{
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.adds = {{"y", "int64"}};
    b.flags = MILL_PER_ROW;
    b.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) v.push_back(2 * value(in[0], 0, i));
        return emit_int64(r, out, v, e);
    };
    return b;
}

/* Keeps rows whose x the predicate wants. */
Behaviour keeps(std::function<bool(int64_t)> want)
{
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.adds = {{"kept", "int64"}};
    b.flags = MILL_PER_ROW | MILL_FILTERS;
    b.process = [want](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v, parent;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++)
            if (want(value(in[0], 0, i))) v.push_back(value(in[0], 0, i)), parent.push_back(i);
        return emit_int64(r, out, v, e, &parent);
    };
    return b;
}

/* Each row x gives x % 3 + 1 children. */
Behaviour expands()
{
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.adds = {{"child", "int64"}};
    b.flags = MILL_PER_ROW | MILL_EXPANDS;
    b.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v, parent;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++)
            for (int64_t k = 0; k <= value(in[0], 0, i) % 3; k++) v.push_back(k), parent.push_back(i);
        return emit_int64(r, out, v, e, &parent);
    };
    return b;
}

} // namespace

TEST(Run, LinearKeepsRowsOrderAndColumns)
{
    for (int threads : {1, 2, 4}) {
        Pipe p;
        p.source("src", 1000, 7);
        p.add("double", MILL_STEP, {{"src"}}, doubles());
        p.sink("out", "double");
        ASSERT_EQ(p.run(30, threads), STM_END_DONE);
        const auto &rows = p.rows("out");
        ASSERT_EQ(rows.size(), 1000u);
        for (int64_t i = 0; i < 1000; i++) {
            EXPECT_EQ(rows[i].key, std::to_string(i));
            EXPECT_EQ(rows[i].values.at("x"), i);
            EXPECT_EQ(rows[i].values.at("y"), 2 * i);
        }
        EXPECT_TRUE(p.finalized("out"));
        EXPECT_EQ(p.stats("double").rows_in, 1000);
        EXPECT_EQ(p.stats("double").rows_out, 1000);
        EXPECT_EQ(p.stats("double").phase, STM_STEP_DONE);
    }
}

TEST(Run, EmptyGeneratorEndsCleanly)
{
    Pipe p;
    p.source("src", 0, 7);
    p.add("double", MILL_STEP, {{"src"}}, doubles());
    p.sink("out", "double");
    EXPECT_EQ(p.run(), STM_END_DONE);
    EXPECT_TRUE(p.rows("out").empty());
    EXPECT_TRUE(p.finalized("out"));
}

TEST(Run, GeneratorAloneEnds)
{
    Pipe p;
    p.source("src", 1000, 7);
    EXPECT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(p.stats("src").rows_out, 1000);
}

TEST(Run, RebatchingGivesExactBatches)
{
    for (int64_t from : {1, 3, 64, 100})
        for (int64_t to : {1, 2, 7, 64, 1000}) {
            SCOPED_TRACE(std::to_string(from) + " to " + std::to_string(to));
            Pipe p;
            Pipe::Opts o;
            o.batch_rows = to;
            p.source("src", 500, from);
            p.sink("out", "src", o);
            ASSERT_EQ(p.run(), STM_END_DONE);
            ASSERT_EQ(p.rows("out").size(), 500u);
            auto sizes = p.batch_sizes("out");
            for (size_t i = 0; i + 1 < sizes.size(); i++) EXPECT_EQ(sizes[i], to);
        }
}

TEST(Run, ReplicasRestoreOrder)
{
    Pipe p;
    Pipe::Opts o;
    o.replicas = 4;
    Behaviour b = doubles();
    b.flags |= MILL_BLOCKS;
    auto plain = b.process;
    b.process = [plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        std::this_thread::sleep_for(std::chrono::microseconds(value(in[0], 0, 0) * 7919 % 300));
        return plain(r, in, n, out, e);
    };
    p.source("src", 2000, 5);
    p.add("slow", MILL_STEP, {{"src"}}, b, o);
    p.sink("out", "slow");
    ASSERT_EQ(p.run(), STM_END_DONE);
    ASSERT_EQ(p.rows("out").size(), 2000u);
    for (int64_t i = 0; i < 2000; i++) ASSERT_EQ(p.rows("out")[i].values.at("x"), i);
}

/* Behind replicas batches pass as they come; the sink still sees the order of the input, whatever was dropped on the way. */
TEST(Run, StepsBehindReplicasDoNotWaitForTheSlowBatch)
{
    Pipe p;
    Pipe::Opts o;
    std::atomic<int64_t> slow_done{0}, passed_before{0};
    o.replicas = 3;
    Behaviour b = doubles();
    auto plain = b.process;
    b.flags |= MILL_BLOCKS;
    b.process = [&, plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        if (value(in[0], 0, 0) == 0) {
            for (int i = 0; i < 1000 && passed_before < 8; i++) std::this_thread::sleep_for(std::chrono::milliseconds(2));
            slow_done = 1;
        }
        return plain(r, in, n, out, e);
    };
    Behaviour after = keeps([&](int64_t x) {
        if (!slow_done) passed_before++;
        return x % 3 != 0;
    });
    p.source("src", 300, 4);
    p.add("slow", MILL_STEP, {{"src"}}, b, o);
    p.add("after", MILL_STEP, {{"slow"}}, after);
    p.sink("out", "after");
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_GE(passed_before, 8) << "rows behind the slow batch went on";
    ASSERT_EQ(p.rows("out").size(), 200u);
    for (int64_t i = 0; i < 200; i++) EXPECT_EQ(p.rows("out")[i].key, std::to_string(i / 2 * 3 + i % 2 + 1));
}

/* A step that blocks without saying so holds its driver; the others' work goes on elsewhere. */
TEST(Run, WatchdogRelievesDriversOfABlockingStep)
{
    Pipe p;
    std::atomic<int64_t> other{0};
    Behaviour blocks, sink;
    blocks.process = [&](mill_replica *, mill_batch *const *, size_t, mill_emit *out, mill_error *e) -> mill_status {
        for (int i = 0; i < 1000 && other < 100; i++) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return mill_emit_pass(out, e);
    };
    sink.write = [&](mill_replica *, const mill_batch *in, mill_error *) -> mill_status {
        other += mill_batch_rows(in);
        return MILL_OK;
    };
    p.source("a", 10, 5);
    p.add("blocks", MILL_STEP, {{"a"}}, blocks);
    p.sink("out", "blocks");
    p.source("b", 1000, 5);
    p.add("elsewhere", MILL_SINK, {{"b"}}, sink);
    ASSERT_EQ(p.start(1), MILL_OK);
    EXPECT_EQ(p.wait(4), STM_END_DONE) << "the one driver waits for work that only another could do";
    EXPECT_EQ(other, 1000);
    EXPECT_EQ(p.rows("out").size(), 10u);
}

TEST(Run, WatchdogSaysWhoIsAtWorkAndWhatWaits)
{
    static std::mutex lock;
    static std::string said;
    Pipe p;
    Behaviour stuck;
    stuck.process = [&](mill_replica *, mill_batch *const *, size_t, mill_emit *out, mill_error *e) -> mill_status {
        for (int i = 0; i < 2000; i++) { /* until it was told of */
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            const std::lock_guard<std::mutex> hold(lock);
            if (said.find("nothing has moved for") != std::string::npos) break;
        }
        return mill_emit_pass(out, e);
    };
    stuck.flags = MILL_BLOCKS; /* it takes one batch at a time */
    said.clear();
    p.quiet_s = 0.4;
    p.source("a", 30, 5);
    p.add("stuck", MILL_STEP, {{"a"}}, stuck);
    p.sink("out", "stuck");
    stm_log_set(
        [](stm_level, const char *, const char *line, void *) {
            const std::lock_guard<std::mutex> hold(lock);
            said += std::string(line) + "\n";
        },
        nullptr, STM_WARN);
    EXPECT_EQ(p.run(), STM_END_DONE);
    p.destroy();
    stm_log_set(nullptr, nullptr, STM_INFO);
    EXPECT_NE(said.find("stuck[0], process of rows a:0 to a:4"), std::string::npos) << said;
    EXPECT_NE(said.find(" between a and stuck"), std::string::npos) << said;
}

TEST(Run, FilterDropsAndKeysStay)
{
    Pipe p;
    Pipe::Opts o;
    o.batch_rows = 10;
    p.source("src", 1000, 7);
    p.add("odd", MILL_STEP, {{"src"}}, keeps([](int64_t x) { return x % 2 == 1; }));
    p.sink("out", "odd", o);
    ASSERT_EQ(p.run(), STM_END_DONE);
    ASSERT_EQ(p.rows("out").size(), 500u);
    for (int64_t i = 0; i < 500; i++) EXPECT_EQ(p.rows("out")[i].key, std::to_string(2 * i + 1));
    EXPECT_EQ(p.stats("odd").rows_dropped, 500);
}

TEST(Run, ExpandAppendsChildIndex)
{
    Pipe p;
    Pipe::Opts o;
    o.batch_rows = 4;
    p.source("src", 100, 7);
    p.add("grow", MILL_STEP, {{"src"}}, expands(), o);
    p.sink("out", "grow");
    ASSERT_EQ(p.run(), STM_END_DONE);
    size_t at = 0;
    for (int64_t x = 0; x < 100; x++)
        for (int64_t k = 0; k <= x % 3; k++, at++) {
            ASSERT_LT(at, p.rows("out").size());
            EXPECT_EQ(p.rows("out")[at].key, std::to_string(x) + "." + std::to_string(k));
            EXPECT_EQ(p.rows("out")[at].values.at("x"), x);
            EXPECT_EQ(p.rows("out")[at].values.at("child"), k);
        }
    EXPECT_EQ(at, p.rows("out").size());
    const stm_step_stats s = p.stats("grow");
    EXPECT_EQ(s.rows_out, s.rows_in - s.parents_expanded - s.rows_dropped + s.children);
}

/* Rows and children of the same rows in one stream (a join of an expansion with its source), expanded again: keys stay in order,
 * the children of row 5 are not those of its child 5.0, and a join by key behind it pairs what belongs together. */
TEST(Run, RowsAndTheirChildrenExpandTogether)
{
    Pipe p;
    Pipe::Opts small, one, both, pair;
    small.batch_rows = 3;
    small.replicas = 2;
    small.map_out = {{"child", "first"}};
    both.mode = pair.mode = STM_INPUT_JOIN;
    both.on_missing = STM_MISSING_NULL;
    pair.batch_rows = 4;
    one.batch_rows = both.batch_rows = 1; /* batches of the source's rows alone, whose keys are as short as its own */
    p.source("src", 60, 7);
    p.add("grow", MILL_STEP, {{"src"}}, expands(), small);
    p.add("both", MILL_STEP, {{"src"}, {"grow"}}, Behaviour(), both);
    Behaviour twice; /* two children each, also of rows whose x is null */
    twice.adds = {{"second", "int64"}};
    twice.flags = MILL_PER_ROW | MILL_EXPANDS;
    twice.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v, parent;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++)
            for (int64_t k = 0; k < 2; k++) v.push_back(k), parent.push_back(i);
        return emit_int64(r, out, v, e, &parent);
    };
    p.add("again", MILL_STEP, {{"both"}}, twice, one);
    Behaviour same;
    same.uses = {{"second", "int64"}};
    same.adds = {{"copy", "int64"}};
    same.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) v.push_back(value(in[0], 0, i));
        return emit_int64(r, out, v, e);
    };
    small.map_out = {};
    p.add("copy", MILL_STEP, {{"again"}}, same, small);
    p.add("pair", MILL_STEP, {{"again"}, {"copy"}}, Behaviour(), pair);
    p.sink("out", "pair");
    ASSERT_EQ(p.run(), STM_END_DONE) << p.error.msg;
    const std::vector<Row> &rows = p.rows("out");
    size_t at = 0;
    const auto expect = [&](int64_t x, const std::string &key, int64_t first) {
        for (int64_t k = 0; k < 2; k++, at++) {
            ASSERT_LT(at, rows.size());
            EXPECT_EQ(rows[at].key, key + "." + std::to_string(k));
            EXPECT_EQ(rows[at].values.at("first"), first);
            EXPECT_EQ(rows[at].values.at("x"), first == INT64_MIN ? x : INT64_MIN) << "the first input of the join wins the name";
            EXPECT_EQ(rows[at].values.at("second"), k);
            EXPECT_EQ(rows[at].values.at("copy"), k);
        }
    };
    for (int64_t x = 0; x < 60; x++) {
        expect(x, std::to_string(x) + ".-", INT64_MIN);
        for (int64_t c = 0; c <= x % 3; c++) expect(x, std::to_string(x) + "." + std::to_string(c), c);
    }
    EXPECT_EQ(at, rows.size());
}

TEST(Run, DiamondJoinPairsByKey)
{
    Pipe p;
    Pipe::Opts join, a;
    a.batch_rows = 3;
    a.map_out = {{"y", "a"}};
    Pipe::Opts b = a;
    b.batch_rows = 11;
    b.map_out = {{"y", "b"}};
    join.mode = STM_INPUT_JOIN;
    join.batch_rows = 8;
    p.source("src", 500, 7);
    p.add("a", MILL_STEP, {{"src"}}, doubles(), a);
    p.add("b", MILL_STEP, {{"src"}}, doubles(), b);
    Behaviour sum;
    sum.uses = {{"a", "int64"}, {"b", "int64"}};
    sum.adds = {{"sum", "int64"}};
    sum.process = [](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        EXPECT_EQ(n, 2u);
        EXPECT_EQ(mill_batch_rows(in[0]), mill_batch_rows(in[1]));
        std::vector<int64_t> v;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) v.push_back(value(in[0], 0, i) + value(in[0], 1, i));
        return emit_int64(r, out, v, e);
    };
    p.add("sum", MILL_STEP, {{"a"}, {"b"}}, sum, join);
    p.sink("out", "sum");
    ASSERT_EQ(p.run(), STM_END_DONE);
    ASSERT_EQ(p.rows("out").size(), 500u);
    for (int64_t i = 0; i < 500; i++) EXPECT_EQ(p.rows("out")[i].values.at("sum"), 4 * i);
}

TEST(Run, RouterAndConvergence)
{
    Pipe p;
    Pipe::Opts r, o, c;
    r.branches = {"even", "odd"};
    r.batch_rows = 4;
    r.replicas = 2;
    p.source("src", 200, 10);
    Behaviour route;
    route.uses = {{"x", "int64"}};
    route.route = [](mill_replica *, const mill_batch *in, mill_route *out, mill_error *e) -> mill_status {
        return mill_route_to(out, (size_t)(value(in, 0, 0) / 4 % 2), e);
    };
    p.add("router", MILL_ROUTER, {{"src"}}, route, r);
    o.map_out = {{"y", "even_y"}};
    p.add("even", MILL_STEP, {{"router", 0}}, doubles(), o);
    o.map_out = {{"y", "odd_y"}};
    p.add("odd", MILL_STEP, {{"router", 1}}, doubles(), o);
    c.mode = STM_INPUT_CONVERGE;
    p.add("meet", MILL_STEP, {{"even"}, {"odd"}}, Behaviour(), c);
    p.sink("out", "meet");
    ASSERT_EQ(p.run(), STM_END_DONE);
    ASSERT_EQ(p.rows("out").size(), 200u);
    for (int64_t i = 0; i < 200; i++) {
        const Row &row = p.rows("out")[i];
        ASSERT_EQ(row.key, std::to_string(i));
        EXPECT_EQ(row.values.at("x"), i);
        EXPECT_EQ(row.values.at("even_y"), i / 4 % 2 == 0 ? 2 * i : INT64_MIN);
        EXPECT_EQ(row.values.at("odd_y"), i / 4 % 2 == 1 ? 2 * i : INT64_MIN);
    }
}

TEST(Run, AConvergenceTakesAColumnFromTheFirstBranchThatTheRowTook)
{
    for (int64_t rows : {0, 7}) { /* of a batch behind it: those of routed batches, or across them */
        Pipe p;
        Pipe::Opts r, c;
        r.branches = {"a", "b"};
        r.batch_rows = 5;
        c.mode = STM_INPUT_CONVERGE;
        c.batch_rows = rows;
        const auto adds = [](int64_t more) {
            Behaviour b = doubles();
            b.process = [more](mill_replica *rep, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
                std::vector<int64_t> v;
                for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) v.push_back(value(in[0], 0, i) + more);
                return emit_int64(rep, out, v, e);
            };
            return b;
        };
        Behaviour route;
        route.uses = {{"x", "int64"}};
        route.route = [](mill_replica *, const mill_batch *in, mill_route *out, mill_error *e) -> mill_status {
            const int64_t way = value(in, 0, 0) / 5 % 3; /* a, b, both */
            if (way != 1)
                if (mill_status st = mill_route_to(out, 0, e)) return st;
            return way != 0 ? mill_route_to(out, 1, e) : (mill_status)MILL_OK;
        };
        p.source("src", 60, 10);
        p.add("router", MILL_ROUTER, {{"src"}}, route, r);
        p.add("a", MILL_STEP, {{"router", 0}}, adds(1000));
        p.add("b", MILL_STEP, {{"router", 1}}, adds(2000));
        p.add("meet", MILL_STEP, {{"a"}, {"b"}}, Behaviour(), c);
        p.sink("out", "meet");
        ASSERT_EQ(p.run(), STM_END_DONE) << p.error.msg;
        ASSERT_EQ(p.rows("out").size(), 60u);
        for (int64_t i = 0; i < 60; i++) {
            EXPECT_EQ(p.rows("out")[i].values.at("x"), i);
            EXPECT_EQ(p.rows("out")[i].values.at("y"), i + (i / 5 % 3 == 1 ? 2000 : 1000));
        }
    }
}

TEST(Run, UnionIsInputByInput)
{
    Pipe p;
    Pipe::Opts u;
    u.mode = STM_INPUT_UNION;
    u.batch_rows = 9;
    p.source("a", 50, 7);
    p.source("b", 30, 4);
    p.sink("unused", "a");
    p.add("all", MILL_STEP, {{"a"}, {"b"}}, Behaviour(), u);
    p.sink("out", "all");
    ASSERT_EQ(p.run(), STM_END_DONE);
    ASSERT_EQ(p.rows("out").size(), 80u);
    for (int64_t i = 0; i < 80; i++) {
        EXPECT_EQ(p.rows("out")[i].values.at("x"), i < 50 ? i : i - 50);
        EXPECT_EQ(p.rows("out")[i].key.substr(0, 2), i < 50 ? "0." : "1.");
    }
}

TEST(Run, GlobalSeesEverythingAndItsOutputFlowsOn)
{
    Pipe p;
    Behaviour g;
    auto total = std::make_shared<int64_t>(0);
    g.adds = {{"n", "int64"}};
    g.accept = [total](mill_replica *, size_t, const mill_batch *in, mill_error *) -> mill_status {
        *total += mill_batch_rows(in);
        return MILL_OK;
    };
    g.finish = [total](mill_replica *r, mill_emit *out, mill_error *e) -> mill_status {
        for (int64_t i = 0; i < 5; i++) {
            mill_status st = emit_int64(r, out, {*total, i}, e);
            if (st != MILL_OK) return st;
        }
        return MILL_OK;
    };
    p.source("src", 1000, 7);
    p.add("all", MILL_GLOBAL, {{"src"}}, g);
    p.sink("out", "all");
    ASSERT_EQ(p.run(), STM_END_DONE);
    ASSERT_EQ(p.rows("out").size(), 10u);
    for (int64_t i = 0; i < 10; i++) {
        EXPECT_EQ(p.rows("out")[i].key, std::to_string(i));
        EXPECT_EQ(p.rows("out")[i].values.at("n"), i % 2 ? i / 2 : 1000);
    }
}

TEST(Run, LoadGroupsRunOneAfterTheOther)
{
    Pipe p;
    Pipe::Opts later;
    auto order = std::make_shared<std::vector<std::string>>();
    later.stage = 1;
    Behaviour first = doubles(), second = keeps([](int64_t x) { return x % 5 == 0; });
    first.load = [order](mill_replica *, mill_error *) -> mill_status {
        order->push_back("load first");
        return (mill_status)MILL_OK;
    };
    first.unload = [order](mill_replica *) { order->push_back("unload first"); };
    second.load = [order](mill_replica *, mill_error *) -> mill_status {
        order->push_back("load second");
        return (mill_status)MILL_OK;
    };
    second.unload = [order](mill_replica *) { order->push_back("unload second"); };
    p.source("src", 1000, 7);
    p.add("first", MILL_STEP, {{"src"}}, first);
    p.add("second", MILL_STEP, {{"first"}}, second, later);
    p.sink("out", "second", later);
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(p.rows("out").size(), 200u);
    EXPECT_EQ(*order, (std::vector<std::string>{"load first", "unload first", "load second", "unload second"}));
}

TEST(Run, TwoReadersShareOneStream)
{
    Pipe p;
    p.source("src", 300, 7);
    p.add("a", MILL_STEP, {{"src"}}, doubles());
    p.sink("out1", "a");
    p.sink("out2", "src");
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(p.rows("out1").size(), 300u);
    EXPECT_EQ(p.rows("out2").size(), 300u);
}

TEST(Run, DryRunTakesOneBatchOfEachGenerator)
{
    Pipe p;
    p.source("src", 300, 7);
    p.add("a", MILL_STEP, {{"src"}}, doubles());
    p.sink("out", "a");
    ASSERT_EQ(p.start(0, true), MILL_OK);
    EXPECT_EQ(p.wait(30), STM_END_DONE);
    EXPECT_EQ(p.stats("src").rows_out, 7);
    EXPECT_TRUE(p.rows("out").empty()) << "a dry run writes nothing";
}

/* The contract of step.h: a call has rows, or is not made; ends and coverage go on all the same. */
TEST(Run, NoStepIsShownABatchOfNoRows)
{
    static std::atomic<int> calls;
    const auto sees_rows = [](Behaviour b) {
        auto process = b.process;
        b.process = [process](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
            calls++;
            for (size_t i = 0; i < n; i++) EXPECT_GT(mill_batch_rows(in[i]), 0);
            return process(r, in, n, out, e);
        };
        return b;
    };
    for (int64_t keep : {0, 1, 30}) { /* rows that the filter lets through, of 30 */
        SCOPED_TRACE(keep);
        Pipe p;
        Behaviour all, copies = doubles(), route, sink, empties;
        std::atomic<bool> finished{false}, finalized{false}; /* by several sinks at once */
        Pipe::Opts branches, join, five;
        empties.adds = {{"x", "int64"}}; /* every other batch that it emits has no rows */
        empties.generate = [](mill_replica *r, int64_t, mill_cursor *c, bool *last, mill_emit *out, mill_error *e) -> mill_status {
            const int64_t k = c->size++;
            *last = k == 59;
            return emit_int64(r, out, k % 2 == 0 ? std::vector<int64_t>{k / 2} : std::vector<int64_t>{}, e);
        };
        all.adds = {{"n", "int64"}};
        all.accept = [](mill_replica *, size_t, const mill_batch *in, mill_error *) -> mill_status {
            calls++;
            EXPECT_GT(mill_batch_rows(in), 0);
            return MILL_OK;
        };
        all.finish = [&](mill_replica *, mill_emit *, mill_error *) -> mill_status { finished = true; return MILL_OK; };
        route.uses = {{"x", "int64"}};
        route.route = [](mill_replica *, const mill_batch *in, mill_route *out, mill_error *e) -> mill_status {
            calls++;
            EXPECT_GT(mill_batch_rows(in), 0);
            return mill_route_to(out, 1, e);
        };
        sink.write = [](mill_replica *, const mill_batch *in, mill_error *) -> mill_status {
            calls++;
            EXPECT_GT(mill_batch_rows(in), 0);
            return MILL_OK;
        };
        sink.finalize = [&](mill_replica *, mill_error *) -> mill_status { finalized = true; return MILL_OK; };
        branches.branches = {"never", "always"};
        join.mode = STM_INPUT_JOIN;
        join.on_missing = STM_MISSING_DROP;
        five.batch_rows = 5;
        calls = 0;
        p.add("src", MILL_GENERATOR, {}, empties, five);
        p.add("filter", MILL_STEP, {{"src"}}, sees_rows(keeps([keep](int64_t x) { return x < keep; })));
        p.add("after", MILL_STEP, {{"filter"}}, sees_rows(copies));
        p.add("fives", MILL_STEP, {{"filter"}}, sees_rows(copies), five);
        p.add("both", MILL_STEP, {{"src"}, {"filter"}}, sees_rows(copies), join);
        p.add("router", MILL_ROUTER, {{"filter"}}, route, branches);
        p.add("never", MILL_STEP, {{"router", 0}}, sees_rows(copies));
        p.add("always", MILL_STEP, {{"router", 1}}, sees_rows(copies));
        p.add("all", MILL_GLOBAL, {{"filter"}}, all);
        p.add("rest", MILL_STEP, {{"all"}}, [] { Behaviour b; b.uses = {{"n", "int64"}}; return b; }());
        for (const char *from : {"after", "fives", "both", "never", "always", "rest"})
            p.add(std::string("out_") + from, MILL_SINK, {{from}}, sink);
        ASSERT_EQ(p.run(), STM_END_DONE) << p.error.msg;
        EXPECT_TRUE(finished && finalized);
        EXPECT_GE(calls, 30) << "the filter's own";
        p.destroy();
    }
}

TEST(Run, LimitCountsRows)
{
    Pipe p;
    p.source("src", 300, 7);
    p.sink("out", "src");
    ASSERT_EQ(p.start(0, false, 100), MILL_OK);
    EXPECT_EQ(p.wait(30), STM_END_DONE);
    EXPECT_EQ(p.rows("out").size(), 100u);
}

TEST(Run, StartFailsCleanlyAtEveryAllocation)
{
    int64_t fired = 0;
    for (int64_t nth = 0;; nth++) {
        const long before = live();
        bool done = false;
        {
            Pipe p;
            p.source("src", 20, 7);
            p.add("double", MILL_STEP, {{"src"}}, doubles());
            p.sink("out", "double");
            FailNth fail(nth, STM_FAULT_ALLOC | STM_FAULT_THREAD);
            if (p.start() == MILL_OK) {
                const stm_run_end end = stm_run_wait(p.handle(), 20, &p.error);
                EXPECT_NE(end, STM_END_RUNNING) << "hangs when point " << nth << " fails";
                if (end == STM_END_DONE) EXPECT_EQ(p.rows("out").size(), 20u);
                else EXPECT_STRNE(p.error.msg, "");
            } else {
                EXPECT_STRNE(p.error.msg, "") << "point " << nth;
            }
            p.destroy();
            done = !fail.fired();
        }
        EXPECT_EQ(live(), before) << "leak when point " << nth << " fails";
        if (done) break;
        fired++;
    }
    EXPECT_GT(fired, 20);
}
