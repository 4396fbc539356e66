/* Device pools: blocks of slabs, and marks that keep a block until the work on it is done. */
#include "device/backend.h"

#include <dlfcn.h>

#include <map>
#include <random>
#include <thread>

#include "support/fail_nth.h"
#include "support/sim_watch.h"

extern "C" {
#include "memory/place.h"
}

namespace {

class Place : public ::testing::TestWithParam<const char *> {
protected:
    void SetUp() override
    {
        std::string why;
        ops = mt::backend(GetParam(), &why);
        if (ops == nullptr) GTEST_SKIP() << GetParam() << ": " << why;
        EXPECT_EQ(mt::watch_pools(), dlsym(RTLD_DEFAULT, "stm_sim_calls") != nullptr);
        before_ = mt::live();
        ASSERT_EQ(stm_pool_create(0, &heads), MILL_OK);
        dev = std::make_unique<mt::Device>(ops);
    }
    void TearDown() override
    {
        dev.reset();
        stm_pool_release(&heads);
        stm_place_watch = nullptr;
        if (ops != nullptr) {
            EXPECT_EQ(mt::live(), before_) << "leak";
        }
    }
    stm_device_pool *pool(size_t slab, size_t limit, stm_mem_kind kind = STM_MEM_DEVICE)
    {
        stm_device_pool_opts o = {};
        o.device = *dev, o.kind = kind, o.heads = heads, o.slab_bytes = slab, o.limit_bytes = limit;
        stm_device_pool *p = nullptr;
        mill_error err = {};
        EXPECT_EQ(stm_device_pool_create(&o, &p, &err), MILL_OK) << err.msg;
        return p;
    }
    const stm_device_ops *ops = nullptr;
    mill_pool *heads = nullptr;
    std::unique_ptr<mt::Device> dev;

private:
    long before_ = 0;
};

} // namespace

TEST_P(Place, BuffersSayWhereTheyAre)
{
    for (stm_mem_kind kind : {STM_MEM_DEVICE, STM_MEM_PINNED}) {
        stm_device_pool *p = pool(1 << 20, 0, kind);
        mill_buffer *b = nullptr, *h = nullptr;
        ASSERT_EQ(stm_device_pool_take(p, 1000, &b, nullptr), MILL_OK);
        EXPECT_EQ(mill_buffer_bytes(b), 1000u);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(mill_buffer_data(b)) % 256, 0u);
        EXPECT_EQ(stm_buffer_on_device(b), kind == STM_MEM_DEVICE);
        EXPECT_EQ(stm_buffer_device(b), static_cast<stm_device *>(*dev));
        EXPECT_FALSE(stm_buffer_unique(b)) << "the host must not write it as if it were its own";
        ASSERT_EQ(mill_buffer_create(heads, 1000, &h), MILL_OK);
        EXPECT_FALSE(stm_buffer_on_device(h));
        EXPECT_EQ(stm_buffer_device(h), nullptr);
        EXPECT_TRUE(stm_buffer_read_until(h, stm_mark{}));
        mill_buffer_unref(&h);
        stm_device_pool_release(&p);
        mill_buffer_unref(&b); /* the pool stays until then */
    }
}

TEST_P(Place, ReturnsAfterReferencesAndMarks)
{
    stm_device_pool *p = pool(1 << 20, 1 << 20);
    mt::Stream writer(*dev), reader(*dev);
    stm_mark written = {}, read = {};
    mill_buffer *b = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_device_pool_take(p, 1 << 20, &b, &err), MILL_OK) << err.msg;
    char *at = static_cast<char *>(mill_buffer_data(b));
    ASSERT_EQ(stm_stream_fill(writer, at, 3, 1 << 20, &err), MILL_OK);
    ASSERT_EQ(stm_stream_raise(writer, &written, &err), MILL_OK);
    stm_buffer_written(b, written);
    mt::Memory out(*dev, STM_MEM_PINNED, 1 << 20);
    ASSERT_EQ(stm_buffer_await(b, reader, &err), MILL_OK);
    ASSERT_EQ(stm_stream_copy(reader, out.as(), at, 1 << 20, &err), MILL_OK);
    ASSERT_EQ(stm_stream_raise(reader, &read, &err), MILL_OK);
    ASSERT_TRUE(stm_buffer_read_until(b, read));
    mill_buffer_unref(&b);
    EXPECT_EQ(stm_device_pool_counts(p).live_bytes, 0);
    EXPECT_EQ(stm_device_pool_counts(p).waiting_bytes, 1 << 20) << "marks are not known to be done";
    EXPECT_EQ(stm_device_pool_take(p, 4096, &b, &err), MILL_ERR_AGAIN);
    EXPECT_EQ(b, nullptr);
    ASSERT_TRUE(mt::wait_for(writer, written));
    err = {};
    EXPECT_EQ(stm_device_pool_take(p, 4096, &b, &err), MILL_ERR_AGAIN) << "still read";
    ASSERT_TRUE(mt::wait_for(reader, read));
    err = {};
    ASSERT_EQ(stm_device_pool_take(p, 4096, &b, &err), MILL_OK) << err.msg;
    EXPECT_EQ(mill_buffer_data(b), at);
    for (int i = 0; i < 1 << 20; i += 4099) ASSERT_EQ(out.as()[i], 3);
    mill_buffer_unref(&b);
    stm_device_pool_release(&p);
}

TEST_P(Place, PinnedMemoryHasATwinUntilItGoes)
{
    stm_device_pool *p = pool(1 << 20, 0), *pinned = pool(1 << 20, 0, STM_MEM_PINNED);
    mill_buffer *there = nullptr, *host = nullptr, *twin = nullptr;
    size_t from = 7;
    ASSERT_EQ(stm_device_pool_take(p, 5000, &there, nullptr), MILL_OK);
    ASSERT_EQ(stm_device_pool_take(pinned, 1000, &host, nullptr), MILL_OK);
    EXPECT_EQ(stm_buffer_twin(host, &from), nullptr);
    EXPECT_EQ(stm_buffer_twin(there, &from), nullptr) << "it is one itself";
    stm_buffer_pair(host, there, 256);
    twin = stm_buffer_twin(host, &from);
    EXPECT_EQ(twin, there);
    EXPECT_EQ(from, 256u);
    if (twin != nullptr) mill_buffer_unref(&twin);
    mill_buffer_unref(&there);
    EXPECT_GT(stm_device_pool_counts(p).live_bytes, 0) << "kept by its copy";
    stm_device_pool_release(&p); /* so is the pool */
    mill_buffer_unref(&host);
    stm_device_pool_release(&pinned);
}

/* The youngest go first, no more of them than there must, and none are made from then on. */
TEST_P(Place, TwinsAreLetGoForRoom)
{
    enum { N = 5, BYTES = 4096 };
    stm_device_pool *p = pool(N * BYTES, N * BYTES), *pinned = pool(1 << 20, 0, STM_MEM_PINNED);
    mill_buffer *host[N] = {}, *more = nullptr, *twin = nullptr;
    size_t from = 0;
    for (auto &h : host) {
        mill_buffer *there = nullptr;
        ASSERT_EQ(stm_device_pool_take(p, BYTES, &there, nullptr), MILL_OK);
        ASSERT_EQ(stm_device_pool_take(pinned, BYTES, &h, nullptr), MILL_OK);
        stm_buffer_pair(h, there, 0);
        mill_buffer_unref(&there);
    }
    mill_buffer_unref(&host[3]); /* from the middle */
    EXPECT_EQ(stm_device_pool_counts(p).live_bytes, (N - 1) * BYTES);
    ASSERT_EQ(stm_device_pool_take(p, BYTES, &more, nullptr), MILL_OK);
    mill_error err = {};
    mill_buffer *none = nullptr;
    EXPECT_EQ(stm_device_pool_take(p, 2 * BYTES, &none, &err), MILL_ERR_DEVICE_MEM);
    EXPECT_TRUE(stm_device_pool_unpair(pinned, BYTES + 1)) << "two of them";
    for (int i : {0, 1, 2, 4}) {
        twin = stm_buffer_twin(host[i], &from);
        EXPECT_EQ(twin != nullptr, i < 2) << i;
        if (twin != nullptr) mill_buffer_unref(&twin);
    }
    EXPECT_EQ(stm_device_pool_counts(p).live_bytes, 3 * BYTES);
    stm_buffer_pair(host[2], more, 0);
    EXPECT_EQ(stm_buffer_twin(host[2], &from), nullptr);
    EXPECT_TRUE(stm_device_pool_unpair(pinned, SIZE_MAX));
    EXPECT_FALSE(stm_device_pool_unpair(pinned, 1));
    EXPECT_EQ(stm_device_pool_counts(p).live_bytes, BYTES);
    mill_buffer_unref(&more);
    for (auto &h : host)
        if (h != nullptr) mill_buffer_unref(&h);
    stm_device_pool_release(&p);
    stm_device_pool_release(&pinned);
}

TEST_P(Place, TwinsHaveAShareOfTheDevice)
{
    int64_t free_bytes = 0, total = 0;
    ASSERT_EQ(stm_device_memory(*dev, &free_bytes, &total, nullptr), MILL_OK);
    EXPECT_FALSE(stm_device_keep(*dev, free_bytes / 2));
    EXPECT_TRUE(stm_device_keep(*dev, free_bytes / 8));
    EXPECT_FALSE(stm_device_keep(*dev, free_bytes / 4)) << "all of them together";
    EXPECT_TRUE(stm_device_keep(*dev, -(free_bytes / 8)));
    EXPECT_TRUE(stm_device_keep(*dev, free_bytes / 5));
    EXPECT_TRUE(stm_device_keep(*dev, -(free_bytes / 5)));
}

TEST_P(Place, ReadMarksAreOnePerTimelineAndFew)
{
    stm_device_pool *p = pool(1 << 16, 0);
    std::vector<std::unique_ptr<mt::Stream>> streams;
    std::vector<stm_mark> marks;
    mill_buffer *b = nullptr;
    ASSERT_EQ(stm_device_pool_take(p, 256, &b, nullptr), MILL_OK);
    for (int i = 0; i < STM_READ_MARKS + 1; i++) {
        stm_mark m = {};
        streams.push_back(std::make_unique<mt::Stream>(*dev));
        for (int k = 0; k < 3; k++) {
            ASSERT_EQ(stm_stream_raise(*streams.back(), &m, nullptr), MILL_OK);
            EXPECT_EQ(stm_buffer_read_until(b, m), i < STM_READ_MARKS) << "stream " << i;
        }
        marks.push_back(m);
    }
    ASSERT_TRUE(mt::wait_for(*streams[0], marks[0]));
    EXPECT_TRUE(stm_buffer_read_until(b, marks.back())) << "one that is done makes room";
    for (size_t i = 0; i < streams.size(); i++) ASSERT_TRUE(mt::wait_for(*streams[i], marks[i]));
    mill_buffer_unref(&b);
    EXPECT_EQ(stm_device_pool_counts(p).waiting_bytes, 0);
    stm_device_pool_release(&p);
}

TEST_P(Place, OutOfMemoryIsShrinkOrAgain)
{
    stm_device_pool *p = pool(1 << 16, 1 << 18);
    mill_buffer *a = nullptr, *b = nullptr;
    mill_error err = {};
    EXPECT_EQ(stm_device_pool_take(p, (1 << 18) + 1, &a, &err), MILL_ERR_DEVICE_MEM);
    EXPECT_STRNE(err.msg, "");
    EXPECT_EQ(a, nullptr);
    err = {};
    ASSERT_EQ(stm_device_pool_take(p, 1 << 17, &a, &err), MILL_OK) << "a further slab: " << err.msg;
    EXPECT_EQ(stm_device_pool_take(p, 1 << 17, &b, nullptr), MILL_ERR_DEVICE_MEM);
    mill_buffer_unref(&a);
    EXPECT_EQ(stm_device_pool_take(p, MILL_BUFFER_MAX_BYTES + 1, &a, nullptr), MILL_ERR_INVALID);
    stm_device_pool_release(&p);
    stm_device_pool *pinned = pool(1 << 16, 1 << 16, STM_MEM_PINNED);
    EXPECT_EQ(stm_device_pool_take(pinned, 1 << 17, &a, nullptr), MILL_ERR_NOMEM);
    stm_device_pool_release(&pinned);
}

/* Random sizes against a map of what is taken: nothing overlaps, and all of it joins to whole slabs again. */
TEST_P(Place, RandomTakesAndGives)
{
    stm_device_pool *p = pool(1 << 22, 1 << 22);
    std::mt19937 g(11);
    std::vector<mill_buffer *> held;
    std::map<char *, size_t> used;
    for (int i = 0; i < 20000; i++) {
        if (held.empty() || g() % 5 < 3) {
            mill_buffer *b = nullptr;
            const size_t bytes = g() % 7 == 0 ? g() % 300000 : g() % 5000;
            const mill_status st = stm_device_pool_take(p, bytes, &b, nullptr);
            if (st == MILL_ERR_DEVICE_MEM) {
                ASSERT_FALSE(held.empty());
                const size_t k = g() % held.size();
                used.erase(static_cast<char *>(mill_buffer_data(held[k])));
                mill_buffer_unref(&held[k]);
                held.erase(held.begin() + static_cast<long>(k));
                continue;
            }
            ASSERT_EQ(st, MILL_OK);
            char *at = static_cast<char *>(mill_buffer_data(b));
            auto next = used.lower_bound(at);
            if (next != used.end()) {
                ASSERT_LE(at + bytes, next->first);
            }
            if (next != used.begin()) {
                --next;
                ASSERT_GE(at, next->first + next->second);
            }
            used[at] = bytes;
            held.push_back(b);
        } else {
            const size_t k = g() % held.size();
            used.erase(static_cast<char *>(mill_buffer_data(held[k])));
            mill_buffer_unref(&held[k]);
            held.erase(held.begin() + static_cast<long>(k));
        }
    }
    for (mill_buffer *&b : held) mill_buffer_unref(&b);
    mill_buffer *all = nullptr;
    ASSERT_EQ(stm_device_pool_take(p, 1 << 22, &all, nullptr), MILL_OK) << "in pieces";
    EXPECT_EQ(stm_device_pool_counts(p).slabs, 1);
    mill_buffer_unref(&all);
    stm_device_pool_release(&p);
}

/* Batches of a few buffers, two streams, let go as soon as their work is queued: no driver call for memory after the first ones. */
TEST_P(Place, NothingIsAllocatedInTheSteadyState)
{
    stm_device_pool *p = pool(8 << 20, 8 << 20);
    mt::Stream a(*dev), b(*dev);
    stm_device_counts at_first = {};
    long blocks = 0;
    for (int batch = 0; batch < 2000; batch++) {
        mill_buffer *x = nullptr, *y = nullptr;
        stm_mark made = {}, used = {};
        mill_error err = {};
        if (batch == 100) at_first = stm_device_counts_of(*dev), blocks = mt::live();
        while (stm_stream_in_flight(a) > 2 || stm_stream_in_flight(b) > 2) {
            if (stm_stream_in_flight(b) > 2 && batch % 50 == 0) stm_stream_sync(b, &err); /* lazy devices run what is waited for */
            ASSERT_EQ(stm_stream_poll(a, &err), MILL_OK) << err.msg;
            ASSERT_EQ(stm_stream_poll(b, &err), MILL_OK) << err.msg;
        }
        ASSERT_EQ(stm_device_pool_take(p, 100000 + batch % 7 * 1000, &x, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_device_pool_take(p, 30000, &y, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_fill(a, mill_buffer_data(x), batch, 30000, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_raise(a, &made, &err), MILL_OK) << err.msg;
        stm_buffer_written(x, made);
        ASSERT_EQ(stm_buffer_await(x, b, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_copy(b, mill_buffer_data(y), mill_buffer_data(x), 30000, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_raise(b, &used, &err), MILL_OK) << err.msg;
        stm_buffer_written(y, used);
        ASSERT_TRUE(stm_buffer_read_until(x, used));
        mill_buffer_unref(&x);
        mill_buffer_unref(&y);
    }
    const stm_device_counts after = stm_device_counts_of(*dev);
    EXPECT_EQ(after.allocs, at_first.allocs);
    EXPECT_EQ(after.frees, at_first.frees);
    EXPECT_EQ(after.events, at_first.events);
    EXPECT_LE(after.waits - at_first.waits, 1900) << "one wait per producer stream and batch";
    EXPECT_LE(mt::live(), blocks);
    EXPECT_LT(stm_device_pool_counts(p).peak_bytes, 2 << 20);
    stm_stream_sync(a, nullptr);
    stm_stream_sync(b, nullptr);
    stm_device_pool_release(&p);
}

TEST_P(Place, ThreadsShareAPool)
{
    stm_device_pool *p = pool(1 << 20, 1 << 20);
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; t++)
        threads.emplace_back([&, t] {
            mt::Stream s(*dev);
            for (int i = 0; i < 200; i++) {
                mill_buffer *b = nullptr;
                stm_mark m = {};
                const mill_status st = stm_device_pool_take(p, static_cast<size_t>(1000 * (t + 1)), &b, nullptr);
                if (st == MILL_OK) {
                    EXPECT_EQ(stm_stream_fill(s, mill_buffer_data(b), i, 1000, nullptr), MILL_OK);
                    EXPECT_EQ(stm_stream_raise(s, &m, nullptr), MILL_OK);
                    stm_buffer_written(b, m);
                    mill_buffer_unref(&b);
                } else {
                    EXPECT_EQ(st, MILL_ERR_AGAIN);
                }
                if (i % 8 == 7) {
                    EXPECT_EQ(stm_stream_sync(s, nullptr), MILL_OK);
                }
            }
            EXPECT_EQ(stm_stream_sync(s, nullptr), MILL_OK);
        });
    for (std::thread &t : threads) t.join();
    stm_device_pool_reap(p);
    EXPECT_EQ(stm_device_pool_counts(p).waiting_bytes, 0);
    EXPECT_EQ(stm_device_pool_counts(p).live_bytes, 0);
    stm_device_pool_release(&p);
}

TEST_P(Place, FailsCleanlyAtEveryPoint)
{
    int failures = 0;
    for (int nth = 0;; nth++) {
        stm_device_pool_opts o = {};
        o.device = *dev, o.kind = STM_MEM_DEVICE, o.heads = heads, o.slab_bytes = 4096, o.limit_bytes = 0;
        stm_device_pool *p = nullptr;
        std::vector<mill_buffer *> held;
        mill_error err = {};
        const long before = mt::live();
        stm_pool_trim(heads);
        mt::FailNth fail(nth, STM_FAULT_ALLOC | STM_FAULT_DEVICE);
        mill_status st = stm_device_pool_create(&o, &p, &err);
        for (int i = 0; i < 100 && st == MILL_OK; i++) { /* several slabs, several chunks of records */
            mill_buffer *b = nullptr;
            st = stm_device_pool_take(p, 300, &b, &err);
            if (b != nullptr) held.push_back(b);
        }
        const bool fired = fail.fired();
        if (st != MILL_OK) { /* the pool of heads does without memory that it only wanted ahead of time */
            EXPECT_TRUE(fired) << nth << ": " << err.msg;
            EXPECT_STRNE(err.msg, "") << nth;
            failures++;
        }
        for (mill_buffer *&b : held) mill_buffer_unref(&b);
        if (p != nullptr) {
            EXPECT_EQ(stm_device_pool_counts(p).live_bytes, 0);
        }
        stm_device_pool_release(&p);
        stm_pool_trim(heads);
        EXPECT_LE(mt::live(), before);
        if (!fired) break;
        ASSERT_LT(nth, 1000);
    }
    EXPECT_GT(failures, 15);
}

INSTANTIATE_TEST_SUITE_P(Backends, Place, ::testing::Values(mt::suite_for()), [](const auto &i) { return std::string(i.param); });
