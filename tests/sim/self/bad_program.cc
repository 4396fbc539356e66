// sim_bad NAME: makes one mistake. Ends with 0 and "not found" if nobody noticed, with 2 and a text if an API call or a kernel
// failed, with 3 if the result is wrong; else the simulator's or a sanitizer's report at the end of the process decides.
#include "bad.h"
#include "good.h"
#include "stm_sim.h"
#include "tensor_data.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>

static const int kN = 128;

static void told(const char *what, cudaError_t e)
{
    printf("%s: %s", what, cudaGetErrorName(e));
    for (int d : {0, 1}) printf("; %s", stm_sim_last_message(d));
    printf("\n");
    exit(2);
}
static void check(cudaError_t e, const char *what)
{
    if (e != cudaSuccess) told(what, e);
}
#define CHECK(call) check((call), #call)
static void expect(bool right)
{
    if (right) return;
    printf("wrong values\n");
    exit(3);
}
// A mistake that a call has to refuse by this very code.
static void refused(cudaError_t e, cudaError_t want, const char *what)
{
    if (e == want) told(what, e);
    printf("%s: %s instead of %s\n", what, cudaGetErrorName(e), cudaGetErrorName(want));
    exit(4);
}
#define REFUSED(call, want) refused((call), (want), #call)

static float *device(size_t n)
{
    float *p = nullptr;
    CHECK(cudaMalloc(reinterpret_cast<void **>(&p), n * sizeof(float)));
    return p;
}
static float *pinned(size_t n)
{
    float *p = nullptr;
    CHECK(cudaMallocHost(reinterpret_cast<void **>(&p), n * sizeof(float)));
    for (size_t i = 0; i < n; i++) p[i] = 1.0f;
    return p;
}
static cudaStream_t stream()
{
    cudaStream_t s = nullptr;
    CHECK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}
static cudaEvent_t event()
{
    cudaEvent_t e = nullptr;
    CHECK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    return e;
}
// Two streams, three device buffers and a pinned one, all released in the end: only the mistake is left.
struct Stage {
    const int n = 1024;
    cudaStream_t first = stream(), second = stream();
    cudaEvent_t done = event();
    float *host = pinned(1024), *a = device(1024), *b = device(1024), *c = device(1024);
    size_t bytes = 1024 * sizeof(float);
    Stage()
    {
        CHECK(cudaMemset(a, 0, bytes));
        CHECK(cudaMemset(b, 0, bytes));
        CHECK(cudaDeviceSynchronize());
    }
    ~Stage()
    {
        CHECK(cudaStreamSynchronize(first));
        CHECK(cudaStreamSynchronize(second));
        for (float *p : {a, b, c})
            if (p) CHECK(cudaFree(p));
        CHECK(cudaFreeHost(host));
        CHECK(cudaEventDestroy(done));
        CHECK(cudaStreamDestroy(first));
        CHECK(cudaStreamDestroy(second));
    }
};

static void run_kernel(const char *name)
{
    std::vector<int> v(kN);
    for (int i = 0; i < kN; i++) v[i] = i;
    int *d = nullptr;
    CHECK(cudaMalloc(reinterpret_cast<void **>(&d), kN * sizeof(int)));
    CHECK(cudaMemcpy(d, v.data(), kN * sizeof(int), cudaMemcpyHostToDevice));
    check(bad_kernel(name, d, kN, nullptr), "launch");
    check(cudaDeviceSynchronize(), "kernel");
    CHECK(cudaMemcpy(v.data(), d, kN * sizeof(int), cudaMemcpyDeviceToHost));
    CHECK(cudaFree(d));
    for (int i = 0; i < kN; i++) expect(v[i] == kN - 1 - i);
}

static void run_hopper(int mistake)
{
    TensorData d(64, 16, 256);
    DeviceVec<__nv_bfloat16> a(d.a), b(d.b);
    DeviceVec<float> c(d.want.size());
    CUtensorMap ma, mb;
    if (map_rows(&ma, a.data(), d.m, d.k) || map_rows(&mb, b.data(), d.n, d.k)) exit(5);
    CHECK(tensor_hopper(ma, mb, c, d.k, mistake, nullptr));
    check(cudaDeviceSynchronize(), "kernel");
    expect(c.download() == d.want);
}

static void missing_fence_of_the_asynchronous_proxy()
{
    TensorData d(64, 16, 32);
    DeviceVec<__nv_bfloat16> a(d.a), b(d.b);
    DeviceVec<float> c(d.want.size());
    CHECK(tensor_stored(a, b, c, true, nullptr));
    check(cudaDeviceSynchronize(), "kernel");
    expect(c.download() == d.want);
}

static void missing_wait_for_cp_async()
{
    TensorData d(16, 16, 64);
    DeviceVec<__nv_bfloat16> a(d.a), b(d.b);
    DeviceVec<float> c(d.want.size());
    CHECK(tensor_mma(a, b, c, d.m, d.n, d.k, true, nullptr));
    check(cudaDeviceSynchronize(), "kernel");
    expect(c.download() == d.want);
}

// ---- mistakes of hosts ----
static void missing_wait_between_streams()
{
    Stage s;
    CHECK(cudaMemcpyAsync(s.a, s.host, s.bytes, cudaMemcpyHostToDevice, s.first));
    CHECK(good_add(s.a, s.a, s.b, s.n, s.second));
}
static void event_recorded_too_early()
{
    Stage s;
    CHECK(cudaEventRecord(s.done, s.first));
    CHECK(good_add(s.a, s.a, s.b, s.n, s.first));
    CHECK(cudaStreamWaitEvent(s.second, s.done, 0));
    CHECK(cudaMemcpyAsync(s.host, s.b, s.bytes, cudaMemcpyDeviceToHost, s.second));
}
static void buffer_reused_too_early()
{
    Stage s;
    CHECK(good_add(s.a, s.a, s.b, s.n, s.first));
    CHECK(cudaMemcpyAsync(s.a, s.host, s.bytes, cudaMemcpyHostToDevice, s.second));
}
static void two_writers()
{
    Stage s;
    CHECK(cudaMemsetAsync(s.a, 0, s.bytes, s.first));
    CHECK(cudaMemsetAsync(s.a + 512, 1, s.bytes / 2, s.second));
}
static void host_reads_result_in_flight()
{
    Stage s;
    CHECK(cudaMemcpyAsync(s.host, s.a, s.bytes, cudaMemcpyDeviceToHost, s.first));
    stm_sim_host_read(s.host, s.bytes);
}
// No declaration helps here: only that nothing has run yet in lazy mode.
static void result_read_too_early()
{
    Stage s;
    CHECK(cudaMemcpyAsync(s.host, s.a, s.bytes, cudaMemcpyDeviceToHost, s.first));
    const float early = *static_cast<volatile float *>(&s.host[7]);
    CHECK(cudaStreamSynchronize(s.first));
    expect(early == 0.0f);
}
static void host_writes_buffer_in_flight()
{
    Stage s;
    CHECK(cudaMemcpyAsync(s.a, s.host, s.bytes, cudaMemcpyHostToDevice, s.first));
    stm_sim_host_write(s.host, s.bytes);
}
static void piece_given_back_in_flight()
{
    Stage s;
    CHECK(cudaMemsetAsync(s.b, 0, s.bytes, s.first));
    stm_sim_piece_release(s.b + 512, s.bytes / 2);
}
static void work_on_a_piece_given_back()
{
    Stage s;
    stm_sim_piece_release(s.b + 512, s.bytes / 2);
    stm_sim_piece(s.b + 768, s.bytes / 4); // a part of it has a new owner
    CHECK(cudaMemsetAsync(s.b + 768, 0, s.bytes / 4, s.first));
    CHECK(cudaMemsetAsync(s.b + 640, 0, 4, s.first));
}
static void freed_in_flight()
{
    Stage s;
    CHECK(good_add(s.a, s.a, s.b, s.n, s.first));
    CHECK(cudaFree(s.b));
    s.b = nullptr;
}
static void pinned_freed_in_flight()
{
    Stage s;
    float *extra = pinned(1024);
    CHECK(cudaMemcpyAsync(s.a, extra, s.bytes, cudaMemcpyHostToDevice, s.first));
    CHECK(cudaFreeHost(extra));
}
static void async_free_without_wait()
{
    Stage s;
    void *p = nullptr;
    CHECK(cudaMallocAsync(&p, s.bytes, s.first));
    CHECK(cudaMemsetAsync(p, 0, s.bytes, s.first));
    CHECK(cudaFreeAsync(p, s.second));
}
static void use_after_async_free()
{
    Stage s;
    void *p = nullptr;
    CHECK(cudaMallocAsync(&p, s.bytes, s.first));
    CHECK(cudaFreeAsync(p, s.first));
    (void)cudaMemsetAsync(p, 0, s.bytes, s.first);
}
static void use_after_free()
{
    Stage s;
    float *p = device(1024);
    CHECK(cudaFree(p));
    REFUSED(cudaMemcpyAsync(p, s.host, s.bytes, cudaMemcpyHostToDevice, s.first), cudaErrorInvalidValue);
}
static void double_free()
{
    float *p = device(16);
    CHECK(cudaFree(p));
    (void)cudaFree(p);
}
static void free_of_the_middle()
{
    float *p = device(16);
    (void)cudaFree(p + 4);
    CHECK(cudaFree(p));
}
static void pinned_freed_as_device()
{
    float *p = pinned(16);
    (void)cudaFree(p);
    CHECK(cudaFreeHost(p));
}
static void leak_of_memory() { (void)device(16); }
static void leak_of_stream() { (void)stream(); }
static void leak_of_event() { (void)event(); }
static void copy_out_of_bounds()
{
    Stage s;
    REFUSED(cudaMemcpyAsync(s.a + 1, s.host, s.bytes, cudaMemcpyHostToDevice, s.first), cudaErrorInvalidValue);
}
static void copy_in_the_wrong_direction()
{
    Stage s;
    REFUSED(cudaMemcpyAsync(s.host, s.a, s.bytes, cudaMemcpyHostToDevice, s.first), cudaErrorInvalidValue);
}
static void event_used_after_destroy()
{
    Stage s;
    cudaEvent_t e = event();
    CHECK(cudaEventDestroy(e));
    (void)cudaEventRecord(e, s.first);
}
static void stream_used_after_destroy()
{
    cudaStream_t s = stream();
    CHECK(cudaStreamDestroy(s));
    (void)cudaStreamSynchronize(s);
}
static void stream_of_another_device()
{
    Stage s;
    CHECK(cudaSetDevice(1));
    const cudaError_t e = good_add(s.a, s.a, s.b, s.n, s.first);
    CHECK(cudaSetDevice(0));
    REFUSED(e, cudaErrorInvalidResourceHandle);
}
static void event_of_another_device()
{
    Stage s;
    CHECK(cudaSetDevice(1));
    cudaStream_t far = stream();
    REFUSED(cudaEventRecord(s.done, far), cudaErrorInvalidResourceHandle);
}
static void peer_memory_without_access()
{
    float *near = device(128);
    CHECK(cudaSetDevice(1));
    cudaStream_t far = stream();
    CHECK(good_add(near, near, near, 128, far));
    CHECK(cudaStreamSynchronize(far));
}
static void api_call_in_host_function()
{
    Stage s;
    static cudaError_t e;
    CHECK(cudaLaunchHostFunc(
        s.first, [](void *) { e = cudaDeviceSynchronize(); }, nullptr));
    CHECK(cudaStreamSynchronize(s.first));
    REFUSED(e, cudaErrorNotPermitted);
}

// ---- mistakes with graphs ----
static void allocation_during_capture()
{
    Stage s;
    CHECK(cudaStreamBeginCapture(s.first, cudaStreamCaptureModeGlobal));
    void *p;
    REFUSED(cudaMalloc(&p, 16), cudaErrorStreamCaptureUnsupported);
}
static void synchronise_during_capture()
{
    Stage s;
    CHECK(cudaStreamBeginCapture(s.first, cudaStreamCaptureModeThreadLocal));
    REFUSED(cudaStreamSynchronize(s.first), cudaErrorStreamCaptureUnsupported);
}
static void capture_with_unjoined_stream()
{
    Stage s;
    CHECK(cudaStreamBeginCapture(s.first, cudaStreamCaptureModeThreadLocal));
    CHECK(cudaEventRecord(s.done, s.first));
    CHECK(cudaStreamWaitEvent(s.second, s.done, 0));
    CHECK(cudaMemsetAsync(s.a, 0, s.bytes, s.second));
    cudaGraph_t g = nullptr;
    REFUSED(cudaStreamEndCapture(s.first, &g), cudaErrorStreamCaptureUnjoined);
}
static void capture_waits_for_the_outside()
{
    Stage s;
    CHECK(cudaEventRecord(s.done, s.second));
    CHECK(cudaStreamBeginCapture(s.first, cudaStreamCaptureModeThreadLocal));
    REFUSED(cudaStreamWaitEvent(s.first, s.done, 0), cudaErrorStreamCaptureIsolation);
}
static void capture_ended_by_another_thread()
{
    Stage s;
    CHECK(cudaStreamBeginCapture(s.first, cudaStreamCaptureModeThreadLocal));
    cudaError_t e = cudaSuccess;
    std::thread([&] {
        cudaGraph_t g = nullptr;
        e = cudaStreamEndCapture(s.first, &g);
    }).join();
    REFUSED(e, cudaErrorStreamCaptureWrongThread);
}
static cudaGraphExec_t captured(const std::function<void()> &work, cudaStream_t s)
{
    cudaGraph_t g = nullptr;
    cudaGraphExec_t x = nullptr;
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    work();
    CHECK(cudaStreamEndCapture(s, &g));
    CHECK(cudaGraphInstantiate(&x, g, 0));
    CHECK(cudaGraphDestroy(g));
    return x;
}
static void branches_of_a_graph_race()
{
    Stage s;
    cudaEvent_t back = event();
    cudaGraphExec_t x = captured(
        [&] {
            CHECK(cudaEventRecord(s.done, s.first));
            CHECK(cudaStreamWaitEvent(s.second, s.done, 0));
            CHECK(good_add(s.a, s.a, s.b, s.n, s.second));
            CHECK(cudaMemsetAsync(s.b, 0, s.bytes, s.first));
            CHECK(cudaEventRecord(back, s.second));
            CHECK(cudaStreamWaitEvent(s.first, back, 0));
        },
        s.first);
    CHECK(cudaGraphExecDestroy(x));
    CHECK(cudaEventDestroy(back));
}
static void graph_launched_without_wait()
{
    Stage s;
    cudaGraphExec_t x = captured([&] { CHECK(good_add(s.a, s.a, s.b, s.n, s.first)); }, s.first);
    CHECK(cudaMemcpyAsync(s.a, s.host, s.bytes, cudaMemcpyHostToDevice, s.second));
    CHECK(cudaGraphLaunch(x, s.first));
    CHECK(cudaStreamSynchronize(s.first));
    CHECK(cudaGraphExecDestroy(x));
}
static void graph_uses_freed_memory()
{
    Stage s;
    cudaGraphExec_t x = captured([&] { CHECK(cudaMemsetAsync(s.c, 0, s.bytes, s.first)); }, s.first);
    CHECK(cudaFree(s.c));
    s.c = nullptr;
    (void)cudaGraphLaunch(x, s.first);
    CHECK(cudaGraphExecDestroy(x));
}
static void leak_of_graph()
{
    Stage s;
    (void)captured([&] { CHECK(cudaMemsetAsync(s.c, 0, s.bytes, s.first)); }, s.first);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    const std::string name = argc > 1 ? argv[1] : "";
#define HOST(f) {#f, f}
    const std::map<std::string, void (*)()> hosts = {
        HOST(missing_wait_for_cp_async), HOST(missing_fence_of_the_asynchronous_proxy), HOST(missing_wait_between_streams),
        HOST(event_recorded_too_early), HOST(buffer_reused_too_early),
        HOST(two_writers), HOST(host_reads_result_in_flight), HOST(result_read_too_early), HOST(host_writes_buffer_in_flight),
        HOST(piece_given_back_in_flight), HOST(work_on_a_piece_given_back), HOST(freed_in_flight), HOST(pinned_freed_in_flight),
        HOST(async_free_without_wait), HOST(use_after_async_free), HOST(use_after_free),
        HOST(double_free), HOST(free_of_the_middle), HOST(pinned_freed_as_device), HOST(leak_of_memory), HOST(leak_of_stream),
        HOST(leak_of_event), HOST(copy_out_of_bounds), HOST(copy_in_the_wrong_direction), HOST(event_used_after_destroy),
        HOST(stream_used_after_destroy), HOST(stream_of_another_device), HOST(event_of_another_device),
        HOST(peer_memory_without_access),
        HOST(api_call_in_host_function), HOST(allocation_during_capture), HOST(synchronise_during_capture),
        HOST(capture_with_unjoined_stream), HOST(capture_waits_for_the_outside), HOST(capture_ended_by_another_thread),
        HOST(branches_of_a_graph_race), HOST(graph_launched_without_wait), HOST(graph_uses_freed_memory), HOST(leak_of_graph),
    };
#undef HOST
    const std::map<std::string, int> hopper = {{"missing_wait_for_tma", 1},        {"product_read_too_early", 2},
                                               {"mbarrier_not_initialised", 3},    {"waits_for_the_other_phase", 4},
                                               {"swizzle_of_another_tile", 5},     {"missing_wgmma_fence", 6},
                                               {"registers_written_in_flight", 7}, {"warps_describe_other_rows", 8},
                                               {"stage_filled_too_early", 9},      {"operand_off_its_swizzle", 10}};
    if (hosts.count(name)) hosts.at(name)();
    else if (hopper.count(name)) run_hopper(hopper.at(name));
    else run_kernel(name.c_str());
    printf("not found\n");
    return 0;
}
