/*
 * For .cu files: products of tiles of unit vectors as in unit_tiles.h, by Hopper's warpgroup products. Compute capability 9.0
 * alone.
 *
 * A block has one to four warpgroups that multiply, each 64 rows by tiles of 128 columns, whose scores stay in its registers, and
 * behind them one that loads, of which a single warp works. It leaves most of its registers to the others. Steps of 32 values (rows
 * of 64 bytes, 64-byte swizzle) come by TMA through a ring of stages:
 *
 *   full[s]    one arrival, and the bytes of the stage    the loader announces, TMA completes, warpgroups wait
 *   empty[s]   one arrival of each warp that multiplies   its products of the stage are done; the loader waits
 *
 * Where all steps of the block's rows fit beside four stages of columns (256 rows: to 384 values), they are loaded once and stay
 * for the whole walk; otherwise each stage brings its rows, too. For 256 rows of 384 values a tile of columns then costs 96 KiB of
 * loads for 12.6 million products: 16 bytes a cycle at the full rate of the tensor cores, which L2 gives every processor.
 *
 * What the columns' scores are multiplied with (stm_screen_weight) is written by the loader once a tile. It may run ahead of a
 * warpgroup that still looks at its scores by 1 + (stages - 1) / steps tiles, so there is one array more than that.
 *
 * Thread l of warp w of warpgroup g holds acc[e] = score of row 64 g + 16 w + l / 4 + 8 (e / 2 % 2), column 8 (e / 4) + 2 (l % 4) +
 * e % 2: all scores of a row are in one warp, in the four lanes of a quad.
 */
#ifndef STM_KERNELS_WGMMA_TILES_H
#define STM_KERNELS_WGMMA_TILES_H

#include "kernels/launch.h"
#include "kernels/nearest.h"
#include "kernels/stm_sm90.h"

#if defined(STM_SIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define STM_HAS_WGMMA 1
#else
#define STM_HAS_WGMMA 0
#endif

#define STM_WG_STEP 32
#define STM_WG_ROWS 64
#define STM_WG_GROUPS 4
#define STM_WG_THREADS (STM_WG_GROUPS * 128 + 128)
#define STM_WG_REGISTERS 104       /* a thread that multiplies: 64 scores, and the rest. All threads begin with 96 */
#define STM_WG_REGISTERS_LOADER 64 /* 4 x 104 + 64 <= 5 x 96 */
#define STM_WG_COLUMN_BYTES (STM_NEAREST_TILE * STM_WG_STEP * 2) /* of a stage */
#define STM_WG_STAGES 8
#define STM_WG_SHARED \
    (227 * 1024)        /* what each kernel may ask for: the same for all launches, since they may come from several threads */
#define STM_WG_OWN 1088 /* bytes of it that are the kernel's, behind the rest */

/* How a launch is laid out; the same for all blocks. */
struct stm_wg_plan {
    int32_t groups, steps, stages, weights, resident;
    uint32_t row_bytes, stage_bytes;                         /* of a step of the block's rows; of a stage */
    /* places in dynamic shared memory, whose first bytes are the rows that stay */
    uint32_t stages_at, weights_at, full_at, empty_at, here_at, own_at;
    uint32_t bytes;                                          /* of it */
};

static inline stm_wg_plan stm_wg_plan_of(int64_t n_rows, int32_t width, int32_t most_stages, bool may_stay)
{
    stm_wg_plan p = {};
    const int64_t groups = (n_rows + STM_WG_ROWS - 1) / STM_WG_ROWS;
    p.groups = static_cast<int32_t>(groups < STM_WG_GROUPS ? groups : STM_WG_GROUPS);
    p.steps = width / STM_WG_STEP;
    p.row_bytes = static_cast<uint32_t>(p.groups * STM_WG_ROWS * STM_WG_STEP * 2);
    const auto bytes_of = [&](int32_t stages, bool resident) {
        const int64_t weights = 2 + (stages - 1) / p.steps, rows = static_cast<int64_t>(p.steps) * p.row_bytes;
        return (resident ? rows : 0) + stages * static_cast<int64_t>(STM_WG_COLUMN_BYTES + (resident ? 0 : p.row_bytes)) +
               weights * STM_NEAREST_TILE * 4 + (2 * stages + 1) * 8 + STM_WG_OWN;
    };
    p.resident = may_stay && bytes_of(most_stages < 4 ? most_stages : 4, true) <= STM_WG_SHARED;
    p.stages = most_stages;
    while (p.stages > 2 && bytes_of(p.stages, p.resident) > STM_WG_SHARED) p.stages--;
    p.weights = 2 + (p.stages - 1) / p.steps;
    p.stage_bytes = STM_WG_COLUMN_BYTES + (p.resident ? 0 : p.row_bytes);
    p.stages_at = p.resident ? static_cast<uint32_t>(p.steps) * p.row_bytes : 0;
    p.weights_at = p.stages_at + static_cast<uint32_t>(p.stages) * p.stage_bytes;
    p.full_at = p.weights_at + static_cast<uint32_t>(p.weights) * STM_NEAREST_TILE * 4;
    p.empty_at = p.full_at + static_cast<uint32_t>(p.stages) * 8;
    p.here_at = p.empty_at + static_cast<uint32_t>(p.stages) * 8; /* tells when the rows that stay are there */
    p.own_at = p.here_at + 8;
    p.bytes = p.own_at + STM_WG_OWN;
    return p;
}

/* Rows of a block. */
static inline int64_t stm_wg_rows(const stm_wg_plan &p) { return static_cast<int64_t>(p.groups) * STM_WG_ROWS; }
static inline unsigned stm_wg_threads(const stm_wg_plan &p) { return static_cast<unsigned>(p.groups) * 128 + 128; }

/* The two matrices as TMA sees them: boxes of a step of the block's rows, and of a step of a tile of columns. Zeros where there is
 * no row or value. */
struct stm_wg_maps {
    CUtensorMap rows, columns;
};

static inline cudaError_t stm_wg_maps_of(const stm_wg_plan &p, const uint16_t *rows, int64_t n_rows, const uint16_t *columns,
                                         int64_t n_columns, stm_wg_maps *out)
{
    using Encode = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                                const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    void *found = nullptr; /* a function of the driver, which nothing here is linked with */
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    if (e != cudaSuccess) return e;
    if (result != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
    const Encode encode = reinterpret_cast<Encode>(found);
    const cuuint64_t width = static_cast<cuuint64_t>(p.steps) * STM_WG_STEP, stride[1] = {width * 2};
    const cuuint32_t step[2] = {1, 1};
    const auto map = [&](CUtensorMap *m, const uint16_t *at, int64_t n, int64_t box_rows) {
        const cuuint64_t size[2] = {width, static_cast<cuuint64_t>(n)};
        const cuuint32_t box[2] = {STM_WG_STEP, static_cast<cuuint32_t>(box_rows)};
        return encode(m, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<uint16_t *>(at), size, stride, box, step,
                      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    };
    const bool made = map(&out->rows, rows, n_rows, stm_wg_rows(p)) == CUDA_SUCCESS &&
                      map(&out->columns, columns, n_columns, STM_NEAREST_TILE) == CUDA_SUCCESS;
    return made ? cudaSuccess : cudaErrorInvalidValue;
}

/* MILL_ERR_UNSUPPORTED where the device that launches is not for all this. */
static inline mill_status stm_wg_supported()
{
    int device = 0, major = 0, minor = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    const mill_status st = stm_cuda_check(STM_CUDA(e), "asking for the device", __FILE__, __LINE__, nullptr);
    return st != MILL_OK || (major == 9 && minor == 0) ? st : MILL_ERR_UNSUPPORTED;
}

/* What a launch of @p kernel needs first: its shared memory, and the maps of both operands. */
static inline mill_status stm_wg_prepare(const void *kernel, const stm_wg_plan &p, const uint16_t *rows, int64_t n_rows,
                                         const uint16_t *columns, int64_t n_columns, stm_wg_maps *out)
{
    const mill_status st =
        stm_cuda_check(STM_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, STM_WG_SHARED)),
                       "asking for shared memory", __FILE__, __LINE__, nullptr);
    if (st != MILL_OK) return st;
    return stm_cuda_check(STM_CUDA(stm_wg_maps_of(p, rows, n_rows, columns, n_columns, out)), "describing vectors to the device",
                          __FILE__, __LINE__, nullptr);
}

#if STM_HAS_WGMMA

/* Where a thread is in the walk. Registers are short, so places in shared memory are found from the plan each time. */
struct stm_wg_block {
    unsigned char *memory; /* aligned to 1024 bytes */
    int32_t group;         /* plan.groups: the one that loads */
    int32_t next;          /* step: twice its stage, and the parity of the round through the stages */
};
static __device__ __forceinline__ uint64_t *stm_wg_full(const stm_wg_plan &p, const stm_wg_block &b, int32_t stage)
{
    return reinterpret_cast<uint64_t *>(b.memory + p.full_at) + stage;
}
static __device__ __forceinline__ uint64_t *stm_wg_empty(const stm_wg_plan &p, const stm_wg_block &b, int32_t stage)
{
    return reinterpret_cast<uint64_t *>(b.memory + p.empty_at) + stage;
}
static __device__ __forceinline__ uint64_t *stm_wg_here(const stm_wg_plan &p, const stm_wg_block &b)
{
    return reinterpret_cast<uint64_t *>(b.memory + p.here_at);
}
/* Array number `turn` of weights. */
static __device__ __forceinline__ float *stm_wg_weights(const stm_wg_plan &p, const stm_wg_block &b, int32_t turn)
{
    return reinterpret_cast<float *>(b.memory + p.weights_at) + turn * STM_NEAREST_TILE;
}

/* All threads of the block. Ends with a barrier. */
static __device__ __forceinline__ stm_wg_block stm_wg_begin(const stm_wg_plan &p, unsigned char *memory)
{
    stm_wg_block b;
    b.memory = memory;
    /* the same in the warp, as the compiler sees, too */
    b.group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0);
    b.next = 0;
    if (threadIdx.x == 0) {
        for (int32_t s = 0; s < p.stages; s++) {
            stm_mbarrier_init(stm_wg_full(p, b, s), 1);
            stm_mbarrier_init(stm_wg_empty(p, b, s), p.groups * 4);
        }
        stm_mbarrier_init(stm_wg_here(p, b), 1);
    }
    __syncthreads();
    return b;
}

static __device__ __forceinline__ void stm_wg_advance(const stm_wg_plan &p, stm_wg_block *b)
{
    b->next += 2;
    if (b->next >= 2 * p.stages) b->next = (b->next & 1) ^ 1;
}
/* A warp's products of the stage before the next one are done. */
static __device__ __forceinline__ void stm_wg_let_go(const stm_wg_plan &p, const stm_wg_block &b)
{
    const int32_t stage = b.next / 2;
    if (threadIdx.x % 32 == 0) stm_mbarrier_arrive(stm_wg_empty(p, b, stage > 0 ? stage - 1 : p.stages - 1));
}

/* The warpgroup that loads: columns of tiles first .. last - 1, the rows from `row` on, and weight(column) for each. */
template <class Weight>
static __device__ __forceinline__ void stm_wg_load(const stm_wg_plan &p, stm_wg_block b, const stm_wg_maps &maps, int64_t row,
                                                   int64_t first, int64_t last, Weight weight)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int32_t turn = 0;
    stm_registers_fewer<STM_WG_REGISTERS_LOADER>();
    if (threadIdx.x / 32 % 4 != 0) return;
    if (p.resident && lane == 0 && first < last) {
        stm_mbarrier_expect(stm_wg_here(p, b), p.steps * p.row_bytes);
        for (int32_t k = 0; k < p.steps; k++)
            stm_tma_load_2d(b.memory + k * p.row_bytes, &maps.rows, stm_wg_here(p, b), k * STM_WG_STEP, static_cast<int>(row));
    }
    for (int64_t tile = first; tile < last; tile++) {
        const int64_t column = tile * STM_NEAREST_TILE;
        for (int32_t k = 0; k < p.steps; k++) {
            unsigned char *stage = b.memory + p.stages_at + b.next / 2 * p.stage_bytes;
            uint64_t *full = stm_wg_full(p, b, b.next / 2);
            stm_mbarrier_wait(stm_wg_empty(p, b, b.next / 2), (b.next & 1) ^ 1); /* of the round before; none before the first */
            if (k == 0) {
                for (int i = lane; i < STM_NEAREST_TILE; i += 32) stm_wg_weights(p, b, turn)[i] = weight(column + i);
                turn = turn + 1 < p.weights ? turn + 1 : 0;
            }
            __syncwarp(); /* the lane that arrives does so for what all have written */
            if (lane == 0) {
                stm_mbarrier_expect(full, p.stage_bytes);
                stm_tma_load_2d(stage, &maps.columns, full, k * STM_WG_STEP, static_cast<int>(column));
                if (!p.resident)
                    stm_tma_load_2d(stage + STM_WG_COLUMN_BYTES, &maps.rows, full, k * STM_WG_STEP, static_cast<int>(row));
            }
            stm_wg_advance(p, &b);
        }
    }
}

/* A warpgroup that multiplies, first of all. */
static __device__ __forceinline__ void stm_wg_ready(const stm_wg_plan &p, const stm_wg_block &b)
{
    stm_registers_more<STM_WG_REGISTERS>();
    if (p.resident) stm_mbarrier_wait(stm_wg_here(p, b), 0);
}

/* A warpgroup: all its scores of the next tile of the walk. Products of a step run while the next stage is waited for. */
static __device__ __forceinline__ void stm_wg_multiply(const stm_wg_plan &p, stm_wg_block *b, float (&acc)[64])
{
    for (int32_t k = 0; k < p.steps; k++) {
        const unsigned char *stage = b->memory + p.stages_at + b->next / 2 * p.stage_bytes;
        const unsigned char *rows = p.resident ? b->memory + k * p.row_bytes : stage + STM_WG_COLUMN_BYTES;
        const uint64_t x = stm_wgmma_desc_64(rows + b->group * (STM_WG_ROWS * STM_WG_STEP * 2)), y = stm_wgmma_desc_64(stage);
        stm_mbarrier_wait(stm_wg_full(p, *b, b->next / 2), b->next & 1);
        stm_wgmma_fence();
        stm_wgmma_m64k16<STM_NEAREST_TILE>(acc, x, y, k > 0, __nv_bfloat16());
        stm_wgmma_m64k16<STM_NEAREST_TILE>(acc, x + 2, y + 2, 1, __nv_bfloat16());
        stm_wgmma_commit();
        stm_wgmma_wait<1>();
        if (k > 0) stm_wg_let_go(p, *b);
        stm_wg_advance(p, b);
    }
    stm_wgmma_wait<0>();
    stm_wgmma_keep(acc);
    stm_wg_let_go(p, *b);
}

/* First row of a thread's within the block; its second is 8 below. */
static __device__ __forceinline__ int stm_wg_row(int thread) { return thread / 32 * 16 + thread % 32 / 4; }
/* First column of acc[4 n] within the tile; that of acc[4 n + 1] is beside it. */
static __device__ __forceinline__ int stm_wg_column(int n) { return 8 * n + 2 * (static_cast<int>(threadIdx.x) % 4); }

#endif
#endif
