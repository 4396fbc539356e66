// A bad address in a kernel becomes the device's sticky error, named with kernel, thread and block. Under a sanitizer, that
// one reports instead.
#include "gang.h"
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

namespace sim {

static struct sigaction previous_segv, previous_bus;

static void after_fault()
{
    to_scheduler();
    __builtin_trap(); // a fiber of a dead gang gets no second turn
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    if (!fiber) { // not ours: as if we had never been here
        sigaction(signal, signal == SIGBUS ? &previous_bus : &previous_segv, nullptr);
        return; // the instruction faults again
    }
    const char *at = static_cast<char *>(info->si_addr), *low = fiber->stack;
    if (at < low && at >= low - 4096)
        fail(cudaErrorLaunchFailure, "stack overflow in %s %s (STM_SIM_STACK_KIB)", gang->kernel->name,
             thread_name(*fiber).c_str());
    else
        fail(cudaErrorIllegalAddress, "illegal address %p in %s %s", info->si_addr, gang->kernel->name,
             thread_name(*fiber).c_str());
    // Goes on at after_fault, on the fiber's own stack, from its top: the faulting frame may be the reason.
    auto *uc = static_cast<ucontext_t *>(context);
    uc->uc_mcontext.gregs[REG_RSP] =
        static_cast<greg_t>(((reinterpret_cast<uintptr_t>(fiber->stack) + stack_bytes()) & ~uintptr_t(15)) - 264);
    uc->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(after_fault);
}

struct AltStack {
    char *memory = nullptr;
    ~AltStack()
    {
        if (!memory) return;
        stack_t off = {};
        off.ss_flags = SS_DISABLE;
        sigaltstack(&off, nullptr);
        free(memory);
    }
};

void catch_faults()
{
    if (under_asan() || under_tsan()) return;
    static const int once = [] {
        struct sigaction sa;
        memset(&sa, 0, sizeof sa);
        sa.sa_sigaction = on_fault;
        sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &sa, &previous_segv);
        sigaction(SIGBUS, &sa, &previous_bus);
        return 0;
    }();
    (void)once;
    static thread_local AltStack alt;
    if (!alt.memory) {
        stack_t ss = {};
        ss.ss_size = 65536;
        ss.ss_sp = alt.memory = static_cast<char *>(malloc(ss.ss_size));
        sigaltstack(&ss, nullptr);
    }
}

} // namespace sim
