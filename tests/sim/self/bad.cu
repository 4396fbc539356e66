// One mistake each; test_bad.cc says who has to find it. `data` holds 0 .. n-1 (128 of them) and is to be reversed, where the
// kernel computes anything.
#include "kernels/stm_cuda.h"
#include "bad.h"
#include <cstring>

__global__ void missing_barrier(int *data, int n)
{
    STM_DYN_SHARED(int, copy);
    const int t = threadIdx.x;
    copy[t] = data[t];
    data[t] = copy[n - 1 - t];
}

__global__ void missing_syncwarp(int *data, int n)
{
    STM_SHARED(int, copy, [128]);
    const int t = threadIdx.x;
    copy[t] = data[t];
    const int mine = copy[t ^ 31]; // of the same warp
    __syncthreads();
    copy[t / 32 * 32 + t % 32] = mine;
    __syncthreads();
    data[n - 1 - t] = copy[t ^ 31];
}

// Right in every order that runs a thread up to its next barrier; a race all the same.
__global__ void missing_barrier_at_loop_end(int *data, int n)
{
    STM_SHARED(int, copy, [128]);
    const int t = threadIdx.x;
    for (int turn = 0; turn < 3; turn++) {
        copy[t] = data[t];
        __syncthreads();
        data[t] = copy[n - 1 - t];
    }
}

__global__ void barrier_in_branch(int *data, int n)
{
    STM_SHARED(int, copy, [128]);
    const int t = threadIdx.x;
    copy[t] = data[t];
    for (int step = 64; step > 0; step /= 2)
        if (t < step) {
            copy[t] += copy[t + step];
            __syncthreads();
        }
    data[n - 1 - t] = copy[t];
}

__global__ void divergent_barrier(int *data, int)
{
    if (threadIdx.x < 16) {
        __syncthreads();
        data[0] = 1;
    } else {
        __syncthreads();
        data[1] = 1;
    }
}

__global__ void barrier_after_exit(int *data, int)
{
    if (threadIdx.x >= 100) return;
    __syncthreads();
    data[threadIdx.x] = 1;
}

__global__ void mask_without_the_caller(int *data, int)
{
    data[threadIdx.x] = __shfl_sync(0x0000ffffu, data[threadIdx.x], 0);
}

__global__ void shuffles_at_two_places(int *data, int)
{
    int v = 0;
    if (threadIdx.x % 2) v = __shfl_sync(0xffffffffu, 1, 0);
    else v = __shfl_down_sync(0xffffffffu, 2, 1);
    data[threadIdx.x] = v;
}

__global__ void shuffle_against_barrier(int *data, int)
{
    if (threadIdx.x < 8) data[0] = __shfl_sync(0xffffffffu, 1, 0);
    else __syncthreads();
}

__global__ void shuffle_from_outside(int *data, int n)
{
    const int t = threadIdx.x, lane = t % 32;
    int v = n - 1 - t;
    if (lane < 16) v = __shfl_sync(0x0000ffffu, v, 20); // a lane outside the mask: undefined
    data[t] = v;
}

__global__ void shared_overrun(int *data, int n)
{
    STM_SHARED(int, copy, [128]);
    const int t = threadIdx.x;
    copy[t + 1] = data[t];
    __syncthreads();
    data[t] = n - 1 - t;
}

__global__ void shared_not_initialised(int *data, int)
{
    STM_SHARED(int, copy, [128]);
    data[threadIdx.x] = copy[threadIdx.x];
}

__global__ void far_overrun(int *data, int n) { data[n * 16 + threadIdx.x] = 7; }
__global__ void near_underrun(int *data, int n)
{
    const int t = threadIdx.x;
    data[t] = n - 1 - t;
    if (t == 0) data[-1] = 7;
}
__global__ void null_pointer(int *data, int n)
{
    int *p = reinterpret_cast<int *>(static_cast<uintptr_t>(n - 128)); // null, which the compiler cannot see
    data[0] = p[threadIdx.x];
}

__global__ void plain_sum_in_shared(int *data, int n)
{
    STM_SHARED(int, sum, [1]);
    const int t = threadIdx.x;
    if (t == 0) sum[0] = 0;
    __syncthreads();
    sum[0] += 1;
    __syncthreads();
    data[t] = n - 1 - t + (sum[0] != n);
}

__global__ void blocks_race(int *data, int n)
{
    if (threadIdx.x == 0) data[0] = n - 1;
    else if (blockIdx.x == 0) data[threadIdx.x] = n - 1 - threadIdx.x;
}

__global__ void grid_barrier_in_ordinary_launch(int *data, int)
{
#ifdef STM_SIM
    stm_sim_grid_sync("bad.cu");
#endif
    data[0] = 1;
}

__global__ void waits_for_ever(int *data, int)
{
    while (atomicAdd(&data[0], 0) != 12345) STM_SPIN();
}

__global__ void traps(int *data, int) { assert(data[0] == 1); }

cudaError_t bad_kernel(const char *name, int *data, int n, cudaStream_t s)
{
#define ONE(kernel) if (strcmp(name, #kernel) == 0) return STM_LAUNCH((kernel), dim3(1), dim3(n), n * sizeof(int), s, data, n)
    ONE(missing_barrier);
    ONE(missing_syncwarp);
    ONE(missing_barrier_at_loop_end);
    ONE(barrier_in_branch);
    ONE(divergent_barrier);
    ONE(barrier_after_exit);
    ONE(mask_without_the_caller);
    ONE(shuffles_at_two_places);
    ONE(shuffle_against_barrier);
    ONE(shuffle_from_outside);
    ONE(shared_overrun);
    ONE(shared_not_initialised);
    ONE(far_overrun);
    ONE(near_underrun);
    ONE(null_pointer);
    ONE(plain_sum_in_shared);
    ONE(grid_barrier_in_ordinary_launch);
    ONE(waits_for_ever);
    ONE(traps);
#undef ONE
    if (strcmp(name, "blocks_race") == 0) return STM_LAUNCH((blocks_race), dim3(2), dim3(n), 0, s, data, n);
    if (strcmp(name, "too_much_shared_memory") == 0) return STM_LAUNCH((traps), dim3(1), dim3(n), 100 * 1024, s, data, n);
    if (strcmp(name, "too_many_threads") == 0) return STM_LAUNCH((traps), dim3(1), dim3(n * 16), 0, s, data, n);
    return cudaErrorInvalidDeviceFunction;
}
