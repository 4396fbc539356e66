// Allocation, copies and books.
#include "device_vec.h"
#include "stm_sim.h"

TEST(SimMemory, CapacityIsALimit)
{
    size_t free_bytes = 0, total = 0;
    CUDA_OK(cudaMemGetInfo(&free_bytes, &total));
    EXPECT_EQ(free_bytes, total);
    void *most = nullptr, *more = nullptr;
    CUDA_OK(cudaMalloc(&most, total - 100));
    EXPECT_EQ(cudaMalloc(&more, 101), cudaErrorMemoryAllocation);
    EXPECT_EQ(more, nullptr);
    EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
    CUDA_OK(cudaMemGetInfo(&free_bytes, &total));
    EXPECT_EQ(free_bytes, 100u);
    CUDA_OK(cudaFree(most));
}

TEST(SimMemory, WhereAPointerLeads)
{
    DeviceVec<char> d(100);
    void *h = nullptr;
    CUDA_OK(cudaMallocHost(&h, 100));
    cudaPointerAttributes a;
    CUDA_OK(cudaPointerGetAttributes(&a, d.data() + 99));
    EXPECT_EQ(a.type, cudaMemoryTypeDevice);
    CUDA_OK(cudaPointerGetAttributes(&a, h));
    EXPECT_EQ(a.type, cudaMemoryTypeHost);
    EXPECT_EQ(a.hostPointer, h);
    int local = 0;
    CUDA_OK(cudaPointerGetAttributes(&a, &local));
    EXPECT_EQ(a.type, cudaMemoryTypeUnregistered);
    CUDA_OK(cudaHostRegister(&local, sizeof local, 0));
    EXPECT_EQ(cudaHostRegister(&local, sizeof local, 0), cudaErrorHostMemoryAlreadyRegistered);
    CUDA_OK(cudaPointerGetAttributes(&a, &local));
    EXPECT_EQ(a.type, cudaMemoryTypeHost);
    CUDA_OK(cudaHostUnregister(&local));
    EXPECT_EQ(cudaHostUnregister(&local), cudaErrorHostMemoryNotRegistered);
    CUDA_OK(cudaFreeHost(h));
}

TEST(SimMemory, FreshMemoryIsPoisoned)
{
    DeviceVec<uint32_t> d(10);
    EXPECT_EQ(d.download(), std::vector<uint32_t>(10, 0xffffffffu));
}

TEST(SimMemory, CopiesInTwoDimensions)
{
    std::vector<int> in(6 * 8);
    for (size_t i = 0; i < in.size(); i++) in[i] = static_cast<int>(i);
    DeviceVec<int> d(std::vector<int>(4 * 10, -1));
    // 4 rows of 5 out of rows of 8 into rows of 10
    CUDA_OK(cudaMemcpy2D(d, 40, in.data(), 32, 20, 4, cudaMemcpyHostToDevice));
    const std::vector<int> got = d.download();
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 10; x++) ASSERT_EQ(got[y * 10 + x], x < 5 ? y * 8 + x : -1);
    EXPECT_EQ(cudaMemcpy2D(d, 40, in.data(), 32, 20, 5, cudaMemcpyHostToDevice), cudaErrorInvalidValue) << "a row too many";
}

TEST(SimMemory, PeerCopiesAreCounted)
{
    long copies = 0, before = 0;
    long long bytes = 0, bytes_before = 0;
    stm_sim_copied("p2p", &before, &bytes_before);
    DeviceVec<int> here(std::vector<int>{1, 2, 3});
    CUDA_OK(cudaSetDevice(1));
    {
        DeviceVec<int> there(3);
        CUDA_OK(cudaMemcpyPeer(there, 1, here, 0, 12));
        EXPECT_EQ(there.download(), (std::vector<int>{1, 2, 3}));
        EXPECT_EQ(cudaMemcpyPeer(there, 0, here, 0, 12), cudaErrorInvalidValue) << "not its device";
    }
    CUDA_OK(cudaSetDevice(0));
    stm_sim_copied("p2p", &copies, &bytes);
    EXPECT_EQ(copies - before, 1);
    EXPECT_EQ(bytes - bytes_before, 12);
}

TEST(SimMemory, StreamOrderedAllocation)
{
    Stream s;
    cudaMemPool_t pool = nullptr;
    CUDA_OK(cudaDeviceGetDefaultMemPool(&pool, 0));
    uint64_t used = 1, keep = 1 << 20, got = 0;
    CUDA_OK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
    CUDA_OK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &got));
    EXPECT_EQ(got, keep);
    for (int i = 0; i < 10; i++) {
        void *p = nullptr;
        CUDA_OK(cudaMallocAsync(&p, 1000, s));
        CUDA_OK(cudaMemsetAsync(p, i, 1000, s));
        CUDA_OK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
        EXPECT_EQ(used, 1000u);
        CUDA_OK(cudaFreeAsync(p, s));
    }
    s.wait();
    CUDA_OK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
    EXPECT_EQ(used, 0u);
    EXPECT_EQ(stm_sim_live("alloc"), 0);
    EXPECT_EQ(stm_sim_findings(), 0);
}

TEST(SimMemory, PiecesOfASlabAreToldApart)
{
    // Two streams, each in its own half: no conflict, at whatever granularity the halves are cut.
    Stream a, b;
    DeviceVec<char> slab(1000);
    for (int i = 0; i < 10; i++) {
        CUDA_OK(cudaMemsetAsync(slab.data(), i, 501, a));
        CUDA_OK(cudaMemsetAsync(slab.data() + 501, i, 499, b));
    }
    a.wait();
    b.wait();
    EXPECT_EQ(stm_sim_findings(), 0);
    CUDA_OK(cudaMemsetAsync(slab.data() + 500, 0, 1, b)); // a's, but the host has waited for a
    b.wait();
    EXPECT_EQ(stm_sim_findings(), 0);
}
