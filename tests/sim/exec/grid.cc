// The scheduler: blocks one after the other (all at once in a cooperative launch), the threads of a block in turn, each up to
// its next barrier or collective. Nobody able to run while somebody lives = a deadlock, told with every place threads wait at.
#include "gang.h"
#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace sim {

void fail(cudaError_t code, const char *format, ...)
{
    if (gang->dead) return;
    Quiet quiet; // the text is the engine's; the host thread reads it
    gang->dead = true;
    gang->code = code;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    gang->why = text;
}

std::string thread_name(const Fiber &f)
{
    char text[96];
    snprintf(text, sizeof text, "thread (%u,%u,%u) block (%u,%u,%u)", f.tid.x, f.tid.y, f.tid.z, f.bid.x, f.bid.y, f.bid.z);
    return text;
}

static void fiber_main()
{
    fiber_begin();
    gang->kernel->invoke(gang->kernel->entry, gang->args);
    Fiber *me = fiber;
    Block *b = me->block;
    async_exit(me);
    hb_release(&gang->end_tag);
    me->state = State::Done;
    b->live--;
    gang->live--;
    warp_exit(b, me);
    barrier_exit(b);
    to_scheduler(true);
    __builtin_trap();
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

bool coin() { return gang->opts.order.kind == Order::Random && next_random(&gang->random) % 2 == 0; }

template <class T> static void arrange(std::vector<T> *v, const Order &order, uint64_t *random)
{
    if (order.kind == Order::Reverse) std::reverse(v->begin(), v->end());
    if (order.kind == Order::Random)
        for (size_t i = v->size(); i > 1; i--) std::swap((*v)[i - 1], (*v)[next_random(random) % i]);
}

static void block_begin(Block *b, size_t id, dim3 grid, dim3 block, size_t dynamic_bytes, uint64_t *random)
{
    const int threads = static_cast<int>(block.x * block.y * block.z);
    b->threads = b->live = threads;
    gang->live += threads;
    barriers_reset(b);
    b->mbarriers.clear();
    b->viewed = false;
    shared_begin(b, dynamic_bytes);
    b->warps.resize((threads + kLanes - 1) / kLanes);
    for (size_t i = 0; i < b->warps.size(); i++) {
        Warp &w = b->warps[i];
        const int lanes = std::min<int>(kLanes, threads - static_cast<int>(i) * kLanes);
        w.present = lanes == kLanes ? ~0u : (1u << lanes) - 1;
        w.exited = 0;
        for (auto &c : w.collectives) *c = Collective();
    }
    const uint3 bid = {static_cast<unsigned>(id % grid.x), static_cast<unsigned>(id / grid.x % grid.y),
                       static_cast<unsigned>(id / grid.x / grid.y)};
    b->fibers.resize(threads);
    b->order.resize(threads);
    for (int i = 0; i < threads; i++) {
        const unsigned u = static_cast<unsigned>(i);
        Fiber &f = b->fibers[i];
        f.block = b;
        f.state = State::Ready;
        f.site = nullptr;
        f.mask = 0;
        for (Pending *p : {&f.copies, &f.stores, &f.products}) p->open.clear(), p->groups.clear();
        f.multiplying.clear();
        f.asked = 0;
        f.fenced = false;
        f.tid = {u % block.x, u / block.x % block.y, u / block.x / block.y};
        f.bid = bid;
        f.self = {i % kLanes, i / kLanes, u, b->variables[0].at, b->arena};
        fiber_prepare(&f, fiber_main);
        b->order[i] = i;
    }
    arrange(&b->order, gang->opts.order, random);
}

static void deadlock(const char *what)
{
    struct Waiting {
        int count;
        uint32_t mask;
    };
    std::map<std::string, Waiting> sites;
    int exited = 0;
    for (Block *b : gang->blocks)
        for (Fiber &f : b->fibers) {
            if (f.state == State::Done) exited++;
            else {
                Waiting &w = sites[f.site ? f.site : "?"];
                w.count++;
                w.mask = f.state == State::Warp ? f.mask : 0;
            }
        }
    std::string text;
    char part[160];
    for (const auto &s : sites) {
        snprintf(part, sizeof part, "%s%d thread(s) at %s", text.empty() ? "" : ", ", s.second.count, s.first.c_str());
        text += part;
        if (s.second.mask) {
            snprintf(part, sizeof part, " (mask %08x)", s.second.mask);
            text += part;
        }
    }
    fail(cudaErrorLaunchTimeout, "%s in %s: %s, %d exited", what, gang->kernel->name, text.c_str(), exited);
}

// Turns until the gang is through. Rounds in which threads do nothing but spin are counted by the clock.
static void run_gang()
{
    using Clock = std::chrono::steady_clock;
    Clock::time_point spinning_since;
    long spins = 0;
    while (gang->live && !gang->dead) {
        bool ran = false, moved = false;
        for (Block *b : gang->blocks) {
            for (int i : b->order) {
                Fiber &f = b->fibers[i];
                if (f.state != State::Ready && f.state != State::Spin) continue;
                ran = true;
                f.state = State::Ready;
                to_fiber(&f);
                if (f.state != State::Spin) moved = true;
                if (gang->dead) return;
            }
        }
        if (!ran) deadlock("deadlock");
        if (moved) spins = 0;
        else if (++spins == 1) spinning_since = Clock::now();
        else if (spins % 1024 == 0 && Clock::now() - spinning_since > std::chrono::milliseconds(gang->opts.spin_limit_ms))
            deadlock("endless spinning");
    }
}

cudaError_t run_grid(const stm_sim_kernel &kernel, dim3 grid, dim3 block, size_t dynamic_bytes, void **args,
                     const GridOptions &opts, std::string *why, GridStats *stats)
{
    static thread_local uint64_t random;
    if (!random) random = opts.order.seed * 2654435761u + 1;
    catch_faults();
    Gang g;
    g.random = next_random(&random);
    g.kernel = &kernel;
    g.args = args;
    g.opts = opts;
    g.tsan_main = under_tsan() ? __tsan_get_current_fiber() : nullptr;
    gang = &g;
    blockDim = {block.x, block.y, block.z};
    gridDim = {grid.x, grid.y, grid.z};
    std::vector<size_t> ids(static_cast<size_t>(grid.x) * grid.y * grid.z);
    for (size_t i = 0; i < ids.size(); i++) ids[i] = i;
    arrange(&ids, opts.order, &random);
    std::vector<Block> blocks(opts.cooperative ? ids.size() : 1);
    for (size_t first = 0; first < ids.size() && !g.dead; first += blocks.size()) {
        g.blocks.clear();
        g.live = 0;
        for (size_t i = 0; i < blocks.size(); i++) {
            g.blocks.push_back(&blocks[i]);
            block_begin(&blocks[i], ids[first + i], grid, block, dynamic_bytes, &random);
        }
        run_gang();
        for (Block &b : blocks) {
            if (!g.dead) async_block_end(&b);
            if (!g.dead) shared_check(&b);
            for (Fiber &f : b.fibers) fiber_release(&f);
        }
    }
    fibers_end();
    hb_acquire(&g.end_tag); // only here: blocks are not ordered with each other
    for (Block &b : blocks) shared_end(&b);
    gang = nullptr;
    if (stats) *stats = g.stats;
    if (g.dead && why) *why = g.why;
    return g.dead ? g.code : cudaSuccess;
}

} // namespace sim

extern "C" void stm_sim_trap(const char *why, const char *site)
{
    sim::fail(cudaErrorLaunchFailure, "%s: %s at %s, %s", sim::gang->kernel->name, why, site,
              sim::thread_name(*sim::fiber).c_str());
    sim::to_scheduler();
    __builtin_trap();
}

extern "C" void stm_sim_spin(const char *site)
{
    if (!sim::fiber) return;
    sim::fiber->state = sim::State::Spin;
    sim::fiber->site = site;
    sim::to_scheduler();
}
