/* What the launch functions of .cu files share. */
#ifndef STM_KERNELS_LAUNCH_H
#define STM_KERNELS_LAUNCH_H

#include "kernels/stm_cuda.h"

#include <stdint.h>

#include "device/cuda_module.h"

#define STM_MAX_GRID_X 2147483647ll

static inline unsigned stm_blocks(int64_t n, int64_t per_block) { return static_cast<unsigned>((n + per_block - 1) / per_block); }

/** The first number of the compute capability of the thread's device: which forms of a kernel it has. */
static inline int stm_device_major()
{
    int device = 0, major = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess)
        (void)cudaGetLastError(); /* the launch tells it */
    return major;
}

/** STM_LAUNCH as the status of an operation: bad launches only; what goes wrong later shows at the batch's event. */
#define STM_LAUNCHED(...) stm_cuda_check(STM_CUDA((STM_LAUNCH(__VA_ARGS__))), "launching a kernel", __FILE__, __LINE__, nullptr)

#endif
