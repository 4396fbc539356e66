/* What would make a run faster, from where its time went. */
#ifndef STM_TRACE_ADVICE_H
#define STM_TRACE_ADVICE_H

#include "trace/picture.h"

typedef enum stm_advice_kind {
    STM_ADVICE_NONE,     /* too short to say anything */
    STM_ADVICE_REPLICAS, /* more replicas of `step` */
    STM_ADVICE_FULL,     /* `step` is the slowest, and the processors have no room for more of it */
    STM_ADVICE_SINGLE,   /* `step` is the slowest, and there can be one replica of it only */
    STM_ADVICE_EVEN,     /* `step` is the slowest, but others are nearly as busy */
    STM_ADVICE_CROWDED,  /* nothing is busy all the time; work waits for processors */
    STM_ADVICE_WAITING   /* nothing is busy all the time, and processors are free */
} stm_advice_kind;

typedef struct stm_advice {
    stm_advice_kind kind;
    int32_t step, next;     /* the busiest; the second, -1 = none */
    double busy, next_busy; /* share of their replicas' time while rows moved through them */
    double processors;      /* share of them that was used */
    int32_t replicas;       /* REPLICAS: as many as pay */
    double seconds;         /* REPLICAS: what the run would take about */
} stm_advice;

/**
 * The throughput of a chain is that of its busiest step. With n times its replicas that step takes 1/n of the time, until the next
 * one is the busiest, or until the processors are full: all work grows with the throughput.
 */
stm_advice stm_advise(const stm_picture *p);
void stm_advice_say(const stm_picture *p, const stm_advice *a, stm_text *out);

#endif
