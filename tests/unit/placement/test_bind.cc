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

/* Processors 0 and up of this machine as two nodes, with a GPU at the second. */
TEST(Bind, NearAGpuAndAsPlanned)
{
    in_thread([] {
        const stm_cpus all = stm_cpus_allowed();
        const int32_t first = stm_cpus_next(&all, -1), last = stm_cpus_next(&all, first) < 0 ? first : stm_cpus_next(&all, first);
        stm_topology_node nodes[2] = {};
        stm_topology_gpu gpu = {};
        stm_topology t = {};
        stm_placed entry = {};

        nodes[0].cpus = one(first), nodes[1].cpus = one(last);
        nodes[1].os_index = 1 << 20; /* that node is not there: memory is a wish */
        gpu.node = 1, gpu.cpus = nodes[1].cpus;
        t.gpus = &gpu, t.n_gpus = 1, t.nodes = nodes, t.n_nodes = 2;
        ASSERT_TRUE(stm_bind_near_gpu(&t, 0, &all));
        stm_cpus now = stm_cpus_allowed(), want = one(last);
        EXPECT_TRUE(stm_cpus_equal(&now, &want));
        entry.node = 0, entry.cpus = one(first);
        ASSERT_TRUE(stm_bind_placed(&t, &entry, &all));
        now = stm_cpus_allowed(), want = one(first);
        EXPECT_TRUE(stm_cpus_equal(&now, &want));
        entry.cpus = one(STM_CPUS_MAX - 1);
        EXPECT_FALSE(stm_bind_placed(&t, &entry, &all)) << "a plan for another machine";
        now = stm_cpus_allowed();
        EXPECT_TRUE(stm_cpus_equal(&now, &want));
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
