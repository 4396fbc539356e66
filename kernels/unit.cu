#include "kernels/launch.h"
#include "kernels/unit.h"

#include <cuda_bf16.h>

/* grid: x = tiles of blockDim.x values; no shared memory. Loads and stores are coalesced; one division a value is hidden behind
 * them. */
__global__ void stm_unit_kernel(stm_unit_args a, int32_t width)
{
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= a.n * width) return; /* no barrier below */
    const int64_t r = at / width;
    const int32_t i = static_cast<int32_t>(at - r * width);
    const double length = a.length[r];
    const double f = length > 0.0 ? 1.0 / length : 0.0;
    const float v = i < a.dim ? static_cast<float>(static_cast<double>(a.rows[r * a.dim + i]) * f) : 0.0f;
    a.out[at] = __bfloat16_as_ushort(__float2bfloat16_rn(v));
}

extern "C" mill_status stm_unit_cuda(const stm_unit_args *a, void *stream)
{
    const int block = 128;
    if (!stm_unit_fits(a)) return MILL_ERR_INVALID;
    if (a->n == 0) return MILL_OK;
    const int32_t width = stm_unit_width(a->dim);
    if ((a->n * width + block - 1) / block > STM_MAX_GRID_X) return MILL_ERR_UNSUPPORTED;
    STM_READS(a->rows, a->n * a->dim * sizeof *a->rows);
    STM_READS(a->length, a->n * sizeof *a->length);
    STM_WRITES(a->out, a->n * width * sizeof *a->out);
    return STM_LAUNCHED((stm_unit_kernel), dim3(stm_blocks(a->n * width, block)), dim3(block), 0, static_cast<cudaStream_t>(stream),
                        *a, width);
}
