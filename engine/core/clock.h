/* Time: one monotonic clock in nanoseconds, and the processor's counter for cheap intervals. */
#ifndef STM_CORE_CLOCK_H
#define STM_CORE_CLOCK_H

#include <stdint.h>

#define STM_NS_PER_S 1000000000LL
/** CLOCK_MONOTONIC in ns. Threads: any. */
int64_t stm_now_ns(void);
/** Ticks of a cheap counter (TSC where there is one). */
uint64_t stm_ticks(void);
/** Nanoseconds per tick, measured once at first use. */
double stm_ns_per_tick(void);

#endif
