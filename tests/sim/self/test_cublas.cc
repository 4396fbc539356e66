// The simulated cuBLAS against sums in double: operations, types, leading dimensions, batches, orders, epilogues, each algorithm
// that the heuristics offer; and what it refuses.
#include "device_vec.h"
#include "stm_sim.h"
#include <cmath>
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define BLAS_OK(call) ASSERT_EQ((call), CUBLAS_STATUS_SUCCESS)

namespace {

size_t bytes_of(cudaDataType t) { return t == CUDA_R_32F ? 4 : 2; }
void encode(cudaDataType t, char *at, float v)
{
    const __half h = __float2half(v);
    const __nv_bfloat16 b = __float2bfloat16(v);
    if (t == CUDA_R_32F) memcpy(at, &v, 4);
    else memcpy(at, t == CUDA_R_16F ? static_cast<const void *>(&h) : &b, 2);
}
float decode(cudaDataType t, const char *at)
{
    float f;
    __half h;
    __nv_bfloat16 b;
    if (t == CUDA_R_32F) return memcpy(&f, at, 4), f;
    if (t == CUDA_R_16F) return memcpy(&h, at, 2), __half2float(h);
    return memcpy(&b, at, 2), __bfloat162float(b);
}
// One rounding to the type.
double ulp(cudaDataType t) { return t == CUDA_R_32F ? 0x1p-23 : t == CUDA_R_16F ? 0x1p-11 : 0x1p-8; }

// A matrix as stored: lines of a length, `ld` apart; what lies between is NaN and must stay.
struct Stored {
    cudaDataType type;
    int64_t line, lines, ld, batch;
    std::vector<char> bytes;
    Stored(cudaDataType t, int64_t line_, int64_t lines_, int64_t gap, int64_t batch_, uint32_t seed)
        : type(t), line(line_), lines(lines_), ld(line_ + gap), batch(batch_),
          bytes(static_cast<size_t>(ld * lines_ * batch_) * bytes_of(t), '\xff')
    {
        uint32_t x = seed * 2654435761u + 1;
        for (int64_t b = 0; b < batch && seed; b++)
            for (int64_t j = 0; j < lines; j++)
                for (int64_t i = 0; i < line; i++) {
                    x = x * 1664525u + 1013904223u;
                    encode(t, &bytes[at(b, i, j)], static_cast<float>(static_cast<int>(x >> 24) - 128) / 128.0f);
                }
    }
    int64_t stride() const { return ld * lines; }
    size_t at(int64_t b, int64_t i, int64_t j) const { return static_cast<size_t>(b * stride() + j * ld + i) * bytes_of(type); }
    float get(int64_t b, int64_t i, int64_t j) const { return decode(type, &bytes[at(b, i, j)]); }
};

struct Case {
    const char *name;
    int64_t m, n, k;
    bool ta, tb;
    cudaDataType in, out;
    float alpha, beta;
    int64_t gap;
    int batch;
};
const Case kCases[] = {
    {"smallest", 1, 1, 1, false, false, CUDA_R_32F, CUDA_R_32F, 1, 0, 0, 1},
    {"plain", 33, 17, 29, false, false, CUDA_R_32F, CUDA_R_32F, 1, 0, 0, 1},
    {"transposed_a", 33, 17, 29, true, false, CUDA_R_32F, CUDA_R_32F, 1, 0, 0, 1},
    {"transposed_b", 33, 17, 29, false, true, CUDA_R_32F, CUDA_R_32F, 1, 0, 0, 1},
    {"both_scaled_and_added", 12, 20, 31, true, true, CUDA_R_32F, CUDA_R_32F, 0.5f, 2, 0, 1},
    {"gaps_between_lines", 12, 20, 31, true, false, CUDA_R_32F, CUDA_R_32F, 1, 1, 5, 1},
    {"half", 64, 48, 96, true, false, CUDA_R_16F, CUDA_R_16F, 1, 0, 8, 1},
    {"half_to_float", 16, 16, 64, false, false, CUDA_R_16F, CUDA_R_32F, 1, 0, 0, 1},
    {"bf16", 64, 48, 96, true, false, CUDA_R_16BF, CUDA_R_16BF, 1, 1, 0, 1},
    {"bf16_to_float", 7, 9, 64, false, true, CUDA_R_16BF, CUDA_R_32F, 1, 0, 1, 1},
    {"long_and_narrow", 40, 3, 700, true, false, CUDA_R_32F, CUDA_R_32F, 1, 0, 0, 1},
    {"batch", 8, 6, 10, true, false, CUDA_R_16BF, CUDA_R_32F, 0.125f, 0, 2, 5},
};

double reference(const Case &c, const Stored &a, const Stored &b, const Stored &d, int64_t z, int64_t i, int64_t j)
{
    double sum = 0;
    for (int64_t l = 0; l < c.k; l++)
        sum += static_cast<double>(c.ta ? a.get(z, l, i) : a.get(z, i, l)) *
               static_cast<double>(c.tb ? b.get(z, j, l) : b.get(z, l, j));
    sum *= static_cast<double>(c.alpha);
    return c.beta != 0.0f ? sum + static_cast<double>(c.beta * d.get(z, i, j)) : sum;
}

class SimGemm : public testing::TestWithParam<Case> {};

} // namespace

TEST_P(SimGemm, EqualsTheSum)
{
    const Case &c = GetParam();
    const Stored a(c.in, c.ta ? c.k : c.m, c.ta ? c.m : c.k, c.gap, c.batch, 1),
        b(c.in, c.tb ? c.n : c.k, c.tb ? c.k : c.n, c.gap, c.batch, 2);
    Stored d(c.out, c.m, c.n, c.gap, c.batch, c.beta != 0.0f ? 3 : 0);
    const Stored before = d;
    cublasHandle_t h;
    Stream s;
    BLAS_OK(cublasCreate(&h));
    BLAS_OK(cublasSetStream(h, s));
    DeviceVec<char> da(a.bytes), db(b.bytes), dd(d.bytes);
    const cublasOperation_t oa = c.ta ? CUBLAS_OP_T : CUBLAS_OP_N, ob = c.tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int m = static_cast<int>(c.m), n = static_cast<int>(c.n), k = static_cast<int>(c.k);
    if (c.batch == 1)
        BLAS_OK(cublasGemmEx(h, oa, ob, m, n, k, &c.alpha, da, c.in, static_cast<int>(a.ld), db, c.in, static_cast<int>(b.ld),
                             &c.beta, dd, c.out,
                             static_cast<int>(d.ld), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    else
        BLAS_OK(cublasGemmStridedBatchedEx(h, oa, ob, m, n, k, &c.alpha, da, c.in, static_cast<int>(a.ld), a.stride(), db, c.in,
                                           static_cast<int>(b.ld), b.stride(), &c.beta, dd, c.out, static_cast<int>(d.ld),
                                           d.stride(), c.batch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    s.wait();
    d.bytes = dd.download();
    for (int64_t z = 0; z < c.batch; z++)
        for (int64_t j = 0; j < c.n; j++) {
            for (int64_t i = 0; i < c.m; i++) {
                const double want = reference(c, a, b, before, z, i, j);
                // |a|, |b| <= 1: k float additions, then one rounding to the result's type
                ASSERT_NEAR(d.get(z, i, j), want,
                            static_cast<double>(c.k) * 0x1p-23 + (std::abs(want) + 1) * ulp(c.out)) << z << " " << i << " " << j;
            }
            for (int64_t i = c.m; i < d.ld; i++) ASSERT_TRUE(std::isnan(d.get(z, i, j))) << "between the lines";
        }
    BLAS_OK(cublasDestroy(h));
    EXPECT_EQ(stm_sim_findings(), 0);
}
INSTANTIATE_TEST_SUITE_P(All, SimGemm, testing::ValuesIn(kCases), [](const auto &one) { return std::string(one.param.name); });

namespace {

struct Epilogue {
    const char *name;
    cublasLtEpilogue_t code;
    bool bias, relu, gelu;
};
const Epilogue kEpilogues[] = {
    {"none", CUBLASLT_EPILOGUE_DEFAULT, false, false, false},    {"bias", CUBLASLT_EPILOGUE_BIAS, true, false, false},
    {"relu", CUBLASLT_EPILOGUE_RELU, false, true, false},        {"relu_bias", CUBLASLT_EPILOGUE_RELU_BIAS, true, true, false},
    {"gelu", CUBLASLT_EPILOGUE_GELU, false, false, true},        {"gelu_bias", CUBLASLT_EPILOGUE_GELU_BIAS, true, false, true},
};

// Everything of one product with cuBLASLt: row-major weights [n][k] as a transposed column-major A, as an encoder has them.
struct Lt {
    cublasLtHandle_t h = nullptr;
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulPreference_t pref = nullptr;
    Lt(cudaDataType in, cudaDataType out, int64_t m, int64_t n, int64_t k, size_t workspace)
    {
        const cublasOperation_t t = CUBLAS_OP_T;
        const uint64_t room = workspace;
        EXPECT_EQ(cublasLtCreate(&h), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t), CUBLAS_STATUS_SUCCESS);
        const auto um = static_cast<uint64_t>(m), un = static_cast<uint64_t>(n), uk = static_cast<uint64_t>(k);
        EXPECT_EQ(cublasLtMatrixLayoutCreate(&a, in, uk, um, k), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(cublasLtMatrixLayoutCreate(&b, in, uk, un, k), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(cublasLtMatrixLayoutCreate(&d, out, um, un, m), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(cublasLtMatmulPreferenceCreate(&pref), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room),
                  CUBLAS_STATUS_SUCCESS);
    }
    ~Lt()
    {
        cublasLtMatmulPreferenceDestroy(pref);
        for (cublasLtMatrixLayout_t l : {a, b, d}) cublasLtMatrixLayoutDestroy(l);
        cublasLtMatmulDescDestroy(desc);
        cublasLtDestroy(h);
    }
    void epilogue(cublasLtEpilogue_t e, const void *bias)
    {
        EXPECT_EQ(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &e, sizeof e), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
                  CUBLAS_STATUS_SUCCESS);
    }
    std::vector<cublasLtMatmulHeuristicResult_t> choose(cublasStatus_t want = CUBLAS_STATUS_SUCCESS)
    {
        std::vector<cublasLtMatmulHeuristicResult_t> r(8);
        int n = 0;
        EXPECT_EQ(cublasLtMatmulAlgoGetHeuristic(h, desc, a, b, d, d, pref, 8, r.data(), &n), want);
        r.resize(static_cast<size_t>(n));
        return r;
    }
};

class SimLt : public testing::TestWithParam<Epilogue> {};

} // namespace

TEST_P(SimLt, EveryAlgorithmGivesTheSameButForRounding)
{
    const Epilogue &e = GetParam();
    const int64_t m = 48, n = 20, k = 64;
    const Case c = {"", m, n, k, true, false, CUDA_R_16BF, CUDA_R_16BF, 1, 0, 0, 1};
    const Stored a(c.in, k, m, 0, 1, 1), b(c.in, k, n, 0, 1, 2), bias(c.in, m, 1, 0, 1, 4);
    const size_t room = 1 << 20;
    DeviceVec<char> da(a.bytes), db(b.bytes), dbias(bias.bytes), work(room);
    Lt lt(c.in, c.out, m, n, k, room);
    Stream s;
    const float one = 1, zero = 0;
    lt.epilogue(e.code, e.bias ? static_cast<char *>(dbias) : nullptr);
    const auto found = lt.choose();
    ASSERT_GE(found.size(), 3u);
    for (const auto &f : found) {
        Stored d(c.out, m, n, 0, 1, 0);
        DeviceVec<char> dd(d.bytes);
        BLAS_OK(cublasLtMatmul(lt.h, lt.desc, &one, da, lt.a, db, lt.b, &zero, dd, lt.d, dd, lt.d, &f.algo, work, room, s));
        s.wait();
        d.bytes = dd.download();
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++) {
                double want = reference(c, a, b, d, 0, i, j) + (e.bias ? static_cast<double>(bias.get(0, i, 0)) : 0.0);
                if (e.relu) want = want > 0 ? want : 0;
                if (e.gelu) want = 0.5 * want * (1 + std::tanh(0.7978845608 * (want + 0.044715 * want * want * want)));
                ASSERT_NEAR(d.get(0, i, j), want, (std::abs(want) + 0.1) * ulp(c.out) + 64 * 0x1p-22) << i << " " << j;
            }
    }
    EXPECT_EQ(stm_sim_findings(), 0);
}
INSTANTIATE_TEST_SUITE_P(All, SimLt, testing::ValuesIn(kEpilogues), [](const auto &one) { return std::string(one.param.name); });

TEST(SimLtOrders, RowOrderIsTheTransposedColumnOrder)
{
    // [2 x 3] [3 x 2], all in row order
    const std::vector<float> a = {1, 2, 3, 4, 5, 6}, b = {1, 0, 0, 1, 1, 1};
    DeviceVec<float> da(a), db(b), dd(4);
    Lt lt(CUDA_R_32F, CUDA_R_32F, 2, 2, 3, 0);
    Stream s;
    const cublasOperation_t none = CUBLAS_OP_N;
    const int32_t row = CUBLASLT_ORDER_ROW;
    const uint64_t two = 2, three = 3;
    const int64_t ld3 = 3, ld2 = 2;
    const float one = 1, zero = 0;
    BLAS_OK(cublasLtMatmulDescSetAttribute(lt.desc, CUBLASLT_MATMUL_DESC_TRANSA, &none, sizeof none));
    for (cublasLtMatrixLayout_t l : {lt.a, lt.b, lt.d}) {
        const bool first = l == lt.a;
        BLAS_OK(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ORDER, &row, sizeof row));
        BLAS_OK(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ROWS, l == lt.b ? &three : &two, sizeof two));
        BLAS_OK(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_COLS, first ? &three : &two, sizeof two));
        BLAS_OK(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_LD, first ? &ld3 : &ld2, sizeof ld3));
    }
    BLAS_OK(cublasLtMatmul(lt.h, lt.desc, &one, da, lt.a, db, lt.b, &zero, dd, lt.d, dd, lt.d, nullptr, nullptr, 0, s));
    s.wait();
    EXPECT_EQ(dd.download(), (std::vector<float>{4, 5, 10, 11}));
    lt.epilogue(CUBLASLT_EPILOGUE_BIAS, static_cast<float *>(da));
    EXPECT_TRUE(lt.choose(CUBLAS_STATUS_NOT_SUPPORTED).empty());
}

TEST(SimLtChoice, TheWorkspaceLimitsWhatIsOffered)
{
    Lt none(CUDA_R_32F, CUDA_R_32F, 64, 64, 64, 0), some(CUDA_R_32F, CUDA_R_32F, 64, 64, 64, 1 << 20);
    const auto few = none.choose(), many = some.choose();
    EXPECT_LT(few.size(), many.size());
    for (const auto &f : few) EXPECT_EQ(f.workspaceSize, 0u);
}

TEST(SimBlas, RefusesWhatTheRealOneRefuses)
{
    cublasHandle_t h;
    BLAS_OK(cublasCreate(&h));
    DeviceVec<float> a(64), b(64), c(64);
    const float one = 1, zero = 0;
    EXPECT_EQ(cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, 8, 8, 8, &one, a, CUDA_R_32F, 7, b, CUDA_R_32F, 8, &zero, c, CUDA_R_32F, 8,
                           CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_INVALID_VALUE)
        << "leading dimension";
    EXPECT_EQ(cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, 8, 8, 8, &one, a, CUDA_R_16F, 8, b, CUDA_R_32F, 8, &zero, c, CUDA_R_32F, 8,
                           CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_NOT_SUPPORTED)
        << "types";
    EXPECT_EQ(cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, 8, 8, 8, &one, a, CUDA_R_16F, 8, b, CUDA_R_16F, 8, &zero, c, CUDA_R_16F, 8,
                           CUBLAS_COMPUTE_16F, CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_NOT_SUPPORTED)
        << "sums in half";
    EXPECT_EQ(cublasSetWorkspace(h, static_cast<float *>(a) + 1, 16), CUBLAS_STATUS_INVALID_VALUE);
    BLAS_OK(cublasDestroy(h));
}

TEST(SimBlas, FaultsAndCounts)
{
    const long before = stm_sim_calls("cublas*");
    cublasHandle_t h = nullptr;
    stm_sim_fault("cublasCreate", 1, 0, 0);
    EXPECT_EQ(cublasCreate(&h), CUBLAS_STATUS_ALLOC_FAILED);
    BLAS_OK(cublasCreate(&h));
    DeviceVec<float> a(std::vector<float>(4, 1.0f)), c(4);
    const float one = 1, zero = 0;
    stm_sim_fault_clear();
    stm_sim_fault("cublasSgemm", 2, CUBLAS_STATUS_INTERNAL_ERROR, 0);
    BLAS_OK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, a, 2, a, 2, &zero, c, 2));
    EXPECT_EQ(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, a, 2, a, 2, &zero, c, 2), CUBLAS_STATUS_INTERNAL_ERROR);
    stm_sim_fault_clear();
    EXPECT_EQ(c.download(), std::vector<float>(4, 2.0f));
    EXPECT_EQ(stm_sim_calls("cublas*") - before, 4);
    BLAS_OK(cublasDestroy(h));
}

TEST(SimBlas, AFaultInAProductKillsItsDevice)
{
    CUDA_OK(cudaSetDevice(1));
    cublasHandle_t h = nullptr;
    BLAS_OK(cublasCreate(&h));
    {
        DeviceVec<float> a(std::vector<float>(4, 1.0f)), c(4);
        const float one = 1, zero = 0;
        stm_sim_fault("gemm", 1, cudaErrorLaunchFailure, 1);
        BLAS_OK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, a, 2, a, 2, &zero, c, 2));
        EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
        EXPECT_EQ(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, a, 2, a, 2, &zero, c, 2), CUBLAS_STATUS_EXECUTION_FAILED);
        stm_sim_fault_clear();
        stm_sim_revive();
        CUDA_OK(cudaDeviceSynchronize()); /* a failed wait orders nothing */
    }
    BLAS_OK(cublasDestroy(h));
    CUDA_OK(cudaSetDevice(0));
}
