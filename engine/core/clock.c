#include "core/clock.h"

#include <stdatomic.h>
#include <time.h>

int64_t stm_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * STM_NS_PER_S + t.tv_nsec;
}

uint64_t stm_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return (uint64_t)stm_now_ns();
#endif
}

double stm_ns_per_tick(void)
{
    static _Atomic double cached; /* relaxed: every thread would measure the same */
    double v = atomic_load_explicit(&cached, memory_order_relaxed);

    if (v > 0.0) return v;
    {
        int64_t a = stm_now_ns(), b = a;
        uint64_t ta = stm_ticks();
        while (b - a < 200000) b = stm_now_ns(); /* 0.2 ms: good to 1e-4, and no start pays more */
        v = (double)(b - a) / (double)(stm_ticks() - ta);
    }
    atomic_store_explicit(&cached, v, memory_order_relaxed);
    return v;
}
