// The happens-before checker. Each operation has a vector clock (component i: how much of stream i is surely over when it
// starts), known when it is queued: from its stream, the events waited for, and what the host had seen done by then. Each byte
// range of an allocation keeps its last write and the reads since. An access that does not come after a conflicting one, by its
// clock, is a finding, whatever the order in which the simulated streams happen to run.
// The host is one timeline: what any of its threads has waited for counts for all (their own locks are not seen here; order
// between host threads is ThreadSanitizer's matter).
#include "../stm_sim.h"
#include "state.h"
#include <algorithm>

namespace sim {

void Clock::join(const Clock &other)
{
    if (ticks.size() < other.ticks.size()) ticks.resize(other.ticks.size());
    for (size_t i = 0; i < other.ticks.size(); i++) ticks[i] = std::max(ticks[i], other.ticks[i]);
}
void Clock::set(int stream, uint32_t tick)
{
    if (ticks.size() <= static_cast<size_t>(stream)) ticks.resize(static_cast<size_t>(stream) + 1);
    ticks[stream] = tick;
}

Clock &host_clock()
{
    static auto *clock = new Clock;
    return *clock;
}
void host_learns_locked(const RecordP &r) { host_clock().join(r->clock); }

static bool over(const Mark &m, const Clock &clock) { return m.stream < 0 || clock.at(m.stream) >= m.tick; }

static const char *verb(Touch how) { return how == Touch::Read ? "read" : how == Touch::Write ? "written" : "updated"; }

static void report(const Allocation &a, uintptr_t lo, uintptr_t hi, const Mark &before, Touch how, const Site &site,
                   const char *what)
{
    finding("%s: bytes %zu..%zu of %s memory (%zu bytes, %s) are %s by [%s] without waiting for [%s], which has them %s", what,
            static_cast<size_t>(lo - a.at), static_cast<size_t>(hi - a.at), a.type == cudaMemoryTypeHost ? "pinned" : "device",
            a.bytes, describe(a.made).c_str(), verb(how), describe(site).c_str(), describe(before.site).c_str(), verb(before.how));
}

// Makes lo and hi borders of segments, and covers [lo, hi) with segments.
static void split(Allocation *a, uintptr_t lo, uintptr_t hi)
{
    for (uintptr_t at : {lo, hi}) {
        auto it = a->segments.upper_bound(at);
        if (it == a->segments.begin()) continue;
        --it;
        if (it->first < at && at < it->second.end) {
            Segment tail = it->second;
            it->second.end = at;
            a->segments.emplace(at, std::move(tail));
        }
    }
    uintptr_t at = lo;
    while (at < hi) {
        auto it = a->segments.lower_bound(at);
        if (it != a->segments.end() && it->first == at) {
            at = it->second.end;
            continue;
        }
        const uintptr_t end = it == a->segments.end() ? hi : std::min(hi, it->first);
        a->segments.emplace(at, Segment{end, Mark(), {}});
        at = end;
    }
}

// Checks one access; with `mine`, leaves its mark. At most one finding an access: the rest says the same.
static void access(Allocation *a, uintptr_t lo, uintptr_t hi, Touch how, const Clock &clock, const Site &site, const Mark *mine,
                   const char *what)
{
    if (lo >= hi) return;
    split(a, lo, hi);
    bool told = false;
    for (auto it = a->segments.lower_bound(lo); it != a->segments.end() && it->first < hi; ++it) {
        Segment &s = it->second;
        if (!told && !over(s.write, clock)) {
            report(*a, it->first, s.end, s.write, how, site, what);
            told = true;
        }
        for (const Mark &m : s.others) {
            if (told || over(m, clock)) continue;
            if (how == m.how && how != Touch::Write) continue; // reads among reads, atomics among atomics
            report(*a, it->first, s.end, m, how, site, what);
            told = true;
        }
    }
    if (!mine) return;
    if (how == Touch::Write) { // one segment now
        auto first = a->segments.lower_bound(lo), last = a->segments.lower_bound(hi);
        a->segments.erase(first, last);
        a->segments.emplace(lo, Segment{hi, *mine, {}});
        return;
    }
    for (auto it = a->segments.lower_bound(lo); it != a->segments.end() && it->first < hi; ++it) {
        auto &others = it->second.others;
        auto same =
            std::find_if(others.begin(), others.end(), [&](const Mark &m) { return m.stream == mine->stream && m.how == how; });
        if (same == others.end()) others.push_back(*mine);
        else *same = *mine;
    }
}

// An allocator of the program's own cuts an allocation in pieces. What is given back may go to anybody, so its users must be over,
// and until it is handed out again nobody may touch it.
static std::map<uintptr_t, uintptr_t> &given_back() // [from, to), apart from each other
{
    static auto *map = new std::map<uintptr_t, uintptr_t>;
    return *map;
}
static void hand_out(uintptr_t lo, uintptr_t hi)
{
    auto &map = given_back();
    auto it = map.upper_bound(lo);
    if (it != map.begin() && std::prev(it)->second > lo) --it;
    while (it != map.end() && it->first < hi) {
        const uintptr_t from = it->first, to = it->second;
        it = map.erase(it);
        if (from < lo) map.emplace(from, lo);
        if (to > hi) map.emplace(hi, to);
    }
}
void forget_pieces(uintptr_t lo, uintptr_t hi) { hand_out(lo, hi); }
static bool is_given_back(uintptr_t lo, uintptr_t hi)
{
    auto it = given_back().upper_bound(lo);
    if (it != given_back().begin() && std::prev(it)->second > lo) return true;
    return it != given_back().end() && it->first < hi;
}

void check_work(const Work &w, Stream *s, Clock *clock)
{
    if (devices()[s->device].sticky) return; // never runs
    for (const Access &x : w.accesses) {
        Allocation *a = find_allocation(x.p);
        if (!a) continue;
        if (a->freed && w.kind != std::string("free"))
            finding("use after free: [%s] comes after cudaFreeAsync of what it touches (%s)", describe(w.site).c_str(),
                    describe(a->made).c_str());
        const uintptr_t lo = reinterpret_cast<uintptr_t>(x.p), hi = std::min(lo + x.bytes, a->at + a->bytes);
        if (lo + x.bytes > a->at + a->bytes)
            finding("out of bounds: [%s] declares bytes %zu..%zu of an allocation of %zu (%s)", describe(w.site).c_str(),
                    static_cast<size_t>(lo - a->at), static_cast<size_t>(lo - a->at + x.bytes), a->bytes,
                    describe(a->made).c_str());
        if (is_given_back(lo, hi))
            finding("use after it was given back: bytes %zu..%zu of an allocation of %zu (%s) are %s by [%s]",
                    static_cast<size_t>(lo - a->at), static_cast<size_t>(hi - a->at), a->bytes, describe(a->made).c_str(),
                    verb(x.how), describe(w.site).c_str());
        const Mark mine{s->index, clock->at(s->index), x.how, w.site};
        // Before its own tick: two accesses of one operation do not conflict.
        access(a, lo, hi, x.how, *clock, w.site, &mine, "missing wait");
    }
}

void check_host(const void *p, size_t bytes, Touch how, const Site &site)
{
    Allocation *a = find_allocation(p);
    if (!a || !settings().check) return;
    const uintptr_t lo = reinterpret_cast<uintptr_t>(p);
    access(a, lo, std::min(lo + bytes, a->at + a->bytes), how, host_clock(), site, nullptr, "host access in flight");
}

void check_free(Allocation *a, const Site &site)
{
    if (!settings().check || devices()[a->device].sticky) return; // waiting for a lost device returns at once
    access(a, a->at, a->at + a->bytes, Touch::Write, host_clock(), site, nullptr, "freed too early");
}

} // namespace sim

using namespace sim;

extern "C" {
void stm_sim_host_read(const void *p, size_t bytes)
{
    Lock l;
    check_host(p, bytes, Touch::Read, SIM_SITE("the host"));
}
void stm_sim_host_write(const void *p, size_t bytes)
{
    Lock l;
    check_host(p, bytes, Touch::Write, SIM_SITE("the host"));
}
void stm_sim_piece(const void *p, size_t bytes)
{
    Lock l;
    hand_out(reinterpret_cast<uintptr_t>(p), reinterpret_cast<uintptr_t>(p) + bytes);
}
void stm_sim_piece_release(const void *p, size_t bytes)
{
    Lock l;
    Allocation *a = find_allocation(p);
    if (!a || !settings().check || bytes == 0) return;
    const uintptr_t lo = reinterpret_cast<uintptr_t>(p), hi = std::min(lo + bytes, a->at + a->bytes);
    hand_out(lo, hi); // borders of what was given back before do not matter
    given_back().emplace(lo, hi);
    if (devices()[a->device].sticky) return; // nothing of it runs any more
    access(a, lo, hi, Touch::Write, host_clock(), SIM_SITE("the owner of the pool"), nullptr, "given back too early");
}
}
