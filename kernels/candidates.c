#include "kernels/candidates.h"

#include <string.h>

#include "core/alloc.h"
#include "kernels/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* ---- scan ---- */

static int64_t scan_from(const float *s, int64_t from, int64_t n, float cut, int32_t *out, int64_t found)
{
    for (int64_t i = from; i < n; i++)
        if (s[i] >= cut) out[found++] = (int32_t)i;
    return found;
}

int64_t stm_scan_above_ref(const float *s, int64_t n, float cut, int32_t *out)
{
    return scan_from(s, 0, n, cut, out, 0);
}

/* Nearly every stretch of 64 scores holds nothing: the test for that is one branch. */
#if defined(__x86_64__)
__attribute__((target("avx512f"))) static int64_t scan_avx512(const float *s, int64_t n, float cut, int32_t *out)
{
    const __m512 c = _mm512_set1_ps(cut);
    int64_t i = 0, found = 0;

    for (; i + 64 <= n; i += 64) {
        uint64_t m = (uint64_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(s + i), c, _CMP_GE_OQ) |
                     (uint64_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(s + i + 16), c, _CMP_GE_OQ) << 16 |
                     (uint64_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(s + i + 32), c, _CMP_GE_OQ) << 32 |
                     (uint64_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(s + i + 48), c, _CMP_GE_OQ) << 48;
        for (; __builtin_expect(m != 0, 0); m &= m - 1) out[found++] = (int32_t)(i + __builtin_ctzll(m));
    }
    return scan_from(s, i, n, cut, out, found);
}

__attribute__((target("avx2"))) static int64_t scan_avx2(const float *s, int64_t n, float cut, int32_t *out)
{
    const __m256 c = _mm256_set1_ps(cut);
    int64_t i = 0, found = 0;

    for (; i + 32 <= n; i += 32) {
        uint32_t m = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(s + i), c, _CMP_GE_OQ)) |
                     (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(s + i + 8), c, _CMP_GE_OQ)) << 8 |
                     (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(s + i + 16), c, _CMP_GE_OQ)) << 16 |
                     (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(s + i + 24), c, _CMP_GE_OQ)) << 24;
        for (; __builtin_expect(m != 0, 0); m &= m - 1) out[found++] = (int32_t)(i + __builtin_ctz(m));
    }
    return scan_from(s, i, n, cut, out, found);
}
#endif

int64_t stm_scan_above(const float *s, int64_t n, float cut, int32_t *out)
{
#if defined(__x86_64__)
    const stm_cpu_level level = stm_cpu();

    if (level >= STM_CPU_AVX512) return scan_avx512(s, n, cut, out);
    if (level >= STM_CPU_AVX2) return scan_avx2(s, n, cut, out);
#endif
    return scan_from(s, 0, n, cut, out, 0);
}

/* ---- candidates ---- */

mill_status stm_candidates_reset(stm_candidates *c, int64_t k, float floor)
{
    const int64_t want = 2 * k + 64;

    if (c->cap < want) {
        stm_candidate *grown = stm_realloc(c->items, (size_t)want * sizeof *grown);
        if (grown == NULL) return MILL_ERR_NOMEM;
        c->items = grown;
        c->cap = want;
    }
    c->n = 0;
    c->cut = floor;
    return MILL_OK;
}

void stm_candidates_fini(stm_candidates *c)
{
    stm_free(c->items);
    memset(c, 0, sizeof *c);
}

static void swap(stm_candidate *a, stm_candidate *b)
{
    const stm_candidate t = *a;
    *a = *b;
    *b = t;
}

/* Reorder so that the k best come first, the worst of them at k - 1. 1 <= k <= n. Hoare's partition with the middle of three. */
static void best_first(stm_candidate *v, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n - 1;
    const int64_t at = k - 1;

    while (lo < hi) {
        const int64_t mid = lo + (hi - lo) / 2;
        int64_t i = lo, j = hi;

        if (v[mid].score > v[lo].score) swap(&v[mid], &v[lo]);
        if (v[hi].score > v[lo].score) swap(&v[hi], &v[lo]);
        if (v[hi].score > v[mid].score) swap(&v[hi], &v[mid]);
        const float pivot = v[mid].score;
        while (i <= j) {
            while (v[i].score > pivot) i++;
            while (v[j].score < pivot) j--;
            if (i <= j) swap(&v[i++], &v[j--]);
        }
        if (at <= j)
            hi = j;
        else if (at >= i)
            lo = i;
        else
            return;
    }
}

void stm_candidates_cut_back(stm_candidates *c, int64_t k, float margin)
{
    int64_t kept = k;
    float cut;

    if (c->n < k || k < 1) return;
    best_first(c->items, c->n, k);
    cut = c->items[k - 1].score - margin;
    if (cut > c->cut) c->cut = cut;
    for (int64_t i = k; i < c->n; i++)
        if (c->items[i].score >= c->cut) c->items[kept++] = c->items[i];
    c->n = kept;
}

mill_status stm_candidates_add(stm_candidates *c, int64_t k, float margin, int64_t row, float score)
{
    if (c->n == c->cap) {
        stm_candidates_cut_back(c, k, margin);
        if (c->n > c->cap / 4 * 3) { /* many near the cut: without growing, every few appends would cut back */
            stm_candidate *grown = stm_realloc(c->items, (size_t)c->cap * 2 * sizeof *grown);
            if (grown != NULL) {
                c->items = grown;
                c->cap *= 2;
            } else if (c->n == c->cap) {
                return MILL_ERR_NOMEM;
            }
        }
        if (score < c->cut) return MILL_OK;
    }
    c->items[c->n++] = (stm_candidate){row, score};
    return MILL_OK;
}
