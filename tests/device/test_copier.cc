/* Copies in pieces. */
#include "device/backend.h"

#include <algorithm>

#include "support/fail_nth.h"

namespace {

class Copier : public ::testing::TestWithParam<const char *> {
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
            EXPECT_EQ(mt::live(), before_);
        }
    }
    int other() const { return mt::devices_of(ops) > 1 ? 1 : 0; }
    static void finish(stm_copier *c)
    {
        for (int i = 0; i < 200000 && stm_copier_busy(c); i++) {
            mill_error err = {};
            ASSERT_EQ(stm_copier_poll(c, &err), MILL_OK) << err.msg;
            struct timespec nap = {0, 100000};
            if (i > 10) nanosleep(&nap, nullptr);
        }
        EXPECT_FALSE(stm_copier_busy(c));
    }
    const stm_device_ops *ops = nullptr;

private:
    long before_ = 0;
};

void number(char *p, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++) p[i] = static_cast<char>((i * 2654435761u + seed) >> 13);
}

} // namespace

TEST_P(Copier, PiecesMakeTheWhole)
{
    mt::Device dev(ops);
    stm_copier *up = nullptr, *down = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_copier_open(dev, nullptr, false, &up, &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_copier_open(dev, nullptr, false, &down, &err), MILL_OK) << err.msg;
    for (size_t bytes : {(size_t)0, (size_t)1, STM_COPY_PIECE - 1, STM_COPY_PIECE, STM_COPY_PIECE + 1, 5 * STM_COPY_PIECE + 77}) {
        mt::Memory host(dev, STM_MEM_PINNED, bytes + 1), device(dev, STM_MEM_DEVICE, bytes + 1),
            back(dev, STM_MEM_PINNED, bytes + 1);
        number(host.as(), bytes, 1);
        memset(back.as(), 0x55, bytes + 1);
        stm_copy there = {}, home = {};
        there.dst = device.as(), there.src = host.as(), there.bytes = bytes;
        stm_copier_add(up, &there);
        finish(up);
        ASSERT_TRUE(there.queued);
        ASSERT_EQ(there.status, MILL_OK);
        home.dst = back.as(), home.src = device.as(), home.bytes = bytes, home.after = there.mark;
        stm_copier_add(down, &home);
        finish(down);
        ASSERT_TRUE(home.queued);
        ASSERT_TRUE(stm_mark_done(home.mark));
        EXPECT_EQ(memcmp(host.as(), back.as(), bytes), 0) << bytes;
        EXPECT_EQ(back.as()[bytes], 0x55) << "wrote past the end";
    }
    stm_copier_close(&up);
    stm_copier_close(&down);
    stm_copier_close(&down);
}

/* On the cpu a piece is done as soon as it is queued, but known to be done only at a poll: so turns can be seen on every
 * backend. */
TEST_P(Copier, ASmallCopyWaitsForOneWindowAndNotForAll)
{
    const size_t large = 16 * STM_COPY_PIECE, small = 64 << 10;
    mt::Device dev(ops);
    mt::Memory host(dev, STM_MEM_PINNED, large + small), device(dev, STM_MEM_DEVICE, large + small);
    stm_copier *up = nullptr;
    stm_copy big = {}, little = {};
    ASSERT_EQ(stm_copier_open(dev, nullptr, false, &up, nullptr), MILL_OK);
    number(host.as(), large + small, 2);
    big.dst = device.as(), big.src = host.as(), big.bytes = large;
    little.dst = device.as() + large, little.src = host.as() + large, little.bytes = small;
    stm_copier_add(up, &big);
    EXPECT_LE(big.issued, STM_COPY_WINDOW);
    EXPECT_FALSE(big.queued);
    stm_copier_add(up, &little);
    for (int i = 0; i < 200000 && !little.queued; i++) ASSERT_EQ(stm_copier_poll(up, nullptr), MILL_OK);
    ASSERT_TRUE(little.queued);
    EXPECT_FALSE(big.queued);
    EXPECT_LE(big.issued, 2 * STM_COPY_WINDOW) << "the small one was let in front";
    finish(up);
    EXPECT_TRUE(big.queued);
    stm_copier_close(&up);
}

TEST_P(Copier, LargeCopiesTakeTurns)
{
    const size_t bytes = 6 * STM_COPY_PIECE;
    mt::Device dev(ops);
    mt::Memory host(dev, STM_MEM_PINNED, bytes), device(dev, STM_MEM_DEVICE, 3 * bytes);
    stm_copier *up = nullptr;
    stm_copy all[3] = {};
    size_t widest = 0;
    ASSERT_EQ(stm_copier_open(dev, nullptr, false, &up, nullptr), MILL_OK);
    number(host.as(), bytes, 3);
    for (int i = 0; i < 3; i++) {
        all[i].dst = device.as() + i * bytes, all[i].src = host.as(), all[i].bytes = bytes;
        stm_copier_add(up, &all[i]);
    }
    for (int i = 0; i < 200000 && !(all[0].queued && all[1].queued && all[2].queued); i++) {
        ASSERT_EQ(stm_copier_poll(up, nullptr), MILL_OK);
        const auto range = std::minmax({all[0].issued, all[1].issued, all[2].issued});
        widest = std::max(widest, range.second - range.first);
    }
    EXPECT_LE(widest, 2 * STM_COPY_WINDOW);
    finish(up);
    stm_copier_close(&up);
}

TEST_P(Copier, BetweenDevicesDirectAndStaged)
{
    const size_t bytes = 3 * STM_COPY_PIECE + 12345;
    mt::Device a(ops, 0), b(ops, other());
    mt::Memory host(a, STM_MEM_PINNED, bytes), x(a, STM_MEM_DEVICE, bytes), y(b, STM_MEM_DEVICE, bytes),
        back(b, STM_MEM_PINNED, bytes);
    for (bool staged : {false, true}) {
        stm_copier *up = nullptr, *over = nullptr, *down = nullptr;
        mill_error err = {};
        stm_copy one = {}, two = {}, three = {};
        number(host.as(), bytes, staged ? 5 : 4);
        memset(back.as(), 0, bytes);
        ASSERT_EQ(stm_copier_open(a, nullptr, false, &up, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_copier_open(a, b, staged, &over, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_copier_open(b, nullptr, false, &down, &err), MILL_OK) << err.msg;
        one.dst = x.as(), one.src = host.as(), one.bytes = bytes;
        stm_copier_add(up, &one);
        for (int i = 0; i < 200000 && !one.queued; i++) ASSERT_EQ(stm_copier_poll(up, &err), MILL_OK);
        two.dst = y.as(), two.src = x.as(), two.bytes = bytes, two.after = one.mark; /* not waited for: ordered on the device */
        stm_copier_add(over, &two);
        for (int i = 0; i < 200000 && !two.queued; i++) {
            ASSERT_EQ(stm_copier_poll(over, &err), MILL_OK) << err.msg;
            ASSERT_EQ(stm_copier_poll(up, &err), MILL_OK) << err.msg;
        }
        three.dst = back.as(), three.src = y.as(), three.bytes = bytes, three.after = two.mark;
        stm_copier_add(down, &three);
        finish(down);
        finish(over);
        finish(up);
        EXPECT_EQ(two.status, MILL_OK);
        EXPECT_EQ(memcmp(back.as(), host.as(), bytes), 0) << (staged ? "staged" : "direct");
        stm_copier_close(&up);
        stm_copier_close(&over);
        stm_copier_close(&down);
    }
}

TEST_P(Copier, ClosingTellsWhatWasNotQueued)
{
    const size_t bytes = 8 * STM_COPY_PIECE;
    mt::Device dev(ops);
    mt::Memory host(dev, STM_MEM_PINNED, bytes), device(dev, STM_MEM_DEVICE, bytes);
    stm_copier *up = nullptr;
    stm_copy c = {};
    ASSERT_EQ(stm_copier_open(dev, nullptr, false, &up, nullptr), MILL_OK);
    memset(host.as(), 1, bytes);
    c.dst = device.as(), c.src = host.as(), c.bytes = bytes;
    stm_copier_add(up, &c);
    EXPECT_FALSE(c.queued);
    stm_copier_close(&up);
    EXPECT_TRUE(c.queued);
    EXPECT_EQ(c.status, MILL_ERR_STOPPED);
    EXPECT_TRUE(stm_mark_done(c.mark)) << "what was queued of it is done";
}

INSTANTIATE_TEST_SUITE_P(Backends, Copier, ::testing::Values(mt::suite_for()), [](const auto &i) { return std::string(i.param); });
