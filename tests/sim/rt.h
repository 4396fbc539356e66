// How a simulated library (cuBLAS, NCCL, the runtime itself) puts work on a simulated stream. All of it is in libcudart.so.13.
//
// A call of such a library, in order: enter() counts it and takes injected faults; argument checks of its own; enqueue() with
// a closure and the ranges of memory it reads and writes. The closure runs later, on the stream's thread, perhaps several times
// (a captured stream replays it), so it holds copies of its arguments. It must not call the runtime's API.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <functional>
#include <string>
#include <vector>

namespace sim {

// ---- the runtime's lock ----
// One lock for all state, invisible to ThreadSanitizer: it orders nothing that the CUDA API does not order.
struct Lock {
    Lock();
    ~Lock();
    Lock(const Lock &) = delete;
    Lock &operator=(const Lock &) = delete;
};
void notify();                     // with the lock: wakes everybody in wait()
bool wait(int timeout_ms = -1);    // with the lock: lets go, sleeps until a notify(); false = timed out
void hb_release(void *tag);        // happens-before edges for ThreadSanitizer, where the API gives them
void hb_acquire(void *tag);

// ---- where a call came from, for findings ----
struct Site {
    const char *what = ""; // static text or interned
    void *pc[4] = {};
};
Site site_at(const char *what, void *const *frame);
#define SIM_SITE(what) ::sim::site_at(what, static_cast<void *const *>(__builtin_frame_address(0)))
const char *intern(const std::string &text); // lives as long as the process

// ---- entering an API function ----
// Counts the call; returns the injected error, or 0. Kind: Plain calls also count for "prefix*" faults, Quiet ones do not.
enum class Call { Plain, Quiet };
int fault(const char *api, int usual_code, Call kind = Call::Plain);
// The same for work as it runs on its stream: the injected code or 0. `what` is a class: "kernel", "copy", "nccl".
int async_fault(const char *what);

// ---- streams ----
struct StreamInfo {
    int device;     // ordinal as the process sees it
    bool valid;     // a live stream
    bool capturing;
};
StreamInfo stream_info(cudaStream_t stream); // the null stream is the current device's

// ---- work ----
enum class Touch : uint8_t { Read, Write, Atomic }; // Atomic: ordered with Read and Write, not with Atomic
struct Access {
    const void *p;
    size_t bytes;
    Touch how;
};
struct Work {
    const char *kind;             // "kernel", "copy", ...: for async faults and graph node types
    Site site;
    std::function<void()> run;    // may be empty
    std::vector<Access> accesses; // ranges of device or pinned memory; others are ignored
};
// Puts work behind what is queued on the stream, or into the graph being captured from it. Checks the accesses: ordered after
// whatever conflicts with them, inside their allocations, on a device that can reach them.
cudaError_t enqueue(cudaStream_t stream, Work work);
// From a closure: the device is lost, as a faulting kernel makes it. Later work on it is skipped, all calls return the code.
void kill_device(int device, cudaError_t code, const std::string &why);
bool device_dead(int device);

// ---- memory ----
struct Memory {
    bool known;          // from cudaMalloc, cudaHostAlloc and their kin
    cudaMemoryType type; // of known ones
    int device;          // where it is; of pinned memory: the one current when it was made
    const char *base;
    size_t bytes;
};
Memory memory_at(const void *p);

// ---- findings: what a test must see; unclaimed ones fail the process at its end. With the lock. ----
void finding(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace sim
