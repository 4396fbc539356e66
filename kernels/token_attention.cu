#include "kernels/launch.h"
#include "kernels/stm_sm80.h"
#include "kernels/token_attention.h"
#include "kernels/values_cuda.h"

#include <math.h>
#include <string.h>

#define WARPS 4
#define BLOCK (WARPS * 32)
#define LOG2E 1.4426950408889634f

/*
 * bf16 and f16 with tensor cores: head dims 32, 64, 128.
 *
 * A block has one tile of 64 rows and one head; a warp 16 of the rows, whose queries stay in registers as fragments, and so do the
 * running result, maximum and sum: nothing of a row is shared between warps. Keys and values come in blocks of KEYS rows through
 * two buffers in shared memory, the next block under way (cp.async) while this one is multiplied; rows past the document are zeros
 * there, so that poison next to a document is never read, and their scores are set to minus infinity. A row of a buffer is one
 * 16-byte unit longer than D: an odd number of units, so that the 8 rows of an ldmatrix lie in different banks. Scores become
 * weights in the registers where mma left them, which is where the second product wants them.
 *
 * Blocks of one tile are neighbours (heads first): together they read whole rows of q, k, v.
 * grid: x = tile * heads + head; shared memory: 4 * KEYS * (2 D + 16) bytes: 20, 36 and 34 KiB. KEYS is 32 for D = 128, which
 * keeps that below 48 KiB and registers below the limit.
 */
template <class T> __device__ __forceinline__ uint32_t stm_pair(float low, float high)
{
    T v[2];
    uint32_t bits;
    stm_round(&v[0], low);
    stm_round(&v[1], high);
    memcpy(&bits, v, sizeof bits);
    return bits;
}

template <class T, int D, int KEYS>
__global__ void __launch_bounds__(BLOCK) stm_token_attention_mma_kernel(stm_token_attention_args a)
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800 /* older ones have no such mma; there it is not launched */
    constexpr int UNITS = D / 8;
    STM_SHARED(uint4, keys, [2][KEYS][UNITS + 1]);
    STM_SHARED(uint4, values, [2][KEYS][UNITS + 1]);
    const stm_token_tile tile = a.tiles[blockIdx.x / a.heads];
    const int64_t column = static_cast<int64_t>(blockIdx.x % a.heads) * D;
    if (tile.rows <= 0) return; /* the whole block */
    const T *q = static_cast<const T *>(a.q) + column, *k = static_cast<const T *>(a.k) + column,
            *v = static_cast<const T *>(a.v) + column;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, top = static_cast<int>(threadIdx.x) / 32 * 16;
    const bool active = top < tile.rows; /* the same for a warp */
    const int length = tile.last - tile.first, blocks = (length + KEYS - 1) / KEYS;
    const float scale = a.scale * LOG2E; /* powers of two are what the hardware has */

    auto fetch = [&](int block) {
        for (int i = threadIdx.x; i < KEYS * UNITS; i += BLOCK) {
            const int row = i / UNITS, unit = i % UNITS, key = block * KEYS + row;
            const int64_t at = (tile.first + static_cast<int64_t>(key < length ? key : 0)) * a.ld + unit * 8;
            stm_cp_async_zfill<16>(&keys[block % 2][row][unit], k + at, key < length ? 16 : 0);
            stm_cp_async_zfill<16>(&values[block % 2][row][unit], v + at, key < length ? 16 : 0);
        }
        stm_cp_async_commit();
    };

    fetch(0);
    uint32_t query[D / 16][4] = {};
    if (active) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int row = top + g + 8 * side;
            if (row >= tile.rows) continue;
            const T *from = q + (tile.row + static_cast<int64_t>(row)) * a.ld + 2 * t;
#pragma unroll
            for (int c = 0; c < D / 16; c++) {
                query[c][side] = *reinterpret_cast<const uint32_t *>(from + c * 16);
                query[c][side + 2] = *reinterpret_cast<const uint32_t *>(from + c * 16 + 8);
            }
        }
    }
    float result[D / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (int block = 0; block < blocks; block++) {
        if (block + 1 < blocks)
            fetch(block + 1);
        else
            stm_cp_async_commit(); /* an empty group, so that the count below holds */
        stm_cp_async_wait<1>();
        __syncthreads();
        if (active) {
            float s[KEYS / 8][4] = {};
#pragma unroll
            for (int c = 0; c < D / 16; c++)
#pragma unroll
                for (int n = 0; n < KEYS / 16; n++) {
                    uint32_t r[4];
                    stm_ldmatrix_x4(r, &keys[block % 2][n * 16 + lane / 16 * 8 + lane % 8][c * 2 + lane / 8 % 2]);
                    const uint32_t low[2] = {r[0], r[1]}, high[2] = {r[2], r[3]};
                    stm_mma_m16n8k16(s[2 * n], query[c], low, s[2 * n], T());
                    stm_mma_m16n8k16(s[2 * n + 1], query[c], high, s[2 * n + 1], T());
                }
            const int left = length - block * KEYS; /* keys of this block that there are */
            float factor[2];
#pragma unroll
            for (int side = 0; side < 2; side++) {
                float now = most[side];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float &x = s[n][2 * side + e];
                        x = n * 8 + 2 * t + e < left ? x * scale : -INFINITY;
                        now = fmaxf(now, x);
                    }
                now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
                now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
                factor[side] = exp2f(most[side] - now); /* 0 at first; `now` is finite unless scores are not */
                most[side] = now;
                sum[side] *= factor[side];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float &x = s[n][2 * side + e];
                        x = exp2f(x - now);
                        sum[side] += x; /* of this lane's columns; lanes are added at the end */
                    }
            }
#pragma unroll
            for (int d = 0; d < D / 8; d++)
#pragma unroll
                for (int e = 0; e < 4; e++) result[d][e] *= factor[e / 2];
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                const uint32_t weights[4] = {stm_pair<T>(s[2 * n][0], s[2 * n][1]), stm_pair<T>(s[2 * n][2], s[2 * n][3]),
                                             stm_pair<T>(s[2 * n + 1][0], s[2 * n + 1][1]),
                                             stm_pair<T>(s[2 * n + 1][2], s[2 * n + 1][3])};
#pragma unroll
                for (int d = 0; d < D / 16; d++) {
                    uint32_t r[4];
                    stm_ldmatrix_x4_trans(r, &values[block % 2][n * 16 + lane / 8 % 2 * 8 + lane % 8][d * 2 + lane / 16]);
                    const uint32_t low[2] = {r[0], r[1]}, high[2] = {r[2], r[3]};
                    stm_mma_m16n8k16(result[2 * d], weights, low, result[2 * d], T());
                    stm_mma_m16n8k16(result[2 * d + 1], weights, high, result[2 * d + 1], T());
                }
            }
        }
        __syncthreads(); /* before the block after next is fetched into this buffer */
    }
    if (!active) return; /* no barrier below */
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int row = top + g + 8 * side;
        sum[side] += __shfl_xor_sync(0xffffffffu, sum[side], 1);
        sum[side] += __shfl_xor_sync(0xffffffffu, sum[side], 2);
        if (row >= tile.rows) continue;
        T *out = static_cast<T *>(a.out) + (tile.row + static_cast<int64_t>(row)) * a.ldo + column + 2 * t;
        const float part = 1.0f / sum[side];
#pragma unroll
        for (int d = 0; d < D / 8; d++)
            *reinterpret_cast<uint32_t *>(out + d * 8) = stm_pair<T>(result[d][2 * side] * part, result[d][2 * side + 1] * part);
    }
#endif
}

/*
 * Any type and head dim, in f32: f32 itself, and shapes that the form above does not take.
 *
 * A block has one tile and one head, and takes its rows in passes of WARPS * R: a warp R rows at a time, a lane one key of each
 * block of
 * 32. Queries lie in shared memory and are read four dims at once by all lanes alike; a key's row begins one word further in the
 * banks than the one before it, so 32 lanes read 32 keys without a conflict. The buffer that held keys then holds values, and a
 * lane sums C columns. C: columns a lane (dim <= 32 C). grid: x = tile * heads + head; shared memory 21, 33, 37 and 41 KiB for C =
 * 1, 2, 4, 8.
 */
template <class T, int C, int R> __global__ void __launch_bounds__(BLOCK) stm_token_attention_any_kernel(stm_token_attention_args a)
{
    STM_SHARED(float4, query, [WARPS * R][8 * C + 1]);
    STM_SHARED(float, block, [32][32 * C + 1]);
    STM_SHARED(float, weight, [WARPS * R][32]);
    const stm_token_tile tile = a.tiles[blockIdx.x / a.heads];
    const int64_t column = static_cast<int64_t>(blockIdx.x % a.heads) * a.dim;
    if (tile.rows <= 0) return; /* the whole block */
    const T *q = static_cast<const T *>(a.q) + column, *k = static_cast<const T *>(a.k) + column,
            *v = static_cast<const T *>(a.v) + column;
    const int lane = threadIdx.x % 32, mine = static_cast<int>(threadIdx.x) / 32 * R, dim = a.dim, padded = (dim + 3) / 4 * 4;
    const int length = tile.last - tile.first;
    const float scale = a.scale * LOG2E;

    /* rows begin .. of a matrix whose last row is `end`; what lies outside, and columns up to a multiple of 4, are zeros */
    auto fetch = [&](const T *from, int64_t begin, int64_t end, float *to, int rows, int stride) {
        for (int i = threadIdx.x; i < rows * padded; i += BLOCK) {
            const int r = i / padded, c = i % padded;
            to[r * stride + c] = begin + r < end && c < dim ? stm_float(from[(begin + r) * a.ld + c]) : 0.0f;
        }
    };

    for (int top = 0; top < tile.rows; top += WARPS * R) {
        float result[R][C] = {}, most[R], sum[R] = {};
#pragma unroll
        for (int r = 0; r < R; r++) most[r] = -INFINITY;
        fetch(q, tile.row + top, tile.row + tile.rows, reinterpret_cast<float *>(&query[0][0]), WARPS * R, 32 * C + 4);
        for (int begin = 0; begin < length; begin += 32) {
            __syncthreads(); /* values of the block before are read */
            fetch(k, tile.first + begin, tile.last, &block[0][0], 32, 32 * C + 1);
            __syncthreads();
            float s[R] = {};
            for (int d = 0; d < padded; d += 4) {
                const float k0 = block[lane][d], k1 = block[lane][d + 1], k2 = block[lane][d + 2], k3 = block[lane][d + 3];
#pragma unroll
                for (int r = 0; r < R; r++) {
                    const float4 x = query[mine + r][d / 4];
                    s[r] += x.x * k0;
                    s[r] += x.y * k1;
                    s[r] += x.z * k2;
                    s[r] += x.w * k3;
                }
            }
#pragma unroll
            for (int r = 0; r < R; r++) {
                const float x = begin + lane < length ? s[r] * scale : -INFINITY;
                const float now = fmaxf(most[r], stm_warp_max(x)), factor = exp2f(most[r] - now), p = exp2f(x - now);
                most[r] = now;
                sum[r] = sum[r] * factor + stm_warp_sum(p);
                weight[mine + r][lane] = p;
#pragma unroll
                for (int c = 0; c < C; c++) result[r][c] *= factor;
            }
            __syncthreads(); /* all have read the keys; weights are of this warp alone */
            fetch(v, tile.first + begin, tile.last, &block[0][0], 32, 32 * C + 1);
            __syncthreads();
            for (int j = 0; j < 32; j++) {
                float x[C];
#pragma unroll
                for (int c = 0; c < C; c++) x[c] = lane + 32 * c < dim ? block[j][lane + 32 * c] : 0.0f;
#pragma unroll
                for (int r = 0; r < R; r++) {
                    const float p = weight[mine + r][j];
#pragma unroll
                    for (int c = 0; c < C; c++) result[r][c] += p * x[c];
                }
            }
        }
#pragma unroll
        for (int r = 0; r < R; r++) {
            const int row = top + mine + r;
            if (row >= tile.rows) continue;
            T *out = static_cast<T *>(a.out) + (tile.row + static_cast<int64_t>(row)) * a.ldo + column;
#pragma unroll
            for (int c = 0; c < C; c++)
                if (lane + 32 * c < dim) stm_round(out + lane + 32 * c, result[r][c] / sum[r]);
        }
        __syncthreads(); /* queries are read, before the next pass writes them */
    }
}

/* Bytes of the rows of a matrix, the gap behind the last one left out. */
[[maybe_unused]] static int64_t extent(const stm_token_attention_args *a, int64_t ld)
{
    const int64_t width = static_cast<int64_t>(a->heads) * a->dim;
    return a->rows > 0 ? ((a->rows - 1) * ld + width) * static_cast<int64_t>(stm_real_bytes(a->type)) : 0;
}

template <class T> static mill_status launch_any(const stm_token_attention_args *a, dim3 grid, cudaStream_t stream)
{
    if (a->dim <= 32) return STM_LAUNCHED((stm_token_attention_any_kernel<T, 1, 16>), grid, dim3(BLOCK), 0, stream, *a);
    if (a->dim <= 64) return STM_LAUNCHED((stm_token_attention_any_kernel<T, 2, 16>), grid, dim3(BLOCK), 0, stream, *a);
    if (a->dim <= 128) return STM_LAUNCHED((stm_token_attention_any_kernel<T, 4, 8>), grid, dim3(BLOCK), 0, stream, *a);
    return STM_LAUNCHED((stm_token_attention_any_kernel<T, 8, 2>), grid, dim3(BLOCK), 0, stream, *a);
}

template <class T> static mill_status launch(const stm_token_attention_args *a, cudaStream_t stream)
{
    const dim3 grid(static_cast<unsigned>(a->n_tiles * a->heads));
    STM_READS(a->q, extent(a, a->ld));
    STM_READS(a->k, extent(a, a->ld));
    STM_READS(a->v, extent(a, a->ld));
    STM_READS(a->tiles, a->n_tiles * sizeof *a->tiles);
    STM_WRITES(a->out, extent(a, a->ldo));
    if constexpr (sizeof(T) == 2) {
        if (stm_device_major() >= 8 && stm_aligned_to(a->q, 16) && stm_aligned_to(a->k, 16) && stm_aligned_to(a->v, 16) &&
            a->ld % 8 == 0 && stm_aligned_to(a->out, 4) && a->ldo % 2 == 0) {
            if (a->dim == 32) return STM_LAUNCHED((stm_token_attention_mma_kernel<T, 32, 64>), grid, dim3(BLOCK), 0, stream, *a);
            if (a->dim == 64) return STM_LAUNCHED((stm_token_attention_mma_kernel<T, 64, 64>), grid, dim3(BLOCK), 0, stream, *a);
            if (a->dim == 128) return STM_LAUNCHED((stm_token_attention_mma_kernel<T, 128, 32>), grid, dim3(BLOCK), 0, stream, *a);
        }
    }
    return launch_any<T>(a, grid, stream);
}

extern "C" mill_status stm_token_attention_cuda(const stm_token_attention_args *a, void *stream)
{
    if (!stm_token_attention_fits(a)) return MILL_ERR_INVALID;
    if (a->n_tiles == 0) return MILL_OK;
    return stm_with_type(a->type, [&](auto t) { return launch<decltype(t)>(a, static_cast<cudaStream_t>(stream)); });
}
