// Streams, events, copies, errors: the positive state machine of the API.
#include "device_vec.h"
#include "good.h"
#include "stm_sim.h"

TEST(SimStreams, TwoStreamsOrderedByAnEvent)
{
    const int n = 4096;
    float *host = nullptr, *back = nullptr;
    CUDA_OK(cudaMallocHost(reinterpret_cast<void **>(&host), n * sizeof(float)));
    CUDA_OK(cudaMallocHost(reinterpret_cast<void **>(&back), n * sizeof(float)));
    {
        Stream first, second;
        cudaEvent_t event;
        CUDA_OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        DeviceVec<float> a(n), b(n), c(n);
        for (int turn = 0; turn < 20; turn++) {
            for (int i = 0; i < n; i++) host[i] = static_cast<float>(i + turn);
            CUDA_OK(cudaMemcpyAsync(a, host, a.bytes(), cudaMemcpyHostToDevice, first));
            CUDA_OK(good_add(a, a, b, n, first));
            CUDA_OK(cudaEventRecord(event, first));
            CUDA_OK(cudaStreamWaitEvent(second, event, 0));
            CUDA_OK(good_add(b, b, c, n, second));
            CUDA_OK(cudaMemcpyAsync(back, c, c.bytes(), cudaMemcpyDeviceToHost, second));
            second.wait();
            for (int i = 0; i < n; i++) ASSERT_EQ(back[i], 4.0f * static_cast<float>(i + turn));
        }
        CUDA_OK(cudaEventDestroy(event));
    }
    CUDA_OK(cudaFreeHost(host));
    CUDA_OK(cudaFreeHost(back));
    EXPECT_EQ(stm_sim_findings(), 0);
}

TEST(SimStreams, HostFunctionsRunInOrder)
{
    Stream s;
    std::vector<int> seen;
    struct Item {
        std::vector<int> *to;
        int value;
    } items[3] = {{&seen, 1}, {&seen, 2}, {&seen, 3}};
    for (Item &i : items)
        CUDA_OK(cudaLaunchHostFunc(
            s, [](void *p) { static_cast<Item *>(p)->to->push_back(static_cast<Item *>(p)->value); }, &i));
    s.wait();
    EXPECT_EQ(seen, (std::vector<int>{1, 2, 3}));
}

TEST(SimFaults, TheKthCallFails)
{
    void *p[3] = {};
    stm_sim_fault("cudaMalloc", 2, cudaErrorMemoryAllocation, 0);
    CUDA_OK(cudaMalloc(&p[0], 8));
    EXPECT_EQ(cudaMalloc(&p[1], 8), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    CUDA_OK(cudaMalloc(&p[2], 8));
    EXPECT_TRUE(stm_sim_fault_fired());
    stm_sim_fault_clear();
    CUDA_OK(cudaFree(p[0]));
    CUDA_OK(cudaFree(p[2]));
}

TEST(SimFaults, AFailedKernelKillsItsDeviceOnly)
{
    CUDA_OK(cudaSetDevice(1));
    {
        DeviceVec<int> d(std::vector<int>{1, 2, 3});
        stm_sim_fault("kernel", 1, cudaErrorIllegalAddress, 1);
        CUDA_OK(good_reverse(d, 3, nullptr));
        EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
        void *p;
        EXPECT_EQ(cudaMalloc(&p, 8), cudaErrorIllegalAddress);
        EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
        EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress) << "sticky";
        EXPECT_STRNE(stm_sim_last_message(1), "");
        CUDA_OK(cudaSetDevice(0));
        CUDA_OK(cudaMalloc(&p, 8));
        CUDA_OK(cudaFree(p));
    }
    stm_sim_fault_clear();
    stm_sim_revive();
}
