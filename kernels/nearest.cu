#include "kernels/nearest.h"
#include "kernels/unit_tiles.h"
#include "kernels/wgmma_tiles.h"

/* A row that passed the screen. */
struct stm_screened {
    int32_t row; /* of the corpus block */
    float score;
};

#define ALL_LANES 0xffffffffu

/* The lists of a launch: [parts][queries][room], and how long they are; -1: too many rows are too near, score all of the part. */
struct stm_lists {
    stm_screened *items;
    int32_t *counts; /* [parts][queries] */
    int64_t parts, tiles;
    int32_t room;
};

/* At most the k-th largest score of the list's n >= k, and no more than k above it where that is quickly told; a warp calls it. */
static __device__ uint32_t kth_of(const stm_screened *list, int n, int k)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    uint32_t found = 0;
    for (int bit = 31; bit >= 0; bit--) {
        const uint32_t at = found | 1u << bit;
        int count = 0;
        for (int i = lane; i < n; i += 32) count += stm_ordered(list[i].score) >= at;
        for (int by = 16; by > 0; by /= 2) count += __shfl_xor_sync(ALL_LANES, count, by);
        if (count >= k) found = at;
        if (count == k) break;
    }
    return found;
}

/* Drop what cannot be among the k best; a warp calls it. Returns how many are left, *cut becomes the least score worth adding. */
static __device__ int cut_back(stm_screened *list, int n, int k, float margin, float *cut)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float now = stm_unordered(kth_of(list, n, k)) - 2.0f * margin;
    int kept = 0;
    if (now > *cut) *cut = now;
    for (int from = 0; from < n; from += 32) {
        const int i = from + lane;
        const stm_screened item = i < n ? list[i] : stm_screened{0, -INFINITY};
        const unsigned mask = __ballot_sync(ALL_LANES, i < n && item.score >= *cut);
        __syncwarp(); /* all have read before anybody writes: never behind what is read */
        if (mask >> lane & 1) list[kept + __popc(mask & ((1u << lane) - 1))] = item;
        kept += __popc(mask);
        __syncwarp();
    }
    return kept;
}

/* A list in which a tile may not find room: cut back, or given up (-1, and nothing is worth adding) where that does not help; a
 * warp calls it. Returns the least score worth adding. */
static __device__ float make_room(stm_screened *list, int *count, int room, int k, float margin, float cut)
{
    const int left = cut_back(list, *count, k, margin, &cut);
    const bool over = left > room - STM_NEAREST_TILE;
    __syncwarp();
    if (threadIdx.x % 32 == 0) *count = over ? -1 : left;
    __syncwarp();
    return over ? INFINITY : cut;
}

/* Before a query's first row: the least score worth a look, and the length of its list, or -1 where all rows are to be scored. */
static __device__ __forceinline__ float first_cut(const stm_nearest_args &a, int64_t query, float margin, int *count)
{
    *count = 0;
    if (query >= a.queries.n) return INFINITY;
    const double length = a.queries.length[query];
    const uint64_t last = a.best[query * a.k + a.k - 1];
    float threshold = a.threshold;
    if (last != STM_NO_RANK && stm_rank_score(last) > threshold) threshold = stm_rank_score(last);
    if (stm_scale_sound(a.metric, length, a.longest)) return stm_screen_from(a.metric, length, a.longest, threshold, margin);
    *count = -1;
    return INFINITY;
}

/* grid: x = tile of 128 queries, y = part of the corpus; block: STM_TILE_THREADS; 48 KiB of dynamic shared memory and 2 KiB.
 * Registers: 128 for the scores, so two blocks a processor. */
template <bool Tensor>
__global__ void __launch_bounds__(STM_TILE_THREADS) stm_nearest_screen_kernel(stm_nearest_args a, stm_lists l)
{
    STM_DYN_SHARED(uint16_t, stages);
    STM_SHARED(int, count, [STM_NEAREST_TILE]);
    STM_SHARED(float, cut, [STM_NEAREST_TILE]);
    STM_SHARED(float, weight, [STM_NEAREST_TILE]);
    const int me = static_cast<int>(threadIdx.x), lane = me % 32;
    const int64_t query = static_cast<int64_t>(blockIdx.x) * STM_NEAREST_TILE;
    const int32_t width = stm_unit_width(a.dim);
    const float margin = static_cast<float>(stm_unit_margin(width) * 1.0001);
    const stm_tile_walk walk = {a.queries.units,
                                a.corpus.units,
                                query,
                                a.queries.n,
                                a.corpus.n,
                                static_cast<int64_t>(blockIdx.y) * l.tiles / l.parts,
                                static_cast<int64_t>(blockIdx.y + 1) * l.tiles / l.parts,
                                width};
    stm_screened *lists = l.items + (static_cast<int64_t>(blockIdx.y) * a.queries.n + query) * l.room;
    const int32_t *self = a.self != nullptr ? a.self + query : nullptr;
    float acc[4][8][4];

    if constexpr (Tensor && !STM_HAS_TENSOR) return; /* never launched there */
    cut[me] = first_cut(a, query + me, margin, &count[me]);
    stm_tile_begin<Tensor>(walk, stages);
    for (int64_t t = 0; walk.first + t < walk.last; t++) {
        const int32_t first = static_cast<int32_t>((walk.first + t) * STM_NEAREST_TILE);
        const int32_t place = static_cast<int32_t>(a.first) + first; /* below STM_RANK_ROWS */
        weight[me] = stm_screen_weight(a.metric, a.corpus, first + me, a.longest);
        stm_tile_next<Tensor>(walk, stages, t, acc);
#pragma unroll
        for (int mt = 0; mt < 4; mt++)
#pragma unroll
            for (int low = 0; low < 2; low++) {
                const int r = stm_tile_row(mt, low * 2);
                const float least = cut[r];
#pragma unroll
                for (int nt = 0; nt < 8; nt++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        const int column = stm_tile_column(nt, e);
                        const float score = acc[mt][nt][low * 2 + e] * weight[column];
                        if (!(score >= least)) continue;
                        if (self != nullptr && self[r] == place + column) continue;
                        lists[r * l.room + atomicAdd(&count[r], 1)] = {first + column, score};
                    }
            }
        __syncthreads();
        /* Each warp looks after 32 lists: one more tile must fit. */
        unsigned full = __ballot_sync(ALL_LANES, count[me] > l.room - STM_NEAREST_TILE);
        for (; full != 0; full &= full - 1) {
            const int r = me - lane + __ffs(static_cast<int>(full)) - 1;
            const float least = make_room(lists + r * l.room, &count[r], l.room, a.k, margin, cut[r]);
            if (lane == 0) cut[r] = least;
            __syncwarp();
        }
    }
    if constexpr (Tensor) stm_cp_async_wait<0>();
    __syncthreads();
    if (query + me < a.queries.n) l.counts[static_cast<int64_t>(blockIdx.y) * a.queries.n + query + me] = count[me];
}

/* Of a block, in shared memory: registers are short, and these are rarely needed. */
struct stm_block_lists {
    stm_screened *first; /* of the block's first query */
    const int32_t *self; /* its, or NULL */
    int32_t place;       /* of the corpus block */
    int32_t begin, last; /* tiles */
    int32_t *counts;     /* where the lengths of the lists go */
    int64_t queries;     /* from the block's first on: may be more than it has rows */
    float margin;
    int count[STM_WG_GROUPS * STM_WG_ROWS]; /* lengths of the lists */
};
static_assert(sizeof(stm_block_lists) <= STM_WG_OWN, "has its place in the plan");

/* The same by warpgroups. grid: x = tile of 64 queries a warpgroup, y = part of the corpus; block: stm_wg_threads;
 * plan.bytes of dynamic shared memory. A list belongs to the quad of lanes that has its scores, so no barrier of the block is
 * needed. */
__global__ void __launch_bounds__(STM_WG_THREADS, 1)
    stm_nearest_wgmma_kernel(stm_nearest_args a, stm_lists l, stm_wg_plan plan, const __grid_constant__ stm_wg_maps maps)
{
#if STM_HAS_WGMMA
    STM_DYN_SHARED(unsigned char, memory);
    stm_block_lists *lists = reinterpret_cast<stm_block_lists *>(memory + plan.own_at);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t query = static_cast<int64_t>(blockIdx.x) * plan.groups * STM_WG_ROWS;
    const int32_t first_tile = static_cast<int32_t>(static_cast<int64_t>(blockIdx.y) * l.tiles / l.parts);

    if (threadIdx.x == 0) {
        lists->first = l.items + (static_cast<int64_t>(blockIdx.y) * a.queries.n + query) * l.room;
        lists->self = a.self != nullptr ? a.self + query : nullptr;
        lists->counts = l.counts + static_cast<int64_t>(blockIdx.y) * a.queries.n + query;
        lists->queries = a.queries.n - query;
        lists->place = static_cast<int32_t>(a.first);
        lists->begin = first_tile;
        lists->last = static_cast<int32_t>(static_cast<int64_t>(blockIdx.y + 1) * l.tiles / l.parts);
        lists->margin = static_cast<float>(stm_unit_margin(stm_unit_width(a.dim)) * 1.0001);
    }
    stm_wg_block b = stm_wg_begin(plan, memory);

    if (b.group == plan.groups) { /* no barrier of the block below */
        stm_wg_load(plan, b, maps, query, first_tile, lists->last,
                    [&](int64_t row) { return stm_screen_weight(a.metric, a.corpus, row, a.longest); });
        return;
    }
    stm_wg_ready(plan, b);
    const int mine = stm_wg_row(static_cast<int>(threadIdx.x));
    float acc[64], least[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int n;
        least[h] = first_cut(a, query + mine + 8 * h, lists->margin, &n);
        if (lane % 4 == 0) lists->count[mine + 8 * h] = n;
    }
    __syncwarp();
    for (int32_t tile = first_tile; tile < lists->last; tile++) {
        const int32_t first = tile * STM_NEAREST_TILE;
        stm_wg_multiply(plan, &b, acc);
        const float *weights = stm_wg_weights(plan, b, (tile - lists->begin) % plan.weights);
#pragma unroll
        for (int n = 0; n < 16; n++) {
            const int column = stm_wg_column(n);
            const float2 weight = *reinterpret_cast<const float2 *>(weights + column);
            float score[4];
            bool any = false;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                score[e] = acc[4 * n + e] * (e % 2 == 0 ? weight.x : weight.y);
                any |= score[e] >= least[e / 2];
            }
            if (!any) continue; /* nearly always */
#pragma unroll 1
            for (int e = 0; e < 4; e++) { /* rolled: the places of four scores would take more registers than there are */
                const int r = mine + 8 * (e / 2), row = first + column + e % 2;
                const float low = e % 2 == 0 ? score[0] : score[1], high = e % 2 == 0 ? score[2] : score[3];
                if (!((e < 2 ? low : high) >= (e < 2 ? least[0] : least[1]))) continue;
                if (lists->self != nullptr && lists->self[r] == lists->place + row) continue;
                lists->first[r * l.room + atomicAdd(&lists->count[r], 1)] = {row, e < 2 ? low : high};
            }
        }
        __syncwarp();
        /* Each warp looks after its 16 lists: one more tile must fit. */
#pragma unroll
        for (int h = 0; h < 2; h++) {
            unsigned full = __ballot_sync(ALL_LANES, lane % 4 == 0 && lists->count[mine + 8 * h] > l.room - STM_NEAREST_TILE);
            for (; full != 0; full &= full - 1) {
                const int owner = __ffs(static_cast<int>(full)) - 1, r = mine - lane / 4 + owner / 4 + 8 * h;
                const float now = __shfl_sync(ALL_LANES, least[h], owner);
                const float then = make_room(lists->first + r * l.room, &lists->count[r], l.room, a.k, lists->margin, now);
                if (lane / 4 == owner / 4) least[h] = then;
            }
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
        if (lane % 4 == 0 && mine + 8 * h < lists->queries) lists->counts[mine + 8 * h] = lists->count[mine + 8 * h];
#endif
}

/* ---- the k best of what comes ------------------------------------------------------------------------------------ */

/* A warp's list of the best so far: slots (a power of two, at least 2 k and 64) in shared memory, the first n taken, in no
 * order. */
struct stm_best {
    uint64_t *slots;
    uint64_t worst; /* ranks from here on need not come */
    int size, n, k;
};

/* Sort, keep k. Bitonic: each pass of a step compares pairs that no other lane touches. */
static __device__ void settle(stm_best *b)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    __syncwarp();
    for (int i = b->n + lane; i < b->size; i += 32) b->slots[i] = STM_NO_RANK;
    __syncwarp();
    for (int block = 2; block <= b->size; block *= 2)
        for (int by = block / 2; by > 0; by /= 2) {
            for (int i = lane; i < b->size / 2; i += 32) {
                const int lo = i / by * by * 2 + i % by, hi = lo + by;
                const uint64_t x = b->slots[lo], y = b->slots[hi];
                if ((x > y) == ((lo & block) == 0)) {
                    b->slots[lo] = y;
                    b->slots[hi] = x;
                }
            }
            __syncwarp();
        }
    if (b->n >= b->k) b->worst = b->slots[b->k - 1];
    if (b->n > b->k) b->n = b->k;
    __syncwarp();
}

/* Each lane may bring one. */
static __device__ void take(stm_best *b, bool brings, uint64_t rank)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const unsigned mask = __ballot_sync(ALL_LANES, brings && rank < b->worst);
    if (mask == 0) return;
    if (b->n + __popc(mask) > b->size) settle(b); /* size >= k + 32: there is room then */
    if (mask >> lane & 1) b->slots[b->n + __popc(mask & ((1u << lane) - 1))] = rank;
    b->n += __popc(mask);
    __syncwarp();
}

static __device__ void take_list(stm_best *b, const uint64_t *list)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int from = 0; from < b->k; from += 32) {
        const uint64_t rank = from + lane < b->k ? list[from + lane] : STM_NO_RANK;
        take(b, rank != STM_NO_RANK, rank);
    }
}

static __device__ void give_list(stm_best *b, uint64_t *out)
{
    settle(b);
    for (int i = static_cast<int>(threadIdx.x) % 32; i < b->k; i += 32) out[i] = b->slots[i];
}

static __device__ stm_best best_of_warp(uint64_t *slots, int size, int k)
{
    return {slots + static_cast<int64_t>(threadIdx.x / 32) * size, STM_NO_RANK, size, 0, k};
}

/* Two corpus rows at a time, one a half warp; row < 0: none. */
static __device__ void score_rows(const stm_nearest_args &a, int64_t query, stm_best *b, int64_t row)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const bool there = row >= 0 && (a.self == nullptr || a.self[query] != a.first + row);
    const int64_t at = row >= 0 ? row : 0;
    const float score = stm_exact_score(a.metric, a.queries.rows + query * a.dim, a.corpus.rows + at * a.dim, a.dim,
                                        a.queries.length[query], a.corpus.length[at]);
    take(b, lane % 16 == 0 && there && score >= a.threshold, stm_rank_of(score, a.first + at));
}

/* The least score of a list entry worth an exact look, over the lists of all parts; a warp calls it. */
static __device__ float worth(const stm_nearest_args &a, const stm_lists &l, int64_t query, float margin)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int64_t total = 0;
    uint32_t found = 0;
    for (int64_t p = 0; p < l.parts; p++) {
        const int n = l.counts[p * a.queries.n + query];
        total += n > 0 ? n : 0;
    }
    if (total <= a.k) return -INFINITY;
    for (int bit = 31; bit >= 0; bit--) {
        const uint32_t at = found | 1u << bit;
        int count = 0;
        for (int64_t p = 0; p < l.parts; p++) {
            const stm_screened *list = l.items + (p * a.queries.n + query) * l.room;
            const int n = l.counts[p * a.queries.n + query];
            for (int i = lane; i < n; i += 32) count += stm_ordered(list[i].score) >= at;
        }
        for (int by = 16; by > 0; by /= 2) count += __shfl_xor_sync(ALL_LANES, count, by);
        if (count >= a.k) found = at;
        if (count == a.k) break;
    }
    return stm_unordered(found) - 2.0f * margin;
}

/* grid: x = tile of blockDim.x / 32 queries, one a warp; dynamic shared memory: `size` ranks a warp. */
__global__ void stm_nearest_settle_kernel(stm_nearest_args a, stm_lists l, int size)
{
    STM_DYN_SHARED(uint64_t, slots);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t query = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    const float margin = static_cast<float>(stm_unit_margin(stm_unit_width(a.dim)) * 1.0001);
    stm_best best = best_of_warp(slots, size, a.k);

    if (query >= a.queries.n) return; /* whole warps; no barrier of the block below */
    take_list(&best, a.best + query * a.k);
    settle(&best);
    const float least = worth(a, l, query, margin);
    for (int64_t p = 0; p < l.parts; p++) {
        const stm_screened *list = l.items + (p * a.queries.n + query) * l.room;
        const int n = l.counts[p * a.queries.n + query];
        if (n < 0) {
            const int64_t first = p * l.tiles / l.parts * STM_NEAREST_TILE, end = (p + 1) * l.tiles / l.parts * STM_NEAREST_TILE;
            const int64_t last = end < a.corpus.n ? end : a.corpus.n;
            for (int64_t row = first; row < last; row += 2)
                score_rows(a, query, &best, row + lane / 16 < last ? row + lane / 16 : -1);
        }
        for (int from = 0; from < n; from += 32) {
            const stm_screened item = from + lane < n ? list[from + lane] : stm_screened{-1, -INFINITY};
            unsigned mask = __ballot_sync(ALL_LANES, item.row >= 0 && item.score >= least);
            while (mask != 0) {
                const int one = __ffs(static_cast<int>(mask)) - 1;
                mask &= mask - 1;
                const int two = mask != 0 ? __ffs(static_cast<int>(mask)) - 1 : one;
                const bool both = mask != 0;
                mask &= mask - 1;
                const int row = __shfl_sync(ALL_LANES, item.row, lane < 16 ? one : two);
                score_rows(a, query, &best, lane < 16 || both ? row : -1);
            }
        }
    }
    give_list(&best, a.best + query * a.k);
}

/* As the last one: a query a warp. */
__global__ void stm_merge_ranks_kernel(stm_merge_ranks_args a, int size)
{
    STM_DYN_SHARED(uint64_t, slots);
    const int64_t query = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    stm_best best = best_of_warp(slots, size, a.k);

    if (query >= a.n) return; /* whole warps; no barrier of the block below */
    for (int32_t i = 0; i < a.n_lists; i++) take_list(&best, a.lists + i * a.stride + (a.first + query) * a.k);
    give_list(&best, a.out + query * a.k);
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

static int slots_of(int32_t k)
{
    int size = 64;
    while (size < 2 * k) size *= 2;
    return size;
}
/* Warps of a block: as many as have their lists in 16 KiB, at most four. */
static int warps_of(int size) { return size <= 512 ? 4 : 1; }

static void declare(const stm_nearest_args *a)
{
    STM_READS(a->queries.rows, a->queries.n * a->dim * 4);
    STM_READS(a->queries.units, a->queries.n * stm_unit_width(a->dim) * 2);
    STM_READS(a->queries.length, a->queries.n * 8);
    STM_READS(a->corpus.rows, a->corpus.n * a->dim * 4);
    STM_READS(a->corpus.units, a->corpus.n * stm_unit_width(a->dim) * 2);
    STM_READS(a->corpus.length, a->corpus.n * 8);
    if (a->self != nullptr) STM_READS(a->self, a->queries.n * 4);
    STM_WRITES(a->scratch, stm_nearest_scratch_bytes(a->queries.n, a->corpus.n, a->k));
    (void)a;
}

template <bool Tensor> static mill_status screen(const stm_nearest_args *a, const stm_lists &l, cudaStream_t s)
{
    const void *kernel = STM_KERNEL((stm_nearest_screen_kernel<Tensor>));
    const dim3 grid(stm_blocks(a->queries.n, STM_NEAREST_TILE), static_cast<unsigned>(l.parts));
    const mill_status st =
        stm_cuda_check(STM_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, STM_TILE_BYTES)),
                       "asking for shared memory", __FILE__, __LINE__, nullptr);
    if (st != MILL_OK) return st;
    declare(a);
    STM_READS(a->best, a->queries.n * a->k * 8);
    return STM_LAUNCHED((stm_nearest_screen_kernel<Tensor>), grid, dim3(STM_TILE_THREADS), STM_TILE_BYTES, s, *a, l);
}

static mill_status screen_wgmma(const stm_nearest_args *a, const stm_lists &l, cudaStream_t s)
{
    const stm_wg_plan plan = stm_wg_plan_of(a->queries.n, stm_unit_width(a->dim), STM_WG_STAGES, true);
    const dim3 grid(stm_blocks(a->queries.n, stm_wg_rows(plan)), static_cast<unsigned>(l.parts));
    stm_wg_maps maps;
    mill_status st = stm_wg_supported();
    if (st == MILL_OK)
        st = stm_wg_prepare(STM_KERNEL((stm_nearest_wgmma_kernel)), plan, a->queries.units, a->queries.n, a->corpus.units,
                            a->corpus.n, &maps);
    if (st != MILL_OK) return st;
    declare(a);
    STM_READS(a->best, a->queries.n * a->k * 8);
    return STM_LAUNCHED((stm_nearest_wgmma_kernel), grid, dim3(stm_wg_threads(plan)), plan.bytes, s, *a, l, plan, maps);
}

extern "C" mill_status stm_nearest_cuda(const stm_nearest_args *a, void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    bool tensor = false;
    if (!stm_nearest_fits(a)) return MILL_ERR_INVALID;
    if (a->queries.n == 0 || a->corpus.n == 0) return MILL_OK;
    if (a->scratch == nullptr || a->queries.units == nullptr || a->corpus.units == nullptr) return MILL_ERR_INVALID;
    stm_lists l = {};
    l.parts = stm_nearest_parts(a->queries.n, a->corpus.n);
    l.tiles = (a->corpus.n + STM_NEAREST_TILE - 1) / STM_NEAREST_TILE;
    l.room = static_cast<int32_t>(stm_nearest_room(a->k));
    l.items = static_cast<stm_screened *>(a->scratch);
    l.counts = reinterpret_cast<int32_t *>(l.items + l.parts * a->queries.n * l.room);
    mill_status st = stm_cuda_check(STM_CUDA(stm_tensor_cores(&tensor)), "asking for the device", __FILE__, __LINE__, nullptr);
    if (st == MILL_OK)
        st = a->tiles == STM_TILES_WGMMA ? screen_wgmma(a, l, s) : tensor ? screen<true>(a, l, s) : screen<false>(a, l, s);
    if (st != MILL_OK) return st;
    const int size = slots_of(a->k), warps = warps_of(size);
    declare(a);
    STM_WRITES(a->best, a->queries.n * a->k * 8);
    return STM_LAUNCHED((stm_nearest_settle_kernel), dim3(stm_blocks(a->queries.n, warps)), dim3(warps * 32),
                        static_cast<size_t>(size) * warps * 8, s, *a, l, size);
}

extern "C" mill_status stm_merge_ranks_cuda(const stm_merge_ranks_args *a, void *stream)
{
    if (!stm_merge_ranks_fits(a)) return MILL_ERR_INVALID;
    if (a->n == 0) return MILL_OK;
    const int size = slots_of(a->k), warps = warps_of(size);
    STM_READS(a->lists, ((a->n_lists - 1) * a->stride + (a->first + a->n) * a->k) * 8);
    STM_WRITES(a->out, a->n * a->k * 8);
    return STM_LAUNCHED((stm_merge_ranks_kernel), dim3(stm_blocks(a->n, warps)), dim3(warps * 32),
                        static_cast<size_t>(size) * warps * 8, static_cast<cudaStream_t>(stream), *a, size);
}
