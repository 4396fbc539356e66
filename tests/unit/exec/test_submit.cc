/* Steps with many rows in flight: results in any order, from any thread, in any grouping; failures row by row; ends and stops. */
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "support/pipe.h"

using namespace mt;

namespace {

/* A service: takes rows, answers each after a while, in an order of its own. */
class Service {
public:
    struct Row {
        uint64_t ticket;
        int64_t row, x;
    };
    explicit Service(size_t room, int delay_us) : room_(room), delay_us_(delay_us), thread_([this] { work(); }) {}
    ~Service()
    {
        {
            std::lock_guard<std::mutex> g(lock_);
            quit_ = true;
        }
        cond_.notify_all();
        thread_.join();
    }
    bool take(mill_replica *r, const std::vector<Row> &rows)
    {
        std::lock_guard<std::mutex> g(lock_);
        if (waiting_.size() + done_.size() + rows.size() > room_ && !waiting_.empty()) return false;
        replica_ = r;
        for (auto &row : rows) waiting_.push_back(row);
        most = std::max(most, waiting_.size());
        cond_.notify_all();
        return true;
    }
    void forget() /* the replica goes: no more wakes */
    {
        std::lock_guard<std::mutex> g(lock_);
        replica_ = nullptr;
    }
    std::vector<Row> collect()
    {
        std::lock_guard<std::mutex> g(lock_);
        std::vector<Row> out(done_.begin(), done_.end());
        done_.clear();
        return out;
    }
    size_t most = 0;

private:
    void work()
    {
        std::mt19937 random(7);
        std::unique_lock<std::mutex> g(lock_);
        while (!quit_) {
            if (waiting_.empty()) {
                cond_.wait(g);
                continue;
            }
            g.unlock();
            if (delay_us_) std::this_thread::sleep_for(std::chrono::microseconds(delay_us_));
            g.lock();
            for (int i = 0; i < 3 && !waiting_.empty(); i++) {
                const size_t at = random() % waiting_.size();
                done_.push_back(waiting_[at]);
                waiting_.erase(waiting_.begin() + (long)at);
            }
            if (replica_) mill_replica_wake(replica_);
        }
    }
    const size_t room_;
    const int delay_us_;
    std::mutex lock_;
    std::condition_variable cond_;
    std::deque<Row> waiting_, done_;
    mill_replica *replica_ = nullptr;
    bool quit_ = false;
    std::thread thread_;
};

Behaviour asks(Service *s, std::function<bool(int64_t)> fails)
{
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.adds = {{"y", "int64"}};
    b.submit = [s](mill_replica *r, uint64_t ticket, mill_batch *const *in, size_t, mill_error *) -> mill_status {
        std::vector<Service::Row> rows;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) rows.push_back({ticket, i, value(in[0], 0, i)});
        return s->take(r, rows) ? MILL_OK : MILL_ERR_AGAIN;
    };
    b.unload = [s](mill_replica *) { s->forget(); };
    b.poll = [s, fails](mill_replica *r, mill_results *out, mill_error *e) -> mill_status {
        for (auto &row : s->collect()) {
            if (fails(row.x)) {
                mill_error why = {};
                mill_fail(&why, MILL_ERR_DATA, "refused %lld", (long long)row.x);
                if (mill_status st = mill_results_fail(out, row.ticket, &row.row, 1, &why)) return st;
                continue;
            }
            mill_batch *one = nullptr;
            mill_buffer *data = nullptr;
            mill_column *col = nullptr;
            mill_status st = mill_buffer_create(mill_replica_pool(r), 8, &data);
            if (st == MILL_OK) {
                *static_cast<int64_t *>(mill_buffer_data(data)) = 3 * row.x;
                st = mill_column_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), 1, nullptr, nullptr, &data, nullptr,
                                        &col, e);
            }
            if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), 1, 1, &one);
            if (st == MILL_OK) st = mill_batch_set_column(one, 0, &col);
            if (st == MILL_OK) st = mill_results_rows(out, row.ticket, &row.row, 1, &one, e);
            mill_batch_destroy(&one);
            if (st != MILL_OK) return st;
        }
        return MILL_OK;
    };
    return b;
}

} // namespace

TEST(Submit, ResultsInAnyOrderGiveRowsInOrder)
{
    for (int delay_us : {0, 100})
        for (size_t room : {8, 1000}) {
            Service s(room, delay_us);
            Pipe p;
            p.source("src", 300, 5);
            p.add("ask", MILL_STEP, {{"src"}}, asks(&s, [](int64_t x) { return x % 50 == 7; }));
            p.sink("out", "ask");
            ASSERT_EQ(p.run(30), STM_END_DONE);
            ASSERT_EQ(p.rows("out").size(), 300u);
            for (int64_t i = 0; i < 300; i++) {
                ASSERT_EQ(p.rows("out")[i].values.at("x"), i);
                EXPECT_EQ(p.rows("out")[i].values.at("y"), i % 50 == 7 ? INT64_MIN : 3 * i);
                EXPECT_EQ(p.rows("out")[i].error != 0, i % 50 == 7);
            }
            EXPECT_EQ(p.errors.size(), 6u);
            for (auto &rec : p.errors) EXPECT_EQ(std::string("src:") + (rec.error.msg + strlen("refused ")), rec.first_key);
            p.destroy();
        }
}

TEST(Submit, ManyRowsAreInFlightAtOnce)
{
    Service s(1000, 200);
    Pipe p;
    p.source("src", 300, 5);
    p.add("ask", MILL_STEP, {{"src"}}, asks(&s, [](int64_t) { return false; }));
    p.sink("out", "ask");
    ASSERT_EQ(p.run(30), STM_END_DONE);
    EXPECT_EQ(p.rows("out").size(), 300u);
    EXPECT_GE(s.most, 40u) << "the credit of 16 batches, less what is on its way";
    p.destroy();
}

TEST(Submit, FailingPollFailsWhatIsInFlightAndGoesOn)
{
    Service s(1000, 0);
    Pipe p;
    Behaviour b = asks(&s, [](int64_t) { return false; });
    std::atomic<int> polls{0};
    auto plain = b.poll;
    b.poll = [&, plain](mill_replica *r, mill_results *out, mill_error *e) -> mill_status {
        if (++polls == 5) return mill_fail(e, MILL_ERR_IO, "connection lost");
        return plain(r, out, e);
    };
    p.source("src", 300, 5);
    p.add("ask", MILL_STEP, {{"src"}}, b);
    p.sink("out", "ask");
    stm_run_end end = p.run(30);
    /* late answers for tickets that were given up are a failure of the step's poll; it is told so, and rows stay accounted for */
    ASSERT_EQ(end, STM_END_DONE);
    ASSERT_EQ(p.rows("out").size(), 300u);
    for (int64_t i = 0; i < 300; i++) ASSERT_EQ(p.rows("out")[i].values.at("x"), i);
    EXPECT_GT(p.errors.size(), 0u);
    p.destroy();
}

TEST(Submit, StopWithRowsInFlightEnds)
{
    for (bool drain : {true, false}) {
        Service s(1000, 20000);
        Pipe p;
        p.source("src", 100000, 5);
        p.add("ask", MILL_STEP, {{"src"}}, asks(&s, [](int64_t) { return false; }));
        p.sink("out", "ask");
        ASSERT_EQ(p.start(), MILL_OK);
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        stm_run_stop(p.handle(), drain);
        EXPECT_EQ(p.wait(10), STM_END_STOPPED) << drain;
        p.destroy();
    }
}
