/* How many requests a server is given at once: half as many when it says that it has too many, one more after every round in which
 * it does not. */
#ifndef STM_STEPS_HTTP_WIDTH_H
#define STM_STEPS_HTTP_WIDTH_H

#include <stdbool.h>
#include <stdint.h>

/** Caller's storage. Threads: one at a time. */
typedef struct stm_width {
    int32_t most;  /* what the user allows */
    int32_t now;   /* 1 .. most */
    int32_t least; /* what `now` was at its smallest */
    int32_t good;  /* answers of this round since `now` changed */
    /* Of requests; a new one begins with every halving. What was under way before says nothing about the lower number. */
    uint32_t round;
} stm_width;

/** @p most >= 1, which is where it begins. */
void stm_width_init(stm_width *w, int32_t most);
/** A request that was begun in @p round, when `under_way` of them were, itself included, was answered, or turned away for being one
 *  too many. */
void stm_width_answer(stm_width *w, uint32_t round, int32_t under_way, bool refused);

#endif
