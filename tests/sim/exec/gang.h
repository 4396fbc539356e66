// The engine's own state: fibers in blocks, blocks in a gang (the blocks that are alive at once on one host thread).
#pragma once
#include "exec.h"
#include "sanitizer.h"
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace sim {

enum class State : uint8_t { Ready, Barrier, Warp, Warpgroup, Grid, Mbarrier, Spin, Done };
enum { kBarriers = 16, kLanes = 32, kSharedLimit = 227 * 1024 };

struct Block;

// Something asynchronous that a thread has started, in groups as the device counts them.
struct Pending {
    std::vector<std::function<void()>> open;                 // not committed
    std::vector<std::vector<std::function<void()>>> groups;  // oldest first
    bool empty() const
    {
        bool none = open.empty();
        for (const auto &g : groups) none = none && g.empty();
        return none;
    }
};

// A product of a warpgroup that one of its threads has yet to see done.
struct Product {
    float *d; // an array in the kernel's frame
    int n;
    uint64_t a, b; // descriptors
    bool accumulate, bf16;
    std::vector<float> before; // what d holds until then
    const char *site;
};

struct Fiber {
    stm_sim_thread self;
    uint3 tid, bid;
    void *sp;
    char *stack;
    Block *block;
    void *tsan, *fake; // the sanitizers' handles
    const char *site;  // where it waits
    uint32_t mask;     // of the collective it waits in
    State state;
    int8_t barrier;
    const void *mbarrier;       // it waits for
    Pending copies, stores, products;
    std::deque<Product> multiplying; // of `products`, oldest first
    uint64_t asked;                  // a digest of the products since the last wait
    bool fenced;                     // wgmma.fence since then
};

// bar.sync: counts arrivals; a generation ends when all are there. The tags alternate by generation, so that a fast thread,
// already at the next barrier, does not order itself before a slow one still leaving this one.
struct Barrier {
    int count = 0, need = 0, generation = 0;
    int sum = 0, result = 0, ones = 0, results[3] = {};
    const char *site = nullptr;
    uint64_t asked = 0; // of a warpgroup: what its first thread gave
    char tag[2];
};

// A rendezvous of the lanes in `mask`. Two value buffers, since fast lanes may enter the next one while slow lanes still read.
struct Collective {
    uint32_t mask = 0, arrived = 0, readers = 0;
    unsigned generation = 0;
    const char *site = nullptr;
    uint64_t value[2][kLanes];
    uint32_t members[2] = {}; // who gave the values
    char tag[2];
};

struct Warp {
    uint32_t present = 0, exited = 0;
    std::vector<std::unique_ptr<Collective>> collectives;
};

// An mbarrier of shared memory: a phase ends when all arrivals and all announced bytes are in. Kept beside the 8 bytes it has
// there.
struct Mbarrier {
    unsigned count = 0, missing = 0;
    long bytes = 0;
    unsigned phase = 0;
    std::vector<std::function<void()>> loads; // under way to this barrier
    char tag[2];
};

struct SharedVariable {
    const void *tag;
    char *at;
    size_t bytes;
    const char *name;
};

struct Block {
    int threads = 0, live = 0;
    std::vector<Fiber> fibers;
    std::vector<int> order;
    Barrier barriers[kBarriers];
    std::vector<Warp> warps;
    char *arena = nullptr; // shared memory: dynamic part first, then variables as they are first reached; behind it async_view
    bool viewed = false;   // whether that is in use
    size_t used = 0;
    std::vector<SharedVariable> variables;
    std::map<void *, Mbarrier> mbarriers;
    Barrier warpgroups[8];
};

struct Gang {
    std::vector<Block *> blocks;
    const stm_sim_kernel *kernel;
    void **args;
    GridOptions opts;
    GridStats stats = {};
    void *scheduler_sp = nullptr;
    void *tsan_main = nullptr, *fake = nullptr;
    const void *host_stack = nullptr;
    size_t host_stack_bytes = 0;
    int live = 0, grid_count = 0, grid_generation = 0;
    char grid_tag[2], end_tag;
    bool dead = false;
    cudaError_t code = cudaSuccess;
    std::string why;
    uint64_t random = 1;
    std::deque<void *> ended; // threads of blocks that are through, as TSan knows them, oldest first
};

extern __thread Gang *gang;   // of this host thread, while a grid runs
extern __thread Fiber *fiber; // that runs now

// The first error of the gang is kept; the caller must not go on in a fiber: to_scheduler() does not come back then.
void fail(cudaError_t code, const char *format, ...) __attribute__((format(printf, 2, 3)));
std::string thread_name(const Fiber &f);

// fiber.cc
void fiber_prepare(Fiber *f, void (*main)());
void fiber_release(Fiber *f);
void fibers_end(); // the gang's last
void to_fiber(Fiber *f);
void to_scheduler(bool dying = false);
void fiber_begin(); // first thing on a new stack
size_t stack_bytes();

// segv.cc
void catch_faults();

// barrier.cc, warp.cc: what an exiting thread does to those who wait
void barrier_exit(Block *b);
void warp_exit(Block *b, Fiber *f);
void barriers_reset(Block *b);

// async.cc
void commit(Pending *p);
void finish(Pending *p, unsigned newest); // does all groups but the newest so many
bool coin();                  // in random orders: whether something happens early
void async_exit(Fiber *f);    // nothing that it started may be left
void async_block_end(Block *b);
char *async_view(Block *b); // shared memory as the asynchronous proxy sees it

// shared.cc
inline constexpr size_t kArena = 256 * 1024;
void shared_begin(Block *b, size_t dynamic_bytes);
void shared_check(Block *b); // overruns of one variable into what lies behind it
void shared_end(Block *b);

} // namespace sim
