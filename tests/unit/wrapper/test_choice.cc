/* Which rows of a generator a run takes. */
#include <gtest/gtest.h>

#include <vector>

extern "C" {
#include "wrapper/choice.h"
}

namespace {

std::vector<int64_t> taken(const stm_row_choice &c, int64_t first, int64_t n)
{
    std::vector<int64_t> index(static_cast<size_t>(n) + 1);
    const int64_t k = stm_row_choice_of(&c, first, n, index.data());
    index.resize(static_cast<size_t>(k));
    for (int64_t &i : index) i += first;
    return index;
}

/* Every row is in one shard, whatever the sizes of the batches that it comes in, which may differ between shards. */
TEST(RowChoice, ShardsPartTheRows)
{
    for (int32_t shards : {1, 2, 3, 7, 100}) {
        std::vector<int> seen(1000);
        for (int32_t i = 0; i < shards; i++) {
            stm_row_choice c = {};
            c.shard = i;
            c.shards = shards;
            const int64_t batch = 1 + (i * 37) % 300;
            for (int64_t first = 0; first < 1000; first += batch)
                for (int64_t row : taken(c, first, first + batch <= 1000 ? batch : 1000 - first)) seen[static_cast<size_t>(row)]++;
        }
        EXPECT_EQ(seen, std::vector<int>(1000, 1)) << shards;
    }
}

TEST(RowChoice, RangesAreTakenAsTheyStand)
{
    const stm_row_range ranges[] = {{3, 3}, {10, 12}, {64, 70}};
    stm_row_choice c = {};
    c.ranges = ranges;
    c.n = 3;
    EXPECT_EQ(taken(c, 0, 66), (std::vector<int64_t>{3, 10, 11, 12, 64, 65}));
    EXPECT_EQ(taken(c, 66, 10), (std::vector<int64_t>{66, 67, 68, 69, 70}));
    EXPECT_TRUE(taken(c, 13, 51).empty());
    c.n = 0;
    EXPECT_TRUE(taken(c, 0, 100).empty());
}

} // namespace
