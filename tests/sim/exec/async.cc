// Asynchronous copies: cp.async, mbarriers, TMA. Each is kept as a closure and takes place when somebody waits for it, so that
// a kernel that forgets the wait reads what was there before (NaN, or the last tile).
#include "gang.h"
#include <cstring>

namespace sim {

[[noreturn]] static void die() // after fail()
{
    to_scheduler();
    __builtin_trap();
}

static void start(Pending *p, std::function<void()> action)
{
    if (coin()) return action();
    Quiet quiet;
    p->open.push_back(std::move(action));
}
void commit(Pending *p)
{
    Quiet quiet;
    p->groups.push_back(std::move(p->open));
    p->open.clear();
}
void finish(Pending *p, unsigned newest)
{
    while (p->groups.size() > newest) {
        for (auto &action : p->groups.front()) action();
        Quiet quiet;
        p->groups.erase(p->groups.begin());
    }
}

void async_exit(Fiber *f)
{
    const char *what = !f->copies.empty()     ? "cp.async"
                       : !f->stores.empty()   ? "TMA store"
                       : !f->products.empty() ? "wgmma"
                                              : nullptr;
    if (!what) return;
    fail(cudaErrorLaunchFailure, "%s: %s ends with a %s that it has not waited for", gang->kernel->name, thread_name(*f).c_str(),
         what);
    to_scheduler();
}

void async_block_end(Block *b)
{
    for (const auto &m : b->mbarriers)
        if (!m.second.loads.empty())
            fail(cudaErrorLaunchFailure, "%s: block ends with %zu TMA load(s) that nobody has waited for", gang->kernel->name,
                 m.second.loads.size());
}

static Mbarrier *mbarrier_at(void *bar, const char *site)
{
    auto &all = fiber->block->mbarriers;
    auto it = all.find(bar);
    if (it != all.end()) return &it->second;
    fail(cudaErrorLaunchFailure, "%s: mbarrier at %s was not initialised, %s", gang->kernel->name, site,
         thread_name(*fiber).c_str());
    die();
}

static void try_complete(void *bar, Mbarrier *m)
{
    if (m->missing || m->bytes != 0) return;
    m->phase ^= 1;
    m->missing = m->count;
    for (Fiber &f : fiber->block->fibers)
        if (f.state == State::Mbarrier && f.mbarrier == bar) f.state = State::Ready;
}

// The rows (innermost dimension) of a box, by their indices in the outer dimensions.
template <class F> static void each_row(const stm_sim_tensor_map &m, F row)
{
    uint32_t index[5] = {};
    for (;;) {
        row(index);
        int d = 1;
        while (d < m.rank && ++index[d] == m.box[d]) index[d++] = 0;
        if (d >= m.rank) return;
    }
}

static size_t swizzled(const stm_sim_tensor_map &m, size_t offset)
{
    switch (m.swizzle_bytes) {
    case 128: return offset ^ ((offset >> 7 & 7) << 4);
    case 64: return offset ^ ((offset >> 7 & 3) << 4);
    case 32: return offset ^ ((offset >> 7 & 1) << 4);
    default: return offset;
    }
}

static size_t box_bytes(const stm_sim_tensor_map &m)
{
    size_t n = m.element_bytes;
    for (int i = 0; i < m.rank; i++) n *= m.box[i];
    return n;
}

// Plain stores and cp.async write one view of shared memory; TMA stores and products read another, into which only TMA loads
// write, and fence.proxy.async what has been written so far. (The device asks for the fence from each thread that wrote; here one
// thread's is enough for all that was written before it.)
char *async_view(Block *b)
{
    if (!b->viewed) {
        Quiet quiet;
        memset(b->arena + kArena, 0xff, kArena);
        b->viewed = true;
    }
    return b->arena + kArena;
}

// Moves one box between global and shared memory, 16 bytes (the unit of swizzles) or less at a time.
static void move_box(const stm_sim_tensor_map &m, const int *at, char *shared, bool load)
{
    char *view = async_view(fiber->block);
    const size_t arena_offset = static_cast<size_t>(shared - fiber->block->arena);
    const size_t inner = size_t(m.box[0]) * m.element_bytes, unit = 16;
    size_t packed = 0;
    each_row(m, [&](const uint32_t *index) {
        bool inside = true;
        const char *row = m.base;
        for (int d = 1; d < m.rank; d++) {
            const int64_t pos = int64_t(at[d]) + index[d];
            inside = inside && pos >= 0 && pos <= int64_t(m.dim[d]);
            row += inside ? pos * static_cast<int64_t>(m.stride[d - 1]) : 0;
        }
        for (size_t x = 0; x < inner; x += unit) {
            const size_t place = swizzled(m, arena_offset + packed + x);
            char *s = load ? fiber->block->arena + place : view + place;
            const int64_t first = int64_t(at[0]) + static_cast<int64_t>(x / m.element_bytes);
            if (inside && first >= 0 && first + static_cast<int64_t>(unit / m.element_bytes) - 1 <= int64_t(m.dim[0])) {
                char *g = const_cast<char *>(row + first * m.element_bytes);
                memcpy(load ? s : g, load ? g : s, unit);
            } else {
                for (size_t e = 0; e < unit; e += m.element_bytes) {
                    const int64_t pos = int64_t(at[0]) + static_cast<int64_t>((x + e) / m.element_bytes);
                    const bool in = inside && pos >= 0 && pos <= int64_t(m.dim[0]);
                    const char *g = row + (in ? pos * m.element_bytes : 0);
                    if (!load) {
                        if (in) memcpy(const_cast<char *>(g), s + e, m.element_bytes);
                    } else if (in) {
                        memcpy(s + e, g, m.element_bytes);
                    } else {
                        memset(s + e, m.fill_nan ? 0xff : 0, m.element_bytes);
                    }
                }
            }
            if (load) memcpy(view + place, s, unit);
        }
        packed += inner;
    });
}

static void check_tma(const stm_sim_tensor_map *map, const void *shared, const char *site)
{
    const size_t align = map->swizzle_bytes == 128 ? 1024 : map->swizzle_bytes == 64 ? 512 : map->swizzle_bytes == 32 ? 256 : 128;
    const size_t offset = static_cast<size_t>(static_cast<const char *>(shared) - fiber->block->arena);
    if (map->rank == 0 || map->rank > 5 || offset % align != 0) {
        fail(cudaErrorMisalignedAddress,
             "%s: TMA at %s: shared memory offset %zu must be a multiple of %zu, and the map a tensor map", gang->kernel->name,
             site, offset, align);
        die();
    }
}

} // namespace sim

using namespace sim;

extern "C" {

void stm_sim_cp_async(void *shared, const void *global, unsigned bytes, unsigned valid_bytes, const char *site)
{
    const uintptr_t both = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
    if ((bytes != 4 && bytes != 8 && bytes != 16) || valid_bytes > bytes || both % bytes != 0) {
        fail(cudaErrorMisalignedAddress, "%s: cp.async of %u bytes at %s, %s: 4, 8 or 16 bytes, both sides aligned to them",
             gang->kernel->name, bytes, site, thread_name(*fiber).c_str());
        die();
    }
    start(&fiber->copies, [=] {
        memcpy(shared, global, valid_bytes);
        memset(static_cast<char *>(shared) + valid_bytes, 0, bytes - valid_bytes);
    });
}
void stm_sim_cp_async_commit(void) { commit(&fiber->copies); }
void stm_sim_cp_async_wait(unsigned newest, const char *)
{
    if (newest == ~0u) { // wait_all: committed or not
        commit(&fiber->copies);
        newest = 0;
    }
    finish(&fiber->copies, newest);
}

void stm_sim_mbarrier_init(void *bar, unsigned count, const char *site)
{
    if (reinterpret_cast<uintptr_t>(bar) % 8 || count == 0 || count > (1u << 20) - 1) {
        fail(cudaErrorMisalignedAddress, "%s: mbarrier init at %s: aligned to 8 bytes, count 1 .. 2^20 - 1", gang->kernel->name,
             site);
        die();
    }
    memset(bar, 0x5a, 8); // it is memory of the kernel: TSan sees the write
    Quiet quiet;
    Mbarrier m;
    m.count = m.missing = count;
    fiber->block->mbarriers[bar] = std::move(m);
}

void stm_sim_mbarrier_arrive(void *bar, unsigned expect_bytes, const char *site)
{
    Mbarrier *m = mbarrier_at(bar, site);
    if (m->missing == 0) {
        fail(cudaErrorLaunchFailure, "%s: more arrivals at an mbarrier than its count of %u, at %s, %s", gang->kernel->name,
             m->count, site, thread_name(*fiber).c_str());
        die();
    }
    hb_release(&m->tag[m->phase]);
    m->bytes += expect_bytes;
    m->missing--;
    try_complete(bar, m);
}

bool stm_sim_mbarrier_test(void *bar, unsigned parity, const char *site)
{
    Mbarrier *m = mbarrier_at(bar, site);
    if (m->phase == (parity & 1)) { // this phase is not over: what is on its way may arrive now
        std::vector<std::function<void()>> loads;
        loads.swap(m->loads);
        for (auto &load : loads) load();
        if (!loads.empty()) hb_release(&m->tag[parity & 1]);
        try_complete(bar, m);
    }
    if (m->phase == (parity & 1)) return false;
    hb_acquire(&m->tag[parity & 1]);
    return true;
}

void stm_sim_mbarrier_wait(void *bar, unsigned parity, const char *site)
{
    while (!stm_sim_mbarrier_test(bar, parity, site)) {
        fiber->state = State::Mbarrier;
        fiber->mbarrier = bar;
        fiber->site = site;
        to_scheduler();
    }
}

void stm_sim_tma_load(void *shared, const stm_sim_tensor_map *map, void *bar, const int *at, const char *site)
{
    check_tma(map, shared, site);
    Mbarrier *m = mbarrier_at(bar, site);
    std::vector<int> where(at, at + map->rank);
    auto load = [=, m = *map] {
        move_box(m, where.data(), static_cast<char *>(shared), true);
        fiber->block->mbarriers[bar].bytes -= static_cast<long>(box_bytes(m));
    };
    if (coin()) {
        load();
        hb_release(&m->tag[m->phase]);
        try_complete(bar, m);
    } else {
        Quiet quiet;
        m->loads.push_back(load);
        for (Fiber &f : fiber->block->fibers) // they look again
            if (f.state == State::Mbarrier && f.mbarrier == bar) f.state = State::Ready;
    }
}

void stm_sim_tma_store(const stm_sim_tensor_map *map, const void *shared, const int *at, const char *site)
{
    check_tma(map, shared, site);
    std::vector<int> where(at, at + map->rank);
    start(&fiber->stores, [=, m = *map] { move_box(m, where.data(), static_cast<char *>(const_cast<void *>(shared)), false); });
}
void stm_sim_fence_async(void)
{
    stm_sim_fence();
    Quiet quiet;
    const auto *from =
        reinterpret_cast<const volatile uint64_t *>(fiber->block->arena); // red zones, too: no memcpy, which ASan watches
    auto *to = reinterpret_cast<volatile uint64_t *>(async_view(fiber->block));
    for (size_t i = 0; i < fiber->block->used / 8; i++) to[i] = from[i];
}
void stm_sim_tma_store_commit(void) { commit(&fiber->stores); }
void stm_sim_tma_store_wait(unsigned newest, const char *) { finish(&fiber->stores, newest); }

} // extern "C"
