// The execution engine: runs the blocks of a grid on the calling thread, every GPU thread a fiber. It knows nothing of
// streams or memory; it is never compiled with a sanitizer, and talks to the one in the process through weak symbols.
#pragma once
#include "abi.h"
#include <string>

namespace sim {

// In which order blocks, and the threads of a block, get their turn.
struct Order {
    enum Kind { Forward, Reverse, Random } kind = Forward;
    uint64_t seed = 1;
};
struct GridOptions {
    Order order;
    bool strict = true;      // a barrier that some threads have left behind for good is an error
    bool cooperative = false; // all blocks live at once, grid barriers work
    int spin_limit_ms = 5000; // a grid in which nothing but spinning happens for so long is stuck
};
struct GridStats {
    unsigned long switches, barriers, collectives, outside_reads;
};

// Runs the whole grid. On an error says what and where in `*why`; what a real device calls sticky. Threads: any, several at once.
cudaError_t run_grid(const stm_sim_kernel &kernel, dim3 grid, dim3 block, size_t dynamic_bytes, void **args,
                     const GridOptions &opts, std::string *why, GridStats *stats = nullptr);

// Happens-before edges for ThreadSanitizer; nothing in a process without it.
void hb_release(void *tag);
void hb_acquire(void *tag);
bool under_asan();
bool under_tsan();

} // namespace sim
