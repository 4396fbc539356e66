/* Kernels that move rows: every form against the reference, through the table of the backend, with guards around the output. */
#include "device/row_cases.h"
#include "device/table.h"

#include <numeric>
#include <random>

namespace {

class RowKernels : public mt::KernelTable {};

std::vector<uint8_t> random_bytes(size_t n, unsigned seed)
{
    std::mt19937 g(seed);
    std::vector<uint8_t> v(n);
    for (uint8_t &b : v) b = static_cast<uint8_t>(g());
    return v;
}

} // namespace

TEST_P(RowKernels, Impute)
{
    for (const auto &c : mt::kImputeCases) {
        if (c.use != mt::Check) continue;
        SCOPED_TRACE(c.name);
        const std::vector<uint8_t> valid = random_bytes((c.offset + c.rows + 7) / 8, 1), failed = random_bytes((c.rows + 7) / 8, 2);
        std::vector<uint8_t> want((c.rows + 7) / 8, 0xcc);
        stm_impute_args a = {c.valid ? valid.data() : nullptr, c.offset, c.failed ? failed.data() : nullptr, want.data(), c.rows};
        stm_impute_ref(&a);
        uint8_t *out = put(std::vector<uint8_t>(want.size(), 0xcc));
        a.valid = c.valid ? put(valid) : nullptr;
        a.failed = c.failed ? put(failed) : nullptr;
        a.out = out;
        ASSERT_EQ(kernels->impute(&a, native()), MILL_OK);
        EXPECT_EQ(get(out, want.size()), want);
        held.clear();
    }
}

TEST_P(RowKernels, Gather)
{
    for (const auto &c : mt::kGatherCases) {
        if (c.use != mt::Check) continue;
        SCOPED_TRACE(c.name);
        std::mt19937 g(7);
        std::vector<uint8_t> src = random_bytes(c.source * c.width + c.shift, 3), want(c.rows * c.width, 0xcc);
        std::vector<int64_t> index(c.rows);
        for (int64_t &i : index) i = static_cast<int64_t>(g() % (c.source + 1)) - 1; /* -1 among them */
        stm_gather_args a = {src.data() + c.shift, index.data(), want.data(), c.rows, c.width};
        stm_gather_ref(&a);
        uint8_t *out = put(std::vector<uint8_t>(want.size(), 0xcc));
        a.src = put(src) + c.shift;
        a.index = put(index);
        a.out = out;
        ASSERT_EQ(kernels->gather(&a, native()), MILL_OK);
        EXPECT_EQ(get(out, want.size()), want);
        held.clear();
    }
}

TEST_P(RowKernels, GatherBits)
{
    for (const auto &c : mt::kGatherBitsCases) {
        if (c.use != mt::Check) continue;
        SCOPED_TRACE(c.name);
        std::mt19937 g(8);
        const std::vector<uint8_t> src = random_bytes((c.offset + c.source + 7) / 8, 4);
        std::vector<uint8_t> want((c.rows + 7) / 8, 0xcc);
        std::vector<int64_t> index(c.rows);
        for (int64_t &i : index) i = static_cast<int64_t>(g() % (c.source + 1)) - 1;
        stm_gather_bits_args a = {c.has ? src.data() : nullptr, c.offset, index.data(), want.data(), c.rows};
        stm_gather_bits_ref(&a);
        uint8_t *out = put(std::vector<uint8_t>(want.size(), 0xcc));
        a.src = c.has ? put(src) : nullptr;
        a.index = put(index);
        a.out = out;
        ASSERT_EQ(kernels->gather_bits(&a, native()), MILL_OK);
        EXPECT_EQ(get(out, want.size()), want);
        held.clear();
    }
}

TEST_P(RowKernels, Compact)
{
    for (const auto &c : mt::kCompactCases) {
        if (c.use != mt::Check) continue;
        SCOPED_TRACE(c.name);
        std::vector<uint8_t> keep = random_bytes(c.rows, 5);
        for (uint8_t &k : keep) k = k < c.keep_of_256 ? static_cast<uint8_t>(k | 1) : 0;
        std::vector<int64_t> want(c.rows, -7), kept(1, -7);
        stm_compact_args a = {keep.data(), want.data(), kept.data(), c.rows, nullptr};
        stm_compact_ref(&a);
        int64_t *index = put(std::vector<int64_t>(c.rows, -7)), *n = put(std::vector<int64_t>(1, -7));
        a.keep = put(keep);
        a.index = index;
        a.kept = n;
        a.scratch = put(std::vector<uint8_t>(stm_compact_scratch_bytes(c.rows)));
        ASSERT_EQ(kernels->compact(&a, native()), MILL_OK);
        ASSERT_EQ(get(n, 1)[0], kept[0]);
        std::vector<int64_t> got = get(index, c.rows);
        got.resize(kept[0]);
        want.resize(kept[0]);
        EXPECT_EQ(got, want);
        held.clear();
    }
}

TEST_P(RowKernels, RefuseWhatTheContractExcludes)
{
    int64_t index = 0, kept = 0;
    uint8_t byte = 0;
    const stm_impute_args impute[] = {
        {nullptr, 0, nullptr, nullptr, 1}, {nullptr, -1, nullptr, &byte, 1}, {nullptr, 0, nullptr, &byte, -1}};
    for (const auto &a : impute) EXPECT_EQ(kernels->impute(&a, native()), MILL_ERR_INVALID);
    const stm_gather_args gather[] = {{&byte, &index, &byte, 1, 0},
                                      {nullptr, &index, &byte, 1, 1},
                                      {&byte, nullptr, &byte, 1, 1},
                                      {&byte, &index, nullptr, 1, 1},
                                      {&byte, &index, &byte, -1, 1}};
    for (const auto &a : gather) EXPECT_EQ(kernels->gather(&a, native()), MILL_ERR_INVALID);
    const stm_gather_bits_args bits[] = {
        {&byte, -1, &index, &byte, 1}, {&byte, 0, nullptr, &byte, 1}, {&byte, 0, &index, nullptr, 1}};
    for (const auto &a : bits) EXPECT_EQ(kernels->gather_bits(&a, native()), MILL_ERR_INVALID);
    const stm_compact_args compact[] = {
        {&byte, &index, nullptr, 1, &byte}, {nullptr, &index, &kept, 1, &byte}, {&byte, nullptr, &kept, 1, &byte}};
    for (const auto &a : compact) EXPECT_EQ(kernels->compact(&a, native()), MILL_ERR_INVALID);
}

INSTANTIATE_TEST_SUITE_P(Backends, RowKernels, ::testing::Values(mt::suite_for()),
                         [](const auto &i) { return std::string(i.param); });
