// Tensor-core kernels of each generation, and cooperative groups: small, for the emulations' sake.
#include "kernels/stm_cuda.h"
#include "kernels/stm_sm90.h"
#include "tensor.h"
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <mma.h>

namespace cg = cooperative_groups;
using namespace nvcuda;

// A warp makes 16 x 16 of c, a block of 4 warps 32 x 32.
template <int TileM, int TileN> __global__ void wmma_kernel(const __half *a, const __half *b, float *c, int m, int n, int k)
{
    STM_SHARED(__half, sa, [TileM][16]);
    STM_SHARED(__half, sb, [16][TileN]);
    const int warp = threadIdx.x / 32, row = warp / (TileN / 16) * 16, col = warp % (TileN / 16) * 16;
    const int m0 = blockIdx.y * TileM, n0 = blockIdx.x * TileN;
    (void)m;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
    wmma::fill_fragment(sum, 0.0f);
    for (int k0 = 0; k0 < k; k0 += 16) {
        for (int i = threadIdx.x; i < TileM * 16; i += blockDim.x) sa[i / 16][i % 16] = a[(m0 + i / 16) * k + k0 + i % 16];
        for (int i = threadIdx.x; i < 16 * TileN; i += blockDim.x)
            sb[i / TileN][i % TileN] = b[(k0 + i / TileN) * n + n0 + i % TileN];
        __syncthreads();
        wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> fa;
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::row_major> fb;
        wmma::load_matrix_sync(fa, &sa[row][0], 16);
        wmma::load_matrix_sync(fb, &sb[0][col], TileN);
        wmma::mma_sync(sum, fa, fb, sum);
        __syncthreads();
    }
    wmma::store_matrix_sync(c + (m0 + row) * n + n0 + col, sum, n, wmma::mem_row_major);
}

// One warp a block, 16 x 16 of c; two stages of cp.async; ldmatrix, mma.sync.
template <bool ForgetWait> __global__ void mma_kernel(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, int n, int k)
{
    STM_SHARED(__nv_bfloat16, sa, [2][16][16]);
    STM_SHARED(__nv_bfloat16, sb, [2][16][16]);
    const int lane = threadIdx.x, m0 = blockIdx.y * 16, n0 = blockIdx.x * 16, row = lane / 2, side = lane % 2 * 8;
    auto fetch = [&](int stage, int k0) {
        stm_cp_async<16>(&sa[stage][row][side], a + static_cast<size_t>(m0 + row) * k + k0 + side);
        stm_cp_async<16>(&sb[stage][row][side], b + static_cast<size_t>(n0 + row) * k + k0 + side);
        stm_cp_async_commit();
    };
    float sum[2][4] = {};
    fetch(0, 0);
    for (int i = 0; i < k / 16; i++) {
        if (i + 1 < k / 16) fetch((i + 1) % 2, (i + 1) * 16);
        else stm_cp_async_commit(); // an empty group, so that the count below fits
        if (!ForgetWait) stm_cp_async_wait<1>();
        __syncthreads();
        uint32_t fa[4], fb[4];
        stm_ldmatrix_x4(fa, &sa[i % 2][lane % 16][lane / 16 * 8]);
        stm_ldmatrix_x4(fb, &sb[i % 2][lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]);
        const uint32_t left[2] = {fb[0], fb[1]}, right[2] = {fb[2], fb[3]};
        stm_mma_m16n8k16(sum[0], fa, left, sum[0], __nv_bfloat16());
        stm_mma_m16n8k16(sum[1], fa, right, sum[1], __nv_bfloat16());
        __syncthreads();
    }
    if (ForgetWait) stm_cp_async_wait<0>();
    for (int h = 0; h < 2; h++)
        for (int e = 0; e < 4; e++) c[(m0 + lane / 4 + 8 * (e / 2)) * n + n0 + 8 * h + 2 * (lane % 4) + e % 2] = sum[h][e];
}

// One warpgroup, two stages. Mistakes as in tensor.h.
template <int Mistake>
__global__ void __launch_bounds__(128)
    hopper_kernel(const __grid_constant__ CUtensorMap ma, const __grid_constant__ CUtensorMap mb, float *c, int k)
{
#if defined(STM_SIM) || __CUDA_ARCH__ >= 900
    STM_DYN_SHARED(unsigned char, memory);
    unsigned char *sa[2] = {memory, memory + 8192}, *sb[2] = {memory + 16384, memory + 18432};
    uint64_t *full = reinterpret_cast<uint64_t *>(memory + 20480);
    const int t = threadIdx.x, turns = k / 64;
    if (t == 0 && Mistake != 3) {
        stm_mbarrier_init(&full[0], 1);
        stm_mbarrier_init(&full[1], 1);
    }
    __syncthreads();
    auto fetch = [&](int i) {
        stm_mbarrier_expect(&full[i % 2], 64 * 128 + 16 * 128);
        stm_tma_load_2d(sa[i % 2], &ma, &full[i % 2], i * 64, 0);
        stm_tma_load_2d(sb[i % 2], &mb, &full[i % 2], i * 64, 0);
    };
    if (t == 0) fetch(0);
    if (t == 0 && Mistake == 9 && turns > 1) fetch(1);
    float d[8] = {};
    for (int i = 0; i < turns; i++) {
        if (t == 0 && i + 1 < turns && Mistake != 9) fetch(i + 1);
        if (Mistake != 1) stm_mbarrier_wait(&full[i % 2], (i / 2 & 1) ^ (Mistake == 4 ? 1 : 0));
        if (Mistake != 6) stm_wgmma_fence();
        for (int part = 0; part < 4; part++) {
            uint64_t da = stm_wgmma_desc(sa[i % 2]) + part * 2;
            if (Mistake == 5) da = stm_wgmma_desc_64(sa[i % 2]) + part % 2 * 2;
            if (Mistake == 8 && t >= 64) da += 64; // the next 8 rows for half of the warps
            if (Mistake == 10) da += 8;            // the next row
            stm_wgmma_m64k16<16>(d, da, stm_wgmma_desc(sb[i % 2]) + part * 2, 1, __nv_bfloat16());
        }
        stm_wgmma_commit();
        if (Mistake == 7) d[3] += 1.0f;
        if (t == 0 && i + 2 < turns && Mistake == 9) fetch(i + 2);
        if (Mistake != 2 || i + 1 < turns) stm_wgmma_wait<0>();
        __syncthreads();
    }
    float early[8];
    for (int e = 0; e < 8; e++) early[e] = d[e];
    if (Mistake == 2) stm_wgmma_wait<0>();
    for (int e = 0; e < 8; e++)
        c[(16 * (t / 32) + t % 32 / 4 + 8 * (e / 2 % 2)) * 16 + 8 * (e / 4) + 2 * (t % 4) + e % 2] = early[e];
#endif
}

// One warpgroup; operands by plain stores, rows of 64 bytes. k = 32.
template <bool ForgetFence>
__global__ void __launch_bounds__(128) stored_kernel(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c)
{
#if defined(STM_SIM) || __CUDA_ARCH__ >= 900
    STM_DYN_SHARED(unsigned char, memory);
    const int t = threadIdx.x;
    auto store = [&](unsigned char *tile, const __nv_bfloat16 *from, int row, int col) {
        const int at = row * 64 + ((col / 8) ^ (row >> 1 & 3)) * 16 + col % 8 * 2;
        *reinterpret_cast<__nv_bfloat16 *>(tile + at) = from[row * 32 + col];
    };
    for (int i = t; i < 64 * 32; i += 128) store(memory, a, i / 32, i % 32);
    for (int i = t; i < 16 * 32; i += 128) store(memory + 4096, b, i / 32, i % 32);
    if (!ForgetFence) stm_fence_async();
    __syncthreads();
    float d[8];
    stm_wgmma_fence();
    for (int part = 0; part < 2; part++)
        stm_wgmma_m64k16<16>(d, stm_wgmma_desc_64(memory) + part * 2, stm_wgmma_desc_64(memory + 4096) + part * 2, part,
                             __nv_bfloat16());
    stm_wgmma_commit();
    stm_wgmma_wait<0>();
    for (int e = 0; e < 8; e++) c[(16 * (t / 32) + t % 32 / 4 + 8 * (e / 2 % 2)) * 16 + 8 * (e / 4) + 2 * (t % 4) + e % 2] = d[e];
#endif
}

__global__ void groups_kernel(int *partial, int *sum)
{
    STM_SHARED(int, tiles, [8]);
    const cg::thread_block block = cg::this_thread_block();
    const cg::grid_group grid = cg::this_grid();
    const auto tile = cg::tiled_partition<16>(block);
    const int mine = cg::reduce(tile, static_cast<int>(grid.thread_rank()), cg::plus<int>());
    if (tile.thread_rank() == 0) tiles[tile.meta_group_rank()] = mine;
    block.sync();
    if (block.thread_rank() == 0) {
        int s = 0;
        for (unsigned i = 0; i < tile.meta_group_size(); i++) s += tiles[i];
        partial[blockIdx.x] = s;
    }
    grid.sync();
    if (grid.thread_rank() == 0) {
        int s = 0;
        for (unsigned i = 0; i < gridDim.x; i++) s += partial[i];
        *sum = s;
    }
}

cudaError_t tensor_wmma(const __half *a, const __half *b, float *c, int m, int n, int k, cudaStream_t s)
{
    return STM_LAUNCH((wmma_kernel<32, 32>), dim3(n / 32, m / 32), dim3(128), 0, s, a, b, c, m, n, k);
}
cudaError_t tensor_mma(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, int m, int n, int k, bool forget_wait,
                       cudaStream_t s)
{
    const dim3 grid(n / 16, m / 16);
    return forget_wait ? STM_LAUNCH((mma_kernel<true>), grid, dim3(32), 0, s, a, b, c, n, k)
                       : STM_LAUNCH((mma_kernel<false>), grid, dim3(32), 0, s, a, b, c, n, k);
}
cudaError_t tensor_hopper(const CUtensorMap &a, const CUtensorMap &b, float *c, int k, int mistake, cudaStream_t s)
{
    const size_t bytes = 20480 + 64;
#define MISTAKE(M) \
    case M: return STM_LAUNCH((hopper_kernel<M>), dim3(1), dim3(128), bytes, s, a, b, c, k)
    switch (mistake) {
        MISTAKE(0);
        MISTAKE(1);
        MISTAKE(2);
        MISTAKE(3);
        MISTAKE(4);
        MISTAKE(5);
        MISTAKE(6);
        MISTAKE(7);
        MISTAKE(8);
        MISTAKE(9);
        MISTAKE(10);
    }
#undef MISTAKE
    return cudaErrorInvalidValue;
}
cudaError_t tensor_stored(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, bool forget_fence, cudaStream_t s)
{
    return forget_fence ? STM_LAUNCH((stored_kernel<true>), dim3(1), dim3(128), 5120, s, a, b, c)
                        : STM_LAUNCH((stored_kernel<false>), dim3(1), dim3(128), 5120, s, a, b, c);
}
cudaError_t groups_sum(int *partial, int *sum, int blocks, int threads, cudaStream_t s)
{
    return STM_LAUNCH_COOPERATIVE((groups_kernel), dim3(blocks), dim3(threads), 0, s, partial, sum);
}
