/* Shingles are hashed 256 at a time, then eight or sixteen of the 128 numbers stay in registers while all of them pass. */
#include <string.h>

#include "kernels/cpu.h"
#include "kernels/minhash.h"

enum { SHINGLES = 256, LANES = 16 };

typedef uint32_t lanes __attribute__((vector_size(LANES * sizeof(uint32_t)), aligned(4)));

typedef struct factors {
    uint32_t a[STM_MINHASHES], b[STM_MINHASHES];
} factors;

static inline __attribute__((always_inline)) void pass(const factors *f, const uint32_t *shingles, int64_t n, uint32_t *out)
{
    for (int j = 0; j < STM_MINHASHES; j += 2 * LANES) {
        lanes least[2], a[2], b[2];
        memcpy(least, out + j, sizeof least);
        memcpy(a, f->a + j, sizeof a);
        memcpy(b, f->b + j, sizeof b);
        for (int64_t i = 0; i < n; i++)
            for (int k = 0; k < 2; k++) {
                const lanes h = shingles[i] * a[k] + b[k];
                const lanes less = (lanes)(h < least[k]);
                least[k] = (h & less) | (least[k] & ~less);
            }
        memcpy(out + j, least, sizeof least);
    }
}

static void pass_generic(const factors *f, const uint32_t *shingles, int64_t n, uint32_t *out) { pass(f, shingles, n, out); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void pass_avx2(const factors *f, const uint32_t *shingles, int64_t n, uint32_t *out)
{
    pass(f, shingles, n, out);
}
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) static void pass_avx512(const factors *f, const uint32_t *shingles,
                                                                                      int64_t n, uint32_t *out)
{
    pass(f, shingles, n, out);
}
#endif

mill_status stm_minhash_cpu(const stm_minhash_args *a)
{
    void (*run)(const factors *f, const uint32_t *shingles, int64_t n, uint32_t *out) = pass_generic;
    uint32_t shingles[SHINGLES];
    factors f;

    if (!stm_minhash_fits(a)) return MILL_ERR_INVALID;
#if defined(__x86_64__)
    if (stm_cpu() >= STM_CPU_AVX512)
        run = pass_avx512;
    else if (stm_cpu() >= STM_CPU_AVX2)
        run = pass_avx2;
#endif
    for (int32_t j = 0; j < STM_MINHASHES; j++) {
        const uint64_t both = stm_minhash_factors(a->seed, j);
        f.a[j] = (uint32_t)(both >> 32) | 1u;
        f.b[j] = (uint32_t)both;
    }
    for (int64_t r = 0; r < a->rows; r++) {
        uint32_t *out = a->out + r * STM_MINHASHES;
        const int64_t n = a->offsets[r + 1] - a->offsets[r];
        const int32_t width = n < a->width ? (int32_t)n : a->width;
        const int64_t all = n == 0 ? 0 : n - width + 1;
        memset(out, 0xff, STM_MINHASHES * sizeof *out);
        for (int64_t from = 0; from < all; from += SHINGLES) {
            const int64_t some = all - from < SHINGLES ? all - from : SHINGLES;
            for (int64_t i = 0; i < some; i++) shingles[i] = stm_shingle(a->bytes + a->offsets[r] + from + i, width);
            run(&f, shingles, some, out);
        }
    }
    return MILL_OK;
}
