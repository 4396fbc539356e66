// nvcuda::wmma for the simulator, found ahead of the toolkit's. Lane l of a fragment holds the l-th 32nd of the matrix in row
// order: as on the device, which element lies where is nobody's business, except that accumulators of one shape agree.
#pragma once

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K> struct Shape;
template <int M, int N, int K> struct Shape<matrix_a, M, N, K> {
    static constexpr int rows = M, cols = K;
};
template <int M, int N, int K> struct Shape<matrix_b, M, N, K> {
    static constexpr int rows = K, cols = N;
};
template <int M, int N, int K> struct Shape<accumulator, M, N, K> {
    static constexpr int rows = M, cols = N;
};

template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment : Shape<Use, M, N, K> {
    static_assert((M == 16 && N == 16) || (M == 32 && N == 8) || (M == 8 && N == 32), "a shape of wmma");
    static constexpr int num_elements = Shape<Use, M, N, K>::rows * Shape<Use, M, N, K>::cols / 32;
    T x[num_elements];
    static int row(int i) { return (stm_sim_self->lane * num_elements + i) / Shape<Use, M, N, K>::cols; }
    static int col(int i) { return (stm_sim_self->lane * num_elements + i) % Shape<Use, M, N, K>::cols; }
};

template <class U, int M, int N, int K, class T, class L, class V>
inline void fill_fragment(fragment<U, M, N, K, T, L> &f, const V &v)
{
    for (T &e : f.x) e = static_cast<T>(v);
}

inline void check_pointer(const void *p, size_t stride_bytes, const char *site)
{
    if (reinterpret_cast<uintptr_t>(p) % 32) stm_sim_trap("wmma: a pointer that is not aligned to 32 bytes", site);
    if (stride_bytes % 16) stm_sim_trap("wmma: a leading dimension that is no multiple of 16 bytes", site);
}

template <class U, int M, int N, int K, class T, class L>
inline void load_matrix_sync(fragment<U, M, N, K, T, L> &f, const T *p, unsigned ld)
{
    check_pointer(p, ld * sizeof(T), "wmma::load_matrix_sync");
    stm_sim_syncwarp(~0u, "wmma::load_matrix_sync");
    for (int i = 0; i < f.num_elements; i++)
        f.x[i] = std::is_same_v<L, row_major> ? p[f.row(i) * ld + f.col(i)] : p[f.col(i) * ld + f.row(i)];
}
template <int M, int N, int K, class T>
inline void load_matrix_sync(fragment<accumulator, M, N, K, T> &f, const T *p, unsigned ld, layout_t layout)
{
    check_pointer(p, ld * sizeof(T), "wmma::load_matrix_sync");
    stm_sim_syncwarp(~0u, "wmma::load_matrix_sync");
    for (int i = 0; i < f.num_elements; i++)
        f.x[i] = layout == mem_row_major ? p[f.row(i) * ld + f.col(i)] : p[f.col(i) * ld + f.row(i)];
}
template <int M, int N, int K, class T>
inline void store_matrix_sync(T *p, const fragment<accumulator, M, N, K, T> &f, unsigned ld, layout_t layout)
{
    check_pointer(p, ld * sizeof(T), "wmma::store_matrix_sync");
    stm_sim_syncwarp(~0u, "wmma::store_matrix_sync");
    for (int i = 0; i < f.num_elements; i++)
        (layout == mem_row_major ? p[f.row(i) * ld + f.col(i)] : p[f.col(i) * ld + f.row(i)]) = f.x[i];
}

template <int M, int N, int K, class TA, class LA, class TB, class LB, class TC, class TD>
inline void mma_sync(fragment<accumulator, M, N, K, TD> &d, const fragment<matrix_a, M, N, K, TA, LA> &a,
                     const fragment<matrix_b, M, N, K, TB, LB> &b, const fragment<accumulator, M, N, K, TC> &c)
{
    struct Operands {
        const TA *a;
        const TB *b;
    } mine = {a.x, b.x};
    const void *all[32];
    stm_sim_exchange(&mine, all, "wmma::mma_sync");
    constexpr int per_a = M * K / 32, per_b = K * N / 32;
    TD out[M * N / 32];
    for (int i = 0; i < d.num_elements; i++) {
        float sum = static_cast<float>(c.x[i]);
        for (int k = 0; k < K; k++) {
            const int ea = d.row(i) * K + k, eb = k * N + d.col(i);
            sum += static_cast<float>(static_cast<const Operands *>(all[ea / per_a])->a[ea % per_a]) *
                   static_cast<float>(static_cast<const Operands *>(all[eb / per_b])->b[eb % per_b]);
        }
        out[i] = static_cast<TD>(sum);
    }
    stm_sim_syncwarp(~0u, "wmma::mma_sync"); // all have read before anybody's fragment changes
    for (int i = 0; i < d.num_elements; i++) d.x[i] = out[i];
}

} // namespace wmma
} // namespace nvcuda
