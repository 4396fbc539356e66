#include "kernels/launch.h"
#include "kernels/values_cuda.h"

/* grid: x = tiles of blockDim.x * N values, N to a thread so that the narrower side moves 8 bytes and the wider 16; no shared
 * memory. It runs at the speed of a copy of (from + to) bytes a value. The last thread's values may be fewer: they are taken one by
 * one. */
template <class From, class To, int N> __global__ void stm_convert_kernel(const From *src, To *out, int64_t count)
{
    const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (at + N <= count) {
        float v[N];
        stm_load<From, N>(v, src + at);
        stm_store<To, N>(out + at, v);
        return;
    }
    for (int64_t i = at; i < count; i++) stm_round(out + i, stm_float(src[i]));
}

template <class From, class To> static mill_status launch(const stm_convert_args *a, cudaStream_t stream)
{
    const int block = 128;
    const bool wide = stm_aligned_to(a->src, 4 * sizeof(From)) && stm_aligned_to(a->out, 4 * sizeof(To));
    const int64_t blocks = (a->count + block * (wide ? 4 : 1) - 1) / (block * (wide ? 4 : 1));
    const From *src = static_cast<const From *>(a->src);
    To *out = static_cast<To *>(a->out);
    if (blocks > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
    STM_READS(src, a->count * sizeof(From));
    STM_WRITES(out, a->count * sizeof(To));
    if (wide)
        return STM_LAUNCHED((stm_convert_kernel<From, To, 4>), dim3(static_cast<unsigned>(blocks)), dim3(block), 0, stream, src,
                            out, a->count);
    return STM_LAUNCHED((stm_convert_kernel<From, To, 1>), dim3(static_cast<unsigned>(blocks)), dim3(block), 0, stream, src, out,
                        a->count);
}

extern "C" mill_status stm_convert_cuda(const stm_convert_args *a, void *stream)
{
    if (!stm_convert_fits(a)) return MILL_ERR_INVALID;
    if (a->count == 0) return MILL_OK;
    return stm_with_type(a->from, [&](auto from) {
        return stm_with_type(a->to,
                             [&](auto to) { return launch<decltype(from), decltype(to)>(a, static_cast<cudaStream_t>(stream)); });
    });
}
