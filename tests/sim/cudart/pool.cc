// Stream-ordered allocation. Each block is fresh memory of its own, taken when the call is made and given back when the stream
// gets there; pools only keep books. That a block is used in stream order is the checker's matter: both ends count as writes.
#include "capture.h"
#include "state.h"
#include <cstring>

namespace sim {

struct Pool {
    int device = 0;
    uint64_t threshold = 0, used = 0, peak = 0;
    bool is_default = false;
};
static std::vector<Pool *> &pools()
{
    static auto *all = new std::vector<Pool *>;
    return *all;
}
static std::map<int, Pool *> &current_pools()
{
    static auto *map = new std::map<int, Pool *>;
    return *map;
}
static Pool *default_pool(int device)
{
    for (Pool *p : pools())
        if (p->is_default && p->device == device) return p;
    auto *p = new Pool;
    p->device = device;
    p->is_default = true;
    pools().push_back(p);
    return p;
}
static Pool *pool_of(int device)
{
    auto it = current_pools().find(device);
    return it == current_pools().end() ? default_pool(device) : it->second;
}
static bool known(const Pool *p)
{
    for (const Pool *q : pools())
        if (p == q) return true;
    return false;
}
static std::map<uintptr_t, Pool *> &owners()
{
    static auto *map = new std::map<uintptr_t, Pool *>;
    return *map;
}

static cudaError_t take(void **out, size_t bytes, Pool *pool, cudaStream_t stream, const Site &site)
{
    const StreamInfo info = stream_info(stream);
    if (!info.valid) return cudaErrorInvalidResourceHandle;
    if (info.capturing) return cudaErrorNotSupported; // memory nodes of graphs are not simulated
    if (bytes == 0) {
        *out = nullptr;
        return cudaSuccess;
    }
    {
        Lock l;
        if (!pool) pool = pool_of(info.device);
        if (!known(pool)) return cudaErrorInvalidValue;
    }
    void *p = nullptr;
    cudaError_t e = allocate(&p, bytes, pool->device, cudaMemoryTypeDevice, site);
    if (e) return e;
    {
        Lock l;
        owners()[reinterpret_cast<uintptr_t>(p)] = pool;
        pool->used += bytes;
        if (pool->used > pool->peak) pool->peak = pool->used;
    }
    e = enqueue(stream, Work{"alloc", site, nullptr, {{p, bytes, Touch::Write}}});
    if (!e) *out = p;
    return e;
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream)
{
    cudaError_t e = enter("cudaMallocAsync", cudaErrorMemoryAllocation);
    return e ? e : result(take(out, bytes, nullptr, stream, SIM_SITE("cudaMallocAsync")));
}
cudaError_t cudaMallocFromPoolAsync(void **out, size_t bytes, cudaMemPool_t pool, cudaStream_t stream)
{
    cudaError_t e = enter("cudaMallocFromPoolAsync", cudaErrorMemoryAllocation);
    return e ? e : result(take(out, bytes, reinterpret_cast<Pool *>(pool), stream, SIM_SITE("cudaMallocFromPoolAsync")));
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    const int injected = fault("cudaFreeAsync", cudaErrorUnknown, Call::Quiet);
    if (injected) return result(static_cast<cudaError_t>(injected));
    if (!p) return cudaSuccess;
    const Site site = SIM_SITE("cudaFreeAsync");
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    size_t bytes = 0;
    {
        Lock l;
        Allocation *a = find_allocation(p);
        if (!a || a->at != at || a->type != cudaMemoryTypeDevice || a->freed) {
            finding("cudaFreeAsync of what is not allocated (any more): %s", describe(site).c_str());
            return result(cudaErrorInvalidValue);
        }
        bytes = a->bytes;
        Stream *s = stream_of(stream);
        if (!s) return result(cudaErrorInvalidResourceHandle);
        if (s->capture) return result(cudaErrorNotSupported);
        a->freed = true;
        auto owner = owners().find(at);
        if (owner != owners().end()) {
            owner->second->used -= bytes;
            owners().erase(owner);
        }
    }
    Work w{"free", site, [at] { release_memory(at); }, {{p, bytes, Touch::Write}}};
    return result(enqueue(stream, std::move(w)));
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *out, int device)
{
    cudaError_t e = enter("cudaDeviceGetDefaultMemPool");
    if (e) return e;
    if (device < 0 || static_cast<size_t>(device) >= devices().size()) return result(cudaErrorInvalidDevice);
    Lock l;
    *out = reinterpret_cast<cudaMemPool_t>(default_pool(device));
    return cudaSuccess;
}
cudaError_t cudaDeviceGetMemPool(cudaMemPool_t *out, int device)
{
    cudaError_t e = enter("cudaDeviceGetMemPool");
    if (e) return e;
    if (device < 0 || static_cast<size_t>(device) >= devices().size()) return result(cudaErrorInvalidDevice);
    Lock l;
    *out = reinterpret_cast<cudaMemPool_t>(pool_of(device));
    return cudaSuccess;
}
cudaError_t cudaDeviceSetMemPool(int device, cudaMemPool_t pool)
{
    cudaError_t e = enter("cudaDeviceSetMemPool");
    if (e) return e;
    Lock l;
    Pool *p = reinterpret_cast<Pool *>(pool);
    if (!known(p) || p->device != device) return result(cudaErrorInvalidValue);
    current_pools()[device] = p;
    return cudaSuccess;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t *out, const cudaMemPoolProps *props)
{
    cudaError_t e = enter("cudaMemPoolCreate", cudaErrorMemoryAllocation);
    if (e) return e;
    if (props->location.type != cudaMemLocationTypeDevice) return result(cudaErrorNotSupported);
    Lock l;
    auto *p = new Pool;
    p->device = props->location.id;
    pools().push_back(p);
    *out = reinterpret_cast<cudaMemPool_t>(p);
    return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool)
{
    Lock l;
    Pool *p = reinterpret_cast<Pool *>(pool);
    if (!known(p) || p->is_default || p->used) return result(cudaErrorInvalidValue);
    for (size_t i = 0; i < pools().size(); i++)
        if (pools()[i] == p) pools().erase(pools().begin() + static_cast<long>(i));
    for (auto it = current_pools().begin(); it != current_pools().end();) it = it->second == p ? current_pools().erase(it) : ++it;
    delete p;
    return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return enter("cudaMemPoolTrimTo"); }

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attr, void *value)
{
    cudaError_t e = enter("cudaMemPoolSetAttribute");
    if (e) return e;
    Lock l;
    Pool *p = reinterpret_cast<Pool *>(pool);
    if (!known(p)) return result(cudaErrorInvalidValue);
    switch (attr) {
    case cudaMemPoolAttrReleaseThreshold: p->threshold = *static_cast<uint64_t *>(value); break;
    case cudaMemPoolAttrUsedMemHigh: case cudaMemPoolAttrReservedMemHigh: p->peak = p->used; break;
    case cudaMemPoolReuseFollowEventDependencies:
    case cudaMemPoolReuseAllowOpportunistic:
    case cudaMemPoolReuseAllowInternalDependencies: break;
    default: return result(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attr, void *value)
{
    cudaError_t e = enter("cudaMemPoolGetAttribute");
    if (e) return e;
    Lock l;
    Pool *p = reinterpret_cast<Pool *>(pool);
    if (!known(p)) return result(cudaErrorInvalidValue);
    switch (attr) {
    case cudaMemPoolAttrReleaseThreshold: *static_cast<uint64_t *>(value) = p->threshold; break;
    case cudaMemPoolAttrUsedMemCurrent: case cudaMemPoolAttrReservedMemCurrent: *static_cast<uint64_t *>(value) = p->used; break;
    case cudaMemPoolAttrUsedMemHigh: case cudaMemPoolAttrReservedMemHigh: *static_cast<uint64_t *>(value) = p->peak; break;
    default: *static_cast<int *>(value) = 1; break; // the reuse switches
    }
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t, const cudaMemAccessDesc *, size_t) { return enter("cudaMemPoolSetAccess"); }

} // extern "C"
