/* The contract of a device backend: one suite for all. */
#include "device/backend.h"

#include <dlfcn.h>

#include <cmath>
#include <numeric>
#include <thread>

#include "support/fail_nth.h"

namespace {

class Contract : public ::testing::TestWithParam<const char *> {
protected:
    void SetUp() override
    {
        std::string why;
        ops = mt::backend(GetParam(), &why);
        if (ops == nullptr) GTEST_SKIP() << GetParam() << ": " << why;
        before_ = mt::live();
    }
    void TearDown() override
    {
        if (ops != nullptr) {
            EXPECT_EQ(mt::live(), before_) << "leak";
        }
    }
    int other() const { return mt::devices_of(ops) > 1 ? 1 : 0; }
    const stm_device_ops *ops = nullptr;

private:
    long before_ = 0;
};

std::vector<char> pattern(size_t bytes, int seed)
{
    std::vector<char> v(bytes);
    uint32_t x = static_cast<uint32_t>(seed) * 2654435761u + 1;
    for (char &c : v) x = x * 1664525u + 1013904223u, c = static_cast<char>(x >> 24);
    return v;
}

} // namespace

TEST_P(Contract, TableIsComplete)
{
    EXPECT_EQ(ops->struct_size, sizeof *ops);
    EXPECT_EQ(ops->abi, STM_DEVICE_ABI);
    EXPECT_STREQ(ops->name, GetParam());
    for (const void *entry : {(const void *)ops->count,        (const void *)ops->info,          (const void *)ops->device_open,
                              (const void *)ops->device_close, (const void *)ops->enter,         (const void *)ops->mem_info,
                              (const void *)ops->mem_alloc,    (const void *)ops->mem_free,      (const void *)ops->stream_open,
                              (const void *)ops->stream_close, (const void *)ops->stream_native, (const void *)ops->copy,
                              (const void *)ops->fill,         (const void *)ops->peer,          (const void *)ops->stream_sync,
                              (const void *)ops->event_open,   (const void *)ops->event_close,   (const void *)ops->event_record,
                              (const void *)ops->event_query,  (const void *)ops->stream_wait})
        EXPECT_NE(entry, nullptr);
    const bool graphs = ops->graph_begin != nullptr;
    EXPECT_EQ(ops->graph_end != nullptr, graphs);
    EXPECT_EQ(ops->graph_launch != nullptr, graphs);
    EXPECT_EQ(ops->graph_close != nullptr, graphs);
    EXPECT_EQ(ops->range_push != nullptr, ops->range_pop != nullptr);
}

TEST_P(Contract, DevicesSayWhatTheyAre)
{
    const int n = mt::devices_of(ops);
    ASSERT_GE(n, 1);
    for (int i = 0; i < n; i++) {
        stm_device_info info;
        mill_error err = {};
        ASSERT_EQ(ops->info(i, &info, &err), MILL_OK) << err.msg;
        EXPECT_STRNE(info.name, "");
        EXPECT_GT(info.memory_bytes, 0);
        EXPECT_GT(info.processors, 0);
        EXPECT_EQ(info.uuid[0] == '\0', info.host_memory);
    }
    for (int bad : {-1, n, 1000}) {
        stm_device_info info;
        stm_device *dev = nullptr;
        mill_error err = {};
        EXPECT_NE(ops->info(bad, &info, &err), MILL_OK);
        EXPECT_STRNE(err.msg, "");
        EXPECT_NE(stm_device_open(ops, bad, &dev, nullptr), MILL_OK);
        EXPECT_EQ(dev, nullptr);
    }
}

TEST_P(Contract, MemoryIsAlignedAndAccounted)
{
    mt::Device dev(ops);
    int64_t free0 = 0, total = 0;
    mill_error err = {};
    ASSERT_EQ(stm_device_memory(dev, &free0, &total, &err), MILL_OK) << err.msg;
    EXPECT_LE(free0, total);
    for (stm_mem_kind kind : {STM_MEM_DEVICE, STM_MEM_PINNED})
        for (size_t bytes : {1u, 255u, 256u, 4097u, 1u << 20}) {
            mt::Memory m(dev, kind, bytes);
            EXPECT_EQ(reinterpret_cast<uintptr_t>(m.as()) % 256, 0u);
        }
    void *none = nullptr;
    EXPECT_EQ(stm_device_alloc(dev, STM_MEM_DEVICE, 0, &none, nullptr), MILL_ERR_INVALID);
    EXPECT_EQ(none, nullptr);
    stm_device_free(dev, STM_MEM_DEVICE, nullptr);
}

TEST_P(Contract, OutOfMemoryIsToldAndPasses)
{
    mt::Device dev(ops);
    mt::Stream s(dev);
    void *p = nullptr;
    mill_error err = {};
    const mill_status st = stm_device_alloc(dev, STM_MEM_DEVICE, (size_t)1 << 60, &p, &err);
    EXPECT_EQ(st, MILL_ERR_DEVICE_MEM);
    EXPECT_EQ(stm_device_verdict(st), STM_SHRINK);
    EXPECT_EQ(p, nullptr);
    EXPECT_STRNE(err.msg, "");
    EXPECT_FALSE(stm_device_lost(dev));
    /* and the next call knows nothing of it */
    mt::Memory m(dev, STM_MEM_DEVICE, 4096);
    EXPECT_EQ(stm_stream_fill(s, m.as(), 7, 4096, &err), MILL_OK);
    err = {};
    EXPECT_EQ(stm_stream_sync(s, &err), MILL_OK) << err.msg;
}

TEST_P(Contract, CopiesInEveryDirection)
{
    mt::Device dev(ops);
    mt::Stream s(dev);
    for (size_t bytes : {(size_t)1, (size_t)3, (size_t)4096, (size_t)1000003, STM_COPY_MOST, 2 * STM_COPY_MOST + 77}) {
        const std::vector<char> want = pattern(bytes, 3);
        std::vector<char> pageable(bytes, 1);
        mt::Memory pinned(dev, STM_MEM_PINNED, bytes), a(dev, STM_MEM_DEVICE, bytes), b(dev, STM_MEM_DEVICE, bytes),
            back(dev, STM_MEM_PINNED, bytes);
        memcpy(pinned.as(), want.data(), bytes);
        mill_error err = {};
        const stm_device_counts before = stm_device_counts_of(dev);
        ASSERT_EQ(stm_stream_copy(s, a.as(), pinned.as(), bytes, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_device_counts_of(dev).copies - before.copies, bytes <= STM_COPY_MOST ? 1 : 3) << "others may go between them";
        EXPECT_EQ(stm_device_counts_of(dev).copied_bytes - before.copied_bytes, (int64_t)bytes);
        ASSERT_EQ(stm_stream_copy(s, b.as(), a.as(), bytes, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_fill(s, a.as(), 0, bytes, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_copy(s, back.as(), b.as(), bytes, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_copy(s, pageable.data(), b.as(), bytes, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_sync(s, &err), MILL_OK) << err.msg;
        EXPECT_EQ(memcmp(back.as(), want.data(), bytes), 0);
        EXPECT_EQ(pageable, want);
        ASSERT_EQ(stm_stream_copy(s, back.as(), a.as(), bytes, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_sync(s, &err), MILL_OK) << err.msg;
        for (size_t i = 0; i < bytes; i += 997) ASSERT_EQ(back.as()[i], 0) << i;
    }
    EXPECT_EQ(stm_stream_copy(s, nullptr, nullptr, 0, nullptr), MILL_OK);
}

TEST_P(Contract, TimelineRisesInOrder)
{
    mt::Device dev(ops);
    mt::Stream s(dev);
    mt::Memory m(dev, STM_MEM_DEVICE, 1 << 20);
    stm_mark marks[STM_TICKS];
    mill_error err = {};
    for (int i = 0; i < STM_TICKS; i++) {
        ASSERT_EQ(stm_stream_fill(s, m.as(), i, 1 << 20, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_raise(s, &marks[i], &err), MILL_OK) << err.msg;
        if (i > 0) {
            EXPECT_EQ(marks[i].tick, marks[i - 1].tick + 1);
        }
        EXPECT_EQ(marks[i].line, marks[0].line);
        EXPECT_EQ(stm_stream_in_flight(s), i + 1) << "done moves at a poll only";
    }
    stm_mark none = {};
    EXPECT_EQ(stm_stream_raise(s, &none, nullptr), MILL_ERR_AGAIN) << "no mark is free";
    EXPECT_EQ(none.line, nullptr);
    ASSERT_TRUE(mt::wait_for(s, marks[STM_TICKS - 1]));
    for (const stm_mark &mark : marks) EXPECT_TRUE(stm_mark_done(mark));
    EXPECT_EQ(stm_stream_in_flight(s), 0);
    EXPECT_TRUE(stm_mark_done(stm_mark{}));
    EXPECT_EQ(stm_stream_poll(s, nullptr), MILL_OK);
}

TEST_P(Contract, OneStreamWaitsForAnother)
{
    /* A writes round by round, B copies after A's mark, A's next round waits for B: a missing wait shows as a mixture of rounds. */
    const size_t bytes = 300000;
    const int rounds = 40;
    mt::Device dev(ops);
    mt::Stream a(dev), b(dev);
    mt::Memory x(dev, STM_MEM_DEVICE, bytes), y(dev, STM_MEM_PINNED, bytes * rounds);
    stm_mark read = {};
    mill_error err = {};
    memset(y.as(), 0xee, bytes * rounds);
    for (int r = 0; r < rounds; r++) {
        stm_mark written = {};
        while (stm_stream_in_flight(a) > 8 || stm_stream_in_flight(b) > 8) {
            ASSERT_EQ(stm_stream_poll(a, &err), MILL_OK) << err.msg;
            ASSERT_EQ(stm_stream_poll(b, &err), MILL_OK) << err.msg;
        }
        ASSERT_EQ(stm_stream_after(a, read, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_fill(a, x.as(), r + 1, bytes, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_raise(a, &written, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_after(b, written, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_copy(b, y.as() + bytes * r, x.as(), bytes, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_raise(b, &read, &err), MILL_OK) << err.msg;
    }
    ASSERT_TRUE(mt::wait_for(b, read));
    for (int r = 0; r < rounds; r++)
        for (size_t i = 0; i < bytes; i++)
            ASSERT_EQ(y.as()[bytes * r + i], static_cast<char>(r + 1)) << "round " << r << " byte " << i;
}

TEST_P(Contract, AWaitIsQueuedOncePerProducerAndBatch)
{
    mt::Device dev(ops);
    mt::Stream a(dev), b(dev);
    mt::Memory x(dev, STM_MEM_DEVICE, 1 << 16);
    stm_mark first = {}, second = {};
    mill_error err = {};
    ASSERT_EQ(stm_stream_fill(a, x.as(), 1, 1 << 16, &err), MILL_OK);
    ASSERT_EQ(stm_stream_raise(a, &first, &err), MILL_OK);
    ASSERT_EQ(stm_stream_raise(a, &second, &err), MILL_OK);
    const int64_t before = stm_device_counts_of(dev).waits;
    for (int column = 0; column < 5; column++) ASSERT_EQ(stm_stream_after(b, second, &err), MILL_OK);
    ASSERT_EQ(stm_stream_after(b, first, &err), MILL_OK);  /* older: behind it already */
    ASSERT_EQ(stm_stream_after(a, second, &err), MILL_OK); /* its own */
    ASSERT_EQ(stm_stream_after(b, stm_mark{}, &err), MILL_OK);
    EXPECT_EQ(stm_device_counts_of(dev).waits - before, 1);
    ASSERT_TRUE(mt::wait_for(a, second));
    mt::Stream c(dev);
    ASSERT_EQ(stm_stream_after(c, second, &err), MILL_OK); /* known to be done */
    EXPECT_EQ(stm_device_counts_of(dev).waits - before, 1);
}

/* Also with many producers, and through a stream that waited for them all: none is forgotten for another. */
TEST_P(Contract, WaitsForSeveralProducersAreRemembered)
{
    constexpr int producers = 15;
    mt::Device dev(ops);
    std::vector<std::unique_ptr<mt::Stream>> of;
    mt::Stream step(dev), down(dev);
    stm_mark marks[producers] = {}, done = {};
    mill_error err = {};
    for (int i = 0; i < producers; i++) {
        of.push_back(std::make_unique<mt::Stream>(dev));
        ASSERT_EQ(stm_stream_raise(*of.back(), &marks[i], &err), MILL_OK);
        ASSERT_FALSE(stm_mark_done(marks[i])) << "nobody has asked";
    }
    const int64_t before = stm_device_counts_of(dev).waits;
    for (int column = 0; column < 3; column++)
        for (const stm_mark mark : marks) ASSERT_EQ(stm_stream_after(step, mark, &err), MILL_OK);
    EXPECT_EQ(stm_device_counts_of(dev).waits - before, producers);
    ASSERT_EQ(stm_stream_raise(step, &done, &err), MILL_OK);
    for (int column = 0; column < 3; column++) {
        ASSERT_EQ(stm_stream_follow(down, step, done, &err), MILL_OK);
        ASSERT_EQ(stm_stream_after(down, done, &err), MILL_OK);
        for (const stm_mark mark : marks) ASSERT_EQ(stm_stream_after(down, mark, &err), MILL_OK);
    }
    EXPECT_EQ(stm_device_counts_of(dev).waits - before, producers + 1);
    ASSERT_EQ(stm_stream_sync(down, &err), MILL_OK);
}

TEST_P(Contract, MarksOutliveTheirStream)
{
    mt::Device dev(ops);
    stm_mark mark = {};
    {
        mt::Stream s(dev);
        mt::Memory m(dev, STM_MEM_DEVICE, 1 << 16);
        ASSERT_EQ(stm_stream_fill(s, m.as(), 1, 1 << 16, nullptr), MILL_OK);
        ASSERT_EQ(stm_stream_raise(s, &mark, nullptr), MILL_OK);
        stm_stream_sync(s, nullptr);
    }
    EXPECT_TRUE(stm_mark_done(mark));
    mt::Stream next(dev); /* has the same timeline, further on */
    stm_mark later = {};
    ASSERT_EQ(stm_stream_raise(next, &later, nullptr), MILL_OK);
    EXPECT_EQ(later.line, mark.line);
    EXPECT_GT(later.tick, mark.tick);
    EXPECT_TRUE(stm_mark_done(mark));
    ASSERT_TRUE(mt::wait_for(next, later));
}

TEST_P(Contract, AnAnnouncedMarkIsTheNextOne)
{
    mt::Device dev(ops);
    stm_mark announced = {}, got = {}, left = {};
    {
        mt::Stream s(dev);
        announced = stm_stream_next(s);
        EXPECT_FALSE(stm_mark_done(announced));
        ASSERT_EQ(stm_stream_raise(s, &got, nullptr), MILL_OK);
        EXPECT_EQ(got.line, announced.line);
        EXPECT_EQ(got.tick, announced.tick);
        ASSERT_TRUE(mt::wait_for(s, announced));
        left = stm_stream_next(s);
        EXPECT_FALSE(stm_mark_done(left));
    }
    EXPECT_TRUE(stm_mark_done(left)) << "never raised: done with its stream";
}

TEST_P(Contract, EventsAreMadeOnceAndUsedAgain)
{
    mt::Device dev(ops);
    mt::Stream s(dev), other(dev);
    mt::Memory m(dev, STM_MEM_DEVICE, 4096);
    const stm_device_counts before = stm_device_counts_of(dev);
    for (int i = 0; i < 20 * STM_TICKS; i++) {
        stm_mark mark = {};
        mill_error err = {};
        ASSERT_EQ(stm_stream_fill(s, m.as(), i, 4096, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_raise(s, &mark, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_after(other, mark, &err), MILL_OK) << err.msg;
        if (i % 2 == 1) {
            ASSERT_TRUE(mt::wait_for(s, mark));
        }
    }
    const stm_device_counts after = stm_device_counts_of(dev);
    EXPECT_EQ(after.events, before.events);
    EXPECT_EQ(after.allocs, before.allocs);
    EXPECT_EQ(after.syncs, before.syncs);
    EXPECT_EQ(after.raises - before.raises, 20 * STM_TICKS);
}

/* Other threads ask whether a mark is done, and their streams wait for it, while its owner raises and polls. */
TEST_P(Contract, MarksAreReadByOtherThreads)
{
    mt::Device dev(ops);
    mt::Stream a(dev);
    mt::Memory x(dev, STM_MEM_DEVICE, 1 << 16), y(dev, STM_MEM_PINNED, 1 << 16);
    std::atomic<uint64_t> published{0};
    stm_mark line = {};
    mill_error err = {};
    ASSERT_EQ(stm_stream_raise(a, &line, &err), MILL_OK);
    ASSERT_EQ(stm_stream_fill(a, x.as(), 0, 1 << 16, &err), MILL_OK);
    std::thread reader([&] {
        mt::Stream b(dev);
        uint64_t last = 0;
        for (int i = 0; i < 300 || last < 200; i++) {
            mill_error e = {};
            stm_mark m = {line.line, published.load(std::memory_order_acquire)};
            EXPECT_EQ(stm_stream_after(b, m, &e), MILL_OK) << e.msg;
            stm_mark_done(m);
            last = m.tick;
            std::this_thread::yield();
        }
        EXPECT_EQ(stm_stream_sync(b, &err), MILL_OK);
    });
    for (int i = 0; i < 250; i++) {
        stm_mark m = {};
        mill_error e = {};
        while (stm_stream_in_flight(a) >= STM_TICKS) ASSERT_EQ(stm_stream_poll(a, &e), MILL_OK) << e.msg;
        ASSERT_EQ(stm_stream_fill(a, x.as(), i, 1 << 10, &e), MILL_OK) << e.msg;
        ASSERT_EQ(stm_stream_raise(a, &m, &e), MILL_OK) << e.msg;
        published.store(m.tick, std::memory_order_release);
        if (stm_stream_in_flight(a) >= STM_TICKS / 2) stm_stream_sync(a, &e); /* lazy devices run only what is waited for */
    }
    reader.join();
}

TEST_P(Contract, PeerCopies)
{
    const size_t bytes = 5u << 20;
    mt::Device a(ops, 0), b(ops, other());
    bool direct = false;
    mill_error err = {};
    ASSERT_EQ(stm_device_peer(a, b, &direct, &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_device_peer(a, b, &direct, &err), MILL_OK) << "asking again: " << err.msg;
    const std::vector<char> want = pattern(bytes, 9);
    mt::Memory host(a, STM_MEM_PINNED, bytes), x(a, STM_MEM_DEVICE, bytes), y(b, STM_MEM_DEVICE, bytes),
        back(b, STM_MEM_PINNED, bytes);
    mt::Stream sa(a), sb(b);
    memcpy(host.as(), want.data(), bytes);
    stm_mark up = {}, over = {};
    ASSERT_EQ(stm_stream_copy(sa, x.as(), host.as(), bytes, &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_stream_raise(sa, &up, &err), MILL_OK);
    if (ops->copy_peer != nullptr) {
        const int64_t before = stm_device_counts_of(a).peer_copies;
        ASSERT_EQ(stm_stream_copy_peer(sa, b, y.as(), a, x.as(), bytes, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_device_counts_of(a).peer_copies - before, 2) << "in pieces, too";
        ASSERT_EQ(stm_stream_raise(sa, &over, &err), MILL_OK);
        ASSERT_EQ(stm_stream_after(sb, over, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_copy(sb, back.as(), y.as(), bytes, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_sync(sb, &err), MILL_OK) << err.msg;
        EXPECT_EQ(memcmp(back.as(), want.data(), bytes), 0);
    }
    ASSERT_EQ(stm_stream_sync(sa, &err), MILL_OK) << err.msg;
}

/* Whoever copies first opens the way, once; without it a real device goes over the host. */
TEST_P(Contract, TheFirstCopyBetweenDevicesOpensTheWay)
{
    const auto calls_of = reinterpret_cast<long (*)(const char *)>(dlsym(RTLD_DEFAULT, "stm_sim_calls"));
    if (calls_of == nullptr || ops->copy_peer == nullptr || other() == 0) return; /* nothing to count, or one device */
    mt::Device a(ops, 0), b(ops, other());
    mt::Memory x(a, STM_MEM_DEVICE, 256), y(b, STM_MEM_DEVICE, 256);
    mt::Stream sa(a), sb(b);
    mill_error err = {};
    const long before = calls_of("cudaDeviceEnablePeerAccess");
    ASSERT_EQ(stm_stream_fill(sa, x.as(), 7, 256, &err), MILL_OK) << err.msg;
    for (int i = 0; i < 3; i++) {
        ASSERT_EQ(stm_stream_copy_peer(sa, b, y.as(), a, x.as(), 256, &err), MILL_OK) << err.msg;
        EXPECT_EQ(calls_of("cudaDeviceEnablePeerAccess") - before, 2) << "there and back";
    }
    ASSERT_EQ(stm_stream_sync(sa, &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_stream_copy_peer(sb, a, x.as(), b, y.as(), 256, &err), MILL_OK) << err.msg;
    EXPECT_EQ(calls_of("cudaDeviceEnablePeerAccess") - before, 2);
    ASSERT_EQ(stm_stream_sync(sb, &err), MILL_OK) << err.msg;
}

/* Kernels go to the device that a thread has entered, whatever it lets go of and whichever way it opens in between. */
TEST_P(Contract, TheDeviceThatAThreadEnteredStaysChosen)
{
    const auto chosen = reinterpret_cast<int (*)(int *)>(dlsym(RTLD_DEFAULT, "cudaGetDevice"));
    if (chosen == nullptr || other() == 0) return;
    mt::Device a(ops, 0), b(ops, other());
    mill_error err = {};
    void *memory[2] = {nullptr, nullptr};
    bool direct = false;
    int now = -1;
    ASSERT_EQ(stm_device_alloc(b, STM_MEM_DEVICE, 256, &memory[0], &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_device_alloc(b, STM_MEM_PINNED, 256, &memory[1], &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_device_enter(a, &err), MILL_OK) << err.msg;
    stm_device_free(b, STM_MEM_DEVICE, memory[0]);
    stm_device_free(b, STM_MEM_PINNED, memory[1]);
    EXPECT_EQ(chosen(&now), 0);
    EXPECT_EQ(now, 0) << "after memory of another device was freed";
    ASSERT_EQ(stm_device_peer(a, b, &direct, &err), MILL_OK) << err.msg;
    EXPECT_EQ(chosen(&now), 0);
    EXPECT_EQ(now, 0) << "after the way to another device was opened";
}

TEST_P(Contract, Graphs)
{
    if (ops->graph_begin == nullptr) return; /* optional; TableIsComplete: all or none */
    mt::Device dev(ops);
    mt::Stream s(dev);
    mt::Memory x(dev, STM_MEM_DEVICE, 4096), y(dev, STM_MEM_PINNED, 4096);
    mill_error err = {};
    stm_hw_graph *g = nullptr;
    memset(y.as(), 0, 4096);
    ASSERT_EQ(stm_stream_fill(s, x.as(), 1, 4096, &err), MILL_OK);
    ASSERT_EQ(ops->graph_begin(stm_stream_hw(s), &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_stream_fill(s, x.as(), 5, 4096, &err), MILL_OK);
    ASSERT_EQ(stm_stream_copy(s, y.as(), x.as(), 4096, &err), MILL_OK);
    ASSERT_EQ(ops->graph_end(stm_stream_hw(s), &g, &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_stream_sync(s, &err), MILL_OK);
    EXPECT_EQ(y.as()[0], 0) << "captured, not run";
    for (int round = 0; round < 3; round++) {
        memset(y.as(), 0, 4096);
        ASSERT_EQ(ops->graph_launch(g, stm_stream_hw(s), &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_stream_sync(s, &err), MILL_OK) << err.msg;
        for (int i = 0; i < 4096; i++) ASSERT_EQ(y.as()[i], 5);
    }
    ops->graph_close(&g);
    EXPECT_EQ(g, nullptr);
    ops->graph_close(&g);
}

TEST_P(Contract, ManyStreamsAndNoMore)
{
    mt::Device dev(ops);
    std::vector<stm_stream *> all;
    stm_stream *one = nullptr;
    mill_error err = {};
    for (int i = 0; i < 24; i++) {
        ASSERT_EQ(stm_stream_open(dev, &one, &err), MILL_OK) << err.msg;
        all.push_back(one);
    }
    const int64_t events = stm_device_counts_of(dev).events;
    stm_stream_close(&all.back());
    ASSERT_EQ(stm_stream_open(dev, &all.back(), &err), MILL_OK);
    EXPECT_EQ(stm_device_counts_of(dev).events, events) << "a timeline that was given back is used again";
    for (stm_stream *&s : all) stm_stream_close(&s);
    stm_stream_close(&all.back());
}

/* Every call fails once: the status is told, nothing leaks, nothing hangs. */
TEST_P(Contract, FailsCleanlyAtEveryPoint)
{
    int points = 0;
    for (int nth = 0;; nth++) {
        stm_device *dev = nullptr;
        stm_stream *a = nullptr, *b = nullptr;
        stm_copier *down = nullptr;
        void *x = nullptr, *y = nullptr;
        stm_mark mark = {};
        mill_error err = {};
        const long before = mt::live();
        stm_copy copy = {};
        mt::FailNth fail(nth, STM_FAULT_ALLOC | STM_FAULT_DEVICE);
        mill_status st = stm_device_open(ops, 0, &dev, &err);
        if (st == MILL_OK) st = stm_device_enter(dev, &err);
        if (st == MILL_OK) st = stm_stream_open(dev, &a, &err);
        if (st == MILL_OK) st = stm_stream_open(dev, &b, &err);
        if (st == MILL_OK) st = stm_copier_open(dev, nullptr, false, &down, &err);
        if (st == MILL_OK) st = stm_device_alloc(dev, STM_MEM_DEVICE, 1 << 16, &x, &err);
        if (st == MILL_OK) st = stm_device_alloc(dev, STM_MEM_PINNED, 1 << 16, &y, &err);
        if (st == MILL_OK) st = stm_stream_fill(a, x, 1, 1 << 16, &err);
        if (st == MILL_OK) st = stm_stream_raise(a, &mark, &err);
        if (st == MILL_OK) st = stm_stream_after(b, mark, &err);
        if (st == MILL_OK) st = stm_stream_fill(b, x, 2, 1 << 16, &err);
        if (st == MILL_OK) st = stm_stream_raise(b, &mark, &err);
        if (st == MILL_OK) {
            copy.dst = y, copy.src = x, copy.bytes = 1 << 16, copy.after = mark;
            stm_copier_add(down, &copy);
            for (int i = 0; i < 1000 && !copy.queued && st == MILL_OK; i++) st = stm_copier_poll(down, &err);
            if (st == MILL_OK) st = copy.status;
        }
        if (st == MILL_OK) st = stm_stream_poll(b, &err);
        if (st == MILL_OK) st = stm_stream_sync(a, &err);
        const bool fired = fail.fired();
        EXPECT_EQ(st == MILL_OK, !fired) << "point " << nth << ": " << err.msg;
        if (dev != nullptr) {
            EXPECT_FALSE(stm_device_lost(dev)) << "point " << nth;
        }
        stm_copier_close(&down);
        stm_stream_close(&a);
        stm_stream_close(&b);
        if (dev != nullptr) {
            stm_device_free(dev, STM_MEM_DEVICE, x);
            stm_device_free(dev, STM_MEM_PINNED, y);
        }
        stm_device_unref(&dev);
        EXPECT_EQ(mt::live(), before) << "leak when point " << nth << " fails";
        if (!fired) break;
        points++;
        ASSERT_LT(nth, 2000);
    }
    EXPECT_GT(points, 40);
    std::printf("%s: %d points failed, one at a time\n", ops->name, points);
}

TEST(Verdict, SortsEveryStatus)
{
    const struct {
        mill_status status;
        stm_verdict want;
    } table[] = {
        {MILL_OK, STM_WELL},
        {MILL_ERR_AGAIN, STM_RETRY},
        {MILL_ERR_BUSY, STM_RETRY},
        {MILL_ERR_DEVICE_MEM, STM_SHRINK},
        {MILL_ERR_DEVICE, STM_LOST},
        {MILL_ERR_STEP, STM_IMPUTE},
        {MILL_ERR_INVALID, STM_IMPUTE},
        {MILL_ERR_UNSUPPORTED, STM_IMPUTE},
        {MILL_ERR_NOMEM, STM_IMPUTE},
        {MILL_ERR_DATA, STM_IMPUTE},
        {MILL_ERR_INTERNAL, STM_IMPUTE},
    };
    for (const auto &row : table) EXPECT_EQ(stm_device_verdict(row.status), row.want) << row.status;
}

INSTANTIATE_TEST_SUITE_P(Backends, Contract, ::testing::Values(mt::suite_for()),
                         [](const auto &i) { return std::string(i.param); });
