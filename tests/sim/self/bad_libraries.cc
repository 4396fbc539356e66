// sim_bad_libraries NAME: makes one mistake with cuBLAS or NCCL. Ends with 0 and "not found" if nobody noticed, with 2 and a text
// if a call failed; else the simulator's report at the end of the process decides.
#include "stm_sim.h"
#include <cstdio>
#include <cstdlib>
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <functional>
#include <map>
#include <nccl.h>
#include <string>
#include <thread>
#include <vector>

static void cuda(cudaError_t e)
{
    if (e == cudaSuccess) return;
    printf("%s\n", cudaGetErrorName(e));
    exit(2);
}
static void blas(cublasStatus_t s)
{
    if (s == CUBLAS_STATUS_SUCCESS) return;
    printf("%s\n", cublasGetStatusName(s));
    exit(2);
}
static void nccl(ncclResult_t r)
{
    if (r == ncclSuccess) return;
    printf("%s\n", ncclGetErrorString(r));
    exit(2);
}
static float *device(size_t n, int on = 0)
{
    float *p = nullptr;
    cuda(cudaSetDevice(on));
    cuda(cudaMalloc(reinterpret_cast<void **>(&p), n * sizeof(float)));
    cuda(cudaMemset(p, 0, n * sizeof(float)));
    cuda(cudaDeviceSynchronize());
    cuda(cudaSetDevice(0));
    return p;
}
static cudaStream_t stream(int on = 0)
{
    cudaStream_t s = nullptr;
    cuda(cudaSetDevice(on));
    cuda(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    cuda(cudaSetDevice(0));
    return s;
}

// ---- products: 8 x 8 x 8 ----
static const float kOne = 1, kZero = 0;
struct Product {
    cublasHandle_t h = nullptr;
    cudaStream_t first = stream(), second = stream();
    float *a = device(64), *b = device(64), *c = device(64);
    Product()
    {
        blas(cublasCreate(&h));
        blas(cublasSetStream(h, first));
    }
    ~Product()
    {
        cuda(cudaStreamSynchronize(first));
        cuda(cudaStreamSynchronize(second));
        cuda(cudaDeviceSynchronize());
        for (float *p : {a, b, c}) cuda(cudaFree(p));
        if (h) blas(cublasDestroy(h));
        cuda(cudaStreamDestroy(first));
        cuda(cudaStreamDestroy(second));
    }
    cublasStatus_t multiply(const void *x, int ldx, const void *y, void *z, cudaDataType type = CUDA_R_32F,
                            cudaDataType out = CUDA_R_32F)
    {
        return cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, 8, 8, 8, &kOne, x, type, ldx, y, type, 8, &kZero, z, out, 8,
                            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    }
};
static void stream_not_set()
{
    Product p;
    cublasHandle_t fresh = nullptr;
    blas(cublasCreate(&fresh));
    std::swap(p.h, fresh);
    cuda(cudaMemsetAsync(p.a, 0, 256, p.first));
    blas(p.multiply(p.a, 8, p.b, p.c));
    blas(cublasDestroy(fresh));
}
static void operand_not_there_yet()
{
    Product p;
    cuda(cudaMemsetAsync(p.a, 0, 256, p.second));
    blas(p.multiply(p.a, 8, p.b, p.c));
}
static void leading_dimension_too_small() { Product *p = new Product; blas(p->multiply(p->a, 7, p->b, p->c)); }
static void leading_dimension_too_large()
{
    Product p;
    blas(p.multiply(p.a, 9, p.b, p.c));
}
static void operand_out_of_bounds()
{
    Product p;
    blas(p.multiply(p.a, 8, p.b + 1, p.c));
}
static void batch_out_of_bounds()
{
    Product p;
    blas(cublasGemmStridedBatchedEx(p.h, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &kOne, p.a, CUDA_R_32F, 4, 17, p.b, CUDA_R_32F, 4, 16,
                                    &kZero, p.c, CUDA_R_32F, 4, 16, 4, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}
static void operand_of_the_host()
{
    Product p;
    std::vector<float> host(64);
    blas(p.multiply(host.data(), 8, p.b, p.c));
    cuda(cudaStreamSynchronize(p.first));
}
static void operand_of_another_device()
{
    Product p;
    float *far = device(64, 1);
    blas(p.multiply(p.a, 8, far, p.c));
    cuda(cudaStreamSynchronize(p.first));
    cuda(cudaFree(far));
}
static void result_over_operand()
{
    Product p;
    blas(p.multiply(p.a, 8, p.b, p.b));
}
static void types_that_do_not_go_together()
{
    Product *p = new Product;
    blas(p->multiply(p->a, 8, p->b, p->c, CUDA_R_16F, CUDA_R_16BF));
}
static void workspace_of_two_streams()
{
    Product p;
    float *work = device(1024), *d = device(64);
    blas(cublasSetWorkspace(p.h, work, 4096));
    blas(p.multiply(p.a, 8, p.b, p.c));
    blas(cublasSetStream(p.h, p.second));
    blas(cublasSetWorkspace(p.h, work, 4096));
    blas(p.multiply(p.a, 8, p.b, d));
    cuda(cudaStreamSynchronize(p.first));
    cuda(cudaStreamSynchronize(p.second));
    cuda(cudaFree(work));
    cuda(cudaFree(d));
}
Product *g_kept; /* what its end would complain about, and a leak is not what is looked for */
static void handle_of_another_device()
{
    g_kept = new Product;
    blas(cublasSetStream(g_kept->h, stream(1)));
}
static void handle_after_destroy()
{
    Product p;
    cublasHandle_t old = p.h;
    blas(cublasDestroy(p.h));
    p.h = old;
    const cublasStatus_t s = p.multiply(p.a, 8, p.b, p.c);
    p.h = nullptr;
    if (s == CUBLAS_STATUS_SUCCESS) printf("it worked\n");
}
static void leak_of_handle()
{
    Product p;
    p.h = nullptr;
}

struct LtProduct : Product {
    cublasLtHandle_t lt = nullptr;
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t l = nullptr;
    cublasLtMatmulPreference_t pref = nullptr;
    cublasLtMatmulHeuristicResult_t ways[8];
    int found = 0;
    LtProduct()
    {
        const uint64_t room = 1 << 20;
        blas(cublasLtCreate(&lt));
        blas(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        blas(cublasLtMatrixLayoutCreate(&l, CUDA_R_32F, 8, 8, 8));
        blas(cublasLtMatmulPreferenceCreate(&pref));
        blas(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room));
        blas(cublasLtMatmulAlgoGetHeuristic(lt, desc, l, l, l, l, pref, 8, ways, &found));
    }
    ~LtProduct()
    {
        blas(cublasLtMatmulPreferenceDestroy(pref));
        if (l) blas(cublasLtMatrixLayoutDestroy(l));
        blas(cublasLtMatmulDescDestroy(desc));
        blas(cublasLtDestroy(lt));
    }
    void run(const cublasLtMatmulAlgo_t *algo, const void *x)
    {
        (void)cublasLtMatmul(lt, desc, &kOne, x, l, b, l, &kZero, c, l, c, l, algo, nullptr, 0, first);
    }
    const cublasLtMatmulAlgo_t *way(bool with_room)
    {
        for (int i = 0; i < found; i++)
            if ((ways[i].workspaceSize > 0) == with_room) return &ways[i].algo;
        printf("no such algorithm\n");
        exit(5);
    }
    void epilogue(cublasLtEpilogue_t e, const float *bias)
    {
        blas(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &e, sizeof e));
        blas(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    }
};
static void workspace_too_small()
{
    LtProduct p;
    p.run(p.way(true), p.a);
}
static void alignment_not_kept()
{
    LtProduct p;
    float *more = device(128);
    p.run(p.way(false), more + 1);
    cuda(cudaFree(more));
}
static void algorithm_of_another_product()
{
    LtProduct p;
    p.epilogue(CUBLASLT_EPILOGUE_RELU, nullptr);
    p.run(p.way(false), p.a);
}
static void bias_without_pointer()
{
    LtProduct p;
    p.epilogue(CUBLASLT_EPILOGUE_BIAS, nullptr);
    p.run(nullptr, p.a);
}
static void bias_too_short()
{
    LtProduct p;
    float *bias = device(7);
    p.epilogue(CUBLASLT_EPILOGUE_BIAS, bias);
    p.run(nullptr, p.a);
    cuda(cudaStreamSynchronize(p.first));
    cuda(cudaFree(bias));
}
static void leak_of_layout()
{
    LtProduct p;
    p.l = nullptr;
}

// ---- ranks: two of them, sixteen numbers each ----
struct Pair {
    ncclComm_t comm[2] = {};
    cudaStream_t s[2] = {stream(0), stream(1)};
    float *a[2] = {device(64, 0), device(64, 1)}, *b[2] = {device(64, 0), device(64, 1)};
    bool abort = false;
    explicit Pair(bool connect = true)
    {
        if (connect) nccl(ncclCommInitAll(comm, 2, nullptr));
    }
    ~Pair()
    {
        for (int r : {0, 1}) {
            if (!abort) cuda(cudaStreamSynchronize(s[r]));
            if (comm[r]) nccl(abort ? ncclCommAbort(comm[r]) : ncclCommDestroy(comm[r]));
        }
        for (int r : {0, 1}) {
            cuda(cudaStreamSynchronize(s[r]));
            cuda(cudaFree(a[r]));
            cuda(cudaFree(b[r]));
            cuda(cudaStreamDestroy(s[r]));
        }
    }
    // One group of one call a rank; ends when it is over, or found to be wrong.
    void group(const std::function<ncclResult_t(int)> &call)
    {
        nccl(ncclGroupStart());
        for (int r : {0, 1}) nccl(call(r));
        nccl(ncclGroupEnd());
    }
    ncclResult_t sum(int r, float *from = nullptr)
    {
        return ncclAllReduce(from ? from : a[r], b[r], 16, ncclFloat32, ncclSum, comm[r], s[r]);
    }
    // Waits for the asynchronous error that must come.
    void fails()
    {
        ncclResult_t e = ncclSuccess;
        for (int i = 0; i < 4000 && e == ncclSuccess; i++) {
            nccl(ncclCommGetAsyncError(comm[0], &e));
            for (int r : {0, 1}) (void)cudaStreamQuery(s[r]);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        printf("%s\n", ncclGetErrorString(e));
        abort = true;
    }
};
static void counts_differ()
{
    Pair p;
    p.group([&](int r) { return ncclAllReduce(p.a[r], p.b[r], r ? 16 : 15, ncclFloat32, ncclSum, p.comm[r], p.s[r]); });
    p.fails();
}
static void types_differ()
{
    Pair p;
    p.group([&](int r) { return ncclAllReduce(p.a[r], p.b[r], 16, r ? ncclFloat32 : ncclInt32, ncclSum, p.comm[r], p.s[r]); });
    p.fails();
}
static void reductions_differ()
{
    Pair p;
    p.group([&](int r) { return ncclAllReduce(p.a[r], p.b[r], 16, ncclFloat32, r ? ncclSum : ncclMax, p.comm[r], p.s[r]); });
    p.fails();
}
static void roots_differ()
{
    Pair p;
    p.group([&](int r) { return ncclBroadcast(p.a[r], p.b[r], 16, ncclFloat32, r, p.comm[r], p.s[r]); });
    p.fails();
}
static void order_differs()
{
    Pair p;
    nccl(ncclGroupStart());
    for (int turn : {0, 1})
        for (int r : {0, 1})
            nccl(turn == r ? p.sum(r) : ncclBroadcast(p.a[r], p.b[r], 16, ncclFloat32, 0, p.comm[r], p.s[r]));
    nccl(ncclGroupEnd());
    p.fails();
}
static void group_missing()
{
    Pair p;
    for (int r : {0, 1}) nccl(p.sum(r));
}
static void sizes_of_message_differ()
{
    Pair p;
    p.group([&](int r) {
        return r ? ncclRecv(p.b[1], 8, ncclFloat32, 0, p.comm[1], p.s[1]) : ncclSend(p.a[0], 9, ncclFloat32, 1, p.comm[0], p.s[0]);
    });
    p.fails();
}
// Each rank sends, then receives, not as one group: works only where a send does not wait for its receive.
static void sends_before_receives()
{
    Pair p;
    std::vector<std::thread> threads;
    for (int r : {0, 1})
        threads.emplace_back([&p, r] {
            cuda(cudaSetDevice(r));
            nccl(ncclSend(p.a[r], 16, ncclFloat32, 1 - r, p.comm[r], p.s[r]));
            nccl(ncclRecv(p.b[r], 16, ncclFloat32, 1 - r, p.comm[r], p.s[r]));
        });
    for (auto &t : threads) t.join();
    p.fails();
}
static void rank_does_not_come()
{
    Pair p;
    nccl(p.sum(0));
    p.fails();
}
static void rank_does_not_connect()
{
    ncclUniqueId id;
    ncclComm_t c = nullptr;
    nccl(ncclGetUniqueId(&id));
    nccl(ncclCommInitRank(&c, 2, id, 0));
}
static void buffer_reused_before_the_end()
{
    Pair p;
    cudaStream_t other = stream(0);
    p.group([&](int r) { return p.sum(r); });
    cuda(cudaMemsetAsync(p.a[0], 0, 64, other));
    cuda(cudaStreamSynchronize(other));
    cuda(cudaStreamDestroy(other));
}
static void result_read_by_another_stream()
{
    Pair p;
    cudaStream_t other = stream(1);
    float *to = device(16, 1);
    p.group([&](int r) { return p.sum(r); });
    cuda(cudaMemcpyAsync(to, p.b[1], 64, cudaMemcpyDeviceToDevice, other));
    cuda(cudaStreamSynchronize(other));
    cuda(cudaStreamDestroy(other));
    cuda(cudaFree(to));
}
static void buffer_freed_before_the_end()
{
    Pair p;
    p.group([&](int r) { return p.sum(r); });
    cuda(cudaFree(p.a[0]));
    p.a[0] = nullptr;
}
static void receive_out_of_bounds()
{
    Pair p;
    p.abort = true;
    nccl(ncclGroupStart());
    (void)ncclAllGather(p.a[0], p.b[0], 33, ncclFloat32, p.comm[0], p.s[0]);
    (void)ncclGroupEnd();
}
static void buffer_of_another_device()
{
    Pair p;
    p.abort = true;
    (void)p.sum(1, p.a[0]);
}
static void stream_of_another_rank()
{
    Pair p;
    p.abort = true;
    (void)ncclAllReduce(p.a[1], p.b[1], 16, ncclFloat32, ncclSum, p.comm[1], p.s[0]);
}
static void use_after_abort()
{
    Pair p;
    nccl(ncclCommAbort(p.comm[1]));
    (void)p.sum(1);
    p.comm[1] = nullptr;
    p.abort = true;
}
static void use_after_destroy()
{
    Pair p;
    for (ncclComm_t c : p.comm) nccl(ncclCommDestroy(c));
    (void)p.sum(0);
    p.comm[0] = p.comm[1] = nullptr;
}
static void use_after_finalize()
{
    Pair p;
    for (ncclComm_t c : p.comm) nccl(ncclCommFinalize(c));
    (void)p.sum(0);
}
static void connect_late(Pair *p, bool poll)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    config.blocking = 0;
    nccl(ncclGetUniqueId(&id));
    nccl(ncclGroupStart());
    for (int r : {0, 1}) {
        cuda(cudaSetDevice(r));
        (void)ncclCommInitRankConfig(&p->comm[r], 2, id, r, &config);
    }
    (void)ncclGroupEnd();
    cuda(cudaSetDevice(0));
    for (int r : {0, 1}) {
        ncclResult_t e = ncclInProgress;
        while (poll && e == ncclInProgress) nccl(ncclCommGetAsyncError(p->comm[r], &e));
    }
    p->abort = true;
}
static void use_before_it_is_connected()
{
    Pair p(false);
    connect_late(&p, false);
    (void)p.sum(0);
}
static void group_not_waited_for()
{
    Pair p(false);
    cudaEvent_t done;
    cudaStream_t other = stream(0);
    float *to = device(16);
    connect_late(&p, true);
    cuda(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    nccl(ncclGroupStart());
    for (int r : {0, 1}) nccl(p.sum(r));
    (void)ncclGroupEnd(); // in progress: nothing is on the streams yet
    cuda(cudaEventRecord(done, p.s[0]));
    cuda(cudaStreamWaitEvent(other, done, 0));
    cuda(cudaMemcpyAsync(to, p.b[0], 64, cudaMemcpyDeviceToDevice, other));
    for (int r : {0, 1}) {
        ncclResult_t e = ncclInProgress;
        while (e == ncclInProgress) nccl(ncclCommGetAsyncError(p.comm[r], &e));
    }
    for (int r : {0, 1}) cuda(cudaStreamSynchronize(p.s[r]));
    cuda(cudaStreamSynchronize(other));
    cuda(cudaStreamDestroy(other));
    cuda(cudaEventDestroy(done));
    cuda(cudaFree(to));
}
static void group_never_polled()
{
    Pair p(false);
    connect_late(&p, true);
    nccl(ncclGroupStart());
    for (int r : {0, 1}) nccl(p.sum(r));
    (void)ncclGroupEnd();
    p.abort = false;
}
static void destroyed_with_an_error()
{
    Pair p;
    stm_sim_fault("nccl", 1, ncclSystemError, 1);
    p.group([&](int r) { return p.sum(r); });
    p.fails();
    p.abort = false;
}
static void leak_of_communicator()
{
    Pair p;
    p.comm[1] = nullptr;
}
static void captured_collective()
{
    Pair p;
    cudaGraph_t g = nullptr;
    p.abort = true;
    cuda(cudaStreamBeginCapture(p.s[0], cudaStreamCaptureModeThreadLocal));
    (void)p.sum(0);
    cuda(cudaStreamEndCapture(p.s[0], &g));
    cuda(cudaGraphDestroy(g));
}
static void group_end_without_start() { (void)ncclGroupEnd(); }

int main(int argc, char **argv)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    const std::string name = argc > 1 ? argv[1] : "";
#define BAD(f) {#f, f}
    const std::map<std::string, void (*)()> all = {
        BAD(stream_not_set), BAD(operand_not_there_yet), BAD(leading_dimension_too_small), BAD(leading_dimension_too_large),
        BAD(operand_out_of_bounds), BAD(batch_out_of_bounds), BAD(operand_of_the_host), BAD(operand_of_another_device),
        BAD(result_over_operand),
        BAD(types_that_do_not_go_together), BAD(workspace_of_two_streams), BAD(workspace_too_small), BAD(alignment_not_kept),
        BAD(algorithm_of_another_product), BAD(bias_without_pointer), BAD(bias_too_short), BAD(handle_of_another_device),
        BAD(handle_after_destroy), BAD(leak_of_handle), BAD(leak_of_layout), BAD(counts_differ), BAD(types_differ),
        BAD(reductions_differ),
        BAD(roots_differ), BAD(order_differs), BAD(group_missing), BAD(sizes_of_message_differ), BAD(sends_before_receives),
        BAD(rank_does_not_come), BAD(rank_does_not_connect), BAD(buffer_reused_before_the_end), BAD(result_read_by_another_stream),
        BAD(buffer_freed_before_the_end), BAD(receive_out_of_bounds), BAD(buffer_of_another_device), BAD(stream_of_another_rank),
        BAD(use_after_abort), BAD(use_after_destroy), BAD(use_after_finalize), BAD(use_before_it_is_connected),
        BAD(group_not_waited_for),
        BAD(group_never_polled), BAD(destroyed_with_an_error), BAD(leak_of_communicator), BAD(captured_collective),
        BAD(group_end_without_start),
    };
#undef BAD
    if (!all.count(name)) return 6;
    all.at(name)();
    printf("not found\n");
    return 0;
}
