// cooperative_groups for the simulator, found ahead of the toolkit's: blocks, grids, tiles of a warp.
#pragma once

namespace cooperative_groups {

class thread_block {
  public:
    static void sync() { stm_sim_barrier(0, 0, "thread_block::sync"); }
    static unsigned thread_rank() { return stm_sim_self->rank; }
    static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
    static unsigned num_threads() { return size(); }
    static dim3 group_index() { return dim3(blockIdx.x, blockIdx.y, blockIdx.z); }
    static dim3 thread_index() { return dim3(threadIdx.x, threadIdx.y, threadIdx.z); }
};
inline thread_block this_thread_block() { return thread_block(); }

class grid_group {
  public:
    static void sync() { stm_sim_grid_sync("grid_group::sync"); }
    static bool is_valid() { return true; }
    static unsigned long long num_blocks() { return static_cast<unsigned long long>(gridDim.x) * gridDim.y * gridDim.z; }
    static unsigned long long block_rank()
    {
        return (static_cast<unsigned long long>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    }
    static unsigned long long size() { return num_blocks() * thread_block::size(); }
    static unsigned long long num_threads() { return size(); }
    static unsigned long long thread_rank() { return block_rank() * thread_block::size() + stm_sim_self->rank; }
};
inline grid_group this_grid() { return grid_group(); }

template <unsigned Size, class Parent = void> class thread_block_tile {
    static_assert(Size >= 1 && Size <= 32 && (Size & (Size - 1)) == 0, "tiles of a warp: 1, 2, 4, 8, 16, 32 threads");
    static unsigned mask()
    {
        return (Size == 32 ? ~0u : (1u << Size) - 1) << (static_cast<unsigned>(stm_sim_self->lane) / Size * Size);
    }
    static constexpr const char *kSite = "thread_block_tile";

  public:
    static unsigned thread_rank() { return static_cast<unsigned>(stm_sim_self->lane) % Size; }
    static constexpr unsigned size() { return Size; }
    static constexpr unsigned num_threads() { return Size; }
    static unsigned meta_group_rank() { return stm_sim_self->rank / Size; }
    static unsigned meta_group_size() { return (thread_block::size() + Size - 1) / Size; }
    static void sync() { stm_sim_syncwarp(mask(), kSite); }
    template <class T> static T shfl(T v, int from) { return ::stm_sim::shuffle<0>(kSite, mask(), v, from, Size); }
    template <class T> static T shfl_up(T v, unsigned by) { return ::stm_sim::shuffle<1>(kSite, mask(), v, by, Size); }
    template <class T> static T shfl_down(T v, unsigned by) { return ::stm_sim::shuffle<2>(kSite, mask(), v, by, Size); }
    template <class T> static T shfl_xor(T v, int by) { return ::stm_sim::shuffle<3>(kSite, mask(), v, by, Size); }
    static int any(int p) { return static_cast<int>(stm_sim_vote(mask(), 2, p != 0, kSite)); }
    static int all(int p) { return static_cast<int>(stm_sim_vote(mask(), 1, p != 0, kSite)); }
    static unsigned ballot(int p)
    {
        return stm_sim_vote(mask(), 0, p != 0, kSite) >> (static_cast<unsigned>(stm_sim_self->lane) / Size * Size);
    }
};
template <unsigned Size, class Parent> inline thread_block_tile<Size, Parent> tiled_partition(const Parent &) { return {}; }

template <class T> struct plus {
    T operator()(T a, T b) const { return a + b; }
};
template <class T> struct less {
    T operator()(T a, T b) const { return b < a ? b : a; }
};
template <class T> struct greater {
    T operator()(T a, T b) const { return a < b ? b : a; }
};
template <unsigned Size, class Parent, class T, class Op> inline T reduce(const thread_block_tile<Size, Parent> &tile, T v, Op op)
{
    for (unsigned by = Size / 2; by > 0; by /= 2) v = op(v, tile.shfl_xor(v, static_cast<int>(by)));
    return v;
}

template <class Group> inline void sync(const Group &g) { g.sync(); }

} // namespace cooperative_groups
