// Kernels of the usual kinds give right results in every order.
#include "device_vec.h"
#include "good.h"
#include <cmath>

TEST(SimKernels, Add)
{
    const int n = 1000;
    std::vector<float> a(n), b(n);
    for (int i = 0; i < n; i++) a[i] = static_cast<float>(i), b[i] = static_cast<float>(2 * i);
    DeviceVec<float> da(a), db(b), out(n);
    CUDA_OK(good_add(da, db, out, n, nullptr));
    const std::vector<float> got = out.download();
    for (int i = 0; i < n; i++) ASSERT_EQ(got[i], 3.0f * static_cast<float>(i));
}

TEST(SimKernels, BlockSumThroughSharedMemory)
{
    const int n = 4096, blocks = 8;
    DeviceVec<float> in(std::vector<float>(n, 1.0f)), out(blocks);
    CUDA_OK(good_block_sum(in, out, n, blocks, nullptr));
    float sum = 0;
    for (float x : out.download()) sum += x;
    EXPECT_EQ(sum, n);
}

TEST(SimKernels, SoftmaxThroughShuffles)
{
    const int rows = 13, dim = 100;
    std::vector<float> x(rows * dim);
    for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(static_cast<float>(i));
    DeviceVec<float> in(x), out(x.size());
    CUDA_OK(good_softmax(in, out, rows, dim, nullptr));
    const std::vector<float> got = out.download();
    for (int r = 0; r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < dim; i++) sum += std::exp(static_cast<double>(x[r * dim + i]));
        for (int i = 0; i < dim; i++) ASSERT_NEAR(got[r * dim + i], std::exp(static_cast<double>(x[r * dim + i])) / sum, 1e-6);
    }
}

TEST(SimKernels, HistogramByAtomics)
{
    std::vector<unsigned char> in(5000);
    std::vector<unsigned> want(256);
    for (size_t i = 0; i < in.size(); i++) want[in[i] = static_cast<unsigned char>(i * 7 % 251)]++;
    DeviceVec<unsigned char> din(in);
    DeviceVec<unsigned> bins(256);
    CUDA_OK(cudaMemset(bins, 0, 1024));
    CUDA_OK(good_histogram(din, static_cast<int>(in.size()), bins, nullptr));
    EXPECT_EQ(bins.download(), want);
}

TEST(SimKernels, ReverseInDynamicSharedMemory)
{
    std::vector<int> v(160), want(160);
    for (int i = 0; i < 160; i++) v[i] = i, want[i] = 159 - i;
    DeviceVec<int> d(v);
    CUDA_OK(good_reverse(d, 160, nullptr));
    EXPECT_EQ(d.download(), want);
}
