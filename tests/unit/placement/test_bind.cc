#include <gtest/gtest.h>

#include <thread>

extern "C" {
#include "placement/bind.h"
#include "placement/limits.h"
}

namespace {

/* In a thread of its own: the test's keeps its mask. */
template <class F> void in_thread(F f) { std::thread(f).join(); }

stm_cpus one(int32_t cpu)
{
    stm_cpus s = {};
    stm_cpus_add(&s, cpu);
    return s;
}

TEST(Bind, NarrowsToTheIntersection)
{
    in_thread([] {
        const stm_cpus allowed = stm_cpus_allowed();
        stm_cpus wish = one(stm_cpus_next(&allowed, -1));

        stm_cpus_add(&wish, STM_CPUS_MAX - 1); /* of another machine */
        ASSERT_TRUE(stm_bind_thread(&wish, nullptr));
        const stm_cpus now = stm_cpus_allowed();
        const stm_cpus want = one(stm_cpus_next(&allowed, -1));
        EXPECT_TRUE(stm_cpus_equal(&now, &want));
    });
}

TEST(Bind, NothingInCommonChangesNothing)
{
    in_thread([] {
        const stm_cpus before = stm_cpus_allowed(), wish = one(STM_CPUS_MAX - 1), none = {};

        EXPECT_FALSE(stm_bind_thread(&wish, nullptr));
        EXPECT_FALSE(stm_bind_thread(&none, nullptr));
        const stm_cpus after = stm_cpus_allowed();
        EXPECT_TRUE(stm_cpus_equal(&before, &after));
    });
}

TEST(Bind, NeverWiderThanAllowed)
{
    in_thread([] {
        const stm_cpus all = stm_cpus_allowed();
        const int32_t first = stm_cpus_next(&all, -1), second = stm_cpus_next(&all, first);
        const stm_cpus law = one(first);

        if (second < 0) { /* one processor: it can only stay where it is */
            EXPECT_TRUE(stm_bind_thread(&all, &law));
            return;
        }
        ASSERT_TRUE(stm_bind_thread(&law, nullptr));
        EXPECT_TRUE(stm_bind_thread(&all, nullptr)) << "its own mask is the limit";
        stm_cpus now = stm_cpus_allowed();
        EXPECT_TRUE(stm_cpus_equal(&now, &law));
        const stm_cpus other = one(second);
        EXPECT_FALSE(stm_bind_thread(&other, nullptr));
        EXPECT_FALSE(stm_bind_thread(&other, &law));
        EXPECT_TRUE(stm_bind_thread(&other, &all)) << "within what the process was given it may go elsewhere";
        now = stm_cpus_allowed();
        EXPECT_TRUE(stm_cpus_equal(&now, &other));
    });
}

TEST(Bind, MemoryIsAWishNotALaw)
{
    in_thread([] {
        EXPECT_FALSE(stm_bind_memory(1 << 20));
        const bool may = stm_bind_memory(0); /* a container may forbid it: then nothing has changed */
        std::vector<char> page(1 << 20, 1);
        EXPECT_EQ(page[12345], 1);
        EXPECT_EQ(stm_bind_memory(-1), may);
    });
}

} // namespace
