#include "kernel_data.h"

extern "C" {
#include "kernels/attention.h"
}

namespace {

struct Shape {
    const char *name;
    std::vector<int64_t> docs; /* rows of each */
    int32_t heads, dim;
    float sharp; /* size of the scores */
} const kShapes[] = {
    {"one_row", {1}, 1, 1, 1},
    {"no_documents", {}, 2, 32, 1},
    {"odd_dim", {5, 1, 3}, 3, 7, 1},
    {"dim_20", {33}, 2, 20, 1},
    {"minilm", {92, 1, 16, 17, 31, 32, 33, 5}, 12, 32, 1},
    {"dim_64", {64, 65, 2}, 2, 64, 1},
    {"dim_80", {19}, 2, 80, 1},
    {"dim_128", {40, 3}, 1, 128, 1},
    {"dim_256", {18}, 1, 256, 1},
    {"longest", {512}, 1, 32, 1},
    {"sharp", {50, 20}, 2, 32, 60},
};

struct Problem {
    Shape s;
    int64_t rows = 0, ld, ldo;
    std::vector<int64_t> starts{0};
    mt::Guarded<float> q, k, v;
    std::vector<double> want;
    std::vector<float> scratch;

    static mt::Guarded<float> fill(int64_t rows, int64_t cols, int64_t ld, unsigned seed, float scale)
    {
        mt::Guarded<float> m(size_t(rows * ld)); /* NaN in the gaps */
        const auto v = mt::values(size_t(rows * cols), seed, scale);
        for (int64_t i = 0; i < rows; i++) memcpy(m.data() + i * ld, v.data() + i * cols, size_t(cols) * sizeof(float));
        return m;
    }
    static int64_t total(const Shape &s)
    {
        int64_t n = 0;
        for (int64_t d : s.docs) n += d;
        return n;
    }
    explicit Problem(const Shape &shape)
        : s(shape), rows(total(shape)), ld(shape.heads * shape.dim + 3), ldo(shape.heads * shape.dim + 7),
          q(fill(rows, s.heads * s.dim, ld, 1, s.sharp)), k(fill(rows, s.heads * s.dim, ld, 2, 1)),
          v(fill(rows, s.heads * s.dim, ld, 3, 1)), want(size_t(rows * ldo), 0.0)
    {
        int64_t longest = 1;
        for (int64_t d : s.docs) starts.push_back(starts.back() + d), longest = std::max(longest, d);
        scratch.assign(stm_attention_scratch(longest, s.dim) / sizeof(float) + 16, mt::kNaN);
        auto a = args(nullptr, STM_GEMM_F32);
        stm_attention_ref(&a, want.data());
    }
    stm_attention_args args(void *out, stm_gemm_type type)
    {
        auto aligned = reinterpret_cast<uintptr_t>(scratch.data() + 15) / 64 * 64;
        return {q.data(),
                k.data(),
                v.data(),
                ld,
                starts.data(),
                int64_t(s.docs.size()),
                s.heads,
                s.dim,
                1.0f / std::sqrt(float(s.dim)),
                out,
                type,
                ldo,
                reinterpret_cast<void *>(aligned)};
    }
};

class Attention : public testing::TestWithParam<Shape> {};

TEST_P(Attention, MatchesOracleAtEveryLevel)
{
    Problem p(GetParam());
    const int64_t cols = p.s.heads * p.s.dim;
    for (stm_cpu_level level : mt::levels()) {
        SCOPED_TRACE(stm_cpu_name(level));
        mt::AtLevel at(level);
        mt::Guarded<float> out(size_t(p.rows * p.ldo));
        mt::Guarded<uint16_t> half(size_t(p.rows * p.ldo));
        auto a = p.args(out.data(), STM_GEMM_F32);
        stm_attention(&a);
        a = p.args(half.data(), STM_GEMM_BF16);
        stm_attention(&a);
        EXPECT_TRUE(out.intact() && half.intact());
        /* f32: the stated bound with |v| <= 1. bf16 of scores up to `sharp` times larger is off by as much. */
        const double tol = 2e-6 * (1.0 + p.s.sharp * std::sqrt(double(p.s.dim)));
        const double tol16 = level < STM_CPU_AMX ? tol + 0x1p-8 : 0.02 * p.s.sharp;
        for (int64_t i = 0; i < p.rows; i++) {
            for (int64_t c = 0; c < cols; c++) {
                const size_t k = size_t(i * p.ldo + c);
                ASSERT_NEAR(out[k], p.want[k], tol) << i << ", " << c;
                ASSERT_NEAR(stm_bf16_to(half[k]), p.want[k], tol16) << i << ", " << c;
            }
            for (int64_t c = cols; c < p.ldo; c++)
                ASSERT_TRUE(std::isnan(out[size_t(i * p.ldo + c)])) << "past the end of row " << i;
        }
    }
}

TEST_P(Attention, BitsOfADocumentStandAlone)
{
    Problem p(GetParam());
    const int64_t cols = p.s.heads * p.s.dim;
    for (stm_cpu_level level : mt::levels())
        for (stm_gemm_type type : {STM_GEMM_F32, STM_GEMM_BF16}) {
            mt::AtLevel at(level);
            const size_t width = type == STM_GEMM_F32 ? 4 : 2;
            std::vector<unsigned char> all(size_t(p.rows * p.ldo) * width), one(all.size());
            auto a = p.args(all.data(), type);
            stm_attention(&a);
            for (size_t d = p.s.docs.size(); d-- > 0;) { /* in another order, one by one */
                auto b = p.args(one.data(), type);
                b.starts = p.starts.data() + d, b.docs = 1;
                stm_attention(&b);
                for (int64_t i = p.starts[d]; i < p.starts[d + 1]; i++)
                    ASSERT_EQ(memcmp(all.data() + size_t(i * p.ldo) * width, one.data() + size_t(i * p.ldo) * width,
                                     size_t(cols) * width),
                              0)
                        << stm_cpu_name(level) << " row " << i;
            }
        }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention, testing::ValuesIn(kShapes),
                         [](const auto &param) { return std::string(param.param.name); });

} // namespace
