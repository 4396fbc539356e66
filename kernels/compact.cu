#include "kernels/compact.h"
#include "kernels/launch.h"

#define BLOCK 128
#define PER_THREAD (STM_COMPACT_TILE / BLOCK)

/* Sum over the threads before this one in the block, and of all; every thread of the block calls it. */
static __device__ int before(int mine, int *total)
{
    STM_SHARED(int, sums, [2][BLOCK]);
    int from = 0;
    sums[0][threadIdx.x] = mine;
    __syncthreads();
    for (int step = 1; step < BLOCK; step *= 2) { /* a barrier a step, and two copies, so that nobody reads what another writes */
        const int i = static_cast<int>(threadIdx.x);
        sums[1 - from][i] = sums[from][i] + (i >= step ? sums[from][i - step] : 0);
        from = 1 - from;
        __syncthreads();
    }
    *total = sums[from][BLOCK - 1];
    const int sum = sums[from][threadIdx.x] - mine;
    __syncthreads(); /* the caller may come again */
    return sum;
}

static __device__ int kept_of(const stm_compact_args &a, int64_t first)
{
    int n = 0;
    for (int k = 0; k < PER_THREAD; k++) n += first + k < a.rows && a.keep[first + k] != 0;
    return n;
}

/* grid: x = tile of STM_COMPACT_TILE rows, 8 neighbouring rows a thread; 1 KiB of shared memory. */
__global__ void stm_compact_count_kernel(stm_compact_args a)
{
    const int64_t first = static_cast<int64_t>(blockIdx.x) * STM_COMPACT_TILE + threadIdx.x * PER_THREAD;
    int total;
    before(kept_of(a, first), &total);
    if (threadIdx.x == 0) static_cast<int64_t *>(a.scratch)[blockIdx.x] = total;
}

/* One block: counts of tiles to their sums before, in place. 2^38 rows are 2^28 tiles, 2 million rounds; a batch of a million rows
 * is 8. */
__global__ void stm_compact_sum_kernel(stm_compact_args a, int64_t tiles)
{
    int64_t *counts = static_cast<int64_t *>(a.scratch);
    int64_t sum = 0;
    for (int64_t at = 0; at < tiles; at += BLOCK) {
        const int64_t t = at + threadIdx.x;
        const int mine = t < tiles ? static_cast<int>(counts[t]) : 0; /* at most STM_COMPACT_TILE */
        int total;
        const int here = before(mine, &total);
        if (t < tiles) counts[t] = sum + here;
        sum += total;
    }
    if (threadIdx.x == 0) *a.kept = sum;
}

/* As the first one; each thread writes the rows that it found behind those of the threads and tiles before. */
__global__ void stm_compact_write_kernel(stm_compact_args a)
{
    const int64_t first = static_cast<int64_t>(blockIdx.x) * STM_COMPACT_TILE + threadIdx.x * PER_THREAD;
    int total;
    int64_t at = before(kept_of(a, first), &total) + static_cast<const int64_t *>(a.scratch)[blockIdx.x];
    for (int k = 0; k < PER_THREAD; k++)
        if (first + k < a.rows && a.keep[first + k] != 0) a.index[at++] = first + k;
}

extern "C" mill_status stm_compact_cuda(const stm_compact_args *a, void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (!stm_compact_fits(a) || (a->rows > 0 && a->scratch == nullptr)) return MILL_ERR_INVALID;
    const int64_t tiles = (a->rows + STM_COMPACT_TILE - 1) / STM_COMPACT_TILE;
    const dim3 grid(static_cast<unsigned>(tiles)), block(BLOCK);
    mill_status st = MILL_OK;
    if (tiles > 0) {
        STM_READS(a->keep, a->rows);
        STM_WRITES(a->scratch, stm_compact_scratch_bytes(a->rows));
        st = STM_LAUNCHED((stm_compact_count_kernel), grid, block, 0, s, *a);
    }
    if (st == MILL_OK) {
        if (tiles > 0) STM_WRITES(a->scratch, stm_compact_scratch_bytes(a->rows));
        STM_WRITES(a->kept, sizeof *a->kept);
        st = STM_LAUNCHED((stm_compact_sum_kernel), dim3(1), block, 0, s, *a, tiles);
    }
    if (st == MILL_OK && tiles > 0) {
        STM_READS(a->keep, a->rows);
        STM_READS(a->scratch, stm_compact_scratch_bytes(a->rows));
        STM_WRITES(a->index, a->rows * sizeof *a->index);
        st = STM_LAUNCHED((stm_compact_write_kernel), grid, block, 0, s, *a);
    }
    return st;
}
