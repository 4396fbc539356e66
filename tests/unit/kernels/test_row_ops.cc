#include "kernel_data.h"

extern "C" {
#include "kernels/row_ops.h"
}

namespace {

struct Shape {
    const char *name;
    int64_t rows, dim;
} const kShapes[] = {
    {"no_rows", 0, 16},  {"one_value", 1, 1}, {"short_of_a_register", 3, 15},
    {"register", 2, 16}, {"one_past", 5, 17}, {"odd", 7, 33},
    {"minilm", 20, 384}, {"large", 3, 1024},  {"prime", 4, 1021},
};
constexpr int64_t kGap = 5; /* values between rows */

class RowOps : public testing::TestWithParam<Shape> {};

/* Rows with NaN in the gaps between them. */
mt::Guarded<float> with_gaps(const std::vector<float> &v, int64_t rows, int64_t dim)
{
    mt::Guarded<float> out(size_t(rows * (dim + kGap)));
    for (int64_t t = 0; t < rows; t++) memcpy(out.data() + t * (dim + kGap), v.data() + t * dim, size_t(dim) * sizeof(float));
    return out;
}

void expect_gaps_untouched(mt::Guarded<float> &x, int64_t rows, int64_t dim)
{
    EXPECT_TRUE(x.intact());
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = dim; i < dim + kGap; i++) ASSERT_TRUE(std::isnan(x[size_t(t * (dim + kGap) + i)])) << "row " << t;
}

TEST_P(RowOps, AddNormMatchesOracle)
{
    const auto [name, rows, dim] = GetParam();
    const int64_t ld = dim + kGap;
    const auto xs = mt::values(size_t(rows * dim), 1), ys = mt::values(size_t(rows * dim), 2);
    const auto gain = mt::values(size_t(dim), 3), bias = mt::values(size_t(dim), 4);
    auto want = with_gaps(xs, rows, dim), y = with_gaps(ys, rows, dim);
    stm_add_norm_args a = {want.data(), y.data(), nullptr, gain.data(), bias.data(), 1e-5f, rows, dim, ld, ld};
    stm_add_norm_ref(&a);
    std::vector<float> first;
    for (stm_cpu_level level : mt::levels()) {
        SCOPED_TRACE(stm_cpu_name(level));
        mt::AtLevel at(level);
        auto x = with_gaps(xs, rows, dim);
        mt::Guarded<uint16_t> half(size_t(rows * ld));
        a.x = x.data(), a.x_bf16 = half.data();
        stm_add_norm(&a);
        expect_gaps_untouched(x, rows, dim);
        EXPECT_TRUE(half.intact());
        for (int64_t t = 0; t < rows; t++)
            for (int64_t i = 0; i < dim; i++) {
                const size_t at_i = size_t(t * ld + i);
                ASSERT_NEAR(x[at_i], want[at_i], 4e-6) << t << ", " << i;
                ASSERT_EQ(half[at_i], stm_bf16_of(x[at_i]));
            }
        for (int64_t t = 0; t < rows; t++) { /* a row alone has the same bits */
            auto one = with_gaps(std::vector<float>(xs.begin() + t * dim, xs.begin() + (t + 1) * dim), 1, dim);
            stm_add_norm_args b = a;
            b.x = one.data(), b.y = y.data() + t * ld, b.x_bf16 = nullptr, b.rows = 1;
            stm_add_norm(&b);
            ASSERT_TRUE(mt::same_bits(one.data(), x.data() + t * ld, size_t(dim))) << "row " << t;
        }
    }
}

TEST_P(RowOps, EmbedMatchesOracle)
{
    const auto [name, rows, dim] = GetParam();
    const int64_t ld = dim + kGap, vocabulary = 11, longest = 64;
    const auto words = mt::values(size_t(vocabulary * dim + 1), 1), places = mt::values(size_t(longest * dim), 2);
    const auto type = mt::values(size_t(dim), 3), gain = mt::values(size_t(dim), 4), bias = mt::values(size_t(dim), 5);
    std::vector<int32_t> ids, at_place;
    for (int64_t t = 0; t < rows; t++) ids.push_back(int32_t((t * 7 + 10) % vocabulary)), at_place.push_back(int32_t(t % longest));
    mt::Guarded<float> want(size_t(rows * ld));
    /* words + 1: aligned to 4 bytes only, as tensors in a file may be */
    stm_embed_args a = {ids.data(),
                        at_place.data(),
                        words.data() + 1,
                        places.data(),
                        type.data(),
                        gain.data(),
                        bias.data(),
                        1e-12f,
                        rows,
                        dim,
                        want.data(),
                        nullptr,
                        ld};
    stm_embed_ref(&a);
    for (stm_cpu_level level : mt::levels()) {
        SCOPED_TRACE(stm_cpu_name(level));
        mt::AtLevel at(level);
        mt::Guarded<float> x(size_t(rows * ld));
        mt::Guarded<uint16_t> half(size_t(rows * ld));
        a.x = x.data(), a.x_bf16 = half.data();
        stm_embed(&a);
        expect_gaps_untouched(x, rows, dim);
        EXPECT_TRUE(half.intact());
        for (int64_t t = 0; t < rows; t++)
            for (int64_t i = 0; i < dim; i++) {
                const size_t k = size_t(t * ld + i);
                ASSERT_NEAR(x[k], want[k], dim == 1 ? 1.0 : 4e-6) << t << ", " << i; /* one value has no deviation */
                ASSERT_EQ(half[k], stm_bf16_of(x[k]));
            }
    }
}

TEST_P(RowOps, GeluMatchesOracle)
{
    const auto [name, rows, dim] = GetParam();
    const int64_t ld = dim + kGap;
    const auto xs = mt::values(size_t(rows * dim), 6, 9.0f);
    auto x = with_gaps(xs, rows, dim);
    for (stm_gelu_kind kind : {STM_GELU_ERF, STM_GELU_TANH})
        for (stm_cpu_level level : mt::levels()) {
            SCOPED_TRACE(stm_cpu_name(level));
            mt::AtLevel at(level);
            mt::Guarded<float> out(size_t(rows * ld));
            mt::Guarded<uint16_t> half(size_t(rows * ld));
            stm_gelu_args a = {x.data(), out.data(), STM_GEMM_F32, kind, rows, dim, ld, ld};
            stm_gelu(&a);
            a.out = half.data(), a.out_type = STM_GEMM_BF16;
            stm_gelu(&a);
            expect_gaps_untouched(out, rows, dim);
            EXPECT_TRUE(half.intact());
            for (int64_t t = 0; t < rows; t++)
                for (int64_t i = 0; i < dim; i++) {
                    const size_t k = size_t(t * ld + i);
                    const double v = x[k], want = stm_gelu_ref(v, kind);
                    ASSERT_NEAR(out[k], want, (kind == STM_GELU_ERF ? 3e-7 : 6e-7) * std::fabs(v) + 1e-12) << v;
                    ASSERT_NEAR(stm_bf16_to(half[k]), want, 1.5e-4 * std::fabs(v) + 0x1p-8 * std::fabs(want) + 1e-12) << v;
                }
        }
}

TEST_P(RowOps, PoolMatchesOracle)
{
    const auto [name, rows, dim] = GetParam();
    if (rows == 0) return; /* a document has a row at least */
    const int64_t ld = dim + kGap;
    const auto xs = mt::values(size_t(rows * dim), 7);
    auto x = with_gaps(xs, rows, dim);
    const std::vector<int64_t> starts = rows > 2 ? std::vector<int64_t>{0, 1, rows} : std::vector<int64_t>{0, rows};
    const size_t docs = starts.size() - 1;
    for (int variant = 0; variant < 4; variant++)
        for (stm_cpu_level level : mt::levels()) {
            SCOPED_TRACE(stm_cpu_name(level));
            mt::AtLevel at(level);
            std::vector<float> want(docs * size_t(dim));
            mt::Guarded<float> got(docs * size_t(dim));
            std::vector<float *> want_rows, got_rows;
            for (size_t d = 0; d < docs; d++)
                want_rows.push_back(want.data() + d * size_t(dim)), got_rows.push_back(got.data() + d * size_t(dim));
            stm_pool_args a = {x.data(), starts.data(),      int64_t(docs),      dim,
                               ld,       (variant & 1) != 0, (variant & 2) != 0, want_rows.data()};
            stm_pool_rows_ref(&a);
            a.out = got_rows.data();
            stm_pool_rows(&a);
            EXPECT_TRUE(got.intact());
            for (size_t i = 0; i < want.size(); i++) ASSERT_NEAR(got[i], want[i], double(rows) * 6e-8 + 3e-7) << i;
        }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RowOps, testing::ValuesIn(kShapes),
                         [](const auto &param) { return std::string(param.param.name); });

TEST(RowOpsEdge, GeluOfLimits)
{
    std::vector<float> x = {0.0f, -0.0f, INFINITY, -40.0f, 40.0f, 3.4e38f, mt::kNaN,
                            5.4f, -5.4f, 1e-30f,   4.0f,   -4.0f, -8.0f,   -30.0f};
    for (stm_gelu_kind kind : {STM_GELU_ERF, STM_GELU_TANH})
        for (stm_cpu_level level : mt::levels()) {
            mt::AtLevel at(level);
            std::vector<float> out(x.size());
            const stm_gelu_args a = {x.data(), out.data(),        STM_GEMM_F32,      kind,
                                     1,        int64_t(x.size()), int64_t(x.size()), int64_t(x.size())};
            stm_gelu(&a);
            for (size_t i = 0; i < x.size(); i++) {
                if (std::isnan(x[i])) continue; /* an implementation may clamp it; it must not spread */
                const double want = stm_gelu_ref(x[i], kind);
                if (std::isinf(want))
                    EXPECT_EQ(out[i], INFINITY);
                else
                    EXPECT_NEAR(out[i], want, 6e-7 * std::fabs(x[i])) << x[i];
            }
        }
}

TEST(RowOpsEdge, PoolOfZerosStaysZero)
{
    const std::vector<float> x(3 * 20, 0.0f);
    const int64_t starts[] = {0, 3};
    std::vector<float> out(20, 1.0f);
    float *rows[] = {out.data()};
    const stm_pool_args a = {x.data(), starts, 1, 20, 20, false, true, rows};
    stm_pool_rows(&a);
    for (float v : out) EXPECT_EQ(v, 0.0f);
}

} // namespace
