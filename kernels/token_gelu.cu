#include "kernels/launch.h"
#include "kernels/token_ops.h"
#include "kernels/values_cuda.h"

template <bool Tanh> __device__ __forceinline__ float stm_gelu_of(float x)
{
    if constexpr (Tanh) return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    return 0.5f * x * (1.0f + erff(x * 0.70710678119f));
}

/* grid: x = tiles of blockDim.x vectors of V values, one a thread, laid over all rows: loads and stores of 16 bytes, coalesced; no
 * shared memory. It reads and writes each value once. */
template <class T, int V, bool Tanh> __global__ void __launch_bounds__(128) stm_token_gelu_kernel(stm_token_gelu_args a)
{
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, vectors = a.cols / V;
    if (at >= a.rows * vectors) return; /* no barrier below */
    const int64_t row = at / vectors, col = (at - row * vectors) * V;
    T *x = static_cast<T *>(a.x) + row * a.ld + col;
    float v[V];
    stm_load<T, V>(v, x);
    if (a.bias != nullptr) {
        float bias[V];
        stm_load_floats<V>(bias, a.bias + col);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] += bias[i];
    }
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = stm_gelu_of<Tanh>(v[i]);
    stm_store<T, V>(x, v);
}

template <class T, int V> static mill_status launch_with(const stm_token_gelu_args *a, cudaStream_t stream)
{
    const int block = 128;
    const int64_t blocks = (a->rows * (a->cols / V) + block - 1) / block;
    if (blocks > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
    const dim3 grid(static_cast<unsigned>(blocks));
    STM_WRITES(a->x, ((a->rows - 1) * a->ld + a->cols) * sizeof(T));
    if (a->bias != nullptr) STM_READS(a->bias, a->cols * sizeof *a->bias);
    if (a->kind == STM_GELU_TANH) return STM_LAUNCHED((stm_token_gelu_kernel<T, V, true>), grid, dim3(block), 0, stream, *a);
    return STM_LAUNCHED((stm_token_gelu_kernel<T, V, false>), grid, dim3(block), 0, stream, *a);
}

template <class T> static mill_status launch(const stm_token_gelu_args *a, cudaStream_t stream)
{
    constexpr int V = stm_wide<T>();
    if (a->cols % V == 0 && stm_aligned_to(a->x, 16) && stm_stride_of(a->ld, a->type, 16) && stm_aligned_to(a->bias, 16))
        return launch_with<T, V>(a, stream);
    return launch_with<T, 1>(a, stream);
}

extern "C" mill_status stm_token_gelu_cuda(const stm_token_gelu_args *a, void *stream)
{
    if (!stm_token_gelu_fits(a)) return MILL_ERR_INVALID;
    if (a->rows == 0) return MILL_OK;
    return stm_with_type(a->type, [&](auto t) { return launch<decltype(t)>(a, static_cast<cudaStream_t>(stream)); });
}
