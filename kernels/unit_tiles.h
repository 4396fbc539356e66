/*
 * For .cu files: products of tiles of unit vectors, 128 x 128 scores at a time, which stay in registers.
 *
 * A block of 128 threads, 2 x 2 warps of 64 x 64 scores. Steps of 32 values come through three stages of shared memory (48 KiB,
 * dynamic) by cp.async; rows of 64 bytes, whose four pieces of 16 bytes are permuted by the row, so that ldmatrix meets no bank
 * twice.
 *
 *   Tensor = true    mma.sync on bf16 with sums in f32; from compute capability 8.0 on
 *   Tensor = false   f32 arithmetic of plain threads, for older devices, and to compare with
 *
 * Thread l of warp w holds acc[mt][nt][e] = score of row stm_tile_row(mt, e) and column stm_tile_column(nt, e).
 */
#ifndef STM_KERNELS_UNIT_TILES_H
#define STM_KERNELS_UNIT_TILES_H

#include "kernels/launch.h"
#include "kernels/nearest.h"
#include "kernels/stm_sm80.h"

#include <cuda_bf16.h>

#define STM_TILE_THREADS 128
#define STM_TILE_STEP 32
#define STM_TILE_STAGES 3
#define STM_TILE_STAGE (2 * STM_NEAREST_TILE * STM_TILE_STEP) /* values: rows, then columns */
#define STM_TILE_BYTES (STM_TILE_STAGES * STM_TILE_STAGE * 2)

/* What a block multiplies: rows of one matrix, with tiles of columns first .. last - 1 of another, one after the other. */
struct stm_tile_walk {
    const uint16_t *rows, *columns; /* [..][width] */
    int64_t row, n_rows, n_columns; /* row: first of this block */
    int64_t first, last;            /* tiles of columns */
    int32_t width;
};

static __device__ __forceinline__ int stm_tile_row(int mt, int e)
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    return warp / 2 * 64 + mt * 16 + lane / 4 + e / 2 * 8;
}
static __device__ __forceinline__ int stm_tile_column(int nt, int e)
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    return warp % 2 * 64 + nt * 8 + lane % 4 * 2 + e % 2;
}
/* Place of piece c (8 values) of row r within a tile of a stage. */
static __device__ __forceinline__ int stm_tile_at(int r, int c) { return r * STM_TILE_STEP + ((c ^ (r >> 1 & 3)) << 3); }

/* Begin to bring step `step` of the walk (all steps of a tile, then those of the next); past the last one nothing. */
template <bool Tensor> static __device__ __forceinline__ void stm_tile_load(const stm_tile_walk &w, uint16_t *stages, int64_t step)
{
    const int steps = w.width / STM_TILE_STEP;
    const int64_t tile = w.first + step / steps;
    uint16_t *stage = stages + step % STM_TILE_STAGES * STM_TILE_STAGE;
    if (tile < w.last) {
        const int64_t from = step % steps * STM_TILE_STEP;
        for (int i = 0; i < 8; i++) { /* 128 rows and 128 columns of 4 pieces, for 128 threads */
            const int piece = i * STM_TILE_THREADS + static_cast<int>(threadIdx.x);
            const int r = piece / 4 % STM_NEAREST_TILE, c = piece % 4;
            const bool of_rows = i < 4;
            const int64_t at = of_rows ? w.row + r : tile * STM_NEAREST_TILE + r;
            const bool there = at < (of_rows ? w.n_rows : w.n_columns);
            const uint16_t *src = (of_rows ? w.rows : w.columns) + (there ? at * w.width + from + c * 8 : 0);
            uint16_t *dst = stage + (of_rows ? 0 : STM_NEAREST_TILE * STM_TILE_STEP) + stm_tile_at(r, c);
            if constexpr (Tensor) {
                stm_cp_async_zfill<16>(dst, src, there ? 16 : 0);
            } else {
                const uint4 zero = {0, 0, 0, 0};
                *reinterpret_cast<uint4 *>(dst) = there ? *reinterpret_cast<const uint4 *>(src) : zero;
            }
        }
    }
    if constexpr (Tensor) stm_cp_async_commit();
}

template <bool Tensor> static __device__ __forceinline__ void stm_tile_multiply(const uint16_t *stage, float (&acc)[4][8][4])
{
    const uint16_t *rows = stage, *columns = stage + STM_NEAREST_TILE * STM_TILE_STEP;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (Tensor) {
#pragma unroll
        for (int k = 0; k < STM_TILE_STEP / 16; k++) {
            uint32_t a[4][4];
#pragma unroll
            for (int mt = 0; mt < 4; mt++)
                stm_ldmatrix_x4(a[mt], rows + stm_tile_at(warp / 2 * 64 + mt * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int pair = 0; pair < 4; pair++) {
                uint32_t b[4];
                stm_ldmatrix_x4(b,
                                columns + stm_tile_at(warp % 2 * 64 + pair * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
                const uint32_t lo[2] = {b[0], b[1]}, hi[2] = {b[2], b[3]};
#pragma unroll
                for (int mt = 0; mt < 4; mt++) {
                    stm_mma_m16n8k16(acc[mt][pair * 2], a[mt], lo, acc[mt][pair * 2], __nv_bfloat16());
                    stm_mma_m16n8k16(acc[mt][pair * 2 + 1], a[mt], hi, acc[mt][pair * 2 + 1], __nv_bfloat16());
                }
            }
        }
    } else {
        for (int k = 0; k < STM_TILE_STEP; k++) {
            float b[16];
#pragma unroll
            for (int i = 0; i < 16; i++)
                b[i] = __uint_as_float(static_cast<uint32_t>(columns[stm_tile_at(stm_tile_column(i / 2, i % 2), k / 8) + k % 8])
                                       << 16);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float v =
                    __uint_as_float(static_cast<uint32_t>(rows[stm_tile_at(stm_tile_row(i / 2, i % 2 * 2), k / 8) + k % 8]) << 16);
#pragma unroll
                for (int j = 0; j < 16; j++) acc[i / 2][j / 2][i % 2 * 2 + j % 2] += v * b[j];
            }
        }
    }
}

/* All scores of one tile of the walk; tiles are asked for in order, t = 0, 1, ... The first call of a block comes after
 * stm_tile_begin. Ends without a barrier: what others write to shared memory between two tiles needs one of its own. */
template <bool Tensor> static __device__ __forceinline__ void stm_tile_begin(const stm_tile_walk &w, uint16_t *stages)
{
    stm_tile_load<Tensor>(w, stages, 0);
    stm_tile_load<Tensor>(w, stages, 1);
}
template <bool Tensor>
static __device__ __forceinline__ void stm_tile_next(const stm_tile_walk &w, uint16_t *stages, int64_t t, float (&acc)[4][8][4])
{
    const int steps = w.width / STM_TILE_STEP;
#pragma unroll
    for (int i = 0; i < 128; i++) acc[i / 32][i / 4 % 8][i % 4] = 0.0f;
    for (int k = 0; k < steps; k++) {
        const int64_t step = t * steps + k;
        if constexpr (Tensor) stm_cp_async_wait<STM_TILE_STAGES - 2>();
        __syncthreads(); /* the stage is there for all, and nobody reads the one that is filled next */
        stm_tile_load<Tensor>(w, stages, step + STM_TILE_STAGES - 1);
        stm_tile_multiply<Tensor>(stages + step % STM_TILE_STAGES * STM_TILE_STAGE, acc);
    }
}

/* The exact score of two rows by the 16 lanes of a half warp, each with its half's rows; all 32 lanes call it. In lane 0 of each
 * half. */
static __device__ __forceinline__ float stm_exact_score(int metric, const float *a, const float *b, int32_t dim, double length_a,
                                                        double length_b)
{
    const int lane = static_cast<int>(threadIdx.x) % 16;
    double s = 0.0;
    for (int32_t i = lane; i < dim; i += 16) s += static_cast<double>(a[i]) * static_cast<double>(b[i]); /* products are exact */
    for (int by = 8; by > 0; by /= 2) s += __shfl_down_sync(0xffffffffu, s, by, 16);
    if (metric == 1) return static_cast<float>(s);
    return length_a > 0.0 && length_b > 0.0 ? static_cast<float>(s / (length_a * length_b)) : 0.0f;
}

/* Screen score that any row with an exact score >= threshold reaches, for a query of that length. -INFINITY: any may; the rounding
 * of the exact score is then not small against the scale, or there is no threshold. As stm_screen_floor. */
static __device__ __forceinline__ bool stm_scale_sound(int metric, double length, double longest)
{
    return metric == 0 || (length * longest >= 0x1p-100 && length * longest <= 0x1p+126);
}
static __device__ __forceinline__ float stm_screen_from(int metric, double length, double longest, float threshold, double margin)
{
    const double scale = metric == 0 ? 1.0 : length * longest;
    if (threshold == -INFINITY || !stm_scale_sound(metric, length, longest)) return -INFINITY;
    const double cut = static_cast<double>(threshold) / scale - margin;
    return cut < -2.0 ? -INFINITY : cut > 2.0 ? INFINITY : static_cast<float>(cut);
}
/* What a screen score is multiplied with: dot products are screened on the scale of the longest row. NaN: there is no such row. */
static __device__ __forceinline__ float stm_screen_weight(int metric, const stm_block &b, int64_t row, double longest)
{
    if (row >= b.n) return NAN;
    return metric == 0 ? 1.0f : longest > 0.0 ? static_cast<float>(b.length[row] / longest) : 0.0f;
}

/* Whether the device that launches has tensor cores for bf16. */
static inline cudaError_t stm_tensor_cores(bool *has)
{
    int device = 0, major = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    *has = major >= 8;
    return e;
}

#if defined(STM_SIM) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define STM_HAS_TENSOR true
#else
#define STM_HAS_TENSOR false
#endif

#endif
