// The runtime's state, behind sim::Lock.
#pragma once
#include "../exec/exec.h"
#include "../rt.h"
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>

namespace sim {

// ---- settings ----
struct Settings {
    int machine_devices = 4;
    bool driver = true, lazy = false, check = true, declared = false, at_exit = true, verbose = false, peers = true;
    size_t device_bytes = size_t(1024) << 20, fill_bytes = size_t(64) << 20;
    int major = 9, minor = 0;
    GridOptions grid;
};
const Settings &settings();

// ---- time of the happens-before checker: component i = ticks of stream i; the host has none of its own, it only learns ----
struct Clock {
    std::vector<uint32_t> ticks;
    void join(const Clock &other);
    uint32_t at(int stream) const { return static_cast<size_t>(stream) < ticks.size() ? ticks[stream] : 0; }
    void set(int stream, uint32_t tick);
};

struct Stream;
// The end of one operation.
struct Record {
    bool done = false;
    bool wanted = false;                          // lazy mode: somebody waits for it
    bool ordered = false;                         // of an event: a stream was told to wait for it
    double ms = 0;                                // when it was done
    Stream *stream = nullptr;
    std::vector<std::shared_ptr<Record>> before;  // what it waits for, until it is done
    Clock clock;
    char queued_tag, done_tag;
};
using RecordP = std::shared_ptr<Record>;

struct Op {
    Work work;
    RecordP record;
    std::vector<std::pair<uintptr_t, uint64_t>> uses; // allocations and their ids: must still live when it runs
};

// A futex that sleepers wait on; wakes say that something may have changed.
struct Gate {
    std::atomic<int> epoch{0};
    int sleepers = 0;
};

struct Capture; // capture.cc
struct Stream {
    int device = 0, index = 0;
    bool blocking = true, is_null = false, started = false, destroyed = false;
    int priority = 0;
    std::deque<Op> queue;
    RecordP tail;
    Clock clock;
    Gate gate;
    Capture *capture = nullptr;
    Site made;
};
struct Event {
    int device = 0;
    bool timing = true, blocking_sync = false;
    RecordP record;
    Capture *capture = nullptr; // recorded in a capturing stream
    std::vector<size_t> nodes;  // the work it stands for in that capture
    Site made;
};

struct Device {
    int machine_index = 0; // position in the machine, behind CUDA_VISIBLE_DEVICES
    cudaError_t sticky = cudaSuccess;
    std::string why;
    Stream *null_stream = nullptr;
    std::vector<Stream *> streams; // the null stream, too
    std::set<int> peers;
    size_t used = 0, peak = 0;
    long kernels = 0;
};
std::vector<Device> &devices(); // the visible ones

// ---- marks of the checker on one allocation ----
struct Mark {
    int stream = -1;
    uint32_t tick = 0;
    Touch how = Touch::Read;
    Site site;
};
struct Segment {
    uintptr_t end;
    Mark write;               // the last one; stream -1 = none
    std::vector<Mark> others; // reads and atomics since, one per stream and kind
};
struct Allocation {
    uintptr_t at = 0;
    size_t bytes = 0;
    int device = 0;
    cudaMemoryType type = cudaMemoryTypeDevice;
    uint64_t id = 0;
    char *mapping = nullptr; // null: from the process's allocator
    size_t mapping_bytes = 0;
    bool registered = false;
    bool freed = false; // cudaFreeAsync has been called
    Site made;
    std::map<uintptr_t, Segment> segments;
};
std::map<uintptr_t, Allocation> &allocations();
Allocation *find_allocation(const void *p); // that holds the byte

// ---- calls used across files; "locked": with the lock ----
cudaError_t enter(const char *api, cudaError_t usual = cudaErrorUnknown, Call kind = Call::Plain); // count, fault, driver, sticky
cudaError_t result(cudaError_t e); // remembers it as the thread's last error
int current_device();
Device &this_device();

RecordP enqueue_locked(Stream *s, Work work, const std::vector<RecordP> &after);
Stream *stream_of(cudaStream_t handle);        // locked; null = not a live stream (a finding is made)
Stream *null_stream_locked(int device);
void host_learns_locked(const RecordP &r);     // the host has seen it done
void wait_for(const std::vector<RecordP> &records); // takes the lock itself
void wait_for(const RecordP &record);
bool poll_locked(const RecordP &r);            // done? In lazy mode the first look only makes it wanted
std::vector<RecordP> device_tails_locked(int device);
cudaError_t sticky_of(int device);
void forget_work_of_destroyed(); // streams that are gone, but for what they had queued; under the lock
void forget_declarations(); // of this thread's next launch

// checker (check.cc), all locked
void check_work(const Work &w, Stream *s, Clock *clock);
void check_host(const void *p, size_t bytes, Touch how, const Site &site);
void check_free(Allocation *a, const Site &site);
void forget_pieces(uintptr_t from, uintptr_t to); // the allocation is freed
Clock &host_clock();

// memory.cc; these take the lock themselves
cudaError_t allocate(void **out, size_t bytes, int device, cudaMemoryType type, const Site &site);
void release_memory(uintptr_t at); // nobody uses it any more
void explain_stale(const void *p, const Site &site); // a finding if p was freed lately; for calls that are wrong anyway

std::string describe(const Site &site);
void in_host_function(bool yes); // this thread runs one: it must not call the API
void sleep_on(Gate *gate, int timeout_ms, bool *timed_out = nullptr); // locked
void wake(Gate *gate);                                                // locked
void let_go();                                                        // by the holder of the lock, around work of others
void take_again();

} // namespace sim
