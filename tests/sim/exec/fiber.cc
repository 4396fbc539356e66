// Fibers: a stack each, a switch that saves the callee-saved registers, and what sanitizers must be told of it.
#include "gang.h"
#include <cstdlib>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

extern "C" void stm_sim_switch(void **save_sp, void *to_sp);
// A new stack holds six zeros, fiber_main, 0, with its top 16-aligned: `ret` then enters as a call would, rsp = 8 mod 16.
__asm__(R"(
.text
.type stm_sim_switch,@function
stm_sim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size stm_sim_switch,.-stm_sim_switch
)");

extern "C" {
__thread stm_sim_thread *stm_sim_self;
__thread uint3 threadIdx, blockIdx;
__thread stm_sim_dim blockDim, gridDim;
}

__thread int stm_sim_quiet_depth;

namespace sim {

__thread Gang *gang;
__thread Fiber *fiber;

void hb_release(void *tag)
{
    if (__tsan_release) __tsan_release(tag);
}
void hb_acquire(void *tag)
{
    if (__tsan_acquire) __tsan_acquire(tag);
}
bool under_asan() { return __asan_init != nullptr; }
bool under_tsan() { return __tsan_create_fiber != nullptr; }

static const size_t kPage = 4096;

size_t stack_bytes()
{
    static const size_t bytes = [] {
        const char *kib = getenv("STM_SIM_STACK_KIB");
        return (kib ? strtoul(kib, nullptr, 10) : under_asan() ? 256 : under_tsan() ? 32 : 64) << 10;
    }();
    return bytes;
}

// Stacks of threads that have ended, for those that come: a program that opens and closes streams by the hundred would map and
// unmap little else. Not under TSan, to which the lock would order what the threads did.
struct Stock {
    std::mutex lock;
    std::vector<char *> free;
};
static Stock &stock() // never destroyed: stream threads outlive static objects
{
    static auto *s = new Stock;
    return *s;
}
static const size_t kStockMost = 4096;

// Free stacks of this host thread.
struct Stacks {
    std::vector<char *> free;
    ~Stacks()
    {
        if (!under_tsan()) {
            std::lock_guard<std::mutex> guard(stock().lock);
            while (!free.empty() && stock().free.size() < kStockMost) {
                stock().free.push_back(free.back());
                free.pop_back();
            }
        }
        for (char *s : free) munmap(s - kPage, stack_bytes() + kPage);
    }
    void fill()
    {
        if (under_tsan()) return;
        std::lock_guard<std::mutex> guard(stock().lock);
        for (int i = 0; i < 256 && !stock().free.empty(); i++) {
            free.push_back(stock().free.back());
            stock().free.pop_back();
        }
    }
};
static thread_local Stacks stacks;

static char *stack_take()
{
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (stacks.free.empty()) stacks.fill();
    if (stacks.free.empty()) {
        char *base = static_cast<char *>(mmap(nullptr, stack_bytes() + kPage, prot, flags, -1, 0));
        if (base == MAP_FAILED) abort(); // our own limits: thousands of threads in a block of a test
        mprotect(base, kPage, PROT_NONE);
        stacks.free.push_back(base + kPage);
    }
    char *stack = stacks.free.back();
    stacks.free.pop_back();
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(stack, stack_bytes());
    // A fiber is a thread to TSan: what the last one left on this stack must not look like a race with it.
    if (under_tsan()) mmap(stack, stack_bytes(), prot, flags | MAP_FIXED, -1, 0);
    return stack;
}

void fiber_prepare(Fiber *f, void (*main)())
{
    f->stack = stack_take();
    void **sp = reinterpret_cast<void **>(f->stack + stack_bytes() - 64);
    *--sp = nullptr;
    *--sp = reinterpret_cast<void *>(main);
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    f->sp = sp;
    f->fake = nullptr;
    f->tsan = under_tsan() ? __tsan_create_fiber(0) : nullptr;
}

// TSan forgets what a thread did once some 60 others have ended, and says nothing of a race whose first half it forgot. So a
// block's threads outlive it, up to a number that costs little memory.
static const size_t kEndedMost = 1024;

void fiber_release(Fiber *f)
{
    stacks.free.push_back(f->stack);
    if (!under_tsan()) return;
    if (f->state != State::Done) { // its gang died; what it did is before the kernel's end all the same
        __tsan_switch_to_fiber(f->tsan, 1);
        hb_release(&gang->end_tag);
        __tsan_switch_to_fiber(gang->tsan_main, 1);
    }
    gang->ended.push_back(f->tsan);
    if (gang->ended.size() <= kEndedMost) return;
    __tsan_destroy_fiber(gang->ended.front());
    gang->ended.pop_front();
}

void fibers_end()
{
    for (void *thread : gang->ended) __tsan_destroy_fiber(thread);
    gang->ended.clear();
}

void to_scheduler(bool dying)
{
    Fiber *me = fiber;
    // A fiber of a dead gang never comes back, and must not end with its accesses ignored.
    const int depth = stm_sim_quiet_depth;
    if (depth) stm_sim_ignore(false);
    stm_sim_quiet_depth = 0;
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(dying ? nullptr : &me->fake, gang->host_stack, gang->host_stack_bytes);
    if (under_tsan()) __tsan_switch_to_fiber(gang->tsan_main, 1);
    stm_sim_switch(&me->sp, gang->scheduler_sp);
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(me->fake, nullptr, nullptr);
    stm_sim_quiet_depth = depth;
    if (depth) stm_sim_ignore(true);
}

void to_fiber(Fiber *f)
{
    fiber = f;
    stm_sim_self = &f->self;
    threadIdx = f->tid; // real variables: macros would hit every member of that name
    blockIdx = f->bid;
    gang->stats.switches++;
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&gang->fake, f->stack, stack_bytes());
    if (under_tsan()) __tsan_switch_to_fiber(f->tsan, 1); // 1: the switch itself orders nothing
    stm_sim_switch(&gang->scheduler_sp, f->sp);
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(gang->fake, nullptr, nullptr);
    fiber = nullptr;
    stm_sim_self = nullptr;
}

void fiber_begin()
{
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(nullptr, &gang->host_stack, &gang->host_stack_bytes);
}

} // namespace sim

extern "C" void stm_sim_fence(void)
{
    static char tag;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    sim::hb_release(&tag);
    sim::hb_acquire(&tag);
}
