// kernels/stm_sm80.h, simulated.
#pragma once

static inline uint32_t stm_smem(const void *p)
{
    return static_cast<uint32_t>(static_cast<const char *>(p) - static_cast<const char *>(stm_sim_self->shared));
}

// A wrapper cannot tell its caller's line; findings name the thread and the instruction.
template <int Bytes> inline void stm_cp_async_zfill(void *dst, const void *src, int valid)
{
    stm_sim_cp_async(dst, src, Bytes, static_cast<unsigned>(valid), "stm_cp_async");
}
template <int Bytes> inline void stm_cp_async(void *dst, const void *src) { stm_cp_async_zfill<Bytes>(dst, src, Bytes); }
inline void stm_cp_async_commit() { stm_sim_cp_async_commit(); }
template <int N> inline void stm_cp_async_wait() { stm_sim_cp_async_wait(N, "stm_cp_async_wait"); }

namespace stm_sim {
// Matrix m of the instruction has its rows at the addresses that lanes 8m .. 8m + 7 gave.
template <int Count> inline void ldmatrix(uint32_t *r, const void *row, bool transposed, const char *site)
{
    const void *rows[32];
    if (reinterpret_cast<uintptr_t>(row) % 16) stm_sim_trap("ldmatrix: a row is not aligned to 16 bytes", site);
    stm_sim_exchange(row, rows, site);
    const int lane = stm_sim_self->lane;
    for (int m = 0; m < Count; m++) {
        uint16_t v[2];
        for (int e = 0; e < 2; e++) {
            const int i = transposed ? 2 * (lane % 4) + e : lane / 4, j = transposed ? lane / 4 : 2 * (lane % 4) + e;
            v[e] = static_cast<const uint16_t *>(rows[8 * m + i])[j];
        }
        r[m] = v[0] | uint32_t(v[1]) << 16;
    }
}
template <class T> inline float element(const uint32_t *r, int i)
{
    const uint16_t bits = static_cast<uint16_t>(r[i / 2] >> (i % 2 * 16));
    T v;
    std::memcpy(static_cast<void *>(&v), &bits, sizeof v);
    return static_cast<float>(v);
}
template <class T> inline void mma_m16n8k16(float *d, const uint32_t *a, const uint32_t *b, const float *c, const char *site)
{
    struct Operands {
        uint32_t a[4], b[2];
    } mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const void *all[32];
    stm_sim_exchange(&mine, all, site);
    const int g = stm_sim_self->lane / 4, t = stm_sim_self->lane % 4;
    float out[4];
    for (int e = 0; e < 4; e++) {
        const int row = g + 8 * (e / 2), col = 2 * t + e % 2;
        float sum = c[e];
        for (int k = 0; k < 16; k++) {
            // A[row][k] is with lane (row % 8) * 4 + k % 8 / 2, element k % 2 of register row / 8 + 2 (k / 8)
            const auto *pa = static_cast<const Operands *>(all[row % 8 * 4 + k % 8 / 2]);
            const auto *pb = static_cast<const Operands *>(all[col * 4 + k % 8 / 2]);
            sum += element<T>(pa->a, 2 * (row / 8 + 2 * (k / 8)) + k % 2) * element<T>(pb->b, 2 * (k / 8) + k % 2);
        }
        out[e] = sum;
    }
    stm_sim_syncwarp(~0u, site); // all have read before `mine` goes
    for (int e = 0; e < 4; e++) d[e] = out[e];
}
} // namespace stm_sim

inline void stm_ldmatrix_x4(uint32_t (&r)[4], const void *row) { ::stm_sim::ldmatrix<4>(r, row, false, "stm_ldmatrix_x4"); }
inline void stm_ldmatrix_x2(uint32_t (&r)[2], const void *row) { ::stm_sim::ldmatrix<2>(r, row, false, "stm_ldmatrix_x2"); }
inline void stm_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    ::stm_sim::ldmatrix<4>(r, row, true, "stm_ldmatrix_x4_trans");
}
inline void stm_ldmatrix_x2_trans(uint32_t (&r)[2], const void *row)
{
    ::stm_sim::ldmatrix<2>(r, row, true, "stm_ldmatrix_x2_trans");
}
template <class T>
inline void stm_mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], T)
{
    ::stm_sim::mma_m16n8k16<T>(d, a, b, c, "stm_mma_m16n8k16");
}
