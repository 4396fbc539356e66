/* Tickets of steps with submit and poll that do not come back as they should: late, lost, failing, refused. What the pipeline says
 * about failures acts on them as it does on calls of process, and every ticket that the step took is answered or cancelled,
 * once. */
#include "behaviours.h"

#include "support/fail_nth.h"

using namespace mt;

namespace {

enum Verdict { kAnswer, kRefuse, kLose };

/* A service in the plugin's hands: answers when it is polled, as `judge` says of a row (its x and how often it was sent, from
 * 1). */
struct Desk {
    struct Ticket {
        std::vector<int64_t> x;
        std::vector<bool> settled;
    };
    std::function<Verdict(const Ticket &, int64_t x, int sent)> judge = [](const Ticket &, int64_t, int) { return kAnswer; };
    std::function<mill_status(const Ticket &, mill_error *)> on_submit; /* before it is taken */
    std::function<mill_status(mill_error *)> on_poll;
    mill_status row_status = MILL_ERR_DATA;
    bool together = false; /* refused rows of a ticket in one call */
    bool restless = false; /* asks to be polled again at once: deadlines are seen when they pass, not at the next tick */

    std::mutex lock;
    std::map<uint64_t, Ticket> open;
    std::map<uint64_t, int> cancels;
    std::map<int64_t, int> sent;
    std::vector<size_t> sizes; /* of the tickets offered */
    int answered = 0, taken = 0, unloads = 0;

    ~Desk()
    {
        EXPECT_TRUE(open.empty()) << open.size() << " tickets were neither answered nor cancelled";
        for (auto &c : cancels) EXPECT_EQ(c.second, 1) << "ticket " << c.first;
        EXPECT_EQ(taken, answered + (int)cancels.size());
    }

    Behaviour step(size_t n_inputs = 1)
    {
        Behaviour b;
        b.uses = {{"x", "int64"}};
        b.adds = {{"y", "int64"}};
        b.submit = [this, n_inputs](mill_replica *r, uint64_t id, mill_batch *const *in, size_t n, mill_error *e) -> mill_status {
            std::lock_guard<std::mutex> g(lock);
            Ticket t;
            EXPECT_EQ(n, n_inputs);
            for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) t.x.push_back(value(in[0], 0, i));
            t.settled.resize(t.x.size());
            sizes.push_back(t.x.size());
            for (int64_t x : t.x) sent[x]++;
            if (on_submit)
                if (mill_status st = on_submit(t, e)) return st;
            EXPECT_EQ(open.count(id), 0u);
            open[id] = t;
            taken++;
            mill_replica_wake(r);
            return MILL_OK;
        };
        b.poll = [this](mill_replica *r, mill_results *out, mill_error *e) -> mill_status {
            std::lock_guard<std::mutex> g(lock);
            if (on_poll)
                if (mill_status st = on_poll(e)) return st;
            for (auto it = open.begin(); it != open.end();)
                if (mill_status st = answer(r, out, it->first, it->second, e)) return st;
                else if (std::count(it->second.settled.begin(), it->second.settled.end(), false) == 0)
                    it = open.erase(it), answered++;
                else ++it;
            if (restless && !open.empty()) mill_replica_wake(r);
            return MILL_OK;
        };
        b.cancel = [this](mill_replica *, uint64_t id) {
            std::lock_guard<std::mutex> g(lock);
            cancels[id]++;
            EXPECT_EQ(open.erase(id), 1u) << "cancel of a ticket that the step does not hold";
        };
        b.unload = [this](mill_replica *) { unloads++; };
        return b;
    }

private:
    mill_status answer(mill_replica *r, mill_results *out, uint64_t id, Ticket &t, mill_error *e)
    {
        std::vector<int64_t> bad;
        for (size_t i = t.x.size(); i-- > 0;) { /* backwards: order is nothing that a step owes */
            const int64_t row = (int64_t)i;
            mill_batch *one = nullptr;
            if (t.settled[i]) continue;
            const Verdict v = judge(t, t.x[i], sent[t.x[i]]);
            if (v == kLose) continue;
            if (v == kRefuse) {
                bad.push_back(row);
                continue;
            }
            if (mill_status st = make_row(r, t.x[i], &one, e)) return st;
            const mill_status st = mill_results_rows(out, id, &row, 1, &one, e);
            mill_batch_destroy(&one);
            if (st != MILL_OK) return st;
            t.settled[i] = true;
        }
        for (size_t i = 0; i < bad.size(); i += together ? bad.size() : 1) {
            mill_error why = {};
            mill_fail(&why, row_status, "refused %lld", (long long)t.x[(size_t)bad[i]]);
            const int64_t n = together ? (int64_t)bad.size() : 1;
            if (mill_status st = mill_results_fail(out, id, &bad[i], n, &why)) return st;
            for (int64_t k = 0; k < n; k++) t.settled[(size_t)bad[i + (size_t)k]] = true;
        }
        return MILL_OK;
    }
    static mill_status make_row(mill_replica *r, int64_t x, mill_batch **out, mill_error *e)
    {
        mill_pool *pool = mill_replica_pool(r);
        mill_buffer *data = nullptr;
        mill_column *col = nullptr;
        mill_status st = mill_buffer_create(pool, 8, &data);
        if (st == MILL_OK) *static_cast<int64_t *>(mill_buffer_data(data)) = 3 * x;
        if (st == MILL_OK) st = mill_column_create(pool, mill_type_plain(MILL_INT64), 1, nullptr, nullptr, &data, nullptr, &col, e);
        if (st == MILL_OK) st = mill_batch_create(pool, 1, 1, out);
        if (st == MILL_OK) st = mill_batch_set_column(*out, 0, &col);
        mill_buffer_unref(&data);
        mill_column_unref(&col);
        if (st != MILL_OK) mill_batch_destroy(out);
        return st;
    }
};

Pipe::Opts with(std::function<void(stm_policy *)> policy)
{
    Pipe::Opts o;
    o.policy = policy;
    return o;
}

/* Every row is there, in order; y is 3x, but null and marked where @p bad says. */
void expect_all_but(Pipe &p, int64_t n, std::function<bool(int64_t)> bad)
{
    expect_rows(p, "out", n);
    if (::testing::Test::HasFatalFailure()) return;
    for (int64_t i = 0; i < n; i++) {
        EXPECT_EQ(p.rows("out")[(size_t)i].values.at("y"), bad(i) ? INT64_MIN : 3 * i) << i;
        EXPECT_EQ(p.rows("out")[(size_t)i].error != 0, bad(i)) << i;
    }
}

} // namespace

TEST(Tickets, ALateOneIsCancelledOnceAndOnlyItsUnansweredRowsFail)
{
    const struct {
        const char *name;
        int64_t first, last;
    } cases[] = {{"whole ticket", 20, 24}, {"one row of it", 22, 22}, {"its first rows", 20, 21}, {"two tickets", 20, 29}};
    for (auto &c : cases) {
        SCOPED_TRACE(c.name);
        Desk d;
        Pipe p;
        d.judge = [&](const Desk::Ticket &, int64_t x, int) { return x >= c.first && x <= c.last ? kLose : kAnswer; };
        p.source("src", 50, 5);
        p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([](stm_policy *pol) { pol->batch_timeout_s = 0.15; }));
        p.sink("out", "asks");
        const auto began = std::chrono::steady_clock::now();
        ASSERT_EQ(p.run(10), STM_END_DONE);
        EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(150)) << "not before its deadline";
        EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
        expect_all_but(p, 50, [&](int64_t x) { return x >= c.first && x <= c.last; });
        const size_t tickets = c.last - c.first > 5 ? 2 : 1;
        EXPECT_EQ(d.cancels.size(), tickets);
        ASSERT_EQ(p.errors.size(), tickets);
        for (auto &rec : p.errors) EXPECT_EQ(rec.error.status, MILL_ERR_TIMEOUT);
        EXPECT_EQ(p.errors[0].first_key, "src:" + std::to_string(c.first));
        EXPECT_EQ(p.stats("asks").rows_failed, c.last - c.first + 1);
        p.destroy();
    }
}

TEST(Tickets, ALostOneDoesNotHoldUpTheEndOfADrain)
{
    for (bool drain : {true, false}) {
        SCOPED_TRACE(drain ? "drain" : "stop");
        Desk d;
        Pipe p;
        d.judge = [](const Desk::Ticket &, int64_t x, int) { return x == 12 ? kLose : kAnswer; };
        p.source("src", 1 << 30, 5);
        p.add("asks", MILL_STEP, {{"src"}}, d.step());
        p.sink("out", "asks");
        p.drain_s = 0.3;
        ASSERT_EQ(p.start(), MILL_OK);
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        const auto began = std::chrono::steady_clock::now();
        stm_run_stop(p.handle(), drain);
        EXPECT_EQ(p.wait(10), STM_END_STOPPED);
        EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(3));
        EXPECT_EQ(d.unloads, 1);
        EXPECT_EQ(d.cancels.size(), 1u) << "all others were answered";
        EXPECT_TRUE(p.errors.empty()) << "rows that were not finished are no failed rows";
        p.destroy();
    }
}

TEST(Tickets, ADrainFinishesWhatIsInFlight)
{
    Desk d;
    Pipe p;
    std::atomic<bool> go{false};
    d.judge = [&](const Desk::Ticket &, int64_t, int) { return go ? kAnswer : kLose; };
    p.source("src", 1 << 30, 5);
    p.add("asks", MILL_STEP, {{"src"}}, d.step());
    p.sink("out", "asks");
    ASSERT_EQ(p.start(), MILL_OK);
    while (p.stats("src").rows_out < 20) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stm_run_stop(p.handle(), true);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    go = true;
    EXPECT_EQ(p.wait(10), STM_END_STOPPED);
    EXPECT_EQ((int64_t)p.rows("out").size(), p.stats("src").rows_out);
    EXPECT_TRUE(d.cancels.empty());
    p.destroy();
}

TEST(Tickets, FailuresAreTriedAgainAsOftenAsAllowed)
{
    const struct {
        const char *name;
        bool cancelled; /* the step held it when it failed */
        std::function<void(Desk &, int failures)> set;
    } ways[] = {
        {"submit fails", false,
         [](Desk &d, int failures) {
             d.on_submit = [&d, failures](const Desk::Ticket &t, mill_error *e) -> mill_status {
                 return d.sent[t.x[0]] <= failures ? mill_fail(e, MILL_ERR_BUSY, "come back later") : (mill_status)MILL_OK;
             };
         }},
        {"poll fails", true,
         [](Desk &d, int failures) {
             d.on_poll = [&d, failures](mill_error *e) -> mill_status {
                 return d.sent[0] <= failures ? mill_fail(e, MILL_ERR_BUSY, "connection lost") : (mill_status)MILL_OK;
             };
         }},
        {"rows fail", false,
         [](Desk &d, int failures) {
             d.row_status = MILL_ERR_BUSY;
             d.judge = [failures](const Desk::Ticket &, int64_t, int sent) { return sent <= failures ? kRefuse : kAnswer; };
         }},
        {"ticket is late", true,
         [](Desk &d, int failures) {
             d.judge = [failures](const Desk::Ticket &, int64_t, int sent) { return sent <= failures ? kLose : kAnswer; };
         }},
    };
    for (auto &way : ways)
        for (int failures : {0, 1, 2, 5})
            for (int times : {0, 1, 3})
                for (double backoff : {0.0, 0.02}) {
                    if (backoff > 0.0 && (failures != 2 || times != 3)) continue;
                    SCOPED_TRACE(std::string(way.name) + " " + std::to_string(failures) + " times of " + std::to_string(times) +
                                 " + 1");
                    Desk d;
                    Pipe p;
                    way.set(d, failures);
                    p.source("src", 4, 4);
                    p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([=](stm_policy *pol) {
                              pol->retry_times = times;
                              pol->retry_backoff_s = backoff;
                              pol->retry_classes = 1u << MILL_CLASS_TRANSIENT;
                              pol->batch_timeout_s = std::string(way.name) == "ticket is late" ? 0.05 : -1.0;
                          }));
                    p.sink("out", "asks");
                    ASSERT_EQ(p.run(20), STM_END_DONE);
                    const bool good = failures <= times;
                    const int tries = good ? failures + 1 : times + 1;
                    expect_all_but(p, 4, [=](int64_t) { return !good; });
                    EXPECT_EQ(d.sizes, std::vector<size_t>((size_t)tries, 4)) << "together, each time";
                    EXPECT_EQ(p.stats("asks").retries, tries - 1);
                    EXPECT_EQ((int)d.cancels.size(), way.cancelled ? good ? failures : tries : 0);
                    EXPECT_EQ(p.errors.empty(), good);
                    for (auto &rec : p.errors) EXPECT_EQ(rec.error.attempt, times);
                    p.destroy();
                }
}

TEST(Tickets, OnlyFailuresOfTheNamedClassesAreTriedAgain)
{
    for (bool transient : {true, false}) {
        Desk d;
        Pipe p;
        d.row_status = transient ? MILL_ERR_TIMEOUT : MILL_ERR_DATA;
        d.judge = [](const Desk::Ticket &, int64_t x, int) { return x == 7 ? kRefuse : kAnswer; };
        p.source("src", 20, 5);
        p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([](stm_policy *pol) {
                  pol->retry_times = 4;
                  pol->retry_backoff_s = 0.0;
                  pol->retry_classes = 1u << MILL_CLASS_TRANSIENT;
              }));
        p.sink("out", "asks");
        ASSERT_EQ(p.run(10), STM_END_DONE);
        expect_all_but(p, 20, [](int64_t x) { return x == 7; });
        EXPECT_EQ(d.sent[7], transient ? 5 : 1);
        EXPECT_EQ(d.sent[6], 1) << "its neighbour was answered";
        p.destroy();
    }
}

TEST(Tickets, IsolationFindsExactlyTheBadRows)
{
    const auto bad = [](int64_t x) { return x == 3 || x == 17 || x == 18 || x == 40; };
    const auto holds_bad = [bad](const Desk::Ticket &t) { return std::any_of(t.x.begin(), t.x.end(), bad); };
    const struct {
        const char *name;
        std::function<void(Desk &)> set;
    } ways[] = {
        {"submit fails", [=](Desk &d) {
             d.on_submit = [=](const Desk::Ticket &t, mill_error *e) -> mill_status {
                 return holds_bad(t) ? mill_fail(e, MILL_ERR_STEP, "no") : (mill_status)MILL_OK;
             };
         }},
        {"rows fail together", [=](Desk &d) {
             d.together = true;
             d.judge = [=](const Desk::Ticket &t, int64_t, int) { return holds_bad(t) ? kRefuse : kAnswer; };
         }},
        {"ticket is late", [=](Desk &d) {
             d.judge = [=](const Desk::Ticket &t, int64_t, int) { return holds_bad(t) ? kLose : kAnswer; };
         }},
        {"rows fail one by one", [=](Desk &d) {
             d.judge = [=](const Desk::Ticket &, int64_t x, int) { return bad(x) ? kRefuse : kAnswer; };
         }},
    };
    for (auto &way : ways)
        for (bool hidden : {false, true}) {
            SCOPED_TRACE(std::string(way.name) + (hidden ? ", with rows that the step does not see" : ""));
            const auto unseen = [=](int64_t x) { return hidden && x % 8 == 6; };
            Desk d;
            Pipe p;
            Behaviour marks = maps([](int64_t x) { return x; }, "x2");
            auto plain = marks.process;
            marks.flags = MILL_PER_ROW;
            marks.process = [=](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
                for (int64_t i = 0; i < mill_batch_rows(in[0]); i++)
                    if (unseen(value(in[0], 0, i))) return mill_fail(e, MILL_ERR_DATA, "hidden");
                return plain(r, in, n, out, e);
            };
            way.set(d);
            p.source("src", 64, 16);
            p.add("marks", MILL_STEP, {{"src"}}, marks);
            Pipe::Opts o = with([](stm_policy *pol) {
                pol->on_error = STM_ON_ERROR_ISOLATE;
                pol->batch_timeout_s = 0.05;
            });
            o.map_in = {{"x", "x2"}};
            p.add("asks", MILL_STEP, {{"marks"}}, d.step(), o);
            p.sink("out", "asks");
            ASSERT_EQ(p.run(20), STM_END_DONE);
            expect_all_but(p, 64, [=](int64_t x) { return bad(x) || unseen(x); });
            std::set<std::string> keys;
            for (auto &rec : p.errors)
                if (!strcmp(rec.error.step, "asks")) {
                    keys.insert(rec.first_key);
                    EXPECT_STREQ(rec.first_key, rec.last_key);
                }
            EXPECT_EQ(keys, (std::set<std::string>{"src:3", "src:17", "src:18", "src:40"}));
            EXPECT_EQ(p.stats("asks").rows_failed, 4);
            EXPECT_EQ(p.stats("asks").rows_skipped, hidden ? 8 : 0);
            for (int64_t x = 0; x < 64; x++)
                if (unseen(x)) { EXPECT_EQ(d.sent[x], 0); }
            p.destroy();
        }
}

TEST(Tickets, IsolationSendsEachPieceOnce)
{
    Desk d;
    Pipe p;
    d.on_submit = [](const Desk::Ticket &t, mill_error *e) -> mill_status {
        return std::count(t.x.begin(), t.x.end(), 5) ? mill_fail(e, MILL_ERR_DATA, "five") : (mill_status)MILL_OK;
    };
    p.source("src", 8, 8);
    p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([](stm_policy *pol) { pol->on_error = STM_ON_ERROR_ISOLATE; }));
    p.sink("out", "asks");
    ASSERT_EQ(p.run(), STM_END_DONE);
    EXPECT_EQ(d.sizes, (std::vector<size_t>{8, 4, 4, 2, 2, 1, 1})) << "as calls of process";
    p.destroy();
}

TEST(Tickets, BehindAJoinToo)
{
    Desk d;
    Pipe p;
    Pipe::Opts o = with([](stm_policy *pol) { pol->on_error = STM_ON_ERROR_ISOLATE; });
    o.mode = STM_INPUT_JOIN;
    d.together = true;
    d.judge = [](const Desk::Ticket &t, int64_t, int) { return std::count(t.x.begin(), t.x.end(), 11) ? kRefuse : kAnswer; };
    p.source("src", 40, 10);
    p.add("a", MILL_STEP, {{"src"}}, maps([](int64_t x) { return x; }, "a"));
    p.add("asks", MILL_STEP, {{"src"}, {"a"}}, d.step(2), o);
    p.sink("out", "asks");
    ASSERT_EQ(p.run(), STM_END_DONE);
    expect_all_but(p, 40, [](int64_t x) { return x == 11; });
    p.destroy();
}

TEST(Tickets, OnErrorStopEndsTheRunAndCancelsTheRest)
{
    const struct {
        const char *name, *context;
        std::function<void(Desk &)> set;
    } ways[] = {
        {"a row", "on_error: stop, row src:33",
         [](Desk &d) {
             d.judge = [](const Desk::Ticket &, int64_t x, int) { return x == 33 ? kRefuse : x < 30 ? kAnswer : kLose; };
         }},
        {"a ticket", "on_error: stop, rows src:30 to src:34",
         [](Desk &d) {
             d.judge = [](const Desk::Ticket &, int64_t x, int) { return x < 30 ? kAnswer : kLose; };
             d.on_submit = [](const Desk::Ticket &t, mill_error *e) -> mill_status {
                 return t.x[0] == 30 ? mill_fail(e, MILL_ERR_IO, "refused 33") : (mill_status)MILL_OK;
             };
         }},
    };
    for (auto &way : ways) {
        SCOPED_TRACE(way.name);
        Desk d;
        Pipe p;
        way.set(d);
        p.source("src", 1 << 20, 5);
        p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([](stm_policy *pol) { pol->on_error = STM_ON_ERROR_STOP; }));
        p.sink("out", "asks");
        EXPECT_EQ(p.run(10), STM_END_FAILED);
        EXPECT_STREQ(p.error.msg, "refused 33");
        EXPECT_STREQ(p.error.step, "asks");
        EXPECT_STREQ(p.error.context, way.context);
        EXPECT_LE(p.rows("out").size(), 30u);
        EXPECT_EQ(p.stats("asks").rows_failed, 0);
        EXPECT_EQ(d.unloads, 1);
        p.destroy();
    }
}

TEST(Tickets, StopIfCountsThem)
{
    for (int64_t every : {10, 2}) {
        Desk d;
        Pipe p;
        d.judge = [=](const Desk::Ticket &, int64_t x, int) { return x >= 500 && x % every == 1 ? kRefuse : kAnswer; };
        p.source("src", 4000, 10);
        p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([](stm_policy *pol) {
                  pol->stop_failed = 0.3;
                  pol->stop_of = 100;
              }));
        p.sink("out", "asks");
        EXPECT_EQ(p.run(10), every == 2 ? STM_END_FAILED : STM_END_DONE);
        if (every == 2) {
            EXPECT_EQ(p.error.status, MILL_ERR_STOP_IF);
            EXPECT_LT(p.stats("asks").rows_failed, 40);
        }
        p.destroy();
    }
}

/* A step that refuses although it holds nothing: nobody is to wait for it for ever. */
TEST(Tickets, AStepThatIsAlwaysFullTimesOut)
{
    Desk d;
    Pipe p;
    d.on_submit = [](const Desk::Ticket &, mill_error *) -> mill_status { return MILL_ERR_AGAIN; };
    p.source("src", 10, 5);
    p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([](stm_policy *pol) { pol->batch_timeout_s = 0.05; }));
    p.sink("out", "asks");
    ASSERT_EQ(p.run(10), STM_END_DONE);
    expect_all_but(p, 10, [](int64_t) { return true; });
    ASSERT_EQ(p.errors.size(), 2u);
    EXPECT_EQ(p.errors[0].error.status, MILL_ERR_TIMEOUT);
    EXPECT_TRUE(d.cancels.empty());
    p.destroy();
}

/* Being refused by a busy step is no lateness: the deadline counts from when the step took the ticket. */
TEST(Tickets, WaitingForABusyStepIsNotLate)
{
    Desk d;
    Pipe p;
    std::chrono::steady_clock::time_point busy_until = std::chrono::steady_clock::now();
    d.on_submit = [&](const Desk::Ticket &, mill_error *) -> mill_status {
        if (!d.open.empty()) return MILL_ERR_AGAIN;
        busy_until = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
        return MILL_OK;
    };
    d.judge = [&](const Desk::Ticket &, int64_t, int) { return std::chrono::steady_clock::now() < busy_until ? kLose : kAnswer; };
    p.source("src", 30, 5);
    p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([](stm_policy *pol) { pol->batch_timeout_s = 0.6; }));
    p.sink("out", "asks");
    ASSERT_EQ(p.run(20), STM_END_DONE);
    expect_all_but(p, 30, [](int64_t) { return false; });
    p.destroy();
}

/* A step that answers a ticket that was taken back, or a row that has moved to a new ticket, is told so. */
TEST(Tickets, AnAnswerToACancelledTicketIsRefused)
{
    Desk d;
    Pipe p;
    std::vector<uint64_t> gone;
    std::atomic<int> refused{0};
    d.judge = [](const Desk::Ticket &, int64_t, int sent) { return sent == 1 ? kLose : kAnswer; };
    Behaviour b = d.step();
    auto cancel = b.cancel;
    auto poll = b.poll;
    b.cancel = [&, cancel](mill_replica *r, uint64_t id) {
        gone.push_back(id);
        cancel(r, id);
    };
    b.poll = [&, poll](mill_replica *r, mill_results *out, mill_error *e) -> mill_status {
        const int64_t row = 0;
        mill_error why = {};
        mill_fail(&why, MILL_ERR_IO, "late news");
        for (uint64_t id : gone) refused += mill_results_fail(out, id, &row, 1, &why) == MILL_ERR_INVALID;
        return poll(r, out, e);
    };
    p.source("src", 4, 4);
    p.add("asks", MILL_STEP, {{"src"}}, b, with([](stm_policy *pol) {
              pol->batch_timeout_s = 0.05;
              pol->retry_times = 1;
              pol->retry_backoff_s = 0.0;
              pol->retry_classes = 1u << MILL_CLASS_TRANSIENT;
          }));
    p.sink("out", "asks");
    ASSERT_EQ(p.run(10), STM_END_DONE);
    expect_all_but(p, 4, [](int64_t) { return false; });
    EXPECT_EQ(gone.size(), 1u);
    EXPECT_GT(refused, 0);
    p.destroy();
}

TEST(Tickets, AnswersWithoutABatchOrACauseAreRefused)
{
    Desk d;
    Pipe p;
    std::atomic<int> asked{0}, refused{0};
    Behaviour b = d.step();
    auto poll = b.poll;
    b.poll = [&, poll](mill_replica *r, mill_results *out, mill_error *e) -> mill_status {
        for (auto &t : d.open) {
            const int64_t row = 0;
            mill_batch *none = nullptr;
            mill_error why = {};
            if (t.second.settled[0]) continue;
            asked += 2;
            refused += mill_results_rows(out, t.first, &row, 1, &none, &why) == MILL_ERR_INVALID;
            refused += mill_results_fail(out, t.first, &row, 1, nullptr) == MILL_ERR_INVALID;
        }
        return poll(r, out, e);
    };
    p.source("src", 4, 2);
    p.add("asks", MILL_STEP, {{"src"}}, b);
    p.sink("out", "asks");
    ASSERT_EQ(p.run(10), STM_END_DONE);
    expect_all_but(p, 4, [](int64_t) { return false; });
    EXPECT_GT(asked, 0);
    EXPECT_EQ(refused, asked);
    p.destroy();
}

/* Late tickets, failing rows, isolation and retries at once, with every allocation and every call failing in its turn. */
TEST(Tickets, EveryPointThatCanFail)
{
    for (uint32_t kinds : {(uint32_t)STM_FAULT_ALLOC, (uint32_t)STM_FAULT_PROCESS}) {
        int64_t points = 0;
        for (int64_t nth = 0;; nth++, points++) {
            SCOPED_TRACE("point " + std::to_string(nth));
            const long before = live();
            bool fired;
            {
                Desk d;
                Pipe p;
                d.row_status = MILL_ERR_BUSY;
                d.restless = true;
                d.judge = [](const Desk::Ticket &t, int64_t x, int sent) {
                    if (x == 9 && sent == 1) return kLose;
                    if (x == 2 && sent <= 2) return kRefuse;
                    return x == 6 ? kRefuse : t.x.size() > 2 && x == 13 ? kLose : kAnswer;
                };
                p.source("src", 16, 4);
                p.add("asks", MILL_STEP, {{"src"}}, d.step(), with([](stm_policy *pol) {
                          pol->on_error = STM_ON_ERROR_ISOLATE;
                          pol->batch_timeout_s = 0.002;
                          pol->retry_times = 1;
                          pol->retry_backoff_s = 0.0;
                          pol->retry_classes = 1u << MILL_CLASS_TRANSIENT;
                      }));
                p.sink("out", "asks");
                FailNth fail(nth, kinds);
                const mill_status st = p.start(2);
                stm_run_end end = STM_END_LOAD_FAILED;
                if (st == MILL_OK) end = stm_run_wait(p.handle(), 20, &p.error);
                ASSERT_NE(end, STM_END_RUNNING) << "does not end";
                if (end == STM_END_DONE) {
                    expect_rows(p, "out", 16);
                    if (!fail.fired()) { EXPECT_EQ(p.rows("out")[6].values.at("y"), INT64_MIN); }
                } else {
                    EXPECT_STRNE(p.error.msg, "");
                }
                p.destroy();
                fired = fail.fired();
            }
            EXPECT_EQ(live(), before) << "leak";
            if (!fired || ::testing::Test::HasFailure()) break;
        }
        EXPECT_GT(points, 10);
        printf("%lld points\n", (long long)points);
        if (::testing::Test::HasFailure()) return;
    }
}
