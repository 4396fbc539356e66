/* A picture of a run as metrics in Prometheus' text format, version 0.0.4. */
#ifndef STM_TRACE_METRICS_H
#define STM_TRACE_METRICS_H

#include "trace/picture.h"

void stm_metrics_write(const stm_picture *p, stm_text *out);

#endif
