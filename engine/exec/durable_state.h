/* The store of a run, inside: shared by durable*.c. */
#ifndef STM_EXEC_DURABLE_STATE_H
#define STM_EXEC_DURABLE_STATE_H

#include "exec/durable.h"
#include "store/manifest.h"
#include "store/merged.h"
#include "store/owner.h"
#include "store/signature.h"
#include "wrapper/choice.h"

/* Where a station goes on. */
typedef struct stm_going_on {
    uint64_t item;        /* it makes, or takes, this item next; UINT64_MAX = it has finished */
    uint64_t skip;        /* terminals: items from there on that were done */
    stm_root_place root;  /* roots */
    void *checkpoint;     /* inlets: stm_inlet_checkpoint_bytes */
} stm_going_on;

#define STM_MOST_RETRIES 64 /* of one run: bits of a part's state */
#define STM_KEY_MOST 64     /* elements of a key that rows are found by */

/* Rows of one root; [stations], by the station that founds their keys. */
typedef struct stm_root_rows {
    stm_row_range *ranges; /* in order, apart from each other */
    size_t n, cap;
} stm_root_rows;

typedef enum stm_part_retry {
    STM_PART_KEPT, /* as it is */
    STM_PART_ROWS, /* some rows run again */
    STM_PART_ALL   /* behind a global that runs again: all of it does */
} stm_part_retry;

/* A retry that has ended: RUN/retry.N. */
typedef struct stm_retry {
    stm_files files;
    stm_vault *vault;
    stm_root_rows *rows; /* [stations] that ran again */
    uint8_t *parts;      /* [parts] stm_part_retry */
} stm_retry;

/* What a run directory keeps, with the rows of its retries in place of those that failed. */
typedef struct stm_kept {
    const char *dir;
    const stm_vault *vault;
    uint64_t *retries;   /* [parts] bit N - 1: what retry N made of the part's streams counts */
    stm_retry *opened[STM_MOST_RETRIES]; /* when somebody reads them */
} stm_kept;

/* A shard whose rows are put together with those of others. */
typedef struct stm_merge_shard {
    stm_files files;
    stm_vault *vault;
    stm_kept kept;
    int64_t errors; /* error records of the shards before it */
} stm_merge_shard;

typedef struct stm_again stm_again; /* a retry at work: durable_again.c */
typedef struct stm_leave stm_leave; /* which rows of a stream others give */

struct stm_durable {
    char (*part_names)[STM_STREAM_NAME]; /* [n_parts] */
    stm_kept kept;
    uint64_t noted;   /* retries whose errors stand in the stream of errors */
    stm_again *again; /* NULL = this is no retry */
    bool again_signs; /* signatures are those of the retry, not those of what it runs again */
    stm_leave *leaves;
    stm_merge_shard *merge; /* [opts.shards]; NULL = this is no merge */
    stm_files files;
    stm_vault *vault;
    stm_owner *owner;
    stm_manifest *manifest;
    int64_t interval_ns, next_ns;
    bool broken; /* a commit failed: nothing more is written */
    bool complete; /* everything had finished when the directory was opened */
    bool *counts; /* [stations] when the directory was opened: something is kept of what was made of its rows */
    int32_t n_parts, errors_stream, rows_stream; /* rows_stream: a retry's, which rows */
    int64_t errors_written, errors_before; /* before: of those, the first are the shards', and stand in their directories */
    uint64_t graph;      /* hash of stations, inputs, roots: places of another graph mean nothing here */
    struct stm_lasting *lasting; /* [stations] */
    stm_going_on *now;      /* [stations] */
    int32_t *first_input; /* [stations] into need */
    uint64_t *need;
    stm_text state;
};

/* Who runs a part of a run in shards. */
typedef enum stm_part_share {
    STM_SHARE_SHARDS, /* the shards; their merge reads what they keep */
    STM_SHARE_BOTH,   /* a reader and sinks, nothing else: each shard with its rows, the merge with all */
    STM_SHARE_MERGE   /* globals, and what is behind them: the merge alone */
} stm_part_share;
stm_part_share stm_durable_share(const stm_run *run, int32_t part);
/** Whether part @p part has nothing to do in this run: of a merge what shards have done, of a shard what the merge will do. */
bool stm_durable_is_others(const stm_run *run, int32_t part);
/** Open the shards, and see that they are all of the shards of one run. Nothing there is changed. */
mill_status stm_merge_open(stm_run *run, mill_error *err);
/** Whether part @p part of shard @p shard (from 0) is what @p want says, and finished. MILL_ERR_INVALID says what is not. */
mill_status stm_merge_check(const stm_run *run, int32_t shard, int32_t part, const stm_signature *want, mill_error *err);
/** What the rows of the shards hang on, as a field of the signature of those who read them. */
void stm_merge_sign(const stm_run *run, stm_signature *out);
/** Error records of all shards. Before anything is read. */
mill_status stm_merge_errors(stm_run *run, mill_error *err);
/** The store's rows, stream @p name, are those of all shards; for reader @p r, which stands where it will go on. */
mill_status stm_merge_source(stm_run *run, const stm_station *r, stm_station *store, const char *name, const mill_type *type,
                             mill_error *err);
void stm_merge_close(stm_run *run);
/** A shard says which steps it leaves to the merge. */
void stm_merge_say_left(const stm_run *run);
/** Error records of stream @p stream of a vault into @p errors, void ones as such; *n of them are added. *retries, may be NULL:
 *  those that are noted there. */
mill_status stm_durable_errors_read(stm_errors *errors, const stm_vault *v, size_t stream, int64_t *n, uint64_t *retries,
                                    mill_error *err);
/** Those of this run directory. Records of what is begun over, and of failures that ended an attempt which is gone on with, are
 *  void from here on. */
mill_status stm_durable_errors_restore(stm_run *run, mill_error *err);
/** The state of a part of which nothing is left to do. */
void stm_durable_encode_finished(const stm_run *run, uint64_t retries, stm_text *out);
/** Whether it is such a state; *retries, may be NULL: whose rows count there. */
bool stm_durable_is_finished(const void *state, size_t n, uint64_t *retries);
/** Rows for readers that have nothing to do in this run (of a retry, of a shard) go to the disk alone. After states were
 *  restored. */
void stm_durable_mark_unread(stm_run *run);
/** A station that has nothing to do in this run, as if it had ended. */
void stm_durable_finish(stm_station *s);

/** MILL_ERR_NOMEM, of opening the run directory. */
mill_status stm_durable_no_memory(mill_error *err);

/* Parts (durable_parts.c). */
/** Give every station its part; how many there are. */
int32_t stm_durable_find_parts(stm_run *run);
/** What places in states are of. */
uint64_t stm_durable_graph(const stm_run *run);
/** A name for a terminal that no other has, and that stays the same when other steps come or go. */
void stm_durable_terminal_name(const stm_run *run, const stm_station *terminal, char out[STM_STREAM_NAME]);
/** above[i]: station i leads to the terminal, within its part; the terminal itself, too. @p above: [stations] */
void stm_durable_above(const stm_run *run, const stm_station *terminal, bool *above);
/** What a part hangs on. @p shard: of which it is, 1 ..; 0 = of none; -1 = of all, put together. */
mill_status stm_durable_sign(const stm_run *run, int32_t part, int32_t shard, stm_signature *out, mill_error *err);
/** Those fields of it that one of its terminals hangs on. */
mill_status stm_durable_sign_terminal(const stm_run *run, const stm_station *terminal, int32_t shard, stm_signature *out,
                                      mill_error *err);

/** To resume, or retry, is to begin nothing over: MILL_ERR_INVALID says what would be. @p old, @p now: NULL = there is no such
 *  part. MILL_OK: nothing. */
mill_status stm_durable_refuse(const stm_run *run, const stm_vault_part *old, const stm_vault_part *now, const char *name,
                               mill_error *err);
/** Columns of what a store keeps. */
const mill_type *stm_durable_store_type(const stm_run *run, const stm_station *s);

/* Frames of the stream of errors. */
#define STM_ERRORS_RECORD 1u
#define STM_ERRORS_VOID 2u  /* record number `label` is void from here on */
#define STM_ERRORS_RETRY 3u /* what retry number `label` says of errors stands in front of this */

#define STM_RETRY_STREAM "rows"
#define STM_RETRY_FIELD "rows that run again"
#define STM_RETRY_ROWS 1u /* a root's name [STM_STREAM_NAME], stm_row_range ... */
#define STM_RETRY_PART 2u /* label = stm_part_retry, a part's name [STM_STREAM_NAME] */
#define STM_RETRY_VOID 3u /* i64 ...: numbers of error records */

/* Retries (durable_retry.c): rows that ran again, in place of those that had failed. */
/** Open RUN/retry.N, which must have ended. */
mill_status stm_retry_open(const stm_run *run, const char *dir, int32_t number, stm_retry **out, mill_error *err);
void stm_retry_close(const stm_run *run, stm_retry **r);
/** What of @p vault a retry hangs on: the same only as long as nothing of that was made anew. */
uint64_t stm_retry_print(const stm_vault *v);
/** Whether a retry, by its part @p part, is one of what @p of keeps now. */
bool stm_retry_is_of(const stm_vault_part *part, uint64_t of);
typedef struct stm_stored_stream {
    const char *name;
    const mill_type *type;
    int32_t part, space; /* space: the station that founds its keys */
    bool output;         /* of a global: made anew as a whole, whichever rows came in again */
} stm_stored_stream;
/**
 * A stream that @p k keeps as inputs of stm_merged_create: its own rows and those of retries, each row once. @p only: no others
 * than these; @p but: without these; NULL = all. @p extra inputs fit behind them. *in: stm_free; its sources are the caller's until
 * stm_merged_create.
 */
mill_status stm_kept_inputs(stm_run *run, stm_kept *k, const stm_stored_stream *of, const stm_root_rows *only,
                            const stm_root_rows *but, int32_t extra, stm_merged_input **in, int32_t *n, mill_error *err);
/** Its store's rows are those that @p k keeps; for the reader behind it, which stands where it will go on. */
mill_status stm_kept_source(stm_run *run, stm_kept *k, stm_station *store, const stm_root_rows *only, mill_error *err);
void stm_kept_close(const stm_run *run, stm_kept *k);
/** The station that founds the keys of what arrives at input @p input of a station; -1: of what it stores. */
int32_t stm_station_key_space(const stm_station *s, int32_t input);
/** The root row that a key goes back to: the station that founds its numbers, -1 = the key is none of @p space; *row its number. */
int32_t stm_key_root(const stm_run *run, int32_t space, const int64_t *key, int32_t width, int64_t *row);
/** Errors of retries that count and are not noted yet: those of rows that ran again are void, those that they had are added. */
mill_status stm_retries_note(stm_run *run, mill_error *err);
/** The retry opts.put: whether it is of this run, as it is. Before stm_vault_begin. Opened in d->kept. */
mill_status stm_retry_check(stm_run *run, mill_error *err);
/** Part @p part when it is put in place, by its state before: *state gets that of now; *again: it is a part of sinks that get other
 *  rows. */
mill_status stm_retry_part(const stm_run *run, int32_t part, const stm_vault_part *old, stm_text *state, bool *again,
                           mill_error *err);
/** Parts with nothing but sinks and their readers: what they write is made of rows that are kept. */
bool stm_part_is_sinks(const stm_run *run, int32_t part);
void stm_leaves_free(stm_leave **l);

/* A retry at work (durable_again.c). */
/** Open the run, see that it is this pipeline's and has ended, take its errors over, choose rows and parts. After names are
 *  given. */
mill_status stm_again_open(stm_run *run, mill_error *err);
void stm_again_close(stm_run *run);
/** A field of every part's signature: of which rows of what. */
void stm_again_sign(const stm_run *run, stm_signature *out);
stm_part_retry stm_again_part(const stm_run *run, int32_t part);
/** Whether part @p part has nothing to do. */
bool stm_again_rests(const stm_run *run, int32_t part);
/** Write down which rows they are, after stm_vault_begin, into @p stream. */
mill_status stm_again_write(stm_run *run, size_t stream, mill_error *err);
/** Generators make the chosen rows only; sinks that are parts of others have nothing to do. After states were restored. */
void stm_again_choose(stm_run *run);
/** The store of a part that is kept: what its reader gets. */
mill_status stm_again_source(stm_run *run, stm_station *s, mill_error *err);
void stm_again_tick(stm_run *run);

/** Columns that arrive at input @p input of a global. */
const mill_type *stm_lane_type(const stm_station *s, int32_t input);
/** State of part @p part as bytes: of constant length. */
void stm_durable_encode(const stm_run *run, int32_t part, stm_text *out);
/** Put the part's stations there. MILL_ERR_DATA: it is no state of this graph. */
mill_status stm_durable_decode(stm_run *run, int32_t part, const void *bytes, size_t n, mill_error *err);
/** Whether a state is one of this graph, or of a part that has finished. */
bool stm_durable_fits(const stm_run *run, const void *state, size_t n);
/**
 * The state of part @p part with the stations that rest[i] where @p state has them, which fits the graph or says that all had
 * finished; all others begin over. Stations that rest lead only to such. MILL_ERR_DATA: as stm_durable_decode.
 */
mill_status stm_durable_encode_rests(const stm_run *run, int32_t part, const void *state, size_t n, const bool *rest, stm_text *out,
                                     mill_error *err);
/** Note what is there before opening @p epoch writes; for whoever supervises, too: a step may take the process along while it
 *  loads. */
mill_status stm_durable_footprint(stm_run *run, uint64_t epoch, mill_error *err);
/** The run directory is open: suspects that earlier processes left there count, unless all that they went into is begun over. */
void stm_durable_suspects(stm_run *run);
/** A commit is done: whoever supervises sees how far that is. */
void stm_durable_progress(const stm_run *run);
/** Error records since the last commit go into the next. */
mill_status stm_durable_errors_commit(stm_run *run, mill_error *err);
/** The run begins afresh: what steps noted in the run directory of work that they handed to others is gone. */
void stm_durable_forget(const stm_run *run);
/** Sinks may write: tell them which opening this is, keep the list of their files. After stm_vault_begin. */
mill_status stm_durable_outputs_open(stm_run *run, mill_error *err);

#endif
