/* Recipes of one inlet share batches and are built on several threads at once, without its lock. */
#include "kit.h"

#include <atomic>
#include <mutex>
#include <thread>

using namespace kit;

TEST(Threads, RecipesAreBuiltOutsideTheLock)
{
    mill_type_plain(MILL_INT64);
    Pool pool;
    constexpr int64_t kBatches = 400, kRows = 10;
    Flow f(pool, {generator("g", 50), node("t", STM_NODE_TERMINAL, {{0, 0}}, 3)});
    std::mutex lock; /* the caller's lock on the inlet */
    std::atomic<int64_t> rows{0}, sum{0};
    std::atomic<bool> done{false};
    auto taker = [&] {
        while (!done) {
            stm_ready r;
            bool got;
            {
                std::lock_guard<std::mutex> hold(lock);
                got = stm_inlet_take(f.at(1), &r);
                if (got) stm_credit_return(f.f, 1, r.batch); /* in stream order */
            }
            if (!got) {
                std::this_thread::yield();
                continue;
            }
            Item item;
            ASSERT_TRUE(build(&r, pool, 1, &item));
            for (size_t i = 0; i < item.keys.size(); i++) {
                ASSERT_EQ(payload(item.keys[i]), item.values[0][i]);
                sum += item.keys[i][0];
            }
            rows += (int64_t)item.keys.size();
            if (item.end) done = true;
        }
    };
    std::vector<std::thread> takers;
    for (int i = 0; i < 3; i++) takers.emplace_back(taker);
    for (int64_t k = 0; k < kBatches; k++) {
        while (stm_credit_room(f.f, 0) < kRows) std::this_thread::yield(); /* read while terminals return */
        stm_credit_admit(f.f, 0, kRows);
        mill_batch *b = make(
            pool, {.seq = (uint64_t)k, .keys = keys_of(k * kRows, kRows), .covered = k * kRows + kRows, .end = k + 1 == kBatches});
        std::lock_guard<std::mutex> hold(lock);
        ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(1), 0, &b, nullptr));
    }
    for (auto &t : takers) t.join();
    EXPECT_EQ(kBatches * kRows, rows);
    EXPECT_EQ(kBatches * kRows * (kBatches * kRows - 1) / 2, sum);
    EXPECT_EQ(kBatches * kRows, stm_credit_completed(f.f, 0));
}
