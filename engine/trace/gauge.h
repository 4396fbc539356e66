/* Rates and what is left, from one picture to the next. */
#ifndef STM_TRACE_GAUGE_H
#define STM_TRACE_GAUGE_H

#include "trace/picture.h"

typedef struct stm_gauge stm_gauge;
mill_status stm_gauge_create(int32_t n_steps, stm_gauge **out);
void stm_gauge_destroy(stm_gauge **g);
/**
 * Fill rate, busy, starved, blocked, crowded and eta_s of every step of @p p from its counters and those of the call before. Rates
 * cover about the last five seconds; at the end of a run those of the whole time in which rows moved. Threads: owner.
 */
void stm_gauge_read(stm_gauge *g, stm_picture *p);

#endif
