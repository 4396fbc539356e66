// libcublasLt.so.13 for simulated devices: descriptors, heuristics that give several algorithms, products with epilogues.
#include "gemm.h"
#include <cstring>
#include <cublasLt.h>

using namespace sim;

struct cublasLtContext {
    int device;
};

namespace {

// These lie in the caller's storage (…Init) or on the heap (…Create).
struct Layout {
    cudaDataType type;
    int32_t order, batch;
    uint64_t rows, cols;
    int64_t ld, stride;
};
struct Desc {
    cublasComputeType_t compute;
    cudaDataType scale;
    int32_t opa, opb, opc, pointers;
    uint32_t epilogue;
    int32_t bias_type; // -1: D's
    const void *bias;
};
struct Preference {
    uint64_t workspace;
    uint32_t align[4]; // A, B, C, D
};
struct Algo {
    uint32_t magic, id;
    uint64_t workspace; // bytes that it needs
    uint32_t align[4];
    uint32_t problem; // a hash of types, orders, transpositions, epilogue
};
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t) && sizeof(Desc) <= sizeof(cublasLtMatmulDescOpaque_t),
              "opaque sizes");
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t) && sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t),
              "opaque sizes");

const uint32_t kMagic = 0x51a160u;

template <class T, class O> T *inside(O *o) { return reinterpret_cast<T *>(o); }
template <class T, class O> const T *inside(const O *o) { return reinterpret_cast<const T *>(o); }

Handles handles("cublasLtHandle_t"), descriptors("descriptor of cublasLt");

// What the algorithms are: where they sum k in parts, they need room for the parts.
struct Way {
    int splits;
    bool reversed;
};
const Way kWays[] = {{1, false}, {2, false}, {4, true}, {1, true}};

struct Shapes {
    int64_t m, n, k;
};

// The dimensions of a product, or a status.
cublasStatus_t shapes(const Desc &d, const Layout &a, const Layout &b, const Layout &c, const Layout &out, Shapes *s)
{
    const bool ta = d.opa != CUBLAS_OP_N, tb = d.opb != CUBLAS_OP_N;
    s->m = static_cast<int64_t>(ta ? a.cols : a.rows);
    s->k = static_cast<int64_t>(ta ? a.rows : a.cols);
    s->n = static_cast<int64_t>(tb ? b.rows : b.cols);
    const int64_t k = static_cast<int64_t>(tb ? b.cols : b.rows);
    if (k != s->k || static_cast<int64_t>(out.rows) != s->m || static_cast<int64_t>(out.cols) != s->n)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (c.rows != out.rows || c.cols != out.cols || c.type != out.type || c.order != out.order) return CUBLAS_STATUS_INVALID_VALUE;
    for (const Layout *l : {&a, &b, &c, &out}) {
        if (l->batch != out.batch) return CUBLAS_STATUS_INVALID_VALUE;
        if (l->ld < static_cast<int64_t>(l->order == CUBLASLT_ORDER_COL ? l->rows : l->cols)) return CUBLAS_STATUS_INVALID_VALUE;
        if (l->order != CUBLASLT_ORDER_COL && l->order != CUBLASLT_ORDER_ROW) return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    bool tf32;
    if (a.type != b.type || !types_known(a.type, out.type, d.compute, &tf32) || d.scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d.opc != CUBLAS_OP_N || d.pointers != CUBLASLT_POINTER_MODE_HOST) return CUBLAS_STATUS_NOT_SUPPORTED;
    const uint32_t act = d.epilogue & ~static_cast<uint32_t>(CUBLASLT_EPILOGUE_BIAS);
    if (act != 0 && act != CUBLASLT_EPILOGUE_DEFAULT && act != CUBLASLT_EPILOGUE_RELU && act != CUBLASLT_EPILOGUE_GELU)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    // Epilogues go down columns; the real library has few of them for row order, so code must not count on them.
    if (d.epilogue != CUBLASLT_EPILOGUE_DEFAULT && out.order != CUBLASLT_ORDER_COL) return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((d.epilogue & CUBLASLT_EPILOGUE_BIAS) && d.bias_type >= 0 && d.bias_type != static_cast<int>(out.type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

uint32_t problem_hash(const Desc &d, const Layout &a, const Layout &b, const Layout &c, const Layout &out)
{
    uint32_t h = 2166136261u;
    for (uint32_t x : {static_cast<uint32_t>(d.compute), d.epilogue, static_cast<uint32_t>(d.opa), static_cast<uint32_t>(d.opb),
                       static_cast<uint32_t>(a.type), static_cast<uint32_t>(b.type), static_cast<uint32_t>(c.type),
                       static_cast<uint32_t>(out.type), static_cast<uint32_t>(a.order), static_cast<uint32_t>(b.order),
                       static_cast<uint32_t>(out.order)})
        h = (h ^ x) * 16777619u;
    return h;
}

size_t room(const Way &w, const Shapes &s, int batch)
{
    return w.splits > 1 ? static_cast<size_t>(s.m * s.n) * 4 * static_cast<size_t>(w.splits) * static_cast<size_t>(batch) : 0;
}

// The largest power of two, to 256, that divides the pointer.
uint32_t alignment(const void *p)
{
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    uint32_t a = 256;
    while (at % a) a /= 2;
    return a;
}

Operand operand(const char *name, const void *p, const Layout &l, int op)
{
    Operand o;
    const bool row = l.order == CUBLASLT_ORDER_ROW;
    o.name = name;
    o.p = p;
    o.type = l.type;
    o.line = static_cast<int64_t>(row ? l.cols : l.rows);
    o.lines = static_cast<int64_t>(row ? l.rows : l.cols);
    o.ld = l.ld;
    o.stride = l.batch > 1 ? l.stride : 0;
    o.across = row != (op != CUBLAS_OP_N);
    return o;
}

template <class T> cublasStatus_t put(T *to, const void *buf, size_t bytes)
{
    if (!buf || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, buf, sizeof(T));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t refuse(const char *what)
{
    Lock l;
    finding("%s", what);
    return CUBLAS_STATUS_INVALID_VALUE;
}

} // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out)
{
    if (cublasStatus_t s = enter_blas("cublasLtCreate", CUBLAS_STATUS_ALLOC_FAILED)) return s;
    int device = 0;
    if (!out) return CUBLAS_STATUS_INVALID_VALUE;
    if (cudaGetDevice(&device) != cudaSuccess || device_dead(device)) return CUBLAS_STATUS_NOT_INITIALIZED;
    *out = new cublasLtContext{device};
    handles.add(*out, SIM_SITE("cublasLtCreate"));
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    const cublasStatus_t s = enter_blas("cublasLtDestroy", CUBLAS_STATUS_NOT_INITIALIZED, Call::Quiet);
    if (!handles.remove(h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete h;
    return s;
}
size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion(void) { return CUDART_VERSION; }
const char *cublasLtGetStatusName(cublasStatus_t s) { return status_name(s); }
const char *cublasLtGetStatusString(cublasStatus_t s) { return status_name(s); }

// ---- layouts ----
cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t l, size_t bytes, cudaDataType type, uint64_t rows,
                                                 uint64_t cols, int64_t ld)
{
    if (bytes < sizeof(Layout)) return CUBLAS_STATUS_ALLOC_FAILED;
    *inside<Layout>(l) = {type, CUBLASLT_ORDER_COL, 1, rows, cols, ld, 0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld)
{
    if (cublasStatus_t s = enter_blas("cublasLtMatrixLayoutCreate", CUBLAS_STATUS_ALLOC_FAILED)) return s;
    *out = new cublasLtMatrixLayoutOpaque_t;
    descriptors.add(*out, SIM_SITE("cublasLtMatrixLayoutCreate"));
    return cublasLtMatrixLayoutInit_internal(*out, sizeof **out, type, rows, cols, ld);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    if (!l || !descriptors.remove(l)) return CUBLAS_STATUS_INVALID_VALUE;
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attr, const void *buf,
                                                size_t bytes)
{
    if (cublasStatus_t s = enter_blas("cublasLtMatrixLayoutSetAttribute", CUBLAS_STATUS_INVALID_VALUE)) return s;
    Layout *x = inside<Layout>(l);
    switch (attr) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return put(&x->type, buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER: return put(&x->order, buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return put(&x->rows, buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return put(&x->cols, buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD: return put(&x->ld, buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return put(&x->batch, buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return put(&x->stride, buf, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

// ---- what to compute ----
cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t d, size_t bytes, cublasComputeType_t compute,
                                               cudaDataType_t scale)
{
    if (bytes < sizeof(Desc)) return CUBLAS_STATUS_ALLOC_FAILED;
    *inside<Desc>(d) = {
        compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_POINTER_MODE_HOST, CUBLASLT_EPILOGUE_DEFAULT, -1, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale)
{
    if (cublasStatus_t s = enter_blas("cublasLtMatmulDescCreate", CUBLAS_STATUS_ALLOC_FAILED)) return s;
    *out = new cublasLtMatmulDescOpaque_t;
    descriptors.add(*out, SIM_SITE("cublasLtMatmulDescCreate"));
    return cublasLtMatmulDescInit_internal(*out, sizeof **out, compute, scale);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    if (!d || !descriptors.remove(d)) return CUBLAS_STATUS_INVALID_VALUE;
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attr, const void *buf,
                                              size_t bytes)
{
    if (cublasStatus_t s = enter_blas("cublasLtMatmulDescSetAttribute", CUBLAS_STATUS_INVALID_VALUE)) return s;
    Desc *x = inside<Desc>(d);
    switch (attr) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return put(&x->compute, buf, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return put(&x->scale, buf, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: return put(&x->pointers, buf, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA: return put(&x->opa, buf, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return put(&x->opb, buf, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSC: return put(&x->opc, buf, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return put(&x->epilogue, buf, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return put(&x->bias, buf, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return put(&x->bias_type, buf, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

// ---- choosing ----
cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t p, size_t bytes)
{
    if (bytes < sizeof(Preference)) return CUBLAS_STATUS_ALLOC_FAILED;
    *inside<Preference>(p) = {0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    if (cublasStatus_t s = enter_blas("cublasLtMatmulPreferenceCreate", CUBLAS_STATUS_ALLOC_FAILED)) return s;
    *out = new cublasLtMatmulPreferenceOpaque_t;
    descriptors.add(*out, SIM_SITE("cublasLtMatmulPreferenceCreate"));
    return cublasLtMatmulPreferenceInit_internal(*out, sizeof **out);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    if (!p || !descriptors.remove(p)) return CUBLAS_STATUS_INVALID_VALUE;
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t attr,
                                                    const void *buf, size_t bytes)
{
    if (cublasStatus_t s = enter_blas("cublasLtMatmulPreferenceSetAttribute", CUBLAS_STATUS_INVALID_VALUE)) return s;
    Preference *x = inside<Preference>(p);
    switch (attr) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return put(&x->workspace, buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return put(&x->align[0], buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return put(&x->align[1], buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return put(&x->align[2], buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return put(&x->align[3], buf, bytes);
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return bytes == 4 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

// Several algorithms where there is room for them. The best is not always the first kind: it turns with the shape.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t la,
                                              cublasLtMatrixLayout_t lb, cublasLtMatrixLayout_t lc, cublasLtMatrixLayout_t ld,
                                              cublasLtMatmulPreference_t pref, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    if (cublasStatus_t s = enter_blas("cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_INTERNAL_ERROR)) return s;
    if (!handles.known(h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!desc || !la || !lb || !lc || !ld || !pref || wanted < 1 || !results || !found) return CUBLAS_STATUS_INVALID_VALUE;
    const Desc &d = *inside<Desc>(desc);
    const Layout &a = *inside<Layout>(la), &b = *inside<Layout>(lb), &c = *inside<Layout>(lc), &out = *inside<Layout>(ld);
    const Preference &p = *inside<Preference>(pref);
    Shapes s;
    *found = 0;
    if (cublasStatus_t e = shapes(d, a, b, c, out, &s)) return e;
    const uint32_t ways = sizeof kWays / sizeof *kWays, first = static_cast<uint32_t>(s.m + s.n + s.k) % ways;
    for (uint32_t i = 0; i < ways && *found < wanted; i++) {
        const uint32_t id = (first + i) % ways;
        const size_t needs = room(kWays[id], s, out.batch);
        if (needs > p.workspace || kWays[id].splits > s.k) continue;
        cublasLtMatmulHeuristicResult_t *r = results + (*found)++;
        memset(r, 0, sizeof *r);
        Algo *x = inside<Algo>(&r->algo);
        *x = {kMagic, id, needs, {p.align[0], p.align[1], p.align[2], p.align[3]}, problem_hash(d, a, b, c, out)};
        r->workspaceSize = needs;
        r->state = CUBLAS_STATUS_SUCCESS;
        r->wavesCount = 1.0f;
    }
    return *found ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                              cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    if (cublasStatus_t s = enter_blas("cublasLtMatmul", CUBLAS_STATUS_EXECUTION_FAILED)) return s;
    if (!handles.known(h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!desc || !la || !lb || !lc || !ld || !alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
    const Desc &x = *inside<Desc>(desc);
    const Layout &A = *inside<Layout>(la), &B = *inside<Layout>(lb), &C = *inside<Layout>(lc), &D = *inside<Layout>(ld);
    Shapes s;
    Problem p;
    if (cublasStatus_t e = shapes(x, A, B, C, D, &s)) return e;
    if (stream && stream_info(stream).device != h->device)
        return refuse("cublasLtMatmul: a stream of another device than the handle's");
    if (reinterpret_cast<uintptr_t>(workspace) % 256) return refuse("cublasLtMatmul: the workspace is not aligned to 256 bytes");
    Way way = kWays[0];
    if (algo) {
        const Algo *k = inside<Algo>(algo);
        if (k->magic != kMagic || k->id >= sizeof kWays / sizeof *kWays)
            return refuse("cublasLtMatmul: an algorithm that no heuristic gave");
        if (k->problem != problem_hash(x, A, B, C, D))
            return refuse("cublasLtMatmul: the algorithm was chosen for another kind of product");
        way = kWays[k->id];
        if (room(way, s, D.batch) > workspace_bytes || (room(way, s, D.batch) && !workspace))
            return refuse("cublasLtMatmul: the workspace is smaller than the algorithm needs");
        const void *const pointers[] = {a, b, c ? c : d, d};
        for (int i = 0; i < 4; i++)
            if (alignment(pointers[i]) < k->align[i])
                return refuse("cublasLtMatmul: an operand is less aligned than was promised when the algorithm was chosen");
    }
    (void)types_known(A.type, D.type, x.compute, &p.tf32);
    p.api = "cublasLtMatmul";
    p.m = s.m;
    p.n = s.n;
    p.k = s.k;
    p.batch = D.batch;
    p.alpha = *static_cast<const float *>(alpha);
    p.beta = *static_cast<const float *>(beta);
    p.a = operand("A", a, A, x.opa);
    p.b = operand("B", b, B, x.opb);
    p.c = operand("C", c, C, CUBLAS_OP_N);
    p.d = operand("D", d, D, CUBLAS_OP_N);
    p.splits = way.splits;
    p.reversed = way.reversed;
    if (x.epilogue & CUBLASLT_EPILOGUE_BIAS) {
        if (!x.bias) return refuse("cublasLtMatmul: an epilogue with a bias, and no bias pointer");
        p.bias = x.bias;
    }
    if (x.epilogue & CUBLASLT_EPILOGUE_RELU) p.act = Activation::Relu;
    if (x.epilogue & CUBLASLT_EPILOGUE_GELU) p.act = Activation::Gelu;
    if (room(way, s, D.batch)) {
        p.workspace = workspace;
        p.workspace_bytes = room(way, s, D.batch);
    }
    return submit(p, stream, SIM_SITE("cublasLtMatmul"));
}

} // extern "C"
