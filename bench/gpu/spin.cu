#include "kernels/stm_cuda.h"

#include <string.h>

#include "bench/gpu/spin.h"

/* grid: 1 block of 256 threads. The simulated devices know no time. */
__global__ void stm_bench_spin_kernel(const float *in, float *out, int64_t n, int64_t cycles)
{
#ifndef STM_SIM
    const int64_t begin = clock64();
#endif
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) out[i] = in[i] + 1.0f;
#ifndef STM_SIM
    while (clock64() - begin < cycles) {
    }
#endif
    (void)cycles;
}

/* grid: any; each thread strides over vectors of 16 bytes. */
__global__ void stm_bench_read_kernel(const float4 *in, float *sum, int64_t n)
{
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    float s = 0.0f;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
        const float4 v = in[i];
        s += v.x + v.y + v.z + v.w;
    }
    if (s == 12345.678f) atomicAdd(sum, s); /* hardly ever, but the compiler cannot know */
}

__device__ static inline uint32_t mixed(uint32_t x)
{
    x ^= x >> 16, x *= 0x7feb352du;
    x ^= x >> 15, x *= 0x846ca68bu;
    return x ^ x >> 16;
}

/* grid: any. Values in [-1, 1). */
__global__ void stm_bench_random_kernel(float *out, int64_t n, uint32_t seed)
{
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        out[i] = static_cast<float>(mixed(static_cast<uint32_t>(i) + seed * 2654435761u)) * 0x1p-31f - 1.0f;
}

__global__ void stm_bench_random_bf16_kernel(uint16_t *out, int64_t n, uint32_t seed)
{
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
        const uint32_t r = mixed(static_cast<uint32_t>(i) + seed * 2654435761u); /* sign, exponent of 2^-4 .. 2^-1, 7 bits */
        out[i] = static_cast<uint16_t>((r & 0x8000u) | (123u + (r >> 8 & 3u)) << 7 | (r & 0x7fu));
    }
}

/* ---- mistakes, for the phase that sees whether the tools work; run in one block of 64 threads ---- */

__global__ void stm_bench_overrun_kernel(float *data, int n) { data[n + threadIdx.x] = 1.0f; }

__global__ void stm_bench_race_kernel(float *out)
{
    STM_SHARED(float, tile, [64]);
    tile[threadIdx.x] = static_cast<float>(threadIdx.x);
    out[threadIdx.x] = tile[63 - threadIdx.x]; /* no barrier in between */
}

__global__ void stm_bench_divergent_kernel(float *out)
{
    if (threadIdx.x < 40) __syncthreads(); /* a warp's half does not come */
    out[threadIdx.x] = 1.0f;
}

__global__ void stm_bench_unwritten_kernel(const float *data, float *out) { out[threadIdx.x] = data[threadIdx.x] + 1.0f; }

static int blocks_for(int64_t n, int64_t per) { return static_cast<int>(n / per + 1 < 4096 ? n / per + 1 : 4096); }

extern "C" int stm_bench_spin(const float *in, float *out, int64_t n, int64_t cycles, void *stream)
{
    STM_READS(in, n * sizeof(float));
    STM_WRITES(out, n * sizeof(float));
    return STM_LAUNCH((stm_bench_spin_kernel), dim3(1), dim3(256), 0, static_cast<cudaStream_t>(stream), in, out, n, cycles);
}
extern "C" int stm_bench_read(const float *in, float *sum, int64_t n, void *stream)
{
    STM_READS(in, n * sizeof(float));
    STM_UPDATES(sum, sizeof(float));
    return STM_LAUNCH((stm_bench_read_kernel), dim3(blocks_for(n, 8192)), dim3(256), 0, static_cast<cudaStream_t>(stream),
                      reinterpret_cast<const float4 *>(in), sum, n / 4);
}
extern "C" int stm_bench_random(float *out, int64_t n, uint32_t seed, void *stream)
{
    STM_WRITES(out, n * sizeof(float));
    return STM_LAUNCH((stm_bench_random_kernel), dim3(blocks_for(n, 1024)), dim3(256), 0, static_cast<cudaStream_t>(stream), out, n,
                      seed);
}
extern "C" int stm_bench_random_bf16(uint16_t *out, int64_t n, uint32_t seed, void *stream)
{
    STM_WRITES(out, n * sizeof(uint16_t));
    return STM_LAUNCH((stm_bench_random_bf16_kernel), dim3(blocks_for(n, 1024)), dim3(256), 0, static_cast<cudaStream_t>(stream),
                      out, n, seed);
}
extern "C" int stm_bench_mistake(const char *tool, float *data, float *out, void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (strcmp(tool, "memcheck") == 0) return STM_LAUNCH((stm_bench_overrun_kernel), dim3(1), dim3(64), 0, s, data, 64);
    if (strcmp(tool, "racecheck") == 0) return STM_LAUNCH((stm_bench_race_kernel), dim3(1), dim3(64), 0, s, out);
    if (strcmp(tool, "synccheck") == 0) return STM_LAUNCH((stm_bench_divergent_kernel), dim3(1), dim3(64), 0, s, out);
    if (strcmp(tool, "initcheck") == 0)
        return STM_LAUNCH((stm_bench_unwritten_kernel), dim3(1), dim3(64), 0, s, static_cast<const float *>(data), out);
    return -1;
}
