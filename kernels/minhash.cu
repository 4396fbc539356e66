#include "kernels/launch.h"
#include "kernels/minhash.h"

/* grid: x = text; block: STM_MINHASHES threads, each with one of the numbers. The block hashes as many shingles as it has threads
 * into 512 bytes of shared memory, then all look at all of them: one load (of all threads the same, so no conflict), one
 * multiplication and one comparison a shingle and number. */
__global__ void __launch_bounds__(STM_MINHASHES) stm_minhash_kernel(stm_minhash_args a)
{
    STM_SHARED(uint32_t, shingles, [STM_MINHASHES]);
    const int me = static_cast<int>(threadIdx.x);
    const int64_t r = blockIdx.x;
    const uint8_t *text = a.bytes + a.offsets[r];
    const int64_t n = a.offsets[r + 1] - a.offsets[r];
    const int32_t width = n < a.width ? static_cast<int32_t>(n) : a.width;
    const int64_t all = n == 0 ? 0 : n - width + 1;
    const uint64_t f = stm_minhash_factors(a.seed, me);
    const uint32_t factor = static_cast<uint32_t>(f >> 32) | 1u, more = static_cast<uint32_t>(f);
    uint32_t least = UINT32_MAX;

    for (int64_t from = 0; from < all; from += STM_MINHASHES) {
        const int some = all - from < STM_MINHASHES ? static_cast<int>(all - from) : STM_MINHASHES;
        if (me < some) shingles[me] = stm_shingle(text + from + me, width);
        __syncthreads();
        for (int i = 0; i < some; i++) {
            const uint32_t h = shingles[i] * factor + more;
            least = h < least ? h : least;
        }
        __syncthreads(); /* before the next ones are written */
    }
    a.out[r * STM_MINHASHES + me] = least;
}

extern "C" mill_status stm_minhash_cuda(const stm_minhash_args *a, void *stream)
{
    if (!stm_minhash_fits(a)) return MILL_ERR_INVALID;
    if (a->rows == 0) return MILL_OK;
    if (a->bytes != nullptr) STM_READS(a->bytes, 1); /* how much of it depends on the offsets */
    STM_READS(a->offsets, (a->rows + 1) * sizeof *a->offsets);
    STM_WRITES(a->out, a->rows * STM_MINHASHES * sizeof *a->out);
    return STM_LAUNCHED((stm_minhash_kernel), dim3(static_cast<unsigned>(a->rows)), dim3(STM_MINHASHES), 0,
                        static_cast<cudaStream_t>(stream), *a);
}
