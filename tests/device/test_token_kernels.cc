/* The encoder's kernels on devices: every form against its oracle in double, in each type, over shapes with 0, 1, odd and limit
 * sizes. Between rows and behind the last there is poison (NaN in what is read, guards in what is written). */
#include "device/table.h"
#include "device/token_cases.h"

#include <cmath>
#include <random>

using namespace mt;

namespace {

const stm_real kTypes[] = {STM_F32, STM_BF16, STM_F16};
const char *name_of(stm_real t) { return t == STM_F32 ? "f32" : t == STM_BF16 ? "bf16" : "f16"; }
double half_unit(stm_real t) { return t == STM_F32 ? 0x1p-24 : t == STM_BF16 ? 0x1p-9 : 0x1p-12; }

/* A matrix as bytes of one type: random values, poison in the gaps and in front of a shifted one. */
struct Matrix {
    stm_real type;
    int64_t rows, cols, ld, shift;
    std::vector<uint8_t> bytes;
    Matrix(stm_real t, int64_t rows_, int64_t cols_, int64_t gap, int64_t shift_, unsigned seed, double size, bool filled = true)
        : type(t), rows(rows_), cols(cols_), ld(cols_ + gap), shift(shift_),
          bytes(static_cast<size_t>(shift_ + std::max<int64_t>(rows_ * (cols_ + gap) - gap, 0)) * stm_real_bytes(t), 0xff)
    {
        std::mt19937 g(seed);
        for (int64_t r = 0; r < rows && filled; r++)
            for (int64_t c = 0; c < cols; c++) {
                const double sign = g() % 2 ? 1.0 : -1.0;
                stm_real_put(at(), type, r * ld + c, sign * size * (0.1 + 0.9 * (g() >> 8) / 16777216.0));
            }
    }
    void *at() { return bytes.data() + shift * static_cast<int64_t>(stm_real_bytes(type)); }
    double get(int64_t r, int64_t c) { return stm_real_at(at(), type, r * ld + c); }
};

std::vector<float> random_floats(int64_t n, unsigned seed, float base, float size)
{
    std::mt19937 g(seed);
    std::vector<float> v(static_cast<size_t>(n));
    for (float &f : v) f = base + size * (static_cast<float>(g() >> 8) / 8388608.0f - 1.0f);
    return v;
}

class TokenKernels : public KernelTable {
protected:
    /* The matrix on the device, at its shift. */
    void *put_matrix(const Matrix &m) { return put(m.bytes) + m.shift * static_cast<int64_t>(stm_real_bytes(m.type)); }
    /* What is there now; gaps must be as they were. */
    Matrix get_matrix(const Matrix &like, const void *p)
    {
        Matrix m = like;
        m.bytes =
            get(static_cast<const uint8_t *>(p) - like.shift * static_cast<int64_t>(stm_real_bytes(like.type)), like.bytes.size());
        const int64_t width = static_cast<int64_t>(stm_real_bytes(m.type));
        for (int64_t i = 0; i < static_cast<int64_t>(m.bytes.size()) / width; i++) {
            if (i >= m.shift && (i - m.shift) % m.ld < m.cols) continue;
            EXPECT_EQ(memcmp(&m.bytes[i * width], &like.bytes[i * width], width), 0) << "wrote between rows, at value " << i;
        }
        return m;
    }
};

std::vector<int32_t> starts_of(const std::vector<int32_t> &lengths, int32_t before = 0)
{
    std::vector<int32_t> s = {before};
    for (int32_t n : lengths) s.push_back(s.back() + n);
    return s;
}

} // namespace

TEST_P(TokenKernels, Norm)
{
    for (const NormCase &c : kNormCases)
        for (stm_real type : kTypes) {
            if (c.use != Check) continue;
            SCOPED_TRACE(std::string(c.name) + " " + name_of(type));
            const int64_t words = c.indexed ? 11 : c.rows;
            Matrix x(type, words, c.dim, c.gap, c.shift, 1, 1.0), y(type, words, c.dim, c.gap, c.shift, 2, 1.0);
            Matrix out(type, c.rows, c.dim, c.gap, c.shift, 0, 0, false), want = out;
            const std::vector<float> bias = random_floats(c.dim, 3, 0, 1), gain = random_floats(c.dim, 4, 1, 0.5f),
                                     shift = random_floats(c.dim, 5, 0, 1);
            std::vector<int32_t> ix, iy;
            for (int64_t r = 0; r < c.rows && c.indexed; r++) ix.push_back((r * 7) % 11), iy.push_back((r * 5 + 3) % 11);
            stm_token_norm_args a = {x.at(),
                                     y.at(),
                                     c.indexed ? ix.data() : nullptr,
                                     c.indexed ? iy.data() : nullptr,
                                     c.bias ? bias.data() : nullptr,
                                     gain.data(),
                                     shift.data(),
                                     want.at(),
                                     type,
                                     1e-12f,
                                     c.rows,
                                     c.dim,
                                     x.ld,
                                     y.ld,
                                     out.ld};
            stm_token_norm_ref(&a);
            a.x = put_matrix(x), a.y = put_matrix(y), a.gain = put(gain), a.shift = put(shift);
            if (c.bias) a.bias = put(bias);
            if (c.indexed) a.x_index = put(ix), a.y_index = put(iy);
            a.out = put_matrix(out);
            ASSERT_EQ(kernels->token_norm(&a, native()), MILL_OK);
            Matrix got = get_matrix(out, a.out);
            for (int64_t r = 0; r < c.rows; r++)
                for (int64_t i = 0; i < c.dim; i++) {
                    const double w = want.get(r, i);
                    /* both are rounded: a unit apart at most, which is up to 4 halves of that of 1 */
                    ASSERT_NEAR(got.get(r, i), w, 8e-6 + 4 * half_unit(type) * std::fabs(w)) << "row " << r << " column " << i;
                }
            if (!c.indexed && c.rows > 0) { /* in place */
                a.out = const_cast<void *>(a.x);
                ASSERT_EQ(kernels->token_norm(&a, native()), MILL_OK);
                Matrix same = get_matrix(x, a.x);
                for (int64_t r = 0; r < c.rows; r++)
                    for (int64_t i = 0; i < c.dim; i++) ASSERT_EQ(same.get(r, i), got.get(r, i));
            }
            held.clear();
        }
}

TEST_P(TokenKernels, Gelu)
{
    for (const GeluCase &c : kGeluCases)
        for (stm_real type : kTypes) {
            if (c.use != Check) continue;
            SCOPED_TRACE(std::string(c.name) + " " + name_of(type));
            Matrix x(type, c.rows, c.cols, c.gap, c.shift, 6, 4.0), want = x;
            const std::vector<float> bias = random_floats(c.cols, 7, 0, 1);
            stm_token_gelu_args a = {want.at(), c.bias ? bias.data() : nullptr, type, c.kind, c.rows, c.cols, x.ld};
            stm_token_gelu_ref(&a);
            a.x = put_matrix(x);
            if (c.bias) a.bias = put(bias);
            ASSERT_EQ(kernels->token_gelu(&a, native()), MILL_OK);
            Matrix got = get_matrix(x, a.x);
            for (int64_t r = 0; r < c.rows; r++)
                for (int64_t i = 0; i < c.cols; i++) {
                    const double w = want.get(r, i);
                    /* 6e-7 * |x + bias|, which is at most 5; and f16's smallest steps */
                    ASSERT_NEAR(got.get(r, i), w, 3e-6 + 4 * half_unit(type) * std::fabs(w)) << "row " << r << " column " << i;
                }
            held.clear();
        }
}

TEST_P(TokenKernels, Pool)
{
    for (const PoolCase &c : kPoolCases)
        for (stm_real type : kTypes) {
            if (c.use != Check) continue;
            SCOPED_TRACE(std::string(c.name) + " " + name_of(type));
            const std::vector<int32_t> starts = starts_of(c.lengths, 1); /* a row in front that is nobody's */
            const int64_t docs = static_cast<int64_t>(c.lengths.size());
            Matrix x(type, starts.back(), c.dim, c.gap, 0, 8, 1.0);
            std::vector<float> want(static_cast<size_t>(docs * c.dim), NAN);
            stm_token_pool_args a = {x.at(), starts.data(), want.data(), type, docs, c.dim, x.ld, c.first_row, c.normalize};
            stm_token_pool_ref(&a);
            a.x = put_matrix(x), a.starts = put(starts);
            a.out = put(std::vector<float>(want.size(), NAN));
            ASSERT_EQ(kernels->token_pool(&a, native()), MILL_OK);
            const std::vector<float> got = get(a.out, want.size());
            for (int64_t d = 0; d < docs; d++)
                for (int64_t i = 0; i < c.dim; i++) /* |x| <= 1; at most 512 rows in order */
                    ASSERT_NEAR(got[d * c.dim + i], want[d * c.dim + i], c.lengths[d] * 6e-8 + 1e-6)
                        << "document " << d << " column " << i;
            held.clear();
        }
}

TEST_P(TokenKernels, Attention)
{
    for (const AttentionCase &c : kAttentionCases)
        for (stm_real type : kTypes) {
            if (c.use != Check || (c.lengths.size() == 1 && c.lengths[0] > 256 && type != STM_BF16))
                continue; /* the oracle is slow */
            SCOPED_TRACE(std::string(c.name) + " " + name_of(type));
            const std::vector<int32_t> starts = starts_of(c.lengths, 2); /* poisoned rows in front and behind */
            const int64_t docs = static_cast<int64_t>(c.lengths.size()), rows = starts.back() + 1, width = c.heads * c.dim;
            Matrix qkv(type, rows, 3 * width, 8, c.shift, 9, 1.0), out(type, rows, width, c.gap, 0, 0, 0, false), want = out;
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < 3 * width; i++) {
                    const double v = r < 2 || r == rows - 1 ? NAN : qkv.get(r, i) * (i < width ? c.scores : 1.0);
                    stm_real_put(qkv.at(), type, r * qkv.ld + i, v);
                }
            std::vector<stm_token_tile> tiles(static_cast<size_t>(stm_token_tiles(starts.data(), docs, nullptr)));
            ASSERT_LE(tiles.size(), static_cast<size_t>(rows / STM_TOKEN_TILE + docs));
            stm_token_tiles(starts.data(), docs, tiles.data());
            tiles.push_back({0, 0, 0, 0}); /* filling up: nothing happens for it */
            const size_t size = stm_real_bytes(type);
            auto part = [&](void *base, int i) { return static_cast<char *>(base) + size * static_cast<size_t>(i * width); };
            stm_token_attention_args a = {part(qkv.at(), 0),
                                          part(qkv.at(), 1),
                                          part(qkv.at(), 2),
                                          want.at(),
                                          type,
                                          tiles.data(),
                                          static_cast<int64_t>(tiles.size()),
                                          rows,
                                          c.heads,
                                          c.dim,
                                          1.0f / std::sqrt(static_cast<float>(c.dim)),
                                          qkv.ld,
                                          out.ld};
            stm_token_attention_ref(&a);
            void *there = put_matrix(qkv);
            a.q = part(there, 0), a.k = part(there, 1), a.v = part(there, 2), a.tiles = put(tiles), a.out = put_matrix(out);
            ASSERT_EQ(kernels->token_attention(&a, native()), MILL_OK);
            Matrix got = get_matrix(out, a.out);
            const double score = c.scores * std::sqrt(static_cast<double>(c.dim)), /* at most |scale * q . k|, |v| <= 1 */
                tol = 2e-6 * (1 + score) + 4 * (type == STM_F32 ? 0 : half_unit(type));
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < width; i++) {
                    if (r < 2 || r == rows - 1) /* nobody's rows are not written */
                        ASSERT_TRUE(std::isnan(got.get(r, i))) << "row " << r;
                    else
                        ASSERT_NEAR(got.get(r, i), want.get(r, i), tol) << "row " << r << " column " << i;
                }
            held.clear();
        }
}

/* A document's bits do not depend on the others, nor on where it lies. */
TEST_P(TokenKernels, AttentionAloneAndInCompany)
{
    const int heads = 2, dim = 32, width = heads * dim;
    for (stm_real type : {STM_F32, STM_BF16}) {
        SCOPED_TRACE(name_of(type));
        const std::vector<int32_t> lengths = {9, 70, 3};
        const std::vector<int32_t> starts = starts_of(lengths);
        Matrix qkv(type, starts.back(), 3 * width, 0, 0, 10, 2.0);
        auto run = [&](const std::vector<int32_t> &from, int64_t first_row) {
            const size_t size = stm_real_bytes(type), skipped = static_cast<size_t>(first_row * qkv.ld) * size;
            std::vector<uint8_t> in(qkv.bytes.begin() + static_cast<std::ptrdiff_t>(skipped), qkv.bytes.end());
            std::vector<stm_token_tile> tiles(
                static_cast<size_t>(stm_token_tiles(from.data(), static_cast<int64_t>(from.size()) - 1, nullptr)));
            stm_token_tiles(from.data(), static_cast<int64_t>(from.size()) - 1, tiles.data());
            uint8_t *there = put(in), *out = put(std::vector<uint8_t>(static_cast<size_t>(from.back() * width) * size, 0xff));
            stm_token_attention_args a = {there,
                                          there + width * size,
                                          there + 2 * width * size,
                                          out,
                                          type,
                                          put(tiles),
                                          static_cast<int64_t>(tiles.size()),
                                          from.back(),
                                          heads,
                                          dim,
                                          0.2f,
                                          qkv.ld,
                                          width};
            EXPECT_EQ(kernels->token_attention(&a, native()), MILL_OK);
            std::vector<uint8_t> got = get(out, static_cast<size_t>(from.back() * width) * size);
            held.clear();
            return got;
        };
        const std::vector<uint8_t> all = run(starts, 0), one = run({0, lengths[1]}, starts[1]);
        EXPECT_EQ(memcmp(one.data(), &all[static_cast<size_t>(starts[1] * width) * stm_real_bytes(type)], one.size()), 0);
    }
}

TEST_P(TokenKernels, Convert)
{
    for (const ConvertCase &c : kConvertCases)
        for (stm_real from : kTypes)
            for (stm_real to : kTypes) {
                if (c.use != Check) continue;
                SCOPED_TRACE(std::string(c.name) + " " + name_of(from) + " to " + name_of(to));
                Matrix src(from, 1, c.count, 0, c.shift, 11, 3.0), out(to, 1, c.count, 0, c.shift, 0, 0, false), want = out;
                if (c.count > 2) {
                    stm_real_put(src.at(), from, 0, 65536.0); /* past f16 */
                    stm_real_put(src.at(), from, 1, NAN);
                    stm_real_put(src.at(), from, 2, 0x1p-20); /* subnormal in f16 */
                }
                stm_convert_args a = {src.at(), want.at(), from, to, c.count};
                stm_convert_ref(&a);
                a.src = put_matrix(src), a.out = put_matrix(out);
                ASSERT_EQ(kernels->convert(&a, native()), MILL_OK);
                Matrix got = get_matrix(out, a.out);
                for (int64_t i = 0; i < c.count; i++) {
                    const double w = want.get(0, i);
                    if (std::isnan(w))
                        EXPECT_TRUE(std::isnan(got.get(0, i)));
                    else
                        EXPECT_EQ(got.get(0, i), w) << "at " << i;
                }
                held.clear();
            }
}

/* Where there is no cuBLASLt at all, products are left out, and it is said. */
class Products {
public:
    Products(const stm_kernels *k, bool invariant, void *workspace = nullptr, size_t bytes = 0) : k_(k)
    {
        const stm_linear_opts o = {invariant, workspace, bytes};
        status = k->linear_open(&o, &l, &err);
    }
    ~Products()
    {
        if (l != nullptr) k_->linear_close(&l);
    }
    Products(const Products &) = delete;
    Products &operator=(const Products &) = delete;
    stm_linear *l = nullptr;
    mill_error err = {};
    mill_status status;

private:
    const stm_kernels *k_;
};

TEST_P(TokenKernels, Linear)
{
    ASSERT_EQ(stm_device_enter(*dev, nullptr), MILL_OK);
    const size_t room = 1 << 20;
    void *workspace = put(std::vector<char>(room));
    for (bool invariant : {false, true}) {
        Products p(kernels, invariant, workspace, room);
        if (p.status == MILL_ERR_UNSUPPORTED && getenv("STM_TEST_DEVICES") == nullptr) GTEST_SKIP() << p.err.msg;
        ASSERT_EQ(p.status, MILL_OK) << p.err.msg;
        for (const LinearCase &c : kLinearCases)
            for (stm_real type : kTypes) {
                if (c.use != Check) continue;
                SCOPED_TRACE(std::string(c.name) + " " + name_of(type) + (invariant ? " invariant" : ""));
                Matrix x(type, c.m, c.k, c.gap, 0, 12, 1.0), w(type, c.n, c.k, c.gap, 0, 13, 1.0),
                    bias(type, 1, c.n, 0, 0, 14, 1.0);
                Matrix out(type, c.m, c.n, c.gap, 0, 0, 0, false), want = out;
                stm_linear_args a = {x.at(), w.at(), c.bias ? bias.at() : nullptr, want.at(), type, c.act, c.m, c.n, c.k, x.ld,
                                     w.ld,   out.ld};
                /* the contract's alignment is of device memory: the oracle does not ask */
                stm_linear_ref(&a);
                a.x = put_matrix(x), a.w = put_matrix(w), a.out = put_matrix(out);
                if (c.bias) a.bias = put_matrix(bias);
                mill_error err = {};
                ASSERT_EQ(kernels->linear(p.l, &a, native(), &err), MILL_OK) << err.msg;
                Matrix got = get_matrix(out, a.out);
                for (int64_t r = 0; r < c.m; r++)
                    for (int64_t i = 0; i < c.n; i++) {
                        const double v = want.get(r, i);
                        ASSERT_NEAR(got.get(r, i), v, static_cast<double>(c.k * c.k) * 0x1p-24 + 4 * half_unit(type) * std::fabs(v))
                            << r << " " << i;
                    }
                held.resize(1); /* the workspace stays */
            }
    }
}

/* invariant: a row's bits do not depend on the number of rows, in whatever order shapes come. And more shapes than are
 * remembered. */
TEST_P(TokenKernels, LinearOfAnyNumberOfRows)
{
    ASSERT_EQ(stm_device_enter(*dev, nullptr), MILL_OK);
    Products p(kernels, true), fast(kernels, false);
    if (p.status == MILL_ERR_UNSUPPORTED && getenv("STM_TEST_DEVICES") == nullptr) GTEST_SKIP() << p.err.msg;
    const int64_t n = 24, k = 72, most = STM_LINEAR_PLANS + 9;
    Matrix x(STM_F32, most, k, 0, 0, 15, 1.0), w(STM_F32, n, k, 0, 0, 16, 1.0);
    void *there = put_matrix(x), *weights = put_matrix(w);
    float *out = put(std::vector<float>(static_cast<size_t>(most * n)));
    stm_linear_args a = {there, weights, nullptr, out, STM_F32, STM_LINEAR_PLAIN, most, n, k, k, k, n};
    ASSERT_EQ(kernels->linear(p.l, &a, native(), nullptr), MILL_OK);
    const std::vector<float> all = get(out, static_cast<size_t>(most * n));
    for (int64_t m = 1; m < most; m++) {
        a.m = m;
        ASSERT_EQ(kernels->linear(fast.l, &a, native(), nullptr), MILL_OK);
        if (m != 1 && m != 5 && m != 64) continue;
        ASSERT_EQ(kernels->linear(p.l, &a, native(), nullptr), MILL_OK);
        const std::vector<float> some = get(out, static_cast<size_t>(most * n));
        EXPECT_EQ(memcmp(some.data(), all.data(), static_cast<size_t>(m * n) * sizeof(float)), 0) << m << " rows";
    }
    EXPECT_EQ(stm_stream_sync(*stream, nullptr), MILL_OK);
}

TEST_P(TokenKernels, RefuseWhatTheContractExcludes)
{
    float v[64] = {};
    int32_t index[2] = {0, 0};
    stm_token_tile tile = {0, 1, 0, 1};
    const stm_token_norm_args norm = {v, v, nullptr, nullptr, nullptr, v, v, v, STM_F32, 0, 1, 8, 8, 8, 8};
    auto n = [&](auto change) {
        stm_token_norm_args a = norm;
        change(a);
        EXPECT_EQ(kernels->token_norm(&a, native()), MILL_ERR_INVALID);
    };
    n([](auto &a) { a.dim = 0; });
    n([](auto &a) { a.ldx = 7; });
    n([](auto &a) { a.rows = -1; });
    n([](auto &a) { a.y = nullptr; });
    n([](auto &a) { a.type = static_cast<stm_real>(3); });
    n([&](auto &a) { a.x_index = index; }); /* and out is x */
    const stm_token_gelu_args gelu[] = {{nullptr, nullptr, STM_F32, STM_GELU_ERF, 1, 8, 8},
                                        {v, nullptr, STM_F32, STM_GELU_ERF, 1, 8, 7}};
    for (const auto &a : gelu) EXPECT_EQ(kernels->token_gelu(&a, native()), MILL_ERR_INVALID);
    const stm_token_pool_args pool[] = {{v, nullptr, v, STM_F32, 1, 8, 8, false, false},
                                        {v, index, v, STM_F32, 1, 8, 4, false, false},
                                        {v, index, v, STM_F32, -1, 8, 8, false, false}};
    for (const auto &a : pool) EXPECT_EQ(kernels->token_pool(&a, native()), MILL_ERR_INVALID);
    const stm_token_attention_args attention = {v, v, v, v, STM_F32, &tile, 1, 1, 1, 8, 1.0f, 8, 8};
    auto t = [&](auto change) {
        stm_token_attention_args a = attention;
        change(a);
        EXPECT_EQ(kernels->token_attention(&a, native()), MILL_ERR_INVALID);
    };
    t([](auto &a) { a.dim = STM_ATTENTION_DIM_MAX + 1, a.ld = a.ldo = 1000; });
    t([](auto &a) { a.scale = 0; });
    t([](auto &a) { a.ld = 7; });
    t([](auto &a) { a.tiles = nullptr; });
    t([](auto &a) { a.heads = 0; });
    const stm_convert_args convert[] = {
        {nullptr, v, STM_F32, STM_F16, 1}, {v, v, STM_F32, STM_F16, -1}, {v, v, static_cast<stm_real>(3), STM_F16, 1}};
    for (const auto &a : convert) EXPECT_EQ(kernels->convert(&a, native()), MILL_ERR_INVALID);
}

INSTANTIATE_TEST_SUITE_P(Backends, TokenKernels, ::testing::Values(mt::suite_for()),
                         [](const auto &i) { return std::string(i.param); });
