// What compiled kernels and the engine share: the built-in variables, and the calls behind barriers, warp collectives and
// shared memory. The force-included shim (shim/sim_device.h) turns CUDA's names into these. C linkage, so that a module built
// by another compiler finds them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>

// One running GPU thread, as its kernel sees it.
struct stm_sim_thread {
    int lane, warp; // lane 0..31 in its warp, warp in its block
    unsigned rank;  // linear index in its block
    void *dynamic;  // the block's dynamic shared memory
    void *shared;   // the base that 32-bit shared addresses count from
};
struct stm_sim_dim {
    unsigned x, y, z;
    operator dim3() const { return dim3(x, y, z); }
};

// How a kernel takes one argument: its size, and what it is to the checker.
enum stm_sim_arg_kind { STM_SIM_ARG_VALUE, STM_SIM_ARG_READ /* const T * */, STM_SIM_ARG_WRITE /* T * */ };
struct stm_sim_arg {
    unsigned bytes, align;
    stm_sim_arg_kind kind;
};
struct stm_sim_kernel {
    const void *entry;
    void (*invoke)(const void *entry, void **args);
    const stm_sim_arg *args;
    unsigned arg_count;
    const char *name;
};

// What the simulated cuTensorMapEncodeTiled writes into a CUtensorMap.
struct stm_sim_tensor_map {
    const char *base;
    uint64_t stride[4]; // bytes; of dimensions 1..4
    uint32_t dim[5];    // minus 1
    uint16_t box[5];
    uint8_t rank, element_bytes, swizzle_bytes, fill_nan;
};

extern "C" {
extern __thread stm_sim_thread *stm_sim_self; // of the running GPU thread; null on a host thread
extern __thread uint3 threadIdx, blockIdx;
extern __thread stm_sim_dim blockDim, gridDim;

// `site` is "file:line" of the kernel's source.
void stm_sim_barrier(int id, int threads /* 0 = the whole block */, const char *site);
int stm_sim_barrier_reduce(int kind /* 0 count, 1 and, 2 or */, int value, const char *site);
void stm_sim_syncwarp(unsigned mask, const char *site);
uint64_t stm_sim_shuffle(unsigned mask, uint64_t value, int kind /* 0 idx, 1 up, 2 down, 3 xor */, int arg, int width,
                         const char *site);
uint32_t stm_sim_vote(unsigned mask, int kind /* 0 ballot, 1 all, 2 any, 3 match_any, 4 match_all */, uint64_t value,
                      const char *site);
// Every lane of the full warp gives a pointer and sees all 32, until its next collective.
void stm_sim_exchange(const void *mine, const void **all, const char *site);
uint32_t stm_sim_active(void); // lanes of the warp that have not exited
void stm_sim_fence(void);
void stm_sim_grid_sync(const char *site);
void *stm_sim_shared(const void *tag, size_t bytes, size_t align, const char *name);
void stm_sim_spin(const char *site); // yields; a block in which everybody only spins is stuck
[[noreturn]] void stm_sim_trap(const char *why, const char *site);

// Asynchronous copies (exec/async.cc): they take place when they are waited for, at the latest moment the device may take, or,
// in random orders, now and then at once.
void stm_sim_cp_async(void *shared, const void *global, unsigned bytes, unsigned valid_bytes, const char *site);
void stm_sim_cp_async_commit(void);
void stm_sim_cp_async_wait(unsigned newest, const char *site); // all groups but the newest so many
void stm_sim_mbarrier_init(void *bar, unsigned count, const char *site);
void stm_sim_mbarrier_arrive(void *bar, unsigned expect_bytes, const char *site);
bool stm_sim_mbarrier_test(void *bar, unsigned parity, const char *site);
void stm_sim_mbarrier_wait(void *bar, unsigned parity, const char *site);
void stm_sim_tma_load(void *shared, const stm_sim_tensor_map *map, void *bar, const int *at, const char *site);
void stm_sim_tma_store(const stm_sim_tensor_map *map, const void *shared, const int *at, const char *site);
void stm_sim_tma_store_commit(void);
void stm_sim_tma_store_wait(unsigned newest, const char *site);
// TMA stores and products read shared memory as it was at the last of these, but for what TMA itself brought since.
void stm_sim_fence_async(void);

// Hopper's warpgroup of 128 threads (exec/wgmma.cc): products wait for their wait, too.
void stm_sim_wgmma_fence(const char *site);
void stm_sim_registers(const char *site); // registers are not simulated: only that a warpgroup comes as one
void stm_sim_wgmma(float *d, int n, uint64_t a, uint64_t b, int accumulate, int bf16, const char *site);
void stm_sim_wgmma_commit(void);
void stm_sim_wgmma_wait(unsigned newest, const char *site);

void stm_sim_register(const stm_sim_kernel *kernel);
}
