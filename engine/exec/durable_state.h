/* The store of a run, inside: shared by durable*.c. */
#ifndef STM_EXEC_DURABLE_STATE_H
#define STM_EXEC_DURABLE_STATE_H

#include "exec/durable.h"
#include "store/manifest.h"
#include "store/merged.h"
#include "store/owner.h"
#include "store/signature.h"

/* Where a station goes on. */
typedef struct stm_going_on {
    uint64_t item;        /* it makes, or takes, this item next; UINT64_MAX = it has finished */
    uint64_t skip;        /* terminals: items from there on that were done */
    stm_root_place root;  /* roots */
    void *checkpoint;     /* inlets: stm_inlet_checkpoint_bytes */
} stm_going_on;

/* A shard whose rows are put together with those of others. */
typedef struct stm_merge_shard {
    stm_files files;
    stm_vault *vault;
    int64_t errors; /* error records of the shards before it */
} stm_merge_shard;

struct stm_durable {
    stm_merge_shard *merge; /* [opts.shards]; NULL = this is no merge */
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

/** Whether part @p part has a sink. Of a run in shards it has a reader and sinks then, and nothing else; all other parts are in front of those. */
bool stm_durable_has_sink(const stm_run *run, int32_t part);
/** Open the shards, and see that they are all of the shards of one run. Nothing there is changed. */
mill_status stm_merge_open(stm_run *run, mill_error *err);
/** Whether part @p name of shard @p shard (from 0) is what @p want says, and finished. MILL_ERR_INVALID says what is not. */
mill_status stm_merge_check(const stm_run *run, int32_t shard, const char *name, const stm_signature *want, mill_error *err);
/** What the rows of the shards hang on, as a field of the signature of those who read them. */
void stm_merge_sign(const stm_run *run, stm_signature *out);
/** Error records of all shards. Before anything is read. */
mill_status stm_merge_errors(stm_run *run, mill_error *err);
/** The store's rows are those of all shards; from batch @p from on. @p name: of its stream. */
mill_status stm_merge_source(stm_run *run, stm_station *store, const char *name, const mill_type *type, uint64_t from, mill_error *err);
void stm_merge_close(stm_run *run);
/** Error records of stream @p stream of a vault, void ones as such; *n of them are added. */
mill_status stm_durable_errors_read(stm_run *run, const stm_vault *v, size_t stream, int64_t *n, mill_error *err);
/** The state of a part of which nothing is left to do. */
void stm_durable_encode_finished(const stm_run *run, stm_text *out);
/** Whether it is such a state. */
bool stm_durable_is_finished(const void *state, size_t n);

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
/** The run begins afresh: what steps noted in the run directory of work that they handed to others is gone. */
void stm_durable_forget(const stm_run *run);
/** Sinks may write: tell them which opening this is, keep the list of their files. After stm_vault_begin. */
mill_status stm_durable_outputs_open(stm_run *run, mill_error *err);

#endif
