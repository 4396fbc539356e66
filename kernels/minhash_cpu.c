/* Shingles are hashed 256 at a time, sixteen beside each other, then sixteen or thirty-two of the 128 numbers stay in registers
 * while all of them pass. */
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

/* stm_shingle for LANES windows that begin at consecutive bytes. */
static inline __attribute__((always_inline)) void hash_lanes(const uint8_t *s, int32_t width, uint32_t *out)
{
    typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1)));
    lanes h = (lanes){0} + 0x811c9dc5u;

    for (int32_t i = 0; i < width; i++) {
        bytes b;
        memcpy(&b, s + i, sizeof b);
        h = (h ^ __builtin_convertvector(b, lanes)) * 0x01000193u;
    }
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    h = h ^ h >> 16;
    memcpy(out, &h, sizeof h);
}

/* The shingles of n windows from s on; every byte of the last is there, none behind it is read. */
static inline __attribute__((always_inline)) void hash(const uint8_t *s, int32_t width, int64_t n, uint32_t *out)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES) hash_lanes(s + i, width, out + i);
    for (; i < n; i++) out[i] = stm_shingle(s + i, width);
}

/* The numbers of one text. */
static inline __attribute__((always_inline)) void text(const factors *f, const uint8_t *s, int64_t n, int32_t most, uint32_t *out)
{
    const int32_t width = n < most ? (int32_t)n : most;
    const int64_t all = n == 0 ? 0 : n - width + 1;
    uint32_t shingles[SHINGLES];

    memset(out, 0xff, STM_MINHASHES * sizeof *out);
    for (int64_t from = 0; from < all; from += SHINGLES) {
        const int64_t some = all - from < SHINGLES ? all - from : SHINGLES;
        hash(s + from, width, some, shingles);
        pass(f, shingles, some, out);
    }
}

static void text_generic(const factors *f, const uint8_t *s, int64_t n, int32_t most, uint32_t *out) { text(f, s, n, most, out); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void text_avx2(const factors *f, const uint8_t *s, int64_t n, int32_t most, uint32_t *out)
{
    text(f, s, n, most, out);
}
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) static void text_avx512(const factors *f, const uint8_t *s, int64_t n,
                                                                                      int32_t most, uint32_t *out)
{
    text(f, s, n, most, out);
}
#endif

mill_status stm_minhash_cpu(const stm_minhash_args *a)
{
    void (*run)(const factors *f, const uint8_t *s, int64_t n, int32_t most, uint32_t *out) = text_generic;
    factors f;

    if (!stm_minhash_fits(a)) return MILL_ERR_INVALID;
#if defined(__x86_64__)
    if (stm_cpu() >= STM_CPU_AVX512)
        run = text_avx512;
    else if (stm_cpu() >= STM_CPU_AVX2)
        run = text_avx2;
#endif
    for (int32_t j = 0; j < STM_MINHASHES; j++) {
        const uint64_t both = stm_minhash_factors(a->seed, j);
        f.a[j] = (uint32_t)(both >> 32) | 1u;
        f.b[j] = (uint32_t)both;
    }
    for (int64_t r = 0; r < a->rows; r++) {
        const int64_t n = a->offsets[r + 1] - a->offsets[r];
        run(&f, n > 0 ? a->bytes + a->offsets[r] : NULL, n, a->width, a->out + r * STM_MINHASHES);
    }
    return MILL_OK;
}
