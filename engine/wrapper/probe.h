/*
 * One call into a step as it is: what the step itself did, before the wrapper makes good of it. For checks of step types (the
 * conformance kit): nothing is bisected, imputed or kept from the step, empty batches are shown to it, too.
 *
 * Threads: as the wrapper's own calls. The wrapper must be loaded.
 */
#ifndef STM_WRAPPER_PROBE_H
#define STM_WRAPPER_PROBE_H

#include "wrapper/wrapper.h"

/** What one call put out. */
typedef struct stm_probe_part {
    mill_batch *batch;   /* declared output columns */
    mill_buffer *parent; /* int64 [rows] or NULL */
} stm_probe_part;
typedef struct stm_probe_out {
    stm_probe_part *parts; /* [n] */
    size_t n;
    int64_t *row_errors; /* [n_row_errors] rows that the step marked as failed */
    size_t n_row_errors;
    bool passed; /* mill_emit_pass */
} stm_probe_out;
/** Releases everything in it; leaves it empty. */
void stm_probe_out_fini(stm_probe_out *out);

/** Whether @p err tells of a breach of the rules of emitting rather than of a failure of the step's own. */
bool stm_probe_is_breach(const mill_error *err);

/** @p in: one batch with the columns that arrive, borrowed. @p out: empty; filled on success. */
mill_status stm_probe_process(stm_wrapper *w, const mill_batch *in, stm_probe_out *out, mill_error *err);
/** @p cursor is the caller's. *last as the step says it. */
mill_status stm_probe_generate(stm_wrapper *w, int64_t max_rows, mill_cursor *cursor, bool *last, stm_probe_out *out,
                               mill_error *err);
mill_status stm_probe_accept(stm_wrapper *w, int32_t input, const mill_batch *in, mill_error *err);
mill_status stm_probe_write(stm_wrapper *w, const mill_batch *in, mill_error *err);
/** Before load: open a sink at this place. */
void stm_probe_open_at(stm_wrapper *w, const mill_cursor *cursor);
/** Sinks: sync where the type has it. */
mill_status stm_probe_sync(stm_wrapper *w, mill_cursor *cursor, mill_error *err);

#endif
