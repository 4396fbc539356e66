// Tensor-core kernels and cooperative groups give exact results in every order.
#include "tensor_data.h"

TEST(SimTensor, Wmma)
{
    const int m = 64, n = 96, k = 48;
    std::vector<__half> a(m * k), b(k * n);
    for (int i = 0; i < m * k; i++) a[i] = __float2half(static_cast<float>(i % 13) * 0.25f - 1.0f);
    for (int i = 0; i < k * n; i++) b[i] = __float2half(static_cast<float>(i % 7) * 0.5f - 1.0f);
    DeviceVec<__half> da(a), db(b);
    DeviceVec<float> dc(m * n);
    CUDA_OK(tensor_wmma(da, db, dc, m, n, k, nullptr));
    const std::vector<float> got = dc.download();
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float want = 0;
            for (int x = 0; x < k; x++) want += __half2float(a[i * k + x]) * __half2float(b[x * n + j]);
            ASSERT_EQ(got[i * n + j], want) << i << "," << j;
        }
}

TEST(SimTensor, MmaSyncThroughCpAsyncAndLdmatrix)
{
    TensorData d(32, 48, 96);
    DeviceVec<__nv_bfloat16> a(d.a), b(d.b);
    DeviceVec<float> c(d.want.size());
    CUDA_OK(tensor_mma(a, b, c, d.m, d.n, d.k, false, nullptr));
    EXPECT_EQ(c.download(), d.want);
}

TEST(SimTensor, WgmmaThroughTmaAndMbarriers)
{
    TensorData d(64, 16, 256);
    DeviceVec<__nv_bfloat16> a(d.a), b(d.b);
    DeviceVec<float> c(d.want.size());
    CUtensorMap ma, mb;
    ASSERT_EQ(map_rows(&ma, a.data(), d.m, d.k), CUDA_SUCCESS);
    ASSERT_EQ(map_rows(&mb, b.data(), d.n, d.k), CUDA_SUCCESS);
    CUDA_OK(tensor_hopper(ma, mb, c, d.k, 0, nullptr));
    EXPECT_EQ(c.download(), d.want);
}

TEST(SimTensor, WgmmaOfWhatThreadsStored)
{
    TensorData d(64, 16, 32);
    DeviceVec<__nv_bfloat16> a(d.a), b(d.b);
    DeviceVec<float> c(d.want.size());
    CUDA_OK(tensor_stored(a, b, c, false, nullptr));
    EXPECT_EQ(c.download(), d.want);
}

TEST(SimTensor, MapsThatTheDriverRefuses)
{
    DeviceVec<__nv_bfloat16> a(64 * 64);
    CUtensorMap m;
    EXPECT_EQ(map_rows(&m, a.data() + 1, 64, 64), CUDA_ERROR_INVALID_VALUE) << "address not aligned to 16 bytes";
    EXPECT_EQ(map_rows(&m, a.data(), 64, 63), CUDA_ERROR_INVALID_VALUE) << "stride no multiple of 16 bytes";
    EXPECT_EQ(map_rows(&m, a.data(), 300, 64), CUDA_ERROR_INVALID_VALUE) << "box above 256";
    void *f = &m;
    cudaDriverEntryPointQueryResult found;
    CUDA_OK(cudaGetDriverEntryPointByVersion("cuNoSuchFunction", &f, 12000, 0, &found));
    EXPECT_EQ(found, cudaDriverEntryPointSymbolNotFound);
}

TEST(SimGroups, TilesBlocksAndGrid)
{
    const int blocks = 6, threads = 96, n = blocks * threads;
    DeviceVec<int> partial(blocks), sum(1);
    CUDA_OK(groups_sum(partial, sum, blocks, threads, nullptr));
    EXPECT_EQ(sum.download()[0], n * (n - 1) / 2);
}
