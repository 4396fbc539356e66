#include "kernels/launch.h"
#include "kernels/lengths.h"

#include <math.h>

/* grid: x = tile of blockDim.x / 16 rows, one a half warp; no shared memory. A half warp reads 64 bytes at a time. */
__global__ void stm_lengths_kernel(stm_lengths_args a)
{
    const int64_t r = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 16) + threadIdx.x / 16;
    const int lane = static_cast<int>(threadIdx.x) % 16;
    const float *row = a.rows + (r < a.n ? r : 0) * a.dim; /* all lanes take part in what follows */
    double sum = 0.0;
    unsigned long long hash = 0;
    for (int32_t i = lane; i < a.dim; i += 16) {
        const float v = row[i];
        sum += static_cast<double>(v) * static_cast<double>(v); /* the product is exact */
        hash += stm_value_hash(__float_as_uint(v), i);
    }
    for (int by = 8; by > 0; by /= 2) {
        sum += __shfl_down_sync(0xffffffffu, sum, by, 16);
        hash += __shfl_down_sync(0xffffffffu, hash, by, 16);
    }
    if (lane != 0 || r >= a.n) return; /* no barrier below */
    a.length[r] = isfinite(sum) ? sqrt(sum) : -1.0;
    a.hash[r] = hash;
}

extern "C" mill_status stm_lengths_cuda(const stm_lengths_args *a, void *stream)
{
    const int block = 128;
    if (!stm_lengths_fits(a)) return MILL_ERR_INVALID;
    if (a->n == 0) return MILL_OK;
    STM_READS(a->rows, a->n * a->dim * sizeof *a->rows);
    STM_WRITES(a->length, a->n * sizeof *a->length);
    STM_WRITES(a->hash, a->n * sizeof *a->hash);
    return STM_LAUNCHED((stm_lengths_kernel), dim3(stm_blocks(a->n, block / 16)), dim3(block), 0, static_cast<cudaStream_t>(stream),
                        *a);
}
