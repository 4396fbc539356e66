/* errors.jsonl of a run directory: what failed, one record per line. */
#ifndef STM_TRACE_ERRORFILE_H
#define STM_TRACE_ERRORFILE_H

#include "core/text.h"
#include "stepmill/error.h"

/** One record as a line. @p first_key, @p last_key: "" = of no rows. */
void stm_error_line(const mill_error *e, int64_t id, int64_t rows, const char *first_key, const char *last_key, stm_text *out);
/** Add a failure that ended a run to what its file holds: of a process that ends it is nobody else's to write. A run that goes on
 *  after all writes the file anew. Blocks: on the disk. */
mill_status stm_error_file_add(const char *dir, const mill_error *e, mill_error *err);

#endif
