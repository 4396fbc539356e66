// Streams, events, copies, errors: the positive state machine of the API.
#include "device_vec.h"
#include "good.h"
#include "stm_sim.h"
#include <chrono>
#include <thread>

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

TEST(SimStreams, TheNullStreamWaitsForBlockingOnes)
{
    const int n = 512;
    cudaStream_t s;
    CUDA_OK(cudaStreamCreate(&s)); // blocking
    DeviceVec<float> a(std::vector<float>(n, 1.0f)), b(n), c(n);
    CUDA_OK(good_add(a, a, b, n, s));
    CUDA_OK(good_add(b, b, c, n, nullptr));
    CUDA_OK(good_add(c, c, b, n, s));
    CUDA_OK(cudaStreamSynchronize(s));
    EXPECT_EQ(b.download(), std::vector<float>(n, 8.0f));
    CUDA_OK(cudaStreamDestroy(s));
    EXPECT_EQ(stm_sim_findings(), 0);
}

/* A stream that was destroyed and has ended is still part of what waiting for the device waits for. */
TEST(SimStreams, TheDeviceIncludesStreamsThatHaveEnded)
{
    cudaStream_t s;
    char *h = nullptr;
    CUDA_OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    CUDA_OK(cudaMallocHost(reinterpret_cast<void **>(&h), 64));
    DeviceVec<char> a(64);
    CUDA_OK(cudaMemcpyAsync(a, h, 64, cudaMemcpyHostToDevice, s));
    CUDA_OK(cudaStreamDestroy(s));
    /* its thread is gone by then, or it is still at work: no difference */
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CUDA_OK(cudaDeviceSynchronize());
    h[0] = 1;
    stm_sim_host_write(h, 64);
    CUDA_OK(cudaFreeHost(h));
    EXPECT_STREQ(stm_sim_take_finding(), "");
}

TEST(SimStreams, QueriesMakeProgress)
{
    Stream s;
    cudaEvent_t e;
    CUDA_OK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    EXPECT_EQ(cudaEventQuery(e), cudaSuccess) << "never recorded";
    DeviceVec<char> a(64);
    CUDA_OK(cudaMemsetAsync(a, 0, 64, s));
    CUDA_OK(cudaEventRecord(e, s));
    cudaError_t q;
    while ((q = cudaEventQuery(e)) == cudaErrorNotReady) {}
    EXPECT_EQ(q, cudaSuccess);
    while ((q = cudaStreamQuery(s)) == cudaErrorNotReady) {}
    EXPECT_EQ(q, cudaSuccess);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "not ready is no error";
    float ms;
    EXPECT_EQ(cudaEventElapsedTime(&ms, e, e), cudaErrorInvalidResourceHandle) << "timing is off";
    cudaGetLastError();
    CUDA_OK(cudaEventDestroy(e));
}

TEST(SimStreams, AWaitTakesTheRecordAsOfTheCall)
{
    const int n = 64;
    Stream s, t;
    cudaEvent_t e;
    CUDA_OK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    DeviceVec<float> a(std::vector<float>(n, 1.0f)), b(n), c(n);
    CUDA_OK(good_add(a, a, b, n, s));
    CUDA_OK(cudaEventRecord(e, s));
    CUDA_OK(cudaStreamWaitEvent(t, e, 0));
    CUDA_OK(cudaEventRecord(e, t)); // again, elsewhere: t does not wait for itself
    CUDA_OK(good_add(b, b, c, n, t));
    t.wait();
    EXPECT_EQ(c.download(), std::vector<float>(n, 4.0f));
    CUDA_OK(cudaEventDestroy(e));
    EXPECT_EQ(stm_sim_findings(), 0);
}

// What a steady state must not do is counted by name.
TEST(SimStreams, CallsAreCounted)
{
    const long mallocs = stm_sim_calls("cudaMalloc"), all = stm_sim_calls("cuda*"), launches = stm_sim_calls("cudaLaunchKernel");
    DeviceVec<float> a(std::vector<float>(8, 1.0f));
    CUDA_OK(good_add(a, a, a, 8, nullptr));
    CUDA_OK(cudaDeviceSynchronize());
    EXPECT_EQ(stm_sim_calls("cudaMalloc") - mallocs, 1);
    EXPECT_EQ(stm_sim_calls("cudaLaunchKernel") - launches, 1);
    EXPECT_EQ(stm_sim_calls("cuda*") - all, 4) << "malloc, memcpy, launch, synchronise";
}

TEST(SimFaults, EveryKthCallOfAnyKind)
{
    // Each call of a small job fails once: the job stops there with that call's usual error, and nothing is left behind.
    auto job = [] {
        void *p = nullptr, *h = nullptr;
        cudaStream_t s = nullptr;
        cudaError_t e = cudaMalloc(&p, 64);
        if (!e) e = cudaMallocHost(&h, 64);
        if (!e) e = cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
        if (!e) e = cudaMemsetAsync(p, 0, 64, s);
        if (!e) e = cudaMemcpyAsync(h, p, 64, cudaMemcpyDeviceToHost, s);
        if (s) {
            const cudaError_t w = cudaStreamSynchronize(s);
            if (!e) e = w;
            if (w) cudaStreamSynchronize(s); // the fault is gone
            cudaStreamDestroy(s);
        }
        cudaFreeHost(h);
        cudaFree(p);
        return e;
    };
    const cudaError_t want[] = {cudaErrorMemoryAllocation, cudaErrorMemoryAllocation, cudaErrorMemoryAllocation, cudaErrorUnknown,
                                cudaErrorUnknown,          cudaErrorUnknown,          cudaSuccess};
    for (int k = 1; k <= 7; k++) {
        stm_sim_fault("cuda*", k, 0, 0);
        EXPECT_EQ(job(), want[k - 1]) << "call " << k;
        EXPECT_EQ(stm_sim_fault_fired() != 0, k < 7);
        stm_sim_fault_clear();
        EXPECT_EQ(stm_sim_live("*"), 0) << "call " << k;
        cudaGetLastError();
    }
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
