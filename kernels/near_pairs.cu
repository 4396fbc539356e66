#include "kernels/near_pairs.h"
#include "kernels/unit_tiles.h"
#include "kernels/wgmma_tiles.h"

/* Rows of the two blocks that passed the screen together. */
struct stm_met {
    int32_t i, j;
};

static __device__ __forceinline__ void pass(const stm_near_pairs_args &a, int64_t i, int64_t j)
{
    const unsigned long long at = atomicAdd(reinterpret_cast<unsigned long long *>(a.found), 1ull);
    if (at < static_cast<unsigned long long>(a.room))
        static_cast<stm_met *>(a.scratch)[at] = {static_cast<int32_t>(i), static_cast<int32_t>(j)};
}

/* grid: x = tile of b, y = tile of a; those below the diagonal end at once. As stm_nearest_screen_kernel otherwise: 48 KiB of
 * dynamic shared memory and 1 KiB. */
template <bool Tensor> __global__ void __launch_bounds__(STM_TILE_THREADS) stm_near_pairs_screen_kernel(stm_near_pairs_args a)
{
    STM_DYN_SHARED(uint16_t, stages);
    STM_SHARED(float, cut, [STM_NEAREST_TILE]);
    STM_SHARED(float, weight, [STM_NEAREST_TILE]);
    const int me = static_cast<int>(threadIdx.x);
    const int64_t row = static_cast<int64_t>(blockIdx.y) * STM_NEAREST_TILE,
                  column = static_cast<int64_t>(blockIdx.x) * STM_NEAREST_TILE;
    const int32_t width = stm_unit_width(a.dim);
    const double margin = stm_unit_margin(width) * 1.0001;
    const stm_tile_walk walk = {
        a.a.units, a.b.units, row, a.a.n, a.b.n, static_cast<int64_t>(blockIdx.x), static_cast<int64_t>(blockIdx.x) + 1, width};
    float acc[4][8][4];

    if constexpr (Tensor && !STM_HAS_TENSOR) return;                          /* never launched there */
    if (a.b_first + column + STM_NEAREST_TILE - 1 <= a.a_first + row) return; /* the whole block */
    cut[me] = row + me < a.a.n ? stm_screen_from(a.metric, a.a.length[row + me], a.longest, a.threshold, margin) : INFINITY;
    weight[me] = stm_screen_weight(a.metric, a.b, column + me, a.longest);
    stm_tile_begin<Tensor>(walk, stages);
    stm_tile_next<Tensor>(walk, stages, 0, acc);
#pragma unroll
    for (int mt = 0; mt < 4; mt++)
#pragma unroll
        for (int low = 0; low < 2; low++) {
            const int r = stm_tile_row(mt, low * 2);
            const float least = cut[r];
#pragma unroll
            for (int nt = 0; nt < 8; nt++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int c = stm_tile_column(nt, e);
                    if (!(acc[mt][nt][low * 2 + e] * weight[c] >= least)) continue;
                    if (a.a_first + row + r >= a.b_first + column + c) continue;
                    pass(a, row + r, column + c);
                }
        }
    if constexpr (Tensor) stm_cp_async_wait<0>();
}

/* The same by warpgroups. grid: x = span of `span` tiles of b, y = tile of 64 rows of a for each warpgroup; block: stm_wg_threads;
 * plan.bytes of dynamic shared memory. A span begins with the first tile that has a pair. */
__global__ void __launch_bounds__(STM_WG_THREADS, 1)
    stm_near_pairs_wgmma_kernel(stm_near_pairs_args a, stm_wg_plan plan, int64_t tiles, int64_t span,
                                const __grid_constant__ stm_wg_maps maps)
{
#if STM_HAS_WGMMA
    STM_DYN_SHARED(unsigned char, memory);
    const int64_t row = static_cast<int64_t>(blockIdx.y) * plan.groups * STM_WG_ROWS;
    const int64_t ahead = a.a_first + row - a.b_first; /* columns up to here are in no pair */
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * span, end = begin + span,
                  pairs_from = ahead > 0 ? (ahead + 1) / STM_NEAREST_TILE : 0;
    const int64_t first_tile = pairs_from > begin ? pairs_from : begin, last_tile = end < tiles ? end : tiles;

    if (first_tile >= last_tile) return; /* the whole block */
    stm_wg_block b = stm_wg_begin(plan, memory);
    if (b.group == plan.groups) { /* no barrier below */
        stm_wg_load(plan, b, maps, row, first_tile, last_tile,
                    [&](int64_t at) { return stm_screen_weight(a.metric, a.b, at, a.longest); });
        return;
    }
    stm_wg_ready(plan, b);
    const double margin = stm_unit_margin(stm_unit_width(a.dim)) * 1.0001;
    const int mine = stm_wg_row(static_cast<int>(threadIdx.x));
    float acc[64], least[2];
    int32_t turn = 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t at = row + mine + 8 * h;
        least[h] = at < a.a.n ? stm_screen_from(a.metric, a.a.length[at], a.longest, a.threshold, margin) : INFINITY;
    }
    for (int64_t tile = first_tile; tile < last_tile; tile++) {
        const float *weights = stm_wg_weights(plan, b, turn);
        turn = turn + 1 < plan.weights ? turn + 1 : 0;
        stm_wg_multiply(plan, &b, acc);
#pragma unroll
        for (int n = 0; n < 16; n++) {
            const float2 weight = *reinterpret_cast<const float2 *>(weights + stm_wg_column(n));
            float score[4];
            bool any = false;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                score[e] = acc[4 * n + e] * (e % 2 == 0 ? weight.x : weight.y);
                any |= score[e] >= least[e / 2];
            }
            if (!any) continue; /* nearly always */
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int64_t i = row + mine + 8 * (e / 2), j = tile * STM_NEAREST_TILE + stm_wg_column(n) + e % 2;
                if (score[e] >= least[e / 2] && a.a_first + i < a.b_first + j) pass(a, i, j);
            }
        }
        __syncwarp(); /* nobody still reads the weights of a tile when the warp lets a later stage go */
    }
#endif
}

/* grid: as many blocks as one likes; each half warp takes every so manieth pair. No shared memory. */
__global__ void stm_near_pairs_settle_kernel(stm_near_pairs_args a)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t step = static_cast<int64_t>(gridDim.x) * (blockDim.x / 16);
    const int64_t n = a.found[0];
    if (n > a.room) return; /* no barrier below */
    for (int64_t from = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 16) + threadIdx.x / 32 * 2; from < n; from += step) {
        const int64_t at = from + lane / 16 < n ? from + lane / 16 : from; /* the other half's once more */
        const stm_met pair = static_cast<const stm_met *>(a.scratch)[at];
        const float score =
            stm_exact_score(a.metric, a.a.rows + static_cast<int64_t>(pair.i) * a.dim,
                            a.b.rows + static_cast<int64_t>(pair.j) * a.dim, a.dim, a.a.length[pair.i], a.b.length[pair.j]);
        if (lane % 16 != 0 || from + lane / 16 >= n || !(score >= a.threshold)) continue;
        const unsigned long long to = atomicAdd(reinterpret_cast<unsigned long long *>(a.found) + 1, 1ull);
        a.out[to] = {static_cast<int32_t>(a.a_first + pair.i), static_cast<int32_t>(a.b_first + pair.j), score};
    }
}

static void declare(const stm_near_pairs_args *a)
{
    STM_READS(a->a.rows, a->a.n * a->dim * 4);
    STM_READS(a->a.units, a->a.n * stm_unit_width(a->dim) * 2);
    STM_READS(a->a.length, a->a.n * 8);
    STM_READS(a->b.rows, a->b.n * a->dim * 4);
    STM_READS(a->b.units, a->b.n * stm_unit_width(a->dim) * 2);
    STM_READS(a->b.length, a->b.n * 8);
    STM_WRITES(a->scratch, stm_near_pairs_scratch_bytes(a->room));
    STM_WRITES(a->found, 16);
    (void)a;
}

template <bool Tensor> static mill_status screen(const stm_near_pairs_args *a, cudaStream_t s)
{
    const void *kernel = STM_KERNEL((stm_near_pairs_screen_kernel<Tensor>));
    const dim3 grid(stm_blocks(a->b.n, STM_NEAREST_TILE), stm_blocks(a->a.n, STM_NEAREST_TILE));
    const mill_status st =
        stm_cuda_check(STM_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, STM_TILE_BYTES)),
                       "asking for shared memory", __FILE__, __LINE__, nullptr);
    if (st != MILL_OK) return st;
    declare(a);
    return STM_LAUNCHED((stm_near_pairs_screen_kernel<Tensor>), grid, dim3(STM_TILE_THREADS), STM_TILE_BYTES, s, *a);
}

static mill_status screen_wgmma(const stm_near_pairs_args *a, cudaStream_t s)
{
    const stm_wg_plan plan = stm_wg_plan_of(a->a.n, stm_unit_width(a->dim), STM_WG_STAGES, true);
    const int64_t tiles = (a->b.n + STM_NEAREST_TILE - 1) / STM_NEAREST_TILE,
                  rows = (a->a.n + stm_wg_rows(plan) - 1) / stm_wg_rows(plan);
    const int64_t most = tiles * rows / 1024; /* a thousand blocks keep a device busy to the end */
    const int64_t span = most < 2 ? 2 : most < 32 ? most : 32;
    stm_wg_maps maps;
    mill_status st = stm_wg_supported();
    if (st == MILL_OK)
        st = stm_wg_prepare(STM_KERNEL((stm_near_pairs_wgmma_kernel)), plan, a->a.units, a->a.n, a->b.units, a->b.n, &maps);
    if (st != MILL_OK) return st;
    declare(a);
    return STM_LAUNCHED((stm_near_pairs_wgmma_kernel), dim3(stm_blocks(tiles, span), static_cast<unsigned>(rows)),
                        dim3(stm_wg_threads(plan)), plan.bytes, s, *a, plan, tiles, span, maps);
}

extern "C" mill_status stm_near_pairs_cuda(const stm_near_pairs_args *a, void *stream)
{
    const int block = 128;
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    bool tensor = false;
    if (!stm_near_pairs_fits(a)) return MILL_ERR_INVALID;
    mill_status st =
        stm_cuda_check(STM_CUDA(cudaMemsetAsync(a->found, 0, 16, s)), "clearing counters", __FILE__, __LINE__, nullptr);
    if (st != MILL_OK || a->a.n == 0 || a->b.n == 0) return st;
    if (a->scratch == nullptr || a->a.units == nullptr || a->b.units == nullptr) return MILL_ERR_INVALID;
    st = stm_cuda_check(STM_CUDA(stm_tensor_cores(&tensor)), "asking for the device", __FILE__, __LINE__, nullptr);
    if (st == MILL_OK) st = a->tiles == STM_TILES_WGMMA ? screen_wgmma(a, s) : tensor ? screen<true>(a, s) : screen<false>(a, s);
    if (st != MILL_OK) return st;
    declare(a);
    STM_WRITES(a->out, a->room * sizeof *a->out);
    const int64_t most = a->room / a->a.n < a->b.n ? a->room : a->a.n * a->b.n; /* pairs there can be */
    const int64_t blocks = (most + block / 2 - 1) / (block / 2); /* eight pairs a half warp then */
    return STM_LAUNCHED((stm_near_pairs_settle_kernel), dim3(static_cast<unsigned>(blocks < 512 ? blocks : 512)), dim3(block), 0, s,
                        *a);
}
