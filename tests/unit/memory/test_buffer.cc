#include <gtest/gtest.h>

#include <cstring>

#include "support/fail_nth.h"

extern "C" {
#include "memory/buffer.h"
}

namespace {
void count_release(void *owner) { ++*static_cast<int *>(owner); }
} // namespace

class Buffer : public ::testing::Test {
protected:
    void SetUp() override
    {
        before_ = mt::live();
        ASSERT_EQ(stm_pool_create(0, &pool_), MILL_OK);
    }
    void TearDown() override
    {
        stm_pool_release(&pool_);
        EXPECT_EQ(mt::live(), before_);
    }
    mill_pool *pool_ = nullptr;
    long before_ = 0;
};

TEST_F(Buffer, SizeAlignmentAndPadding)
{
    for (size_t n : {0u, 1u, 63u, 64u, 65u, 4096u, 1000001u}) {
        mill_buffer *b = nullptr;
        ASSERT_EQ(mill_buffer_create(pool_, n, &b), MILL_OK);
        EXPECT_EQ(mill_buffer_bytes(b), n);
        EXPECT_EQ((uintptr_t)mill_buffer_data(b) % MILL_BUFFER_ALIGN, 0u);
        memset(mill_buffer_data(b), 1, (n + 63) / 64 * 64); /* the padding is ours, too: the address sanitizer agrees */
        EXPECT_GE(stm_buffer_capacity(b), n);
        mill_buffer_unref(&b);
        EXPECT_EQ(b, nullptr);
        mill_buffer_unref(&b);
    }
}

TEST_F(Buffer, RefusesWhatIsOutOfRange)
{
    mill_buffer *b = nullptr;
    EXPECT_EQ(mill_buffer_create(pool_, MILL_BUFFER_MAX_BYTES + 1, &b), MILL_ERR_INVALID);
    EXPECT_EQ(mill_buffer_create(pool_, SIZE_MAX, &b), MILL_ERR_INVALID);
    EXPECT_EQ(b, nullptr);
}

TEST_F(Buffer, LastReferenceReturnsIt)
{
    mill_buffer *a = nullptr;
    ASSERT_EQ(mill_buffer_create(pool_, 100, &a), MILL_OK);
    EXPECT_TRUE(stm_buffer_unique(a));
    mill_buffer *b = mill_buffer_ref(a);
    EXPECT_FALSE(stm_buffer_unique(a));
    mill_buffer_unref(&a);
    EXPECT_TRUE(stm_buffer_unique(b));
    EXPECT_GT(stm_pool_counts(pool_).live_bytes, 0);
    mill_buffer_unref(&b);
    EXPECT_EQ(stm_pool_counts(pool_).live_bytes, 0);
}

TEST_F(Buffer, RoundingFillsTheBlock)
{
    for (size_t n : {1u, 100u, 960u, 961u, 4032u, 4033u, 100000u}) {
        const size_t r = stm_buffer_round(n);
        EXPECT_GE(r, n);
        EXPECT_EQ(stm_buffer_round(r), r);
        EXPECT_EQ(stm_pool_block_bytes(r + sizeof(mill_buffer)), stm_pool_block_bytes(n + sizeof(mill_buffer)));
    }
}

TEST_F(Buffer, WrappedMemoryIsReleasedOnce)
{
    int released = 0;
    char text[] = "abc";
    mill_buffer *b = nullptr;
    ASSERT_EQ(stm_buffer_wrap(pool_, text, 3, count_release, &released, &b), MILL_OK);
    EXPECT_EQ(mill_buffer_data(b), text);
    EXPECT_FALSE(stm_buffer_unique(b)) << "never written to";
    mill_buffer *c = mill_buffer_ref(b);
    mill_buffer_unref(&b);
    EXPECT_EQ(released, 0);
    mill_buffer_unref(&c);
    EXPECT_EQ(released, 1);
}

TEST_F(Buffer, OutOfMemoryLeavesOutputsAlone)
{
    mill_buffer *b = nullptr;
    int released = 0;
    mt::FailNth fail(0);
    EXPECT_EQ(mill_buffer_create(pool_, 100, &b), MILL_ERR_NOMEM);
    EXPECT_TRUE(fail.fired());
    mt::FailNth again(0);
    EXPECT_EQ(stm_buffer_wrap(pool_, "x", 1, count_release, &released, &b), MILL_ERR_NOMEM);
    EXPECT_TRUE(again.fired());
    EXPECT_EQ(b, nullptr);
    EXPECT_EQ(released, 0);
}
