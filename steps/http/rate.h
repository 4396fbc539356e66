/* A rate of something per minute, as a bucket that fills while time goes by. */
#ifndef STM_STEPS_HTTP_RATE_H
#define STM_STEPS_HTTP_RATE_H

#include <stdint.h>

/** Caller's storage. Threads: one at a time. */
typedef struct stm_rate {
    double per_ns; /* 0 = no limit */
    double most;   /* what the bucket holds: six seconds' worth, at least 1 */
    double have;   /* below 0: owed, by one that cost more than the bucket holds or more than was thought */
    int64_t at_ns;
} stm_rate;

/** @p per_minute <= 0: no limit. The bucket is full at first. */
void stm_rate_init(stm_rate *r, double per_minute, int64_t now_ns);
/** How long until @p n may be taken, in ns; 0 = now. What is more than the bucket holds may go when it is full. */
int64_t stm_rate_wait(stm_rate *r, double n, int64_t now_ns);
/** Take @p n; negative gives back. */
void stm_rate_take(stm_rate *r, double n);

#endif
