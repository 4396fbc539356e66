/* What the reference system does wrong (semantics, part B), each by its number or place, and what is done instead. */
#include "behaviours.h"

using namespace mt;

TEST(Defects, R1_LastBatchWithoutRowsStillEndsTheSuccessor)
{
    Pipe p;
    p.source("src", 10, 5);
    p.add("first_half", MILL_STEP, {{"src"}}, keeps([](int64_t x) { return x < 5; }));
    p.sink("out", "first_half", rows_per_batch(5));
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 5);
    EXPECT_TRUE(p.finalized("out"));
}

TEST(Defects, R2_UnevenInputsOfAJoin)
{
    for (stm_on_uneven policy : {STM_UNEVEN_ERROR, STM_UNEVEN_NULL}) {
        Pipe p;
        Pipe::Opts join = rows_per_batch(4);
        join.mode = STM_INPUT_JOIN;
        join.on_uneven = policy;
        p.source("long", 30, 5);
        p.source("short", 12, 5, "s");
        p.add("pair", MILL_STEP, {{"long"}, {"short"}}, Behaviour(), join);
        p.sink("out", "pair");
        if (policy == STM_UNEVEN_ERROR) {
            EXPECT_EQ(p.run(), STM_END_FAILED);
            EXPECT_NE(strstr(p.error.msg, "12"), nullptr) << p.error.msg;
            EXPECT_STREQ(p.error.step, "pair");
            continue;
        }
        ASSERT_EQ(p.run(), STM_END_DONE);
        ASSERT_EQ(p.rows("out").size(), 30u);
        for (int64_t i = 0; i < 30; i++) EXPECT_EQ(p.rows("out")[i].values.at("s"), i < 12 ? i : INT64_MIN);
    }
}

TEST(Defects, R3_GlobalWithoutRowsFinishes)
{
    Pipe p;
    auto finished = std::make_shared<int>(0);
    Behaviour g;
    g.adds = {{"n", "int64"}};
    g.finish = [finished](mill_replica *r, mill_emit *out, mill_error *e) -> mill_status {
        ++*finished;
        return emit_int64(r, out, {42}, e);
    };
    p.source("src", 0, 5);
    p.add("all", MILL_GLOBAL, {{"src"}}, g);
    p.sink("out", "all");
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(*finished, 1);
    ASSERT_EQ(p.rows("out").size(), 1u);
}

TEST(Defects, R4_RoutingWithoutConvergence)
{
    Pipe p;
    Pipe::Opts r = rows_per_batch(5);
    r.branches = {"a", "b", "never"};
    p.source("src", 100, 10);
    p.add("router", MILL_ROUTER, {{"src"}}, routes([](int64_t x) { return std::vector<size_t>{(size_t)(x / 5 % 2)}; }), r);
    p.sink("a", "router", Pipe::Opts(), 0);
    p.sink("b", "router", Pipe::Opts(), 1);
    p.sink("never", "router", Pipe::Opts(), 2);
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(p.rows("a").size(), 50u);
    EXPECT_EQ(p.rows("b").size(), 50u);
    EXPECT_EQ(p.rows("never").size(), 0u);
    for (const char *s : {"a", "b", "never"}) EXPECT_TRUE(p.finalized(s)) << s;
}

TEST(Defects, R5_RoutingToAllSuccessorsConverges)
{
    Pipe p;
    Pipe::Opts r = rows_per_batch(5), c = rows_per_batch(5), a, b;
    r.branches = {"a", "b"};
    c.mode = STM_INPUT_CONVERGE;
    a.map_out = {{"y", "ya"}};
    b.map_out = {{"y", "yb"}};
    p.source("src", 100, 10);
    p.add("router", MILL_ROUTER, {{"src"}}, routes([](int64_t) { return std::vector<size_t>{0, 1}; }), r);
    p.add("a", MILL_STEP, {{"router", 0}}, maps([](int64_t x) { return x + 1; }), a);
    p.add("b", MILL_STEP, {{"router", 1}}, maps([](int64_t x) { return x + 2; }), b);
    p.add("meet", MILL_STEP, {{"a"}, {"b"}}, Behaviour(), c);
    p.sink("out", "meet");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 100);
    for (int64_t i = 0; i < 100; i++) {
        EXPECT_EQ(p.rows("out")[i].values.at("ya"), i + 1);
        EXPECT_EQ(p.rows("out")[i].values.at("yb"), i + 2);
    }
}

TEST(Defects, R6_RouterWithReplicas)
{
    Pipe p;
    Pipe::Opts r = rows_per_batch(2, 4), c;
    r.branches = {"a", "b"};
    c.mode = STM_INPUT_CONVERGE;
    Behaviour slow = routes([](int64_t x) {
        std::this_thread::sleep_for(std::chrono::microseconds(x * 7919 % 200));
        return std::vector<size_t>{(size_t)(x / 2 % 2)};
    });
    slow.flags = MILL_BLOCKS;
    p.source("src", 400, 10);
    p.add("router", MILL_ROUTER, {{"src"}}, slow, r);
    p.add("a", MILL_STEP, {{"router", 0}}, maps([](int64_t x) { return x; }));
    p.add("b", MILL_STEP, {{"router", 1}}, maps([](int64_t x) { return x; }));
    p.add("meet", MILL_STEP, {{"a"}, {"b"}}, Behaviour(), c);
    p.sink("out", "meet");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 400);
    for (int64_t i = 0; i < 400; i++) EXPECT_EQ(p.rows("out")[i].values.at("y"), i);
}

TEST(Defects, R7_ShortBatchesInTheMiddleOfARoute)
{
    Pipe p;
    Pipe::Opts r = rows_per_batch(8), c, branch = rows_per_batch(3);
    r.branches = {"a", "b"};
    c.mode = STM_INPUT_CONVERGE;
    p.source("src", 300, 10);
    p.add("some", MILL_STEP, {{"src"}}, keeps([](int64_t x) { return x % 7 != 0; }));
    p.add("router", MILL_ROUTER, {{"some"}}, routes([](int64_t x) { return std::vector<size_t>{(size_t)(x % 2)}; }), r);
    p.add("thin", MILL_STEP, {{"router", 0}}, maps([](int64_t x) { return x; }), branch);
    p.add("thick", MILL_STEP, {{"router", 1}}, maps([](int64_t x) { return x; }));
    p.add("meet", MILL_STEP, {{"thin"}, {"thick"}}, Behaviour(), c);
    p.sink("out", "meet");
    ASSERT_EQ(p.run(), STM_END_DONE);
    size_t at = 0;
    for (int64_t x = 0; x < 300; x++) {
        if (x % 7 == 0) continue;
        ASSERT_LT(at, p.rows("out").size());
        EXPECT_EQ(p.rows("out")[at].values.at("x"), x);
        EXPECT_EQ(p.rows("out")[at++].values.at("y"), x);
    }
    EXPECT_EQ(at, p.rows("out").size());
}

TEST(Defects, R8_BranchesMayChangeTheRowCount)
{
    Pipe p;
    Pipe::Opts r = rows_per_batch(10), c;
    r.branches = {"drop", "keep"};
    c.mode = STM_INPUT_CONVERGE;
    p.source("src", 100, 10);
    p.add("router", MILL_ROUTER, {{"src"}}, routes([](int64_t x) { return std::vector<size_t>{(size_t)(x / 10 % 2)}; }), r);
    p.add("drop", MILL_STEP, {{"router", 0}}, keeps([](int64_t x) { return x % 10 == 3; }));
    p.add("keep", MILL_STEP, {{"router", 1}}, maps([](int64_t x) { return x; }));
    p.add("meet", MILL_STEP, {{"drop"}, {"keep"}}, Behaviour(), c);
    p.sink("out", "meet");
    ASSERT_EQ(p.run(), STM_END_DONE);
    std::vector<int64_t> want;
    for (int64_t x = 0; x < 100; x++)
        if (x / 10 % 2 == 1 || x % 10 == 3) want.push_back(x);
    ASSERT_EQ(p.rows("out").size(), want.size());
    for (size_t i = 0; i < want.size(); i++) EXPECT_EQ(p.rows("out")[i].values.at("x"), want[i]);
}

/* A branch that filters a whole routed batch has taken it all the same: its rows are missing, and on_missing decides. A branch that
 * was not chosen misses nothing. Also where the branches are stored between load groups. */
TEST(Defects, R8_WhatABranchFilteredIsMissing)
{
    const struct {
        const char *name;
        stm_on_missing missing;
        int32_t stage;
        int64_t batch_rows;
    } cases[] = {{"null", STM_MISSING_NULL, 0, 0},
                 {"drop", STM_MISSING_DROP, 0, 0},
                 {"drop, larger batches", STM_MISSING_DROP, 0, 7},
                 {"drop, stored", STM_MISSING_DROP, 1, 0},
                 {"error", STM_MISSING_ERROR, 0, 0},
                 {"error, stored", STM_MISSING_ERROR, 1, 3}};
    for (const auto &k : cases) {
        SCOPED_TRACE(k.name);
        Pipe p;
        Pipe::Opts r, f, c;
        r.branches = {"all", "some", "never"};
        r.batch_rows = 4;
        r.replicas = f.replicas = 2;
        p.source("src", 60, 10);
        p.add("router", MILL_ROUTER, {{"src"}}, /* every third batch goes to one branch only */
              routes([](int64_t x) { return x / 4 % 3 == 0 ? std::vector<size_t>{0} : std::vector<size_t>{0, 1}; }), r);
        f.map_out = {{"y", "only_all"}};
        p.add("all", MILL_STEP, {{"router", 0}}, maps([](int64_t x) { return -x; }), f);
        f.map_out = {};
        f.batch_rows = 3;
        /* all of a batch, or nothing */
        p.add("some", MILL_STEP, {{"router", 1}}, keeps([](int64_t x) { return x / 4 % 3 == 1; }), f);
        p.add("never", MILL_STEP, {{"router", 2}}, maps([](int64_t x) { return x; }));
        c.mode = STM_INPUT_CONVERGE;
        c.on_missing = k.missing;
        c.batch_rows = k.batch_rows;
        c.stage = k.stage;
        p.add("meet", MILL_STEP, {{"all"}, {"some"}, {"never"}}, Behaviour(), c);
        Pipe::Opts out;
        out.stage = k.stage;
        p.sink("out", "meet", out);
        const stm_run_end end = p.run();
        if (k.missing == STM_MISSING_ERROR) {
            EXPECT_EQ(end, STM_END_FAILED);
            EXPECT_NE(std::string(p.error.msg).find("row src:8 is in 'all' but not in 'some'"),
                      std::string::npos) << std::string(p.error.msg);
            continue;
        }
        ASSERT_EQ(end, STM_END_DONE);
        std::vector<int64_t> want;
        for (int64_t x = 0; x < 60; x++)
            if (k.missing == STM_MISSING_NULL || x / 4 % 3 != 2) want.push_back(x);
        ASSERT_EQ(p.rows("out").size(), want.size());
        for (size_t i = 0; i < want.size(); i++) EXPECT_EQ(p.rows("out")[i].values.at("x"), want[i]);
    }
}

TEST(Defects, R9_GeneratorWhoseReadersAreInLaterLoadGroups)
{
    Pipe p;
    Pipe::Opts s1 = rows_per_batch(5), s2;
    s1.stage = 1;
    s2.stage = 2;
    p.source("src", 100, 10);
    p.add("a", MILL_STEP, {{"src"}}, maps([](int64_t x) { return x; }), s1);
    p.sink("out", "a", s2);
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 100);
}

/* A load group may end at a router, inside a branch, and in front of the convergence: every branch is stored with its borders. */
TEST(Defects, R9_LoadGroupsThatCutARoute)
{
    for (int cut = 0; cut < 4; cut++) {
        SCOPED_TRACE("cut " + std::to_string(cut));
        Pipe p;
        Pipe::Opts r = rows_per_batch(5, 2), c = rows_per_batch(7), a = rows_per_batch(2, 2), b, out;
        r.branches = {"a", "b", "both_read"};
        c.mode = STM_INPUT_CONVERGE;
        a.map_out = {{"y", "ya"}};
        b.map_out = {{"y", "yb"}};
        r.stage = 0;
        a.stage =
            cut == 0 || cut == 3 ? 1 : 0; /* 0: behind the router; 1: one branch only; 2: behind both; 3: every step by itself */
        b.stage = cut == 2 ? 0 : cut == 3 ? 2 : 1;
        c.stage = out.stage = cut == 3 ? 3 : 1;
        p.source("src", 103, 10);
        p.add("router", MILL_ROUTER, {{"src"}}, routes([](int64_t x) {
                  return x / 5 % 4 == 3 ? std::vector<size_t>{0, 1} : std::vector<size_t>{(size_t)(x / 5 % 4)};
              }),
              r);
        p.add("a", MILL_STEP, {{"router", 0}}, maps([](int64_t x) { return x + 1; }), a);
        p.add("b", MILL_STEP, {{"router", 1}}, maps([](int64_t x) { return x + 2; }), b);
        p.add("meet", MILL_STEP, {{"a"}, {"b"}, {"router", 2}}, Behaviour(), c);
        p.sink("out", "meet", out);
        p.sink("straight", "router", out, 2);
        ASSERT_EQ(p.run(), STM_END_DONE) << p.error.msg;
        expect_rows(p, "out", 103);
        for (int64_t i = 0; i < 103; i++) {
            const int64_t way = i / 5 % 4;
            EXPECT_EQ(p.rows("out")[i].values.at("ya"), way == 0 || way == 3 ? i + 1 : INT64_MIN);
            EXPECT_EQ(p.rows("out")[i].values.at("yb"), way == 1 || way == 3 ? i + 2 : INT64_MIN);
        }
        EXPECT_EQ(p.rows("straight").size(), 25u);
    }
}

TEST(Defects, R11_BranchesWithDifferentColumns)
{
    Pipe p;
    Pipe::Opts r = rows_per_batch(5), c = rows_per_batch(50), a, b;
    r.branches = {"a", "b"};
    c.mode = STM_INPUT_CONVERGE;
    a.map_out = {{"y", "only_a"}};
    b.map_out = {{"y", "only_b"}};
    p.source("src", 200, 10);
    p.add("router", MILL_ROUTER, {{"src"}}, routes([](int64_t x) { return std::vector<size_t>{(size_t)(x / 5 % 2)}; }), r);
    p.add("a", MILL_STEP, {{"router", 0}}, maps([](int64_t x) { return -x; }), a);
    p.add("b", MILL_STEP, {{"router", 1}}, maps([](int64_t x) { return x; }), b);
    p.add("meet", MILL_STEP, {{"a"}, {"b"}}, Behaviour(), c);
    p.sink("out", "meet");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 200);
    for (int64_t i = 0; i < 200; i++) {
        EXPECT_EQ(p.rows("out")[i].values.at("only_a"), i / 5 % 2 == 0 ? -i : INT64_MIN);
        EXPECT_EQ(p.rows("out")[i].values.at("only_b"), i / 5 % 2 == 1 ? i : INT64_MIN);
    }
}

/* 2.1 */
TEST(Defects, GeneratorThatEndsWithoutSayingLast)
{
    Pipe p;
    Behaviour g;
    g.adds = {{"x", "int64"}};
    g.generate = [](mill_replica *r, int64_t, mill_cursor *c, bool *, mill_emit *out, mill_error *e) -> mill_status {
        if (c->size >= 3) return MILL_OK;
        const int64_t base = c->size * 2;
        c->size++;
        return emit_int64(r, out, {base, base + 1}, e);
    };
    p.add("src", MILL_GENERATOR, {}, g, rows_per_batch(2));
    p.sink("out", "src");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 6);
}

/* 2.1: what a generator yields after last is not taken; it is not even asked */
TEST(Defects, AGeneratorIsNotAskedAfterLast)
{
    Pipe p;
    std::atomic<int> asked{0};
    Behaviour g;
    g.adds = {{"x", "int64"}};
    g.generate = [&](mill_replica *r, int64_t, mill_cursor *c, bool *last, mill_emit *out, mill_error *e) -> mill_status {
        asked++;
        const int64_t at = c->size++;
        *last = at >= 2;
        return emit_int64(r, out, {at}, e);
    };
    p.add("src", MILL_GENERATOR, {}, g, rows_per_batch(1));
    p.sink("out", "src");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 3);
    EXPECT_EQ(asked, 3);
}

/* 5.4: replicas that have nothing left to do keep what they hold until the step behind them ends */
TEST(Defects, AStepIsUnloadedAtItsOwnEnd)
{
    Pipe p;
    std::atomic<int> unloads{0}, at_last_row{-1};
    Behaviour holds = maps([](int64_t x) { return x; });
    holds.unload = [&](mill_replica *) { unloads++; };
    Behaviour waits = maps([](int64_t x) { return x; }, "z");
    auto plain = waits.process;
    waits.flags = MILL_BLOCKS;
    waits.process = [&, plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        for (int ms = 0; ms < 10000 && unloads < 3; ms++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        at_last_row = unloads.load();
        return plain(r, in, n, out, e);
    };
    p.source("src", 12, 2);
    p.add("holds", MILL_STEP, {{"src"}}, holds, rows_per_batch(2, 3));
    p.add("waits", MILL_STEP, {{"holds"}}, waits, rows_per_batch(2));
    p.sink("out", "waits");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 12);
    EXPECT_EQ(at_last_row, 3) << "all three replicas are gone while the step behind them still works";
}

/* 2.2: only the first yield is used */
TEST(Defects, AllEmitsOfACallAreOneBatch)
{
    Pipe p;
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.adds = {{"y", "int64"}};
    b.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> first, second;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) (i < 2 ? first : second).push_back(value(in[0], 0, i));
        if (mill_status st = emit_int64(r, out, first, e)) return st;
        return emit_int64(r, out, second, e);
    };
    p.source("src", 50, 5);
    p.add("twice", MILL_STEP, {{"src"}}, b);
    p.sink("out", "twice");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 50);
    for (int64_t i = 0; i < 50; i++) EXPECT_EQ(p.rows("out")[i].values.at("y"), i);
}

/* 2.3: the rows of the other inputs vanish */
TEST(Defects, ImputationKeepsTheColumnsOfAllInputs)
{
    Pipe p;
    Pipe::Opts join;
    join.mode = STM_INPUT_JOIN;
    p.source("a", 20, 5, "x");
    p.source("b", 20, 5, "z");
    p.add("pair", MILL_STEP, {{"a"}, {"b"}}, fails("no luck"), join);
    p.sink("out", "pair");
    ASSERT_EQ(p.run(), STM_END_DONE);
    ASSERT_EQ(p.rows("out").size(), 20u);
    for (int64_t i = 0; i < 20; i++) {
        EXPECT_EQ(p.rows("out")[i].values.at("x"), i);
        EXPECT_EQ(p.rows("out")[i].values.at("z"), i);
        EXPECT_EQ(p.rows("out")[i].values.at("y"), INT64_MIN);
        EXPECT_NE(p.rows("out")[i].error, 0) << "every imputed row is marked";
    }
}

/* 4.1: replicas of a step do nothing in parallel, whatever their number */
TEST(Defects, ReplicasWorkAtTheSameTimeAtAnyRatioOfBatchSizes)
{
    for (auto [from, to] : {std::pair<int64_t, int64_t>{10, 10}, {100, 10}, {10, 40}}) {
        Pipe p;
        std::atomic<int> now{0}, most{0};
        Behaviour b = maps([](int64_t x) { return x; });
        auto plain = b.process;
        b.flags = MILL_BLOCKS;
        b.process = [&, plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
            const int k = ++now;
            for (int m = most; k > m && !most.compare_exchange_weak(m, k);) {}
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            now--;
            return plain(r, in, n, out, e);
        };
        p.source("src", 640, from);
        p.add("sleeps", MILL_STEP, {{"src"}}, b, rows_per_batch(to, 4));
        p.sink("out", "sleeps");
        ASSERT_EQ(p.run(), STM_END_DONE);
        expect_rows(p, "out", 640);
        EXPECT_EQ(most, 4) << from << " rows to " << to;
    }
}

/* 4.1: the number of rows in flight grows without bound */
TEST(Defects, RowsInFlightAreBoundedByTheCredit)
{
    Pipe p;
    std::atomic<int64_t> made{0}, eaten{0}, most{0};
    Behaviour g;
    g.adds = {{"x", "int64"}};
    g.generate = [&](mill_replica *r, int64_t max, mill_cursor *, bool *last, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v;
        for (int64_t i = 0; i < max && i < 100; i++) v.push_back(made++);
        *last = made >= 20000;
        return emit_int64(r, out, v, e);
    };
    Behaviour slow = maps([](int64_t x) { return x; });
    auto plain = slow.process;
    slow.process = [&, plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        const int64_t ahead = made - eaten;
        if (ahead > most) most = ahead;
        return plain(r, in, n, out, e);
    };
    p.add("src", MILL_GENERATOR, {}, g, rows_per_batch(100));
    p.add("slow", MILL_STEP, {{"src"}}, slow, rows_per_batch(10));
    Behaviour k;
    k.write = [&](mill_replica *, const mill_batch *in, mill_error *) -> mill_status {
        eaten += mill_batch_rows(in);
        return MILL_OK;
    };
    p.add("out", MILL_SINK, {{"slow"}}, k);
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_GT(most, 0);
    EXPECT_LE(most, 16 * 100 + 100) << "the default credit is 16 batches of the generator";
}
