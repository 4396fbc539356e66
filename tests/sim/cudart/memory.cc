// Memory: device allocations and pinned ones, filled with NaN, behind guard pages (plain) or in the sanitizer's allocator. What
// lies between the block and its page borders holds a pattern that is looked at when it is freed.
#include "../exec/sanitizer.h"
#include "../stm_sim.h"
#include "capture.h"
#include "state.h"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

namespace sim {

static const size_t kPage = 4096, kAlign = 256;
static const unsigned char kFill = 0xff, kRed = 0xa5;
static uint64_t next_id;

std::map<uintptr_t, Allocation> &allocations()
{
    static auto *map = new std::map<uintptr_t, Allocation>;
    return *map;
}

Allocation *find_allocation(const void *p)
{
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    auto it = allocations().upper_bound(at);
    if (it == allocations().begin()) return nullptr;
    --it;
    return at < it->second.at + it->second.bytes || (at == it->second.at) ? &it->second : nullptr;
}

Memory memory_at(const void *p)
{
    Lock l;
    const Allocation *a = find_allocation(p);
    if (!a) return {false, cudaMemoryTypeUnregistered, -1, nullptr, 0};
    return {true, a->type, a->device, reinterpret_cast<const char *>(a->at), a->bytes};
}

// What was freed lately, so that a call with a stale pointer can be told as what it is. Others may have the address by now, so
// this is asked only when the call is wrong anyway.
struct Freed {
    size_t bytes;
    Site made;
};
static std::map<uintptr_t, Freed> &freed_lately()
{
    static auto *map = new std::map<uintptr_t, Freed>;
    return *map;
}
void explain_stale(const void *p, const Site &site)
{
    Lock l;
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    auto it = freed_lately().upper_bound(at);
    if (it == freed_lately().begin() || find_allocation(p)) return;
    --it;
    if (at < it->first + it->second.bytes)
        finding("use after free: [%s] is given memory that was freed (%s)", describe(site).c_str(),
                describe(it->second.made).c_str());
}

static size_t page_up(size_t n) { return (n + kPage - 1) / kPage * kPage; }

// Without the lock: the pages of a big block take a while.
static bool make(size_t bytes, Allocation *a)
{
    char *p = nullptr;
    if (under_asan() || under_tsan()) {
        void *q = nullptr;
        if (posix_memalign(&q, kAlign, bytes ? bytes : 1) != 0) return false;
        p = static_cast<char *>(q);
    } else {
        const size_t body = page_up(bytes ? bytes : 1);
        char *base =
            static_cast<char *>(mmap(nullptr, body + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (base == MAP_FAILED) return false;
        mprotect(base + kPage, body, PROT_READ | PROT_WRITE);
        a->mapping = base;
        a->mapping_bytes = body + 2 * kPage;
        p = base + kPage + (body - bytes) / kAlign * kAlign; // as near to the guard page behind as alignment lets it
        memset(base + kPage, kRed, static_cast<size_t>(p - base) - kPage);
        memset(p + bytes, kRed, static_cast<size_t>(base + kPage + body - (p + bytes)));
    }
    memset(p, kFill,
           std::min(bytes, settings().fill_bytes)); // the far end of a huge slab stays untouched, so that it costs nothing
    a->at = reinterpret_cast<uintptr_t>(p);
    a->bytes = bytes;
    return true;
}

static void check_borders(const Allocation &a)
{
    if (!a.mapping) return;
    const unsigned char *low = reinterpret_cast<unsigned char *>(a.mapping) + kPage, *p = reinterpret_cast<unsigned char *>(a.at);
    const unsigned char *end = p + a.bytes, *high = reinterpret_cast<unsigned char *>(a.mapping) + a.mapping_bytes - kPage;
    for (const unsigned char *q = p - 1; q >= low; q--)
        if (*q != kRed) {
            finding("out of bounds: byte %ld of an allocation of %zu was written (%s)", static_cast<long>(q - p), a.bytes,
                    describe(a.made).c_str());
            return;
        }
    for (const unsigned char *q = end; q < high; q++)
        if (*q != kRed) {
            finding("out of bounds: byte %ld of an allocation of %zu was written (%s)", static_cast<long>(q - p), a.bytes,
                    describe(a.made).c_str());
            return;
        }
}

static void unmake(const Allocation &a)
{
    if (a.mapping) munmap(a.mapping, a.mapping_bytes);
    else free(reinterpret_cast<void *>(a.at));
}

cudaError_t allocate(void **out, size_t bytes, int device, cudaMemoryType type, const Site &site)
{
    const bool counted = type == cudaMemoryTypeDevice;
    {
        Lock l;
        Device &d = devices()[device];
        if (counted && d.used + bytes > settings().device_bytes) return cudaErrorMemoryAllocation;
        if (counted) d.used += bytes;
        if (d.used > d.peak) d.peak = d.used;
    }
    Allocation a;
    a.device = device;
    a.type = type;
    a.made = site;
    const bool made = make(bytes, &a);
    Lock l;
    if (!made) {
        if (counted) devices()[device].used -= bytes;
        return cudaErrorMemoryAllocation;
    }
    a.id = ++next_id;
    *out = reinterpret_cast<void *>(a.at);
    allocations().emplace(a.at, std::move(a));
    return cudaSuccess;
}

// The caller has waited for its users.
void release_memory(uintptr_t at)
{
    Allocation a;
    {
        Lock l;
        auto it = allocations().find(at);
        if (it == allocations().end()) return;
        check_borders(it->second);
        a = std::move(it->second);
        allocations().erase(it);
        forget_pieces(a.at, a.at + a.bytes);
        if (a.type == cudaMemoryTypeDevice) devices()[a.device].used -= a.bytes;
        if (freed_lately().size() > 4096) freed_lately().clear();
        freed_lately()[a.at] = {a.bytes, a.made};
    }
    if (!a.registered) unmake(a);
}

static cudaError_t check_pointer_to_free(void *p, cudaMemoryType type, const char *api, const Site &site, int *device)
{
    Lock l;
    Allocation *a = find_allocation(p);
    if (a && a->at == reinterpret_cast<uintptr_t>(p) && a->type == type && !a->registered && !a->freed) {
        check_free(a, site);
        *device = a->device;
        return cudaSuccess;
    }
    finding("%s of %s: %s", api, a ? "a pointer into an allocation, or of the other kind" : "what is not allocated (any more)",
            describe(site).c_str());
    return cudaErrorInvalidValue;
}

// cudaFree and cudaFreeHost wait for the device, as the real ones do in effect. That they had to is a finding all the same.
static cudaError_t free_now(void *p, cudaMemoryType type, const char *api, const Site &site)
{
    const auto injected = static_cast<cudaError_t>(fault(api, cudaErrorUnknown, Call::Quiet));
    if (!settings().driver || devices().empty()) return result(cudaErrorNoDevice);
    if (!p) return result(injected);
    int device = 0;
    cudaError_t e = check_pointer_to_free(p, type, api, site, &device);
    if (e) return result(e);
    std::vector<RecordP> tails;
    {
        Lock l;
        if (cudaError_t f = capture_forbids_unsafe()) return result(f);
        for (size_t d = 0; d < devices().size(); d++)
            if (type == cudaMemoryTypeHost || static_cast<int>(d) == device)
                for (const RecordP &r : device_tails_locked(static_cast<int>(d))) tails.push_back(r);
    }
    wait_for(tails);
    release_memory(reinterpret_cast<uintptr_t>(p));
    return result(injected ? injected : sticky_of(device));
}

int live_allocations(cudaMemoryType type)
{
    int n = 0;
    for (const auto &a : allocations()) n += a.second.type == type && !a.second.registered;
    return n;
}
void describe_allocations()
{
    for (const auto &a : allocations())
        fprintf(stderr, "sim: not freed: %zu bytes of %s memory, device %d: %s\n", a.second.bytes,
                a.second.type == cudaMemoryTypeHost ? "pinned" : "device", a.second.device, describe(a.second.made).c_str());
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    cudaError_t e = enter("cudaMalloc", cudaErrorMemoryAllocation);
    if (e) return e;
    {
        Lock l;
        if (cudaError_t f = capture_forbids_unsafe()) return result(f);
    }
    if (bytes == 0) {
        *out = nullptr;
        return cudaSuccess;
    }
    return result(allocate(out, bytes, current_device(), cudaMemoryTypeDevice, SIM_SITE("cudaMalloc")));
}
cudaError_t cudaFree(void *p) { return free_now(p, cudaMemoryTypeDevice, "cudaFree", SIM_SITE("cudaFree")); }

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned)
{
    cudaError_t e = enter("cudaHostAlloc", cudaErrorMemoryAllocation);
    if (e) return e;
    {
        Lock l;
        if (cudaError_t f = capture_forbids_unsafe()) return result(f);
    }
    return result(allocate(out, bytes, current_device(), cudaMemoryTypeHost, SIM_SITE("cudaHostAlloc")));
}
cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaHostAlloc(out, bytes, cudaHostAllocDefault); }
cudaError_t cudaFreeHost(void *p) { return free_now(p, cudaMemoryTypeHost, "cudaFreeHost", SIM_SITE("cudaFreeHost")); }

cudaError_t cudaHostGetDevicePointer(void **out, void *p, unsigned)
{
    cudaError_t e = enter("cudaHostGetDevicePointer");
    if (e) return e;
    const Memory m = memory_at(p);
    if (!m.known || m.type != cudaMemoryTypeHost) return result(cudaErrorInvalidValue);
    *out = p;
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned)
{
    cudaError_t e = enter("cudaHostRegister", cudaErrorMemoryAllocation);
    if (e) return e;
    if (!p || !bytes) return result(cudaErrorInvalidValue);
    Lock l;
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    auto next = allocations().lower_bound(at);
    if (find_allocation(p) || (next != allocations().end() && next->first < at + bytes))
        return result(cudaErrorHostMemoryAlreadyRegistered);
    Allocation a;
    a.at = at;
    a.bytes = bytes;
    a.type = cudaMemoryTypeHost;
    a.device = current_device();
    a.registered = true;
    a.id = ++next_id;
    a.made = SIM_SITE("cudaHostRegister");
    allocations().emplace(at, std::move(a));
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *p)
{
    cudaError_t e = enter("cudaHostUnregister", cudaErrorUnknown, Call::Quiet);
    if (e) return e;
    Lock l;
    auto it = allocations().find(reinterpret_cast<uintptr_t>(p));
    if (it == allocations().end() || !it->second.registered) return result(cudaErrorHostMemoryNotRegistered);
    allocations().erase(it);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    cudaError_t e = enter("cudaMemGetInfo");
    if (e) return e;
    Lock l;
    *total = settings().device_bytes;
    *free_bytes = settings().device_bytes - this_device().used;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *p)
{
    cudaError_t e = enter("cudaPointerGetAttributes");
    if (e) return e;
    const Memory m = memory_at(p);
    memset(out, 0, sizeof *out);
    out->type = m.type;
    out->device = m.known ? m.device : cudaInvalidDeviceId;
    if (m.known) out->devicePointer = const_cast<void *>(p);
    if (m.known && m.type == cudaMemoryTypeHost) out->hostPointer = const_cast<void *>(p);
    return cudaSuccess;
}

int stm_sim_live(const char *what)
{
    const std::string w = what;
    Lock l;
    const bool all = w == "*";
    int n = 0;
    if (all || w == "alloc") n += live_allocations(cudaMemoryTypeDevice);
    if (all || w == "pinned") n += live_allocations(cudaMemoryTypeHost);
    if (n) describe_allocations();
    if (all || w == "stream") {
        n += live_stream_count();
        describe_streams();
    }
    if (all || w == "event") {
        n += live_event_count();
        describe_events();
    }
    if (all || w == "graph") n += live_graph_count();
    if (all || w == "graphexec") n += live_exec_count();
    return n;
}

} // extern "C"
