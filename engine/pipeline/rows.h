/* Rows of a batch as JSON text, for dry runs. */
#ifndef STM_PIPELINE_ROWS_H
#define STM_PIPELINE_ROWS_H

#include "core/text.h"
#include "plugin/step.h"

/** Append row @p row of a batch that sink @p step was to write: {"column": value, ...} with the names of the pipeline. */
void stm_row_json(const mill_step *step, const mill_batch *batch, int64_t row, stm_text *out);
/** Append value @p row of @p col (NULL = null). float32 gets the shortest text that reads back as the same value. */
void stm_value_of_column(const mill_column *col, int64_t row, stm_text *out);

#endif
