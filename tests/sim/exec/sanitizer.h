// The sanitizer runtimes' entry points, weak: null in a process without them, so one build of the engine serves all.
#pragma once
#include <cstddef>
extern "C" {
#define STM_WEAK __attribute__((weak))
STM_WEAK void *__tsan_create_fiber(unsigned flags);
STM_WEAK void __tsan_destroy_fiber(void *fiber);
STM_WEAK void __tsan_switch_to_fiber(void *fiber, unsigned flags);
STM_WEAK void *__tsan_get_current_fiber(void);
STM_WEAK void __tsan_acquire(void *tag);
STM_WEAK void __tsan_release(void *tag);
STM_WEAK void AnnotateIgnoreReadsBegin(const char *file, int line);
STM_WEAK void AnnotateIgnoreReadsEnd(const char *file, int line);
STM_WEAK void AnnotateIgnoreWritesBegin(const char *file, int line);
STM_WEAK void AnnotateIgnoreWritesEnd(const char *file, int line);
STM_WEAK void __sanitizer_start_switch_fiber(void **fake, const void *stack, size_t bytes);
STM_WEAK void __sanitizer_finish_switch_fiber(void *fake, const void **stack, size_t *bytes);
STM_WEAK void __asan_init(void);
STM_WEAK void __asan_poison_memory_region(const volatile void *at, size_t bytes);
STM_WEAK void __asan_unpoison_memory_region(const volatile void *at, size_t bytes);
#undef STM_WEAK
}

// The engine's own memory, as it works on behalf of a GPU thread (a thread to TSan), is no business of TSan's: what intercepted
// functions like memset do there would be reported as races. Not to be held while memory of the kernel is touched.
extern __thread int stm_sim_quiet_depth; // of the running fiber
inline void stm_sim_ignore(bool begin)
{
    if (!AnnotateIgnoreReadsBegin) return;
    if (begin) {
        AnnotateIgnoreReadsBegin("", 0);
        AnnotateIgnoreWritesBegin("", 0);
    } else {
        AnnotateIgnoreWritesEnd("", 0);
        AnnotateIgnoreReadsEnd("", 0);
    }
}
struct Quiet {
    Quiet()
    {
        if (stm_sim_quiet_depth++ == 0) stm_sim_ignore(true);
    }
    ~Quiet()
    {
        if (--stm_sim_quiet_depth == 0) stm_sim_ignore(false);
    }
    Quiet(const Quiet &) = delete;
    Quiet &operator=(const Quiet &) = delete;
};
