/* The store of a run, inside: shared by durable*.c. */
#ifndef STM_EXEC_DURABLE_STATE_H
#define STM_EXEC_DURABLE_STATE_H

#include "exec/durable.h"
#include "store/manifest.h"
#include "store/owner.h"
#include "store/signature.h"

/* Where a station goes on. */
typedef struct stm_going_on {
    uint64_t item;        /* it makes, or takes, this item next; UINT64_MAX = it has finished */
    uint64_t skip;        /* terminals: items from there on that were done */
    stm_root_place root;  /* roots */
    void *checkpoint;     /* inlets: stm_inlet_checkpoint_bytes */
} stm_going_on;

struct stm_durable {
    stm_files files;
    stm_vault *vault;
    stm_owner *owner;
    stm_manifest *manifest;
    int64_t interval_ns, next_ns;
    bool broken; /* a commit failed: nothing more is written */
    int32_t n_parts, errors_stream;
    int64_t errors_written;
    uint64_t graph;      /* hash of stations, inputs, roots: places of another graph mean nothing here */
    struct stm_lasting *lasting; /* [stations] */
    stm_going_on *now;      /* [stations] */
    int32_t *first_input; /* [stations] into need */
    uint64_t *need;
    stm_text state;
};

/** Columns that arrive at input @p input of a global. */
const mill_type *stm_lane_type(const stm_station *s, int32_t input);
/** State of part @p part as bytes: of constant length. */
void stm_durable_encode(const stm_run *run, int32_t part, stm_text *out);
/** Put the part's stations there. MILL_ERR_DATA: it is no state of this graph. */
mill_status stm_durable_decode(stm_run *run, int32_t part, const void *bytes, size_t n, mill_error *err);
/** Whether a state is one of this graph, or of a part that has finished. */
bool stm_durable_fits(const stm_run *run, const void *state, size_t n);
/** The part of a step; -1 = there is no such step any more. */
int32_t stm_durable_part_of(const stm_run *run, const char *step);
/** The run directory is open: suspects that earlier processes left there count, unless their part (kept[part]) runs again. */
void stm_durable_suspects(stm_run *run, const bool *kept);
/** A commit is done: whoever supervises sees how far that is. */
void stm_durable_progress(const stm_run *run);
/** Error records since the last commit go into the next. */
mill_status stm_durable_errors_commit(stm_run *run, mill_error *err);
/** Sinks may write: tell them which opening this is, keep the list of their files. After stm_vault_begin. */
mill_status stm_durable_outputs_open(stm_run *run, mill_error *err);

#endif
