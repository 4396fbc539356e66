// libcublas.so.13 for simulated devices: what the engine calls of it.
#include "gemm.h"
#include <algorithm>

using namespace sim;

struct cublasContext {
    int device = 0;
    cudaStream_t stream = nullptr;
    cublasMath_t math = CUBLAS_DEFAULT_MATH;
    cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
    cublasAtomicsMode_t atomics = CUBLAS_ATOMICS_NOT_ALLOWED;
    void *workspace = nullptr; // null: the library's own, one a stream
    size_t workspace_bytes = 0;
};

static Handles handles("cublasHandle_t");

static cublasStatus_t enter(const char *api, cublasHandle_t h, int usual = CUBLAS_STATUS_EXECUTION_FAILED)
{
    if (cublasStatus_t s = enter_blas(api, usual)) return s;
    return handles.known(h) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

static Operand operand(const char *name, const void *p, cudaDataType t, int64_t rows, int64_t cols, int64_t ld, int64_t stride,
                       bool across)
{
    Operand o;
    o.name = name;
    o.p = p;
    o.type = t;
    o.line = rows;
    o.lines = cols;
    o.ld = ld;
    o.stride = stride;
    o.across = across;
    return o;
}

struct Side {
    cublasOperation_t op;
    const void *p;
    cudaDataType type;
    int64_t ld, stride;
};

static cublasStatus_t gemm(const char *api, const Site &site, cublasHandle_t h, int64_t m, int64_t n, int64_t k, const void *alpha,
                           const Side &a, const Side &b, const void *beta, void *c, cudaDataType ct, int64_t ldc, int64_t strided,
                           int batch, cublasComputeType_t compute)
{
    if (cublasStatus_t s = enter(api, h)) return s;
    Problem p;
    const bool ta = a.op != CUBLAS_OP_N, tb = b.op != CUBLAS_OP_N;
    if (m < 0 || n < 0 || k < 0 || batch < 0 || !alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
    if (a.ld < std::max<int64_t>(1, ta ? k : m) || b.ld < std::max<int64_t>(1, tb ? n : k) || ldc < std::max<int64_t>(1, m))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (h->pointers != CUBLAS_POINTER_MODE_HOST) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a.type != b.type || !types_known(a.type, ct, compute, &p.tf32)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (batch == 0 || m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
    if (h->math == CUBLAS_TF32_TENSOR_OP_MATH && a.type == CUDA_R_32F && compute == CUBLAS_COMPUTE_32F) p.tf32 = true;
    p.api = api;
    p.m = m;
    p.n = n;
    p.k = k;
    p.batch = batch;
    p.alpha = *static_cast<const float *>(alpha);
    p.beta = *static_cast<const float *>(beta);
    p.a = operand("A", a.p, a.type, ta ? k : m, ta ? m : k, a.ld, batch > 1 ? a.stride : 0, ta);
    p.b = operand("B", b.p, b.type, tb ? n : k, tb ? k : n, b.ld, batch > 1 ? b.stride : 0, tb);
    p.c = p.d = operand("C", c, ct, m, n, ldc, batch > 1 ? strided : 0, false);
    // As the real library, which takes other ways for narrow products: code must not expect equal bits for a row in another batch.
    if (n <= 16 && k >= 256) p.splits = 4;
    p.workspace = h->workspace;
    p.workspace_bytes = h->workspace_bytes;
    return submit(p, h->stream, site);
}

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *out)
{
    if (cublasStatus_t s = enter_blas("cublasCreate", CUBLAS_STATUS_ALLOC_FAILED)) return s;
    int device = 0;
    if (!out) return CUBLAS_STATUS_INVALID_VALUE;
    if (cudaGetDevice(&device) != cudaSuccess || device_dead(device)) return CUBLAS_STATUS_NOT_INITIALIZED;
    *out = new cublasContext;
    (*out)->device = device;
    handles.add(*out, SIM_SITE("cublasCreate"));
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h)
{
    if (cublasStatus_t s = enter_blas("cublasDestroy", CUBLAS_STATUS_NOT_INITIALIZED, Call::Quiet)) return s;
    if (!handles.remove(h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int *version)
{
    *version = CUBLAS_VERSION;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetProperty(libraryPropertyType type, int *value)
{
    *value = type == MAJOR_VERSION ? CUBLAS_VER_MAJOR : type == MINOR_VERSION ? CUBLAS_VER_MINOR : CUBLAS_VER_PATCH;
    return CUBLAS_STATUS_SUCCESS;
}
// Also takes the caller's workspace away, as documented.
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t stream)
{
    if (cublasStatus_t s = enter("cublasSetStream", h)) return s;
    if (stream) {
        const StreamInfo info = stream_info(stream);
        if (!info.valid) return CUBLAS_STATUS_INVALID_VALUE;
        if (info.device != h->device) {
            Lock l;
            finding("cublasSetStream: a stream of device %d for a handle of device %d", info.device, h->device);
            return CUBLAS_STATUS_INVALID_VALUE;
        }
    }
    h->stream = stream;
    h->workspace = nullptr;
    h->workspace_bytes = 0;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t h, cudaStream_t *stream)
{
    if (!handles.known(h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    *stream = h->stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void *workspace, size_t bytes)
{
    if (cublasStatus_t s = enter("cublasSetWorkspace", h)) return s;
    if (reinterpret_cast<uintptr_t>(workspace) % 256) return CUBLAS_STATUS_INVALID_VALUE;
    if (workspace) {
        const Memory m = memory_at(workspace);
        if (!m.known || m.type != cudaMemoryTypeDevice || static_cast<char *>(workspace) + bytes > m.base + m.bytes) {
            Lock l;
            finding("cublasSetWorkspace: %zu bytes that are not all in one allocation of device memory", bytes);
            return CUBLAS_STATUS_INVALID_VALUE;
        }
    }
    h->workspace = workspace;
    h->workspace_bytes = workspace ? bytes : 0;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t mode)
{
    if (cublasStatus_t s = enter("cublasSetMathMode", h)) return s;
    h->math = static_cast<cublasMath_t>(mode & 15);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t *mode)
{
    if (!handles.known(h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    *mode = h->math;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t mode)
{
    if (cublasStatus_t s = enter("cublasSetPointerMode", h)) return s;
    h->pointers = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t *mode)
{
    if (!handles.known(h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    *mode = h->pointers;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetAtomicsMode(cublasHandle_t h, cublasAtomicsMode_t mode)
{
    if (cublasStatus_t s = enter("cublasSetAtomicsMode", h)) return s;
    h->atomics = mode;
    return CUBLAS_STATUS_SUCCESS;
}
const char *cublasGetStatusName(cublasStatus_t s) { return status_name(s); }
const char *cublasGetStatusString(cublasStatus_t s) { return status_name(s); }

cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k, const void *alpha,
                            const void *a, cudaDataType ta, int lda, const void *b, cudaDataType tb, int ldb, const void *beta,
                            void *c, cudaDataType tc, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t)
{
    return gemm("cublasGemmEx", SIM_SITE("cublasGemmEx"), h, m, n, k, alpha, {opa, a, ta, lda, 0}, {opb, b, tb, ldb, 0}, beta, c,
                tc, ldc, 0, 1, compute);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType ta, int lda, long long sa, const void *b,
                                          cudaDataType tb, int ldb, long long sb, const void *beta, void *c, cudaDataType tc,
                                          int ldc, long long sc, int batch, cublasComputeType_t compute, cublasGemmAlgo_t)
{
    return gemm("cublasGemmStridedBatchedEx", SIM_SITE("cublasGemmStridedBatchedEx"), h, m, n, k, alpha, {opa, a, ta, lda, sa},
                {opb, b, tb, ldb, sb}, beta, c, tc, ldc, sc, batch, compute);
}
cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k,
                              const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                              int ldc)
{
    return gemm("cublasSgemm", SIM_SITE("cublasSgemm"), h, m, n, k, alpha, {opa, a, CUDA_R_32F, lda, 0},
                {opb, b, CUDA_R_32F, ldb, 0}, beta, c, CUDA_R_32F, ldc, 0, 1, CUBLAS_COMPUTE_32F);
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t h, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k,
                                         const float *alpha, const float *a, int lda, long long sa, const float *b, int ldb,
                                         long long sb, const float *beta, float *c, int ldc, long long sc, int batch)
{
    return gemm("cublasSgemmStridedBatched", SIM_SITE("cublasSgemmStridedBatched"), h, m, n, k, alpha,
                {opa, a, CUDA_R_32F, lda, sa}, {opb, b, CUDA_R_32F, ldb, sb}, beta, c, CUDA_R_32F, ldc, sc, batch,
                CUBLAS_COMPUTE_32F);
}

} // extern "C"
