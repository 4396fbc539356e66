/* Values in registers: for .cu files. The type of memory is a template argument, arithmetic is float. */
#ifndef STM_KERNELS_VALUES_CUDA_H
#define STM_KERNELS_VALUES_CUDA_H

#include "kernels/stm_cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "kernels/values.h"

__device__ __forceinline__ float stm_float(float v) { return v; }
__device__ __forceinline__ float stm_float(__half v) { return __half2float(v); }
__device__ __forceinline__ float stm_float(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ void stm_round(float *to, float v) { *to = v; }
__device__ __forceinline__ void stm_round(__half *to, float v) { *to = __float2half_rn(v); }
__device__ __forceinline__ void stm_round(__nv_bfloat16 *to, float v) { *to = __float2bfloat16_rn(v); }

/* N values that are loaded and stored at once: aligned to all of them. */
template <class T, int N> struct alignas(N * sizeof(T)) stm_pack {
    T v[N];
};
/* Values of 16 bytes, the widest load there is. */
template <class T> constexpr int stm_wide() { return 16 / static_cast<int>(sizeof(T)); }

template <class T, int N> __device__ __forceinline__ void stm_load(float (&to)[N], const T *from)
{
    const stm_pack<T, N> p = *reinterpret_cast<const stm_pack<T, N> *>(from);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = stm_float(p.v[i]);
}
template <class T, int N> __device__ __forceinline__ void stm_store(T *to, const float (&from)[N])
{
    stm_pack<T, N> p;
#pragma unroll
    for (int i = 0; i < N; i++) stm_round(&p.v[i], from[i]);
    *reinterpret_cast<stm_pack<T, N> *>(to) = p;
}
/* N floats of a vector that is aligned to 16 bytes: N is 1, 2, 4, or 8. */
template <int N> __device__ __forceinline__ void stm_load_floats(float (&to)[N], const float *from)
{
    constexpr int step = N < 4 ? N : 4;
#pragma unroll
    for (int i = 0; i < N; i += step) {
        const stm_pack<float, step> p = *reinterpret_cast<const stm_pack<float, step> *>(from + i);
#pragma unroll
        for (int k = 0; k < step; k++) to[i + k] = p.v[k];
    }
}

/* Sum and maximum over a warp; every lane gets it, in an order that depends on the lanes only. */
__device__ __forceinline__ float stm_warp_sum(float v)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}
__device__ __forceinline__ float stm_warp_max(float v)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}

/* Whether a pointer, or a stride in values, is whole vectors of `bytes`. */
static inline bool stm_aligned_to(const void *p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }
static inline bool stm_stride_of(int64_t values, stm_real type, size_t bytes)
{
    return static_cast<size_t>(values) * stm_real_bytes(type) % bytes == 0;
}

/* Call f with a value of the C++ type that `type` stands for. */
template <class F> static mill_status stm_with_type(stm_real type, F f)
{
    switch (type) {
    case STM_F32: return f(float());
    case STM_BF16: return f(__nv_bfloat16());
    default: return f(__half());
    }
}

#endif
