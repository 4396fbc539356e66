/*
 * The CUDA backend: one call of the runtime per operation, no state but handles. Everything that has a rule of its own (timelines,
 * pieces of copies, pools, when to wait) is in the engine, the same for all backends.
 */
#include "device/cuda_module.h"

#include <stdio.h>
#include <string.h>

#if defined(__has_include)
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define HAVE_NVTX 1
#endif
#endif

struct stm_hw_device {
    int ordinal;
};
struct stm_hw_stream {
    cudaStream_t stream;
    stm_hw_device *device;
};
struct stm_hw_event {
    cudaEvent_t event;
};
struct stm_hw_graph {
    cudaGraphExec_t exec;
};

const stm_module_host *stm_cuda_host;

static mill_status no_memory(mill_error *err, const char *file, int line)
{
    return stm_cuda_host->fail(err, MILL_ERR_NOMEM, file, line, "out of host memory");
}

/* ---- devices ---------------------------------------------------------------------------------------------------- */

static mill_status count(int32_t *n, mill_error *err)
{
    int found = 0;
    const cudaError_t code = STM_CUDA(cudaGetDeviceCount(&found));

    if (code == cudaErrorNoDevice)
        found = 0;
    else if (code != cudaSuccess) {
        (void)cudaGetLastError();
        return stm_cuda_host->fail(err, code == cudaErrorInvalidValue ? MILL_ERR_STEP : MILL_ERR_NOT_FOUND, __FILE__, __LINE__,
                                   "no usable NVIDIA driver: %s (%s)", cudaGetErrorString(code), cudaGetErrorName(code));
    }
    *n = found;
    return MILL_OK;
}

static mill_status info(int32_t ordinal, stm_device_info *out, mill_error *err)
{
    struct cudaDeviceProp p;
    const unsigned char *u = (const unsigned char *)p.uuid.bytes;
    const mill_status st = STM_CUDA_CHECK(cudaGetDeviceProperties(&p, ordinal), "looking at a CUDA device", err);

    if (st != MILL_OK) return st;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%.95s", p.name);
    snprintf(out->uuid, sizeof out->uuid, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
             u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    snprintf(out->pci, sizeof out->pci, "%04x:%02x:%02x.0", (unsigned)p.pciDomainID, (unsigned)p.pciBusID, (unsigned)p.pciDeviceID);
    out->major = p.major;
    out->minor = p.minor;
    out->processors = p.multiProcessorCount;
    out->memory_bytes = (int64_t)p.totalGlobalMem;
    return MILL_OK;
}

static mill_status use(const stm_hw_device *dev, mill_error *err)
{
    return STM_CUDA_CHECK(cudaSetDevice(dev->ordinal), "choosing the CUDA device", err);
}

/*
 * Memory is freed by whoever lets go of it last, and a way between two devices is opened by whoever copies first: threads that may
 * be in the middle of a step on a device of their own. Its kernels would not be launched with another device chosen. A thread that
 * works for none has nothing to go back to: to choose device 0 for it would make a context there.
 */
static _Thread_local bool works; /* for a device that it has chosen */

static int chosen(int otherwise)
{
    int ordinal = otherwise;

    if (works && cudaGetDevice(&ordinal) != cudaSuccess) {
        (void)cudaGetLastError();
        return otherwise;
    }
    return ordinal;
}

static void go_back(int to, int from)
{
    if (to != from && cudaSetDevice(to) != cudaSuccess) (void)cudaGetLastError();
}

static mill_status device_open(int32_t ordinal, stm_hw_device **out, mill_error *err)
{
    stm_hw_device *dev = stm_cuda_host->calloc(sizeof *dev);
    mill_status st;

    if (dev == NULL) return no_memory(err, __FILE__, __LINE__);
    dev->ordinal = ordinal;
    if ((st = use(dev, err)) != MILL_OK) { /* makes the device's context, too */
        stm_cuda_host->free(dev);
        return st;
    }
    *out = dev;
    return MILL_OK;
}

static void device_close(stm_hw_device **dev) /* the context stays: others in the process may use the device */
{
    stm_cuda_host->free(*dev);
    *dev = NULL;
}

static mill_status mem_info(stm_hw_device *dev, int64_t *free_bytes, int64_t *total_bytes, mill_error *err)
{
    size_t free_now = 0, total = 0;
    mill_status st = use(dev, err);

    if (st == MILL_OK) st = STM_CUDA_CHECK(cudaMemGetInfo(&free_now, &total), "asking for free device memory", err);
    if (st != MILL_OK) return st;
    *free_bytes = (int64_t)free_now;
    *total_bytes = (int64_t)total;
    return MILL_OK;
}

static mill_status enter(stm_hw_device *dev, mill_error *err)
{
    const mill_status st = use(dev, err);

    works = works || st == MILL_OK;
    return st;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static mill_status mem_alloc(stm_hw_device *dev, stm_mem_kind kind, size_t bytes, void **out, mill_error *err)
{
    void *p = NULL;
    cudaError_t code;
    mill_status st = use(dev, err);

    if (st != MILL_OK) return st;
    /* portable: pinned for every device of the process */
    code = kind == STM_MEM_DEVICE ? STM_CUDA(cudaMalloc(&p, bytes)) : STM_CUDA(cudaHostAlloc(&p, bytes, cudaHostAllocPortable));
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return stm_cuda_host->fail(err, kind == STM_MEM_DEVICE ? MILL_ERR_DEVICE_MEM : MILL_ERR_NOMEM, __FILE__, __LINE__,
                                   "no %s memory for %zu bytes on CUDA device %d",
                                   kind == STM_MEM_DEVICE ? "device" : "pinned host", bytes, dev->ordinal);
    }
    st = stm_cuda_check(code, "allocating memory", __FILE__, __LINE__, err);
    if (st == MILL_OK) *out = p;
    return st;
}

static void mem_free(stm_hw_device *dev, stm_mem_kind kind, void *ptr)
{
    int before;

    if (ptr == NULL) return;
    before = chosen(dev->ordinal);
    (void)cudaSetDevice(dev->ordinal);
    if ((kind == STM_MEM_DEVICE ? cudaFree(ptr) : cudaFreeHost(ptr)) != cudaSuccess)
        (void)cudaGetLastError(); /* the device is lost: so is its memory */
    go_back(before, dev->ordinal);
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

static mill_status stream_open(stm_hw_device *dev, stm_hw_stream **out, mill_error *err)
{
    stm_hw_stream *s = stm_cuda_host->calloc(sizeof *s);
    mill_status st;

    if (s == NULL) return no_memory(err, __FILE__, __LINE__);
    s->device = dev;
    st = use(dev, err);
    /* non-blocking: work on the null stream of a plugin orders nothing of ours */
    if (st == MILL_OK)
        st = STM_CUDA_CHECK(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking), "opening a CUDA stream", err);
    if (st != MILL_OK) {
        stm_cuda_host->free(s);
        return st;
    }
    *out = s;
    return MILL_OK;
}

static void stream_close(stm_hw_stream **ps)
{
    stm_hw_stream *s = *ps;

    if (s == NULL) return;
    *ps = NULL;
    (void)cudaSetDevice(s->device->ordinal);
    for (int i = 0; i < 2 && cudaStreamSynchronize(s->stream) != cudaSuccess; i++) /* the first may tell of something else */
        (void)cudaGetLastError();
    if (cudaStreamDestroy(s->stream) != cudaSuccess) (void)cudaGetLastError();
    stm_cuda_host->free(s);
}

static void *stream_native(stm_hw_stream *s) { return s->stream; }

static mill_status copy(stm_hw_stream *s, void *dst, const void *src, size_t bytes, mill_error *err)
{
    return STM_CUDA_CHECK(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, s->stream), "queueing a copy", err);
}

static mill_status fill(stm_hw_stream *s, void *dst, int byte, size_t bytes, mill_error *err)
{
    return STM_CUDA_CHECK(cudaMemsetAsync(dst, byte, bytes, s->stream), "queueing a fill", err);
}

static mill_status copy_peer(stm_hw_stream *s, stm_hw_device *to, void *dst, stm_hw_device *from, const void *src, size_t bytes,
                             mill_error *err)
{
    return STM_CUDA_CHECK(cudaMemcpyPeerAsync(dst, to->ordinal, src, from->ordinal, bytes, s->stream),
                          "queueing a copy between devices", err);
}

static mill_status peer(stm_hw_device *a, stm_hw_device *b, bool *direct, mill_error *err)
{
    const stm_hw_device *pair[2] = {a, b};
    const int before = chosen(b->ordinal);
    int there = 0, back = 0;
    mill_status st = MILL_OK;

    if (a->ordinal == b->ordinal) {
        *direct = true;
        return MILL_OK;
    }
    st = STM_CUDA_CHECK(cudaDeviceCanAccessPeer(&there, a->ordinal, b->ordinal), "asking for peer access", err);
    if (st == MILL_OK) st = STM_CUDA_CHECK(cudaDeviceCanAccessPeer(&back, b->ordinal, a->ordinal), "asking for peer access", err);
    for (int i = 0; i < 2 && st == MILL_OK && there && back; i++) {
        cudaError_t code;
        if ((st = use(pair[i], err)) != MILL_OK) break;
        code = STM_CUDA(cudaDeviceEnablePeerAccess(pair[1 - i]->ordinal, 0));
        if (code == cudaErrorPeerAccessAlreadyEnabled)
            (void)cudaGetLastError();
        else
            st = stm_cuda_check(code, "enabling peer access", __FILE__, __LINE__, err);
    }
    go_back(before, -1);
    if (st == MILL_OK) *direct = there && back;
    return st;
}

static mill_status stream_sync(stm_hw_stream *s, mill_error *err)
{
    return STM_CUDA_CHECK(cudaStreamSynchronize(s->stream), "waiting for a stream", err);
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

static mill_status event_open(stm_hw_device *dev, stm_hw_event **out, mill_error *err)
{
    stm_hw_event *e = stm_cuda_host->calloc(sizeof *e);
    mill_status st;

    if (e == NULL) return no_memory(err, __FILE__, __LINE__);
    st = use(dev, err);
    if (st == MILL_OK) st = STM_CUDA_CHECK(cudaEventCreateWithFlags(&e->event, cudaEventDisableTiming), "creating an event", err);
    if (st != MILL_OK) {
        stm_cuda_host->free(e);
        return st;
    }
    *out = e;
    return MILL_OK;
}

static void event_close(stm_hw_event **pe)
{
    if (*pe == NULL) return;
    if (cudaEventDestroy((*pe)->event) != cudaSuccess) (void)cudaGetLastError();
    stm_cuda_host->free(*pe);
    *pe = NULL;
}

static mill_status event_record(stm_hw_event *e, stm_hw_stream *s, mill_error *err)
{
    return STM_CUDA_CHECK(cudaEventRecord(e->event, s->stream), "recording an event", err);
}

static mill_status event_query(stm_hw_event *e, mill_error *err)
{
    return STM_CUDA_CHECK(cudaEventQuery(e->event), "device work of a batch", err);
}

static mill_status stream_wait(stm_hw_stream *s, stm_hw_event *e, mill_error *err)
{
    return STM_CUDA_CHECK(cudaStreamWaitEvent(s->stream, e->event, 0), "ordering two streams", err);
}

/* ---- graphs ----------------------------------------------------------------------------------------------------- */

static mill_status graph_begin(stm_hw_stream *s, mill_error *err)
{
    return STM_CUDA_CHECK(cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal), "beginning to capture a graph", err);
}

static mill_status graph_end(stm_hw_stream *s, stm_hw_graph **out, mill_error *err)
{
    cudaGraph_t graph = NULL;
    /* always asked, also when a test wants the rest to fail: a stream must not be left capturing */
    mill_status st = stm_cuda_check(cudaStreamEndCapture(s->stream, &graph), "capturing a graph", __FILE__, __LINE__, err);
    stm_hw_graph *g = NULL;

    if (st == MILL_OK && (g = stm_cuda_host->calloc(sizeof *g)) == NULL) st = no_memory(err, __FILE__, __LINE__);
    if (st == MILL_OK) st = STM_CUDA_CHECK(cudaGraphInstantiate(&g->exec, graph, 0), "making a graph executable", err);
    if (graph != NULL && cudaGraphDestroy(graph) != cudaSuccess) (void)cudaGetLastError();
    if (st != MILL_OK) {
        stm_cuda_host->free(g);
        return st;
    }
    *out = g;
    return MILL_OK;
}

static mill_status graph_launch(stm_hw_graph *g, stm_hw_stream *s, mill_error *err)
{
    return STM_CUDA_CHECK(cudaGraphLaunch(g->exec, s->stream), "launching a graph", err);
}

static void graph_close(stm_hw_graph **pg)
{
    if (*pg == NULL) return;
    if (cudaGraphExecDestroy((*pg)->exec) != cudaSuccess) (void)cudaGetLastError();
    stm_cuda_host->free(*pg);
    *pg = NULL;
}

#ifdef HAVE_NVTX
static void range_push(const char *name) { nvtxRangePushA(name); }
static void range_pop(void) { nvtxRangePop(); }
#endif

static const stm_device_ops ops = {
    .struct_size = sizeof(stm_device_ops),
    .abi = STM_DEVICE_ABI,
    .name = "cuda",
    .count = count,
    .info = info,
    .device_open = device_open,
    .device_close = device_close,
    .enter = enter,
    .mem_info = mem_info,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .stream_open = stream_open,
    .stream_close = stream_close,
    .stream_native = stream_native,
    .copy = copy,
    .fill = fill,
    .copy_peer = copy_peer,
    .peer = peer,
    .stream_sync = stream_sync,
    .event_open = event_open,
    .event_close = event_close,
    .event_record = event_record,
    .event_query = event_query,
    .stream_wait = stream_wait,
    .graph_begin = graph_begin,
    .graph_end = graph_end,
    .graph_launch = graph_launch,
    .graph_close = graph_close,
#ifdef HAVE_NVTX
    .range_push = range_push,
    .range_pop = range_pop,
#endif
    .kernels = stm_cuda_kernels,
};

__attribute__((visibility("default"))) const stm_device_ops *stm_device_module_v1(const stm_module_host *host);
const stm_device_ops *stm_device_module_v1(const stm_module_host *host)
{
    if (host->abi != STM_DEVICE_ABI || host->struct_size < sizeof(stm_module_host)) return NULL;
    stm_cuda_host = host;
    return &ops;
}
