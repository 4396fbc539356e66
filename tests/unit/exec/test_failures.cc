/* The failure table of the reference system (semantics, part B, 6): what happens instead, and that it is told. */
#include <poll.h>

#include "behaviours.h"

extern "C" {
#include "core/log.h"
}

using namespace mt;

TEST(FailureTable, FailedBatchIsImputedRecordedAndTheRunGoesOn)
{
    Pipe p;
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.process = [plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        if (value(in[0], 0, 0) == 20) return mill_fail(e, MILL_ERR_STEP, "cannot stand twenty");
        return plain(r, in, n, out, e);
    };
    p.source("src", 50, 5);
    p.add("picky", MILL_STEP, {{"src"}}, b);
    p.sink("out", "picky");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 50);
    for (int64_t i = 0; i < 50; i++) {
        const bool bad = i >= 20 && i < 25;
        EXPECT_EQ(p.rows("out")[i].values.at("y"), bad ? INT64_MIN : i);
        EXPECT_EQ(p.rows("out")[i].error != 0, bad);
    }
    ASSERT_EQ(p.errors.size(), 1u);
    EXPECT_STREQ(p.errors[0].error.msg, "cannot stand twenty");
    EXPECT_STREQ(p.errors[0].error.step, "picky");
    EXPECT_STREQ(p.errors[0].first_key, "src:20");
    EXPECT_STREQ(p.errors[0].last_key, "src:24");
    EXPECT_EQ(p.errors[0].rows, 5);
    EXPECT_EQ(p.errors[0].error.phase, MILL_PHASE_PROCESS);
}

TEST(FailureTable, PerRowStepsLoseOnlyTheRowsThatFail)
{
    Pipe p;
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.flags = MILL_PER_ROW;
    b.process = [plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++)
            if (value(in[0], 0, i) % 17 == 5) return mill_fail(e, MILL_ERR_DATA, "row %lld is bad", (long long)value(in[0], 0, i));
        return plain(r, in, n, out, e);
    };
    p.source("src", 100, 32);
    p.add("picky", MILL_STEP, {{"src"}}, b);
    p.sink("out", "picky");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 100);
    size_t bad = 0;
    for (int64_t i = 0; i < 100; i++) {
        EXPECT_EQ(p.rows("out")[i].values.at("y"), i % 17 == 5 ? INT64_MIN : i);
        bad += i % 17 == 5;
    }
    EXPECT_EQ(p.errors.size(), bad);
    for (auto &rec : p.errors)
        EXPECT_EQ(std::string("src:") + std::string(rec.error.msg).substr(4, strcspn(rec.error.msg + 4, " ")), rec.first_key);
}

/* A plugin may say any number: it is the nearest level that there is. */
TEST(FailureTable, LevelsThatAreNoneAreTheNearest)
{
    static std::vector<std::pair<int, std::string>> said;
    const auto log = reinterpret_cast<void (*)(const mill_replica *, int, const char *, ...)>(&mill_replica_log);
    Pipe p;
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.process = [plain, log](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        log(r, 99, "far too loud");
        log(r, -1, "too quiet");
        return plain(r, in, n, out, e);
    };
    p.source("src", 5, 5);
    p.add("talks", MILL_STEP, {{"src"}}, b);
    p.sink("out", "talks");
    stm_log_set([](stm_level level, const char *who, const char *line,
                   void *) { said.emplace_back(level, std::string(who) + ": " + line); },
                nullptr, STM_INFO);
    EXPECT_EQ(p.run(), STM_END_DONE);
    stm_log_set(nullptr, nullptr, STM_INFO);
    p.destroy();
    ASSERT_EQ(said.size(), 1u);
    EXPECT_EQ(said[0].first, STM_ERROR);
    EXPECT_EQ(said[0].second, "talks[0]: far too loud");
}

TEST(FailureTable, EveryBatchFails)
{
    Pipe p;
    p.source("src", 50, 5);
    p.add("broken", MILL_STEP, {{"src"}}, fails("always"));
    p.add("after", MILL_STEP, {{"broken"}}, [] {
        Behaviour b;
        b.uses = {{"y", "int64"}};
        b.adds = {{"z", "int64"}};
        b.process = [](mill_replica *, mill_batch *const *, size_t, mill_emit *, mill_error *e) -> mill_status {
            ADD_FAILURE() << "a step must not see rows nulled before";
            return mill_fail(e, MILL_ERR_STEP, "called");
        };
        return b;
    }());
    p.sink("out", "after");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_rows(p, "out", 50);
    EXPECT_EQ(p.stats("broken").rows_failed, 50);
    EXPECT_EQ(p.stats("after").rows_failed, 0) << "counted once";
    EXPECT_EQ(p.stats("after").rows_skipped, 50);
    EXPECT_EQ(stm_run_imputed_rows(p.handle()), 50);
}

TEST(FailureTable, FailedGlobalEndsItsDescendantsOnly)
{
    Pipe p;
    Behaviour g;
    g.adds = {{"n", "int64"}};
    g.finish = [](mill_replica *, mill_emit *, mill_error *e) -> mill_status {
        return mill_fail(e, MILL_ERR_STEP, "cannot finish");
    };
    p.source("src", 1000, 5);
    p.add("all", MILL_GLOBAL, {{"src"}}, g);
    p.sink("lost", "all");
    p.add("other", MILL_STEP, {{"src"}}, maps([](int64_t x) { return x; }));
    p.sink("kept", "other");
    EXPECT_EQ(p.run(), STM_END_FAILED);
    EXPECT_STREQ(p.error.msg, "cannot finish");
    EXPECT_STREQ(p.error.step, "all");
    EXPECT_EQ(p.error.phase, MILL_PHASE_PROCESS);
    EXPECT_EQ(p.errors.size(), 1u) << "one failure, one record";
    expect_rows(p, "kept", 1000);
    EXPECT_TRUE(p.rows("lost").empty());
}

TEST(FailureTable, FailureSpreadsThroughGlobalsAndLoadGroups)
{
    Pipe p;
    Pipe::Opts later;
    later.stage = 1;
    Behaviour g;
    g.adds = {{"x", "int64"}};
    g.finish = [](mill_replica *, mill_emit *, mill_error *e) -> mill_status {
        return mill_fail(e, MILL_ERR_STEP, "cannot finish");
    };
    Behaviour g2;
    g2.adds = {{"n", "int64"}};
    g2.finish = [](mill_replica *, mill_emit *, mill_error *e) -> mill_status {
        ADD_FAILURE() << "its input never came to an end";
        return mill_fail(e, MILL_ERR_STEP, "called");
    };
    p.source("src", 1000, 5);
    p.add("all", MILL_GLOBAL, {{"src"}}, g);
    p.add("again", MILL_GLOBAL, {{"all"}}, g2);
    p.add("a", MILL_STEP, {{"again"}}, Behaviour(), later);
    p.sink("lost", "a", later);
    p.sink("kept", "src", later);
    EXPECT_EQ(p.run(), STM_END_FAILED);
    EXPECT_STREQ(p.error.msg, "cannot finish");
    EXPECT_EQ(p.errors.size(), 1u);
    expect_rows(p, "kept", 1000);
    EXPECT_TRUE(p.rows("lost").empty());
}

TEST(FailureTable, FailedAcceptEndsInTime)
{
    Pipe p;
    Behaviour g;
    g.adds = {{"n", "int64"}};
    g.accept = [](mill_replica *, size_t, const mill_batch *in, mill_error *e) -> mill_status {
        return value(in, 0, 0) >= 100 ? mill_fail(e, MILL_ERR_NOMEM, "full") : MILL_OK;
    };
    p.source("src", 100000, 5);
    p.add("all", MILL_GLOBAL, {{"src"}}, g);
    p.sink("lost", "all");
    EXPECT_EQ(p.run(), STM_END_FAILED);
    EXPECT_STREQ(p.error.msg, "full");
    EXPECT_LT(p.stats("src").rows_out, 100000) << "nobody wants the rest";
}

TEST(FailureTable, FailingGeneratorIsUnloadedAndNamed)
{
    Pipe p;
    std::atomic<int> loads{0}, unloads{0};
    Behaviour g;
    g.adds = {{"x", "int64"}};
    g.load = [&](mill_replica *, mill_error *) -> mill_status { loads++; return MILL_OK; };
    g.unload = [&](mill_replica *) { unloads++; };
    g.generate = [](mill_replica *r, int64_t, mill_cursor *c, bool *, mill_emit *out, mill_error *e) -> mill_status {
        if (c->size == 4) return mill_fail(e, MILL_ERR_IO, "disk gone");
        c->size++;
        return emit_int64(r, out, {1, 2}, e);
    };
    p.add("src", MILL_GENERATOR, {}, g, rows_per_batch(2));
    p.add("a", MILL_STEP, {{"src"}}, maps([](int64_t x) { return x; }));
    p.sink("out", "a");
    EXPECT_EQ(p.run(), STM_END_FAILED);
    EXPECT_STREQ(p.error.msg, "disk gone");
    EXPECT_STREQ(p.error.step, "src");
    EXPECT_EQ(loads, 1);
    EXPECT_EQ(unloads, 1);
    EXPECT_EQ(p.rows("out").size(), 8u) << "what was complete before the failure is in the sink";
    EXPECT_TRUE(p.finalized("out"));
}

TEST(FailureTable, OneReplicaThatCannotLoadFailsTheRunInTime)
{
    for (int bad = 0; bad < 4; bad++) {
        Pipe p;
        std::atomic<int> loads{0}, unloads{0};
        Behaviour b = maps([](int64_t x) { return x; });
        b.load = [&, bad](mill_replica *r, mill_error *e) -> mill_status {
            loads++;
            if (mill_replica_index(r) != bad) {
                std::this_thread::sleep_for(std::chrono::milliseconds(20)); /* the others come later */
                return MILL_OK;
            }
            return mill_fail(e, MILL_ERR_NOT_FOUND, "no model here");
        };
        b.unload = [&](mill_replica *) { unloads++; };
        p.source("src", 50, 5);
        p.add("model", MILL_STEP, {{"src"}}, b, rows_per_batch(0, 4));
        p.sink("out", "model");
        const auto began = std::chrono::steady_clock::now();
        EXPECT_EQ(p.run(5), STM_END_LOAD_FAILED);
        EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(3));
        EXPECT_STREQ(p.error.msg, "no model here");
        EXPECT_STREQ(p.error.step, "model");
        EXPECT_EQ(p.error.replica, bad);
        EXPECT_EQ(p.error.phase, MILL_PHASE_LOAD);
        p.destroy();
        EXPECT_EQ(unloads, loads) << "siblings are unloaded, the half-loaded one, too";
    }
}

TEST(FailureTable, WrongOutputIsAFailureOfTheBatch)
{
    const char *const kinds[] = {"rows", "type", "columns", "nothing", "twice", "parent"};
    for (const char *kind : kinds) {
        SCOPED_TRACE(kind);
        Pipe p;
        Behaviour b;
        const std::string k = kind;
        b.uses = {{"x", "int64"}};
        b.adds = {{"y", k == "type" ? "float64" : "int64"}};
        if (k == "columns") b.adds.push_back({"z", "int64"});
        b.process = [k](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
            std::vector<int64_t> v((size_t)mill_batch_rows(in[0]) - (k == "rows")), parent(v.size());
            if (k == "nothing") return MILL_OK;
            mill_status st = emit_int64(r, out, v, e, k == "parent" ? &parent : nullptr);
            return k == "twice" && st == MILL_OK ? emit_int64(r, out, v, e) : st;
        };
        p.source("src", 20, 5);
        p.add("wrong", MILL_STEP, {{"src"}}, b);
        p.sink("out", "wrong");
        ASSERT_EQ(p.run(), STM_END_DONE);
        expect_rows(p, "out", 20);
        EXPECT_EQ(p.errors.size(), 4u);
        EXPECT_EQ(stm_run_imputed_rows(p.handle()), 20);
        for (auto &rec : p.errors) EXPECT_STRNE(rec.error.msg, "");
    }
}

TEST(FailureTable, FailingSinkEndsTheRunAndTheOtherSinkIsComplete)
{
    Pipe p;
    Behaviour k;
    k.write = [](mill_replica *, const mill_batch *in, mill_error *e) -> mill_status {
        return value(in, 0, 0) >= 20 ? mill_fail(e, MILL_ERR_IO, "no space left") : MILL_OK;
    };
    p.source("src", 100, 5);
    p.add("full", MILL_SINK, {{"src"}}, k);
    p.sink("out", "src");
    EXPECT_EQ(p.run(), STM_END_FAILED);
    EXPECT_STREQ(p.error.msg, "no space left");
    EXPECT_STREQ(p.error.step, "full");
    expect_rows(p, "out", 100);
}

TEST(FailureTable, FailingRouterLosesNoRow)
{
    for (bool wrong_name : {false, true}) {
        Pipe p;
        Pipe::Opts r = rows_per_batch(5);
        r.branches = {"a", "b"};
        p.source("src", 50, 5);
        p.add("router", MILL_ROUTER, {{"src"}}, routes([wrong_name](int64_t x) {
                  if (x == 20) return wrong_name ? std::vector<size_t>{7} : std::vector<size_t>{};
                  return std::vector<size_t>{1};
              }), r);
        p.sink("a", "router", Pipe::Opts(), 0);
        p.sink("b", "router", Pipe::Opts(), 1);
        ASSERT_EQ(p.run(), STM_END_DONE);
        EXPECT_EQ(p.rows("a").size(), 5u);
        EXPECT_EQ(p.rows("b").size(), 45u);
        for (auto &row : p.rows("a")) EXPECT_NE(row.error, 0);
        EXPECT_EQ(p.errors.size(), 1u);
    }
}

/* 6.3: no time limits */
TEST(FailureTable, StepPastItsDeadlineIsToldToReturnAndItsBatchImputed)
{
    Pipe p;
    Pipe::Opts o;
    o.policy = [](stm_policy *pol) { pol->batch_timeout_s = 0.2; };
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.flags = MILL_BLOCKS;
    b.process = [plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        if (value(in[0], 0, 0) != 10) return plain(r, in, n, out, e);
        while (!mill_replica_cancelled(r)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return MILL_ERR_STOPPED;
    };
    p.source("src", 50, 5);
    p.add("stuck", MILL_STEP, {{"src"}}, b, o);
    p.sink("out", "stuck");
    ASSERT_EQ(p.run(10), STM_END_DONE);
    expect_rows(p, "out", 50);
    ASSERT_EQ(p.errors.size(), 1u);
    EXPECT_EQ(p.errors[0].error.status, MILL_ERR_TIMEOUT);
    EXPECT_STREQ(p.errors[0].first_key, "src:10");
}

TEST(FailureTable, ABatchPastItsDeadlineDoesNotSpoilTheNext)
{
    Pipe p;
    Pipe::Opts o;
    o.policy = [](stm_policy *pol) { pol->batch_timeout_s = 0.1; };
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.flags = MILL_BLOCKS;
    b.process = [plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        while (value(in[0], 0, 0) == 10 && !mill_replica_cancelled(r)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return mill_replica_cancelled(r) ? (mill_status)MILL_ERR_STOPPED : plain(r, in, n, out, e); /* every call looks */
    };
    p.source("src", 50, 5);
    p.add("stuck", MILL_STEP, {{"src"}}, b, o);
    p.sink("out", "stuck");
    ASSERT_EQ(p.run(10), STM_END_DONE);
    expect_rows(p, "out", 50);
    ASSERT_EQ(p.errors.size(), 1u);
    EXPECT_STREQ(p.errors[0].first_key, "src:10");
    EXPECT_EQ(p.errors[0].rows, 5);
}

/* A call that waits in poll() hears of its deadline, and the next one does not hear of the last one's. */
TEST(FailureTable, ACallThatSleepsIsWokenAtItsDeadline)
{
    static std::atomic<int> woken, stale;
    Pipe p;
    Pipe::Opts o;
    o.policy = [](stm_policy *pol) { pol->batch_timeout_s = 0.1; };
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.flags = MILL_BLOCKS;
    b.process = [plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        pollfd stop = {mill_replica_cancel_fd(r), POLLIN, 0};
        if (value(in[0], 0, 0) != 10) {
            stale += poll(&stop, 1, 0) != 0;
            return plain(r, in, n, out, e);
        }
        if (poll(&stop, 1, 30000) == 1 && mill_replica_cancelled(r)) woken++;
        if (mill_replica_cancel_fd(r) == stop.fd && poll(&stop, 1, 0) == 1) woken++; /* asked for again, it still says so */
        return MILL_ERR_STOPPED;
    };
    woken = stale = 0;
    p.source("src", 50, 5);
    p.add("asleep", MILL_STEP, {{"src"}}, b, o);
    p.sink("out", "asleep");
    ASSERT_EQ(p.run(20), STM_END_DONE);
    expect_rows(p, "out", 50);
    EXPECT_EQ(woken, 2);
    EXPECT_EQ(stale, 0);
    ASSERT_EQ(p.errors.size(), 1u);
    EXPECT_EQ(p.errors[0].error.status, MILL_ERR_TIMEOUT);
}

/* The timeout is for every kind of step, and its error says so: a call that was told to return did not stop of itself. */
TEST(FailureTable, CallsOfEveryKindPastTheirDeadlineAreNamed)
{
    const auto waits = [](mill_replica *r, mill_error *e) -> mill_status {
        while (!mill_replica_cancelled(r)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return mill_fail(e, MILL_ERR_STOPPED, "told to stop");
    };
    for (const char *kind : {"generate", "route", "accept", "finish", "write", "finalize"}) {
        SCOPED_TRACE(kind);
        const std::string what = kind;
        Pipe p;
        Behaviour all, sink, made = maps([](int64_t x) { return x; });
        Pipe::Opts late = rows_per_batch(5), router = late;
        late.policy = [](stm_policy *pol) { pol->batch_timeout_s = 0.05; };
        if (what == "generate") {
            Behaviour g;
            g.adds = {{"x", "int64"}};
            g.generate = [&](mill_replica *r, int64_t, mill_cursor *, bool *, mill_emit *, mill_error *e) -> mill_status {
                return waits(r, e);
            };
            p.add("late", MILL_GENERATOR, {}, g, late);
            p.sink("out", "late");
        } else {
            p.source("src", 10, 5);
        }
        if (what == "route") {
            router.branches = {"a"};
            router.policy = late.policy;
            Behaviour b = routes([](int64_t) { return std::vector<size_t>{0}; });
            b.route = [&](mill_replica *r, const mill_batch *, mill_route *, mill_error *e) -> mill_status { return waits(r, e); };
            p.add("late", MILL_ROUTER, {{"src"}}, b, router);
            p.sink("out", "late", Pipe::Opts(), 0);
        }
        if (what == "accept" || what == "finish") {
            all.adds = {{"n", "int64"}};
            if (what == "accept")
                all.accept = [&](mill_replica *r, size_t, const mill_batch *, mill_error *e) -> mill_status { return waits(r, e); };
            all.finish = [&](mill_replica *r, mill_emit *, mill_error *e) -> mill_status {
                return what == "finish" ? waits(r, e) : (mill_status)MILL_OK;
            };
            p.add("late", MILL_GLOBAL, {{"src"}}, all, late);
            p.sink("out", "late");
        }
        if (what == "write" || what == "finalize") {
            if (what == "write")
                sink.write = [&](mill_replica *r, const mill_batch *, mill_error *e) -> mill_status { return waits(r, e); };
            else sink.finalize = [&](mill_replica *r, mill_error *e) -> mill_status { return waits(r, e); };
            p.add("late", MILL_SINK, {{"src"}}, sink, late);
        }
        p.run(10);
        ASSERT_FALSE(p.errors.empty());
        EXPECT_EQ(p.errors[0].error.status, MILL_ERR_TIMEOUT) << p.errors[0].error.msg;
        EXPECT_NE(strstr(p.errors[0].error.msg, "within the timeout of 0.05 s"), nullptr) << p.errors[0].error.msg;
        EXPECT_STREQ(p.errors[0].error.step, "late");
    }
}

/* A router that returns because the run is being stopped has failed nobody. */
TEST(FailureTable, StopThatARouterObeysIsNoFailure)
{
    Pipe p;
    std::atomic<bool> there{false};
    Pipe::Opts o = rows_per_batch(5);
    o.branches = {"a"};
    Behaviour b = routes([](int64_t) { return std::vector<size_t>{0}; });
    b.route = [&](mill_replica *r, const mill_batch *, mill_route *, mill_error *) -> mill_status {
        there = true;
        while (!mill_replica_cancelled(r)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return MILL_ERR_STOPPED;
    };
    p.source("src", 10, 5);
    p.add("router", MILL_ROUTER, {{"src"}}, b, o);
    p.sink("out", "router", Pipe::Opts(), 0);
    ASSERT_EQ(p.start(), MILL_OK);
    while (!there) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stm_run_stop(p.handle(), false);
    EXPECT_EQ(p.wait(10), STM_END_STOPPED);
    EXPECT_TRUE(p.errors.empty()) << p.errors[0].error.msg;
    EXPECT_TRUE(p.rows("out").empty());
}

/* A place that does not fit would be cut, and a run that goes on would begin somewhere else. */
TEST(FailureTable, AGeneratorWhosePlaceDoesNotFitIsNamed)
{
    Pipe p;
    Behaviour g;
    g.adds = {{"x", "int64"}};
    g.generate = [](mill_replica *r, int64_t, mill_cursor *c, bool *, mill_emit *out, mill_error *e) -> mill_status {
        c->size = sizeof c->bytes + 1;
        return emit_int64(r, out, {1}, e);
    };
    p.add("src", MILL_GENERATOR, {}, g, rows_per_batch(1));
    p.sink("out", "src");
    EXPECT_EQ(p.run(), STM_END_FAILED);
    EXPECT_EQ(p.error.msg, "generate gave a cursor of " + std::to_string(sizeof(mill_cursor::bytes) + 1) + " bytes; " +
                               std::to_string(sizeof(mill_cursor::bytes)) + " are the most");
    EXPECT_STREQ(p.error.step, "src");
    EXPECT_TRUE(p.rows("out").empty());
}

/* Marks are of the first batch of a call, which may be larger than those that follow. */
TEST(FailureTable, MarksOfTheFirstBatchOfACallStand)
{
    Pipe p;
    Behaviour b = maps([](int64_t x) { return x; });
    b.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        const int64_t rows = mill_batch_rows(in[0]);
        mill_error why = {};
        mill_fail(&why, MILL_ERR_DATA, "not this one");
        if (mill_status st = mill_emit_row_error(out, 3, &why)) return st;
        std::vector<int64_t> first(static_cast<size_t>(rows - 1), 7), rest(1, 8);
        if (mill_status st = emit_int64(r, out, first, e)) return st;
        return emit_int64(r, out, rest, e);
    };
    p.source("src", 5, 5);
    p.add("a", MILL_STEP, {{"src"}}, b);
    p.sink("out", "a");
    ASSERT_EQ(p.run(), STM_END_DONE) << p.error.msg;
    ASSERT_EQ(p.rows("out").size(), 5u);
    ASSERT_EQ(p.errors.size(), 1u);
    EXPECT_STREQ(p.errors[0].error.msg, "not this one");
    for (size_t i = 0; i < 5; i++) {
        EXPECT_EQ(p.rows("out")[i].error != 0, i == 3);
        if (i != 3) {
            EXPECT_EQ(p.rows("out")[i].values.at("y"), i == 4 ? 8 : 7);
        }
    }
}

TEST(FailureTable, RetriesAreCountedAndNoCallIsMadeTwice)
{
    for (int times : {0, 1, 3})
        for (bool transient : {false, true})
            for (stm_on_error policy : {STM_ON_ERROR_IMPUTE, STM_ON_ERROR_ISOLATE, STM_ON_ERROR_STOP}) {
                SCOPED_TRACE(std::to_string(times) + (transient ? " transient " : " permanent ") + std::to_string(policy));
                Pipe p;
                std::atomic<int> calls{0};
                Pipe::Opts o;
                o.policy = [=](stm_policy *pol) {
                    pol->on_error = policy;
                    pol->retry_times = times;
                    pol->retry_backoff_s = 0.0;
                    pol->retry_classes = 1u << MILL_CLASS_TRANSIENT;
                };
                Behaviour b = maps([](int64_t x) { return x; });
                b.process = [&, transient](mill_replica *, mill_batch *const *, size_t, mill_emit *, mill_error *e) -> mill_status {
                    calls++;
                    return mill_fail(e, transient ? MILL_ERR_TIMEOUT : MILL_ERR_STEP, "no");
                };
                p.source("src", 1, 1);
                p.add("fails", MILL_STEP, {{"src"}}, b, o);
                p.sink("out", "fails");
                EXPECT_EQ(p.run(10), policy == STM_ON_ERROR_STOP ? STM_END_FAILED : STM_END_DONE);
                EXPECT_EQ(calls, transient ? times + 1 : 1);
                ASSERT_EQ(p.errors.size(), 1u);
                EXPECT_EQ(p.errors[0].error.attempt, transient ? times : 0);
                EXPECT_EQ(p.stats("fails").retries, transient ? times : 0);
            }
}

TEST(FailureTable, IsolationCallsEachPieceOnce)
{
    Pipe p;
    std::atomic<int> calls{0};
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.flags = MILL_PER_ROW;
    b.process = [&, plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        calls++;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++)
            if (value(in[0], 0, i) == 5) return mill_fail(e, MILL_ERR_DATA, "five");
        return plain(r, in, n, out, e);
    };
    p.source("src", 8, 8);
    p.add("picky", MILL_STEP, {{"src"}}, b);
    p.sink("out", "picky");
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(calls, 7) << "8, then 4 and 4, then 2 and 2, then 1 and 1";
    EXPECT_EQ(p.errors.size(), 1u);
}

TEST(FailureTable, StopThatASinkObeysIsNoFailure)
{
    Pipe p;
    std::atomic<bool> in_write{false};
    Behaviour k;
    k.flags = MILL_BLOCKS;
    k.write = [&](mill_replica *r, const mill_batch *, mill_error *) -> mill_status {
        in_write = true;
        while (!mill_replica_cancelled(r)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return MILL_ERR_STOPPED;
    };
    p.source("src", 100, 5);
    p.add("out", MILL_SINK, {{"src"}}, k);
    ASSERT_EQ(p.start(), MILL_OK);
    while (!in_write) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stm_run_stop(p.handle(), false);
    EXPECT_EQ(p.wait(10), STM_END_STOPPED);
    EXPECT_EQ(p.errors.size(), 0u);
}

TEST(FailureTable, StepThatNeverReturnsIsNamed)
{
    Pipe p;
    std::atomic<bool> let_go{false};
    Pipe::Opts o;
    o.policy = [](stm_policy *pol) { pol->batch_timeout_s = 0.1; };
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.flags = MILL_BLOCKS;
    b.process = [&, plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        while (!let_go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return plain(r, in, n, out, e);
    };
    p.source("src", 50, 5);
    p.add("stuck", MILL_STEP, {{"src"}}, b, o);
    p.sink("out", "stuck");
    ASSERT_EQ(p.start(), MILL_OK);
    mill_error e = {};
    for (int i = 0; i < 100 && !stm_run_hung(p.handle(), &e); i++) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(e.status, MILL_ERR_TIMEOUT);
    EXPECT_STREQ(e.step, "stuck");
    let_go = true;
    p.wait(10);
}

TEST(FailureTable, UnloadThatNeverReturnsIsNamed)
{
    for (bool fails_first : {false, true}) {
        Pipe p;
        std::atomic<bool> let_go{false};
        Pipe::Opts o = rows_per_batch(0, 3);
        o.policy = [=](stm_policy *pol) {
            pol->unload_timeout_s = 0.1;
            if (fails_first) pol->on_error = STM_ON_ERROR_STOP;
        };
        Behaviour b = fails_first ? fails("no") : maps([](int64_t x) { return x; });
        b.unload = [&](mill_replica *r) {
            while (mill_replica_index(r) == 2 && !let_go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        };
        p.source("src", 50, 5);
        p.add("stuck", MILL_STEP, {{"src"}}, b, o);
        p.sink("out", "stuck");
        ASSERT_EQ(p.start(), MILL_OK);
        mill_error e = {};
        for (int i = 0; i < 100 && !stm_run_hung(p.handle(), &e); i++) std::this_thread::sleep_for(std::chrono::milliseconds(50));
        EXPECT_EQ(e.status, MILL_ERR_TIMEOUT);
        EXPECT_STREQ(e.step, "stuck");
        EXPECT_EQ(e.replica, 2);
        EXPECT_EQ(e.phase, MILL_PHASE_UNLOAD);
        EXPECT_EQ(stm_run_wait(p.handle(), 0.0, nullptr), STM_END_RUNNING) << "it has not ended, and does not say so";
        if (!fails_first) { EXPECT_TRUE(p.finalized("out")) << "the sink did not wait for it"; }
        let_go = true;
        EXPECT_EQ(p.wait(10), fails_first ? STM_END_FAILED : STM_END_DONE);
        EXPECT_FALSE(stm_run_hung(p.handle(), &e));
    }
}

TEST(FailureTable, StopOfAStuckStepWithoutADeadlineIsNamed)
{
    Pipe p;
    std::atomic<bool> let_go{false}, inside{false};
    Behaviour b = maps([](int64_t x) { return x; });
    auto plain = b.process;
    b.flags = MILL_BLOCKS;
    b.process = [&, plain](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        inside = true;
        while (!let_go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return plain(r, in, n, out, e);
    };
    p.source("src", 50, 5);
    p.add("stuck", MILL_STEP, {{"src"}}, b);
    p.sink("out", "stuck");
    p.drain_s = 0.2; /* then the drain becomes a stop, and a call that goes on is hung 3 s later */
    ASSERT_EQ(p.start(), MILL_OK);
    while (!inside) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stm_run_stop(p.handle(), true);
    mill_error e = {};
    EXPECT_FALSE(stm_run_hung(p.handle(), &e)) << "it has time to come back";
    for (int i = 0; i < 200 && !stm_run_hung(p.handle(), &e); i++) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_STREQ(e.step, "stuck");
    EXPECT_EQ(e.phase, MILL_PHASE_PROCESS);
    let_go = true;
    EXPECT_EQ(p.wait(10), STM_END_STOPPED);
}

/* 6.1, 6.2 */
TEST(FailureTable, StopEndsInEveryPhase)
{
    for (int when_ms : {0, 1, 3, 10, 30})
        for (bool drain : {true, false}) {
            Pipe p;
            std::atomic<int> loads{0}, unloads{0};
            Behaviour b = maps([](int64_t x) { return x; });
            b.load = [&](mill_replica *, mill_error *) -> mill_status {
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
                loads++;
                return MILL_OK;
            };
            b.unload = [&](mill_replica *) { unloads++; };
            p.source("src", 1 << 30, 5);
            p.add("a", MILL_STEP, {{"src"}}, b, rows_per_batch(7, 2));
            p.sink("out", "a");
            ASSERT_EQ(p.start(), MILL_OK);
            std::this_thread::sleep_for(std::chrono::milliseconds(when_ms));
            stm_run_stop(p.handle(), drain);
            EXPECT_EQ(p.wait(5), STM_END_STOPPED) << when_ms << " ms, drain " << drain;
            p.destroy();
            EXPECT_EQ(loads, unloads);
            const auto &rows = p.rows("out");
            for (size_t i = 0; i < rows.size(); i++) ASSERT_EQ(rows[i].values.at("x"), (int64_t)i);
        }
}
