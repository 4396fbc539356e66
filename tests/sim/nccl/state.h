// Ranks and what they do together. Everything here is behind the runtime's lock (sim::Lock) unless it says otherwise.
#pragma once
#include "../rt.h"
#include <deque>
#include <map>
#include <memory>
#include <nccl.h>
#include <pthread.h>

namespace sim {

enum class Kind { AllReduce, Broadcast, Reduce, AllGather, ReduceScatter, Send, Recv };

struct Comm;
// One call of a collective, a send or a receive, until it has run.
struct Deed {
    Kind kind = Kind::AllReduce;
    const char *api = "";
    const void *send = nullptr;
    void *recv = nullptr;
    size_t count = 0; // as given by the caller
    ncclDataType_t type = ncclFloat32;
    ncclRedOp_t op = ncclSum;
    int root = 0; // or the peer
    Comm *comm = nullptr;
    cudaStream_t stream = nullptr;
    uint64_t seq = 0; // of a collective: the k-th of its communicator
    Site site;
    size_t send_bytes() const;
    size_t recv_bytes() const;
};

// Where the ranks of one collective meet.
struct Meeting {
    Deed first; // whose arguments the others' have to agree with
    int arrived = 0, have_read = 0, reading = 0;
    bool bad = false, left = false; // arguments differ; a rank has gone away
    std::vector<const void *> in;
    std::vector<char> here;
    char in_tag = 0, read_tag = 0; // for ThreadSanitizer
};
// A send that waits for its receive.
struct Message {
    Deed deed;
    bool taken = false, left = false, reading = false;
    char in_tag = 0, read_tag = 0;
};

struct Issue { // by whom an operation was queued first
    pthread_t thread;
    uint64_t group;
    int times;
    Site site;
    int rank;
};

struct World {
    std::string id;
    int n = 0, joined = 0;
    std::vector<Comm *> ranks;
    std::map<uint64_t, std::shared_ptr<Meeting>> meetings;
    std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>> sends;
    std::map<uint64_t, Issue> issues; // of collectives, by seq
    std::map<std::pair<int, int>, std::deque<Issue>> p2p_issues[2];
    struct Split {
        int rank, color, key;
        Comm *child;
    };
    std::map<uint64_t, std::vector<Split>> splits;
};

struct Batch; // operations of a group that wait for being polled
struct Comm {
    World *world = nullptr; // null while a split is under way
    int rank = 0, device = 0;
    bool blocking = true, initialised = false, finalized = false, aborted = false;
    const char *gone = nullptr; // "ncclCommDestroy", "ncclCommAbort"
    ncclResult_t async = ncclSuccess; // a failure; progress is worked out
    int polls = 0;
    int in_flight = 0; // operations queued and not ended
    uint64_t seq = 0, split_seq = 0;
    std::shared_ptr<Batch> late;
    Site made, last; // last: the newest operation of this rank
    std::string last_error;
};

// A group's operations; queued at once, or, for communicators that do not block, when somebody polls for it.
struct Batch {
    std::vector<Deed> deeds;
    int polls = 0;
    bool queued = false;
};

size_t type_bytes(ncclDataType_t t); // 0: unknown, or not simulated
void reduce(void *out, const std::vector<const void *> &in, size_t at, size_t count, ncclDataType_t type,
            ncclRedOp_t op); // no lock

int hang_ms();
bool device_dead_locked(int device);
// The communicator behind a handle; null: not one, or not any more (a finding). Locked.
Comm *comm_locked(ncclComm_t handle, const char *api);
// A failure that everybody learns of: `mine` for the rank itself, ncclRemoteError for the others. Locked.
void fail_locked(Comm *c, ncclResult_t mine, ncclResult_t others, const std::string &why);
std::string place(const Site &site); // of a call, for findings
// Queues the batch; locks itself.
ncclResult_t queue_batch(Batch *b);
void run_calls(const std::vector<Deed> &deeds); // no lock; on the stream's thread

// group.cc
bool in_group();
void group_adds(Comm *c, bool wait_for_it); // an initialisation inside of a group
ncclResult_t settle(const std::vector<Comm *> &made); // waits for initialisations, of blocking communicators

} // namespace sim
