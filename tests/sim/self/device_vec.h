// Device memory with a host copy, for tests.
#pragma once
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <vector>

#define CUDA_OK(call) ASSERT_EQ((call), cudaSuccess) << #call
#define CUDA_EXPECT(call) EXPECT_EQ((call), cudaSuccess) << #call

template <class T> class DeviceVec {
    T *p = nullptr;
    size_t n;

  public:
    explicit DeviceVec(size_t count) : n(count) { CUDA_EXPECT(cudaMalloc(reinterpret_cast<void **>(&p), n * sizeof(T))); }
    explicit DeviceVec(const std::vector<T> &v) : DeviceVec(v.size())
    {
        CUDA_EXPECT(cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice));
    }
    DeviceVec(const DeviceVec &) = delete;
    DeviceVec &operator=(const DeviceVec &) = delete;
    ~DeviceVec() { cudaFree(p); }
    T *data() { return p; }
    operator T *() { return p; }
    size_t bytes() const { return n * sizeof(T); }
    std::vector<T> download() const
    {
        std::vector<T> v(n);
        CUDA_EXPECT(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }
};

class Stream {
    cudaStream_t s = nullptr;

  public:
    Stream() { CUDA_EXPECT(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking)); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    ~Stream() { cudaStreamDestroy(s); }
    operator cudaStream_t() const { return s; }
    void wait() { CUDA_EXPECT(cudaStreamSynchronize(s)); }
};
