/* Fault points: places where tests make the n-th call fail. One branch on a plain flag when unused. */
#ifndef STM_CORE_FAULT_H
#define STM_CORE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/** What a point stands for; a test arms any set of kinds. */
typedef enum stm_fault_kind {
    STM_FAULT_ALLOC = 1 << 0,
    STM_FAULT_LOAD = 1 << 1,    /* plugin, model, step load */
    STM_FAULT_PROCESS = 1 << 2, /* process, generate, accept, finish, write, route */
    STM_FAULT_EMIT = 1 << 3,
    STM_FAULT_READ = 1 << 4,
    STM_FAULT_WRITE = 1 << 5,
    STM_FAULT_OPEN = 1 << 6,
    STM_FAULT_THREAD = 1 << 7,
    STM_FAULT_DEVICE = 1 << 8
} stm_fault_kind;

/** Let the @p nth (from 0) passage through a point of @p kinds fail, once, counted over all threads. */
void stm_fault_arm(uint32_t kinds, int64_t nth);
/** Disarm; returns whether the fault fired. */
bool stm_fault_disarm(void);
bool stm_fault_fires_slow(uint32_t kind);
extern uint32_t stm_fault_kinds; /* armed kinds; written only while no engine thread runs */
/** Whether this passage is to fail. Threads: any. */
static inline bool stm_fault_fires(uint32_t kind)
{
    return __builtin_expect((stm_fault_kinds & kind) != 0, 0) && stm_fault_fires_slow(kind);
}

#endif
