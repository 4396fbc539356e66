// Calls, groups of calls, and how they get onto streams: one fused operation per communicator and stream, as NCCL launches one
// kernel.
#include "state.h"
#include <cstdio>
#include <cstring>

namespace sim {

struct Group {
    int depth = 0;
    uint64_t serial = 0;
    ncclResult_t error = ncclSuccess; // the first of its calls
    std::vector<Deed> deeds;
    std::vector<Comm *> inits;
};
static thread_local Group group;
static uint64_t next_serial = 1; // locked

bool in_group() { return group.depth > 0; }
void group_adds(Comm *c, bool) { group.inits.push_back(c); }

size_t Deed::send_bytes() const
{
    const size_t n = count * type_bytes(type), ranks = static_cast<size_t>(comm->world->n);
    switch (kind) {
    case Kind::Recv: return 0;
    case Kind::Broadcast: return comm->rank == root ? n : 0;
    case Kind::ReduceScatter: return n * ranks;
    default: return n;
    }
}
size_t Deed::recv_bytes() const
{
    const size_t n = count * type_bytes(type), ranks = static_cast<size_t>(comm->world->n);
    switch (kind) {
    case Kind::Send: return 0;
    case Kind::Reduce: return comm->rank == root ? n : 0;
    case Kind::AllGather: return n * ranks;
    default: return n;
    }
}

// One thread that queues an operation for two ranks must do so in one group: real calls may wait for each other.
static void check_grouped(const Deed &d)
{
    World *w = d.comm->world;
    const pthread_t me = pthread_self();
    const bool p2p = d.kind == Kind::Send || d.kind == Kind::Recv;
    Issue mine{me, group.serial, 1, d.site, d.comm->rank};
    const Issue *other = nullptr;
    Issue met;
    if (p2p) {
        const bool send = d.kind == Kind::Send;
        const std::pair<int, int> way = send ? std::make_pair(d.comm->rank, d.root) : std::make_pair(d.root, d.comm->rank);
        auto &theirs = w->p2p_issues[send ? 1 : 0][way];
        if (theirs.empty()) {
            w->p2p_issues[send ? 0 : 1][way].push_back(mine);
        } else {
            met = theirs.front();
            theirs.pop_front();
            other = &met;
        }
    } else {
        auto it = w->issues.find(d.seq);
        if (it == w->issues.end()) {
            w->issues.emplace(d.seq, mine);
        } else {
            met = it->second;
            other = &met;
            if (++it->second.times == w->n) w->issues.erase(it);
        }
        if (w->n == 1) w->issues.erase(d.seq);
    }
    if (other && other->rank != d.comm->rank && pthread_equal(other->thread, me) && other->group != group.serial)
        finding("missing group: one thread queues rank %d [%s] and rank %d [%s] outside of a common group", other->rank,
                place(other->site).c_str(), d.comm->rank, place(d.site).c_str());
}

// What the memory of one side has to be; false: told.
static bool good_memory(const Deed &d, const void *p, size_t bytes, const char *side)
{
    if (bytes == 0) return true;
    const Memory m = memory_at(p);
    const size_t at = m.known ? static_cast<size_t>(static_cast<const char *>(p) - m.base) : 0;
    const bool here = m.known && (m.type != cudaMemoryTypeDevice || m.device == d.comm->device);
    if (here && at + bytes <= m.bytes) return true;
    Lock l;
    if (!m.known) finding("bad operand: %s of rank %d: the %s buffer is in no memory of a device", d.api, d.comm->rank, side);
    else if (!here)
        finding("bad operand: %s of rank %d: the %s buffer is on device %d, the rank on %d", d.api, d.comm->rank, side, m.device,
                d.comm->device);
    else
        finding("bad operand: %s of rank %d: the %s buffer takes bytes %zu..%zu of an allocation of %zu", d.api, d.comm->rank, side,
                at, at + bytes, m.bytes);
    return false;
}

static ncclResult_t queue_fused(std::vector<Deed> deeds)
{
    const Deed &first = deeds.front();
    Comm *c = first.comm;
    cudaStream_t stream = first.stream;
    Work w{"nccl", first.site, nullptr, {}};
    for (const Deed &d : deeds) {
        if (d.send_bytes()) w.accesses.push_back({d.send, d.send_bytes(), Touch::Read});
        if (d.recv_bytes()) w.accesses.push_back({d.recv, d.recv_bytes(), Touch::Write});
    }
    {
        Lock l;
        c->in_flight++;
        c->last = first.site;
    }
    w.run = [deeds, c] {
        run_calls(deeds);
        Lock l;
        c->in_flight--;
        notify();
    };
    const cudaError_t e = enqueue(stream, std::move(w));
    if (e == cudaSuccess) return ncclSuccess;
    Lock l;
    c->in_flight--;
    fail_locked(c, ncclUnhandledCudaError, ncclRemoteError, std::string("work could not be queued: ") + cudaGetErrorName(e));
    return ncclUnhandledCudaError;
}

ncclResult_t queue_batch(Batch *b)
{
    std::vector<Deed> rest;
    {
        Lock l;
        if (b->queued) return ncclSuccess;
        b->queued = true;
        for (const Deed &d : b->deeds)
            if (!d.comm->aborted) rest.push_back(d);
    }
    ncclResult_t result = ncclSuccess;
    while (!rest.empty()) {
        std::vector<Deed> fused, others;
        for (const Deed &d : rest) (d.comm == rest.front().comm && d.stream == rest.front().stream ? fused : others).push_back(d);
        const ncclResult_t e = queue_fused(std::move(fused));
        if (result == ncclSuccess) result = e;
        rest = std::move(others);
    }
    return result;
}

static ncclResult_t flush()
{
    auto batch = std::make_shared<Batch>();
    batch->deeds.swap(group.deeds);
    if (batch->deeds.empty()) return ncclSuccess;
    bool late = false;
    {
        Lock l;
        for (const Deed &d : batch->deeds)
            if (!d.comm->blocking) {
                late = true;
                d.comm->late = batch;
            }
    }
    return late ? ncclInProgress : queue_batch(batch.get());
}

static ncclResult_t end_group()
{
    std::vector<Comm *> inits;
    const ncclResult_t error = group.error;
    group.error = ncclSuccess;
    inits.swap(group.inits);
    if (!inits.empty() && !group.deeds.empty()) {
        group.deeds.clear();
        Lock l;
        finding("ncclGroupEnd: communicators are made and used in one group");
        return ncclInvalidUsage;
    }
    if (error != ncclSuccess) {
        group.deeds.clear();
        return error;
    }
    return inits.empty() ? flush() : settle(inits);
}

static ncclResult_t deed_refused(ncclResult_t e)
{
    if (group.depth && group.error == ncclSuccess) group.error = e;
    return e;
}

static ncclResult_t add(Deed d, ncclComm_t handle)
{
    if (const int e = fault(d.api, ncclInternalError)) return deed_refused(static_cast<ncclResult_t>(e));
    const StreamInfo info = stream_info(d.stream);
    const bool p2p = d.kind == Kind::Send || d.kind == Kind::Recv;
    {
        Lock l;
        Comm *c = d.comm = comm_locked(handle, d.api);
        if (!c) return deed_refused(ncclInvalidArgument);
        if (c->async != ncclSuccess) return deed_refused(c->async);
        const bool pending = c->late && !c->late->queued;
        if (!c->initialised || c->finalized || pending) {
            finding("%s: the communicator of rank %d is used %s", d.api, c->rank,
                    c->finalized ? "after ncclCommFinalize" : "before ncclCommGetAsyncError has said that the last call is over");
            return deed_refused(ncclInvalidArgument);
        }
        if (type_bytes(d.type) == 0 || d.op < 0 || d.op > ncclMin + 1 || d.root < 0 || d.root >= c->world->n)
            return deed_refused(ncclInvalidArgument);
        if (!info.valid || info.device != c->device) {
            finding("%s: a stream of device %d for rank %d, which is on device %d", d.api, info.device, c->rank, c->device);
            return deed_refused(ncclInvalidUsage);
        }
        if (info.capturing) {
            finding("%s: captured in a graph", d.api);
            return deed_refused(ncclInvalidUsage);
        }
    }
    if (!good_memory(d, d.send, d.send_bytes(), "send") || !good_memory(d, d.recv, d.recv_bytes(), "receive"))
        return deed_refused(ncclInvalidArgument);
    {
        Lock l;
        if (!group.depth) group.serial = next_serial++;
        if (!p2p) d.seq = d.comm->seq++;
        check_grouped(d);
    }
    group.deeds.push_back(d);
    return group.depth ? ncclSuccess : flush();
}

static Deed deed(Kind kind, const char *api, const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                 int root, cudaStream_t stream, const Site &site)
{
    Deed d;
    d.kind = kind;
    d.api = api;
    d.send = send;
    d.recv = recv;
    d.count = count;
    d.type = type;
    d.op = op;
    d.root = root;
    d.stream = stream;
    d.site = site;
    return d;
}

} // namespace sim

using namespace sim;

extern "C" {

ncclResult_t ncclGroupStart()
{
    if (const int e = fault("ncclGroupStart", ncclInternalError)) return static_cast<ncclResult_t>(e);
    if (group.depth++ == 0) {
        Lock l;
        group.serial = next_serial++;
    }
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd()
{
    if (group.depth == 0) {
        Lock l;
        finding("ncclGroupEnd without ncclGroupStart");
        return ncclInvalidUsage;
    }
    if (const int e = fault("ncclGroupEnd", ncclInternalError)) {
        group = Group(); // nothing of it is queued
        return static_cast<ncclResult_t>(e);
    }
    return --group.depth ? ncclSuccess : end_group();
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream)
{
    return add(deed(Kind::AllReduce, "ncclAllReduce", send, recv, count, type, op, 0, stream, SIM_SITE("ncclAllReduce")), comm);
}
ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream)
{
    return add(deed(Kind::Broadcast, "ncclBroadcast", send, recv, count, type, ncclSum, root, stream, SIM_SITE("ncclBroadcast")),
               comm);
}
ncclResult_t ncclBcast(void *buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream)
{
    return add(deed(Kind::Broadcast, "ncclBcast", buffer, buffer, count, type, ncclSum, root, stream, SIM_SITE("ncclBcast")), comm);
}
ncclResult_t ncclReduce(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op, int root, ncclComm_t comm,
                        cudaStream_t stream)
{
    return add(deed(Kind::Reduce, "ncclReduce", send, recv, count, type, op, root, stream, SIM_SITE("ncclReduce")), comm);
}
ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream)
{
    return add(deed(Kind::AllGather, "ncclAllGather", send, recv, count, type, ncclSum, 0, stream, SIM_SITE("ncclAllGather")),
               comm);
}
ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                               cudaStream_t stream)
{
    return add(
        deed(Kind::ReduceScatter, "ncclReduceScatter", send, recv, count, type, op, 0, stream, SIM_SITE("ncclReduceScatter")),
        comm);
}
ncclResult_t ncclSend(const void *send, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream)
{
    return add(deed(Kind::Send, "ncclSend", send, nullptr, count, type, ncclSum, peer, stream, SIM_SITE("ncclSend")), comm);
}
ncclResult_t ncclRecv(void *recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream)
{
    return add(deed(Kind::Recv, "ncclRecv", nullptr, recv, count, type, ncclSum, peer, stream, SIM_SITE("ncclRecv")), comm);
}

} // extern "C"
