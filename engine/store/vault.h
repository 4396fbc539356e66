/*
 * The store of a run directory: streams of frames, and states, committed together.
 *
 *   open     finds out what the last commit left: parts (components of the graph) with their states, streams with their extents
 *   begin    opens the next epoch, which takes over what the caller keeps of that; from here on older files are only read
 *   append   to a stream; mark: so far the stream goes into the next commit; unmark: no further than into the last one
 *   commit   everything marked is made durable, then one record of constant size says so
 *
 * Nothing is ever changed in place, so whatever a process left behind that was killed, or goes on writing as a zombie, is
 * never read: docs/durable-runs.md has the files byte by byte and the proof.
 *
 * Threads: append and mark of different streams may overlap with each other; all else is serialised by the caller, and a
 * commit does not overlap with a mark.
 */
#ifndef STM_STORE_VAULT_H
#define STM_STORE_VAULT_H

#include "store/segment.h"

#define STM_SIGNATURE_BYTES 32

typedef struct stm_vault stm_vault;

/** A component of the graph: what it is, and how far it is. */
typedef struct stm_vault_part {
    const char *name; /* as a stream's */
    unsigned char signature[STM_SIGNATURE_BYTES];
    const void *fields; /* what the signature was made of, for messages; opaque here */
    size_t n_fields;
    const void *state; /* opaque here; of the same size in every commit if journal bytes are to be constant */
    size_t n_state;
} stm_vault_part;

typedef struct stm_vault_stream {
    const char *name;
    int32_t part;  /* index */
    bool complete; /* committed as ended */
    bool keep;     /* begin: go on behind what the stream of this name holds; else it begins anew */
    int64_t bytes, frames, rows; /* committed */
    uint64_t print; /* of what is committed: the same only for the same frames, written by the same openings */
} stm_vault_stream;

typedef struct stm_vault_opts {
    const stm_files *files; /* copied; its `user` must outlive the vault */
    uint64_t nonce;         /* of the next epoch; 0 = drawn */
    bool fresh;             /* take over nothing, not even the complaint about a damaged journal, or one of another version */
} stm_vault_opts;

/** Find out what is there. Changes nothing. @retval MILL_ERR_DATA  the journal is damaged beyond what a crash can do. Blocks: on
 *  the disk. */
mill_status stm_vault_open(const stm_vault_opts *opts, stm_vault **out, mill_error *err);
/** Closes files; what was not committed is lost. Sets *v to NULL, accepts NULL. */
void stm_vault_close(stm_vault **v);
/** Epoch found (before begin; 0 = none) or of this opening (after). Who wrote that epoch, as given to begin; "" = nobody. */
uint64_t stm_vault_epoch(const stm_vault *v);
const char *stm_vault_who(const stm_vault *v);
/** Epoch that begin would open: past everything there. */
uint64_t stm_vault_next_epoch(const stm_vault *v);
/** Commits of the epoch found, or of this one; bytes of its journal. */
int64_t stm_vault_commits(const stm_vault *v);
int64_t stm_vault_journal_bytes(const stm_vault *v);

/** What was found, after begin: what there is. Texts live until begin, then until close. */
size_t stm_vault_parts(const stm_vault *v);
stm_vault_part stm_vault_part_at(const stm_vault *v, size_t i);
size_t stm_vault_streams(const stm_vault *v);
stm_vault_stream stm_vault_stream_at(const stm_vault *v, size_t i);
/** Index of a name, -1 = none. */
int32_t stm_vault_find_part(const stm_vault *v, const char *name);
int32_t stm_vault_find_stream(const stm_vault *v, const char *name);

/** Open the next epoch. Parts and streams are copied, with their order as index from now on. @p who: text about this process.
 *  @retval MILL_ERR_BUSY  somebody else opened it at the same time. */
mill_status stm_vault_begin(stm_vault *v, const stm_vault_part *parts, size_t n_parts, const stm_vault_stream *streams,
                            size_t n_streams, const char *who, mill_error *err);
/** Append a frame to stream @p stream (not complete). Threads: one per stream. */
mill_status stm_vault_append(stm_vault *v, size_t stream, uint32_t kind, uint64_t label, int64_t rows, const stm_bytes *pieces,
                             size_t n, mill_error *err);
/** The next commit takes the stream up to here; @p complete: it has ended. Threads: as append. */
mill_status stm_vault_mark(stm_vault *v, size_t stream, bool complete, mill_error *err);
/** The next commit takes the stream as far as the last one did. Threads: as commit. */
void stm_vault_unmark(stm_vault *v, size_t stream);
/** State of part @p part in the next commit; copied. */
mill_status stm_vault_set_state(stm_vault *v, size_t part, const void *state, size_t n, mill_error *err);
/** Bytes appended to all streams since the last commit, about. Threads: any. */
int64_t stm_vault_pending(const stm_vault *v);
/**
 * Make all that is marked durable, and the states. On success it is what a later open finds; on failure that is still the commit
 * before (or, when the very last sync failed, either). MILL_ERR_IO after a failed write may be tried again; after a failed sync
 * every further commit fails.
 * Where nothing is new since the last one nothing is written.
 * @retval MILL_ERR_BUSY  the run directory was taken over by another process.
 */
mill_status stm_vault_commit(stm_vault *v, mill_error *err);

/** Read a stream from its beginning up to the last commit (before begin: what was found; after it: what was kept). */
mill_status stm_vault_read(const stm_vault *v, size_t stream, stm_segment_reader **out, mill_error *err);

#endif
