#include "kernels/gemm.h"
#include "kernels/gemm_gelu.h"

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

static int64_t panels_of(int64_t n) { return (n + STM_GEMM_PANEL - 1) / STM_GEMM_PANEL; }

static int64_t padded(stm_gemm_type type, int64_t k)
{
    return type == STM_GEMM_F32 ? k : (k + STM_GEMM_PAIRS - 1) / STM_GEMM_PAIRS * STM_GEMM_PAIRS;
}

size_t stm_gemm_packed_bytes(stm_gemm_type type, int64_t n, int64_t k)
{
    const size_t value = type == STM_GEMM_F32 ? sizeof(float) : sizeof(uint16_t);

    if (n < 1 || k < 1 || n > INT32_MAX || k > INT32_MAX) return 0;
    return ((size_t)(panels_of(n) * STM_GEMM_PANEL * padded(type, k)) * value + WEIGHT_ALIGN - 1) / WEIGHT_ALIGN * WEIGHT_ALIGN;
}

void *stm_gemm_packed_memory(size_t bytes)
{
    void *p = stm_aligned(bytes, bytes >= HUGE_BYTES ? HUGE_BYTES : WEIGHT_ALIGN);

    /* Fewer page faults while packing and fewer TLB misses ever after; a refusal is no matter. */
    if (p != NULL && bytes >= HUGE_BYTES) (void)madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

mill_status stm_gemm_pack_into(stm_gemm_type type, const float *b, const float *bias, int64_t n, int64_t k, void *to,
                               stm_gemm_weight **out, mill_error *err)
{
    stm_gemm_weight *w;

    if (stm_gemm_packed_bytes(type, n, k) == 0)
        return mill_fail(err, MILL_ERR_INVALID, "a weight matrix of %lld x %lld cannot be packed", (long long)n, (long long)k);
    if ((w = stm_calloc(sizeof *w)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a weight matrix");
    w->type = type, w->n = n, w->k = k;
    w->panels = panels_of(n);
    w->k_padded = padded(type, k);
    w->packed = to;
    w->bias = stm_aligned((size_t)(w->panels * STM_GEMM_PANEL) * sizeof(float), 64);
    if (w->bias == NULL) {
        stm_gemm_unpack(&w);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a weight matrix of %lld x %lld", (long long)n, (long long)k);
    }
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

mill_status stm_gemm_pack(stm_gemm_type type, const float *b, const float *bias, int64_t n, int64_t k, stm_gemm_weight **out,
                          mill_error *err)
{
    const size_t bytes = stm_gemm_packed_bytes(type, n, k);
    void *own = bytes > 0 ? stm_gemm_packed_memory(bytes) : NULL;
    mill_status st;

    if (own == NULL && bytes > 0)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a weight matrix of %lld x %lld", (long long)n, (long long)k);
    if ((st = stm_gemm_pack_into(type, b, bias, n, k, own, out, err)) != MILL_OK) {
        stm_free(own);
        return st;
    }
    (*out)->own = own;
    return MILL_OK;
}

void stm_gemm_unpack(stm_gemm_weight **w)
{
    if (*w == NULL) return;
    stm_free((*w)->own);
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

static mill_status out_of_range(mill_error *err, int64_t m, int64_t first, int64_t last)
{
    return mill_fail(err, MILL_ERR_INVALID, "matrix product of %lld rows, columns %lld to %lld: out of range", (long long)m,
                     (long long)first, (long long)last);
}

static bool columns_exist(const stm_gemm_weight *w, int64_t first, int64_t count)
{
    return first % STM_GEMM_PANEL == 0 && first >= 0 && count >= 1 && first + count <= w->n &&
           (count % STM_GEMM_PANEL == 0 || first + count == w->n);
}

mill_status stm_gemm_run_columns(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m,
                                 int64_t first, int64_t count, float *c, int64_t ldc, mill_error *err)
{
    stm_gemm_part g = {w, a,           lda, m,  first / STM_GEMM_PANEL, (first + count + STM_GEMM_PANEL - 1) / STM_GEMM_PANEL,
                       0, w->k_padded, c,   ldc};
    stm_gemm_form *form;
    mill_status st;

    if (m < 0 || lda < w->k || ldc < count || !columns_exist(w, first, count)) return out_of_range(err, m, first, first + count);
    if (m == 0) return MILL_OK;
    form = form_of(w->type);
    if (w->k == w->k_padded) {
        form(&g);
        return MILL_OK;
    }
    if ((st = stm_gemm_scratch_reserve(s, w->k, err)) != MILL_OK) return st;
    for (int64_t i = 0; i < m; i += STM_GEMM_ROWS) {
        g.m = m - i < STM_GEMM_ROWS ? m - i : STM_GEMM_ROWS;
        pad_rows(w, s, (const uint16_t *)a + i * lda, lda, g.m);
        g.a = s->rows, g.lda = w->k_padded, g.c = c + i * ldc;
        form(&g);
    }
    return MILL_OK;
}

mill_status stm_gemm_run(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m, float *c,
                         int64_t ldc, mill_error *err)
{
    return stm_gemm_run_columns(w, s, a, lda, m, 0, w->n, c, ldc, err);
}

int64_t stm_gemm_slice(const stm_gemm_weight *w, int64_t k)
{
    if (w->k != w->k_padded || k >= w->k) return w->k;
    return k < STM_GEMM_PAIRS ? STM_GEMM_PAIRS : k / STM_GEMM_PAIRS * STM_GEMM_PAIRS;
}

mill_status stm_gemm_run_slice(const stm_gemm_weight *w, stm_gemm_scratch *s, const void *a, int64_t lda, int64_t m, int64_t from,
                               int64_t to, float *c, int64_t ldc, mill_error *err)
{
    const stm_gemm_part g = {w, a, lda, m, 0, w->panels, from, to, c, ldc};

    if (from == 0 && to == w->k) return stm_gemm_run(w, s, a, lda, m, c, ldc, err);
    if (m < 0 || lda < to - from || ldc < w->n || w->k != w->k_padded || from < 0 || from >= to || to > w->k ||
        from % STM_GEMM_PAIRS != 0 || (to % STM_GEMM_PAIRS != 0 && to != w->k))
        return mill_fail(err, MILL_ERR_INVALID, "matrix product of %lld rows, slice %lld to %lld: out of range", (long long)m,
                         (long long)from, (long long)to);
    if (m > 0) form_of(w->type)(&g);
    return MILL_OK;
}

/* Columns whose f32 form is made before GELU reads it: so many that it stays in L1 and L2, and a multiple of the products'
 * blocks (48 columns in f32, 32 in bf16). A row of it is an odd number of cache lines. */
#define GELU_COLUMNS 192
#define GELU_LD (GELU_COLUMNS + 16)

size_t stm_gemm_gelu_scratch(int64_t rows)
{
    return (size_t)((rows + STM_GEMM_ROW_PAD - 1) / STM_GEMM_ROW_PAD * STM_GEMM_ROW_PAD * GELU_LD) * sizeof(float);
}

mill_status stm_gemm_run_gelu(const stm_gemm_gelu_args *a, mill_error *err)
{
    const stm_gemm_weight *w = a->w;
    mill_status st = MILL_OK;

    if (a->m < 0 || a->lda < w->k || a->ldo < a->count || !columns_exist(w, a->first, a->count))
        return out_of_range(err, a->m, a->first, a->first + a->count);
#if defined(__x86_64__)
    if (w->type == STM_GEMM_BF16 && w->k == w->k_padded && stm_cpu() >= STM_CPU_AMX) {
        const stm_gemm_part g = {
            w, a->a,        a->lda, a->m, a->first / STM_GEMM_PANEL, (a->first + a->count + STM_GEMM_PANEL - 1) / STM_GEMM_PANEL,
            0, w->k_padded, NULL,   0};
        if (a->m > 0) stm_gemm_gelu_amx(&g, a->kind, a->out, a->ldo);
        return MILL_OK;
    }
#endif
    for (int64_t done = 0; st == MILL_OK && done < a->count; done += GELU_COLUMNS) {
        const int64_t n = a->count - done < GELU_COLUMNS ? a->count - done : GELU_COLUMNS;
        const size_t value = w->type == STM_GEMM_F32 ? sizeof(float) : sizeof(uint16_t);
        const stm_gelu_args gelu = {.x = a->piece,
                                    .out = (char *)a->out + (size_t)done * value,
                                    .out_type = w->type,
                                    .kind = a->kind,
                                    .rows = a->m,
                                    .cols = n,
                                    .ldx = GELU_LD,
                                    .ldo = a->ldo};
        st = stm_gemm_run_columns(w, a->scratch, a->a, a->lda, a->m, a->first + done, n, a->piece, GELU_LD, err);
        if (st == MILL_OK) stm_gelu(&gelu);
    }
    return st;
}
