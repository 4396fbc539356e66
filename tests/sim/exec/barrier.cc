// Block and grid barriers.
#include "gang.h"
#include <cstring>

namespace sim {

static void wake(Block *b, State state, int id)
{
    for (Fiber &f : b->fibers)
        if (f.state == state && f.barrier == id) f.state = State::Ready;
}

static void release(Block *b, int id)
{
    Barrier &r = b->barriers[id];
    if (gang->opts.strict && !r.need && b->live < b->threads)
        fail(cudaErrorLaunchFailure, "%s: barrier at %s reached by %d of %d threads of the block, the others have exited",
             gang->kernel->name, r.site, b->live, b->threads);
    r.results[0] = r.sum;
    r.results[1] = r.sum == r.count;
    r.results[2] = r.sum != 0;
    r.sum = r.count = r.need = 0;
    r.site = nullptr;
    r.generation++;
    wake(b, State::Barrier, id);
}

void barrier_exit(Block *b)
{
    Barrier &r = b->barriers[0];
    if (b->live && r.count && !r.need && r.count == b->live) release(b, 0);
}

void barriers_reset(Block *b)
{
    for (Barrier &r : b->barriers) r = Barrier();
    for (Barrier &r : b->warpgroups) r = Barrier();
}

// Arrives with `value`, leaves when all have arrived.
static void meet(int id, int need, int value, const char *site)
{
    Quiet quiet;
    Fiber *me = fiber;
    Block *b = me->block;
    gang->stats.barriers++;
    if (id < 0 || id >= kBarriers || need < 0 || need % kLanes != 0 || need > b->threads) {
        fail(cudaErrorLaunchFailure,
             "%s: barrier %d of %d threads at %s: ids are 0..15, counts multiples of 32 up to the block's %d", gang->kernel->name,
             id, need, site, b->threads);
        to_scheduler();
    }
    Barrier &r = b->barriers[id];
    if (r.site && ((r.site != site && strcmp(r.site, site) != 0) || r.need != need)) {
        fail(cudaErrorLaunchFailure, "%s: divergent barrier: %s at %s, %d other(s) at %s", gang->kernel->name,
             thread_name(*me).c_str(), site, r.count, r.site);
        to_scheduler();
    }
    const int generation = r.generation & 1;
    r.site = me->site = site;
    r.need = need;
    r.sum += value;
    hb_release(&r.tag[generation]);
    if (++r.count == (need ? need : b->live)) {
        release(b, id);
        if (gang->dead) to_scheduler();
    } else {
        me->barrier = static_cast<int8_t>(id);
        me->state = State::Barrier;
        to_scheduler();
    }
    hb_acquire(&r.tag[generation]);
}

} // namespace sim

using namespace sim;

extern "C" void stm_sim_barrier(int id, int threads, const char *site) { meet(id, threads, 0, site); }

extern "C" int stm_sim_barrier_reduce(int kind, int value, const char *site)
{
    Barrier &r = fiber->block->barriers[0];
    meet(0, 0, value != 0, site);
    return r.results[kind]; // of this generation: the next one cannot end before this thread has arrived at it
}

extern "C" void stm_sim_grid_sync(const char *site)
{
    Quiet quiet;
    Fiber *me = fiber;
    if (!gang->opts.cooperative) {
        fail(cudaErrorLaunchFailure, "%s: grid barrier at %s, but the launch was not cooperative", gang->kernel->name, site);
        to_scheduler();
    }
    const int generation = gang->grid_generation & 1;
    hb_release(&gang->grid_tag[generation]);
    if (++gang->grid_count == gang->live) {
        gang->grid_count = 0;
        gang->grid_generation++;
        for (Block *b : gang->blocks) wake(b, State::Grid, 0);
    } else {
        me->state = State::Grid;
        me->barrier = 0;
        me->site = site;
        to_scheduler();
    }
    hb_acquire(&gang->grid_tag[generation]);
}
