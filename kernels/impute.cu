#include "kernels/impute.h"
#include "kernels/launch.h"

/* grid: x = tiles of blockDim.x bytes of output, one thread a byte; no shared memory. Loads and stores of a warp are 32
 * neighbouring bytes: the whole bitmap of a batch is a few KiB, so this is bound by the launch. */
__global__ void stm_impute_kernel(stm_impute_args a)
{
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t bytes = (a.rows + 7) / 8;
    if (at >= bytes) return; /* no barrier below */
    const int64_t left = a.rows - at * 8;
    unsigned bits = left < 8 ? (1u << left) - 1 : 0xffu;
    if (a.valid != nullptr) {
        const int64_t from = a.offset + at * 8;
        const int shift = static_cast<int>(from % 8);
        unsigned two = a.valid[from / 8];
        if (shift + (left < 8 ? left : 8) > 8) two |= static_cast<unsigned>(a.valid[from / 8 + 1]) << 8;
        bits &= two >> shift;
    }
    bits = a.failed != nullptr ? bits & ~static_cast<unsigned>(a.failed[at]) : 0u;
    a.out[at] = static_cast<uint8_t>(bits);
}

extern "C" mill_status stm_impute_cuda(const stm_impute_args *a, void *stream)
{
    const int block = 128;
    if (!stm_impute_fits(a)) return MILL_ERR_INVALID;
    const int64_t bytes = (a->rows + 7) / 8;
    if (bytes == 0) return MILL_OK;
    if ((bytes + block - 1) / block > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
    if (a->valid != nullptr) STM_READS(a->valid + a->offset / 8, (a->offset % 8 + a->rows + 7) / 8);
    if (a->failed != nullptr) STM_READS(a->failed, bytes);
    STM_WRITES(a->out, bytes);
    return STM_LAUNCHED((stm_impute_kernel), dim3(stm_blocks(bytes, block)), dim3(block), 0, static_cast<cudaStream_t>(stream), *a);
}
