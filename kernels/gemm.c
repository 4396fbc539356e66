#include "kernels/gemm.h"

#include <string.h>
#include <sys/mman.h>

#include "core/alloc.h"
#include "kernels/bf16.h"
#include "kernels/cpu.h"
#include "kernels/gemm_forms.h"

#define WEIGHT_ALIGN 4096
#define HUGE_BYTES ((size_t)2 << 20)

/* Rows of a for weights whose k is not a multiple of 32 are copied here with zeros behind them: NaN past a row's end
 * times a zero weight would be NaN. */
struct stm_gemm_scratch {
    uint16_t *rows; /* [STM_GEMM_ROWS][k_padded] of the widest weight so far */
    size_t values;
};

bool stm_gemm_supports(stm_gemm_type type)
{
    return type == STM_GEMM_F32 ? stm_cpu() >= STM_CPU_AVX2 : stm_cpu() >= STM_CPU_AVX512_BF16;
}

mill_status stm_gemm_pack(stm_gemm_type type, const float *b, const float *bias, int64_t n, int64_t k, stm_gemm_weight **out,
                          mill_error *err)
{
    const size_t value = type == STM_GEMM_F32 ? sizeof(float) : sizeof(uint16_t);
    stm_gemm_weight *w;

    if (n < 1 || k < 1 || n > INT32_MAX || k > INT32_MAX)
        return mill_fail(err, MILL_ERR_INVALID, "a weight matrix of %lld x %lld cannot be packed", (long long)n, (long long)k);
    if ((w = stm_calloc(sizeof *w)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a weight matrix");
    w->type = type, w->n = n, w->k = k;
    w->panels = (n + STM_GEMM_PANEL - 1) / STM_GEMM_PANEL;
    w->k_padded = type == STM_GEMM_F32 ? k : (k + STM_GEMM_PAIRS - 1) / STM_GEMM_PAIRS * STM_GEMM_PAIRS;
    w->bytes = (size_t)(w->panels * STM_GEMM_PANEL * w->k_padded) * value;
    w->packed = stm_aligned(w->bytes, w->bytes >= HUGE_BYTES ? HUGE_BYTES : WEIGHT_ALIGN);
    w->bias = stm_aligned((size_t)(w->panels * STM_GEMM_PANEL) * sizeof(float), 64);
    if (w->packed == NULL || w->bias == NULL) {
        stm_gemm_unpack(&w);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a weight matrix of %lld x %lld", (long long)n, (long long)k);
    }
    /* Fewer page faults while packing and fewer TLB misses ever after; a refusal is no matter. */
    if (w->bytes >= HUGE_BYTES) (void)madvise(w->packed, w->bytes, MADV_HUGEPAGE);
    memset(w->bias, 0, (size_t)(w->panels * STM_GEMM_PANEL) * sizeof(float));
    if (bias != NULL) memcpy(w->bias, bias, (size_t)n * sizeof(float));
    for (int64_t p = 0; p < w->panels; p++) {
        const float *rows = b + p * STM_GEMM_PANEL * k;
        if (type == STM_GEMM_F32)
            stm_gemm_pack_f32(rows, k, stm_gemm_cols(w, p), (float *)w->packed + p * STM_GEMM_PANEL * k);
        else
            stm_gemm_pack_bf16(rows, k, stm_gemm_cols(w, p), (uint16_t *)w->packed + p * STM_GEMM_PANEL * w->k_padded);
    }
    *out = w;
    return MILL_OK;
}

void stm_gemm_unpack(stm_gemm_weight **w)
{
    if (*w == NULL) return;
    stm_free((*w)->packed);
    stm_free((*w)->bias);
    stm_free(*w);
    *w = NULL;
}

mill_status stm_gemm_scratch_create(stm_gemm_scratch **out, mill_error *err)
{
    stm_gemm_scratch *s = stm_calloc(sizeof *s);

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for scratch of a matrix product");
    *out = s;
    return MILL_OK;
}

void stm_gemm_scratch_destroy(stm_gemm_scratch **s)
{
    if (*s == NULL) return;
    stm_free((*s)->rows);
    stm_free(*s);
    *s = NULL;
}

mill_status stm_gemm_scratch_reserve(stm_gemm_scratch *s, int64_t k, mill_error *err)
{
    const size_t need = (size_t)(STM_GEMM_ROWS * ((k + STM_GEMM_PAIRS - 1) / STM_GEMM_PAIRS * STM_GEMM_PAIRS));
    uint16_t *rows;

    if (s->values >= need) return MILL_OK;
    rows = stm_aligned(need * sizeof *rows, 64);
    if (rows == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for scratch of a matrix product");
    stm_free(s->rows);
    memset(rows, 0, need * sizeof *rows);
    s->rows = rows, s->values = need;
    return MILL_OK;
}

static void pad_rows(const stm_gemm_weight *w, stm_gemm_scratch *s, const uint16_t *a, int64_t lda, int64_t m)
{
    for (int64_t i = 0; i < m; i++) {
        memcpy(s->rows + i * w->k_padded, a + i * lda, (size_t)w->k * sizeof *a);
        memset(s->rows + i * w->k_padded + w->k, 0, (size_t)(w->k_padded - w->k) * sizeof *a);
    }
}

static stm_gemm_form *form_of(stm_gemm_type type)
{
    const stm_cpu_level level = stm_cpu();

#if defined(__x86_64__)
    if (type == STM_GEMM_F32) {
        if (level >= STM_CPU_AVX512) return stm_gemm_f32_avx512;
        if (level >= STM_CPU_AVX2) return stm_gemm_f32_avx2;
    } else {
        if (level >= STM_CPU_AMX) return stm_gemm_bf16_amx;
        if (level >= STM_CPU_AVX512_BF16) return stm_gemm_bf16_avx512;
        if (level >= STM_CPU_AVX2) return stm_gemm_bf16_avx2;
    }
#else
    (void)level;
#endif
    return type == STM_GEMM_F32 ? stm_gemm_f32_generic : stm_gemm_bf16_generic;
}

mill_status stm_gemm_run_columns(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m,
                                 int64_t first, int64_t count, float *c, int64_t ldc, mill_error *err)
{
    const int64_t panel = first / STM_GEMM_PANEL, last = (first + count + STM_GEMM_PANEL - 1) / STM_GEMM_PANEL;
    stm_gemm_form *form;
    mill_status st;

    if (m < 0 || lda < w->k || ldc < count || first % STM_GEMM_PANEL != 0 || first < 0 || count < 1 || first + count > w->n ||
        (count % STM_GEMM_PANEL != 0 && first + count != w->n))
        return mill_fail(err, MILL_ERR_INVALID, "matrix product of %lld rows, columns %lld to %lld: out of range", (long long)m,
                         (long long)first, (long long)(first + count));
    if (m == 0) return MILL_OK;
    form = form_of(w->type);
    if (w->k == w->k_padded) {
        form(w, a, lda, m, panel, last, c, ldc);
        return MILL_OK;
    }
    if ((st = stm_gemm_scratch_reserve(s, w->k, err)) != MILL_OK) return st;
    for (int64_t i = 0; i < m; i += STM_GEMM_ROWS) {
        const int64_t rows = m - i < STM_GEMM_ROWS ? m - i : STM_GEMM_ROWS;
        pad_rows(w, s, (const uint16_t *)a + i * lda, lda, rows);
        form(w, s->rows, w->k_padded, rows, panel, last, c + i * ldc, ldc);
    }
    return MILL_OK;
}

mill_status stm_gemm_run(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m, float *c,
                         int64_t ldc, mill_error *err)
{
    return stm_gemm_run_columns(w, s, a, lda, m, 0, w->n, c, ldc, err);
}
