#include <gtest/gtest.h>

extern "C" {
#include "batch/batch.h"
}

TEST(Batch, BuildSliceConcat)
{
    mill_pool *pool = nullptr;
    ASSERT_EQ(stm_pool_create(0, &pool), MILL_OK);
    mill_builder *b = nullptr;
    const mill_type *utf8 = mill_type_plain(MILL_UTF8);
    ASSERT_EQ(mill_builder_create(pool, utf8, &b), MILL_OK);
    for (int i = 0; i < 100; i++) {
        ASSERT_EQ(i % 7 == 3 ? mill_builder_null(b) : mill_builder_text(b, "hello world", i % 11), MILL_OK);
    }
    mill_column *c = nullptr;
    ASSERT_EQ(mill_builder_finish(b, &c), MILL_OK);
    mill_builder_destroy(&b);
    mill_batch *batch = nullptr, *cut = nullptr, *joined = nullptr;
    ASSERT_EQ(mill_batch_create(pool, 100, 1, &batch), MILL_OK);
    ASSERT_EQ(mill_batch_set_column(batch, 0, &c), MILL_OK);
    ASSERT_EQ(stm_batch_slice(batch, 10, 50, &cut), MILL_OK);
    stm_run_of_rows runs[] = {{cut, 3, 20}, {nullptr, 0, 2}, {batch, 0, 100}};
    ASSERT_EQ(stm_batch_concat(pool, runs, 3, &utf8, 1, 2, &joined), MILL_OK);
    EXPECT_EQ(mill_batch_rows(joined), 122);
    const mill_column *j = mill_batch_column(joined, 0);
    for (int r = 0; r < 20; r++) EXPECT_EQ(mill_column_is_null(j, r), (r + 13) % 7 == 3);
    EXPECT_TRUE(mill_column_is_null(j, 20) && mill_column_is_null(j, 21));
    int64_t n = 0;
    EXPECT_EQ(std::string(mill_column_text(j, 22 + 21, &n), 10), "hello worl");
    EXPECT_EQ(n, 10);
    int64_t key = 0;
    stm_batch_key(joined, 0, &key);
    EXPECT_EQ(key, 13);
    mill_batch_destroy(&joined);
    mill_batch_destroy(&cut);
    mill_batch_destroy(&batch);
    EXPECT_EQ(stm_pool_counts(pool).live_bytes, 0);
    stm_pool_release(&pool);
}
