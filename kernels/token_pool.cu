#include "kernels/launch.h"
#include "kernels/token_ops.h"
#include "kernels/values_cuda.h"

#define BLOCK 128

/* A block a document, a thread for V neighbouring columns (4 bytes of them): loads are coalesced over the row, and eight rows are
 * in flight at once. A column's sum goes through the rows in their order; the squares of all columns are added by warps in one
 * fixed order. Sums stay in `out` until the length is known: each thread finds its own there. grid: x = document; shared memory: 16
 * bytes. */
template <class T, int V> __global__ void __launch_bounds__(BLOCK) stm_token_pool_kernel(stm_token_pool_args a)
{
    STM_SHARED(float, partial, [BLOCK / 32]);
    const int64_t d = blockIdx.x, first = a.starts[d], all = a.starts[d + 1] - first;
    const int64_t rows = a.first_row && all > 1 ? 1 : all;
    const float part = rows > 0 ? 1.0f / static_cast<float>(rows) : 0.0f;
    float *out = a.out + d * a.dim;
    float squares = 0.0f;
    for (int64_t col = static_cast<int64_t>(threadIdx.x) * V; col < a.dim; col += BLOCK * V) {
        const T *x = static_cast<const T *>(a.x) + first * a.ld + col;
        float sum[V] = {};
        int64_t t = 0;
        for (; t + 8 <= rows; t += 8) {
            float v[8][V];
#pragma unroll
            for (int k = 0; k < 8; k++) stm_load<T, V>(v[k], x + (t + k) * a.ld);
#pragma unroll
            for (int k = 0; k < 8; k++)
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += v[k][i];
        }
        for (; t < rows; t++) {
            float v[V];
            stm_load<T, V>(v, x + t * a.ld);
#pragma unroll
            for (int i = 0; i < V; i++) sum[i] += v[i];
        }
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum[i] *= part;
            squares += sum[i] * sum[i];
            out[col + i] = sum[i];
        }
    }
    if (!a.normalize) return; /* the same for all threads */
    squares = stm_warp_sum(squares);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = squares;
    __syncthreads();
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < BLOCK / 32; i++) total += partial[i];
    const float length = fmaxf(sqrtf(total), 1e-12f);
    for (int64_t col = static_cast<int64_t>(threadIdx.x) * V; col < a.dim; col += BLOCK * V)
#pragma unroll
        for (int i = 0; i < V; i++) out[col + i] /= length;
}

template <class T> static mill_status launch(const stm_token_pool_args *a, cudaStream_t stream)
{
    constexpr int V = 4 / sizeof(T);
    if (a->docs > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
    const dim3 grid(static_cast<unsigned>(a->docs));
    STM_READS(a->x, sizeof(T)); /* how much of it depends on starts */
    STM_READS(a->starts, (a->docs + 1) * sizeof *a->starts);
    STM_WRITES(a->out, a->docs * a->dim * sizeof *a->out);
    if (a->dim % V == 0 && a->ld % V == 0 && stm_aligned_to(a->x, 4))
        return STM_LAUNCHED((stm_token_pool_kernel<T, V>), grid, dim3(BLOCK), 0, stream, *a);
    return STM_LAUNCHED((stm_token_pool_kernel<T, 1>), grid, dim3(BLOCK), 0, stream, *a);
}

extern "C" mill_status stm_token_pool_cuda(const stm_token_pool_args *a, void *stream)
{
    if (!stm_token_pool_fits(a)) return MILL_ERR_INVALID;
    if (a->docs == 0) return MILL_OK;
    return stm_with_type(a->type, [&](auto t) { return launch<decltype(t)>(a, static_cast<cudaStream_t>(stream)); });
}
