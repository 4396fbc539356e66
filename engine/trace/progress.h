/* Progress of a run as text: a line, a table or JSON, from counters that the caller samples. */
#ifndef STM_TRACE_PROGRESS_H
#define STM_TRACE_PROGRESS_H

#include <stdint.h>

#include "stepmill/status.h"

typedef enum stm_progress_phase {
    STM_PROGRESS_WAITING,
    STM_PROGRESS_LOADING,
    STM_PROGRESS_RUNNING,
    STM_PROGRESS_DONE,
    STM_PROGRESS_FAILED
} stm_progress_phase;

typedef struct stm_progress_step {
    const char *name;
    int32_t kind; /* mill_kind */
    int32_t replicas, loaded;
    stm_progress_phase phase;
    int64_t rows_in, rows_out, rows_failed, queued_rows;
    int64_t busy_ns;    /* over all replicas */
    int64_t rows_total; /* generators: rows it will make, -1 = unknown; others -1 */
} stm_progress_step;

typedef enum stm_progress_style { STM_PROGRESS_LINE, STM_PROGRESS_TABLE, STM_PROGRESS_JSON } stm_progress_style;

/** Remembers the last sample, for rates. Threads: owner. */
typedef struct stm_progress stm_progress;
mill_status stm_progress_create(int32_t n_steps, stm_progress **out);
void stm_progress_destroy(stm_progress **p);
/** [n_steps] to be filled before stm_progress_show. */
stm_progress_step *stm_progress_steps(stm_progress *p);
/** Text of the sample in stm_progress_steps, taken @p elapsed_ns after the start. @p width: columns of the terminal (table).
 *  Valid until the next call; "" when out of memory. *lines = lines in it. */
const char *stm_progress_show(stm_progress *p, stm_progress_style style, int width, int64_t elapsed_ns, int *lines);

#endif
