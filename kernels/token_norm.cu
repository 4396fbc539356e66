#include "kernels/launch.h"
#include "kernels/token_ops.h"
#include "kernels/values_cuda.h"

/* A warp a row, 4 to a block: no barrier, no shared memory, and 384 to 1,024 columns are a few loads of 16 bytes a lane, all in
 * flight at once. Both rows are read once and kept in registers as f32 through mean, variance and result; so it moves the fewest
 * bytes there are: x, y and out once. Vectors of gain, shift and bias come from L1.
 * grid: x = tiles of 4 rows. N: vectors a lane holds at most; V: values of one. */
template <class T, int V, int N> __global__ void __launch_bounds__(128) stm_token_norm_kernel(stm_token_norm_args a)
{
    const int lane = threadIdx.x % 32;
    const int64_t t = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    if (t >= a.rows) return; /* whole warps; no barrier below */
    const T *x = static_cast<const T *>(a.x) + (a.x_index != nullptr ? a.x_index[t] : t) * a.ldx;
    const T *y = static_cast<const T *>(a.y) + (a.y_index != nullptr ? a.y_index[t] : t) * a.ldy;
    T *out = static_cast<T *>(a.out) + t * a.ldo;
    const int dim = static_cast<int>(a.dim), vectors = dim / V;
    float v[N][V];
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < N; n++) {
        const int at = lane + 32 * n;
        float other[V];
        if (at >= vectors) continue;
        stm_load<T, V>(v[n], x + at * V);
        stm_load<T, V>(other, y + at * V);
#pragma unroll
        for (int i = 0; i < V; i++) v[n][i] += other[i];
        if (a.bias != nullptr) {
            stm_load_floats<V>(other, a.bias + at * V);
#pragma unroll
            for (int i = 0; i < V; i++) v[n][i] += other[i];
        }
#pragma unroll
        for (int i = 0; i < V; i++) sum += v[n][i];
    }
    const float mean = stm_warp_sum(sum) / static_cast<float>(dim);
    float squares = 0.0f;
#pragma unroll
    for (int n = 0; n < N; n++) {
        if (lane + 32 * n >= vectors) continue;
#pragma unroll
        for (int i = 0; i < V; i++) {
            v[n][i] -= mean;
            squares += v[n][i] * v[n][i];
        }
    }
    const float factor = 1.0f / sqrtf(stm_warp_sum(squares) / static_cast<float>(dim) + a.eps);
#pragma unroll
    for (int n = 0; n < N; n++) {
        const int at = lane + 32 * n;
        float gain[V], shift[V];
        if (at >= vectors) continue;
        stm_load_floats<V>(gain, a.gain + at * V);
        stm_load_floats<V>(shift, a.shift + at * V);
#pragma unroll
        for (int i = 0; i < V; i++) v[n][i] = v[n][i] * factor * gain[i] + shift[i];
        stm_store<T, V>(out + at * V, v[n]);
    }
}

/* Any number of columns at any place: the rows are read once a pass, from L1 after the first. Same order of sums for every row. */
template <class T> __global__ void __launch_bounds__(128) stm_token_norm_any_kernel(stm_token_norm_args a)
{
    const int lane = threadIdx.x % 32;
    const int64_t t = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    if (t >= a.rows) return; /* whole warps; no barrier below */
    const T *x = static_cast<const T *>(a.x) + (a.x_index != nullptr ? a.x_index[t] : t) * a.ldx;
    const T *y = static_cast<const T *>(a.y) + (a.y_index != nullptr ? a.y_index[t] : t) * a.ldy;
    T *out = static_cast<T *>(a.out) + t * a.ldo;
    auto value = [&](int64_t i) { return stm_float(x[i]) + stm_float(y[i]) + (a.bias != nullptr ? a.bias[i] : 0.0f); };
    float sum = 0.0f, squares = 0.0f;
    for (int64_t i = lane; i < a.dim; i += 32) sum += value(i);
    const float mean = stm_warp_sum(sum) / static_cast<float>(a.dim);
    for (int64_t i = lane; i < a.dim; i += 32) squares += (value(i) - mean) * (value(i) - mean);
    const float factor = 1.0f / sqrtf(stm_warp_sum(squares) / static_cast<float>(a.dim) + a.eps);
    for (int64_t i = lane; i < a.dim; i += 32) stm_round(out + i, (value(i) - mean) * factor * a.gain[i] + a.shift[i]);
}

template <class T> static mill_status launch(const stm_token_norm_args *a, cudaStream_t stream)
{
    constexpr int V = stm_wide<T>();
    const int block = 128;
    const int64_t blocks = (a->rows + block / 32 - 1) / (block / 32), lanes = (a->dim / V + 31) / 32; /* vectors a lane */
    const bool wide = a->dim % V == 0 && stm_aligned_to(a->x, 16) && stm_aligned_to(a->y, 16) && stm_aligned_to(a->out, 16) &&
                      stm_stride_of(a->ldx, a->type, 16) && stm_stride_of(a->ldy, a->type, 16) &&
                      stm_stride_of(a->ldo, a->type, 16) && stm_aligned_to(a->gain, 16) && stm_aligned_to(a->shift, 16) &&
                      stm_aligned_to(a->bias, 16);
    if (blocks > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
    const dim3 grid(static_cast<unsigned>(blocks));
    /* how much of an indexed matrix is read depends on the index */
    STM_READS(a->x, a->x_index != nullptr ? sizeof(T) : ((a->rows - 1) * a->ldx + a->dim) * sizeof(T));
    STM_READS(a->y, a->y_index != nullptr ? sizeof(T) : ((a->rows - 1) * a->ldy + a->dim) * sizeof(T));
    if (a->x_index != nullptr) STM_READS(a->x_index, a->rows * sizeof *a->x_index);
    if (a->y_index != nullptr) STM_READS(a->y_index, a->rows * sizeof *a->y_index);
    if (a->bias != nullptr) STM_READS(a->bias, a->dim * sizeof *a->bias);
    STM_READS(a->gain, a->dim * sizeof *a->gain);
    STM_READS(a->shift, a->dim * sizeof *a->shift);
    STM_WRITES(a->out, ((a->rows - 1) * a->ldo + a->dim) * sizeof(T));
    if (!wide || lanes > 8) return STM_LAUNCHED((stm_token_norm_any_kernel<T>), grid, dim3(block), 0, stream, *a);
    if (lanes == 1) return STM_LAUNCHED((stm_token_norm_kernel<T, V, 1>), grid, dim3(block), 0, stream, *a);
    if (lanes == 2) return STM_LAUNCHED((stm_token_norm_kernel<T, V, 2>), grid, dim3(block), 0, stream, *a);
    if (lanes == 3) return STM_LAUNCHED((stm_token_norm_kernel<T, V, 3>), grid, dim3(block), 0, stream, *a);
    if (lanes == 4) return STM_LAUNCHED((stm_token_norm_kernel<T, V, 4>), grid, dim3(block), 0, stream, *a);
    return STM_LAUNCHED((stm_token_norm_kernel<T, V, 8>), grid, dim3(block), 0, stream, *a);
}

extern "C" mill_status stm_token_norm_cuda(const stm_token_norm_args *a, void *stream)
{
    if (!stm_token_norm_fits(a)) return MILL_ERR_INVALID;
    if (a->rows == 0) return MILL_OK;
    return stm_with_type(a->type, [&](auto t) { return launch<decltype(t)>(a, static_cast<cudaStream_t>(stream)); });
}
