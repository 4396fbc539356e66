#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "support/fail_nth.h"

extern "C" {
#include "memory/pool.h"
}

namespace {

struct Pool {
    explicit Pool(int64_t limit = 0) { EXPECT_EQ(stm_pool_create(limit, &p), MILL_OK); }
    ~Pool() { stm_pool_release(&p); }
    operator mill_pool *() const { return p; }
    stm_pool_stats counts() const { return stm_pool_counts(p); }
    mill_pool *p = nullptr;
};

/* Fills a block with a pattern made of its size and address, and checks it: two owners of one block are found out. */
void paint(void *p, size_t n) { memset(p, (int)(((uintptr_t)p >> 4) ^ n) & 0xFF, n); }
bool painted(const void *p, size_t n)
{
    const auto *c = (const unsigned char *)p;
    const auto want = (unsigned char)(((uintptr_t)p >> 4) ^ n);
    for (size_t i = 0; i < n; i++)
        if (c[i] != want) return false;
    return true;
}

} // namespace

TEST(Pool, SizesAndAlignment)
{
    Pool pool;
    size_t last = 0;
    for (size_t n :
         {0u,   1u,   15u,  16u,  17u,  32u,  33u,  48u,   49u,   63u,   64u,   65u,    128u,   129u,     192u,          255u,
          256u, 257u, 320u, 321u, 511u, 513u, 640u, 1000u, 1025u, 4096u, 4097u, 65535u, 65537u, 1000000u, (1u << 22) + 1}) {
        SCOPED_TRACE(n);
        const size_t block = stm_pool_block_bytes(n);
        EXPECT_GE(block, n);
        EXPECT_GE(block, last);
        EXPECT_LE(block, n + n / 4 + 64) << "four classes per power of two";
        last = block;
        void *p = stm_pool_take(pool, n);
        ASSERT_NE(p, nullptr);
        EXPECT_EQ((uintptr_t)p % (n >= 64 ? 64 : 16), 0u);
        memset(p, 0xA5, n);
        EXPECT_EQ(pool.counts().live_bytes, (int64_t)block);
        stm_pool_give(pool, p, n);
        EXPECT_EQ(pool.counts().live_bytes, 0);
    }
    for (size_t n = 0; n < 100000; n++) { /* every size is in a class that holds it, and the class of a class is itself */
        const size_t block = stm_pool_block_bytes(n);
        ASSERT_GE(block, n);
        ASSERT_EQ(stm_pool_block_bytes(block), block);
        ASSERT_EQ(block % (n > 64 ? 64 : 16), 0u);
    }
}

TEST(Pool, SteadyStateCallsNoAllocator)
{
    Pool pool;
    auto work = [&] {
        std::vector<std::pair<void *, size_t>> got;
        for (size_t n : {24u, 100u, 200u, 1000u, 5000u, 70000u, 3000000u})
            for (int i = 0; i < 5; i++) got.emplace_back(stm_pool_take(pool, n), n);
        for (auto &g : got) stm_pool_give(pool, g.first, g.second);
    };
    work();
    const auto before = stm_alloc_counts();
    const auto misses = pool.counts().misses;
    for (int i = 0; i < 3000; i++) work();
    EXPECT_EQ(stm_alloc_counts().allocs, before.allocs);
    EXPECT_EQ(stm_alloc_counts().frees, before.frees);
    EXPECT_EQ(pool.counts().misses, misses);
}

TEST(Pool, LimitRefusesAndRecovers)
{
    Pool pool(1 << 20);
    void *a = stm_pool_take(pool, 700 << 10);
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(stm_pool_take(pool, 700 << 10), nullptr);
    stm_pool_give(pool, a, 700 << 10);
    a = stm_pool_take(pool, 700 << 10);
    EXPECT_NE(a, nullptr);
    stm_pool_give(pool, a, 700 << 10);
}

TEST(Pool, LivesUntilTheLastBlockIsBack)
{
    const long before = mt::live();
    mill_pool *p = nullptr;
    ASSERT_EQ(stm_pool_create(0, &p), MILL_OK);
    mill_pool *kept = p;
    void *a = stm_pool_take(p, 100), *b = stm_pool_take(p, 100000), *c = stm_pool_take(p, (size_t)3 << 30);
    ASSERT_TRUE(a && b && c);
    stm_pool_release(&p);
    EXPECT_EQ(p, nullptr);
    EXPECT_EQ(stm_pool_take(kept, 64), nullptr) << "closed";
    stm_pool_give(kept, b, 100000);
    stm_pool_give(kept, c, (size_t)3 << 30);
    EXPECT_GT(mt::live(), before);
    stm_pool_give(kept, a, 100);
    EXPECT_EQ(mt::live(), before);
    stm_pool_release(&p); /* NULL is accepted */
}

TEST(Pool, FailsCleanlyAtEveryAllocation)
{
    const long before = mt::live();
    for (int nth = 0;; nth++) {
        mt::FailNth fail(nth);
        mill_pool *p = nullptr;
        void *a = nullptr, *b = nullptr;
        if (stm_pool_create(0, &p) == MILL_OK) {
            a = stm_pool_take(p, 50);
            b = stm_pool_take(p, 50000);
            EXPECT_EQ(stm_pool_counts(p).live_bytes,
                      (int64_t)((a ? stm_pool_block_bytes(50) : 0) + (b ? stm_pool_block_bytes(50000) : 0)));
            const bool fired = fail.fired();
            EXPECT_EQ(a && b, !fired);
            if (a) stm_pool_give(p, a, 50);
            if (b) stm_pool_give(p, b, 50000);
            stm_pool_release(&p);
            EXPECT_EQ(mt::live(), before) << nth;
            if (!fired) return;
        } else {
            EXPECT_TRUE(fail.fired());
            EXPECT_EQ(mt::live(), before);
        }
    }
}

TEST(Pool, DoesNotHoardWhatIsNoLongerUsed)
{
    Pool pool;
    const size_t big = 1 << 20;
    std::vector<void *> many;
    for (int i = 0; i < 64; i++) many.push_back(stm_pool_take(pool, big));
    for (void *p : many) stm_pool_give(pool, p, big);
    EXPECT_EQ(pool.counts().held_bytes, (int64_t)stm_pool_block_bytes(big) * 64) << "a burst is kept for the next one";
    for (int i = 0; i < 4 * 4096; i++) { /* then the work needs far less, and of another size */
        void *p = stm_pool_take(pool, 10000);
        stm_pool_give(pool, p, 10000);
    }
    EXPECT_LE(pool.counts().held_bytes, 1 << 20);
}

TEST(Pool, GrowingThroughManySizesIsBounded)
{
    Pool pool;
    for (int round = 0; round < 50; round++)
        for (size_t n = 4096; n < (8u << 20); n += n / 5) {
            void *p = stm_pool_take(pool, n);
            ASSERT_NE(p, nullptr);
            stm_pool_give(pool, p, n);
            ASSERT_LE(pool.counts().held_bytes, 4 * pool.counts().peak_bytes + (1 << 20));
        }
}

TEST(Pool, TrimGivesEverythingBack)
{
    Pool pool;
    const long before = mt::live();
    void *p = stm_pool_take(pool, 5000), *q = stm_pool_take(pool, 20);
    stm_pool_give(pool, p, 5000);
    stm_pool_give(pool, q, 20);
    stm_pool_trim(pool);
    EXPECT_EQ(mt::live(), before);
    EXPECT_EQ(pool.counts().held_bytes, 0);
}

/* Threads take, hand blocks to each other, check what they hold, and give. The pool is released while blocks are out. */
TEST(PoolStress, ThreadsShareAndOutliveIt)
{
    const long before = mt::live();
    for (int round = 0; round < 3; round++) {
        mill_pool *p = nullptr;
        ASSERT_EQ(stm_pool_create(0, &p), MILL_OK);
        constexpr int kThreads = 4, kSlots = 256, kOps = 6000;
        struct Item { void *p; size_t n; };
        std::vector<std::atomic<Item *>> slots(kSlots);
        std::atomic<int> bad{0};
        std::vector<std::thread> threads;
        for (int t = 0; t < kThreads; t++)
            threads.emplace_back([&, t, pool = p] {
                std::mt19937 rng(round * 100 + t);
                const size_t sizes[] = {8, 24, 64, 120, 192, 640, 3000, 9000, 70000};
                for (int i = 0; i < kOps; i++) {
                    Item *mine = nullptr;
                    if (rng() % 2) {
                        const size_t n = sizes[rng() % 9];
                        mine = new Item{stm_pool_take(pool, n), n};
                        if (!mine->p) bad++;
                        else paint(mine->p, n);
                    }
                    Item *theirs = slots[rng() % kSlots].exchange(mine);
                    if (theirs) {
                        if (!painted(theirs->p, theirs->n)) bad++;
                        stm_pool_give(pool, theirs->p, theirs->n);
                        delete theirs;
                    }
                    if (i % 4096 == 0) stm_pool_trim(pool);
                }
            });
        for (auto &t : threads) t.join();
        EXPECT_EQ(bad, 0);
        mill_pool *kept = p;
        int64_t live = 0;
        for (auto &s : slots)
            if (Item *i = s.load()) live += (int64_t)stm_pool_block_bytes(i->n);
        EXPECT_EQ(stm_pool_counts(p).live_bytes, live);
        stm_pool_release(&p);
        threads.clear();
        for (int t = 0; t < kThreads; t++) /* several threads may be the last */
            threads.emplace_back([&, t] {
                for (int s = t; s < kSlots; s += kThreads)
                    if (Item *i = slots[s].exchange(nullptr)) {
                        stm_pool_give(kept, i->p, i->n);
                        delete i;
                    }
            });
        for (auto &t : threads) t.join();
        EXPECT_EQ(mt::live(), before);
    }
}

/* ---- stocks of threads ---- */

TEST(PoolStock, TakesAndGivesWithoutTheSharedLists)
{
    const long before = mt::live();
    mill_pool *p = nullptr;
    ASSERT_EQ(stm_pool_create(0, &p), MILL_OK);
    stm_pool_attach(p);
    std::vector<void *> got;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) {
            got.push_back(stm_pool_take(p, 200));
            ASSERT_NE(got.back(), nullptr);
            paint(got.back(), 200);
        }
        for (void *b : got) {
            ASSERT_TRUE(painted(b, 200));
            stm_pool_give(p, b, 200);
        }
        got.clear();
    }
    const auto misses = stm_pool_counts(p).misses;
    for (int i = 0; i < 10000; i++) stm_pool_give(p, stm_pool_take(p, 200), 200);
    EXPECT_EQ(stm_pool_counts(p).misses, misses);
    stm_pool_detach();
    EXPECT_EQ(stm_pool_counts(p).live_bytes, 0) << "a stock counts as live until it is given back";
    stm_pool_detach(); /* twice is nothing */
    stm_pool_release(&p);
    EXPECT_EQ(mt::live(), before);
}

TEST(PoolStock, ClosedWhileStockedAndOtherPoolsPass)
{
    const long before = mt::live();
    mill_pool *a = nullptr, *b = nullptr;
    ASSERT_EQ(stm_pool_create(0, &a), MILL_OK);
    ASSERT_EQ(stm_pool_create(0, &b), MILL_OK);
    stm_pool_attach(a);
    void *x = stm_pool_take(a, 100), *y = stm_pool_take(b, 100);
    stm_pool_give(b, y, 100);
    EXPECT_EQ(stm_pool_counts(b).live_bytes, 0) << "a stock is of one pool";
    stm_pool_give(a, x, 100);
    stm_pool_release(&a); /* what the stock holds keeps the pool */
    EXPECT_GT(mt::live(), before);
    stm_pool_detach();
    stm_pool_release(&b);
    EXPECT_EQ(mt::live(), before);
}

TEST(PoolStock, WithoutMemoryForAStockThePoolStillWorks)
{
    Pool pool;
    {
        mt::FailNth fail(0);
        stm_pool_attach(pool);
        EXPECT_TRUE(fail.fired());
    }
    void *p = stm_pool_take(pool, 64);
    EXPECT_NE(p, nullptr);
    stm_pool_give(pool, p, 64);
    stm_pool_detach();
}

TEST(PoolStress, StockedThreadsHandBlocksOn)
{
    const long before = mt::live();
    mill_pool *p = nullptr;
    ASSERT_EQ(stm_pool_create(0, &p), MILL_OK);
    constexpr int kThreads = 4, kSlots = 64;
    struct Item { void *p; size_t n; };
    std::vector<std::atomic<Item *>> slots(kSlots);
    std::atomic<int> bad{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; t++)
        threads.emplace_back([&, t] {
            std::mt19937 rng(t);
            if (t != 0) stm_pool_attach(p); /* one works without */
            const size_t sizes[] = {24, 192, 300, 3000, 9000};
            for (int i = 0; i < 10000; i++) {
                Item *mine = nullptr;
                if (rng() % 2) {
                    const size_t n = sizes[rng() % 5];
                    mine = new Item{stm_pool_take(p, n), n};
                    if (!mine->p) bad++;
                    else paint(mine->p, n);
                }
                if (Item *theirs = slots[rng() % kSlots].exchange(mine)) {
                    if (!painted(theirs->p, theirs->n)) bad++;
                    stm_pool_give(p, theirs->p, theirs->n);
                    delete theirs;
                }
                if (i == 5000 && t == 1) stm_pool_detach(), stm_pool_attach(p);
            }
            stm_pool_detach();
        });
    for (auto &t : threads) t.join();
    EXPECT_EQ(bad, 0);
    for (auto &s : slots)
        if (Item *i = s.load()) {
            stm_pool_give(p, i->p, i->n);
            delete i;
        }
    EXPECT_EQ(stm_pool_counts(p).live_bytes, 0);
    stm_pool_release(&p);
    EXPECT_EQ(mt::live(), before);
}
