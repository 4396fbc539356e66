// What ranks do when their operations run, each on its stream's thread. Meeting is strict: nothing is buffered, so code that
// relies on NCCL's buffers hangs here, and a hang is told with the places of both calls. After a failure operations stay until
// their communicator is aborted, as on real devices.
#include "../cudart/state.h"
#include "state.h"
#include "stm_sim_nccl.h"
#include <algorithm>
#include <chrono>
#include <cstring>

namespace sim {

static long moved_operations;
static long long moved_bytes;

bool device_dead_locked(int device) { return devices()[device].sticky != cudaSuccess; }

static void poison(const Deed &d)
{
    if (d.recv && d.recv_bytes()) memset(d.recv, 0xff, d.recv_bytes());
}

// Waits, with the lock, until `over`; false: aborted, or given up after a hang, which `tell` describes.
template <class Over, class Tell> static bool wait_until(Comm *c, Over over, Tell tell)
{
    const auto from = std::chrono::steady_clock::now();
    bool told = false;
    for (;;) {
        if (c->aborted) return false;
        if (c->async == ncclSuccess && over()) return true;
        (void)wait(50);
        if (c->async != ncclSuccess) told = true; // the failure has been told; what is missing is the abort
        if (std::chrono::steady_clock::now() - from < std::chrono::milliseconds(hang_ms())) continue;
        if (!told) {
            tell();
            fail_locked(c, ncclRemoteError, ncclRemoteError, "a rank did not come");
        }
        return false;
    }
}

static std::string whereabouts(const World *w, const std::vector<char> &here)
{
    std::string text;
    for (int r = 0; r < w->n; r++) {
        const Comm *c = w->ranks[static_cast<size_t>(r)];
        if (here[static_cast<size_t>(r)]) continue;
        text += "; rank " + std::to_string(r) +
                (c && c->gone ? std::string(" is gone after ") + c->gone : ", newest call [" + (c ? place(c->last) : "") + "]");
    }
    return text;
}

static std::string describe_deed(const Deed &d)
{
    static const char *const ops[] = {"sum", "prod", "max", "min", "avg"};
    std::string text = d.api;
    text += " of " + std::to_string(d.count) + " x type " + std::to_string(static_cast<int>(d.type));
    if (d.kind == Kind::AllReduce || d.kind == Kind::Reduce || d.kind == Kind::ReduceScatter) text += std::string(", ") + ops[d.op];
    if (d.kind == Kind::Broadcast || d.kind == Kind::Reduce) text += ", root " + std::to_string(d.root);
    return text + " by rank " + std::to_string(d.comm->rank) + " [" + place(d.site) + "]";
}

static bool same_collective(const Deed &a, const Deed &b)
{
    const bool reduces = a.kind == Kind::AllReduce || a.kind == Kind::Reduce || a.kind == Kind::ReduceScatter;
    return a.kind == b.kind && a.count == b.count && a.type == b.type && a.root == b.root && (!reduces || a.op == b.op);
}

// ---- collectives: come, read when all are there, write when all have read ----
static std::shared_ptr<Meeting> come(const Deed &d)
{
    Lock l;
    World *w = d.comm->world;
    std::shared_ptr<Meeting> &slot = w->meetings[d.seq];
    if (!slot) {
        slot = std::make_shared<Meeting>();
        slot->first = d;
        slot->in.resize(static_cast<size_t>(w->n));
        slot->here.resize(static_cast<size_t>(w->n));
    } else if (!same_collective(slot->first, d) && !slot->bad) {
        const bool order = slot->first.kind != d.kind;
        finding("%s: %s against %s", order ? "collectives in different order" : "collectives do not agree",
                describe_deed(slot->first).c_str(), describe_deed(d).c_str());
        slot->bad = true;
        fail_locked(d.comm, ncclInvalidUsage, ncclInvalidUsage, "collectives of the ranks do not agree");
    }
    const std::shared_ptr<Meeting> m = slot;
    m->in[static_cast<size_t>(d.comm->rank)] = d.send;
    m->here[static_cast<size_t>(d.comm->rank)] = 1;
    hb_release(&m->in_tag);
    if (++m->arrived == w->n) w->meetings.erase(d.seq);
    notify();
    return m;
}

static void compute(const Deed &d, const Meeting &m, std::vector<char> *out)
{
    const size_t n = d.count * type_bytes(d.type);
    const auto rank = static_cast<size_t>(d.comm->rank);
    out->resize(d.recv_bytes());
    if (out->empty()) return;
    switch (d.kind) {
    case Kind::AllReduce:
    case Kind::Reduce: return reduce(out->data(), m.in, 0, d.count, d.type, d.op);
    case Kind::ReduceScatter: return reduce(out->data(), m.in, rank * d.count, d.count, d.type, d.op);
    case Kind::Broadcast: memcpy(out->data(), m.in[static_cast<size_t>(d.root)], n); return;
    case Kind::AllGather:
        for (size_t r = 0; r < m.in.size(); r++) memcpy(out->data() + r * n, m.in[r], n);
        return;
    default: return;
    }
}

// A rank that goes early: others may still be reading its memory, none may begin to.
static void leave(const Deed &d, Meeting *m)
{
    m->left = true;
    while (m->reading > 0) wait();
    poison(d);
}

static void finish(const Deed &d, const std::shared_ptr<Meeting> &m)
{
    Comm *c = d.comm;
    World *w = c->world;
    std::vector<char> out;
    {
        Lock l;
        auto hang = [&] { finding("hang: %s waits for other ranks%s", describe_deed(d).c_str(), whereabouts(w, m->here).c_str()); };
        if (!wait_until(c, [&] { return m->arrived == w->n && !m->left; }, hang)) return leave(d, m.get());
        hb_acquire(&m->in_tag);
        m->reading++;
    }
    compute(d, *m, &out);
    Lock l;
    m->reading--;
    hb_release(&m->read_tag);
    m->have_read++;
    notify();
    if (!wait_until(
            c, [&] { return m->have_read == w->n; },
            [&] { finding("hang: %s: a rank has gone away in it", describe_deed(d).c_str()); }))
        return leave(d, m.get());
    hb_acquire(&m->read_tag);
    if (!out.empty()) memcpy(d.recv, out.data(), out.size());
    moved_operations++;
    moved_bytes += static_cast<long long>(w->n > 1 ? out.size() : 0);
}

// ---- from one to another ----
static std::shared_ptr<Message> post(const Deed &d)
{
    Lock l;
    auto m = std::make_shared<Message>();
    m->deed = d;
    hb_release(&m->in_tag);
    d.comm->world->sends[{d.comm->rank, d.root}].push_back(m);
    notify();
    return m;
}

static void receive(const Deed &d)
{
    Comm *c = d.comm;
    std::shared_ptr<Message> m;
    {
        Lock l;
        auto &waiting = c->world->sends[{d.root, c->rank}];
        const Comm *peer = c->world->ranks[static_cast<size_t>(d.root)];
        auto hang = [&] {
            finding("hang: %s waits for a send of rank %d, %s [%s]", describe_deed(d).c_str(), d.root,
                    peer->gone ? peer->gone : "newest call", place(peer->last).c_str());
        };
        if (!wait_until(c, [&] { return !waiting.empty(); }, hang)) return poison(d);
        m = waiting.front();
        waiting.pop_front();
        if (m->deed.count != d.count || m->deed.type != d.type) {
            finding("send and receive do not agree: %s against %s", describe_deed(m->deed).c_str(), describe_deed(d).c_str());
            fail_locked(c, ncclInvalidUsage, ncclInvalidUsage, "a send and a receive do not agree");
            m->left = true;
            notify();
            (void)wait_until(c, [] { return false; }, [] {});
            return poison(d);
        }
        if (m->left) return poison(d);
        m->reading = true;
        hb_acquire(&m->in_tag);
    }
    if (d.count) memcpy(d.recv, m->deed.send, d.recv_bytes());
    Lock l;
    m->reading = false;
    hb_release(&m->read_tag);
    m->taken = true;
    moved_operations++;
    moved_bytes += static_cast<long long>(d.recv_bytes());
    notify();
}

static void wait_taken(const Deed &d, const std::shared_ptr<Message> &m)
{
    Comm *c = d.comm;
    Lock l;
    const Comm *peer = c->world->ranks[static_cast<size_t>(d.root)];
    auto hang = [&] {
        finding("hang: %s waits for a receive of rank %d, %s [%s]", describe_deed(d).c_str(), d.root,
                peer->gone ? peer->gone : "newest call", place(peer->last).c_str());
    };
    if (wait_until(c, [&] { return m->taken; }, hang)) return hb_acquire(&m->read_tag);
    m->left = true;
    auto &waiting = c->world->sends[{c->rank, d.root}];
    waiting.erase(std::remove(waiting.begin(), waiting.end(), m), waiting.end());
    while (m->reading) wait();
}

// All of a group at once: everything is offered before anything is waited for, receives before the ends of sends.
void run_calls(const std::vector<Deed> &deeds)
{
    Comm *c = deeds.front().comm;
    if (const int injected = async_fault("nccl")) {
        Lock l;
        const ncclResult_t code = injected > 0 && injected < ncclNumResults ? static_cast<ncclResult_t>(injected) : ncclSystemError;
        fail_locked(c, code, ncclRemoteError, "injected fault of an operation");
        (void)wait_until(c, [] { return false; }, [] {});
        for (const Deed &d : deeds) poison(d);
        return;
    }
    {
        Lock l;
        if (c->aborted) {
            for (const Deed &d : deeds) poison(d);
            return;
        }
    }
    std::vector<std::shared_ptr<Message>> sends;
    std::vector<std::shared_ptr<Meeting>> meetings;
    for (const Deed &d : deeds) {
        sends.push_back(d.kind == Kind::Send ? post(d) : nullptr);
        meetings.push_back(d.kind == Kind::Send || d.kind == Kind::Recv ? nullptr : come(d));
    }
    for (size_t i = 0; i < deeds.size(); i++)
        if (meetings[i]) finish(deeds[i], meetings[i]);
    for (const Deed &d : deeds)
        if (d.kind == Kind::Recv) receive(d);
    for (size_t i = 0; i < deeds.size(); i++)
        if (sends[i]) wait_taken(deeds[i], sends[i]);
}

} // namespace sim

extern "C" void stm_sim_nccl_moved(long *operations, long long *bytes)
{
    sim::Lock l;
    *operations = sim::moved_operations;
    *bytes = sim::moved_bytes;
}
