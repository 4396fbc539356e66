#include "kernels/tiles.h"
#include "kernels/unit_tiles.h"
#include "kernels/wgmma_tiles.h"

#define ROWS STM_TILES_ROWS
#define COLUMNS STM_TILES_COLUMNS
#define WIDTH STM_TILES_WIDTH

/* Small integers: products of 96 of them have exact sums in any order. Rows and columns all differ, and so do the values within
 * each. */
static __device__ __forceinline__ int value_at(int which, int row, int i)
{
    return (row * (which + 5) + i * 7 + row * i % 11) % 15 - 7;
}

/* grid: a thread for each value of the columns, at least. */
__global__ void stm_tiles_fill_kernel(stm_tiles_answer *a)
{
    const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), row = at / WIDTH, i = at % WIDTH;
    if (at == 0) a->wrong = a->right = 0;
    if (row < ROWS) a->rows[at] = static_cast<uint16_t>(__float_as_uint(static_cast<float>(value_at(0, row, i))) >> 16);
    if (row < COLUMNS) a->columns[at] = static_cast<uint16_t>(__float_as_uint(static_cast<float>(value_at(1, row, i))) >> 16);
}

/* One block: every score that is not what it is to be is counted. Dynamic shared memory: plan.bytes. */
__global__ void __launch_bounds__(STM_WG_THREADS, 1)
    stm_tiles_check_kernel(stm_tiles_answer *a, stm_wg_plan plan, const __grid_constant__ stm_wg_maps maps)
{
#if STM_HAS_WGMMA
    STM_DYN_SHARED(unsigned char, memory);
    stm_wg_block b = stm_wg_begin(plan, memory);
    const int tiles = (COLUMNS + STM_NEAREST_TILE - 1) / STM_NEAREST_TILE, mine = stm_wg_row(static_cast<int>(threadIdx.x));
    float acc[64];
    int bad = 0, good = 0;

    if (b.group == plan.groups) { /* no barrier below */
        stm_wg_load(plan, b, maps, 0, 0, tiles,
                    [](int64_t column) { return column < COLUMNS ? static_cast<float>(column) : -1.0f; });
        return;
    }
    stm_wg_ready(plan, b);
    for (int tile = 0; tile < tiles; tile++) {
        const float *weights = stm_wg_weights(plan, b, tile % plan.weights);
        stm_wg_multiply(plan, &b, acc);
#pragma unroll
        for (int e = 0; e < 64; e++) {
            const int row = mine + 8 * (e / 2 % 2), within = stm_wg_column(e / 4) + e % 2,
                      column = tile * STM_NEAREST_TILE + within;
            const bool there = row < ROWS && column < COLUMNS;
            int want = 0; /* zeros come from outside */
            for (int i = 0; there && i < WIDTH; i++) want += value_at(0, row, i) * value_at(1, column, i);
            bad += acc[e] != static_cast<float>(want) || weights[within] != (column < COLUMNS ? static_cast<float>(column) : -1.0f);
            good += there;
        }
        __syncwarp();
    }
    atomicAdd(&a->wrong, bad);
    atomicAdd(&a->right, good - bad);
#endif
}

static mill_status check(stm_tiles_answer *a, bool stay, cudaStream_t s)
{
    const stm_wg_plan plan = stm_wg_plan_of(ROWS, WIDTH, 2, stay);
    stm_wg_maps maps;
    const mill_status st = stm_wg_prepare(STM_KERNEL((stm_tiles_check_kernel)), plan, a->rows, ROWS, a->columns, COLUMNS, &maps);
    if (st != MILL_OK) return st;
    STM_UPDATES(a, sizeof *a);
    return STM_LAUNCHED((stm_tiles_check_kernel), dim3(1), dim3(stm_wg_threads(plan)), plan.bytes, s, a, plan, maps);
}

extern "C" mill_status stm_tiles_cuda(stm_tiles_answer *a, void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    mill_status st = stm_wg_supported();

    if (st != MILL_OK || a == nullptr) return st;
    STM_WRITES(a, sizeof *a);
    st = STM_LAUNCHED((stm_tiles_fill_kernel), dim3(stm_blocks(COLUMNS * WIDTH, 128)), dim3(128), 0, s, a);
    if (st == MILL_OK) st = check(a, false, s);
    return st == MILL_OK ? check(a, true, s) : st;
}
