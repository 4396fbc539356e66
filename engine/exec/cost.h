/* What rows cost where they are going: the numbers behind `budget:`. */
#ifndef STM_EXEC_COST_H
#define STM_EXEC_COST_H

#include "batch/batch.h"
#include "plugin/step.h"

typedef struct stm_cost stm_cost;

/** Whether @p step has a budget in tokens that it cannot count: neither its type's `cost` nor its `bound` says anything of
 *  tokens. */
bool stm_cost_unknown(const mill_step *step);
/** How to price the rows that arrive at @p step; *out NULL where it has no budget. Borrows the step. @p n_inputs: of its inlet. */
mill_status stm_cost_create(const mill_step *step, int32_t n_inputs, stm_cost **out);
/** Sets *c to NULL, accepts NULL. */
void stm_cost_destroy(stm_cost **c);
/**
 * The cost of every row of @p b on input @p input of the inlet: int64 [rows] in a buffer of the batch's pool; *out NULL for a batch
 * without rows. Bytes: of the columns that the step reads (all, if it reads none). Tokens: as the step type counts them; what it
 * reads of other inputs is not there. Threads: any. Blocks: for as long as the step's `cost` does.
 */
mill_status stm_cost_rows(const stm_cost *c, int32_t input, const mill_batch *b, mill_buffer **out, mill_error *err);

#endif
