/* One wrapper per PTX instruction of Ampere and later, for use in .cu files after stm_cuda.h; on the simulated devices each does
 * what the instruction does (tests/sim/shim/sim_sm80.h). Inline PTX stands in this header and in stm_sm90.h only.
 *
 *   stm_smem(p)                          a pointer into shared memory as the 32-bit address that PTX takes
 *   stm_cp_async<Bytes>(dst, src)        shared <- global, Bytes 4, 8 or 16, both aligned to it
 *   stm_cp_async_zfill<Bytes>(dst, src, valid)   the first `valid` bytes, zeros behind them
 *   stm_cp_async_commit(); stm_cp_async_wait<N>()
 *                                        all groups of this thread but the newest N are there; then a barrier, for the others
 *   stm_ldmatrix_x4(r, row), _x2, _x4_trans, _x2_trans
 *                                        8 x 8 matrices of 16-bit elements; lane i gives the address of row i%8 of matrix i/8
 *   stm_mma_m16n8k16(d, a, b, c, T())    one warp: d[16][8] = a[16][16] * b[16][8] + c, T = __half or __nv_bfloat16, sums in float
 *
 * Fragments of stm_mma_m16n8k16, lane l, g = l / 4, t = l % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16"):
 *   a[0] = A[g][2t..], a[1] = A[g + 8][2t..], a[2] = A[g][2t + 8..], a[3] = A[g + 8][2t + 8..]
 *   b[0] = B[2t..][g], b[1] = B[2t + 8..][g];   c, d: [0],[1] = C[g][2t..], [2],[3] = C[g + 8][2t..] */
#ifndef STM_KERNELS_STM_SM80_H
#define STM_KERNELS_STM_SM80_H
#include "stm_cuda.h"
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#ifdef STM_SIM
#include <sim_sm80.h>
#else

__device__ __forceinline__ uint32_t stm_smem(const void *p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

template <int Bytes> __device__ __forceinline__ void stm_cp_async_zfill(void *dst, const void *src, int valid)
{
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    if constexpr (Bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(stm_smem(dst)), "l"(src), "r"(valid) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(stm_smem(dst)), "l"(src), "r"(valid), "n"(Bytes)
                     : "memory");
}
template <int Bytes> __device__ __forceinline__ void stm_cp_async(void *dst, const void *src)
{
    stm_cp_async_zfill<Bytes>(dst, src, Bytes);
}
__device__ __forceinline__ void stm_cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void stm_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ __forceinline__ void stm_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(stm_smem(row)) : "memory");
}
__device__ __forceinline__ void stm_ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(stm_smem(row))
                 : "memory");
}
__device__ __forceinline__ void stm_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(stm_smem(row)) : "memory");
}
__device__ __forceinline__ void stm_ldmatrix_x2_trans(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(stm_smem(row))
                 : "memory");
}

__device__ __forceinline__ void stm_mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                                                 __half)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void stm_mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                                                 __nv_bfloat16)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

#endif
#endif
