// Communicators: made, watched, ended.
#include "stm_sim_nccl.h"
#include "state.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dlfcn.h>
#include <unistd.h>

namespace sim {

// Never freed: a handle that is used after its end is recognised.
static std::map<const void *, Comm *> &comms()
{
    static auto *map = new std::map<const void *, Comm *>;
    return *map;
}
static std::map<std::string, World *> &worlds()
{
    static auto *map = new std::map<std::string, World *>;
    return *map;
}

struct LeakCheck {
    ~LeakCheck()
    {
        Lock l;
        for (const auto &c : comms())
            if (!c.second->gone)
                finding("leak: a communicator was not destroyed (rank %d, %s)", c.second->rank, place(c.second->made).c_str());
    }
};
static LeakCheck leak_check;

int hang_ms()
{
    static const int ms = [] {
        const char *text = getenv("STM_SIM_NCCL_HANG_MS");
        return text && *text ? atoi(text) : 30000;
    }();
    return ms;
}

// Function names of the callers: what a reader needs to find the two calls.
std::string place(const Site &site)
{
    std::string text = site.what;
    for (void *pc : site.pc) {
        Dl_info where = {};
        char at[64];
        if (!pc || !dladdr(pc, &where)) break;
        const char *file = where.dli_fname ? strrchr(where.dli_fname, '/') : nullptr;
        snprintf(at, sizeof at, "+%#zx", static_cast<size_t>(static_cast<char *>(pc) - static_cast<char *>(where.dli_fbase)));
        text += text == site.what ? " called by " : " < ";
        text += where.dli_sname ? where.dli_sname : std::string(file ? file + 1 : "?") + at;
        if (text.size() > 300) break;
    }
    return text;
}

Comm *comm_locked(ncclComm_t handle, const char *api)
{
    auto it = comms().find(handle);
    if (it == comms().end()) {
        finding("%s: not a communicator", api);
        return nullptr;
    }
    if (it->second->gone) {
        finding("%s: the communicator is used after %s (rank %d)", api, it->second->gone, it->second->rank);
        return nullptr;
    }
    return it->second;
}

void fail_locked(Comm *c, ncclResult_t mine, ncclResult_t others, const std::string &why)
{
    for (Comm *r : c->world->ranks) {
        if (!r || r->async != ncclSuccess) continue;
        r->async = r == c ? mine : others;
        r->last_error = why;
    }
    notify();
}

static Comm *make(int rank, int device, const ncclConfig_t *config, const Site &site)
{
    auto *c = new Comm;
    c->rank = rank;
    c->device = device;
    c->blocking = !config || config->blocking == NCCL_CONFIG_UNDEF_INT || config->blocking != 0;
    c->made = c->last = site;
    comms()[c] = c;
    return c;
}

static void join(Comm *c, World *w)
{
    c->world = w;
    for (Comm *other : w->ranks)
        if (other && other->device == c->device)
            fail_locked(other, ncclInvalidUsage, ncclInvalidUsage, "two ranks of a communicator on one device");
    if (w->ranks[static_cast<size_t>(c->rank)]) {
        finding("ncclCommInitRank: rank %d of a communicator is taken twice", c->rank);
        c->async = ncclInvalidUsage;
    } else {
        w->ranks[static_cast<size_t>(c->rank)] = c;
        w->joined++;
    }
    for (Comm *other : w->ranks)
        if (other && other != c && other->device == c->device) c->async = ncclInvalidUsage;
    notify();
}

// Whether an initialisation is over.
static bool settled_locked(const Comm *c) { return c->async != ncclSuccess || (c->world && c->world->joined == c->world->n); }

ncclResult_t settle(const std::vector<Comm *> &made)
{
    ncclResult_t result = ncclSuccess;
    Lock l;
    for (Comm *c : made) {
        if (!c->blocking) {
            if (result == ncclSuccess) result = ncclInProgress;
            continue;
        }
        int waited = 0;
        while (!settled_locked(c))
            if (!wait(50) && (waited += 50) >= hang_ms()) {
                std::string there;
                for (int r = 0; c->world && r < c->world->n; r++)
                    if (c->world->ranks[static_cast<size_t>(r)]) there += " " + std::to_string(r);
                finding("hang: rank %d waits in [%s] for %d ranks; only these have come:%s", c->rank, place(c->made).c_str(),
                        c->world ? c->world->n : 0, there.c_str());
                c->async = ncclSystemError;
            }
        c->initialised = c->async == ncclSuccess;
        if (c->async != ncclSuccess) result = c->async;
    }
    return result;
}

static ncclResult_t enter(const char *api, int usual = ncclSystemError, Call kind = Call::Plain)
{
    return static_cast<ncclResult_t>(fault(api, usual, kind));
}

static ncclResult_t init_rank(const char *api, ncclComm_t *out, int n, const ncclUniqueId &id, int rank, int device,
                              const ncclConfig_t *config, const Site &site)
{
    if (!out || n < 1 || rank < 0 || rank >= n) return ncclInvalidArgument;
    if (config && (config->magic != 0xcafebeef || config->size > sizeof *config)) return ncclInvalidArgument;
    if (device_dead(device)) return ncclUnhandledCudaError;
    Comm *c;
    {
        Lock l;
        const std::string name(id.internal, strnlen(id.internal, sizeof id.internal));
        if (name.rfind("sim-nccl-", 0) != 0) {
            finding("%s: a unique id that ncclGetUniqueId did not make", api);
            return ncclInvalidArgument;
        }
        World *&w = worlds()[name];
        if (!w) {
            w = new World;
            w->id = name;
            w->n = n;
            w->ranks.resize(static_cast<size_t>(n));
        }
        if (w->n != n) {
            finding("%s: %d ranks, another rank of the same id has said %d", api, n, w->n);
            return ncclInvalidUsage;
        }
        c = make(rank, device, config, site);
        join(c, w);
        *out = reinterpret_cast<ncclComm_t>(c);
    }
    if (in_group()) {
        group_adds(c, true);
        return c->blocking ? ncclSuccess : ncclInProgress;
    }
    return settle({c});
}

// Blocking communicators wait for their work here; the others are polled.
static bool quiet_locked(const Comm *c)
{
    return (c->in_flight == 0 && (!c->late || c->late->queued)) || device_dead_locked(c->device);
}

static void end_locked(Comm *c, const char *how)
{
    c->gone = how;
    notify();
}

} // namespace sim

using namespace sim;

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}
const char *ncclGetErrorString(ncclResult_t r)
{
    switch (r) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    default: return "unknown result code";
    }
}
const char *ncclGetLastError(ncclComm_t handle)
{
    static thread_local std::string text;
    Lock l;
    auto it = comms().find(handle);
    text = it == comms().end() ? "" : it->second->last_error;
    return text.c_str();
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static std::atomic<int> next{1};
    if (ncclResult_t e = enter("ncclGetUniqueId")) return e;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "sim-nccl-%d-%d", static_cast<int>(getpid()), next++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int n, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    if (ncclResult_t e = enter("ncclCommInitRankConfig")) return e;
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return ncclUnhandledCudaError;
    return init_rank("ncclCommInitRankConfig", out, n, id, rank, device, config, SIM_SITE("ncclCommInitRankConfig"));
}
ncclResult_t ncclCommInitRank(ncclComm_t *out, int n, ncclUniqueId id, int rank)
{
    if (ncclResult_t e = enter("ncclCommInitRank")) return e;
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return ncclUnhandledCudaError;
    return init_rank("ncclCommInitRank", out, n, id, rank, device, nullptr, SIM_SITE("ncclCommInitRank"));
}
ncclResult_t ncclCommInitAll(ncclComm_t *out, int n, const int *devices)
{
    if (ncclResult_t e = enter("ncclCommInitAll")) return e;
    int count = 0;
    ncclUniqueId id;
    if (!out || n < 1 || cudaGetDeviceCount(&count) != cudaSuccess) return ncclInvalidArgument;
    for (int i = 0; i < n; i++)
        if ((devices ? devices[i] : i) < 0 || (devices ? devices[i] : i) >= count) return ncclInvalidArgument;
    for (int i = 0; i < n; i++)
        for (int j = 0; devices && j < i; j++)
            if (devices[i] == devices[j]) return ncclInvalidUsage;
    static std::atomic<int> next{1};
    memset(&id, 0, sizeof id);
    snprintf(id.internal, sizeof id.internal, "sim-nccl-all-%d", next++);
    std::vector<Comm *> made;
    {
        Lock l;
        auto *w = worlds()[id.internal] = new World;
        w->id = id.internal;
        w->n = n;
        w->ranks.resize(static_cast<size_t>(n));
        for (int i = 0; i < n; i++) {
            Comm *c = make(i, devices ? devices[i] : i, nullptr, SIM_SITE("ncclCommInitAll"));
            join(c, w);
            made.push_back(c);
            out[i] = reinterpret_cast<ncclComm_t>(c);
        }
    }
    return settle(made);
}

// The last rank to come puts everybody into the new worlds.
ncclResult_t ncclCommSplit(ncclComm_t handle, int color, int key, ncclComm_t *out, ncclConfig_t *config)
{
    if (ncclResult_t e = enter("ncclCommSplit")) return e;
    Comm *child = nullptr;
    if (!out || (color < 0 && color != NCCL_SPLIT_NOCOLOR)) return ncclInvalidArgument;
    {
        Lock l;
        Comm *c = comm_locked(handle, "ncclCommSplit");
        if (!c || !c->initialised) return ncclInvalidArgument;
        World *w = c->world;
        if (color != NCCL_SPLIT_NOCOLOR) {
            ncclConfig_t inherited = NCCL_CONFIG_INITIALIZER;
            inherited.blocking = c->blocking ? 1 : 0;
            child = make(-1, c->device, config ? config : &inherited, SIM_SITE("ncclCommSplit"));
        }
        const uint64_t seq = c->split_seq++;
        auto &split = w->splits[seq];
        split.push_back({c->rank, color, key, child});
        if (static_cast<int>(split.size()) == w->n) {
            std::map<int, std::map<std::pair<int, int>, Comm *>> groups;
            for (const World::Split &s : split)
                if (s.child) groups[s.color][{s.key, s.rank}] = s.child;
            for (const auto &g : groups) {
                auto *made = worlds()[w->id + "." + std::to_string(seq) + "." + std::to_string(g.first)] = new World;
                made->n = static_cast<int>(g.second.size());
                made->ranks.resize(g.second.size());
                int rank = 0;
                for (const auto &member : g.second) {
                    member.second->rank = rank++;
                    join(member.second, made);
                }
            }
            w->splits.erase(seq);
        }
        *out = reinterpret_cast<ncclComm_t>(child);
    }
    if (!child) return ncclSuccess;
    if (in_group()) {
        group_adds(child, true);
        return child->blocking ? ncclSuccess : ncclInProgress;
    }
    return settle({child});
}

// Polls move what does not block: an initialisation and a group are over at the second look, not before.
ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *out)
{
    if (ncclResult_t e = enter("ncclCommGetAsyncError", ncclInternalError, Call::Quiet)) return e;
    std::shared_ptr<Batch> due;
    Comm *c;
    {
        Lock l;
        c = comm_locked(handle, "ncclCommGetAsyncError");
        if (!c || !out) return ncclInvalidArgument;
        if (c->async == ncclSuccess && device_dead_locked(c->device)) c->async = ncclUnhandledCudaError;
        *out = c->async;
        if (c->async != ncclSuccess) return ncclSuccess;
        c->polls++;
        if (!c->initialised) {
            if (settled_locked(c) && c->polls >= 2) c->initialised = true;
            else *out = ncclInProgress;
            return ncclSuccess;
        }
        if (c->finalized && !quiet_locked(c)) *out = ncclInProgress;
        if (c->late && !c->late->queued) {
            *out = ncclInProgress;
            if (++c->late->polls >= 2) due = c->late;
        }
    }
    if (due) {
        const ncclResult_t e = queue_batch(due.get());
        if (e == ncclSuccess) *out = ncclSuccess;
        Lock l;
        c->late.reset();
    }
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t handle)
{
    if (ncclResult_t e = enter("ncclCommFinalize", ncclInternalError, Call::Quiet)) return e;
    Lock l;
    Comm *c = comm_locked(handle, "ncclCommFinalize");
    if (!c || c->finalized || !c->initialised) return ncclInvalidArgument;
    c->finalized = true;
    if (!c->blocking) return ncclInProgress;
    for (int waited = 0; !quiet_locked(c) && c->async == ncclSuccess && waited < hang_ms();)
        if (!wait(50)) waited += 50;
    return c->async;
}

ncclResult_t ncclCommDestroy(ncclComm_t handle)
{
    const ncclResult_t e = enter("ncclCommDestroy", ncclInternalError, Call::Quiet);
    Lock l;
    Comm *c = comm_locked(handle, "ncclCommDestroy");
    if (!c) return ncclInvalidArgument;
    if (c->async != ncclSuccess)
        finding("ncclCommDestroy of a communicator with an error (rank %d): it needs ncclCommAbort", c->rank);
    int waited = 0;
    while (!quiet_locked(c) && waited < hang_ms())
        if (!wait(50)) waited += 50;
    if (waited >= hang_ms()) finding("hang: ncclCommDestroy waits for operations of rank %d [%s]", c->rank, place(c->last).c_str());
    end_locked(c, "ncclCommDestroy");
    return e;
}

ncclResult_t ncclCommAbort(ncclComm_t handle)
{
    const ncclResult_t e = enter("ncclCommAbort", ncclInternalError, Call::Quiet);
    Lock l;
    Comm *c = comm_locked(handle, "ncclCommAbort");
    if (!c) return ncclInvalidArgument;
    c->aborted = true;
    c->late.reset();
    end_locked(c, "ncclCommAbort");
    return e;
}

ncclResult_t ncclCommCount(const ncclComm_t handle, int *n)
{
    Lock l;
    const Comm *c = comm_locked(handle, "ncclCommCount");
    if (!c || !c->initialised) return ncclInvalidArgument;
    *n = c->world->n;
    return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t handle, int *rank)
{
    Lock l;
    const Comm *c = comm_locked(handle, "ncclCommUserRank");
    if (!c || !c->initialised) return ncclInvalidArgument;
    *rank = c->rank;
    return ncclSuccess;
}
ncclResult_t ncclCommCuDevice(const ncclComm_t handle, int *device)
{
    Lock l;
    const Comm *c = comm_locked(handle, "ncclCommCuDevice");
    if (!c) return ncclInvalidArgument;
    *device = c->device;
    return ncclSuccess;
}

} // extern "C"
