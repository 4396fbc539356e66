#include "kernel_data.h"

#include "support/fail_nth.h"

extern "C" {
#include "kernels/gemm.h"
#include "kernels/gemm_gelu.h"
}

namespace {

struct Shape {
    const char *name;
    int64_t m, n, k;
    bool bias;
} const kShapes[] = {
    {"one", 1, 1, 1, true},
    {"no_rows", 0, 16, 8, true},
    {"odd", 3, 5, 7, true},
    {"no_bias", 5, 33, 40, false},
    {"one_past_a_panel", 17, 17, 33, true},
    {"one_short_of_three_panels", 31, 47, 31, true},
    {"one_row", 1, 384, 384, true},
    {"block", 64, 96, 64, true},
    {"past_a_block", 65, 48, 62, true},
    {"odd_k_over_blocks", 131, 20, 95, true},
    {"minilm_output", 64, 384, 1536, true},
    {"wide", 16, 1000, 16, true},
    {"deep", 2, 3, 4097, true},
};

int64_t padded(int64_t m) { return (m + STM_GEMM_ROW_PAD - 1) / STM_GEMM_ROW_PAD * STM_GEMM_ROW_PAD; }

/* One problem in one type, with gaps between the rows that hold NaN. */
struct Problem {
    Shape s;
    stm_gemm_type type;
    int64_t lda, ldc;
    std::vector<float> a, b, bias;
    mt::Guarded<float> a32;
    mt::Guarded<uint16_t> a16;
    std::vector<double> want;
    stm_gemm_weight *w = nullptr;
    stm_gemm_scratch *scratch = nullptr;

    Problem(const Shape &shape, stm_gemm_type t)
        : s(shape), type(t), lda(shape.k + 3), ldc(shape.n + 5), a(mt::values(size_t(shape.m * shape.k), 1)),
          b(mt::values(size_t(shape.n * shape.k), 2)), bias(mt::values(size_t(shape.n), 3)), a32(size_t(padded(shape.m) * lda)),
          a16(size_t(padded(shape.m) * lda)), want(size_t(shape.m * shape.n))
    {
        if (type == STM_GEMM_BF16) a = mt::rounded(a);
        for (int64_t i = 0; i < s.m; i++)
            for (int64_t q = 0; q < s.k; q++) {
                a32[size_t(i * lda + q)] = a[size_t(i * s.k + q)];
                a16[size_t(i * lda + q)] = stm_bf16_of(a[size_t(i * s.k + q)]);
            }
        mill_error err = {};
        EXPECT_EQ(stm_gemm_pack(type, b.data(), s.bias ? bias.data() : nullptr, s.n, s.k, &w, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_gemm_scratch_create(&scratch, &err), MILL_OK);
        const std::vector<float> used = type == STM_GEMM_BF16 ? mt::rounded(b) : b;
        stm_gemm_ref(a.data(), s.k, used.data(), s.bias ? bias.data() : nullptr, s.m, s.n, s.k, want.data(), s.n);
    }
    ~Problem()
    {
        stm_gemm_unpack(&w);
        stm_gemm_scratch_destroy(&scratch);
    }
    const void *in(int64_t row = 0)
    {
        return type == STM_GEMM_BF16 ? static_cast<const void *>(a16.data() + row * lda) : a32.data() + row * lda;
    }
};

class Gemm : public testing::TestWithParam<std::tuple<Shape, stm_gemm_type>> {};

TEST_P(Gemm, MatchesOracleAtEveryLevel)
{
    const auto [shape, type] = GetParam();
    Problem p(shape, type);
    for (stm_cpu_level level : mt::levels()) {
        SCOPED_TRACE(stm_cpu_name(level));
        mt::AtLevel at(level);
        mt::Guarded<float> c(size_t(padded(shape.m) * p.ldc));
        mill_error err = {};
        ASSERT_EQ(stm_gemm_run(p.w, p.scratch, p.in(), p.lda, shape.m, c.data(), p.ldc, &err), MILL_OK) << err.msg;
        EXPECT_TRUE(c.intact());
        /* |a|, |b| <= 1: each of the k + 1 additions rounds a sum of at most k + 1. Inputs are exact in both types; the bf16
         * products are exact in f32, and pairs may be added before the sum. */
        const double tol = 0x1p-24 * double(shape.k + 1) * std::sqrt(double(shape.k + 1)) + 0x1p-22;
        for (int64_t i = 0; i < shape.m; i++) {
            for (int64_t j = 0; j < shape.n; j++)
                ASSERT_NEAR(c[size_t(i * p.ldc + j)], p.want[size_t(i * shape.n + j)], tol) << i << ", " << j;
            for (int64_t j = shape.n; j < p.ldc; j++)
                ASSERT_TRUE(std::isnan(c[size_t(i * p.ldc + j)])) << "column past the end written, row " << i;
        }
    }
}

TEST_P(Gemm, BitsOfARowStandAlone)
{
    const auto [shape, type] = GetParam();
    Problem p(shape, type);
    for (stm_cpu_level level : mt::levels()) {
        SCOPED_TRACE(stm_cpu_name(level));
        mt::AtLevel at(level);
        mt::Guarded<float> all(size_t(padded(shape.m) * p.ldc)), one(size_t(STM_GEMM_ROW_PAD * p.ldc));
        ASSERT_EQ(stm_gemm_run(p.w, p.scratch, p.in(), p.lda, shape.m, all.data(), p.ldc, nullptr), MILL_OK);
        mt::Guarded<uint16_t> h(size_t(STM_GEMM_ROW_PAD * p.lda));
        mt::Guarded<float> f(size_t(STM_GEMM_ROW_PAD * p.lda));
        for (int64_t i = 0; i < shape.m; i++) { /* row i alone, NaN all around it */
            memcpy(h.data(), p.a16.data() + i * p.lda, size_t(shape.k) * 2);
            memcpy(f.data(), p.a32.data() + i * p.lda, size_t(shape.k) * 4);
            const void *row = type == STM_GEMM_BF16 ? static_cast<const void *>(h.data()) : f.data();
            ASSERT_EQ(stm_gemm_run(p.w, p.scratch, row, p.lda, 1, one.data(), p.ldc, nullptr), MILL_OK);
            ASSERT_TRUE(mt::same_bits(one.data(), all.data() + i * p.ldc, size_t(shape.n))) << "row " << i;
        }
        for (int64_t first = 0; first < shape.n; first += 32) { /* columns by pieces */
            const int64_t count = std::min<int64_t>(32, shape.n - first);
            mt::Guarded<float> piece(size_t(padded(shape.m) * count));
            ASSERT_EQ(stm_gemm_run_columns(p.w, p.scratch, p.in(), p.lda, shape.m, first, count, piece.data(), count, nullptr),
                      MILL_OK);
            EXPECT_TRUE(piece.intact());
            for (int64_t i = 0; i < shape.m; i++)
                ASSERT_TRUE(mt::same_bits(piece.data() + i * count, all.data() + i * p.ldc + first, size_t(count)));
        }
    }
}

TEST_P(Gemm, SlicesInTurnGiveTheBitsOfTheWhole)
{
    const auto [shape, type] = GetParam();
    Problem p(shape, type);
    const int64_t slice = stm_gemm_slice(p.w, 64);
    if (type == STM_GEMM_BF16 && shape.k % 32 != 0) {
        EXPECT_EQ(slice, shape.k) << "a padded k is not cut";
    }
    for (stm_cpu_level level : mt::levels()) {
        SCOPED_TRACE(stm_cpu_name(level));
        mt::AtLevel at(level);
        mt::Guarded<float> whole(size_t(padded(shape.m) * p.ldc)), c(size_t(padded(shape.m) * p.ldc));
        ASSERT_EQ(stm_gemm_run(p.w, p.scratch, p.in(), p.lda, shape.m, whole.data(), p.ldc, nullptr), MILL_OK);
        for (int64_t from = 0; from < shape.k; from += slice) {
            const int64_t to = std::min(from + slice, shape.k);
            const void *a = type == STM_GEMM_BF16 ? static_cast<const void *>(p.a16.data() + from) : p.a32.data() + from;
            ASSERT_EQ(stm_gemm_run_slice(p.w, p.scratch, a, p.lda, shape.m, from, to, c.data(), p.ldc, nullptr), MILL_OK);
        }
        EXPECT_TRUE(c.intact());
        for (int64_t i = 0; i < shape.m; i++) {
            ASSERT_TRUE(mt::same_bits(c.data() + i * p.ldc, whole.data() + i * p.ldc, size_t(shape.n))) << "row " << i;
            for (int64_t j = shape.n; j < p.ldc; j++) ASSERT_TRUE(std::isnan(c[size_t(i * p.ldc + j)])) << i << ", " << j;
        }
    }
}

TEST_P(Gemm, GeluAfterItGivesTheBitsOfTheTwoApart)
{
    const auto [shape, type] = GetParam();
    Problem p(shape, type);
    const size_t width = type == STM_GEMM_F32 ? sizeof(float) : sizeof(uint16_t);
    for (stm_cpu_level level : mt::levels())
        for (stm_gelu_kind kind : {STM_GELU_ERF, STM_GELU_TANH})
            for (int64_t first : {int64_t(0), shape.n / 2 / 16 * 16}) {
                SCOPED_TRACE(std::string(stm_cpu_name(level)) + " from column " + std::to_string(first));
                mt::AtLevel at(level);
                const int64_t count = shape.n - first, ldo = shape.n + 7;
                mt::Guarded<float> c(size_t(padded(shape.m) * p.ldc)), piece(stm_gemm_gelu_scratch(shape.m) / sizeof(float));
                mt::Guarded<unsigned char> apart(size_t(padded(shape.m) * ldo) * width), one(apart.size());
                ASSERT_EQ(stm_gemm_run_columns(p.w, p.scratch, p.in(), p.lda, shape.m, first, count, c.data(), p.ldc, nullptr),
                          MILL_OK);
                const stm_gelu_args gelu = {c.data(), apart.data(), type, kind, shape.m, count, p.ldc, ldo};
                stm_gelu(&gelu);
                const stm_gemm_gelu_args both = {p.w,   p.scratch, p.in(),     p.lda, shape.m,     first,
                                                 count, kind,      one.data(), ldo,   piece.data()};
                mill_error err = {};
                ASSERT_EQ(stm_gemm_run_gelu(&both, &err), MILL_OK) << err.msg;
                EXPECT_TRUE(one.intact() && piece.intact());
                for (int64_t i = 0; i < shape.m; i++)
                    ASSERT_EQ(
                        memcmp(one.data() + size_t(i * ldo) * width, apart.data() + size_t(i * ldo) * width, size_t(ldo) * width),
                        0)
                        << "row " << i;
            }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Gemm, testing::Combine(testing::ValuesIn(kShapes), testing::Values(STM_GEMM_F32, STM_GEMM_BF16)),
                         [](const auto &param) {
                             return std::string(std::get<0>(param.param).name) +
                                    (std::get<1>(param.param) == STM_GEMM_F32 ? "_f32" : "_bf16");
                         });

TEST(GemmPack, LayoutIsTheSameAtEveryLevel)
{
    /* k = 70 ends inside a tile, n = 19 inside a panel; one value is NaN, one rounds up to infinity. */
    std::vector<float> b = mt::values(19 * 70, 4);
    b[5] = mt::kNaN, b[6] = 3.4e38f, b[7] = 1.00390625f; /* a tie: to even */
    for (stm_gemm_type type : {STM_GEMM_F32, STM_GEMM_BF16}) {
        std::vector<float> first;
        for (stm_cpu_level level : mt::levels()) {
            mt::AtLevel at(level);
            stm_gemm_weight *w = nullptr;
            stm_gemm_scratch *s = nullptr;
            ASSERT_EQ(stm_gemm_pack(type, b.data(), nullptr, 19, 70, &w, nullptr), MILL_OK);
            ASSERT_EQ(stm_gemm_scratch_create(&s, nullptr), MILL_OK);
            stm_cpu_limit(STM_CPU_GENERIC); /* one form reads what all levels packed: unit rows pick single values */
            std::vector<float> got;
            for (int q = 0; q < 70; q++) {
                if (type == STM_GEMM_BF16 && (q == 5 || q == 4)) continue; /* 0 * NaN in the same pair */
                mt::Guarded<float> a(16 * 70), c(16 * 19);
                mt::Guarded<uint16_t> h(16 * 70);
                memset(a.data(), 0, 16 * 70 * 4), memset(h.data(), 0, 16 * 70 * 2);
                a[size_t(q)] = 1.0f, h[size_t(q)] = stm_bf16_of(1.0f);
                const void *in = type == STM_GEMM_BF16 ? static_cast<void *>(h.data()) : a.data();
                ASSERT_EQ(stm_gemm_run(w, s, in, 70, 1, c.data(), 19, nullptr), MILL_OK);
                for (size_t j = 1; j < 19; j++) got.push_back(c[j]); /* column 0 holds the NaN */
            }
            if (first.empty()) first = got;
            EXPECT_TRUE(mt::same_bits(first.data(), got.data(), got.size())) << stm_cpu_name(level);
            stm_gemm_unpack(&w);
            stm_gemm_scratch_destroy(&s);
        }
    }
}

TEST(GemmRun, RefusesWhatIsOutOfRange)
{
    std::vector<float> b(64 * 8);
    stm_gemm_weight *w = nullptr;
    stm_gemm_scratch *s = nullptr;
    mt::Guarded<float> a(16 * 8), c(16 * 64);
    mill_error err = {};
    EXPECT_EQ(stm_gemm_pack(STM_GEMM_F32, b.data(), nullptr, 0, 8, &w, &err), MILL_ERR_INVALID);
    EXPECT_EQ(w, nullptr);
    ASSERT_EQ(stm_gemm_pack(STM_GEMM_F32, b.data(), nullptr, 40, 8, &w, nullptr), MILL_OK);
    ASSERT_EQ(stm_gemm_scratch_create(&s, nullptr), MILL_OK);
    const struct {
        int64_t m, lda, first, count, ldc;
    } bad[] = {
        {-1, 8, 0, 40, 40}, {1, 7, 0, 40, 40},  {1, 8, 0, 40, 39}, {1, 8, 8, 16, 40},
        {1, 8, 16, 8, 40},  {1, 8, 32, 16, 40}, {1, 8, 0, 0, 40},  {1, 8, -16, 16, 40},
    };
    for (const auto &x : bad)
        EXPECT_EQ(stm_gemm_run_columns(w, s, a.data(), x.lda, x.m, x.first, x.count, c.data(), x.ldc, nullptr), MILL_ERR_INVALID);
    EXPECT_TRUE(std::isnan(c[0]));
    stm_gemm_unpack(&w);
    stm_gemm_unpack(&w); /* accepts NULL */
    stm_gemm_scratch_destroy(&s);
}

TEST(GemmRun, AllocatesOnlyOnTheFirstCall)
{
    Problem p({"odd_k", 20, 40, 33, true}, STM_GEMM_BF16);
    mt::Guarded<float> c(size_t(padded(20) * p.ldc));
    ASSERT_EQ(stm_gemm_run(p.w, p.scratch, p.in(), p.lda, 20, c.data(), p.ldc, nullptr), MILL_OK);
    const long before = stm_alloc_counts().allocs;
    for (int i = 0; i < 10; i++) ASSERT_EQ(stm_gemm_run(p.w, p.scratch, p.in(), p.lda, 20, c.data(), p.ldc, nullptr), MILL_OK);
    EXPECT_EQ(stm_alloc_counts().allocs, before);
}

TEST(GemmPack, FailsCleanlyAtEveryPoint)
{
    std::vector<float> b(40 * 33), bias(40);
    mt::Guarded<uint16_t> a(16 * 33);
    mt::Guarded<float> c(16 * 40);
    const long live = mt::live();
    for (int nth = 0;; nth++) {
        stm_gemm_weight *w = nullptr;
        stm_gemm_scratch *s = nullptr;
        mill_error err = {};
        mt::FailNth fail(nth);
        mill_status st = stm_gemm_pack(STM_GEMM_BF16, b.data(), bias.data(), 40, 33, &w, &err);
        EXPECT_EQ(w != nullptr, st == MILL_OK);
        if (st == MILL_OK) st = stm_gemm_scratch_create(&s, &err);
        if (st == MILL_OK) st = stm_gemm_run(w, s, a.data(), 33, 1, c.data(), 40, &err);
        const bool fired = fail.fired();
        EXPECT_EQ(st == MILL_OK, !fired);
        stm_gemm_unpack(&w);
        stm_gemm_scratch_destroy(&s);
        EXPECT_EQ(mt::live(), live) << "leak when point " << nth << " fails";
        if (!fired) return;
        EXPECT_EQ(st, MILL_ERR_NOMEM);
        EXPECT_STRNE(err.msg, "");
    }
}

TEST(GemmPack, OneBlockHoldsSeveralWeights)
{
    const struct {
        int64_t n, k;
    } shapes[] = {{40, 33}, {1, 1}, {16, 64}, {130, 7}};
    for (const stm_gemm_type type : {STM_GEMM_F32, STM_GEMM_BF16}) {
        size_t all = 0;
        for (const auto &x : shapes) all += stm_gemm_packed_bytes(type, x.n, x.k);
        char *memory = static_cast<char *>(stm_gemm_packed_memory(all)), *to = memory;
        ASSERT_NE(memory, nullptr);
        stm_gemm_scratch *s = nullptr;
        ASSERT_EQ(stm_gemm_scratch_create(&s, nullptr), MILL_OK);
        struct pair {
            stm_gemm_weight *in_block, *alone;
        };
        std::vector<pair> packed;
        for (const auto &x : shapes) {
            std::vector<float> b(size_t(x.n * x.k)), bias(size_t(x.n));
            for (size_t i = 0; i < b.size(); i++) b[i] = float(int(i * 37 % 101) - 50) / 64;
            for (size_t i = 0; i < bias.size(); i++) bias[i] = float(i) / 8;
            pair w = {};
            ASSERT_EQ(stm_gemm_pack_into(type, b.data(), bias.data(), x.n, x.k, to, &w.in_block, nullptr), MILL_OK);
            ASSERT_EQ(stm_gemm_pack(type, b.data(), bias.data(), x.n, x.k, &w.alone, nullptr), MILL_OK);
            packed.push_back(w);
            to += stm_gemm_packed_bytes(type, x.n, x.k);
        }
        for (size_t i = 0; i < packed.size(); i++) { /* once all are packed: none lies on another */
            const int64_t n = shapes[i].n, k = shapes[i].k;
            std::vector<float> a(size_t(16 * k), 0.5f), c(size_t(16 * n)), d(size_t(16 * n), 1);
            std::vector<uint16_t> rounded(a.size(), 0x3f00);
            const void *in = type == STM_GEMM_F32 ? static_cast<const void *>(a.data()) : rounded.data();
            ASSERT_EQ(stm_gemm_run(packed[i].in_block, s, in, k, 16, c.data(), n, nullptr), MILL_OK);
            ASSERT_EQ(stm_gemm_run(packed[i].alone, s, in, k, 16, d.data(), n, nullptr), MILL_OK);
            EXPECT_EQ(c, d) << n << " x " << k;
            stm_gemm_unpack(&packed[i].in_block);
            stm_gemm_unpack(&packed[i].alone);
        }
        stm_gemm_scratch_destroy(&s);
        stm_free(memory);
    }
    EXPECT_EQ(stm_gemm_packed_bytes(STM_GEMM_F32, 0, 8), 0u);
    EXPECT_EQ(stm_gemm_packed_bytes(STM_GEMM_BF16, 8, int64_t(1) << 40), 0u);
}

TEST(Bf16, RoundsToNearestEven)
{
    const struct {
        const char *name;
        float in;
        uint16_t out;
    } table[] = {
        {"zero", 0.0f, 0x0000},
        {"minus_zero", -0.0f, 0x8000},
        {"one", 1.0f, 0x3f80},
        {"tie_down_to_even", 1.00390625f, 0x3f80},
        {"tie_up_to_even", 1.01171875f, 0x3f82},
        {"past_the_tie", 1.00390637f, 0x3f81},
        {"infinite", INFINITY, 0x7f80},
        {"rounds_to_infinity", 3.4e38f, 0x7f80},
        {"largest", 3.3895314e38f, 0x7f7f},
        {"nan", mt::kNaN, 0x7fc0},
    };
    for (const auto &t : table)
        for (stm_cpu_level level : mt::levels()) {
            mt::AtLevel at(level);
            std::vector<float> in(37, t.in); /* a tail after two full registers */
            mt::Guarded<uint16_t> out(37);
            stm_to_bf16(in.data(), out.data(), 37);
            EXPECT_TRUE(out.intact());
            for (size_t i = 0; i < 37; i++) ASSERT_EQ(out[i], t.out) << t.name << " at " << stm_cpu_name(level);
        }
    float back[2];
    const uint16_t h[2] = {0x3f81, 0xff80};
    stm_from_bf16(h, back, 2);
    EXPECT_EQ(back[0], 1.0078125f);
    EXPECT_EQ(back[1], -INFINITY);
}

} // namespace
