/* What a pipeline says about failures acts wherever rows can fail: batches, single rows, sources, routers. */
#include "behaviours.h"

using namespace mt;

namespace {

void policy_stop(stm_policy *pol) { pol->on_error = STM_ON_ERROR_STOP; }

/* Emits rows as the source does and marks those that @p bad says. */
Behaviour marking_source(int64_t rows, std::function<bool(int64_t)> bad)
{
    Behaviour b;
    b.adds = {{"x", "int64"}};
    b.generate = [=](mill_replica *r, int64_t max, mill_cursor *cursor, bool *last, mill_emit *out,
                     mill_error *err) -> mill_status {
        int64_t at = 0;
        if (cursor->size) memcpy(&at, cursor->bytes, sizeof at);
        std::vector<int64_t> v;
        for (; at < rows && (int64_t)v.size() < max; at++) {
            if (bad(at)) {
                mill_error e = {};
                mill_fail(&e, MILL_ERR_PARSE, "line %lld", (long long)at);
                if (mill_status st = mill_emit_row_error(out, (int64_t)v.size(), &e)) return st;
            }
            v.push_back(at);
        }
        cursor->size = sizeof at;
        memcpy(cursor->bytes, &at, sizeof at);
        *last = at == rows;
        return emit_int64(r, out, v, err);
    };
    return b;
}

/* y = x; rows that @p bad says are marked as failed. @p twice: in two emits. */
Behaviour marking_step(std::function<bool(int64_t)> bad, bool twice)
{
    Behaviour b = maps([](int64_t x) { return x; });
    b.process = [=](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *err) -> mill_status {
        const int64_t n = mill_batch_rows(in[0]), cut = twice ? n / 2 : n;
        std::vector<int64_t> v;
        for (int64_t i = 0; i < n; i++) v.push_back(value(in[0], 0, i));
        for (int64_t i = 0; i < cut; i++)
            if (bad(v[(size_t)i])) {
                mill_error e = {};
                mill_fail(&e, MILL_ERR_DATA, "answer %lld", (long long)v[(size_t)i]);
                if (mill_status st = mill_emit_row_error(out, i, &e)) return st;
            }
        if (mill_status st = emit_int64(r, out, std::vector<int64_t>(v.begin(), v.begin() + cut), err)) return st;
        return twice ? emit_int64(r, out, std::vector<int64_t>(v.begin() + cut, v.end()), err) : (mill_status)MILL_OK;
    };
    return b;
}

} // namespace

TEST(OnErrorStop, ActsOnARowThatTheStepMarks)
{
    for (bool twice : {false, true})
        for (bool hidden : {false, true}) { /* rows nulled before take the other way through the wrapper */
            SCOPED_TRACE(std::string(twice ? "two emits" : "one emit") + (hidden ? ", hidden rows" : ""));
            Pipe p;
            Pipe::Opts o;
            o.policy = policy_stop;
            p.add("src", MILL_GENERATOR, {}, marking_source(500, [=](int64_t x) { return hidden && x % 10 == 3; }),
                  rows_per_batch(10));
            p.add("asks", MILL_STEP, {{"src"}}, marking_step([](int64_t x) { return x == 52; }, twice), o);
            p.sink("out", "asks");
            EXPECT_EQ(p.run(), STM_END_FAILED);
            EXPECT_STREQ(p.error.msg, "answer 52");
            EXPECT_STREQ(p.error.step, "asks");
            EXPECT_STREQ(p.error.context, "on_error: stop, row src:52");
            EXPECT_EQ(p.error.status, MILL_ERR_DATA);
            EXPECT_LE(p.rows("out").size(), 50u);
            EXPECT_EQ(p.stats("asks").rows_failed, 0) << "nothing is imputed: the run ends";
        }
}

TEST(OnErrorStop, AFailedBatchNamesItsRows)
{
    Pipe p;
    Pipe::Opts o;
    o.policy = policy_stop;
    p.source("src", 20, 5);
    p.add("broken", MILL_STEP, {{"src"}}, fails("no"), o);
    p.sink("out", "broken");
    EXPECT_EQ(p.run(), STM_END_FAILED);
    EXPECT_STREQ(p.error.context, "on_error: stop, rows src:0 to src:4");
}

/* Memory of a device that is short is no fault of the rows: less at once is tried before anything stops. */
TEST(OnErrorStop, WhatDoesNotFitIsHalvedFirst)
{
    for (const bool ever_fits : {true, false}) {
        Pipe p;
        Pipe::Opts o = rows_per_batch(20);
        o.policy = [](stm_policy *pol) { pol->on_error = STM_ON_ERROR_STOP; };
        Behaviour b = maps([](int64_t x) { return 10 * x; });
        const auto plain = b.process;
        b.process = [plain, ever_fits](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out,
                                       mill_error *e) -> mill_status {
            return mill_batch_rows(in[0]) > (ever_fits ? 4 : 0) ? mill_fail(e, MILL_ERR_DEVICE_MEM, "too much")
                                                                : plain(r, in, n, out, e);
        };
        p.source("src", 20, 20);
        p.add("tight", MILL_STEP, {{"src"}}, b, o);
        p.sink("out", "tight");
        const stm_run_end end = p.run();
        EXPECT_EQ(end == STM_END_DONE, ever_fits) << p.error.msg;
        EXPECT_EQ(p.rows("out").size(), ever_fits ? 20u : 0u);
        EXPECT_EQ(p.errors.empty(), ever_fits);
    }
}

TEST(OnErrorStop, AMessageThatLooksLikeStopIfStopsNothing)
{
    Pipe p;
    Behaviour k;
    k.write = [](mill_replica *, const mill_batch *, mill_error *e) -> mill_status {
        return mill_fail(e, MILL_ERR_IO, "stop_if: not the engine's words");
    };
    p.source("src", 200, 5);
    p.add("lost", MILL_SINK, {{"src"}}, k);
    p.sink("out", "src");
    EXPECT_EQ(p.run(), STM_END_FAILED);
    expect_rows(p, "out", 200);
}

/* The same share of bad rows, wherever they turn up: the run ends about where the share is passed, and not where it is not. */
TEST(StopIf, ActsWhereverRowsFail)
{
    const struct {
        const char *name;
        std::function<void(Pipe &, const Pipe::Opts &, std::function<bool(int64_t)>)> build;
    } places[] = {
        {"failed batches", [](Pipe &p, const Pipe::Opts &o, std::function<bool(int64_t)> bad) {
             Behaviour b = maps([](int64_t x) { return x; });
             auto plain = b.process;
             b.process = [=](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
                 return bad(value(in[0], 0, 0)) ? mill_fail(e, MILL_ERR_STEP, "no") : plain(r, in, n, out, e);
             };
             p.source("src", 4000, 1);
             p.add("at", MILL_STEP, {{"src"}}, b, o);
         }},
        {"marked rows", [](Pipe &p, const Pipe::Opts &o, std::function<bool(int64_t)> bad) {
             p.source("src", 4000, 10);
             p.add("at", MILL_STEP, {{"src"}}, marking_step(bad, false), o);
         }},
        {"a source's rows", [](Pipe &p, const Pipe::Opts &o, std::function<bool(int64_t)> bad) {
             Pipe::Opts g = o;
             g.batch_rows = 10;
             p.add("at", MILL_GENERATOR, {}, marking_source(4000, bad), g);
         }},
        {"a router's batches", [](Pipe &p, const Pipe::Opts &o, std::function<bool(int64_t)> bad) {
             Pipe::Opts r = o;
             r.branches = {"a"};
             p.source("src", 4000, 1);
             p.add("at", MILL_ROUTER, {{"src"}},
                   routes([=](int64_t x) { return bad(x) ? std::vector<size_t>{} : std::vector<size_t>{0}; }), r);
         }},
    };
    for (auto &place : places)
        for (int64_t every : {10, 2}) { /* one bad row in so many */
            SCOPED_TRACE(std::string(place.name) + ", one in " + std::to_string(every));
            Pipe p;
            Pipe::Opts o;
            o.policy = [](stm_policy *pol) {
                pol->stop_failed = 0.3;
                pol->stop_of = 100;
            };
            place.build(p, o, [=](int64_t x) { return x >= 500 && x % every == 1; });
            p.sink("out", "at");
            const stm_run_end end = p.run();
            if (every == 10) {
                EXPECT_EQ(end, STM_END_DONE) << p.error.msg;
                EXPECT_EQ(p.rows("out").size(), 4000u);
                continue;
            }
            EXPECT_EQ(end, STM_END_FAILED);
            EXPECT_EQ(p.error.status, MILL_ERR_STOP_IF);
            EXPECT_STREQ(p.error.step, "at");
            EXPECT_GT(p.stats("at").rows_failed, 25);
            EXPECT_LT(p.stats("at").rows_failed, 40) << "60 rows of which every other is bad fill the share";
        }
}

/* A row whose input an earlier failure nulled is shown to a step that says so, and hidden from all others; it is counted once in
 * both cases. */
TEST(Nulls, OfImputationAreHiddenUnlessTheStepWantsThem)
{
    for (bool pass : {false, true}) {
        SCOPED_TRACE(pass ? "pass" : "skip");
        Pipe p;
        Pipe::Opts o;
        std::atomic<int> seen{0}, seen_x{0};
        Behaviour bad = maps([](int64_t x) { return x; }), looks, other;
        const auto plain = bad.process;
        bad.process = [plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
            return value(in[0], 0, 0) == 10 ? mill_fail(e, MILL_ERR_STEP, "not ten") : plain(r, in, n, out, e);
        };
        const auto counts = [](std::atomic<int> *rows) {
            return [rows](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
                std::vector<int64_t> v;
                for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) {
                    const int64_t x = value(in[0], 0, i);
                    v.push_back(x == INT64_MIN ? -1 : x);
                }
                *rows += (int)v.size();
                return emit_int64(r, out, v, e);
            };
        };
        looks.uses = {{"y", "int64"}};
        looks.adds = {{"z", "int64"}};
        looks.process = counts(&seen);
        other.uses = {{"x", "int64"}}; /* not nulled */
        other.adds = {{"w", "int64"}};
        other.process = counts(&seen_x);
        o.policy = [pass](stm_policy *pol) { pol->nulls_pass = pass; };
        p.source("src", 20, 5);
        p.add("bad", MILL_STEP, {{"src"}}, bad);
        p.add("looks", MILL_STEP, {{"bad"}}, looks, o);
        p.add("other", MILL_STEP, {{"looks"}}, other);
        p.sink("out", "other");
        ASSERT_EQ(p.run(), STM_END_DONE) << p.error.msg;
        expect_rows(p, "out", 20);
        for (int64_t i = 0; i < 20; i++) {
            const bool nulled = i >= 10 && i < 15;
            const Row &row = p.rows("out")[(size_t)i];
            EXPECT_EQ(row.values.at("y"), nulled ? INT64_MIN : i);
            EXPECT_EQ(row.values.at("z"), !nulled ? i : pass ? -1 : INT64_MIN);
            EXPECT_EQ(row.values.at("w"), i);
            EXPECT_EQ(row.error != 0, nulled);
        }
        EXPECT_EQ(seen, pass ? 20 : 15);
        EXPECT_EQ(seen_x, 20) << "a step that reads nothing of it gets the row";
        EXPECT_EQ(p.stats("looks").rows_skipped, pass ? 0 : 5);
        EXPECT_EQ(p.errors.size(), 1u);
        EXPECT_EQ(stm_run_imputed_rows(p.handle()), 5);
    }
}

/* From a router, too: rows that failed before go with the others of their batch, or by themselves to the first branch, and do not
 * fail again. */
TEST(Nulls, OfImputationAreHiddenFromRouters)
{
    for (bool pass : {false, true}) {
        SCOPED_TRACE(pass ? "pass" : "skip");
        Pipe p;
        Pipe::Opts halves, r = rows_per_batch(5);
        Behaviour bad = maps([](int64_t x) { return x; }), router;
        const auto plain = bad.process;
        std::atomic<int> seen{0}, nulls{0};
        bad.process = [plain](mill_replica *rep, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
            for (int64_t i = 0; i < mill_batch_rows(in[0]); i++)
                if (const int64_t x = value(in[0], 0, i); x == 3 || (x >= 10 && x < 15)) return mill_fail(e, MILL_ERR_STEP, "no");
            return plain(rep, in, n, out, e);
        };
        halves.policy = [](stm_policy *pol) { pol->on_error = STM_ON_ERROR_ISOLATE; };
        router.uses = {{"y", "int64"}};
        router.route = [&](mill_replica *, const mill_batch *in, mill_route *out, mill_error *e) -> mill_status {
            seen += (int)mill_batch_rows(in);
            for (int64_t i = 0; i < mill_batch_rows(in); i++) nulls += value(in, 0, i) == INT64_MIN;
            return value(in, 0, 0) == 0 ? mill_fail(e, MILL_ERR_STEP, "not this one") : mill_route_to(out, 1, e);
        };
        r.branches = {"a", "b"};
        r.policy = [pass](stm_policy *pol) { pol->nulls_pass = pass; };
        p.source("src", 20, 5);
        p.add("bad", MILL_STEP, {{"src"}}, bad, halves);
        p.add("router", MILL_ROUTER, {{"bad"}}, router, r);
        p.sink("a", "router", Pipe::Opts(), 0);
        p.sink("b", "router", Pipe::Opts(), 1);
        ASSERT_EQ(p.run(), STM_END_DONE) << p.error.msg;
        EXPECT_EQ(seen, pass ? 20 : 14);
        EXPECT_EQ(nulls, pass ? 6 : 0);
        EXPECT_EQ(p.rows("a").size(), pass ? 5u : 10u);
        EXPECT_EQ(p.rows("b").size(), pass ? 15u : 10u);
        for (const char *sink : {"a", "b"})
            for (auto &row : p.rows(sink)) {
                const int64_t x = row.values.at("x");
                EXPECT_EQ(row.error != 0, x < 5 || (x >= 10 && x < 15)) << x;
            }
        EXPECT_EQ(p.stats("router").rows_skipped, pass ? 0 : 6);
        EXPECT_EQ(p.stats("router").rows_failed, pass ? 5 : 4);
        EXPECT_EQ(stm_run_imputed_rows(p.handle()), pass ? 11 : 10);
    }
}

/* Nulls that came otherwise hide nothing, also where other nulls of the same column do: of a branch that was not taken, of a join
 * that lacks a row. */
TEST(Nulls, OfRoutesAndJoinsAreShown)
{
    Pipe p;
    Pipe::Opts r = rows_per_batch(5), meet, join, a, b;
    std::atomic<int> seen{0};
    Behaviour bad = maps([](int64_t x) { return x; }), looks, only_some = keeps([](int64_t x) { return x % 4 == 0; });
    const auto plain = bad.process;
    bad.process = [plain](mill_replica *rep, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        return value(in[0], 0, 0) == 10 ? mill_fail(e, MILL_ERR_STEP, "not ten") : plain(rep, in, n, out, e);
    };
    r.branches = {"a", "b"};
    a.map_out = {{"y", "only_a"}};
    b.map_out = {{"y", "only_b"}};
    meet.mode = STM_INPUT_CONVERGE;
    join.mode = STM_INPUT_JOIN;
    join.on_missing = STM_MISSING_NULL;
    join.batch_rows = 7;
    looks.uses = {{"only_a", "int64"}, {"only_b", "int64"}, {"kept", "int64"}};
    looks.adds = {{"nulls", "int64"}};
    looks.process = [&](mill_replica *rep, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) {
            v.push_back(0);
            for (int32_t c = 0; c < 3; c++) v.back() += (value(in[0], c, i) == INT64_MIN) << c;
        }
        seen += (int)v.size();
        return emit_int64(rep, out, v, e);
    };
    p.source("src", 40, 10);
    p.add("router", MILL_ROUTER, {{"src"}}, routes([](int64_t x) { return std::vector<size_t>{(size_t)(x / 5 % 2)}; }), r);
    p.add("a", MILL_STEP, {{"router", 0}}, bad, a);
    p.add("b", MILL_STEP, {{"router", 1}}, maps([](int64_t x) { return x; }), b);
    p.add("meet", MILL_STEP, {{"a"}, {"b"}}, Behaviour(), meet);
    p.add("some", MILL_STEP, {{"meet"}}, only_some);
    p.add("looks", MILL_STEP, {{"meet"}, {"some"}}, looks, join);
    p.sink("out", "looks");
    ASSERT_EQ(p.run(), STM_END_DONE) << p.error.msg;
    expect_rows(p, "out", 40);
    for (int64_t i = 0; i < 40; i++) {
        const bool failed = i >= 10 && i < 15;
        EXPECT_EQ(p.rows("out")[(size_t)i].values.at("nulls"),
                  failed ? INT64_MIN : (i / 5 % 2 == 0 ? 2 : 1) | (i % 4 == 0 ? 0 : 4)) << i;
        EXPECT_EQ(p.rows("out")[(size_t)i].error != 0, failed);
    }
    EXPECT_EQ(seen, 35);
    EXPECT_EQ(p.stats("looks").rows_skipped, 5);
}
