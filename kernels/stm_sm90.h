/* One wrapper per PTX instruction of Hopper (compile for sm_90a), as in stm_sm80.h. Emulated for the simulated devices in
 * tests/sim/shim/sim_sm90.h; the emulation agrees with the PTX ISA as read, so a kernel is made the default only after it ran on
 * a device.
 *
 *   stm_mbarrier_init(bar, count); then a barrier of the block     bar: 8 bytes in shared memory
 *   stm_mbarrier_expect(bar, bytes)    arrives once, and announces bytes that TMA will bring
 *   stm_mbarrier_arrive(bar)           arrives
 *   stm_mbarrier_wait(bar, parity)     until phase `parity` is over; the first phase has parity 0. The kernel fails after
 *                                     2^28 tries: seconds at least, each may be suspended for a while
 *   stm_tma_load_2d(dst, map, bar, x, y)   a box of the tensor map into shared memory; x = innermost coordinate
 *   stm_tma_store_2d(map, src, x, y); stm_tma_store_commit(); stm_tma_store_wait<N>()     before it: stm_fence_async()
 *   stm_registers_more<N>(), stm_registers_fewer<N>()   a warpgroup: N registers a thread from here on, a multiple of 8 from 24
 *                                     to 256; the first waits until others of the block have let go of enough
 *   stm_wgmma_fence(); stm_wgmma_m64k16<N>(d, a, b, accumulate, T()); stm_wgmma_commit(); stm_wgmma_wait<N>(); stm_wgmma_keep(d)
 *        a warpgroup: d[64][N] (+)= a[64][16] * b[N][16]^T, N = 8, 16, 32, 64, 128; operands in shared memory, K-major, as
 *        stm_wgmma_desc(p) describes them for rows of 128 bytes with the 128-byte swizzle (tiles aligned to 1024 bytes), and
 *        stm_wgmma_desc_64(p) for rows of 64 bytes with the 64-byte swizzle (512 bytes). The fence comes before the first product
 *        and again after each wait; operands that plain stores or cp.async wrote need stm_fence_async() by who wrote them, then a
 *        barrier. stm_wgmma_keep: the compiler, which knows nothing of the wait, computes nothing with d ahead of it.
 *        Lane l of warp w holds d[e] = D[16 w + l/4 + 8 (e/2 % 2)][8 (e/4) + 2 (l % 4) + e % 2]; not to be read before the wait. */
#ifndef STM_KERNELS_STM_SM90_H
#define STM_KERNELS_STM_SM90_H
#include "stm_sm80.h"
#include <cuda.h>

/* Rows of 64 16-bit elements, groups of 8 rows 1024 bytes apart. The next 16 columns: + 2 (in units of 16 bytes). */
static __device__ __forceinline__ uint64_t stm_wgmma_desc(const void *p)
{
    return static_cast<uint64_t>((stm_smem(p) & 0x3ffff) >> 4) | (1ull << 16) | (static_cast<uint64_t>(1024 >> 4) << 32) |
           (1ull << 62);
}

/* Rows of 32 16-bit elements, groups of 8 rows 512 bytes apart. The next 16 columns: + 2. */
static __device__ __forceinline__ uint64_t stm_wgmma_desc_64(const void *p)
{
    return static_cast<uint64_t>((stm_smem(p) & 0x3ffff) >> 4) | (1ull << 16) | (static_cast<uint64_t>(512 >> 4) << 32) |
           (2ull << 62);
}

#ifdef STM_SIM
#include <sim_sm90.h>
#else

__device__ __forceinline__ void stm_mbarrier_init(uint64_t *bar, int count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(stm_smem(bar)), "r"(count) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void stm_mbarrier_expect(uint64_t *bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(stm_smem(bar)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void stm_mbarrier_arrive(uint64_t *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(stm_smem(bar)) : "memory");
}
__device__ __forceinline__ void stm_mbarrier_wait(uint64_t *bar, int parity)
{
    for (uint32_t tries = 0; tries >> 28 == 0; tries++) {
        uint32_t done;
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(stm_smem(bar)), "r"(parity)
                     : "memory");
        if (done) return;
    }
    __trap();
}

__device__ __forceinline__ void stm_tma_load_2d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            stm_smem(dst)),
        "l"(map), "r"(stm_smem(bar)), "r"(x), "r"(y)
        : "memory");
}
__device__ __forceinline__ void stm_fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void stm_tma_store_2d(const CUtensorMap *map, const void *src, int x, int y)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map), "r"(stm_smem(src)),
                 "r"(x), "r"(y)
                 : "memory");
}
__device__ __forceinline__ void stm_tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void stm_tma_store_wait()
{
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}

template <int N> __device__ __forceinline__ void stm_registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void stm_registers_fewer()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

__device__ __forceinline__ void stm_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void stm_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void stm_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
template <int N> __device__ __forceinline__ void stm_wgmma_keep(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* The instruction for one N and type: D = the list of registers, A, B, P = the numbers of the operands behind it. */
#define STM_WGMMA_(N, TYPE, D, A, B, P, ...)                                                                                      \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE      \
                 " {" D "}, " A ", " B ", p, 1, 1, 0, 0;\n}" : __VA_ARGS__ : "l"(a), "l"(b), "r"(accumulate))
#define STM_F4_(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define STM_F16_(i) STM_F4_(i), STM_F4_((i) + 4), STM_F4_((i) + 8), STM_F4_((i) + 12)
#define STM_D4_ "%0,%1,%2,%3"
#define STM_D8_ STM_D4_ ",%4,%5,%6,%7"
#define STM_D16_ STM_D8_ ",%8,%9,%10,%11,%12,%13,%14,%15"
#define STM_D32_ STM_D16_ ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define STM_D64_                                                                                                                   \
    STM_D32_ ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,"   \
             "%60,%61,%62,%63"

#define STM_WGMMA_FORMS_(T, TYPE)                                                                                                  \
    template <int N> __device__ __forceinline__ void stm_wgmma_m64k16(float(&d)[N / 2], uint64_t a, uint64_t b, int accumulate, T) \
    {                                                                                                                              \
        static_assert(N == 8 || N == 16 || N == 32 || N == 64 || N == 128, "N is one of 8, 16, 32, 64, 128");                      \
        if constexpr (N == 8) STM_WGMMA_(8, TYPE, STM_D4_, "%4", "%5", "%6", STM_F4_(0));                                          \
        if constexpr (N == 16) STM_WGMMA_(16, TYPE, STM_D8_, "%8", "%9", "%10", STM_F4_(0), STM_F4_(4));                           \
        if constexpr (N == 32) STM_WGMMA_(32, TYPE, STM_D16_, "%16", "%17", "%18", STM_F16_(0));                                   \
        if constexpr (N == 64) STM_WGMMA_(64, TYPE, STM_D32_, "%32", "%33", "%34", STM_F16_(0), STM_F16_(16));                     \
        if constexpr (N == 128)                                                                                                    \
            STM_WGMMA_(128, TYPE, STM_D64_, "%64", "%65", "%66", STM_F16_(0), STM_F16_(16), STM_F16_(32), STM_F16_(48));           \
    }
STM_WGMMA_FORMS_(__half, "f16")
STM_WGMMA_FORMS_(__nv_bfloat16, "bf16")

#endif
#endif
