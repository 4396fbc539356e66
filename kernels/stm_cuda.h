/* The one header that CUDA kernels include first (a .cu file is compiled by nvcc, and as C++17 for the simulated devices of
 * tests/sim, where a header included ahead of everything gives these macros their other form). Rules for kernels: see
 * tests/sim/README.md.
 *
 *   STM_SHARED(float, tile, [32][33]);      shared memory; plain __shared__ is refused
 *   STM_DYN_SHARED(unsigned char, bytes);   the launch's dynamic shared memory, aligned to 1024 bytes
 *   STM_SPIN()                              in every loop that waits for another thread
 *   STM_BAR_SYNC(id, threads)               a named barrier for some warps of the block
 *   STM_KERNEL((k<T>))                      the kernel as cudaFuncSetAttribute and its kin want it
 *   STM_LAUNCH((k<T>), grid, block, dynamic_bytes, stream, args...)       a cudaError_t
 *   STM_LAUNCH_COOPERATIVE(...)             the same with all blocks resident, for grid barriers
 * Before a launch, and only for the simulator's checker, what the kernel will touch:
 *   STM_READS(p, bytes); STM_WRITES(p, bytes); STM_UPDATES(p, bytes)      the last: atomically, so several streams may at once */
#ifndef STM_KERNELS_STM_CUDA_H
#define STM_KERNELS_STM_CUDA_H
#include <cuda_runtime.h>

#ifndef STM_SIM
#define STM_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define STM_DYN_SHARED(T, name)                                                                                                    \
    extern __shared__ __align__(1024) unsigned char stm_dynamic_shared_[];                                                         \
    T *name = reinterpret_cast<T *>(stm_dynamic_shared_)
#define STM_SPIN() __nanosleep(32)
#define STM_BAR_SYNC(id, threads) asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory")
#define STM_KERNEL(kernel) (reinterpret_cast<const void *>(kernel))
#define STM_LAUNCH_WITH(config, kernel, ...) (cudaLaunchKernelEx(&(config), (kernel), __VA_ARGS__))
#define STM_READS(p, bytes) ((void)0)
#define STM_WRITES(p, bytes) ((void)0)
#define STM_UPDATES(p, bytes) ((void)0)
#endif

static inline cudaLaunchConfig_t stm_launch_config(dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = dynamic_bytes;
    config.stream = stream;
    return config;
}

#define STM_LAUNCH(kernel, grid, block, dynamic_bytes, stream, ...)                                                                \
    ([&] {                                                                                                                         \
        const cudaLaunchConfig_t stm_config_ = stm_launch_config((grid), (block), (dynamic_bytes), (stream));                      \
        return STM_LAUNCH_WITH(stm_config_, kernel, __VA_ARGS__);                                                                  \
    }())
#define STM_LAUNCH_COOPERATIVE(kernel, grid, block, dynamic_bytes, stream, ...)                                                    \
    ([&] {                                                                                                                         \
        cudaLaunchConfig_t stm_config_ = stm_launch_config((grid), (block), (dynamic_bytes), (stream));                            \
        cudaLaunchAttribute stm_attr_ = {};                                                                                        \
        stm_attr_.id = cudaLaunchAttributeCooperative;                                                                             \
        stm_attr_.val.cooperative = 1;                                                                                             \
        stm_config_.attrs = &stm_attr_;                                                                                            \
        stm_config_.numAttrs = 1;                                                                                                  \
        return STM_LAUNCH_WITH(stm_config_, kernel, __VA_ARGS__);                                                                  \
    }())

#endif
