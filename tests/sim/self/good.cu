// Correct kernels of the kinds the product has; compiled by nvcc in the swap run, too.
#include "kernels/stm_cuda.h"
#include "good.h"

__global__ void add_kernel(const float *a, const float *b, float *out, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = a[i] + b[i];
}

template <class T, int Threads> __global__ void block_sum_kernel(const T *in, T *out, int n)
{
    STM_SHARED(T, partial, [Threads]);
    const int t = threadIdx.x;
    T sum = 0;
    for (int i = blockIdx.x * Threads + t; i < n; i += gridDim.x * Threads) sum += in[i];
    partial[t] = sum;
    __syncthreads();
    for (int step = Threads / 2; step > 0; step /= 2) {
        if (t < step) partial[t] += partial[t + step];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = partial[0];
}

// One warp a row.
template <int Warps> __global__ void softmax_kernel(const float *x, float *out, int rows, int dim)
{
    const int row = blockIdx.x * Warps + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return; // no barrier below
    float top = -INFINITY, sum = 0.0f;
    for (int i = lane; i < dim; i += 32) top = fmaxf(top, x[row * dim + i]);
    for (int o = 16; o > 0; o /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, o));
    for (int i = lane; i < dim; i += 32) sum += __expf(x[row * dim + i] - top);
    for (int o = 16; o > 0; o /= 2) sum += __shfl_down_sync(0xffffffffu, sum, o);
    sum = __shfl_sync(0xffffffffu, sum, 0);
    for (int i = lane; i < dim; i += 32) out[row * dim + i] = __expf(x[row * dim + i] - top) / sum;
}

__global__ void histogram_kernel(const unsigned char *in, int n, unsigned *bins)
{
    STM_SHARED(unsigned, local, [256]);
    for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[in[i]], 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&bins[i], local[i]);
}

__global__ void reverse_kernel(int *data, int n)
{
    STM_DYN_SHARED(int, copy);
    const int t = threadIdx.x;
    copy[t] = data[t];
    __syncthreads();
    data[t] = copy[n - 1 - t];
}

cudaError_t good_add(const float *a, const float *b, float *out, int n, cudaStream_t s)
{
    return STM_LAUNCH((add_kernel), dim3((n + 127) / 128), dim3(128), 0, s, a, b, out, n);
}
cudaError_t good_block_sum(const float *in, float *out, int n, int blocks, cudaStream_t s)
{
    return STM_LAUNCH((block_sum_kernel<float, 128>), dim3(blocks), dim3(128), 0, s, in, out, n);
}
cudaError_t good_softmax(const float *x, float *out, int rows, int dim, cudaStream_t s)
{
    return STM_LAUNCH((softmax_kernel<4>), dim3((rows + 3) / 4), dim3(128), 0, s, x, out, rows, dim);
}
cudaError_t good_histogram(const unsigned char *in, int n, unsigned *bins, cudaStream_t s)
{
    return STM_LAUNCH((histogram_kernel), dim3(4), dim3(96), 0, s, in, n, bins);
}
cudaError_t good_reverse(int *data, int n, cudaStream_t s)
{
    return STM_LAUNCH((reverse_kernel), dim3(1), dim3(n), n * sizeof(int), s, data, n);
}
