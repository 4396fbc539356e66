/*
 * linear by cuBLASLt. The library is not linked: it is 500 MB that only encoders need, so it is opened when the first of them is.
 *
 * Its matrices go down columns: out^T [n][m] = w [n][k] x^T [k][m], where w as stored (rows of k) is k x n by columns, transposed.
 * So the bias, one value a row of out^T, is the library's epilogue, and so is GELU.
 */
#include "kernels/linear.h"

#include <dlfcn.h>
#include <string.h>

#include "device/cuda_module.h"

#if defined(__has_include)
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define HAVE_CUBLASLT 1
#endif
#endif

#ifdef HAVE_CUBLASLT

#define PINNED_ROWS 2048 /* what one choice for all m is made for: what follows it is batches of some thousand tokens */

/* Functions of the library. The Init functions of its header call these. */
#define FUNCTIONS(F)                         \
    F(cublasLtCreate)                        \
    F(cublasLtDestroy)                       \
    F(cublasLtGetStatusName)                 \
    F(cublasLtMatmul)                        \
    F(cublasLtMatmulAlgoGetHeuristic)        \
    F(cublasLtMatmulDescInit_internal)       \
    F(cublasLtMatmulDescSetAttribute)        \
    F(cublasLtMatmulPreferenceInit_internal) \
    F(cublasLtMatmulPreferenceSetAttribute)  \
    F(cublasLtMatrixLayoutInit_internal)
typedef struct blas {
#define F(NAME) __typeof__(&NAME) NAME;
    FUNCTIONS(F)
#undef F
} blas;

/* What a choice depends on. No padding: compared byte by byte. */
typedef struct plan_key {
    int64_t m, n, k, ldx, ldw, ldo; /* m 0: any */
    int32_t type, act, bias, unused;
} plan_key;

typedef struct plan {
    plan_key key;
    uint64_t used; /* when last; 0 = free */
    size_t workspace_bytes;
    cublasLtMatmulAlgo_t algo;
} plan;

struct stm_linear {
    stm_linear_opts opts;
    blas f;
    cublasLtHandle_t handle;
    uint64_t clock;
    plan plans[STM_LINEAR_PLANS];
};

static mill_status status_of(cublasStatus_t code)
{
    switch (code) {
    case CUBLAS_STATUS_SUCCESS: return MILL_OK;
    case CUBLAS_STATUS_ALLOC_FAILED: return MILL_ERR_DEVICE_MEM;
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_ARCH_MISMATCH: return MILL_ERR_UNSUPPORTED;
    case CUBLAS_STATUS_INVALID_VALUE: return MILL_ERR_STEP;
    default: return MILL_ERR_DEVICE; /* not known to leave the device well */
    }
}

static mill_status check(const stm_linear *l, cublasStatus_t code, const char *what, int line, mill_error *err)
{
    const mill_status st = status_of(code);

    if (st == MILL_OK) return MILL_OK;
    return stm_cuda_host->fail(err, st, __FILE__, line, "%s: %s", what, l->f.cublasLtGetStatusName(code));
}
/* A call, or the failure that a test asked for in its place. */
#define TRY(CALL, WHAT) check(l, stm_cuda_host->fault() ? CUBLAS_STATUS_INVALID_VALUE : l->f.CALL, (WHAT), __LINE__, err)

static mill_status find_functions(blas *f, mill_error *err)
{
    void *library = stm_cuda_host->library("libcublasLt.so.13", err);

    if (library == NULL) return MILL_ERR_UNSUPPORTED;
#define F(NAME)                                 \
    *(void **)&f->NAME = dlsym(library, #NAME); \
    if (f->NAME == NULL)                        \
        return stm_cuda_host->fail(err, MILL_ERR_UNSUPPORTED, __FILE__, __LINE__, "libcublasLt.so.13 has no %s", #NAME);
    FUNCTIONS(F)
#undef F
    return MILL_OK;
}

mill_status stm_linear_open_cuda(const stm_linear_opts *o, stm_linear **out, mill_error *err)
{
    stm_linear *l = stm_cuda_host->calloc(sizeof *l);
    mill_status st;

    if (l == NULL) return stm_cuda_host->fail(err, MILL_ERR_NOMEM, __FILE__, __LINE__, "out of memory for products");
    l->opts = *o;
    st = find_functions(&l->f, err);
    if (st == MILL_OK) st = TRY(cublasLtCreate(&l->handle), "opening cuBLASLt");
    if (st != MILL_OK) {
        stm_cuda_host->free(l);
        return st;
    }
    *out = l;
    return MILL_OK;
}

void stm_linear_close_cuda(stm_linear **pl)
{
    stm_linear *l = *pl;

    if (l == NULL) return;
    *pl = NULL;
    (void)l->f.cublasLtDestroy(l->handle);
    stm_cuda_host->free(l);
}

/* A product as the library wants it, in the caller's storage. */
typedef struct product {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t w, x, out;
} product;

static mill_status describe(stm_linear *l, const stm_linear_args *a, int64_t m, product *p, mill_error *err)
{
    static const cudaDataType types[] = {[STM_F32] = CUDA_R_32F, [STM_BF16] = CUDA_R_16BF, [STM_F16] = CUDA_R_16F};
    const cudaDataType t = types[a->type];
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = a->act == STM_LINEAR_GELU_TANH
                                            ? (a->bias != NULL ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU)
                                            : (a->bias != NULL ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
    cublasStatus_t s = l->f.cublasLtMatmulDescInit_internal(&p->desc, sizeof p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);

#define SET(ATTRIBUTE, VALUE) \
    if (s == CUBLAS_STATUS_SUCCESS) s = l->f.cublasLtMatmulDescSetAttribute(&p->desc, (ATTRIBUTE), &(VALUE), sizeof(VALUE))
    SET(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (a->bias != NULL) SET(CUBLASLT_MATMUL_DESC_BIAS_POINTER, a->bias);
#undef SET
    if (s == CUBLAS_STATUS_SUCCESS)
        s = l->f.cublasLtMatrixLayoutInit_internal(&p->w, sizeof p->w, t, (uint64_t)a->k, (uint64_t)a->n, a->ldw);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = l->f.cublasLtMatrixLayoutInit_internal(&p->x, sizeof p->x, t, (uint64_t)a->k, (uint64_t)m, a->ldx);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = l->f.cublasLtMatrixLayoutInit_internal(&p->out, sizeof p->out, t, (uint64_t)a->n, (uint64_t)m, a->ldo);
    return check(l, s, "describing a product", __LINE__, err);
}

/* The library's first choice for a product of m rows. */
static mill_status choose(stm_linear *l, const stm_linear_args *a, int64_t m, plan *out, mill_error *err)
{
    const uint32_t aligned = 16, no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    const uint64_t room = l->opts.invariant ? 0 : l->opts.workspace_bytes;
    cublasLtMatmulPreferenceOpaque_t wish;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    product p;
    mill_status st = describe(l, a, m, &p, err);
    cublasStatus_t s = st == MILL_OK ? l->f.cublasLtMatmulPreferenceInit_internal(&wish, sizeof wish) : CUBLAS_STATUS_SUCCESS;

    if (st != MILL_OK) return st;
#define SET(ATTRIBUTE, VALUE) \
    if (s == CUBLAS_STATUS_SUCCESS) s = l->f.cublasLtMatmulPreferenceSetAttribute(&wish, (ATTRIBUTE), &(VALUE), sizeof(VALUE))
    SET(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, room);
    if (l->opts.invariant) SET(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, no_reduction);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned);
#undef SET
    st = check(l, s, "saying how a product may be computed", __LINE__, err);
    if (st == MILL_OK)
        st = TRY(cublasLtMatmulAlgoGetHeuristic(l->handle, &p.desc, &p.w, &p.x, &p.out, &p.out, &wish, 1, &found, &n),
                 "choosing how to multiply");
    if (st == MILL_OK && n == 0)
        st = stm_cuda_host->fail(err, MILL_ERR_UNSUPPORTED, __FILE__, __LINE__, "cuBLASLt has no product of %lld x %lld x %lld",
                                 (long long)m, (long long)a->n, (long long)a->k);
    if (st != MILL_OK) return st;
    out->algo = found.algo;
    out->workspace_bytes = found.workspaceSize;
    return MILL_OK;
}

static mill_status plan_for(stm_linear *l, const stm_linear_args *a, plan **out, mill_error *err)
{
    const plan_key key = {.m = l->opts.invariant ? 0 : a->m,
                          .n = a->n,
                          .k = a->k,
                          .ldx = a->ldx,
                          .ldw = a->ldw,
                          .ldo = a->ldo,
                          .type = a->type,
                          .act = a->act,
                          .bias = a->bias != NULL};
    plan *oldest = &l->plans[0];
    mill_status st;

    l->clock++;
    for (int i = 0; i < STM_LINEAR_PLANS; i++) {
        plan *p = &l->plans[i];
        if (p->used != 0 && memcmp(&p->key, &key, sizeof key) == 0) {
            p->used = l->clock;
            *out = p;
            return MILL_OK;
        }
        if (p->used < oldest->used) oldest = p;
    }
    oldest->used = 0; /* not half a plan when this fails */
    if ((st = choose(l, a, l->opts.invariant ? PINNED_ROWS : a->m, oldest, err)) != MILL_OK) return st;
    oldest->key = key;
    oldest->used = l->clock;
    *out = oldest;
    return MILL_OK;
}

mill_status stm_linear_cuda(stm_linear *l, const stm_linear_args *a, void *stream, mill_error *err)
{
    const float one = 1.0f, zero = 0.0f;
    product p;
    plan *how;
    mill_status st;

    if (!stm_linear_fits(a))
        return stm_cuda_host->fail(err, MILL_ERR_INVALID, __FILE__, __LINE__, "a product that the contract excludes");
    if (a->m == 0) return MILL_OK;
    st = plan_for(l, a, &how, err);
    if (st == MILL_OK) st = describe(l, a, a->m, &p, err);
    if (st != MILL_OK) return st;
    return TRY(cublasLtMatmul(l->handle, &p.desc, &one, a->w, &p.w, a->x, &p.x, &zero, a->out, &p.out, a->out, &p.out, &how->algo,
                              how->workspace_bytes > 0 ? l->opts.workspace : NULL, how->workspace_bytes, stream),
               "multiplying matrices");
}

#else

mill_status stm_linear_open_cuda(const stm_linear_opts *o, stm_linear **out, mill_error *err)
{
    (void)o, (void)out;
    return stm_cuda_host->fail(err, MILL_ERR_UNSUPPORTED, __FILE__, __LINE__,
                               "the CUDA module was built without the headers of cuBLASLt");
}
void stm_linear_close_cuda(stm_linear **l) { *l = NULL; }
mill_status stm_linear_cuda(stm_linear *l, const stm_linear_args *a, void *stream, mill_error *err)
{
    (void)l, (void)a, (void)stream, (void)err;
    return MILL_ERR_UNSUPPORTED;
}

#endif
