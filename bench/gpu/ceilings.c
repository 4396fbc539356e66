/*
 * What this GPU and its link can do at all; the other benches' figures stand beside these.
 *
 *   bench_gpu_ceilings [--quick]      --quick: sizes for simulated devices
 *
 * Each round measures everything once, so that drift of the clocks is shared. Data are random; buffers take turns and are together
 * larger than the cache.
 */
#include <dlfcn.h>
#include <string.h>

#include "bench/gpu/measure.h"
#include "bench/gpu/spin.h"

enum { BUFFERS = 4, TILES = 64 };

typedef struct gemm_shape {
    const char *name;
    int m, n, k;
} gemm_shape;
static const gemm_shape shapes[] = {
    {"gemm bf16 8192^3", 8192, 8192, 8192},
    {"gemm bf16 16384x1152x384", 16384, 1152, 384},
    {"gemm bf16 16384x384x384", 16384, 384, 384},
    {"gemm bf16 16384x1536x384", 16384, 1536, 384},
    {"gemm bf16 16384x384x1536", 16384, 384, 1536},
    {"gemm bf16 16384x3072x768", 16384, 3072, 768},
    {"gemm bf16 4096x1048576x384", 4096, 1048576, 384},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* cuBLAS by name: the program starts without it and says that it is missing. */
typedef struct blas {
    void *handle;
    int (*set_stream)(void *, cudaStream_t);
    int (*gemm)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int, const void *, void *,
                int, int, int, int);
} blas;

static int blas_open(blas *b)
{
    void *lib = dlopen("libcublas.so.13", RTLD_NOW | RTLD_GLOBAL);
    int (*create)(void **);

    if (lib == NULL) {
        fprintf(stderr, "no GEMM figures: %s\n", dlerror());
        return 0;
    }
    *(void **)&create = dlsym(lib, "cublasCreate_v2");
    *(void **)&b->set_stream = dlsym(lib, "cublasSetStream_v2");
    *(void **)&b->gemm = dlsym(lib, "cublasGemmEx");
    return create != NULL && b->set_stream != NULL && b->gemm != NULL && create(&b->handle) == 0;
}

/* Rows x columns as cuBLAS sees them: C (n x m) = B^T A, all row-major for us. bf16 = 14, f32 = 0, 32-bit compute = 68. */
static int product(const blas *b, const gemm_shape *s, const void *x, const void *w, void *out)
{
    const float one = 1.0f, zero = 0.0f;

    return b->gemm(b->handle, 1, 0, s->n, s->m, s->k, &one, w, 14, s->k, x, 14, s->k, &zero, out, 14, s->n, 68, -1);
}

static double value[40][ROUNDS_MOST];
static const char *names[40], *units[40];
static int figures;

static void note(int round, const char *name, const char *unit, double v)
{
    int i = 0;

    if (round < 0) return; /* warm-up */
    while (i < figures && strcmp(names[i], name) != 0) i++;
    if (i == figures) names[figures] = name, units[figures++] = unit;
    value[i][round] = v;
}

int main(int argc, char **argv)
{
    const int quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    const int rounds = quick ? 2 : 7, launches = quick ? 20 : 2000, nodes = quick ? 10 : 200;
    const size_t bytes = quick ? (size_t)1 << 18 : (size_t)1 << 30, link = quick ? (size_t)1 << 18 : (size_t)256 << 20;
    float *buffers[BUFFERS], *host, *sum;
    uint16_t *x = NULL, *w = NULL, *y = NULL;
    cudaStream_t s;
    cudaEvent_t e;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    blas b;

    CHECK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    for (int i = 0; i < BUFFERS; i++) {
        CHECK(cudaMalloc((void **)&buffers[i], bytes));
        CHECK(stm_bench_random(buffers[i], (int64_t)(bytes / 4), (uint32_t)i, s));
    }
    CHECK(cudaMalloc((void **)&sum, 256));
    CHECK(cudaMemsetAsync(sum, 0, 256, s));
    CHECK(cudaMallocHost((void **)&host, link));
    CHECK(cudaMemcpyAsync(host, buffers[0], link, cudaMemcpyDeviceToHost, s));
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; i++) CHECK(stm_bench_spin(buffers[0], buffers[1], 64, 0, s));
    CHECK(cudaStreamEndCapture(s, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    const int have_blas = blas_open(&b);
    size_t x_most = 0, w_most = 0, y_most = 0;
    gemm_shape shape[SHAPES];

    for (int i = 0; i < SHAPES; i++) {
        shape[i] = shapes[i];
        if (quick) shape[i].m = 32, shape[i].n = shapes[i].n > 4096 ? 128 : 64, shape[i].k = 64;
        if ((size_t)shape[i].m * shape[i].k > x_most) x_most = (size_t)shape[i].m * shape[i].k;
        if ((size_t)shape[i].n * shape[i].k > w_most) w_most = (size_t)shape[i].n * shape[i].k;
        if ((size_t)shape[i].m * shape[i].n > y_most) y_most = (size_t)shape[i].m * shape[i].n;
    }
    if (have_blas) {
        CHECK(b.set_stream(b.handle, s));
        CHECK(cudaMalloc((void **)&x, x_most * 2));
        CHECK(cudaMalloc((void **)&w, w_most * 2));
        CHECK(cudaMalloc((void **)&y, y_most * 2));
        CHECK(stm_bench_random_bf16(x, (int64_t)x_most, 1, s));
        CHECK(stm_bench_random_bf16(w, (int64_t)w_most, 2, s));
    }
    for (int round = quick ? -1 : -3; round < rounds; round++) {
        double t = seconds();

        for (int i = 0; i < 8; i++)
            CHECK(cudaMemcpyAsync(buffers[(i + 1) % BUFFERS], buffers[i % BUFFERS], bytes, cudaMemcpyDeviceToDevice, s));
        CHECK(cudaStreamSynchronize(s));
        note(round, "HBM copy, read and written", "GB/s", 16.0 * (double)bytes / (seconds() - t) * 1e-9);
        t = seconds();
        for (int i = 0; i < 8; i++) CHECK(stm_bench_read(buffers[i % BUFFERS], sum, (int64_t)(bytes / 4), s));
        CHECK(cudaStreamSynchronize(s));
        note(round, "HBM read", "GB/s", 8.0 * (double)bytes / (seconds() - t) * 1e-9);
        for (int up = 0; up < 2; up++) {
            t = seconds();
            for (int i = 0; i < 4; i++)
                CHECK(cudaMemcpyAsync(up ? (void *)buffers[i % BUFFERS] : (void *)host,
                                      up ? (void *)host : (void *)buffers[i % BUFFERS], link,
                                      up ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, s));
            CHECK(cudaStreamSynchronize(s));
            note(round, up ? "PCIe up, pinned" : "PCIe down, pinned", "GB/s", 4.0 * (double)link / (seconds() - t) * 1e-9);
        }
        t = seconds();
        for (int i = 0; i < launches; i++) CHECK(stm_bench_spin(buffers[0], buffers[1], 64, 0, s));
        note(round, "launch, at the host", "us", (seconds() - t) / launches * 1e6);
        CHECK(cudaStreamSynchronize(s));
        note(round, "launch, pipelined", "us", (seconds() - t) / launches * 1e6);
        t = seconds();
        for (int i = 0; i < 5; i++) CHECK(cudaGraphLaunch(exec, s));
        CHECK(cudaStreamSynchronize(s));
        note(round, "graph node", "us", (seconds() - t) / (5.0 * nodes) * 1e6);
        t = seconds();
        for (int i = 0; i < launches; i++) CHECK(cudaEventRecord(e, s));
        note(round, "event record", "us", (seconds() - t) / launches * 1e6);
        CHECK(cudaStreamSynchronize(s));
        t = seconds();
        for (int i = 0; i < launches; i++) CHECK(cudaEventQuery(e));
        note(round, "event query", "us", (seconds() - t) / launches * 1e6);
        double waked[TILES];

        for (int i = 0; i < TILES; i++) { /* launch, record, spin on the event */
            t = seconds();
            CHECK(stm_bench_spin(buffers[0], buffers[1], 64, 0, s));
            CHECK(cudaEventRecord(e, s));
            while (cudaEventQuery(e) == cudaErrorNotReady) {
            }
            waked[i] = (seconds() - t) * 1e6;
        }
        qsort(waked, TILES, sizeof waked[0], by_value);
        note(round, "launch to seen by a polling thread, p50", "us", waked[TILES / 2]);
        for (int i = 0; have_blas && i < SHAPES; i++) {
            const int n = quick ? 1 : 4;

            t = seconds();
            for (int j = 0; j < n; j++) CHECK(product(&b, &shape[i], x, w, y));
            CHECK(cudaStreamSynchronize(s));
            note(round, shapes[i].name, "TFLOP/s",
                 2.0 * n * shape[i].m * (double)shape[i].n * shape[i].k / (seconds() - t) * 1e-12);
        }
    }
    for (int i = 0; i < figures; i++) print_figure(names[i], units[i], value[i], rounds);
    return 0;
}
