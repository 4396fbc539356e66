// Copies and fills. Every one is checked: direction against the memory's kinds, ranges against their allocations.
#include "../stm_sim.h"
#include "capture.h"
#include "state.h"
#include <cstring>

namespace sim {

struct Traffic {
    long copies = 0;
    long long bytes = 0;
};
static std::map<std::string, Traffic> &traffic()
{
    static auto *t = new std::map<std::string, Traffic>;
    return *t;
}

// Where one side of a copy is.
struct Side {
    Memory m;
    bool device() const { return m.known && m.type == cudaMemoryTypeDevice; }
    bool pageable() const { return !m.known; }
};
static bool inside(const Memory &m, const void *p, size_t bytes)
{
    return !m.known || static_cast<const char *>(p) + bytes <= m.base + m.bytes;
}

static cudaError_t check_direction(const Side &dst, const Side &src, cudaMemcpyKind kind)
{
    switch (kind) {
    case cudaMemcpyHostToHost: return dst.device() || src.device() ? cudaErrorInvalidValue : cudaSuccess;
    case cudaMemcpyHostToDevice: return !dst.device() || src.device() ? cudaErrorInvalidValue : cudaSuccess;
    case cudaMemcpyDeviceToHost: return dst.device() || !src.device() ? cudaErrorInvalidValue : cudaSuccess;
    case cudaMemcpyDeviceToDevice: return !dst.device() || !src.device() ? cudaErrorInvalidValue : cudaSuccess;
    case cudaMemcpyDefault: return cudaSuccess;
    default: return cudaErrorInvalidMemcpyDirection;
    }
}

static const char *direction(const Side &dst, const Side &src)
{
    if (dst.device() && src.device()) return dst.m.device == src.m.device ? "d2d" : "p2p";
    return dst.device() ? "h2d" : src.device() ? "d2h" : "h2h";
}

struct Rect {
    size_t dst_pitch, src_pitch, width, height;
    size_t dst_span() const { return (height - 1) * dst_pitch + width; }
    size_t src_span() const { return (height - 1) * src_pitch + width; }
};

static cudaError_t copy(void *dst, const void *src, const Rect &r, cudaMemcpyKind kind, cudaStream_t stream, bool sync,
                        const Site &site)
{
    if (r.width == 0 || r.height == 0) return cudaSuccess;
    if (!dst || !src || r.dst_pitch < r.width || r.src_pitch < r.width) return cudaErrorInvalidValue;
    const Side to{memory_at(dst)}, from{memory_at(src)};
    cudaError_t e = check_direction(to, from, kind);
    if (e) {
        explain_stale(dst, site);
        explain_stale(src, site);
        return e;
    }
    if (!inside(to.m, dst, r.dst_span()) || !inside(from.m, src, r.src_span())) return cudaErrorInvalidValue;
    const StreamInfo info = stream_info(stream);
    if (!info.valid) return cudaErrorInvalidResourceHandle;
    const bool pageable = to.pageable() || from.pageable();
    if (info.capturing && (sync || pageable)) {
        Lock l;
        return capture_break(stream_of(stream), cudaErrorStreamCaptureUnsupported);
    }
    {
        Lock l;
        if (sync)
            if (cudaError_t f = capture_forbids_unsafe()) return f;
        Traffic &t = traffic()[direction(to, from)];
        t.copies++;
        t.bytes += static_cast<long long>(r.width * r.height);
        if (pageable && !sync) traffic()["pageable"].copies++;
    }
    Work w{"copy", site, nullptr, {{dst, r.dst_span(), Touch::Write}, {src, r.src_span(), Touch::Read}}};
    const int device = info.device;
    w.run = [=] {
        const int injected = async_fault("copy");
        if (injected) return kill_device(device, static_cast<cudaError_t>(injected), "injected fault of a copy");
        if (r.dst_pitch == r.width && r.src_pitch == r.width) {
            memcpy(dst, src, r.width * r.height);
            return;
        }
        for (size_t y = 0; y < r.height; y++)
            memcpy(static_cast<char *>(dst) + y * r.dst_pitch, static_cast<const char *>(src) + y * r.src_pitch, r.width);
    };
    // What the host sees after the call: pageable memory is staged, so both directions have waited for the stream.
    RecordP record;
    {
        Lock l;
        Stream *s = stream_of(stream);
        if (!s) return cudaErrorInvalidResourceHandle;
        if (s->capture) return capture_add(s, std::move(w), {});
        if (cudaError_t f = capture_forbids_implicit(s)) return f;
        record = enqueue_locked(s, std::move(w), {});
    }
    if (sync || pageable) {
        wait_for(record);
        return sticky_of(device);
    }
    return cudaSuccess;
}

static Rect line(size_t bytes) { return {bytes, bytes, bytes, 1}; }

static cudaError_t fill(void *p, int value, const Rect &r, cudaStream_t stream, const Site &site)
{
    if (r.width == 0 || r.height == 0) return cudaSuccess;
    const Memory m = memory_at(p);
    if (!m.known) explain_stale(p, site);
    if (!m.known || r.dst_pitch < r.width || !inside(m, p, r.dst_span())) return cudaErrorInvalidValue;
    const int device = stream_info(stream).device;
    Work w{"memset", site, nullptr, {{p, r.dst_span(), Touch::Write}}};
    w.run = [=] {
        const int injected = async_fault("memset");
        if (injected) return kill_device(device, static_cast<cudaError_t>(injected), "injected fault of a memset");
        for (size_t y = 0; y < r.height; y++) memset(static_cast<char *>(p) + y * r.dst_pitch, value, r.width);
    };
    return enqueue(stream, std::move(w));
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    cudaError_t e = enter("cudaMemcpy");
    return e ? e : result(copy(dst, src, line(bytes), kind, nullptr, true, SIM_SITE("cudaMemcpy")));
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t e = enter("cudaMemcpyAsync");
    return e ? e : result(copy(dst, src, line(bytes), kind, stream, false, SIM_SITE("cudaMemcpyAsync")));
}
cudaError_t cudaMemcpy2D(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind)
{
    cudaError_t e = enter("cudaMemcpy2D");
    return e ? e : result(copy(dst, src, {dst_pitch, src_pitch, width, height}, kind, nullptr, true, SIM_SITE("cudaMemcpy2D")));
}
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t e = enter("cudaMemcpy2DAsync");
    return e ? e
             : result(copy(dst, src, {dst_pitch, src_pitch, width, height}, kind, stream, false, SIM_SITE("cudaMemcpy2DAsync")));
}

static cudaError_t peer_copy(const char *api, void *dst, int dst_device, const void *src, int src_device, size_t bytes,
                             cudaStream_t stream, bool sync, const Site &site)
{
    cudaError_t e = enter(api);
    if (e) return e;
    const Memory to = memory_at(dst), from = memory_at(src);
    if (!to.known || !from.known || to.device != dst_device || from.device != src_device) return result(cudaErrorInvalidValue);
    return result(copy(dst, src, line(bytes), cudaMemcpyDeviceToDevice, stream, sync, site));
}
cudaError_t cudaMemcpyPeer(void *dst, int dst_device, const void *src, int src_device, size_t bytes)
{
    return peer_copy("cudaMemcpyPeer", dst, dst_device, src, src_device, bytes, nullptr, true, SIM_SITE("cudaMemcpyPeer"));
}
cudaError_t cudaMemcpyPeerAsync(void *dst, int dst_device, const void *src, int src_device, size_t bytes, cudaStream_t stream)
{
    return peer_copy("cudaMemcpyPeerAsync", dst, dst_device, src, src_device, bytes, stream, false,
                     SIM_SITE("cudaMemcpyPeerAsync"));
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    cudaError_t e = enter("cudaMemset");
    return e ? e : result(fill(p, value, line(bytes), nullptr, SIM_SITE("cudaMemset"))); // as the real one: does not wait
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    cudaError_t e = enter("cudaMemsetAsync");
    return e ? e : result(fill(p, value, line(bytes), stream, SIM_SITE("cudaMemsetAsync")));
}
cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream)
{
    cudaError_t e = enter("cudaMemset2DAsync");
    return e ? e : result(fill(p, value, {pitch, pitch, width, height}, stream, SIM_SITE("cudaMemset2DAsync")));
}

void stm_sim_copied(const char *direction, long *copies, long long *bytes)
{
    Lock l;
    const Traffic &t = traffic()[direction];
    if (copies) *copies = t.copies;
    if (bytes) *bytes = t.bytes;
}

} // extern "C"
