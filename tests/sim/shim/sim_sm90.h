// kernels/stm_sm90.h, simulated.
#pragma once

inline void stm_mbarrier_init(uint64_t *bar, int count)
{
    stm_sim_mbarrier_init(bar, static_cast<unsigned>(count), "stm_mbarrier_init");
}
inline void stm_mbarrier_expect(uint64_t *bar, uint32_t bytes) { stm_sim_mbarrier_arrive(bar, bytes, "stm_mbarrier_expect"); }
inline void stm_mbarrier_arrive(uint64_t *bar) { stm_sim_mbarrier_arrive(bar, 0, "stm_mbarrier_arrive"); }
inline void stm_mbarrier_wait(uint64_t *bar, int parity)
{
    stm_sim_mbarrier_wait(bar, static_cast<unsigned>(parity), "stm_mbarrier_wait");
}

inline void stm_tma_load_2d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y)
{
    const int at[2] = {x, y};
    stm_sim_tma_load(dst, reinterpret_cast<const stm_sim_tensor_map *>(map), bar, at, "stm_tma_load_2d");
}
inline void stm_fence_async() { stm_sim_fence_async(); }
inline void stm_tma_store_2d(const CUtensorMap *map, const void *src, int x, int y)
{
    const int at[2] = {x, y};
    stm_sim_tma_store(reinterpret_cast<const stm_sim_tensor_map *>(map), src, at, "stm_tma_store_2d");
}
inline void stm_tma_store_commit() { stm_sim_tma_store_commit(); }
template <int N> inline void stm_tma_store_wait() { stm_sim_tma_store_wait(N, "stm_tma_store_wait"); }

template <int N> inline void stm_registers_more()
{
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8 from 24 to 256");
    stm_sim_registers("stm_registers_more");
}
template <int N> inline void stm_registers_fewer()
{
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8 from 24 to 256");
    stm_sim_registers("stm_registers_fewer");
}

inline void stm_wgmma_fence() { stm_sim_wgmma_fence("stm_wgmma_fence"); }
inline void stm_wgmma_commit() { stm_sim_wgmma_commit(); }
template <int N> inline void stm_wgmma_wait() { stm_sim_wgmma_wait(N, "stm_wgmma_wait"); }
template <int N> inline void stm_wgmma_keep(float (&)[N]) {}
template <int N> inline void stm_wgmma_m64k16(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate, __half)
{
    static_assert(N == 8 || N == 16 || N == 32 || N == 64 || N == 128, "N is one of 8, 16, 32, 64, 128");
    stm_sim_wgmma(d, N, a, b, accumulate, 0, "stm_wgmma_m64k16");
}
template <int N> inline void stm_wgmma_m64k16(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate, __nv_bfloat16)
{
    static_assert(N == 8 || N == 16 || N == 32 || N == 64 || N == 128, "N is one of 8, 16, 32, 64, 128");
    stm_sim_wgmma(d, N, a, b, accumulate, 1, "stm_wgmma_m64k16");
}
