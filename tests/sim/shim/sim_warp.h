// Barriers, fences and warp collectives by CUDA's names.
#pragma once

namespace stm_sim {
struct At { // carries the site into calls with default arguments
    const char *site;
    void syncwarp(unsigned mask = 0xffffffffu) const { stm_sim_syncwarp(mask, site); }
};
template <class T> inline uint64_t bits(T v)
{
    static_assert(sizeof(T) <= 8, "collectives move up to 8 bytes");
    uint64_t b = 0;
    std::memcpy(&b, &v, sizeof v);
    return b;
}
template <int Kind, class T, class I> inline T shuffle(const char *site, unsigned mask, T v, I arg, int width = 32)
{
    const uint64_t b = stm_sim_shuffle(mask, bits(v), Kind, static_cast<int>(arg), width, site);
    T out;
    std::memcpy(&out, &b, sizeof out);
    return out;
}
template <class T> inline unsigned match_all(const char *site, unsigned mask, T v, int *all)
{
    const unsigned m = stm_sim_vote(mask, 4, bits(v), site);
    *all = m != 0;
    return m;
}
template <class T, class F> inline T reduce(const char *site, unsigned mask, T v, F combine)
{
    T sum = v;
    bool first = true;
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        const T other = shuffle<0>(site, mask, v, lane);
        sum = first ? other : combine(sum, other);
        first = false;
    }
    return sum;
}
} // namespace stm_sim

#define __syncthreads() stm_sim_barrier(0, 0, STM_SIM_SITE)
#define __syncthreads_count(p) stm_sim_barrier_reduce(0, !!(p), STM_SIM_SITE)
#define __syncthreads_and(p) stm_sim_barrier_reduce(1, !!(p), STM_SIM_SITE)
#define __syncthreads_or(p) stm_sim_barrier_reduce(2, !!(p), STM_SIM_SITE)
#define __syncwarp(...) ::stm_sim::At{STM_SIM_SITE}.syncwarp(__VA_ARGS__)
#define __shfl_sync(...) ::stm_sim::shuffle<0>(STM_SIM_SITE, __VA_ARGS__)
#define __shfl_up_sync(...) ::stm_sim::shuffle<1>(STM_SIM_SITE, __VA_ARGS__)
#define __shfl_down_sync(...) ::stm_sim::shuffle<2>(STM_SIM_SITE, __VA_ARGS__)
#define __shfl_xor_sync(...) ::stm_sim::shuffle<3>(STM_SIM_SITE, __VA_ARGS__)
#define __ballot_sync(m, p) stm_sim_vote((m), 0, !!(p), STM_SIM_SITE)
#define __all_sync(m, p) static_cast<int>(stm_sim_vote((m), 1, !!(p), STM_SIM_SITE))
#define __any_sync(m, p) static_cast<int>(stm_sim_vote((m), 2, !!(p), STM_SIM_SITE))
#define __match_any_sync(m, v) stm_sim_vote((m), 3, ::stm_sim::bits(v), STM_SIM_SITE)
#define __match_all_sync(m, v, all) ::stm_sim::match_all(STM_SIM_SITE, (m), (v), (all))
#define __activemask() stm_sim_active()
#define __reduce_add_sync(m, v) ::stm_sim::reduce(STM_SIM_SITE, (m), (v), [](auto a, auto b) { return a + b; })
#define __reduce_min_sync(m, v) ::stm_sim::reduce(STM_SIM_SITE, (m), (v), [](auto a, auto b) { return a < b ? a : b; })
#define __reduce_max_sync(m, v) ::stm_sim::reduce(STM_SIM_SITE, (m), (v), [](auto a, auto b) { return a > b ? a : b; })
#define __reduce_or_sync(m, v) ::stm_sim::reduce(STM_SIM_SITE, (m), (v), [](auto a, auto b) { return a | b; })
#define __reduce_and_sync(m, v) ::stm_sim::reduce(STM_SIM_SITE, (m), (v), [](auto a, auto b) { return a & b; })
#define __threadfence() stm_sim_fence()
#define __threadfence_block() stm_sim_fence()
#define __threadfence_system() stm_sim_fence()
#define __trap() stm_sim_trap("__trap", STM_SIM_SITE)
#define __nanosleep(ns) ((void)(ns), STM_SPIN())
