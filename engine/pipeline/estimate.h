/* What steps are expected to get and need, as far as it can be told without running them: for `plan` and for placement. */
#ifndef STM_PIPELINE_ESTIMATE_H
#define STM_PIPELINE_ESTIMATE_H

#include "exec/plan.h"

typedef struct stm_estimate {
    int64_t rows; /* of a batch */
    int64_t input_bytes;
    mill_bound bound;
    bool bounded; /* the step type told */
} stm_estimate;

/** Of every step, into @p out [n_steps]. */
void stm_estimate_steps(const stm_plan *plan, stm_estimate *out);
/** Bytes of a row, texts guessed. */
int64_t stm_row_bytes(const stm_schema *columns);

#endif
