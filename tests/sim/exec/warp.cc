// Warp collectives: the lanes of a mask meet, exchange a value, go on. As on the device, only __syncwarp orders memory.
#include "gang.h"
#include <cstring>

namespace sim {

static const uint64_t kPoison = 0xfffbfffbfffbfffbull; // a NaN in every float format

static void release(Block *b, int warp, Collective *c)
{
    const uint32_t lanes = c->readers = c->members[c->generation & 1] = c->arrived;
    c->arrived = 0;
    c->site = nullptr;
    c->generation++;
    for (int lane = 0; lane < kLanes; lane++)
        if (lanes >> lane & 1) {
            Fiber &f = b->fibers[warp * kLanes + lane];
            if (f.state == State::Warp && f.mask == c->mask) f.state = State::Ready;
        }
}

static bool complete(const Warp &w, const Collective &c) { return ((c.arrived | w.exited) & c.mask) == c.mask; }

void warp_exit(Block *b, Fiber *f)
{
    Warp &w = b->warps[f->self.warp];
    w.exited |= 1u << f->self.lane;
    for (auto &c : w.collectives)
        if (c->arrived && complete(w, *c)) release(b, f->self.warp, c.get());
}

static Collective *find(Warp &w, uint32_t mask)
{
    for (auto &c : w.collectives)
        if (c->mask == mask) return c.get();
    for (auto &c : w.collectives)
        if (!c->arrived && !c->readers) return c.get();
    w.collectives.push_back(std::make_unique<Collective>());
    return w.collectives.back().get();
}

static Collective *enter(uint32_t mask, const char *site)
{
    Fiber *me = fiber;
    Warp &w = me->block->warps[me->self.warp];
    gang->stats.collectives++;
    mask &= w.present;
    if (!(mask >> me->self.lane & 1)) {
        fail(cudaErrorLaunchFailure, "%s: lane %d calls a collective whose mask %08x leaves it out, at %s (%s)", gang->kernel->name,
             me->self.lane, mask, site, thread_name(*me).c_str());
        to_scheduler();
    }
    Collective *c = find(w, mask);
    c->mask = me->mask = mask;
    if (c->arrived && c->site != site && strcmp(c->site, site) != 0) {
        fail(cudaErrorLaunchFailure, "%s: divergent warp collective: lane %d at %s, lanes %08x at %s", gang->kernel->name,
             me->self.lane, site, c->arrived, c->site);
        to_scheduler();
    }
    c->site = site;
    return c;
}

// Waits for the mask; returns which value buffer holds the exchanged values.
static unsigned meet(Collective *c, const char *site)
{
    Fiber *me = fiber;
    const unsigned generation = c->generation & 1;
    Warp &w = me->block->warps[me->self.warp];
    c->arrived |= 1u << me->self.lane;
    if (complete(w, *c)) {
        release(me->block, me->self.warp, c);
    } else {
        me->state = State::Warp;
        me->site = site;
        to_scheduler();
    }
    return generation;
}

static void leave(Collective *c) { c->readers &= ~(1u << fiber->self.lane); }

// A rendezvous that also orders memory.
static unsigned meet_ordered(Collective *c, const char *site)
{
    hb_release(&c->tag[c->generation & 1]);
    const unsigned generation = meet(c, site);
    hb_acquire(&c->tag[generation]);
    return generation;
}

} // namespace sim

using namespace sim;

extern "C" void stm_sim_syncwarp(unsigned mask, const char *site)
{
    Quiet quiet;
    Collective *c = enter(mask, site);
    meet_ordered(c, site);
    leave(c);
}

extern "C" uint64_t stm_sim_shuffle(unsigned mask, uint64_t value, int kind, int arg, int width, const char *site)
{
    Quiet quiet;
    const int lane = fiber->self.lane;
    if (width < 1 || width > kLanes || (width & (width - 1)) != 0) {
        fail(cudaErrorLaunchFailure, "%s: shuffle of width %d at %s: a power of two up to 32", gang->kernel->name, width, site);
        to_scheduler();
    }
    Collective *c = enter(mask, site);
    c->value[c->generation & 1][lane] = value;
    const unsigned generation = meet(c, site);
    const int base = lane & ~(width - 1);
    int from = lane;
    switch (kind) {
    case 0: from = base | (arg & (width - 1)); break;
    case 1: from = lane - arg < base ? lane : lane - arg; break;
    case 2: from = lane + arg >= base + width ? lane : lane + arg; break;
    default: from = (lane ^ arg) >= base + width ? lane : lane ^ arg; break;
    }
    if (from < 0 || from >= kLanes || !(c->members[generation] >> from & 1)) {
        gang->stats.outside_reads++;
        value = kPoison; // undefined on the device
    } else {
        value = c->value[generation][from];
    }
    leave(c);
    return value;
}

extern "C" uint32_t stm_sim_vote(unsigned mask, int kind, uint64_t value, const char *site)
{
    Quiet quiet;
    const int lane = fiber->self.lane;
    Collective *c = enter(mask, site);
    c->value[c->generation & 1][lane] = value;
    const unsigned generation = meet(c, site);
    const uint32_t members = c->members[generation];
    uint32_t set = 0, same = 0;
    for (int i = 0; i < kLanes; i++) {
        if (!(members >> i & 1)) continue;
        if (c->value[generation][i]) set |= 1u << i;
        if (c->value[generation][i] == value) same |= 1u << i;
    }
    leave(c);
    switch (kind) {
    case 0: return set;
    case 1: return set == members;
    case 2: return set != 0;
    case 3: return same;
    default: return same == members ? members : 0;
    }
}

extern "C" void stm_sim_exchange(const void *mine, const void **all, const char *site)
{
    Quiet quiet;
    Collective *c = enter(~0u, site);
    c->value[c->generation & 1][fiber->self.lane] = reinterpret_cast<uint64_t>(mine);
    const unsigned generation = meet_ordered(c, site);
    for (int i = 0; i < kLanes; i++) all[i] = reinterpret_cast<const void *>(c->value[generation][i]);
    leave(c);
}

extern "C" uint32_t stm_sim_active(void)
{
    const Warp &w = fiber->block->warps[fiber->self.warp];
    return w.present & ~w.exited;
}
