#include "kernels/gather.h"
#include "kernels/launch.h"

/* Rows up to 16 bytes: one thread a row. grid: x = tiles of blockDim.x rows; no shared memory. Stores are coalesced, loads as
 * scattered as the index. U: the unit that a row is one of, or bytes. */
template <typename U> __global__ void stm_gather_narrow_kernel(stm_gather_args a)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= a.rows) return; /* no barrier below */
    const int64_t from = a.index[i];
    const int64_t units = a.width / static_cast<int64_t>(sizeof(U));
    const U *src = static_cast<const U *>(a.src) + (from < 0 ? 0 : from) * units;
    U *out = static_cast<U *>(a.out) + i * units;
    for (int64_t u = 0; u < units; u++) out[u] = from < 0 ? U() : src[u];
}

/* Wider rows: one warp-wide strip of threads a row. grid: x = row; block: 128 threads over the units of the row; no shared memory.
 * Loads and stores are coalesced over the row, so this runs at the speed of a copy from 512 bytes on. */
template <typename U> __global__ void stm_gather_wide_kernel(stm_gather_args a)
{
    const int64_t i = blockIdx.x;
    const int64_t from = a.index[i];
    const int64_t units = a.width / static_cast<int64_t>(sizeof(U));
    const U *src = static_cast<const U *>(a.src) + (from < 0 ? 0 : from) * units;
    U *out = static_cast<U *>(a.out) + i * units;
    for (int64_t u = threadIdx.x; u < units; u += blockDim.x) out[u] = from < 0 ? U() : src[u];
}

/* grid: x = tiles of blockDim.x bytes of output, one thread a byte. */
__global__ void stm_gather_bits_kernel(stm_gather_bits_args a)
{
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= (a.rows + 7) / 8) return; /* no barrier below */
    unsigned bits = 0;
    for (int k = 0; k < 8; k++) {
        const int64_t i = at * 8 + k;
        if (i >= a.rows) break;
        const int64_t from = a.index[i];
        const int64_t bit = a.offset + from;
        if (from >= 0 && (a.src == nullptr || (a.src[bit / 8] >> (bit % 8) & 1))) bits |= 1u << k;
    }
    a.out[at] = static_cast<uint8_t>(bits);
}

template <typename U> static mill_status launch(const stm_gather_args *a, cudaStream_t stream)
{
    const int block = 128;
    STM_READS(a->src, 1); /* how much of it depends on the index */
    STM_READS(a->index, a->rows * sizeof *a->index);
    STM_WRITES(a->out, a->rows * a->width);
    if (a->width <= 16) {
        if ((a->rows + block - 1) / block > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
        return STM_LAUNCHED((stm_gather_narrow_kernel<U>), dim3(stm_blocks(a->rows, block)), dim3(block), 0, stream, *a);
    }
    if (a->rows > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
    return STM_LAUNCHED((stm_gather_wide_kernel<U>), dim3(static_cast<unsigned>(a->rows)), dim3(block), 0, stream, *a);
}

extern "C" mill_status stm_gather_cuda(const stm_gather_args *a, void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (!stm_gather_fits(a)) return MILL_ERR_INVALID;
    if (a->rows == 0) return MILL_OK;
    /* the largest unit that rows and both pointers are multiples of */
    const uintptr_t all =
        reinterpret_cast<uintptr_t>(a->src) | reinterpret_cast<uintptr_t>(a->out) | static_cast<uintptr_t>(a->width);
    if (all % 16 == 0) return launch<uint4>(a, s);
    if (all % 8 == 0) return launch<uint64_t>(a, s);
    if (all % 4 == 0) return launch<uint32_t>(a, s);
    if (all % 2 == 0) return launch<uint16_t>(a, s);
    return launch<uint8_t>(a, s);
}

extern "C" mill_status stm_gather_bits_cuda(const stm_gather_bits_args *a, void *stream)
{
    const int block = 128;
    if (!stm_gather_bits_fits(a)) return MILL_ERR_INVALID;
    if (a->rows == 0) return MILL_OK;
    const int64_t bytes = (a->rows + 7) / 8;
    if ((bytes + block - 1) / block > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
    if (a->src != nullptr) STM_READS(a->src, 1);
    STM_READS(a->index, a->rows * sizeof *a->index);
    STM_WRITES(a->out, bytes);
    return STM_LAUNCHED((stm_gather_bits_kernel), dim3(stm_blocks(bytes, block)), dim3(block), 0, static_cast<cudaStream_t>(stream),
                        *a);
}
